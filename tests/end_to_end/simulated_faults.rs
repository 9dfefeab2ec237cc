//! The compute stations without sockets or threads: the simulated shop breaks in every way at several services, and the
//! incident must name the culprit. This is where simulator and root cause analysis meet; neither may know the other.

use std::fmt::Write as _;

use faultline_core::{LogBatchBuilder, LogRecord, Parser, SpanBatchBuilder, SpanRecord};
use faultline_detectors::{
    lifecycle::{Monitor, MonitorConfig},
    windowing::{WindowConfig, Windower},
};
use faultline_parsers::{LogParser, ParserConfig};
use faultline_rca::{Correlator, RcaConfig};
use faultline_simulator::{Fault, FaultKind, SimLog, SimSpan, Simulation, Telemetry, shop};

const SECOND: u64 = 1_000_000_000;
/// Virtual time zero.
const EPOCH: i64 = 1_790_000_000 * SECOND as i64;

/// Stations 4 and 6 to 9 in a row.
struct Path {
    parser: LogParser,
    windower: Windower,
    monitor: Monitor,
    correlator: Correlator,
    next_record: u64,
    n_alerts: usize,
    /// Services in the order of the latest incident's causes.
    suspects: Vec<String>,
}

impl Path {
    fn new() -> Self {
        // The cheap detectors: what is judged here is the path, not a network's fit.
        let detectors = ["new-template", "ngram", "logsed"];
        let config = MonitorConfig {
            detectors: detectors.iter().map(|name| ((*name).to_owned(), serde_json::json!({}))).collect(),
            ..MonitorConfig::default()
        };
        Self {
            parser: LogParser::new(ParserConfig::default()).expect("the default configuration"),
            windower: Windower::new(WindowConfig::default()).expect("the default configuration"),
            monitor: Monitor::new(config).expect("known detectors"),
            correlator: Correlator::new(RcaConfig::default()).expect("the default configuration"),
            next_record: 1,
            n_alerts: 0,
            suspects: Vec::new(),
        }
    }

    fn take(&mut self, telemetry: &Telemetry) {
        self.correlator.observe(&spans(&telemetry.spans));
        let logs = logs(&telemetry.logs).numbered_from(self.next_record);
        self.next_record += logs.len() as u64;
        self.windower.push(&self.parser.parse(logs));
        let outcome = self.monitor.process(&self.windower.ready());
        self.windower.settle();
        self.correlator.advance_to(self.windower.watermark_unix_nano());
        self.n_alerts += outcome.alerts.len();
        for incident in self.correlator.update(&outcome.alerts).incidents {
            self.suspects = incident.causes.iter().map(|cause| cause.name.clone()).collect();
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("to a string");
        text
    })
}

fn spans(spans: &[SimSpan]) -> faultline_core::SpanBatch {
    let mut builder = SpanBatchBuilder::default();
    for span in spans {
        let mut attributes = serde_json::Map::new();
        for (name, value) in &span.attributes {
            let value = match value {
                faultline_simulator::Value::Text(text) => serde_json::Value::from(text.as_ref()),
                faultline_simulator::Value::Int(number) => serde_json::Value::from(*number),
            };
            attributes.insert((*name).to_owned(), value);
        }
        builder.push(&SpanRecord {
            trace_id: &hex(&span.trace_id),
            span_id: &hex(&span.span_id),
            parent_span_id: &span.parent_span_id.map(|id| hex(&id)).unwrap_or_default(),
            name: &span.name,
            kind: span.kind as i32,
            service_name: &span.service,
            start_time_unix_nano: EPOCH + span.start_ns as i64,
            end_time_unix_nano: EPOCH + span.end_ns as i64,
            status_code: span.status as i32,
            status_message: &span.status_message,
            attributes: &serde_json::Value::Object(attributes).to_string(),
            ..SpanRecord::default()
        });
    }
    builder.finish()
}

fn logs(logs: &[SimLog]) -> faultline_core::LogBatch {
    let mut builder = LogBatchBuilder::default();
    for log in logs {
        let (trace_id, span_id) = log.trace.map(|(trace, span)| (hex(&trace), hex(&span))).unwrap_or_default();
        builder.push(&LogRecord {
            time_unix_nano: EPOCH + log.time_ns as i64,
            severity_number: i32::from(log.severity_number),
            service_name: &log.service,
            body: &log.body,
            trace_id: &trace_id,
            span_id: &span_id,
            ..LogRecord::default()
        });
    }
    builder.finish()
}

/// Warms up, breaks `service`, and returns the alerts before the fault and the suspects twenty seconds after it.
fn break_and_explain(service: &str, kind: FaultKind, seed: u64) -> (usize, Vec<String>) {
    let mut simulation = Simulation::new(&shop::config(), seed).expect("the built-in shop");
    let mut path = Path::new();
    let mut now = 0;
    let mut until = |path: &mut Path, simulation: &mut Simulation, end: u64| {
        while now < end {
            now += SECOND / 4;
            path.take(&simulation.advance_to(now));
        }
    };
    until(&mut path, &mut simulation, 240 * SECOND);
    assert!(path.monitor.is_in_service(), "warmed up to {:.2}", path.monitor.progress());
    until(&mut path, &mut simulation, 300 * SECOND);
    let n_false = path.n_alerts;
    let fault = Fault {
        service: service.to_owned(),
        kind,
        from_ns: 300 * SECOND,
        until_ns: u64::MAX,
        severity: kind.typical_severity(),
    };
    simulation.inject(fault).expect("a service of the shop");
    until(&mut path, &mut simulation, 320 * SECOND);
    (n_false, path.suspects)
}

#[test]
fn every_kind_of_fault_is_traced_to_its_service() {
    let mut report = String::new();
    let (mut n_right, mut n_cases, mut n_false_alerts) = (0, 0, 0);
    for kind in FaultKind::ALL {
        for service in ["inventory", "payment", "database"] {
            let (n_false, suspects) = break_and_explain(service, kind, 7);
            let is_right = suspects.first().is_some_and(|suspect| suspect == service);
            n_right += usize::from(is_right);
            n_cases += 1;
            n_false_alerts += n_false;
            writeln!(report, "{} {service}: {suspects:?}, {n_false} alerts before", kind.name()).expect("to a string");
        }
    }
    eprintln!("{report}");
    assert_eq!(n_false_alerts, 0, "alerts before any fault:\n{report}");
    // A processor hog shows in the logs of few services; the other kinds must all be found.
    assert!(n_right * 10 >= n_cases * 9, "culprit first in {n_right} of {n_cases}:\n{report}");
}
