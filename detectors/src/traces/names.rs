//! Names of services and of operations as small numbers, however many distinct ones come.

use std::sync::Arc;

use arrow::array::Array;
use faultline_core::batch::{DictArray, dict_value};
use rustc_hash::FxHashMap;

/// Bytes of a name that tell it apart; the rest is cut off.
const MAX_NAME_BYTES: usize = 256;
/// Dictionary key of a batch that no row has used yet.
const UNSEEN: u32 = u32::MAX;

/// Names, each once. Index 0 is the empty name, 1 is `*`: every name past the limit.
#[derive(Debug)]
pub(super) struct Names {
    names: Vec<Arc<str>>,
    idx: FxHashMap<Arc<str>, u32>,
    max: usize,
    /// Index for each dictionary key of the batch at hand.
    of_key: Vec<u32>,
}

impl Names {
    /// The index that all names past the limit share.
    pub const FOLDED: u32 = 1;

    pub fn new(max: usize) -> Self {
        let names: Vec<Arc<str>> = vec![Arc::from(""), Arc::from("*")];
        let idx = names.iter().cloned().zip(0..).collect();
        Self { max: max.saturating_add(names.len()), names, idx, of_key: Vec::new() }
    }

    /// Names by index.
    pub fn all(&self) -> &[Arc<str>] {
        &self.names
    }

    /// Begins a batch: `column` is what [`Self::of_row`] will be asked about.
    pub fn begin(&mut self, column: &DictArray) {
        self.of_key.clear();
        self.of_key.resize(column.values().len(), UNSEEN);
    }

    /// Index of a row's name. Each value of the dictionary is looked up once, and only if a row uses it.
    pub fn of_row(&mut self, column: &DictArray, row: usize) -> u32 {
        let Some(key) = column.key(row) else { return 0 };
        match self.of_key.get(key).copied() {
            Some(UNSEEN) => {
                let idx = self.idx_of(dict_value(column, row).unwrap_or_default());
                self.of_key[key] = idx;
                idx
            }
            Some(idx) => idx,
            None => 0,
        }
    }

    fn idx_of(&mut self, name: &str) -> u32 {
        let name = &name[..name.floor_char_boundary(MAX_NAME_BYTES)];
        if let Some(&idx) = self.idx.get(name) {
            return idx;
        }
        if self.names.len() >= self.max {
            return Self::FOLDED;
        }
        let (name, idx) = (Arc::<str>::from(name), self.names.len() as u32);
        self.names.push(Arc::clone(&name));
        self.idx.insert(name, idx);
        idx
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_past_the_limit_share_one_and_the_known_ones_keep_theirs() {
        let mut names = Names::new(2);
        let column: DictArray = [Some("a"), None, Some("b"), Some("c"), Some("a"), Some("")].into_iter().collect();
        names.begin(&column);
        let idx: Vec<u32> = (0..column.len()).map(|row| names.of_row(&column, row)).collect();
        assert_eq!(idx, [2, 0, 3, Names::FOLDED, 2, 0]);
        let next: DictArray = [Some("d"), Some("b")].into_iter().collect();
        names.begin(&next);
        assert_eq!((names.of_row(&next, 0), names.of_row(&next, 1)), (Names::FOLDED, 3));
        assert_eq!(names.all().iter().map(|name| &**name).collect::<Vec<_>>(), ["", "*", "a", "b"]);
    }

    #[test]
    fn an_endless_name_is_cut_between_characters() {
        let mut names = Names::new(10);
        let long = format!("x{}", "é".repeat(1_000));
        let column: DictArray = [Some(long.as_str())].into_iter().collect();
        names.begin(&column);
        assert_eq!(names.of_row(&column, 0), 2);
        assert_eq!(names.all()[2].len(), 255);
    }
}
