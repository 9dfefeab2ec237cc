//! MEPFL's three questions: whether a trace was disturbed, by which service, by what.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use faultline_core::TraceWindow;
use faultline_datasets::{
    Confusion, ProtocolInfo, ResultRow, Usage, average_precision, loaders::nezha::Fault, report::RootCauseFigures,
    usage::reset_peak_rss,
};
use faultline_detectors::supervised::{
    labels::{self, Label},
    mepfl::{Config, Mepfl},
};
use serde_json::{Map, Value, json};

use super::{Case, MEPFL, Split};

/// Ranks that are counted.
const RANKS: usize = 5;

/// Name of the row of commonest answers.
const COMMONEST: &str = "commonest answer";

/// Answers about one fault, added up over its traces.
#[derive(Default)]
struct Votes {
    n_traces: usize,
    n_noticed: usize,
    services: BTreeMap<String, f64>,
    kinds: BTreeMap<String, f64>,
}

/// What was right so far.
#[derive(Default)]
struct Tally {
    scores: Vec<f64>,
    truth: Vec<bool>,
    counts: Confusion,
    n_faulty: usize,
    /// Faulty traces whose service is among the first k, by k − 1.
    n_ranked: [usize; RANKS],
    n_kinds: usize,
    /// Faulty traces whose service, or whose kind, training did not have.
    n_new_services: usize,
    n_new_kinds: usize,
    /// By fault.
    votes: BTreeMap<usize, Votes>,
}

/// One answer.
struct Answer {
    error: f64,
    /// Names, the likeliest first, with weights.
    services: Vec<(String, f64)>,
    kinds: Vec<(String, f64)>,
}

impl Tally {
    fn add(&mut self, case: &Case<'_>, fault: Option<&labels::Fault>, answer: Answer) {
        self.scores.push(answer.error);
        self.truth.push(fault.is_some());
        let is_noticed = answer.error > 0.5;
        self.counts.add(is_noticed, fault.is_some());
        let Some(fault) = fault else { return };
        self.n_faulty += 1;
        let rank = answer.services.iter().position(|(service, _)| **service == *fault.service);
        self.n_ranked.iter_mut().skip(rank.unwrap_or(RANKS)).for_each(|n| *n += 1);
        let kind = answer.kinds.iter().reduce(|best, own| if own.1 > best.1 { own } else { best });
        self.n_kinds += usize::from(kind.is_some_and(|(kind, _)| **kind == *fault.kind));
        let votes = self.votes.entry(case.nearest).or_default();
        votes.n_traces += 1;
        votes.n_noticed += usize::from(is_noticed);
        for (names, answers) in [(&mut votes.services, answer.services), (&mut votes.kinds, answer.kinds)] {
            for (name, weight) in answers {
                *names.entry(name).or_default() += weight;
            }
        }
    }

    fn row(&self, info: &ProtocolInfo, part: &str, name: &str, faults: &[Fault]) -> ResultRow {
        let share = |n: usize, all: usize| (all > 0).then(|| n as f64 / all as f64);
        let of_faulty = |n: usize| share(n, self.n_faulty);
        let n_right = self.counts.true_positives + self.counts.true_negatives;
        let mut by_kind: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
        let (mut n_first, mut n_kinds) = ([0; RANKS], 0);
        for (idx, votes) in &self.votes {
            let fault = &faults[*idx];
            let place = ranked(&votes.services).iter().position(|service| *service == fault.service());
            n_first.iter_mut().skip(place.unwrap_or(RANKS)).for_each(|n| *n += 1);
            let is_kind = ranked(&votes.kinds).first().is_some_and(|kind| *kind == fault.kind);
            n_kinds += usize::from(is_kind);
            let own = by_kind.entry(&fault.kind).or_default();
            let counted = [votes.n_traces, votes.n_noticed, 1, usize::from(place == Some(0))];
            own.iter_mut().zip(counted).for_each(|(sum, own)| *sum += own);
        }
        let by_kind: Map<String, Value> = by_kind
            .into_iter()
            .map(|(kind, [n_traces, n_noticed, n_faults, n_first])| {
                let own = json!({
                    "n_traces": n_traces, "n_noticed": n_noticed, "n_faults": n_faults, "n_ranked_first": n_first,
                });
                (kind.to_owned(), own)
            })
            .collect();
        let mut row = ResultRow::new(info.name, part, name)
            .with_confusion(&self.counts)
            .with_extra("accuracy", share(n_right as usize, self.truth.len()))
            .with_extra("balanced_accuracy", self.counts.balanced_accuracy())
            .with_extra("n_faulty", self.n_faulty)
            .with_extra("service_top_1", of_faulty(self.n_ranked[0]))
            .with_extra("service_top_3", of_faulty(self.n_ranked[2]))
            .with_extra("kind_accuracy", of_faulty(self.n_kinds))
            .with_extra("new_service_share", of_faulty(self.n_new_services))
            .with_extra("new_kind_share", of_faulty(self.n_new_kinds))
            .with_extra("n_faults", self.votes.len())
            .with_extra("kind_accuracy_by_fault", share(n_kinds, self.votes.len()))
            .with_extra("by_kind", Value::Object(by_kind));
        row.auprc = average_precision(&self.scores, &self.truth);
        if !self.votes.is_empty() {
            let ac = n_first.map(|n| n as f64 / self.votes.len() as f64);
            let avg_at_5 = ac.iter().sum::<f64>() / RANKS as f64;
            row.root_cause =
                Some(RootCauseFigures { ac_at_1: ac[0], ac_at_3: ac[2], ac_at_5: ac[RANKS - 1], avg_at_5 });
        }
        row
    }
}

