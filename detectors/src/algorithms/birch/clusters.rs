//! The clusters of one instance, in the units of its columns; distances are in ranges of the columns.

use std::sync::Arc;

use crate::bytes::{Reader, Writer};

/// Clusters of an instance, at most.
const MAX_CLUSTERS: usize = 64;

/// Rows before anything is judged.
const MIN_ROWS: u32 = 60;

/// Rows before any counts as abnormal: until then clusters and their threshold take the shape of the instance.
const SETTLED: u32 = 500;

/// Share of the weight of all clusters from which on one is normal, and the rows it takes at least.
const NORMAL: (f64, f64) = (1.0 / 200.0, 3.0);

/// Thresholds beyond a cluster from which on a row is abnormal, and the weight of such a row; others have a weight of 1.
const ABNORMAL: (f64, f64) = (1.0, 0.1);

/// Weight below which a cluster is forgotten.
const FORGOTTEN: f64 = 0.02;

/// Weight below which a cluster gives way to another.
const ABNORMAL_ONLY: f64 = 0.5;

/// Times its range that a column grows by a row, once it is warm: an outlier is not to hide the next.
const GROWTH: f64 = 0.1;

/// No column is farther off than so many ranges.
const FAR: f64 = 1e6;

/// Values are cut to this, so that no square overflows.
const MOST: f64 = 1e30;

/// Ranges smaller than this share of the values are rounding.
const ROUNDING: f64 = 1e-9;

/// A row against the nearest normal cluster.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// Distance beyond the radius, in thresholds.
    pub beyond: f64,
    /// The column that is farthest off.
    pub column: usize,
    /// What it is in the cluster.
    pub expected: f64,
    /// Distance from the centre, the cluster's radius and the threshold, in ranges.
    pub distance: f64,
    pub radius: f64,
    pub threshold: f64,
}

/// The lowest and highest of a column; not a number before its first value.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Range {
    low: f64,
    high: f64,
}

impl Range {
    /// Its width; none where the column does not vary.
    fn width(self) -> Option<f64> {
        let width = self.high - self.low;
        (width > (ROUNDING * self.low.abs().max(self.high.abs())).max(f64::MIN_POSITIVE)).then_some(width)
    }

    fn take(&mut self, value: f64, is_warm: bool) {
        let most = match self.width() {
            Some(width) if is_warm => GROWTH * width,
            _ => f64::INFINITY,
        };
        self.low = self.low.min(value.max(self.low - most));
        self.high = self.high.max(value.min(self.high + most));
    }
}

/// Weight, and mean of the squared distances from the centre.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Feature {
    weight: f64,
    spread: f64,
}

/// See the file's documentation.
#[derive(Clone, Debug)]
pub struct Clusters {
    threshold: f64,
    n_rows: u32,
    columns: Vec<Arc<str>>,
    ranges: Vec<Range>,
    features: Vec<Feature>,
    /// `[n_clusters, n_columns]`.
    centres: Vec<f64>,
    /// The row at hand, its gaps filled from the nearest cluster; reused.
    row: Vec<f64>,
}

impl Clusters {
    /// None yet.
    pub fn new(threshold: f64) -> Self {
        let (columns, ranges, features, centres, row) = Default::default();
        Self { threshold, n_rows: 0, columns, ranges, features, centres, row }
    }

    /// Whether these are its columns, with or without new ones at the end.
    pub fn fits(&self, columns: &[Arc<str>]) -> bool {
        self.columns.len() <= columns.len() && self.columns.iter().zip(columns).all(|(own, other)| own == other)
    }

    /// Takes note of columns at the end. They are as far from every centre as a gap is: not at all, until their first value.
    pub fn widen(&mut self, columns: &[Arc<str>]) {
        let (n_old, n_new) = (self.columns.len(), columns.len());
        if n_old == n_new {
            return;
        }
        self.columns.extend(columns[n_old..].iter().cloned());
        self.ranges.resize(n_new, Range { low: f64::INFINITY, high: f64::NEG_INFINITY });
        let mut centres = Vec::with_capacity(self.features.len() * n_new);
        for idx in 0..self.features.len() {
            centres.extend_from_slice(&self.centres[idx * n_old..(idx + 1) * n_old]);
            centres.resize((idx + 1) * n_new, 0.0);
        }
        self.centres = centres;
        self.row.resize(n_new, f64::NAN);
    }

