//! Sixteen lanes of f32, whatever the machine: the vocabulary in which kernels are written.
//!
//! The law: a kernel is written once over [`Simd`] and compiled for each level; every level computes the same lanes in
//! the same order, integer results are exact on all of them, and `mul_add` rounds once (on [`Scalar`]: twice). A value
//! of a level's type is the proof that its instructions were detected, so that the methods are safe.

/// Declares methods of a level whose bodies are intrinsics.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! intrinsics {
    ($(fn $name:ident($self:ident $(, $arg:ident: $type:ty)*) -> $out:ty $body:block)*) => { $(
        #[inline(always)]
        #[allow(unused_unsafe)] // Where every machine of the target has the instructions, only memory is unsafe.
        fn $name($self $(, $arg: $type)*) -> $out {
            // SAFETY: `self` proves the instructions; memory is reached through references to whole vectors.
            unsafe { $body }
        }
    )* };
}
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod element;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

pub use element::Element;

use super::halves::Halves;
use super::level::Level;
use super::tile::Sum;
use half::{bf16, f16};
use std::ops::Range;

/// Lanes of a vector; also rows of a weight tile and tokens of a page.
pub const LANES: usize = 16;

/// Tokens of a whole tile, which some levels multiply at once.
pub const TILE: usize = 16;

/// 1.5 · 2²³. Floats near it are the whole numbers: its bits plus v, read as a float, are `WHOLE + v` for v in ±2²².
pub const WHOLE: f32 = 12_582_912.0;
/// Its bits, where sums start that are read as floats.
pub const START: i32 = WHOLE.to_bits() as i32;

/// 32 numbers −128 … 127 of 16 rows: byte 4r + j of plane p is row r, k = 4p + j.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Numbers(pub [[u8; 4 * LANES]; 8]);

impl Numbers {
    /// All 0.
    pub const ZERO: Numbers = Numbers([[0; 4 * LANES]; 8]);
}

/// Sums of 16 tokens for 16 rows.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Sums(pub [[i32; LANES]; TILE]);

impl Sums {
    /// All 0.
    pub const ZERO: Sums = Sums([[0; LANES]; TILE]);
}

/// Products of whole tiles.
pub trait Tiles {
    /// `sums[h][t][r] = Σ x[t][k] w[r][k]` over the 32 k of a block, or over each half of them where `halves` is 2. `x` is 32
    /// bytes per token.
    fn multiply(&self, halves: usize, x: &[[i32; 8]; TILE], w: &Numbers, sums: &mut [Sums; 2]);
}

/// Sums of floats of 16 tokens for 16 rows.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct TileSums(pub [[f32; LANES]; TILE]);

impl TileSums {
    /// All 0.
    pub const ZERO: TileSums = TileSums([[0.0; LANES]; TILE]);
}

/// Sums of products of whole tiles of BF16: of one or two tiles of tokens with two groups of weights each.
pub trait HalfTiles {
    /// Sets the sums to 0.
    fn clear(&self);
    /// Adds the products of 32 columns for `TILES` tiles of tokens. `x` is the higher and the lower parts of the inputs, from the
    /// first of these columns of the first token on, with `stride` numbers from token to token.
    fn multiply<const TILES: usize>(&self, x: [&[bf16]; 2], stride: usize, w: [&Halves; 2]);
    /// Writes the sums: of the first tile with both groups, then of the second.
    fn store(&self, sums: &mut [TileSums; 4]);
}

/// Those of a level that has none.
pub enum NoTiles {}

impl HalfTiles for NoTiles {
    fn clear(&self) {
        match *self {}
    }
    fn multiply<const TILES: usize>(&self, _: [&[bf16]; 2], _: usize, _: [&Halves; 2]) {
        match *self {}
    }
    fn store(&self, _: &mut [TileSums; 4]) {
        match *self {}
    }
}

impl Tiles for NoTiles {
    fn multiply(&self, _: usize, _: &[[i32; 8]; TILE], _: &Numbers, _: &mut [Sums; 2]) {
        match *self {}
    }
}

/// Work that is compiled for each level. Implementations and all they call are `#[inline(always)]`, so that they end
/// up inside one function with the level's instructions; vectors do not pass through closures, which would not.
pub trait Kernel {
    /// What it computes.
    type Output;
    /// Does the work.
    fn run<S: Simd>(self, s: S) -> Self::Output;
}

