//! A rank that fails ends the engine with its reason, wherever the others are; nothing hangs.

mod fixtures;

use fixtures::fixture;
use sglang_engine::comm::{meeting::Meeting, shared::Shared, Communicator};
use sglang_engine::model::assemble::{assemble, Precision};
use sglang_engine::model::config::ModelConfig;
use sglang_engine::model::decoder::Decoder;
use sglang_engine::model::shard::Shard;
use sglang_engine::parallel::{Rank, Ranks};
use sglang_engine::request::{Event, FinishReason, Prompt, Request, SamplingParams};
use sglang_engine::scheduler::{Limits, Policy};
use sglang_engine::text::Tokenizer;
use sglang_engine::{weights, Engine};
use sglang_kernels::device::{DeviceError, KvFormat, KvShape, Result};
use sglang_kernels::Reference;
use std::collections::BTreeMap;
use std::sync::mpsc::{channel, Receiver};
use std::sync::Arc;

/// A line on which one operation fails.
struct Failing {
    line: Shared,
    /// Operations until then; those that do not fail never come there.
    left: usize,
    fail: fn() -> Result<()>,
}

impl Failing {
    fn count(&mut self) -> Result<()> {
        self.left -= 1;
        match self.left {
            0 => (self.fail)(),
            _ => Ok(()),
        }
    }
}

impl Communicator<Reference> for Failing {
    fn all_reduce(&mut self, device: &mut Reference, buffer: &mut Vec<f32>, len: usize) -> Result<()> {
        self.count()?;
        self.line.all_reduce(device, buffer, len)
    }

    fn deal_rows(
        &mut self,
        device: &mut Reference,
        columns: &mut Vec<f32>,
        rows: usize,
        width: usize,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        self.count()?;
        self.line.deal_rows(device, columns, rows, width, out)
    }
}

const PAGES: usize = 64;
const RANKS: usize = 3;

/// An engine over the llama3 checkpoint, in which rank `failing` fails at operation `after`.
fn start(failing: usize, after: usize, fail: fn() -> Result<()>) -> (Engine, Receiver<Vec<Event>>) {
    let files = weights::open(&fixture("llama3")).unwrap();
    let config = ModelConfig::of(&files).unwrap();
    let (kv_heads, head_size) = (config.kv_heads, config.head_size);
    let kv = KvShape { layers: config.layers, kv_heads, head_size, pages: PAGES, format: KvFormat::F32 };
    let shards = Shard::of(&config, &*files.weights, Precision::Float32, RANKS).unwrap();
    let meeting = Arc::new(Meeting::new(RANKS));
    let lines = Shared::ends(&meeting, RANKS);
    let mut ranks = shards.into_iter().zip(lines).map(|(shard, line)| {
        let left = if shard.rank == failing { after } else { usize::MAX };
        let weights =
            assemble(&*files.weights, &config, &shard, &mut Reference, Precision::Float32, &mut |_| {}).unwrap();
        let decoder = Decoder::new(Reference, config.clone(), shard, weights, kv, 64).unwrap();
        Rank { decoder, comm: Failing { line, left, fail }, cores: Vec::new() }
    });
    let first = ranks.next().unwrap();
    let runner = Ranks::start(meeting, first, ranks.collect()).unwrap();
    let tokenizer = Arc::new(Tokenizer::of(&files, &config).unwrap());
    let policy = Policy::Lpm;
    let limits =
        Limits { chunk: 64, max_running: 4, max_queued: 10, ahead: 256, pages: PAGES, window: 0, policy, reuse: true };
    let (send, events) = channel();
    (Engine::start(Box::new(runner), tokenizer, limits, 256, Box::new(move |e| drop(send.send(e)))), events)
}

fn check(failing: usize, after: usize, fail: fn() -> Result<()>, expected: &str) {
    let (mut engine, events) = start(failing, after, fail);
    let sampling = SamplingParams { max_new_tokens: Some(100), ignore_eos: true, ..Default::default() };
    for id in 0..3 {
        let prompt = Prompt::Tokens(vec![5, 6, id as u32 + 7]);
        engine.submit(Request { id, prompt, sampling: sampling.clone(), ..Default::default() });
    }
    let mut ends = BTreeMap::new();
    while ends.len() < 3 {
        for event in events.recv().expect("the engine still reports") {
            let Some(finish) = event.finish else { continue };
            let FinishReason::Failed { code, message, .. } = finish.reason else { panic!("{:?}", finish.reason) };
            ends.insert(event.id, (code, message));
        }
    }
    let expected = ("device_error", format!("rank {failing} failed: {expected}"));
    assert!(ends.values().all(|end| *end == expected), "{ends:?}");
    engine.close();
}

/// In the embedding, in the middle of a layer and in the head of a later step; on the first rank and on another.
#[test]
fn a_rank_that_fails_ends_the_engine() {
    let out_of_memory = || Err(DeviceError::OutOfMemory { device: "rank", wanted: 7 });
    for (rank, after) in [(0, 1), (1, 1), (0, 12), (1, 12), (2, 16)] {
        check(rank, after, out_of_memory, "out of rank memory: 7 bytes wanted");
        check(rank, after, || panic!("index out of range"), "index out of range");
    }
}
