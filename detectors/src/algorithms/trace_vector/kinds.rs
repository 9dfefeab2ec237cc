//! What the kinds of traces are like that training held: which call paths they take and how long each may take.
//!
//! A *kind* is a set of call paths. Its traces are judged against the longest that each of its paths and the whole trace
//! took; a trace of no kind, or of one that is rare, by how seldom such a thing was when each trace of the training
//! was left out in turn.

use faultline_core::DetectorError;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::{Config, fit};
use crate::calibrate::exact;

/// Score of a trace unlike any that training held, to which its distance is added: what a delay of a quarter of an hour scores.
pub const UNHEARD_OF: f64 = 1e6;

/// A trace as the times of its call paths.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PathVector<'a> {
    /// The path that the trace begins with.
    pub root: u64,
    /// The call paths that it takes, ascending, none twice.
    pub paths: &'a [u64],
    /// Milliseconds of the longest call on each.
    pub ms: &'a [f64],
}

/// Why a trace scored as it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// How long it took.
    Time,
    /// Its kind is rare.
    Rare,
    /// Its kind is not known.
    Unseen,
}

/// What is said of one trace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// The score: milliseconds beyond what is known, or the equal of that.
    pub value: f64,
    /// Which account it is of.
    pub account: Account,
    /// The kind that it is compared with, as an index: its own, or the nearest of the same root where it has none.
    pub kind: Option<usize>,
    /// Call paths in which it differs from the nearest kind; 0 where its kind is known.
    pub distance: usize,
}

/// A call path that training held.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Path {
    pub path: u64,
    /// The path above it, where that is known.
    pub parent: Option<u64>,
    /// Service and operation at its end, empty where they are not known.
    pub label: String,
}

/// One set of call paths and what is known of its traces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Kind {
    pub root: u64,
    /// Indices of its paths, in the order of their hashes.
    pub paths: Vec<u32>,
    /// The longest each may take, milliseconds.
    #[serde(with = "exact::list")]
    pub longest: Vec<f64>,
    /// The longest of the longest calls of its traces.
    #[serde(with = "exact")]
    pub longest_of_all: f64,
    /// Traces in training.
    pub n_traces: u64,
    /// Its share of the traces with its root.
    #[serde(with = "exact")]
    pub share: f64,
}

impl Kind {
    /// Milliseconds beyond what its traces take: the mean of what the worst path and the whole trace are beyond theirs.
    fn excess(&self, ms: &[f64]) -> f64 {
        let worst = self.excesses(ms).fold(f64::NEG_INFINITY, f64::max);
        let whole = ms.iter().copied().map(sound).fold(f64::NEG_INFINITY, f64::max) - self.longest_of_all;
        0.5 * (worst + whole)
    }

    pub fn excesses(&self, ms: &[f64]) -> impl Iterator<Item = f64> {
        ms.iter().zip(&self.longest).map(|(&ms, longest)| sound(ms) - longest)
    }
}

/// A time that can be compared, whatever it was.
pub(in crate::algorithms) fn sound(ms: f64) -> f64 {
    if ms.is_finite() { ms.clamp(0.0, 1e13) } else { 0.0 }
}

/// One step of a scale.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Step {
    #[serde(with = "exact")]
    pub at: f64,
    #[serde(with = "exact")]
    pub level: f64,
}

/// How much being rare or unseen weighs, in milliseconds: as much as the delay that was as seldom among the traces of the
/// training, each judged by the others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Levels {
    /// By distance, ascending: of traces whose kind no other trace has, that are so far from the nearest or farther.
    pub unseen: Vec<Step>,
    /// By share, ascending: of traces whose kind holds that share or less of those with its root.
    pub rare: Vec<Step>,
}

impl Levels {
    fn of_unseen(&self, distance: usize) -> f64 {
        let distance = distance as f64;
        let found = self.unseen.partition_point(|step| step.at < distance);
        self.unseen.get(found).map_or(UNHEARD_OF + distance, |step| step.level)
    }

    fn of_share(&self, share: f64) -> f64 {
        let n_below = self.rare.partition_point(|step| step.at <= share);
        n_below.checked_sub(1).map_or(f64::NEG_INFINITY, |last| self.rare[last].level)
    }
}

/// A fitted model of traces as vectors. See the file's documentation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Kinds {
    #[serde(with = "exact")]
    pub(super) rare_share: f64,
    pub(super) paths: Vec<Path>,
    pub(super) kinds: Vec<Kind>,
    pub(super) levels: Levels,
    /// By the hash of its paths.
    #[serde(skip)]
    by_set: FxHashMap<u64, u32>,
    #[serde(skip)]
    by_path: FxHashMap<u64, u32>,
    /// Kinds by root, in order.
    #[serde(skip)]
    by_root: FxHashMap<u64, Vec<u32>>,
}

