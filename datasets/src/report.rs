//! Result rows: one JSON object a line for machines, one aligned table for people, published figures beside our own.
//!
//! The field names and their order are those of `faultline eval --json` and are relied on by scripts. A metric without
//! a meaning is null in JSON and a dash in the table.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    metrics::{Confusion, ParsingAccuracy},
    protocol::Published,
};

/// What one detector (or parser) reached under one protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResultRow {
    /// Protocol, as in `PROTOCOLS`.
    pub protocol: String,
    /// Dataset, as in the catalogue, or the part of it the row is about.
    pub dataset: String,
    /// Detector as in `REGISTRY`, `default`, `ensemble`, or a baseline's own name.
    pub detector: String,
    /// Seed it ran with; null when nothing random is in it.
    pub seed: Option<u64>,
    /// Sessions, windows, lines or cases judged.
    pub n: u64,
    /// Precision.
    pub precision: Option<f64>,
    /// Recall.
    pub recall: Option<f64>,
    /// F1.
    pub f1: Option<f64>,
    /// Average precision of the scores.
    pub auprc: Option<f64>,
    /// Only in rows about parsing: `ga`, `fga`, `pa`, `fta`.
    #[serde(flatten)]
    pub parsing: Option<ParsingFigures>,
    /// Only in rows about root causes: `ac_at_1` and so on.
    #[serde(flatten)]
    pub root_cause: Option<RootCauseFigures>,
    /// What a protocol names besides.
    pub extra: Map<String, Value>,
    /// Records through the whole measured path a second of wall time.
    pub records_per_second: Option<f64>,
    /// CPU seconds of the process, fit and test together.
    pub cpu_seconds: Option<f64>,
    /// Peak resident memory of the process.
    pub peak_rss_bytes: Option<u64>,
}

/// Parsing accuracy under the names scripts rely on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParsingFigures {
    /// Grouping accuracy.
    pub ga: f64,
    /// F1 of grouping accuracy over groups.
    pub fga: f64,
    /// Parsing accuracy.
    pub pa: f64,
    /// F1 over templates.
    pub fta: f64,
}

/// Root-cause accuracy under the names scripts rely on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RootCauseFigures {
    /// Share of cases whose culprit is ranked first.
    pub ac_at_1: f64,
    /// Within the first three.
    pub ac_at_3: f64,
    /// Within the first five.
    pub ac_at_5: f64,
    /// Mean of AC@1 to AC@5.
    pub avg_at_5: f64,
}

impl From<ParsingAccuracy> for ParsingFigures {
    fn from(accuracy: ParsingAccuracy) -> Self {
        Self { ga: accuracy.ga, fga: accuracy.fga, pa: accuracy.pa, fta: accuracy.fta }
    }
}

impl ResultRow {
    /// A row without figures.
    #[must_use]
    pub fn new(protocol: &str, dataset: &str, detector: &str) -> Self {
        Self {
            protocol: protocol.to_owned(),
            dataset: dataset.to_owned(),
            detector: detector.to_owned(),
            seed: None,
            n: 0,
            precision: None,
            recall: None,
            f1: None,
            auprc: None,
            parsing: None,
            root_cause: None,
            extra: Map::new(),
            records_per_second: None,
            cpu_seconds: None,
            peak_rss_bytes: None,
        }
    }

    /// Takes `n`, precision, recall and F1 from the counts, and keeps the counts themselves in `extra`.
    #[must_use]
    pub fn with_confusion(mut self, counts: &Confusion) -> Self {
        self.n = counts.n();
        self.precision = counts.precision();
        self.recall = counts.recall();
        self.f1 = counts.f1();
        for (name, count) in [
            ("tp", counts.true_positives),
            ("fp", counts.false_positives),
            ("fn", counts.false_negatives),
            ("tn", counts.true_negatives),
        ] {
            self.extra.insert(name.to_owned(), count.into());
        }
        self
    }

    /// Adds a figure to `extra`; a missing or non-finite number is null there.
    #[must_use]
    pub fn with_extra(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(name.to_owned(), value.into());
        self
    }

    /// The row as one line of JSON, without the line's end.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a row has string keys only")
    }

    fn extra_number(&self, name: &str) -> Option<f64> {
        self.extra.get(name).and_then(Value::as_f64)
    }
}

