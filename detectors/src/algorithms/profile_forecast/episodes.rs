//! When a series' deviations are an alert: once for each episode, on two tracks.
//!
//! The *spike* track decides onsets: an alert where the spike score reaches the threshold and nothing has for a while, or where it
//! is half again as large as what the episode has alerted for. The *level* track decides duration: it opens where the level
//! score reaches the threshold, or with a spike from a lower score on, and stays open above that lower score. While it is open, the
//! way back to the usual level is no alert. A level that has lasted a season is the new normal, without another alert.
//!
//! With more alerts a day than `alerts_per_day` (mean age a week) the threshold rises with the root of that, threefold at most.

use super::{Config, place::Pace};
use crate::bytes::{Reader, Writer};

/// Points for which an episode goes on after its last abnormal one; the level track forgives as many.
const HOLD: u8 = 1;

/// Times the peak that was alerted for from which an episode alerts again.
const ESCALATION: f64 = 1.5;

/// Times the threshold that it rises to at most.
const MAX_RISE: f64 = 3.0;

/// Points that the mean of a new level is made from.
const SHIFT_MEMORY: u32 = 60;

/// Longer ago than anything matters.
const LONG_AGO: u32 = 1_000_000;

/// See the file's documentation.
#[derive(Clone, Debug, PartialEq)]
pub struct Episodes {
    /// The score that was alerted for last.
    peak: f32,
    /// Alerts a point.
    alert_rate: f32,
    previous_level: f32,
    /// Mean distance of the open level from the usual one.
    shift: f32,
    since_spike: u32,
    since_alert: u32,
    /// Points of the open level.
    n_open: u32,
    n_hot: u8,
    n_cold: u8,
    /// Whether the level track is.
    pub is_open: bool,
}

/// What has been found of a point.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    pub spike: f64,
    pub level: f64,
    /// Distance from the usual level.
    pub error: f64,
    /// Whether less than a season is known, so that the usual level is not.
    pub is_young: bool,
}

/// What that means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    pub is_alert: bool,
    pub is_hot: bool,
    /// The shift that is the new normal from now on.
    pub adopted: Option<f64>,
}

impl Episodes {
    pub fn new() -> Self {
        Self {
            peak: 0.0,
            alert_rate: 0.0,
            previous_level: 0.0,
            shift: 0.0,
            since_spike: LONG_AGO,
            since_alert: LONG_AGO,
            n_open: 0,
            n_hot: 0,
            n_cold: 0,
            is_open: false,
        }
    }

    /// The threshold that the recent rate of alerts asks for.
    pub fn threshold(&self, config: &Config, pace: &Pace) -> f64 {
        let excess = f64::from(self.alert_rate) / pace.rate_limit;
        if excess > 1.0 { config.threshold * excess.sqrt().min(MAX_RISE) } else { config.threshold }
    }

    pub fn observe(&mut self, found: &Found, config: &Config, pace: &Pace) -> Verdict {
        let Found { spike, level, error, is_young } = *found;
        let threshold = self.threshold(config, pace);
        let mut is_alert = false;
        if spike >= threshold {
            let is_falling = (level as f32) < self.previous_level;
            let is_way_back = self.is_open && is_falling && f64::from(self.previous_level) >= config.level_hold;
            let is_new = self.since_spike >= config.refractory_points || spike >= ESCALATION * f64::from(self.peak);
            if is_new && !is_way_back {
                is_alert = true;
                self.peak = spike as f32;
            }
            self.since_spike = 0;
            self.n_hot = HOLD + 1;
        } else {
            self.since_spike = self.since_spike.saturating_add(1);
        }
        let mut adopted = None;
        if self.is_open {
            adopted = self.go_on(level, error, config, pace);
        } else if !is_young && level >= threshold {
            self.open(error);
            if self.since_alert >= config.refractory_points && self.since_spike >= config.refractory_points {
                is_alert = true;
                self.peak = level.max(spike) as f32;
            }
        } else if !is_young && spike >= threshold && level >= config.level_hold {
            self.open(error);
        }
        self.since_alert = if is_alert { 0 } else { self.since_alert.saturating_add(1) };
        self.previous_level = level as f32;
        let is_hot = self.is_open || self.n_hot > 0;
        self.n_hot = self.n_hot.saturating_sub(1);
        let alert = f64::from(u8::from(is_alert));
        self.alert_rate += (pace.rate_gain * (alert - f64::from(self.alert_rate))) as f32;
        Verdict { is_alert, is_hot, adopted }
    }

    fn open(&mut self, error: f64) {
        self.is_open = true;
        self.n_open = 0;
        self.n_cold = 0;
        self.shift = error as f32;
    }

