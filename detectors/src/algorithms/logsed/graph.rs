//! The time-weighted control flow graph: nodes, edges, how records pair up along an edge, and how long that takes.
//!
//! The graph is data; [`Walk`] leads the records of one session along it. Mining and scoring use the same walk, so a lag
//! means the same in both. A record costs O(in-degree + out-degree).

use std::collections::VecDeque;

use faultline_core::{LogEntry, TemplateId, hash::StableHash};
use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};

/// Index of a node in [`Graph::nodes`].
pub type NodeIdx = u32;

/// Index of an edge in [`Graph::edges`].
pub type EdgeIdx = u32;

/// A template, as one service writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The template.
    pub template: TemplateId,
    /// Stable hash of the service's name, 0 where services are not told apart.
    pub service: u64,
}

/// A node with its training counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// What it stands for.
    pub place: Place,
    /// Training sessions that held it.
    pub n_sessions: u64,
}

/// What one end of an edge owes the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pairing {
    /// Nothing: the other end is optional.
    Free,
    /// At least one record of the other end, which several records may share.
    Shared,
    /// A record of the other end for itself alone.
    Own,
}

/// Exponent of the tail of lags beyond their 99 % quantile.
const TAIL: f64 = 1.5;

/// How long an edge takes: a log-logistic distribution through two quantiles, so no single slow session stretches it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lag {
    /// Median.
    pub p50_nanos: i64,
    /// The 90 % quantile.
    pub p90_nanos: i64,
    /// The 99 % quantile; the 90 % one where samples are too few to tell.
    pub p99_nanos: i64,
    /// Samples behind them.
    pub n_samples: u64,
}

impl Lag {
    /// Samples below which the 99 % quantile is taken for unknown.
    pub const ENOUGH: usize = 200;

    /// The distribution of `samples`, which are put in order.
    pub fn of(samples: &mut [i64]) -> Self {
        samples.sort_unstable();
        let quantile = |q: f64| samples.get((q * samples.len() as f64) as usize).copied().unwrap_or(0);
        let p90_nanos = quantile(0.9);
        let p99_nanos = if samples.len() < Self::ENOUGH { p90_nanos } else { quantile(0.99) };
        Self { p50_nanos: quantile(0.5), p90_nanos, p99_nanos, n_samples: samples.len() as u64 }
    }

    /// Median and shape of the distribution on a clock of `resolution`: a lag of zero is one tick.
    fn shape(&self, resolution_nanos: i64) -> (f64, f64) {
        // Steeper than this means that a lag a quarter above the median is abnormal, which no scheduler promises.
        const STEEPEST: f64 = 20.0;
        let median = (self.p50_nanos.max(0) + resolution_nanos) as f64;
        // One tick more than measured: a clock of one second writes the same lag now as 0 and now as 1.
        let ticks = |nanos: i64| (nanos.max(0) + 2 * resolution_nanos) as f64;
        let through = |nanos: i64, odds: f64| odds.ln() / (ticks(nanos) / median).ln();
        // Where the clock is too coarse to tell the 90 % quantile from the median, only the 99 % one speaks.
        let by_p90 = if self.p90_nanos > self.p50_nanos { through(self.p90_nanos, 9.0) } else { STEEPEST };
        (median, by_p90.min(through(self.p99_nanos, 99.0)).min(STEEPEST))
    }

    /// How surprising it is, in nats, to wait `nanos` or longer.
    pub fn surprise(&self, nanos: i64, resolution_nanos: i64) -> f64 {
        let (median, steepness) = self.shape(resolution_nanos);
        ((nanos.max(0) + resolution_nanos) as f64 / median).powf(steepness).ln_1p()
    }

    /// That surprise, `body`, with a heavier tail beyond the 99 % quantile: a Pareto distribution of exponent [`TAIL`]. A log-logistic one through
    /// everyday lags holds the pauses of a garbage collector or a disk to be all but impossible.
    pub fn with_tail(&self, body: f64, nanos: i64, resolution_nanos: i64) -> f64 {
        if nanos <= self.p99_nanos {
            return body;
        }
        let odds: f64 = if self.n_samples < Self::ENOUGH as u64 { 10.0 } else { 100.0 };
        let ratio = (nanos + resolution_nanos) as f64 / (self.p99_nanos.max(0) + resolution_nanos) as f64;
        body.min(odds.ln() + TAIL * ratio.ln())
    }

