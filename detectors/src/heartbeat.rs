//! Heartbeats: how suspicious the silence of something is that used to tell of itself at regular times.
//!
//! Hayashibara, Défago, Yared and Katayama, "The φ Accrual Failure Detector", SRDS 2004: not alive or dead, but a level of
//! suspicion φ = −log₁₀ P(the next arrival is later still), from the arrivals so far; whoever asks has a threshold, and at a
//! threshold of 2 one in a hundred suspicions of something alive is to be expected a heartbeat. No clock is read: times are
//! those of the records.
//!
//! Differs from the paper, after what adaptive accrual detectors do (Zang et al. 2018):
//! - Losses are not jitter. The time between arrivals is j intervals with probability (1 − q) qʲ⁻¹, q being the share of
//!   heartbeats that are lost, and normal about them. One normal distribution of both would take the first loss for a wide
//!   jitter, and its tail would never allow for a second one.
//! - The window adapts. The newest eight times are compared with the others; where the median or the spread has changed, the
//!   others are forgotten. So a network that gets worse is believed after eight heartbeats and not after a thousand.
//!
//! Measured (test below, 10,000 heartbeats a second apart, a fifth of the time through a network that loses a fifth and delays by
//! .2 s in the mean): suspicion after 1.6 s at φ = 2, with some 45 mistakes, where a fixed timeout needs 2.9 to 3.0 s for as few;
//! after 2.6 s at φ = 3, with five, where it needs 3.9 to 4.5 s.
//!
//! Cost: 150 comparisons an arrival; a question sorts 64 numbers and sums at most 64 terms, a deadline forty times as much.
//! Memory: 300 bytes a key, `max_keys` at most; those that have not been heard of for longest go first. Fails on what has no interval: bursts,
//! and jitter as long as the interval; and it is nothing for senders that change their interval often.

use faultline_core::WindowKey;

use crate::{
    bounded::Bounded,
    bytes::{Reader, Writer},
};

/// Times between arrivals that are kept.
const WINDOW: usize = 64;

/// The newest, which the others are compared with.
const NEWEST: usize = 8;

/// Times from which on something is said.
const FEWEST: usize = 4;

/// Lost heartbeats in a row that are allowed for.
const MOST_LOST: u32 = 64;

/// Least jitter, as a share of the interval.
const LEAST_JITTER: f64 = 0.02;

/// By what factor the spread has to change for the older times to be forgotten.
const OTHER_SPREAD: f64 = 4.0;

/// By how many deviations of their difference medians have to differ.
const OTHER_MEDIAN: f64 = 3.0;

/// Arrivals of many senders. See the file's documentation.
#[derive(Debug)]
pub struct Heartbeats {
    senders: Bounded<Sender>,
}

/// One sender.
#[derive(Clone, Copy, Debug)]
struct Sender {
    last_unix_nano: i64,
    /// Nanoseconds between arrivals, oldest first.
    gaps: [f32; WINDOW],
    n_gaps: usize,
}

/// What the times between arrivals of a sender are like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rhythm {
    /// Nanoseconds between heartbeats.
    pub interval_nanos: f64,
    /// Deviation of the times between arrivals, in nanoseconds.
    pub jitter_nanos: f64,
    /// Share of heartbeats that do not arrive.
    pub lost_share: f64,
}

impl Heartbeats {
    /// None yet, of at most `max_keys` senders, one at least.
    #[must_use]
    pub fn new(max_keys: usize) -> Self {
        Self { senders: Bounded::new(max_keys) }
    }

    /// A heartbeat has arrived. One that is not later than the last tells nothing.
    pub fn arrive(&mut self, key: &WindowKey, time_unix_nano: i64) {
        self.senders.touch(key, || Sender::begin(time_unix_nano)).arrive(time_unix_nano);
    }

    /// What is known of a sender's arrivals; none before there have been five.
    #[must_use]
    pub fn rhythm(&self, key: &WindowKey) -> Option<Rhythm> {
        self.senders.get(key)?.rhythm()
    }

    /// φ at a time; none where the sender is unknown or has not been heard of often enough.
    #[must_use]
    pub fn phi(&self, key: &WindowKey, now_unix_nano: i64) -> Option<f64> {
        let sender = self.senders.get(key)?;
        let silence = now_unix_nano.saturating_sub(sender.last_unix_nano);
        Some(sender.rhythm()?.phi(silence as f64))
    }

    /// When φ will be `phi` if nothing arrives; none where [`Self::phi`] is, or where that is more than losses allow for.
    #[must_use]
    pub fn deadline_unix_nano(&self, key: &WindowKey, phi: f64) -> Option<i64> {
        let sender = self.senders.get(key)?;
        let silence = sender.rhythm()?.silence_nanos(phi)?;
        Some(sender.last_unix_nano.saturating_add(silence.ceil() as i64))
    }

