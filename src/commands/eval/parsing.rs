//! `loghub-2k`: how well templates group and name the lines of sixteen systems, with one configuration for all and with
//! each system's preset.

use std::time::Instant;

use faultline_core::{LogBatchBuilder, LogRecord, Parser};
use faultline_datasets::{
    ResultRow, Usage,
    loaders::loghub_2k::{GroundTruth, LabelledSystem},
    metrics::{Parsed, ParsingAccuracy, parsing_accuracy},
};
use faultline_parsers::{LogParser, ParserConfig};

use super::Args;

/// Runs the protocol: one row a system, and the mean over all.
pub fn loghub_2k(args: &Args, report: &mut dyn FnMut(ResultRow)) -> anyhow::Result<()> {
    let files = super::locate(args, "loghub_2k")?;
    let mut systems = LabelledSystem::load_all(&files.data)?;
    systems.retain(|system| system.truth == GroundTruth::Original);
    for (name, presets) in [("drain", Presets::None), ("drain with presets", Presets::PerSystem)] {
        if !args.detector.is_empty() && !args.detector.iter().any(|wanted| wanted == name) {
            continue;
        }
        let before = Usage::now();
        let mut all: Vec<ParsingAccuracy> = Vec::new();
        let (mut n_lines, mut seconds) = (0, 0.0);
        for system in &systems {
            let started = Instant::now();
            let accuracy = accuracy(system, presets)?;
            let elapsed = started.elapsed().as_secs_f64();
            let mut row = ResultRow::new("loghub-2k", &system.name, name);
            row.n = system.contents.len() as u64;
            row.parsing = Some(accuracy.into());
            row.records_per_second = Some(system.contents.len() as f64 / elapsed);
            report(row);
            all.push(accuracy);
            n_lines += system.contents.len();
            seconds += elapsed;
        }
        let mean = |figure: fn(&ParsingAccuracy) -> f64| all.iter().map(figure).sum::<f64>() / all.len() as f64;
        let mut row = ResultRow::new("loghub-2k", "mean", name);
        row.n = n_lines as u64;
        row.parsing = Some(
            ParsingAccuracy { ga: mean(|a| a.ga), pa: mean(|a| a.pa), fga: mean(|a| a.fga), fta: mean(|a| a.fta) }
                .into(),
        );
        row.records_per_second = Some(n_lines as f64 / seconds);
        row.cpu_seconds = Usage::now().cpu_seconds_since(&before);
        row.peak_rss_bytes = Usage::now().peak_rss_bytes;
        report(row);
    }
    Ok(())
}

/// Whether each system gets its own configuration.
#[derive(Clone, Copy, PartialEq)]
enum Presets {
    None,
    PerSystem,
}

fn accuracy(system: &LabelledSystem, presets: Presets) -> anyhow::Result<ParsingAccuracy> {
    let mut config = match presets {
        Presets::None => ParserConfig::default(),
        Presets::PerSystem => ParserConfig::preset(&system.name.to_lowercase())?,
    };
    // The structured files hold the message without its header.
    config.line_format = None;
    config.time_fields.clear();
    config.time_format = None;
    let mut parser = LogParser::new(config)?;
    let mut builder = LogBatchBuilder::default();
    for content in &system.contents {
        builder.push(&LogRecord { body: content, service_name: &system.name, ..LogRecord::default() });
    }
    let parsed = parser.parse(builder.finish());
    // Templates that merged later are one group.
    let merged: std::collections::BTreeMap<u64, u64> =
        parser.aliases().into_iter().map(|(alias, template)| (alias.0, template.0)).collect();
    // The texts as they are at the end: a template may have widened since a line was given its id.
    let texts: std::collections::BTreeMap<u64, String> =
        parser.templates().into_iter().map(|template| (template.id.0, template.text)).collect();
    let groups: Vec<(String, &str)> = parsed
        .template_id()
        .iter()
        .map(|id| id.map(|id| merged.get(&id).copied().unwrap_or(id)))
        .map(|id| id.map_or((String::new(), ""), |id| (id.to_string(), texts.get(&id).map_or("", String::as_str))))
        .collect();
    let predicted: Vec<Parsed<'_>> = groups.iter().map(|(group, template)| Parsed { group, template }).collect();
    parsing_accuracy(&predicted, &system.truth_groups())
        .ok_or_else(|| anyhow::anyhow!("{}: no lines to judge", system.name))
}
