//! New template: a record whose template was not in the training data, or was there too seldom to count as normal.
//!
//! Station 7. The first baseline of Landauer, Skopik and Wurzenberger, "A Critical Review of Common Log Data Sets Used
//! for Evaluation of Sequence-based Anomaly Detection Techniques", FSE 2024, where it beats many deep models. Cost: one
//! hash lookup a record; memory grows with the number of templates, which the parser bounds. Fails when
//! templates churn (a deployment brings new lines that are harmless) and sees nothing in an anomaly made of known lines.
//!
//! Beyond the paper: support. One poisoned session in training hides an unseen template from the paper's rule;
//! with `min_support` 2 it does not. And drift: sessions are judged alike for ever, but in a stream without a session key
//! an unknown template is reported once (`max_stream_reports`) and then taken for known, as is everywhere one that came with a
//! new version of its service.

use faultline_core::{Detector, DetectorError, Evidence, Score, Signal, TemplateId, Window};
use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{algorithm::Algorithm, snapshot};

/// Hyperparameters of [`NewTemplate`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Training sessions a template must occur in to be normal. 1, the default, is the paper's rule; raise it when the
    /// training data may hold anomalies.
    pub min_support: u32,
    /// How many sessions may report the same unknown template before it is taken for known; 0, the default,
    /// reports for ever.
    pub max_reports: u32,
    /// The same for windows of streams without a session key. Default 1, since a template that has come to a stream stays:
    /// on BGL most records would be reported otherwise.
    pub max_stream_reports: u32,
    /// Templates to remember, a memory bound. Beyond it nothing new is learned.
    pub max_templates: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { min_support: 1, max_reports: 0, max_stream_reports: 1, max_templates: 100_000 }
    }
}

/// See the file's documentation.
pub struct NewTemplate;

/// The templates of normal operation, each with the number of sessions that held it.
#[derive(Debug)]
pub struct Model {
    config: Config,
    version: u64,
    support: FxHashMap<TemplateId, u32>,
    reports: FxHashMap<TemplateId, u32>,
}

/// What a snapshot holds, sorted so that equal models write equal bytes.
#[derive(Serialize, Deserialize)]
struct State {
    version: u64,
    support: Vec<(TemplateId, u32)>,
    reports: Vec<(TemplateId, u32)>,
}

impl Algorithm for NewTemplate {
    const NAME: &'static str = "new-template";
    const SUMMARY: &'static str = "a record whose template was never, or too seldom, seen in training";
    const PAPER: &'static str = "Landauer, Skopik, Wurzenberger: A Critical Review of Common Log Data Sets Used for \
                                 Evaluation of Sequence-based Anomaly Detection Techniques, FSE 2024";
    const SIGNAL: Signal = Signal::Logs;
    const PUBLISHED_THRESHOLD: Option<f64> = Some(0.0);

    type Config = Config;
    type Model = Model;

    fn fit(config: &Config, training: &[Window<'_>], _seed: u64) -> Result<Model, DetectorError> {
        if config.min_support == 0 {
            let reason = "key `min_support`: must be at least 1".to_owned();
            return Err(DetectorError::Config { detector: Self::NAME.to_owned(), reason });
        }
        let mut model =
            Model { config: config.clone(), version: 0, support: FxHashMap::default(), reports: FxHashMap::default() };
        model.learn(training);
        if model.support.is_empty() {
            let reason = "no training window holds a record".to_owned();
            return Err(DetectorError::Fit { detector: Self::NAME.to_owned(), reason });
        }
        model.version = snapshot::version_of(Self::NAME, &(config, model.state()))?;
        Ok(model)
    }

    fn load(config: &Config, snapshot: &[u8]) -> Result<Model, DetectorError> {
        let State { version, support, reports } = snapshot::decode(Self::NAME, snapshot)?;
        let (support, reports) = (support.into_iter().collect(), reports.into_iter().collect());
        Ok(Model { config: config.clone(), version, support, reports })
    }
}

impl Model {
    fn state(&self) -> State {
        let sorted = |map: &FxHashMap<TemplateId, u32>| {
            let mut pairs: Vec<_> = map.iter().map(|(&template, &n)| (template, n)).collect();
            pairs.sort_unstable();
            pairs
        };
        State { version: self.version, support: sorted(&self.support), reports: sorted(&self.reports) }
    }

    /// How far `template` is from being normal: 0 known, or reported as often as `max_reports` allows; 1 never seen,
    /// between them too seldom seen.
    fn surprise(&self, template: TemplateId, max_reports: u32) -> f64 {
        let support = self.support.get(&template).copied().unwrap_or(0);
        if support >= self.config.min_support {
            return 0.0;
        }
        if max_reports > 0 && self.reports.get(&template).is_some_and(|&n| n >= max_reports) {
            return 0.0;
        }
        1.0 - f64::from(support) / f64::from(self.config.min_support)
    }
}

impl Detector for Model {
    fn name(&self) -> &'static str {
        NewTemplate::NAME
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn signal(&self) -> Signal {
        NewTemplate::SIGNAL
    }

