//! What the network reads at the token level: the contexts of the words of a line, and the distinct ones of a training part.
//!
//! Each side of a context holds the nearest `window` words of the line. With tiers the words of `lines` lines before it come
//! first, `window` of each from its beginning, a segment a line; on the second side they are read from the end, too.

use std::{ops::Range, slice, sync::Arc};

use faultline_core::{LogWindow, TemplateId};
use rustc_hash::FxHashMap;

use super::{
    Attention, Config,
    shape::{Shape, Symbol},
    words::Words,
};
use crate::language::{Counts, Examples};

/// How a line and the lines before it are laid out as contexts. A run of them is a list of lines of words, the judged one last,
/// where an empty one stands for what was before the session.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub shape: Shape,
    /// Words of a line that a side holds.
    width: usize,
    /// Lines before the judged one that a side holds.
    pub n_before: usize,
}

/// A word of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// How many lines before the judged one.
    pub back: usize,
    /// Its place in its line.
    pub word: usize,
}

impl Layout {
    pub fn of(config: &Config, words: &Words) -> Self {
        let n_before = if config.attention == Attention::Tiered { config.lines } else { 0 };
        let width = config.window;
        let shape = Shape {
            window: (n_before + 1) * width,
            segment: width,
            predicts_unknown: words.knows_others,
            ..Shape::of(config, words.words.len())
        };
        Self { shape, width, n_before }
    }

    /// The records that are judged: the fresh ones, but not those of which lines before them have been cut off.
    pub fn judged(&self, log: &LogWindow<'_>) -> Range<usize> {
        let first = if log.n_dropped > 0 { log.fresh.max(self.n_before) } else { log.fresh };
        first.min(log.records.len())..log.records.len()
    }

    /// The positions of a line of `n_words` that are judged: its words and, where what follows is not known, its end.
    pub fn positions(&self, n_words: usize) -> Range<usize> {
        match self.shape.n_sides {
            1 => 0..n_words + 1,
            _ => 0..n_words,
        }
    }

    /// What is at a position of a line: a word, or its end.
    pub fn next(&self, line: &[Symbol], position: usize) -> Symbol {
        line.get(position).copied().unwrap_or(self.shape.outside())
    }

    /// Which words of its line a segment of a side holds.
    fn held(&self, run: &[&[Symbol]], position: usize, side: usize, segment: usize) -> Range<usize> {
        let n_words = run[segment].len();
        match (self.n_before - segment, side) {
            (0, 0) => position.saturating_sub(self.width)..position,
            (0, _) => (position + 1).min(n_words)..(position + 1 + self.width).min(n_words),
            _ => 0..n_words.min(self.width),
        }
    }

    /// Appends the context of a position of the judged line.
    pub fn context_into(&self, run: &[&[Symbol]], position: usize, context: &mut Vec<Symbol>) {
        for side in 0..self.shape.n_sides {
            for (segment, line) in run.iter().enumerate() {
                let words = &line[self.held(run, position, side, segment)];
                context.resize(context.len() + self.width - words.len(), self.shape.outside());
                if side == 0 {
                    context.extend_from_slice(words);
                } else {
                    context.extend(words.iter().rev());
                }
            }
        }
    }

    /// The word that symbol `idx` of the context of `position` stands for; none outside of lines.
    pub fn place_of(&self, run: &[&[Symbol]], position: usize, idx: usize) -> Option<Place> {
        let (side, within) = (idx / self.shape.window, idx % self.shape.window);
        let segment = within / self.width;
        let words = self.held(run, position, side, segment);
        let step = (within % self.width).checked_sub(self.width - words.len())?;
        let word = if side == 0 { words.start + step } else { words.end - 1 - step };
        Some(Place { back: self.n_before - segment, word })
    }
}

/// Stands in a key for what was before the session.
const OUTSIDE: usize = usize::MAX;

/// Lines that have been read, numbered. It grows with each new one; who fills it bounds it.
#[derive(Debug, Default)]
pub struct Lines {
    /// What was read for a template, and its number.
    of_template: FxHashMap<TemplateId, (Source, usize)>,
    lines: Vec<Box<[Symbol]>>,
}

/// Where a line comes from.
#[derive(Debug, PartialEq)]
enum Source {
    /// From training, whatever the text says now.
    Training,
    /// From the text that the template had.
    Text(Option<Arc<str>>),
}

impl Lines {
    pub fn n_lines(&self) -> usize {
        self.lines.len()
    }

