//! Which minutes of Nezha have a fault, and what flagging some of them is worth.
//!
//! A minute is one of the clock, as far as spans began in it. It is a *fault minute* where that overlaps the [`NOMINAL`] time
//! after an injection by [`LEAST`] at least: three minutes and twenty seconds, what the authors take. It is an *edge* where it
//! overlaps the time in which effects were ever seen, and else normal. Nominal is not visible: effects begin between a minute before and a minute after
//! the time in the list and last from two to over four minutes, so that some fault minutes hold nothing of their fault, and the
//! service may have no traffic. A fault minute is *sure* where it overlaps by as much the time in which every fault was under way, and the
//! service wrote or was called in it.

use std::collections::{BTreeMap, BTreeSet};

use faultline_datasets::{Confusion, loaders::nezha::Fault};

pub const MINUTE: i64 = 60_000_000_000;

const SECOND: i64 = 1_000_000_000;

/// From the injection on, in seconds.
const NOMINAL: (i64, i64) = (0, 200);

/// Within which effects were ever seen.
const EVER: (i64, i64) = (-60, 260);

/// In which every fault was under way: the latest begin and the earliest end, but for one fault that lasted 120 s.
const SURE: (i64, i64) = (60, 115);

/// Seconds that have to be common.
const LEAST: i64 = 25;

/// One minute in which there were spans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Minute {
    /// Minutes since the epoch.
    pub number: i64,
    pub truth: Truth,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    Normal,
    /// Too near to a fault to tell.
    Edge,
    /// The fault of this index.
    Fault {
        idx: usize,
        is_sure: bool,
    },
}

/// What was seen in each minute: of spans the first and the last start, and the services with a span or a log.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    minutes: BTreeMap<i64, Traffic>,
}

#[derive(Clone, Debug)]
struct Traffic {
    first: i64,
    last: i64,
    services: BTreeSet<String>,
}

impl Seen {
    pub fn span(&mut self, start_unix_nano: i64, service: &str) {
        let traffic = self.minutes.entry(start_unix_nano.div_euclid(MINUTE)).or_insert_with(|| Traffic {
            first: start_unix_nano,
            last: start_unix_nano,
            services: BTreeSet::new(),
        });
        traffic.first = traffic.first.min(start_unix_nano);
        traffic.last = traffic.last.max(start_unix_nano);
        traffic.hear(service);
    }

    /// A log counts in minutes with spans.
    pub fn log(&mut self, time_unix_nano: i64, service: &str) {
        if let Some(traffic) = self.minutes.get_mut(&time_unix_nano.div_euclid(MINUTE)) {
            traffic.hear(service);
        }
    }

    /// Every minute with its truth, in order.
    pub fn minutes(&self, faults: &[Fault]) -> Vec<Minute> {
        let of = |(&number, traffic): (&i64, &Traffic)| Minute { number, truth: traffic.truth(faults) };
        self.minutes.iter().map(of).collect()
    }
}

impl Traffic {
    fn hear(&mut self, service: &str) {
        if !self.services.contains(service) {
            self.services.insert(service.to_owned());
        }
    }

    fn truth(&self, faults: &[Fault]) -> Truth {
        let common = |fault: &Fault, (from, until): (i64, i64)| {
            let (from, until) = (fault.time_unix_nano + from * SECOND, fault.time_unix_nano + until * SECOND);
            self.last.min(until) - self.first.max(from)
        };
        if let Some(idx) = faults.iter().position(|fault| common(fault, NOMINAL) >= LEAST * SECOND) {
            let fault = &faults[idx];
            let is_sure = common(fault, SURE) >= LEAST * SECOND && self.services.contains(fault.service());
            return Truth::Fault { idx, is_sure };
        }
        if faults.iter().any(|fault| common(fault, EVER) > 0) { Truth::Edge } else { Truth::Normal }
    }
}

/// What flagging some minutes is worth.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Fault minutes against normal ones.
    pub counts: Confusion,
    pub n_sure: u64,
    pub n_sure_found: u64,
    pub n_edge: u64,
    pub n_edge_flagged: u64,
    /// Runs of flagged minutes that begin in a normal one.
    pub n_false_episodes: u64,
    pub n_faults_found: u64,
    /// Of each kind: fault minutes, those found, faults, those found.
    pub kinds: BTreeMap<String, [u64; 4]>,
    /// Fault minutes that were not found.
    pub missed: Vec<i64>,
    /// Normal minutes that were flagged.
    pub mistaken: Vec<i64>,
}

