//! What a snapshot holds of a tree, and the tree that comes back from it.

use faultline_core::{Template, TemplateId};
use serde::{Deserialize, Serialize};

use super::{Cold, Drain, DrainConfig, DrainStats, Hot, NO_LEAF, Node, leaf::Leaf, limits::Allowance};

/// Everything of a tree that a snapshot holds. The memo and the order of ages follow from it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DrainState {
    pub(crate) stream: String,
    hot: Vec<Hot>,
    /// In the order in which places are taken again.
    free: Vec<u32>,
    free_leaves: Vec<u32>,
    cold: Vec<Cold>,
    leaves: Vec<Leaf>,
    nodes: Vec<(u64, Node)>,
    aliases: Vec<(TemplateId, TemplateId)>,
    unreported: Vec<u32>,
    removed_unreported: Vec<Template>,
    allowance: Allowance,
    stats: DrainStats,
}

impl Drain {
    pub(crate) fn state(&self) -> DrainState {
        let mut nodes: Vec<(u64, Node)> = self.nodes.iter().map(|(key, node)| (*key, *node)).collect();
        nodes.sort_unstable_by_key(|node| node.0);
        DrainState {
            stream: self.stream.clone(),
            hot: self.hot.clone(),
            free: self.free.clone(),
            free_leaves: self.free_leaves.clone(),
            cold: self.cold.clone(),
            leaves: self.leaves.clone(),
            nodes,
            aliases: self.aliases.iter().map(|(from, into)| (*from, *into)).collect(),
            unreported: self.unreported.clone(),
            removed_unreported: self.removed_unreported.clone(),
            allowance: self.allowance,
            stats: self.stats,
        }
    }

    /// The tree that `state` was taken of.
    pub(crate) fn restore(state: DrainState, config: DrainConfig) -> Result<Self, String> {
        let DrainState { stream, hot, cold, leaves, nodes, aliases, unreported, removed_unreported, stats, .. } = state;
        let (free, free_leaves, allowance) = (state.free, state.free_leaves, state.allowance);
        let mut drain = Self::new(&stream, config);
        let all_slots = || leaves.iter().flat_map(|leaf| &leaf.slots).chain(&unreported);
        let n_live = hot.iter().filter(|hot| hot.used > 0).count();
        let is_sound = hot.len() == cold.len()
            && n_live + free.len() == hot.len()
            && free.iter().all(|slot| hot.get(*slot as usize).is_some_and(|hot| hot.used == 0))
            && free_leaves.iter().all(|leaf| leaves.get(*leaf as usize).is_some_and(|leaf| leaf.slots.is_empty()))
            && all_slots().all(|slot| hot.get(*slot as usize).is_some_and(|hot| hot.used > 0))
            && leaves.iter().all(Leaf::is_sound)
            && nodes.iter().all(|(_, node)| node.leaf == NO_LEAF || (node.leaf as usize) < leaves.len())
            && hot.iter().enumerate().filter(|(_, hot)| hot.used > 0).all(|(slot, hot)| {
                let leaf = leaves.get(hot.leaf as usize);
                leaf.and_then(|leaf| leaf.slots.get(hot.row as usize)) == Some(&(slot as u32))
            })
            && hot
                .iter()
                .zip(&cold)
                .filter(|(hot, _)| hot.used > 0)
                .all(|(hot, cold)| cold.tokens.len() == leaves[hot.leaf as usize].n_tokens);
        if !is_sound {
            return Err(format!("the tree of stream `{stream}` does not hang together"));
        }
        (drain.free, drain.free_leaves) = (free, free_leaves);
        drain.generations = leaves.iter().map(|leaf| leaf.generation).max().unwrap_or(0);
        let merged = aliases.iter().map(|alias| alias.0);
        drain.ids = hot.iter().filter(|hot| hot.used > 0).map(|hot| hot.id).chain(merged).collect();
        drain.nodes = nodes.into_iter().collect();
        drain.aliases = aliases.into_iter().collect();
        // Whoever is told of them twice has only to write the same again.
        drain.untold_aliases = drain.aliases.keys().copied().collect();
        (drain.hot, drain.cold, drain.leaves) = (hot, cold, leaves);
        drain.leaves.iter_mut().for_each(Leaf::build_index);
        (drain.unreported, drain.removed_unreported, drain.stats) = (unreported, removed_unreported, stats);
        drain.allowance = allowance;
        for slot in 0..drain.hot.len() {
            if drain.hot[slot].used > 0 {
                drain.list(slot as u32, drain.cold[slot].tokens.len());
            }
        }
        Ok(drain)
    }
}
