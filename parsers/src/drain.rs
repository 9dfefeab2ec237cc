//! Drain (station 4): a fixed-depth tree that groups masked lines into templates, online.
//!
//! He, Zhu, Zheng, Lyu: "Drain: An Online Log Parsing Approach with Fixed Depth Tree", ICWS 2017. The tree goes by number
//! of tokens, then by the first tokens, to a leaf of templates; the most similar one takes the line if enough tokens are
//! equal, and widens where they differ.
//!
//! Differences from the paper: tokens are 64-bit hashes; a masked line that was seen before finds its template in one
//! probe (a memo that is exact: an entry is void once its leaf has changed); typed placeholders count as equal; the
//! template least recently used, in record order, makes room when the cap is reached; empty branches are pruned.
//!
//! Cost: a line seen before, one pass and one probe, whatever the number of templates; a new one, a comparison with those
//! templates of its leaf that share its rarest tokens (`leaf`).
//! Memory is bounded by the caps in [`DrainConfig`]. It cannot fail: every line has a template.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use faultline_core::{ParamKind, Template, TemplateId};
use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};

mod leaf;
mod state;

use leaf::{ANY_VALUE, Leaf, Likeness, differ_in_words, takes};
pub(crate) use state::DrainState;

use crate::{
    hash::{Class, WILDCARD, class_of},
    mask::ParamSpan,
    tokens::{MaskedLine, Params},
};

/// Size and shape of one tree.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DrainConfig {
    /// Share of tokens that must be equal for a line to join a template, 0 to 1.
    pub similarity: f64,
    /// Different words seen in one place before the place counts as variable.
    pub min_words: usize,
    /// How many first tokens lead to a leaf.
    pub prefix_tokens: usize,
    /// Branches of one node; further first tokens share one branch.
    pub max_children: usize,
    /// Templates kept.
    pub max_templates: usize,
    /// Nodes of the tree.
    pub max_nodes: usize,
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A template took it as it is.
    Matched,
    /// A template widened to take it.
    Widened,
    /// It founded a template.
    Created,
}

/// The template of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// Its id.
    pub id: TemplateId,
    /// What became of it.
    pub change: Change,
}

/// What has happened, as plain counters. `lines` is the sum of all template counts and `evicted_lines`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainStats {
    /// Lines parsed.
    pub lines: u64,
    /// Templates founded.
    pub created: u64,
    /// Times a template widened.
    pub widened: u64,
    /// Templates dropped to make room.
    pub evicted: u64,
    /// Templates merged into another.
    pub merged: u64,
    /// Lines that the dropped templates had counted.
    pub evicted_lines: u64,
    /// First tokens that had to share a branch, because a node had all its children or the tree all its nodes.
    pub shared_branches: u64,
    /// Lines longer than the cap on bytes.
    pub cut_lines: u64,
    /// Lines with more tokens than the cap.
    pub cut_tokens: u64,
    /// Lines that had to search a leaf.
    pub searched: u64,
    /// Changed templates that were dropped before they could be reported.
    pub unreported: u64,
    /// Merged ids that could not be kept as aliases, because there are too many.
    pub lost_aliases: u64,
}

/// The part of a template that every line touches.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Hot {
    id: TemplateId,
    leaf: u32,
    /// Place in its leaf.
    row: u32,
    /// Number of the latest line; 0 marks a free slot.
    used: u64,
    count: u64,
    first_seen: i64,
    last_seen: i64,
}

/// The part that only creation, widening and reports touch.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Cold {
    tokens: Vec<Box<str>>,
    lineage: Vec<String>,
    /// Number of the line that founded it: the older template wins a tie.
    born: u64,
    is_reported: bool,
    /// Ids of the templates merged into it.
    merged: Vec<TemplateId>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Node {
    parent: u64,
    n_children: u32,
    leaf: u32,
}

#[derive(Clone, Copy, Debug)]
struct Memo {
    line: u64,
    generation: u64,
    /// See [`Drain::shape`].
    shape: u64,
    slot: u32,
}

/// Templates that are considered together for merging.
const MAX_CANDIDATES: usize = 256;
/// Different names after a word that announces one, such as `user`.
const MIN_NAMES: usize = 2;
/// Different words with values inside, such as `rdd_<NUM>`.
const MIN_MIXED: usize = 3;
/// Aliases kept for each template that the cap allows.
const MAX_ALIASES: usize = 4;
const NO_LEAF: u32 = u32::MAX;
const EMPTY_MEMO: Memo = Memo { line: 0, generation: 0, shape: 0, slot: 0 };
const FIRST_MEMO: usize = 1 << 8;
const MAX_MEMO: usize = 1 << 14;

