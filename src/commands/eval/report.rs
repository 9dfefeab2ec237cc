//! `faultline eval --render`: rows that `--json` has written, as the Markdown of the pages of results under docs.
//!
//! A section a protocol in the order of `--list`, a line a detector on a dataset. Rows of one detector that differ by seed
//! are one line: the mean, with the least and the largest in brackets where they differ; a seed without a value, such as the
//! precision of a detector that flagged nothing, is left out of it. Columns that nothing fills are left out. Below each
//! table stand the detectors that lose to a trivial baseline, so that nobody has to look for them, and the remarks
//! of the protocol, and before them, on a page without logs, where thresholds come from. Such a page begins with the text of `page`. The same files in the same order give the same text. Fails on a line that is no result row, and on a
//! second row for the same run.

mod page;

use std::{collections::BTreeSet, fmt::Write as _, path::PathBuf};

use faultline_datasets::{
    DatasetError, PROTOCOLS, ProtocolInfo, Published, ResultRow,
    lines::{self, Flow},
    protocol,
};

/// Protocols that are not about logs.
const NOT_LOGS: &[&str] =
    &["aiops", "wsd", "nab", "smd", "asd", "donut", "traceanomaly", "nezha", "nezha-supervised", "nezha-ob-supervised"];

const INTRODUCTION: &str = "\
What `faultline eval` gives on public data, beside trivial baselines and published figures. Every row can be had again with the command
above it, and this page with `faultline eval --render` from what `--json` prints. Splits are in time order where the data has one, thresholds are
fixed before the test part is read, and no label reaches a detector. A figure over several seeds is `mean (least to largest)`. Where a choice
was made with sight of the data it is judged on, it says so.
";

/// Detectors that a model has to beat to be worth its cost.
const BASELINES: &[&str] = &[
    "new-template",
    "new-template, learning",
    "length",
    "ngram",
    "count-vector",
    "flag-all",
    "robust-z",
    "moving-average",
    "robust-z over metrics",
    "moving-average over metrics",
    "random",
    "mean-z",
    "pca-residual",
    "unseen-path",
    "max-z",
    "p95-duration",
];

/// How a figure is written.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Between 0 and 1, three decimals.
    Share,
    /// Whole numbers.
    Count,
    /// A score or a rate, one decimal.
    Decimal,
    /// Whole numbers of which the spread tells nothing about a detector.
    Speed,
}

struct Column {
    title: &'static str,
    kind: Kind,
    value: fn(&ResultRow) -> Option<f64>,
    published: fn(&Published) -> Option<f64>,
}

impl Column {
    /// A column that published figures do not have.
    const fn own(title: &'static str, kind: Kind, value: fn(&ResultRow) -> Option<f64>) -> Self {
        Self { title, kind, value, published: |_| None }
    }
}

