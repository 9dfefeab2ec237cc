//! What is to be said of one window: what is wrong with its records, how long everything took, what it still waits for.
//!
//! The session is walked along the graph once, O(in-degree + out-degree) a record. What people have called normal
//! (`feedback`) is left out here, so the graph stays as it was mined and a lag means what it meant.

use faultline_core::{LogEntry, LogWindow};

use super::{
    Model,
    graph::{Edge, EdgeIdx, NodeIdx, Walk, service_hash},
    weigh::{self, Account},
};

/// One thing that is wrong in a session.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Anomaly {
    /// What it is.
    pub kind: Kind,
    /// The record that decided it.
    pub position: usize,
    /// The edge it is about; none where the record has no place in the graph.
    pub edge: Option<Edge>,
    /// How long it took or has taken so far.
    pub lag_nanos: Option<i64>,
    /// In nats.
    pub surprise: f64,
}

/// The kinds of anomaly, see `logsed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A successor is missing.
    Sequence,
    /// Nothing explains a record.
    Redundancy,
    /// A successor came late.
    Latency,
    /// Every step took long, none of them absurdly.
    Slowness,
}

/// When a record that waits at the earlier end of an edge has waited for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline {
    /// Event time after which that is so.
    pub at_unix_nano: i64,
    /// The edge.
    pub edge: EdgeIdx,
    /// The record.
    pub position: usize,
}

/// An open session is missing a record when it waits longer than so large a share of normal ones does.
const OVERDUE_QUANTILE: f64 = 0.9999;

/// No surprise counts for more than this, so that one absurd clock does not dwarf everything after it.
pub const MAX_SURPRISE: f64 = 30.0;

/// The surprise from which on a successor of `edge` that has not come is missed: of a long wait, or of nearly what it would be if
/// it never came.
pub fn missed_from(edge: &Edge) -> f64 {
    let overdue = -(1.0 - OVERDUE_QUANTILE).ln();
    overdue.min(-edge.missing_successor().ln() * 0.9)
}

/// The most surprising anomaly, the earliest of equals.
pub fn worst<'a>(anomalies: impl Iterator<Item = &'a Anomaly>) -> Option<&'a Anomaly> {
    let by_surprise =
        |a: &&Anomaly, b: &&Anomaly| a.surprise.total_cmp(&b.surprise).then_with(|| b.position.cmp(&a.position));
    anomalies.max_by(by_surprise)
}

impl Model {
    /// What is wrong in the window and was not so before the fresh records: anomalies of fresh records, and successors that are
    /// missing now; and how long everything took.
    pub(super) fn account(&self, window: &LogWindow<'_>) -> Account {
        self.account_and_deadlines(window, &mut Vec::new())
    }

    /// The same, and when what an open session waits for will be overdue, in no order.
    pub(super) fn account_and_deadlines(&self, window: &LogWindow<'_>, deadlines: &mut Vec<Deadline>) -> Account {
        if window.is_stream {
            return self.account_of_stream(window);
        }
        let accepted = &self.accepted.sessions;
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
            if is_fresh && let Some(surprise) = self.rarity(record, node) {
                anomalies.push(Anomaly { kind: Kind::Redundancy, position, edge: None, lag_nanos: None, surprise });
            }
            let Some(node) = node else { continue };
            walk.step(node, position, |step| {
                let edge = *self.edge(step.edge);
                if is_fresh && !step.is_explained && is_whole && !accepted.unexplained.contains(&step.edge) {
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
                let is_latest = is_fresh && latest.is_none_or(|latest| surprise > latest.surprise);
                if is_latest && !accepted.allows_lag(step.edge, lag) {
                    let (edge, lag_nanos) = (Some(edge), Some(lag));
                    latest = Some(Anomaly { kind: Kind::Latency, position, edge, lag_nanos, surprise });
                }
            });
        }
        self.add_missing(window, &walk, &mut anomalies);
        if !window.is_closed() && is_whole {
            self.add_deadlines(window, &walk, (n_lags, anomalies.as_slice()), deadlines);
        }
        tidy(window, &mut anomalies);
        let is_closed = window.is_closed();
        let slowness = (is_closed && is_whole && n_lags > 0.0).then(|| slowness / n_lags);
        let class = self.scales.class_of(window.records.len());
        let slowness = slowness.filter(|slowness| !accepted.allows_slowness(class, *slowness));
        // A session that ends late for all its steps is late at its last record, though none of them is fresh.
        if latest.is_none() && slowness.is_some() {
            let (position, lag_nanos) = (window.records.len() - 1, None);
            latest = Some(Anomaly { kind: Kind::Latency, position, edge: None, lag_nanos, surprise: 0.0 });
        }
        Account { n_records: window.records.len(), n_lags, anomalies, slowness, latest, is_closed }
    }