    /// The least lag that is so surprising, tail included, nanoseconds.
    pub fn nanos_of(&self, surprise: f64, resolution_nanos: i64) -> f64 {
        let (median, steepness) = self.shape(resolution_nanos);
        let odds: f64 = if self.n_samples < Self::ENOUGH as u64 { 10.0 } else { 100.0 };
        let body = median * surprise.max(0.0).exp_m1().powf(1.0 / steepness);
        let ratio = ((surprise - odds.ln()) / TAIL).exp();
        let tail = ratio * (self.p99_nanos.max(0) + resolution_nanos) as f64;
        (body.max(tail) - resolution_nanos as f64).max(0.0)
    }

    /// The lag that only a share `1 - quantile` exceeds, nanoseconds.
    pub fn quantile_nanos(&self, quantile: f64, resolution_nanos: i64) -> f64 {
        let (median, steepness) = self.shape(resolution_nanos);
        (median * (quantile / (1.0 - quantile)).powf(1.0 / steepness) - resolution_nanos as f64).max(0.0)
    }
}

/// An edge: records of `to` follow records of `from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// Earlier end.
    pub from: NodeIdx,
    /// Later end.
    pub to: NodeIdx,
    /// What a record of `from` may expect of `to`.
    pub forward: Pairing,
    /// What a record of `to` needs of `from`.
    pub backward: Pairing,
    /// Training records of `from` in closed sessions, and how many of them were followed as `forward` says.
    pub n_from: u64,
    /// See `n_from`.
    pub n_followed: u64,
    /// Training records of `to`, and how many of them were preceded as `backward` says.
    pub n_to: u64,
    /// See `n_to`.
    pub n_preceded: u64,
    /// How long it takes.
    pub lag: Lag,
}

impl Edge {
    /// Whether its records are paired one by one, first in, first out; otherwise a record of `to` answers all that wait.
    pub fn is_one_to_one(&self) -> bool {
        self.forward == Pairing::Own || self.backward == Pairing::Own
    }

    /// How surprising it is that a successor has not come, nats, where it comes later with the probability `still_to_come`.
    pub fn absence(&self, still_to_come: f64) -> f64 {
        let missing = self.missing_successor();
        // Either the successor never comes, or it comes later than now.
        -(missing + (1.0 - missing) * still_to_come).ln()
    }

    /// Share of `from` records that nothing follows, never quite 0.
    pub fn missing_successor(&self) -> f64 {
        (self.n_from - self.n_followed + 1) as f64 / (self.n_from + 2) as f64
    }

    /// Share of `to` records that nothing precedes, never quite 0.
    pub fn missing_predecessor(&self) -> f64 {
        (self.n_to - self.n_preceded + 1) as f64 / (self.n_to + 2) as f64
    }
}

/// The graph.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    /// Sorted by place.
    pub nodes: Vec<Node>,
    /// Sorted by their ends.
    pub edges: Vec<Edge>,
    /// Templates that too many services write to tell them apart, sorted.
    pub merged: Vec<TemplateId>,
    /// Smallest step of the clock in training, nanoseconds.
    pub resolution_nanos: i64,
    /// Training sessions.
    pub n_sessions: u64,
}

/// Where things are in a [`Graph`].
#[derive(Debug, Default)]
pub struct Index {
    node: FxHashMap<Place, NodeIdx>,
    /// Nodes of templates that only one service wrote. A service that training did not know, as after a renaming or in another
    /// file of the same system, is taken for that one.
    sole: FxHashMap<TemplateId, NodeIdx>,
    merged: FxHashSet<TemplateId>,
    /// Edges that leave a node.
    pub leaving: Vec<Vec<EdgeIdx>>,
    /// Edges that arrive at a node.
    pub arriving: Vec<Vec<EdgeIdx>>,
}

impl Index {
    /// Of `graph`.
    pub fn of(graph: &Graph) -> Self {
        let template = |idx: usize| graph.nodes.get(idx).map(|node| node.place.template);
        // Nodes are sorted by template.
        let is_sole =
            |idx: usize| template(idx) != template(idx + 1) && (idx == 0 || template(idx) != template(idx - 1));
        let sole = (0..).zip(&graph.nodes).filter(|(idx, _)| is_sole(*idx as usize));
        let mut index = Self {
            sole: sole.map(|(idx, node)| (node.place.template, idx)).collect(),
            node: (0..).zip(&graph.nodes).map(|(idx, node)| (node.place, idx)).collect(),
            merged: graph.merged.iter().copied().collect(),
            leaving: vec![Vec::new(); graph.nodes.len()],
            arriving: vec![Vec::new(); graph.nodes.len()],
        };
        for (idx, edge) in (0..).zip(&graph.edges) {
            index.leaving[edge.from as usize].push(idx);
            index.arriving[edge.to as usize].push(idx);
        }
        index
    }

