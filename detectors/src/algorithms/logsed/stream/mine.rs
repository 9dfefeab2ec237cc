//! Mining the edges of streams.
//!
//! A pair of nodes is a candidate when nearly every record of one end has the other within the next (or last)
//! [`NEIGHBOURS`] records and [`HORIZON_NANOS`]. Its records are paired first in, first out; the lags give the
//! patience, the time after which hardly any partner comes. Then the later end's records are moved by a share of the
//! stream's length and paired again: what pairs up within that patience now does so by chance. A pair is an edge when it
//! beats that by `significance` deviations and chance explains at most half of it. Where a service writes so much that
//! any record finds any other within the patience, nothing can be said and no edge is found: such templates are
//! operational. So are those whose partner comes at any odd time (the paper's transaction borders). An edge that a path of
//! shorter ones explains is dropped, as in sessions.
//!
//! Cost: O(neighbours) a record, and O(1) a record and candidate.

use faultline_core::LogWindow;
use rustc_hash::FxHashMap;

use super::super::{
    Config,
    graph::{Edge, Index, Lag, NodeIdx, Pairing, service_hash},
    mine::{Thinned, resolution, without_detours},
};
use super::Streams;

/// Records before and after one that are looked at for candidates.
const NEIGHBOURS: usize = 32;

/// Event time within which a partner must come. The paper's.
pub const HORIZON_NANOS: i64 = 5_000_000_000;

/// Candidate pairs whose counts are kept.
const MAX_CANDIDATES: usize = 100_000;

/// Share of a stream's length by which it is moved: the golden section, as no period is a simple fraction of it.
const SHIFT: f64 = 0.618_034;

/// Time and position of a record in one stream.
type Moment = (i64, usize);

/// The records of both ends of a pair in one stream.
struct Ends<'a> {
    from: &'a [Moment],
    to: &'a [Moment],
    /// The first and the last time in the stream.
    span: (i64, i64),
}

impl<'a> Ends<'a> {
    fn of(by_node: &'a FxHashMap<NodeIdx, Vec<Moment>>, (from, to): (NodeIdx, NodeIdx), span: (i64, i64)) -> Self {
        let at = |node: NodeIdx| by_node.get(&node).map(Vec::as_slice).unwrap_or_default();
        Self { from: at(from), to: at(to), span }
    }
}

