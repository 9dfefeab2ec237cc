//! What the network reads at the template level: the symbols of a session, the contexts of its records, and the distinct
//! ones of a training part.

use faultline_core::{LogWindow, TemplateId};
use rustc_hash::FxHashMap;

use super::{
    Config,
    shape::{Shape, Symbol},
};
use crate::language::{Counts, Examples, ends, most_frequent, template_counts};

/// The templates of training in order of id. Symbols are positions in it; those after it are [`Shape`]'s.
#[derive(Debug)]
pub struct Vocabulary {
    pub templates: Vec<TemplateId>,
    symbols: FxHashMap<TemplateId, Symbol>,
    /// Whether training held closed sessions, from which the end was learned.
    pub knows_end: bool,
}

impl Vocabulary {
    pub fn new(mut templates: Vec<TemplateId>, knows_end: bool) -> Self {
        templates.sort_unstable();
        let symbols = (0..).zip(&templates).map(|(symbol, &template)| (template, symbol)).collect();
        Self { templates, symbols, knows_end }
    }

    /// The most frequent templates of the fresh records.
    pub fn of(config: &Config, windows: &[&LogWindow<'_>]) -> Self {
        let templates = most_frequent(template_counts(windows), config.max_templates);
        Self::new(templates, windows.iter().any(|log| ends(log)))
    }

    pub fn shape(&self, config: &Config) -> Shape {
        Shape::of(config, self.templates.len())
    }

    /// A session as the network reads it.
    pub fn read(&self, shape: Shape, log: &LogWindow<'_>) -> Reading {
        let mut padded = vec![shape.outside(); shape.window];
        let symbol = |template: TemplateId| self.symbols.get(&template).copied().unwrap_or(shape.unknown());
        padded.extend(log.records.iter().map(|record| symbol(record.template)));
        // Behind the last record of a session is nothing; a stream goes on, and nobody knows with what.
        let after = if log.is_stream { shape.unknown() } else { shape.outside() };
        padded.resize(padded.len() + shape.window, after);
        Reading { shape, padded, n_records: log.records.len(), judged: self.judged(shape, log) }
    }

    /// What there is to predict in `log`. Forward: the fresh records, and the end once the session is closed. In both
    /// directions: the records whose followers are known since the last time; those of a closed session all are. A
    /// record whose context the length cap has cut off is left out.
    pub fn judged(&self, shape: Shape, log: &LogWindow<'_>) -> std::ops::Range<usize> {
        let n_records = log.records.len();
        let (first, end) = match shape.n_sides {
            1 => (log.fresh, n_records + usize::from(ends(log) && self.knows_end)),
            _ if log.is_closed() => (log.fresh.saturating_sub(shape.window), n_records),
            _ => (log.fresh.saturating_sub(shape.window), n_records.saturating_sub(shape.window)),
        };
        if log.n_dropped > 0 { first.max(shape.window)..end.max(shape.window) } else { first..end }
    }
}

/// A session's symbols.
#[derive(Debug)]
pub struct Reading {
    shape: Shape,
    /// `window` symbols from before the session, its records, and `window` symbols from after it.
    padded: Vec<Symbol>,
    n_records: usize,
    /// Positions that are to be judged; one past the last record stands for the end.
    pub judged: std::ops::Range<usize>,
}

impl Reading {
    /// What is at `position`: a template, the end, or [`Shape::unknown`].
    pub fn next(&self, position: usize) -> Symbol {
        if position == self.n_records { self.shape.outside() } else { self.padded[self.shape.window + position] }
    }

    /// Appends the context of `position`: what came before, then what comes after from the farthest on.
    pub fn context_into(&self, position: usize, context: &mut Vec<Symbol>) {
        let window = self.shape.window;
        context.extend_from_slice(&self.padded[position..position + window]);
        if self.shape.n_sides == 2 {
            context.extend(self.padded[position + window + 1..position + 2 * window + 1].iter().rev());
        }
    }

