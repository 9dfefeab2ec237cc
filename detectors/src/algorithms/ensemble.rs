//! Ensemble: a session is abnormal when its content is unlike every well-supported kind of normal session and the
//! sequence model does not find its order ordinary either.
//!
//! Station 7. Its members are the set-based baselines of Landauer, Skopik and Wurzenberger, "A Critical Review of Common
//! Log Data Sets Used for Evaluation of Sequence-based Anomaly Detection Techniques", FSE 2024 (unseen template, length,
//! count vector) and DeepLog (Du, Li, Zheng and Srikumar, CCS 2017). The baselines are precise but take whatever
//! they have seen once for normal: on HDFS 24 abnormal sessions among 4,855 cost them more than 60 points of F1. DeepLog
//! generalises over kinds of session, which costs it precision, and is not fooled by a few. So each checks the other:
//!
//! - In training, sessions whose content is seldom and whose order DeepLog holds for abnormal are counted. More of them than
//!   normal operation explains are a contamination (see [`quarantine`]): then having been seen proves nothing, and content is
//!   odd unless it is common ([`super::common_kinds`]).
//! - In service, odd content alone does not count when DeepLog finds the order more ordinary than that of a
//!   tenth of the normal sessions; odd order alone ranks below any odd content.
//! - Nor does it count once the kind has become common ([`super::common_kinds`]): that is a new mode of operation.
//!
//! The score orders sessions by content first: that of DeepLog alone, plus [`CONTENT`] and more the odder the content is.
//! Streams without a session key are not judged: their pieces are of no kind. Cost and memory: its members'. Fails
//! where normal sessions are of ever new kinds, and on failures that are as frequent in training as normal kinds.

use faultline_core::{Detector, DetectorError, Evidence, LogWindow, Score, Signal, Window};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    algorithm::Algorithm,
    algorithms::{
        common_kinds::{self, CommonKinds},
        count_vector::{self, CountVector},
        deeplog::{self, DeepLog},
        length::{self, Length},
        new_template::{self, NewTemplate},
    },
    snapshot,
};

pub mod quarantine;

/// Hyperparameters of [`Ensemble`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The sequence model's own keys.
    pub deeplog: deeplog::Config,
    /// Distance to the nearest normal count vector above which a session's content is odd. Default 0.1, the paper's.
    pub max_distance: f64,
    /// Share of normal sessions whose order is ordinary: odd content of so ordinary an order is no anomaly. Default 0.9;
    /// 0 leaves the verdict to the content.
    pub ordinary_share: f64,
    /// Largest share of training sessions that failures of one kind are thought to make up. Default 0.01; 0 takes the
    /// training data at its word.
    pub max_contamination: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { deeplog: deeplog::Config::default(), max_distance: 0.1, ordinary_share: 0.9, max_contamination: 0.01 }
    }
}

/// See the file's documentation.
pub struct Ensemble;

/// What odd content adds to a score. No order alone reaches it: DeepLog's score is a rank among templates.
pub const CONTENT: f64 = 1e6;

/// The fitted members.
#[derive(Debug)]
pub struct Model {
    config: Config,
    state: State,
    new_template: new_template::Model,
    /// None where training held no ended session.
    length: Option<length::Model>,
    count_vector: Option<count_vector::Model>,
    common_kinds: Option<common_kinds::Model>,
    deeplog: deeplog::Model,
    scratch: [Vec<Option<Score>>; 5],
}

/// What the ensemble itself has learned.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct State {
    version: u64,
    /// DeepLog's score up to which an order is ordinary.
    ordinary: f64,
    n_suspicious: usize,
    n_quarantined: usize,
}

/// What a snapshot holds: the members' own snapshots.
#[derive(Serialize, Deserialize)]
struct Written {
    state: State,
    new_template: Vec<u8>,
    length: Option<Vec<u8>>,
    count_vector: Option<Vec<u8>>,
    common_kinds: Option<Vec<u8>>,
    /// Weights: as a list of numbers they would be thrice as long.
    #[serde(with = "crate::model::base64_bytes")]
    deeplog: Vec<u8>,
}

