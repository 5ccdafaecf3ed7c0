//! Random scripts against a naive model. Law: whatever the order of verbs, every page table reads back exactly the
//! tokens of its lease, a match is the longest prefix ever committed (less what was evicted), a pinned prefix is never
//! lost, and a page is written by one lease only, each row once. Under a window that holds for what the next row sees, and
//! a match must have its window whole; what a lease cannot see any more it does not hold.
//!
//! 2,000 scripts; the environment variable `PROPTEST_CASES` sets another number.

use proptest::collection::vec;
use proptest::prelude::*;
use sglang_radix::{CopyRows, Lease, OutOfPages, PageId, PrefixCache, Token, PAGE};

#[derive(Clone, Debug)]
enum Verb {
    Acquire {
        namespace: u64,
        prompt: Vec<Token>,
    },
    /// Computes up to `n_rows` rows of a sequence, after `generated` tokens were added to it.
    Write {
        sequence: usize,
        generated: Vec<Token>,
        n_rows: usize,
    },
    /// Commits all rows written but the last `kept_back`.
    Commit {
        sequence: usize,
        kept_back: usize,
    },
    /// Gives back what no row after the committed ones sees, or no row after the written ones.
    Pass {
        sequence: usize,
        written: bool,
    },
    Release {
        sequence: usize,
    },
    Evict {
        n_pages: usize,
    },
    Clear,
}

/// Mostly the same token, so that sequences agree for long and part at any place within a page.
fn tokens(longest: usize) -> impl Strategy<Value = Vec<Token>> {
    vec(prop_oneof![20 => Just(1), 1 => Just(2), 1 => Just(3)], 0..=longest)
}

fn verb() -> impl Strategy<Value = Verb> {
    let sequence = 0..8_usize;
    prop_oneof![
        6 => (prop_oneof![4 => Just(0), 1 => Just(1)], tokens(70))
            .prop_map(|(namespace, prompt)| Verb::Acquire { namespace, prompt }),
        9 => (sequence.clone(), tokens(20), 0..50_usize)
            .prop_map(|(sequence, generated, n_rows)| Verb::Write { sequence, generated, n_rows }),
        9 => (sequence.clone(), prop_oneof![3 => Just(0), 1 => 1..20_usize])
            .prop_map(|(sequence, kept_back)| Verb::Commit { sequence, kept_back }),
        6 => (sequence.clone(), prop::bool::weighted(0.2)).prop_map(|(sequence, written)| Verb::Pass { sequence, written }),
        4 => sequence.prop_map(|sequence| Verb::Release { sequence }),
        1 => (0..4_usize).prop_map(|n_pages| Verb::Evict { n_pages }),
        1 => Just(Verb::Clear),
    ]
}

/// What a runner would hold: the rows of every page, here the tokens themselves, and who took the page.
#[derive(Clone)]
struct Store {
    rows: Vec<[Option<Token>; PAGE]>,
    writers: Vec<usize>,
    /// Pages handed over to a writer since the last row was written, with the rows to copy into them: put off until then,
    /// which is as late as a runner may perform a copy.
    pending: Vec<(PageId, usize, Option<CopyRows>)>,
}

impl Store {
    fn hand_over(&mut self, page: PageId, writer: usize, copy: Option<CopyRows>) {
        self.pending.push((page, writer, copy));
    }

    fn perform_copies(&mut self) {
        for (page, writer, copy) in std::mem::take(&mut self.pending) {
            let (mut rows, index) = ([None; PAGE], page.0 as usize);
            if let Some(CopyRows { from, to, rows: n }) = copy {
                assert_eq!(to, page);
                rows[..n].copy_from_slice(&self.rows[from.0 as usize][..n]);
                assert!(!rows[..n].contains(&None), "the rows to copy are written");
            }
            (self.rows[index], self.writers[index]) = (rows, writer);
        }
    }

    fn write(&mut self, page: PageId, row: usize, token: Token, writer: usize) {
        let page = page.0 as usize;
        assert_eq!(self.writers[page], writer, "page {page} is written by two leases");
        assert_eq!(self.rows[page][row], None, "row {row} of page {page} is written twice");
        self.rows[page][row] = Some(token);
    }

    fn read(&self, page: PageId, row: usize) -> Option<Token> {
        self.rows[page.0 as usize][row]
    }
}

struct Sequence {
    number: usize,
    namespace: u64,
    lease: Lease,
    tokens: Vec<Token>,
    n_written: usize,
    /// First position of the rows that it may not see any more.
    passed: usize,
}

