//! Sixteen lanes as one AVX-512 register.

use super::{amx, chain, fits_words, Kernel, Simd, LANES, TILE};
use half::{bf16, f16};
use std::arch::{asm, x86_64::*};
use std::ops::Range;

/// AVX-512 F, BW, DQ and VL.
pub const PLAIN: u8 = 0;
/// The same and VNNI.
pub const VNNI: u8 = 1;
/// The same and AMX for bytes.
pub const AMX: u8 = 2;

/// Proof of what `RUNG` says.
#[derive(Clone, Copy)]
pub struct Avx512<const RUNG: u8>(());

fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && super::avx2::Avx2::detect().is_some()
}

impl Avx512<PLAIN> {
    /// The proof, where the machine has the instructions.
    pub fn detect() -> Option<Self> {
        has_avx512().then_some(Avx512(()))
    }
}

impl Avx512<VNNI> {
    /// The proof, where the machine has the instructions.
    pub fn detect_vnni() -> Option<Self> {
        (has_avx512() && is_x86_feature_detected!("avx512vnni")).then_some(Avx512(()))
    }
}

impl Avx512<AMX> {
    /// The proof, where the machine has the instructions and the process may use them.
    pub fn detect_amx() -> Option<Self> {
        (Avx512::detect_vnni().is_some() && amx::is_allowed()).then_some(Avx512(()))
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn inside<const RUNG: u8, K: Kernel>(s: Avx512<RUNG>, kernel: K) -> K::Output {
    kernel.run(s)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn inside_vnni<const RUNG: u8, K: Kernel>(s: Avx512<RUNG>, kernel: K) -> K::Output {
    kernel.run(s)
}

/// `Σ w x` by fours for w in 0 … 127: pairs fit 16 bits.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn dot_small(acc: __m512i, w: __m512i, x: __m512i, factor: i16) -> __m512i {
    _mm512_add_epi32(acc, _mm512_madd_epi16(_mm512_maddubs_epi16(w, x), _mm512_set1_epi16(factor)))
}

/// The sum of four dot products; pairs are added up in 16 bits, as many as fit for `w` at most `most`.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn dots16(w: [__m512i; 4], x: [__m512i; 4], most: i32) -> __m512i {
    let low = _mm512_add_epi16(_mm512_maddubs_epi16(w[0], x[0]), _mm512_maddubs_epi16(w[1], x[1]));
    let high = _mm512_add_epi16(_mm512_maddubs_epi16(w[2], x[2]), _mm512_maddubs_epi16(w[3], x[3]));
    let ones = _mm512_set1_epi16(1);
    if fits_words(most) {
        return _mm512_madd_epi16(_mm512_add_epi16(low, high), ones);
    }
    _mm512_add_epi32(_mm512_madd_epi16(low, ones), _mm512_madd_epi16(high, ones))
}

/// `acc + Σ a b` by pairs. As assembly, since the compiler takes the intrinsic apart into a product and a sum, which is
/// shorter to wait for and costs a third more where many sums run side by side.
#[target_feature(enable = "avx512f,avx512vnni")]
#[inline]
fn dot_words(mut acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: one instruction on three registers, which the target features provide.
    unsafe {
        asm!("vpdpwssd {0}, {1}, {2}", inout(zmm_reg) acc, in(zmm_reg) a, in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    acc
}

/// The same, of a pair in memory.
#[target_feature(enable = "avx512f,avx512vnni")]
#[inline]
fn dot_words_at(mut acc: __m512i, a: __m512i, b: &i32) -> __m512i {
    // SAFETY: one instruction, which the target features provide; it reads what `b` refers to.
    unsafe {
        asm!("vpdpwssd {0}, {1}, dword ptr [{2}]{{1to16}}", inout(zmm_reg) acc, in(zmm_reg) a, in(reg) b,
            options(pure, readonly, nostack, preserves_flags));
    }
    acc
}

/// The two halves.
#[target_feature(enable = "avx512f,avx512dq")]
#[inline]
fn halves(v: __m512) -> (__m256, __m256) {
    (_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1))
}

impl<const RUNG: u8> Simd for Avx512<RUNG> {
    type F = __m512;
    type I = __m512i;
    type B = __m512i;
    type W = __m512i;
    type Tiles = amx::Registers;
    type HalfTiles = amx::HalfRegisters;

    const TOKENS: usize = if RUNG == AMX { TILE } else { 8 };
    const QUERIES: usize = 8;
    const BIAS: i32 = 128;

    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` proves the instructions.
        unsafe {
            match RUNG >= VNNI {
                true => inside_vnni(self, kernel),
                false => inside(self, kernel),
            }
        }
    }

    #[inline(always)]
    fn tiles(self) -> Option<amx::Registers> {
        // SAFETY: this rung proves the instructions; who calls keeps one at a time.
        (RUNG == AMX).then(|| unsafe { amx::Registers::new() })
    }

    #[inline(always)]
    fn half_tiles(self, tokens: usize) -> Option<amx::HalfRegisters> {
        // SAFETY: as above.
        (RUNG == AMX).then(|| unsafe { amx::HalfRegisters::new(tokens) })
    }

    #[inline(always)]
    fn signed(self, v: __m512i) -> __m512i {
        v
    }

    #[inline(always)]
    fn prefetch(self, address: usize) {
        super::avx2::prefetch(address);
    }

    #[inline(always)]
    fn prefetch_near(self, address: usize) {
        // SAFETY: asking touches nothing, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address as *const i8) };
    }

    #[inline(always)]
    fn prefetch_to_write(self, address: usize) {
        // SAFETY: asking touches nothing, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(address as *const i8) };
    }

    intrinsics! {
        fn splat(self, x: f32) -> __m512 { _mm512_set1_ps(x) }
        fn load(self, x: &[f32; LANES]) -> __m512 { _mm512_loadu_ps(x.as_ptr()) }
        fn load_f16(self, x: &[f16; LANES]) -> __m512 { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) }
        fn load_bf16(self, x: &[bf16; LANES]) -> __m512 {
            _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(x.as_ptr().cast())), 16))
        }
        fn load_i8(self, x: &[i8; LANES]) -> __m512 {
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(x.as_ptr().cast())))
        }
        fn store(self, v: __m512, out: &mut [f32; LANES]) -> () { _mm512_storeu_ps(out.as_mut_ptr(), v) }
        fn to_f16(self, v: __m512) -> [f16; LANES] {
            let mut out = [f16::ZERO; LANES];
            _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm512_cvtps_ph(v, 0));
            out
        }
        fn to_bf16(self, v: __m512) -> [bf16; LANES] {
            let bits = _mm512_castps_si512(v);
            let odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
            let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            let nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
            let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x40_0000));
            let upper = _mm512_srli_epi32(_mm512_mask_blend_epi32(nan, rounded, quiet), 16);
            let mut out = [bf16::ZERO; LANES];
            _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(upper));
            out
        }
        fn add(self, a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn sub(self, a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        fn mul(self, a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn div(self, a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
        fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn max(self, a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
        fn min(self, a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) }
        fn round(self, v: __m512) -> __m512 { _mm512_roundscale_ps(v, 0) }
        fn floor(self, v: __m512) -> __m512 { _mm512_roundscale_ps(v, _MM_FROUND_TO_NEG_INF) }
        fn fraction(self, v: __m512) -> __m512 { _mm512_reduce_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(v) }
        fn scale(self, v: __m512, n: __m512) -> __m512 { _mm512_scalef_ps(v, n) }
        fn within(self, range: Range<usize>, v: __m512, other: __m512) -> __m512 {
            let lanes = ((1u32 << range.end) - 1) & !((1u32 << range.start) - 1);
            _mm512_mask_blend_ps(lanes as __mmask16, other, v)
        }
        fn sum(self, v: __m512) -> f32 {
            let (low, high) = halves(v);
            super::avx2::sum8(_mm256_add_ps(low, high))
        }
        fn largest(self, v: __m512) -> f32 {
            let (low, high) = halves(v);
            super::avx2::largest8(_mm256_max_ps(low, high))
        }
        fn largest_of_four(self, v: [__m512; 4]) -> [f32; 4] {
            let mut eights = [_mm256_setzero_ps(); 4];
            for t in 0..4 {
                let (low, high) = halves(v[t]);
                eights[t] = _mm256_max_ps(low, high);
            }
            super::avx2::largest_of_four8(eights)
        }

        fn splat_i(self, x: i32) -> __m512i { _mm512_set1_epi32(x) }
        fn load_i(self, x: &[i32; LANES]) -> __m512i { _mm512_loadu_si512(x.as_ptr().cast()) }
        fn add_i(self, a: __m512i, b: __m512i) -> __m512i { _mm512_add_epi32(a, b) }
        fn float(self, v: __m512i) -> __m512 { _mm512_cvtepi32_ps(v) }
        fn same_bits(self, v: __m512i) -> __m512 { _mm512_castsi512_ps(v) }
        fn narrow_four(self, v: [__m512; 4]) -> __m512i {
            let low = _mm512_packs_epi32(_mm512_cvtps_epi32(v[0]), _mm512_cvtps_epi32(v[1]));
            let high = _mm512_packs_epi32(_mm512_cvtps_epi32(v[2]), _mm512_cvtps_epi32(v[3]));
            _mm512_packs_epi16(low, high)
        }
        fn sum_bytes(self, v: __m512i) -> __m512i {
            let (zero, ones) = (_mm512_setzero_si512(), _mm512_set1_epi8(1));
            if RUNG >= VNNI { _mm512_dpbusd_epi32(zero, ones, v) } else { dot_small(zero, ones, v, 1) }
        }
        fn narrow_pairs(self, v: __m512) -> [i32; LANES / 2] {
            let mut out = [0; LANES / 2];
            _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(v)));
            out
        }

        fn pairs(self, x: &[i16; 2 * LANES]) -> __m512i { _mm512_loadu_si512(x.as_ptr().cast()) }
        fn widen_pairs(self, x: &[i8; 2 * LANES]) -> __m512i {
            _mm512_cvtepi8_epi16(_mm256_loadu_si256(x.as_ptr().cast()))
        }
        fn dot_pairs(self, acc: __m512i, a: __m512i, b: i32) -> __m512i {
            let b = _mm512_set1_epi32(b);
            if RUNG >= VNNI { dot_words(acc, a, b) } else { _mm512_add_epi32(acc, _mm512_madd_epi16(a, b)) }
        }

        fn dot_pairs_at(self, acc: __m512i, a: __m512i, b: &i32) -> __m512i {
            if RUNG >= VNNI { dot_words_at(acc, a, b) } else { self.dot_pairs(acc, a, *b) }
        }

        fn bytes(self, x: &[u8; 4 * LANES]) -> __m512i { _mm512_loadu_si512(x.as_ptr().cast()) }
        fn store_bytes(self, v: __m512i, out: &mut [u8; 4 * LANES]) -> () { _mm512_storeu_si512(out.as_mut_ptr().cast(), v) }
        fn bits(self, v: __m512i, at: usize, count: usize) -> __m512i {
            let shifted = _mm512_srl_epi16(v, _mm_cvtsi64_si128(at as i64));
            _mm512_and_si512(shifted, _mm512_set1_epi8((255 >> (8 - count)) as i8))
        }
        fn join(self, low: __m512i, high: __m512i, at: usize) -> __m512i {
            _mm512_or_si512(low, _mm512_sll_epi16(high, _mm_cvtsi64_si128(at as i64)))
        }
        fn lookup(self, table: &[u8; 16], v: __m512i) -> __m512i {
            _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast())), v)
        }
        fn dot(self, acc: __m512i, w: __m512i, x: i32) -> __m512i {
            let x = _mm512_set1_epi32(x);
            if RUNG >= VNNI { _mm512_dpbusd_epi32(acc, w, x) } else { dot_small(acc, w, x, 1) }
        }
        fn dots(self, acc: __m512i, w: [__m512i; 4], x: [i32; 4], most: i32) -> __m512i {
            if RUNG >= VNNI {
                return chain(self, acc, w, x);
            }
            let x = [_mm512_set1_epi32(x[0]), _mm512_set1_epi32(x[1]), _mm512_set1_epi32(x[2]), _mm512_set1_epi32(x[3])];
            _mm512_add_epi32(acc, dots16(w, x, most))
        }
        fn dot_signed(self, acc: __m512i, w: __m512i, x: i32) -> __m512i {
            let x = _mm512_set1_epi32(x);
            if RUNG >= VNNI {
                return _mm512_dpbusd_epi32(acc, w, x);
            }
            let rest = _mm512_and_si512(w, _mm512_set1_epi8(127));
            let top = _mm512_and_si512(_mm512_srli_epi16(w, 7), _mm512_set1_epi8(1));
            dot_small(dot_small(acc, rest, x, 1), top, x, 128)
        }
    }
}
