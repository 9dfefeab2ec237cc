//! Randomness: one seeded ChaCha stream per purpose, so that a fault changes what it must and leaves the arrivals, the
//! requests' facts and the ids of everything before it as they were.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::config::ServiceTime;

/// What randomness is drawn for. Each purpose has its own stream.
pub(crate) struct Streams {
    /// When requests arrive, and which.
    pub arrivals: Dice,
    /// Facts of requests and numbers in log lines.
    pub words: Dice,
    /// Trace and span ids.
    pub ids: Dice,
    /// Service times, network times, branches.
    pub work: Dice,
    /// Whom a fault hits.
    pub faults: Dice,
}

impl Streams {
    pub fn new(seed: u64) -> Self {
        Self {
            arrivals: Dice::new(seed, 1),
            words: Dice::new(seed, 2),
            ids: Dice::new(seed, 3),
            work: Dice::new(seed, 4),
            faults: Dice::new(seed, 5),
        }
    }
}

/// One stream.
pub(crate) struct Dice(ChaCha8Rng);

impl Dice {
    fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self(rng)
    }

    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in the open interval (0, 1), so that its logarithm is finite.
    pub fn unit(&mut self) -> f64 {
        ((self.bits() >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
    }

    /// Uniform below `n`. The bias of the modulo is below 2^-32 for the small ranges used here.
    pub fn below(&mut self, n: u32) -> u32 {
        (self.bits() % u64::from(n.max(1))) as u32
    }

    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * self.unit().ln()
    }

    /// Standard normal by Box and Muller (1958); the second value is not kept.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.unit().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// A service time in nanoseconds, stretched by `factor`.
    pub fn service_time_ns(&mut self, time: ServiceTime, factor: f64) -> u64 {
        let ms = match time {
            ServiceTime::Constant { ms } => ms,
            ServiceTime::Exponential { mean_ms } => self.exponential(mean_ms),
            ServiceTime::LogNormal { median_ms, sigma } => median_ms * (sigma * self.normal()).exp(),
        };
        ms_to_ns(ms * factor)
    }

    /// `ms` milliseconds, give or take half of it, in nanoseconds.
    pub fn around_ns(&mut self, ms: f64) -> u64 {
        ms_to_ns(ms * (0.5 + self.unit()))
    }
}

/// Milliseconds to whole nanoseconds; the cast saturates.
pub(crate) fn ms_to_ns(ms: f64) -> u64 {
    (ms * 1e6).round() as u64
}

/// Nanoseconds to milliseconds.
pub(crate) fn ns_to_ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}
