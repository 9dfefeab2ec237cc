//! What the sources count, in one place, with the names that the OpenTelemetry Collector's users know.

use crate::decode::{CapCounts, OtlpSignal};

const REFUSED_REQUESTS: &str = "faultline_receiver_refused_requests_total";
const CAPPED: &str = "faultline_decode_capped_total";

fn accepted_name(signal: OtlpSignal) -> &'static str {
    match signal {
        OtlpSignal::Logs => "faultline_receiver_accepted_log_records_total",
        OtlpSignal::Traces => "faultline_receiver_accepted_spans_total",
        OtlpSignal::Metrics => "faultline_receiver_accepted_metric_points_total",
    }
}

fn refused_name(signal: OtlpSignal) -> &'static str {
    match signal {
        OtlpSignal::Logs => "faultline_receiver_refused_log_records_total",
        OtlpSignal::Traces => "faultline_receiver_refused_spans_total",
        OtlpSignal::Metrics => "faultline_receiver_refused_metric_points_total",
    }
}

/// Records that faultline has taken.
pub(super) fn accepted(signal: OtlpSignal, transport: &'static str, n_records: u64) {
    metrics::counter!(accepted_name(signal), "transport" => transport).increment(n_records);
}

/// Records that it has not: bad ones, and those of requests that were not acknowledged.
pub(super) fn refused(signal: OtlpSignal, transport: &'static str, n_records: u64) {
    metrics::counter!(refused_name(signal), "transport" => transport).increment(n_records);
}

/// A request that was refused as a whole.
pub(super) fn refused_request(transport: &'static str, reason: &'static str) {
    metrics::counter!(REFUSED_REQUESTS, "transport" => transport, "reason" => reason).increment(1);
}

/// What caps have cut.
pub(super) fn capped(caps: &CapCounts) {
    for (cap, n_capped) in caps.by_cap() {
        if n_capped > 0 {
            metrics::counter!(CAPPED, "cap" => cap).increment(n_capped);
        }
    }
}

/// Describes these counters to the installed recorder; call once at start.
pub fn describe_metrics() {
    for signal in [OtlpSignal::Logs, OtlpSignal::Traces, OtlpSignal::Metrics] {
        metrics::describe_counter!(accepted_name(signal), "Records that were received and taken responsibility for.");
        let help = "Records that were received and rejected as bad, or not acknowledged.";
        metrics::describe_counter!(refused_name(signal), help);
    }
    metrics::describe_counter!(REFUSED_REQUESTS, "Requests that were refused as a whole, by reason.");
    metrics::describe_counter!(CAPPED, "Times that a cap of ingest.otlp.limits cut, dropped or rejected something.");
}
