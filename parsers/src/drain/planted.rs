//! Templates that the user gives beforehand: seeds, which go on to learn, and pins, which stay as they are.
//!
//! A seed is as if a line had founded it before the first line: it sits in the tree, widens and takes others in. A pin
//! sits beside the tree, where nothing widens or merges it. Both are compared first, whole, and never make room for others.
//! Their ids are those of templates founded by the same text, so they are the same in every run, and a template that had
//! been learned from such a line before it became a seed or a pin keeps its id.

use std::cmp::Reverse;

use faultline_core::TemplateId;
use rustc_hash::FxHashMap;

use super::{Drain, Origin, leaf::takes};
use crate::{
    error::ParserError,
    hash::{Hasher, WILDCARD},
    tokens::MaskedLine,
};

/// A text of the configuration, as the tree compares it.
struct Planted {
    id: TemplateId,
    origin: Origin,
    tokens: Vec<Box<str>>,
    hashes: Vec<u64>,
}

impl Drain {
    /// Makes `seeds` and `pins` the templates known beforehand, in place of those known so far, which go on as learned
    /// ones. `masked` is the buffer that the lines are read with.
    ///
    /// # Errors
    /// [`ParserError::Config`] with the key and the entry that does not do; nothing has changed then.
    pub fn plant(&mut self, masked: &mut MaskedLine, seeds: &[String], pins: &[String]) -> Result<(), ParserError> {
        let mut wanted: Vec<Planted> = Vec::new();
        let mut known: FxHashMap<TemplateId, (&str, usize)> = FxHashMap::default();
        for (key, origin, texts) in [("seeds", Origin::Seed, seeds), ("pins", Origin::Pin, pins)] {
            for (idx, text) in texts.iter().enumerate() {
                let wrong = |reason: String| {
                    let text: String = text.chars().take(80).collect();
                    ParserError::Config { key, reason: format!("entry {} (`{text}`) {reason}", idx + 1) }
                };
                let tokens = masked.read_template(text).map_err(wrong)?;
                let id = TemplateId::founded(&self.stream, &tokens.join(" "), 0);
                if let Some((other, entry)) = known.insert(id, (key, idx + 1)) {
                    return Err(wrong(format!("is the same template as entry {entry} of parser.{other}")));
                }
                wanted.push(Planted { id, origin, tokens, hashes: masked.tokens().to_vec() });
            }
        }
        if !wanted.is_empty() && wanted.len() >= self.config.max_templates {
            let reason = format!("{} leaves no room beside {} seeds and pins", self.config.max_templates, wanted.len());
            return Err(ParserError::Config { key: "max_templates", reason });
        }
        let hasher = *masked.hasher();
        let mut former: Vec<u32> = self.planted.values().flatten().copied().collect();
        former.retain(|slot| !known.contains_key(&self.hot[*slot as usize].id));
        former.sort_unstable();
        for slot in former {
            self.settle(slot, Origin::Line, &hasher);
        }
        if !wanted.is_empty() {
            let live = (0..self.hot.len() as u32).filter(|slot| self.hot[*slot as usize].used > 0);
            let slots: FxHashMap<TemplateId, u32> = live.map(|slot| (self.hot[slot as usize].id, slot)).collect();
            wanted.into_iter().for_each(|planted| self.plant_one(planted, &slots, &hasher));
            self.shape += 1; // lines that are remembered may be theirs now
        }
        Ok(())
    }

    fn plant_one(&mut self, planted: Planted, slots: &FxHashMap<TemplateId, u32>, hasher: &Hasher) {
        let Planted { id, origin, tokens, hashes } = planted;
        if let Some(slot) = slots.get(&id).copied().filter(|slot| self.hot[*slot as usize].used > 0) {
            let cold = &mut self.cold[slot as usize];
            if cold.origin == origin {
                return;
            }
            let is_as_given = cold.tokens == tokens;
            if origin == Origin::Pin && !is_as_given {
                cold.note_text();
                cold.tokens = tokens;
                let (leaf, row) = (self.hot[slot as usize].leaf as usize, self.hot[slot as usize].row as usize);
                hashes.iter().enumerate().for_each(|(place, hash)| self.leaves[leaf].set(row, place, *hash));
                self.report(slot);
            }
            return self.settle(slot, origin, hasher);
        }
        // A template of this id that was merged into another is its own again.
        if let Some(into) = self.forget_alias(id) {
            self.ids.remove(&id);
            if let Some(slot) = slots.get(&into) {
                self.cold[*slot as usize].merged.retain(|merged| *merged != id);
            }
        }
        self.make_room();
        let leaf = match origin {
            Origin::Pin => self.fixed_leaf(hasher, hashes.len()),
            _ => self.make_leaf(hasher, &hashes),
        };
        self.insert(tokens, &hashes, leaf, origin);
    }

    /// Puts a template where those of `origin` are.
    fn settle(&mut self, slot: u32, origin: Origin, hasher: &Hasher) {
        let hot = self.hot[slot as usize];
        let hashes = self.leaves[hot.leaf as usize].row(hot.row as usize).to_vec();
        self.unlist(slot, hashes.len());
        self.cold[slot as usize].origin = origin;
        self.list(slot, hashes.len());
        self.remove_row(hot.leaf as usize, hot.row as usize);
        let leaf = match origin {
            Origin::Pin => self.fixed_leaf(hasher, hashes.len()),
            _ => self.make_leaf(hasher, &hashes),
        };
        let row = self.leaves[leaf].push(slot, &hashes);
        (self.hot[slot as usize].leaf, self.hot[slot as usize].row) = (leaf as u32, row as u32);
        self.touch_leaf(leaf);
        self.by_age.clear();
    }

    /// The seed or pin that takes all tokens of a line: that with the fewest wildcards, then a pin, then the first.
    pub(super) fn planted_for(&mut self, tokens: &[u64]) -> Option<u32> {
        let slots = self.planted.get(&tokens.len())?;
        let rank = |&slot: &u32| {
            let hot = self.hot[slot as usize];
            let template = self.leaves[hot.leaf as usize].row(hot.row as usize);
            let takes = template.iter().zip(tokens).all(|(have, seen)| takes(*have, *seen));
            let n_fixed = || template.iter().filter(|token| **token != WILDCARD).count();
            takes.then(|| (n_fixed(), self.cold[slot as usize].origin, Reverse(slot)))
        };
        let slot = slots.iter().filter_map(rank).max()?.2.0;
        if self.hot[slot as usize].count == 0 {
            self.report(slot); // listed from its first line on
        }
        Some(slot)
    }
}
