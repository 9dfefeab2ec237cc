//! How seldom a figure is as large, in nats: what puts structure and time on one scale.
//!
//! A figure is measured on traces that the network has not seen. Up to the largest twentieth of them its surprise is −ln of the
//! share that is as large or larger. Beyond, a generalised Pareto tail goes on from there: its scale is the mean of what that
//! twentieth exceeds it by, its shape is fixed at .2, since a shape that is estimated from a handful of traces is
//! chance, and an exponential tail would call the ordinary outliers of times impossible.

use crate::bytes::{Reader, Writer};

/// One in so many figures is of the tail.
const TAIL: usize = 20;

/// Figures that the tail has at least.
const MIN_TAIL: usize = 3;

/// Shape of the tail.
const SHAPE: f64 = 0.2;

/// The least scale of the tail, in nats of the figure: where all normal traces are alike it would be none.
const MIN_SCALE: f64 = 0.5;

/// A figure as it was measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rarity {
    /// Ascending.
    sample: Vec<f64>,
    /// Where the tail begins, how many figures are of it, and its scale.
    from: f64,
    n_tail: usize,
    scale: f64,
}

impl Rarity {
    /// Of these figures. What is not finite is left out.
    pub fn of(mut sample: Vec<f64>) -> Self {
        sample.retain(|figure| figure.is_finite());
        sample.sort_unstable_by(f64::total_cmp);
        let n_tail = (sample.len() / TAIL).max(MIN_TAIL).min(sample.len());
        let tail = &sample[sample.len() - n_tail..];
        let from = tail.first().copied().unwrap_or(0.0);
        let excess: f64 = tail.iter().map(|figure| figure - from).sum();
        let scale = (excess / n_tail.max(1) as f64).max(MIN_SCALE);
        Self { sample, from, n_tail, scale }
    }

    /// −ln of how often a normal trace has as large a figure; 0 where none was measured.
    pub fn surprise(&self, figure: f64) -> f64 {
        let n = self.sample.len();
        if n == 0 || figure.is_nan() {
            return 0.0;
        }
        if figure <= self.from {
            let n_as_large = n - self.sample.partition_point(|own| *own < figure);
            return (n as f64 / n_as_large.max(1) as f64).ln();
        }
        let beyond = SHAPE * (figure.min(f64::MAX) - self.from) / self.scale;
        (n as f64 / self.n_tail as f64).ln() + beyond.ln_1p() / SHAPE
    }

    /// Figures that it rests on.
    pub fn len(&self) -> usize {
        self.sample.len()
    }

    /// Writes it into a snapshot.
    pub fn write(&self, writer: &mut Writer) {
        writer.number(self.sample.len() as u64);
        self.sample.iter().for_each(|figure| writer.double(*figure));
    }

    /// Reads what [`Self::write`] wrote.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let n = reader.length(8)?;
        let sample: Option<Vec<f64>> = (0..n).map(|_| reader.double()).collect();
        sample.map(Self::of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_surprises_by_how_many_are_as_large_and_more_so_beyond_all() {
        let rarity = Rarity::of((0..100).map(f64::from).collect());
        assert_eq!(rarity.surprise(-1.0), 0.0);
        assert!((rarity.surprise(90.0) - 10f64.ln()).abs() < 1e-12, "ten are as large");
        assert!((rarity.surprise(95.0) - 20f64.ln()).abs() < 1e-12, "here the tail begins");
        let rising: Vec<f64> = (0..400).map(|idx| rarity.surprise(f64::from(idx) / 2.0)).collect();
        assert!(rising.is_sorted(), "larger never surprises less");
        // The tail exceeds 95 by 2 on average.
        let expected = 20f64.ln() + 5.0 * (1.0 + 0.2 * 10.0 / 2.0_f64).ln();
        assert!((rarity.surprise(105.0) - expected).abs() < 1e-12);
        assert!(rarity.surprise(1e300).is_finite() && rarity.surprise(f64::INFINITY).is_finite());
    }

    #[test]
    fn where_all_are_alike_or_none_was_measured_nothing_is_infinite() {
        let alike = Rarity::of(vec![1.0; 50]);
        assert_eq!(alike.surprise(1.0), 0.0);
        assert!(alike.surprise(2.0) > 3.0 && alike.surprise(2.0) < 6.0, "{}", alike.surprise(2.0));
        assert_eq!(Rarity::of(Vec::new()).surprise(5.0), 0.0);
        assert_eq!(Rarity::of(vec![f64::NAN, 2.0]).len(), 1);
        let one = Rarity::of(vec![2.0]);
        assert!(one.surprise(2.0) == 0.0 && one.surprise(9.0) > 0.0);
    }

    #[test]
    fn a_snapshot_holds_all_of_it() {
        let rarity = Rarity::of(vec![0.1, 7.25, 3.0, 3.0]);
        let mut writer = Writer::new(b"faultline tests1");
        rarity.write(&mut writer);
        let bytes = writer.finish();
        let read = Reader::open(b"faultline tests1", &bytes).ok().and_then(|mut reader| Rarity::read(&mut reader));
        assert_eq!(read, Some(rarity));
    }
}
