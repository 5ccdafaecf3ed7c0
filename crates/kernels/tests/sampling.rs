//! Choosing tokens: the reference against worked examples, every processor against the reference.

mod fixture;

use fixture::{processors, Random};
use sglang_kernels::device::{Device, OutputRow, Pick, Picked, SampleParams, NO_TOKEN};
use sglang_kernels::{Reference, Result};

const PLAIN: SampleParams = SampleParams {
    temperature: 1.0,
    top_p: 1.0,
    top_k: 0,
    min_p: 0.0,
    uniform: 0.0,
    edits: Vec::new(),
    seen: Vec::new(),
    repetition_penalty: 1.0,
    allowed: None,
};

fn row(params: SampleParams) -> OutputRow {
    OutputRow { pick: Pick::Sample(params), logprob: true, top: 3, of_tokens: vec![1] }
}

fn sample<D: Device>(device: &mut D, logits: &[f32], rows: &[OutputRow]) -> Result<Vec<Picked>> {
    let mut buffer = device.buffer(logits.len())?;
    device.write(&mut buffer, logits)?;
    device.sample(&mut buffer, logits.len() / rows.len(), rows)
}

/// The tokens that `params` can give over a sweep of draws, by the reference.
fn reach(logits: &[f32], params: SampleParams) -> Vec<u32> {
    let draw = |i: i32| {
        let params = SampleParams { uniform: (i as f32 + 0.5) / 1000.0, ..params.clone() };
        sample(&mut Reference, logits, &[row(params)]).unwrap()[0].token
    };
    let mut tokens: Vec<u32> = (0..1000).map(draw).collect();
    tokens.dedup();
    tokens
}

/// Probabilities 0.4, 0.1, 0.3, 0.2.
fn four() -> Vec<f32> {
    [0.4f32, 0.1, 0.3, 0.2].map(f32::ln).to_vec()
}

#[test]
fn worked_examples() {
    assert_eq!(reach(&four(), PLAIN), [0, 1, 2, 3], "inverse CDF walks in token order");
    assert_eq!(reach(&four(), SampleParams { temperature: 0.0, ..PLAIN }), [0]);
    assert_eq!(reach(&four(), SampleParams { top_k: 2, ..PLAIN }), [0, 2]);
    assert_eq!(reach(&four(), SampleParams { top_p: 0.65, ..PLAIN }), [0, 2]);
    assert_eq!(reach(&four(), SampleParams { top_p: 0.75, ..PLAIN }), [0, 2, 3]);
    assert_eq!(reach(&four(), SampleParams { top_p: 0.75, top_k: 3, ..PLAIN }), [0, 2], "of 0.9, not of 1");
    assert_eq!(reach(&four(), SampleParams { min_p: 0.45, ..PLAIN }), [0, 2, 3]);
    let masked = SampleParams { allowed: Some([0b1010].into()), ..PLAIN };
    assert_eq!(reach(&four(), masked.clone()), [1, 3]);
    assert_eq!(reach(&four(), SampleParams { edits: vec![(0, 100.0), (3, 100.0)], ..masked }), [3]);
    let penalised = SampleParams { seen: vec![0], repetition_penalty: 2.0, temperature: 0.0, ..PLAIN };
    assert_eq!(reach(&four(), penalised), [2], "0.4² is less than 0.3");
}

#[test]
fn log_probabilities_are_of_the_raw_logits() {
    let edited = SampleParams { edits: vec![(3, 9.0)], temperature: 0.0, ..PLAIN };
    let picked = &sample(&mut Reference, &four(), &[row(edited)]).unwrap()[0];
    let near = |a: f32, p: f32| assert!((a - p.ln()).abs() < 1e-6, "{a} is not ln {p}");
    assert_eq!(picked.token, 3);
    near(picked.logprob, 0.2);
    assert_eq!(picked.top.iter().map(|t| t.0).collect::<Vec<_>>(), [0, 2, 3]);
    near(picked.top[1].1, 0.3);
    near(picked.of_tokens[0].1, 0.1);
}

