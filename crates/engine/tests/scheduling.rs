//! What the scheduler decides, counted in steps and rows on the double.

mod fixtures;
mod play;

use play::{run, Ask, Outcome, Stage};
use sglang_engine::request::{Event, FinishReason, LogprobParams, RequestId};
use sglang_engine::runner::Fake;
use sglang_engine::scheduler::{Limits, Policy, Scheduler};
use sglang_engine::sequence::Prepared;
use sglang_engine::PAGE;

fn plain(prompt: Vec<u32>, max_new: usize, arrival: usize) -> Ask {
    Ask { prompt, max_new, arrival, ignore_eos: true, ..Ask::default() }
}

/// A scheduler on the double, driven by hand.
struct Hand {
    stage: Stage,
    scheduler: Scheduler,
    fake: Fake,
    next: RequestId,
}

impl Hand {
    fn new(change: impl FnOnce(&mut Limits)) -> Self {
        let stage = Stage::fake();
        let mut limits = Limits { chunk: 64, pages: 200, policy: Policy::Lpm, reuse: true, ..stage.unlimited.clone() };
        change(&mut limits);
        let fake = Fake::new(stage.tokenizer.vocab() as u32, limits.pages).with_window(limits.window);
        Hand { scheduler: stage.scheduler(&limits), stage, fake, next: 0 }
    }

    fn push(&mut self, ask: &Ask) -> RequestId {
        let id = self.next;
        self.next += 1;
        assert_eq!(self.scheduler.push(self.stage.prepare(id, ask)), None);
        id
    }

    /// One step: rows it ran, and what happened.
    fn step(&mut self) -> (usize, Vec<Event>) {
        self.scheduler.admit();
        let batch = self.scheduler.schedule();
        let events = self.scheduler.commit(run(&mut self.fake, &batch));
        self.scheduler.check_invariants();
        (batch.tokens.len(), events)
    }

    /// What one request is told by a model with a window whose pages are all held.
    fn told(mut self, ask: Ask, window: usize) -> Vec<u32> {
        self.fake = Fake::new(self.stage.tokenizer.vocab() as u32, 100).with_window(window);
        self.push(&ask);
        let mut output = Vec::new();
        while !self.scheduler.is_idle() {
            output.extend(self.step().1.into_iter().flat_map(|event| event.tokens));
        }
        output
    }

    /// Runs until nothing is left; ids in the order they ended.
    fn finish(&mut self) -> Vec<RequestId> {
        let mut ended = Vec::new();
        while !self.scheduler.is_idle() {
            ended.extend(self.step().1.iter().filter(|event| event.finish.is_some()).map(|event| event.id));
        }
        ended
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.scheduler.release_all();
    }
}

fn counting(n: u32) -> Vec<u32> {
    (0..n).map(|i| 10 + i % 200).collect()
}

/// Rows computed for requests that arrive together and share a prefix: the prefix counts once.
#[test]
fn a_shared_prefix_is_computed_once() {
    let mut hand = Hand::new(|_| {});
    for i in 0..8 {
        hand.push(&plain([&counting(192)[..], &[300 + i, 301]].concat(), 4, 0));
    }
    hand.finish();
    let totals = hand.scheduler.totals();
    assert_eq!(totals.computed_tokens, 192 + 8 * 2 + 8 * 3, "prefix once, two own tokens and three fed-back ones each");
    assert_eq!(totals.cached_tokens, 7 * 192);
}

/// Ten prompts, each one token longer than the one before, leave a path through ten copies of the same page, of which one is
/// kept. So what extends the last of them fits into a cache of as many pages as its tokens fill, with all of it reused.
#[test]
fn a_path_through_many_copies_holds_one() {
    let mut hand = Hand::new(|limits| limits.pages = 5);
    for n in 17..27 {
        hand.push(&plain(counting(n), 0, 0));
        hand.finish();
    }
    assert_eq!(hand.scheduler.cache().stats().cached, 2);
    let before = hand.scheduler.totals().cached_tokens;
    hand.push(&plain(counting(77), 3, 0));
    hand.finish();
    assert_eq!(hand.scheduler.totals().cached_tokens - before, 26);
    assert_eq!(hand.scheduler.totals().retracted, 0);
}

