//! Second pass over a line (station 4): what in a token is variable, found by one hand-made scan of only those tokens that
//! hold a digit, a slash or two dots.
//!
//! A token is cut into literals and holes, and a hole has a kind ([`Hole`]). Typed holes count as equal when lines
//! are compared, so `took 12 ms` and `took 7 ms` are the same masked line before Drain sees them (unlike the
//! `<*>` masks of Drain3, which lower the similarity). Masks that a user adds are regular expressions, run over the
//! line first and only where one of them can match at all.
//!
//! Cost: plain tokens are not scanned; a number, address or block id takes a few comparisons on bitmaps, anything
//! else one or two passes over its bytes. No allocation. It cannot fail.

use faultline_core::ParamKind;
use regex::bytes::Regex;

use crate::hash::{Class, Hasher, WILDCARD};

mod value;

pub(crate) use value::is_unit;
use value::whole_value;

/// What stands in for a variable part: a built-in kind, or the number of a user's mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole(u16);

impl Hole {
    pub(crate) const IP: Self = Self(0);
    pub(crate) const NUMBER: Self = Self(1);
    pub(crate) const HEX: Self = Self(2);
    pub(crate) const UUID: Self = Self(3);
    pub(crate) const PATH: Self = Self(4);
    pub(crate) const HOST: Self = Self(5);
    pub(crate) const BLOCK: Self = Self(6);
    pub(crate) const TIME: Self = Self(7);
    const N_BUILT_IN: u16 = 8;
    /// `<*>` in a template that a user wrote: any token.
    pub(crate) const ANY: Self = Self(u16::MAX);

    fn custom(idx: usize) -> Self {
        Self(Self::N_BUILT_IN + idx as u16)
    }

    /// Number that distinguishes it in hashes.
    #[inline(always)]
    pub(crate) fn code(self) -> u64 {
        u64::from(self.0)
    }

    /// Kind of the parameter that it takes out.
    #[inline(always)]
    pub fn kind(self) -> ParamKind {
        match self.0 {
            0 => ParamKind::Ip,
            1 => ParamKind::Number,
            2 => ParamKind::Hex,
            3 => ParamKind::Uuid,
            4 => ParamKind::Path,
            5 => ParamKind::Host,
            6 => ParamKind::Block,
            7 => ParamKind::Time,
            _ => ParamKind::Custom,
        }
    }
}

/// One variable part of a line, as a byte range in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParamSpan {
    /// What it looks like.
    pub kind: ParamKind,
    /// Range in the line.
    pub start: u32,
    /// See `start`.
    pub end: u32,
}

/// Takes the pieces of a token in order.
pub(crate) trait Pieces {
    /// Text that is the same in every line of the template.
    fn literal(&mut self, text: &[u8]);
    /// A variable part.
    fn hole(&mut self, hole: Hole, start: usize, end: usize);
    /// The hole handed on last goes on to `end`: a list of one kind.
    fn goes_on(&mut self, end: usize);
}

/// A mask that the user added.
#[derive(Debug)]
struct UserMask {
    name: String,
    regex: Regex,
}

/// The masks of one parser.
#[derive(Debug, Default)]
pub struct Masker {
    user: Vec<UserMask>,
    /// Matches where any of them does: one pass that most lines end with.
    any: Option<Regex>,
}

