//! `faultline replay`: files go down the same path as live telemetry, and the same file gives the same alerts.

use std::{
    fmt::Write as _,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use crate::{data, skipped};

fn replay(args: &[&str], file: &Path) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_faultline"))
        .arg("replay")
        .arg(file)
        .args(args)
        .output()
        .expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn json_lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect()
}

/// A log in the layout of HDFS: `n` blocks written one after the other, block `odd` with a line that others lack.
fn hdfs_like(n: u64, odd: u64) -> (String, String) {
    let (mut log, mut labels) = (String::new(), String::from("BlockId,Label\n"));
    for block in 0..n {
        let (minute, second) = (block / 60 % 60, block % 60);
        let time = format!("081109 {:02}{minute:02}{second:02}", 10 + block / 3600);
        let replica = |step: u64| format!("10.250.{}.{}", (block + step) % 20, (block * 7 + step) % 250);
        for step in 0..3 {
            let (from, to) = (replica(step), replica(step + 1));
            writeln!(log, "{time} {} INFO dfs.DataNode$DataXceiver: Receiving block blk_{block}00{block} src: /{from}:50010 dest: /{to}:50010", 140 + step).expect("to a string");
        }
        if block == odd {
            writeln!(log, "{time} 9 WARN dfs.DataNode$DataXceiver: Got exception while serving blk_{block}00{block} to /10.0.0.1: connection reset by peer").expect("to a string");
        } else {
            writeln!(log, "{time} 9 INFO dfs.DataNode$PacketResponder: PacketResponder 1 for block blk_{block}00{block} terminating").expect("to a string");
        }
        writeln!(labels, "blk_{block}00{block},{}", if block == odd { "Anomaly" } else { "Normal" })
            .expect("to a string");
    }
    (log, labels)
}

#[test]
fn a_replay_finds_the_odd_block_judges_itself_and_repeats_to_the_byte() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (log, labels) = hdfs_like(400, 300);
    let (log_path, labels_path) = (dir.path().join("hdfs.log"), dir.path().join("labels.csv"));
    std::fs::write(&log_path, &log).expect("writable");
    std::fs::write(&labels_path, labels).expect("writable");
    let labels_arg = labels_path.to_str().expect("UTF-8");
    let args = ["--preset", "hdfs", "--labels", labels_arg, "--train", "0.5", "--json"];

    let first = replay(&args, &log_path);
    let lines = json_lines(&first);
    let (totals, alerts) = lines.split_last().expect("a line with totals");
    assert!(alerts.iter().any(|alert| alert["session"] == "blk_30000300"), "{alerts:?}");
    assert_eq!(totals["n_lines"], 1600);
    assert_eq!(totals["detectors"]["new-template"]["recall"], 1.0, "{totals}");

    let mut compressed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut compressed, log.as_bytes()).expect("to memory");
    std::fs::create_dir(dir.path().join("gz")).expect("writable");
    let gz_path = dir.path().join("gz/hdfs.log.gz");
    std::fs::write(&gz_path, compressed.finish().expect("to memory")).expect("writable");
    let again = json_lines(&replay(&args, &gz_path));
    assert_eq!(alerts, &again[..again.len() - 1], "the same lines, compressed, give the same alerts byte for byte");
}

#[test]
fn broken_lines_become_templates_and_nothing_is_lost() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (mut log, _) = hdfs_like(50, 99);
    log.push_str("not an HDFS line at all\n\u{0}\u{1}binary\u{7f}\n\nlast line without an end");
    let path = dir.path().join("hdfs.log");
    std::fs::write(&path, &log).expect("writable");
    let data_dir = dir.path().join("data");
    let lines =
        json_lines(&replay(&["--preset", "hdfs", "--json", "--data-dir", data_dir.to_str().expect("UTF-8")], &path));
    let n_lines = log.lines().count();
    assert_eq!(lines.last().expect("totals")["n_lines"], n_lines);

    let query = |sql: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_faultline"))
            .args(["query", "--format", "json", sql, "--data-dir"])
            .arg(&data_dir)
            .output()
            .expect("the binary runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        answer["rows"].clone()
    };
    assert_eq!(query("SELECT count(*) FROM logs")[0][0], n_lines);
    assert_eq!(query("SELECT sum(count) FROM templates")[0][0], n_lines, "counts sum to the lines");
    assert_eq!(query("SELECT count(*) FROM templates WHERE text LIKE 'not an HDFS line%'")[0][0], 1);
    let raw = query("SELECT coalesce(header, '') || body FROM logs ORDER BY record_id LIMIT 1");
    assert_eq!(raw[0][0], log.lines().next().expect("a line"), "the raw line is header and body");
}

#[test]
fn hdfs_two_percent_from_bytes_to_alerts() {
    const NAME: &str = "hdfs_two_percent_from_bytes_to_alerts";
    let Some(archive) = data::archive("hdfs") else { return skipped(NAME, "hdfs.tar.zst (FAULTLINE_DATA)") };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = data::extract(&archive, "loglead_2pct_raw/hdfs_2pct.log", dir.path());
    let labels = data::extract(&archive, "loglead_2pct_raw/hdfs_2pct_labels.csv", dir.path());
    let labels = labels.to_str().expect("UTF-8");
    let lines = json_lines(&replay(&["--preset", "hdfs", "--labels", labels, "--train", "0.3", "--json"], &log));
    let totals = lines.last().expect("totals");
    assert_eq!(totals["n_lines"], 222_579);
    let f1 = |detector: &str| totals["detectors"][detector]["f1"].as_f64().unwrap_or(0.0);
    assert!(f1("deeplog").max(f1("logsed")) >= 0.85, "{totals}");
}

#[test]
fn bgl_fragments_give_templates_and_alerts_with_their_lines() {
    const NAME: &str = "bgl_fragments_give_templates_and_alerts_with_their_lines";
    let Some(archive) = data::archive("bgl") else { return skipped(NAME, "bgl.tar.zst (FAULTLINE_DATA)") };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = data::extract(&archive, "raw_fragments/BGL_first10000.log", dir.path());
    let output = replay(&["--preset", "bgl", "--train", "0.3"], &log);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("10000 lines"), "{text}");
    assert!(text.contains("RAS KERNEL"), "the raw lines behind the alerts:\n{text}");
}
