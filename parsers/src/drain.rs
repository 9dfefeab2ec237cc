//! Drain (station 4): a fixed-depth tree that groups masked lines into templates, online.
//!
//! He, Zhu, Zheng, Lyu: "Drain: An Online Log Parsing Approach with Fixed Depth Tree", ICWS 2017. The tree goes by number
//! of tokens, then by the first tokens, to a leaf of templates; the most similar one takes the line if enough tokens are
//! equal, and widens where they differ.
//!
//! Differences from the paper: tokens are 64-bit hashes; a masked line that was seen before finds its template in one
//! probe (a memo that is exact: an entry is void once its leaf has changed); typed placeholders count as equal; the
//! template least recently used, in record order, makes room when the cap is reached; empty branches are pruned; users
//! may give templates beforehand (`planted`); a stream that makes new templates without end is held back (`limits`).
//!
//! Cost: a line seen before, one pass and one probe, whatever the number of templates; a new one, a comparison with those
//! templates of its leaf that share its rarest tokens (`leaf`), and with those that users gave for its length.
//! Memory is bounded by the caps in [`DrainConfig`]. It cannot fail: every line has a template.
//!
//! Templates are never merged across streams or lengths, and a stream's tree sees only its own lines, so the order in
//! which streams arrive changes nothing.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

use faultline_core::{ParamKind, Template, TemplateId};
use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};

mod leaf;
mod limits;
mod merge;
mod planted;
mod state;
mod tree;

use leaf::Leaf;
use limits::Allowance;
pub(crate) use state::DrainState;

use crate::{
    hash::{Class, WILDCARD},
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
    /// New templates in `new_template_lines` lines, at once or spread out.
    pub max_new_templates: usize,
    /// See `max_new_templates`.
    pub new_template_lines: usize,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self {
            similarity: 0.6,
            min_words: 5,
            prefix_tokens: 2,
            max_children: 100,
            max_templates: 10_000,
            max_nodes: 20_000,
            max_new_templates: 1_000,
            new_template_lines: 100_000,
        }
    }
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
    /// It would have founded one too many: the catch-all of its length took it.
    Limited,
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
    /// Lines that the catch-alls took, because the stream makes too many new templates.
    pub limited_lines: u64,
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
    origin: Origin,
}

/// Where a template comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Origin {
    /// A line founded it.
    #[default]
    Line,
    /// It takes what the limit on new templates refuses.
    CatchAll,
    /// The user gave it; it may widen.
    Seed,
    /// The user gave it; it stays as it is.
    Pin,
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
    /// Those of `aliases` that [`Drain::take_aliases`] has not told of.
    untold_aliases: BTreeSet<TemplateId>,
    /// Slots by when they were used at the time of pushing; built when the cap is first reached.
    by_age: BinaryHeap<Reverse<(u64, u32)>>,
    /// Slots of seeds and pins by number of tokens.
    planted: FxHashMap<usize, Vec<u32>>,
    /// Slots of catch-alls by number of tokens.
    catch_alls: FxHashMap<usize, u32>,
    allowance: Allowance,
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
            untold_aliases: BTreeSet::new(),
            by_age: BinaryHeap::new(),
            planted: FxHashMap::default(),
            catch_alls: FxHashMap::default(),
            allowance: Allowance::full(&config),
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
        // What a catch-all's wildcards stand for is the whole line.
        if params == Params::Extract && change != Change::Limited {
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
        let (slot, change) = if let Some(slot) = self.planted_for(tokens) {
            (slot, Change::Matched)
        } else if let Some(taken) = self.search_leaf(masked) {
            taken
        } else if self.allowance.take(&self.config, self.stats.lines) {
            (self.found(masked, line), Change::Created)
        } else {
            // Not memoised: another template may take the line as soon as new ones are allowed again.
            return (self.catch_all(masked), Change::Limited);
        };
        self.memoise(masked.hash, slot);
        (slot, change)
    }

    fn search_leaf(&mut self, masked: &MaskedLine) -> Option<(u32, Change)> {
        let tokens = masked.tokens();
        let idx = self.find_leaf(masked.hasher(), tokens)?;
        let leaf = &self.leaves[idx];
        let mut candidates = std::mem::take(&mut self.candidates);
        leaf.candidates(tokens, self.n_enough(leaf), &mut candidates);
        let taken = match self.most_similar(leaf, tokens, &candidates) {
            Some(slot) => Some((slot, self.widen(idx, slot, tokens))),
            None => self.merge(idx, tokens, &candidates),
        };
        self.candidates = candidates;
        taken
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

    fn found(&mut self, masked: &MaskedLine, line: &[u8]) -> u32 {
        self.make_room();
        let tokens = masked.texts(line);
        let leaf = self.make_leaf(masked.hasher(), masked.tokens());
        self.insert(tokens, masked.tokens(), leaf, Origin::Line)
    }

    /// Puts a template that founds itself now into `leaf`.
    fn insert(&mut self, tokens: Vec<Box<str>>, hashes: &[u64], leaf: usize, origin: Origin) -> u32 {
        let text = tokens.join(" ");
        let ids = (0..).map(|attempt| TemplateId::founded(&self.stream, &text, attempt));
        let id = { ids }.find(|id| self.ids.insert(*id)).expect("there are more ids than templates");
        let row = self.leaves[leaf].slots.len() as u32; // where `push` below puts it
        // Seeds and pins are there before the first line; a slot in use has a number all the same.
        let used = self.stats.lines.max(1);
        let hot = Hot { id, leaf: leaf as u32, row, used, count: 0, first_seen: i64::MAX, last_seen: i64::MIN };
        let is_planted = origin >= Origin::Seed;
        let born = if is_planted { 0 } else { self.stats.lines };
        let cold = Cold { tokens, lineage: Vec::new(), born, is_reported: true, merged: Vec::new(), origin };
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
        self.leaves[leaf].push(slot, hashes);
        self.touch_leaf(leaf);
        self.list(slot, hashes.len());
        if !is_planted {
            self.stats.created += 1;
            self.report(slot);
            self.note_age(slot);
        }
        slot
    }

    fn report(&mut self, slot: u32) {
        let cold = &mut self.cold[slot as usize];
        if cold.is_reported {
            cold.is_reported = false;
            self.unreported.push(slot);
        }
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

    /// Ids that were merged into another since the last call, with the id that took their place.
    pub fn take_aliases(&mut self, aliases: &mut Vec<(TemplateId, TemplateId)>) {
        let untold = std::mem::take(&mut self.untold_aliases);
        aliases.extend(untold.into_iter().map(|id| (id, self.resolve(id))));
    }

    /// The id is its own again, or no template's.
    fn forget_alias(&mut self, id: TemplateId) -> Option<TemplateId> {
        self.untold_aliases.remove(&id);
        self.aliases.remove(&id)
    }

    /// Every template that has had a line.
    pub fn templates(&self) -> impl Iterator<Item = Template> + '_ {
        let has_lines = |slot: &u32| self.hot[*slot as usize].used > 0 && self.hot[*slot as usize].count > 0;
        (0..self.hot.len() as u32).filter(has_lines).map(|slot| self.template(slot))
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
