//! N-gram: a record that follows its predecessors as no record did in training.
//!
//! Station 7. The n-gram baseline of Landauer, Skopik and Wurzenberger, "A Critical Review of Common Log Data Sets Used
//! for Evaluation of Sequence-based Anomaly Detection Techniques", FSE 2024; the idea is Forrest et al., "A Sense of
//! Self for Unix Processes", S&P 1996. Cost: one hash lookup a record; memory grows with the distinct n-grams. Fails
//! when concurrent tasks interleave in one session, because then any order may be normal, and where sessions are cut at a
//! cap, because then they may end after anything.
//!
//! With `min_context` 4, without `judges_end`, and sessions that are spans (`parser.session: [span_id]`) it is the log flow by which
//! faults are found that change what a service writes but not how long it takes. On the part of Nezha's TrainTicket that is
//! given, by a Python model, all 11 wrong returns and all 4 exceptions had such spans, and .12 % of the spans outside of
//! them did (`faultline eval nezha` asks for 12, with which all 15 were found and no normal minute had one); the defaults call 2.3 % of those unknown, and with traces as sessions, in which services interleave, 18 %.
//!
//! As in the paper's code the end of a session counts as a record, so that one that breaks off is noticed; judged when it
//! has ended. Its start does not: the first n-1 records are not judged, which changes no figure on HDFS.

use std::ops::Range;

use faultline_core::{
    Detector, DetectorError, Evidence, Expected, LogEntry, LogWindow, Score, Signal, TemplateId, Window,
};
use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{algorithm::Algorithm, evidence, snapshot};

/// Hyperparameters of [`Ngram`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Records in an n-gram, 2 to 8: the judged one and its predecessors. Default 2, the paper's best; longer
    /// ones need far more training data.
    pub n: usize,
    /// Times an n-gram must occur in training to be normal. 1, the default, is the paper's rule; raise it when the
    /// training data may hold anomalies.
    pub min_support: u32,
    /// Times the predecessors must have occurred for what follows them to be judged. Default 0, the paper's rule; raise it
    /// where new operations are added often, so that what is new is not abnormal in itself.
    pub min_context: u32,
    /// Whether the end of a session is judged like a record. Default true; turn it off where sessions break off as a matter
    /// of course.
    pub judges_end: bool,
    /// Distinct n-grams to remember, a memory bound. Beyond it nothing new is learned.
    pub max_ngrams: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { n: 2, min_support: 1, min_context: 0, judges_end: true, max_ngrams: 1_000_000 }
    }
}

/// See the file's documentation.
pub struct Ngram;

/// Up to seven predecessors, the nearest last, padded in front with template 0, which no parser gives.
type Context = [u64; 7];

/// Follows the last record of a session that has ended.
const END: TemplateId = TemplateId(0);

/// What followed each run of predecessors, and how often.
#[derive(Debug)]
pub struct Model {
    config: Config,
    version: u64,
    followers: FxHashMap<Context, Vec<(TemplateId, u32)>>,
    n_ngrams: usize,
}

/// What a snapshot holds, sorted so that equal models write equal bytes.
#[derive(Serialize, Deserialize)]
struct State {
    version: u64,
    followers: Vec<(Context, Vec<(TemplateId, u32)>)>,
}

impl Algorithm for Ngram {
    const NAME: &'static str = "ngram";
    const SUMMARY: &'static str = "a record that follows its predecessors as none did in training";
    const PAPER: &'static str = "Landauer, Skopik, Wurzenberger: A Critical Review of Common Log Data Sets Used for \
                                 Evaluation of Sequence-based Anomaly Detection Techniques, FSE 2024";
    const SIGNAL: Signal = Signal::Logs;
    const PUBLISHED_THRESHOLD: Option<f64> = Some(0.0);
    /// DeepLog, in the ensemble, generalises from the same evidence.
    const IS_DEFAULT: bool = false;

    type Config = Config;
    type Model = Model;

