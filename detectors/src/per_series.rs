//! What the cheap detectors of series have in common: a small state for each series, in a bounded map.
//!
//! Station 7. A detector of this kind says how it judges one point after another ([`State`]); all the rest is here. A series
//! warms up by itself: it has a state from its first point on, and is silent while that has nothing to go by. When there
//! are more than `max_series`, the ones that have not been seen for longest lose theirs. A gap is not a point; a series
//! that goes back in time or changes its step begins anew. Of a window with several new points the worst counts.
//!
//! Points are learned as they are scored, since the state is how the series has been of late; `learn` does nothing. What keeps
//! anomalies from becoming normal is the state's business. No allocation for a point.

mod evidence;
mod scale;

use faultline_core::{Detector, DetectorError, Evidence, Score, SeriesWindow, Signal, Window, hash::StableHash};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use self::scale::Scale;
use crate::{
    bounded::Bounded,
    bytes::{Magic, Reader, Writer},
    ranges::Ranges,
};

/// Values are cut to this, so that no square overflows.
const MOST: f64 = 1e30;

/// No score is larger.
const MAX_SCORE: f64 = 1e6;

/// Configuration of a cheap detector of series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Series that have a state; of more, those seen least recently lose theirs and warm up again. A memory bound: up to
    /// two kibibytes each.
    pub max_series: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_series: 20_000 }
    }
}

/// How one series has been of late.
pub(crate) trait State: Send + 'static {
    /// The detector's name.
    const NAME: &'static str;
    /// What its snapshots begin with.
    const MAGIC: &'static Magic;

    /// That of a series nothing is known of.
    fn new(step_nanos: i64) -> Self;

    /// Judges a point, none while there is nothing to go by; then learns it. Steps grow from call to call; values are finite
    /// and no larger than 1e30.
    fn observe(&mut self, step: i64, value: f64) -> Option<Judged>;

    /// Writes it.
    fn write(&self, writer: &mut Writer);

    /// Reads what [`State::write`] wrote for a series of this step; none where that is damaged.
    fn read(reader: &mut Reader<'_>, step_nanos: i64) -> Option<Self>
    where
        Self: Sized;
}

/// What was expected of a point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Judged {
    /// The value that was expected.
    pub expected: f64,
    /// What a usual distance from it is, more than zero.
    pub scale: f64,
}

impl Judged {
    /// The distance of `value` from what was expected, in units of the scale.
    pub fn distance(self, value: f64) -> f64 {
        ((value - self.expected).abs() / self.scale).min(MAX_SCORE)
    }
}

/// A fitted model: a state for each series.
pub struct Model(Box<dyn Detector>);

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Model").field(&self.0.name()).finish()
    }
}

impl Model {
    /// Warms up on the windows, in order.
    pub(crate) fn fit<S: State>(config: &Config, training: &[Window<'_>]) -> Result<Self, DetectorError> {
        let mut own = PerSeries::<S>::new(config)?;
        let mut n_points = 0;
        for window in training.iter().filter_map(Window::as_series) {
            n_points += window.points.iter().filter(|point| point.is_finite()).count();
            own.score_series(window);
        }
        if n_points == 0 {
            let reason = "no series has a point".to_owned();
            return Err(DetectorError::Fit { detector: S::NAME.to_owned(), reason });
        }
        own.version = StableHash::new().bytes(&own.encode()).number(config.max_series as u64).finish();
        Ok(Self(Box::new(own)))
    }

    /// Reads a snapshot.
    pub(crate) fn load<S: State>(config: &Config, snapshot: &[u8]) -> Result<Self, DetectorError> {
        let mut own = PerSeries::<S>::new(config)?;
        let refuse = |reason: String| DetectorError::Snapshot { detector: S::NAME.to_owned(), reason };
        let mut reader = Reader::open(S::MAGIC, snapshot).map_err(refuse)?;
        own.decode(&mut reader).ok_or_else(|| refuse("its content is damaged".to_owned()))?;
        Ok(Self(Box::new(own)))
    }
}

impl Detector for Model {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn version(&self) -> u64 {
        self.0.version()
    }

    fn signal(&self) -> Signal {
        self.0.signal()
    }

    fn score(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        self.0.score(windows, scores);
    }

    fn explain(&self, window: &Window<'_>, score: &Score) -> Evidence {
        self.0.explain(window, score)
    }

    fn learn(&mut self, windows: &[Window<'_>]) {
        self.0.learn(windows);
    }

    fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
        self.0.snapshot()
    }
}

/// The states of all series.
struct PerSeries<S> {
    version: u64,
    series: Bounded<Track<S>>,
}

/// One series.
struct Track<S> {
    step_nanos: i64,
    /// The step after the last point.
    next_step: i64,
    state: S,
    /// What was expected of the point that decided the latest score; not in snapshots.
    latest: Latest,
}

/// What was expected of a point, kept to explain its score by. 16 bytes, since each series has one.
#[derive(Clone, Copy, Debug)]
struct Latest {
    expected: f64,
    /// It is told, not judged by, so single precision will do.
    scale: f32,
    /// Steps from the point to the end of the last window; [`NOWHERE`] where there is no such point.
    n_back: u32,
}

/// Further back than anything that is explained.
const NOWHERE: u32 = u32::MAX;

impl Latest {
    const NONE: Self = Self { expected: 0.0, scale: 0.0, n_back: NOWHERE };

