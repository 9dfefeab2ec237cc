//! Station 8, the account of one detector: how many sessions it judges, what it has found, what that may have cost.
//!
//! Everything is over event time and fades with the mean age of [`HORIZON`](crate::discovery::HORIZON) sessions, so that a
//! day and a night each have their own rates. Cost: constant a session. Memory: 1.2 KiB a detector.

use crate::{
    alerting::AlertConfig,
    budget::FALSE_PER_LEVEL,
    calibrate::Calibration,
    discovery::{Discoveries, HORIZON},
    drift::Drift,
};

const DAY_NANOS: f64 = 86_400e9;

/// See the file's documentation.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    pub(crate) detector: &'static str,
    pub(crate) discoveries: Discoveries,
    pub(crate) drift: Drift,
    /// Sessions judged, alerts raised and false ones expected among them since the model came into service.
    pub(crate) n_sessions: u64,
    pub(crate) n_alerts: u64,
    /// The same, faded.
    recent: Recent,
    /// None before the first session has begun.
    level: Option<f64>,
    /// False alerts that may be expected beyond those that come in with time; a day's share at first.
    credit: Option<f64>,
    newest_unix_nano: Option<i64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Recent {
    n_sessions: f64,
    n_alerts: f64,
    n_false: f64,
    nanos: f64,
}

impl Ledger {
    pub(crate) fn of(detector: &'static str) -> Self {
        Self {
            detector,
            discoveries: Discoveries::default(),
            drift: Drift::default(),
            n_sessions: 0,
            n_alerts: 0,
            recent: Recent::default(),
            level: None,
            credit: None,
            newest_unix_nano: None,
        }
    }

    /// Takes the sessions of the calibration for recent ones, out of `n_sessions` that came within `span_nanos`.
    pub(crate) fn prime(&mut self, calibration: &Calibration, n_sessions: u64, span_nanos: i64) {
        self.drift = Drift::against(calibration);
        for p_value in calibration.own_p_values() {
            self.discoveries.begin_session();
            self.discoveries.observe(p_value);
        }
        // No more than a horizon of them, as if they had faded.
        let share = (HORIZON / n_sessions.max(1) as f64).min(1.0);
        self.recent.n_sessions = n_sessions as f64 * share;
        self.recent.nanos = span_nanos.max(0) as f64 * share;
    }

    /// Another session has begun at this event time.
    pub(crate) fn begin_session(&mut self, at_unix_nano: i64, rules: &AlertConfig, n_detectors: usize) {
        const FADE: f64 = 1.0 - 1.0 / HORIZON;
        self.discoveries.begin_session();
        self.n_sessions += 1;
        let newest = self.newest_unix_nano.map_or(at_unix_nano, |newest| newest.max(at_unix_nano));
        let nanos = newest.abs_diff(self.newest_unix_nano.unwrap_or(newest));
        self.newest_unix_nano = Some(newest);
        let recent = &mut self.recent;
        recent.n_sessions = recent.n_sessions * FADE + 1.0;
        recent.n_alerts *= FADE;
        recent.n_false *= FADE;
        recent.nanos = recent.nanos * FADE + nanos as f64;
        self.spend(nanos as f64 / DAY_NANOS, rules, n_detectors);
    }

    /// Sets the level for this session. A day's share of the budget may be spent at once: a detector that has just come into
    /// service, whose calibration is still coarse, is as outspoken as the false-discovery rate lets it be; when the share is
    /// spent it keeps to the rate at which it comes in.
    fn spend(&mut self, days: f64, rules: &AlertConfig, n_detectors: usize) {
        let Some(share) = rules.budget.a_day().map(|budget| budget / n_detectors.max(1) as f64) else {
            self.level = Some(rules.false_discovery_rate);
            return;
        };
        let cost = |level: f64| FALSE_PER_LEVEL * level / HORIZON;
        let credit = self.credit.unwrap_or(share) + share * days;
        let steady = rules.budget.level(self.sessions_per_day(), n_detectors).min(rules.false_discovery_rate);
        let has_credit = credit >= cost(rules.false_discovery_rate);
        let level = if has_credit { rules.false_discovery_rate } else { steady };
        self.level = Some(level);
        self.credit = Some((credit - cost(level)).clamp(0.0, share));
    }

    /// An alert was raised; it is false with about this probability.
    pub(crate) fn alerted(&mut self, q_value: f64) {
        self.n_alerts += 1;
        self.recent.n_alerts += 1.0;
        self.recent.n_false += q_value.min(1.0);
    }

    /// The false-discovery level that keeps the rate and the budget.
    pub(crate) fn level(&self, rules: &AlertConfig) -> f64 {
        self.level.unwrap_or(rules.false_discovery_rate)
    }

    /// None while no time has passed.
    pub(crate) fn sessions_per_day(&self) -> Option<f64> {
        self.per_day(self.recent.n_sessions)
    }

    pub(crate) fn alerts_per_day(&self) -> Option<f64> {
        self.per_day(self.recent.n_alerts)
    }

    pub(crate) fn false_per_day(&self) -> Option<f64> {
        self.per_day(self.recent.n_false)
    }

