//! Holt-Winters: a level, a trend and, where the series has one, a season are smoothed as the points come; a point that is far
//! from what they forecast is abnormal.
//!
//! Station 7. Winters, "Forecasting Sales by Exponentially Weighted Moving Averages", Management Science 6(3), 1960 (additive
//! season), in the error correction form with a damped trend of Gardner and McKenzie (Management Science 31(10), 1985); an error
//! teaches no more than two scales, after Gelper, Fried, Croux, "Robust Forecasting with Exponential and Holt-Winters
//! Smoothing", Journal of Forecasting 29(3), 2010, so that an anomaly hardly moves the forecast.
//!
//! The season is found, not configured: `blocks` keeps the means of the last days and looks for the lag at which they agree
//! with themselves; `season` is the profile. Where there is none this is plain double exponential smoothing. The
//! score is the distance from the forecast in units of what is usual (`Scale`).
//!
//! Cost: some 30 operations a point; 34,000 multiply-adds whenever the blocks are full (every 160 of them). Memory: 1.9 KiB
//! a series, its place in the map included.
//!
//! When it fails: a level that shifts by many scales is followed by a twentieth (without a season a fifth) of two scales a point,
//! and is abnormal until then; seasons longer than about two days (at a step of a minute: weeks) are not found; a season
//! that is not a whole hour, six hours, half a day or a day is known to one in a hundred only, and its profile smears.
//!
//! Differences from the papers: smoothing constants are fixed, not fitted to each series; the season is a profile of at most 108
//! parts with lines between them; it begins with the means of the blocks that gave it away.

mod blocks;
mod season;

use faultline_core::{DetectorError, Signal, Window};

use self::{blocks::Blocks, season::Season};
use crate::{
    algorithm::Algorithm,
    bytes::{Magic, Reader, Writer},
    per_series::{Config, Judged, Model, Scale, State},
};

/// See the file's documentation.
pub struct HoltWinters;

impl Algorithm for HoltWinters {
    const NAME: &'static str = "holt-winters";
    const SUMMARY: &'static str = "a point of a series that is far from what its level, trend and season forecast";
    const PAPER: &'static str =
        "Winters: Forecasting Sales by Exponentially Weighted Moving Averages, Management Science 1960";
    const SIGNAL: Signal = Signal::Series;
    const PUBLISHED_THRESHOLD: Option<f64> = None;
    const IS_DEFAULT: bool = false;

    type Config = Config;
    type Model = Model;

    fn fit(config: &Config, training: &[Window<'_>], _seed: u64) -> Result<Model, DetectorError> {
        Model::fit::<Smoothing>(config, training)
    }

    fn load(config: &Config, snapshot: &[u8]) -> Result<Model, DetectorError> {
        Model::load::<Smoothing>(config, snapshot)
    }
}

/// Share of an error that moves the level: without and with a season.
const LEVEL_GAIN: [f64; 2] = [0.2, 0.05];

/// Share of the level's move that moves the trend.
const TREND_GAIN: f64 = 0.05;

/// Share of the trend that is left a step later.
const DAMPING: f64 = 0.95;

/// Scales beyond which an error teaches no more.
const CLIP: f64 = 2.0;

/// Steps without a point after which the level begins anew.
const MAX_GAP: i64 = 240;

/// What is known of one series.
#[derive(Clone, Debug, PartialEq)]
struct Smoothing {
    /// None before the first point.
    last_step: Option<i64>,
    level: f64,
    trend: f64,
    scale: Scale,
    season: Season,
    blocks: Blocks,
}

impl Smoothing {
    /// What the trend adds up to over so many steps.
    fn drift(&self, n_steps: i64) -> f64 {
        let n_steps = i32::try_from(n_steps).unwrap_or(i32::MAX);
        self.trend * DAMPING * (1.0 - DAMPING.powi(n_steps)) / (1.0 - DAMPING)
    }

    /// Judges a point against the forecast from `gap` steps before, and corrects the forecast.
    fn correct(&mut self, step: i64, value: f64, gap: i64) -> Option<Judged> {
        self.level += self.drift(gap);
        self.trend *= DAMPING.powi(i32::try_from(gap).unwrap_or(i32::MAX));
        let expected = self.level + self.season.at(step);
        let limit = CLIP * self.scale.usual();
        let judged = self.scale.judge(value, expected);
        let error = value - expected;
        let lesson = if limit > 0.0 { error.clamp(-limit, limit) } else { error };
        let move_by = LEVEL_GAIN[usize::from(self.season.is_known())] * lesson;
        self.level += move_by;
        self.trend += TREND_GAIN * move_by;
        self.season.correct(step, lesson);
        judged
    }
}

impl State for Smoothing {
    const NAME: &'static str = HoltWinters::NAME;
    const MAGIC: &'static Magic = b"faultline hltW 1";

