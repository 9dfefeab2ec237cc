//! `bgl-lines`: BGL's second half line by line, in order. New templates keep coming there, so what counts is whether a
//! detector alerts once for each and then knows it.

use std::time::Instant;

use faultline_core::{Score, Window};
use faultline_datasets::{
    Confusion, ResultRow, Usage, average_precision, loaders::bgl::BglLines, metrics::episode_hits,
};

use super::{Args, sessions::Sessions};

/// Share of the lines that is fitted on.
const TRAIN_SHARE: f64 = 0.01;

/// Runs the protocol with the new-template detector: as fitted, and learning each template after its first alert.
pub fn bgl_lines(args: &Args, report: &mut dyn FnMut(ResultRow)) -> anyhow::Result<()> {
    let files = super::locate(args, "bgl")?;
    let lines = BglLines::load(&files.data)?;
    let n_train = (lines.len() as f64 * TRAIN_SHARE) as usize;
    let normal: Vec<[u16; 1]> = (0..n_train).filter(|&idx| !lines.alerts[idx]).map(|idx| [lines.events[idx]]).collect();
    let training = Sessions::of_events(normal.iter().map(<[u16; 1]>::as_slice));
    let test = Sessions::of_events(lines.events[n_train..].chunks(1));
    let truth = &lines.alerts[n_train..];
    let entry = faultline_detectors::entry("new-template")?;
    let threshold = entry.published_threshold.unwrap_or(0.0);

    for (name, learns) in [("new-template", Learns::Never), ("new-template, learning", Learns::AfterAlert)] {
        if !args.detector.is_empty() && !args.detector.iter().any(|wanted| wanted == name) {
            continue;
        }
        let before = Usage::now();
        let started = Instant::now();
        let mut detector = entry.fit(&entry.default_config(), &training.windows(0..training.len()), 1)?;
        let mut scores = Vec::with_capacity(test.len());
        let mut one: Vec<Option<Score>> = Vec::new();
        for idx in 0..test.len() {
            let windows: Vec<Window<'_>> = test.windows(idx..idx + 1);
            one.clear();
            detector.score(&windows, &mut one);
            let score = one[0].map_or(f64::NEG_INFINITY, |score| score.value);
            if score > threshold && learns == Learns::AfterAlert {
                detector.learn(&windows);
            }
            scores.push(score);
        }
        let flagged: Vec<bool> = scores.iter().map(|score| *score > threshold).collect();
        let alerts: Vec<usize> = (0..flagged.len()).filter(|&idx| flagged[idx]).collect();
        let hits = episode_hits(&alerts, truth);
        let counts = Confusion::of(flagged.iter().copied().zip(truth.iter().copied()));
        let mut row = ResultRow::new("bgl-lines", "bgl", name)
            .with_confusion(&counts)
            .with_extra("n_alerts", alerts.len())
            .with_extra("episodes_hit", hits.n_hit)
            .with_extra("episodes", hits.n_episodes);
        row.auprc = average_precision(&scores, truth);
        row.records_per_second = Some(test.len() as f64 / started.elapsed().as_secs_f64());
        row.cpu_seconds = Usage::now().cpu_seconds_since(&before);
        row.peak_rss_bytes = Usage::now().peak_rss_bytes;
        report(row);
    }
    Ok(())
}

/// Whether a template that has alerted counts as known from then on.
#[derive(Clone, Copy, PartialEq)]
enum Learns {
    Never,
    AfterAlert,
}