/// The templates of one stream.
#[derive(Debug)]
pub struct Drain {
    stream: String,
    config: DrainConfig,
    hot: Vec<Hot>,
    cold: Vec<Cold>,
    free: Vec<u32>,
    leaves: Vec<Leaf>,
    free_leaves: Vec<u32>,
    nodes: FxHashMap<u64, Node>,
    memo: Vec<Memo>,
    n_memoised: usize,
    generations: u64,
    /// Changes whenever lines may have to take another way through the tree.
    shape: u64,
    ids: FxHashSet<TemplateId>,
    /// Ids of merged templates, with the id that took their place.
    aliases: BTreeMap<TemplateId, TemplateId>,
    /// Slots by when they were used at the time of pushing; built when the cap is first reached.
    by_age: BinaryHeap<Reverse<(u64, u32)>>,
    /// Reused by each search.
    candidates: Vec<u32>,
    unreported: Vec<u32>,
    removed_unreported: Vec<Template>,
    stats: DrainStats,
}

impl Drain {
    /// An empty tree for the lines of `stream`.
    #[must_use]
    pub fn new(stream: &str, config: DrainConfig) -> Self {
        Self {
            stream: stream.to_owned(),
            config,
            hot: Vec::new(),
            cold: Vec::new(),
            free: Vec::new(),
            leaves: Vec::new(),
            free_leaves: Vec::new(),
            nodes: FxHashMap::default(),
            memo: vec![EMPTY_MEMO; FIRST_MEMO],
            n_memoised: 0,
            generations: 0,
            shape: 1,
            ids: FxHashSet::default(),
            aliases: BTreeMap::new(),
            by_age: BinaryHeap::new(),
            candidates: Vec::new(),
            unreported: Vec::new(),
            removed_unreported: Vec::new(),
            stats: DrainStats::default(),
        }
    }

    /// Finds or founds the template of `line`. With [`Params::Extract`] its variable parts are in `masked.params()`
    /// afterwards.
    #[inline]
    pub fn add(&mut self, masked: &mut MaskedLine, line: &[u8], time_unix_nano: i64, params: Params) -> Match {
        masked.read(line, params);
        self.stats.lines += 1;
        self.stats.cut_lines += u64::from(masked.len < line.len());
        self.stats.cut_tokens += u64::from(masked.cut_tokens);
        let memo = self.memo[masked.hash as usize & (self.memo.len() - 1)];
        let (slot, change) = if memo.line == masked.hash && memo.shape == self.shape && self.is_current(memo) {
            (memo.slot, Change::Matched)
        } else {
            self.search(masked, line)
        };
        let hot = &mut self.hot[slot as usize];
        hot.used = self.stats.lines;
        hot.count += 1;
        hot.first_seen = hot.first_seen.min(time_unix_nano);
        hot.last_seen = hot.last_seen.max(time_unix_nano);
        let found = Match { id: hot.id, change };
        if params == Params::Extract {
            let (leaf, row) = (hot.leaf, hot.row);
            self.add_wildcard_params(masked, leaf, row);
        }
        found
    }

    #[inline(always)]
    fn is_current(&self, memo: Memo) -> bool {
        let leaf = self.hot[memo.slot as usize].leaf;
        leaf != NO_LEAF && self.leaves[leaf as usize].generation == memo.generation
    }

    #[cold]
    #[inline(never)]
    fn search(&mut self, masked: &MaskedLine, line: &[u8]) -> (u32, Change) {
        self.stats.searched += 1;
        let tokens = masked.tokens();
        let mut candidates = std::mem::take(&mut self.candidates);
        let taken = self.find_leaf(masked).and_then(|idx| {
            let leaf = &self.leaves[idx];
            leaf.candidates(tokens, self.n_enough(leaf), &mut candidates);
            match self.most_similar(leaf, tokens, &candidates) {
                Some(slot) => Some((slot, self.widen(idx, slot, tokens))),
                None => self.merge(idx, masked, &candidates),
            }
        });
        self.candidates = candidates;
        let (slot, change) = taken.unwrap_or_else(|| (self.found(masked, line), Change::Created));
        self.memoise(masked.hash, slot);
        (slot, change)
    }