    /// The sum, over the distinct templates of the fresh records, of how surprising each is. The culprit is the first
    /// of the most surprising.
    fn score(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        let mut surprising: Vec<TemplateId> = Vec::new();
        for window in windows {
            let Some(log) = window.as_log().filter(|log| !log.fresh_records().is_empty()) else {
                scores.push(None);
                continue;
            };
            surprising.clear();
            let mut score = Score { value: 0.0, culprit: log.fresh };
            let (mut worst, mut is_counted) = (0.0, false);
            let max_reports = if log.is_stream { self.config.max_stream_reports } else { self.config.max_reports };
            for (idx, record) in log.records.iter().enumerate().skip(log.fresh) {
                // What a deploy brought is reported once: it stays.
                let max_reports = if record.is_since_deploy { 1 } else { max_reports };
                let surprise = match self.surprise(record.template, max_reports) {
                    // It stands for a template that is known, and is marked for being the first of its own.
                    _ if record.is_since_deploy && self.support.contains_key(&record.template) => 1.0,
                    surprise => surprise,
                };
                is_counted |= record.is_since_deploy && surprise > 0.0;
                if surprise > 0.0 && !surprising.contains(&record.template) {
                    surprising.push(record.template);
                    score.value += surprise;
                    if surprise > worst {
                        (worst, score.culprit) = (surprise, idx);
                    }
                }
                if surprising.len() == MAX_DISTINCT {
                    break;
                }
            }
            if max_reports > 0 || is_counted {
                for &template in &surprising {
                    if self.reports.len() < self.config.max_templates || self.reports.contains_key(&template) {
                        *self.reports.entry(template).or_default() += 1;
                    }
                }
            }
            scores.push(Some(score));
        }
    }

    fn explain(&self, window: &Window<'_>, score: &Score) -> Evidence {
        let Some((log, culprit)) = window.as_log().and_then(|log| Some((log, log.records.get(score.culprit)?))) else {
            return Evidence { summary: "the window holds no record".to_owned(), ..Evidence::default() };
        };
        let support = self.support.get(&culprit.template).copied().unwrap_or(0);
        let known = |template| self.support.get(&template).is_some_and(|&n| n >= self.config.min_support);
        let unknown: Vec<_> = log.fresh_records().iter().filter(|record| !known(record.template)).collect();
        let summary = if culprit.is_since_deploy && support > 0 {
            format!(
                "a template that came with a new version of its service; it stands for template {}",
                culprit.template
            )
        } else if culprit.is_since_deploy {
            format!("template {} came with a new version of its service", culprit.template)
        } else if support == 0 {
            format!("template {} never occurred in normal operation", culprit.template)
        } else {
            format!(
                "template {} occurred in {support} normal sessions, fewer than {}",
                culprit.template, self.config.min_support
            )
        };
        Evidence {
            summary,
            seen: Some(culprit.template),
            expected: Vec::new(),
            culprit: Some(culprit.record),
            records: crate::evidence::around(log.records, score.culprit, unknown.iter().map(|record| record.record)),
            figures: [
                ("support".to_owned(), f64::from(support)),
                ("n_unknown_records".to_owned(), unknown.len() as f64),
                ("n_known_templates".to_owned(), self.support.len() as f64),
            ]
            .into(),
        }
    }

