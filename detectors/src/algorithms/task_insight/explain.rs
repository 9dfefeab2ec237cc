//! What is said of a trace: which call it was, what it did, and what the habits of its task are.

use faultline_core::{Evidence, RecordId, Score, Window};

use super::{
    Measure, Model,
    clusters::{Cluster, Judged},
    judge,
};

/// Habits that a summary names.
const MAX_NAMED: usize = 3;

impl Model {
    /// See [`faultline_core::Detector::explain`].
    pub(super) fn evidence(&self, window: &Window<'_>, score: &Score) -> Evidence {
        let nothing = |why: &str| Evidence { summary: why.to_owned(), ..Evidence::default() };
        let Some(trace) = window.as_trace() else { return nothing("the window is no trace") };
        let mut measure = Measure::default();
        if !measure.take(trace, self.config.floor_ms) {
            return nothing("the trace has no spans, or not all of them");
        }
        let Some((span, measured)) = trace.spans.get(score.culprit).zip(measure.calls.get(score.culprit)) else {
            return nothing("the trace has no such call");
        };
        let Some((task, key, judged)) = judge(&self.tasks, measured, &self.config) else {
            return nothing("nothing is known of the calls of this trace");
        };
        let habits = task.habits(&self.config);
        let (own_ms, n_calls) = (measure.shape.self_nanos[score.culprit] as f64 / 1e6, measure.n_calls[score.culprit]);
        let is_of_calls = judged.calls_off.abs() > judged.time_off.abs();
        let did = match (is_of_calls, n_calls) {
            (false, _) => format!("spent {own_ms:.1} ms of its own"),
            (true, 1) => "made 1 call".to_owned(),
            (true, n_calls) => format!("made {n_calls} calls"),
        };
        let usual: Vec<String> = habits
            .iter()
            .take(MAX_NAMED)
            .map(|(habit, share)| {
                let what = if is_of_calls { self.calls_of(habit) } else { self.ms_of(habit) };
                format!("{what} ({:.0} %)", 100.0 * share)
            })
            .collect();
        let place = if key == measured.path { "on this path" } else { "elsewhere; this path is seldom taken" };
        let mut others: Vec<(usize, Judged)> = (0..measure.calls.len())
            .filter(|&other| other != score.culprit)
            .filter_map(|other| Some((other, judge(&self.tasks, &measure.calls[other], &self.config)?.2)))
            .filter(|(_, other)| 2.0 * other.nats >= judged.nats && other.distance > 1.0)
            .collect();
        others.sort_by(|one, other| other.1.nats.total_cmp(&one.1.nats));
        let summary = format!(
            "{} {} {did}, where its habits are {} {place}; {} of the other {} calls of the trace are at least half as odd",
            trace.service(span),
            trace.operation(span),
            usual.join(", "),
            others.len(),
            measure.calls.len() - 1,
        );
        let spans = std::iter::once(score.culprit).chain(others.into_iter().map(|(other, _)| other));
        let records: Vec<RecordId> = spans.take(Evidence::MAX_RECORDS).map(|span| trace.spans[span].record).collect();
        let nearest = habits.iter().find(|(habit, _)| *habit == judged.habit);
        let figures = [
            ("own_ms", own_ms),
            ("usual_ms", self.own_ms_of(&judged.habit)),
            ("calls", f64::from(n_calls)),
            ("usual_calls", judged.habit.calls.exp_m1().max(0.0)),
            ("distance", judged.distance),
            ("share_of_habit", nearest.map_or(0.0, |(_, share)| *share)),
        ];
        Evidence {
            summary,
            culprit: Some(span.record),
            records,
            figures: figures.map(|(name, figure)| (name.to_owned(), figure)).into(),
            ..Evidence::default()
        }
    }

    /// Milliseconds of its own that a call of this habit spends.
    fn own_ms_of(&self, habit: &Cluster) -> f64 {
        (habit.time.exp() - self.config.floor_ms).max(0.0)
    }

    fn ms_of(&self, habit: &Cluster) -> String {
        format!("{:.1} ms", self.own_ms_of(habit))
    }

    fn calls_of(&self, habit: &Cluster) -> String {
        let n_calls = habit.calls.exp_m1().max(0.0);
        format!("{n_calls:.1} calls in {}", self.ms_of(habit))
    }
}
