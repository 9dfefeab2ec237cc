//! Change point: a series that has another level or another spread than it had until a few points ago.
//!
//! Station 7. Adams and MacKay, "Bayesian Online Changepoint Detection", arXiv 2007 (algorithm 1): the probability of each
//! length of the present run, point by point (`runs`). Of a prediction and of the run lengths the latter are the score: how
//! surprising a point is tells a spike, for which there is `heavy-tail`, while run lengths gather what several points say, so that a
//! shift of three deviations is found after four points although none of them is rare.
//!
//! The score is −ln P(no change within the last `recent_points`). It calibrates itself: where nothing changes, a posterior of
//! "no change" is below c at most with probability c·ω, ω being the prior odds of a change within that time (Markov's
//! inequality for the Bayes factor); for a window of m points mω where that is more than 1. So exp(−score) is a p-value, a
//! conservative one, as far as runs are normal. Measured on 400,000 points of normal noise: no score of ln 100 or more.
//!
//! Measured (simulated, scores of ln 1000 or more): shifts of 5 deviations after 2 points, 3 after 4, 2 after 10 in the median,
//! two thirds of them within 20; 1.5 mostly not. Lone spikes of 5 to 100 deviations: none taken for a change. In 20,000 points without a
//! change: of Laplacian noise 1, of Student's t of three degrees 5, of log-normal noise 35; sparse small counts 7 in 5,000.
//!
//! Cost: three logarithms and an exponential for each of 128 runs, 20 microseconds a point (50,000 a second on one busy core, on AIOps and
//! WSD): not for every series there is. No allocation once a series is warm. Memory: 2.5 KiB a series, of which 2.3 are the runs; `max_series` at most.
//!
//! When it fails: on strongly skewed noise and sparse counts (above); on a change that is as slow as the correlation of
//! neighbours lets expect: at a correlation of .5 a shift has to be ten deviations to be seen at once, at .9 it is not; on a season, which a
//! correlation like that mostly makes it silent about; and a level that changes back within `recent_points` is two changes.
//!
//! Differs from the paper: outliers, correlated neighbours and a limited memory (see `runs`); 128 run lengths. The prior is in units
//! of the spread of the first points.

mod explain;
mod runs;
mod track;

use faultline_core::{Detector, DetectorError, Evidence, Score, SeriesWindow, Signal, Window, hash::StableHash};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::{
    runs::Beliefs,
    track::{Finding, Track},
};
use crate::{
    algorithm::Algorithm,
    bounded::Bounded,
    bytes::{Magic, Reader, Writer},
    ranges::Ranges,
};

/// Hyperparameters of [`ChangePoint`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Points that a level lasts in the mean: one over the paper's hazard. Default 250.
    pub run_points: f64,
    /// Points for which a change counts as recent. Default 20. Raise it to find smaller shifts later.
    pub recent_points: u32,
    /// Share of points that are outliers, of which one alone is no change. Default 0.001; 0 is the paper's model.
    pub outlier_share: f64,
    /// Points of a series before it is judged, which say what its spread is. Default 100, more than `recent_points`.
    pub warm_up_points: u32,
    /// Series to remember, a memory bound (2.5 KiB each). Those not seen for longest are forgotten first. Default 20000.
    pub max_series: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { run_points: 250.0, recent_points: 20, outlier_share: 0.001, warm_up_points: 100, max_series: 20_000 }
    }
}

impl Config {
    fn beliefs(&self) -> Beliefs {
        Beliefs { hazard: 1.0 / self.run_points, outlier_share: self.outlier_share }
    }

    fn recent(&self) -> u16 {
        u16::try_from(self.recent_points).unwrap_or(u16::MAX)
    }

    /// ln of the prior odds of a recent change: ω.
    fn ln_odds(&self) -> f64 {
        let ln_none = (f64::from(self.recent_points) + 1.0) * (-1.0 / self.run_points).ln_1p();
        (-ln_none.exp_m1()).ln() - ln_none
    }
}

/// See the file's documentation.
pub struct ChangePoint;

/// What is known of each series.
#[derive(Debug)]
pub struct Model {
    config: Config,
    version: u64,
    series: Bounded<Track>,
}

/// What a snapshot begins with; the digit is the format.
const MAGIC: &Magic = b"faultlineChgPnt1";

/// Largest `recent_points`.
const MOST_RECENT: u32 = 1_000;

