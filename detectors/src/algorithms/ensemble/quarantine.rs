//! Whether the training sessions of an [`super::Ensemble`] hold failures, and which are kept out of its set baselines' training.
//!
//! A failure in the training data looks like a rare kind of normal session, and no single session tells which it is. Together they
//! do: rare kinds of normal session are made of ordinary steps, failures are not. So sessions are counted that are seldom
//! in content and beyond DeepLog's top g in order. On HDFS 2 or 3 of 4,855 normal sessions are both, with .5 % of abnormal
//! ones mixed in 17 to 23, with 1 % 29 to 39. Where there are more than rare kinds explain, a kind has to have more
//! support than there are suspicious sessions altogether, and the less supported sessions go unless their order is
//! ordinary. Cost: sorting, and a comparison of each seldom count vector with those of similar total.

use std::collections::BTreeMap;

use faultline_core::{LogWindow, TemplateId, Window};

use super::Config;
use crate::algorithms::count_vector::{Counts, count_into, distance_of, l1};

/// Share of sessions below which a kind is seldom.
const SELDOM: f64 = 0.004;

/// Share of suspicious sessions that rare kinds of normal session explain.
const EXPLAINED: f64 = 0.001;

/// Suspicious sessions below which nothing is concluded.
const MIN_SUSPICIOUS: usize = 5;

/// Sessions below which nothing is concluded.
const MIN_SESSIONS: usize = 200;

/// Seldom count vectors beyond which sessions have no kinds, and a seldom vector says nothing.
const MAX_SELDOM_VECTORS: usize = 2_000;

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Findings {
    /// Sessions that are seldom in content and beyond the top g in order.
    pub n_suspicious: usize,
    /// Sessions that are not to be trained on.
    pub n_quarantined: usize,
    /// For each window whether it is to be trained on.
    pub is_kept: Vec<bool>,
}

