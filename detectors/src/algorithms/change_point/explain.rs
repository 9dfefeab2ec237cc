//! What is said of a point: since when the series has another level, which, and which it had before.

use faultline_core::{Evidence, Score, SeriesWindow};

use super::{step_of, track::Track};
use crate::evidence::{around_point, brief, clock, record_of_point};

/// See [`faultline_core::Detector::explain`]. Of the point that the latest score of the series named.
pub fn evidence(track: Option<&Track>, recent: u16, window: &SeriesWindow<'_>, score: &Score) -> Evidence {
    let (name, service) = (&window.key.session, &window.key.stream);
    let step = step_of(window, score.culprit);
    let finding = track.and_then(|track| track.finding).filter(|finding| finding.step == step);
    let (Some(finding), Some(&value)) = (finding, window.points.get(score.culprit)) else {
        let summary = format!("nothing is kept of this point of {name} of {service}");
        return Evidence { summary, ..Evidence::default() };
    };
    let run = finding.run;
    let summary = if run.age <= recent {
        let began = step.saturating_sub(i64::from(run.age.saturating_sub(1))).saturating_mul(window.step_nanos);
        let (before, since) = (brief(finding.before), brief(run.mean));
        format!("{name} of {service} was about {before} until {}, and {since} since", clock(began))
    } else {
        format!("{name} of {service} has been about {} for {} points", brief(run.mean), run.age)
    };
    let figures = [
        ("value", value),
        ("before", finding.before),
        ("since", run.mean),
        ("run_points", f64::from(run.age)),
        ("no_change_probability", (-finding.surprise).exp()),
        ("surprise", finding.surprise),
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