    /// Judges a row, none while there is nothing to go by; then learns it.
    pub fn observe(&mut self, row: &[f64], memory_rows: u32) -> Option<Judged> {
        self.row.fill(f64::NAN);
        for (own, value) in self.row.iter_mut().zip(row) {
            *own = if value.is_finite() { value.clamp(-MOST, MOST) } else { f64::NAN };
        }
        let (n_known, n_columns) = (self.row.iter().filter(|value| !value.is_nan()).count(), self.row.len());
        if n_known == 0 || 2 * n_known < n_columns {
            return None;
        }
        let judged = if self.n_rows < MIN_ROWS { None } else { self.judge() };
        let is_warm = self.n_rows >= MIN_ROWS;
        for column in 0..n_columns {
            self.begin(column);
            let value = self.row[column];
            if !value.is_nan() {
                self.ranges[column].take(value, is_warm);
            }
        }
        self.age(memory_rows);
        let is_abnormal = self.n_rows >= SETTLED && judged.is_some_and(|judged| judged.beyond > ABNORMAL.0);
        self.learn(if is_abnormal { ABNORMAL.1 } else { 1.0 });
        self.n_rows = self.n_rows.saturating_add(1);
        judged
    }

    /// Memory that they hold elsewhere; names are shared with the series station.
    pub fn heap_bytes(&self) -> usize {
        let columns = self.columns.capacity() * size_of::<Arc<str>>() + self.ranges.capacity() * size_of::<Range>();
        let clusters = self.features.capacity() * size_of::<Feature>();
        columns + clusters + (self.centres.capacity() + self.row.capacity()) * size_of::<f64>()
    }

    fn centre(&self, idx: usize) -> &[f64] {
        let n_columns = self.columns.len();
        &self.centres[idx * n_columns..(idx + 1) * n_columns]
    }

    /// Squared distance of two rows: the mean over the columns that vary and that both have.
    fn distance(&self, one: &[f64], other: &[f64]) -> f64 {
        let (mut sum, mut n_known) = (0.0, 0.0);
        for ((range, one), other) in self.ranges.iter().zip(one).zip(other) {
            if let Some(width) = range.width()
                && !one.is_nan()
                && !other.is_nan()
            {
                let off = ((one - other) / width).clamp(-FAR, FAR);
                sum += off * off;
                n_known += 1.0;
            }
        }
        if n_known > 0.0 { sum / n_known } else { 0.0 }
    }

    /// The cluster nearest to the row, of those that `counts`, and the squared distance.
    fn nearest(&self, counts: impl Fn(&Feature) -> bool) -> Option<(usize, f64)> {
        let mut nearest: Option<(usize, f64)> = None;
        for (idx, _) in self.features.iter().enumerate().filter(|(_, feature)| counts(feature)) {
            let distance = self.distance(&self.row, self.centre(idx));
            if nearest.is_none_or(|(_, least)| distance < least) {
                nearest = Some((idx, distance));
            }
        }
        nearest
    }

    fn judge(&self) -> Option<Judged> {
        let weight = self.features.iter().map(|feature| feature.weight).sum::<f64>();
        let least = (NORMAL.0 * weight).max(NORMAL.1);
        let (idx, squared) = self.nearest(|feature| feature.weight >= least)?;
        let off = |column: usize| {
            let off = (self.row[column] - self.centre(idx)[column]).abs() / self.ranges[column].width()?;
            (!off.is_nan()).then_some((column, off))
        };
        let offs = (0..self.row.len()).filter_map(off);
        let (column, _) = offs.reduce(|worst, own| if own.1 > worst.1 { own } else { worst })?;
        let (distance, radius, threshold) = (squared.sqrt(), self.features[idx].spread.sqrt(), self.threshold);
        let beyond = (distance - radius) / threshold;
        Some(Judged { beyond, column, expected: self.centre(idx)[column], distance, radius, threshold })
    }

    /// The first value of a column is that of all clusters.
    fn begin(&mut self, column: usize) {
        let value = self.row[column];
        if self.ranges[column].high < self.ranges[column].low && !value.is_nan() {
            let n_columns = self.columns.len();
            self.centres.iter_mut().skip(column).step_by(n_columns).for_each(|centre| *centre = value);
        }
    }

    fn age(&mut self, memory_rows: u32) {
        let kept = 1.0 - 1.0 / f64::from(memory_rows.max(2));
        self.features.iter_mut().for_each(|feature| feature.weight *= kept);
        for idx in (0..self.features.len()).rev() {
            if self.features[idx].weight < FORGOTTEN {
                self.remove(idx);
            }
        }
    }

    fn remove(&mut self, idx: usize) {
        let n_columns = self.columns.len();
        self.features.remove(idx);
        self.centres.drain(idx * n_columns..(idx + 1) * n_columns);
    }

