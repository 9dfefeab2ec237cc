//! Parsing quality on the sixteen Loghub 2k samples: grouping accuracy (GA) and its F1 over templates (FGA), as the
//! Loghub-2.0 evaluators define them, against the original ground truth.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use faultline_core::{LogBatchBuilder, LogRecord, Parser};
use faultline_parsers::{Drain, DrainConfig, LogParser, MaskedLine, Params, ParserConfig};

const SYSTEMS: [&str; 16] = [
    "Android",
    "Apache",
    "BGL",
    "HDFS",
    "HPC",
    "Hadoop",
    "HealthApp",
    "Linux",
    "Mac",
    "OpenSSH",
    "OpenStack",
    "Proxifier",
    "Spark",
    "Thunderbird",
    "Windows",
    "Zookeeper",
];

type Groups = BTreeSet<BTreeSet<usize>>;

fn groups<K: Ord>(labels: impl Iterator<Item = K>) -> Groups {
    let mut groups: BTreeMap<K, BTreeSet<usize>> = BTreeMap::new();
    labels.enumerate().for_each(|(line, label)| _ = groups.entry(label).or_default().insert(line));
    groups.into_values().collect()
}

/// (GA, FGA).
fn accuracy(found: &Groups, truth: &Groups) -> (f64, f64) {
    let same: Vec<_> = truth.intersection(found).collect();
    let n_lines: usize = truth.iter().map(BTreeSet::len).sum();
    let n_same: usize = same.iter().map(|group| group.len()).sum();
    let f1 = 2.0 * same.len() as f64 / (found.len() + truth.len()) as f64;
    (n_same as f64 / n_lines as f64, f1)
}

fn parse(contents: &[&str]) -> Groups {
    let mut masked = MaskedLine::with_default_masks(256, 1 << 14);
    let mut drain = Drain::new("test", DrainConfig::default());
    let ids: Vec<_> = contents.iter().map(|line| drain.add(&mut masked, line.as_bytes(), 0, Params::Skip).id).collect();
    assert_eq!(drain.stats().limited_lines, 0, "real logs stay below the limit on new templates");
    groups(ids.into_iter().map(|id| drain.resolve(id)))
}

#[test]
fn one_default_configuration_groups_the_loghub_samples() {
    let wanted = |path: &str| path.contains("/original/") && path.ends_with("_2k.log_structured.csv");
    let Some(files) = common::files("loghub_2k", wanted) else {
        return common::skipped("one_default_configuration_groups_the_loghub_samples");
    };
    let (mut sum_ga, mut sum_fga) = (0.0, 0.0);
    println!("| system | GA | FGA | templates | truth |\n|---|---|---|---|---|");
    for system in SYSTEMS {
        let path = format!("loghub_2k/original/{system}/{system}_2k.log_structured.csv");
        let mut reader = csv::Reader::from_reader(files[&path].as_slice());
        let headers = reader.headers().expect("a header").clone();
        let column = |name| headers.iter().position(|header| header == name).expect(name);
        let (content, event) = (column("Content"), column("EventId"));
        let rows: Vec<csv::StringRecord> = reader.records().map(|row| row.expect("a row")).collect();
        let truth = groups(rows.iter().map(|row| &row[event]));
        let found = parse(&rows.iter().map(|row| &row[content]).collect::<Vec<_>>());
        let (ga, fga) = accuracy(&found, &truth);
        println!("| {system} | {ga:.4} | {fga:.4} | {} | {} |", found.len(), truth.len());
        sum_ga += ga;
        sum_fga += fga;
    }
    let (ga, fga) = (sum_ga / SYSTEMS.len() as f64, sum_fga / SYSTEMS.len() as f64);
    println!("| mean | {ga:.4} | {fga:.4} | | |");
    // Measured .963 and .934.
    assert!(ga >= 0.95, "mean GA {ga}");
    assert!(fga >= 0.92, "mean FGA {fga}");
}

#[test]
fn presets_split_the_loghub_samples_as_their_ground_truth_does() {
    let name = "presets_split_the_loghub_samples_as_their_ground_truth_does";
    let Some(files) = common::files("loghub_2k", |path| path.contains("/original/") && path.contains("_2k.log")) else {
        return common::skipped(name);
    };
    let (mut sum_ga, mut sum_fga) = (0.0, 0.0);
    println!("| preset | GA | FGA | same message | unmatched |\n|---|---|---|---|---|");
    for system in SYSTEMS {
        let file = |suffix: &str| files[&format!("loghub_2k/original/{system}/{system}_2k.log{suffix}")].as_slice();
        let raw = String::from_utf8_lossy(file(""));
        let mut reader = csv::Reader::from_reader(file("_structured.csv"));
        let headers = reader.headers().expect("a header").clone();
        let column = |name| headers.iter().position(|header| header == name).expect(name);
        let (content, event) = (column("Content"), column("EventId"));
        let rows: Vec<csv::StringRecord> = reader.records().map(|row| row.expect("a row")).collect();
        let mut parser = LogParser::new(ParserConfig::preset(system).expect("a preset")).expect("a parser");
        let mut builder = LogBatchBuilder::default();
        for line in raw.lines().map(|line| line.trim_end_matches('\r')) {
            builder.push(&LogRecord { time_unix_nano: 1_500_000_000_000_000_000, body: line, ..LogRecord::default() });
        }
        let batch = parser.parse(builder.finish());
        assert_eq!(batch.len(), rows.len(), "{system}");
        let same = (0..rows.len()).filter(|row| batch.body().value(*row).trim() == rows[*row][content].trim()).count();
        let into: BTreeMap<_, _> = parser.aliases().into_iter().map(|(from, into)| (from.0, into.0)).collect();
        let found = groups(batch.template_id().values().iter().map(|id| into.get(id).unwrap_or(id)));
        let (ga, fga) = accuracy(&found, &groups(rows.iter().map(|row| &row[event])));
        println!("| {system} | {ga:.4} | {fga:.4} | {same} | {} |", parser.stats().unmatched_headers);
        assert!(same * 100 >= rows.len() * 97, "{system}: {same} of {} messages", rows.len());
        sum_ga += ga;
        sum_fga += fga;
    }
    let (ga, fga) = (sum_ga / SYSTEMS.len() as f64, sum_fga / SYSTEMS.len() as f64);
    println!("| mean | {ga:.4} | {fga:.4} | | |");
    assert!(ga >= 0.95, "mean GA {ga}");
    assert!(fga >= 0.92, "mean FGA {fga}");
}

#[test]
fn the_metrics_are_those_of_the_loghub_evaluators() {
    let truth = groups([1, 1, 1, 2, 2, 3].into_iter());
    let found = groups([1, 1, 1, 2, 3, 3].into_iter());
    let (ga, fga) = accuracy(&found, &truth);
    assert_eq!((ga, fga), (0.5, 2.0 / 6.0));
}
