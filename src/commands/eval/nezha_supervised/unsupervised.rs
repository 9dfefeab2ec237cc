//! What detectors reach on the same traces that know of no fault: fitted on the normal ones of the training part.
//!
//! They take the labels for granted as far as these say what is normal, and nothing else. A trace is noticed above the
//! .99 quantile of the scores of those that they were fitted on; its service is that of the culprit, and the traces of
//! a fault vote, those that are not noticed with a hundredth.

use std::time::Instant;

use faultline_core::{Score, Window};
use faultline_datasets::{ProtocolInfo, ResultRow, Usage, loaders::nezha::Fault, usage::reset_peak_rss};
use faultline_detectors::{
    Algorithm,
    algorithms::{task_insight::TaskInsight, trace_vector::TraceVector},
    entry,
    supervised::labels::Label,
};
use serde_json::Value;

use super::{
    Split,
    tally::{Answer, Tally},
};

/// The detectors of traces.
pub const DETECTORS: [&str; 2] = [TraceVector::NAME, TaskInsight::NAME];

/// Share of the training's scores that a threshold leaves below it.
const QUANTILE: f64 = 0.99;

/// Weight of the vote of a trace that was not noticed.
const QUIET: f64 = 0.01;

/// A row of one detector.
pub fn judge(
    info: &ProtocolInfo,
    part: &str,
    splits: &[Split<'_, '_>],
    faults: &[Fault],
    name: &str,
) -> anyhow::Result<ResultRow> {
    reset_peak_rss();
    let before = Usage::now();
    let (mut tally, mut seconds, mut n_spans) = (Tally::default(), 0.0, 0);
    for split in splits {
        let normal = split.train.iter().filter(|case| case.label == Some(Label::Normal));
        let normal: Vec<Window<'_>> = normal.map(|case| Window::Trace(case.trace)).collect();
        let mut model = entry(name)?.fit(&Value::Null, &normal, 1)?;
        let mut scores: Vec<Option<Score>> = Vec::new();
        model.score(&normal, &mut scores);
        let mut values: Vec<f64> = scores.iter().flatten().map(|score| score.value).collect();
        values.sort_unstable_by(f64::total_cmp);
        let at = (QUANTILE * values.len() as f64).ceil() as usize;
        let threshold = values.get(at.saturating_sub(1)).copied().unwrap_or(f64::INFINITY);
        for case in &split.test {
            let Some(label) = &case.label else { continue };
            scores.clear();
            let started = Instant::now();
            model.score(&[Window::Trace(case.trace)], &mut scores);
            seconds += started.elapsed().as_secs_f64();
            n_spans += case.trace.spans.len();
            let Some(score) = scores.first().copied().flatten() else { continue };
            let is_noticed = score.value > threshold;
            let culprit = case.trace.spans.get(score.culprit).map(|span| case.trace.service(span).to_owned());
            let weight = if is_noticed { 1.0 } else { QUIET };
            let services = culprit.into_iter().map(|culprit| (culprit, weight)).collect();
            tally.add(case, label.fault(), Answer { error: score.value, is_noticed, services, kinds: Vec::new() });
        }
    }
    let mut row = tally.row(info, part, name, faults);
    row.records_per_second = Some(n_spans as f64 / seconds).filter(|rate| rate.is_finite());
    row.cpu_seconds = Usage::now().cpu_seconds_since(&before);
    row.peak_rss_bytes = Usage::now().peak_rss_bytes;
    Ok(row)
}

#[cfg(test)]
mod tests {
    use faultline_detectors::{
        supervised::labels,
        testing::{TraceFixture, application},
    };

    use super::{super::Case, *};

    /// Of a trace that was spoiled the third span's service is held to be the culprit.
    fn cases(traces: &[(TraceFixture, bool)]) -> Vec<Case<'_>> {
        let mut cases = Vec::new();
        for (trace, is_spoiled) in traces {
            let fault = labels::Fault { service: trace.services[2].clone(), kind: "odd".into() };
            let label = if *is_spoiled { Label::Fault(fault) } else { Label::Normal };
            cases.push(Case { trace: trace.trace(), label: Some(label), start_unix_nano: 0, nearest: 0 });
        }
        cases
    }

    #[test]
    fn they_learn_what_is_normal_and_notice_what_is_not() {
        let (learned, judged) = (application(1, 600, 0.3), application(2, 200, 0.3));
        let (learned, judged) = (cases(&learned), cases(&judged));
        let split = Split { train: learned.iter().collect(), test: judged.iter().collect() };
        let info = faultline_datasets::protocol("nezha-supervised").expect("it is listed");
        let faults = [Fault { time_unix_nano: 0, pod: "cart".to_owned(), kind: "odd".to_owned() }];
        for name in DETECTORS {
            let row = judge(info, "part", std::slice::from_ref(&split), &faults, name).expect("there are traces");
            assert!(row.auprc.is_some_and(|auprc| auprc > 0.6), "{name}: {:?}", row.auprc);
            assert!(row.recall.is_some_and(|recall| recall > 0.4), "{name}: {:?}", row.recall);
            assert_eq!((row.extra["n_faults"].as_u64(), row.n), (Some(1), 200), "{name}");
        }
    }
}
