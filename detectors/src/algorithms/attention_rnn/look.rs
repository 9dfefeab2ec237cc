//! One prediction of the attention model under the lens: what was expected, where the attention went, and whether what it
//! went to mattered.
//!
//! The symbols with most of the attention are masked, and the surprise must fall by more than when as many others are.

use std::collections::BTreeMap;

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{kernel::Predictor, shape::Symbol};

/// Symbols that count as highlighted: the fewest that hold half of the attention, and no more than these.
const MAX_HIGHLIGHTED: usize = 3;

/// Sets of other symbols that the highlighted ones are compared with.
const N_RANDOM: usize = 32;

/// −ln p, nats, and no more than `most`.
pub fn surprise(log_probability: f32, most: f32) -> f32 {
    (-log_probability).clamp(0.0, most)
}

/// One prediction with all that is to be said about it.
#[derive(Debug)]
pub struct Look {
    context: Vec<Symbol>,
    /// What came.
    pub next: Symbol,
    /// The surprise at it, nats, and what it is at most.
    pub nll: f64,
    most: f32,
    log_probabilities: Vec<f32>,
    /// The most attended first.
    pub attended: Vec<Attended>,
}

/// A symbol of the context and the attention it received.
#[derive(Clone, Copy, Debug)]
pub struct Attended {
    /// Its place in the context.
    pub idx: usize,
    pub weight: f64,
}

impl Look {
    /// What `predictor` says of `next` after `context`. Attention to what is not there to be shown is left out.
    pub fn of(
        predictor: &Predictor,
        context: Vec<Symbol>,
        next: Symbol,
        most: f32,
        is_there: impl Fn(usize) -> bool,
    ) -> Self {
        let predictions = predictor.predict(&[&context]);
        let weights = predictions.attention.iter().enumerate();
        let mut attended: Vec<Attended> = weights
            .filter(|&(idx, &weight)| weight > 0.0 && is_there(idx))
            .map(|(idx, &weight)| Attended { idx, weight: f64::from(weight) })
            .collect();
        attended.sort_by(|a, b| b.weight.total_cmp(&a.weight).then_with(|| a.idx.cmp(&b.idx)));
        let log_probabilities = predictions.log_probabilities;
        let nll = log_probabilities.get(usize::from(next)).map_or(most, |&own| surprise(own, most));
        Self { context, next, nll: f64::from(nll), most, log_probabilities, attended }
    }

    /// Whether the network has no probability for what came.
    pub fn is_unseen(&self) -> bool {
        usize::from(self.next) >= self.log_probabilities.len()
    }

    /// 1 where nothing was likelier than what came.
    pub fn rank(&self) -> usize {
        if self.is_unseen() {
            return self.log_probabilities.len() + 1;
        }
        1 + self.log_probabilities.iter().filter(|&&other| surprise(other, self.most) < self.nll as f32).count()
    }

    /// The symbols that might have come with their probabilities, the likeliest first.
    pub fn expected(&self) -> Vec<(usize, f64)> {
        let mut expected: Vec<(usize, f32)> = self.log_probabilities.iter().copied().enumerate().collect();
        expected.sort_by(|a, b| b.1.total_cmp(&a.1));
        expected.into_iter().map(|(symbol, log_probability)| (symbol, f64::from(log_probability.exp()))).collect()
    }

    /// The most attended symbols, and their share of the attention.
    pub fn highlighted(&self) -> (&[Attended], f64) {
        let mut sum = 0.0;
        let below_half = self.attended.iter().take_while(|attended| {
            let is_below = sum < 0.5;
            sum += attended.weight;
            is_below
        });
        let highlighted = &self.attended[..below_half.count().min(MAX_HIGHLIGHTED)];
        (highlighted, highlighted.iter().map(|attended| attended.weight).sum())
    }

    /// Adds what masking says: `fall_highlighted_nats`, by how much the surprise falls when the highlighted symbols are
    /// masked; `fall_random_nats`, by how much, on average, when as many are that were drawn from all that were attended
    /// to; `faithfulness`, the difference. The latter two are absent where there are no others, all where nothing could
    /// make what came less unseen.
    pub fn test_by_masking(&self, predictor: &Predictor, seed: u64, figures: &mut BTreeMap<String, f64>) {
        let (highlighted, _) = self.highlighted();
        if highlighted.is_empty() || self.is_unseen() {
            return;
        }
        let unknown = predictor.shape().unknown();
        let masked = |attended: &[Attended]| {
            let mut context = self.context.clone();
            attended.iter().for_each(|attended| context[attended.idx] = unknown);
            context
        };
        let mut contexts = vec![masked(highlighted)];
        if self.attended.len() > highlighted.len() {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut others = self.attended.clone();
            for _ in 0..N_RANDOM {
                let (drawn, _) = others.partial_shuffle(&mut rng, highlighted.len());
                contexts.push(masked(drawn));
            }
        }
        let contexts: Vec<&[Symbol]> = contexts.iter().map(Vec::as_slice).collect();
        let rows = predictor.predict(&contexts).log_probabilities;
        let falls: Vec<f64> = rows
            .chunks_exact(self.log_probabilities.len())
            .map(|row| self.nll - f64::from(surprise(row[usize::from(self.next)], self.most)))
            .collect();
        let (fall, random) = (falls[0], &falls[1..]);
        figures.insert("fall_highlighted_nats".to_owned(), fall);
        if !random.is_empty() {
            let mean = random.iter().sum::<f64>() / random.len() as f64;
            figures.insert("fall_random_nats".to_owned(), mean);
            figures.insert("faithfulness".to_owned(), fall - mean);
        }
    }
}
