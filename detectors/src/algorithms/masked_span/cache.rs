//! What was said of shapes of traces lately. Exact: a shape is kept whole, not as a hash of it.
//!
//! Two generations of half the size each: what is asked for moves to the younger, and when that is full the older is
//! forgotten. So what came within the last half is there, and a flood of new shapes costs no search for what to forget.

use rustc_hash::FxHashMap;

/// What is said of a shape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Known {
    /// The score.
    pub value: f64,
    /// The step to blame.
    pub step: u32,
}

/// See the file's documentation.
#[derive(Debug)]
pub struct Cache {
    young: FxHashMap<Box<[u32]>, Known>,
    old: FxHashMap<Box<[u32]>, Known>,
    /// Shapes of one generation.
    most: usize,
}

impl Cache {
    /// An empty cache of at most `most` shapes, two at least.
    pub fn new(most: usize) -> Self {
        Self { young: FxHashMap::default(), old: FxHashMap::default(), most: (most / 2).max(1) }
    }

    /// What was said of a shape.
    pub fn get(&mut self, shape: &[u32]) -> Option<Known> {
        if let Some(known) = self.young.get(shape) {
            return Some(*known);
        }
        let (shape, known) = self.old.remove_entry(shape)?;
        self.insert(shape, known);
        Some(known)
    }

    /// Keeps what was said of a shape.
    pub fn insert(&mut self, shape: Box<[u32]>, known: Known) {
        if self.young.len() >= self.most {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(shape, known);
    }

    /// Shapes that are kept.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_rest_goes() {
        let known = |value: u32| Known { value: f64::from(value), step: value };
        let mut cache = Cache::new(10);
        for shape in 0..1_000 {
            assert_eq!(cache.get(&[shape]), None);
            cache.insert([shape].into(), known(shape));
            assert!(cache.len() <= 10, "{}", cache.len());
            assert_eq!(cache.get(&[0]), Some(known(0)), "after {shape}");
        }
        assert_eq!((cache.get(&[999]), cache.get(&[990])), (Some(known(999)), None));
    }
}