    /// Another point of an open level; its shift where it has lasted.
    fn go_on(&mut self, level: f64, error: f64, config: &Config, pace: &Pace) -> Option<f64> {
        self.n_open = self.n_open.saturating_add(1);
        let n = self.n_open.min(SHIFT_MEMORY);
        self.shift += ((error - f64::from(self.shift)) / f64::from(n)) as f32;
        if level >= config.level_hold {
            self.n_cold = 0;
        } else {
            self.n_cold += 1;
            self.is_open = self.n_cold <= HOLD;
        }
        let has_lasted = f64::from(self.n_open) > pace.adopt_after;
        if has_lasted {
            self.is_open = false;
        }
        has_lasted.then_some(f64::from(self.shift))
    }

    pub fn write(&self, writer: &mut Writer) {
        writer.floats(&[self.peak, self.alert_rate, self.previous_level, self.shift]);
        for n in [self.since_spike, self.since_alert, self.n_open] {
            writer.word(n);
        }
        for n in [self.n_hot, self.n_cold, u8::from(self.is_open)] {
            writer.byte(n);
        }
    }

    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let [peak, alert_rate, previous_level, shift] = reader.floats()?;
        let [since_spike, since_alert, n_open] = [reader.word()?, reader.word()?, reader.word()?];
        let [n_hot, n_cold] = [reader.byte()?, reader.byte()?];
        let is_open = reader.is()?;
        Some(Self { peak, alert_rate, previous_level, shift, since_spike, since_alert, n_open, n_hot, n_cold, is_open })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000_000;

    /// Which of these (spike, level) points alert, and which are hot; from points with an error of 10 a level.
    fn judged(episodes: &mut Episodes, points: &[(f64, f64)]) -> (Vec<usize>, Vec<usize>) {
        let config = Config::default();
        let pace = Pace::of(&config, MINUTE, 1440 * MINUTE);
        let (mut alerts, mut hot) = (Vec::new(), Vec::new());
        for (idx, &(spike, level)) in points.iter().enumerate() {
            let found = Found { spike, level, error: 10.0, is_young: false };
            let verdict = episodes.observe(&found, &config, &pace);
            alerts.extend(verdict.is_alert.then_some(idx));
            hot.extend(verdict.is_hot.then_some(idx));
        }
        (alerts, hot)
    }

    #[test]
    fn a_spike_alerts_once_until_it_has_been_quiet_and_again_where_it_grows() {
        let mut points = vec![(0.5, 0.0); 30];
        points[2].0 = 6.0;
        points[4].0 = 7.0;
        points[8].0 = 9.1;
        points[20].0 = 5.5;
        let (alerts, hot) = judged(&mut Episodes::new(), &points);
        assert_eq!(alerts, [2, 8, 20]);
        assert_eq!(hot, [2, 3, 4, 5, 8, 9, 20, 21]);
    }

    #[test]
    fn a_level_is_one_episode_whose_end_is_no_alert() {
        let mut points = vec![(8.0, 6.0)];
        points.extend([(0.5, 3.0); 20]);
        points.extend([(0.5, 2.0), (0.5, 3.0)]);
        points.extend([(9.0, 2.4), (0.5, 0.1), (0.5, 0.1)]);
        let (alerts, hot) = judged(&mut Episodes::new(), &points);
        assert_eq!(alerts, [0], "a point below the lower score is forgiven, the way back is none");
        assert_eq!(hot, (0..=24).collect::<Vec<_>>());
        let (alerts, _) = judged(&mut Episodes::new(), &[(1.0, 4.0), (2.0, 5.4), (1.0, 5.6), (1.0, 6.0)]);
        assert_eq!(alerts, [2], "a level alone");
    }

    #[test]
    fn a_level_that_lasts_a_season_is_adopted_silently() {
        let (config, mut episodes) = (Config::default(), Episodes::new());
        let pace = Pace::of(&config, MINUTE, 1440 * MINUTE);
        let found = Found { spike: 8.0, level: 8.0, error: 10.0, is_young: false };
        assert!(episodes.observe(&found, &config, &pace).is_alert);
        let later = Found { spike: 0.5, ..found };
        let adopted = (0..2000).filter_map(|idx| Some((idx, episodes.observe(&later, &config, &pace).adopted?)));
        let adopted: Vec<(i32, f64)> = adopted.take(1).collect();
        assert_eq!(adopted, [(1440, 10.0)]);
    }

    #[test]
    fn too_many_alerts_raise_the_threshold_and_rest_lowers_it() {
        let (config, mut episodes) = (Config::default(), Episodes::new());
        let pace = Pace::of(&config, MINUTE, 1440 * MINUTE);
        let storm: Vec<(f64, f64)> = (0..20_000).map(|idx| (if idx % 20 == 0 { 8.0 } else { 0.5 }, 0.0)).collect();
        let (alerts, _) = judged(&mut episodes, &storm);
        assert!(alerts.len() < 600, "{} of a thousand", alerts.len());
        assert!(episodes.threshold(&config, &pace) > 1.2 * config.threshold);
        judged(&mut episodes, &vec![(0.5, 0.0); 50_000]);
        assert_eq!(episodes.threshold(&config, &pace), config.threshold);
    }
}
