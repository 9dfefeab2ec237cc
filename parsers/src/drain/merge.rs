//! How templates generalise: the one that is similar enough widens, and many that differ in the same places become one.

use std::cmp::Reverse;

use super::{
    Change, Cold, Drain, Origin,
    leaf::{ANY_VALUE, Leaf, Likeness, differ_in_words, takes},
};
use crate::hash::{Class, WILDCARD, class_of};

/// Templates that are considered together for merging.
const MAX_CANDIDATES: usize = 256;
/// Different names after a word that announces one, such as `user`.
const MIN_NAMES: usize = 2;
/// Different words with values inside, such as `rdd_<NUM>`.
const MIN_MIXED: usize = 3;
/// Aliases kept for each template that the cap allows.
const MAX_ALIASES: usize = 4;
/// Earlier texts kept of one template: the one that founded it and the latest.
const MAX_LINEAGE: usize = 32;

impl Cold {
    /// Makes the present text part of the lineage.
    pub(super) fn note_text(&mut self) {
        if self.lineage.len() == MAX_LINEAGE {
            self.lineage.remove(1);
        }
        self.lineage.push(self.tokens.join(" "));
    }
}

impl Drain {
    /// The slot of the template that takes the line: the most equal tokens, then the oldest. Never one that differs in a
    /// word: words are semantics.
    pub(super) fn most_similar(&self, leaf: &Leaf, tokens: &[u64], candidates: &[u32]) -> Option<u32> {
        let n_enough = self.n_enough(leaf);
        let rank = |&slot: &u32| {
            let likeness = Likeness::of(leaf.row(self.hot[slot as usize].row as usize), tokens);
            let takes = likeness.n_words == 0 && likeness.n_equal >= n_enough;
            takes.then(|| (likeness.n_equal, Reverse(self.cold[slot as usize].born), slot))
        };
        candidates.iter().filter_map(rank).max().map(|best| best.2)
    }

    /// How many tokens must be equal.
    pub(super) fn n_enough(&self, leaf: &Leaf) -> usize {
        (self.config.similarity * leaf.n_tokens as f64).ceil() as usize
    }

    /// Merges templates that differ from the line, and so from each other, only in places where at least
    /// [`DrainConfig::min_words`] different words have been seen: such a place is a variable (a user name), fewer are
    /// semantics (`started`, `paused`). The oldest template takes the others' lines and the others' ids become aliases.
    pub(super) fn merge(&mut self, leaf_idx: usize, tokens: &[u64], slots: &[u32]) -> Option<(u32, Change)> {
        let leaf = &self.leaves[leaf_idx];
        let n_tokens = leaf.n_tokens;
        let n_enough = self.n_enough(leaf);
        let row_of = |slot: u32| leaf.row(self.hot[slot as usize].row as usize);
        let mut candidates: Vec<(u32, u128)> = Vec::new();
        for &slot in slots {
            let likeness = Likeness::of(row_of(slot), tokens);
            let pairs = row_of(slot).iter().zip(tokens).take(128).enumerate();
            let places =
                pairs.fold(0_u128, |all, (idx, (have, seen))| all | u128::from(differ_in_words(*have, *seen)) << idx);
            let is_seen_whole = places.count_ones() as usize == likeness.n_words;
            if likeness.n_equal >= n_enough && is_seen_whole && candidates.len() < MAX_CANDIDATES {
                candidates.push((slot, places));
            }
        }
        let mut places: Vec<u128> = candidates.iter().map(|candidate| candidate.1).collect();
        places.sort_unstable_by_key(|places| (places.count_ones(), *places));
        places.dedup();
        for places in places {
            let mut within: Vec<u32> = candidates.iter().filter(|c| c.1 & !places == 0).map(|c| c.0).collect();
            // Templates that the user told apart stay apart: only the first seed takes others in.
            let is_seed = |slot: u32| self.cold[slot as usize].origin == Origin::Seed;
            let first_seed = within.iter().copied().find(|slot| is_seed(*slot));
            within.retain(|slot| !is_seed(*slot) || Some(*slot) == first_seed);
            let varies = (0..n_tokens.min(128)).filter(|idx| places >> idx & 1 == 1).all(|idx| {
                let mut words: Vec<u64> = within.iter().map(|slot| row_of(*slot)[idx]).collect();
                words.push(tokens[idx]);
                words.sort_unstable();
                words.dedup();
                let named = idx > 0 && is_identity(&self.cold[within[0] as usize].tokens[idx - 1]);
                let mixed = words.iter().any(|word| class_of(*word) == Class::Mixed);
                let needed = if named {
                    MIN_NAMES
                } else if mixed {
                    MIN_MIXED.min(self.config.min_words)
                } else {
                    self.config.min_words
                };
                words.len() >= needed
            });
            if varies {
                return Some(self.merge_slots(leaf_idx, within, tokens));
            }
        }
        None
    }

