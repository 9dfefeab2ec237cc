//! What people have called normal: lags up to a length, successors that may be missing, records that need no explanation, templates
//! that are known, sessions so slow. It lies beside the graph, which stays as it was mined.
//!
//! A verdict changes no more than it must: what decided the window's score is allowed, then what decides it next, until it
//! scores less than the cut. Of an open session only the wait so far is allowed: the record may still be missing in the end.
//!
//! Bounded: one entry an edge and kind, one a size class, [`MAX_KNOWN`] templates. Cost: a walk of the window for each thing that is
//! allowed; in scoring, a look-up for each anomaly and for each lag that is the longest so far.

use std::collections::{BTreeMap, BTreeSet};

use faultline_core::{LogWindow, TemplateId};
use serde::{Deserialize, Serialize};

use super::{
    LogSed, Model,
    account::{Anomaly, Kind},
    graph::{Edge, EdgeIdx},
    weigh::Account,
};
use crate::{algorithm::Algorithm, calibrate::exact, snapshot};

/// Templates that people may have called normal; the model is out of date by then.
const MAX_KNOWN: usize = 4096;

/// Things that one verdict may change.
const MAX_CHANGES: usize = 1024;

/// What has been called normal in sessions, and in streams without a session key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdicts {
    /// In sessions.
    pub sessions: Accepted,
    /// In streams.
    pub streams: Accepted,
}

/// See the file's documentation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// Edges whose successor may be missing.
    pub optional: BTreeSet<EdgeIdx>,
    /// Edges whose predecessor may be missing.
    pub unexplained: BTreeSet<EdgeIdx>,
    /// The longest lag of an edge that is allowed.
    lags: BTreeMap<EdgeIdx, i64>,
    /// Templates that may turn up anywhere.
    pub known: BTreeSet<TemplateId>,
    /// The most slowness that is allowed, by size class; 0 where nothing is.
    #[serde(with = "exact::list")]
    slowness: Vec<f64>,
}

impl Accepted {
    /// Whether a lag is no longer than one that has been called normal.
    pub fn allows_lag(&self, edge: EdgeIdx, lag_nanos: i64) -> bool {
        self.allowed_nanos(edge).is_some_and(|allowed| lag_nanos <= allowed)
    }

    /// The longest lag that is allowed.
    pub fn allowed_nanos(&self, edge: EdgeIdx) -> Option<i64> {
        self.lags.get(&edge).copied()
    }

    /// Whether a session of this size class may be so slow.
    pub fn allows_slowness(&self, class: usize, slowness: f64) -> bool {
        self.slowness.get(class).is_some_and(|allowed| slowness <= *allowed)
    }

    /// Allows an anomaly on `edge`, or of a record of `template` without one. `false` when that changes nothing.
    fn allow(
        &mut self,
        anomaly: &Anomaly,
        edge: Option<EdgeIdx>,
        template: TemplateId,
        slowness: Option<(usize, f64)>,
    ) -> bool {
        match (anomaly.kind, edge) {
            (Kind::Slowness, _) => slowness.is_some_and(|(class, slowness)| self.allow_slowness(class, slowness)),
            (Kind::Sequence, Some(edge)) => self.optional.insert(edge),
            (Kind::Redundancy, Some(edge)) => self.unexplained.insert(edge),
            (Kind::Latency, Some(edge)) => {
                let lag_nanos = anomaly.lag_nanos.unwrap_or(0);
                let is_new = !self.allows_lag(edge, lag_nanos);
                if is_new {
                    self.lags.insert(edge, lag_nanos);
                }
                is_new
            }
            (Kind::Redundancy, None) => self.known.len() < MAX_KNOWN && self.known.insert(template),
            (Kind::Sequence | Kind::Latency, None) => false,
        }
    }

    fn allow_slowness(&mut self, class: usize, slowness: f64) -> bool {
        if self.allows_slowness(class, slowness) {
            return false;
        }
        if self.slowness.len() <= class {
            self.slowness.resize(class + 1, 0.0);
        }
        self.slowness[class] = slowness;
        true
    }
}

impl Model {
    /// A person says that the window is normal: nothing in it is to score `cut` or more. Says how many things are allowed by that.
    pub(super) fn take_verdict(&mut self, window: &LogWindow<'_>, cut: f64) -> usize {
        if !self.judges(window) {
            return 0;
        }
        let has_fresh = window.fresh < window.records.len() || window.is_closed();
        // The verdict is about the whole session, not about its newest records alone. But where none is fresh, the records may be
        // a part of it: those that wait.
        let whole = LogWindow { fresh: if has_fresh { 0 } else { window.fresh }, ..*window };
        let mut n_changes = 0;
        while n_changes < MAX_CHANGES {
            let account = self.account(&whole);
            let (score, decided) = self.weigh(&whole, &account);
            let Some(decided) = decided.filter(|_| score >= cut) else { break };
            if !self.allow(&whole, &account, &decided) {
                break;
            }
            n_changes += 1;
        }
        if n_changes > 0 {
            self.set_patience();
            self.set_stream_patience();
            // Hashing numbers cannot fail; if it did, the model would keep its version.
            let version = snapshot::version_of(LogSed::NAME, &(self.version, &self.accepted));
            self.version = version.unwrap_or(self.version);
        }
        n_changes
    }

    fn allow(&mut self, window: &LogWindow<'_>, account: &Account, anomaly: &Anomaly) -> bool {
        let Some(template) = window.records.get(anomaly.position).map(|record| record.template) else { return false };
        let slowness = account.slowness.map(|slowness| (self.scales.class_of(account.n_records), slowness));
        let (edges, accepted) = if window.is_stream {
            (&self.streams.edges, &mut self.accepted.streams)
        } else {
            (&self.graph.edges, &mut self.accepted.sessions)
        };
        let edge = anomaly.edge.and_then(|edge| idx_of(edges, &edge));
        // An edge that is none of these is no reason to let the template pass anywhere.
        if edge.is_none() && anomaly.edge.is_some() {
            return false;
        }
        let is_open = !window.is_closed() && !window.is_stream;
        let kind = if is_open && anomaly.kind == Kind::Sequence { Kind::Latency } else { anomaly.kind };
        accepted.allow(&Anomaly { kind, ..*anomaly }, edge, template, slowness)
    }
}

/// The number of an edge among `edges`, which are sorted by their ends.
fn idx_of(edges: &[Edge], edge: &Edge) -> Option<EdgeIdx> {
    let found = edges.binary_search_by_key(&(edge.from, edge.to), |edge| (edge.from, edge.to));
    found.ok().and_then(|idx| EdgeIdx::try_from(idx).ok())
}
