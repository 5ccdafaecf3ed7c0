//! Decoding over several ranks beside one: the same threads, the default model (or the one in `SGLANG_TEST_MODEL`), in
//! turns: `cargo bench -p sglang-engine --bench ranks [-- <sequences>…]`, with `THREADS`, `TP` and `ROUNDS` from the
//! environment. Prints the medians of milliseconds per step for each number of sequences, and of the ratios of neighbours.

#[path = "../tests/fixtures/mod.rs"]
mod fixtures;

use sglang_engine::loader::{self, LoadOptions};
use sglang_engine::request::{Event, Prompt, Request, SamplingParams};
use sglang_engine::Engine;
use std::sync::mpsc::{channel, Receiver};
use std::time::Instant;

const PROMPT: u32 = 64;
const OUTPUT: usize = 128;

struct Running {
    engine: Engine,
    events: Receiver<Vec<Event>>,
}

fn start(tp: usize, threads: usize) -> Running {
    let options = LoadOptions {
        model_path: fixtures::default_model(),
        tp: Some(tp),
        threads: Some(threads),
        ..Default::default()
    };
    let loaded = loader::load(&options, &mut |_, _| {}).unwrap();
    println!("tp {tp}: {}", loaded.card.device);
    let (send, events) = channel();
    Running { engine: loaded.start(Box::new(move |e| drop(send.send(e)))), events }
}

impl Running {
    /// Milliseconds of the median step while so many sequences decode.
    fn decode(&self, sequences: u32) -> f64 {
        for id in 0..sequences {
            let prompt = Prompt::Tokens((0..PROMPT).map(|t| 100 + 7 * t + 1000 * id).collect());
            let sampling = SamplingParams {
                max_new_tokens: Some(OUTPUT),
                ignore_eos: true,
                temperature: 0.8,
                top_p: 0.9,
                ..Default::default()
            };
            self.engine.submit(Request { id: id.into(), prompt, sampling, ..Default::default() });
        }
        let (mut finished, mut started, mut clock, mut steps) = (0, 0, Instant::now(), Vec::new());
        while finished < sequences {
            for event in self.events.recv().unwrap() {
                finished += u32::from(event.finish.is_some());
                started += u32::from(event.tokens.len() + event.text.len() > 0 && started < sequences);
            }
            let step = std::mem::replace(&mut clock, Instant::now());
            if started == sequences {
                steps.push(step.elapsed().as_secs_f64() * 1e3);
            }
        }
        median(steps)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |v| v.parse().unwrap());
    let (threads, tp, rounds) = (number("THREADS", 2), number("TP", 2), number("ROUNDS", 9));
    let (one, several) = (start(1, threads), start(tp, threads));
    let wanted: Vec<u32> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    for sequences in if wanted.is_empty() { vec![1, 8, 32] } else { wanted } {
        let pairs: Vec<(f64, f64)> = (0..rounds).map(|_| (one.decode(sequences), several.decode(sequences))).collect();
        let [a, b] = [|p: &(f64, f64)| p.0, |p: &(f64, f64)| p.1].map(|f| median(pairs.iter().map(f).collect()));
        let ratio = median(pairs.iter().map(|(a, b)| a / b).collect());
        println!(
            "{sequences} sequences: tp 1 {a:.3} ms, tp {tp} {b:.3} ms a step; tp {tp} has {ratio:.3} of its speed"
        );
    }
}
