//! How large the residuals of a series are at each time of its season.
//!
//! The noise of a KPI follows the time of day more than its value does. So the mean size of residuals is kept for 48 parts of the
//! season, shrunk towards the overall mean where few points are behind it, interpolated between the middles of neighbouring
//! parts, and never less than a fifth of the overall mean or a share of the root of the mean square of a month: what is
//! seldom large is allowed to be large. A residual enters at no more than five times the scale. 300 bytes.

use super::{
    forecaster::MAX_ERROR,
    place::{BINS, Moment},
};
use crate::bytes::{Reader, Writer};

/// Points that the overall mean counts as in the mean of a part.
const PRIOR: f64 = 30.0;

/// Times the scale that a residual is learned as at most.
const CLIP: f64 = 5.0;

/// Share of the overall mean below which no scale is.
const FLOOR: f64 = 0.2;

/// No point is farther out than this.
pub const MOST: f64 = 1000.0;

/// See the file's documentation.
#[derive(Clone, Debug, PartialEq)]
pub struct Scale {
    means: [f32; BINS],
    counts: [u16; BINS],
    mean: f32,
    square: f32,
    n_learned: u32,
}

impl Scale {
    pub fn new() -> Self {
        Self { means: [0.0; BINS], counts: [0; BINS], mean: 0.0, square: 0.0, n_learned: 0 }
    }

    /// A residual in units of the scale as it was before it; then learns it.
    pub fn judge(&mut self, residual: f64, moment: &Moment) -> f64 {
        let (size, mean) = (residual.abs().min(MAX_ERROR), f64::from(self.mean));
        let scale = moment.place.between(|bin| {
            let n = f64::from(self.counts[bin]).min(moment.scale_memory);
            (f64::from(self.means[bin]) * n + mean * PRIOR) / (n + PRIOR)
        });
        let least = (FLOOR * mean).max(moment.floor * f64::from(self.square).sqrt());
        let judged = (size / (scale.max(least) + moment.rounding)).min(MOST);
        if moment.n_seen > 0 {
            let n = f64::from(moment.n_seen).min(moment.square_memory);
            self.square += ((size * size - f64::from(self.square)) / n) as f32;
        }
        // That a sparse or constant series repeats itself says nothing about its noise.
        let is_small = size < 0.1 * mean || (moment.is_sparse && size < 0.3 * f64::from(self.square).sqrt());
        if !(moment.is_repeat && is_small) {
            self.learn(size, scale, moment);
        }
        judged
    }

    fn learn(&mut self, size: f64, scale: f64, moment: &Moment) {
        let mean = f64::from(self.mean);
        self.n_learned = self.n_learned.saturating_add(1);
        let limit = CLIP * scale.max(FLOOR * mean);
        let size = if self.n_learned > 10 && limit > 0.0 { size.min(limit) } else { size };
        let bin = moment.place.bin;
        self.counts[bin] = self.counts[bin].saturating_add(1);
        let n = f64::from(self.counts[bin]).min(moment.scale_memory);
        self.means[bin] += ((size - f64::from(self.means[bin])) / n) as f32;
        self.mean += ((1.0 / f64::from(self.n_learned)).max(0.0005) * (size - mean)) as f32;
    }

    /// Another season: what was learned of parts of the old one is void.
    pub fn forget_season(&mut self) {
        self.means = [0.0; BINS];
        self.counts = [0; BINS];
    }

    pub fn write(&self, writer: &mut Writer) {
        writer.floats(&self.means);
        writer.shorts(&self.counts);
        writer.float(self.mean);
        writer.float(self.square);
        writer.word(self.n_learned);
    }

    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let (means, counts) = (reader.floats()?, reader.shorts()?);
        let [mean, square] = reader.floats()?;
        Some(Self { means, counts, mean, square, n_learned: reader.word()? })
    }
}
