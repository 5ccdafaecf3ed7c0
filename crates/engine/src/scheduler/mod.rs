//! Which tokens run in a step: continuous batching over a radix cache.
//!
//! Laws: a sequence runs only while it holds a lease that covers the rows it runs; the text of a sequence does not
//! depend on anything decided here; every sequence that arrives gets exactly one finishing event, unless all are dropped.

mod admit;
mod plan;

use crate::batch::{Answers, Batch, CopyRows, Span};
use crate::error::Error;
use crate::request::{Event, FinishReason, RequestId};
use crate::sequence::{Prepared, Sequence};
use crate::text::Tokenizer;
use sglang_radix::{Node, PageId, PrefixCache};
use std::sync::Arc;

/// Order in which waiting requests of the same priority are admitted. Under each, nobody is passed over forever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Longest prefix match first.
    #[default]
    Lpm,
    /// First come, first served.
    Fcfs,
    /// Depth first through the tree, the subtree that most requests wait for before others.
    DfsWeight,
    /// By lot, drawn again at each step.
    Random,
}

impl Policy {
    /// All policies by name.
    pub const NAMED: [(&str, Policy); 4] =
        [("lpm", Policy::Lpm), ("fcfs", Policy::Fcfs), ("dfs-weight", Policy::DfsWeight), ("random", Policy::Random)];
}

/// Sizes of the scheduler.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Most rows of prompts in a step; half of them where other sequences decode.
    pub chunk: usize,
    /// Most sequences that run at once.
    pub max_running: usize,
    /// Most sequences that wait.
    pub max_queued: usize,
    /// Output tokens for which a sequence beside others takes pages at once: the more, the fewer run, and the fewer are
    /// retracted.
    pub ahead: usize,
    /// Pages of the KV cache.
    pub pages: usize,
    /// Tokens that attention looks back on; 0: all. What lies further back is not held.
    pub window: usize,
    /// Order of admission.
    pub policy: Policy,
    /// Whether prefixes are kept for later requests.
    pub reuse: bool,
}

impl Limits {
    /// Rows that no step exceeds.
    pub fn max_rows(&self) -> usize {
        self.chunk + self.max_running
    }

    /// Pages with which a sequence of any length gets by alone, where attention has a window: the window and the eighth
    /// behind it that is given back at once, a step, a page begun at either end, and one more at either end as long as its
    /// last tokens lie in another's page, so that it pins and passes only what is before them.
    pub fn least_pages(window: usize, chunk: usize) -> usize {
        (window + chunk).div_ceil(sglang_radix::PAGE) + window.div_ceil(8 * sglang_radix::PAGE) + 4
    }

    /// Most tokens that a sequence has to hold beside those of a step.
    fn reach(&self) -> usize {
        if self.window == 0 {
            usize::MAX
        } else {
            self.window
        }
    }
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Prompt tokens of admitted requests.
    pub prompt_tokens: u64,
    /// Of these, tokens found in the cache.
    pub cached_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Rows computed, including recomputation.
    pub computed_tokens: u64,
    /// Sequences that had to give back their pages.
    pub retracted: u64,
    /// Requests aborted.
    pub aborted: u64,
    /// Requests finished otherwise.
    pub finished: u64,
    /// Steps run.
    pub steps: u64,
}

/// A node of the prefix tree, for people and their tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeNode {
    /// Place of the parent in the list; `None` for the root of a namespace, which has no tokens.
    pub parent: Option<usize>,
    /// Of its requests.
    pub namespace: u64,
    /// The run of tokens.
    pub tokens: Vec<u32>,
    /// Pages the node owns.
    pub pages: usize,
    /// Matches that ran through it or ended in it, since it was made.
    pub hits: u64,
    /// Running sequences that hold it.
    pub leases: u32,
}

/// All open sequences and the cache they share.
pub struct Scheduler {
    limits: Limits,
    tokenizer: Arc<Tokenizer>,
    cache: PrefixCache,
    waiting: Vec<Sequence>,
    /// In the order of admission.
    running: Vec<Sequence>,
    /// Rows of the step under way, per running sequence.
    rows: Vec<usize>,
    /// Outputs of the step under way, per running sequence.
    outputs: Vec<usize>,
    copies: Vec<CopyRows>,
    arrivals: u64,
    totals: Totals,
}

