//! Sixteen lanes as two AVX2 registers.

use super::{chain, fits_words, Kernel, NoTiles, Simd, LANES};
use half::{bf16, f16};
use std::arch::x86_64::*;
use std::ops::Range;

/// Proof of AVX2, FMA and F16C, and of AVX-VNNI where `VNNI`.
#[derive(Clone, Copy)]
pub struct Avx2<const VNNI: bool>(());

/// A pair of registers: lanes 0–7 and 8–15.
type Two<T> = [T; 2];

fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

impl Avx2<false> {
    /// The proof, where the machine has the instructions.
    pub fn detect() -> Option<Self> {
        has_avx2().then_some(Avx2(()))
    }
}

impl Avx2<true> {
    /// The proof, where the machine has the instructions.
    pub fn detect_vnni() -> Option<Self> {
        (has_avx2() && is_x86_feature_detected!("avxvnni")).then_some(Avx2(()))
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn inside<const VNNI: bool, K: Kernel>(s: Avx2<VNNI>, kernel: K) -> K::Output {
    kernel.run(s)
}

#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
fn inside_vnni<const VNNI: bool, K: Kernel>(s: Avx2<VNNI>, kernel: K) -> K::Output {
    kernel.run(s)
}

/// Sum of eight lanes by halves.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn sum8(v: __m256) -> f32 {
    let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_add_ss(v, _mm_shuffle_ps(v, v, 1)))
}

/// Largest of eight lanes.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn largest8(v: __m256) -> f32 {
    let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_max_ss(v, _mm_shuffle_ps(v, v, 1)))
}

/// Largest of eight lanes of each.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn largest_of_four8([a, b, c, d]: [__m256; 4]) -> [f32; 4] {
    let ab = _mm256_max_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    let cd = _mm256_max_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    let all = _mm256_max_ps(_mm256_shuffle_ps(ab, cd, 0b01_00_01_00), _mm256_shuffle_ps(ab, cd, 0b11_10_11_10));
    let all = _mm_max_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
    let mut largest = [0.0; 4];
    // SAFETY: writes the whole array.
    unsafe { _mm_storeu_ps(largest.as_mut_ptr(), all) };
    largest
}

/// Integers of eight lanes of each as bytes: lane 4i + t of them is lanes 4i … 4i + 3 of vector t.
#[target_feature(enable = "avx2")]
#[inline]
fn narrow_four8([a, b, c, d]: [__m256; 4]) -> __m256i {
    let low = _mm256_packs_epi32(_mm256_cvtps_epi32(a), _mm256_cvtps_epi32(b));
    let high = _mm256_packs_epi32(_mm256_cvtps_epi32(c), _mm256_cvtps_epi32(d));
    _mm256_packs_epi16(low, high)
}

/// `acc + Σ w x` by fours; pairs of `w · x` fit 16 bits.
#[target_feature(enable = "avx2")]
#[inline]
fn dot8(acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
    _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)))
}

/// The sum of four dot products; pairs are added up in 16 bits, as many as fit for `w` at most `most`.
#[target_feature(enable = "avx2")]
#[inline]
fn dots8(w: [__m256i; 4], x: [__m256i; 4], most: i32) -> __m256i {
    let low = _mm256_add_epi16(_mm256_maddubs_epi16(w[0], x[0]), _mm256_maddubs_epi16(w[1], x[1]));
    let high = _mm256_add_epi16(_mm256_maddubs_epi16(w[2], x[2]), _mm256_maddubs_epi16(w[3], x[3]));
    let ones = _mm256_set1_epi16(1);
    if fits_words(most) {
        return _mm256_madd_epi16(_mm256_add_epi16(low, high), ones);
    }
    _mm256_add_epi32(_mm256_madd_epi16(low, ones), _mm256_madd_epi16(high, ones))
}

/// Asks for a cache line, in the second-level cache: what is asked for ahead of time is more than the first level holds
/// beside what is in use. Into the first level, 16 rows of Q8_0 take 1.28 times as long.
#[inline(always)]
pub(super) fn prefetch(address: usize) {
    // SAFETY: a hint that reads nothing, whatever the address; the instruction is part of every x86-64.
    unsafe { _mm_prefetch(address as *const i8, _MM_HINT_T1) };
}

