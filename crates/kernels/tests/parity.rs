//! Every op on every processor against the reference, for awkward shapes.

mod fixture;

use fixture::{buffer, check, processors, Case, MatMul, Random};
use sglang_kernels::device::{CopyRows, Device, Gelu, Heads, HostMatrix, KvFormat, KvShape, Result, Span, PAGE};
use sglang_kernels::{Cpu, DType};

/// What rounding 16-bit weights and their inputs to 14 bits costs.
const OF_WORDS: f32 = 3e-4;
/// What the order of sums costs.
const OF_SUMS: f32 = 3e-5;
const WIDTHS: [usize; 9] = [1, 2, 3, 15, 16, 17, 33, 576, 1536];

#[test]
fn matmul_of_floats() {
    let mut r = Random(1);
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        for k in WIDTHS {
            let (n, rows) = (r.below(70) + 1, r.below(20) + 1);
            let most = if dtype == DType::F32 || k % 32 != 0 { 2e-5 } else { OF_WORDS };
            check(&format!("{dtype} {rows}×{k}·{n}"), &MatMul::random(&mut r, dtype, n, k, rows), most);
        }
    }
}

#[test]
fn matmul_of_blocks() {
    let mut r = Random(2);
    for dtype in DType::all().filter(|d| !d.is_float()) {
        for (n, blocks, rows) in [(1, 1, 1), (15, 2, 2), (16, 3, 3), (33, 1, 4), (48, 2, 7), (17, 3, 8), (40, 2, 130)] {
            let k = blocks * dtype.block_len();
            check(&format!("{dtype} {rows}×{k}·{n}"), &MatMul::random(&mut r, dtype, n, k, rows), OF_SUMS);
        }
    }
}

#[test]
fn matmul_of_long_rows_of_blocks() {
    let mut r = Random(3);
    for dtype in DType::all().filter(|d| !d.is_float()) {
        for k in [256, 768] {
            check(&format!("{dtype} k {k}"), &MatMul::random(&mut r, dtype, 35, k, 5), OF_SUMS);
        }
    }
}

/// A little more for scales of whole bytes, which are a seventh of Q2_K, and for those of 16-bit weights.
#[test]
fn matrices_take_the_memory_of_their_files() {
    let mut r = Random(32);
    let mut cpu = Cpu::new(1, None).unwrap();
    for dtype in DType::all() {
        let case = MatMul::random(&mut r, dtype, 32, 512, 0);
        let (bytes, of_file) = (cpu.matrix(&[case.host()], true).unwrap().bytes(), dtype.row_bytes(512) * 32);
        let most = if dtype == DType::Q2K { 1.2 } else { 1.07 };
        assert!(bytes as f64 <= of_file as f64 * most, "{dtype}: {bytes} bytes for {of_file} of the file");
    }
}

/// Inputs off the int8 grid: the error of a whole product stays below a hundredth.
#[test]
fn matmul_rounds_inputs_to_int8_blocks() {
    let mut r = Random(4);
    let case = MatMul { x: r.values(8 * 576), ..MatMul::random(&mut r, DType::Q4_1, 64, 576, 8) };
    check("Q4_1 of any input", &case, 0.03);
}

/// A value far from the others does not cost its block their digits: in one part that would be 0.05.
#[test]
fn matmul_feeds_outliers_in_two_parts() {
    let mut r = Random(19);
    for (dtype, k, rows) in
        [(DType::Q4_1, 576, 1), (DType::Q8_0, 576, 3), (DType::Q5_0, 1536, 11), (DType::Q4K, 1536, 8)]
    {
        let mut case = MatMul::random(&mut r, dtype, 40, k, rows);
        r.outliers(&mut case.x, k, 2);
        check(&format!("{dtype} {rows}×{k} with outliers"), &case, 5e-3);
    }
}

/// Rounded inputs do not hide that a row is broken; its neighbours are whole.
#[test]
fn matmul_hands_on_what_is_no_number() {
    let mut r = Random(20);
    for dtype in DType::all() {
        let whole = MatMul::random(&mut r, dtype, 17, 256, 3);
        let mut broken = whole.clone();
        broken.x[256 + 40] = f32::NAN;
        for (processor, mut cpu) in processors() {
            let (whole, broken) = (whole.run(&mut cpu).unwrap(), broken.run(&mut cpu).unwrap());
            let is_nan = |v: &f32| v.is_nan();
            assert!(broken[17..34].iter().all(is_nan), "{dtype} on {processor}: {:?}", &broken[17..34]);
            assert_eq!([&broken[..17], &broken[34..]], [&whole[..17], &whole[34..]], "{dtype} on {processor}");
        }
    }
}

