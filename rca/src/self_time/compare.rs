//! The affected traces against the earlier ones: what was added, by whom, in figures and sentences.

use std::collections::{BTreeMap, BTreeSet};

use faultline_core::{Cause, CauseKind};
use rustc_hash::FxHashMap;

use super::{
    Kept, LocalizerKind, SelfTime,
    trace::{How, Origin, Spender, Tree},
};

/// A span of event time, both ends included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Period {
    pub from: i64,
    pub until: i64,
}

/// Earlier visits an operation needs before a change of it means anything.
const MIN_BEFORE: usize = 5;
/// Affected visits an operation needs.
const MIN_DURING: usize = 2;
/// Share of all added time from which an operation is worth a sentence.
const WEIGHTY_SHARE: f64 = 0.05;
/// A z-score larger than this says no more than this.
const MAX_Z: f64 = 1e3;

pub(crate) struct Comparison<'a> {
    view: &'a SelfTime,
    n_before: usize,
    n_during: usize,
    times: BTreeMap<Spender, Times>,
    errors: BTreeMap<u32, Errors>,
}

/// Self times of one operation, milliseconds.
#[derive(Default)]
struct Times {
    before: Vec<f64>,
    during: Vec<f64>,
}

/// Traces with an error that begins at one service.
#[derive(Default)]
struct Errors {
    n_before: usize,
    n_during: usize,
    /// Affected calls that it did not answer, by caller.
    silent_to: BTreeMap<u32, usize>,
}

/// How one operation's self time changed.
struct Change {
    spender: Spender,
    n_during: usize,
    median_before: f64,
    typical_during: f64,
    quantile: &'static str,
    z: f64,
    /// Added milliseconds over all affected traces.
    added_ms: f64,
}

impl<'a> Comparison<'a> {
    pub fn new(view: &'a SelfTime, before: &[&[Kept]], during: &[&[Kept]]) -> Self {
        let mut callees = view.learn_callees(before);
        for (call, callee) in view.learn_callees(during) {
            callees.entry(call).or_insert(callee);
        }
        let (n_before, n_during) = (before.len(), during.len());
        let mut comparison = Self { view, n_before, n_during, times: BTreeMap::new(), errors: BTreeMap::new() };
        comparison.take(before, &callees, Side::Before);
        comparison.take(during, &callees, Side::During);
        comparison
    }

    fn take(&mut self, traces: &[&[Kept]], callees: &FxHashMap<(u32, u32), u32>, side: Side) {
        for spans in traces {
            let tree = Tree::new(self.view, spans, callees);
            for (spender, nanos) in tree.self_times() {
                let times = self.times.entry(spender).or_default();
                let list = if side == Side::Before { &mut times.before } else { &mut times.during };
                list.push(nanos as f64 / 1e6);
            }
            let mut begun = BTreeSet::new();
            for origin in tree.origins() {
                let service = match origin {
                    Origin::Own(service) => service,
                    Origin::Silent { service, caller } => {
                        if side == Side::During {
                            *self.errors.entry(service).or_default().silent_to.entry(caller).or_default() += 1;
                        }
                        service
                    }
                };
                begun.insert(service);
            }
            for service in begun {
                let errors = self.errors.entry(service).or_default();
                *(if side == Side::Before { &mut errors.n_before } else { &mut errors.n_during }) += 1;
            }
        }
    }

    /// Suspects, likeliest first.
    pub fn causes(self) -> Vec<Cause> {
        if self.n_during == 0 {
            return Vec::new();
        }
        let n_during = self.n_during as f64;
        let mut changes: BTreeMap<u32, Vec<Change>> = BTreeMap::new();
        for (spender, times) in &self.times {
            if let Some(change) = self.change(*spender, times) {
                changes.entry(spender.service).or_default().push(change);
            }
        }
        let sum = |changes: &[Change]| changes.iter().map(|change| change.added_ms).sum::<f64>();
        let added_ms: f64 = changes.values().map(|changes| sum(changes)).sum::<f64>() / n_during;
        let usual_ms = self.times.values().flat_map(|times| &times.before).sum::<f64>() / self.n_before.max(1) as f64;
        let time_weight = if added_ms > 0.0 { added_ms / (usual_ms + added_ms) } else { 0.0 };

        let rate = |n: usize, of: usize| n as f64 / of.max(1) as f64;
        let added_errors: BTreeMap<u32, f64> = self
            .errors
            .iter()
            .map(|(service, e)| (*service, rate(e.n_during, self.n_during) - rate(e.n_before, self.n_before)))
            .filter(|(_, added)| *added > 0.0)
            .collect();
        let total_errors: f64 = added_errors.values().sum();
        let error_weight = total_errors.min(1.0);

        let mut scores: BTreeMap<u32, f64> = BTreeMap::new();
        for (service, changes) in &changes {
            *scores.entry(*service).or_default() += time_weight * sum(changes) / n_during / added_ms;
        }
        for (service, added) in &added_errors {
            *scores.entry(*service).or_default() += error_weight * added / total_errors;
        }
        let total: f64 = scores.values().sum();
        if total < self.view.config.min_score {
            return Vec::new();
        }
        let mut ranked: Vec<(u32, f64)> = scores.into_iter().filter(|(_, score)| *score > 0.0).collect();
        ranked.sort_by(|(a, x), (b, y)| y.total_cmp(x).then_with(|| self.view.name_of(*a).cmp(self.view.name_of(*b))));
        ranked.truncate(self.view.config.max_causes);
        let cause = |(service, score): (u32, f64)| {
            let changes = changes.get(&service).map_or(&[][..], Vec::as_slice);
            let mut evidence = self.time_sentences(changes, added_ms * n_during);
            evidence.extend(self.error_sentences(service, added_errors.contains_key(&service)));
            Cause {
                kind: CauseKind::Service,
                name: self.view.name_of(service).into(),
                score,
                confidence: score / total,
                evidence,
                localizer: SelfTime::NAME.into(),
            }
        };
        ranked.into_iter().map(cause).collect()
    }

