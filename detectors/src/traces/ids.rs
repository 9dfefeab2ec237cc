//! Trace and span ids as numbers: two or three comparisons where the text would take a loop and an allocation.

use faultline_core::hash::StableHash;

/// Bytes kept of a trace id that is not written as it should be.
const MAX_TEXT_BYTES: usize = 128;

/// Set in [`DIGITS`] for a byte that is no hexadecimal digit.
const NOT_HEX: u8 = 0x80;
/// Set in [`DIGITS`] for `A` to `F`.
const UPPER: u8 = 0x40;

/// The value of each hexadecimal digit, with flags above the low four bits.
const DIGITS: [u8; 256] = {
    let mut digits = [NOT_HEX; 256];
    let mut value = 0;
    while value < 16 {
        if value < 10 {
            digits[b'0' as usize + value] = value as u8;
        } else {
            digits[b'a' as usize + value - 10] = value as u8;
            digits[b'A' as usize + value - 10] = UPPER | value as u8;
        }
        value += 1;
    }
    digits
};

/// Which trace a span belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TraceId<'a> {
    /// What it is found by.
    pub number: u128,
    /// How it is written, unless that is the number in 32 lower-case digits.
    pub text: Option<&'a str>,
    /// Whether it is a number at all, and not the hash of some text.
    pub is_hex: bool,
}

/// Reads a trace id; `None` when there is none: no text, or only zeros.
pub(super) fn trace_id(text: &str) -> Option<TraceId<'_>> {
    let bytes = text.as_bytes();
    if bytes.len() > 32 {
        return Some(hashed(text));
    }
    let (high, low) = bytes.split_at(bytes.len().saturating_sub(16));
    let ((high, high_seen), (low, low_seen)) = (parse(high), parse(low));
    let (number, seen) = (u128::from(high) << 64 | u128::from(low), high_seen | low_seen);
    if seen & NOT_HEX != 0 {
        return Some(hashed(text));
    }
    let is_plain = bytes.len() == 32 && seen & UPPER == 0;
    (number != 0).then_some(TraceId { number, text: (!is_plain).then_some(text), is_hex: true })
}

fn hashed(text: &str) -> TraceId<'_> {
    let number = u128::from(StableHash::new().text(text).finish()) | 1 << 127;
    TraceId { number, text: Some(&text[..text.floor_char_boundary(MAX_TEXT_BYTES)]), is_hex: false }
}

/// Reads a span id: its number, 0 when there is none, and whether it is one and not the hash of some text.
pub(super) fn span_id(text: &str) -> (u64, bool) {
    if text.len() <= 16 {
        let (number, seen) = parse(text.as_bytes());
        if seen & NOT_HEX == 0 {
            return (number, true);
        }
    }
    (StableHash::new().text(text).finish().max(1), false)
}

/// The number that at most 16 digits make, and the flags of all of them.
fn parse(digits: &[u8]) -> (u64, u8) {
    digits.iter().fold((0, 0), |(number, seen), &byte| {
        let digit = DIGITS[usize::from(byte)];
        (number << 4 | u64::from(digit & 15), seen | digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_id_as_it_should_be_needs_no_text() {
        let id = trace_id("0af7651916cd43dd8448eb211c80319c").expect("an id");
        assert_eq!(id, TraceId { number: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, text: None, is_hex: true });
        assert_eq!(format!("{:032x}", id.number), "0af7651916cd43dd8448eb211c80319c");
    }

    #[test]
    fn other_spellings_are_the_same_trace_and_keep_their_text() {
        let upper = trace_id("0AF7651916CD43DD8448EB211C80319C").expect("an id");
        assert_eq!(upper.number, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!((upper.text, upper.is_hex), (Some("0AF7651916CD43DD8448EB211C80319C"), true));
        let short = trace_id("8448eb211c80319c").expect("an id");
        assert_eq!((short.number, short.text), (0x8448_eb21_1c80_319c, Some("8448eb211c80319c")));
    }

    #[test]
    fn no_id_is_told_from_a_strange_one() {
        assert_eq!(trace_id(""), None);
        assert_eq!(trace_id("00000000000000000000000000000000"), None);
        let odd = trace_id("order-17").expect("an id");
        assert_eq!((odd.text, odd.is_hex), (Some("order-17"), false));
        assert_ne!(odd.number, trace_id("order-18").expect("an id").number);
        let long = "é".repeat(5_000);
        assert_eq!(trace_id(&long).expect("an id").text, Some("é".repeat(64).as_str()));
    }

    #[test]
    fn span_ids_are_numbers_or_hashes_and_zero_is_none() {
        assert_eq!(span_id("00f067aa0ba902b7"), (0x00f0_67aa_0ba9_02b7, true));
        assert_eq!((span_id(""), span_id("0000000000000000")), ((0, true), (0, true)));
        assert!(matches!(span_id("00f067aa0ba902b7f"), (1.., false)));
        assert!(matches!(span_id("root"), (1.., false)));
    }
}
