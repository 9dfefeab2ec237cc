//! Which season a series has: found once, on its own first five days.
//!
//! All but one of 64 public KPIs that this was tried on have a day at three days of history, all at five; so a day is what is
//! taken until then. The history is kept as means over a five-hundredth of those days, as distances from the first value in sixteen
//! bits: 1 KiB, given back when the season is known. From it: winsorised, less a moving mean, the autocorrelation up to 1.05
//! days. A day wins where its correlation is .8 of the best peak's; a best peak below .3 is none, and then it is a day, too, since
//! scales profit from the time of day and the profile costs nothing. Any other period is refined on its multiples.
//!
//! Cost: about 100,000 multiply-adds once a series; keys decide by a few hours who is first, so that series which began
//! together do not all take it at once. Fails on a period of less than an hour or of more than a day: a week would take months
//! to learn, and was worse.

use std::cmp::Ordering;

use super::place::{BINS, DAY};
use crate::bytes::{Reader, Writer};

/// Days of history that decide.
const DAYS: f64 = 5.0;

/// Parts that they are kept in, before what a key adds.
pub const N_PARTS: u16 = 480;

/// Correlation of the best peak from which it is a season.
const LEAST: f64 = 0.3;

/// Share of the best peak's correlation from which a day wins.
const DAY_WINS: f64 = 0.8;

/// Known parts without which nothing is found.
const MIN_KNOWN: usize = 64;

/// The first days of a series, in parts.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    first_step: i64,
    /// The value that the others are kept as distances from.
    origin: f64,
    sum: f64,
    n: u32,
    steps_per_part: u32,
    n_parts: u16,
    parts: Vec<u16>,
}

/// The upper half of a float: eight bits of its significand.
fn half(value: f64) -> u16 {
    ((value as f32).to_bits() >> 16) as u16
}

impl History {
    /// That of a series whose first value this is, in so many parts.
    pub fn new(first_step: i64, origin: f64, step_nanos: i64, n_parts: u16) -> Self {
        let steps_per_part = (DAYS * DAY / step_nanos as f64 / f64::from(N_PARTS)).ceil().max(1.0) as u32;
        let parts = Vec::with_capacity(usize::from(n_parts));
        Self { first_step, origin, sum: 0.0, n: 0, steps_per_part, n_parts, parts }
    }

    /// Takes a value; says whether there is enough.
    pub fn take(&mut self, step: i64, value: f64) -> bool {
        let part = step.saturating_sub(self.first_step) / i64::from(self.steps_per_part);
        let part = usize::try_from(part).unwrap_or(0).min(usize::from(self.n_parts));
        if part > self.parts.len() {
            let mean = if self.n > 0 { self.sum / f64::from(self.n) } else { f64::NAN };
            self.parts.push(half(mean));
            self.parts.resize(part, half(f64::NAN));
            (self.sum, self.n) = (0.0, 0);
        }
        self.sum += value - self.origin;
        self.n += 1;
        self.parts.len() >= usize::from(self.n_parts)
    }

    /// The season in nanoseconds; none where too little is known of these days.
    pub fn season_nanos(&self, step_nanos: i64) -> Option<i64> {
        let values: Vec<f64> =
            self.parts.iter().map(|part| f64::from(f32::from_bits(u32::from(*part) << 16))).collect();
        let part_nanos = step_nanos as f64 * f64::from(self.steps_per_part);
        let flat = flattened(&values, DAY / part_nanos)?;
        let found = period(&flat, DAY / part_nanos).map(|n_parts| n_parts * part_nanos);
        let is_fine = |nanos: &f64| nanos / step_nanos as f64 >= BINS as f64 / 2.0;
        Some(found.filter(is_fine).unwrap_or(DAY) as i64)
    }

