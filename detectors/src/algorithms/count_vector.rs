//! Count vector: an ended session whose template counts resemble those of no training session.
//!
//! Station 7. ECVC of Landauer, Skopik and Wurzenberger, "A Critical Review of Common Log Data Sets Used for Evaluation
//! of Sequence-based Anomaly Detection Techniques", FSE 2024: the score of a session with counts c is the least
//! d(c, t) = Σ|c−t| / Σmax(c, t) over the training sessions t, from 0 (same counts) to 1 (nothing in common); above .1
//! the session is anomalous. Together with the new-template and the length rule it beats published deep models on HDFS.
//!
//! Exact and fast: training sessions are kept once for each distinct vector, ordered by their total. Since Σ|c−t| is at least
//! the difference L of the totals, d is at least 2L/(total(c)+total(t)+L), so the search walks outward from the session's
//! own total and stops when that bound reaches the best distance found. A vector that was scored before is
//! looked up. Cost: a hash lookup for a known vector, else a merge for each training vector of similar total. Fails on
//! sessions whose order matters. Streams without a session key, and sessions of which the length cap has cut records off,
//! are not judged.

use std::collections::BTreeMap;

use faultline_core::{Detector, DetectorError, Evidence, Expected, LogWindow, Score, Signal, TemplateId, Window};
use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{algorithm::Algorithm, evidence, snapshot};

/// Hyperparameters of [`CountVector`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Training sessions that must have a count vector for it to be normal. 1, the default, is the paper's rule; raise
    /// it when the training data may hold anomalies.
    pub min_support: u32,
    /// Distinct count vectors to remember, a bound on memory and time. Beyond it nothing new is learned.
    pub max_vectors: usize,
    /// Scores to remember, a memory bound. Beyond it they are forgotten all at once.
    pub max_cached: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { min_support: 1, max_vectors: 20_000, max_cached: 50_000 }
    }
}

/// See the file's documentation.
pub struct CountVector;

/// How often each template occurs, in order of template id.
pub(super) type Counts = Vec<(TemplateId, u32)>;

/// A count vector of normal sessions.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Normal {
    /// Sum of the counts.
    total: u64,
    counts: Counts,
    /// Sessions that had it.
    support: u32,
}

/// The distinct count vectors of normal sessions.
#[derive(Debug)]
pub struct Model {
    config: Config,
    state: State,
    idx: FxHashMap<Counts, usize>,
    /// Indices of the sufficiently supported vectors, by total.
    by_total: Vec<usize>,
    /// The same in the order in which they became so.
    supported: Vec<usize>,
    cache: FxHashMap<Counts, Cached>,
    scratch: Counts,
}

/// The result of an earlier search.
#[derive(Clone, Copy, Debug)]
struct Cached {
    distance: f64,
    nearest: usize,
    /// How many of `supported` were known then; only the later ones can be nearer.
    n_supported: usize,
}

/// What a snapshot holds.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    version: u64,
    normals: Vec<Normal>,
}

impl Algorithm for CountVector {
    const NAME: &'static str = "count-vector";
    const SUMMARY: &'static str = "an ended session whose template counts resemble none in training (ECVC)";
    const PAPER: &'static str = "Landauer, Skopik, Wurzenberger: A Critical Review of Common Log Data Sets Used for \
                                 Evaluation of Sequence-based Anomaly Detection Techniques, FSE 2024";
    const SIGNAL: Signal = Signal::Logs;
    const PUBLISHED_THRESHOLD: Option<f64> = Some(0.1);
    /// A member of the ensemble.
    const IS_DEFAULT: bool = false;

    type Config = Config;
    type Model = Model;

