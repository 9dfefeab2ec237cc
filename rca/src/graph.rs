//! The live service graph: who calls whom, how often, how badly and how slowly, by event time.
//!
//! Fed with spans in any order. A span whose parent belongs to another service is one call along the edge parent →
//! child; a child that comes before its parent waits in a bounded map. A failed calling span that names a callee marks
//! the edge too, so that a service which never answers is still in the graph. Figures are kept in buckets of event time
//! for a sliding history, so that before and during can be compared.
//!
//! Cost: three hash look-ups a span. Memory: bounded by the configuration; what that leaves out is counted. Fails to see
//! an edge when neither the parent nor a name for the callee ever arrives.

mod calls;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use faultline_core::SpanBatch;
use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::calls::CallStats;
use crate::{
    intern::Names,
    span::{Side, SpanRow, rows},
};

/// Bounds of the service graph. An operator changes them when services are very many or traces very slow to arrive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GraphConfig {
    /// Width of a bucket of event time, seconds.
    pub bucket_seconds: u32,
    /// Event time kept, seconds. An edge that was not used for that long is forgotten.
    pub history_seconds: u32,
    /// The most services told apart; spans of further ones are left out.
    pub max_services: usize,
    /// The most edges per bucket, some 200 bytes each; calls along further ones are left out.
    pub max_edges: usize,
    /// The most spans remembered so that their children find them, and the most children that wait for their parent.
    pub max_pending_spans: usize,
}

impl Default for GraphConfig {
    fn default() -> Self {
        Self {
            bucket_seconds: 5,
            history_seconds: 900,
            max_services: 4_096,
            max_edges: 4_096,
            max_pending_spans: 100_000,
        }
    }
}

/// What the bounds of the graph have cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GraphCounters {
    /// Spans left out because their service was one too many.
    pub n_unnamed_spans: u64,
    /// Calls left out because their edge was one too many in its bucket.
    pub n_cut_calls: u64,
    /// Calls left out because they are older than the history.
    pub n_too_old: u64,
}

/// One service over a span of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceStats {
    /// `service.name`.
    pub service: String,
    /// Calls it was given: spans whose parent is another service's or nobody's.
    pub stats: CallStats,
}

/// One edge over a span of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeStats {
    /// Who calls.
    pub caller: String,
    /// Who is called.
    pub callee: String,
    /// The calls that reached the callee, as it saw them.
    pub stats: CallStats,
    /// Calls that the caller counts as failed and names the callee for, whether they reached it or not.
    pub n_caller_errors: u64,
}

/// See the module.
pub struct ServiceGraph {
    config: GraphConfig,
    names: Names,
    buckets: BTreeMap<i64, Bucket>,
    /// Neighbours in either direction, with the number of buckets that hold the edge.
    neighbours: BTreeMap<u32, BTreeMap<u32, usize>>,
    seen: Bounded<u32>,
    orphans: Bounded<Vec<Orphan>>,
    /// Traces by the services they touched, for alerts that name only their trace.
    traces: Bounded<Vec<u32>>,
    counters: GraphCounters,
}

#[derive(Default)]
struct Bucket {
    services: FxHashMap<u32, CallStats>,
    edges: FxHashMap<(u32, u32), Edge>,
}

#[derive(Clone, Copy, Default)]
struct Edge {
    stats: CallStats,
    n_caller_errors: u64,
}

struct Orphan {
    service: u32,
    bucket: i64,
    is_error: bool,
    duration_nanos: i64,
}

/// A map that forgets its oldest key when it is full.
struct Bounded<T> {
    map: FxHashMap<(u128, u64), T>,
    order: VecDeque<(u128, u64)>,
    max: usize,
}

impl<T: Default> Bounded<T> {
    fn new(max: usize) -> Self {
        Self { map: FxHashMap::default(), order: VecDeque::new(), max: max.max(1) }
    }