impl Masker {
    /// The built-in masks and the user's, as (name, regular expression).
    ///
    /// # Errors
    /// The number of the mask whose expression does not compile, and why.
    pub fn new<'a>(user: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, (usize, regex::Error)> {
        let mut masks = Vec::new();
        let mut all = Vec::new();
        for (idx, (name, expression)) in user.into_iter().enumerate() {
            let regex = Regex::new(expression).map_err(|error| (idx, error))?;
            masks.push(UserMask { name: format!("<{name}>"), regex });
            all.push(format!("(?:{expression})"));
        }
        // Should the union exceed the size limit of one expression, each mask is simply tried on each line.
        let any = (all.len() > 1).then(|| Regex::new(&all.join("|")).ok()).flatten();
        Ok(Self { user: masks, any })
    }

    /// Placeholder text of a hole.
    pub fn placeholder(&self, hole: Hole) -> &str {
        match hole.0 {
            0 => "<IP>",
            1 => "<NUM>",
            2 => "<HEX>",
            3 => "<UUID>",
            4 => "<PATH>",
            5 => "<HOST>",
            6 => "<BLK>",
            7 => "<TIME>",
            custom => self.user.get(usize::from(custom - Hole::N_BUILT_IN)).map_or("<*>", |mask| &mask.name),
        }
    }

    /// Whether the user has added masks.
    #[inline(always)]
    pub(crate) fn has_user_masks(&self) -> bool {
        !self.user.is_empty()
    }

    /// Finds what the user's masks match: ranges in order, none overlapping; an earlier mask wins over a later one.
    pub(crate) fn find_user(&self, line: &[u8], found: &mut UserSpans) {
        found.spans.clear();
        found.ranges.clear();
        if self.user.is_empty() || self.any.as_ref().is_some_and(|any| !any.is_match(line)) {
            return;
        }
        self.add_user(line, found);
    }

    /// Finds the placeholders in a template that a user wrote, and what the user's masks match beside them.
    ///
    /// # Errors
    /// What is wrong with the template.
    pub(crate) fn find_placeholders(&self, template: &str, found: &mut UserSpans) -> Result<(), String> {
        found.spans.clear();
        found.ranges.clear();
        let bytes = template.as_bytes();
        let separates = |at: Option<&u8>| at.is_none_or(|byte| *byte <= b' ');
        for start in memchr::memchr_iter(b'<', bytes) {
            let Some(len) = memchr::memchr(b'>', &bytes[start..]) else { break };
            let (text, end) = (&template[start..=start + len], start + len + 1);
            let holes = (0..Hole::N_BUILT_IN + self.user.len() as u16).map(Hole).chain([Hole::ANY]);
            let Some(hole) = { holes }.find(|hole| self.placeholder(*hole) == text) else {
                let name = &text[1..len];
                if !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_') {
                    return Err(format!("has the placeholder `{text}`, which is neither built in nor a mask"));
                }
                continue;
            };
            if hole == Hole::ANY && !(separates(bytes[..start].last()) && separates(bytes.get(end))) {
                return Err("has `<*>` inside a token, where only typed placeholders such as `<NUM>` can stand".into());
            }
            if found.spans.len() == UserSpans::MAX {
                return Err(format!("has more than {} placeholders", UserSpans::MAX));
            }
            found.spans.push((start as u32, end as u32, hole));
        }
        self.add_user(bytes, found);
        Ok(())
    }

    fn add_user(&self, line: &[u8], found: &mut UserSpans) {
        for (idx, mask) in self.user.iter().enumerate() {
            for hit in mask.regex.find_iter(line) {
                let (mut start, mut end) = (hit.start() as u32, hit.end() as u32);
                // Surrounding white space separates tokens; it is no part of a value.
                while start < end && line[start as usize] <= b' ' {
                    start += 1;
                }
                while start < end && line[end as usize - 1] <= b' ' {
                    end -= 1;
                }
                let taken = |&(from, to, _): &(u32, u32, Hole)| from < end && start < to;
                if start < end && !found.spans.iter().any(taken) && found.spans.len() < UserSpans::MAX {
                    found.spans.push((start, end, Hole::custom(idx)));
                }
            }
        }
        found.spans.sort_unstable_by_key(|span| span.0);
        found.ranges.extend(found.spans.iter().map(|span| (span.0, span.1)));
    }

    /// Cuts the token `line[start..end]` into pieces.
    pub(crate) fn cut(&self, line: &[u8], start: usize, end: usize, user: &UserSpans, pieces: &mut impl Pieces) {
        let mut cutter = Cutter { line, literal: start, last: None, pieces };
        let mut at = start;
        for &(from, to, hole) in user.in_token(start, end) {
            cutter.atoms(at, from as usize);
            cutter.hole(hole, from as usize, to as usize);
            at = to as usize;
        }
        cutter.atoms(at, end);
        cutter.finish(end);
    }
}

/// What the user's masks found in a line.
#[derive(Debug, Default)]
pub(crate) struct UserSpans {
    spans: Vec<(u32, u32, Hole)>,
    /// The same without the mask, for [`Lanes::scan`].
    pub(crate) ranges: Vec<(u32, u32)>,
}

