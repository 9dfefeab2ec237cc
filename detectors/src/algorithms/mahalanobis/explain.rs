//! What is said of a row: how unusual its columns are together, and which of them is most to blame.

use faultline_core::{Evidence, GroupWindow, Score};

use super::{
    Config,
    instance::{Instance, first_step},
};
use crate::evidence::{brief, clock};

/// Deviations on each side within which a column is called usual.
const USUAL: f64 = 3.0;

/// See [`faultline_core::Detector::explain`]. Of the row that the latest score of the instance named.
pub fn evidence(config: &Config, instance: Option<&Instance>, window: &GroupWindow<'_>, score: &Score) -> Evidence {
    let (instance_name, service) = (&window.key.session, &window.key.stream);
    let row = i64::try_from(score.culprit / window.columns.len().max(1)).unwrap_or(i64::MAX);
    let step = first_step(window).saturating_add(row);
    let found = instance.and_then(|instance| instance.finding.as_ref()).filter(|found| found.step == step);
    let Some(found) = found else {
        let summary = format!("nothing is kept of this row of {instance_name} of {service}");
        return Evidence { summary, ..Evidence::default() };
    };
    let (low, high) = (found.mean - USUAL * found.deviation, found.mean + USUAL * found.deviation);
    let summary = format!(
        "{instance_name} of {service} was {:.1} times as unusual at {} as it has been lately, over {} series; {:.0} % of that \
         is {}, which was {} where {} to {} are usual",
        found.tracked.ratio.min(1e6),
        clock(step.saturating_mul(window.step_nanos)),
        found.n_columns,
        100.0 * found.share,
        found.column,
        brief(found.value),
        brief(low),
        brief(high),
    );
    let figures = [
        ("value", found.value),
        ("expected", found.mean),
        ("expected_low", low),
        ("expected_high", high),
        ("deviation", (found.value - found.mean) / found.deviation),
        ("share", found.share),
        ("distance", found.tracked.score),
        ("ratio", found.tracked.ratio),
        ("threshold", config.open_ratio),
        ("n_columns", found.n_columns as f64),
    ];
    let figures = figures.into_iter().filter(|(_, figure)| figure.is_finite());
    Evidence {
        summary,
        figures: figures.map(|(name, figure)| (name.to_owned(), figure)).collect(),
        ..Evidence::default()
    }
}
