//! How a detector in service does: what operators see of stations 7 and 8 (`faultline detectors`, the API).

use serde::{Deserialize, Serialize};

/// Where a model stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelState {
    /// It scores, and its scores look as they did when it was calibrated.
    Active,
    /// It scores, but more sessions are abnormal to it than its calibration allows.
    Drifted,
    /// It returned something that is no score, and scores no more.
    Sidelined,
}

impl ModelState {
    /// Lower-case name as in tables and labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Drifted => "drifted",
            Self::Sidelined => "sidelined",
        }
    }
}

/// One detector of a deployment. Rates are over event time and over about the last four thousand sessions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DetectorStatus {
    /// Name of the detector.
    pub detector: String,
    /// Version of the model that decides.
    pub model_version: u64,
    /// Where that model stands.
    pub state: ModelState,
    /// Event time of this account, nanoseconds since the epoch.
    pub time_unix_nano: i64,
    /// Sessions judged since the model came into service.
    pub n_sessions: u64,
    /// Alerts raised since then.
    pub n_alerts: u64,
    /// Sessions a day.
    pub sessions_per_day: f64,
    /// False alerts a day that the budget grants this detector; none without a budget.
    pub promised_per_day: Option<f64>,
    /// Alerts a day.
    pub alerts_per_day: f64,
    /// False ones among these, as the false-discovery estimate has it.
    pub false_per_day: f64,
    /// The false-discovery rate in effect.
    pub false_discovery_rate: f64,
    /// Share of recent sessions that are abnormal beyond what the calibration allows, 0 to 1.
    pub drift: f64,
    /// Share of the sessions it was fitted on that hold a template which the parser has merged into another since, 0 to 1.
    #[serde(default)]
    pub merged_share: f64,
    /// A model fitted on recent sessions that scores beside it, when there is one.
    pub shadow: Option<ShadowStatus>,
    /// Version of the model before this one, to which a rollback returns.
    pub previous_version: Option<u64>,
}

/// A model that scores in the shadow of the one that decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShadowStatus {
    /// Version of the model.
    pub model_version: u64,
    /// Sessions it was fitted on.
    pub n_training: u64,
    /// Sessions held back, on which both were compared.
    pub n_validation: u64,
    /// Share of those that are abnormal to it.
    pub abnormal_share: f64,
    /// Share of those that are abnormal to the model that decides.
    pub active_abnormal_share: f64,
}