/// Operations on 16 lanes.
pub trait Simd: Copy + Send + Sync + 'static {
    /// 16 × f32.
    type F: Copy;
    /// 16 × i32.
    type I: Copy;
    /// 16 × 4 bytes.
    type B: Copy;
    /// 16 × 4 signed bytes, made ready by [`Simd::signed`].
    type W: Copy;
    /// Products of whole tiles of tokens.
    type Tiles: Tiles;
    /// Products of whole tiles of BF16.
    type HalfTiles: HalfTiles;

    /// Tokens that a matmul tile holds in registers.
    const TOKENS: usize;
    /// Queries that an attention tile holds in registers.
    const QUERIES: usize;
    /// What [`Simd::dot_signed`] adds to each weight.
    const BIAS: i32;

    /// Runs a kernel with this level's instructions.
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output;

    /// Products of whole tiles, of this thread while they are kept; asked for once at a time.
    #[inline(always)]
    fn tiles(self) -> Option<Self::Tiles> {
        None
    }

    /// Products of whole tiles of BF16, of so many tokens, of this thread while they are kept; asked for once at a time.
    #[inline(always)]
    fn half_tiles(self, _tokens: usize) -> Option<Self::HalfTiles> {
        None
    }

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::F;
    /// 16 values.
    fn load(self, x: &[f32; LANES]) -> Self::F;
    /// 16 halves, widened.
    fn load_f16(self, x: &[f16; LANES]) -> Self::F;
    /// 16 upper halves, widened.
    fn load_bf16(self, x: &[bf16; LANES]) -> Self::F;
    /// 16 small integers.
    fn load_i8(self, x: &[i8; LANES]) -> Self::F;
    /// Writes 16 values.
    fn store(self, v: Self::F, out: &mut [f32; LANES]);
    /// The nearest halves.
    fn to_f16(self, v: Self::F) -> [f16; LANES];
    /// The nearest numbers of which only the upper halves are not 0.
    #[inline(always)]
    fn to_bf16(self, v: Self::F) -> [bf16; LANES] {
        lanes(self, v).map(bf16::from_f32)
    }
    /// a + b.
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// a − b.
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// a · b.
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// a / b.
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// a · b + c.
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The larger; b where either is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// The smaller; b where either is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// The nearest integer, ties to even.
    fn round(self, v: Self::F) -> Self::F;
    /// ⌊v⌋.
    fn floor(self, v: Self::F) -> Self::F;
    /// v − ⌊v⌋.
    #[inline(always)]
    fn fraction(self, v: Self::F) -> Self::F {
        self.sub(v, self.floor(v))
    }
    /// v · 2^⌊n⌋ for n in −126 … 127.
    fn scale(self, v: Self::F, n: Self::F) -> Self::F;
    /// `v` in the lanes of `range`, `other` elsewhere.
    fn within(self, range: Range<usize>, v: Self::F, other: Self::F) -> Self::F;
    /// Sum of the lanes, by halves: (0 + 8), … then (0 + 4), (0 + 2), (0 + 1).
    fn sum(self, v: Self::F) -> f32;
    /// Largest lane, NaN lanes left out in favour of others.
    fn largest(self, v: Self::F) -> f32;
    /// The largest lane of each; any number where a lane is NaN.
    #[inline(always)]
    fn largest_of_four(self, v: [Self::F; 4]) -> [f32; 4] {
        [self.largest(v[0]), self.largest(v[1]), self.largest(v[2]), self.largest(v[3])]
    }

    /// All lanes `x`.
    fn splat_i(self, x: i32) -> Self::I;
    /// 16 whole numbers.
    fn load_i(self, x: &[i32; LANES]) -> Self::I;
    /// a + b.
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// Nearest f32.
    fn float(self, v: Self::I) -> Self::F;
    /// The floats that have these bits.
    fn same_bits(self, v: Self::I) -> Self::F;
    /// `v · x`, rounded once, of sums `START + v`. `less` is `−WHOLE · x`, exactly.
    #[inline(always)]
    fn times(self, sum: Self::I, x: f32, less: f32) -> Self::F {
        self.mul_add(self.same_bits(sum), self.splat(x), self.splat(less))
    }
    /// Nearest integers (ties to even) of lanes in −127 … 127, as bytes: lane 4i + t of them is lanes 4i … 4i + 3 of vector t.
    fn narrow_four(self, v: [Self::F; 4]) -> Self::B;
    /// Sums of the four signed bytes of each lane.
    fn sum_bytes(self, v: Self::B) -> Self::I;
    /// Nearest integers (ties to even) of lanes in −32,767 … 32,767: pairs, the first of each in the lower half.
    fn narrow_pairs(self, v: Self::F) -> [i32; LANES / 2];

    /// 64 bytes; lane r is bytes 4r … 4r + 3.
    fn bytes(self, x: &[u8; 4 * LANES]) -> Self::B;
    /// Writes 64 bytes.
    fn store_bytes(self, v: Self::B, out: &mut [u8; 4 * LANES]);
    /// `count` bits of each byte, from bit `at` on; both are constants where this is called.
    fn bits(self, v: Self::B, at: usize, count: usize) -> Self::B;
    /// `low + high · 2ᵃᵗ` of bytes whose bits do not meet.
    fn join(self, low: Self::B, high: Self::B, at: usize) -> Self::B;
    /// `table[v]` of each byte, 0 … 15.
    fn lookup(self, table: &[u8; 16], v: Self::B) -> Self::B;
    /// `acc + Σ w x` over the four bytes of each lane, w in 0 … 127, x the four bytes of `x` in −127 … 127.
    fn dot(self, acc: Self::I, w: Self::B, x: i32) -> Self::I;
    /// `acc` and the sum of four such, w at most `most`, itself at most 63.
    #[inline(always)]
    fn dots(self, acc: Self::I, w: [Self::B; 4], x: [i32; 4], _most: i32) -> Self::I {
        chain(self, acc, w, x)
    }
    /// Readies bytes that hold w + 128 for w in −128 … 127.
    fn signed(self, v: Self::B) -> Self::W;
    /// `acc + Σ (w + BIAS) x` over the four bytes of each lane.
    fn dot_signed(self, acc: Self::I, w: Self::W, x: i32) -> Self::I;

    /// 16 pairs of 16 bits.
    fn pairs(self, x: &[i16; 2 * LANES]) -> Self::B;
    /// 16 pairs of bytes, as 16 bits.
    fn widen_pairs(self, x: &[i8; 2 * LANES]) -> Self::B;
    /// `acc + Σ a b` over the pair of each lane and the two numbers of `b`; wraps.
    fn dot_pairs(self, acc: Self::I, a: Self::B, b: i32) -> Self::I;

    /// The same, of a `b` that is used once and best read in passing.
    #[inline(always)]
    fn dot_pairs_at(self, acc: Self::I, a: Self::B, b: &i32) -> Self::I {
        self.dot_pairs(acc, a, *b)
    }

    /// [`Sum::multiply`]; a level may do this for some rows of the record at a time.
    #[inline(always)]
    fn accumulate<R: Sum, const T: usize>(self, record: &R, block: usize, x: &[[R::Word; T]], f: &mut [Self::F; T]) {
        record.multiply(self, block, x, f);
    }

    /// Asks for the cache line at an address ahead of time, whatever is there.
    #[inline(always)]
    fn prefetch(self, _address: usize) {}

    /// Asks for several.
    #[inline(always)]
    fn prefetch_all(self, addresses: impl Iterator<Item = usize>) {
        for address in addresses {
            self.prefetch(address);
        }
    }

    /// Asks for the cache line at an address that is read very soon.
    #[inline(always)]
    fn prefetch_near(self, _address: usize) {}

    /// Asks for the cache line at an address that will be written.
    #[inline(always)]
    fn prefetch_to_write(self, _address: usize) {}

    /// All lanes 0.
    #[inline(always)]
    fn zero(self) -> Self::F {
        self.splat(0.0)
    }

    /// Up to 16 values, then zeros.
    #[inline(always)]
    fn load_part(self, x: &[f32]) -> Self::F {
        if let Some(whole) = x.first_chunk() {
            return self.load(whole);
        }
        let mut lanes = [0.0; LANES];
        lanes[..x.len()].copy_from_slice(x);
        self.load(&lanes)
    }

    /// Writes the lanes that `out` has room for.
    #[inline(always)]
    fn store_part(self, v: Self::F, out: &mut [f32]) {
        if let Some(whole) = out.first_chunk_mut() {
            return self.store(v, whole);
        }
        let mut lanes = [0.0; LANES];
        self.store(v, &mut lanes);
        out.copy_from_slice(&lanes[..out.len()]);
    }

    /// |v|.
    #[inline(always)]
    fn abs(self, v: Self::F) -> Self::F {
        self.max(v, self.sub(self.zero(), v))
    }

    /// 2ᵛ to about 1e-7 of it for v in −100 … 127, 2⁻¹⁰⁰ below, so that its products are not so small that they are slow;
    /// NaN stays NaN.
    #[inline(always)]
    fn pow2(self, v: Self::F) -> Self::F {
        let v = self.max(self.splat(-100.0), v);
        let r = self.fraction(v);
        let mut p = self.splat(POW2[0]);
        for c in &POW2[1..] {
            p = self.mul_add(p, r, self.splat(*c));
        }
        self.scale(p, v)
    }
}

