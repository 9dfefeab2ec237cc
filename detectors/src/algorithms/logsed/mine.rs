//! Mining: sessions in, time-weighted control flow graph out.
//!
//! For every ordered pair of nodes that share sessions: how often a record of `a` is followed by one of `b` (at all, and
//! by one for itself alone), how often a record of `b` is preceded by one of `a`, and what chance would give if the
//! order of the session's records were random. A pair that is frequent and beats chance is an edge; an edge that
//! a path of shorter edges explains is dropped; a node without edges is operational. Lags are gathered in a second pass,
//! over the edges that stayed.
//!
//! Cost: O(d · n) a session of n records at d distinct nodes; at most [`MAX_PAIRS`] pairs and `max_nodes` nodes are kept.

use faultline_core::{LogWindow, TemplateId};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    Config,
    graph::{Edge, Graph, Index, Lag, Node, NodeIdx, Pairing, Place, Walk, service_hash, service_of},
};

/// Pairs of nodes whose counts are kept; pairs that turn up later are not mined.
const MAX_PAIRS: usize = 500_000;

/// Distinct nodes of one session that are paired; those seen later in it are not.
const MAX_DISTINCT: usize = 128;

/// Lags kept for each edge, evenly thinned.
const MAX_LAGS: usize = 4096;

/// Mines the graph of `sessions`, each given once and whole. `streams` only add nodes: what is in them is known.
pub fn mine(config: &Config, sessions: &[&LogWindow<'_>], streams: &[&LogWindow<'_>]) -> Graph {
    let mut graph = nodes(config, sessions, streams);
    graph.resolution_nanos = resolution(sessions);
    let index = Index::of(&graph);
    let mut counts = vec![Count::default(); graph.nodes.len()];
    let mut pairs: FxHashMap<(NodeIdx, NodeIdx), Pair> = FxHashMap::default();
    let mut positions: FxHashMap<NodeIdx, Vec<usize>> = FxHashMap::default();
    for window in sessions {
        let services: Vec<u64> = window.services.iter().map(|name| service_hash(name)).collect();
        positions.clear();
        for (position, record) in window.records.iter().take(config.max_records).enumerate() {
            let Some(node) = index.node_of(record, &services) else { continue };
            if positions.len() < MAX_DISTINCT || positions.contains_key(&node) {
                positions.entry(node).or_default().push(position);
            }
        }
        let is_whole = window.is_closed() && window.records.len() <= config.max_records;
        let mut present: Vec<NodeIdx> = positions.keys().copied().collect();
        present.sort_unstable();
        for &from in &present {
            let from_at = &positions[&from];
            counts[from as usize].n_records += from_at.len() as u64;
            if is_whole {
                counts[from as usize].n_closed += from_at.len() as u64;
            }
            for &to in present.iter().filter(|&&to| to != from) {
                if pairs.len() < MAX_PAIRS || pairs.contains_key(&(from, to)) {
                    pairs.entry((from, to)).or_default().count(from_at, &positions[&to], is_whole);
                }
            }
        }
    }
    graph.edges = edges(config, &counts, &pairs);
    gather_lags(config, &mut graph, sessions);
    graph
}

/// The nodes: every place of the training sessions; those of a template that too many services write are one.
fn nodes(config: &Config, sessions: &[&LogWindow<'_>], streams: &[&LogWindow<'_>]) -> Graph {
    let mut held_by: FxHashMap<Place, u64> = FxHashMap::default();
    let mut services_of: FxHashMap<TemplateId, FxHashSet<u64>> = FxHashMap::default();
    let each_place = |window: &LogWindow<'_>, visit: &mut dyn FnMut(Place)| {
        let services: Vec<u64> = window.services.iter().map(|name| service_hash(name)).collect();
        for record in window.records.iter().take(if window.is_stream { usize::MAX } else { config.max_records }) {
            visit(Place { template: record.template, service: service_of(record, &services) });
        }
    };
    for window in sessions.iter().chain(streams) {
        each_place(window, &mut |place| {
            let services = services_of.entry(place.template).or_default();
            if services.len() <= config.max_services {
                services.insert(place.service);
            }
        });
    }
    let is_merged = |template: &TemplateId| services_of[template].len() > config.max_services;
    let mut in_session: FxHashSet<Place> = FxHashSet::default();
    for window in sessions.iter().chain(streams) {
        in_session.clear();
        each_place(window, &mut |mut place| {
            if is_merged(&place.template) {
                place.service = 0;
            }
            in_session.insert(place);
        });
        for place in in_session.drain() {
            *held_by.entry(place).or_default() += u64::from(!window.is_stream);
        }
    }
    let mut nodes: Vec<Node> = held_by.into_iter().map(|(place, n_sessions)| Node { place, n_sessions }).collect();
    nodes.sort_unstable_by_key(|node| (std::cmp::Reverse(node.n_sessions), node.place));
    nodes.truncate(config.max_nodes);
    nodes.sort_unstable_by_key(|node| node.place);
    let mut merged: Vec<TemplateId> = services_of.keys().copied().filter(|template| is_merged(template)).collect();
    merged.sort_unstable();
    Graph { nodes, merged, n_sessions: sessions.len() as u64, ..Graph::default() }
}

