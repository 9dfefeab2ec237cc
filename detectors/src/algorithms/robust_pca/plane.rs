//! The directions in which the metrics of one instance move together, and how far each usually is off them.

use faer::Mat;
use serde::{Deserialize, Serialize};

use super::{Row, pcp::Pursuit};
use crate::calibrate::exact;

/// Columns at most that are left out of the projection of one row, as a share of all.
const MAX_LEFT_OUT: f64 = 0.5;

/// Usual distances beyond which a column is left out of the projection.
const FAR: f64 = 4.0;

/// What a row is measured against.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Plane {
    columns: Vec<Column>,
    directions: Vec<Direction>,
}

/// One of the orthonormal directions: a number for each column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Direction {
    #[serde(with = "exact::list")]
    weights: Vec<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Column {
    #[serde(with = "exact")]
    median: f64,
    /// Its interquartile range; 0 for a column that did not move and is left out.
    #[serde(with = "exact")]
    range: f64,
    /// Usual distance from the plane, in ranges.
    #[serde(with = "exact")]
    usual: f64,
}

/// The column of a row that is farthest off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Worst {
    pub column: usize,
    pub value: f64,
    pub expected: f64,
    /// In units of how far it usually is.
    pub distance: f64,
}

impl Plane {
    /// Fits rows, of which the older ones may lack columns at the end. None where nothing moves.
    pub fn fit(rows: &[Row], n_columns: usize, lambda: Option<f64>) -> Option<Self> {
        let value = |row: usize, column: usize| rows[row].0.get(column).map_or(f64::NAN, |value| f64::from(*value));
        let mut columns: Vec<Column> = (0..n_columns)
            .map(|column| {
                let mut known: Vec<f64> =
                    (0..rows.len()).map(|row| value(row, column)).filter(|v| v.is_finite()).collect();
                let [low, median, high] = quartiles(&mut known);
                Column { median, range: spread(&known, high - low), usual: 0.0 }
            })
            .collect();
        let matrix = Mat::from_fn(rows.len(), n_columns, |row, column| columns[column].scaled(value(row, column)));
        let parts = Pursuit { lambda, tolerance: 1e-5, ..Pursuit::default() }.decompose(matrix.as_ref())?;
        let direction = |idx: usize| Direction { weights: parts.basis.col_as_slice(idx).to_vec() };
        let directions = (0..parts.basis.ncols()).map(direction).collect();
        let mut plane = Self { columns: columns.clone(), directions };
        // How far off rows are when they are projected, failures among them: the median does not mind.
        let mut distances: Vec<Vec<f64>> = vec![Vec::new(); n_columns];
        for row in 0..rows.len() {
            let scaled: Vec<f64> = (0..n_columns).map(|column| matrix[(row, column)]).collect();
            for (column, off) in plane.off(&scaled, &vec![false; n_columns]).into_iter().enumerate() {
                if off.is_finite() {
                    distances[column].push(off.abs());
                }
            }
        }
        for (column, mut distances) in columns.iter_mut().zip(distances) {
            let [_, median, _] = quartiles(&mut distances);
            // A normal variable's deviation is 1.4826 times the median of its distances. A column that the plane repeats exactly still has noise.
            column.usual = if column.range > 0.0 { (1.4826 * median).max(0.02) } else { 0.0 };
        }
        plane.columns = columns;
        Some(plane)
    }

    pub fn rank(&self) -> usize {
        self.directions.len()
    }

    /// Whether a snapshot of it can be used for `n_columns` columns or fewer at the time.
    pub fn is_sound(&self, n_columns: usize) -> bool {
        let n = self.columns.len();
        let is_finite = |column: &Column| column.median.is_finite() && column.range >= 0.0 && column.usual >= 0.0;
        n <= n_columns
            && self.columns.iter().all(is_finite)
            && self.directions.iter().all(|direction| {
                direction.weights.len() == n && direction.weights.iter().all(|weight| weight.is_finite())
            })
    }

