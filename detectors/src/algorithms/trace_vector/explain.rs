//! What is said of a trace: how much longer it took and where, or in what it differs from what is common.

use faultline_core::{Evidence, RecordId, Score, TraceWindow, Window};

use super::{
    Kinds, Measure,
    kinds::{Account, Judgement, Kind, Path},
};

/// Call paths that a summary names.
const MAX_NAMED: usize = 3;

impl Kinds {
    /// What there is to say of a trace whose culprit `score` has named.
    pub(in crate::algorithms) fn evidence(&self, window: &Window<'_>, score: &Score) -> Evidence {
        let nothing = |why: &str| Evidence { summary: why.to_owned(), ..Evidence::default() };
        let Some(trace) = window.as_trace() else { return nothing("the window is no trace") };
        let mut measure = Measure::default();
        if !measure.take(trace) {
            return nothing("the trace has no spans, or not all of them");
        }
        let vector = measure.vector();
        let Some(judgement) = self.judge(&vector) else { return nothing("the trace takes no call path") };
        let kind = judgement.kind.map(|idx| &self.kinds[idx]);
        let mut figures = vec![
            ("n_paths", vector.paths.len() as f64),
            ("trace_ms", vector.ms.iter().copied().fold(0.0, f64::max)),
            ("distance", judgement.distance as f64),
        ];
        if let Some(kind) = kind {
            figures.push(("n_traces_of_kind", kind.n_traces as f64));
            figures.push(("share_of_kind", if judgement.account == Account::Unseen { 0.0 } else { kind.share }));
        }
        let (summary, paths) = match (judgement.account, kind) {
            (Account::Time, Some(kind)) => delay(trace, &measure, kind, score, &mut figures),
            _ => self.structure(trace, &measure, &judgement),
        };
        let record_of = |span: usize| trace.spans.get(span).map(|span| span.record);
        let spans = std::iter::once(score.culprit).chain(paths.iter().map(|&path| measure.times[path].span));
        let mut records: Vec<RecordId> = Vec::new();
        for record in spans.filter_map(record_of) {
            if records.len() < Evidence::MAX_RECORDS && !records.contains(&record) {
                records.push(record);
            }
        }
        Evidence {
            summary,
            culprit: record_of(score.culprit),
            records,
            figures: figures.into_iter().map(|(name, figure)| (name.to_owned(), figure)).collect(),
            ..Evidence::default()
        }
    }

    /// In what the trace differs from what is common, and the paths to show.
    fn structure(&self, trace: &TraceWindow<'_>, measure: &Measure, judgement: &Judgement) -> (String, Vec<usize>) {
        let vector = measure.vector();
        let what = match judgement.account {
            Account::Unseen => "no trace in training took these call paths".to_owned(),
            _ => {
                let kind = judgement.kind.map(|idx| &self.kinds[idx]);
                let (share, n) = kind.map_or((0.0, 0), |kind| (kind.share, kind.n_traces));
                format!("{:.2} % of the traces that begin like this one, {}, are of its kind", 100.0 * share, traces(n))
            }
        };
        let Some(model) = self.model_of(&vector, judgement) else {
            let begins = trace.spans.first().map_or(("", ""), |span| (trace.service(span), trace.operation(span)));
            return (format!("{what}; none that is common begins with {} {}", begins.0, begins.1), Vec::new());
        };
        let (extra, missing) = self.difference(&vector, model);
        let parts = [
            (extra.len(), "adds", names(extra.iter().map(|&idx| measure.path(trace, idx).label))),
            (missing.len(), "lacks", names(missing.iter().map(|path| label(path)))),
        ];
        let parts: Vec<String> =
            parts.into_iter().filter(|part| part.0 > 0).map(|(n, how, names)| format!("{how} {n} ({names})")).collect();
        let nearest = traces(self.kinds[model].n_traces);
        (format!("{what}; to the nearest kind, of {nearest}, it {}", parts.join(" and ")), extra)
    }
}

/// What took longer than it ever did, and the paths to show, the worst first.
fn delay(
    trace: &TraceWindow<'_>,
    measure: &Measure,
    kind: &Kind,
    score: &Score,
    figures: &mut Vec<(&'static str, f64)>,
) -> (String, Vec<usize>) {
    let excesses: Vec<f64> = kind.excesses(&measure.ms).collect();
    let mut worst: Vec<usize> = (0..excesses.len()).filter(|&idx| excesses[idx] > 0.0).collect();
    worst.sort_by(|&one, &other| excesses[other].total_cmp(&excesses[one]));
    let n_worse = worst.len();
    worst.truncate(Evidence::MAX_RECORDS);
    let named = measure.times.iter().position(|time| time.span == score.culprit);
    let summary = match named.zip(trace.spans.get(score.culprit)) {
        Some((path, span)) => {
            let (ms, longest) = (measure.ms[path], kind.longest[path]);
            figures.extend([("ms", ms), ("longest_ms", longest)]);
            format!(
                "{} {} took {ms:.1} ms, where {longest:.1} ms are the longest that is usual in {} of this kind; {} of \
                 its {} call paths took longer than they do",
                trace.service(span),
                trace.operation(span),
                traces(kind.n_traces),
                n_worse,
                excesses.len(),
            )
        }
        None => format!("the trace took longer than {} of its kind", traces(kind.n_traces)),
    };
    (summary, worst)
}

fn label(path: &Path) -> String {
    if path.label.is_empty() { format!("path {:x}", path.path) } else { path.label.clone() }
}

/// The first few of some names.
fn names(all: impl ExactSizeIterator<Item = String>) -> String {
    let n_more = all.len().saturating_sub(MAX_NAMED);
    let named: Vec<String> = all.take(MAX_NAMED).collect();
    let more = if n_more > 0 { format!(" and {n_more} more") } else { String::new() };
    named.join(", ") + &more
}

fn traces(n: u64) -> String {
    if n == 1 { "1 trace".to_owned() } else { format!("{n} traces") }
}
