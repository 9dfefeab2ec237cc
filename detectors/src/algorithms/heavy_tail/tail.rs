//! The tail of the distances of a series so far: how likely a point as far off as this one is.
//!
//! Hill, "A Simple General Approach to Inference About the Tail of a Distribution", The Annals of Statistics 1975: beyond a
//! threshold u the logarithms of r/u are exponential where a tail is a power. Of the n distances so far the k largest are used, u
//! is the next one; with Y the sum of the k logarithms, p = k/n · (1 + ln(r/u)/Y)^(−k). That is the share of points that
//! exceeds a future r when the index of the tail is not known but estimated: the plain estimate, k/n · (r/u)^(−k/Y), is too small
//! where k is.
//!
//! Kept are the logarithms of the 128 largest, sorted. They stand for one point in `memory / 128`; when `memory` points have
//! been seen every other of them is dropped and the points count half. So a regime that is over is forgotten by halves.
//! Beyond the paper: k leaves out distances that tie with u, u is at least a thousandth of the largest, and the mean logarithm
//! is at least .15 (an index of 7, as of normal noise), as small counts would have an index of infinity.

use crate::bytes::{Reader, Writer};

/// Distances that are kept.
pub const KEPT: usize = 128;

/// Least distances that a tail is fitted on, where there are so many.
const FEWEST: u64 = 10;

/// Points between two fits.
const REFIT: u8 = 8;

/// Logarithm of how far below the largest distance the threshold may be.
const REACH: f32 = 6.907_755;

/// Least mean logarithm.
const LEAST_EXCESS: f64 = 0.15;

/// Surprises end here, so that a probability is a number.
const MOST: f64 = 690.0;

/// A fitted tail.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// ln u.
    pub ln_threshold: f32,
    /// Distances beyond it, at least 1: k.
    pub n_beyond: u32,
    /// Y.
    pub excess: f64,
    /// ln(n/k).
    pub ln_share: f64,
}

/// See the file's documentation.
#[derive(Clone, Debug, PartialEq)]
pub struct Tail {
    /// Logarithms of the largest distances, descending.
    largest: [f32; KEPT],
    n_largest: usize,
    /// Points that they stand for: n.
    weight: u64,
    n_thinned: u32,
    /// None while every distance was 0.
    fit: Option<Fit>,
    /// Points until the next fit.
    until_fit: u8,
}

impl Tail {
    /// One that has seen nothing.
    pub fn new() -> Self {
        Self { largest: [0.0; KEPT], n_largest: 0, weight: 0, n_thinned: 0, fit: None, until_fit: 0 }
    }

    /// Points that it stands for.
    pub fn weight(&self) -> u64 {
        self.weight
    }

    /// As of the latest surprise.
    pub fn fit(&self) -> Option<Fit> {
        self.fit
    }

    /// −ln p of a distance; 0 for one that is not in the tail. Where every distance so far was 0 another is one in n + 1.
    pub fn surprise(&mut self, distance: f64, memory: u64) -> f64 {
        if self.until_fit == 0 {
            (self.fit, self.until_fit) = (self.fitted(memory), REFIT);
        }
        self.until_fit -= 1;
        if distance <= 0.0 {
            return 0.0;
        }
        let Some(fit) = self.fit else { return ((self.weight + 1) as f64).ln() };
        let beyond = f64::from(distance.ln() as f32) - f64::from(fit.ln_threshold);
        if beyond <= 0.0 {
            return 0.0;
        }
        (fit.ln_share + f64::from(fit.n_beyond) * (beyond / fit.excess).ln_1p()).clamp(0.0, MOST)
    }

    /// Takes note of a finite distance.
    pub fn learn(&mut self, distance: f64, memory: u64) {
        self.weight += 1;
        if distance > 0.0 {
            let ln = distance.ln() as f32;
            let at = self.largest[..self.n_largest].partition_point(|other| *other >= ln);
            if at < KEPT {
                self.n_largest = (self.n_largest + 1).min(KEPT);
                self.largest.copy_within(at..self.n_largest - 1, at + 1);
                self.largest[at] = ln;
            }
        }
        if self.weight >= memory {
            self.thin();
        }
    }

    /// Drops every other distance, in turn beginning with the largest and with the next.
    fn thin(&mut self) {
        let first = usize::from(!self.n_thinned.is_multiple_of(2));
        self.n_largest /= 2;
        for idx in 0..self.n_largest {
            self.largest[idx] = self.largest[2 * idx + first];
        }
        self.weight /= 2;
        self.n_thinned = self.n_thinned.wrapping_add(1);
    }

    fn fitted(&self, memory: u64) -> Option<Fit> {
        let kept = &self.largest[..self.n_largest];
        let largest = kept.first()?;
        let wanted = (self.weight.saturating_mul(KEPT as u64) / memory.max(1)).max(FEWEST);
        let n_most = (KEPT as u64 - 1).min(self.weight.saturating_sub(1));
        let k = wanted.min(n_most) as usize;
        let next = kept.get(k).copied().unwrap_or(f32::NEG_INFINITY);
        let ln_threshold = next.max(largest - REACH);
        let beyond = kept.iter().take(k).filter(|ln| **ln > ln_threshold);
        let (n, excess) =
            beyond.fold((0_u32, 0.0), |(n, sum), ln| (n + 1, sum + f64::from(*ln) - f64::from(ln_threshold)));
        let n_beyond = n.max(1);
        let share = f64::from(n_beyond);
        Some(Fit {
            ln_threshold,
            n_beyond,
            excess: excess.max(LEAST_EXCESS * share),
            ln_share: (self.weight as f64 / share).ln(),
        })
    }

