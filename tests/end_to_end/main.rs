//! The binary as its users meet it: real processes, real sockets, real clients.

#![allow(clippy::disallowed_methods, reason = "tests of real processes watch the clock to give up")]
#![allow(dead_code, reason = "the telemetry tests that use the rest of the harness come back next")]

mod command_line;
mod data;
mod replay;
mod service;
mod telemetry;

/// Says that a test could not run and why, so that nobody takes its silence for success.
fn skipped(test: &str, absent: &str) {
    eprintln!("skipped: {test}: {absent}");
}
