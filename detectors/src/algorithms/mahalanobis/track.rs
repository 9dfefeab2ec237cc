//! The distances of one instance over time: smoothed, against their own running median, as episodes.
//!
//! Smoothing (half-life five rows) takes out the noise of single samples. An episode is a ratio to the running median,
//! since a machine may shift for good and any fixed quantile would then be exceeded for ever. The median is followed by steps
//! whose length follows the mean distance, in logarithms, through episodes too. It is not taken for less than a tenth of what
//! independent columns give, so that an instance which stood still is not in an episode at the first tick.

use super::Config;
use crate::{
    bytes::{Reader, Writer},
    surprise,
};

/// Rows after which the smoothed distance has forgotten half.
const SMOOTHING: f64 = 5.0;

/// Share of the root of the number of columns below which no median is.
const LEAST_MEDIAN: f64 = 0.1;

/// Times the largest ratio that was told from which an open episode is told again.
const ESCALATION: f64 = 1.5;

/// Ratios end here, as logarithms.
const MOST: f64 = 50.0;

/// See the file's documentation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Track {
    sum: f64,
    weight: f64,
    /// Logarithm of the running median, and how far distances are from it.
    median: f64,
    spread: f64,
    n_rows: u64,
    /// The largest ratio of the open episode that was told.
    told: f64,
    pub is_open: bool,
}

/// How fast an instance is followed, and from which ratios on.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    smoothing: f64,
    gain: f64,
    /// Logarithms.
    open: f64,
    close: f64,
    least: f64,
}

/// A row as it was judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tracked {
    /// The smoothed distance.
    pub score: f64,
    /// The same against its running median.
    pub ratio: f64,
    /// Whether an episode begins.
    pub is_onset: bool,
    /// Whether one goes on.
    pub is_hot: bool,
    /// Whether it begins or has become much worse.
    pub is_alert: bool,
}

impl Pace {
    /// That of an instance of so many columns whose rows are so far apart.
    pub fn of(config: &Config, row_nanos: f64, n_columns: usize) -> Self {
        let half_life = (config.median_half_life_ms as f64 * 1e6 / row_nanos).max(1.0);
        let share = |half_life: f64| 1.0 - 0.5f64.powf(1.0 / half_life);
        Self {
            smoothing: share(SMOOTHING),
            gain: share(half_life),
            open: config.open_ratio.ln(),
            close: config.close_ratio.ln(),
            least: (LEAST_MEDIAN * (n_columns as f64).sqrt()).ln(),
        }
    }
}

impl Track {
    pub fn observe(&mut self, distance: f64, pace: &Pace) -> Tracked {
        self.sum = self.sum * (1.0 - pace.smoothing) + distance * pace.smoothing;
        self.weight = self.weight * (1.0 - pace.smoothing) + pace.smoothing;
        let score = self.sum / self.weight;
        let logarithm = (score + 1e-9).ln();
        if self.n_rows == 0 {
            (self.median, self.spread) = (logarithm, 1.0);
        }
        let excess = (logarithm - self.median.max(pace.least)).min(MOST);
        let ratio = excess.exp();
        let is_onset = !self.is_open && excess >= pace.open;
        self.is_open = is_onset || (self.is_open && excess >= pace.close);
        let is_alert = is_onset || (self.is_open && ratio >= ESCALATION * self.told);
        if is_alert {
            self.told = ratio;
        }
        self.follow(logarithm - self.median, pace);
        Tracked { score, ratio, is_onset, is_hot: self.is_open, is_alert }
    }

    /// Goes on with the episode that was open before a replay.
    pub fn carry(&mut self, before: &Self) {
        if before.is_open {
            self.is_open = true;
            self.told = self.told.max(before.told);
        }
    }

    /// The median takes a step towards a row that is so far from it.
    fn follow(&mut self, distance: f64, pace: &Pace) {
        self.n_rows = self.n_rows.saturating_add(1);
        let gain = pace.gain.max(1.0 / (self.n_rows as f64 + 1.0));
        let sign = |is_more: bool| if is_more { 1.0 } else { -1.0 };
        let is_far = distance.abs() > self.spread;
        self.median += gain * 1.5 * self.spread * sign(distance > 0.0);
        self.spread = (self.spread + gain * self.spread * sign(is_far)).max(0.02);
    }

    pub fn write(&self, writer: &mut Writer) {
        for value in [self.sum, self.weight, self.median, self.spread, self.told] {
            writer.double(value);
        }
        writer.number(self.n_rows);
        writer.byte(u8::from(self.is_open));
    }

    pub fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let [sum, weight] = [reader.double()?, reader.double()?];
        let [median, spread, told] = [reader.double()?, reader.double()?, reader.double()?];
        Some(Self { sum, weight, median, spread, told, n_rows: reader.number()?, is_open: reader.is()? })
    }
}

impl Tracked {
    /// See [`crate::surprise`]. What is no alert is read on the way from the median to the ratio that opens an episode.
    pub fn surprise(&self, config: &Config) -> f64 {
        if self.is_alert {
            surprise::of_alert(self.ratio / config.open_ratio)
        } else {
            surprise::of_rest(self.ratio.ln() / config.open_ratio.ln())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows that alert, and those that are hot.
    fn judged(distances: impl Iterator<Item = f64>) -> (Vec<usize>, Vec<usize>) {
        let config = Config::default();
        let pace = Pace::of(&config, 60e9, 9);
        let (mut track, mut alerts, mut hot) = (Track::default(), Vec::new(), Vec::new());
        for (idx, distance) in distances.enumerate() {
            let tracked = track.observe(distance, &pace);
            assert!(tracked.score.is_finite() && tracked.ratio.is_finite() && tracked.surprise(&config).is_finite());
            alerts.extend(tracked.is_alert.then_some(idx));
            hot.extend(tracked.is_hot.then_some(idx));
        }
        (alerts, hot)
    }

    /// Distances of about 2.
    fn usual(idx: usize) -> f64 {
        2.0 + 0.5 * ((idx * idx) as f64 * 0.618_034).sin()
    }

    #[test]
    fn an_outburst_is_one_episode_that_is_told_again_only_where_it_grows() {
        let (alerts, hot) = judged((0..2000).map(|idx| if (1000..1100).contains(&idx) { 30.0 } else { usual(idx) }));
        assert_eq!(alerts.first(), Some(&1001), "{alerts:?}");
        assert!(alerts.len() <= 4 && alerts.iter().all(|alert| (1000..1020).contains(alert)), "{alerts:?}");
        assert!(hot.first() == Some(&1001) && hot.len() >= 95 && hot.len() < 130, "{} {hot:?}", hot.len());
    }

    #[test]
    fn a_shift_for_good_is_over_in_the_end() {
        let (alerts, hot) = judged((0..8000).map(|idx| if idx < 2000 { usual(idx) } else { 10.0 + usual(idx) }));
        assert!(!alerts.is_empty() && hot.last().is_some_and(|last| *last < 2000 + 2000), "{:?}", hot.last());
    }

    #[test]
    fn one_that_stood_still_is_not_in_an_episode_at_the_first_tick() {
        let tick = |idx: usize| if idx % 100 == 99 { 0.5 } else { 0.0 };
        assert_eq!(judged((0..3000).map(tick)).0, Vec::<usize>::new());
        assert_eq!(judged((0..3000).map(|idx| if idx < 2000 { 0.0 } else { 20.0 })).0.first(), Some(&2000));
    }
}
