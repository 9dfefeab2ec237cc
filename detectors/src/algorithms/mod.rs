//! One file for each detector. A new one is a file here, its `mod` line below and its line in
//! [`crate::registry::REGISTRY`]; a test fails for a file that has no line there.

pub mod attention_rnn;
pub mod birch;
pub mod change_point;
pub mod common_kinds;
pub mod count_vector;
pub mod deeplog;
pub mod donut;
pub mod ensemble;
pub mod heartbeat;
pub mod heavy_tail;
pub mod holt_winters;
pub mod length;
pub mod logsed;
pub mod mahalanobis;
pub mod masked_span;
pub mod moving_average;
pub mod new_template;
pub mod ngram;
pub mod profile_forecast;
pub mod robust_pca;
pub mod robust_z;
pub mod service_latency;
pub mod severe_incident;
pub mod span_lstm;
pub mod task_insight;
pub mod trace_anomaly;
pub mod trace_vector;
