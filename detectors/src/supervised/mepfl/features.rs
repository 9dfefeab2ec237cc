//! A trace as numbers: of itself, and of each service in it.
//!
//! Times, ways and numbers of calls are deviations from what is usual of the task, so that a model that has learned
//! what a fault looks like in one service knows it in another. What is not known is 0.

use faultline_core::{ServiceIdx, SpanEntry, TraceWindow};

use super::usual::{Calls, Usual};

/// Features of a trace.
pub(super) const TRACE: [&str; 17] = [
    "spans",
    "services",
    "root_duration_z",
    "own_z_max",
    "own_z_mean",
    "own_z_second",
    "way_z_max",
    "way_z_mean",
    "calls_z_max",
    "calls_z_min",
    "errors",
    "missing",
    "extra",
    "unknown_share",
    "overlapping_share",
    "outliving_share",
    "own_z_min",
];

/// Features of one service in a trace.
pub(super) const SERVICE: [&str; 22] = [
    "spans",
    "operations",
    "depth",
    "own_z_max",
    "own_z_mean",
    "own_z_min",
    "own_z_lead",
    "own_share",
    "duration_z_max",
    "way_in_z_max",
    "way_in_z_mean",
    "way_in_z_lead",
    "way_out_z_max",
    "way_out_z_mean",
    "calls_z_max",
    "calls_z_min",
    "errors",
    "errors_called",
    "missing",
    "extra",
    "overlapping_share",
    "outliving_share",
];

/// What there is to say of one trace.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Features {
    pub trace: [f32; TRACE.len()],
    /// In the order of their first spans.
    pub services: Vec<(ServiceIdx, [f32; SERVICE.len()])>,
}

/// Some deviations.
#[derive(Clone, Copy, Debug, Default)]
struct Spread {
    n: f64,
    sum: f64,
    max: f64,
    min: f64,
}

impl Spread {
    fn add(&mut self, value: f64) {
        (self.max, self.min) = if self.n < 1.0 { (value, value) } else { (self.max.max(value), self.min.min(value)) };
        self.n += 1.0;
        self.sum += value;
    }

    fn mean(&self) -> f64 {
        self.sum / self.n.max(1.0)
    }
}

/// What the spans of one service, or of all, add up to.
#[derive(Clone, Debug, Default)]
struct Sums {
    n_spans: f64,
    operations: Vec<u64>,
    depth: f64,
    own: Spread,
    duration: Spread,
    calls: Spread,
    way_in: Spread,
    way_out: Spread,
    own_nanos: f64,
    n_errors: f64,
    n_errors_called: f64,
    n_missing: f64,
    n_extra: f64,
    n_unknown: f64,
    /// Calls that began while an earlier one of the same caller went on, and calls that went on when their caller had
    /// ended.
    n_called: f64,
    n_overlapping: f64,
    n_outliving: f64,
}

/// Makes features of traces. Made to be used again for the next trace.
#[derive(Debug, Default)]
pub(super) struct Extractor {
    pub calls: Calls,
    places: Vec<usize>,
    /// Latest end of what each span has called so far.
    latest_ends: Vec<i64>,
}

impl Extractor {
    /// The features of a trace; none where it has no spans, or not all of them.
    pub fn features(&mut self, trace: &TraceWindow<'_>, usual: &Usual) -> Option<Features> {
        if !self.calls.take(trace) {
            return None;
        }
        let (mut services, mut all): (Vec<(ServiceIdx, Sums)>, Sums) = (Vec::new(), Sums::default());
        self.places.clear();
        self.latest_ends.clear();
        self.latest_ends.resize(trace.spans.len(), i64::MIN);
        let mut root_duration = 0.0;
        for (idx, span) in trace.spans.iter().enumerate() {
            let place = services.iter().position(|(service, _)| *service == span.service).unwrap_or_else(|| {
                let depth = f64::from(self.calls.shape.depths[idx]);
                services.push((span.service, Sums { depth, ..Sums::default() }));
                services.len() - 1
            });
            self.places.push(place);
            self.look(usual, (idx, span), &mut services[place].1, &mut all);
            let Some(parent) = span.parent() else {
                let z = usual.of(&self.calls, idx).map(|(task, _)| task.duration.z(self.calls.figures[idx].duration));
                root_duration = z.unwrap_or(0.0).max(root_duration);
                continue;
            };
            let caller = &trace.spans[parent];
            let is_overlapping = span.start_unix_nano < self.latest_ends[parent];
            self.latest_ends[parent] = self.latest_ends[parent].max(span.end_unix_nano());
            let is_outliving = span.end_unix_nano() > caller.end_unix_nano();
            let way = self.way_z(usual, idx);
            for sums in [&mut services[self.places[parent]].1, &mut all] {
                sums.n_called += 1.0;
                sums.n_overlapping += f64::from(u8::from(is_overlapping));
                sums.n_outliving += f64::from(u8::from(is_outliving));
                sums.n_errors_called += f64::from(u8::from(span.is_error && caller.service != span.service));
                if let Some(way) = way {
                    sums.way_out.add(way);
                }
            }
        }
        Some(Features::of(root_duration, &services, &all))
    }

