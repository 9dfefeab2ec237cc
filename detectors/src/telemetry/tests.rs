use std::collections::BTreeSet;

use faultline_core::{AlertState, MetricBatchBuilder, MetricPoint, SpanBatchBuilder, SpanRecord};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::*;
use crate::{
    alerting::AlertConfig,
    budget::Budget,
    lifecycle::WarmUp,
    testing::{TraceFixture, application},
};

const SECOND: i64 = 1_000_000_000;

fn detection(detectors: &[(&str, Value)]) -> MonitorConfig {
    MonitorConfig {
        detectors: detectors.iter().map(|(name, own)| ((*name).to_owned(), own.clone())).collect(),
        warm_up: WarmUp { sessions: Some(400), span_ms: Some(400_000), ..WarmUp::default() },
        alerting: AlertConfig { budget: Budget::UNLIMITED, ..AlertConfig::default() },
        ..MonitorConfig::default()
    }
}

fn telemetry(detectors: &[(&str, Value)]) -> Telemetry {
    Telemetry::new(&TelemetryConfig::default(), &detection(detectors)).expect("valid")
}

/// The spans of some traces, so many seconds later, as a batch whose records are numbered from `first`.
fn spans(traces: &[(TraceFixture, bool)], later: i64, first: u64) -> SpanBatch {
    let mut builder = SpanBatchBuilder::default();
    for (trace, _) in traces {
        let window = trace.trace();
        for (span, id) in window.spans.iter().zip(1..) {
            let parent = span.parent().map_or(String::new(), |parent| format!("{:016x}", parent + 1));
            builder.push(&SpanRecord {
                trace_id: &trace.key.session,
                span_id: &format!("{id:016x}"),
                parent_span_id: &parent,
                name: window.operation(span),
                kind: i32::from(span.kind),
                service_name: window.service(span),
                start_time_unix_nano: span.start_unix_nano + later * SECOND,
                end_time_unix_nano: span.end_unix_nano() + later * SECOND,
                ..SpanRecord::default()
            });
        }
    }
    builder.finish().numbered_from(first)
}

/// Points of a gauge of the cart, ten seconds apart from `first_step` on.
fn gauge(name: &str, first_step: i64, values: &[f64]) -> MetricBatch {
    gauge_of("cart", name, first_step, values)
}

fn gauge_of(service: &str, name: &str, first_step: i64, values: &[f64]) -> MetricBatch {
    let mut builder = MetricBatchBuilder::default();
    for (&value, step) in values.iter().zip(first_step..) {
        builder.push(&MetricPoint {
            name,
            kind: "gauge",
            service_name: service,
            time_unix_nano: step * 10 * SECOND,
            value_double: Some(value),
            ..MetricPoint::default()
        });
    }
    builder.finish().numbered_from(first_step as u64 + 1)
}

fn noise(seed: u64, n: usize) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| 50.0 + rng.random::<f64>() + rng.random::<f64>()).collect()
}

#[test]
fn spoiled_traces_alert_and_others_do_not() {
    let mut own = telemetry(&[("trace-vector", json!({}))]);
    own.push_spans(&spans(&application(1, 1_000, 0.0), 0, 1));
    let judged = own.judge();
    assert!(judged.alerts.is_empty(), "{:?}", judged.alerts);
    assert!(judged.events.iter().any(|event| matches!(event, MonitorEvent::Fitted { detector: "trace-vector", .. })));
    let later = application(2, 400, 0.1);
    own.push_spans(&spans(&later, 1_000, 100_001));
    let mut alerts = own.judge().alerts;
    alerts.extend(own.finish().alerts);
    let named: BTreeSet<&str> = alerts.iter().map(|alert| alert.session.as_str()).collect();
    let (spoiled, normal): (Vec<_>, Vec<_>) = later.iter().partition(|(_, is_spoiled)| *is_spoiled);
    let n_named = |traces: &[&(TraceFixture, bool)]| {
        traces.iter().filter(|(trace, _)| named.contains(&*trace.key.session)).count()
    };
    let (n_found, n_false) = (n_named(&spoiled), n_named(&normal));
    assert!(n_found * 10 >= spoiled.len() * 8, "{n_found} of {}", spoiled.len());
    assert!(n_false <= 2, "{n_false} of {}", normal.len());
    assert!(alerts.iter().all(|alert| alert.signal == "traces" && alert.stream == "traces"));
    assert!(alerts.iter().all(|alert| alert.evidence.records.iter().all(|record| *record > 100_000)));
}