impl UserSpans {
    /// The most user-masked values in one line.
    const MAX: usize = 64;

    fn in_token(&self, start: usize, end: usize) -> &[(u32, u32, Hole)] {
        if self.spans.is_empty() {
            return &[];
        }
        let first = self.spans.partition_point(|span| (span.0 as usize) < start);
        let past = self.spans.partition_point(|span| (span.0 as usize) < end);
        &self.spans[first..past]
    }

    #[inline(always)]
    pub(crate) fn touches(&self, start: usize, end: usize) -> bool {
        !self.spans.is_empty() && !self.in_token(start, end).is_empty()
    }
}

/// The shapes that most variable tokens have, decided on bitmaps: a plain number, a block id, an address. Returns the
/// hole that is the whole token.
#[inline(always)]
pub(crate) fn whole_token(line: &[u8], start: usize, end: usize, digits: u64) -> Option<Hole> {
    let len = end - start;
    if digits == low_bits(len) {
        return Some(Hole::NUMBER);
    }
    let token = &line[start..end];
    if len > 4 && token[..4] == *b"blk_" {
        let from = 4 + usize::from(token[4] == b'-');
        let wanted = low_bits(len) & !low_bits(from);
        return (len > from && digits & wanted == wanted).then_some(Hole::BLOCK);
    }
    // /d.d.d.d:port
    let from = usize::from(token[0] == b'/');
    let mut at = from;
    for group in 0..4 {
        let n_digits = (digits >> at).trailing_ones() as usize;
        if n_digits == 0 || n_digits > 3 {
            return None;
        }
        at += n_digits;
        if group < 3 {
            if at >= len || token[at] != b'.' {
                return None;
            }
            at += 1;
        }
    }
    if at == len {
        return Some(Hole::IP);
    }
    let port = len - at - 1;
    let port_is_digits = token[at] == b':' && port > 0 && digits >> at >> 1 == low_bits(port);
    port_is_digits.then_some(Hole::IP)
}

/// The lowest `n` bits, for `n` up to 64.
#[inline(always)]
pub(crate) fn low_bits(n: usize) -> u64 {
    if n >= 64 { u64::MAX } else { (1 << n) - 1 }
}

struct Cutter<'a, P> {
    line: &'a [u8],
    /// Where the literal begins that has not been handed on.
    literal: usize,
    /// The hole handed on last, to fold lists of the same kind.
    last: Option<Hole>,
    pieces: &'a mut P,
}

impl<P: Pieces> Cutter<'_, P> {
    fn hole(&mut self, hole: Hole, start: usize, end: usize) {
        let between = &self.line[self.literal..start];
        // `1,2,3` is one variable part, however long the list.
        if self.last == Some(hole) && between == b"," {
            self.pieces.goes_on(end);
        } else {
            if !between.is_empty() {
                self.pieces.literal(between);
            }
            self.last = Some(hole);
            self.pieces.hole(hole, start, end);
        }
        self.literal = end;
    }

    fn finish(self, end: usize) {
        let rest = &self.line[self.literal..end];
        if !rest.is_empty() {
            self.pieces.literal(rest);
        }
    }

    /// Splits at brackets, quotes, commas and the like.
    fn atoms(&mut self, start: usize, end: usize) {
        let mut at = start;
        while at < end {
            while at < end && TRAITS[usize::from(self.line[at])] == 0 {
                at += 1;
            }
            let from = at;
            let mut traits = 0;
            for byte in &self.line[from..end] {
                let of_byte = TRAITS[usize::from(*byte)];
                if of_byte == 0 {
                    break;
                }
                traits |= of_byte;
                at += 1;
            }
            if traits == DIGIT {
                self.hole(Hole::NUMBER, from, at);
            } else if traits & (DIGIT | MARK) != 0 {
                let mut to = at;
                while to > from && matches!(self.line[to - 1], b'.' | b':' | b'-' | b'_') {
                    to -= 1;
                }
                if to > from {
                    self.atom(from, to, traits);
                }
            }
        }
    }

    /// A run without brackets: one value, or values joined by colons.
    fn atom(&mut self, start: usize, end: usize, traits: u8) {
        if let Some(hole) = whole_value(&self.line[start..end]) {
            return self.hole(hole, start, end);
        }
        if traits & JOINT == 0 {
            return self.digit_runs(start, end);
        }
        let mut from = start;
        while from < end {
            let part = &self.line[from..end];
            let len = part.iter().position(|b| matches!(b, b':' | b'@')).unwrap_or(part.len());
            let part = &part[..len];
            if part.iter().any(|b| TRAITS[usize::from(*b)] & (DIGIT | MARK) != 0) {
                match whole_value(part) {
                    Some(hole) if len < end - start => self.hole(hole, from, from + len),
                    _ => self.digit_runs(from, from + len),
                }
            }
            from += len + 1;
        }
    }

    /// Numbers inside a word, as in `part-00081` or `rack12`.
    fn digit_runs(&mut self, start: usize, end: usize) {
        let mut at = start;
        while at < end {
            if !self.line[at].is_ascii_digit() {
                at += 1;
                continue;
            }
            let from = at;
            while at < end && self.line[at].is_ascii_digit() {
                at += 1;
            }
            self.hole(Hole::NUMBER, from, at);
        }
    }
}

