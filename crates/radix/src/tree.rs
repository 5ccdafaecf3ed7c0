//! The radix tree: nodes in an arena, each a run of tokens and the pages that hold them.
//!
//! **The law.** A node owns the pages whose last row lies in its run. Where a run ends inside a page, the node owns that one
//! too if nothing hangs below it or if a lease still writes there: its tail. Whoever goes on below copied the page's first
//! rows or wrote them, so the pages below hold them as well. Hence every place of a path has one page, and the page table
//! of a path is the pages of its nodes, one after the other.
//!
//! Under a window, a node that no lease sees may lose pages though other nodes hang below it, the first of its run first:
//! they are listed as [`PageId::GONE`] then, and a match must end where its window is whole.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::mem;
use std::ops::{Index, IndexMut};

use crate::page::{PageId, PagePool, PAGE};
use crate::Token;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(u32);

/// A run of tokens and the pages that hold it.
#[derive(Debug, Default)]
pub struct Node {
    /// Tenant the node belongs to.
    pub namespace: u64,
    /// `None` for the root of a namespace, which has no tokens and no pages.
    pub(crate) parent: Option<NodeId>,
    /// By first token.
    pub(crate) children: BTreeMap<Token, NodeId>,
    /// Position of the first token.
    pub start: usize,
    /// The run.
    pub tokens: Vec<Token>,
    /// Pages `start / 16 .. end / 16` of the path's table, perhaps a tail after them.
    pub pages: Vec<PageId>,
    /// How many of `pages`, the first ones, are gone.
    pub(crate) gone: usize,
    /// Leases whose path runs through this node or ends in it, and whose window reaches it.
    pub leases: u32,
    /// Leases ever acquired with a match that runs through this node or ends in it.
    pub hits: u64,
    /// Verbs that pinned or released something before this node was last pinned or released.
    pub(crate) last_used: u64,
}

impl Node {
    /// Position after the last token.
    pub fn end(&self) -> usize {
        self.start + self.tokens.len()
    }

    /// The pages without those that are gone.
    pub fn owned(&self) -> &[PageId] {
        &self.pages[self.gone..]
    }

    /// Pages whose last row lies in the run.
    pub(crate) fn n_whole(&self) -> usize {
        self.end() / PAGE - self.start / PAGE
    }

    /// The page that the run ends inside, if this node owns it.
    pub(crate) fn tail(&self) -> Option<PageId> {
        self.pages.get(self.n_whole()).copied()
    }

    /// Tokens whose rows are there.
    pub(crate) fn n_held(&self) -> usize {
        let first = if self.gone == 0 { self.start } else { (self.start / PAGE + self.gone) * PAGE };
        self.end().saturating_sub(first)
    }

    /// Pages that may not be evicted because of leases.
    pub(crate) fn n_pinned(&self) -> usize {
        self.owned().len() * usize::from(self.leases > 0)
    }

    /// Cuts this node off at `position` and returns the upper part without links. The lower part keeps its identity,
    /// because leases end there.
    fn cut_head(&mut self, position: usize) -> Node {
        let tail = self.tokens.split_off(position - self.start);
        let tail_pages = self.pages.split_off(position / PAGE - self.start / PAGE);
        let pages = mem::replace(&mut self.pages, tail_pages);
        let gone = self.gone.min(pages.len());
        self.gone -= gone;
        Node {
            namespace: self.namespace,
            parent: self.parent,
            start: mem::replace(&mut self.start, position),
            tokens: mem::replace(&mut self.tokens, tail),
            gone,
            pages,
            leases: self.leases,
            hits: self.hits,
            last_used: self.last_used,
            children: BTreeMap::new(),
        }
    }

    /// Drops the last `n_pages` pages, fewer than it owns, and the tokens in them.
    fn cut_tail(&mut self, n_pages: usize) -> Vec<PageId> {
        let dropped = self.pages.split_off(self.pages.len() - n_pages);
        let end = (self.start / PAGE + self.pages.len()) * PAGE;
        self.tokens.truncate(end - self.start);
        dropped
    }

    /// Loses the first `n_pages` of the pages it owns; the tokens stay.
    fn lose(&mut self, n_pages: usize) -> Vec<PageId> {
        let lost = self.owned()[..n_pages].to_vec();
        self.gone += n_pages;
        self.pages[..self.gone].fill(PageId::GONE);
        lost
    }
}

