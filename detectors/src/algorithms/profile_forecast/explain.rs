//! What is said of a point: where it was expected, and how far it was from there.

use faultline_core::{Evidence, Score, SeriesKind, SeriesWindow};

use super::{Config, series::Series};
use crate::evidence::{around_point, brief, clock, record_of_point};

/// See [`faultline_core::Detector::explain`]. Of the point that the latest score of the series named.
pub fn evidence(config: &Config, series: Option<&Series>, window: &SeriesWindow<'_>, score: &Score) -> Evidence {
    let (name, service) = (&window.key.session, &window.key.stream);
    let step = i64::try_from(score.culprit).map_or(i64::MAX, |culprit| window.first_step().saturating_add(culprit));
    let told = series.filter(|series| series.finding.step == step);
    let (Some(series), Some(&value)) = (told, window.points.get(score.culprit)) else {
        let summary = format!("nothing is kept of this point of {name} of {service}");
        return Evidence { summary, ..Evidence::default() };
    };
    let found = series.finding;
    let reach = f64::from(found.reach);
    let (mut low, high) = (found.expected - reach, found.expected + reach);
    // Counts, shares and durations are not negative.
    if window.kind != SeriesKind::Gauge && found.expected >= 0.0 {
        low = low.max(0.0);
    }
    let at = clock(step.saturating_mul(window.step_nanos));
    let (was, range) = (brief(value), format!("{} to {}", brief(low), brief(high)));
    let summary = if (low..=high).contains(&value) {
        format!("{name} of {service} was {was} at {at}, within the {range} that were expected")
    } else {
        format!("{name} of {service} was {was} at {at} where {range} were expected")
    };
    let figures = [
        ("value", value),
        ("expected", found.expected),
        ("expected_low", low),
        ("expected_high", high),
        ("deviation", value - found.expected),
        ("spike_score", f64::from(found.spike)),
        ("level_score", f64::from(found.level)),
        ("threshold", config.threshold),
        ("period_steps", series.season_nanos() as f64 / series.step_nanos() as f64),
    ];
    let figures = figures.into_iter().filter(|(_, figure)| figure.is_finite());
    Evidence {
        summary,
        culprit: record_of_point(window, score.culprit),
        records: around_point(window, score.culprit),
        figures: figures.map(|(name, figure)| (name.to_owned(), figure)).collect(),
        ..Evidence::default()
    }
}