impl Scheduler {
    /// An empty scheduler.
    pub fn new(limits: Limits, tokenizer: Arc<Tokenizer>) -> Self {
        Scheduler {
            cache: PrefixCache::with_window(limits.pages as u32, limits.reach()),
            limits,
            tokenizer,
            waiting: Vec::new(),
            running: Vec::new(),
            rows: Vec::new(),
            outputs: Vec::new(),
            copies: Vec::new(),
            arrivals: 0,
            totals: Totals::default(),
        }
    }

    /// Queues a request; a full queue refuses it with an event. Those that the next step may admit do not fill it.
    pub fn push(&mut self, asked: Prepared) -> Option<Event> {
        let vacant = self.limits.max_running - self.running.len();
        if self.waiting.len() >= self.limits.max_queued + vacant {
            let message = format!("the queue is full ({} requests wait); try again later", self.waiting.len());
            return Some(Event::failed(asked.id, &Error::Overloaded(message)));
        }
        let mut sequence = Sequence::new(asked, self.arrivals, self.tokenizer.clone());
        self.arrivals += 1;
        self.totals.generated_tokens += sequence.n_output() as u64;
        if sequence.finish.is_some() {
            return sequence.take_event();
        }
        self.waiting.push(sequence);
        None
    }

    /// Ends a request at once; its pages come back. `None` if it is not open.
    pub fn abort(&mut self, id: RequestId) -> Option<Event> {
        let mut sequence = if let Some(i) = self.waiting.iter().position(|s| s.id() == id) {
            self.waiting.remove(i)
        } else {
            let i = self.running.iter().position(|s| s.id() == id)?;
            self.running.remove(i)
        };
        self.totals.aborted += 1;
        sequence.end(FinishReason::Aborted);
        self.release(&mut sequence);
        sequence.take_event()
    }

    /// Nothing is waiting or running.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// The work of the next step: what [`Scheduler::admit`] let in, as far as rows and pages reach.
    pub fn schedule(&mut self) -> Batch {
        self.rows = self.reserve_rows();
        self.outputs.clear();
        let mut batch = Batch { copies: std::mem::take(&mut self.copies), ..Batch::default() };
        for (sequence, &n_rows) in self.running.iter().zip(&self.rows) {
            let first = batch.tokens.len();
            let outputs = sequence.outputs(first, n_rows);
            self.outputs.push(outputs.len());
            batch.outputs.extend(outputs);
            batch.states.extend(sequence.states(first, n_rows));
            if n_rows > 0 {
                let (tokens, images) = sequence.inputs(first, n_rows);
                batch.tokens.extend(tokens);
                batch.images.extend(images);
                batch.spans.push(span(sequence, first, n_rows));
            }
        }
        batch
    }

    /// Takes the answers of the step that [`Scheduler::schedule`] planned, keeps what was computed in the cache, and
    /// returns what happened.
    pub fn commit(&mut self, answers: Answers) -> Vec<Event> {
        self.totals.steps += 1;
        let (mut picked, mut states) = (answers.picked.into_iter(), answers.states.into_iter());
        for ((sequence, &n_rows), &n_outputs) in self.running.iter_mut().zip(&self.rows).zip(&self.outputs) {
            let before = sequence.n_output();
            let n_states = sequence.states(0, n_rows).len();
            sequence.pool(states.by_ref().take(n_states));
            sequence.advance(n_rows, picked.by_ref().take(n_outputs));
            self.totals.computed_tokens += n_rows as u64;
            self.totals.generated_tokens += (sequence.n_output() - before) as u64;
        }
        self.keep_computed();
        self.pass_window();
        self.retry_wrong();
        let events = self.running.iter_mut().filter_map(Sequence::take_event).collect();
        self.drop_finished();
        events
    }

    /// Takes pages from the sequences whose output was wrong; they wait and go on from what stays, which is in the cache.
    fn retry_wrong(&mut self) {
        let (wrong, running) = std::mem::take(&mut self.running).into_iter().partition(Sequence::must_retry);
        self.running = running;
        for mut sequence in wrong {
            self.release(&mut sequence);
            sequence.retry();
            self.waiting.push(sequence);
        }
    }