impl Algorithm for ChangePoint {
    const NAME: &'static str = "change-point";
    const SUMMARY: &'static str = "a series that has had another level or spread for a few points, by run lengths";
    const PAPER: &'static str = "Adams, MacKay: Bayesian Online Changepoint Detection, arXiv:0710.3742, 2007";
    const SIGNAL: Signal = Signal::Series;
    const PUBLISHED_THRESHOLD: Option<f64> = None;
    const IS_SELF_CALIBRATED: bool = true;
    /// A change of level is not a fault; it is for those who want to know.
    const IS_DEFAULT: bool = false;

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
    let ranges = Ranges(ChangePoint::NAME);
    ranges.within([
        ("run_points", config.run_points, 2.0..=1e9),
        // At more a lone point is no evidence at all.
        ("outlier_share", config.outlier_share, 0.0..=0.1),
    ])?;
    ranges.within([("recent_points", config.recent_points, 1..=MOST_RECENT)])?;
    ranges.within([("warm_up_points", config.warm_up_points, config.recent_points + 2..=100_000)])?;
    ranges.within([("max_series", config.max_series, 1..=100_000_000)])
}

/// Replays one series: −ln P(no recent change) after each of `values`, which follow each other from `first_step` on; not a
/// number for a gap (not a number) and in the warm-up. `step_nanos` is at least 1.
#[must_use]
pub fn judge_series(config: &Config, step_nanos: i64, first_step: i64, values: &[f64]) -> Vec<f64> {
    let mut scores = vec![f64::NAN; values.len()];
    let mut track = Track::begin(step_nanos.max(1));
    track.judge(first_step, values, config, |idx, finding| scores[idx] = finding.surprise);
    scores
}

impl Model {
    fn new(config: &Config) -> Self {
        Self { config: config.clone(), version: 0, series: Bounded::new(config.max_series) }
    }

    /// The score of the new point after which a recent change is likeliest; none while the series warms up or where all
    /// points are gaps.
    fn score_series(&mut self, window: &SeriesWindow<'_>) -> Option<Score> {
        let Self { config, series, .. } = self;
        let step_nanos = window.step_nanos.max(1);
        let track = series.touch(window.key, || Track::begin(step_nanos));
        if track.step_nanos() != step_nanos {
            *track = Track::begin(step_nanos);
        }
        let mut n_judged = 0_u32;
        let mut worst: Option<(usize, Finding)> = None;
        track.judge(window.first_step(), window.points, config, |idx, finding| {
            n_judged += 1;
            if worst.is_none_or(|(_, worst)| finding.surprise > worst.surprise) {
                worst = Some((idx, *finding));
            }
        });
        let (culprit, finding) = worst?;
        track.finding = Some(finding);
        let chances = (config.ln_odds() + f64::from(n_judged).ln()).max(0.0);
        Some(Score { value: (finding.surprise - chances).max(0.0), culprit })
    }

    /// Memory that it takes, without the keys, which it shares with the series station.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.series.bytes() + self.series.in_order().into_iter().map(|(_, track)| track.heap_bytes()).sum::<usize>()
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(MAGIC);
        writer.number(self.version);
        writer.number(self.series.len() as u64);
        for (key, track) in self.series.in_order() {
            writer.key(key);
            track.write(&mut writer);
        }
        writer.finish()
    }

    fn decode(config: &Config, reader: &mut Reader<'_>) -> Option<Self> {
        let mut model = Self::new(config);
        model.version = reader.number()?;
        for _ in 0..reader.number()? {
            let (key, track) = (reader.key()?, Track::read(reader)?);
            model.series.touch(&key, || track);
        }
        reader.is_empty().then_some(model)
    }
}

/// Number of the step of a point of the window.
fn step_of(window: &SeriesWindow<'_>, idx: usize) -> i64 {
    window.first_step().saturating_add(i64::try_from(idx).unwrap_or(i64::MAX))
}

impl Detector for Model {
    fn name(&self) -> &'static str {
        ChangePoint::NAME
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn signal(&self) -> Signal {
        ChangePoint::SIGNAL
    }

    /// −ln of the probability that there was no recent change, of the new point where it is least. Learns the points.
    fn score(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        for window in windows {
            let score = window.as_series().and_then(|series| self.score_series(series));
            scores.push(score);
        }
    }

    fn explain(&self, window: &Window<'_>, score: &Score) -> Evidence {
        match window.as_series() {
            Some(series) => explain::evidence(self.series.get(series.key), self.config.recent(), series, score),
            None => Evidence { summary: "the window holds no series".to_owned(), ..Evidence::default() },
        }
    }

    /// Does nothing: it has learned from the points when it judged them; a new level is the usual one after `recent_points`.
    fn learn(&mut self, _windows: &[Window<'_>]) {}

    fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
        Ok(self.encode())
    }
}

#[cfg(test)]
mod tests;
