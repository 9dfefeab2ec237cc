//! `nezha-supervised`: what models learn from faults whose time, service and kind are known (`detectors::supervised`).
//!
//! A trace is an example of a fault if it called the faulty service while the fault was surely there, between half a
//! minute and two and a half minutes after the injection in the list; within two minutes around that it is nothing,
//! since effects begin and end when they like; else it is normal ([`Episodes`]). Two splits:
//!
//! - by day, where there are several: learn on the first, judge the last. On TrainTicket their kinds of faults have
//!   nothing in common, so no fault type can be right;
//! - in folds: the faults, in order of time, are dealt to [`FOLDS`] folds, each with the traces nearest to it in time.
//!   So no trace is judged by a model that has seen its fault, though mostly by one that has seen another of its kind
//!   or of its service.
//!
//! For MEPFL (`mepfl`) a row is by trace, its AC@k by fault: all traces of a fault vote. Beside it stand what the
//! commonest answer of the training part reaches, and detectors that know of no fault (`unsupervised`). For Seer
//! (`seer`) a row is by tick before a violation. Nothing was chosen with sight of the results.
//!
//! Cost: all spans lie in memory; a seed takes a fit for each fold and one for the days.

mod mepfl;
mod seer;
mod tally;
mod unsupervised;

use std::collections::BTreeSet;

use faultline_core::{SpanBatch, SpanBatchBuilder, SpanRecord, TraceWindow, Window};
use faultline_datasets::{
    ProtocolInfo, ResultRow,
    loaders::nezha::{Fault, Minute, Nezha, Span, records},
};
use faultline_detectors::{
    TraceAssembler, TraceConfig,
    supervised::labels::{self, Episode, Episodes, Label},
};

use super::{Args, sessions::is_wanted};

/// The models, by the names that rows and `--detector` have for them.
const MEPFL: &str = "mepfl";
const SEER: &str = "seer";

/// Parts of the faults, each of which is judged by a model of the others.
const FOLDS: usize = 5;

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;

/// From when to when a fault was surely there, after its injection; and the time around that in which it may have been
/// there.
const CORE: (i64, i64) = (30 * SECOND, 150 * SECOND);
const MARGIN: i64 = 110 * SECOND;

/// A trace with what is known of it.
struct Case<'a> {
    trace: TraceWindow<'a>,
    /// None where nothing is known.
    label: Option<Label>,
    start_unix_nano: i64,
    /// The fault that is nearest in time.
    nearest: usize,
}

/// Which cases to learn from and which to judge.
struct Split<'a, 'w> {
    train: Vec<&'a Case<'w>>,
    test: Vec<&'a Case<'w>>,
}

/// Whether this protocol has a model of this name, which the registry does not.
pub fn has_method(name: &str) -> bool {
    [MEPFL, SEER].contains(&name)
}

/// Runs the protocol.
pub fn nezha_supervised(args: &Args, info: &ProtocolInfo, report: &mut dyn FnMut(ResultRow)) -> anyhow::Result<()> {
    let files = super::locate(args, info.dataset)?;
    let data = Nezha::load(&files.data)?;
    anyhow::ensure!(
        data.faults.len() >= FOLDS,
        "{}: {} faults, where {FOLDS} folds take one each",
        files.data.display(),
        data.faults.len()
    );
    let assembler = assemble(&data.minutes)?;
    let windows = assembler.ready();
    let cases = cases(&windows, &data.faults);
    let days: BTreeSet<i64> = data.faults.iter().map(|fault| fault.time_unix_nano.div_euclid(DAY)).collect();
    let by_day = match (days.first(), days.last()) {
        (Some(first), Some(last)) if first < last => Some(by_day(&cases, *first, *last)),
        _ => None,
    };
    let folds: Vec<Split<'_, '_>> = (0..FOLDS).map(|fold| fold_of(&cases, fold)).collect();
    let mut parts: Vec<(String, &[Split<'_, '_>])> = Vec::new();
    if let Some(split) = &by_day {
        parts.push((format!("{}, first day to last", info.dataset), std::slice::from_ref(split)));
    }
    let in_folds = format!("{}, {FOLDS} folds by fault", info.dataset);
    parts.push((in_folds.clone(), folds.as_slice()));
    for (part, splits) in &parts {
        for name in unsupervised::DETECTORS.into_iter().filter(|name| is_wanted(args, name)) {
            report(unsupervised::judge(info, part, splits, &data.faults, name)?);
        }
        for &seed in args.seeds.iter().filter(|_| is_wanted(args, MEPFL)) {
            mepfl::judge(info, part, splits, &data.faults, seed)?.into_iter().for_each(&mut *report);
        }
    }
    for &seed in args.seeds.iter().filter(|_| is_wanted(args, SEER)) {
        seer::judge(info, &in_folds, &cases, &data.faults, seed)?.into_iter().for_each(&mut *report);
    }
    Ok(())
}

/// The traces of all minutes.
fn assemble(minutes: &[Minute]) -> anyhow::Result<TraceAssembler> {
    /// The file of a minute may hold what began in the one before it.
    const LATENESS_MS: u64 = 120_000;
    let config = TraceConfig { allowed_lateness_ms: LATENESS_MS, ..TraceConfig::default() };
    let mut assembler = TraceAssembler::new(config)?;
    let mut first = 1;
    for minute in records(minutes) {
        let spans = minute?.spans;
        assembler.push(&batch(&spans).numbered_from(first));
        first += spans.len() as u64;
    }
    assembler.finish();
    Ok(assembler)
}