    /// Deviation of the way into a span, where something is known of it.
    fn way_z(&self, usual: &Usual, idx: usize) -> Option<f64> {
        let (task, _) = usual.of(&self.calls, idx)?;
        Some(task.way.z(self.calls.figures[idx].way?))
    }

    /// Adds what a span did by itself.
    fn look(&mut self, usual: &Usual, (idx, span): (usize, &SpanEntry), own: &mut Sums, all: &mut Sums) {
        let (operation, own_nanos) = (self.calls.operations[idx], self.calls.shape.self_nanos[idx] as f64);
        let (way, figures) = (self.way_z(usual, idx), self.calls.figures[idx]);
        let known = usual.of(&self.calls, idx);
        let (n_missing, n_extra) = match known {
            Some((task, true)) => task.differences(self.calls.called_by(idx)),
            _ => (0, 0),
        };
        if !own.operations.contains(&operation) {
            own.operations.push(operation);
        }
        for sums in [own, all] {
            sums.n_spans += 1.0;
            sums.own_nanos += own_nanos;
            sums.n_errors += f64::from(u8::from(span.is_error));
            sums.n_missing += n_missing as f64;
            sums.n_extra += n_extra as f64;
            sums.n_unknown += f64::from(u8::from(known.is_none()));
            if let Some((task, _)) = known {
                sums.own.add(task.own.z(figures.own));
                sums.duration.add(task.duration.z(figures.duration));
                sums.calls.add(task.calls.z(figures.calls));
            }
            if let Some(way) = way {
                sums.way_in.add(way);
            }
        }
    }
}

impl Features {
    fn of(root_duration: f64, services: &[(ServiceIdx, Sums)], all: &Sums) -> Self {
        let (n_spans, n_called) = (all.n_spans.max(1.0), all.n_called.max(1.0));
        let second = runner_up(services, |sums| sums.own.max);
        let trace = [
            all.n_spans.ln_1p(),
            services.len() as f64,
            root_duration,
            all.own.max,
            all.own.mean(),
            second,
            all.way_in.max,
            all.way_in.mean(),
            all.calls.max,
            all.calls.min,
            all.n_errors.ln_1p(),
            all.n_missing.ln_1p(),
            all.n_extra.ln_1p(),
            all.n_unknown / n_spans,
            all.n_overlapping / n_called,
            all.n_outliving / n_called,
            all.own.min,
        ];
        let of_service = |(service, sums): &(ServiceIdx, Sums)| {
            let others = |figure: fn(&Sums) -> f64| {
                let others = services.iter().filter(|(other, _)| other != service).map(|(_, sums)| figure(sums));
                figure(sums) - others.fold(0.0, f64::max)
            };
            let n_called = sums.n_called.max(1.0);
            let figures = [
                sums.n_spans.ln_1p(),
                (sums.operations.len() as f64).ln_1p(),
                sums.depth,
                sums.own.max,
                sums.own.mean(),
                sums.own.min,
                others(|sums| sums.own.max),
                sums.own_nanos / all.own_nanos.max(1.0),
                sums.duration.max,
                sums.way_in.max,
                sums.way_in.mean(),
                others(|sums| sums.way_in.max),
                sums.way_out.max,
                sums.way_out.mean(),
                sums.calls.max,
                sums.calls.min,
                sums.n_errors.ln_1p(),
                sums.n_errors_called.ln_1p(),
                sums.n_missing.ln_1p(),
                sums.n_extra.ln_1p(),
                sums.n_overlapping / n_called,
                sums.n_outliving / n_called,
            ];
            (*service, figures.map(|figure| figure as f32))
        };
        Self { trace: trace.map(|figure| figure as f32), services: services.iter().map(of_service).collect() }
    }
}

