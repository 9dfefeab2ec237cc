//! How kinds of traces are learned, when a few of those in training are abnormal.
//!
//! - **Times**: a kind's reference is the longest of each path once the longest `trim` of its traces are left out.
//! - **Sets of paths**: a kind that holds less than `rare_share` of the traces with its root is known, but rare. What that
//!   weighs is found by leaving each trace out: the share of its kind is then that of the others, and a trace that is alone of
//!   its kind is unseen, as far from the nearest kind as new ones will be. (How many there are of the latter is Good and
//!   Turing's estimate of how often something unseen comes.) The same is done with times. So many traces were as rare or
//!   rarer: then being so rare weighs as much as the delay that as many traces had or a longer one.

use std::cmp::Reverse;

use faultline_core::DetectorError;
use rustc_hash::FxHashMap;

use super::{
    Config,
    kinds::{Kind, Kinds, Levels, Path, PathVector, Step, set_of, sound},
};
use crate::algorithm::Algorithm;

/// Times of all kinds together: a bound on memory.
const MAX_TIMES: usize = 1 << 20;

/// Traces alone of their kind whose distance is measured: a bound on time.
const MAX_MEASURED: usize = 256;

/// The traces of one kind, as indices.
struct Group {
    root: u64,
    rows: Vec<u32>,
}

/// What each trace would have been to a model of all others.
#[derive(Default)]
struct LeftOut {
    /// Milliseconds beyond what is known.
    excesses: Vec<f64>,
    /// Shares below `rare_share`, and how many traces had them.
    shares: Vec<(f64, u64)>,
    /// Distances of those without a kind, and how many traces each stands for.
    distances: Vec<(usize, u64)>,
}