/// The rows as a table for people, `published` figures of the protocol below them. Columns that no row fills are left
/// out. Ends in a line's end.
#[must_use]
pub fn table(rows: &[ResultRow], published: &[Published]) -> String {
    let mut columns: Vec<Column<'_>> = vec![
        Column::new("detector", |row| row.detector.clone()),
        Column::new("dataset", |row| row.dataset.clone()),
        Column::new("seed", |row| row.seed.map_or_else(dash, |seed| seed.to_string())),
        Column::new("n", |row| row.n.to_string()),
        Column::new("precision", |row| share(row.precision)),
        Column::new("recall", |row| share(row.recall)),
        Column::new("F1", |row| share(row.f1)),
        Column::new("AUPRC", |row| share(row.auprc)),
        Column::new("GA", |row| share(row.parsing.map(|parsing| parsing.ga))),
        Column::new("FGA", |row| share(row.parsing.map(|parsing| parsing.fga))),
        Column::new("PA", |row| share(row.parsing.map(|parsing| parsing.pa))),
        Column::new("FTA", |row| share(row.parsing.map(|parsing| parsing.fta))),
        Column::new("AC@1", |row| share(row.root_cause.map(|cause| cause.ac_at_1))),
        Column::new("AC@3", |row| share(row.root_cause.map(|cause| cause.ac_at_3))),
        Column::new("AC@5", |row| share(row.root_cause.map(|cause| cause.ac_at_5))),
        Column::new("Avg@5", |row| share(row.root_cause.map(|cause| cause.avg_at_5))),
        Column::new("kd7 F1", |row| share(row.extra_number("kd7_f1"))),
        Column::new("VUS-PR", |row| share(row.extra_number("vus_pr"))),
        Column::new("one-level F1", |row| share(row.extra_number("shared_level_f1"))),
        Column::new("one-level kd7 F1", |row| share(row.extra_number("shared_level_kd7_f1"))),
        Column::new("labelled F1", |row| share(row.extra_number("labelled_threshold_f1"))),
        Column::new("labelled kd7 F1", |row| share(row.extra_number("labelled_threshold_kd7_f1"))),
        Column::new("oracle F1", |row| share(row.extra_number("oracle_threshold_f1"))),
        Column::new("oracle kd7 F1", |row| share(row.extra_number("oracle_threshold_kd7_f1"))),
        Column::new("NAB", |row| decimal(row.extra_number("nab_standard"), 1)),
        Column::new("NAB low FP", |row| decimal(row.extra_number("nab_low_fp"), 1)),
        Column::new("NAB low FN", |row| decimal(row.extra_number("nab_low_fn"), 1)),
        Column::new("balanced", |row| share(row.extra_number("balanced_accuracy"))),
        Column::new("alerts/day", |row| decimal(row.extra_number("alerts_per_day"), 1)),
        Column::new("false alerts/day", |row| decimal(row.extra_number("false_alerts_per_day"), 1)),
        Column::new("sure recall", |row| share(row.extra_number("sure_recall"))),
        Column::new("faults found", |row| decimal(row.extra_number("n_faults_found"), 0)),
        Column::new("false alerts/h", |row| decimal(row.extra_number("false_alerts_per_hour"), 1)),
        Column::new("records/s", |row| decimal(row.records_per_second, 0)),
        Column::new("CPU s", |row| decimal(row.cpu_seconds, 2)),
        Column::new("peak MiB", |row| decimal(row.peak_rss_bytes.map(|bytes| bytes as f64 / 1_048_576.0), 0)),
    ];
    let mut lines: Vec<Vec<String>> =
        rows.iter().map(|row| columns.iter().map(|column| (column.cell)(row)).collect()).collect();
    for figure in published {
        lines.push(columns.iter().map(|column| published_cell(figure, column.title)).collect());
    }
    let shown: Vec<bool> =
        (0..columns.len()).map(|i| i == 0 || lines.iter().any(|line| !matches!(line[i].as_str(), "-" | ""))).collect();
    let mut keep = shown.iter();
    columns.retain(|_| *keep.next().unwrap_or(&true));
    for line in &mut lines {
        let mut keep = shown.iter();
        line.retain(|_| *keep.next().unwrap_or(&true));
    }
    let titles: Vec<String> = columns.iter().map(|column| column.title.to_owned()).collect();
    let widths: Vec<usize> = (0..columns.len())
        .map(|i| lines.iter().chain([&titles]).map(|line| line[i].chars().count()).max().unwrap_or(0))
        .collect();

    let mut text = String::new();
    put_line(&mut text, &titles, &widths, "");
    put_line(&mut text, &widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>(), &widths, "");
    for (i, line) in lines.iter().enumerate() {
        let note = i.checked_sub(rows.len()).map_or("", |i| published[i].source);
        if i == rows.len() {
            text.push_str("published, not measured here:\n");
        }
        put_line(&mut text, line, &widths, note);
    }
    text
}

struct Column<'a> {
    title: &'static str,
    cell: Box<dyn Fn(&ResultRow) -> String + 'a>,
}

impl<'a> Column<'a> {
    fn new(title: &'static str, cell: impl Fn(&ResultRow) -> String + 'a) -> Self {
        Self { title, cell: Box::new(cell) }
    }
}

