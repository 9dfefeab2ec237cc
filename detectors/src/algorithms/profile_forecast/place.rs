//! Where in its season a point lies, and how fast a series of this step and season learns.

use super::Config;

/// Parts of a season that are told apart. 24 to 144 differ by less than .02 on AIOps.
pub const BINS: usize = 48;

/// Nanoseconds of a day.
pub const DAY: f64 = 86_400e9;

/// Seasons that the profile remembers.
const PROFILE_SEASONS: f64 = 5.0;

/// Seasons that scales remember.
const SCALE_SEASONS: f64 = 10.0;

/// Days after which the slow offset has forgotten half.
const OFFSET_DAYS: f64 = 30.0;

/// Days that mean squares remember.
const SQUARE_DAYS: f64 = 30.0;

/// Days that the rate of alerts remembers.
const RATE_DAYS: f64 = 7.0;

/// The part of the season that a point lies in, and how far it is on the way to the middle of the next one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    pub bin: usize,
    next: usize,
    /// 0 to ½.
    way: f64,
}

impl Place {
    /// What is between the values of its two parts.
    pub fn between(self, value: impl Fn(usize) -> f64) -> f64 {
        value(self.bin) * (1.0 - self.way) + value(self.next) * self.way
    }
}

/// What the scales need to know of a point.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub place: Place,
    /// Points before it.
    pub n_seen: u32,
    /// Share of the root mean square below which no scale is.
    pub floor: f64,
    /// What is added to each scale, so that rounding is no anomaly.
    pub rounding: f64,
    /// Whether it is equal to the one before.
    pub is_repeat: bool,
    /// Whether most points are.
    pub is_sparse: bool,
    pub scale_memory: f64,
    pub square_memory: f64,
}

/// What follows from the step and the season of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    pub step_nanos: i64,
    pub season_nanos: i64,
    /// Points that a part of the profile is the mean of, at most.
    pub profile_memory: f64,
    pub scale_memory: f64,
    pub square_memory: f64,
    /// Share of an error that moves the slow offset.
    pub offset_gain: f64,
    /// Points of a whole season: before, the profile is not used.
    pub n_season: u32,
    /// Points after which a level is the new normal.
    pub adopt_after: f64,
    /// Share of a point in the rate of alerts.
    pub rate_gain: f64,
    /// Alerts a point from which the threshold rises.
    pub rate_limit: f64,
    bins_per_nano: f64,
    /// The step, or what is left of it beyond whole seasons.
    advance: i64,
}

impl Pace {
    pub fn of(config: &Config, step_nanos: i64, season_nanos: i64) -> Self {
        let (step, season) = (step_nanos as f64, season_nanos as f64);
        // Counts are of sixteen bits.
        let memory = |n_seasons: f64| (n_seasons * season / step / BINS as f64).clamp(2.0, f64::from(u16::MAX));
        Self {
            step_nanos,
            season_nanos,
            profile_memory: memory(PROFILE_SEASONS),
            scale_memory: memory(SCALE_SEASONS),
            square_memory: (SQUARE_DAYS * DAY / step).max(1.0),
            offset_gain: 1.0 - 0.5f64.powf(step / (OFFSET_DAYS * DAY)),
            n_season: (season / step).ceil() as u32,
            adopt_after: config.adopt_seasons * season / step,
            rate_gain: (step / (RATE_DAYS * DAY)).min(1.0),
            rate_limit: config.alerts_per_day * step / DAY,
            bins_per_nano: BINS as f64 / season,
            advance: step_nanos.rem_euclid(season_nanos),
        }
    }

    /// How long after the beginning of its season this step begins.
    pub fn phase(&self, step: i64) -> i64 {
        let nanos = i128::from(step) * i128::from(self.step_nanos);
        i64::try_from(nanos.rem_euclid(i128::from(self.season_nanos))).unwrap_or(0)
    }

    /// The phase of the step after the one of this phase.
    pub fn next_phase(&self, phase: i64) -> i64 {
        let next = phase + self.advance;
        if next >= self.season_nanos { next - self.season_nanos } else { next }
    }

    /// The place of a step that begins so long after its season.
    pub fn place(&self, phase: i64) -> Place {
        let at = phase as f64 * self.bins_per_nano;
        let bin = (at as usize).min(BINS - 1);
        let beyond_middle = at - bin as f64 - 0.5;
        let next = if beyond_middle > 0.0 { (bin + 1) % BINS } else { (bin + BINS - 1) % BINS };
        Place { bin, next, way: beyond_middle.abs() }
    }
}

/// The pace of the latest series: most have the step and season of the one before.
#[derive(Clone, Debug, Default)]
pub struct Paces(Option<Pace>);

impl Paces {
    pub fn of(&mut self, config: &Config, step_nanos: i64, season_nanos: i64) -> Pace {
        match self.0 {
            Some(pace) if pace.step_nanos == step_nanos && pace.season_nanos == season_nanos => pace,
            _ => *self.0.insert(Pace::of(config, step_nanos, season_nanos)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000_000;

    #[test]
    fn a_place_lies_between_the_middles_of_two_parts() {
        let pace = Pace::of(&Config::default(), HOUR / 60, 24 * HOUR);
        let between = |phase: i64| pace.place(phase).between(|bin| bin as f64);
        for (phase, expected) in [(HOUR / 4, 0.0), (HOUR / 2, 0.5), (3 * HOUR / 4, 1.0), (23 * HOUR, 45.5)] {
            assert!((between(phase) - expected).abs() < 1e-9, "{phase}: {}", between(phase));
        }
        assert!((between(0) - 23.5).abs() < 1e-9, "between the last and the first part");
        assert_eq!(pace.place(i64::MAX).bin, BINS - 1);
    }

    #[test]
    fn phases_repeat_with_the_season_on_either_side_of_the_epoch() {
        let pace = Pace::of(&Config::default(), HOUR / 60, 24 * HOUR);
        assert_eq!((pace.phase(0), pace.phase(1441), pace.phase(-1)), (0, HOUR / 60, 24 * HOUR - HOUR / 60));
        assert!((0..24 * HOUR).contains(&pace.phase(i64::MIN)));
        assert_eq!((pace.next_phase(0), pace.next_phase(24 * HOUR - HOUR / 60)), (HOUR / 60, 0));
        assert_eq!((pace.n_season, pace.profile_memory), (1440, 150.0));
    }
}
