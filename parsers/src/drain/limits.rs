//! What keeps a tree small and calm: the cap on templates and the limit on new ones.
//!
//! The limit is a token bucket over the stream's own lines, so that it needs no clock and no other stream matters: each line
//! earns `max_new_templates / new_template_lines` of a template, up to `max_new_templates`. A line that would found a
//! template beyond it is counted under the catch-all of its length, `<*> <*> <*>`: unmasked ids or random text then cost a
//! template for each length instead of one for each line, and detectors see few new templates instead of a flood.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use super::{Drain, DrainConfig, NO_LEAF, Origin};
use crate::{hash::WILDCARD, tokens::MaskedLine};

/// New templates that a stream may still found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Allowance {
    /// In parts of a template, `new_template_lines` for each.
    saved: u64,
    /// Number of the line up to which they have been earned.
    line: u64,
}

impl Allowance {
    pub(super) fn full(config: &DrainConfig) -> Self {
        Self { saved: Self::most(config), line: 0 }
    }

    fn most(config: &DrainConfig) -> u64 {
        (config.max_new_templates as u64).saturating_mul(config.new_template_lines as u64)
    }

    /// Takes one template out at line number `line`, if there is one.
    pub(super) fn take(&mut self, config: &DrainConfig, line: u64) -> bool {
        let earned = line.saturating_sub(self.line).saturating_mul(config.max_new_templates as u64);
        self.saved = self.saved.saturating_add(earned).min(Self::most(config));
        self.line = line;
        let left = self.saved.checked_sub(config.new_template_lines as u64);
        self.saved = left.unwrap_or(self.saved);
        left.is_some()
    }
}

impl Drain {
    /// The catch-all for a line's number of tokens.
    pub(super) fn catch_all(&mut self, masked: &MaskedLine) -> u32 {
        self.stats.limited_lines += 1;
        let tokens = masked.tokens();
        if let Some(slot) = self.catch_alls.get(&tokens.len()) {
            return *slot;
        }
        self.make_room();
        let leaf = self.fixed_leaf(masked.hasher(), tokens.len());
        self.insert(vec!["<*>".into(); tokens.len()], &vec![WILDCARD; tokens.len()], leaf, Origin::CatchAll)
    }

    /// Enters a template among those that are found by length.
    pub(super) fn list(&mut self, slot: u32, n_tokens: usize) {
        match self.cold[slot as usize].origin {
            Origin::Line => {}
            Origin::CatchAll => _ = self.catch_alls.insert(n_tokens, slot),
            Origin::Seed | Origin::Pin => self.planted.entry(n_tokens).or_default().push(slot),
        }
    }

    /// Takes it out there.
    pub(super) fn unlist(&mut self, slot: u32, n_tokens: usize) {
        match self.cold[slot as usize].origin {
            Origin::Line => {}
            Origin::CatchAll => _ = self.catch_alls.remove(&n_tokens),
            Origin::Seed | Origin::Pin => {
                let slots = self.planted.get_mut(&n_tokens).expect("`list` has entered it");
                slots.retain(|other| *other != slot);
            }
        }
    }

    /// Makes sure that the cap leaves room for one more template.
    pub(super) fn make_room(&mut self) {
        while self.hot.len() - self.free.len() >= self.config.max_templates {
            self.evict(); // more than once only where a snapshot holds more than the cap allows now
        }
    }

    /// Enters a new template in the order of age, if that is kept already.
    pub(super) fn note_age(&mut self, slot: u32) {
        if self.by_age.len() > 4 * self.hot.len() {
            self.by_age.clear(); // full of templates that were merged: made anew when needed
        }
        if !self.by_age.is_empty() {
            self.by_age.push(Reverse((self.hot[slot as usize].used, slot)));
        }
    }

    /// Takes a template out of the tree; what is left in its `cold` part is the caller's to clear.
    pub(super) fn remove(&mut self, slot: u32) {
        let hot = self.hot[slot as usize];
        if !self.cold[slot as usize].is_reported {
            self.unreported.retain(|other| *other != slot);
            if self.removed_unreported.len() < self.config.max_templates {
                self.removed_unreported.push(self.template(slot));
            } else {
                self.stats.unreported += 1;
            }
        }
        self.unlist(slot, self.cold[slot as usize].tokens.len());
        self.hot[slot as usize].used = 0;
        self.hot[slot as usize].leaf = NO_LEAF;
        self.free.push(slot);
        self.remove_row(hot.leaf as usize, hot.row as usize);
    }

    /// Drops the template that has waited longest for a line; never one that the user gave.
    fn evict(&mut self) {
        if self.by_age.is_empty() {
            let is_own = |slot: usize| self.cold[slot].origin < Origin::Seed;
            let live = self.hot.iter().enumerate().filter(|(slot, hot)| hot.used > 0 && is_own(*slot));
            self.by_age = live.map(|(slot, hot)| Reverse((hot.used, slot as u32))).collect();
        }
        let slot = loop {
            let Some(Reverse((used, slot))) = self.by_age.pop() else { return };
            let now = self.hot[slot as usize].used;
            if now == used {
                break slot;
            }
            // Used since: back with its new age. Each line ages one entry, so this ends.
            if now > 0 {
                self.by_age.push(Reverse((now, slot)));
            }
        };
        let hot = self.hot[slot as usize];
        self.stats.evicted += 1;
        self.stats.evicted_lines += hot.count;
        self.remove(slot);
        self.ids.remove(&hot.id);
        for merged in std::mem::take(&mut self.cold[slot as usize]).merged {
            self.forget_alias(merged);
            self.ids.remove(&merged);
        }
    }
}