/// The input of a product is gates and what they let through.
struct Gated(MatMul);

impl Case for Gated {
    fn run<D: Device>(&self, device: &mut D) -> Result<Vec<f32>> {
        let MatMul { n, k, x, .. } = &self.0;
        let (matrix, rows) = (device.matrix(&[self.0.host()], false)?, x.len() / k / 2);
        let (x, mut out) = (buffer(device, x)?, device.buffer(rows * n)?);
        device.matmul_gated(&x, &matrix, rows, &mut out)?;
        device.read(&out, rows * n)
    }
}

#[test]
fn matmul_of_gated_inputs() {
    let mut r = Random(33);
    for k in WIDTHS {
        let rows = r.below(30) + 1;
        let case = |r: &mut Random, dtype, scale: f32| {
            let x = r.values(2 * rows * k).iter().map(|x| x * scale).collect();
            Gated(MatMul { x, ..MatMul::random(r, dtype, 19, k, 0) })
        };
        check(&format!("gated F32 {rows}×{k}"), &case(&mut r, DType::F32, 30.0), 2e-5);
        if k % 32 == 0 {
            check(&format!("gated Q4_1 {rows}×{k}"), &case(&mut r, DType::Q4_1, 1.0), 0.03);
        }
    }
}

/// Projections of a Q4_K_M file over one input: their formats differ.
struct Stacked {
    x: Vec<f32>,
    parts: [MatMul; 4],
}

impl Case for Stacked {
    fn run<D: Device>(&self, device: &mut D) -> Result<Vec<f32>> {
        let parts = self.parts.each_ref().map(MatMul::host);
        let (k, n) = (parts[0].cols, parts.iter().map(|p| p.rows).sum::<usize>());
        let rows = self.x.len() / k;
        let matrix = device.matrix(&parts, true)?;
        let x = buffer(device, &self.x)?;
        let mut out = device.buffer(rows * n + 5 * k)?;
        device.matmul(&x, &matrix, rows, &mut out)?;
        let mut values = device.read(&out, rows * n)?;
        device.embed(&matrix, &[0, n as u32 - 1, 39, 40, 57], &mut out)?;
        values.extend(device.read(&out, 5 * k)?);
        Ok(values)
    }
}

#[test]
fn parts_of_a_matrix_may_differ_in_format() {
    let mut r = Random(31);
    for rows in [1, 3, 140] {
        let parts = [(DType::Q4K, 40), (DType::Q4K, 17), (DType::Q6K, 5), (DType::F16, 33)];
        let parts = parts.map(|(dtype, n)| MatMul::random(&mut r, dtype, n, 256, 0));
        // The rows that are looked up are smaller than the products, and make the mean size smaller.
        check(&format!("stacked, {rows} rows"), &Stacked { x: r.grid(rows * 256), parts }, 3.0 * OF_WORDS);
    }
}

struct Norm {
    rows: usize,
    width: usize,
    x: Vec<f32>,
    weight: Vec<f32>,
}

impl Case for Norm {
    fn run<D: Device>(&self, device: &mut D) -> Result<Vec<f32>> {
        let (x, weight) = (buffer(device, &self.x)?, buffer(device, &self.weight)?);
        let mut out = device.buffer(self.x.len())?;
        device.rms_norm(&x, &weight, 1e-5, self.rows, &mut out)?;
        device.read(&out, self.x.len())
    }
}

/// Two steps of a residual stream.
struct AddNorm(Norm);

impl Case for AddNorm {
    fn run<D: Device>(&self, device: &mut D) -> Result<Vec<f32>> {
        let Norm { rows, x, weight, .. } = &self.0;
        let (mut x, weight) = (buffer(device, x)?, buffer(device, weight)?);
        let mut y = device.buffer(self.0.x.len())?;
        for _ in 0..2 {
            device.add_norm(&mut x, &mut y, &weight, 1e-5, *rows)?;
        }
        let mut both = device.read(&x, self.0.x.len())?;
        both.extend(device.read(&y, self.0.x.len())?);
        Ok(both)
    }
}

#[test]
fn rms_norm() {
    let mut r = Random(5);
    for width in WIDTHS {
        let rows = r.below(40) + 1;
        let case = Norm { rows, width, x: r.values(rows * width), weight: r.values(width) };
        check(&format!("rms_norm {rows}×{}", case.width), &case, 1e-5);
        check(&format!("add_norm {rows}×{}", case.width), &AddNorm(case), 1e-5);
    }
}

