//! Where telemetry comes from (station 1): one file or folder for each kind of source.

pub mod file;
pub mod otlp;
