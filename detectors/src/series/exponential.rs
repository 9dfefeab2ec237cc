//! Exponential histograms of bounded size, as in the OpenTelemetry metrics data model ("ExponentialHistogram"): bucket `i`
//! of scale `s` holds values in (2^(i / 2^s), 2^((i + 1) / 2^s)]. Two adjacent buckets are one of the scale below, so any
//! two histograms can be brought to a common scale, and one that has too many buckets halves them. The relative error of a
//! quantile is at most a bucket's width, 2^(2^-s) − 1: 4.4 % at scale 4, 9.1 % at scale 3.
//!
//! Used for exponential histograms that arrive, and as the sketch of span durations (it is DDSketch, Masson et al., VLDB
//! 2019, with bases that are powers of one another). A value costs a logarithm; merging costs [`MAX_BINS`].

/// Buckets that are kept of each sign.
pub(super) const MAX_BINS: usize = 64;

/// Where a sketch of observations begins: 64 buckets hold values that differ by a factor of 16 before they are halved.
const FIRST_SCALE: i32 = 4;

/// Scales that the data model allows.
const SCALES: std::ops::RangeInclusive<i32> = -10..=20;

/// See the file's documentation.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Exponential {
    scale: i32,
    zero: u64,
    positive: Buckets,
    negative: Buckets,
}

/// Counts of buckets `offset`, `offset + 1` and so on.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Buckets {
    offset: i64,
    counts: Vec<u64>,
}

impl Default for Exponential {
    fn default() -> Self {
        Self { scale: FIRST_SCALE, zero: 0, positive: Buckets::default(), negative: Buckets::default() }
    }
}

impl Exponential {
    /// One that has arrived; `None` when its scale is not a valid one.
    pub fn read(scale: i32, zero: u64, positive: Buckets, negative: Buckets) -> Option<Self> {
        if !SCALES.contains(&scale) {
            return None;
        }
        let mut histogram = Self { scale, zero, positive, negative };
        while histogram.positive.counts.len().max(histogram.negative.counts.len()) > MAX_BINS {
            histogram.halve();
        }
        Some(histogram)
    }

    /// Adds one value, which must be finite; nothing below zero is told from zero.
    pub fn observe(&mut self, value: f64) {
        if value <= 0.0 {
            self.zero = self.zero.saturating_add(1);
            return;
        }
        let mut idx = (value.log2() * f64::from(self.scale).exp2()).ceil() as i64 - 1;
        while self.positive.span_with(idx, idx) > MAX_BINS as i64 {
            self.halve();
            idx >>= 1;
        }
        self.positive.cover(idx, idx);
        self.positive.bump(idx, 1);
    }

    /// Adds the counts of another.
    pub fn merge(&mut self, mut other: Self) {
        while self.scale > other.scale {
            self.halve();
        }
        while other.scale > self.scale {
            other.halve();
        }
        while self.positive.span_of_both(&other.positive).max(self.negative.span_of_both(&other.negative))
            > MAX_BINS as i64
        {
            self.halve();
            other.halve();
        }
        self.zero = self.zero.saturating_add(other.zero);
        self.positive.add(&other.positive);
        self.negative.add(&other.negative);
    }

    /// What has come since `earlier`; `None` when a bucket has lost counts, so that it must have begun anew.
    pub fn since(&self, earlier: &Self) -> Option<Self> {
        let mut now = self.clone();
        while now.scale > earlier.scale {
            now.halve();
        }
        let mut halved;
        let mut then = earlier;
        if then.scale > now.scale {
            halved = earlier.clone();
            while halved.scale > now.scale {
                halved.halve();
            }
            then = &halved;
        }
        now.zero = now.zero.checked_sub(then.zero)?;
        now.positive.subtract(&then.positive)?;
        now.negative.subtract(&then.negative)?;
        Some(now)
    }

    /// The value below which a share `q` lies, by geometric interpolation within the bucket; NaN when it is empty.
    pub fn quantile(&self, q: f64) -> f64 {
        let total = self.zero as f64 + self.positive.total() + self.negative.total();
        if total <= 0.0 {
            return f64::NAN;
        }
        let rank = q * total;
        let mut below = 0.0;
        let mut last = 0.0;
        for (idx, count) in self.negative.filled().rev() {
            let fraction = ((rank - below) / count as f64).clamp(0.0, 1.0);
            last = -self.value(idx, 1.0 - fraction);
            below += count as f64;
            if below >= rank {
                return last;
            }
        }
        if self.zero > 0 {
            last = 0.0;
            below += self.zero as f64;
            if below >= rank {
                return last;
            }
        }
        for (idx, count) in self.positive.filled() {
            let fraction = ((rank - below) / count as f64).clamp(0.0, 1.0);
            last = self.value(idx, fraction);
            below += count as f64;
            if below >= rank {
                return last;
            }
        }
        last
    }

