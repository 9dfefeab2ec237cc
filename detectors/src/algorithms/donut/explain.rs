//! What Donut says of a point: what was expected there.

use faultline_core::{Evidence, Score, SeriesWindow};

use super::{Model, Series, judge::Judge, series::is_judged};
use crate::evidence::{around_point, brief, record_of_point};

/// Deviations on each side that are expected to hold a point.
const EXPECTED: f64 = 2.0;

impl Model {
    /// See [`faultline_core::Detector::explain`].
    pub(super) fn evidence(&self, window: &SeriesWindow<'_>, score: &Score) -> Evidence {
        let (series, service) = (&window.key.session, &window.key.stream);
        let nothing = |why: &str| Evidence { summary: format!("{series} of {service} {why}"), ..Evidence::default() };
        let Some(own) = self.learned.series.get(window.key) else { return nothing("has no model") };
        let Some(&value) = window.points.get(score.culprit) else { return nothing("has no such point") };
        let known = self.points_up_to(own, window, score.culprit);
        if !is_judged(&known) {
            return nothing("has too few points around this one to say what was expected");
        }
        let judge = Judge { shape: self.learned.shape, kernel: &own.kernel, draws: &self.draws };
        let expectations = judge.expectations(&known, self.config.samples);
        let n = expectations.len() as f64;
        let mean = expectations.iter().map(|(mean, _)| mean).sum::<f64>() / n;
        let of_sample = |(own_mean, deviation): &(f64, f64)| (own_mean - mean).powi(2) + deviation.powi(2);
        let deviation = (expectations.iter().map(of_sample).sum::<f64>() / n).sqrt();
        let at = |deviations: f64| own.standard.point(mean + deviations * deviation);
        let (low, expected, high) = (at(-EXPECTED), at(0.0), at(EXPECTED));
        let range = format!("{} to {}", brief(low), brief(high));
        let summary = if (low..=high).contains(&value) {
            format!("{series} of {service} was {}, within the {range} that were expected", brief(value))
        } else {
            format!("{series} of {service} was {} where {range} were expected", brief(value))
        };
        let n_gaps = known.iter().filter(|value| value.is_nan()).count();
        let figures = [
            ("value", value),
            ("expected", expected),
            ("expected_low", low),
            ("expected_high", high),
            ("deviations", (value - expected) / (deviation * own.standard.deviation)),
            ("nll", score.value + own.typical),
            ("nll_typical", own.typical),
            ("n_gaps", n_gaps as f64),
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

    /// The standardised points of which `window.points[culprit]` is the last. Those before the window are gaps where
    /// they are no longer kept.
    fn points_up_to(&self, own: &Series, window: &SeriesWindow<'_>, culprit: usize) -> Vec<f32> {
        let length = self.learned.shape.window;
        let n_own = length.min(culprit + 1);
        let n_before = length - n_own;
        let before = (1..=n_before).rev().map(|back| {
            let back = i64::try_from(back).unwrap_or(i64::MAX);
            own.history.at(window.first_step().saturating_sub(back))
        });
        let points = &window.points[culprit + 1 - n_own..=culprit];
        before.chain(points.iter().map(|&point| own.standard.standardised(point))).collect()
    }
}
