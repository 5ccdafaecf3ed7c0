//! The cache and its leases. Law: a lease's page table is a run of pages that are gone, those behind its window, then a run
//! of pages the tree owns, all on the lease's path, then a run of pages that are private to the lease; no page is private
//! to two leases.

use std::error::Error;
use std::fmt;

use crate::page::{PageId, PagePool, PAGE};
use crate::tree::{Node, NodeId, Tree};
use crate::Token;

/// A prefix cache over a fixed number of pages of [`PAGE`] tokens.
#[derive(Debug)]
pub struct PrefixCache {
    pub(crate) pool: PagePool,
    pub(crate) tree: Tree,
    /// Pages that a lease may hold behind its window before they are given back: an eighth of the window.
    slack: usize,
    evicted_pages: usize,
    evicted_tokens: usize,
}

/// One sequence's right to its pages: it pins the cached prefix and owns the private pages after it.
///
/// Give it back with [`PrefixCache::release`]; in debug builds dropping it otherwise panics. Use it only with the cache
/// that made it.
#[derive(Debug)]
#[must_use = "a lease pins pages until it is released"]
pub struct Lease {
    /// Ends at `committed`; its path is pinned.
    pub(crate) node: NodeId,
    pub(crate) matched: usize,
    pub(crate) committed: usize,
    pub(crate) pages: Vec<PageId>,
    /// How many leading pages the tree owns or owned; the others are private.
    pub(crate) n_cached: usize,
    /// How many leading pages are given back.
    pub(crate) gone: usize,
    /// The nodes of the path from this page on are pinned; one starts there.
    pub(crate) pinned_from: usize,
    copy: Option<CopyRows>,
    released: bool,
}

/// Rows `0 .. rows` of page `from`, in every layer, that the caller must copy to page `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyRows {
    /// A cached page, pinned by the lease.
    pub from: PageId,
    /// A fresh page, private to the lease.
    pub to: PageId,
    /// 1 to 15.
    pub rows: usize,
}

/// A cached prefix; holds nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Tokens.
    pub len: usize,
    /// Where it ends, perhaps inside; `None` in a namespace without a tree.
    pub(crate) node: Option<NodeId>,
}

/// More pages were wanted than are free or can be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfPages {
    /// Pages asked for.
    pub wanted: usize,
    /// Pages that are free or evictable.
    pub available: usize,
}

impl fmt::Display for OutOfPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OutOfPages { wanted, available } = self;
        write!(f, "out of KV pages: {wanted} wanted, {available} free or evictable; release leases or add pages")
    }
}

impl Error for OutOfPages {}

/// Where the pages are, now and in total. `free + cached + leased = total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// All pages.
    pub total: usize,
    /// Pages on the free list.
    pub free: usize,
    /// Pages the tree owns, pinned or not.
    pub cached: usize,
    /// Pages private to leases.
    pub leased: usize,
    /// Those of `cached` that no lease pins.
    pub evictable: usize,
    /// Tokens in the tree.
    pub cached_tokens: usize,
    /// Pages evicted since the cache was made.
    pub evicted_pages: usize,
    /// Tokens evicted since the cache was made.
    pub evicted_tokens: usize,
}

impl PrefixCache {
    /// An empty cache over pages `0 .. n_pages`.
    pub fn new(n_pages: u32) -> Self {
        Self::with_window(n_pages, usize::MAX)
    }

    /// The same for a model in which a token depends on the rows of `window` tokens only, itself and those before it.
    /// What no lease sees may be evicted though prefixes go on below it, and a match must end where its window is whole.
    pub fn with_window(n_pages: u32, window: usize) -> Self {
        let (pool, tree, slack) = (PagePool::new(n_pages), Tree::new(window), window.div_ceil(8 * PAGE));
        PrefixCache { pool, tree, slack, evicted_pages: 0, evicted_tokens: 0 }
    }

    /// The longest cached prefix of `tokens` in `namespace`. Changes nothing, not even what is evicted next.
    pub fn find(&self, namespace: u64, tokens: &[Token]) -> Match {
        let Some(root) = self.tree.find_root(namespace) else { return Match::default() };
        let (node, len) = self.known(root, tokens);
        Match { len, node: Some(node) }
    }

