//! In which order to serve matches so that requests of one subtree come together. Law: the order depends on the tree and
//! the matches only, and every match has a rank.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::cache::{Match, PrefixCache};
use crate::tree::NodeId;

impl PrefixCache {
    /// Ranks, from 1, of `matches` in a depth-first walk that goes to the child with the most matches below it first, and serves
    /// a node after its children: what shares most is served together, before it can be evicted. (SGLang's
    /// `dfs-weight`.) Matches of nothing come last. The matches must have been found since the cache last changed.
    pub fn depth_first(&self, matches: &[Match]) -> Vec<usize> {
        let mut weights: HashMap<NodeId, usize> = HashMap::new();
        for id in matches.iter().filter_map(|found| found.node).flat_map(|node| self.tree.path(node)) {
            *weights.entry(id).or_default() += 1;
        }
        let mut children: HashMap<Option<NodeId>, Vec<NodeId>> = HashMap::new();
        for &id in weights.keys() {
            children.entry(self.tree[id].parent).or_default().push(id);
        }
        for siblings in children.values_mut() {
            siblings.sort_unstable_by_key(|id| (Reverse(weights[id]), *id));
        }
        // A walk to the lightest child first, with the node before its children, is the wanted one backwards.
        let mut stack = children.remove(&None).unwrap_or_default();
        let mut ranks = HashMap::new();
        while let Some(id) = stack.pop() {
            ranks.insert(id, weights.len() - ranks.len());
            stack.extend(children.remove(&Some(id)).unwrap_or_default());
        }
        let rank = |found: &Match| found.node.map_or(weights.len() + 1, |node| ranks[&node]);
        matches.iter().map(rank).collect()
    }
}
