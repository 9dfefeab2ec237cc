//! LogSed: a time-weighted control flow graph, mined from sessions, tells missing, unexplained and late records.
//!
//! Station 7. Jia, Yang, Chen, Li, Meng, Xu, "LogSed: Anomaly Diagnosis through Mining Time-Weighted Control Flow Graph
//! in Logs", IEEE CLOUD 2017; graph mining after Nandi, Mandal, Atreja, Dasgupta, Bhattacharya, "Anomaly Detection Using
//! Program Control Flow Graph Mining from Execution Logs", KDD 2016. `graph` holds the graph and walks a session along
//! it, `mine` makes it.
//!
//! Four kinds of anomaly, each with a surprise in nats (−ln of how often training saw the like):
//! - *sequence*: a record is owed a successor that has not come, by the end of the session or by a time after which
//!   training saw hardly any come;
//! - *redundancy*: a record that no edge explains: its template is unknown or belongs to hardly any session, or the
//!   predecessor it needs is not there (a fourth "received" after three "receiving");
//! - *latency*: a successor that came later than `lag_quantile` of them do, allowing for the number of lags in the
//!   session (the longest of thirty is longer than any one of them);
//! - *slowness*, once the session has ended: all steps together took longer than in `lag_quantile` of the sessions of its size.
//!
//! `weigh` makes the score of them: the most surprising of structure, slowness and the latest record. It is a pure function of
//! the window: a session may be scored again from its context after a restart, with the same result.
//!
//! Cost: O(in-degree + out-degree) a record of the window, context included; at most 1,024 waiting records an edge.
//!
//! When it fails: sessions without an order (every pair of templates is concurrent) have no edges, and only unknown
//! templates are seen. A step that is taken in fewer than `confidence` of the sessions is optional, and its absence is
//! normal. A clock of one second hides delays below a few seconds. A session whose front has been cut off by the length
//! cap is not searched for redundancies, since what explains a record may have been cut off. A stream without a session
//! key, where everything a service does interleaves, is not judged.
//!
//! Differences from the paper: sessions are given by their key, so no component streams need to be separated and an
//! instance is a session's own; chance is tested against a random order of the same records, which also drops operational
//! templates; edges know whether every record needs a partner of its own (HDFS writes three replicas at once); lag
//! weights are quantiles of a log-logistic distribution in place of the maximum, which one outlier would stretch for
//! ever. A successor that is overdue in an open session is noticed at the session's next record, not by a timer.

mod graph;
mod mine;
mod weigh;

use faultline_core::{Detector, DetectorError, Evidence, Expected, LogWindow, Score, Signal, TemplateId, Window};
use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::{
    graph::{Edge, Graph, Index, NodeIdx, Pairing, Walk, service_hash},
    weigh::{Account, Scales},
};
use crate::{algorithm::Algorithm, evidence, snapshot};

/// Hyperparameters of [`LogSed`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Training records a template needs for edges to be mined at it. Lower it for very short training.
    pub min_support: u64,
    /// Share of the records of one end that must have a partner at the other for an edge, .5 to 1. The paper's
    /// frequent-successor threshold is .8, with which races become edges; lower it when more than a few in a hundred of
    /// the training sessions may be anomalies.
    pub confidence: f64,
    /// A template that fewer than this share of the training sessions held is a redundancy wherever it comes.
    pub rare_share: f64,
    /// Standard deviations by which an edge must beat a random order of the session's records.
    pub significance: f64,
    /// A session is late when so large a share of sessions has no longer lag, or is no slower in all its steps. Lower it to hear
    /// of small delays; one slow host among hundreds then alerts all day. Raise it towards 1 to hear of gross delays only.
    pub lag_quantile: f64,
    /// Services under which one template is a node of its own each; a template written by more services is one node.
    /// 0 never tells services apart.
    pub max_services: usize,
    /// Nodes of the graph, the most frequent first: a memory bound.
    pub max_nodes: usize,
    /// Records of one session that are looked at: a time bound.
    pub max_records: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            min_support: 20,
            confidence: 0.95,
            rare_share: 0.02,
            significance: 4.0,
            lag_quantile: 0.995,
            max_services: 32,
            max_nodes: 4096,
            max_records: 4096,
        }
    }
}

/// See the file's documentation.
pub struct LogSed;

/// A mined graph.
#[derive(Debug)]
pub struct Model {
    config: Config,
    version: u64,
    graph: Graph,
    index: Index,
    scales: Scales,
}

