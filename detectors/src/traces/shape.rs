//! What trace detectors ask of a trace besides its spans: who spent the time, along which path, in which shape.
//!
//! - **Self time** of a span is its duration less the union of the times of those it called, each clipped to it: what
//!   goes on after the caller has ended is not the caller's.
//! - **Call path** of a span is the chain of (service, operation) from its root down to it, here as a stable hash, so that it
//!   means the same in every run and may be kept in a model.
//! - **Service trace vector** (Liu et al., "Unsupervised Detection of Microservice Trace Anomalies through Service-Level
//!   Deep Bayesian Networks", ISSRE 2020, section III): the duration of each call path. The paper's services answer once on
//!   a path; where a path was taken several times the longest call counts here, which a retry or a longer loop
//!   leaves alone, and the number of calls stands beside it.
//! - **Structure** is the multiset of call paths: the same for traces that did the same, in whatever order.
//!
//! Cost: one pass over the spans and one hash of two names for each; the vector takes a sort. Fails where spans are
//! missing: the path of an orphan begins with itself, so all paths below it are others than usual
//! ([`SpanEntry::is_orphan`] tells).

use faultline_core::{SpanEntry, TraceWindow, hash::StableHash};

/// One dimension of a service trace vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathTime {
    /// The call path.
    pub path: u64,
    /// The longest call along it.
    pub duration_nanos: i64,
    /// Index of that call, the first of several.
    pub span: usize,
    /// Calls along it.
    pub n_calls: u32,
}

/// Figures of each span of one trace, by its index. Made to be used again for the next trace.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// Time of its own, nanoseconds, 0 to its duration.
    pub self_nanos: Vec<i64>,
    /// Spans above it.
    pub depths: Vec<u32>,
    /// Its call path.
    pub paths: Vec<u64>,
    /// Until when a span's children have been taken off its time.
    covered_until: Vec<i64>,
}

impl Shape {
    /// The shape of a trace.
    #[must_use]
    pub fn of(trace: &TraceWindow<'_>) -> Self {
        let mut shape = Self::default();
        shape.measure(trace);
        shape
    }

    /// Becomes the shape of `trace`.
    pub fn measure(&mut self, trace: &TraceWindow<'_>) {
        self.self_nanos.clear();
        self.depths.clear();
        self.paths.clear();
        self.covered_until.clear();
        for span in trace.spans {
            // Callers come first, and those that one span called by their start: so the union grows to the right.
            let (depth, above) = match span.parent() {
                Some(parent) => {
                    self.take_off(parent, &trace.spans[parent], span);
                    (self.depths[parent] + 1, self.paths[parent])
                }
                None => (0, 0),
            };
            let path = StableHash::new().number(above).text(trace.service(span)).text(trace.operation(span));
            self.depths.push(depth);
            self.paths.push(path.finish());
            self.self_nanos.push(span.duration_nanos);
            self.covered_until.push(span.start_unix_nano);
        }
    }

    /// Takes the part of a child's time that no earlier child has covered off its parent's.
    fn take_off(&mut self, parent: usize, caller: &SpanEntry, child: &SpanEntry) {
        let from = child.start_unix_nano.max(self.covered_until[parent]);
        let until = child.end_unix_nano().min(caller.end_unix_nano());
        if until > from {
            // Where ends lie beyond what time there is, parts may be more than the whole.
            self.self_nanos[parent] = self.self_nanos[parent].saturating_sub(until.saturating_sub(from)).max(0);
            self.covered_until[parent] = until;
        }
    }

    /// The service trace vector, by path.
    #[must_use]
    pub fn vector(&self, trace: &TraceWindow<'_>) -> Vec<PathTime> {
        let calls = self.paths.iter().zip(trace.spans).zip(0..);
        let mut vector: Vec<PathTime> = calls
            .map(|((&path, call), span)| PathTime { path, duration_nanos: call.duration_nanos, span, n_calls: 1 })
            .collect();
        vector.sort_unstable_by_key(|call| (call.path, std::cmp::Reverse(call.duration_nanos), call.span));
        vector.dedup_by(|call, longest| {
            let is_same = call.path == longest.path;
            longest.n_calls += u32::from(is_same);
            is_same
        });
        vector
    }

    /// Identity of the multiset of call paths.
    #[must_use]
    pub fn structure(&self) -> u64 {
        // Paths are finished hashes, so their sum tells multisets apart, whatever the order.
        let sum = self.paths.iter().fold(0, |sum: u64, path| sum.wrapping_add(*path));
        StableHash::new().number(self.paths.len() as u64).number(sum).finish()
    }