    /// The record that symbol `idx` of the context of `position` stands for; none outside the session.
    pub fn record_of(&self, position: usize, idx: usize) -> Option<usize> {
        let (window, step) = (self.shape.window, idx % self.shape.window);
        let record = if idx < window { (position + step).checked_sub(window)? } else { position + window - step };
        (record < self.n_records).then_some(record)
    }
}

/// The distinct contexts with what came next, the commonest first.
pub fn examples_of(config: &Config, vocabulary: &Vocabulary, windows: &[&LogWindow<'_>]) -> Examples {
    let shape = vocabulary.shape(config);
    let mut counts = Counts::default();
    let mut context = Vec::with_capacity(shape.context_length());
    for log in windows {
        let reading = vocabulary.read(shape, log);
        for position in reading.judged.clone() {
            let next = reading.next(position);
            if next != shape.unknown() {
                context.clear();
                reading.context_into(position, &mut context);
                counts.add(&context, next, 1.0);
            }
        }
    }
    counts.examples(config.max_contexts, config.tempering)
}

#[cfg(test)]
mod tests {
    use faultline_core::Window;

    use super::*;
    use crate::{algorithms::attention_rnn::Direction, testing::Session};

    fn config(direction: Direction) -> Config {
        Config { window: 2, segment: 1, direction, ..Config::default() }
    }

    fn log(window: Window<'_>) -> LogWindow<'_> {
        *window.as_log().expect("a log window")
    }

    #[test]
    fn contexts_reach_to_both_sides_with_the_nearest_record_last() {
        let session = Session::of("a", &[5, 6, 7, 8, 99]);
        let vocabulary = Vocabulary::new([5, 6, 7, 8].map(TemplateId).to_vec(), true);
        let shape = vocabulary.shape(&config(Direction::Bidirectional));
        let reading = vocabulary.read(shape, &log(session.closed()));
        let (outside, unknown) = (4, 5);
        let context = |position| {
            let mut context = Vec::new();
            reading.context_into(position, &mut context);
            context
        };
        assert_eq!(reading.judged, 0..5);
        assert_eq!(context(0), [outside, outside, 2, 1]);
        assert_eq!(context(1), [outside, 0, 3, 2]);
        assert_eq!(context(3), [1, 2, outside, unknown]);
        assert_eq!(context(4), [2, 3, outside, outside]);
        assert_eq!((reading.next(1), reading.next(4)), (1, unknown));
        let records = |position| (0..4).map(|idx| reading.record_of(position, idx)).collect::<Vec<_>>();
        assert_eq!(records(1), [None, Some(0), Some(3), Some(2)]);
        assert_eq!(records(4), [Some(2), Some(3), None, None]);
    }

    #[test]
    fn every_record_is_judged_once_however_the_session_arrives() {
        let session = Session::of("a", &[5; 9]);
        let vocabulary = Vocabulary::new(vec![TemplateId(5)], true);
        for (direction, n_positions) in [(Direction::Forward, 10), (Direction::Bidirectional, 9)] {
            let shape = vocabulary.shape(&config(direction));
            let mut judged = Vec::new();
            let mut fresh = 0;
            for n_records in [1, 4, 5, 9] {
                let mut part = log(session.window(fresh, n_records == 9));
                part.records = &part.records[..n_records];
                judged.extend(vocabulary.judged(shape, &part));
                fresh = n_records;
            }
            assert_eq!(judged, (0..n_positions).collect::<Vec<_>>(), "{direction:?}");
        }
    }

    #[test]
    fn what_follows_the_piece_of_a_stream_is_unknown_and_its_end_is_not_judged() {
        let session = Session::of("a", &[5, 5, 5]);
        let vocabulary = Vocabulary::new(vec![TemplateId(5)], true);
        let mut stream = log(session.closed());
        stream.is_stream = true;
        let shape = vocabulary.shape(&config(Direction::Bidirectional));
        let mut context = Vec::new();
        vocabulary.read(shape, &stream).context_into(2, &mut context);
        assert_eq!(context, [0, 0, shape.unknown(), shape.unknown()]);
        let forward = vocabulary.shape(&config(Direction::Forward));
        assert_eq!(vocabulary.judged(forward, &stream), 0..3);
        stream.n_dropped = 1;
        assert_eq!(vocabulary.judged(forward, &stream), 2..3, "the context of the first two is cut off");
    }

    #[test]
    fn like_contexts_are_one_example() {
        let sessions = [[5, 6], [5, 6], [5, 7]].map(|templates| Session::of("a", &templates));
        let windows = sessions.each_ref().map(|session| log(session.closed()));
        let windows: Vec<&LogWindow<'_>> = windows.iter().collect();
        let config = Config { tempering: 1.0, ..config(Direction::Forward) };
        let vocabulary = Vocabulary::of(&config, &windows);
        let examples = examples_of(&config, &vocabulary, &windows);
        let outside = 3;
        assert_eq!(examples.contexts, [outside, 0, outside, outside, 0, 1, 0, 2]);
        assert_eq!(examples.next.len(), 4);
        assert_eq!(examples.next[0], [(1, 2.0), (2, 1.0)], "what followed 5");
        assert_eq!(examples.next[3], [(outside, 1.0)], "the end after 7");
    }
}
