//! What an open session waits for, and when that is overdue: deadlines for `timers`, and what [`Model::tell_overdue`] says of them.
//!
//! A wait is told early only where waiting for the end of the session could not take it back. The successor of a record either
//! never comes, which is a missing successor in the end; or it comes, which is then a lag at least as long as the wait. So a wait
//! weighs no more than either: the surprise of the lag is the one that a late record has (heavy tail, less the logarithm of the
//! number of lags of a long session), that of absence the one that a missing successor has. Its score, weighed as that of
//! an open session with nothing else wrong, is then no larger than the score of the window that brings the record or the end, but for
//! sessions with more lags than nine in ten have, and for those whose front is cut off later. So the calibration of whole sessions
//! holds for it, and an alert that comes early is one that would have come (where the false-discovery level has not changed by then).
//!
//! An edge sets timers where
//! - its records are paired one by one, so that the next partner answers the record that has waited for longest (where one partner
//!   answers all, the wait of the first is no lag that training knows);
//! - training saw its lag often enough to know the 99 % quantile;
//! - no more records lack the successor than sessions may be late (`1 - lag_quantile`): no timer waits for what may as well never
//!   come, such as the deletion of a block in HDFS.
//!
//! The deadline is the time at which the wait is nearly as surprising as if the successor never came: it is told once, so it is
//! told when that says something.

use std::sync::Arc;

use faultline_core::{LogEntry, LogWindow, Overdue, Score};

use super::{
    Model,
    account::{Anomaly, Deadline, Kind, MAX_SURPRISE, missed_from, worst},
    graph::{Edge, EdgeIdx, Lag, Pairing, Walk},
    timers::{MAX_WAITS, Wait, Watched},
    weigh::Account,
};

/// The patience with an edge that sets no timers.
const NEVER: i64 = i64::MAX;

impl Model {
    /// Works out how long a record may wait on each edge, in a session that has as many lags as a long one.
    pub(super) fn set_patience(&mut self) {
        let n_lags = self.scales.n_lags_of_open(0.0);
        let edges = (0..).zip(&self.graph.edges).filter(|_| self.config.timers);
        self.patience = edges.map(|(idx, edge)| self.patience_of(idx, edge, n_lags)).collect();
    }

    /// Nanoseconds after which a record that waits on `edge` is overdue in a session with so many lags.
    fn patience_of(&self, idx: EdgeIdx, edge: &Edge, n_lags: f64) -> i64 {
        let missing = edge.missing_successor();
        let is_known = edge.lag.n_samples >= Lag::ENOUGH as u64;
        let is_owed = edge.forward != Pairing::Free && !self.accepted.sessions.optional.contains(&idx);
        if !is_known || !is_owed || !edge.is_one_to_one() || -missing.ln() <= self.beyond() {
            return NEVER;
        }
        let wanted = missed_from(edge).max(self.beyond());
        let still_to_come = ((-wanted).exp() - missing) / (1.0 - missing);
        let lag_surprise = n_lags.max(1.0).ln() - still_to_come.max(f64::MIN_POSITIVE).ln();
        let nanos = edge.lag.nanos_of(lag_surprise, self.graph.resolution_nanos) as i64;
        nanos.max(self.accepted.sessions.allowed_nanos(idx).unwrap_or(0))
    }

    /// Adds when each edge on which a record of an open session waits will be overdue. What `anomalies` tell already, and what
    /// was overdue by the watermark, is not told again.
    pub(super) fn add_deadlines(
        &self,
        window: &LogWindow<'_>,
        walk: &Walk<'_>,
        (n_lags, anomalies): (f64, &[Anomaly]),
        deadlines: &mut Vec<Deadline>,
    ) {
        let is_long = n_lags > self.scales.n_lags_of_open(0.0);
        for (edge_idx, position) in walk.longest_waiting() {
            let Some(&patience) = self.patience.get(edge_idx as usize).filter(|patience| **patience < NEVER) else {
                continue;
            };
            let since = window.records[position].time_unix_nano;
            if since.saturating_add(patience) < self.timers.watermark_unix_nano() {
                continue;
            }
            let edge = self.edge(edge_idx);
            let is_this = |anomaly: &Anomaly| {
                let (kind, at) = (anomaly.kind, anomaly.position);
                kind == Kind::Sequence && at == position && anomaly.edge.as_ref() == Some(edge)
            };
            if anomalies.iter().any(is_this) {
                continue;
            }
            let patience = if is_long { self.patience_of(edge_idx, edge, n_lags) } else { patience };
            deadlines.push(Deadline { at_unix_nano: since.saturating_add(patience), edge: edge_idx, position });
        }
    }