    /// Pins the longest cached prefix of `tokens`. Namespaces share nothing with one another.
    ///
    /// A match that ends inside a page takes a fresh page, evicting if need be, and names the rows to copy into it:
    /// [`Lease::copy`]. Where no page can be had, the match is cut back to the page boundary.
    pub fn acquire(&mut self, namespace: u64, tokens: &[Token]) -> Lease {
        let root = self.tree.root(namespace);
        let (node, matched) = self.known(root, tokens);
        let node = self.tree.split(node, matched);
        let gone = self.tree.first_seen(matched);
        let above = self.tree.above_page(node, gone);
        // Pinned before a page is taken, so that what was just matched is not what gets evicted.
        self.tree.pin(node, above);
        let rows = matched % PAGE;
        let mut pages = vec![PageId::GONE; matched.div_ceil(PAGE)];
        self.tree.read_table(node, gone, &mut pages);
        let source = if rows > 0 { pages.pop() } else { None };
        if source.is_some() && self.take(1, &mut pages).is_err() {
            self.tree.unpin(node, above);
            return self.acquire(namespace, &tokens[..matched - rows]);
        }
        self.tree.count_hit(node);
        let copy = source.map(|from| CopyRows { from, to: pages[matched / PAGE], rows });
        let (committed, n_cached) = (matched, matched / PAGE);
        Lease { node, matched, committed, pages, n_cached, gone, pinned_from: gone, copy, released: false }
    }

    /// Adds private pages until the lease has room for `n_tokens` tokens in total.
    ///
    /// # Errors
    /// [`OutOfPages`] if too few pages are free or evictable; then nothing has changed.
    pub fn extend(&mut self, lease: &mut Lease, n_tokens: usize) -> Result<(), OutOfPages> {
        let wanted = n_tokens.div_ceil(PAGE).saturating_sub(lease.pages.len());
        self.take(wanted, &mut lease.pages)
    }

    /// Shares what the lease has computed: the rows of all of `tokens`, which begin with what it matched and committed
    /// before, are written.
    ///
    /// The lease goes on; it may write the rows that follow, also into the page that `tokens` end in. Where another
    /// lease has committed the same tokens meanwhile, its full pages replace this lease's own, which are freed: read
    /// [`Lease::pages`] again. [`Lease::copy`] is taken as done.
    ///
    /// # Panics
    /// If `tokens` is shorter than what was committed or longer than the capacity, or if pages of what is to be committed
    /// were given back; in debug builds also if it does not begin with the tokens committed before.
    pub fn commit(&mut self, lease: &mut Lease, tokens: &[Token]) {
        let (committed, capacity) = (lease.committed, lease.capacity());
        assert!(
            (committed..=capacity).contains(&tokens.len()),
            "commit of {} tokens to a lease with {committed} committed and room for {capacity}",
            tokens.len()
        );
        assert!(lease.gone <= committed / PAGE, "commit of rows that were given back, after {committed} tokens");
        debug_assert!(self.spells(lease.node, tokens), "commit of tokens other than those committed before");
        let (node, more) = self.tree.descend(lease.node, &tokens[committed..]);
        self.advance(lease, node, committed + more);
        self.insert(lease, tokens);
        lease.copy = None;
    }

    /// Gives back the pages that no row from `position` on sees, where there are enough of them: private ones are freed,
    /// those in the tree may be evicted. They are [`PageId::GONE`] in the table. Rows before `position` that were not
    /// committed cannot be any more.
    pub fn pass(&mut self, lease: &mut Lease, position: usize) {
        let first = self.tree.first_seen(position);
        if first < lease.gone + self.slack {
            return;
        }
        self.pool.give(&lease.pages[lease.gone.max(lease.n_cached)..first.max(lease.n_cached)]);
        lease.pages[lease.gone..first].fill(PageId::GONE);
        let pinned_from = first.min(self.tree.first_seen(lease.committed)).max(lease.pinned_from);
        let (pinned, above) =
            (self.tree.above_page(lease.node, lease.pinned_from), self.tree.above_page(lease.node, pinned_from));
        if let Some(passed) = above {
            self.tree.unpin(passed, pinned);
        }
        (lease.gone, lease.pinned_from) = (first, pinned_from);
    }

    /// Ends the lease: its private pages are freed, what it committed stays cached but may be evicted.
    pub fn release(&mut self, mut lease: Lease) {
        let above = self.tree.above_page(lease.node, lease.pinned_from);
        self.tree.unpin(lease.node, above);
        self.pool.give(&lease.pages[lease.gone.max(lease.n_cached)..]);
        lease.released = true;
    }

    /// Frees up to `n_pages` cached pages that no lease pins, those used longest ago first, and of a run of tokens the
    /// end first. Returns how many were freed.
    pub fn evict(&mut self, n_pages: usize) -> usize {
        let before = self.tree.totals().tokens;
        let freed = self.tree.evict(n_pages, &mut self.pool);
        self.evicted_pages += freed;
        self.evicted_tokens += before - self.tree.totals().tokens;
        freed
    }