impl Kinds {
    /// Learns from traces that are taken to be mostly normal.
    ///
    /// # Errors
    /// When a value of the configuration is out of range or there is no trace.
    pub fn fit(config: &Config, vectors: &[PathVector<'_>]) -> Result<Self, DetectorError> {
        config.check()?;
        fit::fit(config, vectors)
    }

    /// No kinds yet.
    pub(super) fn none(rare_share: f64) -> Self {
        Self { rare_share, ..Self::default() }
    }

    /// What there is to say of a trace; nothing where it takes no path.
    #[must_use]
    pub fn judge(&self, vector: &PathVector<'_>) -> Option<Judgement> {
        if vector.paths.is_empty() || vector.paths.len() != vector.ms.len() {
            return None;
        }
        let Some(own) = self.find(vector.paths) else {
            let (kind, distance) = self.nearest(vector, None, |_| true);
            let value = self.levels.of_unseen(distance);
            return Some(Judgement { value, account: Account::Unseen, kind, distance });
        };
        let kind = &self.kinds[own];
        let excess = kind.excess(vector.ms);
        let rarity = if kind.share < self.rare_share { self.levels.of_share(kind.share) } else { f64::NEG_INFINITY };
        let (value, account) = if rarity > excess { (rarity, Account::Rare) } else { (excess, Account::Time) };
        Some(Judgement { value, account, kind: Some(own), distance: 0 })
    }

    /// The path to blame, as an index of the vector. Of a delay the deepest of those with at least half the worst excess; of
    /// a kind that is rare or unseen the one at which it parts from what is common. `depth` says how deep a path is.
    #[must_use]
    pub fn culprit(&self, vector: &PathVector<'_>, judgement: &Judgement, depth: impl Fn(usize) -> u32) -> usize {
        let last = vector.paths.len().saturating_sub(1);
        let own = judgement.kind.and_then(|idx| self.kinds.get(idx));
        if judgement.account != Account::Time {
            return self.parting(vector, judgement, depth).unwrap_or(last);
        }
        let Some(kind) = own else { return last };
        let worst = kind.excesses(vector.ms).fold(f64::NEG_INFINITY, f64::max);
        let least = if worst > 0.0 { worst / 2.0 } else { worst };
        let guilty = kind.excesses(vector.ms).enumerate().filter(|(_, excess)| *excess >= least);
        guilty.map(|(idx, _)| idx).max_by_key(|&idx| (depth(idx), idx)).unwrap_or(last)
    }

    /// Number of kinds, and of call paths.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.kinds.len(), self.paths.len())
    }

    /// Takes a trace for one of a known kind that is `margin` milliseconds within its times. Says how many things it changed;
    /// nothing where there is no room.
    pub(super) fn admit(
        &mut self,
        config: &Config,
        vector: &PathVector<'_>,
        margin: f64,
        path: impl Fn(usize) -> Path,
    ) -> usize {
        if vector.paths.is_empty() || vector.paths.len() != vector.ms.len() {
            return 0;
        }
        let times = vector.ms.iter().map(|&ms| sound(ms) + margin);
        let most = times.clone().fold(0.0, f64::max);
        if let Some(own) = self.find(vector.paths) {
            let kind = &mut self.kinds[own];
            let mut n_changed = usize::from(kind.share < self.rare_share) + usize::from(kind.longest_of_all < most);
            for (longest, ms) in kind.longest.iter_mut().zip(times) {
                n_changed += usize::from(*longest < ms);
                *longest = longest.max(ms);
            }
            kind.longest_of_all = kind.longest_of_all.max(most);
            kind.share = 1.0;
            return n_changed;
        }
        let n_new = vector.paths.iter().filter(|&&path| !self.knows(path)).count();
        if self.kinds.len() >= config.max_kinds || self.paths.len() + n_new > config.max_paths {
            return 0;
        }
        let longest = times.collect();
        let paths = (0..vector.paths.len()).map(|idx| self.intern(vector.paths[idx], || path(idx))).collect();
        self.push(Kind { root: vector.root, paths, longest, longest_of_all: most, n_traces: 1, share: 1.0 });
        1
    }

    /// Whether a path is known.
    pub(in crate::algorithms) fn knows(&self, path: u64) -> bool {
        self.by_path.contains_key(&path)
    }

    /// What is known of a path.
    pub(super) fn path_mut(&mut self, path: u64) -> Option<&mut Path> {
        self.paths.get_mut(*self.by_path.get(&path)? as usize)
    }

    /// Index of a path, which becomes known.
    pub(super) fn intern(&mut self, path: u64, make: impl FnOnce() -> Path) -> u32 {
        let paths = &mut self.paths;
        *self.by_path.entry(path).or_insert_with(|| {
            paths.push(make());
            (paths.len() - 1) as u32
        })
    }

    /// Adds a kind.
    pub(super) fn push(&mut self, kind: Kind) {
        let idx = self.kinds.len() as u32;
        let set = set_of(kind.paths.iter().map(|&path| self.paths[path as usize].path));
        self.by_set.entry(set).or_insert(idx);
        self.by_root.entry(kind.root).or_default().push(idx);
        self.kinds.push(kind);
    }