    /// The score of a window, and the anomaly that decided it.
    pub(super) fn weigh(&self, window: &LogWindow<'_>, account: &Account) -> (f64, Option<Anomaly>) {
        let scales = if window.is_stream { &self.streams.scales } else { &self.scales };
        scales.weigh(account, self.beyond())
    }

    /// Records that still wait for a successor: of a session that has ended, and of an open one those that wait too long.
    fn add_missing(&self, window: &LogWindow<'_>, walk: &Walk<'_>, anomalies: &mut Vec<Anomaly>) {
        let accepted = &self.accepted.sessions;
        let now = window.records.last().map_or(0, |record| record.time_unix_nano);
        for (edge_idx, position) in walk.waiting() {
            let edge = *self.edge(edge_idx);
            let waited = now.saturating_sub(window.records[position].time_unix_nano);
            let is_closed = window.is_closed();
            if accepted.optional.contains(&edge_idx) || (!is_closed && accepted.allows_lag(edge_idx, waited)) {
                continue;
            }
            let surprise_of_wait = || edge.lag.surprise(waited, self.graph.resolution_nanos);
            let surprise = edge.absence(if is_closed { 0.0 } else { (-surprise_of_wait()).exp() });
            if is_closed || surprise > missed_from(&edge) {
                let (edge, lag_nanos) = (Some(edge), Some(waited));
                anomalies.push(Anomaly { kind: Kind::Sequence, position, edge, lag_nanos, surprise });
            }
        }
    }

    /// How surprising it is that a template turns up at all, where hardly any training session held it.
    fn rarity(&self, record: &LogEntry, node: Option<NodeIdx>) -> Option<f64> {
        let n_sessions = node.map_or(0, |node| self.graph.nodes[node as usize].n_sessions) as f64;
        let of = self.graph.n_sessions as f64;
        let rarity = match node {
            None => Some((of + 1.0).ln() + 1.0),
            Some(_) => (n_sessions < self.config.rare_share * of).then(|| ((of + 1.0) / (n_sessions + 1.0)).ln()),
        };
        rarity.filter(|_| !self.accepted.sessions.known.contains(&record.template))
    }
}

/// Of anomalies of one kind on one edge (or of one template without edge) the worst stands for all.
pub fn tidy(window: &LogWindow<'_>, anomalies: &mut Vec<Anomaly>) {
    let about = |anomaly: &Anomaly| match &anomaly.edge {
        Some(edge) => (anomaly.kind, 0, u64::from(edge.from), u64::from(edge.to)),
        None => (anomaly.kind, 1, window.records[anomaly.position].template.0, 0),
    };
    anomalies.sort_by(|a, b| {
        let order = about(a).cmp(&about(b)).then_with(|| b.surprise.total_cmp(&a.surprise));
        order.then_with(|| a.position.cmp(&b.position))
    });
    anomalies.dedup_by_key(|anomaly| about(anomaly));
    for anomaly in anomalies {
        anomaly.surprise = anomaly.surprise.min(MAX_SURPRISE);
    }
}
