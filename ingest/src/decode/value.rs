//! Writes attributes and `AnyValue`s as JSON text, straight from the wire.
//!
//! Station 2. Text is copied without a check and the finished JSON is checked for UTF-8 once: pieces are separated by
//! ASCII, so the whole is UTF-8 exactly when each piece is. Cost: one copy, one scan for characters to escape (eight
//! bytes at a time), one vectorised UTF-8 check. The recursion is as deep as `max_nesting` and no deeper.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

use super::{
    CapCounts, DecodeLimits,
    wire::{Fields, Value, WireError},
};

/// Why one record is bad. The first part names the field.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(super) enum RecordError {
    #[error("{0}: {1}")]
    Wire(&'static str, WireError),
    #[error("{0}: not UTF-8")]
    Utf8(&'static str),
    #[error("{field}: nested deeper than {limit} levels (max_nesting)")]
    TooDeep { field: &'static str, limit: usize },
    #[error("{field}: must be {expected} bytes, got {got}")]
    IdLength { field: &'static str, expected: usize, got: usize },
    #[error("{0}: required and not all zero")]
    IdMissing(&'static str),
    #[error("more than {0} records in one request (max_records)")]
    TooManyRecords(usize),
    #[error("{0}")]
    Inconsistent(&'static str),
}

/// Writes values while keeping to the caps.
pub(super) struct Writer<'c> {
    limits: &'c DecodeLimits,
    caps: &'c mut CapCounts,
}

impl<'c> Writer<'c> {
    #[inline]
    pub(super) fn new(limits: &'c DecodeLimits, caps: &'c mut CapCounts) -> Self {
        Self { limits, caps }
    }

    /// `text` checked and cut at the cap.
    #[inline]
    pub(super) fn text<'a>(&mut self, field: &'static str, text: &'a [u8]) -> Result<&'a str, RecordError> {
        let text = simdutf8::basic::from_utf8(text).map_err(|_| RecordError::Utf8(field))?;
        if text.len() <= self.limits.max_string_bytes {
            return Ok(text);
        }
        self.caps.strings_truncated += 1;
        Ok(&text[..text.floor_char_boundary(self.limits.max_string_bytes)])
    }

    /// Appends one `KeyValue` to an object that is open in `out`; the first opens it.
    #[inline]
    pub(super) fn attribute(
        &mut self,
        field: &'static str,
        out: &mut Vec<u8>,
        n_attributes: &mut usize,
        key_value: &[u8],
    ) -> Result<(), RecordError> {
        if *n_attributes >= self.limits.max_attributes {
            self.caps.attributes_dropped += 1;
            return Ok(());
        }
        out.push(if *n_attributes == 0 { b'{' } else { b',' });
        *n_attributes += 1;
        self.key_value(field, out, key_value, 0)
    }

    #[inline]
    fn key_value(
        &mut self,
        field: &'static str,
        out: &mut Vec<u8>,
        key_value: &[u8],
        depth: usize,
    ) -> Result<(), RecordError> {
        if let Some((key, any_value)) = short_key_value(key_value) {
            self.string(out, key);
            out.push(b':');
            return self.value(field, out, any_value, depth);
        }
        let wire = |error| RecordError::Wire(field, error);
        let (mut key, mut any_value) = (&[][..], &[][..]);
        let mut fields = Fields::new(key_value);
        while let Some((number, value)) = fields.next_field().map_err(wire)? {
            match number {
                1 => key = value.bytes(1).map_err(wire)?,
                2 => any_value = value.bytes(2).map_err(wire)?,
                _ => {}
            }
        }
        self.string(out, key);
        out.push(b':');
        self.value(field, out, any_value, depth)
    }

    /// Appends the JSON text of one `AnyValue` that stands inside `depth` lists.
    pub(super) fn value(
        &mut self,
        field: &'static str,
        out: &mut Vec<u8>,
        any_value: &[u8],
        depth: usize,
    ) -> Result<(), RecordError> {
        match any_value {
            // What encoders write nearly always: one field, its length or value in one byte.
            [0x0a, len, text @ ..] if *len < 0x80 && text.len() == usize::from(*len) => {
                self.string(out, text);
                return Ok(());
            }
            [0x18, small] if *small < 0x80 => {
                push_i64(out, i64::from(*small));
                return Ok(());
            }
            _ => {}
        }
        let wire = |error| RecordError::Wire(field, error);
        let mut last = None;
        let mut fields = Fields::new(any_value);
        while let Some((number, value)) = fields.next_field().map_err(wire)? {
            if (1..=7).contains(&number) {
                last = Some((number, value));
            }
        }
        match last {
            None => out.extend_from_slice(b"null"),
            Some((1, value)) => self.string(out, value.bytes(1).map_err(wire)?),
            Some((2, value)) => {
                let text: &[u8] = if value.varint(2).map_err(wire)? == 0 { b"false" } else { b"true" };
                out.extend_from_slice(text);
            }
            #[allow(clippy::cast_possible_wrap, reason = "int64 fills the varint")]
            Some((3, value)) => push_i64(out, value.varint(3).map_err(wire)? as i64),
            Some((4, value)) => push_f64(out, value.double(4).map_err(wire)?),
            Some((7, value)) => self.bytes(out, value.bytes(7).map_err(wire)?),
            Some((number, value)) => {
                if depth >= self.limits.max_nesting {
                    return Err(RecordError::TooDeep { field, limit: self.limits.max_nesting });
                }
                self.list(field, out, number, value.bytes(number).map_err(wire)?, depth + 1)?;
            }
        }
        Ok(())
    }

    /// An `ArrayValue` (5) or a `KeyValueList` (6).
    fn list(
        &mut self,
        field: &'static str,
        out: &mut Vec<u8>,
        kind: u32,
        list: &[u8],
        depth: usize,
    ) -> Result<(), RecordError> {
        let wire = |error| RecordError::Wire(field, error);
        let (open, close) = if kind == 5 { (b'[', b']') } else { (b'{', b'}') };
        out.push(open);
        let mut is_first = true;
        let mut fields = Fields::new(list);
        while let Some((number, value)) = fields.next_field().map_err(wire)? {
            if number != 1 {
                continue;
            }
            if !std::mem::take(&mut is_first) {
                out.push(b',');
            }
            let item = value.bytes(1).map_err(wire)?;
            if kind == 5 {
                self.value(field, out, item, depth)?;
            } else {
                self.key_value(field, out, item, depth)?;
            }
        }
        out.push(close);
        Ok(())
    }

    #[inline]
    fn string(&mut self, out: &mut Vec<u8>, text: &[u8]) {
        if text.len() <= self.limits.max_string_bytes {
            push_string(out, text);
        } else {
            self.caps.strings_truncated += 1;
            let mut end = self.limits.max_string_bytes;
            // Back to the start of a character, so that what is kept of valid text is valid.
            while end > 0 && text[end] & 0xc0 == 0x80 {
                end -= 1;
            }
            push_string(out, &text[..end]);
        }
    }

    fn bytes(&mut self, out: &mut Vec<u8>, bytes: &[u8]) {
        let kept = &bytes[..bytes.len().min(self.limits.max_string_bytes)];
        self.caps.strings_truncated += u64::from(kept.len() < bytes.len());
        out.push(b'"');
        let start = out.len();
        out.resize(start + kept.len().div_ceil(3) * 4, 0);
        BASE64.encode_slice(kept, &mut out[start..]).expect("room for four characters for each three bytes");
        out.push(b'"');
    }
}

/// Key and value of a `KeyValue` as encoders write nearly all of them: the key first, both lengths in one byte.
#[inline]
fn short_key_value(key_value: &[u8]) -> Option<(&[u8], &[u8])> {
    let [0x0a, key_len, rest @ ..] = key_value else { return None };
    let (key, rest) = rest.split_at_checked(usize::from(*key_len))?;
    let [0x12, value_len, any_value @ ..] = rest else { return None };
    (*key_len < 0x80 && *value_len < 0x80 && any_value.len() == usize::from(*value_len)).then_some((key, any_value))
}

/// Ends the object in `out`, if one was opened, and checks it. Empty when there were no attributes.
#[inline]
pub(super) fn close_object<'a>(field: &'static str, out: &'a mut Vec<u8>) -> Result<&'a str, RecordError> {
    if !out.is_empty() {
        out.push(b'}');
    }
    simdutf8::basic::from_utf8(out).map_err(|_| RecordError::Utf8(field))
}

/// The string value of a `KeyValue` with this key.
pub(super) fn string_attribute<'a>(key_value: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    let (mut is_wanted, mut text) = (false, None);
    let mut fields = Fields::new(key_value);
    while let Ok(Some((number, value))) = fields.next_field() {
        match (number, value) {
            (1, Value::Bytes(key)) => is_wanted = key == wanted,
            (2, Value::Bytes(any_value)) => text = super::wire::find_bytes(any_value, 1).ok().flatten(),
            _ => {}
        }
    }
    text.filter(|_| is_wanted)
}

/// A span or trace id as lower-case hexadecimal text; empty when it is not given or all zero.
#[inline]
pub(super) fn hex_id<'a, const N: usize>(
    field: &'static str,
    id: &[u8],
    out: &'a mut [u8],
) -> Result<&'a str, RecordError> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    if id.is_empty() {
        return Ok("");
    }
    let Ok(id) = <&[u8; N]>::try_from(id) else {
        return Err(RecordError::IdLength { field, expected: N, got: id.len() });
    };
    if id.iter().all(|byte| *byte == 0) {
        return Ok("");
    }
    let out = &mut out[..2 * N];
    for (digits, byte) in out.chunks_exact_mut(2).zip(id) {
        digits[0] = DIGITS[usize::from(byte >> 4)];
        digits[1] = DIGITS[usize::from(byte & 15)];
    }
    Ok(std::str::from_utf8(out).expect("hexadecimal digits are ASCII"))
}