impl Tally {
    pub fn of(minutes: &[Minute], faults: &[Fault], flagged: &BTreeSet<i64>) -> Self {
        let mut tally = Self::default();
        let mut before = None;
        for Minute { number, truth } in minutes {
            let is_flagged = flagged.contains(number);
            match *truth {
                Truth::Normal => {
                    tally.counts.add(is_flagged, false);
                    tally.mistaken.extend(is_flagged.then_some(*number));
                    // The run may have begun in the minute before, where there was one.
                    let goes_on = before == Some(number - 1) && flagged.contains(&(number - 1));
                    tally.n_false_episodes += u64::from(is_flagged && !goes_on);
                }
                Truth::Edge => {
                    tally.n_edge += 1;
                    tally.n_edge_flagged += u64::from(is_flagged);
                }
                Truth::Fault { idx, is_sure } => {
                    tally.counts.add(is_flagged, true);
                    tally.n_sure += u64::from(is_sure);
                    tally.n_sure_found += u64::from(is_sure && is_flagged);
                    let kind = tally.kinds.entry(faults[idx].kind.clone()).or_default();
                    kind[0] += 1;
                    kind[1] += u64::from(is_flagged);
                    if !is_flagged {
                        tally.missed.push(*number);
                    }
                }
            }
            before = Some(*number);
        }
        for fault in faults {
            let (from, until) = (fault.time_unix_nano + EVER.0 * SECOND, fault.time_unix_nano + EVER.1 * SECOND);
            let is_found = flagged.range(from.div_euclid(MINUTE)..=until.div_euclid(MINUTE)).next().is_some();
            tally.n_faults_found += u64::from(is_found);
            let kind = tally.kinds.entry(fault.kind.clone()).or_default();
            kind[2] += 1;
            kind[3] += u64::from(is_found);
        }
        tally
    }

    pub fn n_normal(&self) -> u64 {
        self.counts.false_positives + self.counts.true_negatives
    }

    /// None without a normal minute.
    pub fn false_episodes_per_hour(&self) -> Option<f64> {
        (self.n_normal() > 0).then(|| self.n_false_episodes as f64 * 60.0 / self.n_normal() as f64)
    }

    pub fn sure_recall(&self) -> Option<f64> {
        (self.n_sure > 0).then(|| self.n_sure_found as f64 / self.n_sure as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Forty minutes of a span a second, the service `b` silent from the twelfth to the thirteenth; `a` fails in the fifth, `b`
    /// in the eleventh.
    fn minutes() -> (Vec<Minute>, Vec<Fault>) {
        let fault = |minute: i64, pod: &str| Fault {
            time_unix_nano: minute * MINUTE + 5 * SECOND,
            pod: pod.to_owned(),
            kind: "return".to_owned(),
        };
        let faults = vec![fault(5, "a"), fault(11, "b")];
        let mut seen = Seen::default();
        for second in 0..40 * 60 {
            seen.span(second * SECOND, "a");
            if !(12 * 60..14 * 60).contains(&second) {
                seen.log(second * SECOND, "b");
            }
        }
        (seen.minutes(&faults), faults)
    }

    fn numbers(minutes: &[Minute], is: impl Fn(Truth) -> bool) -> Vec<i64> {
        minutes.iter().filter(|minute| is(minute.truth)).map(|minute| minute.number).collect()
    }

    #[test]
    fn minutes_are_told_apart_by_what_they_have_in_common_with_a_fault() {
        let (minutes, _) = minutes();
        let of = |wanted: usize| numbers(&minutes, |truth| matches!(truth, Truth::Fault { idx, .. } if idx == wanted));
        assert_eq!((of(0), of(1)), (vec![5, 6, 7, 8], vec![11, 12, 13, 14]), "the last one for 25 s");
        assert_eq!(numbers(&minutes, |truth| truth == Truth::Edge), [4, 9, 10, 15]);
        let sure = numbers(&minutes, |truth| matches!(truth, Truth::Fault { is_sure: true, .. }));
        assert_eq!(sure, [6], "of `b` nothing was heard");
    }

    #[test]
    fn flagged_minutes_are_counted_as_minutes_as_faults_and_as_episodes() {
        let (minutes, faults) = minutes();
        // A run that begins in a fault and goes on after its edge, one that is false, and one that begins before an edge.
        let flagged = BTreeSet::from([8, 9, 10, 20, 21, 22, 39]);
        let tally = Tally::of(&minutes, &faults, &flagged);
        assert_eq!((tally.counts.true_positives, tally.counts.false_negatives), (1, 7));
        assert_eq!((tally.counts.false_positives, tally.n_false_episodes), (4, 2));
        assert_eq!((tally.n_sure, tally.n_sure_found, tally.n_edge, tally.n_edge_flagged), (1, 0, 4, 2));
        assert_eq!(tally.n_faults_found, 2, "the edge before the second is within what effects were seen");
        assert_eq!(tally.kinds["return"], [8, 1, 2, 2]);
        assert_eq!(tally.missed, [5, 6, 7, 11, 12, 13, 14]);
        assert_eq!(tally.mistaken, [20, 21, 22, 39]);
        let hours = tally.n_normal() as f64 / 60.0;
        assert_eq!(tally.false_episodes_per_hour(), Some(2.0 / hours));
    }
}