    /// Puts what this step computed into the tree: prompts at every chunk, so that others find them while they are
    /// computed, and outputs whenever a page is full.
    fn keep_computed(&mut self) {
        if !self.limits.reuse {
            return;
        }
        for (sequence, &n_rows) in self.running.iter_mut().zip(&self.rows) {
            let full_page = sequence.computed % sglang_radix::PAGE == 0;
            if n_rows > 1 || full_page {
                let lease = sequence.lease.as_mut().expect("a running sequence has a lease");
                self.cache.commit(lease, &sequence.tokens[..sequence.computed]);
            }
        }
    }

    /// Gives back what the windows of the sequences have passed; where prefixes are kept, only what is in the tree.
    fn pass_window(&mut self) {
        for sequence in &mut self.running {
            let lease = sequence.lease.as_mut().expect("a running sequence has a lease");
            let known = if self.limits.reuse { lease.committed() } else { sequence.computed };
            self.cache.pass(lease, known);
        }
    }

    fn drop_finished(&mut self) {
        let (finished, running) = std::mem::take(&mut self.running).into_iter().partition(|s| s.finish.is_some());
        self.running = running;
        for mut sequence in finished {
            self.totals.finished += 1;
            self.release(&mut sequence);
        }
    }

    /// Keeps what is computed and gives back the pages that nobody else holds.
    fn release(&mut self, sequence: &mut Sequence) {
        let Some(mut lease) = sequence.lease.take() else { return };
        if self.limits.reuse {
            self.cache.commit(&mut lease, &sequence.tokens[..sequence.computed]);
        }
        self.cache.release(lease);
    }

    /// Drops every sequence without a word and gives back its pages.
    pub fn release_all(&mut self) {
        self.copies.clear();
        self.waiting.clear();
        for mut sequence in self.running.drain(..) {
            if let Some(lease) = sequence.lease.take() {
                self.cache.release(lease);
            }
        }
    }

    /// Drops every cached prefix that no running request holds; returns the tokens dropped.
    pub fn flush(&mut self) -> usize {
        let before = self.cache.stats().cached_tokens;
        self.cache.clear();
        before - self.cache.stats().cached_tokens
    }

    /// All nodes of the prefix tree, parents before children.
    pub fn tree(&self) -> Vec<TreeNode> {
        let mut path = Vec::new();
        let node = |(i, (depth, node)): (usize, (usize, &Node))| {
            path.truncate(depth);
            let parent = path.last().copied();
            path.push(i);
            let (tokens, pages) = (node.tokens.clone(), node.owned().len());
            TreeNode { parent, namespace: node.namespace, tokens, pages, hits: node.hits, leases: node.leases }
        };
        self.cache.nodes().enumerate().map(node).collect()
    }

    /// Sequences that wait and that run.
    pub fn counts(&self) -> (usize, usize) {
        (self.waiting.len(), self.running.len())
    }

    /// Counters since the start.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// State of the cache.
    pub fn cache(&self) -> &PrefixCache {
        &self.cache
    }

    /// Panics where a law of the cache does not hold; for tests, after each step.
    pub fn check_invariants(&self) {
        let leases: Vec<_> = self.running.iter().filter_map(|s| s.lease.as_ref()).collect();
        self.cache.check_invariants(&leases);
        assert!(self.waiting.iter().all(|s| s.lease.is_none()), "a waiting sequence holds pages");
    }
}

fn span(sequence: &Sequence, first: usize, n_rows: usize) -> Span {
    let lease = sequence.lease.as_ref().expect("a running sequence has a lease");
    let n_pages = (sequence.computed + n_rows).div_ceil(sglang_radix::PAGE);
    // What is gone is not read: any page of the store may stand for it.
    let number = |page: &PageId| if *page == PageId::GONE { 0 } else { page.0 };
    let pages = lease.pages()[..n_pages].iter().map(number).collect();
    Span { rows: first..first + n_rows, position: sequence.computed, pages }
}
