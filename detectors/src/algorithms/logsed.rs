//! LogSed: a time-weighted control flow graph, mined from sessions, tells missing, unexplained and late records.
//!
//! Station 7. Jia, Yang, Chen, Li, Meng, Xu, "LogSed: Anomaly Diagnosis through Mining Time-Weighted Control Flow Graph
//! in Logs", IEEE CLOUD 2017; graph mining after Nandi, Mandal, Atreja, Dasgupta, Bhattacharya, "Anomaly Detection Using
//! Program Control Flow Graph Mining from Execution Logs", KDD 2016. `graph` holds the graph and walks a session along
//! it, `mine` makes it, `account` says what is wrong with a window, `weigh` makes a score of that, `explain` a sentence.
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
//! The score of a window is the most surprising of structure, slowness and the latest record (`weigh`). It is a pure function of
//! the window and of what people have said: a session may be scored again from its context after a restart, with the same result.
//!
//! **Time.** What an open session waits for sets timers on event time (`timers`); [`Detector::advance`] tells what is overdue when a
//! deadline passes, so a session that falls silent is noticed before it closes. Each wait is told once: not where a score has told it,
//! and its score is no larger than the one that the session will have, so the calibration holds for it (`overdue`). That is
//! why `timers` is on by default: it brings alerts forward and hardly adds any. What waits is not in a snapshot; a session's next
//! window sets its timer again. A record that arrives behind the watermark may come after it was missed.
//!
//! **Streams** without a session key, where everything a service does interleaves, only say which templates are known; with
//! `streams` they are mined and judged as well (`stream`).
//!
//! **Feedback.** [`Detector::accept`] takes a person's word that a window is normal: its longest lag is allowed from then on, a successor
//! that it lacks is optional, a record that nothing explains needs no explanation, its templates are known, a session may be as
//! slow (`feedback`). No more of that than it takes to bring the window below the cut; the graph itself stays as mined.
//!
//! Cost: O(in-degree + out-degree) a record of the window, context included; at most 1,024 waiting records an edge; a look-up
//! for each open window that waits.
//!
//! When it fails: sessions without an order (every pair of templates is concurrent) have no edges, and only unknown
//! templates are seen. A step that is taken in fewer than `confidence` of the sessions is optional, and its absence is
//! normal. A clock of one second hides delays below a few seconds. A session whose front has been cut off by the length
//! cap is not searched for redundancies nor timed, since what explains a record may have been cut off.
//!
//! Differences from the paper: sessions are given by their key, so no component streams need to be separated and an
//! instance is a session's own; chance is tested against a random order of the same records (in streams, against the same records
//! moved in time), which is also the filter of operational logs and cuts transaction borders; edges know whether every record
//! needs a partner of its own (HDFS writes three replicas at once); lag weights are quantiles of a log-logistic distribution in
//! place of the maximum, which one outlier would stretch for ever.

mod account;
mod explain;
mod feedback;
mod graph;
mod mine;
mod overdue;
mod stream;
mod timers;
mod weigh;

use faultline_core::{
    Detector, DetectorError, Evidence, LogWindow, Overdue, Score, Signal, TemplateId, Window, WindowKey,
};
use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::{
    account::Deadline,
    feedback::Verdicts,
    graph::{Edge, Graph, Index, NodeIdx, Pairing},
    stream::{Links, Streams},
    timers::Timers,
    weigh::{Account, Scales},
};
use crate::{algorithm::Algorithm, snapshot};

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
    /// Whether a record that waits for too long is told when event time passes its deadline, though its session has no news.
    /// Default true: alerts come earlier, and what is told would be told at the session's end with no smaller score. Turn it off
    /// where sessions are shown only when they end (`windowing.emit: on_close`), as those that outgrow the window's cap would seem silent,
    /// or to save a look-up for each open session with news.
    pub timers: bool,
    /// Whether records without a session key are mined and judged as well. Default false: their pieces share the calibration
    /// and the false-discovery rate of sessions, of which they are no sample. Turn it on where nothing has a session key.
    pub streams: bool,
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
            timers: true,
            streams: false,
        }
    }
}

/// See the file's documentation.
pub struct LogSed;

/// A mined graph, and what it waits for.
#[derive(Debug)]
pub struct Model {
    config: Config,
    version: u64,
    graph: Graph,
    index: Index,
    scales: Scales,
    streams: Streams,
    links: Links,
    accepted: Verdicts,
    /// Nanoseconds after which a record that waits on an edge is overdue; empty without timers.
    patience: Vec<i64>,
    timers: Timers,
    /// What [`Detector::advance`] told last, for [`Detector::explain`].
    told: FxHashMap<WindowKey, Account>,
    /// Room for the deadlines of one window.
    deadlines: Vec<Deadline>,
}

