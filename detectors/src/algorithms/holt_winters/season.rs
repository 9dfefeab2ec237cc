//! The season of one series: how far each part of it is from the level.

use crate::bytes::{Reader, Writer};

/// Parts of a season, at most: blocks show no longer lag, and a natural season beside it is at most one block longer.
pub const MAX_PARTS: usize = 108;

/// Share of an error that moves a part over a whole season.
const GAIN: f64 = 0.2;

/// A profile, or none.
#[derive(Clone, Debug, PartialEq)]
pub struct Season {
    /// Steps of a season; 0 while none is known.
    period: i64,
    n_parts: usize,
    parts: [f32; MAX_PARTS],
}

impl Season {
    /// None.
    pub fn unknown() -> Self {
        Self { period: 0, n_parts: 0, parts: [0.0; MAX_PARTS] }
    }

    /// One of so many steps, more than zero, in at most so many parts, which are the means of the values of these steps.
    pub fn of(period: i64, n_parts: usize, values: impl Iterator<Item = (i64, f64)>) -> Self {
        let most = usize::try_from(period).unwrap_or(usize::MAX);
        let mut own = Self { period, n_parts: n_parts.clamp(1, MAX_PARTS).min(most), ..Self::unknown() };
        let (mut sums, mut counts) = ([0.0; MAX_PARTS], [0.0; MAX_PARTS]);
        for (step, value) in values {
            let (part, next, way) = own.place(step);
            sums[part] += (1.0 - way) * value;
            counts[part] += 1.0 - way;
            sums[next] += way * value;
            counts[next] += way;
        }
        for ((part, sum), count) in own.parts.iter_mut().zip(sums).zip(counts) {
            *part = if count > 0.0 { (sum / count) as f32 } else { 0.0 };
        }
        own
    }

    /// Whether there is one.
    pub fn is_known(&self) -> bool {
        self.period > 0
    }

    /// Steps of a season; 0 while none is known.
    pub fn period(&self) -> i64 {
        self.period
    }

    /// How far from the level a step is.
    pub fn at(&self, step: i64) -> f64 {
        if !self.is_known() {
            return 0.0;
        }
        let (part, next, way) = self.place(step);
        f64::from(self.parts[part]) * (1.0 - way) + f64::from(self.parts[next]) * way
    }

    /// The step was that much above the forecast.
    pub fn correct(&mut self, step: i64, error: f64) {
        if !self.is_known() {
            return;
        }
        let (part, next, way) = self.place(step);
        let gain = GAIN * self.n_parts as f64 / self.period as f64;
        self.parts[part] += (gain * (1.0 - way) * error) as f32;
        self.parts[next] += (gain * way * error) as f32;
    }

    /// The parts whose middles a step lies between, and how far it is on the way from the one to the other.
    fn place(&self, step: i64) -> (usize, usize, f64) {
        let share = (step.rem_euclid(self.period) as f64 + 0.5) / self.period as f64;
        let n_parts = self.n_parts as f64;
        let place = (share * n_parts - 0.5).rem_euclid(n_parts);
        let part = (place as usize).min(self.n_parts - 1);
        (part, (part + 1) % self.n_parts, (place - part as f64).clamp(0.0, 1.0))
    }

    /// Writes it.
    pub fn write(&self, writer: &mut Writer) {
        writer.integer(self.period);
        writer.number(self.n_parts as u64);
        writer.floats(&self.parts[..self.n_parts]);
    }

    /// Reads what [`Self::write`] wrote.
    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let period = reader.integer().filter(|period| *period >= 0)?;
        let n_parts = reader.length(size_of::<f32>()).filter(|n_parts| *n_parts <= MAX_PARTS)?;
        let mut own = Self { period, n_parts, ..Self::unknown() };
        for part in &mut own.parts[..n_parts] {
            *part = reader.float()?;
        }
        ((period > 0) == (n_parts > 0)).then_some(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_read_between_its_parts_and_goes_round() {
        let season = Season::of(40, 4, (0..40).map(|step| (step, [0.0, 10.0, 20.0, 10.0][step as usize / 10])));
        let parts = &season.parts[..4];
        assert!(parts[0] < 4.0 && parts[2] > 16.0 && (parts[1] - 10.0).abs() < 0.5, "{parts:?}");
        assert!((season.at(0) - season.at(400)).abs() < 1e-9 && (season.at(-5) - season.at(35)).abs() < 1e-9);
        let steps: Vec<f64> = (5..25).map(|step| season.at(step)).collect();
        assert!(steps.is_sorted() && steps.windows(2).all(|pair| pair[1] - pair[0] < 2.0), "{steps:?}");
        let each = Season::of(7, 144, (0..7).map(|step| (step, step as f64)));
        assert!((0..14).all(|step| (each.at(step) - (step % 7) as f64).abs() < 1e-6), "a part for each step");
        assert_eq!(Season::unknown().at(5), 0.0);
    }

    #[test]
    fn a_season_that_changes_is_followed() {
        let mut season = Season::of(48, 12, (0..48).map(|step| (step, 0.0)));
        for step in 0..48 * 40 {
            let error = if step % 48 < 24 { 8.0 } else { -8.0 } - season.at(step);
            season.correct(step, error);
        }
        assert!((season.at(12) - 8.0).abs() < 1.0 && (season.at(36) + 8.0).abs() < 1.0, "{season:?}");
    }
}