#[derive(Serialize, Deserialize)]
struct State {
    version: u64,
    graph: Graph,
    scales: Scales,
}

/// One thing that is wrong in a session.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Anomaly {
    kind: Kind,
    /// The record that decided it.
    position: usize,
    /// The edge it is about; none where the record has no place in the graph.
    edge: Option<Edge>,
    /// How long it took or has taken so far.
    lag_nanos: Option<i64>,
    surprise: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Sequence,
    Redundancy,
    Latency,
    /// Every step took long, none of them absurdly.
    Slowness,
}

/// An open session is missing a record when it waits longer than so large a share of normal ones does.
const OVERDUE_QUANTILE: f64 = 0.9999;

/// No surprise counts for more than this, so that one absurd clock does not dwarf everything after it.
const MAX_SURPRISE: f64 = 30.0;

impl Algorithm for LogSed {
    const NAME: &'static str = "logsed";
    const SUMMARY: &'static str =
        "a missing, unexplained or late record, by a mined control flow graph with lag quantiles";
    const PAPER: &'static str = "Jia, Yang, Chen, Li, Meng, Xu: LogSed: Anomaly Diagnosis through Mining Time-Weighted \
                                 Control Flow Graph in Logs, IEEE CLOUD 2017";
    const SIGNAL: Signal = Signal::Logs;
    const PUBLISHED_THRESHOLD: Option<f64> = None;
    const IS_SURPRISE: bool = true;

    type Config = Config;
    type Model = Model;

    fn fit(config: &Config, training: &[Window<'_>], _seed: u64) -> Result<Model, DetectorError> {
        check(config)?;
        // A session may come as several windows that grow; the longest holds the others.
        let mut longest: FxHashMap<_, &LogWindow<'_>> = FxHashMap::default();
        let mut order = Vec::new();
        let (streams, keyed): (Vec<&LogWindow<'_>>, Vec<&LogWindow<'_>>) =
            training.iter().filter_map(Window::as_log).partition(|window| window.is_stream);
        for window in keyed.into_iter().filter(|window| window.n_dropped == 0) {
            match longest.get_mut(window.key) {
                Some(longest) if longest.records.len() > window.records.len() => {}
                Some(longest) => *longest = window,
                None => {
                    longest.insert(window.key, window);
                    order.push(window.key);
                }
            }
        }
        let sessions: Vec<&LogWindow<'_>> = order.iter().map(|key| longest[*key]).collect();
        if sessions.iter().chain(&streams).all(|window| window.records.is_empty()) {
            let reason = "no training window holds the beginning of a session".to_owned();
            return Err(DetectorError::Fit { detector: Self::NAME.to_owned(), reason });
        }
        let graph = mine::mine(config, &sessions, &streams);
        let mut model =
            Model { config: config.clone(), version: 0, index: Index::of(&graph), graph, scales: Scales::of(&[]) };
        let whole = sessions.iter().filter(|session| session.is_closed());
        model.scales = Scales::of(&whole.map(|session| model.account(session)).collect::<Vec<_>>());
        model.version = snapshot::version_of(Self::NAME, &(config, &model.graph, &model.scales))?;
        Ok(model)
    }

    fn load(config: &Config, snapshot: &[u8]) -> Result<Model, DetectorError> {
        check(config)?;
        let State { version, graph, scales } = snapshot::decode(Self::NAME, snapshot)?;
        if !scales.is_sound() {
            let reason = "a size of sessions has no class".to_owned();
            return Err(DetectorError::Snapshot { detector: Self::NAME.to_owned(), reason });
        }
        let n_nodes = graph.nodes.len();
        if graph.edges.iter().any(|edge| edge.from as usize >= n_nodes || edge.to as usize >= n_nodes) {
            let reason = "an edge ends at a node that is not there".to_owned();
            return Err(DetectorError::Snapshot { detector: Self::NAME.to_owned(), reason });
        }
        if graph.edges.iter().any(|edge| edge.n_followed > edge.n_from || edge.n_preceded > edge.n_to) {
            let reason = "an edge has more partners than records".to_owned();
            return Err(DetectorError::Snapshot { detector: Self::NAME.to_owned(), reason });
        }
        Ok(Model { config: config.clone(), version, index: Index::of(&graph), graph, scales })
    }
}

fn check(config: &Config) -> Result<(), DetectorError> {
    let refuse =
        |reason: &str| Err(DetectorError::Config { detector: LogSed::NAME.to_owned(), reason: reason.to_owned() });
    match config {
        Config { min_support: 0, .. } => refuse("key `min_support`: must be at least 1"),
        Config { confidence, .. } if !(0.5..=1.0).contains(confidence) => {
            refuse("key `confidence`: must be from 0.5 to 1")
        }
        Config { rare_share, .. } if !(0.0..=1.0).contains(rare_share) => {
            refuse("key `rare_share`: must be from 0 to 1")
        }
        Config { significance, .. } if !(significance.is_finite() && *significance >= 0.0) => {
            refuse("key `significance`: must be 0 or more")
        }
        Config { lag_quantile, .. } if !(0.5..1.0).contains(lag_quantile) => {
            refuse("key `lag_quantile`: must be at least 0.5 and below 1")
        }
        Config { max_nodes: 0, .. } => refuse("key `max_nodes`: must be at least 1"),
        Config { max_records: 0, .. } => refuse("key `max_records`: must be at least 1"),
        _ => Ok(()),
    }
}

impl Model {
    /// Templates with which an instance begins and ends: nodes that need no predecessor, and nodes that are owed no
    /// successor. Nodes without edges are operational and neither.
    #[must_use]
    pub fn borders(&self) -> (Vec<TemplateId>, Vec<TemplateId>) {
        let template = |node: usize| self.graph.nodes[node].place.template;
        let (arriving, leaving) = (&self.index.arriving, &self.index.leaving);
        let needs = |node: usize| arriving[node].iter().any(|&idx| self.edge(idx).backward != Pairing::Free);
        let is_owed = |node: usize| leaving[node].iter().any(|&idx| self.edge(idx).forward != Pairing::Free);
        let in_graph = (0..self.graph.nodes.len()).filter(|&node| arriving[node].len() + leaving[node].len() > 0);
        let first = in_graph.clone().filter(|&node| !needs(node)).map(template).collect();
        (first, in_graph.filter(|&node| !is_owed(node)).map(template).collect())
    }

