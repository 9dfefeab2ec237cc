//! A made-up application of two services and two faults: one that takes time, one that changes what is written.

use std::{fmt::Write as _, fs, path::Path};

use faultline_datasets::protocol;

use super::{super::points::tests::args, *};

/// 2023-01-29 08:40:00, the first of three minutes without a fault.
const BEGIN: i64 = 1_674_981_600;

/// `b` is slow from 08:54:00 on, and writes another line from 09:00:00 on, for 200 s each.
const SLOW: i64 = BEGIN + 14 * 60;
const ODD: i64 = BEGIN + 20 * 60;

fn is_within(second: i64, fault: i64) -> bool {
    (fault..fault + 200).contains(&second)
}

/// A trace a second, of `a` that calls `b`, which writes three lines.
fn write(root: &Path, folder: &str, minute: i64, seconds: std::ops::Range<i64>) {
    let (mut spans, mut logs) = (
        "TraceID,SpanID,ParentID,PodName,OperationName,StartTimeUnixNano,EndTimeUnixNano,Duration\n".to_owned(),
        "Timestamp,TimeUnixNano,Node,PodName,Container,TraceID,SpanID,Log\n".to_owned(),
    );
    for second in seconds {
        let start = second * 1_000_000_000;
        let ms = if is_within(second, SLOW) { 300 } else { 10 };
        let (inner, outer) = (start + ms * 1_000_000, start + ms * 1_000_000 + 2_000_000);
        let _ = writeln!(spans, "{second:032x},{second:08x}00000001,root,a,GET /,{start},{outer},0");
        let _ = writeln!(
            spans,
            "{second:032x},{second:08x}00000002,{second:08x}00000001,b,GET /b,{},{inner},0",
            start + 1_000_000
        );
        let lines = if is_within(second, ODD) { [1, 9, 3] } else { [1, 2, 3] };
        for (idx, line) in (2_i64..).zip(lines) {
            let body = format!(r#"{{""log"":""16:43:25.207 INFO  b.B#{line} TraceID: t SpanID: s [x]\n""}}"#);
            let time = start + idx * 1_000_000;
            let _ = writeln!(logs, "x,{time},n,b,server,{second:032x},{second:08x}00000002,\"{body}\"");
        }
    }
    let name = format!("{:02}_{:02}", 8 + (40 + minute) / 60, (40 + minute) % 60);
    for (kind, text) in [("trace", spans), ("log", logs)] {
        let path = root.join(folder).join("2023-01-29").join(kind);
        fs::create_dir_all(&path).expect("made");
        fs::write(path.join(format!("{name}_{kind}.csv")), text).expect("written");
    }
}

fn rows(detectors: &[&str]) -> Vec<ResultRow> {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    write(root, "construct_data", 0, BEGIN..BEGIN + 180);
    for minute in 4..28 {
        write(root, "rca_data", minute, BEGIN + 60 * minute..BEGIN + 60 * (minute + 1));
    }
    let faults = r#"{"08": [{"inject_time": "2023-01-29 08:54:00", "inject_pod": "b", "inject_type": "network_delay"}],
        "09": [{"inject_time": "2023-01-29 09:00:00", "inject_pod": "b", "inject_type": "return"}]}"#;
    fs::write(root.join("rca_data/2023-01-29/2023-01-29-fault_list.json"), faults).expect("written");
    let data = root.to_string_lossy().into_owned();
    let mut line = vec!["nezha", "--seeds", "1", "--data", data.as_str()];
    detectors.iter().for_each(|detector| line.extend(["--detector", *detector]));
    let mut rows = Vec::new();
    nezha(&args(&line), protocol("nezha").expect("listed"), &mut |row| rows.push(row)).expect("it runs");
    rows
}

#[test]
fn each_detector_finds_the_fault_that_it_can_see_and_both_find_all() {
    let all = rows(&[]);
    let by_constant = |detector: &str| {
        let own = |row: &&ResultRow| row.detector == detector && row.dataset == "nezha_trainticket";
        all.iter().find(own).unwrap_or_else(|| panic!("no row of {detector}"))
    };
    let number = |row: &ResultRow, name: &str| row.extra[name].as_f64().unwrap_or_else(|| panic!("{name}: {row:?}"));
    for (detector, kind, recall) in [
        ("service-latency", "network_delay", 0.5),
        ("trace-vector", "network_delay", 0.5),
        ("p95-duration", "network_delay", 0.5),
        ("ngram", "return", 0.5),
        ("ngram, as studied", "return", 0.5),
        ("service-latency|ngram", "return", 1.0),
    ] {
        let row = by_constant(detector);
        assert_eq!((row.n, row.recall, row.precision), (18, Some(recall), Some(1.0)), "{row:?}");
        assert_eq!(row.extra["by_kind"][kind]["n_minutes_found"], json!(3), "{row:?}");
        assert_eq!((number(row, "n_faults"), number(row, "n_faults_found")), (2.0, 2.0 * recall));
        assert_eq!((number(row, "n_normal"), number(row, "n_false_alerts")), (12.0, 0.0));
        assert_eq!(number(row, "sure_recall"), recall, "{row:?}");
    }
    assert_eq!(by_constant("ngram").extra["missed"], json!(["day 1 08:54", "day 1 08:55", "day 1 08:56"]));
    let everything = by_constant("flag-all");
    assert_eq!((everything.recall, number(everything, "false_alerts_per_hour")), (Some(1.0), 5.0), "one in 12 minutes");
    let n_watched = all.iter().filter(|row| row.dataset.ends_with("alerts of a monitor")).count();
    assert_eq!(n_watched, 5, "three detectors and two unions");
}

#[test]
fn only_what_is_asked_for_is_told() {
    let names: Vec<String> = rows(&["ngram"]).into_iter().map(|row| row.detector).collect();
    assert_eq!(names, ["ngram", "ngram"], "by a constant, and as alerts");
}
