//! DeepLog's symbols: templates as the network knows them, and the contexts that training sessions hold.

use faultline_core::{LogWindow, TemplateId};
use rustc_hash::FxHashMap;

use super::{
    Config,
    net::{Examples, Shape, Symbol},
};
use crate::language::{Counts, ends, most_frequent, template_counts};

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

/// The most frequent templates of the fresh records.
pub fn vocabulary_of(config: &Config, windows: &[&LogWindow<'_>]) -> Vocabulary {
    let templates = most_frequent(template_counts(windows), config.max_templates);
    Vocabulary::new(templates, windows.iter().any(|log| ends(log)))
}

/// The distinct contexts with what came next, the commonest first.
pub fn examples_of(config: &Config, vocabulary: &Vocabulary, windows: &[&LogWindow<'_>]) -> Examples {
    let mut counts = Counts::default();
    for log in windows {
        let padded = vocabulary.padded(log, config.window);
        for position in vocabulary.positions(log, config.window) {
            let next = padded.get(position + config.window).copied().unwrap_or(vocabulary.end());
            if next != vocabulary.unseen() {
                counts.add(&padded[position..position + config.window], next, 1.0);
            }
        }
    }
    counts.examples(config.max_contexts, config.tempering)
}