/// Mines `streams`, whose nodes are in `index`. What their pieces hold is counted later.
pub fn mine(config: &Config, index: &Index, streams: &[&LogWindow<'_>]) -> Streams {
    let resolution_nanos = resolution(streams);
    let placed: Vec<Vec<(i64, NodeIdx)>> = streams.iter().map(|window| places(index, window)).collect();
    let by_node: Vec<FxHashMap<NodeIdx, Vec<Moment>>> = placed.iter().map(|placed| moments_of(placed)).collect();
    let spans: Vec<(i64, i64)> = placed.iter().map(|placed| span_of(placed)).collect();
    let mut edges: FxHashMap<(NodeIdx, NodeIdx), (Edge, f64)> = FxHashMap::default();
    for (from, to) in candidates(config, &placed) {
        let ends = by_node.iter().zip(&spans).map(|(by_node, &span)| Ends::of(by_node, (from, to), span));
        let ends: Vec<Ends<'_>> = ends.filter(|ends| ends.from.len() + ends.to.len() > 0).collect();
        if let Some(found) = edge(config, resolution_nanos, (from, to), &ends) {
            edges.insert((from, to), found);
        }
    }
    let mut leaving: FxHashMap<NodeIdx, Vec<NodeIdx>> = FxHashMap::default();
    for (from, to) in edges.keys() {
        leaving.entry(*from).or_default().push(*to);
    }
    let mut kept: Vec<Edge> =
        edges.keys().filter_map(|ends| without_detours(*ends, &edges, &leaving[&ends.0])).collect();
    kept.sort_unstable_by_key(|edge| (edge.from, edge.to));
    Streams { edges: kept, resolution_nanos, ..Streams::default() }
}

/// The records of a stream that are at a node, with their times.
fn places(index: &Index, window: &LogWindow<'_>) -> Vec<(i64, NodeIdx)> {
    let services: Vec<u64> = window.services.iter().map(|name| service_hash(name)).collect();
    let records = window.records.iter();
    records.filter_map(|record| Some((record.time_unix_nano, index.node_of(record, &services)?))).collect()
}

fn span_of(placed: &[(i64, NodeIdx)]) -> (i64, i64) {
    let times = || placed.iter().map(|(time, _)| *time);
    (times().min().unwrap_or(0), times().max().unwrap_or(0))
}

fn moments_of(placed: &[(i64, NodeIdx)]) -> FxHashMap<NodeIdx, Vec<Moment>> {
    let mut by_node: FxHashMap<NodeIdx, Vec<Moment>> = FxHashMap::default();
    for (position, &(time, node)) in placed.iter().enumerate() {
        by_node.entry(node).or_default().push((time, position));
    }
    by_node
}

/// Pairs of which one end nearly always has the other nearby, in order.
fn candidates(config: &Config, streams: &[Vec<(i64, NodeIdx)>]) -> Vec<(NodeIdx, NodeIdx)> {
    #[derive(Clone, Copy, Default)]
    struct Near {
        n_followed: u64,
        n_preceded: u64,
    }
    let mut near: FxHashMap<(NodeIdx, NodeIdx), Near> = FxHashMap::default();
    let mut n_of: FxHashMap<NodeIdx, u64> = FxHashMap::default();
    let mut nearby: Vec<NodeIdx> = Vec::new();
    for placed in streams {
        for (position, &(time, node)) in placed.iter().enumerate() {
            *n_of.entry(node).or_default() += 1;
            collect_nearby(&mut nearby, placed[position + 1..].iter(), (time, node));
            for &other in &nearby {
                if near.len() < MAX_CANDIDATES || near.contains_key(&(node, other)) {
                    near.entry((node, other)).or_default().n_followed += 1;
                }
            }
            collect_nearby(&mut nearby, placed[..position].iter().rev(), (time, node));
            for &other in &nearby {
                if near.len() < MAX_CANDIDATES || near.contains_key(&(other, node)) {
                    near.entry((other, node)).or_default().n_preceded += 1;
                }
            }
        }
    }
    // The first and last records of a stream may lack their partner, so this asks for less than an edge needs.
    let is_frequent = |n: u64, of: u64| of >= config.min_support && n as f64 >= 0.8 * config.confidence * of as f64;
    let mut pairs: Vec<(NodeIdx, NodeIdx)> = near
        .into_iter()
        .filter(|((from, to), near)| is_frequent(near.n_followed, n_of[from]) || is_frequent(near.n_preceded, n_of[to]))
        .map(|(pair, _)| pair)
        .collect();
    pairs.sort_unstable();
    pairs
}

/// The other nodes among the next records, each once.
fn collect_nearby<'a>(
    nearby: &mut Vec<NodeIdx>,
    records: impl Iterator<Item = &'a (i64, NodeIdx)>,
    (time, node): (i64, NodeIdx),
) {
    nearby.clear();
    let horizon = HORIZON_NANOS.unsigned_abs();
    for &(_, other) in records.take(NEIGHBOURS).take_while(|(other, _)| other.abs_diff(time) <= horizon) {
        if other != node && !nearby.contains(&other) {
            nearby.push(other);
        }
    }
}

