//! The set-based baselines reproduce the published figures on the HDFS split of DeepLog, to the third decimal.
//!
//! Needs `hdfs.tar.zst`, looked for in the folder that `FAULTLINE_DATA` names, else in `../shared/data` beside the
//! workspace; skipped by name without it.

use std::{
    collections::HashMap,
    fs::File,
    io::Read,
    io::Write as _,
    path::{Path, PathBuf},
};

use faultline_core::Window;
use faultline_detectors::{
    registry,
    testing::{Session, score_all},
};
use serde_json::Value;

fn archive() -> Option<PathBuf> {
    let folder = std::env::var_os("FAULTLINE_DATA").map_or_else(|| PathBuf::from("../../shared/data"), PathBuf::from);
    Some(folder.join("hdfs.tar.zst")).filter(|path| path.is_file())
}

/// The files of the split, by name.
fn read_split(path: &Path) -> HashMap<String, String> {
    let mut decoder = zstd::Decoder::new(File::open(path).expect("it is there")).expect("a zstd frame");
    decoder.window_log_max(27).expect("a supported window");
    let mut archive = tar::Archive::new(decoder);
    let mut files = HashMap::new();
    for entry in archive.entries().expect("a tar file") {
        let mut entry = entry.expect("a tar entry");
        let path = entry.path().expect("a path").into_owned();
        if path.parent().is_some_and(|folder| folder.ends_with("deeplog_split")) && entry.size() > 0 {
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("session files are text");
            files.insert(path.file_name().expect("a file").to_string_lossy().into_owned(), text);
        }
    }
    files
}

fn session(line: &str) -> Session {
    let templates: Vec<u64> = line.split_whitespace().map(|id| id.parse().expect("an event id")).collect();
    Session::of("session", &templates)
}

/// Precision, recall and F1 as the tables print them.
fn figures(true_positives: u64, false_positives: u64, positives: u64) -> [String; 3] {
    let precision = true_positives as f64 / (true_positives + false_positives) as f64;
    let recall = true_positives as f64 / positives as f64;
    let f1 = 2.0 * precision * recall / (precision + recall);
    [precision, recall, f1].map(|figure| format!("{figure:.3}"))
}

#[test]
fn baselines_reproduce_the_published_figures_on_hdfs() {
    let Some(path) = archive() else {
        // Past the test harness, which shows the output of failed tests only.
        let name = "baselines_reproduce_the_published_figures_on_hdfs";
        writeln!(std::io::stderr(), "skipped: {name}: no hdfs.tar.zst (FAULTLINE_DATA)").expect("stderr is open");
        return;
    };
    let files = read_split(&path);
    let sessions_in = |file: &str| files[file].lines().map(str::trim).filter(|line| !line.is_empty());

    let training: Vec<Session> = sessions_in("hdfs_train").map(session).collect();
    assert_eq!(training.len(), 4_855);
    let windows: Vec<Window<'_>> = training.iter().map(Session::closed).collect();

    // Equal sessions score alike, so each distinct one is scored once: how often it is normal, and abnormal.
    let mut distinct: HashMap<&str, (u64, u64)> = HashMap::new();
    sessions_in("hdfs_test_normal.reconstructed").for_each(|line| distinct.entry(line).or_default().0 += 1);
    sessions_in("hdfs_test_abnormal").for_each(|line| distinct.entry(line).or_default().1 += 1);
    let (n_normal, n_abnormal) = distinct.values().fold((0, 0), |sum, n| (sum.0 + n.0, sum.1 + n.1));
    assert_eq!((n_normal, n_abnormal), (553_369, 16_838));
    let (tests, counts): (Vec<Session>, Vec<_>) =
        distinct.iter().map(|(line, counts)| (session(line), *counts)).unzip();
    let test_windows: Vec<Window<'_>> = tests.iter().map(Session::closed).collect();

    let verdicts = |name: &str| {
        let entry = registry::entry(name).expect("listed");
        let mut model = entry.fit(&Value::Null, &windows, 0).expect("it fits");
        let threshold = entry.published_threshold.expect("a published rule");
        let scores = score_all(&mut *model, &test_windows);
        scores.iter().map(|score| score.is_some_and(|score| score.value > threshold)).collect::<Vec<bool>>()
    };
    let (new, length, count) = (verdicts("new-template"), verdicts("length"), verdicts("count-vector"));
    let bigram = verdicts("ngram");
    let measured = |is_abnormal: &dyn Fn(usize) -> bool| {
        let flagged = (0..tests.len()).filter(|&idx| is_abnormal(idx));
        let (false_positives, hits) = flagged.fold((0, 0), |sum, idx| (sum.0 + counts[idx].0, sum.1 + counts[idx].1));
        figures(hits, false_positives, n_abnormal)
    };
    assert_eq!(measured(&|idx| new[idx]), ["0.971", "0.470", "0.633"], "new event");
    assert_eq!(measured(&|idx| new[idx] || length[idx]), ["0.979", "0.840", "0.904"], "new event or length");
    assert_eq!(
        measured(&|idx| new[idx] || length[idx] || count[idx]),
        ["0.977", "1.000", "0.988"],
        "new event or length or count vector"
    );
    assert_eq!(measured(&|idx| bigram[idx]), ["0.943", "0.778", "0.853"], "2-gram");
}