    /// Memory that it takes.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.parts.capacity() * size_of::<u16>()
    }

    pub fn write(&self, writer: &mut Writer) {
        writer.integer(self.first_step);
        writer.double(self.origin);
        writer.double(self.sum);
        writer.word(self.n);
        writer.word(self.steps_per_part);
        writer.short(self.n_parts);
        writer.number(self.parts.len() as u64);
        writer.shorts(&self.parts);
    }

    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let (first_step, origin, sum) = (reader.integer()?, reader.double()?, reader.double()?);
        let (n, steps_per_part, n_parts) = (reader.word()?, reader.word()?, reader.short()?);
        let n_known = reader.length(2)?;
        if steps_per_part == 0 || n_known > usize::from(n_parts) {
            return None;
        }
        let mut parts = Vec::with_capacity(usize::from(n_parts));
        for _ in 0..n_known {
            parts.push(reader.short()?);
        }
        Some(Self { first_step, origin, sum, n, steps_per_part, n_parts, parts })
    }
}

/// The values winsorised at their first and last percentile, less a moving mean over two days or a quarter of them; 0 where
/// nothing is known. None where less than half is.
fn flattened(values: &[f64], day: f64) -> Option<Vec<f64>> {
    let mut known: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    if known.len() < MIN_KNOWN.max(values.len() / 2) {
        return None;
    }
    known.sort_unstable_by(f64::total_cmp);
    let percentile = |share: f64| known[((known.len() - 1) as f64 * share).round() as usize];
    let (low, high) = (percentile(0.01), percentile(0.99));
    let clipped = values.iter().map(|value| if value.is_finite() { Some(value.clamp(low, high)) } else { None });
    let clipped: Vec<Option<f64>> = clipped.collect();
    let reach = ((2.0 * day) as usize).min(values.len() / 4).max(3) / 2;
    // Sums and counts of what comes before each.
    let mut before = vec![(0.0, 0.0)];
    for value in &clipped {
        let (sum, n) = before[before.len() - 1];
        before.push((sum + value.unwrap_or(0.0), n + f64::from(u8::from(value.is_some()))));
    }
    let flat = clipped.iter().enumerate().map(|(idx, value)| {
        let (from, to) = (before[idx.saturating_sub(reach)], before[(idx + reach + 1).min(values.len())]);
        value.map(|value| value - (to.0 - from.0) / (to.1 - from.1))
    });
    let flat: Vec<Option<f64>> = flat.collect();
    let mean = flat.iter().flatten().sum::<f64>() / known.len() as f64;
    Some(flat.into_iter().map(|value| value.map_or(0.0, |value| value - mean)).collect())
}