struct World {
    /// Tokens that one depends on.
    window: usize,
    cache: PrefixCache,
    store: Store,
    committed: Vec<(u64, Vec<Token>)>,
    live: Vec<Sequence>,
    n_acquired: usize,
}

fn common(a: &[Token], b: &[Token]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl World {
    fn new(n_pages: u32, window: usize) -> Self {
        let n_rows = n_pages as usize;
        let store = Store { rows: vec![[None; PAGE]; n_rows], writers: vec![0; n_rows], pending: vec![] };
        let cache = PrefixCache::with_window(n_pages, window);
        World { window, cache, store, committed: vec![], live: vec![], n_acquired: 0 }
    }

    /// The first position that the token at `position` depends on.
    fn first_seen(&self, position: usize) -> usize {
        (position + 1).saturating_sub(self.window)
    }

    fn run(&mut self, verb: Verb) {
        let pick = |sequence: usize, live: &[Sequence]| (!live.is_empty()).then(|| sequence % live.len());
        match verb {
            Verb::Acquire { namespace, prompt } => self.acquire(namespace, prompt),
            Verb::Write { sequence, generated, n_rows } => {
                pick(sequence, &self.live).into_iter().for_each(|i| self.write(i, &generated, n_rows))
            }
            Verb::Commit { sequence, kept_back } => {
                pick(sequence, &self.live).into_iter().for_each(|i| self.commit(i, kept_back))
            }
            Verb::Pass { sequence, written } => {
                pick(sequence, &self.live).into_iter().for_each(|i| self.pass(i, written))
            }
            Verb::Release { sequence } => pick(sequence, &self.live).into_iter().for_each(|i| self.release(i)),
            Verb::Evict { n_pages } => self.evict(n_pages),
            Verb::Clear => {
                self.cache.clear();
                assert_eq!(self.cache.stats().evictable, 0);
            }
        }
        self.check();
    }

    fn acquire(&mut self, namespace: u64, prompt: Vec<Token>) {
        let found = self.cache.find(namespace, &prompt).len;
        let lease = self.cache.acquire(namespace, &prompt);
        let matched = lease.matched();
        self.check_match(namespace, &prompt, found);
        let shorter = if self.window == usize::MAX { matched == found - found % PAGE } else { matched < found };
        let cut_back = shorter && self.cache.stats().free == 0;
        assert!(matched == found || cut_back, "{found} tokens are known, {matched} were acquired");
        self.n_acquired += 1;
        let number = self.n_acquired;
        if !matched.is_multiple_of(PAGE) {
            self.take_begun(&lease, number);
        }
        let (n_written, passed) = (matched, self.first_seen(matched));
        self.live.push(Sequence { number, namespace, lease, tokens: prompt, n_written, passed });
    }

    /// The page that a match ends inside is a copy or, where it had to be evicted for that, the very one.
    fn take_begun(&mut self, lease: &Lease, number: usize) {
        let (page, rows) = (*lease.pages().last().expect("the page it ends in"), lease.matched() % PAGE);
        let copy = lease.copy().unwrap_or(CopyRows { from: page, to: page, rows });
        assert_eq!((copy.to, copy.rows), (page, rows));
        self.store.hand_over(page, number, Some(copy));
    }

    /// `found` is the naive answer if nothing was ever evicted, and at least what live leases pin.
    fn check_match(&self, namespace: u64, prompt: &[Token], found: usize) {
        let known = self.committed.iter().filter(|(of, _)| *of == namespace);
        let longest = known.map(|(_, tokens)| common(tokens, prompt)).max().unwrap_or(0);
        let pinned = self.live.iter().filter(|sequence| sequence.namespace == namespace);
        let known = pinned.map(|s| (s, common(&s.tokens[..s.lease.committed()], prompt)));
        let seen = known.filter(|&(s, n)| s.passed <= self.first_seen(n)).map(|(_, n)| n);
        let least = seen.max().unwrap_or(0);
        assert!((least..=longest).contains(&found), "match {found}, pinned {least}, ever committed {longest}");
        if self.cache.stats().evicted_tokens == 0 {
            assert_eq!(found, longest, "nothing was evicted");
        }
    }

    fn write(&mut self, i: usize, generated: &[Token], n_rows: usize) {
        self.live[i].tokens.extend_from_slice(generated);
        let n_tokens = self.live[i].tokens.len().min(self.live[i].n_written + n_rows);
        if self.extend(i, n_tokens).is_err() {
            return;
        }
        self.store.perform_copies();
        let sequence = &mut self.live[i];
        for position in sequence.n_written..n_tokens {
            let page = sequence.lease.pages()[position / PAGE];
            self.store.write(page, position % PAGE, sequence.tokens[position], sequence.number);
        }
        sequence.n_written = n_tokens;
    }

    fn extend(&mut self, i: usize, n_tokens: usize) -> Result<(), OutOfPages> {
        let (before, available) = (format!("{}{:?}", self.cache, self.cache.stats()), self.cache.available());
        let Sequence { lease, number, .. } = &mut self.live[i];
        let n_pages = lease.pages().len();
        let result = self.cache.extend(lease, n_tokens);
        match result {
            Ok(()) => assert!(lease.capacity() >= n_tokens),
            Err(error) => {
                let wanted = n_tokens.div_ceil(PAGE) - n_pages;
                assert!(wanted > available, "{wanted} pages refused where {available} are available");
                assert_eq!(error, OutOfPages { wanted, available });
                assert_eq!(before, format!("{}{:?}", self.cache, self.cache.stats()), "a refusal changed the cache");
            }
        }
        lease.pages()[n_pages..].iter().for_each(|&page| self.store.hand_over(page, *number, None));
        result
    }

    fn commit(&mut self, i: usize, kept_back: usize) {
        if self.live[i].passed > self.live[i].lease.committed() {
            return;
        }
        let Sequence { namespace, lease, tokens, n_written, .. } = &mut self.live[i];
        let n_tokens = lease.committed().max(n_written.saturating_sub(kept_back));
        self.cache.commit(lease, &tokens[..n_tokens]);
        let pinned = lease.committed();
        assert!(pinned == n_tokens || pinned >= n_tokens / PAGE * PAGE, "{pinned} of {n_tokens} tokens are pinned");
        self.committed.push((*namespace, tokens[..n_tokens].to_vec()));
        let found = self.cache.find(*namespace, &tokens[..n_tokens]).len;
        // Under a window, the tokens after the last whole page may be known without their rows.
        let least = if self.window == usize::MAX { n_tokens } else { pinned };
        assert!(found >= least || self.live[i].passed > self.first_seen(least), "what was just committed");
    }

    fn pass(&mut self, i: usize, written: bool) {
        let Sequence { lease, n_written, .. } = &mut self.live[i];
        let position = if written { *n_written } else { lease.committed() };
        self.cache.pass(lease, position);
        let first = self.first_seen(position);
        let Sequence { lease, passed, .. } = &mut self.live[i];
        *passed = first.max(*passed);
        let behind = lease.pages().iter().take(*passed / PAGE).filter(|&&page| page != PageId::GONE).count();
        assert!(behind <= self.window.div_ceil(8 * PAGE), "{behind} pages are held that nothing sees");
    }

    fn release(&mut self, i: usize) {
        let sequence = self.live.swap_remove(i);
        self.cache.release(sequence.lease);
    }

    fn evict(&mut self, n_pages: usize) {
        let evictable = self.cache.stats().evictable;
        assert_eq!(self.cache.evict(n_pages), n_pages.min(evictable), "of {evictable} evictable pages");
    }

    fn check(&self) {
        self.cache.check_invariants(&self.live.iter().map(|sequence| &sequence.lease).collect::<Vec<_>>());
        let mut store = self.store.clone();
        store.perform_copies();
        for sequence in &self.live {
            let read = |position| store.read(sequence.lease.pages()[position / PAGE], position % PAGE);
            let seen = sequence.passed..sequence.n_written;
            let rows: Option<Vec<_>> = seen.clone().map(read).collect();
            let expected = &sequence.tokens[seen];
            assert_eq!(rows.as_deref(), Some(expected), "sequence {} reads back wrong", sequence.number);
        }
    }
}

fn cases() -> u32 {
    match std::env::var("PROPTEST_CASES") {
        Ok(number) => number.parse().expect("PROPTEST_CASES is a number"),
        Err(_) => 2_000,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    /// Few pages, so that there is eviction, cutting back and refusal; up to 60, so that there is none.
    #[test]
    fn every_script_agrees_with_the_model(
        n_pages in prop_oneof![3..14_u32, 14..60_u32],
        window in prop_oneof![Just(usize::MAX), 1..60_usize],
        script in vec(verb(), 1..80),
    ) {
        let mut world = World::new(n_pages, window);
        script.into_iter().for_each(|verb| world.run(verb));
        (0..world.live.len()).for_each(|_| world.release(0));
        world.check();
        world.run(Verb::Clear);
        prop_assert_eq!(world.cache.stats().free, n_pages as usize);
        prop_assert_eq!(world.cache.nodes().count(), 0);
    }
}
