//! How `span-lstm` is fitted: most of the traces train the network, every fifth shows how large its errors are on traces that it
//! has not seen; then, for the last fifth of the steps, it sees them too.

use std::ops::Range;

use faultline_core::TraceWindow;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rustc_hash::FxHashMap;

use super::{
    Config, Learned, Scale, Scratch, log_time,
    net::{Net, Pass, Reading, Readings, Shape},
    odd_time,
    rarity::Rarity,
};
use crate::{
    networks::elementary::{Adam, clip, rate_at},
    traces::{
        corpus::{Corpus, Draws, Shapes},
        sequence::{Labels, Sequence},
    },
};

/// One in so many traces is held out.
const HELD_OUT: usize = 5;

/// Traces below which none is.
const MIN_TRACES: usize = 20;

/// Held-out traces that are measured, evenly spread: a bound on time and memory.
const MAX_MEASURED: usize = 2_000;

/// Traces of one shape that are learned from: as many times, which differ.
const MEMBERS: usize = 16;

/// Optimizer steps below which a fit does not stop, however few the shapes are.
const MIN_STEPS: usize = 200;

/// Share of the steps that is on all traces.
const SETTLING: f64 = 0.2;

/// Norm to which a gradient is cut.
const MAX_NORM: f32 = 1.0;

/// The least deviation of the logarithm of a time, and of an error in deviations.
const MIN_DEVIATION: f64 = 0.1;

/// So many times or errors of all labels count beside those of one label, which may be few.
const PRIOR: f64 = 10.0;

/// A trace to learn from.
#[derive(Debug)]
struct Example {
    spans: Vec<Reading>,
    is_whole: bool,
}