    fn memoise(&mut self, line: u64, slot: u32) {
        self.n_memoised += 1;
        if self.n_memoised > self.memo.len() && self.memo.len() < MAX_MEMO {
            self.memo = vec![EMPTY_MEMO; self.memo.len() * 4];
            self.n_memoised = 0;
        }
        let generation = self.leaves[self.hot[slot as usize].leaf as usize].generation;
        let at = line as usize & (self.memo.len() - 1);
        self.memo[at] = Memo { line, generation, shape: self.shape, slot };
    }

    /// The key of a node's child; the path alone decides it, not the order of arrival.
    fn child_key(masked: &MaskedLine, node: u64, token: u64) -> u64 {
        let token = match class_of(token) {
            // A line that begins with a number and one that begins with an address may be the same template.
            Class::Pure => Class::Pure as u64,
            _ => token,
        };
        masked.hasher().join(node, token)
    }

    fn root_key(masked: &MaskedLine) -> u64 {
        masked.hasher().join(0, masked.tokens().len() as u64)
    }

    fn find_leaf(&self, masked: &MaskedLine) -> Option<usize> {
        let root = Self::root_key(masked);
        let mut key = root;
        for &token in masked.tokens().iter().take(self.config.prefix_tokens) {
            let exact = Self::child_key(masked, key, token);
            let shared = Self::child_key(masked, key, WILDCARD);
            key = if self.nodes.contains_key(&exact) {
                exact
            } else if self.nodes.contains_key(&shared) {
                shared
            } else {
                root // where lines go once the tree is full
            };
            if key == root {
                break;
            }
        }
        let leaf = self.nodes.get(&key)?.leaf;
        (leaf != NO_LEAF).then_some(leaf as usize)
    }

    fn make_leaf(&mut self, masked: &MaskedLine) -> usize {
        let root = Self::root_key(masked);
        self.nodes.entry(root).or_insert(Node { parent: root, n_children: 0, leaf: NO_LEAF });
        let mut key = root;
        for &token in masked.tokens().iter().take(self.config.prefix_tokens) {
            let exact = Self::child_key(masked, key, token);
            let shared = Self::child_key(masked, key, WILDCARD);
            let has_room = (self.nodes[&key].n_children as usize) < self.config.max_children;
            let wanted = if self.nodes.contains_key(&exact) || has_room { exact } else { shared };
            self.stats.shared_branches += u64::from(wanted != exact);
            if !self.nodes.contains_key(&wanted) {
                if self.nodes.len() >= self.config.max_nodes {
                    self.stats.shared_branches += u64::from(wanted == exact);
                    self.prune(key);
                    key = root;
                    self.nodes.entry(root).or_insert(Node { parent: root, n_children: 0, leaf: NO_LEAF });
                    break;
                }
                self.nodes.insert(wanted, Node { parent: key, n_children: 0, leaf: NO_LEAF });
                if let Some(node) = self.nodes.get_mut(&key) {
                    node.n_children += 1;
                }
                // A line that took the shared branch or the full tree's leaf may now go elsewhere.
                self.forget_memo();
            }
            key = wanted;
        }
        let node = self.nodes.get_mut(&key).expect("inserted above");
        if node.leaf != NO_LEAF {
            return node.leaf as usize;
        }
        let leaf = match self.free_leaves.pop() {
            Some(leaf) => leaf,
            None => {
                self.leaves.push(Leaf::default());
                (self.leaves.len() - 1) as u32
            }
        };
        node.leaf = leaf;
        let leaf = leaf as usize;
        self.leaves[leaf].node = key;
        self.leaves[leaf].n_tokens = masked.tokens().len();
        leaf
    }

    fn forget_memo(&mut self) {
        self.shape += u64::from(self.stats.shared_branches > 0);
    }

    /// Removes `key` and its ancestors as far as nothing hangs on them.
    fn prune(&mut self, mut key: u64) {
        while let Some(node) = self.nodes.get(&key).copied() {
            if node.leaf != NO_LEAF || node.n_children > 0 {
                return;
            }
            self.nodes.remove(&key);
            if node.parent == key {
                return;
            }
            if let Some(parent) = self.nodes.get_mut(&node.parent) {
                parent.n_children -= 1;
            }
            key = node.parent;
        }
    }

    /// The slot of the template that takes the line: the most equal tokens, then the oldest. Never one that differs in a
    /// word: words are semantics.
    fn most_similar(&self, leaf: &Leaf, tokens: &[u64], candidates: &[u32]) -> Option<u32> {
        let n_enough = self.n_enough(leaf);
        let rank = |&slot: &u32| {
            let likeness = Likeness::of(leaf.row(self.hot[slot as usize].row as usize), tokens);
            let takes = likeness.n_words == 0 && likeness.n_equal >= n_enough;
            takes.then(|| (likeness.n_equal, Reverse(self.cold[slot as usize].born), slot))
        };
        candidates.iter().filter_map(rank).max().map(|best| best.2)
    }