    /// Of some spans, given by their index, the one with the longest call path; the first of several. What is wrong above
    /// it may only be waiting for it.
    #[must_use]
    pub fn deepest(&self, spans: impl IntoIterator<Item = usize>) -> Option<usize> {
        spans
            .into_iter()
            .filter(|span| *span < self.depths.len())
            .min_by_key(|span| (std::cmp::Reverse(self.depths[*span]), *span))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use faultline_core::WindowKey;
    use proptest::prelude::*;

    use super::*;

    /// Parent, service and operation, start, end.
    type Row = (Option<u32>, u32, i64, i64);

    fn spans(rows: &[Row]) -> Vec<SpanEntry> {
        let span = |(row, record): (&Row, u64)| SpanEntry {
            start_unix_nano: row.2,
            duration_nanos: row.3.saturating_sub(row.2).max(0),
            record,
            parent: row.0.unwrap_or(SpanEntry::NO_PARENT),
            service: row.1,
            operation: row.1,
            kind: 0,
            is_error: false,
            is_orphan: false,
        };
        rows.iter().zip(1..).map(span).collect()
    }

    fn with<T>(rows: &[Row], look: impl FnOnce(&TraceWindow<'_>) -> T) -> T {
        let key = WindowKey { stream: Arc::from("traces"), session: Arc::from("1") };
        let names: Vec<Arc<str>> = ["", "*", "gateway", "cart", "stock"].map(Arc::<str>::from).to_vec();
        let spans = spans(rows);
        look(&TraceWindow { key: &key, spans: &spans, n_dropped: 0, services: &names, operations: &names })
    }

    #[test]
    fn self_time_is_what_no_child_covers() {
        let rows = [
            (None, 2, 0, 100),
            (Some(0), 3, 10, 40),
            (Some(0), 3, 20, 30),  // Within the one before.
            (Some(0), 3, 35, 50),  // Overlaps it.
            (Some(0), 4, 90, 130), // Outlives its caller.
            (Some(4), 3, 95, 100),
            (Some(0), 4, 140, 150), // Begins when its caller is over.
        ];
        assert_eq!(with(&rows, |trace| Shape::of(trace).self_nanos), [50, 30, 10, 15, 35, 5, 10]);
    }

    #[test]
    fn a_path_is_the_chain_of_names_and_knows_no_index_and_no_order() {
        let one = with(&[(None, 2, 0, 9), (Some(0), 3, 1, 3), (Some(0), 4, 4, 6), (Some(2), 3, 4, 5)], Shape::of);
        let other = with(&[(None, 2, 0, 9), (Some(0), 4, 1, 3), (Some(1), 3, 2, 3), (Some(0), 3, 5, 8)], Shape::of);
        assert_eq!(one.paths, [other.paths[0], other.paths[3], other.paths[1], other.paths[2]]);
        assert_ne!(one.paths[1], one.paths[3], "the same name on another path");
        assert_eq!((one.structure(), one.depths), (other.structure(), vec![0, 1, 1, 2]));
        let twice = with(&[(None, 2, 0, 9), (Some(0), 3, 1, 3), (Some(0), 3, 4, 6)], Shape::of);
        let once = with(&[(None, 2, 0, 9), (Some(0), 3, 1, 3)], Shape::of);
        assert_ne!(twice.structure(), once.structure(), "how often counts");
    }

    #[test]
    fn paths_are_written_to_models_and_never_change() {
        let path = with(&[(None, 2, 0, 9), (Some(0), 3, 1, 3)], |trace| Shape::of(trace).paths[1]);
        let root = StableHash::new().number(0).text("gateway").text("gateway").finish();
        assert_eq!(path, StableHash::new().number(root).text("cart").text("cart").finish());
    }

    #[test]
    fn the_vector_has_the_longest_call_of_each_path() {
        let rows =
            [(None, 2, 0, 90), (Some(0), 3, 10, 20), (Some(0), 3, 30, 60), (Some(0), 3, 70, 100), (Some(0), 4, 75, 76)];
        let (vector, paths) = with(&rows, |trace| {
            let shape = Shape::of(trace);
            (shape.vector(trace), shape.paths)
        });
        assert!(vector.is_sorted_by_key(|time| time.path));
        let find = |path: u64| vector.iter().find(|time| time.path == path).copied();
        assert_eq!(vector.len(), 3);
        assert_eq!(find(paths[1]), Some(PathTime { path: paths[1], duration_nanos: 30, span: 2, n_calls: 3 }));
        assert_eq!(find(paths[4]), Some(PathTime { path: paths[4], duration_nanos: 1, span: 4, n_calls: 1 }));
    }

    #[test]
    fn the_deepest_of_some_is_the_first_of_the_longest_paths() {
        let rows =
            [(None, 2, 0, 90), (Some(0), 3, 10, 20), (Some(1), 3, 11, 12), (Some(1), 4, 13, 14), (None, 4, 20, 30)];
        let shape = with(&rows, Shape::of);
        assert_eq!(shape.deepest([0, 3, 2, 4]), Some(2));
        assert_eq!((shape.deepest([4, 0]), shape.deepest([]), shape.deepest([99])), (Some(0), None, None));
    }

    proptest! {
        #[test]
        fn self_time_is_the_duration_less_the_moments_that_children_cover(
            root in (0..30i64, 0..30i64),
            mut children in proptest::collection::vec((0..60i64, 0..30i64), 0..8),
        ) {
            children.sort_unstable();
            let root = (root.0, root.0 + root.1);
            let mut rows: Vec<Row> = vec![(None, 2, root.0, root.1)];
            rows.extend(children.iter().map(|&(start, duration)| (Some(0), 3, start, start + duration)));
            let own = (root.0..root.1).filter(|moment| !rows[1..].iter().any(|row| (row.2..row.3).contains(moment)));
            let expected = own.count() as i64;
            prop_assert_eq!(with(&rows, |trace| Shape::of(trace).self_nanos[0]), expected);
        }

        #[test]
        fn no_time_is_too_strange(times in proptest::collection::vec(any::<(i64, i64)>(), 1..20)) {
            let mut rows: Vec<Row> = times.iter().map(|&(start, end)| (Some(0), 3, start, end)).collect();
            rows[1..].sort_unstable_by_key(|row| row.2);
            rows[0].0 = None;
            let (self_nanos, durations) = with(&rows, |trace| {
                (Shape::of(trace).self_nanos, trace.spans.iter().map(|span| span.duration_nanos).collect::<Vec<_>>())
            });
            for (own, duration) in self_nanos.into_iter().zip(durations) {
                prop_assert!((0..=duration).contains(&own));
            }
        }
    }
}