struct OfHeads {
    heads: Heads,
    rows: usize,
    qkv: Vec<f32>,
    rotate: bool,
    weights: [Vec<f32>; 2],
}

impl Case for OfHeads {
    fn run<D: Device>(&self, device: &mut D) -> Result<Vec<f32>> {
        let mut qkv = buffer(device, &self.qkv)?;
        if self.rotate {
            let positions: Vec<u32> = (0..self.rows as u32).map(|i| i * 37).collect();
            let inv_freq: Vec<f32> = (0..self.heads.size / 2).map(|i| 0.9f32.powi(i as i32)).collect();
            let mut table = device.buffer(self.rows * self.heads.size)?;
            device.rope_table(&positions, &inv_freq, &mut table)?;
            device.rope(&mut qkv, self.heads, &table, self.rows)?;
        } else {
            let (q, k) = (buffer(device, &self.weights[0])?, buffer(device, &self.weights[1])?);
            device.head_norm(&mut qkv, self.heads, &q, &k, 1e-6, self.rows)?;
        }
        device.read(&qkv, self.qkv.len())
    }
}

#[test]
fn rope_and_head_norm() {
    let mut r = Random(6);
    for (q, kv, size) in [(1, 1, 2), (2, 1, 16), (3, 3, 30), (9, 3, 64), (4, 2, 80), (4, 1, 128)] {
        for rotate in [true, false] {
            let (heads, rows) = (Heads { q, kv, size }, r.below(20) + 1);
            let (qkv, weights) = (r.values(rows * heads.row()), [r.values(size), r.values(size)]);
            check(&format!("rope {rotate} {heads:?}"), &OfHeads { heads, rows, qkv, rotate, weights }, 1e-5);
        }
    }
}

enum Elementwise {
    Add,
    Gelu(Gelu),
    LayerNorm(usize),
    WriteAt(usize),
    Bias(usize),
    Gather(usize),
}

impl Case for (Elementwise, Vec<f32>, Vec<f32>) {
    fn run<D: Device>(&self, device: &mut D) -> Result<Vec<f32>> {
        let (op, x, y) = self;
        let (mut x_, y_) = (buffer(device, x)?, buffer(device, y)?);
        match *op {
            Elementwise::Add => device.add(&mut x_, &y_, x.len())?,
            Elementwise::Gelu(kind) => device.gelu(&mut x_, kind, x.len())?,
            Elementwise::WriteAt(at) => device.write_at(&mut x_, at, y)?,
            Elementwise::LayerNorm(width) => {
                let (weight, bias) = (buffer(device, &y[..width])?, buffer(device, &y[width..])?);
                let mut out = device.buffer(x.len())?;
                device.layer_norm(&x_, &weight, &bias, 1e-5, x.len() / width, &mut out)?;
                return device.read(&out, x.len());
            }
            Elementwise::Bias(rows) => device.add_bias(&mut x_, &y_, rows)?,
            Elementwise::Gather(width) => {
                let rows: Vec<usize> = (0..x.len() / width).rev().step_by(2).collect();
                let mut out = device.buffer(rows.len() * width)?;
                device.gather(&x_, &rows, width, &mut out)?;
                return device.read(&out, rows.len() * width);
            }
        }
        device.read(&x_, x.len())
    }
}

#[test]
fn elementwise() {
    let mut r = Random(7);
    for width in WIDTHS {
        let rows = r.below(30) + 1;
        check("add", &(Elementwise::Add, r.values(rows * width), r.values(rows * width)), 0.0);
        check("add_bias", &(Elementwise::Bias(rows), r.values(rows * width), r.values(width)), 0.0);
        for kind in [Gelu::Exact, Gelu::Quick] {
            check("gelu", &(Elementwise::Gelu(kind), r.values(rows * width), vec![]), 1e-6);
        }
        check("layer_norm", &(Elementwise::LayerNorm(width), r.values(rows * width), r.values(2 * width)), 1e-5);
        check("write_at", &(Elementwise::WriteAt(width), r.values(rows * width + width), r.values(width)), 0.0);
        check("gather", &(Elementwise::Gather(width), r.values(rows * width), vec![]), 0.0);
    }
}

/// Rows through experts that scale by their number: routing, gathering and adding up.
struct Experts {
    logits: Vec<f32>,
    experts: usize,
    top: usize,
    normalise: bool,
    x: Vec<f32>,
}

