//! The means of the last days of a series, in blocks of steps, and the season that they show.
//!
//! A block is one step at first. When there are 320 they are joined two by two, until they span a week; from then on the older
//! half goes. Each time the season is looked for: the lag at which the autocorrelation of the blocks, cut where they are far
//! out and less their line, has a peak. The shortest lag wins whose peak is nearly as high as the highest. A lag that a whole hour,
//! six hours, half a day or a day explains is taken to be that.

use super::season::{MAX_PARTS, Season};
use crate::bytes::{Reader, Writer};

/// Blocks that are kept.
const MAX_BLOCKS: usize = 320;

/// Blocks that must be seen for each block of a lag.
const SEASONS: usize = 3;

/// The shortest lag.
const MIN_LAG: usize = 4;

/// Time that the blocks span in the end.
const SPAN_NANOS: i64 = 7 * 86_400 * 1_000_000_000;

/// Blocks without a point that are filled with the one before.
const MAX_FILLED: i64 = 8;

/// Correlation from which on a lag is a season.
const FOUND: f64 = 0.4;

/// How far it must rise above what shorter lags fell to.
const RISE: f64 = 0.3;

/// Correlation below which a season is lost.
const LOST: f64 = 0.2;

/// Median distances from the median beyond which a block is cut.
const CUT: f64 = 6.0;

/// A shorter lag with this share of the highest peak is preferred.
const NEARLY: f64 = 0.9;

/// Natural seasons, in seconds.
const NATURAL: [i64; 4] = [86_400, 43_200, 21_600, 3_600];

/// See the file's documentation.
#[derive(Clone, Debug, PartialEq)]
pub struct Blocks {
    means: [f32; MAX_BLOCKS],
    n_blocks: usize,
    step_nanos: i64,
    /// Steps of a block, a power of two, and the most there may be.
    size: i64,
    max_size: i64,
    /// Number of the block that is being filled, counted from the epoch; the ones before it are in `means`.
    current: i64,
    sum: f64,
    n_points: u32,
}

impl Blocks {
    /// None yet.
    pub fn new(step_nanos: i64) -> Self {
        let step_nanos = step_nanos.max(1);
        let wanted = SPAN_NANOS.div_euclid(step_nanos.saturating_mul(MAX_BLOCKS as i64)).max(1).cast_unsigned();
        let max_size = wanted.next_power_of_two().cast_signed();
        Self { means: [0.0; MAX_BLOCKS], n_blocks: 0, step_nanos, size: 1, max_size, current: 0, sum: 0.0, n_points: 0 }
    }

    /// Adds a point; whether it is time to look for a season, which makes room: see [`Self::revise`].
    pub fn add(&mut self, step: i64, value: f64) -> bool {
        let block = step.div_euclid(self.size);
        if self.n_points > 0 && block != self.current {
            self.close(block);
        }
        self.current = block;
        self.sum += value;
        self.n_points = self.n_points.saturating_add(1);
        self.n_blocks == MAX_BLOCKS
    }

    /// Ends the current block; `next` is the one that the next point is in.
    fn close(&mut self, next: i64) {
        let mean = (self.sum / f64::from(self.n_points)) as f32;
        (self.sum, self.n_points) = (0.0, 0);
        let n_new = next.saturating_sub(self.current);
        if n_new > MAX_FILLED {
            self.n_blocks = 0;
            return;
        }
        let n_new = usize::try_from(n_new).unwrap_or(0);
        let n_out = (self.n_blocks + n_new).saturating_sub(MAX_BLOCKS);
        self.means.copy_within(n_out..self.n_blocks, 0);
        self.n_blocks -= n_out;
        self.means[self.n_blocks..self.n_blocks + n_new].fill(mean);
        self.n_blocks += n_new;
    }

    /// Looks for the season in full blocks and makes room for more. Whether `season` has changed.
    pub fn revise(&mut self, season: &mut Season) -> bool {
        let residuals = self.residuals();
        let correlations = Correlations::of(&residuals[..self.n_blocks]);
        let found = correlations.peak().map(|lag| (self.natural(correlations.top(lag)), correlations.at[lag]));
        let known = self.lag_of(season.period()).map_or(f64::NEG_INFINITY, |lag| correlations.around(lag));
        // A known season is kept while the blocks show it, or are too coarse or too few to.
        let is_kept = season.is_known() && (known >= LOST || self.lag_of(season.period()).is_none());
        let adopted = found.filter(|(period, correlation)| {
            *period != season.period() && (!is_kept || (known.is_finite() && *correlation > known + LOST))
        });
        let has_changed = match adopted {
            Some((period, _)) => {
                let first = self.current.saturating_sub(self.n_blocks as i64);
                let middles = (first..).map(|block| block.saturating_mul(self.size).saturating_add(self.size / 2));
                let n_parts = usize::try_from(period / self.size).unwrap_or(MAX_PARTS);
                *season = Season::of(period, n_parts, middles.zip(residuals).take(self.n_blocks));
                true
            }
            None if season.is_known() && !is_kept && found.is_none() => {
                *season = Season::unknown();
                true
            }
            None => false,
        };
        self.make_room();
        has_changed
    }