    fn per_day(&self, n: f64) -> Option<f64> {
        (self.recent.nanos > 0.0).then(|| n * DAY_NANOS / self.recent.nanos)
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::budget::Budget;

    const SECOND: i64 = 1_000_000_000;

    fn rules(budget: Budget) -> AlertConfig {
        AlertConfig { budget, ..AlertConfig::default() }
    }

    #[test]
    fn rates_follow_the_recent_past() {
        let mut ledger = Ledger::of("test");
        assert_eq!(ledger.sessions_per_day(), None);
        let mut at = 0;
        for spacing in [SECOND, 10 * SECOND] {
            for n in 0..40_000 {
                at += spacing;
                ledger.begin_session(at, &rules(Budget::UNLIMITED), 1);
                if n % 100 == 0 {
                    ledger.alerted(0.1);
                }
            }
            let per_day = 86_400.0 * SECOND as f64 / spacing as f64;
            let sessions = ledger.sessions_per_day().expect("time has passed");
            assert!((sessions / per_day - 1.0).abs() < 0.01, "{sessions} of {per_day}");
            assert!((ledger.alerts_per_day().expect("as above") / per_day - 0.01).abs() < 1e-3);
            assert!((ledger.false_per_day().expect("as above") / per_day - 1e-3).abs() < 1e-4);
        }
    }

    #[test]
    fn a_budget_is_kept_within_a_factor_of_two_where_nothing_fails() {
        // Two thousand normal sessions an hour, for so many days that a hundred false alerts are granted.
        for (budget, n_detectors) in [(2.0, 1), (0.5, 1), (5.0, 4)] {
            let spacing = 1_800 * SECOND / 1000;
            let rules = rules(Budget::per_day(budget));
            let mut rng = ChaCha8Rng::seed_from_u64(7);
            let mut ledger = Ledger::of("test");
            let n_days = 100.0 / budget * n_detectors as f64;
            let n_sessions = (n_days * 48_000.0) as u64;
            let (mut at, mut n_alerts) = (0, 0.0);
            for _ in 0..n_sessions {
                at += spacing;
                ledger.begin_session(at, &rules, n_detectors);
                let p_value = 1.0 - rng.random::<f64>();
                if p_value > 0.01 {
                    continue;
                }
                ledger.discoveries.observe(p_value);
                let level = ledger.level(&rules);
                n_alerts += f64::from(u8::from(ledger.discoveries.q_value(p_value, 0.01) <= level));
            }
            let ratio = n_alerts / n_days / (budget / n_detectors as f64);
            assert!((0.5..2.0).contains(&ratio), "{ratio:.2} times {budget} a day shared by {n_detectors}");
        }
    }

    /// Normal sessions whose scores wander for good, judged as the path does; false alerts over those that are promised.
    fn observed_over_promised(score: impl Fn(f64, f64) -> f64, follows: bool) -> f64 {
        let (budget, spacing, n_sessions) = (2.0, 1_800 * SECOND / 1000, 2_400_000_u32);
        let rules = rules(Budget::per_day(budget));
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut draw = |time: f64| score(-(1.0 - rng.random::<f64>()).ln(), time);
        let calibration = Calibration::fit(&(0..4000).map(|_| draw(0.0)).collect::<Vec<_>>());
        let mut ledger = Ledger::of("test");
        ledger.prime(&calibration, 4000, 4000 * spacing);
        let mut n_alerts = 0.0;
        for n in 0..n_sessions {
            ledger.begin_session(i64::from(n) * spacing, &rules, 1);
            let score = draw(f64::from(n) / f64::from(n_sessions));
            let fitted = calibration.p_value(score);
            let shift = ledger.drift.shift().filter(|_| follows);
            let p_value = shift.map_or(fitted, |shift| calibration.p_value(shift.undo(score)).max(fitted));
            ledger.drift.observe(fitted);
            if p_value <= 0.01 {
                ledger.discoveries.observe(p_value);
                let level = ledger.level(&rules);
                n_alerts += f64::from(u8::from(ledger.discoveries.q_value(p_value, 0.01) <= level));
            }
        }
        n_alerts / (f64::from(n_sessions) / 48_000.0 * budget)
    }

    #[test]
    fn a_budget_is_kept_within_a_factor_of_two_while_scores_drift() {
        // Up and stretched by as much as half again, there and back; steadily up; in steps, as after deploys.
        let wave = |x: f64, time: f64| x * (1.0 + 0.5 * (time * 20.0).sin().abs()) + (time * 20.0).sin().abs();
        let slope = |x: f64, time: f64| x + 2.0 * time;
        let steps = |x: f64, time: f64| x * (1.0 + 0.25 * (time * 4.0).floor());
        type Scores<'a> = (&'a str, &'a dyn Fn(f64, f64) -> f64);
        let scores: [Scores<'_>; 4] = [("none", &|x, _| x), ("wave", &wave), ("slope", &slope), ("steps", &steps)];
        for (name, score) in scores {
            let ratio = observed_over_promised(score, true);
            assert!((0.5..2.0).contains(&ratio), "{name}: {ratio:.2} times the promise");
        }
        let unfollowed = observed_over_promised(wave, false);
        assert!(unfollowed > 100.0, "without following it is as bad as that: {unfollowed:.2}");
    }
}
