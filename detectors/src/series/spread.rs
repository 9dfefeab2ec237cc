//! What a histogram or summary says of the values within an interval: count, sum, buckets.
//!
//! Increments of a cumulative histogram are the difference of two points; a count that has gone down means that it has begun
//! anew. Quantiles of explicit buckets are those of Prometheus' `histogram_quantile`: linear within a bucket, the first begins
//! at zero where its end is positive, the last is as wide as its lower end. Where the interval's own minimum and maximum are
//! given (delta temporality), they bound both. Exponential buckets: see [`Exponential`].

use std::sync::Arc;

use super::exponential::Exponential;

/// See the file's documentation.
#[derive(Clone, Debug)]
pub(super) struct Spread {
    /// Number of values.
    pub count: u64,
    /// Their sum, NaN when not given.
    pub sum: f64,
    /// The least, NaN when not given.
    pub min: f64,
    /// The greatest, NaN when not given.
    pub max: f64,
    pub shape: Shape,
}

/// How the values are spread.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// Not known.
    Unknown,
    /// Counts of buckets that end at given bounds, and of one above.
    Explicit {
        bounds: Arc<[f64]>,
        counts: Vec<u64>,
    },
    Exponential(Exponential),
    /// Values at the quantiles of a summary, NaN where one is missing; they are of no interval in particular.
    Quantiles(Box<[f64]>),
}

impl Spread {
    /// What has come since `earlier`; `None` when counts have gone down or buckets have changed.
    pub fn since(&self, earlier: &Self) -> Option<Self> {
        let count = self.count.checked_sub(earlier.count)?;
        let shape = match (&self.shape, &earlier.shape) {
            (Shape::Unknown, Shape::Unknown) => Shape::Unknown,
            (Shape::Explicit { bounds, counts }, Shape::Explicit { bounds: old_bounds, counts: old_counts })
                if Arc::ptr_eq(bounds, old_bounds) =>
            {
                let pairs = counts.iter().zip(old_counts);
                let counts: Option<Vec<u64>> = pairs.map(|(now, then)| now.checked_sub(*then)).collect();
                Shape::Explicit { bounds: Arc::clone(bounds), counts: counts? }
            }
            (Shape::Exponential(now), Shape::Exponential(then)) => Shape::Exponential(now.since(then)?),
            (Shape::Quantiles(values), Shape::Quantiles(_)) => Shape::Quantiles(values.clone()),
            _ => return None,
        };
        // The extremes of a cumulative histogram are those since its start.
        Some(Self { count, sum: self.sum - earlier.sum, min: f64::NAN, max: f64::NAN, shape })
    }

    /// Adds another interval. Where buckets differ the later ones stay.
    pub fn merge(&mut self, other: Self, is_other_later: bool) {
        self.count = self.count.saturating_add(other.count);
        self.sum += other.sum;
        // Extremes that one of them lacks are not those of both.
        self.min = if other.min < self.min || other.min.is_nan() { other.min } else { self.min };
        self.max = if other.max > self.max || other.max.is_nan() { other.max } else { self.max };
        match (&mut self.shape, other.shape) {
            (Shape::Explicit { bounds, counts }, Shape::Explicit { bounds: others, counts: more })
                if Arc::ptr_eq(bounds, &others) =>
            {
                counts.iter_mut().zip(more).for_each(|(count, more)| *count = count.saturating_add(more));
            }
            (Shape::Exponential(sketch), Shape::Exponential(more)) => sketch.merge(more),
            (shape, other) if is_other_later => *shape = other,
            _ => {}
        }
    }

    /// Mean of the values; NaN when there are none.
    pub fn mean(&self) -> f64 {
        if self.count == 0 { f64::NAN } else { self.sum / self.count as f64 }
    }

    /// The value below which a share `q` lies, `q` being the `nth` of those that are asked for; NaN when not known.
    pub fn quantile(&self, nth: usize, q: f64) -> f64 {
        let value = match &self.shape {
            Shape::Unknown => f64::NAN,
            Shape::Explicit { bounds, counts } => explicit_quantile(q, bounds, counts, self.min, self.max),
            Shape::Exponential(sketch) => sketch.quantile(q),
            Shape::Quantiles(values) => return values.get(nth).copied().unwrap_or(f64::NAN),
        };
        // `max` and `min` keep the other one where one is NaN.
        if value.is_nan() { value } else { value.max(self.min).min(self.max) }
    }

    /// Memory beside the struct itself. Bounds are shared.
    pub fn heap_bytes(&self) -> usize {
        match &self.shape {
            Shape::Unknown => 0,
            Shape::Explicit { counts, .. } => counts.capacity() * size_of::<u64>(),
            Shape::Exponential(sketch) => sketch.heap_bytes(),
            Shape::Quantiles(values) => size_of_val(&**values),
        }
    }
}

