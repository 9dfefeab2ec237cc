//! The words of the token level: how the text of a template is cut into them, and which of them training knew.
//!
//! A line is read as its template: what the parser has masked (`<NUM>`) or found to vary (`<*>`) is a word by itself, and
//! what stood there is not read. A template without a text is a line of one unknown word.
//!
//! A template that training held stays worded as it was then: that it has widened since, or that its text is not known
//! yet after a restart, is no news about the system.

use std::collections::BTreeMap;

use faultline_core::{LogWindow, TemplateId};
use rustc_hash::FxHashMap;

use super::{Config, shape::Symbol};
use crate::language::{most_frequent, template_counts};

/// Words of a line that are read.
pub const MAX_WORDS: usize = 64;

/// Characters of a placeholder's name, at most.
const MAX_NAME: usize = 32;

/// The words of a template's text: what blanks separate, and each placeholder by itself.
pub fn words_of(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace().flat_map(pieces).take(MAX_WORDS)
}

/// A token, cut before and after each placeholder.
fn pieces(token: &str) -> impl Iterator<Item = &str> {
    let mut rest = token;
    std::iter::from_fn(move || {
        let length = placeholder(rest)
            .or_else(|| (1..rest.len()).find(|&at| placeholder(rest.get(at..).unwrap_or_default()).is_some()))
            .unwrap_or(rest.len());
        let (piece, tail) = rest.split_at(length);
        rest = tail;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Length of the placeholder that `text` begins with.
fn placeholder(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('<')?;
    let end = inside.bytes().take(MAX_NAME + 1).position(|byte| byte == b'>').filter(|&end| end > 0)?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'*');
    inside.bytes().take(end).all(is_name).then_some(end + 2)
}

/// What training knew of words. A word's symbol is its place; those after it are `Shape`'s.
#[derive(Debug)]
pub struct Words {
    /// In order.
    pub words: Vec<Box<str>>,
    symbols: FxHashMap<Box<str>, Symbol>,
    /// Whether training held words that are not among them, or templates without a text.
    pub knows_others: bool,
    /// How the most frequent templates of training were worded.
    pub wordings: BTreeMap<TemplateId, Box<[Symbol]>>,
}

impl Words {
    pub fn new(mut words: Vec<Box<str>>) -> Self {
        words.sort_unstable();
        let symbols = (0..).zip(&words).map(|(symbol, word)| (word.clone(), symbol)).collect();
        Self { words, symbols, knows_others: false, wordings: BTreeMap::new() }
    }

    /// The most frequent words of the templates of the fresh records; none where no template has a text.
    pub fn of(config: &Config, windows: &[&LogWindow<'_>]) -> Option<Self> {
        let counts = template_counts(windows);
        let text_of = |template: &TemplateId| {
            windows.iter().rev().find_map(|log| log.templates.get(*template)).map(|text| &**text)
        };
        let texts: Vec<Option<&str>> = counts.keys().map(text_of).collect();
        let mut word_counts: BTreeMap<&str, u64> = BTreeMap::new();
        for (text, count) in texts.iter().zip(counts.values()) {
            for word in words_of(text.unwrap_or_default()) {
                *word_counts.entry(word).or_default() += count;
            }
        }
        if word_counts.is_empty() {
            return None;
        }
        let mut own =
            Self::new(most_frequent(word_counts, config.max_words).into_iter().map(Box::<str>::from).collect());
        let wordings: BTreeMap<TemplateId, Box<[Symbol]>> =
            counts.keys().zip(&texts).map(|(template, text)| (*template, own.read(*text))).collect();
        own.knows_others = wordings.values().any(|line| line.contains(&own.unknown()));
        own.wordings = most_frequent(counts, config.max_templates)
            .into_iter()
            .filter_map(|template| Some((template, wordings.get(&template)?.clone())))
            .collect();
        Some(own)
    }

    /// Stands for a word that training did not know.
    pub fn unknown(&self) -> Symbol {
        self.words.len() as Symbol + 1
    }

    /// A text as the network reads it. Never empty.
    pub fn read(&self, text: Option<&str>) -> Box<[Symbol]> {
        let symbol = |word: &str| self.symbols.get(word).copied().unwrap_or(self.unknown());
        let mut line: Vec<Symbol> = words_of(text.unwrap_or_default()).map(symbol).collect();
        if line.is_empty() {
            line.push(self.unknown());
        }
        line.into()
    }

    /// The line of a record of `template`.
    pub fn line(&self, log: &LogWindow<'_>, template: TemplateId) -> Box<[Symbol]> {
        match self.wordings.get(&template) {
            Some(line) => line.clone(),
            None => self.read(log.templates.get(template).map(|text| &**text)),
        }
    }

    /// The words of such a line as a person reads them, `<unk>` where they are not known.
    pub fn shown(&self, log: &LogWindow<'_>, template: TemplateId, line: &[Symbol]) -> Vec<String> {
        let text: Vec<&str> = log.templates.get(template).map_or_else(Vec::new, |text| words_of(text).collect());
        // The text may have changed since training read it.
        let is_current = text.len() == line.len();
        let word = |(at, &symbol): (usize, &Symbol)| match self.words.get(usize::from(symbol)) {
            Some(word) => shortened(word),
            None if is_current => shortened(text[at]),
            None => "<unk>".to_owned(),
        };
        line.iter().enumerate().map(word).collect()
    }
}

/// A word that fits into a sentence.
pub fn shortened(word: &str) -> String {
    const MOST: usize = 40;
    match word.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &word[..end]),
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use faultline_core::{TemplateTexts, Window};

    use super::*;
    use crate::testing::Session;

    fn texts(texts: &[(u64, &str)]) -> TemplateTexts {
        texts.iter().map(|(template, text)| (TemplateId(*template), Arc::from(*text))).collect()
    }

    fn log<'a>(session: &'a Session, texts: &'a TemplateTexts) -> LogWindow<'a> {
        let Window::Log(log) = session.closed() else { unreachable!("a log window") };
        LogWindow { templates: texts, ..log }
    }

    #[test]
    fn placeholders_are_words_by_themselves() {
        fn words(text: &str) -> Vec<&str> {
            words_of(text).collect()
        }
        assert_eq!(
            words("Receiving  block <BLK> src: /<IP>:<NUM>, took<*>ms"),
            ["Receiving", "block", "<BLK>", "src:", "/", "<IP>", ":", "<NUM>", ",", "took", "<*>", "ms"]
        );
        assert_eq!(words("a<b a>b <> << <ü> über<NUM>ü"), ["a<b", "a>b", "<>", "<<", "<ü>", "über", "<NUM>", "ü"]);
        assert_eq!(words(" \t"), [""; 0]);
        assert_eq!(words_of(&"a ".repeat(1000)).count(), MAX_WORDS);
        assert_eq!(words(&format!("<{}>", "a".repeat(MAX_NAME + 1))).len(), 1, "a long tag is no placeholder");
    }

    #[test]
    fn rare_words_and_templates_without_a_text_are_unknown() {
        let texts = texts(&[(1, "open the file"), (2, "close the file")]);
        let session = Session::of("a", &[1, 1, 2]);
        let log = log(&session, &texts);
        let config = Config { max_words: 3, ..Config::default() };
        let words = Words::of(&config, &[&log]).expect("there are texts");
        assert_eq!(words.words, ["file", "open", "the"].map(Box::<str>::from), "`close` is the rarest");
        assert!(words.knows_others);
        assert_eq!(words.wordings[&TemplateId(2)][..], [words.unknown(), 2, 0]);
        assert_eq!(words.read(None)[..], [words.unknown()]);
        assert_eq!(words.read(Some(" "))[..], [words.unknown()]);
        let all = Words::of(&Config::default(), &[&log]).expect("there are texts");
        assert!(!all.knows_others);
        let other = Session::of("b", &[1, 3]);
        let other = LogWindow { records: &other.records, ..log };
        assert!(Words::of(&Config::default(), &[&other]).is_some_and(|words| words.knows_others), "3 has no text");
        assert!(Words::of(&Config::default(), &[&LogWindow { templates: TemplateTexts::NONE, ..log }]).is_none());
    }

    #[test]
    fn a_template_stays_worded_as_training_had_it() {
        let (before, after) = (texts(&[(1, "open file a")]), texts(&[(1, "open file <*>"), (2, "open file b")]));
        let session = Session::of("a", &[1]);
        let words = Words::of(&Config::default(), &[&log(&session, &before)]).expect("there is a text");
        let now = log(&session, &after);
        let line = words.line(&now, TemplateId(1));
        assert_eq!(line, words.line(&log(&session, TemplateTexts::NONE), TemplateId(1)));
        assert_eq!(words.shown(&now, TemplateId(1), &line), ["open", "file", "a"]);
        let new = words.line(&now, TemplateId(2));
        assert_eq!(words.shown(&now, TemplateId(2), &new), ["open", "file", "b"], "unknown words are read in the text");
        let gone = log(&session, TemplateTexts::NONE);
        assert_eq!(words.shown(&gone, TemplateId(2), &new), ["open", "file", "<unk>"]);
        assert_eq!(words.line(&gone, TemplateId(2))[..], [words.unknown()]);
    }
}