/// Sampling parameters of all kinds.
fn random_row(r: &mut Random, vocab: usize) -> OutputRow {
    let one_of = |r: &mut Random, values: &[f32]| values[r.below(values.len())];
    let params = SampleParams {
        temperature: one_of(r, &[0.0, 0.3, 1.0, 2.5]),
        top_p: one_of(r, &[1.0, 0.95, 0.5, 0.01]),
        top_k: one_of(r, &[0.0, 1.0, 7.0, 300.0, 1e6]) as u32,
        min_p: one_of(r, &[0.0, 0.02, 0.3, 1.0]),
        uniform: r.unit().abs(),
        edits: (0..r.below(4)).map(|_| (r.below(vocab) as u32, r.unit() * 9.0)).collect(),
        seen: (0..r.below(9) as u32).map(|i| i * 7 % vocab as u32).collect(),
        repetition_penalty: one_of(r, &[1.0, 1.3, 0.8]),
        allowed: (r.below(3) == 0).then(|| (0..vocab.div_ceil(32)).map(|_| r.bits() as u32 | 1).collect()),
    };
    let pick = if r.below(8) == 0 { Pick::Given(r.below(vocab) as u32) } else { Pick::Sample(params) };
    OutputRow { pick, logprob: r.below(2) == 0, top: r.below(30), of_tokens: vec![0, vocab as u32 - 1] }
}

/// Logits of four kinds: peaked, flat, with ties, with values that are no numbers.
fn random_logits(r: &mut Random, vocab: usize) -> Vec<f32> {
    let kind = r.below(4);
    let value = |r: &mut Random| match kind {
        0 => (r.unit() * 3.0).powi(3),
        1 => r.unit() * 0.1,
        2 => (r.unit() * 3.0).round(),
        _ if r.below(20) == 0 => [f32::NAN, f32::NEG_INFINITY, -1e30][r.below(3)],
        _ => r.unit() * 5.0,
    };
    (0..vocab).map(|_| value(r)).collect()
}

#[test]
fn processors_choose_as_the_reference() {
    let mut r = Random(31);
    for vocab in [1, 2, 31, 33, 257, 1000, 5003] {
        for _ in 0..30 {
            let rows: Vec<OutputRow> = (0..4).map(|_| random_row(&mut r, vocab)).collect();
            let logits: Vec<f32> = (0..4).flat_map(|_| random_logits(&mut r, vocab)).collect();
            let expected = sample(&mut Reference, &logits, &rows);
            for (name, mut cpu) in processors() {
                compare(&name, sample(&mut cpu, &logits, &rows), &expected, &rows);
            }
        }
    }
}

fn compare(name: &str, got: Result<Vec<Picked>>, expected: &Result<Vec<Picked>>, rows: &[OutputRow]) {
    let (Ok(got), Ok(expected)) = (&got, expected) else {
        return assert_eq!(got.is_err(), expected.is_err(), "{name}: {got:?} and {expected:?}");
    };
    for ((got, expected), row) in got.iter().zip(expected).zip(rows) {
        let near = |a: f32, b: f32| a == b || (a - b).abs() <= 1e-4 + b.abs() * 1e-6;
        let same = |a: &[(u32, f32)], b: &[(u32, f32)]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && near(a.1, b.1))
        };
        let all = got.token == expected.token
            && near(got.logprob, expected.logprob)
            && same(&got.top, &expected.top)
            && same(&got.of_tokens, &expected.of_tokens);
        assert!(all, "{name}: {got:?}\nis not {expected:?}\nfor {row:?}");
    }
}

#[test]
fn a_row_with_nothing_left_gets_no_token() {
    let nothing = SampleParams { allowed: Some([0].into()), ..PLAIN };
    for (name, mut cpu) in processors() {
        for logits in [four(), vec![f32::NAN; 4]] {
            let params = if logits[0].is_nan() { PLAIN } else { nothing.clone() };
            let picked = sample(&mut cpu, &logits, &[row(params)]).unwrap();
            assert_eq!(picked[0].token, NO_TOKEN, "{name}");
        }
    }
}

#[test]
fn infinite_logits_win() {
    for (name, mut cpu) in processors() {
        let picked = sample(&mut cpu, &[0.0, f32::INFINITY, f32::NAN, 5.0], &[row(PLAIN)]).unwrap();
        assert_eq!((picked[0].token, picked[0].logprob), (1, 0.0), "{name}");
    }
}