/// The edge between two nodes, with its median lag.
fn edge(
    config: &Config,
    resolution_nanos: i64,
    (from, to): (NodeIdx, NodeIdx),
    streams: &[Ends<'_>],
) -> Option<(Edge, f64)> {
    let mut lags = Thinned::default();
    for Ends { from, to, .. } in streams {
        pair_up(from, to, HORIZON_NANOS, |lag| lags.push(lag));
    }
    let lag = Lag::of(&mut lags.kept);
    if lag.n_samples < config.min_support {
        return None;
    }
    let patience = (lag.quantile_nanos(config.lag_quantile, resolution_nanos) as i64).min(HORIZON_NANOS);
    let (mut real, mut chance) = (Paired::default(), Paired::default());
    for Ends { from, to, span } in streams {
        real.count(from, to, *span, patience);
        chance.count(from, &moved(to, *span), *span, patience);
    }
    let holds = |(n_real, of): (u64, u64), (n_chance, of_chance): (u64, u64)| {
        let share = n_chance as f64 / of_chance.max(1) as f64;
        let n = of as f64;
        let deviation = (share * (1.0 - share) * n).sqrt().max(0.5);
        of >= config.min_support
            && n_real as f64 >= config.confidence * n
            && share <= 0.5
            && n_real as f64 - share * n > config.significance * deviation
    };
    let pairing = |holds: bool| if holds { Pairing::Own } else { Pairing::Free };
    let forward = pairing(holds((real.n_matched, real.n_from), (chance.n_matched, chance.n_from)));
    let backward = pairing(holds((real.n_matched, real.n_to), (chance.n_matched, chance.n_to)));
    if forward == Pairing::Free && backward == Pairing::Free {
        return None;
    }
    let Paired { n_matched, n_from, n_to } = real;
    let (n_followed, n_preceded) = (n_matched.min(n_from), n_matched.min(n_to));
    let edge = Edge { from, to, forward, backward, n_from, n_followed, n_to, n_preceded, lag };
    Some((edge, lag.p50_nanos as f64))
}

/// The records moved by [`SHIFT`], those beyond the end back to the beginning.
fn moved(times: &[Moment], (start, end): (i64, i64)) -> Vec<Moment> {
    let length = (i128::from(end) - i128::from(start)).max(1);
    let shift = (length as f64 * SHIFT) as i128;
    let at = |time: i64| i128::from(start) + (i128::from(time) - i128::from(start) + shift).rem_euclid(length);
    let mut moved: Vec<Moment> =
        times.iter().map(|&(time, idx)| (i64::try_from(at(time)).unwrap_or(end), idx)).collect();
    moved.sort_unstable();
    moved
}

/// How many records found a partner, of those that could have.
#[derive(Clone, Copy, Debug, Default)]
struct Paired {
    n_matched: u64,
    n_from: u64,
    n_to: u64,
}

impl Paired {
    /// Adds one stream. A record so near the end that its partner may come after it does not count; nor does one so near
    /// the beginning that its partner may have come before.
    fn count(&mut self, from: &[Moment], to: &[Moment], (start, end): (i64, i64), patience: i64) {
        let n_matched = pair_up(from, to, patience, |_| ());
        let n_late = from.iter().filter(|(time, _)| end.saturating_sub(*time) <= patience).count();
        let n_early = to.iter().filter(|(time, _)| time.saturating_sub(start) <= patience).count();
        self.n_matched += n_matched;
        self.n_from += ((from.len() - n_late) as u64).max(n_matched);
        self.n_to += ((to.len() - n_early) as u64).max(n_matched);
    }
}

/// Pairs records first in, first out, where no more than `patience` lies between them; says how many pairs there are.
fn pair_up(from: &[Moment], to: &[Moment], patience: i64, mut lag: impl FnMut(i64)) -> u64 {
    let (mut next, mut n_pairs) = (0, 0);
    for &(time, position) in to {
        while from.get(next).is_some_and(|waiting| waiting.0.saturating_add(patience) < time) {
            next += 1;
        }
        if let Some(waiting) = from.get(next).filter(|waiting| **waiting < (time, position)) {
            lag(time.saturating_sub(waiting.0));
            next += 1;
            n_pairs += 1;
        }
    }
    n_pairs
}