/// Ones in the lanes `first … first + 7` that are within `range`.
#[target_feature(enable = "avx2")]
#[inline]
fn mask8(range: &Range<usize>, first: i32) -> __m256 {
    let lane = _mm256_add_epi32(_mm256_set1_epi32(first), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    let after = _mm256_cmpgt_epi32(lane, _mm256_set1_epi32(range.start as i32 - 1));
    _mm256_castsi256_ps(_mm256_and_si256(after, _mm256_cmpgt_epi32(_mm256_set1_epi32(range.end as i32), lane)))
}

impl<const VNNI: bool> Simd for Avx2<VNNI> {
    type F = Two<__m256>;
    type I = Two<__m256i>;
    type B = Two<__m256i>;
    /// |w| and w; with VNNI w + 128 twice.
    type W = [Two<__m256i>; 2];
    type Tiles = NoTiles;
    type HalfTiles = NoTiles;

    const TOKENS: usize = 4;
    const QUERIES: usize = 4;
    const BIAS: i32 = if VNNI { 128 } else { 0 };

    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` proves the instructions.
        unsafe {
            match VNNI {
                true => inside_vnni(self, kernel),
                false => inside(self, kernel),
            }
        }
    }

    #[inline(always)]
    fn prefetch(self, address: usize) {
        prefetch(address);
    }

    intrinsics! {
        fn splat(self, x: f32) -> Two<__m256> { [_mm256_set1_ps(x); 2] }
        fn load(self, x: &[f32; LANES]) -> Two<__m256> { [_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x[8..].as_ptr())] }
        fn load_f16(self, x: &[f16; LANES]) -> Two<__m256> {
            [_mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().cast())), _mm256_cvtph_ps(_mm_loadu_si128(x[8..].as_ptr().cast()))]
        }
        fn load_bf16(self, x: &[bf16; LANES]) -> Two<__m256> {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(x.as_ptr().cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(x[8..].as_ptr().cast()));
            [_mm256_castsi256_ps(_mm256_slli_epi32(low, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(high, 16))]
        }
        fn load_i8(self, x: &[i8; LANES]) -> Two<__m256> {
            let x = _mm_loadu_si128(x.as_ptr().cast());
            let (low, high) = (_mm256_cvtepi8_epi32(x), _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(x, x)));
            [_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)]
        }
        fn store(self, v: Two<__m256>, out: &mut [f32; LANES]) -> () {
            _mm256_storeu_ps(out.as_mut_ptr(), v[0]);
            _mm256_storeu_ps(out[8..].as_mut_ptr(), v[1]);
        }
        fn to_f16(self, v: Two<__m256>) -> [f16; LANES] {
            let mut out = [f16::ZERO; LANES];
            _mm_storeu_si128(out.as_mut_ptr().cast(), _mm256_cvtps_ph(v[0], 0));
            _mm_storeu_si128(out[8..].as_mut_ptr().cast(), _mm256_cvtps_ph(v[1], 0));
            out
        }
        fn add(self, a: Two<__m256>, b: Two<__m256>) -> Two<__m256> { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
        fn sub(self, a: Two<__m256>, b: Two<__m256>) -> Two<__m256> { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
        fn mul(self, a: Two<__m256>, b: Two<__m256>) -> Two<__m256> { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
        fn div(self, a: Two<__m256>, b: Two<__m256>) -> Two<__m256> { [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])] }
        fn mul_add(self, a: Two<__m256>, b: Two<__m256>, c: Two<__m256>) -> Two<__m256> {
            [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])]
        }
        fn max(self, a: Two<__m256>, b: Two<__m256>) -> Two<__m256> { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
        fn min(self, a: Two<__m256>, b: Two<__m256>) -> Two<__m256> { [_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])] }
        fn round(self, v: Two<__m256>) -> Two<__m256> { [_mm256_round_ps(v[0], 8), _mm256_round_ps(v[1], 8)] }
        fn floor(self, v: Two<__m256>) -> Two<__m256> { [_mm256_floor_ps(v[0]), _mm256_floor_ps(v[1])] }
        fn scale(self, v: Two<__m256>, n: Two<__m256>) -> Two<__m256> {
            let (n, bias) = (self.floor(n), _mm256_set1_epi32(127));
            let low = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n[0]), bias), 23);
            let high = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n[1]), bias), 23);
            [_mm256_mul_ps(v[0], _mm256_castsi256_ps(low)), _mm256_mul_ps(v[1], _mm256_castsi256_ps(high))]
        }
        fn within(self, range: Range<usize>, v: Two<__m256>, other: Two<__m256>) -> Two<__m256> {
            [_mm256_blendv_ps(other[0], v[0], mask8(&range, 0)), _mm256_blendv_ps(other[1], v[1], mask8(&range, 8))]
        }
        fn sum(self, v: Two<__m256>) -> f32 { sum8(_mm256_add_ps(v[0], v[1])) }
        fn largest(self, v: Two<__m256>) -> f32 { largest8(_mm256_max_ps(v[0], v[1])) }
        fn largest_of_four(self, v: [Two<__m256>; 4]) -> [f32; 4] {
            let mut eights = [v[0][0]; 4];
            for t in 0..4 {
                eights[t] = _mm256_max_ps(v[t][0], v[t][1]);
            }
            largest_of_four8(eights)
        }

        fn splat_i(self, x: i32) -> Two<__m256i> { [_mm256_set1_epi32(x); 2] }
        fn load_i(self, x: &[i32; LANES]) -> Two<__m256i> {
            [_mm256_loadu_si256(x.as_ptr().cast()), _mm256_loadu_si256(x[8..].as_ptr().cast())]
        }
        fn add_i(self, a: Two<__m256i>, b: Two<__m256i>) -> Two<__m256i> { [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])] }
        fn float(self, v: Two<__m256i>) -> Two<__m256> { [_mm256_cvtepi32_ps(v[0]), _mm256_cvtepi32_ps(v[1])] }
        fn same_bits(self, v: Two<__m256i>) -> Two<__m256> { [_mm256_castsi256_ps(v[0]), _mm256_castsi256_ps(v[1])] }
        fn narrow_four(self, v: [Two<__m256>; 4]) -> Two<__m256i> {
            let [a, b, c, d] = v;
            [narrow_four8([a[0], b[0], c[0], d[0]]), narrow_four8([a[1], b[1], c[1], d[1]])]
        }
        fn sum_bytes(self, v: Two<__m256i>) -> Two<__m256i> {
            let (zero, ones) = (_mm256_setzero_si256(), _mm256_set1_epi8(1));
            if VNNI {
                return [_mm256_dpbusd_avx_epi32(zero, ones, v[0]), _mm256_dpbusd_avx_epi32(zero, ones, v[1])];
            }
            [dot8(zero, ones, v[0]), dot8(zero, ones, v[1])]
        }
        fn narrow_pairs(self, v: Two<__m256>) -> [i32; LANES / 2] {
            let mut out = [0; LANES / 2];
            // Packing works within halves of registers: 0–3, 8–11, 4–7, 12–15.
            let packed = _mm256_packs_epi32(_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1]));
            _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm256_permute4x64_epi64(packed, 0b11_01_10_00));
            out
        }

        fn pairs(self, x: &[i16; 2 * LANES]) -> Two<__m256i> {
            [_mm256_loadu_si256(x.as_ptr().cast()), _mm256_loadu_si256(x[LANES..].as_ptr().cast())]
        }
        fn widen_pairs(self, x: &[i8; 2 * LANES]) -> Two<__m256i> {
            let (low, high) = (_mm_loadu_si128(x.as_ptr().cast()), _mm_loadu_si128(x[LANES..].as_ptr().cast()));
            [_mm256_cvtepi8_epi16(low), _mm256_cvtepi8_epi16(high)]
        }
        fn dot_pairs(self, acc: Two<__m256i>, a: Two<__m256i>, b: i32) -> Two<__m256i> {
            let b = _mm256_set1_epi32(b);
            if VNNI {
                return [_mm256_dpwssd_avx_epi32(acc[0], a[0], b), _mm256_dpwssd_avx_epi32(acc[1], a[1], b)];
            }
            let (low, high) = (_mm256_madd_epi16(a[0], b), _mm256_madd_epi16(a[1], b));
            [_mm256_add_epi32(acc[0], low), _mm256_add_epi32(acc[1], high)]
        }

        fn bytes(self, x: &[u8; 4 * LANES]) -> Two<__m256i> {
            [_mm256_loadu_si256(x.as_ptr().cast()), _mm256_loadu_si256(x[32..].as_ptr().cast())]
        }
        fn store_bytes(self, v: Two<__m256i>, out: &mut [u8; 4 * LANES]) -> () {
            _mm256_storeu_si256(out.as_mut_ptr().cast(), v[0]);
            _mm256_storeu_si256(out[32..].as_mut_ptr().cast(), v[1]);
        }
        fn bits(self, v: Two<__m256i>, at: usize, count: usize) -> Two<__m256i> {
            let (at, mask) = (_mm_cvtsi64_si128(at as i64), _mm256_set1_epi8((255 >> (8 - count)) as i8));
            [_mm256_and_si256(_mm256_srl_epi16(v[0], at), mask), _mm256_and_si256(_mm256_srl_epi16(v[1], at), mask)]
        }
        fn join(self, low: Two<__m256i>, high: Two<__m256i>, at: usize) -> Two<__m256i> {
            let at = _mm_cvtsi64_si128(at as i64);
            let high = [_mm256_sll_epi16(high[0], at), _mm256_sll_epi16(high[1], at)];
            [_mm256_or_si256(low[0], high[0]), _mm256_or_si256(low[1], high[1])]
        }
        fn lookup(self, table: &[u8; 16], v: Two<__m256i>) -> Two<__m256i> {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            [_mm256_shuffle_epi8(table, v[0]), _mm256_shuffle_epi8(table, v[1])]
        }
        fn dot(self, acc: Two<__m256i>, w: Two<__m256i>, x: i32) -> Two<__m256i> {
            let x = _mm256_set1_epi32(x);
            if VNNI {
                return [_mm256_dpbusd_avx_epi32(acc[0], w[0], x), _mm256_dpbusd_avx_epi32(acc[1], w[1], x)];
            }
            [dot8(acc[0], w[0], x), dot8(acc[1], w[1], x)]
        }
        fn dots(self, acc: Two<__m256i>, w: [Two<__m256i>; 4], x: [i32; 4], most: i32) -> Two<__m256i> {
            if VNNI {
                return chain(self, acc, w, x);
            }
            let x = [_mm256_set1_epi32(x[0]), _mm256_set1_epi32(x[1]), _mm256_set1_epi32(x[2]), _mm256_set1_epi32(x[3])];
            let [a, b, c, d] = w;
            self.add_i(acc, [dots8([a[0], b[0], c[0], d[0]], x, most), dots8([a[1], b[1], c[1], d[1]], x, most)])
        }
        fn signed(self, v: Two<__m256i>) -> [Two<__m256i>; 2] {
            if VNNI {
                return [v, v];
            }
            let top = _mm256_set1_epi8(-128);
            let w = [_mm256_xor_si256(v[0], top), _mm256_xor_si256(v[1], top)];
            [[_mm256_abs_epi8(w[0]), _mm256_abs_epi8(w[1])], w]
        }
        fn dot_signed(self, acc: Two<__m256i>, w: [Two<__m256i>; 2], x: i32) -> Two<__m256i> {
            if VNNI {
                return self.dot(acc, w[0], x);
            }
            // |w| · (x with w's sign): at most 128 · 127 twice, which fits 16 bits.
            let ([abs, w], x) = (w, _mm256_set1_epi32(x));
            [dot8(acc[0], abs[0], _mm256_sign_epi8(x, w[0])), dot8(acc[1], abs[1], _mm256_sign_epi8(x, w[1]))]
        }
    }
}
