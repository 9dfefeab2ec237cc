//! `faultline detectors`: what the registry holds.

use faultline_detectors::{Entry, REGISTRY, entry};
use serde_json::json;

use crate::out::outln;

/// Arguments of `faultline detectors`.
#[derive(clap::Args)]
pub struct Args {
    /// Show one detector with its configuration keys.
    name: Option<String>,
    /// JSON on stdout.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let shown: Vec<&Entry> = match &args.name {
        Some(name) => vec![entry(name)?],
        None => REGISTRY.iter().collect(),
    };
    if args.json {
        for entry in shown {
            outln!("{}", describe(entry));
        }
        return Ok(());
    }
    for entry in shown {
        outln!("{:14} {}", entry.name, entry.summary);
        outln!("{:14}   {}", "", entry.paper);
        if !entry.is_default {
            outln!("{:14}   runs only where `detection.detectors` names it", "");
        }
        if args.name.is_some() {
            print_keys(entry);
        }
    }
    Ok(())
}

fn describe(entry: &Entry) -> serde_json::Value {
    json!({
        "name": entry.name,
        "summary": entry.summary,
        "paper": entry.paper,
        "signal": entry.signal.name(),
        "is_default": entry.is_default,
        "published_threshold": entry.published_threshold,
        "config": entry.default_config(),
        "config_schema": entry.config_schema(),
    })
}

fn print_keys(entry: &Entry) {
    let defaults = entry.default_config();
    let schema = entry.config_schema().to_value();
    outln!("\n{:14} configuration, under detection.detectors.{}:", "", entry.name);
    let properties = schema["properties"].as_object().cloned().unwrap_or_default();
    for (key, property) in properties {
        let text =
            property["description"].as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        outln!("{:14}   {key} = {}  {text}", "", defaults[&key]);
    }
}
