//! What a monitor is told: which detectors run, how they are fitted, and when there is enough to fit on.

use std::collections::BTreeMap;

use faultline_core::Signal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    adaptation::AdaptationConfig,
    alerting::AlertConfig,
    error::Error,
    registry::{REGISTRY, entry},
};

/// Which detectors run, how they are fitted, and when their scores become alerts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MonitorConfig {
    /// Detectors to run, each with the configuration keys to change. Default, unchanged: `new-template`, `logsed`,
    /// `severe-incident` and `ensemble` for logs, `profile-forecast` and `mahalanobis` for metrics, `trace-vector` and
    /// `service-latency` for traces; `faultline detectors` shows all.
    pub detectors: BTreeMap<String, Value>,
    /// When there is enough normal operation to fit.
    pub warm_up: WarmUp,
    /// Share of the warm-up's sessions, taken evenly over time, that calibrate instead of fitting. Default 0.3.
    pub calibration_share: f64,
    /// Largest share of the warm-up's sessions that may be abnormal: so many scores are left out of a detector's calibration
    /// where they lie together, far from the rest. Default 0: what the warm-up holds is normal, however rare. Raise it when the
    /// warm-up is known to hold failures; a rare kind of normal session may then alert.
    pub contamination: f64,
    /// Seed of everything random in fitting. Default 0.
    pub seed: u64,
    /// How detectors follow a system that changes.
    pub adaptation: AdaptationConfig,
    /// When scores become alerts. A section of its own in the configuration file.
    #[serde(skip)]
    pub alerting: AlertConfig,
}

/// Warm-up is over when every condition that is given holds, or when `max_records` is reached. Logs and traces warm up each by
/// themselves. Services have steps instead of sessions and warm up for `span_ms`, or an hour; so do series and instances, or a
/// day, where a detector of theirs cannot do without.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WarmUp {
    /// Ended sessions, or traces. Default 3400, so that the calibration's share is a thousand; no condition when `span_ms` or
    /// `records` is given.
    pub sessions: Option<u64>,
    /// Milliseconds of event time. Default none; a day covers a daily rhythm.
    pub span_ms: Option<u64>,
    /// Log records, in ended sessions or not. Default none; for replaying a file whose first part is for training.
    pub records: Option<u64>,
    /// Records, spans, times or points to keep, a memory bound (32 bytes each, 48 where a detector reads a record's numbers, 40
    /// a span, 8 a point).
    /// Default 2000000.
    pub max_records: u64,
}

impl Default for MonitorConfig {
    fn default() -> Self {
        Self {
            detectors: REGISTRY
                .iter()
                .filter(|entry| entry.is_default)
                .map(|entry| (entry.name.to_owned(), Value::Object(Default::default())))
                .collect(),
            warm_up: WarmUp::default(),
            calibration_share: 0.3,
            contamination: 0.0,
            seed: 0,
            adaptation: AdaptationConfig::default(),
            alerting: AlertConfig::default(),
        }
    }
}

impl Default for WarmUp {
    fn default() -> Self {
        Self { sessions: None, span_ms: None, records: None, max_records: 2_000_000 }
    }
}

impl WarmUp {
    /// Sessions that end the warm-up where no condition is given.
    const SESSIONS: u64 = 3_400;

    /// What detectors that score `signal` wait for.
    pub(super) fn asked(&self, signal: Signal) -> Asked {
        const HOUR_MS: u64 = 3_600_000;
        let Self { sessions, span_ms, records, .. } = *self;
        match signal {
            Signal::Logs => {
                let is_default = span_ms.is_none() && records.is_none();
                Asked { sessions: sessions.or(is_default.then_some(Self::SESSIONS)), span_ms, records }
            }
            Signal::Traces => {
                let sessions = sessions.or(span_ms.is_none().then_some(Self::SESSIONS));
                Asked { sessions, span_ms, records: None }
            }
            Signal::Services => Asked { sessions: None, span_ms: span_ms.or(Some(HOUR_MS)), records: None },
            Signal::Series | Signal::Groups => {
                Asked { sessions: None, span_ms: span_ms.or(Some(24 * HOUR_MS)), records: None }
            }
        }
    }
}

/// What a warm-up waits for: all that is given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) sessions: Option<u64>,
    pub(super) span_ms: Option<u64>,
    pub(super) records: Option<u64>,
}

impl MonitorConfig {
    /// Whether everything is known and within its range.
    ///
    /// # Errors
    /// When a detector or one of its keys is unknown (the nearest one is named), none is enabled, or a value is out of
    /// range.
    pub fn check(&self) -> Result<(), Error> {
        if self.detectors.is_empty() {
            return Err(Error::Config { key: "detectors", reason: "no detector is enabled".to_owned() });
        }
        for (name, detector_config) in &self.detectors {
            let wrap = |cause| Error::Detector { name: name.clone(), cause };
            entry(name).and_then(|entry| entry.complete_config(detector_config)).map_err(wrap)?;
        }
        if !(self.calibration_share > 0.0 && self.calibration_share < 1.0) {
            let reason = format!("must be between 0 and 1, got {}", self.calibration_share);
            return Err(Error::Config { key: "calibration_share", reason });
        }
        if !(0.0..0.5).contains(&self.contamination) {
            let reason = format!("must be from 0 to below 0.5, got {}", self.contamination);
            return Err(Error::Config { key: "contamination", reason });
        }
        if self.warm_up.max_records == 0 {
            return Err(Error::Config { key: "warm_up.max_records", reason: "must be at least 1".to_owned() });
        }
        self.adaptation.check()
    }
}