#[test]
fn a_gauge_that_jumps_is_one_alert_of_its_service_from_the_first_minute_on() {
    let mut own = telemetry(&[("profile-forecast", json!({}))]);
    let mut values = noise(1, 400);
    values[300] += 60.0;
    let mut alerts = Vec::new();
    for (first, piece) in (0..).step_by(20).zip(values.chunks(20)) {
        own.push_metrics(&gauge("queue.depth", first, piece));
        alerts.extend(own.judge().alerts);
    }
    alerts.extend(own.finish().alerts);
    let ids: BTreeSet<_> = alerts.iter().map(|alert| alert.id).collect();
    assert_eq!(ids.len(), 1, "{alerts:?}");
    let last = alerts.last().expect("an alert");
    assert_eq!((last.service.as_str(), last.signal.as_str(), last.state), ("cart", "metrics", AlertState::Resolved));
    assert!(last.session.starts_with("queue.depth"), "{}", last.session);
    assert_eq!((last.start_unix_nano, last.evidence.culprit), (3_000 * SECOND, Some(301)));
}

#[test]
fn an_instance_that_falls_silent_alerts_until_it_is_heard_of_again() {
    let mut own = telemetry(&[("heartbeat", json!({}))]);
    let mut alerts = Vec::new();
    for (first, piece) in (0..).step_by(10).zip(noise(1, 400).chunks(10)) {
        own.push_metrics(&gauge("load", first, piece));
        // The stock is silent for ten minutes.
        if !(200..260).contains(&first) {
            own.push_metrics(&gauge_of("stock", "load", first, piece));
        }
        alerts.extend(own.judge().alerts);
    }
    let ids: BTreeSet<_> = alerts.iter().map(|alert| alert.id).collect();
    assert_eq!(ids.len(), 1, "{alerts:?}");
    let (first, last) = (&alerts[0], alerts.last().expect("as above"));
    assert_eq!((first.service.as_str(), first.state, last.state), ("stock", AlertState::Firing, AlertState::Resolved));
    assert_eq!(first.start_unix_nano, 1_990 * SECOND, "when it was heard of last");
    assert!(first.evidence.summary.contains("has sent no metrics"), "{}", first.evidence.summary);
}

#[test]
fn spans_become_rates_and_durations_that_are_judged() {
    let mut own = telemetry(&[("profile-forecast", json!({}))]);
    // Three hours, a trace a second; then the durations of one service grow a hundredfold for ten minutes.
    let mut traces = application(3, 3 * 3_600, 0.0);
    for (trace, _) in &mut traces[9_000..9_600] {
        let services: Vec<bool> = trace.services.iter().map(|name| **name == *"stock").collect();
        for span in trace.spans.iter_mut().filter(|span| services[span.service as usize]) {
            span.duration_nanos *= 100;
        }
    }
    let mut alerts = Vec::new();
    for piece in traces.chunks(500) {
        own.push_spans(&spans(piece, 0, 1));
        alerts.extend(own.judge().alerts);
    }
    alerts.extend(own.finish().alerts);
    let first = alerts.first().expect("the durations are far from usual");
    let at = first.start_unix_nano / SECOND;
    assert!((8_970..9_630).contains(&at), "{at}: {first:?}");
    assert!(alerts.iter().any(|alert| alert.service == "stock" && alert.session.contains("p99")), "{alerts:?}");
}

#[test]
fn a_sender_whose_clock_is_ahead_does_not_complete_the_steps_of_others() {
    let mut own = telemetry(&[("profile-forecast", json!({}))]);
    let request = |start: i64, n: u64| {
        let mut builder = SpanBatchBuilder::default();
        builder.push(&SpanRecord {
            trace_id: &format!("{n:032x}"),
            span_id: "0000000000000001",
            name: "do",
            kind: 2,
            service_name: "cart",
            start_time_unix_nano: start * SECOND,
            end_time_unix_nano: start * SECOND + 1_000,
            ..SpanRecord::default()
        });
        builder.finish().numbered_from(n)
    };
    for (at, n) in (300..420).zip(1..) {
        own.push_spans(&request(at, n));
        // Half a minute ahead, and the input pauses after each of its points.
        own.push_metrics(&gauge("load", at / 10 + 3, &[50.0]));
        own.rest(2 * SECOND);
        own.judge();
    }
    let (series, ..) = own.stats();
    assert_eq!((series.n_late_spans, series.n_spans), (0, 120));
}