    /// Senders that are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.senders.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes all of them.
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.number(self.senders.len() as u64);
        for (key, sender) in self.senders.in_order() {
            writer.key(key);
            writer.integer(sender.last_unix_nano);
            writer.number(sender.n_gaps as u64);
            writer.floats(&sender.gaps);
        }
    }

    /// Reads what [`Self::write`] wrote; none where it is damaged.
    pub(crate) fn read(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        /// The times of a sender.
        const LEAST: usize = WINDOW * size_of::<f32>();
        for _ in 0..reader.length(LEAST)? {
            let (key, last_unix_nano) = (reader.key()?, reader.integer()?);
            let n_gaps = usize::try_from(reader.number()?).ok().filter(|n_gaps| *n_gaps <= WINDOW)?;
            let gaps = reader.floats::<WINDOW>()?;
            let is_time = |gap: &f32| gap.is_finite() && *gap >= 0.0;
            let sender = gaps.iter().all(is_time).then_some(Sender { last_unix_nano, gaps, n_gaps })?;
            self.senders.touch(&key, || sender);
        }
        Some(())
    }

    /// Memory that it takes, without the keys.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.senders.bytes()
    }
}

impl Sender {
    fn begin(time_unix_nano: i64) -> Self {
        Self { last_unix_nano: time_unix_nano, gaps: [0.0; WINDOW], n_gaps: 0 }
    }

    fn arrive(&mut self, time_unix_nano: i64) {
        let gap = time_unix_nano.saturating_sub(self.last_unix_nano);
        if gap <= 0 {
            return;
        }
        self.last_unix_nano = time_unix_nano;
        if self.n_gaps == WINDOW {
            self.forget(1);
        }
        self.gaps[self.n_gaps] = gap as f32;
        self.n_gaps += 1;
        if self.has_changed() {
            self.forget(self.n_gaps - NEWEST);
        }
    }

    /// The oldest `n`.
    fn forget(&mut self, n: usize) {
        self.gaps.copy_within(n..self.n_gaps, 0);
        self.n_gaps -= n;
    }

    /// Whether the newest times are unlike the others.
    fn has_changed(&self) -> bool {
        if self.n_gaps < 3 * NEWEST {
            return false;
        }
        let (older, newest) = self.gaps[..self.n_gaps].split_at(self.n_gaps - NEWEST);
        let (older_median, older_spread) = middle(older);
        let (newest_median, newest_spread) = middle(newest);
        let least = LEAST_JITTER * older_median;
        let (older_spread, newest_spread) = (older_spread.max(least), newest_spread.max(least));
        let chance = (older_spread + newest_spread) / (NEWEST as f64).sqrt();
        (older_median - newest_median).abs() > OTHER_MEDIAN * chance
            || newest_spread > OTHER_SPREAD * older_spread
            || older_spread > OTHER_SPREAD * newest_spread
    }

    fn rhythm(&self) -> Option<Rhythm> {
        if self.n_gaps < FEWEST {
            return None;
        }
        let gaps = &self.gaps[..self.n_gaps];
        let (interval_nanos, _) = middle(gaps);
        let (mut n_beats, mut squares) = (0.0, 0.0);
        for gap in gaps {
            let beats = beats(*gap, interval_nanos);
            n_beats += beats;
            squares += (f64::from(*gap) - beats * interval_nanos).powi(2);
        }
        let n = self.n_gaps as f64;
        let jitter_nanos = (squares / n).sqrt().max(LEAST_JITTER * interval_nanos);
        // As if half a heartbeat more had been lost: what has not been seen may be.
        Some(Rhythm { interval_nanos, jitter_nanos, lost_share: (n_beats - n + 0.5) / (n_beats + 1.0) })
    }
}

impl Rhythm {
    /// −log₁₀ of the probability that the next arrival is more than `silence_nanos` after the last.
    #[must_use]
    pub fn phi(&self, silence_nanos: f64) -> f64 {
        /// φ ends here, where probabilities do.
        const MOST: f64 = 300.0;
        let (mut later, mut reaches) = (0.0, 1.0);
        for beat in 1..=MOST_LOST {
            let late = (silence_nanos - f64::from(beat) * self.interval_nanos) / self.jitter_nanos;
            later += reaches * (1.0 - self.lost_share) * normal_beyond(late);
            reaches *= self.lost_share;
            if late < -8.0 {
                break;
            }
        }
        // Whatever is later than the last one that was looked at is later than the silence.
        (-(later + reaches).log10()).clamp(0.0, MOST)
    }

