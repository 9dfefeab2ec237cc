//! What an application is: services, operations as small programs, and the requests that users send.

use faultline_core::{Classified, Domain};
use serde::{Deserialize, Serialize};

/// An application and its users.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The services. Calls between operations must not form a cycle.
    pub services: Vec<Service>,
    /// What users ask for.
    pub requests: Vec<RequestKind>,
    /// Poisson arrival rate of requests, per second.
    pub arrivals_per_second: f64,
    /// One-way time on the network, milliseconds, drawn uniformly from half of it to one and a half times it.
    pub network_ms: f64,
    /// Pause before a call is tried again, milliseconds.
    pub retry_pause_ms: f64,
    /// Visits under way at once, over all services; a request that arrives beyond that is turned away and counted.
    pub max_visits: usize,
    /// What is emitted.
    pub speech: Speech,
}

/// What a simulation emits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Speech {
    /// Spans and log records.
    Full,
    /// Nothing: only the statistics are kept. For training and for the queueing gates.
    Silent,
}

/// A service: a first-in-first-out queue before a few servers. A visit holds a server while it works, not while it waits
/// for other services.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// `service.name`.
    pub name: String,
    /// Servers (replicas times cores).
    pub n_servers: usize,
    /// Visits that may wait for a server; one more is refused with status 503.
    pub queue_capacity: usize,
    /// What it can be asked.
    pub operations: Vec<Operation>,
    /// What it logs by the clock, without a trace.
    pub background: Vec<Background>,
}

/// One operation of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Span name, such as `POST /orders` or `SELECT orders`.
    pub name: String,
    /// What a visit does, in order.
    pub steps: Vec<Step>,
}

/// One step of a visit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Writes a log record.
    Log(Line),
    /// Holds a server.
    Work(ServiceTime),
    /// Calls other services at the same time and waits for all of them.
    Call(Vec<Call>),
}

/// A synchronous call to another service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// Called service.
    pub service: String,
    /// Its operation.
    pub operation: String,
    /// Share of visits that make the call, 0 to 1.
    pub probability: f64,
    /// How long the caller waits, milliseconds.
    pub timeout_ms: f64,
    /// How often a call that timed out, was refused or was turned away is tried again.
    pub n_retries: u32,
    /// What the caller does when the call has failed for good.
    pub on_failure: OnFailure,
}

/// What a caller does about a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Fails too.
    Fail,
    /// Logs a warning and goes on without it.
    Continue,
}

/// How long a server is held.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "distribution")]
pub enum ServiceTime {
    /// Always the same.
    Constant {
        /// Milliseconds.
        ms: f64,
    },
    /// Memoryless, for the queueing gates.
    Exponential {
        /// Mean in milliseconds.
        mean_ms: f64,
    },
    /// Skewed to the right, as measured service times are.
    LogNormal {
        /// Median in milliseconds.
        median_ms: f64,
        /// Standard deviation of the logarithm.
        sigma: f64,
    },
}

/// A log record with placeholders such as `{order}`; [`Line::PLACEHOLDERS`] lists them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// OpenTelemetry severity number, 1 to 24.
    pub severity_number: u8,
    /// Body.
    pub text: String,
}

impl Line {
    /// Names that may stand in braces: facts of the request (`user`, `order`, `sku`, `amount`, `ip`, `query`), the time
    /// since the visit began (`ms`), and numbers drawn for the line (`n` below 50, `mib` below 512).
    pub const PLACEHOLDERS: [&str; 9] = ["user", "order", "sku", "amount", "ip", "query", "ms", "n", "mib"];
}

/// A record that a service writes by the clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Background {
    /// Time between two records, milliseconds.
    pub period_ms: f64,
    /// Time of the first one, milliseconds.
    pub offset_ms: f64,
    /// What it says.
    pub line: Line,
}

/// What a user asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestKind {
    /// Name, such as `checkout`.
    pub name: String,
    /// Share of requests, relative to the others'.
    pub weight: f64,
    /// Service at which it arrives.
    pub service: String,
    /// Operation at which it arrives.
    pub operation: String,
}

/// A configuration or fault that cannot be simulated.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A name that nothing bears.
    #[error("{key}: no such {what} `{name}`; there are {known}")]
    Unknown {
        /// Where the name stands.
        key: String,
        /// What was looked for.
        what: &'static str,
        /// The name.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A value outside its range.
    #[error("{key}: {reason}")]
    Invalid {
        /// Where the value stands.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Classified for ConfigError {
    fn domain(&self) -> Domain {
        Domain::User
    }

    fn retryable(&self) -> bool {
        false
    }
}
