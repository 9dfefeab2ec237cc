//! How `masked-span` is fitted: most of the traces train the network, every fifth shows how improbable the places of traces are
//! that it has not seen; then, for the last fifth of the steps, it sees them too.

use std::ops::Range;

use faultline_core::TraceWindow;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustc_hash::FxHashMap;

use super::{
    Config, Learned, MAX_NLL,
    net::{Look, Net},
    places::{Place, places_of},
};
use crate::{
    networks::elementary::{Adam, clip, rate_at},
    traces::{
        corpus::{Corpus, Draws, Shapes},
        sequence::{Labels, Sequence, Step},
    },
};

/// One in so many traces is held out.
const HELD_OUT: usize = 5;

/// Traces below which none is.
const MIN_TRACES: usize = 20;

/// Held-out traces that are looked at, evenly spread: a bound on time.
const MAX_MEASURED: usize = 1_000;

/// Places of a trace that are masked at a time.
const MAX_PLACES: usize = 32;

/// Share of masked spans that take with them all that their caller did from there on.
const HIDES_LATER: f64 = 0.5;

/// Optimizer steps below which a fit does not stop, however few the shapes are.
const MIN_STEPS: usize = 300;

/// Share of the steps that is on all traces.
const SETTLING: f64 = 0.2;

/// Norm to which a gradient is cut.
const MAX_NORM: f32 = 1.0;

/// What is no more improbable than one in twenty is no error: ln 20.
const MIN_LEVEL: f64 = 2.995_732_273_553_991;

/// The shape of a trace to learn from, and whether the trace goes on.
#[derive(Debug)]
struct Example {
    steps: Vec<Step>,
    is_cut: bool,
}

/// Fits to traces that are whole.
pub(super) fn fit(config: &Config, traces: &[&TraceWindow<'_>], seed: u64) -> Result<Learned, String> {
    if traces.is_empty() {
        return Err("no training window holds a complete trace".to_owned());
    }
    let (labels, _) = Labels::learn(traces, config.max_labels);
    let shapes = Shapes::of(traces, &labels, config.max_spans);
    let holds_out = traces.len() >= MIN_TRACES;
    let is_held_out = |idx: &usize| holds_out && idx % HELD_OUT == HELD_OUT - 1;
    let known = (0..traces.len()).filter(|idx| !is_held_out(idx));
    let first = Corpus::of(&shapes, known, config.max_shapes, 1);
    let all = Corpus::of(&shapes, 0..traces.len(), config.max_shapes, 1);
    let measured: Vec<usize> = (0..traces.len()).filter(|idx| !holds_out || is_held_out(idx)).collect();
    let stride = measured.len().div_ceil(MAX_MEASURED).max(1);
    let measured = Corpus::of(&shapes, measured.into_iter().step_by(stride), usize::MAX, 1);
    let mut examples: FxHashMap<u32, Example> = FxHashMap::default();
    let mut sequence = Sequence::default();
    for &idx in [&first, &all, &measured].into_iter().flat_map(|corpus| &corpus.groups).flat_map(|own| &own.members) {
        examples.entry(idx).or_insert_with(|| {
            sequence.take(&labels, traces[idx as usize], config.max_spans);
            Example { steps: sequence.steps.clone(), is_cut: sequence.is_cut }
        });
    }
    let n_steps = n_steps(config, &all, &examples);
    let n_first = if holds_out { (n_steps as f64 * (1.0 - SETTLING)) as usize } else { n_steps };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let net = Net::drawn(config.shape(labels.len()), &mut rng);
    let adam = Adam::new(net.weights.len());
    let mut learned = Learned { labels, net, level: MIN_LEVEL };
    let mut training = Training { config, examples: &examples, n_steps, adam, rng };
    training.run(&mut learned.net, &first, 0..n_first);
    learned.level = level_of(&learned, config, &measured, &examples);
    training.run(&mut learned.net, &all, n_first..n_steps);
    if !learned.net.weights.iter().all(|weight| weight.is_finite()) {
        return Err("training diverged; lower `learning_rate`".to_owned());
    }
    Ok(learned)
}

/// Optimizer steps to take.
fn n_steps(config: &Config, corpus: &Corpus, examples: &FxHashMap<u32, Example>) -> usize {
    let n_places = |idx: &u32| examples.get(idx).map_or(0, |example| (2 * example.steps.len()).min(MAX_PLACES));
    let n_all: usize =
        corpus.groups.iter().map(|group| group.n_draws * group.members.first().map_or(0, n_places)).sum();
    let a_step = config.batch as f64 * n_all as f64 / corpus.n_draws().max(1) as f64;
    let affordable = (config.max_training_places as f64 / a_step.max(1.0)) as usize;
    let wanted = (config.epochs * corpus.n_draws().div_ceil(config.batch)).max(MIN_STEPS);
    wanted.min(affordable).max(1)
}

/// The training of a network.
struct Training<'a> {
    config: &'a Config,
    examples: &'a FxHashMap<u32, Example>,
    /// Steps over which the step size falls.
    n_steps: usize,
    adam: Adam,
    rng: ChaCha8Rng,
}

