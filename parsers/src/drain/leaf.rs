//! A leaf of the tree: templates of one length, compared by token hashes, found through an index once they are many.
//!
//! The index makes the search of a crowded leaf cheap without changing its result. A template that shares at least k of
//! n tokens with a line shares one of any n - k + 1 of them, so only the templates listed under the n - k + 1 rarest
//! tokens of the line need to be compared. Lines of random words, which would compare with every template,
//! compare with almost none.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::hash::{Class, WILDCARD, class_of};

/// The hash of a `<*>` that stands for values of several kinds: it counts as equal to any value.
pub(super) const ANY_VALUE: u64 = Class::Pure as u64;
/// Templates from which on an index pays.
const MIN_INDEXED: usize = 32;

/// Templates that share a number of tokens and first tokens.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Leaf {
    /// Changes with any change of its templates, and is never used twice.
    pub(super) generation: u64,
    /// Key of the node it hangs on.
    pub(super) node: u64,
    pub(super) n_tokens: usize,
    pub(super) slots: Vec<u32>,
    /// Token hashes, `n_tokens` for each of `slots`.
    rows: Vec<u64>,
    /// Slots by place and token; none while there are few. Follows from the rows.
    #[serde(skip)]
    index: Option<FxHashMap<u64, Vec<u32>>>,
}

impl Leaf {
    pub(super) fn row(&self, row: usize) -> &[u64] {
        &self.rows[row * self.n_tokens..][..self.n_tokens]
    }

    /// Adds a template; returns its row.
    pub(super) fn push(&mut self, slot: u32, tokens: &[u64]) -> usize {
        self.slots.push(slot);
        self.rows.extend_from_slice(tokens);
        if self.index.is_some() {
            tokens.iter().enumerate().for_each(|(place, token)| self.list(place, *token, slot));
        } else if self.slots.len() == MIN_INDEXED {
            self.build_index();
        }
        self.slots.len() - 1
    }

    /// Takes a template out; returns the slot that has moved to its row.
    pub(super) fn remove(&mut self, row: usize) -> Option<u32> {
        if self.index.is_some() {
            let slot = self.slots[row];
            (0..self.n_tokens).for_each(|place| self.unlist(place, self.rows[row * self.n_tokens + place], slot));
        }
        let last = self.slots.len() - 1;
        self.slots.swap_remove(row);
        self.rows.copy_within(last * self.n_tokens.., row * self.n_tokens);
        self.rows.truncate(last * self.n_tokens);
        if self.slots.is_empty() {
            self.index = None;
        }
        self.slots.get(row).copied()
    }

    /// Replaces one token.
    pub(super) fn set(&mut self, row: usize, place: usize, token: u64) {
        let at = row * self.n_tokens + place;
        let before = std::mem::replace(&mut self.rows[at], token);
        if self.index.is_some() {
            let slot = self.slots[row];
            self.unlist(place, before, slot);
            self.list(place, token, slot);
        }
    }

    /// Slots of all templates that can share at least `n_shared` tokens with `line`, each once, in order.
    pub(super) fn candidates(&self, line: &[u64], n_shared: usize, found: &mut Vec<u32>) {
        found.clear();
        match &self.index {
            Some(index) if n_shared > 0 => {
                let n_rarest = (self.n_tokens + 1).saturating_sub(n_shared);
                let (mut lists, mut n_unknown) = (Vec::with_capacity(self.n_tokens), 0);
                for (place, token) in line.iter().enumerate() {
                    match index.get(&key(place, *token)) {
                        Some(list) => lists.push(list),
                        None => n_unknown += 1,
                    }
                    if n_unknown == n_rarest {
                        return; // nothing is listed under the rarest tokens
                    }
                }
                lists.sort_by_key(|list| list.len());
                lists.truncate(n_rarest - n_unknown);
                lists.into_iter().for_each(|list| found.extend(list));
            }
            _ => found.extend(&self.slots),
        }
        // In one order whether or not there is an index, so that it changes no result.
        found.sort_unstable();
        found.dedup();
    }

    /// Whether its parts fit together.
    pub(super) fn is_sound(&self) -> bool {
        self.rows.len() == self.slots.len() * self.n_tokens
    }