    /// The row joins the nearest cluster or founds one.
    fn learn(&mut self, row_weight: f64) {
        let nearest = self.nearest(|_| true);
        let n_columns = self.columns.len();
        if let Some((idx, distance)) = nearest {
            let Feature { weight, spread } = self.features[idx];
            let share = row_weight / (weight + row_weight);
            // The radius of the cluster with the row in it: equation 2 of BIRCH, by weights.
            let merged = (1.0 - share) * (spread + share * distance);
            let centre = &mut self.centres[idx * n_columns..(idx + 1) * n_columns];
            self.row.iter_mut().zip(&*centre).filter(|(own, _)| own.is_nan()).for_each(|(own, centre)| *own = *centre);
            if merged <= self.threshold.powi(2) && distance <= (2.0 * self.threshold).powi(2) {
                centre.iter_mut().zip(&self.row).for_each(|(centre, own)| *centre += share * (own - *centre));
                self.features[idx] = Feature { weight: weight + row_weight, spread: merged };
                return;
            }
        }
        if self.features.len() == MAX_CLUSTERS {
            self.make_room();
        }
        self.features.push(Feature { weight: row_weight, spread: 0.0 });
        // What no cluster knows either has no value yet, and gets that of its first.
        self.centres.extend(self.row.iter().map(|value| if value.is_nan() { 0.0 } else { *value }));
    }

    /// Drops the lightest cluster, if only abnormal rows made it; joins two where all are more than that.
    fn make_room(&mut self) {
        let weights = self.features.iter().map(|feature| feature.weight).enumerate();
        match weights.min_by(|one, other| one.1.total_cmp(&other.1)) {
            Some((lightest, weight)) if weight < ABNORMAL_ONLY => self.remove(lightest),
            _ => self.join_nearest(),
        }
    }

    /// Makes one of the two clusters that are nearest to each other; their distance is the new threshold if it is larger.
    fn join_nearest(&mut self) {
        let mut nearest = (0, 1, f64::INFINITY);
        for one in 0..self.features.len() {
            for other in one + 1..self.features.len() {
                let distance = self.distance(self.centre(one), self.centre(other));
                if distance < nearest.2 {
                    nearest = (one, other, distance);
                }
            }
        }
        let (one, other, distance) = nearest;
        let [first, second] = [self.features[one], self.features[other]];
        let share = second.weight / (first.weight + second.weight);
        let n_columns = self.columns.len();
        for column in 0..n_columns {
            let value = self.centres[other * n_columns + column];
            let centre = &mut self.centres[one * n_columns + column];
            *centre += share * (value - *centre);
        }
        let spread = (1.0 - share) * first.spread + share * second.spread + share * (1.0 - share) * distance;
        self.features[one] = Feature { weight: first.weight + second.weight, spread };
        self.threshold = self.threshold.max(distance.sqrt());
        self.remove(other);
    }

    /// Writes it.
    pub fn write(&self, writer: &mut Writer) {
        writer.double(self.threshold);
        writer.word(self.n_rows);
        writer.number(self.columns.len() as u64);
        for (column, range) in self.columns.iter().zip(&self.ranges) {
            writer.text(column);
            // A column without a value has no range.
            let has_value = range.low <= range.high;
            writer.byte(u8::from(has_value));
            let Range { low, high } = if has_value { *range } else { Range { low: 0.0, high: 0.0 } };
            writer.double(low);
            writer.double(high);
        }
        writer.number(self.features.len() as u64);
        for feature in &self.features {
            writer.double(feature.weight);
            writer.double(feature.spread);
        }
        self.centres.iter().for_each(|value| writer.double(*value));
    }

    /// Reads what [`Self::write`] wrote.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let mut own = Self::new(reader.double().filter(|threshold| *threshold > 0.0)?);
        own.n_rows = reader.word()?;
        for _ in 0..reader.length(25)? {
            own.columns.push(reader.text()?);
            let (has_value, low, high) = (reader.is()?, reader.double()?, reader.double()?);
            let none = Range { low: f64::INFINITY, high: f64::NEG_INFINITY };
            own.ranges.push(if has_value { Range { low, high } } else { none });
        }
        for _ in 0..reader.length(16).filter(|n_clusters| *n_clusters <= MAX_CLUSTERS)? {
            own.features.push(Feature { weight: reader.double()?, spread: reader.double()? });
        }
        for _ in 0..own.features.len().checked_mul(own.columns.len())? {
            own.centres.push(reader.double()?);
        }
        own.row.resize(own.columns.len(), f64::NAN);
        Some(own)
    }
}