    /// How an operation changed, if it did and for the worse.
    fn change(&self, spender: Spender, times: &Times) -> Option<Change> {
        if times.during.len() < MIN_DURING || self.n_before == 0 {
            return None;
        }
        let (mut before, mut during) = (times.before.clone(), times.during.clone());
        before.sort_by(f64::total_cmp);
        during.sort_by(f64::total_cmp);
        // A call that nobody answers any more has no time before: it took none.
        if before.len() < MIN_BEFORE && spender.how != How::Unseen {
            return None;
        }
        let median_before = quantile(&before, 0.5);
        let mut deviations: Vec<f64> = before.iter().map(|ms| (ms - median_before).abs()).collect();
        deviations.sort_by(f64::total_cmp);
        // The floor keeps a constant time from making every hair's breadth a wonder.
        let spread = 1.4826 * quantile(&deviations, 0.5) + 0.05 * median_before + 0.05;
        // When a share of visits is hit, the median stays; then the upper tail tells.
        let at = |q: f64| (quantile(&during, q) - quantile(&before, q)) / spread;
        let (z, quantile_name, typical_during) = if at(0.5) >= self.view.config.min_z {
            (at(0.5), "median", quantile(&during, 0.5))
        } else {
            (at(0.9) / 2.0, "90th percentile", quantile(&during, 0.9))
        };
        if z < self.view.config.min_z {
            return None;
        }
        let above = |list: &[f64]| list.iter().map(|ms| (ms - median_before).max(0.0)).sum::<f64>();
        let usual = if before.is_empty() { 0.0 } else { above(&before) / before.len() as f64 };
        let added_ms = above(&during) - usual * during.len() as f64;
        let n_during = during.len();
        let z = z.min(MAX_Z);
        (added_ms > 0.0).then_some(Change {
            spender,
            n_during,
            median_before: if quantile_name == "median" { median_before } else { quantile(&before, 0.9) },
            typical_during,
            quantile: quantile_name,
            z,
            added_ms,
        })
    }

    /// The operations that added most, at most three, in words; those that added next to nothing only confuse.
    fn time_sentences(&self, changes: &[Change], all_added_ms: f64) -> Vec<String> {
        let mut order: Vec<&Change> = changes.iter().collect();
        order.sort_by(|a, b| b.added_ms.total_cmp(&a.added_ms).then_with(|| a.spender.cmp(&b.spender)));
        let sentence = |change: &&Change| {
            let Change { spender, n_during, median_before, typical_during, quantile, z, added_ms } = change;
            let (service, name) = (self.view.name_of(spender.service), self.view.name_of(spender.name));
            let what = match spender.how {
                How::Own => "self time of",
                How::Way => "time between caller and",
                How::Unseen => "time that callers wait for",
            };
            format!(
                "{what} {service} {name} rose from {} to {} ({quantile} of {n_during} visits, robust z {z:.0}), {:.0} % \
                 of all added time",
                ms(*median_before),
                ms(*typical_during),
                100.0 * added_ms / all_added_ms,
            )
        };
        let weighty = order.iter().take(3).filter(|change| change.added_ms >= WEIGHTY_SHARE * all_added_ms);
        weighty.map(sentence).collect()
    }

    fn error_sentences(&self, service: u32, added: bool) -> Vec<String> {
        let mut sentences = Vec::new();
        let Some(errors) = self.errors.get(&service).filter(|_| added) else { return sentences };
        let name = self.view.name_of(service);
        sentences.push(format!(
            "{} of {} affected traces have an error that begins at {name} (before: {} of {})",
            errors.n_during, self.n_during, errors.n_before, self.n_before
        ));
        let mut callers: Vec<_> = errors.silent_to.iter().collect();
        callers.sort_by_key(|(caller, n)| (std::cmp::Reverse(**n), self.view.name_of(**caller)));
        for (caller, n_calls) in callers.into_iter().take(3) {
            sentences.push(format!("{name} did not answer {n_calls} calls from {}", self.view.name_of(*caller)));
        }
        sentences
    }
}

/// On which side of the incident's beginning a trace lies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    During,
}

/// Quantile of sorted values, between neighbours by proportion; 0 of none.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = q * last as f64;
    let (low, share) = (place.floor() as usize, place.fract());
    sorted[low] + (sorted[(low + 1).min(last)] - sorted[low]) * share
}

/// Milliseconds with the digits that matter.
fn ms(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0} ms") } else { format!("{value:.1} ms") }
}