    /// How many tokens must be equal.
    fn n_enough(&self, leaf: &Leaf) -> usize {
        (self.config.similarity * leaf.n_tokens as f64).ceil() as usize
    }

    /// Merges templates that differ from the line, and so from each other, only in places where at least
    /// [`DrainConfig::min_words`] different words have been seen: such a place is a variable (a user name), fewer are
    /// semantics (`started`, `paused`). The oldest template takes the others' lines and the others' ids become aliases.
    fn merge(&mut self, leaf_idx: usize, masked: &MaskedLine, slots: &[u32]) -> Option<(u32, Change)> {
        let leaf = &self.leaves[leaf_idx];
        let n_tokens = leaf.n_tokens;
        let tokens = masked.tokens();
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
            let within: Vec<u32> = candidates.iter().filter(|c| c.1 & !places == 0).map(|c| c.0).collect();
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
                return Some(self.merge_slots(leaf_idx, within, masked));
            }
        }
        None
    }

    fn merge_slots(&mut self, leaf: usize, mut slots: Vec<u32>, masked: &MaskedLine) -> (u32, Change) {
        slots.sort_unstable_by_key(|slot| self.cold[*slot as usize].born);
        let survivor = slots[0];
        self.widen(leaf, survivor, masked.tokens());
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
                    self.cold[survivor as usize].merged.push(merged);
                } else {
                    self.aliases.remove(&merged);
                    self.ids.remove(&merged);
                    self.stats.lost_aliases += 1;
                }
            }
            self.stats.merged += 1;
        }
        (survivor, Change::Widened)
    }

    /// Takes a template out of the tree; what is left in its `cold` part is the caller's to clear.
    fn remove(&mut self, slot: u32) {
        let hot = self.hot[slot as usize];
        if !self.cold[slot as usize].is_reported {
            self.unreported.retain(|other| *other != slot);
            if self.removed_unreported.len() < self.config.max_templates {
                self.removed_unreported.push(self.template(slot));
            } else {
                self.stats.unreported += 1;
            }
        }
        self.hot[slot as usize].used = 0;
        self.hot[slot as usize].leaf = NO_LEAF;
        self.free.push(slot);
        self.remove_row(hot.leaf as usize, hot.row as usize);
    }

    /// Makes the template match `tokens`.
    fn widen(&mut self, leaf: usize, slot: u32, tokens: &[u64]) -> Change {
        let row = self.hot[slot as usize].row as usize;
        let template = self.leaves[leaf].row(row).to_vec();
        if template.iter().zip(tokens).all(|(have, seen)| takes(*have, *seen)) {
            return Change::Matched;
        }
        let cold = &mut self.cold[slot as usize];
        cold.lineage.push(cold.tokens.join(" "));
        for (place, (have, seen)) in template.iter().zip(tokens).enumerate() {
            if !takes(*have, *seen) {
                let both = class_of(*have) == Class::Pure && class_of(*seen) == Class::Pure;
                self.leaves[leaf].set(row, place, if both { ANY_VALUE } else { WILDCARD });
                cold.tokens[place] = "<*>".into();
            }
        }
        self.stats.widened += 1;
        self.touch_leaf(leaf);
        self.report(slot);
        Change::Widened
    }

    fn found(&mut self, masked: &MaskedLine, line: &[u8]) -> u32 {
        while self.hot.len() - self.free.len() >= self.config.max_templates {
            self.evict(); // more than once only where a snapshot holds more than the cap allows now
        }
        let tokens = masked.texts(line);
        let text = tokens.join(" ");
        let mut attempt = 0;
        let id = loop {
            let id = TemplateId::founded(&self.stream, &text, attempt);
            if self.ids.insert(id) {
                break id;
            }
            attempt += 1;
        };
        let leaf = self.make_leaf(masked);
        let row = self.leaves[leaf].slots.len() as u32; // where `push` below puts it
        let hot = Hot {
            id,
            leaf: leaf as u32,
            row,
            used: self.stats.lines,
            count: 0,
            first_seen: i64::MAX,
            last_seen: i64::MIN,
        };
        let cold = Cold { tokens, lineage: Vec::new(), born: self.stats.lines, is_reported: true, merged: Vec::new() };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.hot[slot as usize] = hot;
                self.cold[slot as usize] = cold;
                slot
            }
            None => {
                self.hot.push(hot);
                self.cold.push(cold);
                (self.hot.len() - 1) as u32
            }
        };
        self.leaves[leaf].push(slot, masked.tokens());
        self.touch_leaf(leaf);
        self.stats.created += 1;
        self.report(slot);
        if !self.by_age.is_empty() {
            self.by_age.push(Reverse((self.stats.lines, slot)));
        }
        slot
    }

    fn touch_leaf(&mut self, leaf: usize) {
        self.generations += 1;
        self.leaves[leaf].generation = self.generations;
    }

    fn report(&mut self, slot: u32) {
        let cold = &mut self.cold[slot as usize];
        if cold.is_reported {
            cold.is_reported = false;
            self.unreported.push(slot);
        }
    }

    /// Drops the template that has waited longest for a line.
    fn evict(&mut self) {
        if self.by_age.is_empty() {
            let live = self.hot.iter().enumerate().filter(|(_, hot)| hot.used > 0);
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
            self.aliases.remove(&merged);
            self.ids.remove(&merged);
        }
    }

    fn remove_row(&mut self, leaf_idx: usize, row: usize) {
        let leaf = &mut self.leaves[leaf_idx];
        if let Some(moved) = leaf.remove(row) {
            self.hot[moved as usize].row = row as u32;
        }
        if leaf.slots.is_empty() {
            let node = leaf.node;
            if let Some(node) = self.nodes.get_mut(&node) {
                node.leaf = NO_LEAF;
            }
            self.free_leaves.push(leaf_idx as u32);
            self.prune(node);
            self.forget_memo();
        }
        self.touch_leaf(leaf_idx);
    }

    /// Adds the tokens that meet `<*>` to the parameters, in order; what the masks found inside them goes.
    fn add_wildcard_params(&self, masked: &mut MaskedLine, leaf: u32, row: u32) {
        let leaf = &self.leaves[leaf as usize];
        let template = leaf.row(row as usize);
        for (place, token) in template.iter().enumerate() {
            if *token == WILDCARD {
                let (start, end) = masked.ranges()[place];
                let from = masked.params.partition_point(|param| param.end <= start);
                let to = masked.params.partition_point(|param| param.start < end);
                let whole = ParamSpan { kind: ParamKind::Text, start, end };
                // A value with nothing but brackets round it keeps its kind.
                if to != from + 1 {
                    masked.params.splice(from..to, [whole]);
                } else if class_of_span(masked.params[from], start, end) == Class::Mixed {
                    masked.params[from] = whole;
                }
            }
        }
    }

    fn template(&self, slot: u32) -> Template {
        let (hot, cold) = (&self.hot[slot as usize], &self.cold[slot as usize]);
        Template {
            id: hot.id,
            stream: self.stream.clone(),
            text: cold.tokens.join(" "),
            lineage: cold.lineage.clone(),
            count: hot.count,
            first_seen_unix_nano: hot.first_seen,
            last_seen_unix_nano: hot.last_seen,
        }
    }

    /// Templates founded or widened since the last call.
    pub fn take_changes(&mut self, changes: &mut Vec<Template>) {
        changes.append(&mut self.removed_unreported);
        for slot in std::mem::take(&mut self.unreported) {
            self.cold[slot as usize].is_reported = true;
            changes.push(self.template(slot));
        }
    }

    /// Every template.
    pub fn templates(&self) -> impl Iterator<Item = Template> + '_ {
        (0..self.hot.len() as u32).filter(|slot| self.hot[*slot as usize].used > 0).map(|slot| self.template(slot))
    }

    /// The id that took the place of `id`, which is `id` itself unless its template was merged into another.
    #[must_use]
    pub fn resolve(&self, id: TemplateId) -> TemplateId {
        let mut id = id;
        while let Some(into) = self.aliases.get(&id) {
            id = *into;
        }
        id
    }

    /// Merged ids with the id that took their place.
    pub fn aliases(&self) -> impl Iterator<Item = (TemplateId, TemplateId)> + '_ {
        self.aliases.keys().map(|id| (*id, self.resolve(*id)))
    }

    /// What has happened so far.
    #[must_use]
    pub fn stats(&self) -> DrainStats {
        self.stats
    }
}

fn class_of_span(param: ParamSpan, start: u32, end: u32) -> Class {
    if (param.start, param.end) == (start, end) { Class::Pure } else { Class::Mixed }
}

fn is_identity(word: &str) -> bool {
    matches!(
        word.to_ascii_lowercase().as_str(),
        "user" | "username" | "account" | "login" | "group" | "host" | "hostname" | "name" | "domain"
    )
}
