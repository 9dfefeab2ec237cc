//! One series: its profile, the tail of its distances from it, and what has been told of late.

use super::{
    Config,
    profile::{DAY, Profile},
    refractory::Refractory,
    tail::Tail,
};
use crate::bytes::{Reader, Writer};

/// Expected false alarms from which on a score is 0.
pub const MOST_ALARMS: f64 = 600.0;

/// A judged point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// Where it was expected.
    pub expected: f64,
    /// −ln of the share of points that are as far off: T.
    pub surprise: f64,
    /// ln 600 − ln of how many points of the history should be as far off: S. Where that is no news, 0.
    pub score: f64,
    /// Points that the tail stands for.
    pub n_history: u64,
}

impl Judged {
    /// The surprise, where it is news.
    pub fn told(&self) -> f64 {
        if self.score > 0.0 { self.surprise } else { 0.0 }
    }
}

/// What was found of the point that the latest score names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finding {
    pub step: i64,
    pub judged: Judged,
}

/// See the file's documentation.
#[derive(Clone, Debug, PartialEq)]
pub struct Track {
    step_nanos: i64,
    /// The step after the last one that was judged.
    next_step: i64,
    n_seen: u32,
    profile: Profile,
    tail: Tail,
    refractory: Refractory,
    pub finding: Option<Finding>,
}

impl Track {
    /// One that is about to see its first point.
    pub fn begin(config: &Config, step_nanos: i64) -> Self {
        Self {
            step_nanos,
            next_step: i64::MIN,
            n_seen: 0,
            profile: Profile::new(step_nanos, config.learning_rate),
            tail: Tail::new(),
            refractory: Refractory::new(),
            finding: None,
        }
    }

    pub fn step_nanos(&self) -> i64 {
        self.step_nanos
    }

    /// Judges and then learns points that follow each other from `first_step` on, not a number being a gap. Those of steps
    /// that have been are passed over. Tells of each point that is judged by its place in `points`.
    pub fn judge(&mut self, first_step: i64, points: &[f64], config: &Config, mut tell: impl FnMut(usize, &Judged)) {
        let n_known = self.next_step.saturating_sub(first_step).max(0);
        let Some(n_skipped) = usize::try_from(n_known).ok().filter(|n| *n < points.len()) else { return };
        let mut step = first_step.saturating_add(n_known);
        let begin = i128::from(step) * i128::from(self.step_nanos);
        let mut nanos_of_day = begin.rem_euclid(i128::from(DAY)) as i64;
        for (idx, &value) in points.iter().enumerate().skip(n_skipped) {
            if value.is_finite() {
                let slot = self.profile.slot(nanos_of_day);
                if let Some(judged) = self.observe(step, slot, value, config) {
                    tell(idx, &judged);
                }
            }
            step = step.saturating_add(1);
            nanos_of_day = (nanos_of_day + self.step_nanos % DAY) % DAY;
        }
        self.next_step = step;
    }

    /// Judges a point, where the warm-up is over, and learns it.
    fn observe(&mut self, step: i64, slot: usize, value: f64, config: &Config) -> Option<Judged> {
        let memory = u64::from(config.memory_points);
        let residual = self.profile.residual(slot, value);
        let judged = (self.n_seen >= config.warm_up_points).then(|| {
            let n_history = self.tail.weight();
            let surprise = self.tail.surprise(residual.size, memory);
            let score = (surprise - ((n_history + 1) as f64 / MOST_ALARMS).ln()).max(0.0);
            let score = if surprise > 0.0 { score } else { 0.0 };
            let is_news = self.refractory.passes(step, score, i64::from(config.refractory_points));
            Judged { expected: residual.expected, surprise, score: if is_news { score } else { 0.0 }, n_history }
        });
        self.profile.learn(slot, value);
        self.tail.learn(residual.size, memory);
        self.n_seen = self.n_seen.saturating_add(1);
        judged
    }

    /// Index of the fitted tail: how fast ever larger distances become rare.
    pub fn tail_index(&self) -> Option<f64> {
        self.tail.fit().map(|fit| f64::from(fit.n_beyond) / fit.excess)
    }

    /// Memory that it holds elsewhere.
    pub fn heap_bytes(&self) -> usize {
        self.profile.heap_bytes()
    }

    pub fn write(&self, writer: &mut Writer) {
        writer.integer(self.step_nanos);
        writer.integer(self.next_step);
        writer.word(self.n_seen);
        self.profile.write(writer);
        self.tail.write(writer);
        self.refractory.write(writer);
    }

    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let step_nanos = reader.integer().filter(|step| *step > 0)?;
        Some(Self {
            step_nanos,
            next_step: reader.integer()?,
            n_seen: reader.word()?,
            profile: Profile::read(reader, step_nanos)?,
            tail: Tail::read(reader)?,
            refractory: Refractory::read(reader)?,
            finding: None,
        })
    }
}
