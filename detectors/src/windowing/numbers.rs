//! The numbers in the texts of records (station 6), from the parameters that the parser took out of them.
//!
//! A parameter counts when all of its text is one decimal number, signed or not, with a fraction or not, with a unit or
//! not: sizes become bytes and durations microseconds, so that `900 KB` and `1.2 MB` of one template can be compared;
//! any other quantity stays as written. Hexadecimal digits, addresses, times, versions and lists do not count, nor do
//! numbers of more than [`MAX_DIGITS`] digits: those are identifiers. The kinds that the parser has found do not travel
//! with a batch, so a token that varies and what a mask of the user's found count too where they read as numbers.
//!
//! Cost: a pass over the bytes of a record's parameters, until four numbers are found; no allocation. It cannot fail.

use arrow::array::{Array, ListArray, StringArray};
use faultline_core::{LogBatch, RecordNumbers};

/// Digits before the point beyond which a number is no quantity; further ones after it are left out.
const MAX_DIGITS: usize = 15;

/// Reads the numbers of a batch, record by record.
#[derive(Debug)]
pub(super) struct NumberColumn<'a> {
    params: &'a ListArray,
    texts: Option<&'a StringArray>,
}

impl<'a> NumberColumn<'a> {
    pub fn of(batch: &'a LogBatch) -> Self {
        let params = batch.params();
        Self { params, texts: params.values().as_any().downcast_ref() }
    }

    /// The first numbers of record `row`; none where the batch has not been parsed.
    pub fn row(&self, row: usize) -> RecordNumbers {
        let Some(texts) = self.texts.filter(|_| self.params.is_valid(row)) else { return RecordNumbers::default() };
        let offsets = self.params.value_offsets();
        let own = offsets[row] as usize..offsets[row + 1] as usize;
        RecordNumbers::of(own.filter(|&at| texts.is_valid(at)).filter_map(|at| number_of(texts.value(at))))
    }
}

/// The number that `text` is, in bytes or microseconds where it has such a unit.
fn number_of(text: &str) -> Option<f32> {
    let (is_negative, unsigned) = match text.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        all => (false, all),
    };
    let (whole, mut rest) = split_digits(unsigned);
    if whole.is_empty() || whole.len() > MAX_DIGITS {
        return None;
    }
    let mut magnitude = integer(whole) as f64;
    if let [b'.', after @ ..] = rest {
        let (fraction, after) = split_digits(after);
        let kept = &fraction[..fraction.len().min(MAX_DIGITS)];
        magnitude += integer(kept) as f64 / kept.iter().fold(1.0, |scale, _| scale * 10.0);
        rest = after;
    }
    magnitude *= factor_of(unit(rest))?;
    let number = if is_negative { -magnitude } else { magnitude };
    Some(number as f32)
}

/// The digits that `bytes` begins with, and what comes after them.
fn split_digits(bytes: &[u8]) -> (&[u8], &[u8]) {
    let n_digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    bytes.split_at(n_digits)
}

/// At most [`MAX_DIGITS`] digits as an integer.
fn integer(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'))
}

/// What comes after a number without the space before it and the marks that end a clause or close a bracket after it.
fn unit(rest: &[u8]) -> &[u8] {
    let start = rest.iter().position(|byte| *byte > b' ').unwrap_or(rest.len());
    let is_mark = |byte: &u8| matches!(byte, b',' | b';' | b':' | b'.' | b')' | b']' | b'}' | b'>' | b'"' | b'\'');
    let end = rest.iter().rposition(|byte| !is_mark(byte)).map_or(start, |last| last + 1);
    &rest[start..end.max(start)]
}

/// What a unit counts in bytes or microseconds; 1 for units of neither. These are the units that the parser takes for
/// a part of a number.
fn factor_of(unit: &[u8]) -> Option<f64> {
    const KIB: f64 = 1024.0;
    Some(match unit {
        b"" | b"%" | b"x" | b"L" | b"f" | b"B" | b"b" | b"us" => 1.0,
        b"ns" => 1e-3,
        b"ms" => 1e3,
        b"s" | b"sec" | b"secs" => 1e6,
        b"m" | b"min" => 6e7,
        b"h" => 3.6e9,
        b"d" => 8.64e10,
        b"K" | b"k" | b"KB" | b"kB" | b"kb" | b"KiB" => KIB,
        b"M" | b"MB" | b"mb" | b"MiB" => KIB * KIB,
        b"G" | b"GB" | b"gb" | b"GiB" => KIB * KIB * KIB,
        b"T" | b"TB" | b"TiB" => KIB * KIB * KIB * KIB,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::number_of;

    #[test]
    fn decimal_numbers_count_with_their_unit() {
        for (text, number) in [
            ("0", 0.0),
            ("67108864", 67_108_864.0),
            ("-12", -12.0),
            ("+7", 7.0),
            ("0.30000000000000004", 0.3),
            ("2.50", 2.5),
            ("50%", 50.0),
            ("12ms", 12e3),
            ("12 ms,", 12e3),
            ("1.5 s", 1.5e6),
            ("350ns", 0.35),
            ("2 min.", 1.2e8),
            ("900 KB)", 921_600.0),
            ("1.25 MB", 1_310_720.0),
            ("3f", 3.0),
            ("12,", 12.0),
        ] {
            assert_eq!(number_of(text), Some(number), "{text}");
        }
    }

    #[test]
    fn what_only_begins_with_digits_does_not() {
        for text in [
            "",
            "-",
            ".5",
            "x",
            "-K",
            "0x1f",
            "12ab34",
            "10.0.0.1",
            "10.0.0.1:5000",
            "1.2.3",
            "16:49:06",
            "2015-10-18",
            "1,2,3",
            "1 2",
            "blk_42",
            "3rd",
            "1e9",
            "12 m s",
            "1608999687919862906",
            "١٢",
            "12 µs",
        ] {
            assert_eq!(number_of(text), None, "{text}");
        }
    }
}