    /// The silence at which φ is `phi`, to a thousandth of an interval; none where losses never let it be that much.
    fn silence_nanos(&self, phi: f64) -> Option<f64> {
        let most = f64::from(MOST_LOST) * self.interval_nanos;
        if self.phi(most) < phi {
            return None;
        }
        let (mut low, mut high) = (0.0, most);
        while high - low > 1e-3 * self.interval_nanos {
            let middle = 0.5 * (low + high);
            if self.phi(middle) < phi { low = middle } else { high = middle }
        }
        Some(high)
    }
}

/// The median of times, of which there are at most as many as are kept, and their mean distance from the nearest multiple of it.
fn middle(gaps: &[f32]) -> (f64, f64) {
    let mut sorted = [0.0; WINDOW];
    let sorted = &mut sorted[..gaps.len()];
    sorted.copy_from_slice(gaps);
    let (_, median, _) = sorted.select_nth_unstable_by(gaps.len() / 2, f32::total_cmp);
    let median = f64::from(*median);
    let distance: f64 = gaps.iter().map(|gap| (f64::from(*gap) - beats(*gap, median) * median).abs()).sum();
    (median, distance / gaps.len() as f64)
}

/// Heartbeats that must have been sent within a time between arrivals.
fn beats(gap: f32, interval: f64) -> f64 {
    (f64::from(gap) / interval).round().clamp(1.0, f64::from(MOST_LOST))
}

