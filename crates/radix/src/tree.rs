//! The radix tree: nodes in an arena, each a run of tokens and the pages that hold them.
//!
//! **The law.** A node lists, in order, every page its tokens lie in. It owns them all, except that the first belongs
//! to an ancestor when the node `borrows` it, which only a node that starts inside a page can do. An ancestor outlives
//! its descendants, so no page is listed after it is freed. The page table of a path is: for each node from the root,
//! cut the table at `start / 16`, then append the node's pages.
//!
//! Under a window, a node that no lease sees may lose pages though other nodes hang below it, the first of its run first:
//! they are listed as [`PageId::GONE`] then, and a match must end where its window is whole.
//!
//! Why a node may start inside a page on either side of that choice: the lease that filled the page goes on in it
//! (borrows), anyone else had to copy the page's first rows and brings the copy (owns).

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
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
    pub(crate) children: HashMap<Token, NodeId>,
    /// Position of the first token.
    pub start: usize,
    /// The run.
    pub tokens: Vec<Token>,
    /// Pages `start / 16 .. end.div_ceil(16)` of the path's table.
    pub pages: Vec<PageId>,
    /// Whether the first page is an ancestor's.
    pub borrows: bool,
    /// How many of `pages`, the first ones, are gone.
    pub(crate) gone: usize,
    /// Leases whose path runs through this node or ends in it, and whose window reaches it.
    pub leases: u32,
    /// Leases ever acquired with a match that runs through this node or ends in it.
    pub hits: u64,
    /// Verbs that pinned or released something before this node was last pinned or released.
    pub last_used: u64,
}

impl Node {
    /// Position after the last token.
    pub fn end(&self) -> usize {
        self.start + self.tokens.len()
    }

