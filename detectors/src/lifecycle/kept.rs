//! Owned copies of windows, whatever is in them: for the warm-up, and for the verdict of a person on an alert.
//!
//! A copy holds the names that it uses and no others, since the stations' tables of names grow for ever. Cost: one pass
//! over the items. Memory: 32 bytes a record or time, 40 a span, 8 a point, and a pointer a name.

use std::sync::Arc;

use faultline_core::{
    CallName, GroupWindow, SeriesKind, SeriesWindow, ServiceEntry, ServiceWindow, SpanEntry, TemplateTexts,
    TraceWindow, Window, WindowKey,
};
use rustc_hash::FxHashMap;

use super::collector::Collected;

/// A window that is kept. See the file's documentation.
#[derive(Clone, Debug)]
pub(crate) enum Kept {
    /// The records of a session.
    Log(Collected),
    /// Points of a series.
    Series(KeptSeries),
    /// Rows of an instance.
    Group(KeptGroup),
    /// A trace.
    Trace(KeptTrace),
    /// One service within one step.
    Service(KeptService),
}

#[derive(Clone, Debug)]
pub(crate) struct KeptSeries {
    key: WindowKey,
    kind: SeriesKind,
    start_unix_nano: i64,
    step_nanos: i64,
    points: Vec<f64>,
    records: Vec<u64>,
    service: Arc<str>,
}

#[derive(Clone, Debug)]
pub(crate) struct KeptGroup {
    key: WindowKey,
    columns: Vec<Arc<str>>,
    start_unix_nano: i64,
    step_nanos: i64,
    n_rows: usize,
    values: Vec<f64>,
    service: Arc<str>,
}

#[derive(Clone, Debug)]
pub(crate) struct KeptTrace {
    key: WindowKey,
    spans: Vec<SpanEntry>,
    n_dropped: u64,
    services: Vec<Arc<str>>,
    operations: Vec<Arc<str>>,
}

#[derive(Clone, Debug)]
pub(crate) struct KeptService {
    key: WindowKey,
    start_unix_nano: i64,
    step_nanos: i64,
    entries: Vec<ServiceEntry>,
    n_traces: u64,
    names: Vec<CallName>,
    service: Arc<str>,
}

impl Kept {
    /// A copy of `window`; none where it is of a kind that is not known here.
    pub(crate) fn of(window: &Window<'_>) -> Option<Self> {
        Some(match window {
            Window::Log(log) => Self::Log(Collected::of(log, 0)),
            Window::Series(series) => Self::Series(KeptSeries {
                key: series.key.clone(),
                kind: series.kind,
                start_unix_nano: series.start_unix_nano,
                step_nanos: series.step_nanos,
                points: series.points.to_vec(),
                records: series.records.to_vec(),
                service: Arc::clone(series.service),
            }),
            Window::Group(group) => Self::Group(KeptGroup {
                key: group.key.clone(),
                columns: group.columns.to_vec(),
                start_unix_nano: group.start_unix_nano,
                step_nanos: group.step_nanos,
                n_rows: group.n_rows,
                values: group.values.to_vec(),
                service: Arc::clone(group.service),
            }),
            Window::Trace(trace) => Self::Trace(KeptTrace::of(trace)),
            Window::Service(service) => Self::Service(KeptService::of(service)),
            _ => return None,
        })
    }

    /// The window. `templates` and `services` are those of log records, which keep no names.
    pub(crate) fn window<'a>(&'a self, services: &'a [Arc<str>], templates: &'a TemplateTexts) -> Window<'a> {
        match self {
            Self::Log(log) => log.window(services, templates),
            Self::Series(kept) => Window::Series(SeriesWindow {
                key: &kept.key,
                kind: kept.kind,
                start_unix_nano: kept.start_unix_nano,
                step_nanos: kept.step_nanos,
                points: &kept.points,
                records: &kept.records,
                service: &kept.service,
            }),
            Self::Group(kept) => Window::Group(GroupWindow {
                key: &kept.key,
                columns: &kept.columns,
                start_unix_nano: kept.start_unix_nano,
                step_nanos: kept.step_nanos,
                n_rows: kept.n_rows,
                values: &kept.values,
                service: &kept.service,
            }),
            Self::Trace(kept) => Window::Trace(TraceWindow {
                key: &kept.key,
                spans: &kept.spans,
                n_dropped: kept.n_dropped,
                services: &kept.services,
                operations: &kept.operations,
            }),
            Self::Service(kept) => Window::Service(ServiceWindow {
                key: &kept.key,
                start_unix_nano: kept.start_unix_nano,
                step_nanos: kept.step_nanos,
                entries: &kept.entries,
                n_traces: kept.n_traces,
                names: &kept.names,
                service: &kept.service,
            }),
        }
    }

    /// Records, points, spans or times in it.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Log(log) => log.records.len(),
            Self::Series(kept) => kept.points.len(),
            Self::Group(kept) => kept.values.len(),
            Self::Trace(kept) => kept.spans.len(),
            Self::Service(kept) => kept.entries.len(),
        }
    }
}