    /// The number of the line of a record of `template`.
    fn number(&mut self, words: &Words, log: &LogWindow<'_>, template: TemplateId) -> usize {
        if let Some((source, number)) = self.of_template.get(&template) {
            let is_current = match source {
                Source::Training => true,
                Source::Text(text) => text.as_ref() == log.templates.get(template),
            };
            if is_current {
                return *number;
            }
        }
        let source = if words.wordings.contains_key(&template) {
            Source::Training
        } else {
            Source::Text(log.templates.get(template).cloned())
        };
        let number = self.lines.len();
        self.lines.push(words.line(log, template));
        self.of_template.insert(template, (source, number));
        number
    }

    /// The keys of the judged records of `log`: the numbers of the lines before each, as far as `layout` reads them, and of
    /// its own. `numbers` is where they stand.
    pub fn keys<'n>(
        &mut self,
        words: &Words,
        layout: &Layout,
        log: &LogWindow<'_>,
        numbers: &'n mut Vec<usize>,
    ) -> slice::Windows<'n, usize> {
        let (judged, n_before) = (layout.judged(log), layout.n_before);
        let start = judged.start.saturating_sub(n_before);
        numbers.clear();
        numbers.resize(n_before - (judged.start - start), OUTSIDE);
        for record in &log.records[start..judged.end] {
            numbers.push(self.number(words, log, record.template));
        }
        numbers.windows(n_before + 1)
    }

    /// The run that a key stands for.
    pub fn run(&self, key: &[usize]) -> Vec<&[Symbol]> {
        key.iter().map(|&number| self.lines.get(number).map_or(&[][..], |line| &line[..])).collect()
    }
}