/// Quantile by linear interpolation within the bucket that holds it.
fn explicit_quantile(q: f64, bounds: &[f64], counts: &[u64], min: f64, max: f64) -> f64 {
    let total: f64 = counts.iter().map(|count| *count as f64).sum();
    if total <= 0.0 {
        return f64::NAN;
    }
    let rank = q * total;
    let mut below = 0.0;
    let mut idx = 0;
    for (bucket, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        idx = bucket;
        if below + *count as f64 >= rank {
            break;
        }
        below += *count as f64;
    }
    let lower = match (idx.checked_sub(1).and_then(|before| bounds.get(before)), bounds.first()) {
        (Some(bound), _) => *bound,
        (None, _) if !min.is_nan() => min,
        (None, Some(first)) if *first <= 0.0 => *first,
        (None, Some(_)) => 0.0,
        (None, None) => f64::NAN,
    };
    let upper = match bounds.get(idx) {
        Some(bound) => *bound,
        None if !max.is_nan() => max,
        None => lower,
    };
    let fraction = ((rank - below) / counts[idx] as f64).clamp(0.0, 1.0);
    lower + (upper - lower) * fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explicit(bounds: &Arc<[f64]>, counts: &[u64]) -> Spread {
        let shape = Shape::Explicit { bounds: Arc::clone(bounds), counts: counts.to_vec() };
        Spread { count: counts.iter().sum(), sum: 0.0, min: f64::NAN, max: f64::NAN, shape }
    }

    #[test]
    fn quantiles_of_buckets_are_those_of_prometheus() {
        let bounds: Arc<[f64]> = Arc::from([1.0, 2.0, 4.0]);
        let spread = explicit(&bounds, &[2, 4, 2, 0]);
        assert_eq!(spread.quantile(0, 0.5), 1.5);
        assert_eq!(spread.quantile(0, 0.125), 0.5, "the first bucket begins at zero");
        assert_eq!(spread.quantile(0, 1.0), 4.0);
        assert_eq!(explicit(&bounds, &[0, 0, 0, 9]).quantile(0, 0.5), 4.0, "beyond the last bound: the last bound");
        assert!(explicit(&bounds, &[0, 0, 0, 0]).quantile(0, 0.5).is_nan());
        let below_zero: Arc<[f64]> = Arc::from([-1.0, 2.0]);
        assert_eq!(explicit(&below_zero, &[4, 0, 0]).quantile(0, 0.5), -1.0, "a first bucket below zero is its end");
        let none: Arc<[f64]> = Arc::from([]);
        assert!(explicit(&none, &[3]).quantile(0, 0.5).is_nan(), "one bucket says nothing");
    }

    #[test]
    fn extremes_bound_the_outer_buckets() {
        let bounds: Arc<[f64]> = Arc::from([10.0, 20.0]);
        let spread = Spread { min: 8.0, max: 40.0, ..explicit(&bounds, &[2, 0, 2]) };
        assert_eq!(spread.quantile(0, 0.25), 9.0);
        assert_eq!(spread.quantile(0, 0.75), 30.0);
        assert_eq!(spread.quantile(0, 1.0), 40.0);
    }

    #[test]
    fn increments_need_the_same_buckets_and_no_loss() {
        let (bounds, others): (Arc<[f64]>, Arc<[f64]>) = (Arc::from([1.0]), Arc::from([2.0]));
        let (before, after) = (explicit(&bounds, &[1, 2]), explicit(&bounds, &[4, 2]));
        let Some(Spread { count: 3, shape: Shape::Explicit { counts, .. }, .. }) = after.since(&before) else {
            panic!("three more");
        };
        assert_eq!(counts, [3, 0]);
        assert!(before.since(&after).is_none());
        assert!(explicit(&others, &[9, 9]).since(&before).is_none());
        // The total has grown, but one bucket has lost.
        assert!(explicit(&bounds, &[0, 9]).since(&before).is_none());
    }

    #[test]
    fn intervals_add_up() {
        let bounds: Arc<[f64]> = Arc::from([1.0]);
        let mut both = Spread { sum: 2.0, min: 0.5, max: 3.0, ..explicit(&bounds, &[1, 2]) };
        both.merge(Spread { sum: 4.0, min: 0.25, max: 2.0, ..explicit(&bounds, &[1, 0]) }, true);
        assert_eq!((both.count, both.mean(), both.min, both.max), (4, 1.5, 0.25, 3.0));
        both.merge(explicit(&bounds, &[1, 0]), true);
        assert!(both.min.is_nan() && both.max.is_nan());
    }
}