fn batch(spans: &[Span]) -> SpanBatch {
    let mut builder = SpanBatchBuilder::default();
    for span in spans {
        builder.push(&SpanRecord {
            trace_id: &span.trace_id,
            span_id: &span.span_id,
            parent_span_id: span.parent_id.as_deref().unwrap_or(""),
            name: &without_ids(&span.operation),
            service_name: span.service(),
            start_time_unix_nano: span.start_unix_nano,
            end_time_unix_nano: span.end_unix_nano,
            ..SpanRecord::default()
        });
    }
    builder.finish()
}

/// An operation without the UUIDs in its path, which would make a task of every call.
fn without_ids(operation: &str) -> String {
    let is_id = |part: &&str| {
        let is_right = |(at, byte): (usize, u8)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        };
        part.len() == 36 && part.bytes().enumerate().all(is_right)
    };
    let parts: Vec<&str> = operation.split('/').map(|part| if is_id(&part) { "{id}" } else { part }).collect();
    parts.join("/")
}

/// The middle of the time in which a fault was surely there.
fn middle(fault: &Fault) -> i64 {
    fault.time_unix_nano + (CORE.0 + CORE.1) / 2
}

fn nearest(faults: &[Fault], time_unix_nano: i64) -> usize {
    let distances = faults.iter().map(|fault| middle(fault).abs_diff(time_unix_nano));
    distances.enumerate().min_by_key(|(_, distance)| *distance).map_or(0, |(idx, _)| idx)
}

/// The traces, in order of their start.
fn cases<'a>(windows: &[Window<'a>], faults: &[Fault]) -> Vec<Case<'a>> {
    let episode = |fault: &Fault| Episode {
        fault: labels::Fault { service: fault.service().into(), kind: fault.kind.as_str().into() },
        start_unix_nano: fault.time_unix_nano + CORE.0,
        end_unix_nano: fault.time_unix_nano + CORE.1,
    };
    let episodes = Episodes::new(faults.iter().map(episode).collect(), MARGIN);
    let case = |trace: &TraceWindow<'a>| {
        let (start_unix_nano, _) = trace.span_unix_nano();
        let nearest = nearest(faults, start_unix_nano);
        Case { trace: *trace, label: episodes.label(trace), start_unix_nano, nearest }
    };
    let mut cases: Vec<Case<'a>> = windows.iter().filter_map(Window::as_trace).map(case).collect();
    cases.sort_by_key(|case| case.start_unix_nano);
    cases
}

fn by_day<'a, 'w>(cases: &'a [Case<'w>], first: i64, last: i64) -> Split<'a, 'w> {
    let of = |day: i64| -> Vec<&'a Case<'w>> {
        cases.iter().filter(|case| case.start_unix_nano.div_euclid(DAY) == day).collect()
    };
    Split { train: of(first), test: of(last) }
}

fn fold_of<'a, 'w>(cases: &'a [Case<'w>], fold: usize) -> Split<'a, 'w> {
    let (test, train) = cases.iter().partition(|case| case.nearest % FOLDS == fold);
    Split { train, test }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_taken_out_of_operations() {
        let operation = "GET /api/v1/orders/0f3d2c1b-aaaa-bbbb-cccc-0123456789ab/status";
        assert_eq!(without_ids(operation), "GET /api/v1/orders/{id}/status");
        assert_eq!(without_ids("HTTP POST"), "HTTP POST");
        assert_eq!(without_ids("/0f3d2c1b-aaaa-bbbb-cccc-0123456789ax"), "/0f3d2c1b-aaaa-bbbb-cccc-0123456789ax");
    }

    fn fault(seconds: i64, pod: &str) -> Fault {
        Fault { time_unix_nano: seconds * SECOND, pod: pod.to_owned(), kind: "delay".to_owned() }
    }

    fn span(trace: &str, pod: &str, seconds: i64) -> Span {
        Span {
            trace_id: format!("{trace:0>32}"),
            span_id: "0000000000000001".to_owned(),
            parent_id: None,
            pod: pod.to_owned(),
            operation: "do".to_owned(),
            start_unix_nano: seconds * SECOND,
            end_unix_nano: (seconds + 1) * SECOND,
        }
    }

    #[test]
    fn every_trace_is_judged_once_by_a_model_that_has_not_seen_its_fault() {
        let faults: Vec<Fault> = (0..7).map(|idx| fault(1_000 + 600 * idx, "cart")).collect();
        let mut assembler = TraceAssembler::new(TraceConfig::default()).expect("valid");
        let spans: Vec<Span> = (0..60)
            .map(|idx: i64| {
                span(&format!("{:x}", idx + 1), if idx % 2 == 0 { "cart" } else { "stock" }, 1_000 + 70 * idx)
            })
            .collect();
        assembler.push(&batch(&spans).numbered_from(1));
        assembler.finish();
        let windows = assembler.ready();
        let cases = cases(&windows, &faults);
        assert_eq!(cases.len(), 60);
        assert!(cases.iter().any(|case| case.label == Some(Label::Normal)));
        for case in &cases {
            let is_cart = case.trace.service(&case.trace.spans[0]) == "cart";
            let since = (case.start_unix_nano - faults[case.nearest].time_unix_nano) / SECOND;
            match &case.label {
                Some(Label::Fault(_)) => assert!(is_cart && (29..=150).contains(&since), "{since} s"),
                Some(Label::Normal) => assert!(!is_cart || !(-80..=260).contains(&since), "{since} s"),
                None => assert!(is_cart && (-81..=260).contains(&since), "{since} s"),
            }
        }
        let mut n_judged = 0;
        for fold in 0..FOLDS {
            let split = fold_of(&cases, fold);
            assert_eq!(split.train.len() + split.test.len(), 60);
            n_judged += split.test.len();
            let seen: BTreeSet<usize> = split.train.iter().map(|case| case.nearest).collect();
            assert!(split.test.iter().all(|case| !seen.contains(&case.nearest)));
        }
        assert_eq!(n_judged, 60);
    }
}
