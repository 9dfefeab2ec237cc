//! Alerts that belong together, with what caused them (station 9).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::alert::{AlertId, AlertState, Severity, hex_id};

/// Identity of an incident: a hash of the first alert in it, so that a replay finds the same incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IncidentId(pub u64);

hex_id!(IncidentId);

/// What kind of thing a cause names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CauseKind {
    /// A service, by `service.name`.
    Service,
    /// An operation of a service.
    Operation,
    /// A host or node.
    Host,
    /// A log template.
    Template,
    /// A metric.
    Metric,
}

/// One suspect, with what speaks for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    /// What kind of thing it is.
    pub kind: CauseKind,
    /// Its name.
    pub name: String,
    /// Ranking score of the localizer; comparable only within one incident.
    pub score: f64,
    /// Share of the total score of all suspects, 0 to 1.
    pub confidence: f64,
    /// Sentences a person can check, with figures.
    pub evidence: Vec<String>,
    /// The localizer that named it.
    pub localizer: String,
}

/// One thing that went wrong, as far as the alerts show.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Identity, the same in a replay.
    pub id: IncidentId,
    /// Worst severity among its alerts.
    pub severity: Severity,
    /// Whether any of its alerts still fires.
    pub state: AlertState,
    /// Event time of its earliest abnormal record.
    pub start_unix_nano: i64,
    /// Event time of its latest abnormal record.
    pub end_unix_nano: i64,
    /// Its alerts, in order of their start, then id.
    pub alerts: Vec<AlertId>,
    /// Services with an alert in it, sorted.
    pub services: Vec<String>,
    /// Suspects, likeliest first.
    pub causes: Vec<Cause>,
    /// One sentence for a page title.
    pub summary: String,
}
