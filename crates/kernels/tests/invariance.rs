//! Equal bits: a row alone or in any batch, with any number of threads, in any chunking.

mod fixture;

use fixture::{buffer, Case, MatMul, Random};
use half::bf16;
use sglang_kernels::device::{Device, Heads, KvFormat, KvShape, Result, Span, PAGE};
use sglang_kernels::{Cpu, DType, Level};

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// Some of the rows have the bits that they have among all.
fn check_rows(case: &MatMul, threads: usize, some: &[(usize, usize)]) {
    let MatMul { dtype, n, .. } = *case;
    for level in Level::available() {
        let mut cpu = Cpu::new(threads, Some(level)).unwrap();
        let all = case.run(&mut cpu).unwrap();
        for &(first, end) in some {
            let some = case.rows(&mut cpu, first, end).unwrap();
            assert_eq!(bits(&some), bits(&all[first * n..end * n]), "{dtype} at {level}, rows {first}..{end}");
        }
    }
}

/// A product of any input with outliers.
fn with_outliers(r: &mut Random, dtype: DType, n: usize, k: usize, rows: usize) -> MatMul {
    let mut case = MatMul { x: r.values(rows * k), ..MatMul::random(r, dtype, n, k, 0) };
    r.outliers(&mut case.x, k, 5);
    case
}

#[test]
fn a_row_does_not_see_its_batch() {
    let mut r = Random(21);
    for dtype in DType::all() {
        let case = with_outliers(&mut r, dtype, 53, 2 * dtype.block_len().max(48), 141);
        let some = [(0, 1), (5, 7), (128, 131), (17, 21), (100, 141), (140, 141), (3, 12)];
        check_rows(&case, 2, &some);
    }
}

/// Nor where so few rows are one whole tile, as they are beside so many outputs.
#[test]
fn a_row_does_not_see_its_tile() {
    let mut r = Random(28);
    for dtype in DType::all() {
        let case = with_outliers(&mut r, dtype, 485, 7 * dtype.block_len().max(32), 16);
        check_rows(&case, 1, &[(0, 8), (8, 16), (2, 15), (15, 16)]);
    }
}

/// Levels that multiply and add with one rounding agree in every bit of a product; only AMX has BF16 products of its own.
#[test]
fn products_do_not_see_the_instruction_set() {
    let mut r = Random(27);
    for dtype in DType::all() {
        let case = with_outliers(&mut r, dtype, 35, 3 * dtype.block_len().max(32), 61);
        let levels = Level::available().into_iter().filter(|level| *level != Level::Scalar);
        let all: Vec<_> = levels.map(|l| (l, bits(&case.run(&mut Cpu::new(1, Some(l)).unwrap()).unwrap()))).collect();
        for (level, found) in &all {
            if (dtype, *level) == (DType::BF16, Level::Amx) {
                assert!(*found == bits(&chains(&case)), "{dtype} at {level} and sums of even and odd columns");
            } else {
                assert!(*found == all[0].1, "{dtype} at {level} and {}", all[0].0);
            }
        }
    }
}

/// A product of BF16 weights as the law of such products has it.
fn chains(case: &MatMul) -> Vec<f32> {
    let weights: Vec<f32> = case.weights.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect();
    let mut out = Vec::new();
    for x in case.x.chunks_exact(case.k) {
        let high: Vec<f32> = x.iter().map(|&x| bf16::from_f32(x).to_f32()).collect();
        let low: Vec<f32> = x.iter().zip(&high).map(|(x, high)| bf16::from_f32(x - high).to_f32()).collect();
        for w in weights.chunks_exact(case.k) {
            let mut sum = 0.0;
            for first in (0..case.k).step_by(32) {
                for part in [&high, &low] {
                    let chain =
                        |odd| (first + odd..first + 32).step_by(2).fold(0.0, |s: f32, k| part[k].mul_add(w[k], s));
                    sum += chain(0) + chain(1);
                }
            }
            out.push(sum);
        }
    }
    out
}

/// A sequence in chunks, next to other sequences or alone.
struct Chunked {
    heads: Heads,
    format: KvFormat,
    window: usize,
    /// Lengths of the steps.
    steps: Vec<usize>,
    /// Rows of an unrelated sequence in each step.
    company: usize,
}