/// Coefficients of 2ʳ, highest first, of the least relative error for r in 0 … 1: 9e-8.
const POW2: [f32; 6] = [1.867_13e-3, 9.017_031e-3, 5.579_991_3e-2, 2.401_644_4e-1, 6.931_513e-1, 1.0];

/// Four dot products, one after the other.
#[inline(always)]
fn chain<S: Simd>(s: S, mut sum: S::I, w: [S::B; 4], x: [i32; 4]) -> S::I {
    for p in 0..4 {
        sum = s.dot(sum, w[p], x[p]);
    }
    sum
}

/// Whether the pairs of four dot products, of weights up to `most`, add up within 16 bits.
#[inline(always)]
fn fits_words(most: i32) -> bool {
    8 * most * 127 <= i32::from(i16::MAX)
}

/// The lanes as an array.
#[inline(always)]
pub fn lanes<S: Simd>(s: S, v: S::F) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    s.store(v, &mut out);
    out
}

/// `combine!(s, a, b => out, |x, y| f)`: `out[i] = f(a[i], b[i])`, 16 at a time, for slices of one length. A macro, as
/// the others here: a closure would be compiled without the level's instructions.
macro_rules! combine {
    ($s:ident, $a:expr, $b:expr => $out:expr, |$x:ident, $y:ident| $f:expr) => {{
        let ((a, a_rest), (b, b_rest), (out, out_rest)) = ($a.as_chunks(), $b.as_chunks(), $out.as_chunks_mut());
        for ((a, b), out) in a.iter().zip(b).zip(out) {
            let ($x, $y) = ($s.load(a), $s.load(b));
            $s.store($f, out);
        }
        if !out_rest.is_empty() {
            let ($x, $y) = ($s.load_part(a_rest), $s.load_part(b_rest));
            $s.store_part($f, out_rest);
        }
    }};
}