    /// The blocks, cut at [`CUT`], less the line through them.
    fn residuals(&self) -> [f64; MAX_BLOCKS] {
        let mut residuals = [0.0; MAX_BLOCKS];
        let blocks = &mut residuals[..self.n_blocks];
        blocks.iter_mut().zip(&self.means).for_each(|(block, mean)| *block = f64::from(*mean));
        cut(blocks);
        let n = blocks.len().max(1) as f64;
        let places = (0..).map(|idx: u32| f64::from(idx) - (n - 1.0) / 2.0);
        let mean = blocks.iter().sum::<f64>() / n;
        let along = places.clone().zip(blocks.iter()).map(|(place, block)| place * block).sum::<f64>();
        let slope = along / places.clone().take(blocks.len()).map(|place| place * place).sum::<f64>().max(1.0);
        blocks.iter_mut().zip(places).for_each(|(block, place)| *block -= mean + slope * place);
        residuals
    }

    /// The natural season within a block of a lag, or the lag, in steps.
    fn natural(&self, lag: f64) -> i64 {
        let found = (lag * self.size as f64).round() as i64;
        let steps = NATURAL.into_iter().map(|seconds| seconds * 1_000_000_000);
        let mut whole = steps.filter(|nanos| nanos % self.step_nanos == 0).map(|nanos| nanos / self.step_nanos);
        whole.find(|period| (period - found).abs() <= self.size).unwrap_or(found)
    }

    /// The lag of a period, where the blocks are fine enough and enough to see it.
    fn lag_of(&self, period: i64) -> Option<usize> {
        let lag = usize::try_from((period + self.size / 2) / self.size).ok()?;
        (MIN_LAG..=self.n_blocks / SEASONS).contains(&lag).then_some(lag)
    }

    fn make_room(&mut self) {
        if self.size >= self.max_size {
            self.means.copy_within(MAX_BLOCKS / 2.., 0);
            self.n_blocks = self.n_blocks.saturating_sub(MAX_BLOCKS / 2);
            return;
        }
        let first = self.current.saturating_sub(self.n_blocks as i64);
        let skipped = usize::from(first.rem_euclid(2) == 1).min(self.n_blocks);
        let n_pairs = (self.n_blocks - skipped) / 2;
        for pair in 0..n_pairs {
            let at = skipped + 2 * pair;
            self.means[pair] = f32::midpoint(self.means[at], self.means[at + 1]);
        }
        // The block before the current one may be the first half of the joined one.
        if self.current.rem_euclid(2) == 1 && self.n_blocks > 0 {
            self.sum += f64::from(self.means[self.n_blocks - 1]) * self.size as f64;
            self.n_points = self.n_points.saturating_add(u32::try_from(self.size).unwrap_or(u32::MAX));
        }
        (self.n_blocks, self.size, self.current) = (n_pairs, self.size * 2, self.current.div_euclid(2));
    }

    /// Writes it.
    pub fn write(&self, writer: &mut Writer) {
        writer.number(self.n_blocks as u64);
        writer.floats(&self.means[..self.n_blocks]);
        writer.integer(self.size);
        writer.integer(self.current);
        writer.double(self.sum);
        writer.word(self.n_points);
    }

    /// Reads what [`Self::write`] wrote.
    pub fn read(reader: &mut Reader<'_>, step_nanos: i64) -> Option<Self> {
        let mut own = Self::new(step_nanos);
        own.n_blocks = reader.length(size_of::<f32>()).filter(|n_blocks| *n_blocks < MAX_BLOCKS)?;
        for mean in &mut own.means[..own.n_blocks] {
            *mean = reader.float()?;
        }
        own.size = reader.integer().filter(|size| (1..=own.max_size).contains(size))?;
        (own.current, own.sum, own.n_points) = (reader.integer()?, reader.double()?, reader.word()?);
        Some(own)
    }
}

/// Cuts what is farther than [`CUT`] median distances from the median; nothing where more than half are alike.
fn cut(blocks: &mut [f64]) {
    if blocks.is_empty() {
        return;
    }
    let mut sorted = [0.0; MAX_BLOCKS];
    let sorted = &mut sorted[..blocks.len()];
    sorted.copy_from_slice(blocks);
    let middle = blocks.len() / 2;
    let median = *sorted.select_nth_unstable_by(middle, f64::total_cmp).1;
    sorted.iter_mut().for_each(|block| *block = (*block - median).abs());
    let limit = CUT * *sorted.select_nth_unstable_by(middle, f64::total_cmp).1;
    if limit > 0.0 {
        blocks.iter_mut().for_each(|block| *block = block.clamp(median - limit, median + limit));
    }
}

/// How far blocks agree with the blocks a lag before them, −1 to 1.
struct Correlations {
    /// By lag; the first is that of none.
    at: [f64; MAX_BLOCKS / SEASONS + 1],
    max_lag: usize,
}