impl Case for Chunked {
    fn run<D: Device>(&self, device: &mut D) -> Result<Vec<f32>> {
        let heads = self.heads;
        let total: usize = self.steps.iter().sum();
        let (row, width) = (heads.row(), heads.q * heads.size);
        let pages = total.div_ceil(PAGE);
        let company = self.company.div_ceil(PAGE);
        let (kv_heads, head_size) = (heads.kv, heads.size);
        let shape = KvShape { layers: 1, kv_heads, head_size, pages: pages + company, format: self.format };
        let mut kv = device.kv(shape)?;
        let qkv = Random(22).values(total * row);
        let others = Random(23).values(self.company * row);
        let (mut done, mut out) = (0, Vec::new());
        for &step in &self.steps {
            let fused = buffer(device, &[&others[..], &qkv[done * row..(done + step) * row]].concat())?;
            let of_others = Span {
                rows: 0..self.company,
                position: 0,
                pages: (pages..pages + company).map(|p| p as u32).collect(),
            };
            let rows = self.company..self.company + step;
            let spans = [of_others, Span { rows, position: done, pages: (0..pages as u32).rev().collect() }];
            let mut result = device.buffer((self.company + step) * width)?;
            device.store_kv(&fused, heads, &mut kv, 0, &spans)?;
            device.attention(&fused, heads, &kv, 0, &spans, self.window, 0.3, &mut result)?;
            out.extend_from_slice(&device.read(&result, (self.company + step) * width)?[self.company * width..]);
            done += step;
        }
        Ok(out)
    }
}

#[test]
fn attention_does_not_see_chunks() {
    let by_token = |n: usize| vec![1; n];
    let schedules = [vec![300], vec![7, 100, 193], vec![256, 44], [vec![290], by_token(10)].concat()];
    for (q, kv, size) in [(9, 3, 64), (4, 4, 16), (8, 1, 40)] {
        for (format, window) in KvFormat::all().zip([0, 40, 0, 0, 40]) {
            for level in Level::available() {
                let run = |steps: &Vec<usize>, company, threads| {
                    let case = Chunked { heads: Heads { q, kv, size }, format, window, steps: steps.clone(), company };
                    bits(&case.run(&mut Cpu::new(threads, Some(level)).unwrap()).unwrap())
                };
                let whole = run(&schedules[0], 0, 1);
                for (i, steps) in schedules.iter().enumerate() {
                    for (company, threads) in [(0, 4), (21, 2)] {
                        let got = run(steps, company, threads);
                        assert!(got == whole, "{q}:{kv}×{size} {format} window {window} at {level}, schedule {i}");
                    }
                }
            }
        }
    }
}

/// Decoding rows of sequences that begin alike: with the pages of what they have in common, or with copies of them.
struct Forked {
    heads: Heads,
    format: KvFormat,
    window: usize,
    copied: bool,
    forks: &'static [Fork],
}

/// Rows, position, and how many pages it takes from the trunk.
type Fork = (usize, usize, usize);
/// Two branches, one off the trunk, one alone.
const TREE: [Fork; 8] =
    [(1, 530, 33), (1, 511, 32), (1, 510, 31), (3, 600, 32), (1, 300, 16), (1, 270, 0), (20, 520, 32), (2, 700, 40)];
/// Two splits and more in common.
const BUSH: [Fork; 5] = [(1, 530, 33), (1, 620, 36), (1, 540, 33), (1, 600, 32), (1, 769, 33)];

impl Forked {
    /// Page tables of the forks: trunk pages first, or private copies of the same contents.
    fn spans(&self) -> (usize, Vec<Span>) {
        const TRUNK: usize = 40;
        let (mut next, mut row) = (TRUNK as u32, 0);
        let mut spans = Vec::new();
        for &(rows, position, common) in self.forks {
            let shared = if self.copied { 0 } else { common as u32 };
            let own = (position + rows).div_ceil(PAGE) as u32 - shared;
            let pages = (0..shared).chain(next..next + own).collect();
            spans.push(Span { rows: row..row + rows, position, pages });
            (next, row) = (next + own, row + rows);
        }
        (next as usize, spans)
    }