    /// The worst column of a row. Columns beyond those of the fit are not judged, gaps neither.
    pub fn judge(&self, row: &[f64]) -> Option<Worst> {
        let at = |idx: usize| row.get(idx).copied().unwrap_or(f64::NAN);
        let scaled: Vec<f64> = self.columns.iter().enumerate().map(|(idx, column)| column.scaled(at(idx))).collect();
        let mut left_out = vec![false; scaled.len()];
        let max_left_out = (MAX_LEFT_OUT * scaled.len() as f64) as usize;
        let mut off = self.off(&scaled, &left_out);
        for _ in 0..max_left_out {
            let Some((idx, distance)) = self.farthest(&off, &left_out) else { break };
            if distance <= FAR {
                break;
            }
            left_out[idx] = true;
            off = self.off(&scaled, &left_out);
        }
        let (column, distance) = self.farthest(&off, &[])?;
        let Column { median, range, .. } = self.columns[column];
        let value = at(column);
        Some(Worst { column, value, expected: median + (scaled[column] - off[column]) * range, distance })
    }

    /// The column that is farthest off in its own units, among those that are not left out.
    fn farthest(&self, off: &[f64], left_out: &[bool]) -> Option<(usize, f64)> {
        let columns = self.columns.iter().zip(off).enumerate();
        let judged = columns.filter(|(idx, (column, off))| {
            column.usual > 0.0 && off.is_finite() && !left_out.get(*idx).is_some_and(|is| *is)
        });
        judged.map(|(idx, (column, off))| (idx, off.abs() / column.usual)).max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// How far each column is off the plane through those that are known and not left out; NaN where it is not known.
    ///
    /// With columns left out the directions are no longer orthogonal on the rest; a few steps of least squares by conjugate
    /// gradients make up for it (exact after as many steps as there are directions).
    fn off(&self, scaled: &[f64], left_out: &[bool]) -> Vec<f64> {
        let is_used = |idx: usize| scaled[idx].is_finite() && !left_out[idx];
        let n_directions = self.directions.len();
        let along = |rest: &[f64]| -> Vec<f64> {
            let dot = |direction: &Direction| {
                direction
                    .weights
                    .iter()
                    .zip(rest)
                    .enumerate()
                    .filter(|(idx, _)| is_used(*idx))
                    .map(|(_, (d, r))| d * r)
                    .sum()
            };
            self.directions.iter().map(dot).collect()
        };
        let across = |weights: &[f64]| -> Vec<f64> {
            let mut sums = vec![0.0; scaled.len()];
            for (direction, weight) in self.directions.iter().zip(weights) {
                sums.iter_mut().zip(&direction.weights).for_each(|(sum, d)| *sum += weight * d);
            }
            sums
        };
        let mut weights = vec![0.0; n_directions];
        let mut residual = along(scaled);
        let mut search = residual.clone();
        let mut size: f64 = residual.iter().map(|r| r * r).sum();
        for _ in 0..n_directions.min(32) {
            if size <= 1e-20 {
                break;
            }
            let image = along(&across(&search));
            let curvature: f64 = search.iter().zip(&image).map(|(a, b)| a * b).sum();
            if curvature <= 0.0 {
                break;
            }
            let step = size / curvature;
            weights.iter_mut().zip(&search).for_each(|(weight, s)| *weight += step * s);
            residual.iter_mut().zip(&image).for_each(|(r, i)| *r -= step * i);
            let next: f64 = residual.iter().map(|r| r * r).sum();
            let ratio = next / size;
            search.iter_mut().zip(&residual).for_each(|(s, r)| *s = r + ratio * *s);
            size = next;
        }
        let likely = across(&weights);
        scaled.iter().zip(likely).map(|(value, likely)| value - likely).collect()
    }
}

impl Column {
    /// In ranges from the median; NaN where it is not known, 0 where the column does not move.
    fn scaled(&self, value: f64) -> f64 {
        const MOST: f64 = 1e6;
        if !value.is_finite() {
            f64::NAN
        } else if self.range > 0.0 {
            ((value - self.median) / self.range).clamp(-MOST, MOST)
        } else {
            0.0
        }
    }
}

/// Quartiles of what is known, which is sorted by the way; zeros for nothing.
fn quartiles(known: &mut [f64]) -> [f64; 3] {
    known.sort_by(f64::total_cmp);
    let at = |share: f64| known.get(((known.len().saturating_sub(1)) as f64 * share) as usize).copied().unwrap_or(0.0);
    [at(0.25), at(0.5), at(0.75)]
}

/// The interquartile range, or, for a column that rests most of the time, a quarter of its whole range.
fn spread(sorted: &[f64], interquartile: f64) -> f64 {
    match (sorted.first(), sorted.last()) {
        (Some(first), Some(last)) if interquartile <= 0.0 => (last - first) / 4.0,
        _ => interquartile,
    }
}
