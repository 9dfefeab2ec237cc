//! The binary as its users meet it: real processes, real sockets, real clients.

#![allow(clippy::disallowed_methods, reason = "tests of real processes watch the clock to give up")]

use std::io::Write as _;

mod command_line;
mod data;
mod feedback;
mod metrics_and_traces;
mod python_client;
mod replay;
mod service;
mod simulated_faults;
mod telemetry;

/// Says that a test could not run and why, so that nobody takes its silence for success. Written past the test harness,
/// which shows the output of failed tests only.
fn skipped(test: &str, absent: &str) {
    writeln!(std::io::stderr(), "skipped: {test}: no {absent}").expect("stderr is open");
}