    /// Writes every position up to the forks' rows: the trunk's values up to its end, then each fork's own.
    fn fill<D: Device>(&self, device: &mut D, kv: &mut D::Kv, spans: &[Span]) -> Result<()> {
        let row = self.heads.row();
        let trunk = Random(25).values(40 * PAGE * row);
        for (i, (span, (_, position, common))) in spans.iter().zip(self.forks).enumerate() {
            let end = position + span.rows.len();
            let mut values = Random(26 + i as u64).values(end * row);
            let alike = (common * PAGE).min(end) * row;
            values[..alike].copy_from_slice(&trunk[..alike]);
            let (whole, values) =
                (Span { rows: 0..end, position: 0, pages: span.pages.clone() }, buffer(device, &values)?);
            device.store_kv(&values, self.heads, kv, 0, &[whole])?;
        }
        Ok(())
    }
}

impl Case for Forked {
    fn run<D: Device>(&self, device: &mut D) -> Result<Vec<f32>> {
        let (pages, spans) = self.spans();
        let Heads { q, kv: kv_heads, size: head_size } = self.heads;
        let mut kv = device.kv(KvShape { layers: 1, kv_heads, head_size, pages, format: self.format })?;
        self.fill(device, &mut kv, &spans)?;
        let rows = spans.iter().map(|s| s.rows.len()).sum::<usize>();
        let qkv = buffer(device, &Random(40).values(rows * self.heads.row()))?;
        let mut out = device.buffer(rows * q * head_size)?;
        device.attention(&qkv, self.heads, &kv, 0, &spans, self.window, 0.3, &mut out)?;
        device.read(&out, rows * q * head_size)
    }
}

#[test]
fn attention_does_not_see_who_shares_its_pages() {
    let shapes: [(_, _, _, &[Fork]); 4] = [(9, 3, 64, &TREE), (4, 4, 16, &TREE), (8, 1, 40, &TREE), (6, 3, 16, &BUSH)];
    for (q, kv, size, forks) in shapes {
        for (format, window) in KvFormat::all().zip([0, 0, 400, 0, 400]) {
            for level in Level::available() {
                let run = |copied, threads| {
                    let case = Forked { heads: Heads { q, kv, size }, format, window, copied, forks };
                    bits(&case.run(&mut Cpu::new(threads, Some(level)).unwrap()).unwrap())
                };
                let alone = run(true, 1);
                for threads in [1, 2, 4] {
                    let shared = run(false, threads);
                    assert!(shared == alone, "{q}:{kv}×{size} {format} window {window} at {level}, {threads} threads");
                }
            }
        }
    }
}

/// One layer of a small model, end to end.
struct Layer;

impl Case for Layer {
    fn run<D: Device>(&self, device: &mut D) -> Result<Vec<f32>> {
        let (r, rows, d) = (&mut Random(24), 77, 96);
        let mut x = buffer(device, &r.values(rows * d))?;
        let weight = buffer(device, &r.values(d))?;
        let mut normed = device.buffer(rows * d)?;
        device.rms_norm(&x, &weight, 1e-5, rows, &mut normed)?;
        let gate_up = MatMul::random(r, DType::Q4_1, 2 * 160, d, 0);
        let down = MatMul::random(r, DType::Q8_0, d, 160, 0);
        let [up, down] = [gate_up, down].map(|m| device.matrix(&[m.host()], false));
        let mut wide = device.buffer(rows * 320)?;
        device.matmul(&normed, &up?, rows, &mut wide)?;
        device.matmul_gated(&wide, &down?, rows, &mut normed)?;
        device.add_norm(&mut normed, &mut x, &weight, 1e-5, rows)?;
        device.read(&x, rows * d)
    }
}

#[test]
fn the_number_of_threads_does_not_show() {
    for level in Level::available() {
        let run = |threads| bits(&Layer.run(&mut Cpu::new(threads, Some(level)).unwrap()).unwrap());
        let one = run(1);
        for threads in [2, 3, 4, 7] {
            assert!(run(threads) == one, "{threads} threads at {level}");
        }
    }
}
