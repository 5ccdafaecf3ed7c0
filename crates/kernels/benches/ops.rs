//! GB/s and GOP/s of each op beside the machine's roof, measured in the same run.
//!
//! Shapes are those of SmolLM2-135M: d 576, 9 query and 3 key/value heads of 64, F 1536, V 49,152; layers in Q4_1, head in
//! Q8_0. `cargo bench -p sglang-kernels [-- <threads> [<level> [<part>]]]`. Every time is the best of many, as that of the
//! roof is: what remains when neighbours are silent. Compare lines of one run only.

use sglang_kernels::cpu::Roof;
use sglang_kernels::device::{Device, Heads, HostMatrix, KvFormat, KvShape, OutputRow, Pick, SampleParams, Span, PAGE};
use sglang_kernels::{Cpu, DType, Level, Result};
use std::time::Instant;

const D: usize = 576;
const F: usize = 1536;
const V: usize = 49_152;
const HEADS: Heads = Heads { q: 9, kv: 3, size: 64 };
const LAYERS: usize = 30;
/// Streams, positions before the step, rows of each in the step.
const STEPS: [(usize, usize, usize); 6] =
    [(1, 64, 1), (1, 512, 1), (1, 2048, 1), (16, 512, 1), (1, 0, 512), (1, 1536, 512)];

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1).filter(|a| !a.starts_with("--"));
    let threads = args.next().and_then(|a| a.parse().ok()).unwrap_or_else(cores);
    let level: Option<Level> = args.next().and_then(|a| a.parse().ok());
    let wanted = args.next().unwrap_or_default();
    let mut cpu = Cpu::new(threads, level)?;
    let roof = cpu.roof()?;
    println!("{}: {roof}", cpu.describe());
    type Part = fn(&mut Cpu, &Roof) -> Result<()>;
    let parts: [(&str, Part); 6] = [
        ("matmul", matmuls),
        ("formats", formats),
        ("attention", attention),
        ("prefix", shared_prefix),
        ("sampling", sampling),
        ("rest", the_rest),
    ];
    parts.iter().filter(|(name, _)| name.starts_with(&wanted)).try_for_each(|(_, part)| part(&mut cpu, &roof))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Seconds of the fastest call, of at least 9 and a fifth of a second.
fn time(mut call: impl FnMut() -> Result<()>) -> Result<f64> {
    call()?;
    let (start, mut calls, mut best) = (Instant::now(), 0, f64::INFINITY);
    while calls < 9 || start.elapsed().as_secs_f64() < 0.2 {
        let began = Instant::now();
        call()?;
        best = best.min(began.elapsed().as_secs_f64());
        calls += 1;
    }
    Ok(best)
}

/// Pseudo-random bytes; floats and scales made of them are small, but not so small that they are slow.
fn bytes(dtype: DType, rows: usize, cols: usize) -> Vec<u8> {
    let (mut state, len) = (1u64, rows * dtype.row_bytes(cols));
    let high = if dtype.is_float() { dtype.block_bytes() } else { usize::MAX };
    let mut byte = |i: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if (i + 1).is_multiple_of(high) {
            0x3c
        } else {
            (state >> 33) as u8 & 0x2f
        }
    };
    (0..len).map(&mut byte).collect()
}

fn matrix(cpu: &mut Cpu, dtype: DType, rows: usize, cols: usize) -> Result<<Cpu as Device>::Matrix> {
    cpu.matrix(&[HostMatrix { rows, cols, dtype, bytes: &bytes(dtype, rows, cols) }], false)
}

fn wave(cpu: &mut Cpu, len: usize) -> Result<<Cpu as Device>::Buffer> {
    let mut buffer = cpu.buffer(len)?;
    let values: Vec<f32> = (0..len).map(|i| (i as f32 * 0.37).sin()).collect();
    cpu.write(&mut buffer, &values)?;
    Ok(buffer)
}

fn matmuls(cpu: &mut Cpu, roof: &Roof) -> Result<()> {
    for dtype in [DType::Q4_1, DType::Q8_0, DType::F16, DType::BF16, DType::F32] {
        let shapes = [(HEADS.row(), D), (D, D), (2 * F, D), (D, F)];
        let mut layers = Vec::new();
        for _ in 0..LAYERS {
            for (n, k) in shapes {
                layers.push((k, matrix(cpu, dtype, n, k)?));
            }
        }
        linears(cpu, roof, &format!("layers {dtype}"), &layers, &[1, 2, 4, 8, 16, 64, 512])?;
    }
    let head = [(D, matrix(cpu, DType::Q8_0, V, D)?)];
    linears(cpu, roof, "head Q8_0", &head, &[1, 8, 64])
}