/// Sums over all nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Tokens whose rows are there.
    pub tokens: usize,
    pub pages: usize,
    /// Pages of nodes that have leases.
    pub pinned: usize,
}

/// Order of eviction: time of last use; of a path used at once, the deepest first.
pub(crate) type Age = (u64, Reverse<usize>, NodeId);

#[derive(Debug)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    vacant: Vec<NodeId>,
    roots: BTreeMap<u64, NodeId>,
    /// Every evictable node.
    lru: BTreeSet<Age>,
    totals: Totals,
    time: u64,
    /// Tokens that the one after them depends on, itself included.
    window: usize,
}

impl Index<NodeId> for Tree {
    type Output = Node;
    fn index(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }
}

impl IndexMut<NodeId> for Tree {
    fn index_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }
}

impl Tree {
    /// `window` is at least 2, so that the last token of a path is always in it.
    pub fn new(window: usize) -> Self {
        let (nodes, vacant, roots, lru) = (Vec::new(), Vec::new(), BTreeMap::new(), BTreeSet::new());
        Tree { nodes, vacant, roots, lru, totals: Totals::default(), time: 0, window: window.max(2) }
    }

    /// Number of the first page that the token at `position` depends on.
    pub fn first_seen(&self, position: usize) -> usize {
        (position + 1).saturating_sub(self.window) / PAGE
    }

    pub fn totals(&self) -> Totals {
        self.totals
    }

    pub fn lru(&self) -> &BTreeSet<Age> {
        &self.lru
    }

    /// Whether pages of this node may be taken: those of a leaf or, under a window, of any node that no lease sees.
    pub fn is_evictable(&self, node: &Node) -> bool {
        let may_lose = self.window < usize::MAX && !node.owned().is_empty();
        node.leases == 0 && (node.children.is_empty() || may_lose)
    }

    pub fn age(&self, id: NodeId) -> Age {
        (self[id].last_used, Reverse(self[id].start), id)
    }

    /// Nodes in the arena that are in use.
    pub fn len(&self) -> usize {
        self.nodes.len() - self.vacant.len()
    }

    pub fn find_root(&self, namespace: u64) -> Option<NodeId> {
        self.roots.get(&namespace).copied()
    }

    /// The root of `namespace`, made if it is new. It stays as long as a lease or a run of tokens begins there.
    pub fn root(&mut self, namespace: u64) -> NodeId {
        self.find_root(namespace).unwrap_or_else(|| {
            let id = self.insert(Node { namespace, ..Node::default() });
            self.roots.insert(namespace, id);
            id
        })
    }

    /// Follows `tokens`, which come after `from`, as far as the tree knows them.
    /// Returns the node where the match ends, perhaps inside it, and the number of tokens matched.
    pub fn descend(&self, from: NodeId, tokens: &[Token]) -> (NodeId, usize) {
        let (mut node, mut matched) = (from, 0);
        while let Some(&child) = tokens.get(matched).and_then(|first| self[node].children.get(first)) {
            let run = &self[child].tokens;
            let same = common_prefix(run, &tokens[matched..]);
            (node, matched) = (child, matched + same);
            if same < run.len() {
                break;
            }
        }
        (node, matched)
    }

    /// The longest part of a match of `len` tokens, which ends in or at the end of `node`, whose window is whole.
    pub fn usable(&self, node: NodeId, len: usize) -> (NodeId, usize) {
        let seen = self.first_seen(len)..len / PAGE;
        let lacks = |&id: &NodeId| {
            let (first, gone) = (self[id].start / PAGE, self[id].gone);
            first.max(seen.start) < (first + gone).min(seen.end)
        };
        let shorter = if !len.is_multiple_of(PAGE) && self.page_at(node, len / PAGE).is_none() {
            self[node].start.max(len - len % PAGE)
        } else if let Some(id) = self.path(node).find(lacks) {
            self[id].start
        } else {
            return (node, len);
        };
        self.usable(self.containing(node, shorter), shorter)
    }

    /// A page that holds the rows of page `place` up to the end of a match in or at the end of `id`; `None` if it is gone.
    pub fn page_at(&self, id: NodeId, place: usize) -> Option<PageId> {
        match self[id].pages.get(place - self[id].start / PAGE) {
            Some(&page) => Some(page).filter(|&page| page != PageId::GONE),
            None => self[id].children.values().find_map(|&child| self.page_at(child, place)),
        }
    }

