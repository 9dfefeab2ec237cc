//! What the cheap detectors of series say of a point.

use faultline_core::{Evidence, RecordId, Score, SeriesWindow};

use super::Judged;

/// Points on each side of the culprit whose records are shown.
const NEIGHBOURS: usize = 10;

/// The evidence for a score; what was expected of its point where that is still known.
pub(super) fn of(window: &SeriesWindow<'_>, score: &Score, judged: Option<Judged>) -> Evidence {
    let (series, service) = (&window.key.session, &window.key.stream);
    let Some(&value) = window.points.get(score.culprit) else {
        return Evidence { summary: format!("{series} of {service} has no such point"), ..Evidence::default() };
    };
    let off = format!("{} times what is usual", brief(score.value));
    let summary = match judged {
        Some(Judged { expected, .. }) => {
            format!("{series} of {service} was {} where {} was expected, off by {off}", brief(value), brief(expected))
        }
        None => format!("{series} of {service} was {}, off by {off}", brief(value)),
    };
    let expected = judged.map(|judged| [("expected", judged.expected), ("scale", judged.scale)]);
    let figures = [("value", value), ("deviations", score.value)].into_iter().chain(expected.into_iter().flatten());
    Evidence {
        summary,
        culprit: record_of(window, score.culprit),
        records: records_around(window, score.culprit),
        figures: figures
            .filter(|(_, figure)| figure.is_finite())
            .map(|(name, figure)| (name.to_owned(), figure))
            .collect(),
        ..Evidence::default()
    }
}

/// A number as a person reads it.
fn brief(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if !(1e-3..1e9).contains(&size) => format!("{value:.3e}"),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.1}"),
        _ => format!("{value:.4}"),
    }
}

fn record_of(window: &SeriesWindow<'_>, idx: usize) -> Option<RecordId> {
    window.records.get(idx).copied().filter(|&record| record != 0)
}

/// The records behind a point and its neighbours, in the order of the points, none twice.
fn records_around(window: &SeriesWindow<'_>, culprit: usize) -> Vec<RecordId> {
    let mut records: Vec<RecordId> = Vec::new();
    for idx in culprit.saturating_sub(NEIGHBOURS)..=culprit + NEIGHBOURS {
        if let Some(record) = record_of(window, idx)
            && !records.contains(&record)
        {
            records.push(record);
        }
    }
    records
}
