//! What a detector says about a window (station 7).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::template::{RecordId, TemplateId};

/// A raw score: higher is more anomalous, comparable only within one model. Calibration turns it into a p-value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// The score. A model that returns a non-finite one is sidelined.
    pub value: f64,
    /// Index in the window's records of the record that decided the score.
    pub culprit: usize,
}

/// Why a window scored as it did. Built only for windows that become alerts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// One sentence that a person can check against the records.
    pub summary: String,
    /// The template that was seen where the detector took offence.
    pub seen: Option<TemplateId>,
    /// What the detector expected there instead, likeliest first.
    pub expected: Vec<Expected>,
    /// The record that decided the score.
    pub culprit: Option<RecordId>,
    /// Records worth showing, in order, the culprit among them. At most [`Evidence::MAX_RECORDS`].
    pub records: Vec<RecordId>,
    /// Named figures behind the score, such as `rank`, `nll` or `lag_ms`.
    pub figures: BTreeMap<String, f64>,
}

impl Evidence {
    /// The most records an alert carries.
    pub const MAX_RECORDS: usize = 32;
}

/// One expectation of a detector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Expected {
    /// The template.
    pub template: TemplateId,
    /// How likely the detector held it, 0 to 1.
    pub probability: f64,
}
