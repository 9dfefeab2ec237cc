//! What is said of a trace: where it has what was not expected, or lacks what was, and what that is.

use faultline_core::{Evidence, RecordId, Score, TraceWindow, Window};

use super::{Model, Scratch, UNKNOWN_NLL, places::Place};
use crate::{evidence::brief, traces::sequence::Sequence};

/// Places that a summary names.
const MAX_NAMED: usize = 3;

/// Labels that are named as expected at a place, and how probable each is at least.
const MAX_EXPECTED: usize = 2;
const MIN_EXPECTED: f64 = 0.05;

/// A place where something else was expected.
struct Odd {
    place: Place,
    nll: f64,
    /// What was, in words.
    expected: String,
}

impl Model {
    /// See [`faultline_core::Detector::explain`].
    pub(super) fn evidence(&self, window: &Window<'_>, score: &Score) -> Evidence {
        let nothing = |why: &str| Evidence { summary: why.to_owned(), ..Evidence::default() };
        let Some(trace) = window.as_trace() else { return nothing("the window is no trace") };
        let mut scratch = Scratch::default();
        if !scratch.sequence.take(&self.learned.labels, trace, self.config.max_spans) {
            return nothing("the trace has no spans, or not all of them");
        }
        let Scratch { sequence, places, look, .. } = &mut scratch;
        let (mut odd, mut n_places): (Vec<Odd>, usize) = (Vec::new(), 0);
        self.learned.look((&sequence.steps[..], sequence.is_cut), places, look, |place, nll, row| {
            n_places += 1;
            odd.push(Odd { place: *place, nll, expected: self.expected(row) });
            // The worst first, of equals the first; no more than are shown.
            odd.sort_by(|one, other| other.nll.total_cmp(&one.nll));
            odd.truncate(Evidence::MAX_RECORDS);
        });
        let n_errors = score.value.max(0.0).floor();
        let is_error = |odd: &&Odd| odd.nll > self.learned.level;
        let shown: Vec<&Odd> =
            if n_errors > 0.0 { odd.iter().filter(is_error).collect() } else { odd.iter().take(1).collect() };
        let told: Vec<String> = shown.iter().take(MAX_NAMED).map(|odd| tell(trace, sequence, odd)).collect();
        let n_more = (n_errors as usize).saturating_sub(told.len());
        let more = if n_more > 0 { format!("; and {n_more} more") } else { String::new() };
        let what = if n_errors > 0.0 { format!("{n_errors} of") } else { "none of".to_owned() };
        let summary = if told.is_empty() {
            "no span of the trace can be judged".to_owned()
        } else {
            let are = if n_errors > 0.0 { "are odd" } else { "is odd; the least usual" };
            format!("{what} {n_places} places of the trace {are}: {}{more}", told.join("; "))
        };
        let record_of = |step: usize| Some(trace.spans.get(sequence.steps.get(step)?.span as usize)?.record);
        let culprit = trace.spans.get(score.culprit).map(|span| span.record);
        let mut records: Vec<RecordId> = Vec::new();
        for record in culprit.into_iter().chain(shown.iter().filter_map(|odd| record_of(odd.place.blamed()))) {
            if records.len() < Evidence::MAX_RECORDS && !records.contains(&record) {
                records.push(record);
            }
        }
        let worst = odd.first().map_or(0.0, |odd| odd.nll);
        let figures = [
            ("n_errors", n_errors),
            ("n_places", n_places as f64),
            ("probability", (-worst).exp()),
            ("level", (-self.learned.level).exp()),
        ];
        Evidence {
            summary,
            culprit,
            records,
            figures: figures.map(|(name, figure)| (name.to_owned(), figure)).into(),
            ..Evidence::default()
        }
    }

    /// What was expected at a place, given its log-probabilities.
    fn expected(&self, row: &[f32]) -> String {
        let mut likely: Vec<(f64, usize)> = row.iter().map(|own| f64::from(*own).exp()).zip(0..).collect();
        likely.sort_by(|one, other| other.0.total_cmp(&one.0));
        let named = likely.into_iter().take(MAX_EXPECTED).take_while(|(probability, _)| *probability >= MIN_EXPECTED);
        let named: Vec<String> = named
            .map(|(probability, label)| {
                let name = match u16::try_from(label) {
                    Ok(symbol) if label + 1 < row.len() => self.learned.labels.name(symbol),
                    _ => "nothing more".to_owned(),
                };
                format!("{name} ({:.0} %)", 100.0 * probability)
            })
            .collect();
        if named.is_empty() {
            "many others were about as likely".to_owned()
        } else {
            format!("{} was expected", named.join(" or "))
        }
    }
}

/// What came at a place, and what was expected there.
fn tell(trace: &TraceWindow<'_>, sequence: &Sequence, odd: &Odd) -> String {
    let name_of = |step: usize| {
        let span = sequence.steps.get(step).and_then(|step| trace.spans.get(step.span as usize));
        span.map_or_else(String::new, |span| format!("{} {}", trace.service(span), trace.operation(span)))
    };
    let Odd { place, nll, expected } = odd;
    let how = if *nll < UNKNOWN_NLL { format!("{} %", brief(100.0 * (-nll).exp())) } else { "never seen".to_owned() };
    match (place.came, place.parent) {
        (None, _) => {
            let after = place.left.map_or_else(String::new, |left| format!(" more after {}", name_of(left)));
            format!("{} called nothing{after} ({how}), where {expected}", name_of(place.blamed()))
        }
        (Some(_), Some(parent)) => {
            format!("{} called {} ({how}), where {expected}", name_of(parent), name_of(place.at))
        }
        (Some(_), None) => format!("the trace began with {} ({how}), where {expected}", name_of(place.at)),
    }
}
