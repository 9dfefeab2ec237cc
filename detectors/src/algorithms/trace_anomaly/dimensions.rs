//! What a trace is to the network: one number for each call path, its time in deviations from the mean of the traces that take it.
//!
//! The mean and the deviation are those of the times in training, the deviation a millisecond at least, as in the paper. A path that
//! a trace does not take is [`ABSENT`]. What the network is fed ends at [`FAR`]; what its output is held against hardly ever ends.

use std::cmp::Reverse;

use rustc_hash::FxHashMap;

use crate::algorithms::trace_vector::{Kinds, PathVector, sound};

/// What stands for a path that was not taken: farther below the mean than times are. (The paper's −1 is where times are.)
pub const ABSENT: f32 = -4.0;

/// How far from the mean a time may be that the network is fed.
pub const FAR: f32 = 10.0;

/// How far from the mean a time may be that is judged.
const FARTHEST: f32 = 1e4;

/// No deviation is less, milliseconds.
const MIN_DEVIATION: f64 = 1.0;

/// One call path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dimension {
    /// Which.
    pub path: u64,
    /// Mean of its times, milliseconds.
    pub mean: f64,
    /// Their deviation, milliseconds.
    pub deviation: f64,
}

/// The call paths that have a dimension, ascending.
#[derive(Clone, Debug, PartialEq)]
pub struct Dimensions(pub Vec<Dimension>);

impl Dimensions {
    /// Number of them.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Appends a trace as the network is fed it, and as its output is held against it.
    pub fn standardise(&self, vector: &PathVector<'_>, fed: &mut Vec<f32>, wanted: &mut Vec<f32>) {
        let first = wanted.len();
        wanted.resize(first + self.0.len(), ABSENT);
        for (path, &ms) in vector.paths.iter().zip(vector.ms) {
            if let Ok(idx) = self.0.binary_search_by_key(path, |own| own.path) {
                let Dimension { mean, deviation, .. } = self.0[idx];
                wanted[first + idx] = (((sound(ms) - mean) / deviation) as f32).clamp(-FARTHEST, FARTHEST);
            }
        }
        fed.extend(wanted[first..].iter().map(|value| value.clamp(-FAR, FAR)));
    }
}

/// Times of one path so far (Welford).
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    n: u64,
    mean: f64,
    squares: f64,
}

/// What the paths of the training are like.
#[derive(Debug)]
pub struct Census(FxHashMap<u64, Times>);

impl Census {
    /// Takes it.
    pub fn of(vectors: &[PathVector<'_>]) -> Self {
        let mut all: FxHashMap<u64, Times> = FxHashMap::default();
        for vector in vectors {
            for (path, &ms) in vector.paths.iter().zip(vector.ms) {
                let (own, ms) = (all.entry(*path).or_default(), sound(ms));
                own.n += 1;
                let before = ms - own.mean;
                own.mean += before / own.n as f64;
                own.squares += before * (ms - own.mean);
            }
        }
        Self(all)
    }

    /// Dimensions of the paths that most traces take.
    pub fn dimensions(&self, max_paths: usize) -> Dimensions {
        let mut all: Vec<(u64, Times)> = self.0.iter().map(|(path, own)| (*path, *own)).collect();
        all.sort_unstable_by_key(|(path, own)| (Reverse(own.n), *path));
        all.truncate(max_paths);
        all.sort_unstable_by_key(|(path, _)| *path);
        let dimension = |(path, own): (u64, Times)| {
            let deviation = (own.squares / own.n as f64).sqrt().max(MIN_DEVIATION);
            Dimension { path, mean: own.mean, deviation }
        };
        Dimensions(all.into_iter().map(dimension).collect())
    }

    /// Whether `kinds` has every path.
    pub fn is_within(&self, kinds: &Kinds) -> bool {
        self.0.keys().all(|path| kinds.knows(*path))
    }

    /// Traces that take a path that no other does.
    pub fn n_alone(&self, vectors: &[PathVector<'_>]) -> usize {
        let is_alone = |path: &u64| self.0.get(path).is_some_and(|own| own.n == 1);
        vectors.iter().filter(|vector| vector.paths.iter().any(is_alone)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector<'a>(paths: &'a [u64], ms: &'a [f64]) -> PathVector<'a> {
        PathVector { root: 1, paths, ms }
    }

    #[test]
    fn a_time_is_in_deviations_and_a_path_not_taken_is_below_them_all() {
        let vectors = [vector(&[1, 7], &[10.0, 5.0]), vector(&[1], &[30.0]), vector(&[1, 9], &[20.0, 4.0])];
        let census = Census::of(&vectors);
        assert_eq!(census.n_alone(&vectors), 2);
        let dimensions = census.dimensions(10);
        let paths: Vec<u64> = dimensions.0.iter().map(|own| own.path).collect();
        assert_eq!(paths, [1, 7, 9]);
        assert!((dimensions.0[0].mean - 20.0).abs() < 1e-12);
        assert!((dimensions.0[0].deviation - (200.0_f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(dimensions.0[1].deviation, 1.0, "a millisecond at least");
        let (mut fed, mut wanted) = (Vec::new(), Vec::new());
        dimensions.standardise(&vector(&[1, 7, 8], &[20.0, 105.0, 3.0]), &mut fed, &mut wanted);
        assert_eq!((fed, wanted), (vec![0.0, 10.0, ABSENT], vec![0.0, 100.0, ABSENT]), "8 has no dimension");
        assert_eq!(census.dimensions(1).0[0].path, 1, "the most frequent one");
    }

    #[test]
    fn odd_times_are_numbers() {
        let ms = [f64::NAN, f64::INFINITY, -1e300, 1e300];
        let vectors = [vector(&[1, 2, 3, 4], &ms), vector(&[1, 2, 3, 4], &[1.0; 4])];
        let dimensions = Census::of(&vectors).dimensions(10);
        assert!(
            dimensions.0.iter().all(|own| own.mean.is_finite() && own.deviation >= 1.0 && own.deviation.is_finite())
        );
        let (mut fed, mut wanted) = (Vec::new(), Vec::new());
        vectors.iter().for_each(|vector| dimensions.standardise(vector, &mut fed, &mut wanted));
        assert!(fed.iter().all(|value| value.abs() <= FAR) && wanted.iter().all(|value| value.abs() <= FARTHEST));
    }
}
