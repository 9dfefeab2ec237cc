//! A decision that something is wrong with one key (station 8).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{hash::StableHash, incident::IncidentId, score::Evidence};

/// Identity of an alert: a hash of what it is about, so that a replay writes the same alert and never a second one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlertId(pub u64);

impl AlertId {
    /// The id of the alert that `detector` at `model_version` raises on `stream`/`session` for the episode that
    /// begins at `start_unix_nano`.
    #[must_use]
    pub fn of(detector: &str, model_version: u64, stream: &str, session: &str, start_unix_nano: i64) -> Self {
        let hash = StableHash::new().text(detector).number(model_version).text(stream).text(session);
        Self(hash.bytes(&start_unix_nano.to_le_bytes()).finish())
    }
}

/// An id is sixteen hexadecimal digits wherever a person or a script sees it.
macro_rules! hex_id {
    ($id:ty) => {
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl FromStr for $id {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                u64::from_str_radix(text, 16).map(Self)
            }
        }

        impl Serialize for $id {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $id {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use hex_id;

hex_id!(AlertId);

/// How bad it looks; the `severity` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Worth looking at.
    Warning,
    /// Worth waking someone.
    Critical,
}

impl Severity {
    /// Lower-case name as in labels and filters.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl FromStr for Severity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "info" => Ok(Self::Info),
            "warning" => Ok(Self::Warning),
            "critical" => Ok(Self::Critical),
            other => Err(format!("severity `{other}` is none of info, warning, critical")),
        }
    }
}

/// Whether an alert's episode goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertState {
    /// The episode goes on.
    Firing,
    /// Its session has closed or fallen quiet.
    Resolved,
}

impl AlertState {
    /// Lower-case name as in labels and filters.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

/// A calibrated, deduplicated statement that one key behaves abnormally.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Identity, the same in a replay.
    pub id: AlertId,
    /// Name of the detector, as in `REGISTRY`.
    pub detector: String,
    /// Version of the fitted model that scored.
    pub model_version: u64,
    /// Kind of telemetry, such as `logs`.
    pub signal: String,
    /// Stream of the key.
    pub stream: String,
    /// Session of the key.
    pub session: String,
    /// Service that wrote the deciding record; empty where the source names none.
    pub service: String,
    /// How bad it looks.
    pub severity: Severity,
    /// Whether the episode goes on.
    pub state: AlertState,
    /// Smallest p-value in the episode.
    pub p_value: f64,
    /// Raw score at that moment.
    pub score: f64,
    /// Event time at which the episode began.
    pub start_unix_nano: i64,
    /// Event time of its latest abnormal record.
    pub end_unix_nano: i64,
    /// Abnormal windows folded into this alert.
    pub n_windows: u64,
    /// Why.
    pub evidence: Evidence,
    /// The incident it belongs to, once correlation has decided.
    pub incident: Option<IncidentId>,
}

#[cfg(test)]
mod tests {
    use super::AlertId;

    #[test]
    fn ids_are_sixteen_hexadecimal_digits_and_parse_back() {
        let id = AlertId::of("deeplog", 1, "hdfs", "blk_1", 5);
        let text = id.to_string();
        assert_eq!(text.len(), 16);
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(serde_json::to_string(&id).expect("a string"), format!("\"{text}\""));
        assert_ne!(id, AlertId::of("deeplog", 1, "hdfs", "blk_1", 6), "another span is another alert");
    }
}
