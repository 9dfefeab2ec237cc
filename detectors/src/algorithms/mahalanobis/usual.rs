//! What is usual for the columns of one instance together: their means and deviations, and what makes their covariance a sphere.
//!
//! A row is standardised, ended at thirty deviations (so that one dead sensor does not rule), and turned into the axes of the
//! covariance, each divided by the root of its variance, of .05 at least: axes along which next to nothing varied in the
//! training say more than others, but not without limit. Its length there is the Mahalanobis distance. A column has a
//! deviation of a hundredth of its largest value at least, or it would be abnormal whenever it first moves by a hair.
//!
//! Cost: n² multiply-adds a row, twice that for a row whose culprit is asked for; a fit takes rows · n² / 2, and the eigenvectors.
//! Memory: 4 n² bytes.

use super::{eigen::Eigen, rows::Rows};
use crate::bytes::{Reader, Writer};

/// Deviations that a cell counts as at most.
const CLIP: f64 = 30.0;

/// Share of a column's largest value that its deviation is at least; of 1 for a column of zeros.
const LEAST_DEVIATION: f64 = 0.01;

/// Variance that an axis has at least.
const LEAST_VARIANCE: f64 = 0.05;

/// Sums that are kept side by side, so that the compiler can use wide registers.
const LANES: usize = 8;

/// See the file's documentation.
#[derive(Clone, Debug, PartialEq)]
pub struct Usual {
    means: Vec<f64>,
    deviations: Vec<f64>,
    /// Means of the standardised and ended cells.
    centres: Vec<f64>,
    /// An axis a row: `[n, n]`.
    axes: Vec<f32>,
}

/// A row on its way, reused.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    standardised: Vec<f32>,
    turned: Vec<f32>,
}

impl Usual {
    /// That of these rows; none where they are fewer than two or have no column.
    pub fn of(rows: &Rows) -> Option<Self> {
        let (n, n_rows) = (rows.n_columns(), rows.len());
        if n == 0 || n_rows < 2 {
            return None;
        }
        let (means, counts) = averages(rows, |_, cell| cell);
        let (squares, _) = averages(rows, |column, cell| (cell - means[column]).powi(2));
        let mut largest = vec![0.0f64; n];
        for row in rows.iter() {
            let known = largest.iter_mut().zip(row).filter(|(_, cell)| cell.is_finite());
            known.for_each(|(largest, cell)| *largest = largest.max(f64::from(cell.abs())));
        }
        let deviation = |column: usize| {
            let least = LEAST_DEVIATION * if largest[column] > 0.0 { largest[column] } else { 1.0 };
            // A column of gaps only is never off.
            if counts[column] > 0.0 { squares[column].sqrt().max(least) } else { f64::MAX }
        };
        let deviations: Vec<f64> = (0..n).map(deviation).collect();
        let ended = |column: usize, cell: f64| ((cell - means[column]) / deviations[column]).clamp(-CLIP, CLIP);
        let (centres, _) = averages(rows, ended);
        let mut covariance = vec![0.0; n * n];
        let mut centred = vec![0.0; n];
        for row in rows.iter() {
            for (column, (centred, cell)) in centred.iter_mut().zip(row).enumerate() {
                let own = ended(column, f64::from(*cell)) - centres[column];
                *centred = if cell.is_finite() { own } else { 0.0 };
            }
            for (first, own) in centred.iter().enumerate() {
                let products = covariance[first * n + first..(first + 1) * n].iter_mut().zip(&centred[first..]);
                products.for_each(|(product, other)| *product += own * other);
            }
        }
        for first in 0..n {
            for second in first..n {
                covariance[first * n + second] /= (n_rows - 1) as f64;
                covariance[second * n + first] = covariance[first * n + second];
            }
        }
        let Eigen { values, vectors } = Eigen::of(covariance, n);
        let axes = vectors.chunks_exact(n).zip(&values).flat_map(|(vector, value)| {
            let length = value.max(LEAST_VARIANCE).sqrt();
            vector.iter().map(move |entry| (entry / length) as f32)
        });
        let axes = axes.collect();
        Some(Self { means, deviations, centres, axes })
    }

    pub fn n_columns(&self) -> usize {
        self.means.len()
    }

    pub fn mean(&self, column: usize) -> f64 {
        self.means[column]
    }

    pub fn deviation(&self, column: usize) -> f64 {
        self.deviations[column]
    }

    /// How far a row is from what is usual. What is not a number, or missing at its end, counts as usual.
    pub fn distance(&self, row: impl Iterator<Item = f64>, scratch: &mut Scratch) -> f64 {
        let n = self.n_columns();
        let Scratch { standardised, turned } = scratch;
        standardised.clear();
        standardised.extend(row.take(n).enumerate().map(|(column, cell)| {
            let ended = ((cell - self.means[column]) / self.deviations[column]).clamp(-CLIP, CLIP);
            if cell.is_finite() { (ended - self.centres[column]) as f32 } else { 0.0 }
        }));
        standardised.resize(n, 0.0);
        turned.clear();
        turned.extend(self.axes.chunks_exact(n).map(|axis| dot(axis, standardised)));
        turned.iter().map(|along| f64::from(*along).powi(2)).sum::<f64>().sqrt()
    }