    fn new(step_nanos: i64) -> Self {
        Self {
            last_step: None,
            level: 0.0,
            trend: 0.0,
            scale: Scale::default(),
            season: Season::unknown(),
            blocks: Blocks::new(step_nanos),
        }
    }

    fn observe(&mut self, step: i64, value: f64) -> Option<Judged> {
        let gap = self.last_step.map(|last| step.saturating_sub(last)).filter(|gap| *gap <= MAX_GAP);
        self.last_step = Some(step);
        let judged = match gap {
            Some(gap) => self.correct(step, value, gap.max(1)),
            None => {
                (self.level, self.trend) = (value - self.season.at(step), 0.0);
                None
            }
        };
        if self.blocks.add(step, value) {
            let now = self.season.at(step);
            if self.blocks.revise(&mut self.season) {
                // What the season takes over, the level gives away.
                (self.level, self.trend) = (self.level + now - self.season.at(step), 0.0);
            }
        }
        judged
    }

    fn write(&self, writer: &mut Writer) {
        writer.byte(u8::from(self.last_step.is_some()));
        writer.integer(self.last_step.unwrap_or_default());
        writer.double(self.level);
        writer.double(self.trend);
        self.scale.write(writer);
        self.season.write(writer);
        self.blocks.write(writer);
    }

    fn read(reader: &mut Reader<'_>, step_nanos: i64) -> Option<Self> {
        let (has_points, last_step) = (reader.is()?, reader.integer()?);
        Some(Self {
            last_step: has_points.then_some(last_step),
            level: reader.double()?,
            trend: reader.double()?,
            scale: Scale::read(reader)?,
            season: Season::read(reader)?,
            blocks: Blocks::read(reader, step_nanos)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;
    use crate::per_series::tests::{MINUTE, behaves_as_a_detector_of_series, bytes_a_series, fed, noisy};

    /// A season of so many minutes between 0 and 200, and noise between −5 and 5.
    fn seasonal(period: u32, n: u32) -> Vec<f64> {
        let season = (0..n).map(|step| 100.0 + 100.0 * (TAU * f64::from(step) / f64::from(period)).sin());
        season.zip(noisy(1, n as usize)).map(|(usual, noise)| usual + noise - 50.0).collect()
    }

    fn worst(distances: &[Option<f64>]) -> f64 {
        distances.iter().flatten().copied().fold(0.0, f64::max)
    }

    #[test]
    fn it_behaves_as_a_detector_of_series() {
        behaves_as_a_detector_of_series::<HoltWinters>();
        assert!(bytes_a_series::<Smoothing>() <= 2048, "{} bytes", bytes_a_series::<Smoothing>());
    }

    #[test]
    fn a_day_is_found_and_forecast_and_what_comes_at_another_time_is_not() {
        let mut smoothing = Smoothing::new(MINUTE);
        let mut points = seasonal(1440, 15 * 1440);
        // The peak of the last day comes six hours late.
        let late = 14 * 1440 + 700;
        points[late] = 200.0;
        let distances = fed(&mut smoothing, 0, &points);
        assert_eq!(smoothing.season.period(), 1440);
        let last_week = &distances[8 * 1440..late];
        assert!(worst(last_week) < 4.0, "{}", worst(last_week));
        assert!(distances[late].is_some_and(|far| far > 10.0), "{:?}", distances[late]);
    }

    #[test]
    fn without_a_season_it_follows_level_and_trend() {
        let mut smoothing = Smoothing::new(MINUTE);
        let rising: Vec<f64> = (0..3000).zip(noisy(1, 3000)).map(|(idx, noise)| f64::from(idx) + noise).collect();
        let distances = fed(&mut smoothing, 0, &rising);
        assert!(!smoothing.season.is_known());
        assert!(worst(&distances[500..]) < 4.0, "{}", worst(&distances[500..]));
        let shifted: Vec<f64> = rising.iter().map(|value| value + 3100.0).collect();
        let distances = fed(&mut smoothing, 3000, &shifted);
        assert!(distances[0].is_some_and(|far| far > 10.0), "{:?}", distances[0]);
        assert!(worst(&distances[1000..]) < 5.0, "{}", worst(&distances[1000..]));
    }

    #[test]
    fn an_anomaly_hardly_moves_the_forecast() {
        let mut smoothing = Smoothing::new(MINUTE);
        fed(&mut smoothing, 0, &noisy(1, 1000));
        let before = smoothing.level;
        smoothing.observe(1000, 1e9);
        assert!((smoothing.level - before).abs() < 3.0, "{before} became {}", smoothing.level);
    }
}