    pub fn write(&self, writer: &mut Writer) {
        writer.number(self.n_largest as u64);
        writer.floats(&self.largest[..self.n_largest]);
        writer.number(self.weight);
        writer.word(self.n_thinned);
        writer.byte(self.until_fit);
        writer.byte(u8::from(self.fit.is_some()));
        if let Some(fit) = &self.fit {
            writer.float(fit.ln_threshold);
            writer.word(fit.n_beyond);
            writer.double(fit.excess);
            writer.double(fit.ln_share);
        }
    }

    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let n_largest = reader.length(size_of::<f32>()).filter(|n| *n <= KEPT)?;
        let mut tail = Self { n_largest, ..Self::new() };
        for ln in &mut tail.largest[..n_largest] {
            *ln = reader.float()?;
        }
        if !tail.largest[..n_largest].is_sorted_by(|one, next| one >= next) {
            return None;
        }
        tail.weight = reader.number()?;
        (tail.n_thinned, tail.until_fit) = (reader.word()?, reader.byte()?);
        if reader.is()? {
            let (ln_threshold, n_beyond) = (reader.float()?, reader.word()?.max(1));
            let (excess, ln_share) = (reader.double()?.max(LEAST_EXCESS), reader.double()?);
            tail.fit = Some(Fit { ln_threshold, n_beyond, excess, ln_share });
        }
        Some(tail)
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const MEMORY: u64 = 16_384;

    /// Distances beyond r with probability r^(−index), r ≥ 1.
    fn powers(seed: u64, n: usize, index: f64) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..n).map(|_| (1.0 - rng.random::<f64>()).powf(-1.0 / index)).collect()
    }

    fn taught(distances: &[f64]) -> Tail {
        let mut tail = Tail::new();
        distances.iter().for_each(|distance| tail.learn(*distance, MEMORY));
        tail
    }

    #[test]
    fn a_power_tail_gets_its_own_probabilities() {
        for index in [1.5, 3.0] {
            let mut tail = taught(&powers(1, 12_000, index));
            for p in [1e-3_f64, 1e-5, 1e-7] {
                let surprise = tail.surprise(p.powf(-1.0 / index), MEMORY);
                let off = surprise / -p.ln();
                assert!((0.7..1.3).contains(&off), "index {index}, p {p}: {surprise}");
            }
            assert_eq!(tail.surprise(1.5, MEMORY), 0.0, "the body surprises nobody");
        }
    }

    #[test]
    fn surprises_are_conservative_before_much_is_known() {
        // Share of next points whose probability comes out as one in 200 or less, over many short histories.
        let (mut n_surprising, n) = (0, 4_000);
        for seed in 0..n {
            let distances = powers(seed, 201, 2.0);
            let surprise = taught(&distances[..200]).surprise(distances[200], MEMORY);
            n_surprising += u32::from(surprise >= 200_f64.ln());
        }
        // 22 are expected, deviation 4.7.
        assert!((6..=40).contains(&n_surprising), "{n_surprising} of {n}");
    }

    #[test]
    fn what_was_never_seen_is_as_rare_as_the_history_is_long() {
        let mut tail = taught(&[0.0; 999]);
        assert!((tail.surprise(1e-9, MEMORY) - 1000_f64.ln()).abs() < 1e-12);
        assert_eq!((tail.surprise(0.0, MEMORY), tail.fit()), (0.0, None));
        // All alike: nothing has been beyond, so that beyond is about as rare as the history is long.
        let mut alike = taught(&[3.0; 1000]);
        assert_eq!(alike.surprise(3.0, MEMORY), 0.0);
        let surprise = alike.surprise(3.5, MEMORY);
        assert!((1000_f64.ln()..1000_f64.ln() + 1.0).contains(&surprise), "{surprise}");
        assert!(alike.surprise(f64::MAX, MEMORY).is_finite());
    }

    #[test]
    fn a_regime_that_is_over_is_forgotten_by_halves() {
        let mut tail = taught(&powers(2, 8_000, 2.0).into_iter().map(|r| 1000.0 * r).collect::<Vec<_>>());
        let quiet = powers(3, 60_000, 2.0);
        quiet[..10_000].iter().for_each(|distance| tail.learn(*distance, MEMORY));
        tail.until_fit = 0;
        let before = tail.surprise(200.0, MEMORY);
        assert!(before < 6.0, "one in 150 was as far off: {before}");
        quiet.iter().for_each(|distance| tail.learn(*distance, MEMORY));
        tail.until_fit = 0;
        let surprise = tail.surprise(200.0, MEMORY);
        assert!(surprise > 7.0, "now it is one in 40,000: {surprise}");
        assert!((MEMORY / 2..MEMORY).contains(&tail.weight()));
        assert!(tail.largest[..tail.n_largest].is_sorted_by(|one, next| one >= next));
    }

    #[test]
    fn the_largest_are_kept_in_order_whatever_the_order_they_come_in() {
        let mut distances: Vec<f64> = (1..=500).map(f64::from).collect();
        let rising = taught(&distances);
        distances.reverse();
        let falling = taught(&distances);
        distances.rotate_left(137);
        let turned = taught(&distances);
        assert!(rising == falling && rising == turned);
        let expected: Vec<f32> = (373..=500).rev().map(|distance| f64::from(distance).ln() as f32).collect();
        assert_eq!(rising.largest.to_vec(), expected);
    }
}
