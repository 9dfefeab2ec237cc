//! What a series usually is at each time of the day: an exponentially weighted mean for each of at most 288 slots.
//!
//! A point is held against the nearest of three means: of its slot, the one before and the one after, since what a system does
//! every day it does a little earlier or later each time. On the first day, and after a change, that is the level of a few
//! minutes ago.

use crate::bytes::{Reader, Writer};

/// Nanoseconds of a day.
pub const DAY: i64 = 86_400_000_000_000;

/// Shortest slot: five minutes.
const SHORTEST: i64 = 300_000_000_000;

/// Slots of a day, for the shortest and for the longest steps. On NAB 144 instead of 288 cost one point, 48 four.
const MAX_SLOTS: i64 = 288;
const MIN_SLOTS: i64 = 24;

/// Distances from the first value end here, so that differences are numbers in single precision.
const FARTHEST: f64 = 1e30;

/// Slots of a day for points `step_nanos` apart.
pub fn n_slots(step_nanos: i64) -> usize {
    let length = step_nanos.max(SHORTEST);
    (DAY.saturating_add(length / 2) / length).clamp(MIN_SLOTS, MAX_SLOTS) as usize
}

/// How far a point is from where it is expected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Residual {
    /// The distance.
    pub size: f64,
    /// Where it is expected: where nothing is known, where it is.
    pub expected: f64,
}

/// See the file's documentation.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// The first value. Means are distances from it, so that single precision suffices.
    base: Option<f64>,
    /// Share of a difference that a mean takes on, once it is one of many points.
    rate: f32,
    means: Box<[f32]>,
    /// Points of each mean, up to 255.
    counts: Box<[u8]>,
}

impl Profile {
    /// One that knows nothing. A mean is one of ten points or more, and of those of a day.
    pub fn new(step_nanos: i64, learning_rate: f64) -> Self {
        let n_slots = n_slots(step_nanos);
        let days_a_point = n_slots as f64 * step_nanos.max(1) as f64 / DAY as f64;
        Self {
            base: None,
            rate: learning_rate.min(days_a_point) as f32,
            means: vec![0.0; n_slots].into_boxed_slice(),
            counts: vec![0; n_slots].into_boxed_slice(),
        }
    }

    /// The slot of a time of day, in nanoseconds since midnight.
    pub fn slot(&self, nanos_of_day: i64) -> usize {
        let slot = nanos_of_day.rem_euclid(DAY) * self.means.len() as i64 / DAY;
        slot as usize
    }

    /// How far a finite value is from what is usual around this slot.
    pub fn residual(&self, slot: usize, value: f64) -> Residual {
        let base = self.base.unwrap_or(value);
        let (distance, n_slots) = (distance(value, base), self.means.len());
        let mut nearest: Option<Residual> = None;
        for near in [slot + n_slots - 1, slot, slot + 1] {
            let near = near % n_slots;
            if self.counts[near] == 0 {
                continue;
            }
            let mean = f64::from(self.means[near]);
            let size = (distance - mean).abs();
            if nearest.is_none_or(|nearest| size < nearest.size) {
                nearest = Some(Residual { size, expected: base + mean });
            }
        }
        nearest.unwrap_or(Residual { size: 0.0, expected: value })
    }

    /// Takes note of a finite value.
    pub fn learn(&mut self, slot: usize, value: f64) {
        let base = *self.base.get_or_insert(value);
        let (mean, count) = (&mut self.means[slot], &mut self.counts[slot]);
        *count = count.saturating_add(1);
        let share = f64::from(self.rate).max(1.0 / f64::from(*count));
        *mean += (share * (distance(value, base) - f64::from(*mean))) as f32;
    }

    /// Memory that it holds elsewhere.
    pub fn heap_bytes(&self) -> usize {
        size_of_val(&*self.means) + size_of_val(&*self.counts)
    }

    pub fn write(&self, writer: &mut Writer) {
        writer.byte(u8::from(self.base.is_some()));
        writer.double(self.base.unwrap_or_default());
        writer.float(self.rate);
        writer.floats(&self.means);
        self.counts.iter().for_each(|count| writer.byte(*count));
    }