pub(super) fn push_i64(out: &mut Vec<u8>, value: i64) {
    serde_json::to_writer(out, &value).expect("a vector takes any number of bytes");
}

pub(super) fn push_f64(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        serde_json::to_writer(out, &value).expect("a vector takes any number of bytes");
    } else if value.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
    } else {
        out.extend_from_slice(if value > 0.0 { b"\"Infinity\"" } else { b"\"-Infinity\"" });
    }
}

/// Appends `text` as a JSON string. It need not be UTF-8; whoever keeps `out` checks the whole.
#[inline]
pub(super) fn push_string(out: &mut Vec<u8>, text: &[u8]) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    if is_plain(text) {
        out.extend_from_slice(text);
    } else {
        push_escaped(out, text);
    }
    out.push(b'"');
}

/// Whether `text` holds no quote, backslash or control character.
#[inline]
fn is_plain(text: &[u8]) -> bool {
    let (words, rest) = text.as_chunks::<8>();
    words.iter().all(|word| !has_special(u64::from_le_bytes(*word)))
        && rest.iter().all(|byte| *byte >= 0x20 && *byte != b'"' && *byte != b'\\')
}

/// Whether one of eight bytes is a quote, a backslash or below 0x20. A borrow may also mark a byte above one that is
/// marked already, which does not change the answer.
#[inline]
fn has_special(word: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let zero_in = |word: u64| word.wrapping_sub(ONES) & !word;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (control | zero_in(word ^ (ONES * 0x22)) | zero_in(word ^ (ONES * 0x5c))) & HIGHS != 0
}