/// `update!(s, x, y, |a, b| f)`: `x[i] = f(x[i], y[i])`, 16 at a time, for slices of one length.
macro_rules! update {
    ($s:ident, $x:expr, $y:expr, |$a:ident, $b:ident| $f:expr) => {{
        let ((x, x_rest), (y, y_rest)) = ($x.as_chunks_mut(), $y.as_chunks());
        for (x, y) in x.iter_mut().zip(y) {
            let ($a, $b) = ($s.load(x), $s.load(y));
            $s.store($f, x);
        }
        if !x_rest.is_empty() {
            let ($a, $b) = ($s.load_part(x_rest), $s.load_part(y_rest));
            $s.store_part($f, x_rest);
        }
    }};
}

/// `fold!(s, x, start, fill, |sum, v| f)`: folds the vectors of `x` into one, the last filled up with `fill`.
macro_rules! fold {
    ($s:ident, $x:expr, $start:expr, $fill:expr, |$sum:ident, $v:ident| $f:expr) => {{
        let (whole, rest) = $x.as_chunks();
        let mut $sum = $start;
        for x in whole {
            let $v = $s.load(x);
            $sum = $f;
        }
        if !rest.is_empty() {
            let $v = $s.within(0..rest.len(), $s.load_part(rest), $s.splat($fill));
            $sum = $f;
        }
        $sum
    }};
}
pub(super) use {combine, fold, update};

/// The level in use, with its proof.
#[derive(Clone, Copy)]
pub enum Isa {
    /// Plain loops.
    Scalar(scalar::Scalar),
    /// Advanced SIMD.
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon<false>),
    /// The same and dot products of bytes.
    #[cfg(target_arch = "aarch64")]
    NeonDotprod(neon::Neon<true>),
    /// AVX2, FMA, F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2<false>),
    /// The same and AVX-VNNI.
    #[cfg(target_arch = "x86_64")]
    AvxVnni(avx2::Avx2<true>),
    /// AVX-512 F, BW, DQ, VL.
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512<{ avx512::PLAIN }>),
    /// The same and VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(avx512::Avx512<{ avx512::VNNI }>),
    /// The same and AMX.
    #[cfg(target_arch = "x86_64")]
    Amx(avx512::Avx512<{ avx512::AMX }>),
}