    fn entry(&mut self, key: (u128, u64)) -> &mut T {
        if !self.map.contains_key(&key) {
            while self.order.len() >= self.max {
                if let Some(oldest) = self.order.pop_front() {
                    self.map.remove(&oldest);
                }
            }
            self.order.push_back(key);
        }
        self.map.entry(key).or_default()
    }

    fn get(&self, key: (u128, u64)) -> Option<&T> {
        self.map.get(&key)
    }
}

/// Services a trace may touch before the rest is not remembered for it.
const MAX_TRACE_SERVICES: usize = 64;

impl ServiceGraph {
    /// An empty graph.
    #[must_use]
    pub fn new(config: GraphConfig) -> Self {
        let max = config.max_pending_spans;
        Self {
            names: Names::new(config.max_services),
            buckets: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            seen: Bounded::new(max),
            orphans: Bounded::new(max),
            traces: Bounded::new(max),
            counters: GraphCounters::default(),
            config,
        }
    }

    /// Takes note of spans.
    pub fn observe(&mut self, spans: &SpanBatch) {
        for span in rows(spans) {
            self.observe_span(&span);
        }
    }

    fn observe_span(&mut self, span: &SpanRow<'_>) {
        let Some(service) = self.names.number(span.service) else {
            self.counters.n_unnamed_spans += 1;
            return;
        };
        let key = (span.trace, span.span);
        if self.seen.get(key) == Some(&service) {
            return; // The same span again.
        }
        *self.seen.entry(key) = service;
        let touched = self.traces.entry((span.trace, 0));
        if !touched.contains(&service) && touched.len() < MAX_TRACE_SERVICES {
            touched.push(service);
        }
        let bucket = span.start_unix_nano.div_euclid(i64::from(self.config.bucket_seconds.max(1)) * 1_000_000_000);
        let (is_error, duration_nanos) = (span.is_error, span.duration_nanos());
        match span.parent {
            None => self.count_service(bucket, service, is_error, duration_nanos),
            Some(parent) => match self.seen.get((span.trace, parent)).copied() {
                Some(caller) => self.count_call(caller, service, bucket, is_error, duration_nanos),
                None => {
                    let orphan = Orphan { service, bucket, is_error, duration_nanos };
                    self.orphans.entry((span.trace, parent)).push(orphan);
                }
            },
        }
        if let Some(orphans) = self.orphans.map.get_mut(&key).map(std::mem::take) {
            for orphan in orphans {
                self.count_call(service, orphan.service, orphan.bucket, orphan.is_error, orphan.duration_nanos);
            }
        }
        if span.side == Side::Calling
            && span.is_error
            && let Some(callee) = span.peer().and_then(|peer| self.service_called(&peer))
            && callee != service
            && let Some(edge) = self.edge(bucket, service, callee)
        {
            edge.n_caller_errors += 1;
        }
    }

    /// The service that `address` means: its name, or a host whose first label is its name.
    fn service_called(&self, address: &str) -> Option<u32> {
        spellings(address).into_iter().find_map(|name| self.names.find(name))
    }

    fn count_call(&mut self, caller: u32, service: u32, bucket: i64, is_error: bool, duration_nanos: i64) {
        if caller == service {
            return;
        }
        self.count_service(bucket, service, is_error, duration_nanos);
        if let Some(edge) = self.edge(bucket, caller, service) {
            edge.stats.count(is_error, duration_nanos);
        }
    }

    fn count_service(&mut self, bucket: i64, service: u32, is_error: bool, duration_nanos: i64) {
        match self.bucket(bucket) {
            Some(bucket) => bucket.services.entry(service).or_default().count(is_error, duration_nanos),
            None => self.counters.n_too_old += 1,
        }
    }

