//! First pass over a line (station 4): bitmaps of white space, digits and marks, and the token bounds that follow from
//! them.
//!
//! Sixteen bytes at a time: SSE2, which every x86-64 has, or plain 64-bit arithmetic elsewhere; both are safe code and
//! give the same bits. Cost: about a fifth of a nanosecond a byte. Memory: 3 bits a byte of the longest line allowed.
//! It cannot fail: any bytes are a line, and every byte up to the space (0x20) separates tokens.

/// What the first pass found, reused from line to line.
#[derive(Debug, Default)]
pub struct Lanes {
    /// Bytes `0..=0x20`; every bit from the end of the line on is set too, so the last token ends.
    space: Vec<u64>,
    /// Bytes `0`-`9`, and bytes `.` and `/`.
    digit_mark: Vec<[u64; 2]>,
    /// Words of the bitmaps that belong to the line at hand.
    n_words: usize,
    /// Start and end of each token in turn, `n_edges` of them; what follows is left over.
    edges: Vec<u32>,
    n_edges: usize,
}

impl Lanes {
    /// Classifies `line` and finds its tokens. Bytes inside `joined` ranges separate nothing.
    pub fn scan(&mut self, line: &[u8], joined: &[(u32, u32)]) {
        self.classify(line);
        for &(start, end) in joined {
            for idx in start as usize..(end as usize).min(line.len()) {
                self.space[idx / 64] &= !(1 << (idx % 64));
            }
        }
        self.find_tokens();
    }

    /// Digit bits of the 64 bytes from `at`, and bits of `.` and `/`; those past the end of the line are clear.
    #[inline(always)]
    pub fn digits_and_marks(&self, at: usize) -> (u64, u64) {
        let shift = at % 64;
        let words = &self.digit_mark[at / 64..at / 64 + 2];
        // Shifting twice keeps the count below 64 when `shift` is 0.
        let window = |kind: usize| words[0][kind] >> shift | (words[1][kind] << 1) << (63 - shift);
        (window(0), window(1))
    }

    fn classify(&mut self, line: &[u8]) {
        // Two words more than the line needs: one for the closing space bit, one for `window` to read past.
        let n_words = line.len() / 64 + 2;
        if self.space.len() < n_words {
            self.space.resize(n_words, 0);
            self.digit_mark.resize(n_words, [0; 2]);
        }
        let (space, digit_mark) = (&mut self.space[..n_words], &mut self.digit_mark[..n_words]);
        let blocks = line.chunks_exact(64);
        let rest = blocks.remainder();
        let word = line.len() / 64;
        for (idx, block) in blocks.enumerate() {
            let (s, d, m) = classify64(block);
            (space[idx], digit_mark[idx]) = (s, [d, m]);
        }
        let (mut s, d, m) = if line.len() >= 64 {
            // The last 64 bytes of the line overlap what is done: shift that part out, in two steps as it may be all.
            let (s, d, m) = classify64(&line[line.len() - 64..]);
            let skip = 63 - rest.len();
            (s >> 1 >> skip, d >> 1 >> skip, m >> 1 >> skip)
        } else {
            let mut padded = [0; 64];
            padded[..rest.len()].copy_from_slice(rest);
            classify64(&padded)
        };
        s |= u64::MAX << rest.len();
        (space[word], digit_mark[word]) = (s, [d, m]);
        (space[word + 1], digit_mark[word + 1]) = (u64::MAX, [0; 2]);
        self.n_words = n_words;
    }

    /// A set bit of `edges` is the first byte of a token or the first byte after one, in turn. Positions are written eight at
    /// a time, whether or not there are as many, so that no branch depends on where tokens happen to lie (as in Langdale,
    /// Lemire: "Parsing Gigabytes of JSON per Second", VLDB Journal 2019, section 3.1.4).
    fn find_tokens(&mut self) {
        const STEP: usize = 8;
        // A token takes two bytes with the space after it, so this is room for all of them and for what is written too much.
        let n_most = self.n_words * 64 + STEP;
        if self.edges.len() < n_most {
            self.edges.resize(n_most, 0);
        }
        let mut n_edges = 0;
        let mut before = 0; // 1 when the byte before this word belongs to a token
        for (word, &space) in self.space[..self.n_words].iter().enumerate() {
            let token = !space;
            let mut edges = token ^ ((token << 1) | before);
            before = token >> 63;
            let mut from = n_edges;
            n_edges += edges.count_ones() as usize;
            while from < n_edges {
                for place in &mut self.edges[from..from + STEP] {
                    *place = (word * 64) as u32 + (edges | 1 << 63).trailing_zeros();
                    edges &= edges.wrapping_sub(1);
                }
                from += STEP;
            }
        }
        self.n_edges = n_edges;
    }

