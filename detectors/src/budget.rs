//! Station 8, the alert budget: how many false alerts a day a user accepts, and what that asks of each detector.
//!
//! A budget bounds false alerts, not alerts: a system that fails a hundred times a day is told of a hundred times. So it is no
//! cap on alerts but a limit on the false-discovery level of `discovery`. Where nothing fails, a sliding horizon of sessions
//! holds a false discovery about [`FALSE_PER_LEVEL`]·q times at level q (a simulation with q from .001 to .35 gave
//! factors from .8 to 1.5; a test of `ledger` keeps budgets within a factor of two). A detector that judges λ sessions a day passes λ / HORIZON horizons,
//! so to be granted b false alerts a day its level must be at most b · HORIZON / (λ · FALSE_PER_LEVEL). Detectors share a
//! budget equally; those that agree with each other spend less than it. A day's share may be spent at once (`ledger`).
//!
//! The busier a system, the stronger must the evidence be: one odd session in a million is chance, thirty of one kind in a second
//! are not. Where scores move, `drift` reads them where they stand. Fails as p-values fail: when the tail of normal scores changes; `drift` tells of it. Cost: a division a session.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::discovery::HORIZON;

/// False discoveries in one horizon of normal sessions, for each unit of the level.
pub const FALSE_PER_LEVEL: f64 = 1.3;

/// False alerts that a user accepts, over all detectors: `5 per day`, `1 per hour`, `2 per week` or `unlimited`.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema)]
#[schemars(with = "String")]
pub struct Budget {
    n: f64,
    unit: Option<Unit>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Unit {
    Minute,
    Hour,
    Day,
    Week,
    Month,
}

impl Unit {
    const ALL: [(Self, &'static str, f64); 5] = [
        (Self::Minute, "minute", 1440.0),
        (Self::Hour, "hour", 24.0),
        (Self::Day, "day", 1.0),
        (Self::Week, "week", 1.0 / 7.0),
        (Self::Month, "month", 1.0 / 30.0),
    ];

    fn entry(self) -> (&'static str, f64) {
        let entry = Self::ALL.iter().find(|entry| entry.0 == self);
        entry.map_or(("day", 1.0), |entry| (entry.1, entry.2))
    }
}

impl Budget {
    /// No bound beside the false-discovery rate.
    pub const UNLIMITED: Self = Self { n: f64::INFINITY, unit: None };

    /// `n` a day.
    #[must_use]
    pub const fn per_day(n: f64) -> Self {
        Self { n, unit: Some(Unit::Day) }
    }

    /// False alerts a day; none when unlimited.
    #[must_use]
    pub fn a_day(self) -> Option<f64> {
        self.unit.map(|unit| self.n * unit.entry().1)
    }

    /// The false-discovery level at which `n_detectors` of which one judges `sessions_per_day` keep the budget. Infinite when
    /// unlimited or when it is not known how many sessions there are.
    #[must_use]
    pub fn level(self, sessions_per_day: Option<f64>, n_detectors: usize) -> f64 {
        let (Some(budget), Some(sessions_per_day)) = (self.a_day(), sessions_per_day) else { return f64::INFINITY };
        let horizons_per_day = sessions_per_day / HORIZON;
        budget / n_detectors.max(1) as f64 / horizons_per_day / FALSE_PER_LEVEL
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::per_day(5.0)
    }
}

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse =
            || format!("`{text}` is not of the form `5 per day` (minute, hour, day, week or month) or `unlimited`");
        if text.trim() == "unlimited" {
            return Ok(Self::UNLIMITED);
        }
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let (&[n, "per", unit] | &[n, "a", unit] | &[n, "an", unit]) = &words[..] else { return Err(refuse()) };
        let n: f64 = n.parse().map_err(|_| refuse())?;
        let unit = Unit::ALL.iter().find(|entry| entry.1 == unit).map(|entry| entry.0).ok_or_else(refuse)?;
        if n > 0.0 && n.is_finite() { Ok(Self { n, unit: Some(unit) }) } else { Err(refuse()) }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unit {
            Some(unit) => write!(f, "{} per {}", self.n, unit.entry().0),
            None => f.write_str("unlimited"),
        }
    }
}

impl Serialize for Budget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Budget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_read_and_written_as_people_say_it() {
        for (text, a_day) in [("5 per day", 5.0), ("0.5 per hour", 12.0), ("14 per week", 2.0), ("1 a minute", 1440.0)]
        {
            let budget: Budget = text.parse().expect(text);
            assert!((budget.a_day().expect("limited") - a_day).abs() < 1e-9, "{text}");
        }
        assert_eq!("unlimited".parse(), Ok(Budget::UNLIMITED));
        assert_eq!(Budget::default().to_string(), "5 per day");
        for bad in
            ["", "5", "five per day", "5 per fortnight", "0 per day", "-1 per day", "inf per day", "5 per day each"]
        {
            let reason = bad.parse::<Budget>().expect_err(bad);
            assert!(reason.contains("5 per day"), "{reason}");
        }
    }

    #[test]
    fn the_busier_the_stricter() {
        let budget = Budget::per_day(4.0);
        let level = |sessions_per_day| budget.level(Some(sessions_per_day), 4);
        assert!((level(HORIZON) - 1.0 / FALSE_PER_LEVEL).abs() < 1e-12, "one a horizon");
        assert!((level(100.0 * HORIZON) - 0.01 / FALSE_PER_LEVEL).abs() < 1e-12);
        assert_eq!(Budget::UNLIMITED.level(Some(1e9), 4), f64::INFINITY);
        assert_eq!(budget.level(None, 4), f64::INFINITY);
    }
}