    /// The edge in its bucket; `None` past the limits.
    fn edge(&mut self, idx: i64, caller: u32, callee: u32) -> Option<&mut Edge> {
        let (pair, max_edges) = ((caller, callee), self.config.max_edges);
        let bucket = self.bucket(idx)?;
        if !bucket.edges.contains_key(&pair) {
            if bucket.edges.len() >= max_edges {
                self.counters.n_cut_calls += 1;
                return None;
            }
            bucket.edges.insert(pair, Edge::default());
            *self.neighbours.entry(caller).or_default().entry(callee).or_default() += 1;
            *self.neighbours.entry(callee).or_default().entry(caller).or_default() += 1;
        }
        self.buckets.get_mut(&idx)?.edges.get_mut(&pair)
    }

    /// The bucket, made if need be; then the oldest goes when there are too many. Bounding their number and not their
    /// age keeps one span with a wrong clock from wiping the history. `None` when it is older than the history.
    fn bucket(&mut self, idx: i64) -> Option<&mut Bucket> {
        let max = (self.config.history_seconds / self.config.bucket_seconds.max(1)).max(1) as usize;
        if !self.buckets.contains_key(&idx) && self.buckets.len() >= max {
            let oldest = *self.buckets.first_key_value()?.0;
            if idx < oldest {
                return None;
            }
            for (caller, callee) in self.buckets.remove(&oldest)?.edges.into_keys() {
                self.forget_neighbour(caller, callee);
                self.forget_neighbour(callee, caller);
            }
        }
        Some(self.buckets.entry(idx).or_default())
    }

    fn forget_neighbour(&mut self, of: u32, neighbour: u32) {
        let Some(neighbours) = self.neighbours.get_mut(&of) else { return };
        if let Some(n_buckets) = neighbours.get_mut(&neighbour) {
            *n_buckets -= 1;
            if *n_buckets == 0 {
                neighbours.remove(&neighbour);
            }
        }
        if neighbours.is_empty() {
            self.neighbours.remove(&of);
        }
    }

    /// What its bounds have cost.
    #[must_use]
    pub fn counters(&self) -> GraphCounters {
        self.counters
    }

    /// Whether spans of the service, or calls to it, were seen lately.
    #[must_use]
    pub fn knows(&self, service: &str) -> bool {
        self.names.find(service).is_some()
    }

    /// Services that the trace touched as far as is remembered.
    #[must_use]
    pub fn services_of_trace(&self, trace_id: &str) -> Vec<&str> {
        let touched = self.traces.get((crate::span::trace_number(trace_id), 0));
        touched.into_iter().flatten().map(|service| self.names.name(*service)).collect()
    }

    /// Services within `max_distance` edges of `service` in either direction, itself included, with their distance.
    #[must_use]
    pub fn near(&self, service: &str, max_distance: u32) -> BTreeMap<&str, u32> {
        let Some(start) = self.names.find(service) else { return BTreeMap::new() };
        let mut near = BTreeMap::from([(self.names.name(start), 0)]);
        let mut seen = BTreeSet::from([start]);
        let mut frontier = vec![start];
        for distance in 1..=max_distance {
            let neighbours =
                frontier.iter().filter_map(|service| self.neighbours.get(service)).flat_map(BTreeMap::keys);
            frontier = neighbours.copied().filter(|neighbour| seen.insert(*neighbour)).collect();
            near.extend(frontier.iter().map(|service| (self.names.name(*service), distance)));
        }
        near
    }

    /// Figures of every service between two event times (whole buckets), by name.
    #[must_use]
    pub fn services(&self, from_unix_nano: i64, until_unix_nano: i64) -> Vec<ServiceStats> {
        let mut sums: BTreeMap<&str, CallStats> = BTreeMap::new();
        for bucket in self.between(from_unix_nano, until_unix_nano) {
            for (service, stats) in &bucket.services {
                sums.entry(self.names.name(*service)).or_default().add(*stats);
            }
        }
        sums.into_iter().map(|(service, stats)| ServiceStats { service: service.into(), stats }).collect()
    }

