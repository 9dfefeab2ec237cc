//! `faultline query`: SQL over a data directory, without a running process.

use std::path::PathBuf;

use clap::ValueEnum;
use faultline_store::{Store, StoreConfig};

use crate::exit::{self, Exit};
use crate::out::outln;

/// Arguments of `faultline query`.
#[derive(clap::Args)]
pub struct Args {
    /// One SELECT over logs, spans, metrics, templates, alerts, incidents, feedback, or log_records (logs with the template's text).
    sql: String,
    /// The data directory.
    #[arg(long, value_name = "DIR", default_value = "faultline-data")]
    data_dir: PathBuf,
    /// How rows are printed.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// How rows are printed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Aligned columns for people.
    Table,
    /// One JSON object with columns and rows, as `POST /api/v1/query` answers.
    Json,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    if !args.data_dir.is_dir() {
        let message = format!("no data directory at {}: give it with --data-dir", args.data_dir.display());
        return Err(Exit::new(exit::UNAVAILABLE, message).into());
    }
    let store = Store::open_for_reading(&args.data_dir, StoreConfig::default())?;
    let result = store.query(&args.sql)?;
    match args.format {
        Format::Json => outln!("{}", serde_json::to_string(&result)?),
        Format::Table => print_table(&result),
    }
    Ok(())
}

fn print_table(result: &faultline_store::QueryResult) {
    let header: Vec<String> = result.columns.iter().map(|column| column.name.clone()).collect();
    let rows: Vec<Vec<String>> = result.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
    let widths: Vec<usize> = (0..header.len())
        .map(|idx| rows.iter().map(|row| row[idx].chars().count()).chain([header[idx].len()]).max().unwrap_or(0))
        .collect();
    let print = |cells: &[String]| {
        let line: Vec<String> = cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        outln!("{}", line.join("  ").trim_end());
    };
    print(&header);
    print(&widths.iter().map(|&width| "-".repeat(width)).collect::<Vec<_>>());
    rows.iter().for_each(|row| print(row));
    if result.truncated {
        eprintln!("more rows than the limit: the rest is cut off");
    }
}

fn cell(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.replace('\n', "\\n"),
        other => other.to_string(),
    }
}