impl Algorithm for Ensemble {
    const NAME: &'static str = "ensemble";
    const SUMMARY: &'static str =
        "content unlike any supported kind of session, in an order that DeepLog finds odd as well";
    const PAPER: &'static str =
        "members: Landauer, Skopik, Wurzenberger, FSE 2024; Du, Li, Zheng, Srikumar: DeepLog, CCS 2017";
    const SIGNAL: Signal = Signal::Logs;
    /// Its own rule, no paper's: odd content in an order that is not ordinary.
    const PUBLISHED_THRESHOLD: Option<f64> = Some(CONTENT);
    const IS_SEEDED: bool = true;

    type Config = Config;
    type Model = Model;

    fn reads_numbers(config: &Config) -> bool {
        DeepLog::reads_numbers(&config.deeplog)
    }

    fn fit(config: &Config, training: &[Window<'_>], seed: u64) -> Result<Model, DetectorError> {
        check(config)?;
        let mut deeplog = DeepLog::fit(&config.deeplog, training, seed)?;
        let order = order_of(&mut deeplog, training);
        let ordinary = quantile(&order, config.ordinary_share);
        let beyond_g = deeplog.g() as f64 + 1.0;
        let found = quarantine::examine(training, &order, ordinary, beyond_g, config);
        // It takes rare kinds for abnormal anyway, and must know how rare they are.
        let common_kinds = CommonKinds::fit(&common_kinds::Config::default(), training, seed).ok();
        let kept = training.iter().zip(&found.is_kept).filter(|(_, is_kept)| **is_kept);
        let training: &[Window<'_>] = &kept.map(|(window, _)| *window).collect::<Vec<_>>();
        let state =
            State { version: 0, ordinary, n_suspicious: found.n_suspicious, n_quarantined: found.n_quarantined };
        let mut model = Model {
            config: config.clone(),
            state,
            new_template: NewTemplate::fit(&new_template::Config::default(), training, seed)?,
            length: Length::fit(&length::Config::default(), training, seed).ok(),
            count_vector: CountVector::fit(&count_vector::Config::default(), training, seed).ok(),
            common_kinds,
            deeplog,
            scratch: Default::default(),
        };
        model.state.version = snapshot::version_of(Self::NAME, &(config, model.written()?))?;
        Ok(model)
    }

    fn load(config: &Config, bytes: &[u8]) -> Result<Model, DetectorError> {
        let written: Written = snapshot::decode(Self::NAME, bytes)?;
        let length = written.length.map(|bytes| Length::load(&length::Config::default(), &bytes)).transpose()?;
        let count_vector = written
            .count_vector
            .map(|bytes| CountVector::load(&count_vector::Config::default(), &bytes))
            .transpose()?;
        let common_kinds = written
            .common_kinds
            .map(|bytes| CommonKinds::load(&common_kinds::Config::default(), &bytes))
            .transpose()?;
        Ok(Model {
            config: config.clone(),
            state: written.state,
            new_template: NewTemplate::load(&new_template::Config::default(), &written.new_template)?,
            length,
            count_vector,
            common_kinds,
            deeplog: DeepLog::load(&config.deeplog, &written.deeplog)?,
            scratch: Default::default(),
        })
    }
}

fn check(config: &Config) -> Result<(), DetectorError> {
    let shares = [
        ("max_distance", config.max_distance),
        ("ordinary_share", config.ordinary_share),
        ("max_contamination", config.max_contamination),
    ];
    match shares.into_iter().find(|(_, value)| !(0.0..=1.0).contains(value)) {
        Some((key, value)) => {
            let reason = format!("key `{key}`: {value} is not from 0 to 1");
            Err(DetectorError::Config { detector: Ensemble::NAME.to_owned(), reason })
        }
        None => Ok(()),
    }
}

/// DeepLog's score of each window; the lowest where it has none.
fn order_of(deeplog: &mut deeplog::Model, windows: &[Window<'_>]) -> Vec<f64> {
    let mut scores = Vec::with_capacity(windows.len());
    deeplog.score(windows, &mut scores);
    scores.into_iter().map(|score| score.map_or(f64::NEG_INFINITY, |score| score.value)).collect()
}

/// The value that a share of `values` does not exceed; below all for a share of 0.
fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let n = (sorted.len() as f64 * share).ceil() as usize;
    n.checked_sub(1).and_then(|idx| sorted.get(idx).copied()).unwrap_or(f64::MIN)
}

impl Model {
    fn written(&self) -> Result<Written, DetectorError> {
        Ok(Written {
            state: self.state,
            new_template: self.new_template.snapshot()?,
            length: self.length.as_ref().map(Detector::snapshot).transpose()?,
            count_vector: self.count_vector.as_ref().map(Detector::snapshot).transpose()?,
            common_kinds: self.common_kinds.as_ref().map(Detector::snapshot).transpose()?,
            deeplog: self.deeplog.snapshot()?,
        })
    }
}

/// How odd the content is by one member, with the record that it takes offence at; none when it is not.
fn oddness(score: Option<Score>, least: f64) -> Option<Score> {
    score.filter(|score| score.value > least)
}

impl Detector for Model {
    fn name(&self) -> &'static str {
        Ensemble::NAME
    }

    fn version(&self) -> u64 {
        self.state.version
    }

    fn signal(&self) -> Signal {
        Ensemble::SIGNAL
    }

    /// Content first, then order. The culprit is that of the first member, in the order of the file's documentation,
    /// that finds the content odd; DeepLog's where none does.
    fn score(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        let [templates, lengths, vectors, kinds, orders] = &mut self.scratch;
        for scratch in [&mut *templates, lengths, vectors, kinds, orders] {
            scratch.clear();
        }
        self.new_template.score(windows, templates);
        match &mut self.length {
            Some(length) => length.score(windows, lengths),
            None => lengths.resize(windows.len(), None),
        }
        match &mut self.count_vector {
            Some(count_vector) => count_vector.score(windows, vectors),
            None => vectors.resize(windows.len(), None),
        }
        match &mut self.common_kinds {
            Some(common_kinds) => common_kinds.score(windows, kinds),
            None => kinds.resize(windows.len(), None),
        }
        self.deeplog.score(windows, orders);
        let mut whole = Vec::new();
        let is_contaminated = self.state.n_quarantined > 0;
        for (idx, window) in windows.iter().enumerate() {
            if window.as_log().is_none_or(|log| log.is_stream) {
                scores.push(None);
                continue;
            }
            let members = match kinds[idx] {
                Some(kind) if is_contaminated => [oddness(Some(kind), 0.0), None, None],
                _ => [
                    oddness(templates[idx], 0.0),
                    oddness(vectors[idx], self.config.max_distance),
                    oddness(lengths[idx], 0.0),
                ],
            };
            let order = orders[idx];
            // A kind that has become common is a mode of operation, however new. An open session shows its templates only.
            let is_common = match (kinds[idx], members[0], window.as_log()) {
                (Some(kind), _, _) => kind.value == 0.0,
                (None, Some(new), Some(log)) => {
                    let template = log.records[new.culprit].template;
                    self.common_kinds.as_ref().is_some_and(|kinds| kinds.is_common(template))
                }
                _ => false,
            };
            let odd = members.into_iter().flatten().next().filter(|_| !is_common);
            let Some(first) = odd else {
                scores.push(order);
                continue;
            };
            // Content is judged over the session, so its order has to be as well.
            let grown = window.as_log().filter(|log| log.fresh > 0);
            let order = match grown {
                Some(log) => {
                    whole.clear();
                    self.deeplog.score(&[Window::Log(LogWindow { fresh: 0, ..*log })], &mut whole);
                    whole[0].or(order)
                }
                None => order,
            };
            let order_value = order.map_or(0.0, |order| order.value);
            // Where training held failures, DeepLog has seen them too.
            if order_value <= self.state.ordinary && !is_contaminated {
                scores.push(order);
                continue;
            }
            let content: f64 = members.into_iter().flatten().map(|member| member.value).sum();
            scores.push(Some(Score { value: CONTENT * (1.0 + content) + order_value, culprit: first.culprit }));
        }
    }

    fn explain(&self, window: &Window<'_>, score: &Score) -> Evidence {
        let order = self.deeplog.explain(window, score);
        let new_template = self.new_template.explain(window, score);
        let count_vector = self.count_vector.as_ref().map(|member| member.explain(window, score));
        let length = self.length.as_ref().map(|member| member.explain(window, score));
        let figure = |evidence: &Evidence, name: &str| evidence.figures.get(name).copied().unwrap_or(0.0);
        let has_new = figure(&new_template, "n_unknown_records") > 0.0;
        let is_unlike = |evidence: &Evidence| figure(evidence, "distance") > self.config.max_distance;
        let mut figures = order.figures.clone();
        for evidence in [Some(&new_template), count_vector.as_ref(), length.as_ref()].into_iter().flatten() {
            figures.extend(evidence.figures.iter().map(|(name, value)| (name.clone(), *value)));
        }
        let common_kinds = self.common_kinds.as_ref().map(|member| member.explain(window, score));
        let is_odd_kind = |evidence: &Evidence| figure(evidence, "n_odd_facts") > 0.0;
        let content = if score.value < CONTENT {
            None
        } else if self.state.n_quarantined > 0 && common_kinds.as_ref().is_some_and(is_odd_kind) {
            common_kinds
        } else if has_new {
            Some(new_template)
        } else {
            count_vector.filter(is_unlike).or(length)
        };
        let Some(content) = content else { return Evidence { figures, ..order } };
        let expected = if content.expected.is_empty() { order.expected } else { content.expected };
        let summary = match figures.get("rank") {
            Some(rank) => format!("{}; in its place DeepLog ranks it {rank}", content.summary),
            None => content.summary,
        };
        Evidence { summary, expected, figures, ..content }
    }

    fn learn(&mut self, windows: &[Window<'_>]) {
        self.new_template.learn(windows);
        if let Some(length) = &mut self.length {
            length.learn(windows);
        }
        if let Some(count_vector) = &mut self.count_vector {
            count_vector.learn(windows);
        }
        self.deeplog.learn(windows);
    }

    /// Hands it to the members: content is normal from now on, order as far as it alone would reach `cut`.
    fn accept(&mut self, window: &Window<'_>, cut: f64) -> usize {
        if window.as_log().is_none_or(|log| log.is_stream) {
            return 0;
        }
        let mut n_learned = self.new_template.accept(window, cut);
        n_learned += self.length.as_mut().map_or(0, |member| member.accept(window, cut));
        n_learned += self.count_vector.as_mut().map_or(0, |member| member.accept(window, cut));
        n_learned += self.common_kinds.as_mut().map_or(0, |member| member.accept(window, cut));
        n_learned += self.deeplog.accept(window, cut);
        if n_learned > 0 {
            self.state.version = snapshot::version_after(self.state.version, window);
        }
        n_learned
    }

    fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
        snapshot::encode(Ensemble::NAME, &self.written()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Session, score_all, synthetic};

    fn fast() -> Config {
        let deeplog = deeplog::Config { epochs: 8, hidden: 16, layers: 1, ..deeplog::Config::default() };
        Config { deeplog, ..Config::default() }
    }

    fn normal(n: usize) -> Vec<Session> {
        synthetic(1, n, 0.0).into_iter().map(|(session, _)| session).collect()
    }

    fn value(model: &mut Model, window: Window<'_>) -> f64 {
        score_all(model, &[window])[0].expect("a score").value
    }

    #[test]
    fn odd_content_counts_only_where_the_order_is_odd_as_well() {
        let sessions = normal(600);
        let windows: Vec<_> = sessions.iter().map(Session::closed).collect();
        let mut model = Ensemble::fit(&fast(), &windows, 1).expect("fits");
        assert_eq!((model.state.n_suspicious, model.state.n_quarantined), (0, 0));
        assert!(value(&mut model, Session::of("new", &[11, 12, 21, 99, 41, 42, 51, 52]).closed()) > CONTENT);
        // Ends early: too short, and without templates that every session has.
        let short = Session::of("short", &[11, 12, 21, 22, 41, 42]);
        model.state.ordinary = f64::MIN;
        assert!(value(&mut model, short.closed()) > CONTENT);
        model.state.ordinary = f64::MAX;
        assert!(value(&mut model, short.closed()) < CONTENT);
    }

    #[test]
    fn a_kind_that_has_become_common_is_no_anomaly() {
        let sessions = normal(600);
        let windows: Vec<_> = sessions.iter().map(Session::closed).collect();
        let mut model = Ensemble::fit(&fast(), &windows, 1).expect("fits");
        let new_mode = Session::of("new mode", &[11, 12, 61, 41, 42, 51, 52]);
        let n_odd = (0..100).filter(|_| value(&mut model, new_mode.closed()) > CONTENT).count();
        assert_eq!(n_odd, 17, "as many as it takes the kind to become common");
        assert!(value(&mut model, new_mode.window(0, false)) < CONTENT, "an open session shows its templates");
    }

    #[test]
    fn the_order_of_a_grown_session_is_judged_as_a_whole() {
        let sessions = normal(600);
        let windows: Vec<_> = sessions.iter().map(Session::closed).collect();
        let mut model = Ensemble::fit(&fast(), &windows, 1).expect("fits");
        // The first records are in a wrong order; the last, which alone are fresh, are not.
        let session = Session::of("odd", &[52, 51, 42, 41, 22, 21, 12, 51, 52, 51, 52, 51, 52, 51, 52, 51, 52, 51, 52]);
        assert!(value(&mut model, session.closed()) > CONTENT);
        let n = session.records.len();
        assert!(value(&mut model, session.window(n, true)) > CONTENT);
    }

    #[test]
    fn a_few_failures_in_training_do_not_become_normal() {
        // A task may begin with any of twelve steps, so DeepLog ranks what seldom begins one beyond its top nine.
        let steps = |first: u64| (0..12).map(move |step| 1 + (first + step) % 12).chain([50]).collect::<Vec<_>>();
        let mut sessions: Vec<Session> =
            (0..1_200).map(|idx| Session::of(&format!("{idx}"), &steps(idx % 12))).collect();
        for idx in 0..4 {
            sessions.insert(idx * 97 + 5, Session::of(&format!("bad {idx}"), &[98, 98, 50]));
            sessions.insert(idx * 89 + 9, Session::of(&format!("worse {idx}"), &[97, 50]));
        }
        let windows: Vec<_> = sessions.iter().map(Session::closed).collect();
        let failure = Session::of("later", &[98, 98, 50]);
        let mut model = Ensemble::fit(&fast(), &windows, 1).expect("fits");
        let trusting = Config { max_contamination: 0.0, ..fast() };
        let mut trusting = Ensemble::fit(&trusting, &windows, 1).expect("fits");
        assert!(value(&mut trusting, failure.closed()) < CONTENT, "taken at its word, training says it is normal");
        assert_eq!((model.state.n_suspicious, model.state.n_quarantined), (8, 8));
        assert!(value(&mut model, failure.closed()) > CONTENT);
        let evidence = model.explain(&failure.closed(), &Score { value: 2.0 * CONTENT, culprit: 0 });
        assert!(
            evidence.summary.starts_with("not common among sessions: template 98 occurs 2 times"),
            "{}",
            evidence.summary
        );
    }
}
