//! Profile and forecast: a point of a series that is far from where its time of day and its last points put it, in units of
//! the series' own noise. The default detector of KPIs.
//!
//! Station 7. Two linear forecasts (`forecaster`: normalised least mean squares, Nagumo and Noda, IEEE Transactions on Automatic
//! Control 1967), of the values and of their distance from a profile by time of day, say where the next point should be; the
//! profile and a slow offset say what level is usual. Each of the three residuals is measured against its own mean size at that time
//! of day (`scale`). From the forecasts comes a *spike* score, which is early, from the usual level a *level* score, which
//! lasts; `episodes` makes one alert of an episode. The two are fused, not selected from: on the same data no rule, nor even a choice by
//! labels, did better than the forecast alone, and the fusion did.
//!
//! Nothing is fitted in advance. A model is fitted on whatever points there are, also none, by replaying them; each series is
//! silent for its first 120 points, and without a profile for its first day. The season is a day until five days tell
//! otherwise (`season`).
//!
//! Scores are surprises in nats ([`crate::surprise`]): an alert is 10.1 at the threshold and more beyond; what is no alert, or is
//! part of one that has been raised, is below ln 100. [`judge_series`] gives the two scores themselves, and which points are hot.
//!
//! Measured by `faultline eval` (second halves, no labels; threshold 5.5 chosen once on the first halves of 20 AIOps KPIs): AIOps kd7
//! F1 .82 and point F1 .48; a moving average, at the one p-value that is best on the first halves, .60 and .16. WSD, untouched by
//! that choice: .61 and .37, the moving average .51 and .25.
//!
//! Cost: about 350 multiply-adds a point and no allocation, one look-up a window; `benches/kpi.rs` measures it. Memory: 1.7 KiB a
//! series, 1.1 KiB more for its first five days, `max_series` at most.
//!
//! When it fails: on a series that jumps at regular times by the clock (a job that runs each hour) every jump is an alert, since
//! no forecast knows when, and a profile of half hours blurs them; heavy tails alert about ten times a day, which is where the
//! threshold begins to rise; a shift slower than the profile learns, five seasons, is normal; events smaller than the noise of
//! their hour are not seen. A series that is silent for long is judged by what was learned before. Raw counters are to be
//! rates before.
//!
//! Differs from the papers: errors teach winsorised, so that anomalies do not; everything about profile, scales and episodes
//! is ours.

mod episodes;
mod explain;
mod forecaster;
mod place;
mod scale;
mod season;
mod series;

use faultline_core::{
    Detector, DetectorError, Evidence, Score, SeriesWindow, Signal, Window, WindowKey, hash::StableHash,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::{
    place::Paces,
    season::N_PARTS,
    series::{Observed, Series},
};
use crate::{
    algorithm::Algorithm,
    bounded::Bounded,
    bytes::{Magic, Reader, Writer},
    ranges::Ranges,
    surprise,
};

/// Hyperparameters of [`ProfileForecast`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Score from which a point is an alert, in mean residuals. Default 5.5, which is 4.4 deviations of normal noise. Raise it for
    /// fewer alerts.
    pub threshold: f64,
    /// Level score down to which an episode goes on. Default 2.5.
    pub level_hold: f64,
    /// Points without a spike before which the next one belongs to the same episode. Default 5.
    pub refractory_points: u32,
    /// Seasons after which another level is the new normal. Default 1.
    pub adopt_seasons: f64,
    /// Alerts a day of one series from which its threshold rises with the root of their number. Default 10.
    pub alerts_per_day: f64,
    /// Points of a series before it is judged. Default 120.
    pub warm_up_points: u32,
    /// Milliseconds of the season of all series. Default none: a day, until five days of a series tell another one.
    pub season_ms: Option<u64>,
    /// Series to remember, a memory bound (1.7 KiB each). Those not seen for longest are forgotten first. Default 100000.
    pub max_series: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            threshold: 5.5,
            level_hold: 2.5,
            refractory_points: 5,
            adopt_seasons: 1.0,
            alerts_per_day: 10.0,
            warm_up_points: 120,
            season_ms: None,
            max_series: 100_000,
        }
    }
}

impl Config {
    fn season_nanos(&self) -> Option<i64> {
        self.season_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000_000))
    }
}

/// See the file's documentation.
pub struct ProfileForecast;

/// A point as it was judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// How far it is from its forecasts, in mean residuals: decides onsets. 0 for a gap.
    pub spike: f64,
    /// How far it is from the usual level: decides durations. 0 for a gap.
    pub level: f64,
    /// Whether an alert begins with it.
    pub is_alert: bool,
    /// Whether it belongs to an episode.
    pub is_hot: bool,
    /// The usual level at that time; not a number for a gap.
    pub expected: f64,
}

impl Judged {
    /// See [`crate::surprise`].
    fn surprise(&self, config: &Config) -> f64 {
        let excess = self.spike.max(self.level) / config.threshold;
        if self.is_alert { surprise::of_alert(excess) } else { surprise::of_rest(excess) }
    }
}

/// What is known of each series.
#[derive(Debug)]
pub struct Model {
    config: Config,
    version: u64,
    series: Bounded<Series>,
    paces: Paces,
}

/// What a snapshot begins with; the digit is the format.
const MAGIC: &Magic = b"faultlineProfFc1";

/// Parts by which the histories of series differ, so that not all that began together look for their season at once.
const STAGGER: u64 = 48;

impl Algorithm for ProfileForecast {
    const NAME: &'static str = "profile-forecast";
    const SUMMARY: &'static str = "a point of a series far from its time of day and its last points, in its own noise";
    const PAPER: &'static str = "Nagumo, Noda: A Learning Method for System Identification, IEEE Transactions on \
                                 Automatic Control 1967, on and beside a profile by time of day";
    const SIGNAL: Signal = Signal::Series;
    const PUBLISHED_THRESHOLD: Option<f64> = None;
    const IS_SELF_CALIBRATED: bool = true;

