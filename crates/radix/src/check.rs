//! The law, checked, and the tree as text. Law of the checks: each message names the page or node and what is wrong.

use std::collections::HashMap;
use std::fmt;

use crate::cache::{Lease, PrefixCache};
use crate::page::{PageId, PAGE};
use crate::tree::{Node, NodeId, Totals};
use crate::Token;

impl PrefixCache {
    /// Checks everything the cache promises, by walking all of it: for tests. `leases` are all that are live.
    ///
    /// # Panics
    /// If anything is wrong, with a message that says what.
    pub fn check_invariants(&self, leases: &[&Lease]) {
        self.check_places(leases);
        self.check_nodes();
        self.check_totals();
        self.check_pins(leases);
        leases.iter().for_each(|lease| self.check_lease(lease));
    }

    /// Every page is in exactly one place.
    fn check_places(&self, leases: &[&Lease]) {
        let free = self.pool.free().iter().map(|&page| (page, "the free list"));
        let cached = self.tree.walk().flat_map(|(id, _)| self.tree[id].owned().iter().map(|&page| (page, "the tree")));
        let leased = leases.iter().flat_map(|lease| lease.private().iter().map(|&page| (page, "a lease")));
        let mut places = vec![None; self.pool.total()];
        for (page, place) in free.chain(cached).chain(leased) {
            let known = places.get_mut(page.0 as usize);
            let other = known.unwrap_or_else(|| panic!("page {} in {place} was never made", page.0)).replace(place);
            assert!(other.is_none(), "page {} is in {place} and in {}", page.0, other.unwrap_or_default());
        }
        let nowhere = places.iter().position(Option::is_none);
        assert!(nowhere.is_none(), "page {nowhere:?} is nowhere: neither free, nor cached, nor leased");
    }

    fn check_nodes(&self) {
        for (id, _) in self.tree.walk() {
            let node = &self.tree[id];
            match node.parent {
                Some(parent) => self.check_child(id, node, &self.tree[parent]),
                None => self.check_root(id, node),
            }
        }
    }

    fn check_root(&self, id: NodeId, node: &Node) {
        assert!(node.tokens.is_empty() && node.pages.is_empty(), "{id:?} is a root with tokens");
        assert!(node.leases > 0 || !node.children.is_empty(), "{id:?} is a root that nobody needs");
    }

    fn check_child(&self, id: NodeId, node: &Node, parent: &Node) {
        let first = node.tokens.first().unwrap_or_else(|| panic!("{id:?} has no tokens"));
        assert_eq!(parent.children.get(first), Some(&id), "{id:?} is not its parent's child");
        assert_eq!(node.start, parent.end(), "{id:?} does not start where its parent ends");
        assert_eq!(node.namespace, parent.namespace, "{id:?} is not in its parent's namespace");
        assert!(
            (0..=1).contains(&(node.pages.len() as isize - node.n_whole() as isize)),
            "{id:?} has too many or few pages"
        );
        let (gone, held) = node.pages.split_at(node.gone);
        assert!(gone.iter().all(|&page| page == PageId::GONE), "{id:?} lists pages that are gone");
        assert!(held.iter().all(|&page| page != PageId::GONE), "{id:?} has lost pages that it counts");
        let (ends_inside, is_leaf) = (!node.end().is_multiple_of(PAGE), node.children.is_empty());
        assert!(node.tail().is_some() || !ends_inside || !is_leaf, "{id:?} is a leaf without a tail");
        assert!(ends_inside || node.tail().is_none(), "{id:?} has a tail but ends at a boundary");
    }

    fn check_totals(&self) {
        let mut totals = Totals::default();
        let mut n_evictable = 0;
        for (id, _) in self.tree.walk() {
            let node = &self.tree[id];
            totals.tokens += node.n_held();
            totals.pages += node.owned().len();
            totals.pinned += node.n_pinned();
            let is_evictable = self.tree.is_evictable(node);
            n_evictable += usize::from(is_evictable);
            let listed = self.tree.lru().contains(&self.tree.age(id));
            assert_eq!(listed, is_evictable, "{id:?} in the LRU order (left) but evictable (right)");
        }
        assert_eq!(self.tree.totals(), totals, "kept totals (left) and counted ones (right) differ");
        assert_eq!(self.tree.lru().len(), n_evictable, "the LRU order lists nodes that are gone");
        assert_eq!(self.tree.walk().count(), self.tree.len(), "nodes are lost in the arena");
    }

