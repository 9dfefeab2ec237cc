//! A line as Drain compares it (station 4): hashes of its masked tokens, a hash of the whole masked line, and where its
//! parameters stand.
//!
//! Besides the masks of [`crate::mask`], three rules make lines of one template equally long: a unit after a number
//! belongs to the number (`1.2 KB`), a run of values of one kind is one value (`1 2 3`), and what exceeds the cap on
//! tokens is one last token. Buffers are reused: no allocation once they have grown to the longest line.

use std::sync::Arc;

use crate::{
    hash::{Class, Hasher, WILDCARD, class_of},
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
    max_line_bytes: usize,
    lanes: Lanes,
    user: UserSpans,
    found: Tokens,
    /// Parameters that the masks found, in order.
    pub(crate) params: Vec<ParamSpan>,
    pub(crate) hash: u64,
    /// Bytes of the line that were looked at.
    pub(crate) len: usize,
    pub(crate) cut_tokens: bool,
    number: u64,
    time: u64,
}

/// The tokens of a line: places for as many as the cap allows, the first `n` in use.
#[derive(Debug)]
struct Tokens {
    hashes: Box<[u64]>,
    /// Byte range of each token; of the first one where a run became one.
    ranges: Box<[(u32, u32)]>,
    n: usize,
    /// One odd multiplier for each place.
    weights: Box<[u64]>,
    /// Of the hashes, each times its weight.
    sum: u64,
    /// How many tokens there are after the latest time of day that has taken a date.
    date_end: usize,
}

/// Code in hashes of the token that stands for all tokens beyond the cap.
const REST: u64 = u64::MAX;

impl MaskedLine {
    pub(crate) fn new(masker: Arc<Masker>, hasher: Hasher, max_tokens: usize, max_line_bytes: usize) -> Self {
        let found = Tokens {
            hashes: vec![0; max_tokens].into(),
            ranges: vec![(0, 0); max_tokens].into(),
            n: 0,
            weights: (0..max_tokens as u64).map(|idx| hasher.join(idx, !idx) | 1).collect(),
            sum: 0,
            date_end: 0,
        };
        Self {
            masker,
            hasher,
            max_line_bytes,
            lanes: Lanes::default(),
            user: UserSpans::default(),
            found,
            params: Vec::new(),
            hash: 0,
            len: 0,
            cut_tokens: false,
            number: hasher.pure(Hole::NUMBER.code()),
            time: hasher.pure(Hole::TIME.code()),
        }
    }

    /// A line buffer with the built-in masks and no others, for a [`crate::Drain`] used by itself.
    #[must_use]
    pub fn with_default_masks(max_tokens: usize, max_line_bytes: usize) -> Self {
        Self::new(Arc::new(Masker::default()), Hasher::new(0), max_tokens.max(2), max_line_bytes)
    }

    /// Hash of each token.
    pub(crate) fn tokens(&self) -> &[u64] {
        &self.found.hashes[..self.found.n]
    }

    /// Byte range of each token.
    pub(crate) fn ranges(&self) -> &[(u32, u32)] {
        &self.found.ranges[..self.found.n]
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
        self.cut::<PARAMS>(line);
    }