    type Config = Config;
    type Model = Model;

    fn fit(config: &Config, training: &[Window<'_>], _seed: u64) -> Result<Model, DetectorError> {
        check(config)?;
        let mut model = Model::new(config);
        model.score(training, &mut Vec::with_capacity(training.len()));
        model.version = StableHash::new().bytes(&model.encode()).text(&format!("{config:?}")).finish();
        Ok(model)
    }

    fn load(config: &Config, snapshot: &[u8]) -> Result<Model, DetectorError> {
        check(config)?;
        let refuse = |reason: String| DetectorError::Snapshot { detector: Self::NAME.to_owned(), reason };
        let mut reader = Reader::open(MAGIC, snapshot).map_err(refuse)?;
        Model::decode(config, &mut reader).ok_or_else(|| refuse("it is cut short or its sizes do not fit".to_owned()))
    }
}

fn check(config: &Config) -> Result<(), DetectorError> {
    let ranges = Ranges(ProfileForecast::NAME);
    ranges.within([
        ("threshold", config.threshold, 1.0..=100.0),
        ("level_hold", config.level_hold, 0.5..=config.threshold),
        ("adopt_seasons", config.adopt_seasons, 0.01..=1000.0),
        ("alerts_per_day", config.alerts_per_day, 0.01..=100_000.0),
    ])?;
    ranges.within([
        ("refractory_points", config.refractory_points, 1..=100_000),
        ("warm_up_points", config.warm_up_points, 1..=10_000_000),
    ])?;
    ranges.within([("season_ms", config.season_ms.unwrap_or(1_000), 1_000..=3_200_000_000)])?;
    ranges.within([("max_series", config.max_series, 1..=100_000_000)])
}

/// Replays one series: what a model says of each of `values`, which follow each other from `first_step` on, not a number
/// being a gap. `step_nanos` is at least 1.
#[must_use]
pub fn judge_series(config: &Config, step_nanos: i64, first_step: i64, values: &[f64]) -> Vec<Judged> {
    let mut all = Vec::with_capacity(values.len());
    let mut series = Series::begin(config, step_nanos.max(1), N_PARTS);
    series.judge(first_step, values, config, &mut Paces::default(), |_, observed| all.push(observed.judged));
    all
}

/// Parts of the history of a series.
fn n_parts(key: &WindowKey) -> u16 {
    let hash = StableHash::new().text(&key.stream).text(&key.session).finish();
    N_PARTS + (hash % STAGGER) as u16
}

impl Model {
    fn new(config: &Config) -> Self {
        let series = Bounded::new(config.max_series);
        Self { config: config.clone(), version: 0, series, paces: Paces::default() }
    }

    /// The score of the most surprising new point; none while the series warms up or where all of them are gaps.
    fn score_series(&mut self, window: &SeriesWindow<'_>) -> Option<Score> {
        let Self { config, series, paces, .. } = self;
        let config = &*config;
        let (first_step, step_nanos) = (window.first_step(), window.step_nanos.max(1));
        let begin = || Series::begin(config, step_nanos, n_parts(window.key));
        let own = series.touch(window.key, begin);
        if own.step_nanos() != step_nanos {
            *own = begin();
        }
        let mut worst: Option<(Score, Observed)> = None;
        own.judge(first_step, window.points, config, paces, |culprit, observed| {
            if observed.is_judged {
                let value = observed.judged.surprise(config);
                if worst.is_none_or(|(score, _)| value > score.value) {
                    worst = Some((Score { value, culprit }, *observed));
                }
            }
        });
        let (score, observed) = worst?;
        let step = i64::try_from(score.culprit).map_or(i64::MAX, |culprit| first_step.saturating_add(culprit));
        own.finding = observed.finding(step, config.threshold);
        Some(score)
    }

    /// Memory that it takes, without the keys, which it shares with the series station.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.series.bytes() + self.series.in_order().into_iter().map(|(_, series)| series.heap_bytes()).sum::<usize>()
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(MAGIC);
        writer.number(self.version);
        writer.number(self.series.len() as u64);
        for (key, series) in self.series.in_order() {
            writer.key(key);
            series.write(&mut writer);
        }
        writer.finish()
    }

    fn decode(config: &Config, reader: &mut Reader<'_>) -> Option<Self> {
        let mut model = Self::new(config);
        model.version = reader.number()?;
        for _ in 0..reader.number()? {
            let (key, series) = (reader.key()?, Series::read(reader)?);
            model.series.touch(&key, || series);
        }
        reader.is_empty().then_some(model)
    }
}

impl Detector for Model {
    fn name(&self) -> &'static str {
        ProfileForecast::NAME
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn signal(&self) -> Signal {
        ProfileForecast::SIGNAL
    }

    /// The surprise of the most surprising new point, nats. Learns the points when they have been judged.
    fn score(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        for window in windows {
            let score = window.as_series().and_then(|series| self.score_series(series));
            scores.push(score);
        }
    }

    fn explain(&self, window: &Window<'_>, score: &Score) -> Evidence {
        match window.as_series() {
            Some(series) => explain::evidence(&self.config, self.series.get(series.key), series, score),
            None => Evidence { summary: "the window holds no series".to_owned(), ..Evidence::default() },
        }
    }

    /// Does nothing: it has learned from the points when it judged them, the abnormal ones winsorised.
    fn learn(&mut self, _windows: &[Window<'_>]) {}

    fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
        Ok(self.encode())
    }
}

#[cfg(test)]
mod tests;
