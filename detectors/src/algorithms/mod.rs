//! One file for each detector. A new one is a file here, its `mod` line below and its line in
//! [`crate::registry::REGISTRY`]; a test fails for a file that has no line there.

pub mod attention_rnn;
pub mod common_kinds;
pub mod count_vector;
pub mod deeplog;
pub mod donut;
pub mod ensemble;
pub mod length;
pub mod logsed;
pub mod new_template;
pub mod ngram;
pub mod service_latency;
pub mod severe_incident;
pub mod trace_vector;
