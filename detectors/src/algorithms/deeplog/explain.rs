//! Why a window scored as it did: the prediction or the forecast that decided, what was expected, and where in its
//! workflow the session was.

use faultline_core::{Evidence, Expected, LogWindow, Score, Window};

use super::{
    Model,
    serve::{Surprise, What, value_score},
    values::{self, Finding},
};
use crate::evidence;

impl Model {
    /// See `Detector::explain`.
    pub(super) fn evidence(&self, window: &Window<'_>, score: &Score) -> Evidence {
        let Some((log, culprit)) = window.as_log().and_then(|log| Some((log, log.records.get(score.culprit)?))) else {
            return Evidence { summary: "the window holds no record".to_owned(), ..Evidence::default() };
        };
        let h = self.config.window;
        let padded = self.learned.vocabulary.padded(log, h);
        // Where the last record is the culprit, it or the end after it decided: whichever scored as the window did.
        let judged = self.learned.vocabulary.positions(log, h).filter(|position| {
            *position == score.culprit || (*position == log.records.len() && score.culprit + 1 == *position)
        });
        let n_outputs = self.learned.vocabulary.templates.len() + 1;
        let mut decided: Option<(Surprise, Vec<f32>)> = None;
        for position in judged {
            let row = self.predictor.log_probabilities(&[&padded[position..position + h]]);
            let surprise = Surprise::of(padded.get(position + h).copied(), &row);
            if decided.as_ref().is_none_or(|(before, _)| surprise.score(self.learned.g) > before.score(self.learned.g))
            {
                decided = Some((surprise, row));
            }
        }
        let Some((surprise, row)) = decided else {
            return Evidence { summary: "nothing of the window is fresh".to_owned(), ..Evidence::default() };
        };
        let finding = self.learned.values.finding(log, score.culprit).filter(|finding| {
            log.fresh <= score.culprit
                && value_score(finding, self.config.value_confidence) > surprise.score(self.learned.g)
        });
        let mut order: Vec<usize> = (0..n_outputs).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
        let expected: Vec<Expected> = order
            .iter()
            .take(self.learned.g)
            .filter_map(|&symbol| {
                let template = *self.learned.vocabulary.templates.get(symbol)?;
                Some(Expected { template, probability: f64::from(row[symbol].exp()) })
            })
            .collect();
        let likeliest = match self.learned.vocabulary.templates.get(order[0]) {
            Some(template) => format!("template {template} was likeliest with {:.1} %", row[order[0]].exp() * 100.0),
            None => format!("the end of the session was likeliest with {:.1} %", row[order[0]].exp() * 100.0),
        };
        let (template, rank, percent) = (culprit.template, surprise.rank, (-surprise.nll).exp() * 100.0);
        let mut summary = match surprise.what {
            What::End => {
                format!("the session ended after template {template}, held to be {percent:.2} % likely; {likeliest}")
            }
            What::Unseen => format!("template {template} never occurred in training; {likeliest}"),
            What::Known => {
                format!("template {template} ranks {rank} of {n_outputs} in its place ({percent:.2} %); {likeliest}")
            }
        };
        let mut figures = vec![
            ("rank", surprise.rank as f64),
            ("nll", surprise.nll),
            ("n_symbols", n_outputs as f64),
            ("g", self.learned.g as f64),
        ];
        if let Some(finding) = &finding {
            let (text, own_figures) = told(log, score.culprit, finding, self.config.value_confidence);
            summary = text;
            figures.extend(own_figures);
            figures.extend([("deviations", finding.deviations), ("value_nll", finding.nll)]);
        }
        let ended = surprise.what == What::End && finding.is_none();
        let at = score.culprit + usize::from(ended);
        if let Some(position) = self.learned.workflows.position(log, at) {
            summary = format!("{summary}; {}", position.describe());
            figures.extend([
                ("workflow", position.workflow as f64),
                ("workflow_step", position.step as f64),
                ("workflow_steps", position.n_steps as f64),
            ]);
        }
        let context = &log.records[score.culprit.saturating_sub(h)..score.culprit];
        Evidence {
            summary,
            seen: (!ended).then_some(culprit.template),
            expected,
            culprit: Some(culprit.record),
            records: evidence::around(log.records, score.culprit, context.iter().map(|record| record.record)),
            figures: figures.into_iter().map(|(name, figure)| (name.to_owned(), figure)).collect(),
        }
    }
}

/// What a parameter was and what it was forecast to be: for a person, and as figures.
fn told(log: &LogWindow<'_>, at: usize, finding: &Finding, confidence: f64) -> (String, Vec<(&'static str, f64)>) {
    let template = log.records[at].template;
    let Some(place) = finding.param.checked_sub(1) else {
        let [was, forecast] = [finding.value, finding.forecast].map(values::milliseconds);
        let deviations = finding.deviations.abs();
        let summary = format!(
            "template {template} came {was:.3} ms after the record before it, {deviations:.1} deviations from the {forecast:.3} ms forecast",
        );
        return (summary, vec![("elapsed_ms", was), ("forecast_ms", forecast)]);
    };
    let numbers = log.numbers.of(at);
    // As it was read: the way to the scale and back costs digits.
    let was = numbers.get(place).map_or_else(|| values::off_scale(finding.value), |&number| f64::from(number));
    let (low, high) = finding.interval(confidence);
    let [forecast, low, high] = [finding.forecast, low, high].map(values::off_scale);
    let summary = format!(
        "template {template} came with {} as number {} of {}, where {} to {} was expected",
        readable(was),
        finding.param,
        numbers.len(),
        readable(low),
        readable(high)
    );
    let figures = vec![
        ("number", finding.param as f64),
        ("number_value", was),
        ("number_forecast", forecast),
        ("expected_low", low),
        ("expected_high", high),
    ];
    (summary, figures)
}

/// A number with three places after the point where that is not more than anybody reads.
fn readable(number: f64) -> String {
    if number.abs() >= 1e3 || number.fract() == 0.0 { format!("{number:.0}") } else { format!("{number:.3}") }
}