    fn fit(config: &Config, training: &[Window<'_>], _seed: u64) -> Result<Model, DetectorError> {
        let refuse =
            |reason: &str| Err(DetectorError::Config { detector: Self::NAME.to_owned(), reason: reason.to_owned() });
        if !(2..=8).contains(&config.n) {
            return refuse("key `n`: must be between 2 and 8");
        }
        if config.min_support == 0 {
            return refuse("key `min_support`: must be at least 1");
        }
        let mut model = Model { config: config.clone(), version: 0, followers: FxHashMap::default(), n_ngrams: 0 };
        model.learn(training);
        if model.n_ngrams == 0 {
            let reason = format!("no training window holds {} records", config.n);
            return Err(DetectorError::Fit { detector: Self::NAME.to_owned(), reason });
        }
        model.version = snapshot::version_of(Self::NAME, &(config, model.state()))?;
        Ok(model)
    }

    fn load(config: &Config, snapshot: &[u8]) -> Result<Model, DetectorError> {
        let State { version, followers } = snapshot::decode(Self::NAME, snapshot)?;
        let n_ngrams = followers.iter().map(|(_, followers)| followers.len()).sum();
        Ok(Model { config: config.clone(), version, followers: followers.into_iter().collect(), n_ngrams })
    }
}

impl Model {
    fn state(&self) -> State {
        let sorted = |followers: &[(TemplateId, u32)]| {
            let mut followers = followers.to_vec();
            followers.sort_unstable();
            followers
        };
        let mut followers: Vec<_> = self.followers.iter().map(|(context, f)| (*context, sorted(f))).collect();
        followers.sort_unstable();
        State { version: self.version, followers }
    }

    /// The predecessors of `records[idx]`, or of the end when `idx` is one past the last; none when there are too few.
    fn context(&self, records: &[LogEntry], idx: usize) -> Option<Context> {
        let n_predecessors = self.config.n - 1;
        let first = idx.checked_sub(n_predecessors)?;
        let mut context = [0; 7];
        for (slot, record) in context[7 - n_predecessors..].iter_mut().zip(&records[first..idx]) {
            *slot = record.template.0;
        }
        Some(context)
    }

    fn support(&self, context: &Context, template: TemplateId) -> u32 {
        let followers = self.followers.get(context).map_or(&[][..], Vec::as_slice);
        followers.iter().find(|follower| follower.0 == template).map_or(0, |follower| follower.1)
    }

    fn is_unknown(&self, records: &[LogEntry], idx: usize) -> bool {
        let template = template_at(records, idx);
        if template == END && !self.config.judges_end {
            return false;
        }
        self.context(records, idx).is_some_and(|context| {
            self.support(&context, template) < self.config.min_support && self.is_settled(&context)
        })
    }

    /// Whether the predecessors were seen often enough to say what follows them.
    fn is_settled(&self, context: &Context) -> bool {
        let followers = self.followers.get(context).map_or(&[][..], Vec::as_slice);
        let n_seen: u64 = followers.iter().map(|follower| u64::from(follower.1)).sum();
        n_seen >= u64::from(self.config.min_context)
    }

    /// The fresh positions that have enough predecessors, the end of an ended session among them.
    fn judged(&self, log: &LogWindow<'_>) -> Range<usize> {
        log.fresh.max(self.config.n - 1)..log.records.len() + usize::from(log.is_closed())
    }
}

fn template_at(records: &[LogEntry], idx: usize) -> TemplateId {
    records.get(idx).map_or(END, |record| record.template)
}

impl Detector for Model {
    fn name(&self) -> &'static str {
        Ngram::NAME
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn signal(&self) -> Signal {
        Ngram::SIGNAL
    }

    /// The number of fresh records that end an unknown n-gram. The culprit is the first of them; the last record when
    /// it is the end that is unknown.
    fn score(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        scores.extend(windows.iter().map(|window| {
            let log = window.as_log()?;
            let judged = self.judged(log);
            let last = log.records.len().checked_sub(1).filter(|_| !judged.is_empty())?;
            let mut unknown = judged.clone().filter(|&idx| self.is_unknown(log.records, idx));
            let Some(first) = unknown.next() else {
                return Some(Score { value: 0.0, culprit: judged.start.min(last) });
            };
            Some(Score { value: 1.0 + unknown.count() as f64, culprit: first.min(last) })
        }));
    }