    fn fit(config: &Config, training: &[Window<'_>], _seed: u64) -> Result<Model, DetectorError> {
        if config.min_support == 0 {
            let reason = "key `min_support`: must be at least 1".to_owned();
            return Err(DetectorError::Config { detector: Self::NAME.to_owned(), reason });
        }
        let mut model = Model::with(config.clone(), State { version: 0, normals: Vec::new() });
        model.learn(training);
        if model.by_total.is_empty() {
            let reason = format!("no count vector has {} ended sessions (`min_support`)", config.min_support);
            return Err(DetectorError::Fit { detector: Self::NAME.to_owned(), reason });
        }
        model.state.version = snapshot::version_of(Self::NAME, &(config, &model.state))?;
        Ok(model)
    }

    fn load(config: &Config, snapshot: &[u8]) -> Result<Model, DetectorError> {
        Ok(Model::with(config.clone(), snapshot::decode(Self::NAME, snapshot)?))
    }
}

impl Model {
    fn with(config: Config, state: State) -> Self {
        let idx = state.normals.iter().enumerate().map(|(idx, normal)| (normal.counts.clone(), idx)).collect();
        let (by_total, supported) = (Vec::new(), Vec::new());
        let mut model =
            Self { config, state, idx, by_total, supported, cache: FxHashMap::default(), scratch: Vec::new() };
        for idx in 0..model.state.normals.len() {
            if model.state.normals[idx].support >= model.config.min_support {
                model.take_for_normal(idx);
            }
        }
        model
    }

    fn take_for_normal(&mut self, idx: usize) {
        let normals = &self.state.normals;
        let at = self.by_total.partition_point(|&other| (normals[other].total, other) < (normals[idx].total, idx));
        self.by_total.insert(at, idx);
        self.supported.push(idx);
    }

    /// Where a count vector is, or finds room now.
    fn place_of(&mut self, counts: &Counts) -> Option<usize> {
        let normals = &mut self.state.normals;
        match self.idx.get(counts) {
            Some(&idx) => Some(idx),
            None if normals.len() >= self.config.max_vectors => None,
            None => {
                let total = counts.iter().map(|&(_, count)| u64::from(count)).sum();
                self.idx.insert(counts.clone(), normals.len());
                normals.push(Normal { total, counts: counts.clone(), support: 0 });
                Some(normals.len() - 1)
            }
        }
    }

    /// [`Self::nearest`], remembering the answer.
    fn nearest_cached(&mut self, counts: &Counts) -> (f64, usize) {
        let n_supported = self.supported.len();
        if let Some(cached) = self.cache.get_mut(counts) {
            for &idx in &self.supported[cached.n_supported..] {
                let distance = distance(counts, &self.state.normals[idx]);
                if distance < cached.distance {
                    (cached.distance, cached.nearest) = (distance, idx);
                }
            }
            cached.n_supported = n_supported;
            return (cached.distance, cached.nearest);
        }
        let (distance, nearest) = self.nearest(counts);
        if self.cache.len() >= self.config.max_cached {
            self.cache.clear();
        }
        self.cache.insert(counts.clone(), Cached { distance, nearest, n_supported });
        (distance, nearest)
    }