    /// The edges, as pairs of templates.
    #[must_use]
    pub fn edges(&self) -> Vec<(TemplateId, TemplateId)> {
        let template = |node: NodeIdx| self.graph.nodes[node as usize].place.template;
        self.graph.edges.iter().map(|edge| (template(edge.from), template(edge.to))).collect()
    }

    /// The surprise from which on time counts.
    fn beyond(&self) -> f64 {
        -(1.0 - self.config.lag_quantile).ln()
    }

    fn edge(&self, idx: graph::EdgeIdx) -> &Edge {
        &self.graph.edges[idx as usize]
    }

    /// What is wrong in the session and was not so before the fresh records: anomalies of fresh records, and successors that are
    /// missing now; and how long everything took.
    fn account(&self, window: &LogWindow<'_>) -> Account {
        let services: Vec<u64> = window.services.iter().map(|name| service_hash(name)).collect();
        let resolution = self.graph.resolution_nanos;
        let is_whole = window.n_dropped == 0 && window.records.len() <= self.config.max_records;
        let skipped = window.records.len().saturating_sub(self.config.max_records);
        let mut anomalies = Vec::new();
        let (mut n_lags, mut slowness) = (0.0f64, 0.0);
        let mut latest: Option<Anomaly> = None;
        let mut walk = Walk::new(&self.graph, &self.index);
        for (position, record) in window.records.iter().enumerate().skip(skipped) {
            let is_fresh = position >= window.fresh;
            let node = self.index.node_of(record, &services);
            if is_fresh && let Some(surprise) = self.rarity(node) {
                anomalies.push(Anomaly { kind: Kind::Redundancy, position, edge: None, lag_nanos: None, surprise });
            }
            let Some(node) = node else { continue };
            walk.step(node, position, |step| {
                let edge = *self.edge(step.edge);
                if is_fresh && !step.is_explained && is_whole {
                    let surprise = -edge.missing_predecessor().ln();
                    let edge = Some(edge);
                    anomalies.push(Anomaly { kind: Kind::Redundancy, position, edge, lag_nanos: None, surprise });
                }
                let Some(from) = step.from else { return };
                let lag = record.time_unix_nano.saturating_sub(window.records[from].time_unix_nano);
                n_lags += 1.0;
                if !is_fresh && !window.is_closed() {
                    return;
                }
                let body = edge.lag.surprise(lag, resolution);
                slowness += body.min(weigh::CAP);
                let surprise = edge.lag.with_tail(body, lag, resolution);
                if is_fresh && latest.is_none_or(|latest| surprise > latest.surprise) {
                    let (edge, lag_nanos) = (Some(edge), Some(lag));
                    latest = Some(Anomaly { kind: Kind::Latency, position, edge, lag_nanos, surprise });
                }
            });
        }
        self.add_missing(window, &walk, &mut anomalies);
        // Of anomalies of one kind on one edge (or of one template without edge) the worst stands for all.
        let about = |anomaly: &Anomaly| match &anomaly.edge {
            Some(edge) => (anomaly.kind, 0, u64::from(edge.from), u64::from(edge.to)),
            None => (anomaly.kind, 1, window.records[anomaly.position].template.0, 0),
        };
        anomalies.sort_by(|a, b| {
            let order = about(a).cmp(&about(b)).then_with(|| b.surprise.total_cmp(&a.surprise));
            order.then_with(|| a.position.cmp(&b.position))
        });
        anomalies.dedup_by_key(|anomaly| about(anomaly));
        for anomaly in &mut anomalies {
            anomaly.surprise = anomaly.surprise.min(MAX_SURPRISE);
        }
        let is_closed = window.is_closed();
        let slowness = (is_closed && is_whole && n_lags > 0.0).then(|| slowness / n_lags);
        // A session that ends late for all its steps is late at its last record, though none of them is fresh.
        if latest.is_none() && slowness.is_some() {
            let (position, lag_nanos) = (window.records.len() - 1, None);
            latest = Some(Anomaly { kind: Kind::Latency, position, edge: None, lag_nanos, surprise: 0.0 });
        }
        Account { n_records: window.records.len(), n_lags, anomalies, slowness, latest, is_closed }
    }

