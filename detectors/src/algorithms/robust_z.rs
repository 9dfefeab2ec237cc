//! Robust z-score: how many deviations a point is from the median of its series' last months.
//!
//! Station 7. Iglewicz and Hoaglin, "How to Detect and Handle Outliers", ASQC Basic References in Quality Control 16, 1993
//! (the modified z-score): |x − median| / (1.4826 MAD), MAD the median of the distances from the median. Both stand still
//! until half of what they are taken from is abnormal. With the median of the whole first half of each series it is the floor
//! that a deep model has to beat on single points: on AIOps 2018 a macro mean F1 of .389 by the best threshold for each series (by a
//! script). A Python model of this detector is below that: .346 where the floor is .378, on 20 of the series.
//!
//! Recent history is a sample of at most 240 points: all at first; each time it is full every second goes and from then on
//! half as many enter, until it spans ninety days (one point in 1024 at a step of a minute). Then the oldest leaves. Which point
//! of so many enters is drawn by a hash of its place, so that no season of the series coincides with the sampling. Shorter
//! spans adopt anomalies that last for days, and find fewer.
//!
//! Cost: a subtraction and a division a point; two selections among 240 for a point that enters the sample. Memory:
//! 2 KiB a series, its place in the map included.
//!
//! When it fails: it knows no season, so on a strongly seasonal series only what leaves the range of whole days is far off.
//! A new level is abnormal until half of the sample is of it, for weeks in an old series. Where more than half of the sample
//! is one value the MAD is 0; the largest distance in the sample stands for it, so of a sparse series only what is larger than before is
//! far off; and where fewer than twelve points differ from the median, nothing is.

use faultline_core::{DetectorError, Signal, Window};

use crate::{
    algorithm::Algorithm,
    bytes::{Magic, Reader, Writer},
    per_series::{Config, Judged, Model, State},
};

/// See the file's documentation.
pub struct RobustZ;

impl Algorithm for RobustZ {
    const NAME: &'static str = "robust-z";
    const SUMMARY: &'static str = "a point of a series that is many deviations from the median of its last months";
    const PAPER: &'static str = "Iglewicz, Hoaglin: How to Detect and Handle Outliers, ASQC 1993";
    const SIGNAL: Signal = Signal::Series;
    const PUBLISHED_THRESHOLD: Option<f64> = Some(3.5);
    const IS_DEFAULT: bool = false;

    type Config = Config;
    type Model = Model;

    fn fit(config: &Config, training: &[Window<'_>], _seed: u64) -> Result<Model, DetectorError> {
        Model::fit::<Recent>(config, training)
    }

    fn load(config: &Config, snapshot: &[u8]) -> Result<Model, DetectorError> {
        Model::load::<Recent>(config, snapshot)
    }
}

/// Points in a sample.
const SAMPLE: usize = 240;

/// Points in a sample below which nothing is judged.
const MIN_SAMPLE: usize = 60;

/// Time that a sample spans in the end.
const SPAN_NANOS: i64 = 90 * 86_400 * 1_000_000_000;

/// Points that differ from the median below which a sample has no scale.
const MIN_VARIED: usize = 12;

/// Deviations of a normal distribution by its MAD.
const TO_DEVIATION: f64 = 1.4826;

/// Distances smaller than this share of the median are rounding.
const ROUNDING: f64 = 1e-9;

/// The sample of one series.
///
/// Small numbers are of one byte, so that it and all that belongs to it are no more than 2 KiB.
#[derive(Clone, Debug, PartialEq)]
struct Recent {
    points: [f64; SAMPLE],
    /// Median and scale of the sample; a scale of 0 where it has none.
    judged: Judged,
    n_points: u8,
    /// Where the next point goes once the sample is full: the place of the oldest.
    oldest: u8,
    /// One point in two to the power of this enters.
    halvings: u8,
    /// The power that spans the time wanted.
    max_halvings: u8,
}

/// No median and no scale.
const NOT_JUDGED: Judged = Judged { expected: 0.0, scale: 0.0 };

impl Recent {
    /// One point in so many enters.
    fn stride(&self) -> i64 {
        1 << self.halvings
    }

    /// Whether the point of this step enters: one of each stride.
    fn takes(&self, step: i64) -> bool {
        let stride = self.stride();
        let block = step.div_euclid(stride).cast_unsigned();
        let drawn = (block.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).cast_signed();
        step.rem_euclid(stride) == drawn.rem_euclid(stride)
    }

    fn add(&mut self, value: f64) {
        let mut n_points = usize::from(self.n_points);
        if n_points == SAMPLE && self.halvings < self.max_halvings {
            n_points = SAMPLE / 2;
            for idx in 0..n_points {
                self.points[idx] = self.points[2 * idx + 1];
            }
            self.halvings += 1;
        }
        if n_points < SAMPLE {
            self.points[n_points] = value;
            n_points += 1;
        } else {
            let oldest = usize::from(self.oldest);
            self.points[oldest] = value;
            self.oldest = ((oldest + 1) % SAMPLE) as u8;
        }
        self.n_points = n_points as u8;
        self.judged = self.median_and_scale().unwrap_or(NOT_JUDGED);
    }