/// The distinct contexts of the lines of `windows` with what came next, the commonest first. A run of lines that occurred n
/// times weighs n to the power of `tempering`.
pub fn examples_of(config: &Config, words: &Words, layout: &Layout, windows: &[&LogWindow<'_>]) -> Examples {
    let mut lines = Lines::default();
    let mut numbers = Vec::new();
    let mut n_of: FxHashMap<Box<[usize]>, u64> = FxHashMap::default();
    for log in windows {
        for key in lines.keys(words, layout, log, &mut numbers) {
            match n_of.get_mut(key) {
                Some(n) => *n += 1,
                None => {
                    n_of.insert(key.into(), 1);
                }
            }
        }
    }
    let mut keys: Vec<(Box<[usize]>, u64)> = n_of.into_iter().collect();
    keys.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let mut counts = Counts::default();
    let mut context = Vec::with_capacity(layout.shape.context_length());
    for (key, n) in keys {
        if counts.n_contexts() >= config.max_contexts {
            break;
        }
        let run = lines.run(&key);
        let line = run[layout.n_before];
        let weight = (n as f64).powf(config.tempering);
        for position in layout.positions(line.len()) {
            let next = layout.next(line, position);
            if usize::from(next) < layout.shape.n_outputs() {
                context.clear();
                layout.context_into(&run, position, &mut context);
                counts.add(&context, next, weight);
            }
        }
    }
    counts.examples(config.max_contexts, 1.0)
}

#[cfg(test)]
mod tests {
    use faultline_core::{TemplateTexts, Window};

    use super::*;
    use crate::{algorithms::attention_rnn::Direction, testing::Session};

    /// The words are `a` 0 to `d` 3, `x` 4 and `y` 5; 6 is the outside, 7 unknown.
    fn texts() -> TemplateTexts {
        [(1, "a b c d"), (2, "x y")].into_iter().map(|(id, text)| (TemplateId(id), Arc::from(text))).collect()
    }

    fn config(attention: Attention, direction: Direction) -> Config {
        Config { attention, direction, window: 3, lines: 2, tempering: 0.5, ..Config::default() }
    }

    fn log<'a>(session: &'a Session, templates: &'a TemplateTexts) -> LogWindow<'a> {
        let Window::Log(log) = session.closed() else { unreachable!("a log window") };
        LogWindow { templates, ..log }
    }

    fn read(config: &Config) -> (Words, Layout) {
        let (session, texts) = (Session::of("a", &[1, 2]), texts());
        let words = Words::of(config, &[&log(&session, &texts)]).expect("there are texts");
        let layout = Layout::of(config, &words);
        (words, layout)
    }

    fn context(layout: &Layout, run: &[&[Symbol]], position: usize) -> Vec<Symbol> {
        let mut context = Vec::new();
        layout.context_into(run, position, &mut context);
        context
    }

    #[test]
    fn contexts_hold_the_words_of_the_line() {
        let (_, layout) = read(&config(Attention::Fixed, Direction::Forward));
        let run: [&[Symbol]; 1] = [&[0, 1, 2, 3]];
        assert_eq!(layout.positions(4), 0..5);
        assert_eq!(context(&layout, &run, 0), [6, 6, 6]);
        assert_eq!(context(&layout, &run, 2), [6, 0, 1]);
        assert_eq!(context(&layout, &run, 4), [1, 2, 3]);
        assert_eq!((layout.next(run[0], 3), layout.next(run[0], 4)), (3, 6));
        let (_, layout) = read(&config(Attention::Fixed, Direction::Bidirectional));
        assert_eq!(layout.positions(4), 0..4);
        assert_eq!(context(&layout, &run, 0), [6, 6, 6, 3, 2, 1]);
        assert_eq!(context(&layout, &run, 1), [6, 6, 0, 6, 3, 2]);
    }

    #[test]
    fn with_tiers_contexts_hold_the_lines_before() {
        let (_, layout) = read(&config(Attention::Tiered, Direction::Bidirectional));
        let run: [&[Symbol]; 3] = [&[], &[0, 1, 2, 3], &[4, 5]];
        assert_eq!(context(&layout, &run, 0), [6, 6, 6, 0, 1, 2, 6, 6, 6, 6, 6, 6, 2, 1, 0, 6, 6, 5]);
        assert_eq!(context(&layout, &run, 1), [6, 6, 6, 0, 1, 2, 6, 6, 4, 6, 6, 6, 2, 1, 0, 6, 6, 6]);
        assert_eq!(layout.shape.segments(), [0..3, 3..6, 6..9]);
    }

    #[test]
    fn every_symbol_of_a_context_is_found_in_its_line() {
        for attention in [Attention::Fixed, Attention::Tiered] {
            let (_, layout) = read(&config(attention, Direction::Bidirectional));
            let all: [&[Symbol]; 3] = [&[5, 4], &[0, 1, 2, 3], &[3, 2, 1, 0, 5]];
            let run = &all[2 - layout.n_before..];
            for position in layout.positions(5) {
                let context = context(&layout, run, position);
                assert_eq!(context.len(), layout.shape.context_length());
                for (idx, symbol) in context.into_iter().enumerate() {
                    let found = layout.place_of(run, position, idx);
                    let found = found.map_or(6, |place| run[layout.n_before - place.back][place.word]);
                    assert_eq!(found, symbol, "{attention:?}: {idx} at {position}");
                }
            }
        }
    }

    #[test]
    fn a_line_is_judged_once_and_only_with_all_that_its_context_needs() {
        let texts = texts();
        let session = Session::of("a", &[1, 2, 2, 1]);
        let (words, layout) = read(&config(Attention::Tiered, Direction::Forward));
        let mut lines = Lines::default();
        let mut numbers = Vec::new();
        let mut keys = |log: &LogWindow<'_>| {
            lines.keys(&words, &layout, log, &mut numbers).map(<[usize]>::to_vec).collect::<Vec<_>>()
        };
        let whole = log(&session, &texts);
        assert_eq!(keys(&whole)[0], [OUTSIDE, OUTSIDE, 0]);
        assert_eq!(keys(&whole)[1..], [vec![OUTSIDE, 0, 1], vec![0, 1, 1], vec![1, 1, 0]]);
        assert_eq!(keys(&LogWindow { fresh: 3, ..whole }), [[1, 1, 0]]);
        assert_eq!(keys(&LogWindow { n_dropped: 1, ..whole }), [[0, 1, 1], [1, 1, 0]], "the lines before are cut off");
        assert!(keys(&LogWindow { fresh: 4, ..whole }).is_empty());
        let short = LogWindow { records: &session.records[..1], n_dropped: 1, ..whole };
        assert!(keys(&short).is_empty());
        assert_eq!((lines.n_lines(), lines.run(&[OUTSIDE, 1])), (2, vec![&[][..], &[4, 5]]));
    }

    #[test]
    fn examples_are_weighted_by_lines() {
        let texts = texts();
        let session = Session::of("a", &[1, 1, 1, 1, 2]);
        let log = log(&session, &texts);
        let config = config(Attention::Fixed, Direction::Forward);
        let (words, layout) = read(&config);
        let examples = examples_of(&config, &words, &layout, &[&log]);
        assert_eq!(examples.contexts[..3], [6, 6, 6], "the commonest");
        assert_eq!(examples.next[0], [(0, 2.0), (4, 1.0)], "four lines weigh two");
        assert_eq!(examples.next.len(), 1 + 4 + 2);
        let some = examples_of(&Config { max_contexts: 3, ..config }, &words, &layout, &[&log]);
        assert_eq!(some.next.len(), 3);
    }
}