#[test]
fn what_nobody_listens_to_is_not_made() {
    let mut own = telemetry(&[("new-template", json!({}))]);
    own.push_spans(&spans(&application(1, 10, 0.0), 0, 1));
    own.push_metrics(&gauge("load", 0, &noise(1, 10)));
    assert_eq!((own.judge(), own.finish()), (Judged::default(), Judged::default()));
    let (series, traces, services) = own.stats();
    assert_eq!((series.n_points, series.n_spans, traces.n_spans, services.n_traces), (0, 0, 0, 0));
}

#[test]
fn a_deferred_fit_is_handed_out_once_and_its_lane_is_silent_until_it_is_back() {
    let mut own = telemetry(&[("trace-vector", json!({}))]).deferring_fits();
    own.push_spans(&spans(&application(1, 300, 0.0), 0, 1));
    assert!(own.judge().events.is_empty() && own.begin_fits().is_empty() && own.n_in_service() == 0);
    own.push_spans(&spans(&application(2, 500, 0.0), 300, 10_001));
    own.judge();
    let mut due = own.begin_fits();
    assert_eq!((due.len(), own.begin_fits().len()), (1, 0));
    own.push_spans(&spans(&application(4, 100, 1.0), 1_000, 20_001));
    assert_eq!(own.judge(), Judged::default());
    let events = own.conclude(due.remove(0).run());
    assert!(matches!(events[..], [MonitorEvent::Fitted { .. }]), "{events:?}");
    own.push_spans(&spans(&application(5, 100, 1.0), 1_100, 30_001));
    assert!(!own.finish().alerts.is_empty());
}

#[test]
fn the_budget_is_shared_with_who_judges_something() {
    let mut own =
        telemetry(&[("trace-vector", json!({})), ("profile-forecast", json!({})), ("new-template", json!({}))]);
    assert_eq!(own.n_judging(), 0);
    own.push_metrics(&gauge("load", 0, &noise(1, 400)));
    own.judge();
    own.push_metrics(&gauge("load", 400, &noise(2, 2)));
    own.judge();
    assert_eq!(own.n_judging(), 1, "no trace has come");
    let promised = |own: &Telemetry| {
        let status = own.status();
        status.iter().find(|status| status.detector == "profile-forecast").and_then(|status| status.promised_per_day)
    };
    assert_eq!(promised(&own), None, "unlimited");
    let alerting = AlertConfig { budget: Budget::per_day(6.0), ..AlertConfig::default() };
    let detection = MonitorConfig { alerting, ..detection(&[("profile-forecast", json!({}))]) };
    own = Telemetry::new(&TelemetryConfig::default(), &detection).expect("valid");
    own.share_budget_with(2);
    assert_eq!(promised(&own), Some(0.0), "it has judged nothing");
    own.push_metrics(&gauge("load", 0, &noise(1, 400)));
    own.judge();
    assert_eq!(promised(&own), Some(2.0));
}

#[test]
fn a_person_who_calls_a_trace_normal_is_heard() {
    let mut own = telemetry(&[("trace-vector", json!({}))]);
    own.push_spans(&spans(&application(1, 1_000, 0.0), 0, 1));
    own.judge();
    own.push_spans(&spans(&application(2, 100, 1.0), 1_000, 100_001));
    let mut alerts = own.judge().alerts;
    alerts.extend(own.finish().alerts);
    let alert = alerts.first().expect("all are spoiled");
    let monitor = own.monitor_of(&alert.detector).expect("its own");
    let learned = monitor.accept(alert, &[], faultline_core::TemplateTexts::NONE);
    assert!(learned.is_ok_and(|n_learned| n_learned > 0), "{learned:?}");
    assert!(own.monitor_of("ngram").is_none() && own.monitor_of("profile-forecast").is_none());
}

#[test]
fn mistakes_are_named_by_key() {
    let refused = |config: &TelemetryConfig| Telemetry::new(config, &detection(&[("donut", json!({}))])).map(|_| ());
    let traces = TraceConfig { max_services: 0, ..TraceConfig::default() };
    let error = refused(&TelemetryConfig { traces, ..TelemetryConfig::default() }).expect_err("no service");
    assert!(error.to_string().contains("max_services"), "{error}");
    let detection = detection(&[("trace-vectr", json!({}))]);
    let error = Telemetry::new(&TelemetryConfig::default(), &detection).map(|_| ()).expect_err("misspelt");
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    assert!(cause.is_some_and(|cause| cause.contains("did you mean `trace-vector`")), "{error}");
}
