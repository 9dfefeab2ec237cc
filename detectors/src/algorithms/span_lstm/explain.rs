//! What is said of a trace: which span was not expected and what was, or which took longer or shorter than expected.

use faultline_core::{Evidence, RecordId, Score, TraceWindow, Window};

use super::{Judgement, Model, Odd, Scratch, ms_of};
use crate::evidence::brief;

/// Labels that a summary names as expected.
const MAX_NAMED: usize = 3;

/// A label that is less probable than this is not named.
const MIN_NAMED: f64 = 0.01;

impl Model {
    /// See [`faultline_core::Detector::explain`].
    pub(super) fn evidence(&self, window: &Window<'_>, score: &Score) -> Evidence {
        let nothing = |why: &str| Evidence { summary: why.to_owned(), ..Evidence::default() };
        let Some(trace) = window.as_trace() else { return nothing("the window is no trace") };
        let mut scratch = Scratch::default();
        if !self.learned.read(trace, self.config.max_spans, &mut scratch) {
            return nothing("the trace has no spans, or not all of them");
        }
        let judgement = self.learned.judge(&scratch);
        let mut figures = vec![
            ("structure_nats", judgement.structure),
            ("time_nats", judgement.time),
            ("n_spans", trace.spans.len() as f64),
            ("n_held_out", self.learned.structure.len() as f64),
        ];
        let (summary, odd_step) = if judgement.is_of_time() {
            self.of_time(trace, &scratch, &judgement, score, &mut figures)
        } else {
            self.of_structure(trace, &scratch, &judgement, &mut figures)
        };
        // The culprit, the span that stands out, and their callers.
        let steps = &scratch.sequence.steps;
        let mut records: Vec<RecordId> = Vec::new();
        let culprit = steps.iter().position(|step| step.span as usize == score.culprit);
        for mut at in [culprit, Some(odd_step)] {
            while let Some(step) = at.and_then(|at| steps.get(at)) {
                let record = trace.spans[step.span as usize].record;
                if records.len() < Evidence::MAX_RECORDS && !records.contains(&record) {
                    records.push(record);
                }
                at = step.parent();
            }
        }
        Evidence {
            summary,
            culprit: trace.spans.get(score.culprit).map(|span| span.record),
            records,
            figures: figures.into_iter().map(|(name, figure)| (name.to_owned(), figure)).collect(),
            ..Evidence::default()
        }
    }

    /// Which label was not expected, and the step.
    fn of_structure(
        &self,
        trace: &TraceWindow<'_>,
        scratch: &Scratch,
        judgement: &Judgement,
        figures: &mut Vec<(&'static str, f64)>,
    ) -> (String, usize) {
        let n_spans = scratch.sequence.steps.len();
        let last = n_spans.saturating_sub(1);
        if let Some((first, n_unknown)) = judgement.unknown {
            figures.push(("n_unknown", n_unknown as f64));
            let more = if n_unknown > 1 { format!(", nor {} others of it", n_unknown - 1) } else { String::new() };
            let (name, expected) = (name_of(trace, scratch, first), self.expected(scratch, first));
            return (format!("training held no {name}{more}; {expected}"), first);
        }
        let Some(Odd { step, size, .. }) = judgement.label else {
            return ("the trace holds no span that training held".to_owned(), last);
        };
        let probability = (-size).exp();
        figures.push(("probability", probability));
        let before = step.checked_sub(1).map_or_else(|| "the beginning".to_owned(), |at| name_of(trace, scratch, at));
        let what =
            if step < n_spans { format!("{} came", name_of(trace, scratch, step)) } else { "the trace ended".into() };
        let expected = self.expected(scratch, step);
        let summary =
            format!("after {before} {what}, which has a probability of {} %; {expected}", brief(100.0 * probability));
        (summary, step.min(last))
    }

    /// Which span took longer or shorter than expected, and the step. Told of the one to blame.
    fn of_time(
        &self,
        trace: &TraceWindow<'_>,
        scratch: &Scratch,
        judgement: &Judgement,
        score: &Score,
        figures: &mut Vec<(&'static str, f64)>,
    ) -> (String, usize) {
        let steps = &scratch.sequence.steps;
        let odd = judgement.latest.map_or(0, |odd| odd.step);
        let blamed = steps.iter().position(|step| step.span as usize == score.culprit).unwrap_or(odd);
        let mut errors = scratch.errors(self.learned.labels.len());
        let Some((_, label, error)) = errors.find(|(step, ..)| *step == blamed) else {
            return ("a span took another time than expected".to_owned(), odd);
        };
        let scale = self.learned.scales[label];
        let expected_ms = ms_of(scale.mean + scale.deviation * scratch.pass.times[blamed]);
        let ms = trace.spans[steps[blamed].span as usize].duration_nanos as f64 / 1e6;
        let deviations = f64::from(error / scale.spread);
        figures.extend([("ms", ms), ("expected_ms", expected_ms), ("deviations", deviations)]);
        let summary = format!(
            "{} took {} ms where {} ms were expected, {} deviations {} what is usual",
            name_of(trace, scratch, blamed),
            brief(ms),
            brief(expected_ms),
            brief(deviations.abs()),
            if deviations < 0.0 { "below" } else { "above" },
        );
        (summary, odd)
    }

    /// What was expected at a step, the most probable first.
    fn expected(&self, scratch: &Scratch, step: usize) -> String {
        let n_next = self.learned.labels.len() + 1;
        let Some(row) = scratch.pass.log_probabilities.chunks_exact(n_next).nth(step) else {
            return "nothing was expected".to_owned();
        };
        let mut likely: Vec<(f64, usize)> = row.iter().map(|own| f64::from(*own).exp()).zip(0..).collect();
        likely.sort_by(|one, other| other.0.total_cmp(&one.0));
        let named = likely.into_iter().take(MAX_NAMED).take_while(|(probability, _)| *probability >= MIN_NAMED);
        let named: Vec<String> = named
            .map(|(probability, label)| {
                let name = match u16::try_from(label) {
                    Ok(symbol) if label + 1 < n_next => self.learned.labels.name(symbol),
                    _ => "the end".to_owned(),
                };
                format!("{name} ({:.0} %)", 100.0 * probability)
            })
            .collect();
        if named.is_empty() {
            "many were about as likely".to_owned()
        } else {
            format!("expected: {}", named.join(", "))
        }
    }
}

/// Service and operation of a step, whether training held them or not.
fn name_of(trace: &TraceWindow<'_>, scratch: &Scratch, step: usize) -> String {
    let span = scratch.sequence.steps.get(step).and_then(|step| trace.spans.get(step.span as usize));
    span.map_or_else(String::new, |span| format!("{} {}", trace.service(span), trace.operation(span)))
}
