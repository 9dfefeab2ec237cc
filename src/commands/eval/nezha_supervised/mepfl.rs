//! MEPFL's three questions: whether a trace was disturbed, by which service, by what.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use faultline_core::TraceWindow;
use faultline_datasets::{ProtocolInfo, ResultRow, Usage, loaders::nezha::Fault, usage::reset_peak_rss};
use faultline_detectors::supervised::{
    labels::{self, Label},
    mepfl::{Config, Mepfl},
};

use super::{
    MEPFL, Split,
    tally::{Answer, Tally, ranked},
};

/// Name of the row of commonest answers.
const COMMONEST: &str = "commonest answer";

/// The commonest of some names first.
fn commonest<'a>(names: impl Iterator<Item = &'a str>) -> Vec<(String, f64)> {
    let mut counts: BTreeMap<String, f64> = BTreeMap::new();
    names.for_each(|name| *counts.entry(name.to_owned()).or_default() += 1.0);
    ranked(&counts).into_iter().map(|name| (name.to_owned(), counts[name])).collect()
}

/// Fits on each split's training part and judges its test part: a row of the model, and one of commonest answers.
pub fn judge(
    info: &ProtocolInfo,
    part: &str,
    splits: &[Split<'_, '_>],
    faults: &[Fault],
    seed: u64,
) -> anyhow::Result<Vec<ResultRow>> {
    reset_peak_rss();
    let before = Usage::now();
    let (mut tally, mut trivial) = (Tally::default(), Tally::default());
    let (mut seconds, mut n_spans) = (0.0, 0);
    for split in splits {
        let labelled = split.train.iter().filter_map(|case| Some((case.trace, case.label.clone()?)));
        let (traces, labels): (Vec<TraceWindow<'_>>, Vec<Label>) = labelled.unzip();
        let mut model = Mepfl::fit_labelled(&Config::default(), &traces, &labels, seed)?;
        let shown: Vec<&labels::Fault> = labels.iter().filter_map(Label::fault).collect();
        let services: BTreeSet<&str> = shown.iter().map(|fault| &*fault.service).collect();
        let kinds: BTreeSet<&str> = shown.iter().map(|fault| &*fault.kind).collect();
        let common_services = commonest(shown.iter().map(|fault| &*fault.service));
        let common_kinds = commonest(shown.iter().map(|fault| &*fault.kind));
        let common_error = f64::from(u8::from(2 * shown.len() > labels.len()));
        for case in &split.test {
            let Some(label) = &case.label else { continue };
            let started = Instant::now();
            let Some(found) = model.predict(&case.trace) else { continue };
            seconds += started.elapsed().as_secs_f64();
            n_spans += case.trace.spans.len();
            let name = |service: u32| case.trace.services.get(service as usize).map_or("", |name| &**name).to_owned();
            let answer = Answer {
                error: found.error,
                is_noticed: found.error > 0.5,
                services: found.services.iter().map(|(service, share)| (name(*service), *share)).collect(),
                kinds: model.kinds().iter().map(|kind| kind.to_string()).zip(found.kinds).collect(),
            };
            let fault = label.fault();
            tally.add(case, fault, answer);
            let answer = Answer {
                error: common_error,
                is_noticed: common_error > 0.5,
                services: common_services.clone(),
                kinds: common_kinds.clone(),
            };
            trivial.add(case, fault, answer);
            for own in [&mut tally, &mut trivial] {
                own.n_new_services += usize::from(fault.is_some_and(|fault| !services.contains(&*fault.service)));
                own.n_new_kinds += usize::from(fault.is_some_and(|fault| !kinds.contains(&*fault.kind)));
            }
        }
    }
    let mut row = tally.row(info, part, MEPFL, faults);
    row.seed = Some(seed);
    row.records_per_second = Some(n_spans as f64 / seconds).filter(|rate| rate.is_finite());
    row.cpu_seconds = Usage::now().cpu_seconds_since(&before);
    row.peak_rss_bytes = Usage::now().peak_rss_bytes;
    Ok(vec![row, trivial.row(info, part, COMMONEST, faults)])
}

#[cfg(test)]
mod tests {
    use faultline_detectors::testing::{TraceFixture, application};

    use super::{super::Case, *};

    #[test]
    fn the_commonest_comes_first_and_of_several_the_first_by_name() {
        let found = commonest(["cart", "stock", "stock", "mail"].into_iter());
        assert_eq!(found, [("stock".to_owned(), 2.0), ("cart".to_owned(), 1.0), ("mail".to_owned(), 1.0)]);
    }

    fn case<'a>(trace: &'a TraceFixture, label: &Label, nearest: usize) -> Case<'a> {
        Case { trace: trace.trace(), label: Some(label.clone()), start_unix_nano: 0, nearest }
    }

    /// Of a trace that was spoiled the third span's service is held to be the culprit.
    fn cases(traces: &[(TraceFixture, bool)]) -> Vec<Case<'_>> {
        let label = |trace: &TraceFixture, is_spoiled: bool| {
            let fault = labels::Fault { service: trace.services[2].clone(), kind: "odd".into() };
            if is_spoiled { Label::Fault(fault) } else { Label::Normal }
        };
        traces.iter().map(|(trace, is_spoiled)| case(trace, &label(trace, *is_spoiled), 0)).collect()
    }

    #[test]
    fn a_model_of_one_part_judges_another() {
        let (learned, judged) = (application(1, 400, 0.3), application(2, 200, 0.3));
        let (learned, judged) = (cases(&learned), cases(&judged));
        let split = Split { train: learned.iter().collect(), test: judged.iter().collect() };
        let info = faultline_datasets::protocol("nezha-supervised").expect("it is listed");
        let faults = [Fault { time_unix_nano: 0, pod: "cart".to_owned(), kind: "odd".to_owned() }];
        let rows = judge(info, "part", &[split], &faults, 1).expect("there are labels");
        let [model, trivial] = rows.as_slice() else { panic!("{rows:?}") };
        assert!(model.f1.is_some_and(|f1| f1 > 0.8), "{:?}", model.f1);
        assert_eq!((trivial.f1, trivial.recall), (Some(0.0), Some(0.0)), "most are normal");
        assert_eq!(model.extra["new_kind_share"].as_f64(), Some(0.0));
        assert_eq!(model.n, 200);
    }
}