impl Training<'_> {
    /// Takes some of the steps, on the traces of this corpus.
    fn run(&mut self, net: &mut Net, corpus: &Corpus, steps: Range<usize>) {
        let (mut draws, mut look) = (Draws::of(corpus), Look::default());
        let mut places: Vec<Place> = Vec::new();
        let mut gradient = vec![0.0f32; net.weights.len()];
        for step in steps {
            gradient.fill(0.0);
            let mut n_places = 0;
            for _ in 0..self.config.batch {
                let Some(example) = self.examples.get(&draws.draw(&mut self.rng)) else { continue };
                places_of(&example.steps, example.is_cut, &mut places);
                let n_masked = places.len().min(MAX_PLACES);
                for at in 0..n_masked {
                    // The first of a random order.
                    let chosen = self.rng.random_range(at..places.len());
                    places.swap(at, chosen);
                    if self.rng.random_bool(HIDES_LATER) {
                        places[at] = places[at].without_later(&example.steps);
                    }
                }
                n_places += n_masked;
                net.learn(&example.steps, &places[..n_masked], &mut look, &mut gradient);
            }
            let share = 1.0 / n_places.max(1) as f32;
            gradient.iter_mut().for_each(|own| *own *= share);
            clip(&mut gradient, MAX_NORM);
            let rate = rate_at(self.config.learning_rate, step as f64 / self.n_steps as f64);
            self.adam.step(&mut net.weights, &gradient, rate);
        }
    }
}

/// The surprise that only a share of traces has more of anywhere.
fn level_of(learned: &Learned, config: &Config, corpus: &Corpus, examples: &FxHashMap<u32, Example>) -> f64 {
    let (mut places, mut look) = (Vec::new(), Look::default());
    let mut worst: Vec<(f64, usize)> = Vec::with_capacity(corpus.groups.len());
    for group in &corpus.groups {
        let Some(example) = group.members.first().and_then(|idx| examples.get(idx)) else { continue };
        let mut own = 0.0f64;
        let trace = (&example.steps[..], example.is_cut);
        learned.look(trace, &mut places, &mut look, |_, nll, _| own = own.max(nll));
        worst.push((own, group.n_traces));
    }
    worst.sort_unstable_by(|one, other| other.0.total_cmp(&one.0));
    let n_traces: usize = worst.iter().map(|(_, n)| n).sum();
    let allowed = (config.error_share * n_traces as f64) as usize;
    let mut n_beyond = 0;
    for (nll, n) in worst {
        n_beyond += n;
        if n_beyond > allowed {
            return nll.clamp(MIN_LEVEL, MAX_NLL);
        }
    }
    MIN_LEVEL
}