    /// Records that still wait for a successor: of a session that has ended, and of an open one those that wait too long.
    fn add_missing(&self, window: &LogWindow<'_>, walk: &Walk<'_>, anomalies: &mut Vec<Anomaly>) {
        let overdue = -(1.0 - OVERDUE_QUANTILE).ln();
        let now = window.records.last().map_or(0, |record| record.time_unix_nano);
        for (edge_idx, position) in walk.waiting() {
            let edge = *self.edge(edge_idx);
            let waited = now.saturating_sub(window.records[position].time_unix_nano);
            let missing = edge.missing_successor();
            // Either the successor never comes, or it comes later than now.
            let is_closed = window.is_closed();
            let surprise_of_wait = || edge.lag.surprise(waited, self.graph.resolution_nanos);
            let still_to_come = if is_closed { 0.0 } else { (-surprise_of_wait()).exp() };
            let surprise = -(missing + (1.0 - missing) * still_to_come).ln();
            if is_closed || surprise > overdue.min(-missing.ln() * 0.9) {
                let (edge, lag_nanos) = (Some(edge), Some(waited));
                anomalies.push(Anomaly { kind: Kind::Sequence, position, edge, lag_nanos, surprise });
            }
        }
    }

    /// How surprising it is that a template turns up at all, where hardly any training session held it.
    fn rarity(&self, node: Option<NodeIdx>) -> Option<f64> {
        let n_sessions = node.map_or(0, |node| self.graph.nodes[node as usize].n_sessions) as f64;
        let of = self.graph.n_sessions as f64;
        match node {
            None => Some((of + 1.0).ln() + 1.0),
            Some(_) => (n_sessions < self.config.rare_share * of).then(|| ((of + 1.0) / (n_sessions + 1.0)).ln()),
        }
    }
}

impl Detector for Model {
    fn name(&self) -> &'static str {
        LogSed::NAME
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn signal(&self) -> Signal {
        LogSed::SIGNAL
    }

