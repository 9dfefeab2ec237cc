//! What detectors say of rows beside a score: which rows belong to an episode, and with which one an alert begins.
//!
//! Two detectors keep two accounts: where an anomaly begins, and how long it lasts. One score a row cannot tell both, and as windows
//! they tell onsets only, so their rows are judged by what they say: plain points by the rows of episodes, the kd7 rule and alerts
//! by onsets. Their thresholds are constants of the detectors, the same for every series. Average precision and the thresholds that are
//! chosen by labels are of scores still: for `profile-forecast` the largest of the spike score, the one before it and the level
//! score, and for onsets the spike score; for `mahalanobis` the distance.

use std::time::Instant;

use faultline_detectors::{
    Algorithm,
    algorithms::{
        mahalanobis::{self, Mahalanobis},
        profile_forecast::{self, ProfileForecast},
    },
};

use super::points::{Contender, Rows, Scored};

/// What a detector says of each row.
#[derive(Debug)]
pub struct Verdicts {
    /// Whether it belongs to an episode.
    pub is_hot: Vec<bool>,
    /// Whether an alert begins with it.
    pub is_alert: Vec<bool>,
    /// What onsets are ranked by; not a number where nothing is said.
    pub onsets: Vec<f64>,
}

impl Contender {
    /// As [`Contender::scored`], with verdicts where it is a detector that has them. None when it cannot be fitted.
    pub fn judged(&self, rows: &Rows<'_>, n_train: usize, significance: f64) -> anyhow::Result<Option<Scored>> {
        let started = Instant::now();
        let own = match self.members.as_slice() {
            [entry] if entry.name == ProfileForecast::NAME && rows.n_columns() == 0 => profile_forecast(rows),
            [entry] if entry.name == Mahalanobis::NAME && rows.n_columns() > 0 => mahalanobis(rows, n_train),
            _ => return self.scored(rows, n_train, significance),
        };
        // All rows are replayed in one go.
        let share = (rows.len() - n_train) as f64 / rows.len().max(1) as f64;
        let seconds = started.elapsed().as_secs_f64() * share;
        Ok(own.map(|own| Scored { seconds, ..own }))
    }

    /// Where its threshold comes from, for [`Contender::judged`]; `part` is what there is to fit on.
    pub fn rule(&self, significance: f64, part: &str) -> String {
        if self.members.is_empty() {
            return self.trivial_rule(significance, part);
        }
        match self.members.as_slice() {
            [entry] if entry.name == ProfileForecast::NAME => {
                let threshold = profile_forecast::Config::default().threshold;
                format!(
                    "{threshold} mean residuals for every series, its own constant; points of episodes, kd7 and alerts by onsets"
                )
            }
            [entry] if entry.name == Mahalanobis::NAME => {
                let mahalanobis::Config { open_ratio, close_ratio, .. } = mahalanobis::Config::default();
                format!(
                    "{open_ratio} times the running median to begin an episode, {close_ratio} to end it, its own constants; fitted \
                     on {part}"
                )
            }
            [entry] if entry.is_self_calibrated => format!("p <= {significance} as the detector has it"),
            _ => format!("p <= {significance} by calibration on {part}"),
        }
    }
}

fn profile_forecast(rows: &Rows<'_>) -> Option<Scored> {
    let config = profile_forecast::Config::default();
    let judged = profile_forecast::judge_series(&config, rows.step_nanos(), rows.first_step(), rows.values());
    // A series is silent at first, and in gaps.
    let spike = |idx: usize, judged: &profile_forecast::Judged| {
        let is_judged = idx + 1 >= config.warm_up_points as usize && !rows.values()[idx].is_nan();
        if is_judged { judged.spike } else { f64::NAN }
    };
    let onsets: Vec<f64> = judged.iter().enumerate().map(|(idx, judged)| spike(idx, judged)).collect();
    let score = |idx: usize| {
        let before = if idx > 0 { onsets[idx - 1] } else { f64::NAN };
        if onsets[idx].is_nan() { f64::NAN } else { onsets[idx].max(before).max(judged[idx].level) }
    };
    Some(Scored {
        scores: (0..judged.len()).map(score).collect(),
        threshold: config.threshold,
        seconds: 0.0,
        levels: Vec::new(),
        verdicts: Some(Verdicts {
            is_hot: judged.iter().map(|judged| judged.is_hot).collect(),
            is_alert: judged.iter().map(|judged| judged.is_alert).collect(),
            onsets,
        }),
    })
}

/// None where there is too little to fit on.
fn mahalanobis(rows: &Rows<'_>, n_train: usize) -> Option<Scored> {
    let config = mahalanobis::Config::default();
    let (training, rest) = rows.values().split_at(n_train * rows.n_columns());
    let judged = mahalanobis::judge_rows(&config, rows.step_nanos(), rows.n_columns(), training, rest)?;
    let scores: Vec<f64> = judged.iter().map(|judged| judged.score).collect();
    Some(Scored {
        scores: scores.clone(),
        threshold: f64::NAN,
        seconds: 0.0,
        levels: Vec::new(),
        verdicts: Some(Verdicts {
            is_hot: judged.iter().map(|judged| judged.is_hot).collect(),
            is_alert: judged.iter().map(|judged| judged.is_onset).collect(),
            onsets: scores,
        }),
    })
}