/// Every format in one shape of 268 million weights, more than caches hold.
fn formats(cpu: &mut Cpu, roof: &Roof) -> Result<()> {
    for dtype in DType::all().filter(|d| !d.is_float()) {
        let bytes = bytes(dtype, 4096, 4096);
        let host = HostMatrix { rows: 4096, cols: 4096, dtype, bytes: &bytes };
        let seconds = time(|| cpu.matrix(std::slice::from_ref(&host), false).map(|_| ()))?;
        println!("repack {dtype:6}: {:8.1} us {:7.2} GB/s", seconds * 1e6, bytes.len() as f64 / seconds / 1e9);
        let layers: Vec<_> =
            (0..16).map(|_| Ok((4096, cpu.matrix(std::slice::from_ref(&host), false)?))).collect::<Result<_>>()?;
        linears(cpu, roof, &dtype.to_string(), &layers, &[1, 8, 64])?;
    }
    Ok(())
}

fn linears(
    cpu: &mut Cpu,
    roof: &Roof,
    name: &str,
    ws: &[(usize, <Cpu as Device>::Matrix)],
    rows: &[usize],
) -> Result<()> {
    let most = rows.iter().max().copied().unwrap_or(1);
    let widest = ws.iter().map(|w| w.1.rows).max().unwrap_or(0);
    let deepest = ws.iter().map(|w| w.1.cols).max().unwrap_or(0);
    let (x, mut out) = (wave(cpu, most * deepest)?, cpu.buffer(most * widest)?);
    let bytes: usize = ws.iter().map(|w| w.1.bytes()).sum();
    let ops: usize = ws.iter().map(|w| 2 * w.1.rows * w.1.cols).sum();
    for &rows in rows {
        let seconds = time(|| ws.iter().try_for_each(|w| cpu.matmul(&x, &w.1, rows, &mut out)))?;
        let (read, rate) = (bytes as f64 / seconds / 1e9, (ops * rows) as f64 / seconds / 1e9);
        let of_read = 100.0 * read / roof.read;
        let of_rate = 100.0 * rate / if name.contains('Q') { roof.int8 } else { roof.f32 };
        println!(
            "{name:13} rows {rows:4}: {:8.2} ms {read:6.1} GB/s ({of_read:3.0} %) {rate:7.1} GOP/s ({of_rate:3.0} %) {:7.0} rows/s",
            seconds * 1e3,
            rows as f64 / seconds
        );
    }
    Ok(())
}

fn attention(cpu: &mut Cpu, _: &Roof) -> Result<()> {
    for format in KvFormat::all() {
        for (streams, before, rows) in STEPS {
            let each = (before + rows).div_ceil(PAGE);
            let shape = KvShape { layers: 1, kv_heads: HEADS.kv, head_size: HEADS.size, pages: streams * each, format };
            let mut kv = cpu.kv(shape)?;
            let (qkv, mut out) = (wave(cpu, streams * rows * HEADS.row())?, cpu.buffer(streams * rows * D)?);
            let span = |i: usize| Span {
                rows: i * rows..(i + 1) * rows,
                position: before,
                pages: (i * each..(i + 1) * each).map(|p| p as u32).collect(),
            };
            let spans: Vec<Span> = (0..streams).map(span).collect();
            let store = time(|| cpu.store_kv(&qkv, HEADS, &mut kv, 0, &spans))?;
            let seconds = time(|| cpu.attention(&qkv, HEADS, &kv, 0, &spans, 0, 0.125, &mut out))?;
            let pairs = streams * HEADS.q * (rows * before + rows * (rows + 1) / 2);
            let rate = (4 * pairs * HEADS.size) as f64 / seconds / 1e9;
            println!(
                "attention {format:8} {streams:2} × {before:4} + {rows:3}: {:8.1} us {rate:7.1} GFLOP/s, {:6.2} ns per pair; store {:6.1} us",
                seconds * 1e6,
                seconds * 1e9 / pairs as f64,
                store * 1e6
            );
        }
    }
    Ok(())
}

