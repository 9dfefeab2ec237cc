//! Streams without a session key: the edges among records of many instances that interleave, and what is wrong along them.
//!
//! Nothing tells which record belongs to which instance, so an instance is a record that waits at the earlier end of an
//! edge, and the next record of the later end closes the one that has waited for longest. `mine` finds the edges.
//!
//! A record whose partner does not come within the edge's patience (the `lag_quantile` of its lags) is a *sequence* anomaly
//! from then on; where the partner comes after all, within [`GRACE`] patiences, it is a *latency* anomaly instead; a record that
//! nothing waits for is a *redundancy*.
//!
//! **On the scale of sessions.** A stream has no beginning and no end; it is judged in pieces, as large as windows are, and a piece is
//! to a stream what a session is to others. So what went wrong on an edge counts together, among as many instances as a
//! training piece held at most: the surprise is −ln of the binomial probability of as much, at the rate of training. A piece that
//! is shown in ten windows is thus no more abnormal than at once. `weigh` makes the score, with the scales of training pieces.
//!
//! Still the scores of streams and of sessions share one calibration, which holds few pieces where it holds many sessions; and
//! the false-discovery rate counts sessions, of which a stream begins one at most. So streams are judged on request (`streams`),
//! best where a deployment has nothing else.
//!
//! Cost: O(in-degree + out-degree) a record of the window; at most [`MAX_OPEN`] instances wait an edge. Fails where a service writes so
//! much that any record finds any other within the patience: no edge is mined there. No timer watches a stream: what is
//! overdue is noticed at its next record.

mod mine;

use std::{cmp::Reverse, collections::VecDeque};

use faultline_core::{LogWindow, Numbers};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::{
    Model,
    account::{Anomaly, Kind, tidy},
    graph::{Edge, EdgeIdx, NodeIdx, Pairing, service_hash},
    weigh::{Account, Scales},
};

/// Records of a training piece, as many as a window has by default.
const PIECE: usize = 1024;

/// Instances that may wait on one edge; older ones are forgotten.
const MAX_OPEN: usize = 1024;

/// Patiences after which a partner that comes late is no longer taken for the missed one.
const GRACE: i64 = 4;

/// What training streams look like.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Streams {
    /// Sorted by their ends.
    pub edges: Vec<Edge>,
    /// What training pieces held of each.
    pub habits: Vec<Habit>,
    /// Smallest step of the clock, nanoseconds.
    pub resolution_nanos: i64,
    /// Training pieces.
    pub n_pieces: u64,
    /// What normal pieces weigh.
    pub scales: Scales,
}

/// What training pieces held of one edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Habit {
    /// Instances in the piece that held most.
    n_instances: u64,
    /// Records that found their partner, and how many of them late.
    n_met: u64,
    n_late: u64,
}

impl Habit {
    /// Share of records that find their partner late, never quite 0.
    fn late(self) -> f64 {
        (self.n_late + 1) as f64 / (self.n_met + 2) as f64
    }
}

/// Edges of [`Streams`] by node.
#[derive(Debug, Default)]
pub struct Links {
    leaving: FxHashMap<NodeIdx, Vec<EdgeIdx>>,
    arriving: FxHashMap<NodeIdx, Vec<EdgeIdx>>,
    /// Nanoseconds that a record may wait on each edge, see [`Model::set_stream_patience`].
    patience: Vec<i64>,
}

impl Links {
    /// Of `edges`.
    pub fn of(edges: &[Edge]) -> Self {
        let mut links = Self::default();
        for (idx, edge) in (0..).zip(edges) {
            links.leaving.entry(edge.from).or_default().push(idx);
            links.arriving.entry(edge.to).or_default().push(idx);
        }
        links
    }
}

/// The instances of one edge in a window.
#[derive(Debug, Default)]
struct Open {
    /// Positions of records that wait, and of those that have waited for too long.
    waiting: VecDeque<usize>,
    overdue: VecDeque<usize>,
    /// Instances whose fate is known, and those of them that found their partner.
    n_decided: u64,
    n_met: u64,
    /// Records without a partner, and records without a predecessor.
    missed: Vec<usize>,
    unexpected: Vec<usize>,
    /// Records whose partner came late, each before that partner.
    late: Vec<(usize, usize)>,
}