    /// Counts one session of support for each template of the fresh records.
    fn learn(&mut self, windows: &[Window<'_>]) {
        let mut counted: Vec<TemplateId> = Vec::new();
        for log in windows.iter().filter_map(Window::as_log) {
            counted.clear();
            for record in log.fresh_records() {
                if counted.contains(&record.template) {
                    continue;
                }
                if counted.len() < MAX_DISTINCT {
                    counted.push(record.template);
                }
                // A record that an earlier window of this session held has been counted there.
                if log.records[..log.fresh].iter().any(|earlier| earlier.template == record.template) {
                    continue;
                }
                if self.support.len() < self.config.max_templates || self.support.contains_key(&record.template) {
                    let support = self.support.entry(record.template).or_default();
                    *support = support.saturating_add(1);
                }
            }
        }
    }

    /// Its templates are known from now on. The first of its kind that a deploy brought stays what it was; it has been told of.
    fn accept(&mut self, window: &Window<'_>, _cut: f64) -> usize {
        let Some(log) = window.as_log() else { return 0 };
        let least = self.config.min_support;
        let mut n_learned = 0;
        for record in log.fresh_records() {
            let has_room = self.support.len() < self.config.max_templates;
            match self.support.get_mut(&record.template) {
                Some(support) if *support >= least => continue,
                Some(support) => *support = least,
                None if has_room => {
                    self.support.insert(record.template, least);
                }
                None => continue,
            }
            n_learned += 1;
        }
        if n_learned > 0 {
            self.version = snapshot::version_after(self.version, window);
        }
        n_learned
    }

    fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
        snapshot::encode(NewTemplate::NAME, &self.state())
    }
}

/// Distinct templates looked at in one window: a bound on the linear searches above.
const MAX_DISTINCT: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Session, score_all};

    fn fit(config: &Config, sessions: &[Session]) -> Model {
        let windows: Vec<_> = sessions.iter().map(Session::closed).collect();
        NewTemplate::fit(config, &windows, 0).expect("there are records")
    }

    #[test]
    fn each_distinct_unseen_template_counts_once() {
        let mut model = fit(&Config::default(), &[Session::of("a", &[1, 2, 3])]);
        let (known, unseen) = (Session::of("b", &[3, 3, 1]), Session::of("c", &[1, 9, 9, 8]));
        let scores = score_all(&mut model, &[known.closed(), unseen.closed()]);
        assert_eq!(scores, [Some(Score { value: 0.0, culprit: 0 }), Some(Score { value: 2.0, culprit: 1 })]);
    }

    #[test]
    fn support_counts_sessions_and_not_records() {
        let config = Config { min_support: 2, ..Config::default() };
        let mut model = fit(&config, &[Session::of("a", &[1, 2, 2, 2]), Session::of("b", &[1])]);
        let session = Session::of("c", &[1, 2]);
        assert_eq!(score_all(&mut model, &[session.closed()]), [Some(Score { value: 0.5, culprit: 1 })]);
    }

    #[test]
    fn only_fresh_records_are_judged() {
        let mut model = fit(&Config::default(), &[Session::of("a", &[1])]);
        let session = Session::of("b", &[9, 1]);
        assert_eq!(score_all(&mut model, &[session.window(1, true)]), [Some(Score { value: 0.0, culprit: 1 })]);
        assert_eq!(score_all(&mut model, &[session.window(2, true)]), [None], "nothing is fresh");
    }

    #[test]
    fn a_template_that_was_reported_often_enough_is_taken_for_known() {
        let config = Config { max_reports: 1, ..Config::default() };
        let mut model = fit(&config, &[Session::of("a", &[1])]);
        let session = Session::of("b", &[9]);
        let values: Vec<_> = score_all(&mut model, &[session.closed(), session.closed()]);
        assert_eq!(values.iter().map(|score| score.map_or(-1.0, |s| s.value)).collect::<Vec<_>>(), [1.0, 0.0]);
    }

    #[test]
    fn a_stream_reports_an_unknown_template_once_and_a_session_always() {
        fn as_stream(window: Window<'_>) -> Window<'_> {
            let Window::Log(log) = window else { return window };
            Window::Log(faultline_core::LogWindow { is_stream: true, ..log })
        }
        let mut model = fit(&Config::default(), &[Session::of("a", &[1])]);
        let session = Session::of("b", &[9, 1, 8]);
        let (stream, keyed) = (as_stream(session.closed()), session.closed());
        let values = |model: &mut Model, windows: &[Window<'_>]| -> Vec<f64> {
            score_all(model, windows).iter().map(|score| score.map_or(-1.0, |score| score.value)).collect()
        };
        assert_eq!(values(&mut model, &[stream, stream]), [2.0, 0.0]);
        assert_eq!(values(&mut model, &[keyed, keyed]), [2.0, 2.0], "sessions are still judged alike");
        let bytes = model.snapshot().expect("written");
        let mut restored = NewTemplate::load(&Config::default(), &bytes).expect("its own");
        assert_eq!(values(&mut restored, &[stream]), [0.0], "what was reported is remembered");
    }

    #[test]
    fn evidence_names_the_template_and_the_records() {
        let mut model = fit(&Config::default(), &[Session::of("a", &[1, 2])]);
        let session = Session::of("b", &[1, 9, 2, 9]);
        let score = score_all(&mut model, &[session.closed()])[0].expect("it has records");
        let evidence = model.explain(&session.closed(), &score);
        assert_eq!(evidence.summary, "template 9 never occurred in normal operation");
        assert_eq!((evidence.seen, evidence.culprit), (Some(TemplateId(9)), Some(session.records[1].record)));
        assert_eq!(evidence.figures["n_unknown_records"], 2.0);
    }

    #[test]
    fn learned_windows_become_normal() {
        let mut model = fit(&Config::default(), &[Session::of("a", &[1])]);
        let session = Session::of("b", &[9]);
        model.learn(&[session.closed()]);
        assert_eq!(score_all(&mut model, &[session.closed()])[0].map(|score| score.value), Some(0.0));
    }
}