    /// Memory beside the struct itself.
    pub fn heap_bytes(&self) -> usize {
        (self.positive.counts.capacity() + self.negative.counts.capacity()) * size_of::<u64>()
    }

    fn value(&self, idx: i64, fraction: f64) -> f64 {
        ((idx as f64 + fraction) * f64::from(-self.scale).exp2()).exp2()
    }

    /// Makes two buckets one.
    fn halve(&mut self) {
        self.scale -= 1;
        self.positive.halve();
        self.negative.halve();
    }
}

impl Buckets {
    /// Those that have arrived, without the empty ones at both ends.
    pub fn read(offset: i32, counts: &[u64]) -> Self {
        let Some(first) = counts.iter().position(|count| *count > 0) else { return Self::default() };
        let last = counts.iter().rposition(|count| *count > 0).unwrap_or(first);
        Self { offset: i64::from(offset) + first as i64, counts: counts[first..=last].to_vec() }
    }

    fn end(&self) -> i64 {
        self.offset + self.counts.len() as i64
    }

    fn total(&self) -> f64 {
        self.counts.iter().map(|count| *count as f64).sum()
    }

    fn filled(&self) -> impl DoubleEndedIterator<Item = (i64, u64)> {
        let numbered = self.counts.iter().enumerate().map(move |(idx, count)| (self.offset + idx as i64, *count));
        numbered.filter(|(_, count)| *count > 0)
    }

    fn halve(&mut self) {
        let offset = self.offset >> 1;
        for idx in 0..self.counts.len() {
            let count = std::mem::take(&mut self.counts[idx]);
            let target = ((self.offset + idx as i64) >> 1) - offset;
            // Never beyond `idx`, so what it holds has been moved already.
            let target = &mut self.counts[target as usize];
            *target = target.saturating_add(count);
        }
        let n_buckets = if self.counts.is_empty() { 0 } else { ((self.end() - 1) >> 1) - offset + 1 };
        self.counts.truncate(n_buckets as usize);
        self.offset = offset;
    }

    /// How many buckets there would be with `first` to `last` among them.
    fn span_with(&self, first: i64, last: i64) -> i64 {
        if self.counts.is_empty() { last - first + 1 } else { self.end().max(last + 1) - self.offset.min(first) }
    }

    fn span_of_both(&self, other: &Self) -> i64 {
        if other.counts.is_empty() { self.counts.len() as i64 } else { self.span_with(other.offset, other.end() - 1) }
    }

    /// Makes room for buckets `first` to `last`.
    fn cover(&mut self, first: i64, last: i64) {
        if self.counts.is_empty() {
            self.offset = first;
        }
        if first < self.offset {
            let mut counts = vec![0; (self.offset - first) as usize];
            counts.append(&mut self.counts);
            (self.offset, self.counts) = (first, counts);
        }
        if last >= self.end() {
            self.counts.resize((last - self.offset + 1) as usize, 0);
        }
    }

    fn bump(&mut self, idx: i64, by: u64) {
        if let Some(count) = self.counts.get_mut((idx - self.offset) as usize) {
            *count = count.saturating_add(by);
        }
    }

    fn add(&mut self, other: &Self) {
        if other.counts.is_empty() {
            return;
        }
        self.cover(other.offset, other.end() - 1);
        for (idx, count) in other.filled() {
            self.bump(idx, count);
        }
    }

    fn subtract(&mut self, other: &Self) -> Option<()> {
        for (idx, count) in other.filled() {
            let place = usize::try_from(idx - self.offset).ok()?;
            let here = self.counts.get_mut(place)?;
            *here = here.checked_sub(count)?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f64]) -> Exponential {
        let mut sketch = Exponential::default();
        values.iter().for_each(|value| sketch.observe(*value));
        sketch
    }