    /// Watches the deadlines of an open session; nothing is awaited of one that has ended.
    pub(super) fn watch(&mut self, window: &LogWindow<'_>, account: &Account, deadlines: &mut Vec<Deadline>) {
        if deadlines.is_empty() {
            return self.timers.forget(window.key);
        }
        deadlines.sort_unstable();
        deadlines.truncate(MAX_WAITS);
        let wait = |deadline: &Deadline| {
            let entry = window.records[deadline.position];
            let service = window.services.get(entry.service as usize).cloned().unwrap_or_default();
            Wait { deadline_unix_nano: deadline.at_unix_nano, edge: deadline.edge, entry, service }
        };
        let Account { n_records, n_lags, .. } = *account;
        let waits = deadlines.iter().map(wait).collect();
        self.timers.watch(Watched { key: window.key.clone(), n_records, n_lags, waits });
    }

    /// What has become overdue by this event time, each told once.
    pub(super) fn tell_overdue(&mut self, watermark_unix_nano: i64) -> Vec<Overdue> {
        self.told.clear();
        let mut all = Vec::new();
        for Watched { key, n_records, n_lags, mut waits } in self.timers.advance(watermark_unix_nano) {
            // A verdict may have come in between.
            waits.retain(|wait| {
                let patience = self.patience.get(wait.edge as usize).copied().unwrap_or(NEVER);
                wait.entry.time_unix_nano.saturating_add(patience) < watermark_unix_nano
            });
            waits.sort_by_key(|wait| (wait.entry.time_unix_nano, wait.entry.record, wait.edge));
            let mut records: Vec<LogEntry> = Vec::new();
            let mut services: Vec<Arc<str>> = Vec::new();
            let mut anomalies = Vec::new();
            for Wait { edge, mut entry, service, .. } in waits {
                anomalies.push(self.overdue(edge, &entry, watermark_unix_nano, n_lags));
                let known = services.iter().position(|name| *name == service);
                entry.service = known.unwrap_or(services.len()) as u32;
                if known.is_none() {
                    services.push(service);
                }
                // One record may wait on several edges; those stand beside each other.
                if records.last().is_none_or(|last| last.record != entry.record) {
                    records.push(entry);
                }
                if let Some(anomaly) = anomalies.last_mut() {
                    anomaly.position = records.len() - 1;
                }
            }
            let Some(decided) = worst(anomalies.iter()).copied() else { continue };
            // The worst alone: if both came now, the later one's lag would be one, not their sum.
            let alone = Account { n_records, n_lags, anomalies: vec![decided], ..Account::default() };
            let (value, _) = self.scales.weigh(&alone, self.beyond());
            let score = Score { value, culprit: decided.position };
            self.told.insert(key.clone(), Account { anomalies, ..alone });
            all.push(Overdue { key, silent: None, records, services, is_stream: false, score });
        }
        all
    }

    /// A wait as an anomaly, at position 0.
    fn overdue(&self, edge_idx: EdgeIdx, entry: &LogEntry, watermark_unix_nano: i64, n_lags: f64) -> Anomaly {
        let edge = *self.edge(edge_idx);
        let waited = watermark_unix_nano.saturating_sub(entry.time_unix_nano);
        let resolution = self.graph.resolution_nanos;
        let lag = edge.lag.with_tail(edge.lag.surprise(waited, resolution), waited, resolution);
        let by_chance = self.scales.n_lags_of_open(n_lags).max(1.0).ln();
        let surprise = edge.absence((by_chance - lag).min(0.0).exp()).min(MAX_SURPRISE);
        Anomaly { kind: Kind::Sequence, position: 0, edge: Some(edge), lag_nanos: Some(waited), surprise }
    }
}