/// While a request decodes, another takes its prompt and the output so far from the cache, all but the open page.
#[test]
fn a_running_request_is_found_by_its_fork() {
    let mut hand = Hand::new(|_| {});
    let prompt = counting(40);
    hand.push(&plain(prompt.clone(), 100, 0));
    let mut output = Vec::new();
    while output.len() < 30 {
        output.extend(hand.step().1.into_iter().flat_map(|event| event.tokens));
    }
    hand.push(&plain([&prompt[..], &output].concat(), 1, 0));
    hand.step();
    assert_eq!(hand.scheduler.totals().cached_tokens, (40 + 29) / PAGE as u64 * PAGE as u64);
}

/// The second turn of a conversation recomputes nothing of the first but its last token, which was never run.
#[test]
fn a_second_turn_takes_the_first_from_the_cache() {
    let mut hand = Hand::new(|_| {});
    let prompt = counting(37);
    hand.push(&plain(prompt.clone(), 9, 0));
    let mut output = Vec::new();
    while !hand.scheduler.is_idle() {
        output.extend(hand.step().1.into_iter().flat_map(|event| event.tokens));
    }
    hand.push(&plain([&prompt[..], &output, &[5, 6]].concat(), 1, 0));
    hand.step();
    assert_eq!(hand.scheduler.totals().cached_tokens, 37 + 9 - 1);
}

/// Of a prompt of 600 tokens and an output of 400, a sequence with a window of 64 holds the window, the slack of an eighth
/// of it and what a step of 32 rows adds, whether prefixes are kept or not. What it has passed stays cached, so that others
/// find it, until the room is needed.
#[test]
fn a_sequence_holds_its_window_only() {
    for reuse in [true, false] {
        let mut hand = Hand::new(|limits| (limits.window, limits.chunk, limits.reuse) = (64, 32, reuse));
        hand.push(&plain(counting(600), 400, 0));
        let (mut most, mut output) = (0, 0);
        while !hand.scheduler.is_idle() {
            output += hand.step().1.into_iter().map(|event| event.tokens.len()).sum::<usize>();
            let cache = hand.scheduler.cache().stats();
            most = most.max(cache.leased + cache.cached - cache.evictable);
        }
        assert_eq!(output, 400);
        assert!((64 / PAGE..=(64 + 8 + 32) / PAGE + 2).contains(&most), "{most} pages are held");
        let cache = hand.scheduler.cache().stats();
        assert_eq!(cache.cached, if reuse { 999usize.div_ceil(PAGE) } else { 0 });
    }
}

/// Four such sequences run at once in room for the first half of one; each is told what it is told alone, and its next turn
/// takes the tokens from the cache though their first pages are gone.
#[test]
fn windows_share_a_small_cache() {
    let mut hand = Hand::new(|limits| (limits.window, limits.chunk, limits.pages, limits.ahead) = (32, 32, 40, 16));
    let ask = |i: u32| plain((0..400).map(|n| 10 + (n * (i + 3)) % 450).collect(), 300, 0);
    let alone: Vec<_> = (0..4).map(|i| Hand::new(|limits| limits.pages = 100).told(ask(i), 32)).collect();
    let ids: Vec<_> = (0..4).map(|i| hand.push(&ask(i))).collect();
    let mut outputs = vec![Vec::new(); 4];
    let mut running = 0;
    while !hand.scheduler.is_idle() {
        hand.step().1.into_iter().for_each(|event| outputs[event.id as usize].extend(event.tokens));
        running = running.max(hand.scheduler.counts().1);
    }
    assert_eq!((ids, outputs.clone(), running), (vec![0, 1, 2, 3], alone, 4));
    assert_eq!(hand.scheduler.totals().retracted, 0);
    let before = hand.scheduler.totals().cached_tokens;
    hand.push(&plain([&ask(3).prompt[..], &outputs[3], &[5, 6]].concat(), 1, 0));
    hand.step();
    assert_eq!(hand.scheduler.totals().cached_tokens - before, 699);
}

/// Under each policy that prefers some requests, a request that it never prefers waits only so long.
#[test]
fn a_request_without_a_match_is_not_starved() {
    for (name, policy) in Policy::NAMED {
        let mut hand = Hand::new(|limits| (limits.max_running, limits.policy) = (1, policy));
        let hot = counting(64);
        hand.push(&plain(hot.clone(), 2, 0));
        hand.step();
        let cold = hand.push(&plain(vec![300; 64], 2, 0));
        let (mut ended, mut i) = (Vec::new(), 0);
        while !ended.contains(&cold) {
            hand.push(&plain([&hot[..], &[400 + i % 50, i]].concat(), 2, 0));
            ended.extend(hand.step().1.iter().filter(|event| event.finish.is_some()).map(|event| event.id));
            i += 1;
        }
        let overtook = ended.len() - 2;
        let expected = match policy {
            Policy::Lpm | Policy::DfsWeight => 64..80,
            Policy::Fcfs => 0..1,
            Policy::Random => 0..80,
        };
        assert!(expected.contains(&overtook), "{name}: {overtook} requests overtook it");
    }
}