    /// Evicts all that no lease pins. Returns the number of pages freed.
    pub fn clear(&mut self) -> usize {
        self.evict(usize::MAX)
    }

    /// Pages that a lease can be extended by now: the free and the evictable ones.
    pub fn available(&self) -> usize {
        let totals = self.tree.totals();
        self.pool.free().len() + totals.pages - totals.pinned
    }

    /// Where the pages are.
    pub fn stats(&self) -> Stats {
        let (total, free, totals) = (self.pool.total(), self.pool.free().len(), self.tree.totals());
        Stats {
            total,
            free,
            cached: totals.pages,
            leased: total - free - totals.pages,
            evictable: totals.pages - totals.pinned,
            cached_tokens: totals.tokens,
            evicted_pages: self.evicted_pages,
            evicted_tokens: self.evicted_tokens,
        }
    }

    /// All nodes with their depths, parents before children, by namespace, then by first token. A namespace's root,
    /// without tokens, has depth 0.
    pub fn nodes(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.tree.walk().map(|(id, depth)| (depth, &self.tree[id]))
    }

    /// Where the longest match of `tokens` below `root` ends whose window is whole, and its length.
    fn known(&self, root: NodeId, tokens: &[Token]) -> (NodeId, usize) {
        let (node, len) = self.tree.descend(root, tokens);
        self.tree.usable(node, len)
    }

    /// Takes `n` pages off the free list into `pages`, evicting what is missing.
    fn take(&mut self, n: usize, pages: &mut Vec<PageId>) -> Result<(), OutOfPages> {
        let available = self.available();
        if n > available {
            return Err(OutOfPages { wanted: n, available });
        }
        self.evict(n.saturating_sub(self.pool.free().len()));
        pages.extend(self.pool.take(n));
        Ok(())
    }

    /// Moves the pin down to `position`, in or at the end of `node`, up to where the tree knows the lease's tokens.
    /// The tree's full pages take the place of the lease's, which fill what is gone from the tree; a last page in part
    /// filled stays the lease's own, unless it fills a place, because the lease will write to it.
    fn advance(&mut self, lease: &mut Lease, node: NodeId, position: usize) {
        let node = self.tree.split(node, position);
        let taken = self.tree.fill(node, lease.node, &lease.pages, lease.n_cached);
        self.tree.pin(node, Some(lease.node));
        let n_full = position / PAGE;
        let private = lease.pages.iter().take(n_full).skip(lease.n_cached).filter(|page| !taken.contains(page));
        private.for_each(|&page| self.pool.give(&[page]));
        let filled_last = !position.is_multiple_of(PAGE) && taken.last() == lease.pages.get(n_full);
        lease.n_cached = lease.n_cached.max(n_full + usize::from(filled_last));
        self.tree.read_table(node, lease.committed / PAGE, &mut lease.pages[..n_full]);
        (lease.node, lease.committed) = (node, position);
    }

    /// Puts the rest of `tokens` into the tree, with the lease's pages.
    fn insert(&mut self, lease: &mut Lease, tokens: &[Token]) {
        if tokens.len() == lease.committed {
            return;
        }
        let (first, n_pages) = (lease.committed / PAGE, tokens.len().div_ceil(PAGE));
        // The page it goes on in is in the tree already if an earlier commit ended there: then an ancestor owns it,
        // even where the path has since led through a node that brought its own copy of that page.
        let borrows = first < lease.n_cached;
        let node = self.tree.append(lease.node, &tokens[lease.committed..], &lease.pages[first..n_pages], borrows);
        self.tree.pin(node, Some(lease.node));
        (lease.node, lease.committed, lease.n_cached) = (node, tokens.len(), n_pages);
    }
}

impl Lease {
    /// Tokens whose rows were found in the cache.
    pub fn matched(&self) -> usize {
        self.matched
    }

    /// Tokens in the tree, matched or committed; all of them are pinned.
    pub fn committed(&self) -> usize {
        self.committed
    }

    /// The page table: index `i` holds positions `16 i ..= 16 i + 15`. [`PrefixCache::commit`] may change it.
    pub fn pages(&self) -> &[PageId] {
        &self.pages
    }

    /// Tokens that the pages have room for.
    pub fn capacity(&self) -> usize {
        self.pages.len() * PAGE
    }

    /// The copy to perform before the first step of this sequence; `None` once something was committed.
    pub fn copy(&self) -> Option<CopyRows> {
        self.copy
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let fine = self.released || std::thread::panicking();
        debug_assert!(fine, "a lease of {} pages was dropped without release", self.pages.len());
    }
}
