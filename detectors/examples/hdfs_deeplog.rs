//! DeepLog on the HDFS split of its paper: precision, recall and F1 of sessions over three seeds.
//!
//! `cargo run --release -p faultline-detectors --example hdfs_deeplog [FOLDER]`, where FOLDER (or
//! `$FAULTLINE_DATA/hdfs/deeplog_split`) holds `hdfs_train`, `hdfs_test_normal.reconstructed` and `hdfs_test_abnormal`.
//! The model is fitted to the first four fifths of the training sessions; the last fifth sets the calibrated
//! thresholds. Both rules are fixed before a test session is read: the paper's (rank beyond g, calibrated), and the
//! raw score that a share alpha of the held-out sessions exceeds. A session is anomalous when its window is.
#![allow(clippy::disallowed_methods, reason = "an example measures its own time")]

use std::{collections::BTreeMap, error::Error, path::Path, path::PathBuf, sync::Arc, time::Instant};

use faultline_core::{
    Detector, LogEntry, LogWindow, Numbers, TemplateId, TemplateTexts, Window, WindowKey, WindowState,
};
use faultline_detectors::{
    Algorithm,
    algorithms::deeplog::{Config, DeepLog},
};

struct Session {
    key: WindowKey,
    records: Vec<LogEntry>,
    /// Sessions of the file that are equal to it.
    n: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args()
        .nth(1)
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("FAULTLINE_DATA").map(|data| PathBuf::from(data).join("hdfs/deeplog_split")));
    let folder = folder.ok_or("give the folder of hdfs_train, or set FAULTLINE_DATA")?;
    let train: Vec<Session> =
        lines(&folder.join("hdfs_train"))?.into_iter().enumerate().map(|(n, line)| session(n, &line, 1)).collect();
    let (fit, held_out) = train.split_at(train.len() * 4 / 5);
    let normal = distinct(&folder.join("hdfs_test_normal.reconstructed"))?;
    let abnormal = distinct(&folder.join("hdfs_test_abnormal"))?;
    let total = |sessions: &[Session]| sessions.iter().map(|session| session.n).sum::<usize>();
    println!("fit {} held out {} normal {} abnormal {}", fit.len(), held_out.len(), total(&normal), total(&abnormal));
    let windows: Vec<Window<'_>> = fit.iter().map(window).collect();
    let config = Config::default();
    for seed in 1..=3 {
        let started = Instant::now();
        let mut model = DeepLog::fit(&config, &windows, seed)?;
        let fitted = started.elapsed().as_secs_f64();
        let mut calm = scores(&mut model, held_out);
        calm.sort_by(f64::total_cmp);
        let mut rules = vec![("beyond the top g".to_owned(), DeepLog::PUBLISHED_THRESHOLD.unwrap_or(10.0))];
        for alpha in [0.01, 0.005, 0.002] {
            let n_above = (alpha * (calm.len() + 1) as f64) as usize;
            rules.push((format!("alpha = {alpha}"), calm[calm.len() - 1 - n_above.min(calm.len() - 1)]));
        }
        let started = Instant::now();
        let (normal_scores, abnormal_scores) = (scores(&mut model, &normal), scores(&mut model, &abnormal));
        println!(
            "seed {seed}: g {} fit {fitted:.1} s, distinct test sessions {:.1} s",
            model.g(),
            started.elapsed().as_secs_f64()
        );
        for (rule, threshold) in rules {
            let flagged = |sessions: &[Session], scores: &[f64]| {
                sessions
                    .iter()
                    .zip(scores)
                    .filter(|(_, score)| **score > threshold)
                    .map(|(session, _)| session.n)
                    .sum::<usize>()
            };
            let (hits, false_alarms) = (flagged(&abnormal, &abnormal_scores), flagged(&normal, &normal_scores));
            let precision = hits as f64 / (hits + false_alarms).max(1) as f64;
            let recall = hits as f64 / total(&abnormal) as f64;
            let f1 = 2.0 * precision * recall / (precision + recall).max(1e-9);
            println!(
                "  {rule:>16} (score > {threshold:6.3}): P {precision:.3}  R {recall:.3}  F1 {f1:.3}  ({false_alarms} false alarms)"
            );
        }
    }
    Ok(())
}

fn lines(path: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect())
}

fn distinct(path: &Path) -> Result<Vec<Session>, Box<dyn Error>> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for line in lines(path)? {
        *counts.entry(line.trim().to_owned()).or_default() += 1;
    }
    Ok(counts.into_iter().enumerate().map(|(idx, (line, n))| session(idx, &line, n)).collect())
}

fn session(idx: usize, line: &str, n: usize) -> Session {
    let key = WindowKey { stream: Arc::from("hdfs"), session: Arc::from(idx.to_string()) };
    let entry = |(position, key): (usize, &str)| LogEntry {
        template: TemplateId(key.parse().unwrap_or(0)),
        time_unix_nano: position as i64 * 1_000_000_000,
        record: position as u64 + 1,
        service: 0,
        severity_number: 9,
        is_since_deploy: false,
    };
    Session { key, records: line.split_ascii_whitespace().enumerate().map(entry).collect(), n }
}

fn window(session: &Session) -> Window<'_> {
    let (key, records) = (&session.key, &session.records[..]);
    Window::Log(LogWindow {
        key,
        records,
        numbers: Numbers::default(),
        fresh: 0,
        n_dropped: 0,
        state: WindowState::Closed,
        is_stream: false,
        services: &[],
        templates: TemplateTexts::NONE,
    })
}

fn scores(model: &mut dyn Detector, sessions: &[Session]) -> Vec<f64> {
    let windows: Vec<Window<'_>> = sessions.iter().map(window).collect();
    let mut scores = Vec::new();
    model.score(&windows, &mut scores);
    scores.into_iter().map(|score| score.map_or(0.0, |score| score.value)).collect()
}
