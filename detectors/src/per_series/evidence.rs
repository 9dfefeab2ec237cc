//! What the cheap detectors of series say of a point.

use faultline_core::{Evidence, Score, SeriesWindow};

use super::Judged;
use crate::evidence::{around_point, brief, record_of_point};

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
        culprit: record_of_point(window, score.culprit),
        records: around_point(window, score.culprit),
        figures: figures
            .filter(|(_, figure)| figure.is_finite())
            .map(|(name, figure)| (name.to_owned(), figure))
            .collect(),
        ..Evidence::default()
    }
}