#[cold]
fn push_escaped(out: &mut Vec<u8>, text: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut plain_from = 0;
    for (idx, &byte) in text.iter().enumerate() {
        let short = match byte {
            b'"' | b'\\' => byte,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0c => b'f',
            0..0x20 => 0,
            _ => continue,
        };
        out.extend_from_slice(&text[plain_from..idx]);
        plain_from = idx + 1;
        if short == 0 {
            let (high, low) = (DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]);
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
        } else {
            out.extend_from_slice(&[b'\\', short]);
        }
    }
    out.extend_from_slice(&text[plain_from..]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_string_reads_back_from_its_json_text(text in any::<String>()) {
            let mut out = Vec::new();
            push_string(&mut out, text.as_bytes());
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn strings_of_ascii_are_written_as_serde_json_writes_them(text in "[\\x00-\\x7f]{0,40}") {
            let mut out = Vec::new();
            push_string(&mut out, text.as_bytes());
            prop_assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&text).unwrap());
        }

        #[test]
        fn doubles_read_back_to_the_same_bits(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let mut out = Vec::new();
            push_f64(&mut out, value);
            let text = std::str::from_utf8(&out).unwrap();
            prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), bits);
        }

        #[test]
        fn a_word_is_special_exactly_when_one_of_its_bytes_is(bytes in any::<[u8; 8]>()) {
            let slow = bytes.iter().any(|byte| *byte < 0x20 || *byte == b'"' || *byte == b'\\');
            prop_assert_eq!(has_special(u64::from_le_bytes(bytes)), slow);
        }
    }
}