impl Model {
    /// Mines `streams`, and takes what their pieces weigh for normal.
    pub(super) fn mine_streams(&mut self, streams: &[&LogWindow<'_>]) {
        self.streams = mine::mine(&self.config, &self.index, streams);
        self.links = Links::of(&self.streams.edges);
        self.set_stream_patience();
        let pieces = || streams.iter().flat_map(|stream| pieces_of(stream));
        let mut habits = vec![Habit::default(); self.streams.edges.len()];
        for piece in pieces() {
            for (idx, open) in self.walk_stream(&piece) {
                let habit = &mut habits[idx as usize];
                habit.n_instances = habit.n_instances.max(open.n_decided);
                habit.n_met += open.n_met;
                habit.n_late += open.late.len() as u64;
            }
        }
        self.streams.habits = habits;
        self.streams.n_pieces = pieces().count() as u64;
        let accounts: Vec<Account> = pieces().map(|piece| self.account_of_stream(&piece)).collect();
        self.streams.scales = Scales::of(&accounts);
    }

    /// What is wrong in a window of a stream and was not so before the fresh records.
    pub(super) fn account_of_stream(&self, window: &LogWindow<'_>) -> Account {
        let accepted = &self.accepted.streams;
        let (records, fresh) = (window.records, window.fresh);
        let services: Vec<u64> = window.services.iter().map(|name| service_hash(name)).collect();
        let mut anomalies = Vec::new();
        let mut add = |kind, position, edge, lag_nanos, surprise| {
            anomalies.push(Anomaly { kind, position, edge, lag_nanos, surprise });
        };
        for (position, record) in records.iter().enumerate().skip(fresh) {
            if self.index.node_of(record, &services).is_none() && !accepted.known.contains(&record.template) {
                add(Kind::Redundancy, position, None, None, (self.streams.n_pieces as f64 + 1.0).ln() + 1.0);
            }
        }
        let time = |position: usize| records[position].time_unix_nano;
        let now = records.last().map_or(0, |record| record.time_unix_nano);
        // Overdue from a time that the windows before this one had not reached.
        let told_until = fresh.checked_sub(1).map_or(i64::MIN, time);
        let mut n_lags = 0.0;
        for (idx, open) in self.walk_stream(window) {
            n_lags += open.n_met as f64;
            let (edge, habit) = (self.streams.edges[idx as usize], self.streams.habits[idx as usize]);
            let patience = self.links.patience[idx as usize];
            let n = open.n_decided.max(habit.n_instances);
            let missed = open.missed.iter().copied().find(|at| time(*at).saturating_add(patience) >= told_until);
            if let Some(position) = missed.filter(|_| !accepted.optional.contains(&idx)) {
                let surprise = at_least(open.missed.len(), n, edge.missing_successor());
                add(Kind::Sequence, position, Some(edge), Some(now.saturating_sub(time(position))), surprise);
            }
            let unexpected = open.unexpected.iter().copied().find(|at| *at >= fresh);
            if let Some(position) = unexpected.filter(|_| !accepted.unexplained.contains(&idx)) {
                let surprise = at_least(open.unexpected.len(), n, edge.missing_predecessor());
                add(Kind::Redundancy, position, Some(edge), None, surprise);
            }
            let late = open.late.iter().filter(|(_, at)| *at >= fresh);
            let late = late.map(|&(from, at)| (time(at).saturating_sub(time(from)), at));
            if let Some((lag, position)) = late.max_by_key(|&(lag, at)| (lag, Reverse(at))) {
                let surprise = at_least(open.late.len(), n, habit.late());
                add(Kind::Latency, position, Some(edge), Some(lag), surprise);
            }
        }
        anomalies.retain(|anomaly| anomaly.surprise > 0.0);
        tidy(window, &mut anomalies);
        // Where a piece ends says nothing, so it is open for ever.
        Account { n_records: records.len(), n_lags, anomalies, slowness: None, latest: None, is_closed: false }
    }

    /// Walks a window along the edges; returns what became of the instances of each, in order.
    fn walk_stream(&self, window: &LogWindow<'_>) -> Vec<(EdgeIdx, Open)> {
        let records = window.records;
        let services: Vec<u64> = window.services.iter().map(|name| service_hash(name)).collect();
        let skipped = records.len().saturating_sub(self.config.max_records);
        let start = records.get(skipped).map_or(0, |record| record.time_unix_nano);
        let mut all: FxHashMap<EdgeIdx, Open> = FxHashMap::default();
        let none = Vec::new();
        for (position, record) in records.iter().enumerate().skip(skipped) {
            let now = record.time_unix_nano;
            let Some(node) = self.index.node_of(record, &services) else { continue };
            for &idx in self.links.arriving.get(&node).unwrap_or(&none) {
                let open = all.entry(idx).or_default();
                self.expire(open, idx, window, now);
                let is_needed = self.streams.edges[idx as usize].backward != Pairing::Free;
                // Near the beginning what it answers may have come before.
                let is_known = now.saturating_sub(start) > self.links.patience[idx as usize];
                open.take(position, is_needed && is_known);
            }
            for &idx in self.links.leaving.get(&node).unwrap_or(&none) {
                let open = all.entry(idx).or_default();
                if open.waiting.len() == MAX_OPEN {
                    open.waiting.pop_front();
                }
                open.waiting.push_back(position);
            }
        }
        let now = records.last().map_or(0, |record| record.time_unix_nano);
        let mut all: Vec<(EdgeIdx, Open)> = all.into_iter().collect();
        all.sort_unstable_by_key(|(idx, _)| *idx);
        for (idx, open) in &mut all {
            self.expire(open, *idx, window, now);
        }
        all
    }

    /// Records whose patience has ended by `now` are missed, and those that were missed long ago are given up.
    fn expire(&self, open: &mut Open, idx: EdgeIdx, window: &LogWindow<'_>, now: i64) {
        let patience = self.links.patience[idx as usize];
        let deadline = |position: usize, patience| window.records[position].time_unix_nano.saturating_add(patience);
        while let Some(&position) = open.waiting.front().filter(|first| deadline(**first, patience) < now) {
            open.waiting.pop_front();
            open.overdue.push_back(position);
            open.n_decided += 1;
            if self.streams.edges[idx as usize].forward != Pairing::Free {
                open.missed.push(position);
            }
        }
        let grace = patience.saturating_mul(GRACE);
        while open.overdue.front().is_some_and(|first| open.overdue.len() > MAX_OPEN || deadline(*first, grace) < now) {
            open.overdue.pop_front();
        }
    }

    /// Works out how long a record may wait on each edge.
    pub(super) fn set_stream_patience(&mut self) {
        let Streams { edges, resolution_nanos, .. } = &self.streams;
        let patience = |(idx, edge): (EdgeIdx, &Edge)| {
            let nanos = edge.lag.quantile_nanos(self.config.lag_quantile, *resolution_nanos) as i64;
            nanos.min(mine::HORIZON_NANOS).max(self.accepted.streams.allowed_nanos(idx).unwrap_or(0))
        };
        self.links.patience = (0..).zip(edges).map(patience).collect();
    }
}

impl Open {
    /// Takes a record of the later end. It is unexpected where nothing waits for it although something must.
    fn take(&mut self, position: usize, must_be_awaited: bool) {
        if self.waiting.pop_front().is_some() {
            self.n_decided += 1;
            self.n_met += 1;
        } else if let Some(from) = self.overdue.pop_front() {
            // Its partner has come after all.
            if let Ok(at) = self.missed.binary_search(&from) {
                self.missed.remove(at);
            }
            self.n_met += 1;
            self.late.push((from, position));
        } else if must_be_awaited {
            self.n_decided += 1;
            self.unexpected.push(position);
        }
    }
}

/// A stream as pieces of the size that windows have.
fn pieces_of<'a>(stream: &LogWindow<'a>) -> impl Iterator<Item = LogWindow<'a>> {
    let stream = *stream;
    let numbers = Numbers::default();
    stream.records.chunks(PIECE).map(move |records| LogWindow { records, numbers, fresh: 0, ..stream })
}

