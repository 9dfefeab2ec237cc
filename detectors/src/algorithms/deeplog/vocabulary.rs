//! DeepLog's symbols: templates as the network knows them, and the contexts that training sessions hold.

use std::collections::BTreeMap;

use faultline_core::{LogWindow, TemplateId};
use rustc_hash::FxHashMap;

use super::{
    Config,
    net::{Examples, Shape, Symbol},
};

/// The templates of training in order of id. Symbols are positions in it; the three after it are special.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    pub templates: Vec<TemplateId>,
    pub symbols: FxHashMap<TemplateId, Symbol>,
    /// Whether training held closed sessions, from which the end was learned.
    pub knows_end: bool,
}

impl Vocabulary {
    pub fn new(mut templates: Vec<TemplateId>, knows_end: bool) -> Self {
        templates.sort_unstable();
        let symbols = (0..).zip(&templates).map(|(symbol, &template)| (template, symbol)).collect();
        Self { templates, symbols, knows_end }
    }

    /// Stands for what was before a session began.
    pub fn start(&self) -> Symbol {
        self.templates.len() as Symbol
    }

    /// Stands, as a prediction, for the end of the session.
    pub fn end(&self) -> Symbol {
        self.start()
    }

    /// Stands for every template outside the vocabulary.
    pub fn unseen(&self) -> Symbol {
        self.templates.len() as Symbol + 1
    }

    /// Symbols that records can be, the special ones included.
    pub fn n_symbols(&self) -> usize {
        self.templates.len() + 2
    }

    pub fn shape(&self, config: &Config) -> Shape {
        Shape {
            n_inputs: self.templates.len() + 1,
            n_outputs: self.templates.len() + 1,
            window: config.window,
            hidden: config.hidden,
            layers: config.layers,
        }
    }

    /// The session's symbols after `window` start symbols: the context of record i is `[i..i + window]` of it.
    pub fn padded(&self, log: &LogWindow<'_>, window: usize) -> Vec<Symbol> {
        let mut padded = Vec::with_capacity(window + log.records.len());
        self.pad_into(log, window, &mut padded);
        padded
    }

    pub fn pad_into(&self, log: &LogWindow<'_>, window: usize, padded: &mut Vec<Symbol>) {
        padded.extend(std::iter::repeat_n(self.start(), window));
        let symbol = |template: TemplateId| self.symbols.get(&template).copied().unwrap_or(self.unseen());
        padded.extend(log.records.iter().map(|record| symbol(record.template)));
    }

    /// What there is to predict in `log`: positions of fresh records, and the end once the session is closed. A record
    /// whose context the length cap has cut off is left out.
    pub fn positions(&self, log: &LogWindow<'_>, window: usize) -> std::ops::Range<usize> {
        let first = if log.n_dropped > 0 { log.fresh.max(window) } else { log.fresh };
        let has_end = ends(log) && self.knows_end;
        first..log.records.len() + usize::from(has_end)
    }
}

/// Whether the end of the session is there to be judged. A stream only pauses.
pub fn ends(log: &LogWindow<'_>) -> bool {
    log.is_closed() && !log.is_stream && !log.records.is_empty()
}

/// The most frequent templates of the fresh records.
pub fn vocabulary_of(config: &Config, windows: &[&LogWindow<'_>]) -> Vocabulary {
    let mut counts: BTreeMap<TemplateId, u64> = BTreeMap::new();
    for record in windows.iter().flat_map(|log| log.fresh_records()) {
        *counts.entry(record.template).or_default() += 1;
    }
    let mut templates: Vec<(TemplateId, u64)> = counts.into_iter().collect();
    templates.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    templates.truncate(config.max_templates);
    let knows_end = windows.iter().any(|log| ends(log));
    Vocabulary::new(templates.into_iter().map(|(template, _)| template).collect(), knows_end)
}

/// The distinct contexts with what came next, in order of context.
pub fn examples_of(config: &Config, vocabulary: &Vocabulary, windows: &[&LogWindow<'_>]) -> Examples {
    let mut counts: FxHashMap<Box<[Symbol]>, BTreeMap<Symbol, u64>> = FxHashMap::default();
    for log in windows {
        let padded = vocabulary.padded(log, config.window);
        for position in vocabulary.positions(log, config.window) {
            let next = padded.get(position + config.window).copied().unwrap_or(vocabulary.end());
            if next == vocabulary.unseen() {
                continue;
            }
            let context = &padded[position..position + config.window];
            match counts.get_mut(context) {
                Some(counts) => *counts.entry(next).or_default() += 1,
                None => {
                    counts.insert(context.into(), BTreeMap::from([(next, 1)]));
                }
            }
        }
    }
    let mut contexts: Vec<_> =
        counts.into_iter().map(|(context, next)| (next.values().sum::<u64>(), context, next)).collect();
    contexts.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    contexts.truncate(config.max_contexts);
    let mut examples = Examples { contexts: Vec::new(), next: Vec::new() };
    for (total, context, next) in contexts {
        let factor = (total as f64).powf(config.tempering - 1.0);
        examples.contexts.extend_from_slice(&context);
        examples.next.push(next.into_iter().map(|(symbol, n)| (symbol, (n as f64 * factor) as f32)).collect());
    }
    examples
}
