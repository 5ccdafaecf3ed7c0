//! A prefix cache over paged KV: which pages already hold the keys and values of a prompt's first tokens.
//!
//! **The law.** Every page is in exactly one place: on the free list, in the tree (cached), or private to one lease.
//! So `free + cached + leased = total`, always. Three more laws make sharing safe:
//!
//! 1. *One writer.* A page is written only by the lease that took it off the free list, each row once, in order.
//!    A lease may keep filling the last page it committed; rows past a node's end belong to nobody until committed.
//!    Everyone else copies such a page before writing ([`Lease::copy`]).
//! 2. *Pinned paths.* The whole pages that a lease has matched or committed stay where they are until the lease is released
//!    or, under a window, has [passed](PrefixCache::pass) them. They are one for each place, so that a lease that is alone
//!    gets by with the pages that its tokens fill.
//! 3. *Exact spelling.* The page table of a path holds the rows of exactly the tokens on that path.
//!
//! The cache only keeps the books: it does no I/O, reads no clock and never touches the rows. It has four verbs:
//! [`acquire`](PrefixCache::acquire) the longest known prefix, [`extend`](PrefixCache::extend) the room to write,
//! [`commit`](PrefixCache::commit) what has been computed, [`release`](PrefixCache::release) the lease.
//!
//! ```
//! use sglang_radix::{CopyRows, PageId, PrefixCache};
//!
//! let mut cache = PrefixCache::new(8);
//! let prompt: Vec<u32> = (0..20).collect();
//!
//! let mut first = cache.acquire(0, &prompt);
//! assert_eq!(first.matched(), 0);
//! cache.extend(&mut first, prompt.len())?; // two pages of 16 tokens; the caller now computes their rows
//! cache.commit(&mut first, &prompt);
//!
//! // Tokens 0..18 are known. They end inside page 1, so its two rows are to be copied into a fresh page.
//! let second = cache.acquire(0, &[&prompt[..18], &[99]].concat());
//! assert_eq!(second.matched(), 18);
//! assert_eq!(second.pages(), [PageId(0), PageId(2)]);
//! assert_eq!(second.copy(), Some(CopyRows { from: PageId(1), to: PageId(2), rows: 2 }));
//!
//! cache.release(first);
//! cache.release(second);
//! let stats = cache.stats();
//! assert_eq!((stats.free, stats.cached, stats.leased), (6, 2, 0));
//! # Ok::<(), sglang_radix::OutOfPages>(())
//! ```
#![forbid(unsafe_code)]

mod cache;
mod check;
mod order;
mod page;
mod tree;

pub use cache::{CopyRows, Lease, Match, OutOfPages, PrefixCache, Stats};
pub use page::{PageId, PAGE};
pub use tree::Node;

/// What stands at one position of a prompt: a token id of the model's vocabulary or, where an image fills the position, a
/// number above the vocabulary that the caller derives from the image's content. The positions of an image together
/// spell its hash, so that equal images share pages and different ones do not.
pub type Token = u32;
