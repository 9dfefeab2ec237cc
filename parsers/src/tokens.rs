//! A line as Drain compares it (station 4): hashes of its masked tokens, a hash of the whole masked line, and where its
//! parameters stand.
//!
//! Besides the masks of [`crate::mask`], three rules make lines of one template equally long: a unit after a number
//! belongs to the number (`1.2 KB`), a run of values of one kind is one value (`1 2 3`), and what exceeds the cap on
//! tokens is one last token. Buffers are reused: no allocation once they have grown to the longest line.

use std::sync::Arc;

use crate::{
    hash::{Class, Hasher, class_of},
    mask::{HashPieces, Hole, Masker, ParamSpan, TextPieces, UserSpans, is_unit, low_bits, whole_token},
    scan::Lanes,
};

/// Whether parameters are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Params {
    /// Note them.
    Extract,
    /// Leave them out: faster.
    Skip,
}

/// Cuts, masks and hashes lines, one at a time.
#[derive(Debug)]
pub struct MaskedLine {
    masker: Arc<Masker>,
    hasher: Hasher,
    /// One odd multiplier for each token position.
    weights: Vec<u64>,
    max_line_bytes: usize,
    lanes: Lanes,
    user: UserSpans,
    pub(crate) tokens: Vec<u64>,
    /// Byte range of each token; of the first one where a run became one.
    pub(crate) ranges: Vec<(u32, u32)>,
    /// Parameters that the masks found, in order.
    pub(crate) params: Vec<ParamSpan>,
    pub(crate) hash: u64,
    /// Bytes of the line that were looked at.
    pub(crate) len: usize,
    pub(crate) cut_tokens: bool,
    /// Where the date before the latest time of day begins, and how many tokens there are after it.
    date_start: u32,
    date_end: usize,
    number: u64,
    time: u64,
}

/// Code in hashes of the token that stands for all tokens beyond the cap.
const REST: u64 = u64::MAX;

impl MaskedLine {
    pub(crate) fn new(masker: Arc<Masker>, hasher: Hasher, max_tokens: usize, max_line_bytes: usize) -> Self {
        let weights = (0..max_tokens as u64).map(|idx| hasher.join(idx, !idx) | 1).collect();
        Self {
            masker,
            hasher,
            weights,
            max_line_bytes,
            lanes: Lanes::default(),
            user: UserSpans::default(),
            tokens: Vec::new(),
            ranges: Vec::new(),
            params: Vec::new(),
            hash: 0,
            len: 0,
            cut_tokens: false,
            date_start: 0,
            date_end: 0,
            number: hasher.pure(Hole::NUMBER.code()),
            time: hasher.pure(Hole::TIME.code()),
        }
    }

    /// A line buffer with the built-in masks and no others, for a [`crate::Drain`] used by itself.
    #[must_use]
    pub fn with_default_masks(max_tokens: usize, max_line_bytes: usize) -> Self {
        Self::new(Arc::new(Masker::default()), Hasher::new(0), max_tokens.max(2), max_line_bytes)
    }

    /// Variable parts of the line that was parsed last, in order.
    #[must_use]
    pub fn params(&self) -> &[ParamSpan] {
        &self.params
    }

    pub(crate) fn hasher(&self) -> &Hasher {
        &self.hasher
    }

    /// Masks `line`; the fields then describe it.
    pub(crate) fn read(&mut self, line: &[u8], params: Params) {
        match params {
            Params::Extract => self.read_with::<true>(line),
            Params::Skip => self.read_with::<false>(line),
        }
    }

    #[inline(always)]
    fn read_with<const PARAMS: bool>(&mut self, line: &[u8]) {
        let line = &line[..cut_at(line, self.max_line_bytes)];
        self.len = line.len();
        if self.masker.has_user_masks() {
            self.masker.find_user(line, &mut self.user);
        }
        self.lanes.scan(line, &self.user.ranges);
        self.tokens.clear();
        self.ranges.clear();
        self.params.clear();
        self.cut_tokens = false;
        self.date_end = 0;
        let mut before = 0;
        let mut sum = 0_u64;
        let mut skip_to = 0;
        for bound in 0..self.lanes.bounds().len() {
            if bound < skip_to {
                continue;
            }
            let (start, end) = self.lanes.bounds()[bound];
            let (from, to) = (start as usize, end as usize);
            let within = low_bits(to - from);
            let digits = self.lanes.digits(from) & within;
            // A dot at the end of a sentence is no reason to look closer.
            let marks = self.lanes.marks(from) & (within >> 1);
            let plain = digits == 0 && (marks == 0 || (marks & (marks - 1) == 0 && line[from] != b'/'));
            if line[from] == b'(' && digits != 0 && self.is_gloss(line, bound) {
                // `1190 bytes (1.16 KB)`: the brackets say the same again.
                skip_to = bound + 2;
                continue;
            }
            let token = if plain && to - from <= 64 && !self.user.touches(from, to) {
                if class_of(before) == Class::Pure && to - from <= 5 && is_unit_token(&line[from..to]) {
                    if PARAMS && let Some(last) = self.params.last_mut() {
                        last.end = end;
                    }
                    continue;
                }
                self.hasher.token(line, from, to)
            } else {
                self.variable::<PARAMS>(line, from, to, digits)
            };
            if class_of(token) == Class::Pure {
                if token == before {
                    continue;
                }
                if token == self.time {
                    sum = sum.wrapping_sub(self.take_date::<PARAMS>(line, start));
                } else if before == self.time
                    && self.tokens.len() == self.date_end
                    && to - from == 4
                    && token == self.number
                {
                    // The year after `Fri Jul 1 07:57:30`.
                    if PARAMS && let Some(year) = self.params.pop() {
                        self.params.last_mut().expect("the date before the year").end = year.end;
                    }
                    continue;
                }
            }
            if self.tokens.len() + 1 == self.weights.len() && bound + 1 < self.lanes.bounds().len() {
                self.cut_tokens = true;
                let rest = self.hasher.pure(REST);
                sum = sum.wrapping_add(rest.wrapping_mul(self.weights[self.tokens.len()]));
                self.tokens.push(rest);
                self.ranges.push((start, line.len() as u32));
                break;
            }
            let start =
                if token == self.time && self.date_end == self.tokens.len() + 1 { self.date_start } else { start };
            before = token;
            sum = sum.wrapping_add(token.wrapping_mul(self.weights[self.tokens.len()]));
            self.tokens.push(token);
            self.ranges.push((start, end));
        }
        self.hash = self.hasher.join(sum, self.tokens.len() as u64);
    }

