//! Length: an ended session that is longer or shorter than those of the training data.
//!
//! Station 7. The second baseline of Landauer, Skopik and Wurzenberger, "A Critical Review of Common Log Data Sets Used
//! for Evaluation of Sequence-based Anomaly Detection Techniques", FSE 2024. Judged when a session has ended, since an
//! open one may still grow. Cost: constant a session. Fails on anomalies of ordinary length. Streams without a session
//! key are not judged: their pieces end where a cap or a pause happens to be.
//!
//! Differs from the paper: a score instead of a verdict, namely how far the length leaves the range, relative to it; and
//! support, so that one poisoned session does not widen the range when `min_support` is above 1.

use std::collections::BTreeMap;

use faultline_core::{Detector, DetectorError, Evidence, LogWindow, Score, Signal, Window};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{algorithm::Algorithm, evidence, snapshot};

/// Hyperparameters of [`Length`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Training sessions that must be at least as extreme as the ends of the range. 1, the default, is the paper's
    /// rule; raise it when the training data may hold anomalies.
    pub min_support: u64,
    /// Distinct lengths to remember, a memory bound. Beyond it nothing new is learned.
    pub max_lengths: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { min_support: 1, max_lengths: 10_000 }
    }
}

/// See the file's documentation.
pub struct Length;

/// How many normal sessions had which length.
#[derive(Debug)]
pub struct Model {
    config: Config,
    state: State,
    /// Shortest and longest length that count as normal.
    range: (u64, u64),
}

/// What a snapshot holds.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    version: u64,
    sessions: BTreeMap<u64, u64>,
}

impl Algorithm for Length {
    const NAME: &'static str = "length";
    const SUMMARY: &'static str = "an ended session longer or shorter than any in training";
    const PAPER: &'static str = "Landauer, Skopik, Wurzenberger: A Critical Review of Common Log Data Sets Used for \
                                 Evaluation of Sequence-based Anomaly Detection Techniques, FSE 2024";
    const SIGNAL: Signal = Signal::Logs;
    const PUBLISHED_THRESHOLD: Option<f64> = Some(0.0);
    /// A member of the ensemble.
    const IS_DEFAULT: bool = false;

    type Config = Config;
    type Model = Model;

    fn fit(config: &Config, training: &[Window<'_>], _seed: u64) -> Result<Model, DetectorError> {
        let state = State { version: 0, sessions: BTreeMap::new() };
        let mut model = Model { config: config.clone(), state, range: (0, 0) };
        model.learn(training);
        let n_sessions: u64 = model.state.sessions.values().sum();
        if n_sessions < config.min_support.max(1) {
            let reason = format!("{n_sessions} ended sessions, `min_support` asks for {}", config.min_support);
            return Err(DetectorError::Fit { detector: Self::NAME.to_owned(), reason });
        }
        model.state.version = snapshot::version_of(Self::NAME, &(config, &model.state))?;
        Ok(model)
    }

    fn load(config: &Config, snapshot: &[u8]) -> Result<Model, DetectorError> {
        let state: State = snapshot::decode(Self::NAME, snapshot)?;
        let range = range_of(&state.sessions, config.min_support);
        Ok(Model { config: config.clone(), state, range })
    }
}

/// The lengths between which all but `min_support - 1` sessions at either end lie.
fn range_of(sessions: &BTreeMap<u64, u64>, min_support: u64) -> (u64, u64) {
    fn supported<'a>(lengths: impl Iterator<Item = (&'a u64, &'a u64)>, min_support: u64) -> u64 {
        let mut n_sessions = 0;
        let mut at = 0;
        for (&length, &count) in lengths {
            at = length;
            n_sessions += count;
            if n_sessions >= min_support {
                break;
            }
        }
        at
    }
    (supported(sessions.iter(), min_support), supported(sessions.iter().rev(), min_support))
}

fn length_of(log: &LogWindow<'_>) -> u64 {
    log.n_dropped + log.records.len() as u64
}

fn ended<'w, 'a>(window: &'w Window<'a>) -> Option<&'w LogWindow<'a>> {
    window.as_log().filter(|log| log.is_closed() && !log.is_stream && !log.records.is_empty())
}