/// What is kept of a [`Model`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct State {
    version: u64,
    graph: Graph,
    scales: Scales,
    #[serde(default)]
    streams: Streams,
    #[serde(default)]
    accepted: Verdicts,
}

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
        let mut model = Model::new(config, State { graph, ..State::default() });
        let whole = sessions.iter().filter(|session| session.is_closed());
        model.scales = Scales::of(&whole.map(|session| model.account(session)).collect::<Vec<_>>());
        model.set_patience();
        if config.streams {
            model.mine_streams(&streams);
        }
        model.version = snapshot::version_of(Self::NAME, &(config, &model.graph, &model.scales, &model.streams))?;
        Ok(model)
    }

    fn load(config: &Config, snapshot: &[u8]) -> Result<Model, DetectorError> {
        check(config)?;
        let state: State = snapshot::decode(Self::NAME, snapshot)?;
        let refuse =
            |reason: &str| Err(DetectorError::Snapshot { detector: Self::NAME.to_owned(), reason: reason.to_owned() });
        let State { graph, scales, streams, .. } = &state;
        if !scales.is_sound() || !streams.scales.is_sound() {
            return refuse("a size of sessions has no class");
        }
        let n_nodes = graph.nodes.len();
        let edges = || graph.edges.iter().chain(&streams.edges);
        if edges().any(|edge| edge.from as usize >= n_nodes || edge.to as usize >= n_nodes) {
            return refuse("an edge ends at a node that is not there");
        }
        if edges().any(|edge| edge.n_followed > edge.n_from || edge.n_preceded > edge.n_to) {
            return refuse("an edge has more partners than records");
        }
        if streams.edges.len() != streams.habits.len() {
            return refuse("an edge of streams has no habit");
        }
        Ok(Model::new(config, state))
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
    fn new(config: &Config, state: State) -> Self {
        let State { version, graph, scales, streams, accepted } = state;
        let mut model = Self {
            config: config.clone(),
            version,
            index: Index::of(&graph),
            graph,
            scales,
            links: Links::of(&streams.edges),
            streams,
            accepted,
            patience: Vec::new(),
            timers: Timers::default(),
            told: FxHashMap::default(),
            deadlines: Vec::new(),
        };
        model.set_patience();
        model.set_stream_patience();
        model
    }

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

    /// The edges within streams that have no session key, as pairs of templates.
    #[must_use]
    pub fn stream_edges(&self) -> Vec<(TemplateId, TemplateId)> {
        let template = |node: NodeIdx| self.graph.nodes[node as usize].place.template;
        self.streams.edges.iter().map(|edge| (template(edge.from), template(edge.to))).collect()
    }

    /// The surprise from which on time counts.
    fn beyond(&self) -> f64 {
        -(1.0 - self.config.lag_quantile).ln()
    }

    fn edge(&self, idx: graph::EdgeIdx) -> &Edge {
        &self.graph.edges[idx as usize]
    }

    /// Whether it has anything to say about such a window.
    fn judges(&self, window: &LogWindow<'_>) -> bool {
        !window.records.is_empty() && (self.config.streams || !window.is_stream)
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
            let Some(log) = window.as_log().filter(|log| self.judges(log)) else {
                scores.push(None);
                continue;
            };
            if log.fresh == log.records.len() && !log.is_closed() {
                scores.push(None);
                continue;
            }
            let mut deadlines = std::mem::take(&mut self.deadlines);
            let account = self.account_and_deadlines(log, &mut deadlines);
            let (value, decided) = self.weigh(log, &account);
            let culprit = decided.map_or(log.fresh.min(log.records.len() - 1), |decided| decided.position);
            scores.push(Some(Score { value, culprit }));
            if !log.is_stream {
                self.watch(log, &account, &mut deadlines);
            }
            deadlines.clear();
            self.deadlines = deadlines;
        }
    }

    fn advance(&mut self, watermark_unix_nano: i64) -> Vec<Overdue> {
        self.tell_overdue(watermark_unix_nano)
    }

    fn explain(&self, window: &Window<'_>, score: &Score) -> Evidence {
        self.evidence(window, score)
    }

    /// Does nothing: edges change by a refit only, and what is allowed by a person's word.
    fn learn(&mut self, _windows: &[Window<'_>]) {}

    fn accept(&mut self, window: &Window<'_>, cut: f64) -> usize {
        window.as_log().map_or(0, |log| self.take_verdict(log, cut))
    }

    fn snapshot(&self) -> Result<Vec<u8>, DetectorError> {
        let state = State {
            version: self.version,
            graph: self.graph.clone(),
            scales: self.scales.clone(),
            streams: self.streams.clone(),
            accepted: self.accepted.clone(),
        };
        snapshot::encode(LogSed::NAME, &state)
    }
}

#[cfg(test)]
mod tests;
