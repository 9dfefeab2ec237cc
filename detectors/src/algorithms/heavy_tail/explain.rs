//! What is said of a point: where it was expected, and how many points of the past were as far off.

use faultline_core::{Evidence, Score, SeriesWindow};

use super::{step_of, track::Track};
use crate::evidence::{around_point, brief, record_of_point};

/// See [`faultline_core::Detector::explain`]. Of the point that the latest score of the series named.
pub fn evidence(track: Option<&Track>, window: &SeriesWindow<'_>, score: &Score) -> Evidence {
    let (name, service) = (&window.key.session, &window.key.stream);
    let step = step_of(window, score.culprit);
    let finding = track.and_then(|track| track.finding).filter(|finding| finding.step == step);
    let (Some(track), Some(finding), Some(&value)) = (track, finding, window.points.get(score.culprit)) else {
        let summary = format!("nothing is kept of this point of {name} of {service}");
        return Evidence { summary, ..Evidence::default() };
    };
    let judged = finding.judged;
    let (odds, n_history) = (judged.surprise.exp(), judged.n_history as f64);
    let was = format!("{name} of {service} was {}, farther from {}", brief(value), brief(judged.expected));
    let summary = if judged.surprise <= 0.0 {
        format!("{name} of {service} was {}, no farther from {} than usual", brief(value), brief(judged.expected))
    } else if odds <= n_history {
        format!("{was} than all but 1 in {} points so far", grouped(odds))
    } else {
        format!("{was} than 1 in {} points by the tail of the {} so far", grouped(odds), grouped(n_history))
    };
    let figures = [
        ("value", value),
        ("expected", judged.expected),
        ("deviation", value - judged.expected),
        ("surprise", judged.surprise),
        ("false_alarms_expected", (n_history + 1.0) * (-judged.surprise).exp()),
        ("n_history", n_history),
        ("tail_index", track.tail_index().unwrap_or(f64::NAN)),
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

/// A count of two digits that matter, its thousands apart: `12,000`.
fn grouped(count: f64) -> String {
    if count >= 1e12 {
        return format!("{count:.0e}");
    }
    let unit = 10_f64.powf((count.max(1.0).log10().floor() - 1.0).max(0.0));
    let digits = format!("{:.0}", (count / unit).round() * unit);
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (idx, digit) in digits.chars().enumerate() {
        if idx > 0 && (digits.len() - idx).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn counts_are_round_and_their_thousands_apart() {
        let counts = [1.2, 87.4, 100.0, 4_032.0, 9_960.0, 12_345.0, 1_234_567.0, 3e15].map(grouped);
        assert_eq!(counts, ["1", "87", "100", "4,000", "10,000", "12,000", "1,200,000", "3e15"]);
    }
}