/// Examines `training`, of which `order` are DeepLog's scores. Up to `ordinary` an order is ordinary, above `beyond_g` it
/// is abnormal by the paper's rule. Only whole sessions can be suspicious.
pub fn examine(training: &[Window<'_>], order: &[f64], ordinary: f64, beyond_g: f64, config: &Config) -> Findings {
    let whole = |log: &&LogWindow<'_>| log.is_closed() && !log.is_stream && log.n_dropped == 0 && log.fresh == 0;
    let sessions: Vec<(usize, &LogWindow<'_>)> = training
        .iter()
        .enumerate()
        .filter_map(|(idx, window)| window.as_log().filter(whole).map(|log| (idx, log)))
        .filter(|(_, log)| !log.records.is_empty())
        .collect();
    let mut findings = Findings { n_suspicious: 0, n_quarantined: 0, is_kept: vec![true; training.len()] };
    if sessions.len() < MIN_SESSIONS || config.max_contamination == 0.0 {
        return findings;
    }
    let n = sessions.len() as f64;
    let seldom = (SELDOM * n).ceil() as usize;
    let most = (config.max_contamination * n).ceil() as usize;
    let support = support_of(&sessions, seldom.max(most), config.max_distance);
    let beyond = |(support, (idx, _)): (&usize, &(usize, &LogWindow<'_>))| *support < seldom && order[*idx] > beyond_g;
    findings.n_suspicious = support.iter().zip(&sessions).filter(|pair| beyond(*pair)).count();
    if findings.n_suspicious < MIN_SUSPICIOUS.max((EXPLAINED * n).ceil() as usize) {
        return findings;
    }
    let required = (findings.n_suspicious + 1).min(most);
    for (support, (idx, _)) in support.iter().zip(&sessions) {
        if *support < required && order[*idx] > ordinary {
            findings.is_kept[*idx] = false;
            findings.n_quarantined += 1;
        }
    }
    findings
}

/// For each session the least number of sessions that are like it: in any one of its templates, in length, in counts.
/// Exact below `enough`.
fn support_of(sessions: &[(usize, &LogWindow<'_>)], enough: usize, max_distance: f64) -> Vec<usize> {
    let mut by_template: BTreeMap<TemplateId, usize> = BTreeMap::new();
    let mut by_vector: BTreeMap<Counts, usize> = BTreeMap::new();
    let mut lengths: Vec<usize> = Vec::with_capacity(sessions.len());
    let mut vectors: Vec<Counts> = Vec::with_capacity(sessions.len());
    for (_, log) in sessions {
        let mut counts = Counts::new();
        count_into(log, &mut counts);
        for (template, _) in &counts {
            *by_template.entry(*template).or_default() += 1;
        }
        *by_vector.entry(counts.clone()).or_default() += 1;
        lengths.push(log.records.len());
        vectors.push(counts);
    }
    let near = neighbours_of(&by_vector, enough, max_distance);
    let mut sorted = lengths.clone();
    sorted.sort_unstable();
    vectors
        .iter()
        .zip(&lengths)
        .map(|(counts, length)| {
            let templates = counts.iter().map(|(template, _)| by_template[template]);
            let as_short = sorted.partition_point(|other| other <= length);
            let as_long = sorted.len() - sorted.partition_point(|other| other < length);
            templates.chain([as_short, as_long]).chain(near.get(counts).copied()).min().unwrap_or(0)
        })
        .collect()
}

/// For each seldom vector the sessions within `max_distance` of it, counted up to `enough`. Empty when most vectors are
/// seldom.
fn neighbours_of(by_vector: &BTreeMap<Counts, usize>, enough: usize, max_distance: f64) -> BTreeMap<Counts, usize> {
    let total = |counts: &Counts| counts.iter().map(|&(_, count)| u64::from(count)).sum::<u64>();
    let seldom: Vec<&Counts> = by_vector.iter().filter(|(_, n)| **n < enough).map(|(counts, _)| counts).collect();
    if seldom.len() > MAX_SELDOM_VECTORS {
        return BTreeMap::new();
    }
    let mut by_total: Vec<(u64, &Counts, usize)> =
        by_vector.iter().map(|(counts, n)| (total(counts), counts, *n)).collect();
    by_total.sort_unstable_by_key(|(total, _, _)| *total);
    let mut near = BTreeMap::new();
    for counts in seldom {
        let own = total(counts);
        let mut n_near = 0;
        let first = by_total
            .partition_point(|(other, ..)| *other < own && distance_of(own - *other, own + *other) > max_distance);
        for (other, vector, n) in &by_total[first..] {
            let at_least = distance_of(other.abs_diff(own), own + other);
            if n_near >= enough || (*other > own && at_least > max_distance) {
                break;
            }
            if distance_of(l1(counts, vector), own + other) <= max_distance {
                n_near += n;
            }
        }
        near.insert(counts.clone(), n_near);
    }
    near
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Session;

    fn examined(sessions: &[Session], order: &[f64]) -> Findings {
        let windows: Vec<_> = sessions.iter().map(Session::closed).collect();
        examine(&windows, order, 5.0, 10.0, &Config::default())
    }

    /// `n_bad` of 1,000 sessions are of a kind of their own, in an order of score `bad_order`.
    fn mixed(n_bad: usize, bad_order: f64) -> (Vec<Session>, Vec<f64>) {
        let mut sessions: Vec<Session> =
            (0..1_000 - n_bad).map(|idx| Session::of(&format!("{idx}"), &[1, 2, 3, 4])).collect();
        sessions.extend((0..n_bad).map(|idx| Session::of(&format!("bad {idx}"), &[1, 9, 9])));
        let order = (0..1_000).map(|idx| if idx < 1_000 - n_bad { 3.0 } else { bad_order }).collect();
        (sessions, order)
    }

    #[test]
    fn seldom_sessions_in_an_abnormal_order_are_a_contamination_when_they_are_several() {
        // Four thousandths of a thousand are four; with three there is too little to conclude from.
        let (sessions, order) = mixed(3, 12.0);
        let found = examined(&sessions, &order);
        assert_eq!((found.n_suspicious, found.n_quarantined), (3, 0));
        let (mut sessions, mut order) = mixed(3, 12.0);
        for idx in 0..3 {
            sessions.push(Session::of(&format!("other {idx}"), &[1, 2, 3, 4, 8]));
            order.push(if idx == 0 { 4.0 } else { 12.0 });
        }
        let found = examined(&sessions, &order);
        assert_eq!((found.n_suspicious, found.n_quarantined), (5, 5));
        assert!(found.is_kept[1_000], "the one in an ordinary order stays");
        assert_eq!(found.is_kept.iter().filter(|kept| !**kept).count(), 5);
    }

    #[test]
    fn seldom_sessions_in_an_ordinary_order_are_a_rare_kind() {
        let (sessions, order) = mixed(3, 6.0);
        let found = examined(&sessions, &order);
        assert_eq!((found.n_suspicious, found.n_quarantined), (0, 0));
        let (sessions, order) = mixed(300, 12.0);
        assert_eq!(examined(&sessions, &order).n_quarantined, 0, "what is frequent is normal");
    }

    #[test]
    fn near_vectors_support_each_other() {
        let long = |n: usize| [vec![1; 50], vec![2; n]].concat();
        let sessions: Vec<Session> = (0..300).map(|idx| Session::of(&format!("{idx}"), &long(10 + idx % 5))).collect();
        let windows: Vec<_> = sessions.iter().map(Session::closed).collect();
        let logs: Vec<_> = windows.iter().filter_map(Window::as_log).enumerate().collect();
        let support = support_of(&logs, 1_000, 0.1);
        // The shortest are 60 by length; by counts all 300 are near.
        assert_eq!((support[0], support[2]), (60, 180));
    }
}