    /// Figures of every edge between two event times (whole buckets), by names.
    #[must_use]
    pub fn edges(&self, from_unix_nano: i64, until_unix_nano: i64) -> Vec<EdgeStats> {
        let mut sums: BTreeMap<(&str, &str), Edge> = BTreeMap::new();
        for bucket in self.between(from_unix_nano, until_unix_nano) {
            for ((caller, callee), edge) in &bucket.edges {
                let sum = sums.entry((self.names.name(*caller), self.names.name(*callee))).or_default();
                sum.stats.add(edge.stats);
                sum.n_caller_errors += edge.n_caller_errors;
            }
        }
        let edge = |((caller, callee), edge): ((&str, &str), Edge)| EdgeStats {
            caller: caller.into(),
            callee: callee.into(),
            stats: edge.stats,
            n_caller_errors: edge.n_caller_errors,
        };
        sums.into_iter().map(edge).collect()
    }

    fn between(&self, from_unix_nano: i64, until_unix_nano: i64) -> impl Iterator<Item = &Bucket> {
        let width = i64::from(self.config.bucket_seconds.max(1)) * 1_000_000_000;
        let (from, until) = (from_unix_nano.div_euclid(width), until_unix_nano.div_euclid(width));
        self.buckets.range(from..=until.max(from)).map(|(_, bucket)| bucket)
    }
}

/// How a service may be called by its address: as it stands, without its port, and by its host's first label.
pub(crate) fn spellings(address: &str) -> [&str; 3] {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    [address, host, host.split('.').next().unwrap_or(host)]
}

#[cfg(test)]
mod tests {
    use faultline_core::{SpanBatch, SpanBatchBuilder, SpanRecord};

    use super::{GraphConfig, GraphCounters, ServiceGraph};

    const SECOND: i64 = 1_000_000_000;