    /// Whether the token in brackets and the next are a quantity with its unit, after another quantity.
    #[cold]
    fn is_gloss(&self, line: &[u8], bound: usize) -> bool {
        let token =
            |bound: usize| self.lanes.bounds().get(bound).map(|&(start, end)| &line[start as usize..end as usize]);
        let (Some([b'(', number @ ..]), Some([unit @ .., b')'])) = (token(bound), token(bound + 1)) else {
            return false;
        };
        let before = self.tokens.len().checked_sub(2).map(|idx| class_of(self.tokens[idx]));
        before == Some(Class::Pure)
            && is_unit(unit)
            && !unit.is_empty()
            && number.iter().all(|b| b.is_ascii_digit() || *b == b'.')
    }

    /// Takes `Fri Jul 1` back from before a time of day: the whole is one time. Returns what the tokens taken had added to
    /// the sum.
    #[cold]
    #[inline(never)]
    fn take_date<const PARAMS: bool>(&mut self, line: &[u8], start: u32) -> u64 {
        let mut taken = 0;
        let n_tokens = self.tokens.len();
        let text = |idx: usize| &line[self.ranges[idx].0 as usize..self.ranges[idx].1 as usize];
        if n_tokens >= 2 && self.tokens[n_tokens - 1] == self.number && is_month(text(n_tokens - 2)) {
            let first = if n_tokens >= 3 && is_weekday(text(n_tokens - 3)) { n_tokens - 3 } else { n_tokens - 2 };
            for idx in first..n_tokens {
                taken = self.tokens[idx].wrapping_mul(self.weights[idx]).wrapping_add(taken);
            }
            self.date_start = self.ranges[first].0;
            if PARAMS {
                let time = self.params.pop();
                self.params.retain(|param| param.start < self.date_start);
                self.params.extend(time.map(|time| ParamSpan { start: self.date_start, ..time }));
            }
            self.tokens.truncate(first);
            self.ranges.truncate(first);
            self.date_end = first + 1;
        } else {
            self.date_start = start;
        }
        taken
    }

    #[inline]
    fn variable<const PARAMS: bool>(&mut self, line: &[u8], start: usize, end: usize, digits: u64) -> u64 {
        if end - start <= 64
            && !self.user.touches(start, end)
            && let Some(hole) = whole_token(line, &self.lanes, start, end, digits)
        {
            if PARAMS {
                self.params.push(ParamSpan { kind: hole.kind(), start: start as u32, end: end as u32 });
            }
            return self.hasher.pure(hole.code());
        }
        let mut pieces = HashPieces::new(&self.hasher, PARAMS.then_some(&mut self.params));
        self.masker.cut(line, start, end, &self.user, &mut pieces);
        pieces.finish(&line[start..end])
    }

    /// The masked text of each token of the line that was read last; `line` is that line.
    pub(crate) fn texts(&self, line: &[u8]) -> Vec<Box<str>> {
        let n_tokens = self.tokens.len();
        let mut texts = Vec::with_capacity(n_tokens);
        for (idx, &(start, end)) in self.ranges.iter().enumerate() {
            if self.cut_tokens && idx + 1 == n_tokens {
                texts.push("<*>".into());
                continue;
            }
            if self.tokens[idx] == self.time {
                texts.push("<TIME>".into());
                continue;
            }
            let mut pieces = TextPieces { masker: &self.masker, text: String::new() };
            self.masker.cut(line, start as usize, end as usize, &self.user, &mut pieces);
            texts.push(pieces.text.into_boxed_str());
        }
        texts
    }
}

fn is_month(word: &[u8]) -> bool {
    matches!(
        word,
        b"Jan" | b"Feb" | b"Mar" | b"Apr" | b"May" | b"Jun" | b"Jul" | b"Aug" | b"Sep" | b"Oct" | b"Nov" | b"Dec"
    )
}

fn is_weekday(word: &[u8]) -> bool {
    matches!(word, b"Mon" | b"Tue" | b"Wed" | b"Thu" | b"Fri" | b"Sat" | b"Sun")
}

/// A unit that stands alone, perhaps in brackets or before a comma.
fn is_unit_token(token: &[u8]) -> bool {
    let end = token.iter().rposition(|b| b.is_ascii_alphabetic() || *b == b'%').map_or(0, |last| last + 1);
    end > 0 && is_unit(&token[..end])
}

/// Where to cut a line of more than `max` bytes: not inside a UTF-8 sequence.
fn cut_at(line: &[u8], max: usize) -> usize {
    if line.len() <= max {
        return line.len();
    }
    let mut at = max;
    while at > 0 && max - at < 3 && line[at] & 0xc0 == 0x80 {
        at -= 1;
    }
    at
}