impl KeptTrace {
    fn of(trace: &TraceWindow<'_>) -> Self {
        let (mut services, mut operations) = (Renumbered::default(), Renumbered::default());
        let copy = |span: &SpanEntry| SpanEntry {
            service: services.of(span.service, trace.services),
            operation: operations.of(span.operation, trace.operations),
            ..*span
        };
        let spans = trace.spans.iter().map(copy).collect();
        let (services, operations) = (services.items, operations.items);
        Self { key: trace.key.clone(), spans, n_dropped: trace.n_dropped, services, operations }
    }
}

impl KeptService {
    fn of(service: &ServiceWindow<'_>) -> Self {
        let mut names = Renumbered::default();
        let copy = |entry: &ServiceEntry| ServiceEntry { name: names.of(entry.name, service.names), ..*entry };
        let entries = service.entries.iter().map(copy).collect();
        Self {
            key: service.key.clone(),
            start_unix_nano: service.start_unix_nano,
            step_nanos: service.step_nanos,
            entries,
            n_traces: service.n_traces,
            names: names.items,
            service: Arc::clone(service.service),
        }
    }
}

/// The items of a table that are used, numbered anew in the order of their use.
#[derive(Debug)]
struct Renumbered<T> {
    places: FxHashMap<u32, u32>,
    items: Vec<T>,
}

impl<T> Default for Renumbered<T> {
    fn default() -> Self {
        Self { places: FxHashMap::default(), items: Vec::new() }
    }
}

impl<T: Clone> Renumbered<T> {
    /// The new number of an item; one that is in no table stays in none.
    fn of(&mut self, idx: u32, table: &[T]) -> u32 {
        let Some(item) = table.get(idx as usize) else { return u32::MAX };
        *self.places.entry(idx).or_insert_with(|| {
            self.items.push(item.clone());
            (self.items.len() - 1) as u32
        })
    }
}

#[cfg(test)]
mod tests {
    use faultline_core::TemplateTexts;

    use super::*;
    use crate::testing::{GroupFixture, SeriesFixture, application, service_minutes};

    fn same(window: &Window<'_>) {
        let kept = Kept::of(window).expect("a kind that is known");
        let copy = kept.window(&[], TemplateTexts::NONE);
        assert_eq!((copy.key(), copy.span_unix_nano()), (window.key(), window.span_unix_nano()));
        for idx in 0..=kept.len() {
            assert_eq!(copy.culprit(idx), window.culprit(idx), "{idx}");
        }
    }

    #[test]
    fn a_copy_says_the_same_as_its_window() {
        same(&SeriesFixture::seasonal("load", 1, 0, 50, 0.0).whole());
        same(&GroupFixture::coupled("cart", 1, 0, 20, 0.0).whole());
        for (trace, _) in application(1, 20, 0.5) {
            same(&trace.window());
        }
        for (minute, _) in service_minutes(1, 0, 3, 0.0) {
            same(&minute.window());
        }
    }

    #[test]
    fn names_that_are_not_used_are_not_kept() {
        let (mut trace, _) = application(1, 1, 0.0).remove(0);
        let own = trace.window().as_trace().map(|trace| trace.operation(&trace.spans[0]).to_owned());
        trace.services.extend((0..1000).map(|idx| Arc::from(format!("other {idx}"))));
        let Some(Kept::Trace(kept)) = Kept::of(&trace.window()) else { panic!("a trace") };
        assert!(kept.services.len() <= kept.spans.len() && kept.operations.len() <= kept.spans.len());
        assert_eq!(kept.operations.first().map(ToString::to_string), own);
    }
}