fn published_cell(figure: &Published, title: &str) -> String {
    match title {
        "detector" => figure.name.to_owned(),
        "precision" => share(figure.precision),
        "recall" => share(figure.recall),
        "F1" => share(figure.f1),
        "AUPRC" => share(figure.extra_number("auprc")),
        "GA" => share(figure.ga),
        "FGA" => share(figure.fga),
        "PA" => share(figure.pa),
        "FTA" => share(figure.fta),
        "AC@1" => share(figure.extra_number("ac_at_1")),
        "AC@3" => share(figure.extra_number("ac_at_3")),
        "AC@5" => share(figure.extra_number("ac_at_5")),
        "kd7 F1" => share(figure.extra_number("kd7_f1")),
        "VUS-PR" => share(figure.extra_number("vus_pr")),
        "NAB" => decimal(figure.extra_number("nab_standard"), 1),
        "NAB low FP" => decimal(figure.extra_number("nab_low_fp"), 1),
        "NAB low FN" => decimal(figure.extra_number("nab_low_fn"), 1),
        _ => String::new(),
    }
}

fn put_line(text: &mut String, cells: &[String], widths: &[usize], note: &str) {
    let mut line = String::new();
    for (i, (cell, width)) in cells.iter().zip(widths).enumerate() {
        // Names to the left, figures to the right.
        let _ = if i == 0 { write!(line, "{cell:<width$}") } else { write!(line, "  {cell:>width$}") };
    }
    if !note.is_empty() {
        let _ = write!(line, "  {note}");
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

fn dash() -> String {
    "-".to_owned()
}

fn share(value: Option<f64>) -> String {
    decimal(value, 4)
}

fn decimal(value: Option<f64>, digits: usize) -> String {
    value.filter(|value| value.is_finite()).map_or_else(dash, |value| format!("{value:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::PROTOCOLS;

    fn row() -> ResultRow {
        let counts = Confusion { true_positives: 3, false_positives: 1, false_negatives: 0, true_negatives: 6 };
        let mut row = ResultRow::new("hdfs-deeplog", "hdfs", "deeplog").with_confusion(&counts);
        row.seed = Some(1);
        row.records_per_second = Some(1e6);
        row
    }

    #[test]
    fn a_row_has_the_promised_fields_in_the_promised_order() {
        let json = row().with_extra("n_alerts", 4).with_extra("odd", f64::NAN).to_json();
        let (before, rest) = json.split_once("\"extra\":").expect("extra");
        assert_eq!(
            before,
            "{\"protocol\":\"hdfs-deeplog\",\"dataset\":\"hdfs\",\"detector\":\"deeplog\",\"seed\":1,\"n\":10,\
             \"precision\":0.75,\"recall\":1.0,\"f1\":0.8571428571428571,\"auprc\":null,"
        );
        let (extra, after) = rest.split_once("},").expect("more fields");
        let extra: Value = serde_json::from_str(&format!("{extra}}}")).expect("an object");
        assert_eq!(extra, serde_json::json!({"tp": 3, "fp": 1, "fn": 0, "tn": 6, "n_alerts": 4, "odd": null}));
        assert_eq!(after, "\"records_per_second\":1000000.0,\"cpu_seconds\":null,\"peak_rss_bytes\":null}");
    }

    #[test]
    fn parsing_rows_carry_their_four_figures_and_read_back() {
        let mut row = ResultRow::new("loghub-2k", "HDFS", "drain");
        row.parsing = Some(ParsingFigures { ga: 1.0, fga: 0.5, pa: 0.25, fta: 0.0 });
        let json = row.to_json();
        assert!(json.contains("\"auprc\":null,\"ga\":1.0,\"fga\":0.5,\"pa\":0.25,\"fta\":0.0,\"extra\":{}"), "{json}");
        assert_eq!(serde_json::from_str::<ResultRow>(&json).expect("a row"), row);
    }

    #[test]
    fn published_figures_of_other_kinds_have_their_columns() {
        let published = |name: &str| PROTOCOLS.iter().find(|p| p.name == name).expect("known").published;
        let mut row = ResultRow::new("nab", "nab", "mine").with_extra("nab_standard", 71.25);
        row.n = 58;
        let text = table(&[row], published("nab"));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with("NAB  NAB low FP  NAB low FN"), "{text}");
        assert!(lines.iter().any(|line| line.starts_with("ARTime ") && line.contains("74.9")), "{text}");
        let text = table(&[ResultRow::new("nezha-tt", "nezha_trainticket", "mine")], published("nezha-tt"));
        assert!(text.contains("AC@5") && text.contains("0.8670") && !text.contains("NAB"), "{text}");
    }

    #[test]
    fn the_table_lines_up_drops_empty_columns_and_names_sources() {
        let published = PROTOCOLS.iter().find(|p| p.name == "hdfs-deeplog").expect("known").published;
        let text = table(&[row()], published);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("detector"), "{text}");
        assert!(!text.contains("AC@1") && !text.contains("AUPRC"), "{text}");
        assert_eq!(lines[0].find("F1").map(|at| at + 2), lines[2].find("0.8571").map(|at| at + 6), "{text}");
        assert!(text.contains("Du et al. 2017"), "{text}");
    }
}
