//! Where telemetry comes from (station 1): one file or folder for each kind of source.

mod counters;
pub mod file;
pub mod otlp;

pub use counters::describe_metrics;