    /// The least distance of `counts` to a normal vector, and that vector.
    fn nearest(&self, counts: &Counts) -> (f64, usize) {
        let total: u64 = counts.iter().map(|&(_, count)| u64::from(count)).sum();
        let start = self.by_total.partition_point(|&idx| self.state.normals[idx].total < total);
        let (mut below, mut above) = (self.by_total[..start].iter().rev(), self.by_total[start..].iter());
        let (mut next_below, mut next_above) = (below.next(), above.next());
        let mut best = (f64::INFINITY, usize::MAX);
        // The least distance that a vector can have, by its total alone. It grows along either side.
        let bound = |idx: Option<&usize>| {
            idx.map_or(f64::INFINITY, |&idx| {
                let other = self.state.normals[idx].total;
                distance_of(total.abs_diff(other), total + other)
            })
        };
        loop {
            let (bound_below, bound_above) = (bound(next_below), bound(next_above));
            if bound_below.min(bound_above) >= best.0 {
                return best;
            }
            let next = if bound_below < bound_above {
                std::mem::replace(&mut next_below, below.next())
            } else {
                std::mem::replace(&mut next_above, above.next())
            };
            let Some(&idx) = next else { return best };
            let distance = distance(counts, &self.state.normals[idx]);
            if distance < best.0 {
                best = (distance, idx);
            }
        }
    }
}

/// Σ|c−t| / Σmax(c, t) from Σ|c−t| and the sum of both totals, as Σmax = (Σc + Σt + Σ|c−t|) / 2.
pub(super) fn distance_of(l1: u64, totals: u64) -> f64 {
    if totals == 0 { 0.0 } else { 2.0 * l1 as f64 / (totals + l1) as f64 }
}

fn distance(counts: &Counts, normal: &Normal) -> f64 {
    let total: u64 = counts.iter().map(|&(_, count)| u64::from(count)).sum();
    distance_of(l1(counts, &normal.counts), total + normal.total)
}

/// Σ|a−b| over all templates.
pub(super) fn l1(a: &[(TemplateId, u32)], b: &[(TemplateId, u32)]) -> u64 {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    let mut sum = 0;
    loop {
        let (in_a, in_b) = match (a.peek(), b.peek()) {
            (None, None) => return sum,
            (Some(_), None) => (a.next(), None),
            (None, Some(_)) => (None, b.next()),
            (Some(x), Some(y)) if x.0 < y.0 => (a.next(), None),
            (Some(x), Some(y)) if x.0 > y.0 => (None, b.next()),
            _ => (a.next(), b.next()),
        };
        let count = |entry: Option<&(TemplateId, u32)>| entry.map_or(0, |entry| u64::from(entry.1));
        sum += count(in_a).abs_diff(count(in_b));
    }
}

pub(super) fn count_into(log: &LogWindow<'_>, counts: &mut Counts) {
    counts.clear();
    counts.extend(log.records.iter().map(|record| (record.template, 1)));
    counts.sort_unstable();
    counts.dedup_by(|later, kept| {
        let same = later.0 == kept.0;
        kept.1 += if same { later.1 } else { 0 };
        same
    });
}

fn judged<'w, 'a>(window: &'w Window<'a>) -> Option<&'w LogWindow<'a>> {
    let is_whole = |log: &&LogWindow<'_>| log.is_closed() && !log.is_stream && log.n_dropped == 0;
    window.as_log().filter(is_whole).filter(|log| !log.records.is_empty())
}

impl Detector for Model {
    fn name(&self) -> &'static str {
        CountVector::NAME
    }

    fn version(&self) -> u64 {
        self.state.version
    }

    fn signal(&self) -> Signal {
        CountVector::SIGNAL
    }

    /// The distance to the nearest normal count vector. The culprit is the first record of the template whose count
    /// is most in excess; the last record when something is only missing.
    fn score(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        let mut counts = std::mem::take(&mut self.scratch);
        for window in windows {
            let Some(log) = judged(window) else {
                scores.push(None);
                continue;
            };
            count_into(log, &mut counts);
            let (value, nearest) = self.nearest_cached(&counts);
            let culprit = if value == 0.0 {
                log.records.len() - 1
            } else {
                culprit_of(log, &counts, &self.state.normals[nearest].counts)
            };
            scores.push(Some(Score { value, culprit }));
        }
        self.scratch = counts;
    }