impl Case for Experts {
    fn run<D: Device>(&self, device: &mut D) -> Result<Vec<f32>> {
        let rows = self.logits.len() / self.experts;
        let width = self.x.len() / rows;
        let (logits, x) = (buffer(device, &self.logits)?, buffer(device, &self.x)?);
        let (mut some, mut out) = (device.buffer(self.x.len())?, buffer(device, &self.x)?);
        device.zero(&mut out, self.x.len())?;
        let routes = device.route(&logits, self.experts, self.top, self.normalise, rows)?;
        assert!(routes.iter().all(|route| route.len() == self.top && route.is_sorted_by_key(|r| r.0)));
        for expert in 0..self.experts {
            let mine = (0..rows).filter_map(|t| Some((t, routes[t].iter().find(|r| r.0 == expert)?.1)));
            let (rows, weights): (Vec<usize>, Vec<f32>) = mine.map(|(t, w)| (t, w * (1 + expert) as f32)).unzip();
            device.gather(&x, &rows, width, &mut some)?;
            device.scatter_add(&some, &rows, &weights, width, &mut out)?;
        }
        device.read(&out, self.x.len())
    }
}

#[test]
fn experts() {
    let mut r = Random(12);
    for (experts, top) in [(8, 2), (1, 1), (60, 4), (3, 3)] {
        for normalise in [true, false] {
            let (rows, width) = (r.below(30) + 1, r.below(70) + 1);
            let (logits, x) = (r.values(rows * experts), r.values(rows * width));
            let case = Experts { logits, experts, top, normalise, x };
            check(&format!("{top} of {experts} experts, normalise {normalise}"), &case, 1e-5);
        }
    }
}

/// Values of the published definitions, computed in f64.
#[test]
fn activations_are_those_of_their_papers() {
    let mut exact = [-3.0, -1.0, 0.0, 0.5, 2.0];
    let mut quick = exact;
    sglang_kernels::reference::vision::gelu(&mut exact, Gelu::Exact);
    sglang_kernels::reference::vision::gelu(&mut quick, Gelu::Quick);
    let near = |found: [f32; 5], expected: [f32; 5]| found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6);
    assert!(near(exact, [-0.004_049_694, -0.158_655_26, 0.0, 0.345_731_23, 1.954_499_7]), "{exact:?}");
    assert!(near(quick, [-0.018_071_31, -0.154_204_23, 0.0, 0.350_388_44, 1.935_658_6]), "{quick:?}");
}

/// By hand: softmax of (0, ln 3, ln 6) is (0.1, 0.3, 0.6); of equal logits the first is taken.
#[test]
fn routes_are_the_largest_probabilities() {
    let (logits, near) = ([0.0, 3f32.ln(), 6f32.ln(), 2.0, 2.0, 2.0], |a: f32, b: f32| (a - b).abs() < 1e-6);
    let routes = |normalise| sglang_kernels::reference::experts::route(&logits, 3, 2, normalise, 2);
    for (normalise, weights) in [(false, [0.3, 0.6]), (true, [1.0 / 3.0, 2.0 / 3.0])] {
        let route = &routes(normalise)[0];
        assert_eq!([route[0].0, route[1].0], [1, 2]);
        assert!(near(route[0].1, weights[0]) && near(route[1].1, weights[1]), "{route:?}");
    }
    assert_eq!(routes(true)[1], [(0, 0.5), (1, 0.5)]);
}

struct Embed(DType, usize, Vec<u8>, Vec<u32>);

impl Case for Embed {
    fn run<D: Device>(&self, device: &mut D) -> Result<Vec<f32>> {
        let Embed(dtype, cols, bytes, tokens) = self;
        let table = device.matrix(&[HostMatrix { rows: 37, cols: *cols, dtype: *dtype, bytes }], true)?;
        let mut out = device.buffer(tokens.len() * cols)?;
        device.embed(&table, tokens, &mut out)?;
        device.read(&out, tokens.len() * cols)
    }
}

#[test]
fn embed() {
    let mut r = Random(8);
    for dtype in DType::all() {
        let cols = 3 * dtype.block_len();
        let tokens = vec![0, 36, 15, 16, 17, 16];
        let tolerance = if format!("{dtype:?}").ends_with('K') { OF_SUMS } else { 0.0 };
        check(&format!("embed {dtype}"), &Embed(dtype, cols, r.matrix(dtype, 37, cols), tokens), tolerance);
    }
}

/// One sequence per `(positions before the step, rows in the step)`, pages dealt at random.
struct Attention {
    heads: Heads,
    format: KvFormat,
    window: usize,
    sequences: Vec<(usize, usize)>,
    /// Copy the last started page of each sequence elsewhere before the step.
    copy: bool,
    seed: u64,
}