    /// The node on the path to `id` in or at the end of which `position` lies.
    fn containing(&self, id: NodeId, position: usize) -> NodeId {
        self.path(id).find(|&id| self[id].start < position || self[id].parent.is_none()).expect("a path has a root")
    }

    /// Makes a node of the path to `id` end at `position`. Returns it.
    pub fn end_at(&mut self, id: NodeId, position: usize) -> NodeId {
        self.split(self.containing(id, position), position)
    }

    /// The deepest node on the path to `id` that ends before page `first`; one is split if need be. `None` for page 0.
    pub fn above_page(&mut self, id: NodeId, first: usize) -> Option<NodeId> {
        let above = self.path(id).find(|&id| self[id].start < first * PAGE)?;
        Some(self.split(above, self[above].end().min(first * PAGE)))
    }

    /// Makes a node end at `position`, splitting `id` if that lies inside it. Returns the node that ends there.
    fn split(&mut self, id: NodeId, position: usize) -> NodeId {
        if position == self[id].end() {
            return id;
        }
        let mut upper = self.update(id, |node| node.cut_head(position));
        upper.children.insert(self[id].tokens[0], id);
        let (first, parent) = (upper.tokens[0], upper.parent);
        let upper = self.insert(upper);
        self[id].parent = Some(upper);
        if let Some(parent) = parent {
            self[parent].children.insert(first, upper);
        }
        upper
    }

    /// Adds `tokens` after `id`, which the caller's lease pins, with `pages` that end in them or are their tail: to that run
    /// itself if nobody else ends there, so that its tail is left to nobody and returned, or as a child. Returns the node that
    /// the tokens end.
    pub fn append(&mut self, id: NodeId, tokens: &[Token], pages: &[PageId]) -> (NodeId, Option<PageId>) {
        if self[id].parent.is_some() && self[id].children.is_empty() && self[id].leases == 1 {
            let tail = self.take_tail(id);
            self.update(id, |node| {
                node.tokens.extend_from_slice(tokens);
                node.pages.extend_from_slice(pages);
            });
            return (id, tail);
        }
        let child = self.insert(Node {
            namespace: self[id].namespace,
            parent: Some(id),
            start: self[id].end(),
            tokens: tokens.to_vec(),
            pages: pages.to_vec(),
            ..Node::default()
        });
        self.update(id, |node| node.children.insert(tokens[0], child));
        (child, None)
    }

    /// Takes the tail of a node out of the tree.
    pub fn take_tail(&mut self, id: NodeId) -> Option<PageId> {
        let tail = self[id].tail()?;
        self.update(id, |node| node.pages.pop());
        Some(tail)
    }

    /// Counts one more lease on each node from `id` up to, but without, `above`; up to the root for `None`.
    pub fn pin(&mut self, id: NodeId, above: Option<NodeId>) {
        self.touch(id, above, |leases| leases + 1);
    }

    /// Counts one lease less on the same nodes.
    pub fn unpin(&mut self, id: NodeId, above: Option<NodeId>) {
        self.touch(id, above, |leases| leases - 1);
    }

    /// Counts a match that ends at `id`.
    pub fn count_hit(&mut self, id: NodeId) {
        let mut next = Some(id);
        while let Some(id) = next {
            self[id].hits += 1;
            next = self[id].parent;
        }
    }

    fn touch(&mut self, id: NodeId, above: Option<NodeId>, leases: impl Fn(u32) -> u32) {
        self.time += 1;
        let (time, mut next) = (self.time, Some(id));
        while let Some(id) = next.filter(|_| next != above) {
            self.update(id, |node| {
                node.leases = leases(node.leases);
                node.last_used = time;
            });
            next = self[id].parent;
        }
    }

    /// Writes pages `first .. table.len()` of the path to `id` into `table`, deepest node first.
    pub fn read_table(&self, id: NodeId, first: usize, table: &mut [PageId]) {
        let (mut end, mut next) = (table.len(), Some(id));
        while let Some(node) = next.map(|id| &self[id]).filter(|_| first < end) {
            let node_first = node.start / PAGE;
            let from = node_first.max(first).min(end);
            table[from..end].copy_from_slice(&node.pages[from - node_first..][..end - from]);
            (end, next) = (from, node.parent);
        }
    }

    /// Fills what is gone from the nodes below `above` down to `id` with the pages of a lease that has computed their tokens.
    pub fn fill(&mut self, id: NodeId, above: NodeId, table: &[PageId]) {
        let path = self.path(id).take_while(|&id| id != above).filter(|&id| self[id].gone > 0);
        for id in path.collect::<Vec<_>>() {
            self.update(id, |node| {
                let gone = mem::take(&mut node.gone);
                node.pages[..gone].copy_from_slice(&table[node.start / PAGE..][..gone]);
            });
        }
    }