    fn explain(&self, window: &Window<'_>, score: &Score) -> Evidence {
        let Some((log, culprit)) = window.as_log().and_then(|log| Some((log, log.records.get(score.culprit)?))) else {
            return Evidence { summary: "the window holds no record".to_owned(), ..Evidence::default() };
        };
        // The first unknown position; it is the end when the culprit, the last record, is itself known.
        let at = self.judged(log).find(|&idx| self.is_unknown(log.records, idx)).unwrap_or(score.culprit);
        let context = self.context(log.records, at).unwrap_or_default();
        let mut followers = self.followers.get(&context).cloned().unwrap_or_default();
        followers.sort_unstable_by_key(|&(template, support)| (std::cmp::Reverse(support), template));
        let n_seen: u64 = followers.iter().map(|follower| u64::from(follower.1)).sum();
        let expected = |&(template, support): &(TemplateId, u32)| Expected {
            template,
            probability: f64::from(support) / n_seen as f64,
        };
        let predecessors: Vec<_> = context.iter().filter(|&&id| id != 0).map(u64::to_string).collect();
        let times = |n: u64| if n == 1 { "1 time".to_owned() } else { format!("{n} times") };
        let support = self.support(&context, template_at(log.records, at));
        let summary = format!(
            "{} {}; in normal operation it did so {}, of {} that these predecessors occurred",
            match log.records.get(at) {
                Some(record) => format!("template {} followed", record.template),
                None => "the session ended after".to_owned(),
            },
            predecessors.join(" "),
            times(u64::from(support)),
            times(n_seen),
        );
        let unknown = self.judged(log).filter(|&idx| self.is_unknown(log.records, idx));
        let unknown = unknown.filter_map(|idx| log.records.get(idx));
        Evidence {
            summary,
            seen: Some(culprit.template),
            expected: followers.iter().filter(|follower| follower.0 != END).take(MAX_EXPECTED).map(expected).collect(),
            culprit: Some(culprit.record),
            records: evidence::around(log.records, score.culprit, unknown.map(|record| record.record)),
            figures: [
                ("n_unknown_ngrams".to_owned(), score.value),
                ("support".to_owned(), f64::from(support)),
                ("n_predecessors_seen".to_owned(), n_seen as f64),
            ]
            .into(),
        }
    }

