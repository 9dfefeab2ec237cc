//! `faultline detectors`: what the registry holds, and how the detectors of a data directory do: the alert budget, promised
//! against observed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use faultline_core::DetectorStatus;
use faultline_detectors::{Entry, REGISTRY, entry};
use faultline_store::{Judged, Store, StoreConfig};
use serde_json::json;

use crate::{
    exit::{self, Exit},
    out::outln,
};

/// Arguments of `faultline detectors`.
#[derive(clap::Args)]
pub struct Args {
    /// Show one detector with its configuration keys.
    name: Option<String>,
    /// JSON on stdout.
    #[arg(long)]
    json: bool,
    /// Show how the detectors of this data directory do. Without it `faultline-data` is shown where there is one.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let shown: Vec<&Entry> = match &args.name {
        Some(name) => vec![entry(name)?],
        None => REGISTRY.iter().collect(),
    };
    let (status, judged) = status(args.data_dir.as_deref())?;
    let status_of = |entry: &Entry| status.iter().find(|status| status.detector == entry.name);
    if args.json {
        for entry in shown {
            let mut described = describe(entry);
            described["status"] = json!(status_of(entry));
            let Judged { n_false, n_true } = judged.get(entry.name).copied().unwrap_or_default();
            described["judged"] = json!({"false_positive": n_false, "true_positive": n_true});
            outln!("{described}");
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
    print_status(&status, &judged);
    Ok(())
}

/// How the detectors of a data directory did when they last said so, and what people have said of their alerts.
fn status(data_dir: Option<&Path>) -> anyhow::Result<(Vec<DetectorStatus>, BTreeMap<String, Judged>)> {
    let dir = data_dir.unwrap_or(Path::new("faultline-data"));
    if !dir.is_dir() {
        return match data_dir {
            Some(dir) => Err(Exit::new(exit::UNAVAILABLE, format!("no data directory at {}", dir.display())).into()),
            None => Ok(Default::default()),
        };
    }
    let store = Store::open_for_reading(dir, StoreConfig::default())?;
    Ok((store.detectors()?, store.judged()?))
}

fn print_status(status: &[DetectorStatus], judged: &BTreeMap<String, Judged>) {
    if status.is_empty() {
        return;
    }
    outln!("\nIn service, over about the last four thousand sessions, a day of event time:\n");
    outln!(
        "{:16} {:10} {:>12} {:>10} {:>9} {:>10} {:>11} {:>7}  {}",
        "detector",
        "state",
        "sessions",
        "promised*",
        "alerts",
        "false**",
        "judged***",
        "drift",
        "waiting for promotion"
    );
    let mut sums = (0.0, 0.0, 0.0);
    for detector in status {
        let promised = detector.promised_per_day.map_or_else(|| "-".to_owned(), |promised| format!("{promised:.2}"));
        let shadow = detector.shadow.as_ref().map_or_else(String::new, |shadow| {
            let percent = |share: f64| 100.0 * share;
            format!(
                "{:016x}: {:.1} % of {} held-back sessions abnormal, now {:.1} %",
                shadow.model_version,
                percent(shadow.abnormal_share),
                shadow.n_validation,
                percent(shadow.active_abnormal_share)
            )
        });
        let Judged { n_false, n_true } = judged.get(&detector.detector).copied().unwrap_or_default();
        let judged = format!("{n_false} of {}", n_false + n_true);
        outln!(
            "{:16} {:10} {:>12.0} {promised:>10} {:>9.2} {:>10.2} {judged:>11} {:>6.1}%  {shadow}",
            detector.detector,
            detector.state.name(),
            detector.sessions_per_day,
            detector.alerts_per_day,
            detector.false_per_day,
            100.0 * detector.drift
        );
        sums.0 += detector.promised_per_day.unwrap_or(0.0);
        sums.1 += detector.alerts_per_day;
        sums.2 += detector.false_per_day;
    }
    outln!("{:16} {:10} {:>12} {:>10.2} {:>9.2} {:>10.2}", "all", "", "", sums.0, sums.1, sums.2);
    outln!(
        "\n*  false alerts that `alerting.budget` grants   ** of the alerts, estimated by the false-discovery rate\n\
         *** alerts that people called false, of all that they judged, since the data directory began"
    );
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