    fn of(judged: Judged, n_back: i64) -> Self {
        let n_back = u32::try_from(n_back).unwrap_or(NOWHERE);
        Self { expected: judged.expected, scale: judged.scale as f32, n_back }
    }

    /// The series has gone on by so many steps, 0 or more.
    fn move_on(&mut self, n_steps: i64) {
        self.n_back = u32::try_from(i64::from(self.n_back).saturating_add(n_steps)).unwrap_or(NOWHERE);
    }

    /// What was expected so many steps before the end of the last window, if that is where it is.
    fn at(self, n_back: i64) -> Option<Judged> {
        let is_it = self.n_back != NOWHERE && i64::from(self.n_back) == n_back;
        is_it.then(|| Judged { expected: self.expected, scale: f64::from(self.scale) })
    }
}

impl<S: State> Track<S> {
    fn new(step_nanos: i64) -> Self {
        Self { step_nanos, next_step: i64::MIN, state: S::new(step_nanos), latest: Latest::NONE }
    }

    /// The score of the worst point; none where none can be judged.
    fn score(&mut self, window: &SeriesWindow<'_>) -> Option<Score> {
        let first = window.first_step();
        if window.step_nanos != self.step_nanos || first < self.next_step {
            *self = Self::new(window.step_nanos);
        }
        let next_step = step_at(first, window.points.len());
        self.latest.move_on(next_step.saturating_sub(self.next_step));
        self.next_step = next_step;
        let mut worst: Option<Score> = None;
        for (culprit, &point) in window.points.iter().enumerate().filter(|(_, point)| point.is_finite()) {
            let (step, point) = (step_at(first, culprit), point.clamp(-MOST, MOST));
            let Some(judged) = self.state.observe(step, point) else { continue };
            let value = judged.distance(point);
            if worst.is_none_or(|worst| value > worst.value) {
                worst = Some(Score { value, culprit });
                self.latest = Latest::of(judged, next_step.saturating_sub(step));
            }
        }
        worst
    }
}

fn step_at(first: i64, idx: usize) -> i64 {
    first.saturating_add(i64::try_from(idx).unwrap_or(i64::MAX))
}

impl<S: State> PerSeries<S> {
    fn new(config: &Config) -> Result<Self, DetectorError> {
        Ranges(S::NAME).within([("max_series", config.max_series, 1..=10_000_000)])?;
        Ok(Self { version: 0, series: Bounded::new(config.max_series) })
    }

    fn score_series(&mut self, window: &SeriesWindow<'_>) -> Option<Score> {
        self.series.touch(window.key, || Track::new(window.step_nanos)).score(window)
    }

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(S::MAGIC);
        writer.number(self.version);
        writer.number(self.series.len() as u64);
        for (key, track) in self.series.in_order() {
            writer.key(key);
            writer.integer(track.step_nanos);
            writer.integer(track.next_step);
            track.state.write(&mut writer);
        }
        writer.finish()
    }

    fn decode(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        /// A series has its key and its steps at least.
        const LEAST: usize = 32;
        self.version = reader.number()?;
        for _ in 0..reader.length(LEAST)? {
            let (key, step_nanos, next_step) = (reader.key()?, reader.integer()?, reader.integer()?);
            let state = S::read(reader, step_nanos)?;
            *self.series.touch(&key, || Track::new(step_nanos)) =
                Track { step_nanos, next_step, state, latest: Latest::NONE };
        }
        reader.is_empty().then_some(())
    }
}

impl<S: State> Detector for PerSeries<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn signal(&self) -> Signal {
        Signal::Series
    }

    /// How far the worst new point is from what was expected, in units of what is usual for its series.
    fn score(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        for window in windows {
            let score = window.as_series().and_then(|series| self.score_series(series));
            scores.push(score);
        }
    }

    fn explain(&self, window: &Window<'_>, score: &Score) -> Evidence {
        let Some(series) = window.as_series() else {
            return Evidence { summary: "the window holds no series".to_owned(), ..Evidence::default() };
        };
        let step = step_at(series.first_step(), score.culprit);
        let track = self.series.get(series.key);
        let judged = track.and_then(|track| track.latest.at(track.next_step.saturating_sub(step)));
        evidence::of(series, score, judged)
    }

    /// Does nothing: what is scored has been learned.
    fn learn(&mut self, _windows: &[Window<'_>]) {}

    fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
        Ok(self.encode())
    }
}

#[cfg(test)]
pub(crate) mod tests;