    fn score(&mut self, windows: &[Window<'_>], scores: &mut Vec<Option<Score>>) {
        for window in windows {
            let Some(log) = window.as_log().filter(|log| !log.records.is_empty() && !log.is_stream) else {
                scores.push(None);
                continue;
            };
            if log.fresh == log.records.len() && !log.is_closed() {
                scores.push(None);
                continue;
            }
            let (value, decided) = self.scales.weigh(&self.account(log), self.beyond());
            let culprit = decided.map_or(log.fresh.min(log.records.len() - 1), |decided| decided.position);
            scores.push(Some(Score { value, culprit }));
        }
    }

    fn explain(&self, window: &Window<'_>, score: &Score) -> Evidence {
        let Some((log, culprit)) = window.as_log().and_then(|log| Some((log, log.records.get(score.culprit)?))) else {
            return Evidence { summary: "the window holds no record".to_owned(), ..Evidence::default() };
        };
        let account = self.account(log);
        let (_, decided) = self.scales.weigh(&account, self.beyond());
        let anomalies = &account.anomalies;
        let deciding = anomalies.iter().map(|anomaly| log.records[anomaly.position].record);
        let mut evidence = Evidence {
            seen: Some(culprit.template),
            culprit: Some(culprit.record),
            records: evidence::around(log.records, score.culprit, deciding),
            ..Evidence::default()
        };
        let n_of = |kind: Kind| anomalies.iter().filter(|anomaly| anomaly.kind == kind).count() as f64;
        let mut figure = |name: &str, value: f64| evidence.figures.insert(name.to_owned(), value);
        figure("n_sequence", n_of(Kind::Sequence));
        figure("n_redundancy", n_of(Kind::Redundancy));
        if let Some(slowness) = account.slowness {
            figure("slowness_nats", slowness);
        }
        if let Some(latest) = account.latest {
            figure("latest_surprise", latest.surprise);
        }
        let Some(worst) = decided else {
            evidence.summary = "the session follows the control flow graph".to_owned();
            return evidence;
        };
        figure("surprise", worst.surprise);
        let template = |node: NodeIdx| self.graph.nodes[node as usize].place.template;
        let Some(edge) = worst.edge else {
            evidence.summary = match worst.kind {
                Kind::Slowness => "latency: the session took longer for all its steps than normal ones do".to_owned(),
                _ => format!("redundancy: hardly any normal session holds template {}", culprit.template),
            };
            return evidence;
        };
        let (from, to) = (template(edge.from), template(edge.to));
        let expected_nanos = edge.lag.quantile_nanos(self.config.lag_quantile, self.graph.resolution_nanos);
        figure("edge_from", from.0 as f64);
        figure("edge_to", to.0 as f64);
        figure("expected_lag_ms", expected_nanos / 1e6);
        figure("median_lag_ms", edge.lag.p50_nanos as f64 / 1e6);
        if let Some(lag) = worst.lag_nanos {
            figure("lag_ms", lag as f64 / 1e6);
        }
        let quantile = self.config.lag_quantile;
        evidence.summary = match worst.kind {
            Kind::Sequence => {
                evidence.expected = vec![Expected { template: to, probability: 1.0 - edge.missing_successor() }];
                let by = if log.is_closed() { "by the end of the session" } else { "in time" };
                format!("sequence: template {from} was not followed by template {to} {by}")
            }
            Kind::Redundancy => {
                evidence.expected = vec![Expected { template: from, probability: 1.0 - edge.missing_predecessor() }];
                format!("redundancy: template {to} came without template {from} before it")
            }
            Kind::Slowness => format!(
                "latency: the session took longer for all its steps than normal ones do; the latest is template {to}, {:.0} ms \
                 after template {from}",
                worst.lag_nanos.unwrap_or(0) as f64 / 1e6,
            ),
            Kind::Latency => format!(
                "latency: template {to} came {:.0} ms after template {from}; {quantile} of them come within {:.0} ms",
                worst.lag_nanos.unwrap_or(0) as f64 / 1e6,
                expected_nanos / 1e6,
            ),
        };
        evidence
    }

    /// Does nothing: edges change by a refit only. (Widening lags on a verdict is for the feedback loop.)
    fn learn(&mut self, _windows: &[Window<'_>]) {}

    fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
        snapshot::encode(
            LogSed::NAME,
            &State { version: self.version, graph: self.graph.clone(), scales: self.scales.clone() },
        )
    }
}

/// The most surprising anomaly, the earliest of equals.
fn worst<'a>(anomalies: impl Iterator<Item = &'a Anomaly>) -> Option<&'a Anomaly> {
    let by_surprise =
        |a: &&Anomaly, b: &&Anomaly| a.surprise.total_cmp(&b.surprise).then_with(|| b.position.cmp(&a.position));
    anomalies.max_by(by_surprise)
}

#[cfg(test)]
mod tests;