/// What a byte says about the value it is part of; 0 for those that only stand between values.
static TRAITS: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        table[byte] = match b {
            b'0'..=b'9' => DIGIT,
            b'.' | b'/' | b'\\' => MARK,
            b':' | b'@' => JOINT,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'-' | b'+' | b'%' | b'~' | b'$' | 0x80.. => OTHER,
            _ => 0,
        };
        byte += 1;
    }
    table
};
const DIGIT: u8 = 1;
const MARK: u8 = 2;
const JOINT: u8 = 4;
const OTHER: u8 = 8;

/// Folds the pieces of a token into its hash and notes its parameters.
pub(crate) struct HashPieces<'a> {
    hasher: &'a Hasher,
    state: u64,
    first: Option<Hole>,
    has_letter: bool,
    params: Option<&'a mut Vec<ParamSpan>>,
}

impl<'a> HashPieces<'a> {
    pub(crate) fn new(hasher: &'a Hasher, params: Option<&'a mut Vec<ParamSpan>>) -> Self {
        Self { hasher, state: 0, first: None, has_letter: false, params }
    }

    /// The hash of the token, given its plain text for when nothing in it is variable.
    pub(crate) fn finish(self, token: &[u8]) -> u64 {
        match self.first {
            None => self.hasher.word(token),
            Some(Hole::ANY) => WILDCARD,
            // Brackets and commas round a value do not make it another value.
            Some(hole) if !self.has_letter => self.hasher.pure(hole.code()),
            Some(_) => self.hasher.mixed(self.state),
        }
    }
}

impl Pieces for HashPieces<'_> {
    fn literal(&mut self, text: &[u8]) {
        self.has_letter |= text.iter().any(|b| b.is_ascii_alphabetic() || *b >= 0x80);
        self.state = self.hasher.join(self.state, self.hasher.word(text));
    }

    fn hole(&mut self, hole: Hole, start: usize, end: usize) {
        self.first = self.first.or(Some(hole));
        // Of any kind: `rhost=10.0.0.1` and `rhost=a.example.org` are the same token.
        self.state = self.hasher.join(self.state, Class::Pure as u64);
        if let Some(params) = &mut self.params {
            params.push(ParamSpan { kind: hole.kind(), start: start as u32, end: end as u32 });
        }
    }

    fn goes_on(&mut self, end: usize) {
        if let Some(last) = self.params.as_mut().and_then(|params| params.last_mut()) {
            last.end = end as u32;
        }
    }
}

/// Writes the pieces of a token as text with placeholders.
pub(crate) struct TextPieces<'a> {
    pub(crate) masker: &'a Masker,
    pub(crate) text: String,
}

impl Pieces for TextPieces<'_> {
    fn literal(&mut self, text: &[u8]) {
        self.text.push_str(&String::from_utf8_lossy(text));
    }

    fn hole(&mut self, hole: Hole, _: usize, _: usize) {
        self.text.push_str(self.masker.placeholder(hole));
    }

    fn goes_on(&mut self, _: usize) {}
}