/// Every column there may be.
const COLUMNS: &[Column] = &[
    Column { title: "precision", kind: Kind::Share, value: |row| row.precision, published: |figure| figure.precision },
    Column { title: "recall", kind: Kind::Share, value: |row| row.recall, published: |figure| figure.recall },
    Column { title: "F1", kind: Kind::Share, value: |row| row.f1, published: |figure| figure.f1 },
    Column { title: "AUPRC", kind: Kind::Share, value: |row| row.auprc, published: |it| it.extra_number("auprc") },
    Column::own("F1, one level", Kind::Share, |row| extra(row, "shared_level_f1")),
    Column::own("F1, labelled threshold", Kind::Share, |row| extra(row, "labelled_threshold_f1")),
    Column::own("F1, oracle threshold", Kind::Share, |row| extra(row, "oracle_threshold_f1")),
    Column {
        title: "kd7 F1",
        kind: Kind::Share,
        value: |row| extra(row, "kd7_f1"),
        published: |it| it.extra_number("kd7_f1"),
    },
    Column::own("kd7 F1, pooled", Kind::Share, |row| extra(row, "pooled_kd7_f1")),
    Column::own("kd7 F1, one level", Kind::Share, |row| extra(row, "shared_level_kd7_f1")),
    Column::own("kd7 F1, labelled threshold", Kind::Share, |row| extra(row, "labelled_threshold_kd7_f1")),
    Column::own("kd7 F1, oracle threshold", Kind::Share, |row| extra(row, "oracle_threshold_kd7_f1")),
    Column {
        title: "VUS-PR",
        kind: Kind::Share,
        value: |row| extra(row, "vus_pr"),
        published: |it| it.extra_number("vus_pr"),
    },
    Column {
        title: "NAB",
        kind: Kind::Decimal,
        value: |row| extra(row, "nab_standard"),
        published: |it| it.extra_number("nab_standard"),
    },
    Column {
        title: "NAB, low FP",
        kind: Kind::Decimal,
        value: |row| extra(row, "nab_low_fp"),
        published: |it| it.extra_number("nab_low_fp"),
    },
    Column {
        title: "NAB, low FN",
        kind: Kind::Decimal,
        value: |row| extra(row, "nab_low_fn"),
        published: |it| it.extra_number("nab_low_fn"),
    },
    Column::own("windows", Kind::Count, |row| extra(row, "n_windows")),
    Column::own("windows found", Kind::Count, |row| extra(row, "n_windows_found")),
    Column::own("rows flagged outside", Kind::Count, |row| extra(row, "n_false")),
    Column { title: "GA", kind: Kind::Share, value: |row| Some(row.parsing?.ga), published: |figure| figure.ga },
    Column { title: "FGA", kind: Kind::Share, value: |row| Some(row.parsing?.fga), published: |figure| figure.fga },
    Column { title: "PA", kind: Kind::Share, value: |row| Some(row.parsing?.pa), published: |figure| figure.pa },
    Column { title: "FTA", kind: Kind::Share, value: |row| Some(row.parsing?.fta), published: |figure| figure.fta },
    Column::own("balanced accuracy", Kind::Share, |row| extra(row, "balanced_accuracy")),
    Column::own("recall, whole collection", Kind::Share, |row| extra(row, "recall_collection")),
    Column::own("alerts", Kind::Count, |row| extra(row, "n_alerts")),
    Column::own("on alert lines", Kind::Count, |row| extra(row, "n_true_alerts")),
    Column::own("bursts", Kind::Count, |row| extra(row, "n_bursts")),
    Column::own("bursts hit", Kind::Count, |row| extra(row, "n_bursts_hit")),
    Column::own("bursts covered", Kind::Count, |row| extra(row, "n_bursts_covered")),
    Column::own("incidents", Kind::Count, |row| extra(row, "n_incidents")),
    Column::own("alerts a day", Kind::Decimal, |row| extra(row, "alerts_per_day")),
    Column::own("false alerts a day", Kind::Decimal, |row| extra(row, "false_alerts_per_day")),
    Column::own("recall, sure minutes", Kind::Share, |row| extra(row, "sure_recall")),
    Column::own("faults", Kind::Count, |row| extra(row, "n_faults")),
    Column::own("faults found", Kind::Count, |row| extra(row, "n_faults_found")),
    Column::own("normal minutes", Kind::Count, |row| extra(row, "n_normal")),
    Column::own("false alerts an hour", Kind::Decimal, |row| extra(row, "false_alerts_per_hour")),
    Column::own("runs", Kind::Count, |row| extra(row, "n_runs")),
    Column::own("runs found", Kind::Count, |row| extra(row, "n_runs_found")),
    Column::own("records/s", Kind::Speed, |row| row.records_per_second),
];

fn extra(row: &ResultRow, name: &str) -> Option<f64> {
    row.extra.get(name).and_then(serde_json::Value::as_f64)
}

