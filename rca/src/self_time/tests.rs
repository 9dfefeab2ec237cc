//! Hand-made traces of a small application, broken in every way at every service.

use faultline_core::{Alert, Cause, Localizer, SpanBatch, SpanBatchBuilder, SpanRecord};
use proptest::prelude::*;

use super::{SelfTime, SelfTimeConfig};
use crate::{correlate::test_alert, registry::LocalizerKind};

/// frontend → gateway → (cart → inventory → database, pricing), payment.
struct Service {
    name: &'static str,
    own_ms: f64,
    calls: &'static [usize],
}

const APP: [Service; 7] = [
    Service { name: "frontend", own_ms: 2.0, calls: &[1] },
    Service { name: "gateway", own_ms: 1.0, calls: &[2, 6] },
    Service { name: "cart", own_ms: 3.0, calls: &[3, 5] },
    Service { name: "inventory", own_ms: 4.0, calls: &[4] },
    Service { name: "database", own_ms: 2.0, calls: &[] },
    Service { name: "pricing", own_ms: 1.0, calls: &[] },
    Service { name: "payment", own_ms: 20.0, calls: &[] },
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// Takes 100 ms longer: nobody gives up.
    Slow,
    /// Every third visit takes 100 ms longer.
    SometimesSlow,
    /// Takes 3 s: every caller gives up after 400 ms.
    Hang,
    /// Fails by itself.
    Throw,
    /// Answers nobody, and leaves no span.
    Dead,
}

const PATIENCE_MS: f64 = 400.0;

struct Maker {
    builder: SpanBatchBuilder,
    state: u64,
    n_spans: u64,
    n_traces: u64,
}

impl Maker {
    fn new() -> Self {
        Self { builder: SpanBatchBuilder::default(), state: 1, n_spans: 0, n_traces: 0 }
    }

    /// 0.9 to 1.1, from a linear congruential generator.
    fn jitter(&mut self) -> f64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        0.9 + 0.2 * (self.state >> 40) as f64 / (1_u64 << 24) as f64
    }

    fn id(&mut self) -> String {
        self.n_spans += 1;
        format!("{:016x}", self.n_spans)
    }

    fn trace(&mut self, at_ms: f64, fault: Fault, culprit: usize) -> String {
        self.n_traces += 1;
        let trace = format!("{:032x}", u128::from(self.n_traces) << 64 | 7);
        self.visit(&trace, "", 0, at_ms, fault, culprit);
        trace
    }

    /// One visit; its end in milliseconds and whether it failed.
    fn visit(
        &mut self,
        trace: &str,
        parent: &str,
        service: usize,
        at_ms: f64,
        fault: Fault,
        culprit: usize,
    ) -> (f64, bool) {
        let id = self.id();
        let Service { name, own_ms, calls } = &APP[service];
        let hit = service == culprit;
        let mut now = at_ms + own_ms * self.jitter();
        now += match fault {
            Fault::Slow if hit => 100.0,
            Fault::SometimesSlow if hit && self.n_traces.is_multiple_of(3) => 100.0,
            Fault::Hang if hit => 3_000.0,
            _ => 0.0,
        };
        let mut failed = hit && fault == Fault::Throw;
        for callee in *calls {
            if failed {
                break;
            }
            let call = self.id();
            let begun = now;
            let (mut end, mut call_failed) = (begun + 0.5, true);
            if !(fault == Fault::Dead && *callee == culprit) {
                (end, call_failed) = self.visit(trace, &call, *callee, begun + 0.2, fault, culprit);
                end += 0.2;
            }
            // Patience grows towards the user, as it should.
            let patience = PATIENCE_MS * 2.0_f64.powi(5 - depth(service));
            if end - begun > patience {
                (end, call_failed) = (begun + patience, true);
            }
            let peer = format!(r#"{{"server.address":"{}"}}"#, APP[*callee].name);
            self.push(trace, &call, &id, service, APP[*callee].name, 3, begun, end, call_failed, &peer);
            (now, failed) = (end, call_failed);
        }
        self.push(trace, &id, parent, service, name, 2, at_ms, now, failed, "");
        (now, failed)
    }

    #[allow(clippy::too_many_arguments, reason = "a test's shorthand for a span")]
    fn push(
        &mut self,
        trace_id: &str,
        span_id: &str,
        parent_span_id: &str,
        service: usize,
        callee: &str,
        kind: i32,
        from_ms: f64,
        until_ms: f64,
        failed: bool,
        attributes: &str,
    ) {
        self.builder.push(&SpanRecord {
            trace_id,
            span_id,
            parent_span_id,
            name: &format!("GET /{callee}"),
            kind,
            service_name: APP[service].name,
            start_time_unix_nano: (from_ms * 1e6) as i64,
            end_time_unix_nano: (until_ms * 1e6) as i64,
            status_code: if failed { 2 } else { 0 },
            attributes,
            ..SpanRecord::default()
        });
    }
}

fn depth(service: usize) -> i32 {
    match service {
        0 => 0,
        1 => 1,
        2 | 6 => 2,
        3 | 5 => 3,
        _ => 4,
    }
}