    fn explain(&self, window: &Window<'_>, score: &Score) -> Evidence {
        let Some((log, culprit)) = window.as_log().and_then(|log| Some((log, log.records.get(score.culprit)?))) else {
            return Evidence { summary: "the window holds no record".to_owned(), ..Evidence::default() };
        };
        let mut counts = Vec::new();
        count_into(log, &mut counts);
        let (value, nearest) = self.nearest(&counts);
        let normal = &self.state.normals[nearest];
        let mut differences = differences(&counts, &normal.counts);
        differences.sort_by_key(|&(template, seen, usual)| (std::cmp::Reverse(seen.abs_diff(usual)), template));
        let told: Vec<_> = differences
            .iter()
            .take(MAX_TOLD)
            .map(|(template, seen, usual)| format!("template {template} occurs {seen} instead of {usual} times"))
            .collect();
        let more = differences.len().saturating_sub(MAX_TOLD);
        let missing = differences.iter().filter(|&&(_, seen, usual)| seen < usual).take(MAX_TOLD);
        let odd: Vec<TemplateId> = differences.iter().map(|difference| difference.0).collect();
        let deciding = log.records.iter().filter(|record| odd.contains(&record.template));
        Evidence {
            summary: format!(
                "the most similar of {} normal kinds of session differs: {}{}",
                self.by_total.len(),
                if told.is_empty() { "in nothing".to_owned() } else { told.join(", ") },
                if more > 0 { format!(" and {more} more") } else { String::new() },
            ),
            seen: Some(culprit.template),
            expected: missing
                .map(|&(template, seen, usual)| Expected {
                    template,
                    probability: f64::from(usual - seen) / f64::from(usual),
                })
                .collect(),
            culprit: Some(culprit.record),
            records: evidence::around(log.records, score.culprit, deciding.map(|record| record.record)),
            figures: [
                ("distance".to_owned(), value),
                ("n_records".to_owned(), log.records.len() as f64),
                ("n_records_of_nearest".to_owned(), normal.total as f64),
                ("support_of_nearest".to_owned(), f64::from(normal.support)),
            ]
            .into(),
        }
    }

    fn learn(&mut self, windows: &[Window<'_>]) {
        let mut counts = std::mem::take(&mut self.scratch);
        for log in windows.iter().filter_map(judged) {
            count_into(log, &mut counts);
            let Some(idx) = self.place_of(&counts) else { continue };
            let support = &mut self.state.normals[idx].support;
            *support = support.saturating_add(1);
            if *support == self.config.min_support {
                self.take_for_normal(idx);
            }
        }
        self.scratch = counts;
    }

    /// Its count vector is that of a normal session from now on.
    fn accept(&mut self, window: &Window<'_>, _cut: f64) -> usize {
        let Some(log) = judged(window) else { return 0 };
        let mut counts = Counts::new();
        count_into(log, &mut counts);
        let least = self.config.min_support;
        let Some(idx) = self.place_of(&counts).filter(|&idx| self.state.normals[idx].support < least) else { return 0 };
        self.state.normals[idx].support = least;
        self.take_for_normal(idx);
        self.state.version = snapshot::version_after(self.state.version, window);
        1
    }

    fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
        snapshot::encode(CountVector::NAME, &self.state)
    }
}

/// Templates with different counts in `a` and `b`: template, count in `a`, count in `b`.
fn differences(a: &Counts, b: &Counts) -> Vec<(TemplateId, u32, u32)> {
    let mut both: BTreeMap<TemplateId, (u32, u32)> = BTreeMap::new();
    for &(template, count) in a {
        both.entry(template).or_default().0 = count;
    }
    for &(template, count) in b {
        both.entry(template).or_default().1 = count;
    }
    let differing = both.into_iter().filter(|(_, (a, b))| a != b);
    differing.map(|(template, (a, b))| (template, a, b)).collect()
}

fn culprit_of(log: &LogWindow<'_>, counts: &Counts, normal: &Counts) -> usize {
    let mut most = None;
    for (template, seen, usual) in differences(counts, normal) {
        let excess = seen.saturating_sub(usual);
        if excess > 0 && most.is_none_or(|(_, most)| excess > most) {
            most = Some((template, excess));
        }
    }
    let first = |template| log.records.iter().position(|record| record.template == template);
    most.and_then(|(template, _)| first(template)).unwrap_or(log.records.len() - 1)
}