/// The rows of `files` as Markdown.
///
/// # Errors
/// When a file cannot be read, or one of its lines is no result row or a second one of the same run; the error names file
/// and line.
pub fn render(files: &[PathBuf]) -> Result<String, DatasetError> {
    let rows = read(files)?;
    let is_of_logs = |row: &ResultRow| !NOT_LOGS.contains(&row.protocol.as_str());
    let mut text = match (rows.iter().any(is_of_logs), rows.iter().all(is_of_logs)) {
        (_, true) => format!("# Results on logs\n\n{INTRODUCTION}"),
        (true, false) => format!("# Results\n\n{INTRODUCTION}"),
        (false, false) => page::head(&rows),
    };
    for info in PROTOCOLS {
        let own: Vec<&ResultRow> = rows.iter().filter(|row| row.protocol == info.name).collect();
        if !own.is_empty() {
            section(&mut text, info, &own);
        }
    }
    Ok(text)
}

fn read(files: &[PathBuf]) -> Result<Vec<ResultRow>, DatasetError> {
    let mut rows: Vec<ResultRow> = Vec::new();
    let mut runs = BTreeSet::new();
    for path in files {
        lines::for_each(path, |number, line| {
            let refused = |reason: String| DatasetError::Record { path: path.clone(), line: number, reason };
            if line.trim_ascii().is_empty() {
                return Ok(Flow::On);
            }
            let row: ResultRow =
                serde_json::from_slice(line).map_err(|error| refused(format!("no result row: {error}")))?;
            if protocol(&row.protocol).is_none() {
                return Err(refused(format!("no protocol `{}`", row.protocol)));
            }
            if !runs.insert((row.protocol.clone(), row.dataset.clone(), row.detector.clone(), row.seed)) {
                let run = format!("{} on `{}` under {}", row.detector, row.dataset, row.protocol);
                return Err(refused(format!("a second row of {run} with the same seed")));
            }
            rows.push(row);
            Ok(Flow::On)
        })?;
    }
    Ok(rows)
}

/// The rows of one detector on one dataset: one, or one a seed.
struct Group<'r> {
    dataset: &'r str,
    detector: &'r str,
    rows: Vec<&'r ResultRow>,
}

impl Group<'_> {
    fn values(&self, of: fn(&ResultRow) -> Option<f64>) -> Vec<f64> {
        self.rows.iter().filter_map(|row| of(row)).filter(|value| value.is_finite()).collect()
    }

    fn f1(&self) -> Option<f64> {
        mean(&self.values(|row| row.f1))
    }

    /// A combination of baselines is one.
    fn is_baseline(&self) -> bool {
        self.detector.split('|').all(|part| BASELINES.contains(&part))
    }
}

/// By dataset, then by detector, both in order of their first row.
fn groups<'r>(rows: &[&'r ResultRow]) -> Vec<Group<'r>> {
    let (mut datasets, mut detectors): (Vec<&'r str>, Vec<&'r str>) = (Vec::new(), Vec::new());
    for &row in rows {
        if !datasets.contains(&row.dataset.as_str()) {
            datasets.push(&row.dataset);
        }
        if !detectors.contains(&row.detector.as_str()) {
            detectors.push(&row.detector);
        }
    }
    let mut groups = Vec::new();
    for &dataset in &datasets {
        for &detector in &detectors {
            let is_own = |row: &&'r ResultRow| row.dataset == dataset && row.detector == detector;
            let own: Vec<&'r ResultRow> = rows.iter().copied().filter(is_own).collect();
            if !own.is_empty() {
                groups.push(Group { dataset, detector, rows: own });
            }
        }
    }
    groups
}