impl Correlations {
    fn of(residuals: &[f64]) -> Self {
        let (n, max_lag) = (residuals.len(), residuals.len() / SEASONS);
        let mut at = [0.0; MAX_BLOCKS / SEASONS + 1];
        let variance = residuals.iter().map(|own| own * own).sum::<f64>() / n.max(1) as f64;
        if variance > f64::MIN_POSITIVE {
            for (lag, own) in at.iter_mut().enumerate().take(max_lag + 1) {
                let products = residuals.iter().zip(&residuals[lag..]).map(|(one, other)| one * other);
                *own = products.sum::<f64>() / (n - lag) as f64 / variance;
            }
        }
        Self { at, max_lag }
    }

    /// Where the parabola through a peak and its neighbours has its top.
    fn top(&self, lag: usize) -> f64 {
        let [before, own, after] = [self.at[lag - 1], self.at[lag], self.at[lag + 1]];
        let bend = before - 2.0 * own + after;
        let beside = if bend < 0.0 { 0.5 * (before - after) / bend } else { 0.0 };
        lag as f64 + beside.clamp(-0.5, 0.5)
    }

    /// The best of a lag and its neighbours.
    fn around(&self, lag: usize) -> f64 {
        self.at[lag - 1..=(lag + 1).min(self.max_lag)].iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// The shortest lag with nearly the highest peak.
    fn peak(&self) -> Option<usize> {
        let mut least = f64::INFINITY;
        let mut peaks = [f64::NEG_INFINITY; MAX_BLOCKS / SEASONS + 1];
        for (lag, peak) in peaks.iter_mut().enumerate().take(self.max_lag).skip(1) {
            let own = self.at[lag];
            least = least.min(own);
            let is_top = own >= self.at[lag - 1] && own >= self.at[lag + 1];
            if lag >= MIN_LAG && is_top && own >= FOUND && own - least >= RISE {
                *peak = own;
            }
        }
        let highest = peaks.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        peaks.iter().position(|peak| highest.is_finite() && *peak >= NEARLY * highest)
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;
    use crate::per_series::tests::{MINUTE, noisy};

    /// The season after so many points.
    fn season_of(step_nanos: i64, points: impl IntoIterator<Item = f64>) -> Season {
        let (mut blocks, mut season) = (Blocks::new(step_nanos), Season::unknown());
        for (step, point) in (1_000_001..).zip(points) {
            if blocks.add(step, point) {
                blocks.revise(&mut season);
            }
        }
        season
    }

    fn wave(period: f64, n: u32) -> impl Iterator<Item = f64> {
        let noise = noisy(3, n as usize).into_iter();
        (0..n)
            .map(move |step| 20.0 * (TAU * f64::from(step) / period).sin())
            .zip(noise)
            .map(|(wave, noise)| wave + noise)
    }

    #[test]
    fn seasons_are_found_and_noise_constants_and_trends_have_none() {
        for (step_nanos, period, n) in [(MINUTE, 1440, 12_000), (5 * MINUTE, 288, 3000), (60 * MINUTE, 24, 500)] {
            assert_eq!(season_of(step_nanos, wave(f64::from(period), n)).period(), i64::from(period), "a day");
        }
        for (period, n) in [(144, 1400), (333, 3000), (1000, 9000)] {
            let found = season_of(MINUTE, wave(f64::from(period), n)).period();
            assert!(50 * (found - i64::from(period)).abs() <= i64::from(period), "{found} instead of {period}");
        }
        assert!(!season_of(MINUTE, noisy(1, 20_000)).is_known());
        assert!(!season_of(MINUTE, vec![5.0; 5000]).is_known());
        assert!(!season_of(MINUTE, (0..5000).map(f64::from)).is_known());
        let spikes = wave(1440.0, 12_000).zip(0..).map(|(point, idx)| if idx % 3100 == 9 { 1e6 } else { point });
        assert_eq!(season_of(MINUTE, spikes).period(), 1440, "a few spikes hide no season");
    }

    #[test]
    fn a_season_that_ends_is_lost_and_a_long_gap_begins_anew() {
        let ends = wave(1440.0, 12_000).chain(noisy(5, 30_000));
        assert!(!season_of(MINUTE, ends).is_known());
        let mut blocks = Blocks::new(MINUTE);
        for step in 0..100 {
            blocks.add(step, 1.0);
        }
        blocks.add(106, 2.0);
        assert_eq!(blocks.n_blocks, 106, "filled");
        blocks.add(1000, 2.0);
        assert_eq!((blocks.n_blocks, blocks.current), (0, 1000));
    }

    #[test]
    fn joined_blocks_are_the_means_of_their_steps() {
        let (mut blocks, mut season) = (Blocks::new(MINUTE), Season::unknown());
        for step in 7..4000 {
            if blocks.add(step, step as f64) {
                blocks.revise(&mut season);
            }
        }
        let first = blocks.current - blocks.n_blocks as i64;
        for (block, mean) in (first..).zip(&blocks.means[..blocks.n_blocks]) {
            let expected = (block * blocks.size) as f64 + (blocks.size - 1) as f64 / 2.0;
            assert!((f64::from(*mean) - expected).abs() < 1.0, "block {block} of {}: {mean}", blocks.size);
        }
        assert!(blocks.size == 16 && blocks.n_blocks > 160, "{} of {}", blocks.n_blocks, blocks.size);
    }
}
