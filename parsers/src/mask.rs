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

use crate::hash::{Class, Hasher};

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

/// The hole that a whole atom is, if it is one value.
fn whole_value(atom: &[u8]) -> Option<Hole> {
    let unsigned = match atom {
        [b'-' | b'+', rest @ ..] if rest.first().is_some_and(u8::is_ascii_digit) => rest,
        _ => atom,
    };
    let first = *unsigned.first()?;
    if first == b'/' {
        return if is_ip(&unsigned[1..]) {
            Some(Hole::IP)
        } else {
            (unsigned.len() > 1 && unsigned[1..].iter().any(|b| b.is_ascii_alphanumeric())).then_some(Hole::PATH)
        };
    }
    if first.is_ascii_digit() {
        if is_number(unsigned) {
            return Some(Hole::NUMBER);
        }
        if is_ip(unsigned) {
            return Some(Hole::IP);
        }
        if is_time(unsigned) {
            return Some(Hole::TIME);
        }
        if unsigned.len() > 2 && unsigned[0] == b'0' && unsigned[1] | 0x20 == b'x' {
            return unsigned[2..].iter().all(u8::is_ascii_hexdigit).then_some(Hole::HEX);
        }
    } else if let Some(rest) = unsigned.strip_prefix(b"blk_") {
        let rest = rest.strip_prefix(b"-").unwrap_or(rest);
        if !rest.is_empty() && rest.iter().all(u8::is_ascii_digit) {
            return Some(Hole::BLOCK);
        }
    }
    let count = |wanted: u8| unsigned.iter().filter(|byte| **byte == wanted).count();
    let is_hex = |byte: &u8| byte.is_ascii_hexdigit();
    if unsigned.len() >= 6 && unsigned.iter().all(is_hex) && unsigned.iter().any(u8::is_ascii_digit) {
        return Some(Hole::HEX);
    }
    if is_uuid(unsigned) {
        return Some(Hole::UUID);
    }
    if unsigned.iter().all(|byte| is_hex(byte) || *byte == b':') && count(b':') >= 2 {
        return Some(Hole::IP); // IPv6, or a MAC address
    }
    // Two slashes are a URL, too.
    let is_drive = unsigned.len() > 2 && unsigned[1] == b':' && matches!(unsigned[2], b'\\' | b'/');
    if is_drive || count(b'/') >= 2 || count(b'\\') >= 2 {
        return Some(Hole::PATH);
    }
    if let Some(slash) = unsigned.iter().position(|b| *b == b'/') {
        // host/address, as Java prints it
        return is_ip(&unsigned[slash + 1..]).then_some(Hole::IP);
    }
    let (name, port) = split_port(unsigned);
    is_dotted_name(name, if port { 1 } else { 2 }).then_some(Hole::HOST)
}

/// `a.example.org`, `org.apache.hadoop.Foo`: labels of letters, digits, `-` and `_`, at least one letter among them.
fn is_dotted_name(name: &[u8], min_dots: usize) -> bool {
    let (mut n_dots, mut has_letter, mut label) = (0, false, 0);
    for byte in name {
        match byte {
            b'.' if label == 0 => return false,
            b'.' => {
                n_dots += 1;
                label = 0;
                continue;
            }
            b'a'..=b'z' => has_letter = true,
            // Without a port, capitals make it the name of a class or an action: semantics, not a value.
            b'A'..=b'Z' | b'_' if min_dots == 2 => return false,
            b'A'..=b'Z' => has_letter = true,
            b'0'..=b'9' | b'-' | b'_' => {}
            _ => return false,
        }
        label += 1;
    }
    has_letter && n_dots >= min_dots && label > 0
}

/// `12`, `1.5`, `1.2.3` (a version), `12ms`, `50%`.
fn is_number(atom: &[u8]) -> bool {
    let mut at = 0;
    let mut n_groups = 0;
    loop {
        let from = at;
        while atom.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        if at == from {
            return false;
        }
        n_groups += 1;
        if at < atom.len() && atom[at] == b'.' {
            at += 1;
        } else {
            break;
        }
    }
    let unit = &atom[at..];
    // Four groups are an address unless one is too long for it.
    (unit.is_empty() || is_unit(unit)) && (n_groups != 4 || !is_ip(atom))
}

/// What may follow a number, attached or as a token of its own.
pub(crate) fn is_unit(text: &[u8]) -> bool {
    matches!(
        text,
        b"ms"
            | b"us"
            | b"ns"
            | b"s"
            | b"sec"
            | b"secs"
            | b"m"
            | b"min"
            | b"h"
            | b"d"
            | b"B"
            | b"b"
            | b"K"
            | b"k"
            | b"M"
            | b"G"
            | b"T"
            | b"KB"
            | b"kB"
            | b"kb"
            | b"MB"
            | b"mb"
            | b"GB"
            | b"gb"
            | b"TB"
            | b"KiB"
            | b"MiB"
            | b"GiB"
            | b"TiB"
            | b"%"
            | b"x"
            | b"L"
            | b"f"
    )
}

/// IPv4 with or without port.
fn is_ip(atom: &[u8]) -> bool {
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
    if !is_digit(atom.first()) || !is_digit(atom.last()) {
        return false;
    }
    let (address, _) = split_port(atom);
    let mut n_groups = 0;
    for group in address.split(|b| *b == b'.') {
        if group.is_empty() || group.len() > 3 || !group.iter().all(u8::is_ascii_digit) {
            return false;
        }
        n_groups += 1;
    }
    n_groups == 4
}

/// Cuts `:port` off.
fn split_port(atom: &[u8]) -> (&[u8], bool) {
    match memchr::memrchr(b':', atom) {
        Some(colon) if colon + 1 < atom.len() && atom[colon + 1..].iter().all(u8::is_ascii_digit) => {
            (&atom[..colon], true)
        }
        _ => (atom, false),
    }
}

/// `16:49:06`, `00:02`, `2015-10-18`, `2016/9/27:20:30:31.455`, `2015-10-18T18:01:47Z`.
fn is_time(atom: &[u8]) -> bool {
    if atom.last().is_some_and(|last| last.is_ascii_alphabetic() && !matches!(last, b'T' | b'Z')) {
        return false;
    }
    let (mut n_groups, mut longest, mut run) = (0, 0, 0);
    let (mut colons, mut dashes, mut slashes) = (0, 0, 0);
    for (idx, byte) in atom.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                n_groups += usize::from(run == 0);
                run += 1;
                longest = longest.max(run);
                continue;
            }
            b':' => colons += 1,
            b'-' => dashes += 1,
            b'/' => slashes += 1,
            b'.' | b'+' => {}
            b'T' if run > 0 => {}
            b'Z' if idx + 1 == atom.len() => {}
            _ => return false,
        }
        if run == 0 {
            return false;
        }
        run = 0;
    }
    let clock = (1..=4).contains(&colons) && n_groups >= 2;
    let date = (dashes == 2 || slashes == 2) && n_groups >= 3;
    longest <= 9 && (clock || date) && atom.iter().take_while(|b| b.is_ascii_digit()).count() <= 4
}

fn is_uuid(atom: &[u8]) -> bool {
    atom.len() == 36
        && atom.iter().enumerate().all(|(idx, b)| match idx {
            8 | 13 | 18 | 23 => *b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

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