/// Probability that a standard normal is beyond `z`, to .00014: Bowling, Khasawneh, Kaewkuekool and Cho, "A Logistic Approximation to
/// the Cumulative Normal Distribution", 2009. At z = 5 it is six times too small; the chance of a loss is what decides there.
fn normal_beyond(z: f64) -> f64 {
    1.0 / (1.0 + (z * (1.5976 + 0.070_56 * z * z)).exp())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn key(name: &str) -> WindowKey {
        WindowKey { stream: Arc::from("test"), session: Arc::from(name) }
    }

    fn heard(times: impl IntoIterator<Item = i64>) -> Heartbeats {
        let mut heartbeats = Heartbeats::new(1);
        times.into_iter().for_each(|time| heartbeats.arrive(&key("a"), time));
        heartbeats
    }

    fn phi(heartbeats: &Heartbeats, now: i64) -> f64 {
        heartbeats.phi(&key("a"), now).expect("known")
    }

    /// Arrivals of heartbeats a second apart, each delayed by `mean_delay` seconds in the mean (exponentially) or lost, in phases of
    /// 500: four through a good network, one through a bad one.
    fn arrivals(seed: u64, n: i64) -> Vec<i64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut times = Vec::new();
        for beat in 0..n {
            let (mean_delay, lost_share) = if beat / 500 % 5 == 4 { (0.2, 0.2) } else { (0.01, 0.001) };
            let delay = -mean_delay * (1.0 - rng.random::<f64>()).ln();
            if !rng.random_bool(lost_share) {
                times.push(beat * SECOND + (delay * SECOND as f64) as i64);
            }
        }
        times.sort_unstable();
        times
    }

    /// Mean seconds from the last arrival to suspicion, were each the last, and arrivals after which the next one came later than
    /// that.
    fn judged(times: &[i64], threshold: f64) -> (f64, usize) {
        let mut heartbeats = Heartbeats::new(1);
        let (mut sum, mut n, mut n_mistakes) = (0.0, 0_u32, 0);
        for pair in times.windows(2) {
            heartbeats.arrive(&key("a"), pair[0]);
            let Some(deadline) = heartbeats.deadline_unix_nano(&key("a"), threshold) else { continue };
            sum += (deadline - pair[0]) as f64 / SECOND as f64;
            n += 1;
            n_mistakes += usize::from(pair[1] > deadline);
        }
        assert!(n > 7_000, "{n} deadlines");
        (sum / f64::from(n), n_mistakes)
    }

    #[test]
    fn it_suspects_sooner_than_a_fixed_timeout_with_as_many_mistakes_on_the_same_messages() {
        for seed in 0..3 {
            let times = arrivals(seed, 10_000);
            let mut gaps: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
            gaps.sort_unstable_by(|one, other| other.cmp(one));
            for (threshold, share) in [(2.0, 0.7), (3.0, 0.85)] {
                let (seconds, n_mistakes) = judged(&times, threshold);
                // The shortest fixed timeout that makes no more mistakes, and knows that beforehand.
                let fixed = gaps[n_mistakes] as f64 / SECOND as f64;
                println!(
                    "φ {threshold}: {seconds:.2} s and {n_mistakes} mistakes of {}; fixed: {fixed:.2} s",
                    times.len()
                );
                assert!(seconds < share * fixed, "seed {seed}, φ {threshold}: {seconds} s, fixed {fixed} s");
                let allowed = times.len() as f64 * 10_f64.powf(-threshold);
                assert!((n_mistakes as f64) < 1.5 * allowed + 3.0, "seed {seed}, φ {threshold}: {n_mistakes} mistakes");
            }
        }
    }

    #[test]
    fn suspicion_rises_by_what_a_loss_is_worth() {
        let regular = heard((0..40).map(|beat| beat * SECOND));
        let last = 39 * SECOND;
        let Rhythm { interval_nanos, jitter_nanos, lost_share } = regular.rhythm(&key("a")).expect("known");
        assert!((interval_nanos - 1e9).abs() < 1e3 && (jitter_nanos - 2e7).abs() < 1e5);
        assert!((lost_share - 0.5 / 40.0).abs() < 1e-9, "{lost_share}");
        let loss = -lost_share.log10();
        for n_missed in 1..4 {
            let phi = phi(&regular, last + n_missed * SECOND + SECOND / 2);
            assert!((phi - n_missed as f64 * loss).abs() < 1e-6, "{n_missed} missed: {phi}");
        }
        assert!(phi(&regular, last + SECOND / 2) < 1e-6 && phi(&regular, last - SECOND) < 1e-6);
        let mut before = 0.0;
        for tenth in 0..200 {
            let now = phi(&regular, last + tenth * SECOND / 10);
            assert!(now >= before - 1e-9, "it never falls while nothing comes");
            before = now;
        }
        let deadline = regular.deadline_unix_nano(&key("a"), 3.0).expect("it is reached");
        assert!((phi(&regular, deadline) - 3.0).abs() < 0.2 && deadline > last + SECOND);
        assert_eq!(regular.deadline_unix_nano(&key("a"), 1e9), None);
    }

    #[test]
    fn another_rhythm_is_believed_after_eight() {
        let slower = (1..=8).map(|beat| 99 * SECOND + beat * 3 * SECOND);
        let heartbeats = heard((0..100).map(|beat| beat * SECOND).chain(slower));
        let rhythm = heartbeats.rhythm(&key("a")).expect("known");
        assert!((rhythm.interval_nanos - 3e9).abs() < 1e6 && rhythm.lost_share < 0.1, "{rhythm:?}");
        // A loss now and then is no other rhythm.
        let lossy = heard((0..200).filter(|beat| beat % 20 != 7).map(|beat| beat * SECOND));
        let rhythm = lossy.rhythm(&key("a")).expect("known");
        assert!((rhythm.interval_nanos - 1e9).abs() < 1e6 && (rhythm.lost_share - 0.05).abs() < 0.03, "{rhythm:?}");
        assert!(rhythm.jitter_nanos < 3e7, "losses are not jitter: {rhythm:?}");
    }

    #[test]
    fn the_unknown_the_early_and_the_odd_say_nothing() {
        let heartbeats = heard([0, SECOND, SECOND, 0, -SECOND, 2 * SECOND, 3 * SECOND]);
        assert_eq!((heartbeats.phi(&key("a"), 4 * SECOND), heartbeats.phi(&key("b"), 0)), (None, None));
        assert_eq!(heartbeats.deadline_unix_nano(&key("a"), 1.0), None);
        let odd = heard([i64::MIN, 0, i64::MAX - 1, i64::MAX, i64::MIN].into_iter().chain(0..100));
        assert!(odd.phi(&key("a"), i64::MAX).is_none_or(f64::is_finite));
        let odd = heard([i64::MIN, -4, -3, -2, -1, 0, i64::MAX]);
        assert!(odd.phi(&key("a"), i64::MIN).is_some_and(f64::is_finite));
    }

    #[test]
    fn senders_are_bounded_and_small() {
        let mut heartbeats = Heartbeats::new(100);
        for beat in 0..10 {
            for sender in 0..150 {
                heartbeats.arrive(&key(&sender.to_string()), beat * SECOND + sender);
            }
        }
        assert!(heartbeats.len() <= 100 && !heartbeats.is_empty());
        assert!(size_of::<Sender>() <= 280 && heartbeats.bytes() <= 100 * 400, "{} bytes", heartbeats.bytes());
        // Each has been forgotten before its next heartbeat came.
        assert_eq!(heartbeats.rhythm(&key("149")), None);
    }

    #[test]
    fn the_normal_tail_is_near_enough() {
        for (z, known) in [(0.0, 0.5), (1.0, 0.158_655), (2.0, 0.022_750), (3.0, 0.001_350), (-2.0, 0.977_250)] {
            assert!((normal_beyond(z) - known).abs() < 2e-4, "{z}: {}", normal_beyond(z));
        }
        assert_eq!((normal_beyond(1e9), normal_beyond(-1e9)), (0.0, 1.0));
    }
}