/// Fits to traces that are whole.
pub(super) fn fit(config: &Config, traces: &[&TraceWindow<'_>], seed: u64) -> Result<Learned, String> {
    let (labels, n_new) = Labels::learn(traces, config.max_labels);
    if traces.is_empty() {
        return Err("no training window holds a complete trace".to_owned());
    }
    let shapes = Shapes::of(traces, &labels, config.max_spans);
    let mut scratch = Scratch::default();
    let scales = scales_of(config, &labels, traces, &mut scratch.sequence);
    let holds_out = traces.len() >= MIN_TRACES;
    let is_held_out = |idx: &usize| holds_out && idx % HELD_OUT == HELD_OUT - 1;
    let known = (0..traces.len()).filter(|idx| !is_held_out(idx));
    let first = Corpus::of(&shapes, known, config.max_shapes, MEMBERS);
    let all = Corpus::of(&shapes, 0..traces.len(), config.max_shapes, MEMBERS);
    let mut examples: FxHashMap<u32, Example> = FxHashMap::default();
    for &idx in first.groups.iter().chain(&all.groups).flat_map(|group| &group.members) {
        examples.entry(idx).or_insert_with(|| {
            let (trace, mut spans) = (traces[idx as usize], Vec::new());
            scratch.sequence.take(&labels, trace, config.max_spans);
            readings_of(&scales, trace, &scratch.sequence, &mut spans);
            Example { spans, is_whole: !scratch.sequence.is_cut }
        });
    }
    let n_steps = n_steps(config, &all, &examples);
    let n_first = if holds_out { (n_steps as f64 * (1.0 - SETTLING)) as usize } else { n_steps };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let shape = Shape { n_labels: labels.len(), hidden: config.hidden };
    let mut training = Training {
        config,
        examples: &examples,
        n_steps,
        net: Net::drawn(shape, &mut rng),
        adam: Adam::new(shape.n_weights()),
        rng,
    };
    training.run(&first, 0..n_first);
    let of_unknown = -((n_new as f64 + 0.5) / (traces.len() as f64 + 1.0)).ln();
    let (structure, time) = (Rarity::default(), Rarity::default());
    let net = Net::new(shape, training.net.weights.clone());
    let mut learned = Learned { labels, scales, net, structure, time, of_unknown };
    let measured: Vec<usize> = (0..traces.len()).filter(|idx| !holds_out || is_held_out(idx)).collect();
    let stride = measured.len().div_ceil(MAX_MEASURED).max(1);
    measure(&mut learned, config, measured.into_iter().step_by(stride).map(|idx| traces[idx]), &mut scratch);
    training.run(&all, n_first..n_steps);
    if !training.net.weights.iter().all(|weight| weight.is_finite()) {
        return Err("training diverged; lower `learning_rate`".to_owned());
    }
    learned.net = training.net;
    Ok(learned)
}

/// A trace as the network reads it.
pub(super) fn readings_of(scales: &[Scale], trace: &TraceWindow<'_>, sequence: &Sequence, to: &mut Vec<Reading>) {
    to.clear();
    to.extend(sequence.steps.iter().map(|step| {
        let log_time = log_time(trace.spans[step.span as usize].duration_nanos);
        let scale = scales.get(usize::from(step.symbol));
        Reading { symbol: step.symbol, time: scale.map_or(0.0, |scale| (log_time - scale.mean) / scale.deviation) }
    }));
}

/// Mean and deviation of the logarithms of the times of each label.
fn scales_of(config: &Config, labels: &Labels, traces: &[&TraceWindow<'_>], sequence: &mut Sequence) -> Vec<Scale> {
    let mut sums = vec![[0.0f64; 3]; labels.len()];
    for trace in traces {
        sequence.take(labels, trace, config.max_spans);
        for step in &sequence.steps {
            if let Some([n, sum, squares]) = sums.get_mut(usize::from(step.symbol)) {
                let own = f64::from(log_time(trace.spans[step.span as usize].duration_nanos));
                (*n, *sum, *squares) = (*n + 1.0, *sum + own, *squares + own * own);
            }
        }
    }
    // Sum of squared distances to the mean.
    let scatter = |[n, sum, squares]: [f64; 3]| if n > 0.0 { (squares - sum * sum / n).max(0.0) } else { 0.0 };
    let n_all: f64 = sums.iter().map(|sums| sums[0]).sum();
    let of_all = sums.iter().map(|sums| scatter(*sums)).sum::<f64>() / n_all.max(1.0);
    let scale = |own: &[f64; 3]| Scale {
        mean: (own[1] / own[0].max(1.0)) as f32,
        deviation: ((scatter(*own) + PRIOR * of_all) / (own[0] + PRIOR)).sqrt().max(MIN_DEVIATION) as f32,
        spread: 1.0,
    };
    sums.iter().map(scale).collect()
}

/// Optimizer steps to take.
fn n_steps(config: &Config, corpus: &Corpus, examples: &FxHashMap<u32, Example>) -> usize {
    let length = |idx: &u32| examples.get(idx).map_or(0, |example| example.spans.len() + 1);
    let n_spans: usize =
        corpus.groups.iter().map(|group| group.n_draws * group.members.first().map_or(0, length)).sum();
    let a_step = config.batch as f64 * n_spans as f64 / corpus.n_draws().max(1) as f64;
    let affordable = (config.max_training_spans as f64 / a_step.max(1.0)) as usize;
    let wanted = (config.epochs * corpus.n_draws().div_ceil(config.batch)).max(MIN_STEPS);
    wanted.min(affordable).max(1)
}

/// A network that is being trained.
struct Training<'a> {
    config: &'a Config,
    examples: &'a FxHashMap<u32, Example>,
    /// Steps over which the step size falls.
    n_steps: usize,
    net: Net,
    adam: Adam,
    rng: ChaCha8Rng,
}

impl Training<'_> {
    /// Takes some of the steps, on the traces of this corpus.
    fn run(&mut self, corpus: &Corpus, steps: Range<usize>) {
        let (mut draws, mut pass) = (Draws::of(corpus), Pass::default());
        let mut gradient = vec![0.0f32; self.net.weights.len()];
        for step in steps {
            gradient.fill(0.0);
            let mut n_predictions = 0;
            for _ in 0..self.config.batch {
                let Some(Example { spans, is_whole }) = self.examples.get(&draws.draw(&mut self.rng)) else { continue };
                let readings = Readings { spans, is_whole: *is_whole };
                n_predictions += readings.n_steps();
                self.net.learn(readings, &mut pass, &mut gradient);
            }
            let share = 1.0 / n_predictions.max(1) as f32;
            gradient.iter_mut().for_each(|own| *own *= share);
            clip(&mut gradient, MAX_NORM);
            let rate = rate_at(self.config.learning_rate, step as f64 / self.n_steps as f64);
            self.adam.step(&mut self.net.weights, &gradient, rate);
        }
    }
}

/// Learns how large errors are on traces that the network has not seen, and how seldom.
fn measure<'a>(
    learned: &mut Learned,
    config: &Config,
    traces: impl Iterator<Item = &'a TraceWindow<'a>>,
    scratch: &mut Scratch,
) {
    let n_labels = learned.labels.len();
    let (mut structure, mut errors) = (Vec::new(), Vec::new());
    for trace in traces {
        if learned.read(trace, config.max_spans, scratch) {
            structure.extend(scratch.odd_label(n_labels).map(|odd| odd.figure));
            errors.push(scratch.errors(n_labels).collect::<Vec<_>>());
        }
    }
    let mut sums = vec![[0.0f64; 2]; n_labels];
    for &(_, label, error) in errors.iter().flatten() {
        let [n, squares] = &mut sums[label];
        *n += 1.0;
        *squares += f64::from(error) * f64::from(error);
    }
    let [n_all, squares] = sums.iter().fold([0.0, 0.0], |all, own| [all[0] + own[0], all[1] + own[1]]);
    let of_all = if n_all > 0.0 { squares / n_all } else { 1.0 };
    for (scale, [n, squares]) in learned.scales.iter_mut().zip(sums) {
        let spread = ((squares + PRIOR * of_all) / (n + PRIOR)).sqrt();
        scale.spread = spread.max(MIN_DEVIATION) as f32;
    }
    let scales = &learned.scales;
    let time = errors.into_iter().filter_map(|errors| odd_time(errors.into_iter(), scales));
    learned.time = Rarity::of(time.map(|odd| odd.figure).collect());
    learned.structure = Rarity::of(structure);
}
