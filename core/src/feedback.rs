//! What a person says of an alert, and what the detectors made of it: from the API to station 8 and back.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::alert::AlertId;

/// Whether an alert was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// What it tells of is normal.
    FalsePositive,
    /// Something was wrong.
    TruePositive,
}

impl Verdict {
    /// Lower-case name as in filters and in SQL.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FalsePositive => "false_positive",
            Self::TruePositive => "true_positive",
        }
    }
}

impl FromStr for Verdict {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "false_positive" => Ok(Self::FalsePositive),
            "true_positive" => Ok(Self::TruePositive),
            other => Err(format!("verdict `{other}` is none of false_positive, true_positive")),
        }
    }
}

/// One person's verdict on one alert. An alert has one, the latest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feedback {
    /// The alert.
    pub alert: AlertId,
    /// What was said of it.
    pub verdict: Verdict,
    /// Why, in that person's words; may be empty.
    pub comment: String,
    /// Who; may be empty.
    pub by: String,
    /// When, nanoseconds since the epoch.
    pub time_unix_nano: i64,
    /// What came of it; none while it waits for the detectors.
    pub outcome: Option<Applied>,
}

impl Feedback {
    /// The most characters of a comment.
    pub const MAX_COMMENT: usize = 4_096;
    /// The most characters of a person's name.
    pub const MAX_BY: usize = 256;
}

/// What the detectors made of a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Things that a detector changed because of it.
    pub n_learned: u64,
    /// In words: what was learned, or why nothing was.
    pub note: String,
}

#[cfg(test)]
mod tests {
    use super::Verdict;

    #[test]
    fn a_verdict_has_one_name_everywhere() {
        for verdict in [Verdict::FalsePositive, Verdict::TruePositive] {
            assert_eq!(verdict.name().parse(), Ok(verdict));
            assert_eq!(serde_json::to_string(&verdict).expect("a string"), format!("\"{}\"", verdict.name()));
        }
        assert!("maybe".parse::<Verdict>().expect_err("neither").contains("false_positive, true_positive"));
    }
}
