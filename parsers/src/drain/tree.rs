//! The tree: nodes by number of tokens and first tokens, leaves of templates at its ends.

use super::{Drain, NO_LEAF, Node, leaf::Leaf};
use crate::hash::{Class, Hasher, WILDCARD, class_of};

/// Stands for the root in the keys of leaves beside the tree.
const FIXED: u64 = 1;

impl Drain {
    /// The key of a node's child; the path alone decides it, not the order of arrival.
    fn child_key(hasher: &Hasher, node: u64, token: u64) -> u64 {
        let token = match class_of(token) {
            // A line that begins with a number and one that begins with an address may be the same template.
            Class::Pure => Class::Pure as u64,
            _ => token,
        };
        hasher.join(node, token)
    }

    fn root_key(hasher: &Hasher, n_tokens: usize) -> u64 {
        hasher.join(0, n_tokens as u64)
    }

    pub(super) fn find_leaf(&self, hasher: &Hasher, tokens: &[u64]) -> Option<usize> {
        let root = Self::root_key(hasher, tokens.len());
        let mut key = root;
        for &token in tokens.iter().take(self.config.prefix_tokens) {
            let exact = Self::child_key(hasher, key, token);
            let shared = Self::child_key(hasher, key, WILDCARD);
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

    pub(super) fn make_leaf(&mut self, hasher: &Hasher, tokens: &[u64]) -> usize {
        let root = Self::root_key(hasher, tokens.len());
        self.nodes.entry(root).or_insert(Node { parent: root, n_children: 0, leaf: NO_LEAF });
        let mut key = root;
        for &token in tokens.iter().take(self.config.prefix_tokens) {
            let exact = Self::child_key(hasher, key, token);
            let shared = Self::child_key(hasher, key, WILDCARD);
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
        self.leaf_at(key, tokens.len())
    }

    /// The leaf of templates that no search finds, pins and catch-alls: one for each length, beside the tree.
    pub(super) fn fixed_leaf(&mut self, hasher: &Hasher, n_tokens: usize) -> usize {
        let key = hasher.join(FIXED, n_tokens as u64);
        self.nodes.entry(key).or_insert(Node { parent: key, n_children: 0, leaf: NO_LEAF });
        self.leaf_at(key, n_tokens)
    }

    fn leaf_at(&mut self, key: u64, n_tokens: usize) -> usize {
        let node = self.nodes.get_mut(&key).expect("the caller has inserted it");
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
        self.leaves[leaf].n_tokens = n_tokens;
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

    pub(super) fn touch_leaf(&mut self, leaf: usize) {
        self.generations += 1;
        self.leaves[leaf].generation = self.generations;
    }

    pub(super) fn remove_row(&mut self, leaf_idx: usize, row: usize) {
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
}