    fn span(id: &'static str, parent: &'static str, service: &'static str, at_s: i64) -> SpanRecord<'static> {
        SpanRecord {
            trace_id: "0af7651916cd43dd8448eb211c80319c",
            span_id: id,
            parent_span_id: parent,
            name: "GET /",
            kind: 2,
            service_name: service,
            start_time_unix_nano: at_s * SECOND,
            end_time_unix_nano: at_s * SECOND + 2_000_000,
            ..SpanRecord::default()
        }
    }

    fn batch(spans: &[SpanRecord<'_>]) -> SpanBatch {
        let mut builder = SpanBatchBuilder::default();
        spans.iter().for_each(|span| builder.push(span));
        builder.finish()
    }

    fn edges(graph: &ServiceGraph) -> Vec<(String, String, u64, u64)> {
        let flat = |edge: super::EdgeStats| (edge.caller, edge.callee, edge.stats.n_calls, edge.n_caller_errors);
        graph.edges(i64::MIN, i64::MAX).into_iter().map(flat).collect()
    }

    #[test]
    fn an_edge_is_found_whichever_end_arrives_first_and_once_however_often_it_arrives() {
        let parent = span("00000000000000a1", "", "gateway", 10);
        let child = span("00000000000000a2", "00000000000000a1", "cart", 10);
        for order in [[parent, child], [child, parent]] {
            let mut graph = ServiceGraph::new(GraphConfig::default());
            order.iter().chain(&order).for_each(|span| graph.observe(&batch(&[*span])));
            assert_eq!(edges(&graph), [("gateway".into(), "cart".into(), 1, 0)]);
            assert!((graph.edges(0, 20 * SECOND)[0].stats.mean_ms() - 2.0).abs() < 1e-9);
            assert_eq!(graph.services(0, 20 * SECOND).len(), 2);
            assert_eq!(graph.services_of_trace("0af7651916cd43dd8448eb211c80319c").len(), 2);
        }
    }

    #[test]
    fn a_callee_that_never_answers_is_known_by_the_address_its_caller_names() {
        let mut graph = ServiceGraph::new(GraphConfig::default());
        graph.observe(&batch(&[span("00000000000000b1", "", "payment", 1)]));
        let call = SpanRecord {
            kind: 3,
            status_code: 2,
            attributes: r#"{"server.address":"payment.shop.svc.cluster.local:8080","server.port":8080}"#,
            ..span("00000000000000b2", "00000000000000b0", "checkout", 2)
        };
        graph.observe(&batch(&[call]));
        assert_eq!(edges(&graph), [("checkout".into(), "payment".into(), 0, 1)]);
        assert_eq!(graph.near("payment", 1)["checkout"], 1);
    }

    #[test]
    fn distance_counts_edges_in_either_direction_and_ends_with_the_history() {
        let config = GraphConfig { history_seconds: 20, ..GraphConfig::default() };
        let mut graph = ServiceGraph::new(config);
        graph.observe(&batch(&[
            span("00000000000000c1", "", "a", 10),
            span("00000000000000c2", "00000000000000c1", "b", 10),
            span("00000000000000c3", "00000000000000c2", "c", 10),
            span("00000000000000c4", "00000000000000c1", "d", 10),
        ]));
        assert_eq!(graph.near("c", 2).into_iter().collect::<Vec<_>>(), [("a", 2), ("b", 1), ("c", 0)]);
        assert_eq!(graph.near("c", 3)["d"], 3);
        for at_s in [100, 105, 110, 115] {
            graph.observe(&batch(&[span("00000000000000c5", "", "a", at_s), span("c6", "", "a", at_s)]));
        }
        let ids = ["d1", "d2", "d3", "d4"];
        for (id, at_s) in ids.into_iter().zip([120, 125, 130, 135]) {
            graph.observe(&batch(&[span(id, "", "a", at_s)]));
        }
        assert_eq!(graph.near("c", 3).len(), 1, "the edges were last used before the history");
    }

    #[test]
    fn a_span_from_the_far_future_does_not_wipe_the_history() {
        let mut graph = ServiceGraph::new(GraphConfig::default());
        graph.observe(&batch(&[
            span("e1", "", "a", 10),
            span("e2", "e1", "b", 10),
            span("e3", "", "a", 9_000_000_000),
        ]));
        assert_eq!(edges(&graph).len(), 1);
    }

    #[test]
    fn what_the_bounds_leave_out_is_counted() {
        let config = GraphConfig { max_edges: 1, history_seconds: 10, ..GraphConfig::default() };
        let mut graph = ServiceGraph::new(config);
        graph.observe(&batch(&[span("f1", "", "a", 100), span("f2", "f1", "b", 100), span("f3", "f1", "c", 100)]));
        graph.observe(&batch(&[span("f4", "", "a", 105), span("f5", "", "a", 110), span("f6", "", "a", 50)]));
        assert_eq!(graph.counters(), GraphCounters { n_unnamed_spans: 0, n_cut_calls: 1, n_too_old: 1 });
    }

    #[test]
    fn every_map_is_bounded() {
        let config = GraphConfig { max_services: 3, max_edges: 2, max_pending_spans: 8, ..GraphConfig::default() };
        let mut graph = ServiceGraph::new(config);
        for number in 0..1_000_u32 {
            let (id, service) = (format!("{:016x}", number + 1), format!("s{}", number % 7));
            let parent = format!("{number:016x}");
            let record = SpanRecord { span_id: &id, service_name: &service, ..span("", "", "", i64::from(number)) };
            graph.observe(&batch(&[SpanRecord { parent_span_id: &parent, ..record }]));
        }
        assert!(graph.seen.map.len() <= 8 && graph.orphans.map.len() <= 8 && graph.traces.map.len() <= 8);
        assert!(graph.buckets.len() <= 180 && graph.knows("s2") && !graph.knows("s3"));
        // 1,000 spans of s0 to s6 in turn: s3 to s6 are too many.
        assert_eq!(graph.counters().n_unnamed_spans, 571);
    }
}