    /// The node of a record, given the hashes of the window's service names.
    pub fn node_of(&self, record: &LogEntry, services: &[u64]) -> Option<NodeIdx> {
        let service = if self.merged.contains(&record.template) { 0 } else { service_of(record, services) };
        let node = self.node.get(&Place { template: record.template, service });
        node.or_else(|| self.sole.get(&record.template)).copied()
    }
}

/// The stable hash of a service's name; never 0.
pub fn service_hash(name: &str) -> u64 {
    StableHash::new().text(name).finish().max(1)
}

/// The service of `record` among the hashes of its window.
pub fn service_of(record: &LogEntry, services: &[u64]) -> u64 {
    services.get(record.service as usize).copied().unwrap_or(1)
}

/// What a record did along one edge that arrives at its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which edge.
    pub edge: EdgeIdx,
    /// The earlier record that this one answers, where there is one.
    pub from: Option<usize>,
    /// Whether what the edge's `backward` pairing asks for was there.
    pub is_explained: bool,
}

/// The open instances of one session: for each edge the records that still wait at its earlier end.
#[derive(Debug)]
pub struct Walk<'g> {
    graph: &'g Graph,
    index: &'g Index,
    open: FxHashMap<EdgeIdx, Open>,
}

#[derive(Debug, Default)]
struct Open {
    waiting: VecDeque<usize>,
    n_from: u64,
    n_used: u64,
    /// Records of the later end that came before the partner each needs for itself.
    n_early: u64,
}

/// Records that may wait on one edge; older ones are forgotten.
const MAX_WAITING: usize = 1024;

impl<'g> Walk<'g> {
    /// An empty walk.
    pub fn new(graph: &'g Graph, index: &'g Index) -> Self {
        Self { graph, index, open: FxHashMap::default() }
    }

    /// Takes the record at `position`, which is at `node`, and reports what it did along each edge that arrives there.
    pub fn step(&mut self, node: NodeIdx, position: usize, mut report: impl FnMut(Step)) {
        for &edge_idx in &self.index.arriving[node as usize] {
            let edge = &self.graph.edges[edge_idx as usize];
            let open = self.open.entry(edge_idx).or_default();
            let is_explained = match edge.backward {
                Pairing::Free => true,
                Pairing::Shared => open.n_from > 0,
                Pairing::Own => open.n_from > open.n_used,
            };
            open.n_used = (open.n_used + 1).min(open.n_from);
            if edge.backward == Pairing::Own && !is_explained {
                open.n_early += 1;
            }
            let one_to_one = edge.is_one_to_one();
            let from = if one_to_one { open.waiting.pop_front() } else { open.waiting.pop_back() };
            if edge.forward == Pairing::Shared || !one_to_one {
                open.waiting.clear();
            }
            report(Step { edge: edge_idx, from, is_explained });
        }
        for &edge_idx in &self.index.leaving[node as usize] {
            let open = self.open.entry(edge_idx).or_default();
            open.n_from += 1;
            // Two writers that race swap their records: the partner has been here already, so nothing is owed.
            if open.n_early > 0 {
                open.n_early -= 1;
                open.n_used += 1;
                continue;
            }
            if open.waiting.len() == MAX_WAITING {
                open.waiting.pop_front();
            }
            open.waiting.push_back(position);
        }
    }

    /// The records that still wait for a successor they are owed, by edge.
    pub fn waiting(&self) -> Vec<(EdgeIdx, usize)> {
        let owed = |edge: EdgeIdx| self.graph.edges[edge as usize].forward != Pairing::Free;
        let open = self.open.iter().filter(|(edge, _)| owed(**edge));
        let mut waiting: Vec<_> =
            open.flat_map(|(&edge, open)| open.waiting.iter().map(move |&at| (edge, at))).collect();
        waiting.sort_unstable();
        waiting
    }

    /// The record that has waited for longest on each edge on which one waits, in no order.
    pub fn longest_waiting(&self) -> impl Iterator<Item = (EdgeIdx, usize)> + '_ {
        self.open.iter().filter_map(|(&edge, open)| Some((edge, *open.waiting.front()?)))
    }
}
