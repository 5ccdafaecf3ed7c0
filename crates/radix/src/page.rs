//! Pages and the list of free ones. Law: a page is on the free list at most once, and only while nobody owns it.

/// Tokens per page. Index `i` of a page table holds positions `16 i ..= 16 i + 15`.
pub const PAGE: usize = 16;

/// The number of a page in the KV store, `0 .. total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId(pub u32);

impl PageId {
    /// Stands in page tables for a page that was given back because its rows lie behind the window.
    pub const GONE: PageId = PageId(u32::MAX);
}

/// The free list. Last in, first out: a page just freed is the likeliest to be warm.
#[derive(Debug)]
pub(crate) struct PagePool {
    free: Vec<PageId>,
    total: usize,
}

impl PagePool {
    pub fn new(n_pages: u32) -> Self {
        PagePool { free: (0..n_pages).rev().map(PageId).collect(), total: n_pages as usize }
    }

    pub fn total(&self) -> usize {
        self.total
    }

    pub fn free(&self) -> &[PageId] {
        &self.free
    }

    /// Takes `n` pages, or all that are left.
    pub fn take(&mut self, n: usize) -> impl Iterator<Item = PageId> + '_ {
        let kept = self.free.len().saturating_sub(n);
        self.free.drain(kept..).rev()
    }

    pub fn give(&mut self, pages: &[PageId]) {
        debug_assert!(!pages.contains(&PageId::GONE), "a page is freed twice");
        self.free.extend_from_slice(pages);
    }
}