/// Names, that of the largest weight first.
fn ranked(weights: &BTreeMap<String, f64>) -> Vec<&str> {
    let mut names: Vec<(&String, &f64)> = weights.iter().collect();
    names.sort_by(|one, other| other.1.total_cmp(one.1));
    names.into_iter().map(|(name, _)| name.as_str()).collect()
}

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
                services: found.services.iter().map(|(service, share)| (name(*service), *share)).collect(),
                kinds: model.kinds().iter().map(|kind| kind.to_string()).zip(found.kinds).collect(),
            };
            let fault = label.fault();
            tally.add(case, fault, answer);
            let answer = Answer { error: common_error, services: common_services.clone(), kinds: common_kinds.clone() };
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

    use super::*;

    #[test]
    fn the_commonest_comes_first_and_of_several_the_first_by_name() {
        let found = commonest(["cart", "stock", "stock", "mail"].into_iter());
        assert_eq!(found, [("stock".to_owned(), 2.0), ("cart".to_owned(), 1.0), ("mail".to_owned(), 1.0)]);
    }

    fn case<'a>(trace: &'a TraceFixture, label: &Label, nearest: usize) -> Case<'a> {
        Case { trace: trace.trace(), label: Some(label.clone()), start_unix_nano: 0, nearest }
    }

    #[test]
    fn answers_are_counted_by_trace_and_by_fault() {
        let trace = TraceFixture::of("t", &[(None, "cart", 0, 5)]);
        let fault = |service: &str| labels::Fault { service: service.into(), kind: "delay".into() };
        let answer = |error: f64, services: [&str; 2]| Answer {
            error,
            services: services
                .map(|service| (service.to_owned(), if service == services[0] { 2.0 } else { 1.0 }))
                .into(),
            kinds: vec![("cpu".to_owned(), 0.4), ("delay".to_owned(), 0.6)],
        };
        let mut tally = Tally::default();
        let normal = case(&trace, &Label::Normal, 0);
        tally.add(&normal, None, answer(0.2, ["cart", "stock"]));
        tally.add(&normal, None, answer(0.7, ["cart", "stock"]));
        let (one, other) = (fault("stock"), fault("cart"));
        tally.add(&case(&trace, &Label::Fault(one.clone()), 0), Some(&one), answer(0.9, ["cart", "stock"]));
        tally.add(&case(&trace, &Label::Fault(one.clone()), 0), Some(&one), answer(0.1, ["stock", "cart"]));
        tally.add(&case(&trace, &Label::Fault(one.clone()), 0), Some(&one), answer(0.9, ["stock", "cart"]));
        tally.add(&case(&trace, &Label::Fault(other.clone()), 1), Some(&other), answer(0.9, ["mail", "stock"]));
        let fault = |pod: &str| Fault { time_unix_nano: 0, pod: pod.to_owned(), kind: "delay".to_owned() };
        let info = faultline_datasets::protocol("nezha-supervised").expect("it is listed");
        let row = tally.row(info, "part", "mepfl", &[fault("stock"), fault("cart")]);
        assert_eq!((row.precision, row.recall), (Some(0.75), Some(0.75)));
        assert_eq!((row.extra["service_top_1"].as_f64(), row.extra["service_top_3"].as_f64()), (Some(0.5), Some(0.75)));
        assert_eq!((row.extra["accuracy"].as_f64(), row.extra["kind_accuracy"].as_f64()), (Some(4.0 / 6.0), Some(1.0)));
        let cause = row.root_cause.expect("there are faults");
        assert_eq!(
            (cause.ac_at_1, cause.ac_at_5),
            (0.5, 0.5),
            "the first is outvoted to the right, the second never named"
        );
        assert_eq!(row.extra["by_kind"]["delay"]["n_noticed"], 3);
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
