//! What can be broken. A fault hits one service; everything else that goes wrong follows from the calls.

use serde::{Deserialize, Serialize};

/// A fault at one service for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The culprit.
    pub service: String,
    /// How it breaks.
    pub kind: FaultKind,
    /// Virtual time at which it begins, nanoseconds.
    pub from_ns: u64,
    /// Virtual time at which it is over, nanoseconds.
    pub until_ns: u64,
    /// How badly; each kind says in which unit.
    pub severity: f64,
}

/// How a service breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// Every visit takes `severity` milliseconds (± 10 %) longer before it begins, without holding a server: a lock, a
    /// slow disk, a slow link. The culprit logs nothing unusual; only its callers do, when their patience ends.
    Delay,
    /// A share `severity` (0 to 1) of visits fails with an exception, which the culprit logs with its stack trace.
    Exception,
    /// A share `severity` (0 to 1) of connections is refused: that share of the instances is dead. At 1 the culprit is
    /// silent altogether; the callers log the refusals.
    Unavailable,
    /// Service times stretch by the factor `severity` (≥ 1) because something else eats the processor: visits hold
    /// servers longer, the queue fills, the culprit warns of throttling every two seconds.
    CpuHog,
}

impl FaultKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Delay, Self::Exception, Self::Unavailable, Self::CpuHog];

    /// Lower-case name as in configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Delay => "delay",
            Self::Exception => "exception",
            Self::Unavailable => "unavailable",
            Self::CpuHog => "cpu_hog",
        }
    }

    /// A severity at which users notice, for the built-in shop.
    #[must_use]
    pub fn typical_severity(self) -> f64 {
        match self {
            Self::Delay => 3_000.0,
            Self::Exception => 0.8,
            Self::Unavailable => 1.0,
            Self::CpuHog => 60.0,
        }
    }

    /// Why `severity` cannot be meant, if so.
    pub(crate) fn refuse(self, severity: f64) -> Option<String> {
        let (range, unit) = match self {
            Self::Delay => (0.0..=3_600_000.0, "milliseconds"),
            Self::Exception => (0.0..=1.0, "a share of visits"),
            Self::Unavailable => (0.0..=1.0, "a share of connections"),
            Self::CpuHog => (1.0..=1e6, "a factor"),
        };
        (!range.contains(&severity))
            .then(|| format!("{severity} is not {unit} between {} and {}", range.start(), range.end()))
    }
}
