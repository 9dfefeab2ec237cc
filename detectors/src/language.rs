//! What language models of logs (DeepLog, the attention RNN) have in common: which symbols they know, and the distinct
//! contexts of a training part with what came next.
//!
//! Training sees each distinct context once an epoch, however often it occurred. Memory while contexts are counted: one
//! entry for each distinct one.

use std::{cmp::Reverse, collections::BTreeMap};

use faultline_core::{LogWindow, TemplateId};
use rustc_hash::FxHashMap;

/// A symbol as a network knows it.
pub type Symbol = u16;

/// What to learn: distinct contexts, and for each how often each symbol came next.
#[derive(Clone, Debug)]
pub struct Examples {
    /// Contexts, all of one length, one after another.
    pub contexts: Vec<Symbol>,
    /// For each context the symbols that came next, with their weight.
    pub next: Vec<Vec<(Symbol, f32)>>,
}

/// Contexts while they are counted.
#[derive(Debug, Default)]
pub struct Counts(FxHashMap<Box<[Symbol]>, BTreeMap<Symbol, f64>>);

impl Counts {
    /// `next` came after `context`, `n` times.
    pub fn add(&mut self, context: &[Symbol], next: Symbol, n: f64) {
        match self.0.get_mut(context) {
            Some(counts) => *counts.entry(next).or_default() += n,
            None => {
                self.0.insert(context.into(), BTreeMap::from([(next, n)]));
            }
        }
    }

    /// Distinct contexts so far.
    pub fn n_contexts(&self) -> usize {
        self.0.len()
    }

    /// The commonest contexts, those first. One that occurred n times weighs n to the power of `tempering`.
    pub fn examples(self, max_contexts: usize, tempering: f64) -> Examples {
        let mut contexts: Vec<_> =
            self.0.into_iter().map(|(context, next)| (next.values().sum::<f64>(), context, next)).collect();
        contexts.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        contexts.truncate(max_contexts);
        let mut examples = Examples { contexts: Vec::new(), next: Vec::new() };
        for (total, context, next) in contexts {
            let factor = total.powf(tempering - 1.0);
            examples.contexts.extend_from_slice(&context);
            examples.next.push(next.into_iter().map(|(symbol, n)| (symbol, (n * factor) as f32)).collect());
        }
        examples
    }
}

/// How many fresh records each template has.
pub fn template_counts(windows: &[&LogWindow<'_>]) -> BTreeMap<TemplateId, u64> {
    let mut counts: BTreeMap<TemplateId, u64> = BTreeMap::new();
    for record in windows.iter().flat_map(|log| log.fresh_records()) {
        *counts.entry(record.template).or_default() += 1;
    }
    counts
}

/// The keys with the highest counts, `most` of them, highest first; of equal counts the lesser keys.
pub fn most_frequent<K: Ord>(counts: BTreeMap<K, u64>, most: usize) -> Vec<K> {
    let mut counts: Vec<(K, u64)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| Reverse(*count));
    counts.truncate(most);
    counts.into_iter().map(|(key, _)| key).collect()
}

/// Whether the end of the session is there to be judged. A stream only pauses.
pub fn ends(log: &LogWindow<'_>) -> bool {
    log.is_closed() && !log.is_stream && !log.records.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_contexts_are_one_example_and_the_commonest_come_first() {
        let mut counts = Counts::default();
        for (context, next) in [([5, 6], 1), ([5, 5], 1), ([5, 6], 2), ([5, 6], 1), ([5, 6], 1), ([4, 4], 3)] {
            counts.add(&context, next, 1.0);
        }
        assert_eq!(counts.n_contexts(), 3);
        let examples = counts.examples(2, 0.5);
        assert_eq!(examples.contexts, [5, 6, 4, 4], "of equal ones the lesser");
        assert_eq!(examples.next, [vec![(1, 1.5), (2, 0.5)], vec![(3, 1.0)]], "four weigh two");
    }

    #[test]
    fn the_most_frequent_keys_are_kept() {
        let counts = BTreeMap::from([("a", 1), ("b", 2), ("c", 1), ("d", 3)]);
        assert_eq!(most_frequent(counts, 3), ["d", "b", "a"]);
    }
}
