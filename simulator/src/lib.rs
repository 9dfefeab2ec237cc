//! A microservice application in a box: a discrete-event simulation of a web shop that serves requests, speaks
//! telemetry and breaks on demand. Not on the path; the demo and the tests feed the path from it.
//!
//! Read it in this order: [`config`] says what an application is (services with a few servers each, operations as small
//! programs, user requests), [`shop`] is the built-in one, [`simulation`] runs it, [`fault`] breaks it, [`telemetry`] is
//! what comes out. Time is virtual nanoseconds from 0; the same configuration, seed and calls give the same bytes.

pub mod config;
pub mod fault;
mod plan;
mod random;
pub mod shop;
pub mod simulation;
mod slab;
mod speech;
mod station;
pub mod telemetry;

pub use config::{Config, ConfigError};
pub use fault::{Fault, FaultKind};
pub use simulation::Simulation;
pub use station::ServiceStats;
pub use telemetry::{SimEvent, SimLog, SimSpan, SpanKind, SpanStatus, Telemetry, Value};