    fn learn(&mut self, windows: &[Window<'_>]) {
        for log in windows.iter().filter_map(Window::as_log) {
            for idx in self.judged(log) {
                let Some(context) = self.context(log.records, idx) else { continue };
                let template = template_at(log.records, idx);
                let is_full = self.n_ngrams >= self.config.max_ngrams;
                if is_full && !self.followers.contains_key(&context) {
                    continue;
                }
                let followers = self.followers.entry(context).or_default();
                match followers.iter_mut().find(|follower| follower.0 == template) {
                    Some(follower) => follower.1 = follower.1.saturating_add(1),
                    None if is_full => {}
                    None => {
                        followers.push((template, 1));
                        self.n_ngrams += 1;
                    }
                }
            }
        }
    }

    /// Its n-grams are known from now on.
    fn accept(&mut self, window: &Window<'_>, _cut: f64) -> usize {
        let Some(log) = window.as_log() else { return 0 };
        let least = self.config.min_support;
        let mut n_learned = 0;
        for idx in self.judged(log) {
            let Some(context) = self.context(log.records, idx).filter(|_| self.is_unknown(log.records, idx)) else {
                continue;
            };
            let template = template_at(log.records, idx);
            let is_full = self.n_ngrams >= self.config.max_ngrams;
            if is_full && self.support(&context, template) == 0 {
                continue;
            }
            let followers = self.followers.entry(context).or_default();
            match followers.iter_mut().find(|follower| follower.0 == template) {
                Some(follower) => follower.1 = least,
                None => {
                    followers.push((template, least));
                    self.n_ngrams += 1;
                }
            }
            n_learned += 1;
        }
        if n_learned > 0 {
            self.version = snapshot::version_after(self.version, window);
        }
        n_learned
    }

    fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
        snapshot::encode(Ngram::NAME, &self.state())
    }
}

/// Expectations that an alert lists.
const MAX_EXPECTED: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Session, score_all};

    fn fit(config: &Config, sessions: &[&[u64]]) -> Model {
        let sessions: Vec<_> = sessions.iter().map(|templates| Session::of("a", templates)).collect();
        let windows: Vec<_> = sessions.iter().map(Session::closed).collect();
        Ngram::fit(config, &windows, 0).expect("there are n-grams")
    }

    #[test]
    fn the_score_counts_unknown_ngrams_and_the_culprit_ends_the_first() {
        let mut model = fit(&Config::default(), &[&[1, 2, 3, 1]]);
        let (known, unknown) = (Session::of("b", &[2, 3, 1, 2]), Session::of("c", &[1, 2, 2, 1]));
        let scores = score_all(&mut model, &[known.window(0, false), unknown.closed()]);
        assert_eq!(scores, [Some(Score { value: 0.0, culprit: 1 }), Some(Score { value: 2.0, culprit: 2 })]);
    }

    #[test]
    fn a_session_that_breaks_off_is_noticed_when_it_has_ended() {
        let mut model = fit(&Config::default(), &[&[1, 2, 3]]);
        let session = Session::of("b", &[1, 2]);
        let windows = [session.window(0, false), session.window(2, true)];
        let scores = score_all(&mut model, &windows);
        assert_eq!(scores, [Some(Score { value: 0.0, culprit: 1 }), Some(Score { value: 1.0, culprit: 1 })]);
        let evidence = model.explain(&windows[1], &scores[1].expect("it has ended"));
        assert_eq!(
            evidence.summary,
            "the session ended after 2; in normal operation it did so 0 times, of 1 time that these predecessors occurred"
        );
        assert_eq!(evidence.expected, [Expected { template: TemplateId(3), probability: 1.0 }]);
    }

    #[test]
    fn context_reaches_back_before_the_fresh_records() {
        let mut model = fit(&Config { n: 3, ..Config::default() }, &[&[1, 2, 3, 4]]);
        let session = Session::of("b", &[1, 2, 3, 4]);
        assert_eq!(score_all(&mut model, &[session.window(3, false)]), [Some(Score { value: 0.0, culprit: 3 })]);
        let session = Session::of("c", &[2, 2, 3, 4]);
        assert_eq!(score_all(&mut model, &[session.window(2, false)]), [Some(Score { value: 1.0, culprit: 2 })]);
    }

    #[test]
    fn a_session_shorter_than_an_ngram_is_not_judged() {
        let mut model = fit(&Config { n: 3, ..Config::default() }, &[&[1, 2, 3]]);
        let session = Session::of("b", &[9]);
        assert_eq!(score_all(&mut model, &[session.closed()]), [None]);
    }

    #[test]
    fn evidence_says_what_usually_follows() {
        let mut model = fit(&Config::default(), &[&[1, 2, 1, 2, 1, 2, 1, 3]]);
        let session = Session::of("b", &[1, 9]);
        let score = score_all(&mut model, &[session.closed()])[0].expect("it has two records");
        let evidence = model.explain(&session.closed(), &score);
        let (two, three) = (TemplateId(2), TemplateId(3));
        assert_eq!(
            evidence.expected,
            [Expected { template: two, probability: 0.75 }, Expected { template: three, probability: 0.25 }]
        );
        assert_eq!(
            evidence.summary,
            "template 9 followed 1; in normal operation it did so 0 times, of 4 times that these predecessors occurred"
        );
    }

    #[test]
    fn what_follows_seldom_predecessors_and_the_end_may_be_left_out() {
        let config = Config { min_context: 4, judges_end: false, ..Config::default() };
        let mut model = fit(&config, &[&[1, 2, 1, 2, 1, 2, 1, 2, 3]]);
        let sessions = [&[1, 9][..], &[3, 9], &[8, 9], &[1]].map(|templates| Session::of("b", templates));
        let windows: Vec<_> = sessions.iter().map(Session::closed).collect();
        let values: Vec<_> =
            score_all(&mut model, &windows).iter().map(|score| score.map(|score| score.value)).collect();
        assert_eq!(values, [Some(1.0), Some(0.0), Some(0.0), Some(0.0)], "only 1 was seen four times");
    }

    #[test]
    fn memory_stays_bounded() {
        let model = fit(&Config { max_ngrams: 2, ..Config::default() }, &[&[1, 2, 3, 4, 5, 6]]);
        assert_eq!((model.n_ngrams, model.followers.len()), (2, 2));
    }
}