    /// None where there are too few points, or too few that vary; else with a scale above 0.
    fn median_and_scale(&self) -> Option<Judged> {
        let n_points = usize::from(self.n_points);
        if n_points < MIN_SAMPLE {
            return None;
        }
        let mut sample = self.points;
        let sample = &mut sample[..n_points];
        let middle = sample.len() / 2;
        let median = *sample.select_nth_unstable_by(middle, f64::total_cmp).1;
        sample.iter_mut().for_each(|point| *point = (*point - median).abs());
        let rounding = (ROUNDING * median.abs()).max(f64::MIN_POSITIVE);
        let n_varied = sample.iter().filter(|distance| **distance > rounding).count();
        let scale = TO_DEVIATION * *sample.select_nth_unstable_by(middle, f64::total_cmp).1;
        let scale = if scale > rounding { scale } else { sample.iter().copied().fold(0.0, f64::max) };
        (n_varied >= MIN_VARIED).then_some(Judged { expected: median, scale })
    }
}

impl State for Recent {
    const NAME: &'static str = RobustZ::NAME;
    const MAGIC: &'static Magic = b"faultline robZ 1";

    fn new(step_nanos: i64) -> Self {
        let sample_nanos = step_nanos.max(1).saturating_mul(SAMPLE as i64);
        let wanted = SPAN_NANOS.div_euclid(sample_nanos).max(1).cast_unsigned();
        let max_halvings = wanted.next_power_of_two().ilog2() as u8;
        Self { points: [0.0; SAMPLE], judged: NOT_JUDGED, n_points: 0, oldest: 0, halvings: 0, max_halvings }
    }

    fn observe(&mut self, step: i64, value: f64) -> Option<Judged> {
        let judged = Some(self.judged).filter(|judged| judged.scale > 0.0);
        if self.takes(step) {
            self.add(value);
        }
        judged
    }

    fn write(&self, writer: &mut Writer) {
        writer.number(u64::from(self.n_points));
        writer.number(u64::from(self.oldest));
        writer.integer(self.stride());
        for point in &self.points[..usize::from(self.n_points)] {
            writer.double(*point);
        }
    }

    fn read(reader: &mut Reader<'_>, step_nanos: i64) -> Option<Self> {
        let mut own = Self::new(step_nanos);
        let n_points = reader.length(size_of::<f64>()).filter(|n_points| *n_points <= SAMPLE)?;
        own.n_points = u8::try_from(n_points).ok()?;
        own.oldest = u8::try_from(reader.number()?).ok().filter(|oldest| usize::from(*oldest) < SAMPLE)?;
        let stride = reader.integer()?;
        let halvings = u8::try_from(stride.checked_ilog2()?).ok().filter(|halvings| *halvings <= own.max_halvings)?;
        own.halvings = Some(halvings).filter(|halvings| stride == 1_i64 << *halvings)?;
        for point in &mut own.points[..n_points] {
            *point = reader.double()?;
        }
        own.judged = own.median_and_scale().unwrap_or(NOT_JUDGED);
        Some(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::per_series::tests::{MINUTE, behaves_as_a_detector_of_series, bytes_a_series, fed, noisy};

    #[test]
    fn it_behaves_as_a_detector_of_series() {
        behaves_as_a_detector_of_series::<RobustZ>();
    }

    #[test]
    fn a_distance_is_in_deviations_from_the_median_whatever_the_tails_are() {
        let mut recent = Recent::new(MINUTE);
        let values: Vec<f64> = (0..200).map(|idx| if idx % 5 == 0 { 1e9 } else { f64::from(idx % 9) }).collect();
        fed(&mut recent, 0, &values);
        let judged = recent.judged;
        assert!((4.0..=6.0).contains(&judged.expected), "{judged:?}");
        assert!((2.0..=3.0).contains(&(judged.scale / TO_DEVIATION)), "{judged:?}");
    }

    #[test]
    fn the_sample_thins_out_until_it_spans_its_time_and_then_forgets() {
        assert!(bytes_a_series::<Recent>() <= 2048, "{} bytes", bytes_a_series::<Recent>());
        assert_eq!(Recent::new(MINUTE).max_halvings, 10, "one in 1024");
        let mut recent = Recent::new(16 * MINUTE);
        assert_eq!(recent.max_halvings, 6);
        let steps: Vec<f64> = (0..100_000u32).map(f64::from).collect();
        fed(&mut recent, 0, &steps);
        assert_eq!((recent.stride(), usize::from(recent.n_points)), (64, SAMPLE));
        let oldest = recent.points.iter().copied().fold(f64::INFINITY, f64::min);
        assert!((15_000.0..16_000.0).contains(&(100_000.0 - oldest)), "the oldest is of step {oldest}");
        let offsets: std::collections::BTreeSet<i64> = recent.points.iter().map(|point| *point as i64 % 64).collect();
        assert!(offsets.len() > 40, "one point in 64, but not each 64th: {}", offsets.len());
        assert_eq!(Recent::new(9 * 60 * MINUTE).max_halvings, 0, "ninety days of nine hours are 240");
    }

    #[test]
    fn a_new_level_is_normal_once_half_of_the_sample_is_of_it() {
        let mut recent = Recent::new(9 * 60 * MINUTE);
        fed(&mut recent, 0, &noisy(1, 300));
        let higher: Vec<f64> = noisy(2, 300).into_iter().map(|value| value + 100.0).collect();
        let distances = fed(&mut recent, 300, &higher);
        assert!(distances[..60].iter().all(|distance| distance.is_some_and(|far| far > 10.0)));
        assert!(distances[250..].iter().all(|distance| distance.is_some_and(|far| far < 6.0)));
    }
}