/// The smallest step between two times of one session, 1 µs at least and 1 s at most.
pub fn resolution(sessions: &[&LogWindow<'_>]) -> i64 {
    let pairs = sessions.iter().flat_map(|window| window.records.windows(2));
    let steps = pairs.map(|pair| pair[1].time_unix_nano.saturating_sub(pair[0].time_unix_nano));
    steps.filter(|step| *step > 0).min().unwrap_or(1_000_000_000).clamp(1_000, 1_000_000_000)
}

#[derive(Clone, Copy, Default)]
struct Count {
    n_records: u64,
    n_closed: u64,
}

/// What the sessions say about an ordered pair of nodes.
#[derive(Clone, Copy, Default)]
struct Pair {
    n_followed: u64,
    n_followed_own: u64,
    chance_followed: f64,
    variance_followed: f64,
    n_preceded: u64,
    n_preceded_own: u64,
    chance_preceded: f64,
    variance_preceded: f64,
    distance: u64,
    n_distances: u64,
}

impl Pair {
    /// Adds one session, given the positions of both nodes in it.
    fn count(&mut self, from: &[usize], to: &[usize], is_whole: bool) {
        // If the session's records stood in random order, a record of `from` would have one of the n of `to` behind it
        // with probability n / (n + 1).
        let chance = |n: usize| n as f64 / (n as f64 + 1.0);
        let (behind, before) = (chance(to.len()), chance(from.len()));
        let mut own = 0;
        for &to_at in to {
            if from.get(own).is_some_and(|&from_at| from_at < to_at) {
                own += 1;
            }
        }
        let (first, last) = (from[0], to[to.len() - 1]);
        if is_whole {
            self.n_followed += from.iter().filter(|&&at| at < last).count() as u64;
            self.n_followed_own += own as u64;
            self.chance_followed += behind * from.len() as f64;
            self.variance_followed += behind * (1.0 - behind) * from.len() as f64;
        }
        self.n_preceded += to.iter().filter(|&&at| at > first).count() as u64;
        self.n_preceded_own += own as u64;
        self.chance_preceded += before * to.len() as f64;
        self.variance_preceded += before * (1.0 - before) * to.len() as f64;
        let mut next = 0;
        for &from_at in from {
            while to.get(next).is_some_and(|&to_at| to_at < from_at) {
                next += 1;
            }
            let Some(&to_at) = to.get(next) else { break };
            self.distance += (to_at - from_at) as u64;
            self.n_distances += 1;
        }
    }

    fn mean_distance(&self) -> f64 {
        self.distance as f64 / self.n_distances.max(1) as f64
    }
}

/// The edges of the pairs that are frequent and beat chance, less those that shorter ones explain.
fn edges(config: &Config, counts: &[Count], pairs: &FxHashMap<(NodeIdx, NodeIdx), Pair>) -> Vec<Edge> {
    let beats_chance =
        |n: u64, chance: f64, variance: f64| n as f64 - chance > config.significance * variance.sqrt().max(0.5);
    let is_frequent = |n: u64, of: u64| of >= config.min_support && n as f64 >= config.confidence * of as f64;
    let mut edges: FxHashMap<(NodeIdx, NodeIdx), (Edge, f64)> = FxHashMap::default();
    for (&(from, to), pair) in pairs {
        let (n_from, n_to) = (counts[from as usize].n_closed, counts[to as usize].n_records);
        let forward_holds = beats_chance(pair.n_followed, pair.chance_followed, pair.variance_followed);
        let (forward, n_followed) = if !forward_holds || !is_frequent(pair.n_followed, n_from) {
            (Pairing::Free, pair.n_followed)
        } else if is_frequent(pair.n_followed_own, n_from) {
            (Pairing::Own, pair.n_followed_own)
        } else {
            (Pairing::Shared, pair.n_followed)
        };
        let backward_holds = beats_chance(pair.n_preceded, pair.chance_preceded, pair.variance_preceded);
        let (backward, n_preceded) = if !backward_holds || !is_frequent(pair.n_preceded, n_to) {
            (Pairing::Free, pair.n_preceded)
        } else if is_frequent(pair.n_preceded_own, n_to) {
            (Pairing::Own, pair.n_preceded_own)
        } else {
            (Pairing::Shared, pair.n_preceded)
        };
        if forward != Pairing::Free || backward != Pairing::Free {
            let lag = Lag::default();
            let edge = Edge { from, to, forward, backward, n_from, n_followed, n_to, n_preceded, lag };
            edges.insert((from, to), (edge, pair.mean_distance()));
        }
    }
    let mut leaving: FxHashMap<NodeIdx, Vec<NodeIdx>> = FxHashMap::default();
    for (from, to) in edges.keys() {
        leaving.entry(*from).or_default().push(*to);
    }
    let mut kept: Vec<Edge> =
        edges.keys().filter_map(|ends| without_detours(*ends, &edges, &leaving[&ends.0])).collect();
    kept.sort_unstable_by_key(|edge| (edge.from, edge.to));
    kept
}

/// The edge between `ends` without the promises that a path over one other node already makes; none when none is left.
pub fn without_detours(
    ends: (NodeIdx, NodeIdx),
    edges: &FxHashMap<(NodeIdx, NodeIdx), (Edge, f64)>,
    middles: &[NodeIdx],
) -> Option<Edge> {
    let (mut edge, distance) = edges[&ends];
    let keeps = |promised: Pairing, first: Pairing, second: Pairing| match promised {
        Pairing::Free => false,
        Pairing::Shared => first != Pairing::Free && second != Pairing::Free,
        Pairing::Own => first == Pairing::Own && second == Pairing::Own,
    };
    for &middle in middles {
        let legs = edges.get(&(ends.0, middle)).zip(edges.get(&(middle, ends.1)));
        let Some(((first, to_middle), (second, from_middle))) = legs else { continue };
        // Shorter legs only: this is a well-founded order, so two edges never explain each other away.
        if *to_middle >= distance || *from_middle >= distance {
            continue;
        }
        if keeps(edge.forward, first.forward, second.forward) {
            edge.forward = Pairing::Free;
        }
        if keeps(edge.backward, first.backward, second.backward) {
            edge.backward = Pairing::Free;
        }
    }
    (edge.forward != Pairing::Free || edge.backward != Pairing::Free).then_some(edge)
}

/// Walks every session along the graph and keeps the lags of each edge.
fn gather_lags(config: &Config, graph: &mut Graph, sessions: &[&LogWindow<'_>]) {
    let index = Index::of(graph);
    let mut lags: Vec<Thinned> = vec![Thinned::default(); graph.edges.len()];
    for window in sessions {
        let services: Vec<u64> = window.services.iter().map(|name| service_hash(name)).collect();
        let mut walk = Walk::new(graph, &index);
        for (position, record) in window.records.iter().take(config.max_records).enumerate() {
            let Some(node) = index.node_of(record, &services) else { continue };
            walk.step(node, position, |step| {
                if let Some(from) = step.from {
                    let lag = record.time_unix_nano.saturating_sub(window.records[from].time_unix_nano);
                    lags[step.edge as usize].push(lag);
                }
            });
        }
    }
    for (edge, lags) in graph.edges.iter_mut().zip(&mut lags) {
        edge.lag = Lag::of(&mut lags.kept);
    }
}

/// A sample that is thinned evenly as it grows: every 2^k-th value is kept.
#[derive(Clone, Default)]
pub struct Thinned {
    /// What has been kept.
    pub kept: Vec<i64>,
    n_seen: u64,
    stride_log2: u32,
}

impl Thinned {
    /// Offers one value more.
    pub fn push(&mut self, value: i64) {
        if self.n_seen.is_multiple_of(1 << self.stride_log2) {
            if self.kept.len() == MAX_LAGS {
                let mut idx = 0;
                self.kept.retain(|_| {
                    idx += 1;
                    idx % 2 == 1
                });
                self.stride_log2 += 1;
            }
            if self.n_seen.is_multiple_of(1 << self.stride_log2) {
                self.kept.push(value);
            }
        }
        self.n_seen += 1;
    }
}
