//! Hashes of tokens and masked lines (station 4): what Drain compares instead of text.
//!
//! Two overlapping loads and one 64 × 64 → 128 bit multiplication for a token of up to sixteen bytes. The lowest two bits
//! carry the token's [`Class`], so that equality of hashes is equality of tokens and the class needs no second
//! array. Not the hash of ids (`faultline_core::hash`): these values depend on a seed and leave the process only in a
//! snapshot that carries the seed. Two different tokens collide with probability 2^-62; a process may draw its own seed
//! so that nobody can prepare colliding lines.

/// What kind of token a hash stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Class {
    /// Letters and punctuation only.
    Word = 0,
    /// Holes among letters, such as `part-<NUM>`.
    Mixed = 1,
    /// A hole, with nothing but punctuation round it.
    Pure = 2,
    /// `<*>`: differs from line to line.
    Wildcard = 3,
}

/// The hash of `<*>`.
pub(crate) const WILDCARD: u64 = Class::Wildcard as u64;

/// The class that a token's hash carries.
#[inline(always)]
pub(crate) fn class_of(hash: u64) -> Class {
    match hash & 3 {
        0 => Class::Word,
        1 => Class::Mixed,
        2 => Class::Pure,
        _ => Class::Wildcard,
    }
}

/// A seeded hash function.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hasher {
    a: u64,
    b: u64,
}

impl Hasher {
    pub(crate) fn new(seed: u64) -> Self {
        let a = fold(seed ^ 0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93);
        Self { a: a | 1, b: fold(a ^ 0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db) | 1 }
    }

    /// A token without holes, `line[start..end]`.
    #[inline(always)]
    pub(crate) fn token(&self, line: &[u8], start: usize, end: usize) -> u64 {
        let len = end - start;
        if len <= 16 && start + 8 <= line.len() {
            // Two loads that stay inside the line, then the bytes of other tokens are shifted out: no branch on the length.
            let first = load8(line, start) << (64 - 8 * len.min(8) as u32);
            let last = load8(line, end.saturating_sub(8));
            return self.plain(first, if len > 8 { last } else { 0 }, len);
        }
        if len <= 8 && end >= 8 {
            return self.plain(load8(line, end - 8) & (u64::MAX << (64 - 8 * len as u32)), 0, len);
        }
        self.word(&line[start..end])
    }

    /// A token without holes.
    #[inline]
    pub(crate) fn word(&self, token: &[u8]) -> u64 {
        let len = token.len();
        if len <= 8 {
            let mut padded = [0; 8];
            padded[8 - len..].copy_from_slice(token);
            return self.plain(u64::from_le_bytes(padded), 0, len);
        }
        if len <= 16 {
            return self.plain(load8(token, 0), load8(token, len - 8), len);
        }
        let mut state = self.a;
        let mut at = 0;
        while at + 16 < len {
            state = fold(load8(token, at) ^ state, load8(token, at + 8) ^ self.b);
            at += 16;
        }
        self.plain(load8(token, len - 16) ^ state, load8(token, len - 8), len)
    }

    #[inline(always)]
    fn plain(&self, first: u64, last: u64, len: usize) -> u64 {
        fold(first ^ self.a, last ^ self.b ^ (len as u64)) & !3
    }

    /// A token that is one hole.
    #[inline(always)]
    pub(crate) fn pure(&self, code: u64) -> u64 {
        (fold(code ^ self.b, self.a) & !3) | Class::Pure as u64
    }

    /// A token of literals and holes joined into `state`.
    #[inline(always)]
    pub(crate) fn mixed(&self, state: u64) -> u64 {
        (state & !3) | Class::Mixed as u64
    }

    /// Appends `next` to what `state` stands for.
    #[inline(always)]
    pub(crate) fn join(&self, state: u64, next: u64) -> u64 {
        fold(state.rotate_left(23) ^ next ^ self.b, self.a)
    }
}

#[inline(always)]
fn fold(x: u64, y: u64) -> u64 {
    let product = u128::from(x) * u128::from(y);
    (product >> 64) as u64 ^ product as u64
}

#[inline(always)]
fn load8(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_hashes_alike_wherever_it_stands(
            before in "[a-z ]{0,20}", token in "[a-z]{1,40}", after in "[a-z ]{0,20}",
        ) {
            let hasher = Hasher::new(1);
            let line = format!("{before}{token}{after}");
            let found = hasher.token(line.as_bytes(), before.len(), before.len() + token.len());
            prop_assert_eq!(found, hasher.word(token.as_bytes()));
            prop_assert_eq!(class_of(found), Class::Word);
        }

        #[test]
        fn different_tokens_hash_differently(one in "[a-z]{1,40}", other in "[a-z]{1,40}") {
            let hasher = Hasher::new(1);
            prop_assert_eq!(one == other, hasher.word(one.as_bytes()) == hasher.word(other.as_bytes()));
        }
    }
}
