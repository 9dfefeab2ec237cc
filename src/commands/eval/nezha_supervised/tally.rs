//! What was right about traces and, by the votes of their traces, about faults.

use std::collections::BTreeMap;

use faultline_datasets::{
    Confusion, ProtocolInfo, ResultRow, average_precision, loaders::nezha::Fault, report::RootCauseFigures,
};
use faultline_detectors::supervised::labels;
use serde_json::{Map, Value, json};

use super::Case;

/// Ranks that are counted.
const RANKS: usize = 5;

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
pub struct Tally {
    scores: Vec<f64>,
    truth: Vec<bool>,
    counts: Confusion,
    n_faulty: usize,
    /// Faulty traces whose service is among the first k, by k − 1.
    n_ranked: [usize; RANKS],
    n_kinds: usize,
    /// Faulty traces whose service, or whose kind, training did not have.
    pub n_new_services: usize,
    pub n_new_kinds: usize,
    /// By fault.
    votes: BTreeMap<usize, Votes>,
}

/// One answer.
pub struct Answer {
    /// The higher the more is wrong with the trace.
    pub error: f64,
    /// Whether that is said to be a fault.
    pub is_noticed: bool,
    /// Names, the likeliest first, with weights.
    pub services: Vec<(String, f64)>,
    pub kinds: Vec<(String, f64)>,
}

impl Tally {
    pub fn add(&mut self, case: &Case<'_>, fault: Option<&labels::Fault>, answer: Answer) {
        self.scores.push(answer.error);
        self.truth.push(fault.is_some());
        let is_noticed = answer.is_noticed;
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

    pub fn row(&self, info: &ProtocolInfo, part: &str, name: &str, faults: &[Fault]) -> ResultRow {
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
pub fn ranked(weights: &BTreeMap<String, f64>) -> Vec<&str> {
    let mut names: Vec<(&String, &f64)> = weights.iter().collect();
    names.sort_by(|one, other| other.1.total_cmp(one.1));
    names.into_iter().map(|(name, _)| name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use faultline_detectors::{supervised::labels::Label, testing::TraceFixture};

    use super::*;

    fn case<'a>(trace: &'a TraceFixture, label: &Label, nearest: usize) -> Case<'a> {
        Case { trace: trace.trace(), label: Some(label.clone()), start_unix_nano: 0, nearest }
    }

    #[test]
    fn answers_are_counted_by_trace_and_by_fault() {
        let trace = TraceFixture::of("t", &[(None, "cart", 0, 5)]);
        let fault = |service: &str| labels::Fault { service: service.into(), kind: "delay".into() };
        let answer = |error: f64, services: [&str; 2]| Answer {
            error,
            is_noticed: error > 0.5,
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
}