fn section(text: &mut String, info: &ProtocolInfo, rows: &[&ResultRow]) {
    let groups = groups(rows);
    let is_filled = |column: &&Column| {
        groups.iter().any(|group| !group.values(column.value).is_empty())
            || info.published.iter().any(|figure| (column.published)(figure).is_some())
    };
    let columns: Vec<&Column> = COLUMNS.iter().filter(is_filled).collect();
    let mut lines: Vec<Vec<String>> = Vec::new();
    let titles = ["dataset", "detector", "seeds", "n"].into_iter().chain(columns.iter().map(|column| column.title));
    lines.push(titles.map(str::to_owned).collect());
    lines.push((0..lines[0].len()).map(|_| "---".to_owned()).collect());
    for group in &groups {
        let seeds: Vec<String> = group.rows.iter().filter_map(|row| row.seed).map(|seed| seed.to_string()).collect();
        let n: Vec<f64> = group.rows.iter().map(|row| row.n as f64).collect();
        let mut line =
            vec![group.dataset.to_owned(), group.detector.to_owned(), seeds.join(", "), cell(&n, Kind::Count)];
        line.extend(columns.iter().map(|column| cell(&group.values(column.value), column.kind)));
        lines.push(line);
    }
    for figure in info.published {
        let name = format!("{} ({})", figure.name, figure.source);
        let mut line = vec!["*published*".to_owned(), name, String::new(), String::new()];
        let value = |column: &&Column| (column.published)(figure).map_or_else(String::new, |it| show(it, column.kind));
        line.extend(columns.iter().map(value));
        lines.push(line);
    }

    let _ = writeln!(text, "\n## {}\n\n`faultline eval {}`: {}.\n", info.name, info.name, info.summary);
    for line in &lines {
        let cells: Vec<String> = line.iter().map(|cell| cell.replace('|', "\\|")).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    if NOT_LOGS.contains(&info.name) {
        text.push_str(&page::rules(&groups));
    }
    let losers = losers(&groups);
    if !losers.is_empty() {
        let _ = writeln!(text, "\n{}", losers.join("\n"));
    }
    if !info.remarks.is_empty() {
        let _ = writeln!(text, "\n{}", info.remarks);
    }
}

/// For each dataset on which a detector has a lower F1 than the best trivial baseline, a line that says so.
fn losers(groups: &[Group<'_>]) -> Vec<String> {
    let mut lines = Vec::new();
    for of_dataset in groups.chunk_by(|one, next| one.dataset == next.dataset) {
        let rated = || of_dataset.iter().filter_map(|group| Some((group, group.f1()?)));
        let best = rated().filter(|(group, _)| group.is_baseline()).max_by(|one, other| one.1.total_cmp(&other.1));
        let Some((best, bar)) = best else { continue };
        let below: Vec<String> = rated()
            .filter(|(group, f1)| !group.is_baseline() && *f1 < bar)
            .map(|(group, f1)| format!("{} ({})", group.detector, show(f1, Kind::Share)))
            .collect();
        if !below.is_empty() {
            let bar = show(bar, Kind::Share);
            lines.push(format!(
                "- {}: an F1 below that of the best trivial baseline ({}, {bar}) have {}.",
                best.dataset,
                best.detector,
                below.join(", ")
            ));
        }
    }
    lines
}

/// One value, or the mean with the least and the largest; a dash without any.
fn cell(values: &[f64], kind: Kind) -> String {
    let Some(mean) = mean(values) else { return "-".to_owned() };
    let mean = show(mean, kind);
    let least = show(values.iter().copied().fold(f64::INFINITY, f64::min), kind);
    let largest = show(values.iter().copied().fold(f64::NEG_INFINITY, f64::max), kind);
    if least == largest || kind == Kind::Speed { mean } else { format!("{mean} ({least} to {largest})") }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn show(value: f64, kind: Kind) -> String {
    if kind == Kind::Share {
        let text = format!("{value:.3}");
        return text.strip_prefix('0').map_or_else(|| text.clone(), str::to_owned);
    }
    if kind == Kind::Decimal {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (idx, digit) in digits.chars().enumerate() {
        if idx > 0 && (digits.len() - idx).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    use faultline_datasets::report::ParsingFigures;

    fn row(protocol: &str, dataset: &str, detector: &str, seed: Option<u64>, f1: f64) -> ResultRow {
        let mut row = ResultRow::new(protocol, dataset, detector);
        row.seed = seed;
        row.n = 1_234;
        row.f1 = Some(f1);
        row
    }

    fn written(dir: &tempfile::TempDir, name: &str, rows: &[ResultRow]) -> PathBuf {
        let path = dir.path().join(name);
        let lines: Vec<String> = rows.iter().map(ResultRow::to_json).collect();
        fs::write(&path, lines.join("\n") + "\n\n").expect("written");
        path
    }

    fn rendered(files: &[&[ResultRow]]) -> String {
        let dir = tempfile::tempdir().expect("a folder");
        let paths: Vec<PathBuf> =
            files.iter().enumerate().map(|(idx, rows)| written(&dir, &format!("{idx}.jsonl"), rows)).collect();
        render(&paths).expect("renders")
    }

    fn lines_with<'t>(text: &'t str, part: &str) -> Vec<&'t str> {
        text.lines().filter(|line| line.contains(part)).collect()
    }

    #[test]
    fn seeds_are_one_line_with_their_spread_even_across_files() {
        let one = row("hdfs-deeplog", "hdfs", "deeplog", Some(1), 0.9);
        let mut two = row("hdfs-deeplog", "hdfs", "deeplog", Some(2), 1.0);
        two.records_per_second = Some(1_450_000.4);
        let text = rendered(&[&[one], &[two]]);
        assert_eq!(
            lines_with(&text, "| deeplog |"),
            ["| hdfs | deeplog | 1, 2 | 1,234 | - | - | .950 (.900 to 1.000) | 1,450,000 |"]
        );
    }

    #[test]
    fn columns_nothing_fills_are_left_out_and_published_figures_are_marked() {
        let text = rendered(&[&[row("hdfs-deeplog", "hdfs", "new-template|length", None, 0.9044)]]);
        let table = lines_with(&text, "| ");
        assert_eq!(table[0], "| dataset | detector | seeds | n | precision | recall | F1 |");
        assert_eq!(table[1], "| --- | --- | --- | --- | --- | --- | --- |");
        assert_eq!(table[2], "| hdfs | new-template\\|length |  | 1,234 | - | - | .904 |");
        assert_eq!(table[3], "| *published* | DeepLog (Du et al. 2017) |  |  | .950 | .960 | .960 |");
        assert!(text.contains("\n## hdfs-deeplog\n\n`faultline eval hdfs-deeplog`: "), "{text}");
        assert!(text.contains("chosen with sight of this split"), "the remarks of the protocol:\n{text}");
    }

    #[test]
    fn protocols_come_in_registry_order_datasets_and_detectors_as_they_appear() {
        let text = rendered(&[&[
            row("hadoop", "containers", "length", None, 0.5),
            row("hadoop", "applications", "length", None, 0.5),
            row("hadoop", "applications", "deeplog", Some(1), 0.5),
            row("hadoop", "containers", "deeplog", Some(1), 0.5),
            row("hdfs-raw", "hdfs", "default", None, 0.5),
        ]]);
        let headings = lines_with(&text, "## ");
        assert_eq!(headings, ["## hdfs-raw", "## hadoop"]);
        let order: Vec<&str> = lines_with(&text, "1,234").iter().map(|line| &line[..line.len().min(24)]).collect();
        assert_eq!(
            order,
            [
                "| hdfs | default |  | 1,",
                "| containers | length | ",
                "| containers | deeplog |",
                "| applications | length ",
                "| applications | deeplog"
            ]
        );
    }

    #[test]
    fn what_loses_to_a_trivial_baseline_is_said() {
        let text = rendered(&[&[
            row("openstack", "openstack", "new-template", None, 0.3),
            row("openstack", "openstack", "new-template|length", None, 0.6),
            row("openstack", "openstack", "deeplog", Some(1), 0.5),
            row("openstack", "openstack", "ensemble", Some(1), 0.6),
        ]]);
        assert_eq!(
            lines_with(&text, "best trivial"),
            [
                "- openstack: an F1 below that of the best trivial baseline (new-template|length, .600) have deeplog (.500)."
            ]
        );
    }

    #[test]
    fn protocols_with_other_metrics_have_their_own_columns() {
        let mut parsing = ResultRow::new("loghub-2k", "HDFS", "drain");
        parsing.parsing = Some(ParsingFigures { ga: 1.0, fga: 0.5, pa: 0.25, fta: 0.0 });
        let alerts =
            ResultRow::new("bgl-lines", "bgl", "default").with_extra("n_alerts", 294).with_extra("n_bursts", 104);
        let text = rendered(&[&[parsing, alerts]]);
        assert_eq!(lines_with(&text, "| dataset |")[0], "| dataset | detector | seeds | n | alerts | bursts |");
        assert_eq!(lines_with(&text, "| bgl |")[0], "| bgl | default |  | 0 | 294 | 104 |");
        assert_eq!(lines_with(&text, "| dataset |")[1], "| dataset | detector | seeds | n | GA | FGA | PA | FTA |");
        assert_eq!(lines_with(&text, "| HDFS |")[0], "| HDFS | drain |  | 0 | 1.000 | .500 | .250 | .000 |");
    }

    #[test]
    fn series_have_figures_of_their_own_beside_published_ones() {
        let kpi = row("wsd", "wsd_slice60", "donut", Some(1), 0.25)
            .with_extra("kd7_f1", 0.5)
            .with_extra("vus_pr", 0.125)
            .with_extra("false_alerts_per_day", 1.26);
        let nab = ResultRow::new("nab", "nab, fixed threshold", "donut").with_extra("nab_standard", 33.33);
        let text = rendered(&[&[kpi, nab]]);
        assert!(text.starts_with("# Results on metrics and traces\n"), "{text}");
        assert_eq!(
            lines_with(&text, "| dataset |")[0],
            "| dataset | detector | seeds | n | F1 | kd7 F1 | VUS-PR | false alerts a day |"
        );
        assert_eq!(lines_with(&text, "| donut |")[0], "| wsd_slice60 | donut | 1 | 1,234 | .250 | .500 | .125 | 1.3 |");
        assert!(
            text.contains(
                "| *published* | Donut (TSB-AD 2024, mean of its own 20 of the KPIs) |  |  |  |  | .061 |  |"
            )
        );
        assert!(text.contains("| nab, fixed threshold | donut |  | 0 | 33.3 | - | - |"), "{text}");
        assert!(
            rendered(&[&[row("hdfs-raw", "hdfs", "default", None, 0.5)]]).starts_with("# Results on logs\n\nWhat ")
        );
    }

    #[test]
    fn a_line_that_is_no_row_is_refused_with_its_place() {
        let dir = tempfile::tempdir().expect("a folder");
        let good = row("hdfs-raw", "hdfs", "default", Some(1), 0.5);
        for (line, expected) in [
            ("{\"protocol\":\"hdfs-raw\"}".to_owned(), "bad.jsonl:2: no result row: missing field"),
            ("hello".to_owned(), "bad.jsonl:2: no result row"),
            (row("hdfs-rwa", "hdfs", "default", None, 0.5).to_json(), "bad.jsonl:2: no protocol `hdfs-rwa`"),
            (good.to_json(), "bad.jsonl:2: a second row of default on `hdfs` under hdfs-raw"),
        ] {
            let path = dir.path().join("bad.jsonl");
            fs::write(&path, format!("{}\n{line}\n", good.to_json())).expect("written");
            let error = render(&[path]).expect_err(&line).to_string();
            assert!(error.contains(expected), "{error} lacks {expected}");
        }
    }
}