    /// Finds everything again after loading; false when an index leads nowhere.
    pub(in crate::algorithms) fn index(&mut self) -> bool {
        let n_paths = self.paths.len();
        let is_sound = |kind: &Kind| {
            !kind.paths.is_empty()
                && kind.paths.len() == kind.longest.len()
                && kind.paths.iter().all(|&path| (path as usize) < n_paths)
        };
        if !self.kinds.iter().all(is_sound) {
            return false;
        }
        self.by_path = self.paths.iter().zip(0..).map(|(path, idx)| (path.path, idx)).collect();
        let kinds = std::mem::take(&mut self.kinds);
        kinds.into_iter().for_each(|kind| self.push(kind));
        true
    }

    /// The kind with exactly these paths.
    pub(super) fn find(&self, paths: &[u64]) -> Option<usize> {
        let own = *self.by_set.get(&set_of(paths.iter().copied()))? as usize;
        let kind = &self.kinds[own];
        let is_same = |(&known, &path): (&u32, &u64)| self.paths[known as usize].path == path;
        (kind.paths.len() == paths.len() && kind.paths.iter().zip(paths).all(is_same)).then_some(own)
    }

    /// Of the kinds of the same root that `is_candidate` takes, the one that differs in the fewest paths, and in how many;
    /// all paths and one more where there is none.
    pub(super) fn nearest(
        &self,
        vector: &PathVector<'_>,
        except: Option<usize>,
        is_candidate: impl Fn(&Kind) -> bool,
    ) -> (Option<usize>, usize) {
        let candidates = self.by_root.get(&vector.root).map_or(&[][..], Vec::as_slice);
        let candidates = candidates.iter().map(|&idx| idx as usize).filter(|&idx| except != Some(idx));
        self.nearest_among(vector, candidates, is_candidate)
    }

    /// Of all kinds, whatever their root, the one that differs in the fewest paths.
    pub(in crate::algorithms) fn nearest_of_all(&self, vector: &PathVector<'_>) -> Option<usize> {
        self.nearest_among(vector, 0..self.kinds.len(), |_| true).0
    }

    fn nearest_among(
        &self,
        vector: &PathVector<'_>,
        candidates: impl Iterator<Item = usize>,
        is_candidate: impl Fn(&Kind) -> bool,
    ) -> (Option<usize>, usize) {
        let n_paths = vector.paths.len();
        let mut best = (None, n_paths + 1);
        let mut is_taken = vec![false; self.paths.len()];
        for path in vector.paths.iter().filter_map(|path| self.by_path.get(path)) {
            is_taken[*path as usize] = true;
        }
        for idx in candidates {
            let kind = &self.kinds[idx];
            // At least as many paths as that are not in both.
            if (best.0.is_some() && kind.paths.len().abs_diff(n_paths) >= best.1) || !is_candidate(kind) {
                continue;
            }
            let n_shared = kind.paths.iter().filter(|&&path| is_taken[path as usize]).count();
            let distance = n_paths + kind.paths.len() - 2 * n_shared;
            if best.0.is_none() || distance < best.1 {
                best = (Some(idx), distance);
            }
        }
        best
    }

    /// The kind that a trace is held against which is rare or unseen.
    pub(super) fn model_of(&self, vector: &PathVector<'_>, judgement: &Judgement) -> Option<usize> {
        match judgement.account {
            Account::Time | Account::Unseen => judgement.kind,
            Account::Rare => {
                let (common, _) = self.nearest(vector, judgement.kind, |kind| kind.share >= self.rare_share);
                common
            }
        }
    }

    /// Paths of the vector that a kind lacks, and of the kind that the vector lacks.
    pub(super) fn difference(&self, vector: &PathVector<'_>, kind: usize) -> (Vec<usize>, Vec<&Path>) {
        let known: Vec<&Path> = self.kinds[kind].paths.iter().map(|&path| &self.paths[path as usize]).collect();
        let is_known = |path: u64| known.binary_search_by_key(&path, |known| known.path).is_ok();
        let extra = (0..vector.paths.len()).filter(|&idx| !is_known(vector.paths[idx])).collect();
        let missing = known.iter().copied().filter(|path| vector.paths.binary_search(&path.path).is_err()).collect();
        (extra, missing)
    }

    /// Where a trace parts from what is common: its first call that is not, else the deepest that should have made another.
    fn parting(&self, vector: &PathVector<'_>, judgement: &Judgement, depth: impl Fn(usize) -> u32) -> Option<usize> {
        let (extra, missing) = self.difference(vector, self.model_of(vector, judgement)?);
        let callers = missing.iter().filter_map(|path| vector.paths.binary_search(&path.parent?).ok());
        extra.into_iter().min_by_key(|&idx| (depth(idx), idx)).or_else(|| callers.max_by_key(|&idx| (depth(idx), idx)))
    }
}

/// Hash of a set of paths; they may be small numbers, so each is spread first.
pub(super) fn set_of(paths: impl Iterator<Item = u64>) -> u64 {
    let spread = |path: u64| {
        let path = (path ^ (path >> 30)).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let path = (path ^ (path >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        path ^ (path >> 31)
    };
    paths.fold(0, |set, path| set.wrapping_add(spread(path)))
}