/// Differences that an alert spells out.
const MAX_TOLD: usize = 3;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{Session, score_all};

    fn fit(config: &Config, sessions: &[&[u64]]) -> Model {
        let sessions: Vec<_> = sessions.iter().map(|templates| Session::of("a", templates)).collect();
        let windows: Vec<_> = sessions.iter().map(Session::closed).collect();
        CountVector::fit(config, &windows, 0).expect("there are sessions")
    }

    fn score(model: &mut Model, templates: &[u64]) -> Score {
        score_all(model, &[Session::of("b", templates).closed()])[0].expect("it has ended")
    }

    #[test]
    fn the_score_is_the_distance_to_the_nearest_vector() {
        let mut model = fit(&Config::default(), &[&[1, 1, 2, 3], &[7, 8]]);
        assert_eq!(score(&mut model, &[3, 2, 1, 1]).value, 0.0, "order does not matter");
        // Differs from [1 1 2 3] by one 3 and one 4: Σ|c−t| = 2, Σmax = 5.
        assert_eq!(score(&mut model, &[1, 1, 2, 4]), Score { value: 0.4, culprit: 3 });
        assert_eq!(score(&mut model, &[9]), Score { value: 1.0, culprit: 0 });
    }

    #[test]
    fn support_leaves_rare_vectors_out() {
        let mut model = fit(&Config { min_support: 2, ..Config::default() }, &[&[1], &[1], &[2]]);
        assert_eq!((score(&mut model, &[1]).value, score(&mut model, &[2]).value), (0.0, 1.0));
        let session = Session::of("b", &[2]);
        model.learn(&[session.closed()]);
        assert_eq!(score(&mut model, &[2]).value, 0.0, "learning corrects the remembered score");
    }

    #[test]
    fn an_open_or_cut_session_is_not_judged() {
        let mut model = fit(&Config::default(), &[&[1, 2]]);
        let session = Session::of("b", &[1]);
        let Window::Log(log) = session.closed() else { panic!("a log window") };
        let cut = Window::Log(LogWindow { n_dropped: 1, ..log });
        assert_eq!(score_all(&mut model, &[session.window(0, false), cut]), [None, None]);
    }

    #[test]
    fn evidence_says_what_is_too_many_and_what_is_missing() {
        let mut model = fit(&Config::default(), &[&[1, 2, 3, 3]]);
        let session = Session::of("b", &[1, 2, 2, 2]);
        let score = score(&mut model, &[1, 2, 2, 2]);
        let evidence = model.explain(&session.closed(), &score);
        assert_eq!(
            evidence.summary,
            "the most similar of 1 normal kinds of session differs: template 2 occurs 3 instead of 1 times, template 3 \
             occurs 0 instead of 2 times"
        );
        assert_eq!(evidence.expected, [Expected { template: TemplateId(3), probability: 1.0 }]);
        assert_eq!(evidence.culprit, Some(2));
    }

    proptest! {
        #[test]
        fn pruning_finds_the_same_distance_as_looking_at_every_vector(
            training in prop::collection::vec(prop::collection::vec(1..5u64, 1..12), 1..20),
            session in prop::collection::vec(1..6u64, 1..15),
        ) {
            let slices: Vec<&[u64]> = training.iter().map(Vec::as_slice).collect();
            let mut model = fit(&Config::default(), &slices);
            let count = |templates: &[u64], id| templates.iter().filter(|&&template| template == id).count() as f64;
            let distance = |t: &Vec<u64>| {
                let (mut sum, mut max) = (0.0, 0.0);
                for id in 1..6 {
                    sum += (count(&session, id) - count(t, id)).abs();
                    max += count(&session, id).max(count(t, id));
                }
                sum / max
            };
            let least = training.iter().map(distance).fold(f64::INFINITY, f64::min);
            prop_assert!((score(&mut model, &session).value - least).abs() < 1e-12);
        }
    }
}