    #[test]
    fn a_bucket_holds_what_the_data_model_says() {
        // Scale 0: (1, 2], (2, 4], (4, 8]. Scale -1: (1, 4], (4, 16].
        let positive = Buckets::read(-1, &[0, 4, 2, 1, 0]);
        let mut histogram = Exponential::read(0, 1, positive, Buckets::default()).expect("a valid scale");
        assert_eq!(histogram.quantile(0.125), 0.0);
        assert_eq!(histogram.quantile(0.625), 2.0, "the end of (1, 2]");
        assert_eq!(histogram.quantile(1.0), 8.0);
        let middle = histogram.quantile(0.375);
        assert!((middle - 2f64.sqrt()).abs() < 1e-12, "half of (1, 2], geometrically: {middle}");
        histogram.halve();
        assert_eq!((histogram.positive.offset, &histogram.positive.counts[..]), (0, &[6, 1][..]));
        assert_eq!(histogram.quantile(0.875), 4.0);
    }

    #[test]
    fn odd_and_negative_offsets_are_halved_towards_the_right_bucket() {
        let mut buckets = Buckets { offset: -3, counts: vec![1, 2, 4, 8] };
        buckets.halve();
        // -3 goes to -2, -2 and -1 to -1, 0 to 0.
        assert_eq!((buckets.offset, &buckets.counts[..]), (-2, &[1, 6, 8][..]));
    }

    #[test]
    fn negative_values_come_before_zero_and_positive_ones() {
        let negative = Buckets::read(0, &[1, 1]);
        let positive = Buckets::read(0, &[2]);
        let histogram = Exponential::read(0, 0, positive, negative).expect("a valid scale");
        assert_eq!(histogram.quantile(0.0), -4.0);
        assert_eq!(histogram.quantile(0.25), -2.0);
        assert_eq!(histogram.quantile(0.5), -1.0);
        assert_eq!(histogram.quantile(1.0), 2.0);
    }

    #[test]
    fn increments_are_taken_at_the_coarser_scale_and_a_loss_is_a_new_start() {
        let before = Exponential::read(1, 0, Buckets::read(2, &[3, 1]), Buckets::default()).expect("valid");
        let after = Exponential::read(0, 1, Buckets::read(1, &[4, 5]), Buckets::default()).expect("valid");
        let increments = after.since(&before).expect("it has grown");
        assert_eq!((increments.zero, &increments.positive.counts[..]), (1, &[0, 5][..]));
        assert_eq!(before.since(&after), None);
    }

    #[test]
    fn what_has_arrived_is_bounded_and_bad_scales_are_refused() {
        let wide = Exponential::read(5, 0, Buckets::read(i32::MAX, &[1; 1000]), Buckets::read(i32::MIN, &[1; 7]));
        let mut wide = wide.expect("a valid scale");
        assert!(wide.positive.counts.len() <= MAX_BINS);
        wide.merge(of(&[1e-300, 1e300]));
        assert!(wide.positive.counts.len() <= MAX_BINS && wide.negative.counts.len() <= MAX_BINS);
        assert_eq!(wide.positive.total() + wide.negative.total(), 1009.0);
        assert_eq!(Exponential::read(21, 0, Buckets::default(), Buckets::default()), None);
        assert_eq!(Exponential::read(i32::MIN, 0, Buckets::default(), Buckets::default()), None);
        assert!(Exponential::default().quantile(0.5).is_nan());
    }

    proptest! {
        #[test]
        fn quantiles_of_observations_are_near_the_true_ones(
            values in proptest::collection::vec(1.0..200.0f64, 1..200),
            q in 0.0..1.0f64,
        ) {
            // A factor of 200 is 7.7 octaves: scale 3, whose buckets are 9.1 % wide.
            let sketch = of(&values);
            let mut sorted = values;
            sorted.sort_by(f64::total_cmp);
            let rank = (q * sorted.len() as f64).ceil().max(1.0) as usize - 1;
            let (truth, found) = (sorted[rank], sketch.quantile(q));
            prop_assert!((found / truth - 1.0).abs() < 0.1, "{found} for {truth}");
        }

        #[test]
        fn merging_is_observing_both_and_taking_away_gives_back(
            a in proptest::collection::vec(0.0..1e6f64, 0..50),
            b in proptest::collection::vec(0.0..1e6f64, 1..50),
        ) {
            let (mut merged, both) = (of(&a), of(&[a.clone(), b.clone()].concat()));
            merged.merge(of(&b));
            prop_assert_eq!(merged.zero, both.zero);
            prop_assert_eq!(merged.positive.total(), both.positive.total());
            let gained = merged.since(&of(&a)).expect("it has grown");
            prop_assert_eq!(gained.positive.total() + gained.zero as f64, b.len() as f64);
        }
    }
}
