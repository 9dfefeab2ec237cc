//! What a usual residual of a series is: the mean size of the last thousand, with floors for series that hardly vary.
//!
//! A residual enters at no more than five times the scale, so an anomaly widens it little, and noise that grows is adopted
//! within some hundred points. Where most points repeat the one before (sparse series: a counter of rare errors) a mean
//! says nothing of the size of what is not zero; there the scale is the largest residual of the last thousands, so that
//! only what is larger than ever is far off. A series that has hardly varied has no scale. 40 bytes.

use super::Judged;
use crate::bytes::{Reader, Writer};

/// Residuals that the mean and the share of repeats remember.
const MEMORY: u32 = 1000;

/// Share of the peak that a point takes away.
const FADING: f64 = 1.0 / 5000.0;

/// Scales beyond which a residual teaches no more.
const CLIP: f64 = 5.0;

/// Residuals below which there is no scale.
const MIN_SEEN: u32 = 50;

/// Points that differ from the one before, below which there is no scale.
const MIN_VARIED: u32 = 10;

/// Differences smaller than this share of a value are rounding.
const ROUNDING: f64 = 1e-9;

/// Deviations of a normal distribution by its mean absolute one.
const TO_DEVIATION: f64 = 1.2533;

/// See the file's documentation.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Scale {
    /// Mean size of residuals, clipped.
    mean: f64,
    /// The largest residual, fading.
    peak: f64,
    /// Share of points that repeat the one before.
    repeats: f64,
    last: f64,
    n_seen: u32,
    n_varied: u32,
}

impl Scale {
    /// What a usual residual is, 0 while that is not known. Repeats lower it; it is no scale to judge by.
    pub fn usual(&self) -> f64 {
        if self.n_seen < MIN_SEEN || self.n_varied < MIN_VARIED { 0.0 } else { TO_DEVIATION * self.mean }
    }

    /// Judges a value against what was expected and learns from it.
    pub fn judge(&mut self, value: f64, expected: f64) -> Option<Judged> {
        let rounding = (ROUNDING * value.abs().max(expected.abs())).max(f64::MIN_POSITIVE);
        let usual = self.usual();
        let scale = if self.repeats > 0.5 { usual.max(self.peak) } else { usual };
        let judged = (usual > 0.0 && scale > rounding).then_some(Judged { expected, scale });
        self.learn(value, (value - expected).abs(), usual, rounding);
        judged
    }

    fn learn(&mut self, value: f64, size: f64, usual: f64, rounding: f64) {
        let is_repeat = self.n_seen > 0 && (value - self.last).abs() <= rounding;
        self.last = value;
        self.n_seen = self.n_seen.saturating_add(1);
        self.n_varied = self.n_varied.saturating_add(u32::from(!is_repeat));
        let share = 1.0 / f64::from(self.n_seen.min(MEMORY));
        self.repeats += share * (f64::from(u8::from(is_repeat)) - self.repeats);
        self.peak = size.max(self.peak * (1.0 - FADING));
        let size = if usual > rounding { size.min(CLIP * usual) } else { size };
        self.mean += share * (size - self.mean);
    }

    pub fn write(&self, writer: &mut Writer) {
        for value in [self.mean, self.peak, self.repeats, self.last] {
            writer.double(value);
        }
        writer.word(self.n_seen);
        writer.word(self.n_varied);
    }

    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            mean: reader.double()?,
            peak: reader.double()?,
            repeats: reader.double()?,
            last: reader.double()?,
            n_seen: reader.word()?,
            n_varied: reader.word()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Up and down by one or two around 100, never the same twice.
    fn noise(idx: u32) -> f64 {
        100.0 + [1.0, -2.0, 2.0, -1.0][idx as usize % 4]
    }

    #[test]
    fn the_scale_is_that_of_usual_residuals_whatever_an_anomaly_does() {
        let mut scale = Scale::default();
        assert!((0..MIN_SEEN).all(|idx| scale.judge(noise(idx), 100.0).is_none()));
        let before = scale.judge(100.0, 100.0).expect("it has varied").scale;
        assert!((before - 1.5 * TO_DEVIATION).abs() < 0.1, "{before}");
        let far = scale.judge(1e6, 100.0).expect("judged").distance(1e6);
        assert!(far > 1e5, "{far}");
        assert!((0..200).all(|idx| scale.judge(noise(idx), 100.0).is_some()));
        assert!(scale.usual() < 1.1 * before, "{} after one of a million", scale.usual());
        assert_eq!(size_of::<Scale>(), 40);
    }

    #[test]
    fn what_repeats_itself_has_its_peak_for_a_scale_and_what_is_constant_none() {
        let mut scale = Scale::default();
        let sparse = (0..3000).map(|idx| if idx % 50 == 7 { 30.0 } else { 0.0 });
        let worst = sparse.filter_map(|value| Some(scale.judge(value, 0.0)?.distance(value))).fold(0.0, f64::max);
        assert!(worst > 0.5 && worst < 1.5, "{worst}");
        let mut scale = Scale::default();
        assert!((0..3000).all(|idx| scale.judge(if idx == 2000 { 9.0 } else { 5.0 }, 5.0).is_none()));
        assert!((0..3000).all(|_| scale.judge(1e30, -1e30).is_none()));
    }
}
