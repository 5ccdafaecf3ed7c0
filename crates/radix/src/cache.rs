//! The cache and its leases. Law: a lease's page table is a run of pages that are gone, those behind its window, then a run
//! of pages the tree owns, all on the lease's path, then a run of pages that are private to the lease; no page is private
//! to two leases. What it has committed inside a page ends where its own page is the tree's, so that it alone pins that
//! tail; a lease whose tokens end in another's page pins the whole pages before it only.

use std::error::Error;
use std::fmt;
use std::iter;

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
    /// The tree owns, or owned, the pages that these lie in; the others are private.
    pub(crate) committed: usize,
    pub(crate) pages: Vec<PageId>,
    /// How many leading pages are given back.
    pub(crate) gone: usize,
    /// The nodes of the path from this page on are pinned; one starts there.
    pub(crate) pinned_from: usize,
    copy: Option<CopyRows>,
    released: bool,
}

/// Rows `0 .. rows` of page `from`, in every layer, that the caller must copy to page `to`: in the order of the leases, and
/// before any row is written. By then `from` may belong to a later lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyRows {
    /// A cached page.
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
        PrefixCache { pool, tree, slack, evicted_tokens: 0 }
    }

    /// The longest cached prefix of `tokens` in `namespace`. Changes nothing, not even what is evicted next.
    pub fn find(&self, namespace: u64, tokens: &[Token]) -> Match {
        let Some(root) = self.tree.find_root(namespace) else { return Match::default() };
        let (node, len) = self.known(root, tokens);
        Match { len, node: Some(node) }
    }

    /// Takes the longest cached prefix of `tokens` and pins its whole pages. Namespaces share nothing with one another.
    ///
    /// A match that ends inside a page takes a fresh page, evicting if need be, and names the rows to copy into it:
    /// [`Lease::copy`]. Where no page can be had, the match is cut back to the page boundary.
    pub fn acquire(&mut self, namespace: u64, tokens: &[Token]) -> Lease {
        let root = self.tree.root(namespace);
        let (end, matched) = self.known(root, tokens);
        let (rows, committed) = (matched % PAGE, matched - matched % PAGE);
        let source = if rows > 0 { self.tree.page_at(end, matched / PAGE) } else { None };
        let (gone, pinned_from) = (self.tree.first_seen(matched), self.tree.first_seen(committed));
        let node = self.tree.end_at(end, committed);
        let above = self.tree.above_page(node, pinned_from);
        self.tree.pin(node, above);
        let mut pages = vec![PageId::GONE; committed / PAGE];
        self.tree.read_table(node, gone, &mut pages);
        self.tree.count_hit(end);
        if source.is_some() && self.take(1, &mut pages).is_err() {
            self.tree.unpin(node, above);
            return self.acquire(namespace, &tokens[..committed]);
        }
        // The page that was matched may be the very one that had to be evicted; then its rows are where they should be.
        let copy = source.map(|from| CopyRows { from, to: pages[committed / PAGE], rows });
        let copy = copy.filter(|copy| copy.from != copy.to);
        Lease { node, matched, committed, pages, gone, pinned_from, copy, released: false }
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
    /// lease has committed the same tokens meanwhile, its whole pages replace this lease's own, which are freed: read
    /// [`Lease::pages`] again.
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
        let known = committed + more;
        if known < tokens.len() {
            self.advance(lease, node, known);
            self.insert(lease, tokens);
        } else if known / PAGE > committed / PAGE {
            self.advance(lease, node, known / PAGE * PAGE);
        }
    }

    /// Gives back the pages that no row from `position` on sees, where there are enough of them: private ones are freed,
    /// those in the tree may be evicted. They are [`PageId::GONE`] in the table. Rows before `position` that were not
    /// committed cannot be any more.
    pub fn pass(&mut self, lease: &mut Lease, position: usize) {
        let first = self.tree.first_seen(position);
        if first < lease.gone + self.slack {
            return;
        }
        let n_cached = lease.n_cached();
        self.pool.give(&lease.pages[lease.gone.max(n_cached)..first.max(n_cached)]);
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
        self.pool.give(lease.private());
        // Others went on below, with the same rows in pages of their own.
        if !self.tree[lease.node].children.is_empty() {
            self.pool.give(self.tree.take_tail(lease.node).as_slice());
        }
        // Nothing may be left below the root of its namespace.
        self.tree.trim(lease.node);
        lease.released = true;
    }

    /// Frees up to `n_pages` cached pages that no lease pins, those used longest ago first, and of a run of tokens the
    /// end first. Returns how many were freed.
    pub fn evict(&mut self, n_pages: usize) -> usize {
        let before = self.tree.totals().tokens;
        let freed = self.tree.evict(n_pages, &mut self.pool);
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

    /// Moves the pin down to `position`, in or above the end of `node`, up to where the tree knows the lease's tokens.
    /// The tree's whole pages take the place of the lease's, which fill what is gone from the tree.
    fn advance(&mut self, lease: &mut Lease, node: NodeId, position: usize) {
        // The lease's own; below, other pages hold the same rows.
        self.tree.take_tail(lease.node);
        let node = self.tree.end_at(node, position);
        self.tree.fill(node, lease.node, &lease.pages);
        self.tree.pin(node, Some(lease.node));
        let whole = lease.committed / PAGE..position / PAGE;
        let own = lease.pages[whole.clone()].to_vec();
        self.tree.read_table(node, whole.start, &mut lease.pages[..whole.end]);
        let replaced = iter::zip(own, &lease.pages[whole]).filter(|(own, page)| own != *page);
        replaced.for_each(|(own, _)| self.pool.give(&[own]));
        (lease.node, lease.committed) = (node, position);
    }

    /// Puts the rest of `tokens` into the tree, with the lease's pages.
    fn insert(&mut self, lease: &mut Lease, tokens: &[Token]) {
        let pages = &lease.pages[lease.committed / PAGE..tokens.len().div_ceil(PAGE)];
        let (node, tail) = self.tree.append(lease.node, &tokens[lease.committed..], pages);
        self.pool.give(tail.as_slice());
        self.tree.pin(node, Some(lease.node));
        (lease.node, lease.committed) = (node, tokens.len());
    }
}

impl Lease {
    /// Tokens whose rows were found in the cache.
    pub fn matched(&self) -> usize {
        self.matched
    }

    /// Tokens that it pins in the tree: what it matched or committed, less the last, fewer than a page, where they lie in a
    /// page of another lease.
    pub fn committed(&self) -> usize {
        self.committed
    }

    /// The page table: index `i` holds positions `16 i ..= 16 i + 15`. [`PrefixCache::commit`] may change it.
    pub fn pages(&self) -> &[PageId] {
        &self.pages
    }

    /// Pages that the tree owns or owned.
    pub(crate) fn n_cached(&self) -> usize {
        self.committed.div_ceil(PAGE)
    }

    /// Pages of its own.
    pub(crate) fn private(&self) -> &[PageId] {
        &self.pages[self.gone.max(self.n_cached())..]
    }

    /// Tokens that the pages have room for.
    pub fn capacity(&self) -> usize {
        self.pages.len() * PAGE
    }

    /// The copy to perform for it.
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