    pub(super) fn build_index(&mut self) {
        if self.slots.len() < MIN_INDEXED {
            return;
        }
        self.index = Some(FxHashMap::default());
        for row in 0..self.slots.len() {
            (0..self.n_tokens).for_each(|place| {
                self.list(place, self.rows[row * self.n_tokens + place], self.slots[row]);
            });
        }
    }

    fn list(&mut self, place: usize, token: u64, slot: u32) {
        if let Some(index) = self.index.as_mut().filter(|_| token != WILDCARD) {
            index.entry(key(place, token)).or_default().push(slot);
        }
    }

    fn unlist(&mut self, place: usize, token: u64, slot: u32) {
        let Some(index) = self.index.as_mut().filter(|_| token != WILDCARD) else { return };
        let Some(list) = index.get_mut(&key(place, token)) else { return };
        // What is dropped has mostly been here for long, so it stands near the front.
        if let Some(at) = list.iter().position(|other| *other == slot) {
            list.remove(at);
        }
        if list.is_empty() {
            index.remove(&key(place, token));
        }
    }
}

/// Where the index lists a token; values of all kinds in one list, because they count as equal.
fn key(place: usize, token: u64) -> u64 {
    let token = if class_of(token) == Class::Pure { ANY_VALUE } else { token };
    token ^ (place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// How alike a template and a line are.
pub(super) struct Likeness {
    /// Tokens that are equal, values of any kind among them.
    pub(super) n_equal: usize,
    /// Places where both have a word, and not the same.
    pub(super) n_words: usize,
}

impl Likeness {
    #[inline(always)]
    pub(super) fn of(template: &[u64], line: &[u64]) -> Self {
        let (mut n_equal, mut n_words) = (0, 0);
        for (have, seen) in template.iter().zip(line) {
            let (a, b) = (class_of(*have), class_of(*seen));
            n_equal += usize::from(have == seen || (a == Class::Pure && b == Class::Pure));
            n_words += usize::from(differ_in_words(*have, *seen));
        }
        Self { n_equal, n_words }
    }
}

/// Whether a difference between two tokens may be one of meaning.
pub(super) fn differ_in_words(have: u64, seen: u64) -> bool {
    let is_wordy = |token| matches!(class_of(token), Class::Word | Class::Mixed);
    have != seen && is_wordy(have) && is_wordy(seen)
}

/// Whether a template's token takes a line's.
pub(super) fn takes(have: u64, seen: u64) -> bool {
    have == seen || have == WILDCARD || (have == ANY_VALUE && class_of(seen) == Class::Pure)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Few tokens, so that templates are alike; classes in the lowest bits as in real hashes.
    fn token() -> impl Strategy<Value = u64> {
        (0..6_u64, prop_oneof![Just(0_u64), Just(1), Just(2), Just(3)])
            .prop_map(|(word, class)| if class == 3 { WILDCARD } else { word << 2 | class })
    }

    proptest! {
        #[test]
        fn the_index_misses_no_template_that_a_full_scan_finds(
            rows in proptest::collection::vec(proptest::collection::vec(token(), 6), 40..120),
            removed in proptest::collection::vec(0..1000_usize, 0..30),
            changed in proptest::collection::vec((0..1000_usize, 0..6_usize), 0..30),
            line in proptest::collection::vec(token(), 6),
            n_shared in 0..7_usize,
        ) {
            let mut leaf = Leaf { n_tokens: 6, ..Leaf::default() };
            rows.iter().enumerate().for_each(|(slot, row)| _ = leaf.push(slot as u32, row));
            for row in removed {
                leaf.remove(row % leaf.slots.len());
            }
            for (row, place) in changed {
                leaf.set(row % leaf.slots.len(), place, WILDCARD);
            }
            let line: Vec<u64> = line.into_iter().map(|token| if token == WILDCARD { 4 } else { token }).collect();
            let mut found = Vec::new();
            leaf.candidates(&line, n_shared, &mut found);
            for (row, slot) in leaf.slots.iter().enumerate() {
                if Likeness::of(leaf.row(row), &line).n_equal >= n_shared {
                    prop_assert!(found.contains(slot), "slot {slot}");
                }
            }
        }
    }
}