    /// Start and end of each token.
    #[inline(always)]
    pub fn bounds(&self) -> &[[u32; 2]] {
        self.edges[..self.n_edges].as_chunks().0
    }
}

/// Bits of white space, digits and marks of 64 bytes, the first byte lowest.
#[inline(always)]
fn classify64(block: &[u8]) -> (u64, u64, u64) {
    let (mut s, mut d, mut m) = (0, 0, 0);
    for part in 0..4 {
        let bits = classify16(load16(block, part * 16));
        s |= u64::from(bits.0) << (part * 16);
        d |= u64::from(bits.1) << (part * 16);
        m |= u64::from(bits.2) << (part * 16);
    }
    (s, d, m)
}

#[inline(always)]
fn load16(bytes: &[u8], at: usize) -> [u8; 16] {
    bytes[at..at + 16].try_into().expect("sixteen bytes")
}

/// Bits of white space, digits and marks, the first byte lowest.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn classify16(bytes: [u8; 16]) -> (u16, u16, u16) {
    // SAFETY: SSE2 is part of x86-64 itself; the function has no other requirement.
    unsafe { classify16_sse2(bytes) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
#[inline]
fn classify16_sse2(bytes: [u8; 16]) -> (u16, u16, u16) {
    use std::arch::x86_64::{
        _mm_cmpeq_epi8, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8, _mm_sub_epi8,
    };
    let both = u128::from_le_bytes(bytes);
    let v = _mm_set_epi64x((both >> 64) as i64, both as i64);
    let space = _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(0x20)), v);
    let from_zero = _mm_sub_epi8(v, _mm_set1_epi8(b'0' as i8));
    let digit = _mm_cmpeq_epi8(_mm_min_epu8(from_zero, _mm_set1_epi8(9)), from_zero);
    let mark = _mm_cmpeq_epi8(_mm_or_si128(v, _mm_set1_epi8(1)), _mm_set1_epi8(b'/' as i8));
    (_mm_movemask_epi8(space) as u16, _mm_movemask_epi8(digit) as u16, _mm_movemask_epi8(mark) as u16)
}

/// Bits of white space, digits and marks, the first byte lowest.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn classify16(bytes: [u8; 16]) -> (u16, u16, u16) {
    plain_classify16(bytes)
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn plain_classify16(bytes: [u8; 16]) -> (u16, u16, u16) {
    let (mut space, mut digit, mut mark) = (0, 0, 0);
    for (idx, byte) in bytes.into_iter().enumerate() {
        space |= u16::from(byte <= b' ') << idx;
        digit |= u16::from(byte.is_ascii_digit()) << idx;
        mark |= u16::from(byte | 1 == b'/') << idx;
    }
    (space, digit, mark)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_byte_is_classified_alike_by_both_paths() {
        for first in 0..=255_u8 {
            let bytes = std::array::from_fn(|idx| first.wrapping_add(idx as u8));
            assert_eq!(classify16(bytes), plain_classify16(bytes));
        }
    }

    proptest! {
        #[test]
        fn tokens_and_bits_are_what_a_byte_loop_finds(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut lanes = Lanes::default();
            lanes.scan(&[b'1'; 200], &[]); // leaves old bits behind
            lanes.scan(&line, &[]);
            let mut expected = Vec::new();
            let mut start = None;
            for idx in 0..=line.len() {
                let token = line.get(idx).is_some_and(|byte| *byte > b' ');
                match (token, start) {
                    (true, None) => start = Some(idx),
                    (false, Some(first)) => {
                        expected.push([first as u32, idx as u32]);
                        start = None;
                    }
                    _ => {}
                }
            }
            prop_assert_eq!(lanes.bounds(), expected.as_slice());
            for at in 0..=line.len() {
                let (digits, marks) = lanes.digits_and_marks(at);
                for ahead in 0..64 {
                    let byte = line.get(at + ahead);
                    prop_assert_eq!(digits >> ahead & 1 == 1, byte.is_some_and(u8::is_ascii_digit));
                    prop_assert_eq!(marks >> ahead & 1 == 1, byte.is_some_and(|byte| matches!(byte, b'.' | b'/')));
                }
            }
        }
    }
}
