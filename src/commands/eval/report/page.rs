//! What the page on metrics and traces has before its tables: an introduction, the bars that this project has set itself, and what runs by
//! default; and below each table where its thresholds come from. The text is [`TEMPLATE`]; figures come from rows, names from the
//! registry.

use std::fmt::Write as _;

use faultline_core::Signal;
use faultline_datasets::ResultRow;
use faultline_detectors::REGISTRY;

use super::{Group, Kind, extra, mean, show};

const TEMPLATE: &str = include_str!("metrics-and-traces.md");

/// Kinds of windows that the page is about, as it names them.
const SIGNALS: [(Signal, &str); 4] = [
    (Signal::Series, "single series"),
    (Signal::Groups, "series of an instance together"),
    (Signal::Traces, "traces"),
    (Signal::Services, "what a service did in a minute"),
];

/// What a row has to reach.
struct Bar {
    what: &'static str,
    protocol: &'static str,
    /// The dataset of the row ends in this.
    dataset: &'static str,
    detector: &'static str,
    value: fn(&ResultRow) -> Option<f64>,
    bar: f64,
    goal: Option<f64>,
    /// Whether less is better.
    is_limit: bool,
    kind: Kind,
}

impl Bar {
    const fn at_least(
        what: &'static str,
        of: [&'static str; 3],
        value: fn(&ResultRow) -> Option<f64>,
        bar: f64,
    ) -> Self {
        let [protocol, dataset, detector] = of;
        Self { what, protocol, dataset, detector, value, bar, goal: None, is_limit: false, kind: Kind::Share }
    }

    const fn goal(self, goal: f64) -> Self {
        Self { goal: Some(goal), ..self }
    }
}

/// In the order of the page.
const BARS: &[Bar] = &[
    Bar::at_least("AIOps, kd7 F1", ["aiops", "", "profile-forecast"], |row| extra(row, "kd7_f1"), 0.80).goal(0.88),
    Bar::at_least("AIOps, F1 of points", ["aiops", "", "profile-forecast"], |row| row.f1, 0.42).goal(0.50),
    Bar {
        kind: Kind::Decimal,
        ..Bar::at_least(
            "NAB, standard score, threshold as NAB chooses it",
            ["nab", "(oracle threshold)", "heavy-tail"],
            |row| extra(row, "nab_standard"),
            60.0,
        )
        .goal(75.0)
    },
    Bar {
        kind: Kind::Decimal,
        ..Bar::at_least(
            "NAB, standard score, threshold of the other half",
            ["nab", "threshold of the other half", "heavy-tail"],
            |row| extra(row, "nab_standard"),
            60.0,
        )
        .goal(75.0)
    },
    Bar::at_least("SMD, F1 of rows", ["smd", "", "mahalanobis"], |row| row.f1, 0.55).goal(0.62),
    Bar::at_least(
        "SMD, F1 of rows, oracle threshold, as the published figures have it",
        ["smd", "", "mahalanobis"],
        |row| extra(row, "oracle_threshold_f1"),
        0.55,
    )
    .goal(0.62),
    Bar::at_least("TraceAnomaly, F1", ["traceanomaly", "quantile 0.995", "trace-vector"], |row| row.f1, 0.975)
        .goal(0.985),
    Bar::at_least("TraceAnomaly, AUPRC", ["traceanomaly", "quantile 0.995", "trace-vector"], |row| row.auprc, 0.998),
    Bar::at_least(
        "Nezha, recall of listed fault minutes",
        ["nezha", "nezha_trainticket", "service-latency|ngram|trace-vector"],
        |row| row.recall,
        0.90,
    )
    .goal(0.97),
    Bar::at_least(
        "Nezha, recall of sure fault minutes",
        ["nezha", "nezha_trainticket", "service-latency|ngram|trace-vector"],
        |row| extra(row, "sure_recall"),
        0.90,
    )
    .goal(0.97),
    Bar {
        is_limit: true,
        kind: Kind::Decimal,
        ..Bar::at_least(
            "Nezha, false alerts an hour, by some 17 minutes",
            ["nezha", "nezha_trainticket", "service-latency|ngram|trace-vector"],
            |row| extra(row, "false_alerts_per_hour"),
            1.0,
        )
    },
];

/// The page before its tables.
pub fn head(rows: &[ResultRow]) -> String {
    TEMPLATE.replace("{{bars}}\n", &bars(rows)).replace("{{defaults}}\n", &defaults())
}

/// Where thresholds come from: each rule with the detectors that it holds for. Empty where rows do not say.
pub fn rules(groups: &[Group<'_>]) -> String {
    let mut rules: Vec<(&str, Vec<&str>)> = Vec::new();
    for group in groups {
        let rule = group.rows.iter().find_map(|row| row.extra.get("rule").and_then(serde_json::Value::as_str));
        let Some(rule) = rule else { continue };
        match rules.iter_mut().find(|(known, _)| *known == rule) {
            Some((_, detectors)) if detectors.contains(&group.detector) => {}
            Some((_, detectors)) => detectors.push(group.detector),
            None => rules.push((rule, vec![group.detector])),
        }
    }
    if rules.is_empty() {
        return String::new();
    }
    let lines = rules.iter().map(|(rule, detectors)| format!("- {rule}: {}\n", detectors.join(", ")));
    format!("\nThresholds:\n{}", lines.collect::<String>())
}

/// The mean over rows of the same detector, dataset and protocol.
fn figure(
    rows: &[ResultRow],
    [protocol, dataset, detector]: [&str; 3],
    value: fn(&ResultRow) -> Option<f64>,
) -> Option<f64> {
    let is_own =
        |row: &&ResultRow| row.protocol == protocol && row.dataset.ends_with(dataset) && row.detector == detector;
    mean(&rows.iter().filter(is_own).filter_map(value).collect::<Vec<f64>>())
}

/// The table of bars, as far as there are rows; empty without any.
fn bars(rows: &[ResultRow]) -> String {
    let mut lines = Vec::new();
    for bar in BARS {
        let Some(value) = figure(rows, [bar.protocol, bar.dataset, bar.detector], bar.value) else { continue };
        let is_met = |least: f64| if bar.is_limit { value <= least } else { value >= least };
        let verdict = match bar.goal {
            Some(goal) if is_met(goal) => "goal met",
            _ if is_met(bar.bar) => "met",
            _ => "missed",
        };
        let sign = if bar.is_limit { "at most " } else { "" };
        let goal = bar.goal.map_or_else(String::new, |goal| show(goal, bar.kind));
        let (value, least) = (show(value, bar.kind), show(bar.bar, bar.kind));
        let detector = bar.detector.replace('|', "\\|");
        lines.push(format!("| {} | {detector} | {value} | {sign}{least} | {goal} | {verdict} |", bar.what));
    }
    for protocol in ["donut", "aiops"] {
        lines.extend(donut_lines(rows, protocol));
    }
    if lines.is_empty() {
        return String::new();
    }
    let mut text = "## Bars\n\n| what | detector | figure | bar | goal | |\n|---|---|---|---|---|---|\n".to_owned();
    for line in lines {
        let _ = writeln!(text, "{line}");
    }
    text.push('\n');
    text
}

/// Whether Donut beats the cheap baselines on labelled series.
fn donut_lines(rows: &[ResultRow], protocol: &str) -> Vec<String> {
    let kd7 = |row: &ResultRow| extra(row, "labelled_threshold_kd7_f1");
    type Contest = (&'static str, &'static str, fn(&ResultRow) -> Option<f64>);
    let contests: [Contest; 2] =
        [("average precision", "robust-z", |row| row.auprc), ("kd7 F1, labelled threshold", "moving-average", kd7)];
    let line = |(what, other, value): Contest| {
        let of = |detector: &str| figure(rows, [protocol, "", detector], value);
        let (own, bar) = (of("donut")?, of(other)?);
        let verdict = if own > bar { "met" } else { "missed" };
        let (own, bar) = (show(own, Kind::Share), show(bar, Kind::Share));
        Some(format!("| {protocol}, {what} against {other} | donut | {own} | above {bar} |  | {verdict} |"))
    };
    contests.into_iter().filter_map(line).collect()
}

/// A line for each kind of windows.
fn defaults() -> String {
    let mut text = String::new();
    for (signal, name) in SIGNALS {
        let of = |is_default: bool| {
            let own = REGISTRY.iter().filter(|entry| entry.signal == signal && entry.is_default == is_default);
            own.map(|entry| format!("`{}`", entry.name)).collect::<Vec<String>>().join(", ")
        };
        let _ = writeln!(text, "| {name} | {} | {} |", of(true), of(false));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(protocol: &str, dataset: &str, detector: &str, f1: f64) -> ResultRow {
        let mut row = ResultRow::new(protocol, dataset, detector).with_extra("kd7_f1", f1);
        (row.f1, row.auprc) = (Some(f1), Some(f1));
        row
    }

    #[test]
    fn bars_are_held_against_rows_that_there_are() {
        let slow = row("nezha", "nezha_trainticket", "service-latency|ngram|trace-vector", 0.0)
            .with_extra("false_alerts_per_hour", 3.5);
        let rows = [row("aiops", "aiops2018_kpi", "profile-forecast", 0.81), slow];
        let text = bars(&rows);
        assert!(text.contains("| AIOps, kd7 F1 | profile-forecast | .810 | .800 | .880 | met |"), "{text}");
        assert!(text.contains("| AIOps, F1 of points | profile-forecast | .810 | .420 | .500 | goal met |"), "{text}");
        assert!(text.contains("service-latency\\|ngram\\|trace-vector | 3.5 | at most 1.0 |  | missed |"), "{text}");
        assert!(!text.contains("NAB") && !text.contains("donut"), "{text}");
        assert_eq!(bars(&[]), "");
    }

    #[test]
    fn rules_are_told_once_with_their_detectors() {
        let of = |detector: &str, rule: &str| row("aiops", "d", detector, 0.5).with_extra("rule", rule);
        let rows = [of("donut", "p"), of("robust-z", "p"), of("mahalanobis", "own"), row("aiops", "d", "birch", 0.5)];
        let groups: Vec<Group<'_>> = rows
            .iter()
            .map(|row| Group { dataset: row.dataset.as_str(), detector: row.detector.as_str(), rows: vec![row] })
            .collect();
        assert_eq!(rules(&groups), "\nThresholds:\n- p: donut, robust-z\n- own: mahalanobis\n");
        assert_eq!(rules(&groups[3..]), "");
    }

    #[test]
    fn donut_is_held_against_the_cheap_ones() {
        let rows = [row("donut", "d", "donut", 0.2), row("donut", "d", "robust-z", 0.3)];
        let text = bars(&rows);
        assert!(
            text.contains("| donut, average precision against robust-z | donut | .200 | above .300 |  | missed |"),
            "{text}"
        );
        assert!(!text.contains("moving-average"), "of that there is no row:\n{text}");
    }

    #[test]
    fn every_detector_of_these_signals_is_named_and_no_mark_is_left() {
        let text = head(&[]);
        assert!(!text.contains("{{") && text.starts_with("# Results on metrics and traces\n"), "{text}");
        let of_page = |signal: Signal| SIGNALS.iter().any(|(own, _)| *own == signal);
        for entry in REGISTRY.iter().filter(|entry| of_page(entry.signal)) {
            assert!(text.contains(&format!("`{}`", entry.name)), "{}", entry.name);
        }
    }
}