pub(super) fn fit(config: &Config, vectors: &[PathVector<'_>]) -> Result<Kinds, DetectorError> {
    let (groups, of_root) = group(vectors);
    if groups.is_empty() {
        let reason = "no training window holds a complete trace".to_owned();
        return Err(DetectorError::Fit { detector: super::TraceVector::NAME.to_owned(), reason });
    }
    let mut kinds = Kinds::none(config.rare_share);
    let mut left_out = LeftOut::default();
    let (mut n_times, mut alone) = (0, Vec::new());
    for group in &groups {
        let first = &vectors[group.rows[0] as usize];
        let n_new = first.paths.iter().filter(|path| !kinds.knows(**path)).count();
        n_times += first.paths.len();
        let is_full = kinds.size().0 >= config.max_kinds || kinds.size().1 + n_new > config.max_paths;
        let n_traces = group.rows.len() as u64;
        if is_full || n_times > MAX_TIMES {
            n_times -= first.paths.len();
            alone.push((first, None, n_traces));
            continue;
        }
        let of_root = of_root.get(&group.root).copied().unwrap_or(n_traces);
        if n_traces == 1 {
            alone.push((first, Some(kinds.size().0), 1));
        } else {
            let share = (n_traces - 1) as f64 / (of_root - 1) as f64;
            if share < config.rare_share {
                left_out.shares.push((share, n_traces));
            }
        }
        let kind = kind_of(config, group, of_root, vectors, &mut kinds, &mut left_out.excesses);
        kinds.push(kind);
    }
    // Evenly over the traces that are alone.
    let stride = alone.len().div_ceil(MAX_MEASURED).max(1);
    for chunk in alone.chunks(stride) {
        let (vector, own, _) = chunk[0];
        let (_, distance) = kinds.nearest(vector, own, |_| true);
        left_out.distances.push((distance, chunk.iter().map(|alone| alone.2).sum()));
    }
    kinds.levels = left_out.levels();
    Ok(kinds)
}

/// The traces by their set of paths, the most frequent first, and how many there are of each root.
fn group(vectors: &[PathVector<'_>]) -> (Vec<Group>, FxHashMap<u64, u64>) {
    let (mut groups, mut of_set, mut of_root) = (Vec::<Group>::new(), FxHashMap::default(), FxHashMap::default());
    for (vector, row) in vectors.iter().zip(0..) {
        if vector.paths.is_empty() || vector.paths.len() != vector.ms.len() {
            continue;
        }
        let place = *of_set.entry(set_of(vector.paths.iter().copied())).or_insert(groups.len());
        if place == groups.len() {
            groups.push(Group { root: vector.root, rows: Vec::new() });
        }
        // Two sets of one hash: the second is not learned.
        let first = groups[place].rows.first().map_or(vector, |&first: &u32| &vectors[first as usize]);
        if first.paths == vector.paths {
            groups[place].rows.push(row);
            *of_root.entry(vector.root).or_insert(0) += 1;
        }
    }
    groups.sort_by_key(|group| (Reverse(group.rows.len()), group.rows[0]));
    (groups, of_root)
}

/// The kind of a group. Its paths become known, and what its traces are beyond the others is noted.
fn kind_of(
    config: &Config,
    group: &Group,
    of_root: u64,
    vectors: &[PathVector<'_>],
    kinds: &mut Kinds,
    excesses: &mut Vec<f64>,
) -> Kind {
    let rows: Vec<&PathVector<'_>> = group.rows.iter().map(|&row| &vectors[row as usize]).collect();
    let (n_traces, first) = (rows.len(), rows[0]);
    let n_trimmed = (config.trim * n_traces as f64) as usize;
    let mut worst = vec![f64::NEG_INFINITY; n_traces];
    let mut longest = Vec::with_capacity(first.paths.len());
    let mut column = Vec::with_capacity(n_traces);
    for path in 0..first.paths.len() {
        let times = || rows.iter().map(move |row| sound(row.ms[path]));
        let (reference, next) = references(&mut column, times(), n_trimmed);
        for (worst, ms) in worst.iter_mut().zip(times()) {
            *worst = worst.max(ms - if ms >= reference { next } else { reference });
        }
        longest.push(reference);
    }
    let wholes: Vec<f64> = rows.iter().map(|row| row.ms.iter().copied().map(sound).fold(0.0, f64::max)).collect();
    let (longest_of_all, next) = references(&mut column, wholes.iter().copied(), n_trimmed);
    // Of one trace alone nothing is known without it.
    if n_traces > 1 {
        excesses.extend(wholes.iter().zip(&worst).map(|(&whole, worst)| {
            0.5 * (worst + whole - if whole >= longest_of_all { next } else { longest_of_all })
        }));
    }
    let unnamed = |path: u64| Path { path, parent: None, label: String::new() };
    let paths = first.paths.iter().map(|&path| kinds.intern(path, || unnamed(path))).collect();
    let (n_traces, root) = (n_traces as u64, group.root);
    Kind { root, paths, longest, longest_of_all, n_traces, share: n_traces as f64 / of_root as f64 }
}

/// The largest of the times without the `n_trimmed` largest ones, and what it is once one of the larger half is left out.
fn references(column: &mut Vec<f64>, times: impl Iterator<Item = f64>, n_trimmed: usize) -> (f64, f64) {
    column.clear();
    column.extend(times);
    column.sort_unstable_by(|one, other| other.total_cmp(one));
    let last = column.len() - 1;
    (column[n_trimmed.min(last)], column[(n_trimmed + 1).min(last)])
}

impl LeftOut {
    fn levels(self) -> Levels {
        let Self { mut excesses, mut shares, mut distances } = self;
        excesses.sort_unstable_by(|one, other| other.total_cmp(one));
        let delay = |n_traces: u64| {
            let last = excesses.len().checked_sub(1)?;
            excesses.get(last.min(usize::try_from(n_traces).unwrap_or(last).saturating_sub(1))).copied()
        };
        let mut levels = Levels::default();
        let put = |steps: &mut Vec<Step>, at: f64, n_traces: u64| {
            let level = delay(n_traces).unwrap_or(0.0);
            match steps.last_mut().filter(|last| last.at == at) {
                Some(last) => last.level = level,
                None => steps.push(Step { at, level }),
            }
        };
        distances.sort_unstable_by_key(|&(distance, _)| Reverse(distance));
        let mut n_traces = 0;
        for (distance, n) in distances {
            n_traces += n;
            put(&mut levels.unseen, distance as f64, n_traces);
        }
        levels.unseen.reverse();
        shares.sort_unstable_by(|one, other| one.0.total_cmp(&other.0));
        // Those without a kind are rarer still. One that is alone of its kind in training has a share nevertheless.
        put(&mut levels.rare, 0.0, n_traces);
        for (share, n) in shares {
            n_traces += n;
            put(&mut levels.rare, share, n_traces);
        }
        levels
    }
}