    fn merge_slots(&mut self, leaf: usize, mut slots: Vec<u32>, line: &[u64]) -> (u32, Change) {
        slots.sort_unstable_by_key(|slot| (self.cold[*slot as usize].born, *slot));
        let survivor = slots[0];
        self.widen(leaf, survivor, line);
        for &slot in &slots[1..] {
            // Every place where the two differ is a wildcard now: the line differs there from both, or from one.
            let tokens = self.leaves[leaf].row(self.hot[slot as usize].row as usize).to_vec();
            self.widen(leaf, survivor, &tokens);
            let hot = self.hot[slot as usize];
            let into = &mut self.hot[survivor as usize];
            into.count += hot.count;
            into.first_seen = into.first_seen.min(hot.first_seen);
            into.last_seen = into.last_seen.max(hot.last_seen);
            let id = into.id;
            self.remove(slot);
            let mut ids = std::mem::take(&mut self.cold[slot as usize].merged);
            ids.push(hot.id);
            self.cold[slot as usize] = Cold::default();
            for merged in ids {
                if self.aliases.len() < self.config.max_templates.saturating_mul(MAX_ALIASES) {
                    self.aliases.insert(merged, id);
                    self.untold_aliases.insert(merged);
                    self.cold[survivor as usize].merged.push(merged);
                } else {
                    self.forget_alias(merged);
                    self.ids.remove(&merged);
                    self.stats.lost_aliases += 1;
                }
            }
            self.stats.merged += 1;
        }
        (survivor, Change::Widened)
    }

    /// Makes the template match `tokens`.
    pub(super) fn widen(&mut self, leaf: usize, slot: u32, tokens: &[u64]) -> Change {
        let row = self.hot[slot as usize].row as usize;
        let template = self.leaves[leaf].row(row).to_vec();
        if template.iter().zip(tokens).all(|(have, seen)| takes(*have, *seen)) {
            return Change::Matched;
        }
        let cold = &mut self.cold[slot as usize];
        cold.note_text();
        for (place, (have, seen)) in template.iter().zip(tokens).enumerate() {
            if !takes(*have, *seen) {
                let both = class_of(*have) == Class::Pure && class_of(*seen) == Class::Pure;
                self.leaves[leaf].set(row, place, if both { ANY_VALUE } else { WILDCARD });
                cold.tokens[place] = "<*>".into();
            }
        }
        self.stats.widened += 1;
        self.touch_leaf(leaf);
        if self.cold[slot as usize].origin == Origin::Seed {
            self.shape += 1; // lines that other leaves remember may be the seed's now
        }
        self.report(slot);
        Change::Widened
    }
}

fn is_identity(word: &str) -> bool {
    matches!(
        word.to_ascii_lowercase().as_str(),
        "user" | "username" | "account" | "login" | "group" | "host" | "hostname" | "name" | "domain"
    )
}