impl Isa {
    /// The proof for `level`; `None` where this machine or this build lacks it.
    pub fn detect(level: Level) -> Option<Isa> {
        match level {
            Level::Scalar => Some(Isa::Scalar(scalar::Scalar)),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => neon::Neon::detect().map(Isa::Neon),
            #[cfg(target_arch = "aarch64")]
            Level::NeonDotprod => neon::Neon::detect_dot().map(Isa::NeonDotprod),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::Avx2::detect().map(Isa::Avx2),
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni => avx2::Avx2::detect_vnni().map(Isa::AvxVnni),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512::Avx512::detect().map(Isa::Avx512),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni => avx512::Avx512::detect_vnni().map(Isa::Avx512Vnni),
            #[cfg(target_arch = "x86_64")]
            Level::Amx => avx512::Avx512::detect_amx().map(Isa::Amx),
            _ => None,
        }
    }

    /// Runs a kernel at this level.
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Isa::Scalar(s) => s.vectorize(kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(s) => s.vectorize(kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod(s) => s.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(s) => s.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni(s) => s.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(s) => s.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni(s) => s.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Amx(s) => s.vectorize(kernel),
        }
    }

    /// Tokens of the widest matmul tile.
    pub fn tokens(self) -> usize {
        struct Tokens;
        impl Kernel for Tokens {
            type Output = usize;
            #[inline(always)]
            fn run<S: Simd>(self, _: S) -> usize {
                S::TOKENS
            }
        }
        self.run(Tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Powers([f32; LANES]);

    impl Kernel for Powers {
        type Output = [f32; LANES];
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> [f32; LANES] {
            lanes(s, s.pow2(s.load(&self.0)))
        }
    }

    /// Sums and what they count.
    struct Times([i32; LANES], f32);

    impl Kernel for Times {
        type Output = [f32; LANES];
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> [f32; LANES] {
            let mut product = [0.0; LANES];
            for (product, sum) in product.iter_mut().zip(self.0) {
                let sum = s.splat_i(START + sum);
                *product = lanes(s, s.times(sum, self.1, -WHOLE * self.1))[0];
            }
            product
        }
    }

    #[test]
    fn whole_numbers_times_numbers_of_22_bits_round_once() {
        const SUMS: [i32; LANES] = [
            0, 1, -1, 2, 7, -7, 127, -128, 4_095, -65_536, 99_999, 1_036_320, -1_040_384, 2_097_152, 4_194_303,
            -4_194_303,
        ];
        for level in Level::available() {
            let isa = Isa::detect(level).unwrap();
            for i in 0..5_000u32 {
                let x = f32::from_bits((0x3000_0000 + i.wrapping_mul(2_654_435_761) % 0x1800_0000) & !0b11);
                for (sum, product) in SUMS.into_iter().zip(isa.run(Times(SUMS, x))) {
                    assert_eq!(product, (f64::from(sum) * f64::from(x)) as f32, "{level}: {sum} · {x}");
                }
            }
        }
    }

    #[test]
    fn powers_are_within_two_units_of_the_last_place() {
        for level in Level::available() {
            let isa = Isa::detect(level).unwrap();
            for i in 0..14_187 {
                let x = std::array::from_fn(|lane| (i * 16 + lane as i32) as f32 * 1e-3 - 100.0);
                for (x, power) in x.into_iter().zip(isa.run(Powers(x))) {
                    assert!((f64::from(power) / f64::from(x).exp2() - 1.0).abs() < 2.4e-7, "{level}: 2^{x} = {power}");
                }
            }
            let edges = [f32::NAN, f32::NEG_INFINITY, -101.0, -100.0, 0.0, 1.0, 127.0];
            let powers = isa.run(Powers(std::array::from_fn(|lane| edges[lane % edges.len()])));
            let [least, most] = [2f32.powi(-100), 2f32.powi(127)];
            assert!(powers[0].is_nan(), "{level}");
            assert_eq!(powers[1..7], [least, least, least, 1.0, 2.0, most], "{level}");
        }
    }
}