/// The period of `flat` in its own steps, of which a day has `day`; none where it is a day.
fn period(flat: &[f64], day: f64) -> Option<f64> {
    let n = flat.len();
    let power: f64 = flat.iter().map(|value| value * value).sum();
    if power <= 1e-24 * n as f64 {
        return None;
    }
    let correlation = |lag: usize| {
        let products: f64 = flat.iter().zip(&flat[lag..]).map(|(now, then)| now * then).sum();
        products / power * n as f64 / (n - lag) as f64
    };
    let correlations: Vec<f64> = (0..=n / 2).map(correlation).collect();
    let by_correlation = |a: &usize, b: &usize| -> Ordering { correlations[*a].total_cmp(&correlations[*b]) };
    let end = (n / 3).min((1.05 * day + 2.0) as usize);
    let start = correlations[..end].iter().position(|own| *own < 0.0).unwrap_or(end).max(4);
    let is_peak =
        |lag: &usize| correlations[*lag] >= correlations[lag - 1] && correlations[*lag] > correlations[lag + 1];
    let peaks: Vec<usize> = (start..end.saturating_sub(1)).filter(is_peak).collect();
    let best = correlations[peaks.iter().copied().max_by(by_correlation)?];
    let day_lag = day.round() as usize;
    let of_day: &[f64] = if (5..n / 2).contains(&day_lag) { &correlations[day_lag - 1..=day_lag + 1] } else { &[] };
    let of_day = of_day.iter().copied().fold(0.0, f64::max);
    if best < LEAST || of_day >= DAY_WINS * best {
        return None;
    }
    let first = peaks.iter().copied().find(|lag| correlations[*lag] >= 0.9 * best)?;
    let (mut period, mut multiple) = (first as f64, 2.0);
    while multiple * period < (n / 2) as f64 {
        let (middle, reach) = (multiple * period, (0.15 * period).max(2.0));
        let around = (middle - reach) as usize..((middle + reach) as usize + 1).min(correlations.len());
        let Some(at) = around.max_by(by_correlation).filter(|at| correlations[*at] >= 0.5 * best) else { break };
        period = at as f64 / multiple;
        multiple += 1.0;
    }
    Some(period)
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;

    const MINUTE: i64 = 60_000_000_000;

    /// The season in minutes of a series with a point a minute; none where there was never enough.
    fn season(value: impl Fn(f64) -> f64) -> Option<i64> {
        let mut history = History::new(1_000, value(0.0), MINUTE, N_PARTS);
        for minute in 0..8000 {
            let value = value(minute as f64);
            if value.is_finite() && history.take(1_000 + minute, value) {
                assert!((7200..7260).contains(&minute), "five days: {minute}");
                return history.season_nanos(MINUTE).map(|nanos| nanos / MINUTE);
            }
        }
        None
    }

    /// Something like noise, between −1 and 1.
    fn noise(minute: f64) -> f64 {
        (minute * minute * 0.618_034).sin()
    }

    #[test]
    fn a_day_and_what_divides_it_is_a_day() {
        let wave =
            |minutes: f64| move |minute: f64| 100.0 + 30.0 * (TAU * minute / minutes).sin() + 5.0 * noise(minute);
        assert_eq!(season(wave(1440.0)), Some(1440));
        assert_eq!(season(wave(240.0)), Some(1440), "four hours go into a day");
        assert_eq!(season(|minute| 100.0 + noise(minute)), Some(1440), "none at all");
        assert_eq!(season(|_| 100.0), Some(1440), "a constant");
        assert_eq!(season(|minute| minute * 1e6), Some(1440), "a slope");
    }

    #[test]
    fn a_period_that_does_not_go_into_a_day_is_found() {
        for minutes in [300.0, 420.0, 1000.0] {
            let found = season(|minute| 1e6 + 30.0 * (TAU * minute / minutes).sin() + 5.0 * noise(minute));
            let found = found.expect("enough is known");
            assert!((found as f64 / minutes - 1.0).abs() < 0.02, "{found} for {minutes}");
        }
    }

    #[test]
    fn gaps_are_left_out_and_too_many_of_them_decide_nothing() {
        let wave = |minute: f64| (TAU * minute / 420.0).sin();
        let gappy = |minute: f64| if minute % 1000.0 < 200.0 && minute > 0.0 { f64::NAN } else { wave(minute) };
        assert!(season(gappy).is_some_and(|found| (400..440).contains(&found)), "{:?}", season(gappy));
        let rare = |minute: f64| if minute % 1000.0 > 300.0 && minute < 7200.0 { f64::NAN } else { wave(minute) };
        assert_eq!(season(rare), None);
    }

    #[test]
    fn it_takes_no_more_than_a_kibibyte_and_comes_back_from_a_snapshot() {
        let mut history = History::new(5, 1.0, MINUTE, N_PARTS);
        assert!(!history.take(5, 1.0) && !history.take(500, 7.0) && history.bytes() <= 1_024 + 64);
        let mut writer = Writer::new(b"faultline tests1");
        history.write(&mut writer);
        let bytes = writer.finish();
        let mut reader = Reader::open(b"faultline tests1", &bytes).expect("its own");
        assert_eq!(History::read(&mut reader).expect("whole").parts, history.parts);
        assert!(reader.is_empty());
        assert!(history.take(i64::MAX, 1.0), "the far future is the end of these days");
    }
}