impl Case for Attention {
    fn run<D: Device>(&self, device: &mut D) -> Result<Vec<f32>> {
        let (r, heads) = (&mut Random(self.seed), self.heads);
        let Heads { q, kv: kv_heads, size: head_size } = heads;
        let pages = 2 * self.sequences.iter().map(|s| (s.0 + s.1).div_ceil(PAGE) + 1).sum::<usize>();
        let shape = KvShape { layers: 2, kv_heads, head_size, pages, format: self.format };
        let mut kv = device.kv(shape)?;
        let mut free: Vec<u32> = (0..pages as u32).collect();
        let mut deal = |r: &mut Random| free.swap_remove(r.below(free.len()));
        let (mut spans, mut rows) = (Vec::new(), 0);
        for &(before, now) in &self.sequences {
            let mut table: Vec<u32> = (0..(before + now).div_ceil(PAGE)).map(|_| deal(r)).collect();
            let values = r.values(before * heads.row());
            let past = Span { rows: 0..before, position: 0, pages: table.clone() };
            let qkv = buffer(device, &values)?;
            device.store_kv(&qkv, heads, &mut kv, 1, &[past])?;
            if self.copy && before % PAGE > 0 {
                let (from, to) = (table[before / PAGE], deal(r));
                device.copy_rows(&mut kv, &[CopyRows { from, to, rows: before % PAGE }])?;
                table[before / PAGE] = to;
            }
            spans.push(Span { rows: rows..rows + now, position: before, pages: table });
            rows += now;
        }
        let qkv = buffer(device, &r.values(rows * heads.row()))?;
        let mut out = device.buffer(rows * q * head_size)?;
        device.store_kv(&qkv, heads, &mut kv, 1, &spans)?;
        device.attention(&qkv, heads, &kv, 1, &spans, self.window, 3.0 / head_size as f32, &mut out)?;
        device.read(&out, rows * q * head_size)
    }
}

#[test]
fn attention() {
    let shapes = [(1, 1, 16), (9, 3, 64), (8, 1, 30), (4, 4, 80), (10, 2, 128), (2, 1, 2)];
    let steps: [&[(usize, usize)]; 6] =
        [&[(0, 1)], &[(0, 37)], &[(15, 1), (16, 1), (700, 1)], &[(530, 1)], &[(250, 20), (3, 5)], &[(0, 300)]];
    for (i, &(q, kv, size)) in shapes.iter().enumerate() {
        for (j, sequences) in steps.iter().enumerate() {
            let format = KvFormat::all().nth((i + j) % 5).unwrap();
            let window = [0, 24, 300][(i + j / 2) % 3];
            let case = Attention {
                heads: Heads { q, kv, size },
                format,
                window,
                sequences: sequences.to_vec(),
                copy: j % 2 == 0,
                seed: 9,
            };
            // Integer pages round the query and the weights as well, to 1/5,792 and 1/32,767 of the largest. Outputs are
            // means of many values around zero, so that beside them it is more.
            let tolerance = if matches!(format, KvFormat::Int16 | KvFormat::Int8) { 3e-3 } else { 3e-5 };
            check(&format!("attention {:?} {format} window {window} {sequences:?}", case.heads), &case, tolerance);
        }
    }
}

/// What is stale in a page (here: NaN of a sequence that is gone) is not read.
#[test]
fn attention_skips_what_is_not_seen() {
    struct Stale;
    impl Case for Stale {
        fn run<D: Device>(&self, device: &mut D) -> Result<Vec<f32>> {
            let heads = Heads { q: 2, kv: 1, size: 32 };
            let mut kv =
                device.kv(KvShape { layers: 1, kv_heads: 1, head_size: 32, pages: 1, format: KvFormat::F32 })?;
            let stale = buffer(device, &vec![f32::NAN; PAGE * heads.row()])?;
            let of_rows = |n| vec![Span { rows: 0..n, position: 0, pages: vec![0] }];
            device.store_kv(&stale, heads, &mut kv, 0, &of_rows(PAGE))?;
            let qkv = buffer(device, &Random(10).values(5 * heads.row()))?;
            let mut out = device.buffer(5 * 64)?;
            device.store_kv(&qkv, heads, &mut kv, 0, &of_rows(5))?;
            device.attention(&qkv, heads, &kv, 0, &of_rows(5), 0, 0.2, &mut out)?;
            device.read(&out, 5 * 64)
        }
    }
    check("stale pages", &Stale, 1e-5);
}