    /// The column that contributes most to the square of the latest distance, and its share of it.
    pub fn culprit(&self, scratch: &Scratch) -> (usize, f64) {
        let n = self.n_columns();
        let Scratch { standardised, turned } = scratch;
        let mut gradient = vec![0.0f64; n];
        for (axis, along) in self.axes.chunks_exact(n).zip(turned) {
            let parts = gradient.iter_mut().zip(axis);
            parts.for_each(|(gradient, entry)| *gradient += f64::from(along * entry));
        }
        let parts: Vec<f64> = gradient.iter().zip(standardised).map(|(part, cell)| part * f64::from(*cell)).collect();
        let total: f64 = parts.iter().sum();
        let most = (0..n).max_by(|a, b| parts[*a].total_cmp(&parts[*b])).unwrap_or(0);
        (most, if total > 0.0 { parts[most] / total } else { 0.0 })
    }

    /// Memory that it takes.
    pub fn bytes(&self) -> usize {
        3 * self.n_columns() * size_of::<f64>() + self.axes.capacity() * size_of::<f32>()
    }

    pub fn write(&self, writer: &mut Writer) {
        writer.number(self.n_columns() as u64);
        for values in [&self.means, &self.deviations, &self.centres] {
            values.iter().for_each(|value| writer.double(*value));
        }
        writer.floats(&self.axes);
    }

    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let n = reader.length(24)?;
        let mut doubles = || (0..n).map(|_| reader.double()).collect::<Option<Vec<f64>>>();
        let (means, deviations, centres) = (doubles()?, doubles()?, doubles()?);
        let axes: Option<Vec<f32>> = (0..n.checked_mul(n)?).map(|_| reader.float()).collect();
        let is_fine = n > 0 && deviations.iter().all(|deviation| *deviation > 0.0);
        is_fine.then_some(Self { means, deviations, centres, axes: axes? })
    }
}

/// For each column the mean of what is made of its cells, and how many there are; 0 without any.
fn averages(rows: &Rows, value: impl Fn(usize, f64) -> f64) -> (Vec<f64>, Vec<f64>) {
    let n = rows.n_columns();
    let (mut sums, mut counts) = (vec![0.0; n], vec![0.0; n]);
    for row in rows.iter() {
        for (column, cell) in row.iter().enumerate().filter(|(_, cell)| cell.is_finite()) {
            sums[column] += value(column, f64::from(*cell));
            counts[column] += 1.0;
        }
    }
    let averages = sums.iter().zip(&counts).map(|(sum, n)| if *n > 0.0 { sum / n } else { 0.0 });
    (averages.collect(), counts)
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Two columns that move together, one that does not move, one of gaps.
    fn rows() -> Rows {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut rows = Rows::default();
        for _ in 0..2000 {
            let [load, noise] = [(); 2].map(|()| (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0);
            rows.push(&[50.0 + 10.0 * load, 500.0 + 100.0 * load + 20.0 * noise, 7.0, f64::NAN]);
        }
        rows
    }

    #[test]
    fn columns_that_leave_each_other_are_farther_off_than_ones_that_go_far_together() {
        let (usual, mut scratch) = (Usual::of(&rows()).expect("two thousand rows"), Scratch::default());
        let mut distance = |row: [f64; 4]| {
            let distance = usual.distance(row.into_iter(), &mut scratch);
            (distance, usual.culprit(&scratch).0)
        };
        let gap = f64::NAN;
        let together = distance([70.0, 700.0, 7.0, gap]).0;
        let apart = distance([70.0, 300.0, 7.0, gap]).0;
        assert!(together < 3.0 && apart > 10.0, "{together} {apart}");
        let (stuck, culprit) = distance([50.0, 500.0, 9.0, gap]);
        assert!(stuck > 10.0 && culprit == 2, "{stuck}: {culprit}");
        assert_eq!(distance([50.0, 500.0, 7.0, 1e9]), distance([50.0, 500.0, 7.0, gap]), "nothing is known of it");
        assert!(distance([gap, gap, 7.0, gap]).0 < 0.5, "a gap is as usual");
        assert!(distance([f64::MAX, f64::MIN, f64::MAX, f64::MIN]).0.is_finite());
    }

    #[test]
    fn too_few_rows_have_no_usual() {
        let mut rows = Rows::default();
        assert!(Usual::of(&rows).is_none());
        rows.push(&[1.0, 2.0]);
        assert!(Usual::of(&rows).is_none());
        rows.push(&[1.0, 2.0]);
        let usual = Usual::of(&rows).expect("two rows");
        assert_eq!(usual.distance([1.0, 2.0].into_iter(), &mut Scratch::default()), 0.0);
    }
}