/// 32 streams on one prefix of 2,000 tokens, on copies of it, and after 50 tokens: 8 own positions each.
fn shared_prefix(cpu: &mut Cpu, _: &Roof) -> Result<()> {
    const STREAMS: usize = 32;
    for format in KvFormat::all() {
        for (name, common, private) in [("common", 2000, 8), ("copied", 0, 2008), ("short", 0, 58)] {
            let (prefix, own) = (common / PAGE, usize::div_ceil(private + 1, PAGE));
            let shape =
                KvShape { layers: 1, kv_heads: HEADS.kv, head_size: HEADS.size, pages: prefix + STREAMS * own, format };
            let kv = cpu.kv(shape)?;
            let (qkv, mut out) = (wave(cpu, STREAMS * HEADS.row())?, cpu.buffer(STREAMS * D)?);
            let span = |i: usize| Span {
                rows: i..i + 1,
                position: common + private,
                pages: (0..prefix).chain(prefix + i * own..prefix + (i + 1) * own).map(|p| p as u32).collect(),
            };
            let spans: Vec<Span> = (0..STREAMS).map(span).collect();
            let seconds = time(|| cpu.attention(&qkv, HEADS, &kv, 0, &spans, 0, 0.125, &mut out))?;
            println!("attention {format:8} {STREAMS} rows, {name:6} {:4}: {:8.1} us", common + private, seconds * 1e6);
        }
    }
    Ok(())
}

fn sampling(cpu: &mut Cpu, _: &Roof) -> Result<()> {
    let greedy = SampleParams {
        temperature: 0.0,
        top_p: 1.0,
        top_k: 0,
        min_p: 0.0,
        uniform: 0.5,
        edits: vec![],
        seen: vec![],
        repetition_penalty: 1.0,
        allowed: None,
    };
    let plain = SampleParams { temperature: 1.0, ..greedy.clone() };
    let top_p = SampleParams { top_p: 0.95, top_k: 50, ..plain.clone() };
    let flat = SampleParams { top_p: 0.95, temperature: 100.0, ..plain.clone() };
    let logits: Vec<f32> = (0..V).map(|i| ((i * 7919 % V) as f32 / V as f32).powi(8) * 20.0).collect();
    let mut buffer = cpu.buffer(V)?;
    for (name, params, logprob) in [
        ("greedy", &greedy, false),
        ("greedy, 5 log-probabilities", &greedy, true),
        ("temperature 1", &plain, false),
        ("top-p 0.95, top-k 50", &top_p, false),
        ("top-p 0.95 of a flat distribution", &flat, false),
    ] {
        let row = OutputRow { pick: Pick::Sample(params.clone()), logprob, top: 5, of_tokens: vec![] };
        cpu.write(&mut buffer, &logits)?;
        let seconds = time(|| cpu.sample(&mut buffer, V, std::slice::from_ref(&row)).map(|_| ()))?;
        println!("sample {name}: {:.1} us", seconds * 1e6);
    }
    Ok(())
}

fn the_rest(cpu: &mut Cpu, _: &Roof) -> Result<()> {
    for rows in [1, 16, 512] {
        let (x, weight, mut table) = (wave(cpu, rows * 2 * F)?, wave(cpu, D)?, cpu.buffer(rows * HEADS.size)?);
        let positions: Vec<u32> = (0..rows as u32).collect();
        cpu.rope_table(&positions, &[0.1; HEADS.size / 2], &mut table)?;
        let (mut out, mut qkv) = (wave(cpu, rows * F)?, wave(cpu, rows * HEADS.row())?);
        let norm = time(|| cpu.rms_norm(&x, &weight, 1e-5, rows, &mut out))?;
        let rope = time(|| cpu.rope(&mut qkv, HEADS, &table, rows))?;
        let mut stream = wave(cpu, rows * D)?;
        let add_norm = time(|| cpu.add_norm(&mut stream, &mut out, &weight, 1e-5, rows))?;
        let down = matrix(cpu, DType::Q4_1, D, F)?;
        let plain = time(|| cpu.matmul(&x, &down, rows, &mut out))?;
        let gated = time(|| cpu.matmul_gated(&x, &down, rows, &mut out))?;
        let us = [norm, rope, add_norm, plain, gated].map(|t| t * 1e6);
        println!(
            "rows {rows:3}: rms_norm {:.2} us, rope {:.2} us, add_norm {:.2} us, down {:.2} us, of gated inputs {:.2} us",
            us[0], us[1], us[2], us[3], us[4]
        );
    }
    Ok(())
}