    /// The pages without a borrowed one and those that are gone.
    pub fn owned(&self) -> &[PageId] {
        &self.pages[self.gone.max(usize::from(self.borrows))..]
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

    /// Whether tokens whose rows begin in `page` may be added to this run itself: the only lease here is the one that
    /// adds them, and they go on in the very page where the run ends.
    fn can_grow(&self, page: PageId) -> bool {
        let alone = self.parent.is_some() && self.children.is_empty() && self.leases == 1;
        alone && (self.end().is_multiple_of(PAGE) || self.pages.last() == Some(&page))
    }

    fn grow(&mut self, tokens: &[Token], pages: &[PageId]) {
        let listed = usize::from(!self.end().is_multiple_of(PAGE));
        self.pages.extend_from_slice(&pages[listed..]);
        self.tokens.extend_from_slice(tokens);
    }

    /// Cuts this node off at `position`, a page of both parts being borrowed by the lower one, and returns the upper
    /// part without links. The lower part keeps its identity, because leases end there.
    fn cut_head(&mut self, position: usize) -> Node {
        let tail = self.tokens.split_off(position - self.start);
        let first_page = self.start / PAGE;
        let tail_pages = self.pages.split_off(position / PAGE - first_page);
        let mut pages = mem::replace(&mut self.pages, tail_pages);
        let inside_page = !position.is_multiple_of(PAGE);
        let gone = self.gone;
        self.gone = gone.saturating_sub(pages.len());
        pages.extend(self.pages.first().filter(|_| inside_page));
        Node {
            namespace: self.namespace,
            parent: self.parent,
            start: mem::replace(&mut self.start, position),
            tokens: mem::replace(&mut self.tokens, tail),
            gone: gone.min(pages.len()),
            pages,
            borrows: mem::replace(&mut self.borrows, inside_page && self.gone == 0),
            leases: self.leases,
            hits: self.hits,
            last_used: self.last_used,
            children: HashMap::new(),
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
        self.gone = self.pages.len() - self.owned().len() + n_pages;
        self.borrows = false;
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
    roots: HashMap<u64, NodeId>,
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
        let (nodes, vacant, roots, lru) = (Vec::new(), Vec::new(), HashMap::new(), BTreeSet::new());
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

    /// The root of `namespace`, made if it is new. An unused root is evicted like any leaf.
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
    pub fn usable(&self, mut node: NodeId, mut len: usize) -> (NodeId, usize) {
        // Of the path's pages, those from `seen` on are there.
        let (mut at, mut seen) = (node, len.div_ceil(PAGE));
        while let Some(parent) = self[at].parent.filter(|_| self.first_seen(len) < seen) {
            let Node { start, gone, .. } = self[at];
            let first = start / PAGE;
            if gone > 0 && self.first_seen(len) < seen.min(first + gone) {
                (node, len, seen) = (parent, start, start.div_ceil(PAGE));
            } else {
                seen = first;
            }
            at = parent;
        }
        (node, len)
    }

    /// The deepest node on the path to `id` that ends before page `first`; one is split if need be. `None` for page 0.
    pub fn above_page(&mut self, id: NodeId, first: usize) -> Option<NodeId> {
        let above = self.path(id).find(|&id| self[id].start < first * PAGE)?;
        Some(self.split(above, self[above].end().min(first * PAGE)))
    }

    /// Makes a node end at `position`, splitting `id` if that lies inside it. Returns the node that ends there.
    pub fn split(&mut self, id: NodeId, position: usize) -> NodeId {
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

    /// Adds `tokens` after `id`, where one lease, the caller's, is known to end, by growing that run or as a child.
    /// `pages` are all they lie in; `borrows` says that the first is an ancestor's already. Returns the node they end.
    pub fn append(&mut self, id: NodeId, tokens: &[Token], pages: &[PageId], borrows: bool) -> NodeId {
        if self[id].can_grow(pages[0]) {
            self.update(id, |node| node.grow(tokens, pages));
            return id;
        }
        let child = self.insert(Node {
            namespace: self[id].namespace,
            parent: Some(id),
            start: self[id].end(),
            tokens: tokens.to_vec(),
            pages: pages.to_vec(),
            borrows,
            ..Node::default()
        });
        self.update(id, |node| node.children.insert(tokens[0], child));
        child
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
            let from = node_first.max(first);
            table[from..end].copy_from_slice(&node.pages[from - node_first..][..end - from]);
            (end, next) = (from, node.parent);
        }
    }

    /// Fills what is gone from the nodes below `above` down to `id` with the pages of a lease that has computed their
    /// tokens. Of its `table`, the tree owns the first `n_cached`; returns the others that it owns now.
    pub fn fill(&mut self, id: NodeId, above: NodeId, table: &[PageId], mut n_cached: usize) -> Vec<PageId> {
        let mut taken = Vec::new();
        let mut below: Vec<_> = self.path(id).take_while(|&id| id != above).collect();
        below.retain(|&id| self[id].gone > 0);
        for id in below.into_iter().rev() {
            let pages = self[id].start / PAGE..self[id].start / PAGE + self[id].gone;
            self.update(id, |node| {
                node.pages[..node.gone].copy_from_slice(&table[pages.clone()]);
                (node.gone, node.borrows) = (0, pages.start < n_cached);
            });
            n_cached = n_cached.max(pages.start);
            taken.extend(&table[n_cached..pages.end.max(n_cached)]);
            n_cached = n_cached.max(pages.end);
        }
        taken
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
                false => pool.give(&self.lose(id, wanted)),
            }
            freed += wanted;
        }
        freed
    }

    /// Takes the first pages that a node owns; those below it that go on in its last page lose that too.
    fn lose(&mut self, id: NodeId, n_pages: usize) -> Vec<PageId> {
        let lost = self.update(id, |node| node.lose(n_pages));
        if let ([], Some(&last)) = (self[id].owned(), lost.last()) {
            self.forget(id, self[id].end() / PAGE, last);
        }
        lost
    }

    /// Nodes below `id` that start inside the page of this index no longer borrow `page`.
    fn forget(&mut self, id: NodeId, index: usize, page: PageId) {
        let inside = |&id: &NodeId| self[id].start / PAGE == index && !self[id].start.is_multiple_of(PAGE);
        let children: Vec<_> = self[id].children.values().copied().filter(inside).collect();
        for child in children {
            if self[child].borrows && self[child].pages[0] == page {
                self.update(child, |node| {
                    (node.gone, node.borrows) = (1, false);
                    node.pages[0] = PageId::GONE;
                });
            }
            self.forget(child, index, page);
        }
    }

    /// The path from `id` up to the root.
    pub fn path(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        iter::successors(Some(id), |&id| self[id].parent)
    }

    /// Ids and depths of all nodes, parents before children, in order of namespace and token.
    pub fn walk(&self) -> impl Iterator<Item = (NodeId, usize)> + '_ {
        let mut roots: Vec<_> = self.roots.iter().collect();
        roots.sort_unstable_by(|a, b| b.cmp(a));
        let mut stack: Vec<_> = roots.into_iter().map(|(_, &root)| (root, 0)).collect();
        iter::from_fn(move || {
            let (id, depth) = stack.pop()?;
            let mut children: Vec<_> = self[id].children.iter().collect();
            children.sort_unstable_by(|a, b| b.cmp(a));
            stack.extend(children.into_iter().map(|(_, &child)| (child, depth + 1)));
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
        self.uncount(leaf);
        let node = mem::take(&mut self[leaf]);
        self.vacant.push(leaf);
        match node.parent {
            Some(parent) => self.update(parent, |above| above.children.remove(&node.tokens[0])),
            None => self.roots.remove(&node.namespace),
        };
        node
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