/// Four waiting requests: which is first decides what is still cached for whom.
#[test]
fn policies_order_the_queue() {
    let orders = Policy::NAMED.map(|(name, policy)| {
        let mut hand = Hand::new(|limits| (limits.max_running, limits.policy) = (1, policy));
        for cached in [counting(64), counting(96), vec![300; 80]] {
            hand.push(&plain(cached, 0, 0));
        }
        hand.finish();
        let other = [vec![300; 80], vec![1]].concat();
        let (shallow, deep) = ([&counting(64)[..], &[1]].concat(), [&counting(96)[..], &[1]].concat());
        let ids = [vec![7; 9], shallow.clone(), other.clone(), deep].map(|prompt| hand.push(&plain(prompt, 1, 0)));
        let place = |id: RequestId| ["none", "64", "80", "96"][ids.iter().position(|&known| known == id).unwrap()];
        (name, hand.finish().into_iter().map(place).collect::<Vec<_>>().join(" "))
    });
    assert_eq!(orders[0], ("lpm", "96 80 64 none".into()));
    assert_eq!(orders[1], ("fcfs", "none 64 80 96".into()));
    assert_eq!(orders[2], ("dfs-weight", "96 64 80 none".into()));
    assert_eq!(orders[3].1.split(' ').count(), 4);
}

#[test]
fn priority_goes_before_policy_and_is_retracted_last() {
    let mut hand = Hand::new(|limits| limits.max_running = 1);
    let low = hand.push(&plain(counting(20), 1, 0));
    let high = hand.push(&Ask { priority: 1, ..plain(vec![300; 20], 1, 0) });
    assert_eq!(hand.finish(), [high, low]);

    // Eleven pages for two requests that grow to six each: one must go, the important one stays though it came last.
    let mut hand = Hand::new(|limits| limits.pages = 11);
    let low = hand.push(&plain(counting(32), 60, 0));
    hand.step();
    let high = hand.push(&Ask { priority: 1, ..plain(vec![300; 32], 60, 0) });
    let ended = hand.finish();
    assert_eq!((ended[0], ended[1]), (high, low));
    assert!(hand.scheduler.totals().retracted > 0);
}

/// A prompt of 4,000 tokens arrives beside eight streams: in no step is a stream without its token, and no step runs
/// more than half a chunk of the prompt.
#[test]
fn a_long_prompt_stalls_no_stream_by_more_than_half_a_chunk() {
    let mut hand = Hand::new(|limits| limits.pages = 2000);
    let streams: Vec<_> = (0..8).map(|i| hand.push(&plain(vec![300 + i; 20], 500, 0))).collect();
    (0..4).for_each(|_| drop(hand.step()));
    let long = hand.push(&plain((0..4000).map(|i| 10 + i * 7 % 450).collect(), 1, 0));
    let mut n_steps = 0;
    loop {
        let (rows, events) = hand.step();
        assert!(rows <= 64 / 2 + 8, "{rows} rows in a step");
        for stream in &streams {
            let told: usize = events.iter().filter(|event| event.id == *stream).map(|event| event.tokens.len()).sum();
            assert_eq!(told, 1, "stream {stream} in step {n_steps}");
        }
        n_steps += 1;
        if events.iter().any(|event| event.id == long && event.finish.is_some()) {
            break;
        }
    }
    assert_eq!(n_steps, 4000usize.div_ceil(64 / 2), "each step runs as much of the prompt as it may");
}

/// More streams than a chunk has rows leave a prompt half a chunk per step.
#[test]
fn a_crowd_of_streams_does_not_lock_out_prompts() {
    let mut hand = Hand::new(|limits| (limits.chunk, limits.max_running) = (8, 20));
    for i in 0..12 {
        hand.push(&plain(vec![300 + i], 40, 0));
    }
    assert_eq!(hand.step().0, 12);
    let late = hand.push(&plain(counting(40), 1, 0));
    let rows: Vec<_> = (0..40 / 4).map(|_| hand.step()).collect();
    assert!(rows.iter().all(|&(rows, _)| rows == 12 + 4));
    assert!(rows.iter().flat_map(|(_, events)| events).any(|event| event.id == late && event.finish.is_some()));
}