/// Two hundred healthy traces, then forty under the fault, with an alert for each of those.
fn story(fault: Fault, culprit: usize) -> (SpanBatch, Vec<Alert>) {
    let mut maker = Maker::new();
    for idx in 0..200 {
        maker.trace(f64::from(idx) * 100.0, Fault::None, culprit);
    }
    let alerts = (0..40).map(|idx| {
        let at_ms = 30_000.0 + f64::from(idx) * 100.0;
        let trace = maker.trace(at_ms, fault, culprit);
        test_alert("frontend", &trace, at_ms / 1e3, at_ms / 1e3 + 1.0)
    });
    let alerts = alerts.collect();
    (maker.builder.finish(), alerts)
}

fn localize(spans: &SpanBatch, alerts: &[Alert]) -> Vec<Cause> {
    let mut localizer = SelfTime::new(SelfTimeConfig::default());
    localizer.observe(spans);
    localizer.localize(&alerts.iter().collect::<Vec<_>>())
}

#[test]
fn every_fault_at_every_service_is_blamed_on_it() {
    for fault in [Fault::Slow, Fault::SometimesSlow, Fault::Hang, Fault::Throw, Fault::Dead] {
        for (culprit, service) in APP.iter().enumerate() {
            // Nobody calls the frontend, so when it is dead nobody says so.
            if fault == Fault::Dead && culprit == 0 {
                continue;
            }
            let (spans, alerts) = story(fault, culprit);
            let causes = localize(&spans, &alerts);
            let named: Vec<_> = causes.iter().map(|cause| (cause.name.as_str(), cause.score)).collect();
            assert_eq!(causes[0].name, service.name, "{fault:?}: {named:?}");
            assert!(causes[0].confidence > 0.6, "{fault:?} at {}: {named:?}", service.name);
            assert!(!causes[0].evidence.is_empty());
        }
    }
}

#[test]
fn evidence_gives_the_figures_that_a_person_can_check() {
    let (spans, alerts) = story(Fault::Hang, 3);
    insta::assert_json_snapshot!(localize(&spans, &alerts)[0]);
}

#[test]
fn all_traces_of_the_time_count_when_the_alerts_name_none() {
    let (spans, alerts) = story(Fault::Slow, 5);
    let alerts: Vec<Alert> = alerts.into_iter().map(|alert| Alert { session: "pricing-1".into(), ..alert }).collect();
    assert_eq!(localize(&spans, &alerts)[0].name, "pricing");
}

#[test]
fn nothing_is_blamed_when_nothing_has_changed() {
    let (spans, alerts) = story(Fault::None, 0);
    assert_eq!(localize(&spans, &alerts), []);
}

#[test]
fn an_alert_from_before_the_history_has_no_answer() {
    let (spans, _) = story(Fault::Slow, 3);
    assert_eq!(localize(&spans, &[test_alert("cart", "x", -9e6, -9e6)]), []);
}

#[test]
fn duplicates_and_order_do_not_matter() {
    let (spans, alerts) = story(Fault::Hang, 4);
    let once = localize(&spans, &alerts);
    let arrow = spans.as_arrow();
    let half = arrow.num_rows() / 2;
    let mut localizer = SelfTime::new(SelfTimeConfig::default());
    for part in [arrow.slice(half, arrow.num_rows() - half), arrow.slice(0, half), arrow.clone()] {
        localizer.observe(&SpanBatch::try_new(part).expect("the same columns"));
    }
    assert_eq!(localizer.localize(&alerts.iter().collect::<Vec<_>>()), once);
}

#[test]
fn memory_is_bounded_by_spans_and_by_time() {
    let config = SelfTimeConfig { max_spans: 1_000, history_seconds: 30, ..SelfTimeConfig::default() };
    let mut localizer = SelfTime::new(config);
    let (spans, _) = story(Fault::Slow, 3);
    localizer.observe(&spans);
    assert!(localizer.n_spans <= 1_000 && localizer.buckets.len() <= 3);
    let mut maker = Maker::new();
    for _ in 0..200 {
        maker.trace(5.0, Fault::None, 0);
    }
    localizer.observe(&maker.builder.finish());
    assert!(localizer.n_spans <= 1_000, "all in one bucket: {}", localizer.n_spans);
    assert_eq!(localizer.n_spans, localizer.buckets.values().map(Vec::len).sum::<usize>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Cycles, orphans, spans that are their own parent, that end before they begin, that share ids.
    #[test]
    fn no_trace_is_too_strange(
        spans in prop::collection::vec((0_u64..6, 0_u64..6, 0_usize..7, -5_i64..60, -5_i64..60, 0_i32..6, any::<bool>()), 1..60)
    ) {
        let mut builder = SpanBatchBuilder::default();
        for (id, parent, service, start, end, kind, failed) in spans {
            builder.push(&SpanRecord {
                trace_id: &format!("{:032x}", id % 3),
                span_id: &format!("{id:016x}"),
                parent_span_id: &format!("{parent:016x}"),
                name: "op",
                kind,
                service_name: APP[service].name,
                start_time_unix_nano: start * 1_000_000_000,
                end_time_unix_nano: end * 1_000_000_000,
                status_code: if failed { 2 } else { 0 },
                attributes: if failed { r#"{"server.address":7,"peer.service":"cart"}"# } else { "not json" },
                ..SpanRecord::default()
            });
        }
        let alerts = [test_alert("cart", "00000000000000000000000000000001", 20.0, 40.0)];
        for cause in localize(&builder.finish(), &alerts) {
            prop_assert!(cause.score.is_finite() && (0.0..=1.0).contains(&cause.confidence));
        }
    }
}