/// How surprising `k` misses or more among `n` are at a rate of `share`, in nats: −ln of the binomial tail.
fn at_least(k: usize, n: u64, share: f64) -> f64 {
    let k = k as u64;
    let n = n.max(k);
    if k == 0 || k as f64 <= share * n as f64 {
        return 0.0;
    }
    // The first term, then those beyond it by their ratios, which fall as k lies above the mean.
    let choices: f64 = (1..=k).map(|i| ((n - k + i) as f64 / i as f64).ln()).sum();
    let first = choices + k as f64 * share.ln() + (n - k) as f64 * (1.0 - share).ln();
    let (mut term, mut sum) = (1.0f64, 1.0f64);
    for i in k..n {
        term *= (n - i) as f64 / (i + 1) as f64 * share / (1.0 - share);
        sum += term;
        if term < 1e-12 * sum {
            break;
        }
    }
    (-(first + sum.ln())).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::at_least;

    #[test]
    fn the_tail_is_that_of_the_binomial_distribution() {
        let close = |surprise: f64, probability: f64| (surprise + probability.ln()).abs() < 1e-9;
        assert!(close(at_least(1, 1, 0.01), 0.01));
        assert!(close(at_least(1, 10, 0.05), 1.0 - 0.95f64.powi(10)));
        assert!(close(at_least(3, 3, 0.5), 0.125));
        assert!(close(at_least(2, 3, 0.1), 3.0 * 0.01 * 0.9 + 0.001));
        assert_eq!((at_least(0, 10, 0.1), at_least(1, 10, 0.1)), (0.0, 0.0), "as many as expected");
        assert!(at_least(1024, 1024, 1e-4) > 1000.0);
    }
}
