//! What the stations of metrics and traces have counted, as faultline's own metrics.

use serde::Serialize;
use serde_json::Value;

/// Sizes; all else that a station tells only grows.
const SIZES: &[&str] = &["series", "sources", "operations", "instances", "open", "open_spans", "open_steps", "names"];

/// Sets one metric for each number of `stats`: `n_late_spans` of `series` is `faultline_series_late_spans_total`.
pub fn tell(station: &str, stats: &impl Serialize) {
    let Ok(Value::Object(fields)) = serde_json::to_value(stats) else { return };
    for (field, value) in fields {
        let (Some(n), name) = (value.as_u64(), field.trim_start_matches("n_")) else { continue };
        if SIZES.contains(&name) {
            metrics::gauge!(format!("faultline_{station}_{name}")).set(n as f64);
        } else {
            metrics::counter!(format!("faultline_{station}_{name}_total")).absolute(n);
        }
    }
}
