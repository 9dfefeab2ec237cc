//! A fitted model of traces as vectors: the network, what is usual, and the kinds of traces that training held.

use faultline_core::DetectorError;

use super::{
    Config, TraceAnomaly,
    dimensions::{Census, Dimensions},
    likelihood::{Likelihood, Scratch},
    net::{self, Schedule, Shape},
    usual::{Scale, Usual},
};
use crate::{
    algorithm::Algorithm,
    algorithms::trace_vector::{self, Judgement, Kinds, PathVector, UNHEARD_OF},
};

/// Call paths that kinds may have, with or without a dimension.
const MAX_KNOWN_PATHS: usize = 16_384;

/// A fitted model of traces as vectors, without spans. See the file `trace_anomaly.rs`.
#[derive(Debug)]
pub struct Network {
    pub(super) shape: Shape,
    /// Of the draws behind samples.
    pub(super) seed: u64,
    pub(super) dimensions: Dimensions,
    pub(super) weights: Vec<f32>,
    pub(super) scale: Scale,
    /// Whether training held no more paths than `kinds` has.
    pub(super) is_complete: bool,
    pub(super) kinds: Kinds,
    /// Serves the weights.
    likelihood: Likelihood,
}

/// What is said of one trace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finding {
    /// The score.
    pub value: f64,
    /// −ln p of the trace, nats.
    pub nats: f64,
    /// What that is in the median of its kind, or of the nearest one.
    pub usual_nats: f64,
    /// Call paths that no trace in training took.
    pub n_unseen: usize,
    /// What is said of its kind, and by how much it exceeds their times.
    pub judgement: Judgement,
}

/// Buffers of [`Network::judge`].
#[derive(Debug, Default)]
pub struct Buffers {
    fed: Vec<f32>,
    wanted: Vec<f32>,
    scratch: Scratch,
}

impl Network {
    /// Learns from traces that are taken to be mostly normal.
    ///
    /// # Errors
    /// When a value of the configuration is out of range, there is no trace, or training diverges.
    pub fn fit(config: &Config, vectors: &[PathVector<'_>], seed: u64) -> Result<Self, DetectorError> {
        config.check()?;
        let refuse =
            |reason: &str| DetectorError::Fit { detector: TraceAnomaly::NAME.to_owned(), reason: reason.to_owned() };
        let is_sound = |vector: &&PathVector<'_>| !vector.paths.is_empty() && vector.paths.len() == vector.ms.len();
        let vectors: Vec<PathVector<'_>> = vectors.iter().filter(is_sound).copied().collect();
        if vectors.is_empty() {
            return Err(refuse("no training window holds a complete trace"));
        }
        let of_kinds = trace_vector::Config {
            rare_share: 0.0,
            max_kinds: config.max_kinds,
            max_paths: MAX_KNOWN_PATHS,
            ..trace_vector::Config::default()
        };
        let kinds = Kinds::fit(&of_kinds, &vectors)?;
        let census = Census::of(&vectors);
        let dimensions = census.dimensions(config.max_paths);
        let shape = Shape {
            paths: dimensions.len(),
            hidden: config.hidden,
            latent: config.latent,
            flows: config.flow_steps,
            min_ln_deviation: config.min_deviation.ln() as f32,
        };
        let schedule = Schedule {
            epochs: config.epochs,
            max_traces: config.max_traces,
            batch: config.batch,
            learning_rate: config.learning_rate,
            seed,
        };
        let weights = net::train(&shape, &dimensions, &vectors, &schedule);
        if !weights.iter().all(|weight| weight.is_finite()) {
            return Err(refuse("training diverged; lower `learning_rate`"));
        }
        let likelihood = Likelihood::new(shape, &weights, config.samples, seed);
        let mut buffers = Buffers::default();
        let nats = |row: usize| nats(&dimensions, &likelihood, &vectors[row], &mut buffers);
        let scale = Scale::of(&kinds, &vectors, config.by_kind, census.n_alone(&vectors), nats);
        let is_complete = census.is_within(&kinds);
        Ok(Self { shape, seed, dimensions, weights, scale, is_complete, kinds, likelihood })
    }

    /// What was fitted before, ready to judge again.
    pub(super) fn new(
        (shape, seed, samples): (Shape, u64, usize),
        (dimensions, weights): (Dimensions, Vec<f32>),
        scale: Scale,
        (kinds, is_complete): (Kinds, bool),
    ) -> Self {
        let likelihood = Likelihood::new(shape, &weights, samples, seed);
        Self { shape, seed, dimensions, weights, scale, is_complete, kinds, likelihood }
    }

    /// What there is to say of a trace; nothing where it takes no path.
    #[must_use]
    pub fn judge(&self, vector: &PathVector<'_>, buffers: &mut Buffers) -> Option<Finding> {
        let judgement = self.kinds.judge(vector)?;
        let nats = nats(&self.dimensions, &self.likelihood, vector, buffers);
        // One that begins as none did is held against the kind nearest to it all the same.
        let kind = judgement.kind.or_else(|| self.kinds.nearest_of_all(vector));
        let Usual { median, .. } = self.scale.usual(kind);
        let mut value = self.scale.score(nats, kind);
        if !value.is_finite() {
            value = UNHEARD_OF;
        }
        let mut n_unseen = 0;
        if self.is_complete {
            n_unseen = vector.paths.iter().filter(|path| !self.kinds.knows(**path)).count();
        }
        if n_unseen > 0 {
            value = value.max(self.scale.unseen.unwrap_or(UNHEARD_OF + n_unseen as f64));
        }
        let nats = if nats.is_finite() { nats } else { UNHEARD_OF };
        Some(Finding { value, nats, usual_nats: median, n_unseen, judgement })
    }

    /// Number of kinds, and of call paths that have a dimension.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.kinds.size().0, self.dimensions.len())
    }
}

fn nats(dimensions: &Dimensions, likelihood: &Likelihood, vector: &PathVector<'_>, buffers: &mut Buffers) -> f64 {
    let Buffers { fed, wanted, scratch } = buffers;
    fed.clear();
    wanted.clear();
    dimensions.standardise(vector, fed, wanted);
    likelihood.nats(fed, wanted, scratch)
}