    /// Masks a template that a user wrote as its lines would be, with placeholders where they have values; the fields then
    /// describe it. Returns the text of each token.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read_template(&mut self, template: &str) -> Result<Vec<Box<str>>, String> {
        self.masker.find_placeholders(template, &mut self.user)?;
        self.cut::<false>(template.as_bytes());
        let texts = self.texts(template.as_bytes());
        self.user = UserSpans::default();
        if template.len() > self.max_line_bytes {
            return Err(format!("is longer than parser.max_line_bytes ({})", self.max_line_bytes));
        }
        if self.cut_tokens {
            return Err(format!("has more tokens than parser.max_tokens ({})", self.found.hashes.len()));
        }
        if self.tokens().iter().all(|token| *token == WILDCARD) {
            return Err("has no token besides `<*>`".into());
        }
        Ok(texts)
    }

    #[inline(always)]
    fn cut<const PARAMS: bool>(&mut self, line: &[u8]) {
        self.lanes.scan(line, &self.user.ranges);
        let Self { masker, hasher, lanes, user, found, params, number, time, .. } = self;
        let (hasher, bounds) = (*hasher, lanes.bounds());
        let max_tokens = found.hashes.len();
        (found.n, found.sum, found.date_end) = (0, 0, 0);
        params.clear();
        self.cut_tokens = false;
        let mut before = 0;
        let mut skip_to = 0;
        for (bound, &[start, end]) in bounds.iter().enumerate() {
            if bound < skip_to {
                continue;
            }
            let (from, to) = (start as usize, end as usize);
            let (digits, marks) = lanes.digits_and_marks(from);
            let within = low_bits(to - from);
            let digits = digits & within;
            // A dot at the end of a sentence is no reason to look closer.
            let marks = marks & (within >> 1);
            let plain = digits == 0 && (marks == 0 || (marks & (marks - 1) == 0 && line[from] != b'/'));
            let token = if plain && to - from <= 64 && !user.touches(from, to) {
                if class_of(before) == Class::Pure && to - from <= 5 && is_unit_token(&line[from..to]) {
                    if PARAMS && let Some(last) = params.last_mut() {
                        last.end = end;
                    }
                    continue;
                }
                hasher.token(line, from, to)
            } else {
                if line[from] == b'(' && digits != 0 && is_gloss(line, &bounds[bound..], found) {
                    // `1190 bytes (1.16 KB)`: the brackets say the same again.
                    skip_to = bound + 2;
                    continue;
                }
                variable(masker, hasher, user, line, (from, to), digits, PARAMS.then_some(&mut *params))
            };
            let mut start = start;
            if class_of(token) == Class::Pure {
                if token == before {
                    continue;
                }
                if token == *time {
                    start = take_date(line, start, *number, found, params);
                } else if before == *time && found.n == found.date_end && to - from == 4 && token == *number {
                    // The year after `Fri Jul 1 07:57:30`.
                    if PARAMS && let Some(year) = params.pop() {
                        params.last_mut().expect("the date before the year").end = year.end;
                    }
                    continue;
                }
            }
            if found.n + 1 == max_tokens && bound + 1 < bounds.len() {
                self.cut_tokens = true;
                found.push(hasher.pure(REST), start, line.len() as u32);
                break;
            }
            before = token;
            found.push(token, start, end);
        }
        self.hash = hasher.join(found.sum, found.n as u64);
    }

    /// The masked text of each token of the line that was read last; `line` is that line.
    pub(crate) fn texts(&self, line: &[u8]) -> Vec<Box<str>> {
        let n_tokens = self.found.n;
        let mut texts = Vec::with_capacity(n_tokens);
        for (idx, &(start, end)) in self.ranges().iter().enumerate() {
            if self.cut_tokens && idx + 1 == n_tokens {
                texts.push("<*>".into());
                continue;
            }
            if self.found.hashes[idx] == self.time {
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

impl Tokens {
    #[inline(always)]
    fn push(&mut self, hash: u64, start: u32, end: u32) {
        self.hashes[self.n] = hash;
        self.ranges[self.n] = (start, end);
        self.sum = self.sum.wrapping_add(hash.wrapping_mul(self.weights[self.n]));
        self.n += 1;
    }

    /// Takes back all but the first `n`.
    fn truncate(&mut self, n: usize) {
        let taken = self.hashes[n..self.n].iter().zip(&self.weights[n..]);
        self.sum = taken.fold(self.sum, |sum, (hash, weight)| sum.wrapping_sub(hash.wrapping_mul(*weight)));
        self.n = n;
    }
}

/// The hash of the token `line[start..end]`, in which something may be variable.
#[inline(always)]
fn variable(
    masker: &Masker,
    hasher: Hasher,
    user: &UserSpans,
    line: &[u8],
    (start, end): (usize, usize),
    digits: u64,
    params: Option<&mut Vec<ParamSpan>>,
) -> u64 {
    // A mark that ends a clause is no part of the value before it.
    let value_end = end - usize::from(end - start > 1 && matches!(line[end - 1], b',' | b':' | b'.' | b';'));
    if end - start <= 64
        && !user.touches(start, end)
        && let Some(hole) = whole_token(line, start, value_end, digits)
    {
        if let Some(params) = params {
            params.push(ParamSpan { kind: hole.kind(), start: start as u32, end: value_end as u32 });
        }
        return hasher.pure(hole.code());
    }
    let mut pieces = HashPieces::new(&hasher, params);
    masker.cut(line, start, end, user, &mut pieces);
    pieces.finish(&line[start..end])
}

/// Whether the token in brackets and the next, the first of `bounds`, are a quantity with its unit, after another quantity.
#[cold]
fn is_gloss(line: &[u8], bounds: &[[u32; 2]], before: &Tokens) -> bool {
    let token = |idx: usize| bounds.get(idx).map(|&[start, end]| &line[start as usize..end as usize]);
    let (Some([b'(', number @ ..]), Some([unit @ .., b')'])) = (token(0), token(1)) else {
        return false;
    };
    let before = before.n.checked_sub(2).map(|idx| class_of(before.hashes[idx]));
    before == Some(Class::Pure)
        && is_unit(unit)
        && !unit.is_empty()
        && number.iter().all(|b| b.is_ascii_digit() || *b == b'.')
}

/// Takes `Fri Jul 1` back from before a time of day at `start`: the whole is one time. Returns where it begins.
#[cold]
#[inline(never)]
fn take_date(line: &[u8], start: u32, number: u64, found: &mut Tokens, params: &mut Vec<ParamSpan>) -> u32 {
    let n = found.n;
    let text = |idx: usize| &line[found.ranges[idx].0 as usize..found.ranges[idx].1 as usize];
    if n < 2 || found.hashes[n - 1] != number || !is_month(text(n - 2)) {
        return start;
    }
    found.truncate(if n >= 3 && is_weekday(text(n - 3)) { n - 3 } else { n - 2 });
    let start = found.ranges[found.n].0;
    found.date_end = found.n + 1;
    // The time itself was noted last, if parameters are wanted.
    if let Some(time) = params.pop() {
        params.retain(|param| param.start < start);
        params.push(ParamSpan { start, ..time });
    }
    start
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