    /// Frees up to `n_pages` pages of the nodes used longest ago: of leaves from their tails, of others, which the window
    /// has passed, from their heads. Returns how many.
    pub fn evict(&mut self, n_pages: usize, pool: &mut PagePool) -> usize {
        let mut freed = 0;
        while freed < n_pages {
            let Some(&(_, _, id)) = self.lru.first() else { break };
            let n_owned = self[id].owned().len();
            let wanted = n_owned.min(n_pages - freed);
            match self[id].children.is_empty() {
                true if wanted == n_owned => pool.give(self.remove(id).owned()),
                true => pool.give(&self.update(id, |node| node.cut_tail(wanted))),
                false => pool.give(&self.update(id, |node| node.lose(wanted))),
            }
            freed += wanted;
        }
        freed
    }

    /// The path from `id` up to the root.
    pub fn path(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        iter::successors(Some(id), |&id| self[id].parent)
    }

    /// Ids and depths of all nodes, parents before children, in order of namespace and token.
    pub fn walk(&self) -> impl Iterator<Item = (NodeId, usize)> + '_ {
        let mut stack: Vec<_> = self.roots.values().rev().map(|&root| (root, 0)).collect();
        iter::from_fn(move || {
            let (id, depth) = stack.pop()?;
            stack.extend(self[id].children.values().rev().map(|&child| (child, depth + 1)));
            Some((id, depth))
        })
    }

    fn insert(&mut self, node: Node) -> NodeId {
        let id = self.vacant.pop().unwrap_or_else(|| {
            self.nodes.push(Node::default());
            NodeId(self.nodes.len() as u32 - 1)
        });
        self[id] = node;
        self.count(id);
        id
    }

    fn remove(&mut self, leaf: NodeId) -> Node {
        debug_assert_eq!(self[leaf].leases, 0, "{leaf:?} is pinned");
        self.uncount(leaf);
        let node = mem::take(&mut self[leaf]);
        self.vacant.push(leaf);
        match node.parent {
            Some(parent) => {
                self.update(parent, |above| above.children.remove(&node.tokens[0]));
                self.trim(parent);
            }
            None => drop(self.roots.remove(&node.namespace)),
        }
        node
    }

    /// Drops the last tokens of a leaf that nobody leases if the page that held them went with what hung below, and the leaf
    /// if it has no others.
    pub fn trim(&mut self, id: NodeId) {
        let node = &self[id];
        if node.leases > 0 || !node.children.is_empty() || node.tail().is_some() {
            return;
        }
        let (start, end) = (node.start, node.end() / PAGE * PAGE);
        if end > start {
            self.update(id, |node| node.tokens.truncate(end - start));
        } else {
            self.remove(id);
        }
    }

    /// Changes a node while what is kept about all nodes (`totals`, `lru`) stays true.
    fn update<R>(&mut self, id: NodeId, change: impl FnOnce(&mut Node) -> R) -> R {
        self.uncount(id);
        let result = change(&mut self[id]);
        self.count(id);
        result
    }

    fn count(&mut self, id: NodeId) {
        let node = &self.nodes[id.0 as usize];
        self.totals.tokens += node.n_held();
        self.totals.pages += node.owned().len();
        self.totals.pinned += node.n_pinned();
        if self.is_evictable(&self[id]) {
            self.lru.insert(self.age(id));
        }
    }

    fn uncount(&mut self, id: NodeId) {
        let node = &self.nodes[id.0 as usize];
        self.totals.tokens -= node.n_held();
        self.totals.pages -= node.owned().len();
        self.totals.pinned -= node.n_pinned();
        if self.is_evictable(&self[id]) {
            self.lru.remove(&self.age(id));
        }
    }
}

/// Length of the longest common prefix. Blocks compare at memory speed; only the block that differs goes by token.
fn common_prefix(a: &[Token], b: &[Token]) -> usize {
    const BLOCK: usize = 32;
    let blocks = iter::zip(a.chunks_exact(BLOCK), b.chunks_exact(BLOCK)).take_while(|(a, b)| a == b).count();
    let same = blocks * BLOCK;
    same + iter::zip(&a[same..], &b[same..]).take_while(|(a, b)| a == b).count()
}
