//! Session-level precision, recall and F1 of DeepLog and LogSed on real interleaved HDFS lines.
//!
//! `cargo run --release -p faultline-detectors --example hdfs_2pct [FOLDER]`, where FOLDER (or `$FAULTLINE_DATA/hdfs/loglead_2pct_raw`)
//! holds `hdfs_2pct.log` and `hdfs_2pct_labels.csv`. The first 30 % of the lines are training: the detectors are fitted to
//! the first four fifths of their sessions, the last fifth sets the threshold. Sessions that begin after the first 30 %
//! are the test. Twice: trained on the lines as they are (one session in 22 is an anomaly), and without the
//! sessions that are labelled abnormal, as published figures are. Templates come from a trivial mask, not from the
//! parsers crate.
#![allow(clippy::disallowed_methods, reason = "an example measures its own time")]

use std::{
    collections::{HashMap, HashSet},
    error::Error,
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use faultline_core::{Detector, LogEntry, LogWindow, TemplateId, Window, WindowKey, WindowState};
use faultline_detectors::entry;
use serde_json::json;

/// Sessions silent for this long at the end of training count as closed.
const GAP_NANOS: i64 = 3_600_000_000_000;

struct Session {
    key: WindowKey,
    records: Vec<LogEntry>,
    first_line: usize,
    is_abnormal: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args()
        .nth(1)
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("FAULTLINE_DATA").map(|data| PathBuf::from(data).join("hdfs/loglead_2pct_raw")));
    let folder = folder.ok_or("give the folder of hdfs_2pct.log, or set FAULTLINE_DATA")?;
    let labels = std::fs::read_to_string(folder.join("hdfs_2pct_labels.csv"))?;
    let abnormal: HashSet<&str> = labels.lines().filter_map(|line| line.strip_suffix(",Anomaly")).collect();
    let text = std::fs::read_to_string(folder.join("hdfs_2pct.log"))?;
    let mut sessions: Vec<Session> = Vec::new();
    let mut session_of: HashMap<String, usize> = HashMap::new();
    let n_lines = text.lines().count();
    for (line_idx, line) in text.lines().enumerate() {
        let template = TemplateId::founded("hdfs", &masked(line), 0);
        let mut blocks: Vec<&str> = Vec::new();
        for block in blocks_of(line).filter(|block| !block.is_empty()) {
            if !blocks.contains(&block) {
                blocks.push(block);
            }
        }
        for block in blocks {
            let idx = *session_of.entry(block.to_owned()).or_insert_with(|| {
                sessions.push(Session {
                    key: WindowKey { stream: Arc::from("hdfs"), session: Arc::from(block) },
                    records: Vec::new(),
                    first_line: line_idx,
                    is_abnormal: abnormal.contains(block),
                });
                sessions.len() - 1
            });
            sessions[idx].records.push(LogEntry {
                template,
                time_unix_nano: time_of(line).ok_or_else(|| format!("line {line_idx} has no time"))?,
                record: line_idx as u64 + 1,
                service: 0,
                severity_number: 9,
            });
        }
    }
    let cut = n_lines * 3 / 10;
    let train: Vec<&Session> = sessions.iter().filter(|session| session.first_line < cut).collect();
    let test: Vec<&Session> = sessions.iter().filter(|session| session.first_line >= cut).collect();
    let n_abnormal = |sessions: &[&Session]| sessions.iter().filter(|session| session.is_abnormal).count();
    println!("{n_lines} lines, {} sessions", sessions.len());
    println!("train {} sessions ({} abnormal, unknown to the fit)", train.len(), n_abnormal(&train));
    println!("test {} sessions ({} abnormal)", test.len(), n_abnormal(&test));

    let services = [Arc::from("hdfs")];
    let cut_time =
        train.iter().flat_map(|s| &s.records).filter(|r| r.record <= cut as u64).map(|r| r.time_unix_nano).max();
    let cut_time = cut_time.ok_or("no training line")?;
    let fit_windows: Vec<Window<'_>> = train
        .iter()
        .map(|session| {
            let n = session.records.partition_point(|record| record.record <= cut as u64);
            let records = &session.records[..n];
            let silent = cut_time - records[n - 1].time_unix_nano;
            let state = if silent > GAP_NANOS { WindowState::Closed } else { WindowState::Open };
            Window::Log(LogWindow {
                key: &session.key,
                records,
                fresh: 0,
                n_dropped: 0,
                state,
                is_stream: false,
                services: &services,
            })
        })
        .collect();
    let test_windows: Vec<Window<'_>> = test
        .iter()
        .map(|session| {
            let (records, state) = (&session.records[..], WindowState::Closed);
            Window::Log(LogWindow {
                key: &session.key,
                records,
                fresh: 0,
                n_dropped: 0,
                state,
                is_stream: false,
                services: &services,
            })
        })
        .collect();
    for as_is in [true, false] {
        println!("\n== trained {}", if as_is { "on the lines as they are" } else { "without abnormal sessions" });
        let kept = train.iter().zip(&fit_windows).filter(|(session, _)| as_is || !session.is_abnormal);
        let windows: Vec<Window<'_>> = kept.map(|(_, window)| *window).collect();
        let (fit, calibrate) = windows.split_at(windows.len() * 4 / 5);
        for name in ["logsed", "deeplog"] {
            let entry = entry(name)?;
            let started = Instant::now();
            let mut detector = entry.fit(&json!({}), fit, 1)?;
            let fitted = started.elapsed().as_secs_f64();
            let started = Instant::now();
            let mut held_out = values(&mut *detector, calibrate);
            let scores = values(&mut *detector, &test_windows);
            println!("{name}: fitted in {fitted:.1} s, scored in {:.2} s", started.elapsed().as_secs_f64());
            held_out.sort_by(f64::total_cmp);
            for alpha in [0.1, 0.05, 0.02, 0.01, 0.005] {
                let n_above = (alpha * (held_out.len() + 1) as f64) as usize;
                report(&format!("alpha {alpha}"), held_out[held_out.len() - 1 - n_above], &test, &scores);
            }
            if let Some(threshold) = entry.published_threshold {
                report("published", threshold, &test, &scores);
            }
            let f1 = |threshold: f64| precision_recall_f1(threshold, &test, &scores).2;
            let best = scores.iter().copied().max_by(|a, b| f1(*a).total_cmp(&f1(*b))).unwrap_or(0.0);
            report("best (not a result)", best, &test, &scores);
        }
    }
    Ok(())
}