    /// Each node counts the leases whose path includes it and that see it. One of them ends where a pinned tail ends, or one
    /// at all has to where others go on below.
    fn check_pins(&self, leases: &[&Lease]) {
        let mut pins: HashMap<NodeId, u32> = HashMap::new();
        for lease in leases {
            let from = lease.pinned_from * PAGE;
            for id in self.tree.path(lease.node).take_while(|&id| self.tree[id].start >= from) {
                *pins.entry(id).or_default() += 1;
            }
            let cut =
                self.tree.path(lease.node).find(|&id| (self.tree[id].start + 1..self.tree[id].end()).contains(&from));
            assert!(cut.is_none(), "{lease:?} pins from page {} on, inside of {cut:?}", lease.pinned_from);
        }
        for (id, _) in self.tree.walk() {
            let counted = pins.get(&id).copied().unwrap_or(0);
            let node = &self.tree[id];
            assert_eq!(node.leases, counted, "{id:?} has leases (left) other than those given (right)");
            let writers = leases.iter().filter(|lease| lease.node == id).count();
            let shared = node.tail().is_some() && (node.leases > 0 || !node.children.is_empty());
            assert!(!shared || writers == 1, "the tail of {id:?} has {writers} writers");
        }
    }

    /// The cached part of a page table is the path's own table, with the tail of its end.
    fn check_lease(&self, lease: &Lease) {
        let node = &self.tree[lease.node];
        assert_eq!(node.end(), lease.committed, "{lease:?} is pinned elsewhere than it ends");
        let gone = lease.gone;
        assert!(lease.pinned_from <= gone, "{lease:?} holds pages that it does not pin");
        assert!(lease.pages[..gone].iter().all(|&page| page == PageId::GONE), "{lease:?} holds what it gave back");
        assert!(!lease.pages[gone..].contains(&PageId::GONE), "{lease:?} has lost pages that it sees");
        let mut table = vec![PageId::GONE; lease.committed / PAGE];
        self.tree.read_table(lease.node, 0, &mut table);
        table.extend(node.tail());
        let seen = gone.min(table.len())..;
        assert_eq!(
            lease.pages[..lease.n_cached()][seen.clone()],
            table[seen],
            "a lease's table (left), its path's (right)"
        );
    }

    /// Whether `tokens` begin with the tokens on the path to `id`.
    pub(crate) fn spells(&self, id: NodeId, tokens: &[Token]) -> bool {
        self.tree.path(id).map(|id| &self.tree[id]).all(|node| tokens[..node.end()].ends_with(&node.tokens))
    }
}

/// The tree as text: one line per node with its first position, its tokens (`1-20` for 1, 2 … 20), its pages (`-` is a lost
/// one) and the number of leases on it.
impl fmt::Display for PrefixCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, node) in self.nodes() {
            if depth == 0 {
                write!(f, "namespace {}", node.namespace)?;
            } else {
                write!(f, "{:indent$}{}: {}", "", node.start, token_text(&node.tokens), indent = 2 * depth)?;
                write!(f, " [{}]", page_text(&node.pages))?;
            }
            match node.leases {
                0 => writeln!(f)?,
                n => writeln!(f, " leases {n}")?,
            }
        }
        Ok(())
    }
}

fn page_text(pages: &[PageId]) -> String {
    let text = |page: &PageId| if *page == PageId::GONE { "-".into() } else { page.0.to_string() };
    pages.iter().map(text).collect::<Vec<_>>().join(" ")
}

fn token_text(tokens: &[Token]) -> String {
    let counting_up = tokens.chunk_by(|a, b| a.checked_add(1) == Some(*b));
    let words = counting_up.map(|run| match *run {
        [first, _, .., last] => format!("{first}-{last}"),
        _ => run.iter().map(Token::to_string).collect::<Vec<_>>().join(" "),
    });
    words.collect::<Vec<_>>().join(" ")
}