/// The second largest of a figure among the services; 0 where there is none.
fn runner_up(services: &[(ServiceIdx, Sums)], figure: impl Fn(&Sums) -> f64) -> f64 {
    let mut figures: Vec<f64> = services.iter().map(|(_, sums)| figure(sums)).collect();
    figures.sort_unstable_by(|one, other| other.total_cmp(one));
    figures.get(1).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use std::f32::consts::LN_2;

    use super::*;
    use crate::testing::TraceFixture;

    fn named(figures: &[f32], names: &[&str], name: &str) -> f32 {
        figures[names.iter().position(|own| *own == name).expect("a feature of this name")]
    }

    fn usual(extractor: &mut Extractor) -> Usual {
        let mut usual = Usual::default();
        for idx in 0..30 {
            let trace = trace(50_000 + 100 * idx);
            assert!(extractor.calls.take(&trace.trace()));
            usual.learn(&mut extractor.calls, 100);
        }
        usual
    }

    /// The cart asks stock and mail, one after the other.
    fn trace(stock: i64) -> TraceFixture {
        let rows = [
            (None, "gateway", 0, stock + 60_000),
            (Some(0), "cart", 10_000, stock + 40_000),
            (Some(1), "stock", 20_000, stock),
            (Some(1), "mail", 25_000 + stock, 10_000),
        ];
        TraceFixture::of("t", &rows)
    }

    #[test]
    fn the_slow_service_leads_and_those_that_wait_for_it_do_not() {
        let mut extractor = Extractor::default();
        let usual = usual(&mut extractor);
        let slow = trace(500_000);
        let found = extractor.features(&slow.trace(), &usual).expect("it has all its spans");
        assert_eq!(found.services.len(), 4);
        let lead = |service: usize| named(&found.services[service].1, &SERVICE, "own_z_lead");
        assert!(lead(2) > 5.0, "{}", lead(2));
        for other in [0, 1, 3] {
            assert!(lead(other) < -5.0, "{}", lead(other));
        }
        assert!(named(&found.services[1].1, &SERVICE, "duration_z_max") > 5.0, "it waited");
        assert!(named(&found.services[1].1, &SERVICE, "own_z_max").abs() < 1.0);
        assert!(named(&found.trace, &TRACE, "root_duration_z") > 5.0);
        assert!(named(&found.trace, &TRACE, "own_z_second").abs() < 1.0);
        let share: f32 = (0..4).map(|idx| named(&found.services[idx].1, &SERVICE, "own_share")).sum();
        assert!((share - 1.0).abs() < 1e-5);
    }

    #[test]
    fn order_errors_and_missing_calls_are_counted_where_they_are() {
        let mut extractor = Extractor::default();
        let usual = usual(&mut extractor);
        let rows = [
            (None, "gateway", 0, 110_000),
            (Some(0), "cart", 10_000, 90_000),
            (Some(1), "stock", 20_000, 50_000),
            // Begins before the stock has ended, and ends after the cart has.
            (Some(1), "audit", 30_000, 75_000),
        ];
        let mut odd = TraceFixture::of("odd", &rows);
        odd.spans[2].is_error = true;
        let found = extractor.features(&odd.trace(), &usual).expect("it has all its spans");
        let of = |service: usize, name: &str| named(&found.services[service].1, &SERVICE, name);
        assert_eq!((of(1, "overlapping_share"), of(1, "outliving_share")), (0.5, 0.5));
        assert_eq!((of(2, "errors"), of(1, "errors_called"), of(1, "errors")), (LN_2, LN_2, 0.0));
        assert_eq!((of(1, "missing"), of(1, "extra")), (LN_2, LN_2));
        assert_eq!(named(&found.trace, &TRACE, "unknown_share"), 0.25);
        assert_eq!(of(3, "own_z_max"), 0.0, "nothing is known of it");
    }

    #[test]
    fn odd_traces_have_finite_features_or_none() {
        let mut extractor = Extractor::default();
        let usual = usual(&mut extractor);
        let mut endless = trace(50_000);
        endless.spans.iter_mut().for_each(|span| span.duration_nanos = i64::MAX);
        let mut early = trace(50_000);
        early.spans.iter_mut().for_each(|span| (span.start_unix_nano, span.duration_nanos) = (i64::MIN, 0));
        let mut backwards = trace(50_000);
        backwards.spans.iter_mut().for_each(|span| span.duration_nanos = -5);
        let mut orphans = trace(50_000);
        orphans.spans.iter_mut().for_each(|span| (span.parent, span.is_orphan) = (SpanEntry::NO_PARENT, true));
        for odd in [endless, early, backwards, orphans] {
            let found = extractor.features(&odd.trace(), &usual).expect("it has all its spans");
            let mut figures = found.services.iter().flat_map(|(_, figures)| figures).chain(&found.trace);
            assert!(figures.all(|figure| figure.is_finite()), "{found:?}");
        }
        let mut cut = trace(50_000);
        cut.n_dropped = 1;
        assert_eq!(extractor.features(&cut.trace(), &usual), None);
        assert_eq!(extractor.features(&TraceFixture::empty("none").trace(), &usual), None);
    }
}