fn values(detector: &mut dyn Detector, windows: &[Window<'_>]) -> Vec<f64> {
    let mut scores = Vec::new();
    detector.score(windows, &mut scores);
    scores.into_iter().map(|score| score.map_or(0.0, |score| score.value)).collect()
}

fn precision_recall_f1(threshold: f64, test: &[&Session], scores: &[f64]) -> (f64, f64, f64) {
    let count = |is_abnormal: bool| {
        test.iter()
            .zip(scores)
            .filter(|(session, score)| session.is_abnormal == is_abnormal && **score > threshold)
            .count() as f64
    };
    let (hits, false_alarms) = (count(true), count(false));
    let n_abnormal = test.iter().filter(|session| session.is_abnormal).count() as f64;
    let (precision, recall) = (hits / (hits + false_alarms).max(1.0), hits / n_abnormal.max(1.0));
    (precision, recall, 2.0 * hits / (hits + false_alarms + n_abnormal).max(1.0))
}

fn report(rule: &str, threshold: f64, test: &[&Session], scores: &[f64]) {
    let (precision, recall, f1) = precision_recall_f1(threshold, test, scores);
    println!("{rule:>22}: threshold {threshold:8.3}  P {precision:.3}  R {recall:.3}  F1 {f1:.3}");
}

fn blocks_of(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("blk_").map(|(at, _)| {
        let rest = &line[at..];
        let end = rest[4..].find(|c: char| c != '-' && !c.is_ascii_digit()).map_or(rest.len(), |end| end + 4);
        &rest[..end]
    })
}

/// Nanoseconds since the epoch of `yymmdd hhmmss` at the start of a line.
fn time_of(line: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| line.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (2000 + number(0..2)?, number(2..4)?, number(4..6)?);
    let (hour, minute, second) = (number(7..9)?, number(9..11)?, number(11..13)?);
    // Days from civil, Howard Hinnant.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (y.div_euclid(400), y.rem_euclid(400));
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000_000)
}

/// The body with block ids, addresses, paths and numbers replaced, and runs of placeholders folded into one.
fn masked(line: &str) -> String {
    let body = line.splitn(5, ' ').nth(4).unwrap_or(line);
    let mut out = String::new();
    let mut last = "";
    for token in body.split_ascii_whitespace() {
        let core = token.trim_end_matches([',', '.', ':']);
        let first = core.chars().next().unwrap_or(' ');
        let mask = if core.starts_with("blk_") {
            "<BLK>"
        } else if core.trim_start_matches('/').split([':', '.']).all(|part| part.parse::<u32>().is_ok())
            && core.contains('.')
        {
            "<IP>"
        } else if core.starts_with('/') {
            "<PATH>"
        } else if core.parse::<i64>().is_ok() {
            "<NUM>"
        } else if first.is_ascii_digit() && core.contains(':') {
            "<IP>"
        } else {
            token
        };
        if mask != last || !mask.starts_with('<') {
            out.push_str(mask);
            out.push(' ');
        }
        last = mask;
    }
    out
}
