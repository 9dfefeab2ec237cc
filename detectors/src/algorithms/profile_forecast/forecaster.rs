//! A linear forecast of the next point from the last sixteen, which follows the series as it goes.
//!
//! Normalised least mean squares (Nagumo and Noda, "A Learning Method for System Identification", IEEE Transactions on
//! Automatic Control 1967), on the distance from a slow mean. It begins as "the same as the last point". An error teaches no
//! more than four deviations of the errors so far, so an anomaly does not. Cost: 64 multiply-adds a point. 144 bytes.

use crate::bytes::{Reader, Writer};

/// Points that a forecast is made from. 8 to 32 are within .02 of each other.
pub const TAPS: usize = 16;

/// Sums that are kept side by side, so that the compiler can use wide registers.
const LANES: usize = 8;

/// Share of an error that is corrected.
const GAIN: f64 = 0.02;

/// Deviations beyond which an error teaches no more, once there is a deviation.
const CLIP: f64 = 4.0;

/// Points before an error is clipped.
pub const SETTLED: u32 = 50;

/// Weights of a forecast that has gone astray end here.
const MAX_WEIGHT: f32 = 16.0;

/// No forecast is farther off than this, so that its square is a number in single precision.
pub const MAX_ERROR: f64 = 1e18;

/// See the file's documentation.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecaster {
    weights: [f32; TAPS],
    /// Distances of the last points from the mean, the latest first.
    lags: [f32; TAPS],
    mean: f64,
    deviation: f32,
}

impl Forecaster {
    /// One that is about to see the first point.
    pub fn new(first: f64) -> Self {
        let mut weights = [0.0; TAPS];
        weights[0] = 1.0;
        Self { weights, lags: [0.0; TAPS], mean: first, deviation: 0.0 }
    }

    /// How far the next point is from its forecast. Learns it, as the one after `n_seen` others.
    pub fn error(&mut self, value: f64, n_seen: u32) -> f64 {
        let (forecast, power) = self.products();
        let (centred, deviation) = (value - self.mean, f64::from(self.deviation));
        let error = (centred - forecast).clamp(-MAX_ERROR, MAX_ERROR);
        // Where nothing has varied yet there is no deviation to clip at: what comes first must teach.
        let is_clipped = n_seen > SETTLED && deviation > 0.0;
        let lesson = if is_clipped { error.clamp(-CLIP * deviation, CLIP * deviation) } else { error };
        let gain = (GAIN * lesson / (1e-6 + power + deviation * deviation * 0.1 * TAPS as f64)) as f32;
        for (weight, lag) in self.weights.iter_mut().zip(&self.lags) {
            *weight = (*weight + gain * lag).clamp(-MAX_WEIGHT, MAX_WEIGHT);
        }
        let share = 1.0 / (f64::from(n_seen) + 1.0);
        self.deviation += (share.max(0.001) * (lesson.abs() * 1.25 - deviation)) as f32;
        self.lags.copy_within(..TAPS - 1, 1);
        self.lags[0] = centred as f32;
        self.mean += share.max(0.0002) * centred;
        error
    }

    /// From now on points are lower by this.
    pub fn lower(&mut self, by: f64) {
        self.mean -= by;
    }

    /// The forecast, as a distance from the mean, and the sum of the squares that it is made from.
    fn products(&self) -> (f64, f64) {
        let (mut forecast, mut power) = ([0.0f32; LANES], [0.0f32; LANES]);
        for (weights, lags) in self.weights.chunks_exact(LANES).zip(self.lags.chunks_exact(LANES)) {
            for lane in 0..LANES {
                forecast[lane] += weights[lane] * lags[lane];
                power[lane] += lags[lane] * lags[lane];
            }
        }
        (f64::from(forecast.iter().sum::<f32>()), f64::from(power.iter().sum::<f32>()))
    }

    pub fn write(&self, writer: &mut Writer) {
        writer.floats(&self.weights);
        writer.floats(&self.lags);
        writer.double(self.mean);
        writer.float(self.deviation);
    }

    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let (weights, lags) = (reader.floats()?, reader.floats()?);
        Some(Self { weights, lags, mean: reader.double()?, deviation: reader.float()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The errors over a run of points.
    fn errors(points: impl Iterator<Item = f64>) -> Vec<f64> {
        let mut points = points.peekable();
        let mut forecaster = Forecaster::new(points.peek().copied().unwrap_or(0.0));
        points.zip(0..).map(|(point, n_seen)| forecaster.error(point, n_seen)).collect()
    }

    #[test]
    fn a_wave_becomes_foreseeable_and_a_constant_is_so_at_once() {
        let wave = errors((0..4000).map(|idx| 100.0 + 10.0 * (f64::from(idx) * 0.3).sin()));
        let size = |part: &[f64]| part.iter().map(|error| error.abs()).sum::<f64>() / part.len() as f64;
        assert!(size(&wave[3500..]) < 0.2 * size(&wave[20..120]), "{} {}", size(&wave[20..120]), size(&wave[3500..]));
        assert!(errors(std::iter::repeat_n(0.1, 300)).iter().all(|error| *error == 0.0));
    }

    #[test]
    fn it_learns_after_a_constant_beginning() {
        let idle = std::iter::repeat_n(0.0, 200);
        let errors = errors(idle.chain((0..4000).map(|idx| 100.0 + 10.0 * (f64::from(idx) * 0.3).sin())));
        let last = errors[4000..].iter().map(|error| error.abs()).sum::<f64>() / 200.0;
        assert!(last < 1.0, "the last point alone would be off by 1.9: {last}");
    }

    #[test]
    fn wild_values_leave_it_finite() {
        let wild = (0..2000).map(|idx| match idx % 5 {
            0 => 1e17,
            1 => -1e17,
            2 => 1e-30,
            _ => 0.0,
        });
        assert!(errors(wild.clone()).iter().all(|error| error.abs() <= MAX_ERROR));
        let mut forecaster = Forecaster::new(1e-3);
        for n_seen in 0..40 {
            forecaster.error(1e-3 + f64::from(n_seen % 7) * 1e-4, n_seen);
        }
        for (point, n_seen) in wild.zip(40..) {
            assert!(forecaster.error(point, n_seen).is_finite());
        }
        assert!(forecaster.weights.iter().chain(&forecaster.lags).all(|value| value.is_finite()));
    }
}
