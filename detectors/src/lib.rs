//! Stations 6 to 8 of the path: records become windows, windows become scores, scores become alerts.
//!
//! ```text
//! LogBatch -> Windower -> Window -> Detector -> Score -> Calibration -> p-value -> Alerter -> Alert
//!            windowing              algorithms/          calibrate                alerting
//! ```
//!
//! Spans become windows in [`traces`] instead: `SpanBatch -> TraceAssembler -> Window`, one for each trace, and from those
//! `ServiceStation -> Window`, one for each service and step.
//!
//! [`Monitor`] takes the detectors of one deployment through warm-up, fitting, calibration and service.
//! [`registry::REGISTRY`] lists every algorithm; adding one is a file in `algorithms/` and two lines.
//!
//! Nothing here reads a clock, draws unseeded randomness or does I/O: the same batches, configuration and seed give the
//! same alerts.

pub mod adaptation;
pub mod alerting;
pub mod algorithm;
pub mod algorithms;
mod bounded;
pub mod budget;
mod bytes;
pub mod calibrate;
pub mod discovery;
pub mod drift;
pub mod error;
pub mod evidence;
pub mod heartbeat;
mod language;
mod ledger;
pub mod lifecycle;
pub mod model;
mod nn;
mod per_series;
mod ranges;
pub mod registry;
pub mod series;
pub mod snapshot;
pub mod surprise;
pub mod testing;
pub mod traces;
pub mod windowing;

pub use alerting::{AlertConfig, AlertStats, Alerter, Scored};
pub use algorithm::Algorithm;
pub use budget::Budget;
pub use calibrate::Calibration;
pub use error::Error;
pub use lifecycle::{Monitor, MonitorConfig, MonitorEvent, Outcome, Scores, WarmUp};
pub use model::{Artifact, Model, Provenance};
pub use registry::{Entry, REGISTRY, entry, nearest};
pub use series::{Call, SeriesConfig, SeriesStation, SeriesStats};
pub use traces::{ServiceConfig, ServiceStation, ServiceStats, TraceAssembler, TraceConfig, TraceStats};
pub use windowing::{Emit, Ready, WindowConfig, WindowStats, Windower};