    pub fn read(reader: &mut Reader<'_>, step_nanos: i64) -> Option<Self> {
        let (is_begun, base) = (reader.is()?, reader.double()?);
        let rate = reader.float()?;
        let n_slots = n_slots(step_nanos);
        let means: Option<Box<[f32]>> = (0..n_slots).map(|_| reader.float()).collect();
        let counts: Option<Box<[u8]>> = (0..n_slots).map(|_| reader.byte()).collect();
        Some(Self { base: is_begun.then_some(base), rate, means: means?, counts: counts? })
    }
}

fn distance(value: f64, base: f64) -> f64 {
    (value - base).clamp(-FARTHEST, FARTHEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000_000;

    #[test]
    fn slots_are_five_minutes_or_as_long_as_a_step() {
        let steps = [1, MINUTE, 5 * MINUTE, 10 * MINUTE, 390_000_000_000, 60 * MINUTE, DAY, i64::MAX];
        assert_eq!(steps.map(n_slots), [288, 288, 288, 144, 222, 24, 24, 24]);
        let profile = Profile::new(MINUTE, 0.1);
        let slots = [0, 5 * MINUTE - 1, 5 * MINUTE, DAY - 1, DAY, -1].map(|nanos| profile.slot(nanos));
        assert_eq!(slots, [0, 0, 1, 287, 0, 287]);
    }

    #[test]
    fn a_point_is_held_against_the_nearest_of_three_slots() {
        let mut profile = Profile::new(60 * MINUTE, 0.1);
        assert_eq!(profile.residual(3, 1e9), Residual { size: 0.0, expected: 1e9 }, "nothing is known");
        for (slot, value) in [(23, 1e9), (0, 1e9 + 10.0), (1, 1e9 + 50.0)] {
            profile.learn(slot, value);
        }
        assert_eq!(profile.residual(0, 1e9 + 42.0), Residual { size: 8.0, expected: 1e9 + 50.0 });
        assert_eq!(profile.residual(0, 1e9 + 4.0), Residual { size: 4.0, expected: 1e9 });
        assert_eq!(profile.residual(22, 1e9 + 4.0).size, 4.0, "the slot after");
        assert_eq!(profile.residual(12, 7.0).size, 0.0, "nothing is known around noon");
    }

    #[test]
    fn a_mean_is_that_of_the_first_points_then_follows_slowly() {
        let mut profile = Profile::new(60 * MINUTE, 0.1);
        for value in [0.0, 2.0, 4.0] {
            profile.learn(5, value);
        }
        assert!((profile.residual(5, 0.0).expected - 2.0).abs() < 1e-6);
        (0..500).for_each(|_| profile.learn(5, 10.0));
        assert!((profile.residual(5, 0.0).expected - 10.0).abs() < 1e-3, "another level is adopted");
        // 300 points of a second are one slot of a day.
        let mut seconds = Profile::new(1_000_000_000, 0.1);
        (0..300).for_each(|_| seconds.learn(5, 0.0));
        seconds.learn(5, 1.0);
        let moved = seconds.residual(5, 0.0).expected;
        assert!((moved - 1.0 / 255.0).abs() < 1e-6, "{moved}");
    }

    #[test]
    fn extremes_stay_numbers_and_come_back_from_bytes() {
        let mut profile = Profile::new(MINUTE, 0.1);
        for value in [f64::MAX, f64::MIN, 0.0, f64::MIN_POSITIVE] {
            profile.learn(1, value);
            let residual = profile.residual(1, -value);
            assert!(residual.size.is_finite() && residual.expected.is_finite(), "{residual:?}");
        }
        const MAGIC: &crate::bytes::Magic = b"faultline tests1";
        let mut writer = Writer::new(MAGIC);
        profile.write(&mut writer);
        let bytes = writer.finish();
        let mut reader = Reader::open(MAGIC, &bytes).expect("just written");
        assert_eq!(Profile::read(&mut reader, MINUTE), Some(profile));
        assert!(reader.is_empty());
    }
}