/// An abort after any number of steps, within the prompt or the output, gives back all that only this request held
/// before the next step, and the neighbour's text is as if it had been alone.
#[test]
fn an_abort_at_any_point_gives_back_its_pages() {
    let neighbour = plain(vec![300; 30], 30, 0);
    let expected = Stage::fake().alone(&neighbour);
    for after in 0..12 {
        let mut hand = Hand::new(|limits| limits.chunk = 16);
        let kept = hand.push(&neighbour);
        let gone = hand.push(&plain(counting(100), 50, 0));
        let mut outcome = Outcome::default();
        let mut events = Vec::new();
        (0..after).for_each(|_| events.extend(hand.step().1));
        let end = hand.scheduler.abort(gone).expect("it is open");
        assert_eq!(end.finish.map(|finish| finish.reason), Some(FinishReason::Aborted));
        hand.scheduler.check_invariants();
        let held = hand.scheduler.cache().stats();
        let neighbours = if after == 0 { 0 } else { (30usize + 30).div_ceil(PAGE) };
        assert!(held.leased + held.cached - held.evictable <= neighbours, "after {after} steps {held:?}");
        assert_eq!(hand.scheduler.abort(gone), None, "it is gone");
        while !hand.scheduler.is_idle() {
            events.extend(hand.step().1);
        }
        let told = events.into_iter().filter(|event| event.id == kept);
        told.for_each(|event| outcome.take(event));
        assert_eq!(outcome, expected, "after {after} steps");
    }
}

/// What an aborted request was told is the beginning of its text, also where the next tokens would have completed a stop
/// string.
#[test]
fn an_abort_does_not_show_what_may_begin_a_stop_string() {
    let mut ask = plain(counting(20), 12, 0);
    let text = Stage::fake().alone(&ask).text;
    let (middle, _) = text.char_indices().nth(text.chars().count() / 2).expect("a text");
    let (shown, stop) = text.split_at(middle);
    ask.stop = vec![stop.into()];
    for after in 1.. {
        let mut hand = Hand::new(|_| {});
        let id = hand.push(&ask);
        let mut events: Vec<_> = (0..after).flat_map(|_| hand.step().1).collect();
        let end = hand.scheduler.abort(id);
        let is_open = end.is_some();
        events.extend(end);
        let told: String = events.into_iter().map(|event| event.text).collect();
        assert!(shown.starts_with(&told), "{told:?} after {after} steps, {shown:?} in all");
        if !is_open {
            assert_eq!(told, shown);
            break;
        }
    }
}

/// Where no log-probabilities are wanted, it does not matter from where on those of the prompt would be.
#[test]
fn a_start_without_log_probabilities_means_nothing() {
    let told = |prompt_start| {
        let mut hand = Hand::new(|_| {});
        let logprobs = LogprobParams { prompt_start, ..LogprobParams::default() };
        let asked = hand.stage.prepare(0, &plain(counting(20), 5, 0));
        assert_eq!(hand.scheduler.push(Prepared { logprobs, ..asked }), None);
        let mut outcome = Outcome::default();
        (0..10).flat_map(|_| hand.step().1).for_each(|event| outcome.take(event));
        outcome
    };
    let expected = told(None);
    assert_eq!((expected.tokens.len(), &expected.finish), (5, &Some(FinishReason::Length)));
    for start in [0, 1, 19, 20, 100] {
        assert_eq!(told(Some(start)), expected, "from {start} on");
    }
}

#[test]
fn a_full_queue_refuses() {
    let mut hand = Hand::new(|limits| (limits.max_queued, limits.max_running) = (1, 1));
    hand.push(&plain(vec![5], 4, 0));
    hand.push(&plain(vec![5], 4, 0));
    hand.step();
    let refused = hand.scheduler.push(hand.stage.prepare(9, &plain(vec![5], 4, 0))).unwrap();
    let Some(FinishReason::Failed { code, message, .. }) = refused.finish.map(|finish| finish.reason) else { panic!() };
    assert_eq!(code, "overloaded");
    assert_eq!(message, "the queue is full (1 requests wait); try again later");
}
