//! Moving average: how far a point is from the mean of the eleven before it, in units of what is usual for its series.
//!
//! Station 7. Basseville and Nikiforov, "Detection of Abrupt Changes: Theory and Application", Prentice Hall 1993, section 2.1
//! (finite moving average charts). It is the floor that a deep model has to beat where the beginning of an anomaly counts:
//! on AIOps 2018 the macro mean F1 of the bare distance with a delay of seven points is .817, on WSD .800, by the best
//! threshold for each series (by a script). A Python model of this detector is below that: .759 where the floor is .811, on 20 of the series.
//!
//! The mean is of the last eleven points there are; gaps are not points. After a gap longer than eleven steps it begins
//! anew. What is usual: the mean distance of the last thousand points, with floors for constant and sparse series
//! (`Scale`).
//!
//! Cost: eleven additions a point. Memory: a quarter of a KiB a series, its place in the map included.
//!
//! When it fails: it tells of changes, not of states, so an anomaly that lasts is found at its beginning and at its end; a
//! spike moves the mean of the eleven points after it by an eleventh of its size; what creeps is not found; and a season with
//! steep slopes is a change each time.

use faultline_core::{DetectorError, Signal, Window};

use crate::{
    algorithm::Algorithm,
    bytes::{Magic, Reader, Writer},
    per_series::{Config, Judged, Model, Scale, State},
};

/// See the file's documentation.
pub struct MovingAverage;

impl Algorithm for MovingAverage {
    const NAME: &'static str = "moving-average";
    const SUMMARY: &'static str = "a point of a series that is far from the mean of the eleven before it";
    const PAPER: &'static str = "Basseville, Nikiforov: Detection of Abrupt Changes, Prentice Hall 1993";
    const SIGNAL: Signal = Signal::Series;
    const PUBLISHED_THRESHOLD: Option<f64> = None;
    const IS_DEFAULT: bool = false;

    type Config = Config;
    type Model = Model;

    fn fit(config: &Config, training: &[Window<'_>], _seed: u64) -> Result<Model, DetectorError> {
        Model::fit::<Last>(config, training)
    }

    fn load(config: &Config, snapshot: &[u8]) -> Result<Model, DetectorError> {
        Model::load::<Last>(config, snapshot)
    }
}

/// Points that the mean is of.
const LENGTH: usize = 11;

/// The last points of a series.
#[derive(Clone, Debug, PartialEq)]
struct Last {
    points: [f64; LENGTH],
    n_points: usize,
    /// Where the next point goes: the place of the oldest.
    next: usize,
    last_step: i64,
    scale: Scale,
}

impl State for Last {
    const NAME: &'static str = MovingAverage::NAME;
    const MAGIC: &'static Magic = b"faultline movA 1";

    fn new(_step_nanos: i64) -> Self {
        Self { points: [0.0; LENGTH], n_points: 0, next: 0, last_step: 0, scale: Scale::default() }
    }

    fn observe(&mut self, step: i64, value: f64) -> Option<Judged> {
        if step.saturating_sub(self.last_step) > LENGTH as i64 {
            (self.n_points, self.next) = (0, 0);
        }
        self.last_step = step;
        let is_full = self.n_points == LENGTH;
        let mean = self.points.iter().sum::<f64>() / LENGTH as f64;
        let judged = if is_full { self.scale.judge(value, mean) } else { None };
        self.points[self.next] = value;
        self.next = (self.next + 1) % LENGTH;
        self.n_points = (self.n_points + 1).min(LENGTH);
        judged
    }

    fn write(&self, writer: &mut Writer) {
        writer.number(self.n_points as u64);
        writer.number(self.next as u64);
        writer.integer(self.last_step);
        for point in &self.points {
            writer.double(*point);
        }
        self.scale.write(writer);
    }

    fn read(reader: &mut Reader<'_>, step_nanos: i64) -> Option<Self> {
        let mut own = Self::new(step_nanos);
        own.n_points = usize::try_from(reader.number()?).ok().filter(|n_points| *n_points <= LENGTH)?;
        own.next = usize::try_from(reader.number()?).ok().filter(|next| *next < LENGTH)?;
        own.last_step = reader.integer()?;
        for point in &mut own.points {
            *point = reader.double()?;
        }
        own.scale = Scale::read(reader)?;
        Some(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::per_series::tests::{MINUTE, behaves_as_a_detector_of_series, bytes_a_series, fed, noisy};

    #[test]
    fn it_behaves_as_a_detector_of_series() {
        behaves_as_a_detector_of_series::<MovingAverage>();
    }

    #[test]
    fn what_is_expected_is_the_mean_of_the_last_eleven() {
        let mut last = Last::new(MINUTE);
        assert!(bytes_a_series::<Last>() <= 256, "{} bytes", bytes_a_series::<Last>());
        let values = noisy(1, 200);
        fed(&mut last, 0, &values);
        let judged = last.observe(200, 0.0).expect("it has varied");
        let mean = values[189..].iter().sum::<f64>() / 11.0;
        assert!((judged.expected - mean).abs() < 1e-9, "{judged:?}, the mean is {mean}");
    }

    #[test]
    fn a_gap_is_skipped_a_long_one_begins_anew_and_a_new_level_is_told_once() {
        let mut last = Last::new(MINUTE);
        fed(&mut last, 0, &noisy(1, 300));
        assert!(last.observe(310, 0.0).is_some(), "eleven steps");
        let distances = fed(&mut last, 400, &noisy(2, 30));
        assert!(distances[..11].iter().all(Option::is_none) && distances[11..].iter().all(Option::is_some));
        let higher: Vec<f64> = noisy(3, 60).into_iter().map(|value| value + 100.0).collect();
        let distances = fed(&mut last, 430, &higher);
        assert!(distances[0].is_some_and(|far| far > 10.0));
        assert!(distances[12..].iter().all(|distance| distance.is_some_and(|far| far < 8.0)));
    }
}