impl Detector for Model {
    fn name(&self) -> &'static str {
        Length::NAME
    }

    fn version(&self) -> u64 {
        self.state.version
    }

    fn signal(&self) -> Signal {
        Length::SIGNAL
    }

    /// 0 within the range; outside, the distance to it relative to its end. The culprit is the last record.
    fn score(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        let (shortest, longest) = self.range;
        scores.extend(windows.iter().map(|window| {
            let log = ended(window)?;
            let length = length_of(log);
            let value = if length > longest {
                (length - longest) as f64 / longest.max(1) as f64
            } else if length < shortest {
                (shortest - length) as f64 / shortest as f64
            } else {
                0.0
            };
            Some(Score { value, culprit: log.records.len() - 1 })
        }));
    }

    fn explain(&self, window: &Window<'_>, score: &Score) -> Evidence {
        let Some((log, last)) = window.as_log().and_then(|log| Some((log, log.records.get(score.culprit)?))) else {
            return Evidence { summary: "the window holds no record".to_owned(), ..Evidence::default() };
        };
        let (length, (shortest, longest)) = (length_of(log), self.range);
        let verdict = if length > longest {
            "is too long"
        } else if length < shortest {
            "ended too early"
        } else {
            "has an ordinary length"
        };
        Evidence {
            summary: format!(
                "the session {verdict}: {length} records, normal sessions have {shortest} to {longest}; its last \
                 template is {}",
                last.template
            ),
            seen: Some(last.template),
            expected: Vec::new(),
            culprit: Some(last.record),
            records: evidence::around(log.records, score.culprit, log.records.iter().map(|record| record.record)),
            figures: [
                ("length".to_owned(), length as f64),
                ("shortest_normal".to_owned(), shortest as f64),
                ("longest_normal".to_owned(), longest as f64),
            ]
            .into(),
        }
    }

    fn learn(&mut self, windows: &[Window<'_>]) {
        for log in windows.iter().filter_map(ended) {
            let length = length_of(log);
            let sessions = &mut self.state.sessions;
            if sessions.len() < self.config.max_lengths || sessions.contains_key(&length) {
                *sessions.entry(length).or_default() += 1;
            }
        }
        self.range = range_of(&self.state.sessions, self.config.min_support);
    }

    /// The range reaches to its length from now on.
    fn accept(&mut self, window: &Window<'_>, _cut: f64) -> usize {
        let Some(log) = ended(window) else { return 0 };
        let (length, (shortest, longest)) = (length_of(log), self.range);
        let sessions = &mut self.state.sessions;
        let has_room = sessions.len() < self.config.max_lengths || sessions.contains_key(&length);
        if (shortest..=longest).contains(&length) || !has_room {
            return 0;
        }
        let support = sessions.entry(length).or_default();
        *support = (*support).max(self.config.min_support.max(1));
        self.range = range_of(sessions, self.config.min_support);
        self.state.version = snapshot::version_after(self.state.version, window);
        1
    }

    fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
        snapshot::encode(Length::NAME, &self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Session, score_all};

    fn fit(min_support: u64, lengths: &[usize]) -> Model {
        let sessions: Vec<_> = lengths.iter().map(|&length| Session::of("a", &vec![1; length])).collect();
        let windows: Vec<_> = sessions.iter().map(Session::closed).collect();
        Length::fit(&Config { min_support, ..Config::default() }, &windows, 0).expect("there are sessions")
    }

    fn value(model: &mut Model, length: usize) -> f64 {
        let session = Session::of("b", &vec![1; length]);
        score_all(model, &[session.closed()])[0].expect("it has ended").value
    }

    #[test]
    fn the_score_is_the_relative_distance_to_the_training_range() {
        let mut model = fit(1, &[4, 10]);
        assert_eq!([4, 7, 10].map(|length| value(&mut model, length)), [0.0; 3]);
        assert_eq!((value(&mut model, 15), value(&mut model, 3)), (0.5, 0.25));
    }

    #[test]
    fn a_rare_length_does_not_widen_the_range_when_support_is_asked_for() {
        let mut model = fit(2, &[5, 5, 6, 6, 100]);
        assert_eq!(value(&mut model, 6), 0.0);
        assert!(value(&mut model, 101) > 10.0);
        assert!(value(&mut model, 100) > 10.0);
    }

    #[test]
    fn an_open_session_is_not_judged() {
        let mut model = fit(1, &[4]);
        let session = Session::of("b", &[1; 99]);
        assert_eq!(score_all(&mut model, &[session.window(0, false)]), [None]);
    }

    #[test]
    fn evidence_gives_the_length_and_the_range() {
        let mut model = fit(1, &[4, 6]);
        let session = Session::of("b", &[1, 2]);
        let score = score_all(&mut model, &[session.closed()])[0].expect("it has ended");
        let evidence = model.explain(&session.closed(), &score);
        assert_eq!(
            evidence.summary,
            "the session ended too early: 2 records, normal sessions have 4 to 6; its last template is 2"
        );
        assert_eq!(evidence.figures["length"], 2.0);
    }

    #[test]
    fn support_beyond_the_training_sessions_cannot_be_fitted() {
        let session = Session::of("a", &[1]);
        let config = Config { min_support: 2, ..Config::default() };
        assert!(Length::fit(&config, &[session.closed()], 0).is_err());
    }
}
