//! `faultline`: the command line. One subcommand a file; the path itself is in `pipeline.rs`.

#![allow(clippy::disallowed_methods, reason = "the binary is the edge: it is where clocks are read")]

mod channel;
mod commands;
mod config;
mod dead_letters;
mod evidence;
mod exit;
mod fits;
mod logging;
mod out;
mod pipeline;
mod progress;
mod publication;
mod speak;
mod station_counts;
mod verdicts;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use logging::LogFormat;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Watches telemetry and says what is breaking, why, and what to do about it.
#[derive(Parser)]
#[command(name = "faultline", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    /// How faultline's own log looks; it goes to stderr, data goes to stdout.
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Receive OTLP, detect, explain; serve alerts and incidents over REST.
    Run(commands::run::Args),
    /// Send a log file down the same path, and judge the alerts where labels are given.
    Replay(commands::replay::Args),
    /// Run an evaluation protocol on a public dataset and print one table.
    Eval(commands::eval::Args),
    /// Fit detectors to a log file and write them where `run` and `replay` can load them.
    Fit(commands::fit::Args),
    /// SQL over what a data directory holds.
    Query(commands::query::Args),
    /// List the detectors.
    Detectors(commands::detectors::Args),
    /// List, fetch or import public datasets.
    Datasets(commands::datasets::Args),
    /// Check a configuration file, or print the reference of all keys.
    Validate(commands::validate::Args),
    /// Watch a small application break and see the incident explained. One minute, nothing else needed.
    Demo(commands::demo::Args),
    /// Print the version.
    Version,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, not errors.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(exit::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let default_level = match cli.command {
        Command::Run(_) => "info",
        _ => "warn",
    };
    logging::init(cli.log_format, default_level);
    let result = match cli.command {
        Command::Run(args) => commands::run::run(&args),
        Command::Replay(args) => commands::replay::run(&args),
        Command::Eval(args) => commands::eval::run(&args),
        Command::Fit(args) => commands::fit::run(&args),
        Command::Query(args) => commands::query::run(&args),
        Command::Detectors(args) => commands::detectors::run(&args),
        Command::Datasets(args) => commands::datasets::run(&args),
        Command::Validate(args) => commands::validate::run(&args),
        Command::Demo(args) => commands::demo::run(&args),
        Command::Version => commands::version(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // `{:#}` prints the chain of causes once each.
            eprintln!("faultline: {error:#}");
            ExitCode::from(exit::code(&error))
        }
    }
}
