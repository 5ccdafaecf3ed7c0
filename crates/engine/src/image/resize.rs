//! Bicubic resampling as Pillow does it: weights rounded to 22 bits, the width first, 8 bits between the passes.
//! Source of the arithmetic: Pillow, `src/libImaging/Resample.c`.

use super::{Frame, Rgb};

/// Fractional bits of the weights.
const BITS: u32 = 22;
/// Reach of the filter on either side, in pixels of the coarser image.
const REACH: f64 = 2.0;

/// What one output pixel is made of.
struct Taps {
    /// The first input that is of the picture.
    first: usize,
    /// Of the inputs from there on.
    weights: Vec<i64>,
    /// Sum of the weights of all inputs around the picture, which have one colour.
    around: i64,
}

/// The picture in its frame, in another size. Sums of whole numbers are exact, so all that is around the picture can be
/// added at once.
pub fn bicubic(rgb: &Rgb, frame: &Frame, width: usize, height: usize) -> Rgb {
    let columns = taps(rgb.width, frame.width, width);
    let wide: Vec<[u8; 3]> = rgb
        .values
        .chunks_exact(rgb.width)
        .flat_map(|row| columns.iter().map(|taps| blend(taps, frame.colour, |i| row[i])))
        .collect();
    // A row above or below the picture after the first pass.
    let beside: Vec<_> = columns.iter().map(|taps| blend(taps, frame.colour, |_| frame.colour)).collect();
    let rows = taps(rgb.height, frame.height, height);
    let values = rows.iter().flat_map(|taps| (0..width).map(|x| blend(taps, beside[x], |y| wide[y * width + x])));
    let values = values.collect();
    Rgb { width, height, values }
}

fn blend(taps: &Taps, around: [u8; 3], pixel: impl Fn(usize) -> [u8; 3]) -> [u8; 3] {
    let mut sums = around.map(|value| (1i64 << (BITS - 1)) + i64::from(value) * taps.around);
    for (i, weight) in taps.weights.iter().enumerate() {
        let pixel = pixel(taps.first + i);
        (0..3).for_each(|c| sums[c] += i64::from(pixel[c]) * weight);
    }
    sums.map(|sum| (sum >> BITS).clamp(0, 255) as u8)
}

/// From `len` pixels in the middle of `frame` ones to `to`.
fn taps(len: usize, frame: usize, to: usize) -> Vec<Taps> {
    let scale = frame as f64 / to as f64;
    let stretch = scale.max(1.0);
    let before = (frame - len) / 2;
    let one = |out: usize| {
        let center = (out as f64 + 0.5) * scale;
        let first = (center - REACH * stretch + 0.5).max(0.0) as usize;
        let end = ((center + REACH * stretch + 0.5) as usize).min(frame);
        let weights: Vec<f64> = (first..end).map(|i| cubic((i as f64 - center + 0.5) / stretch)).collect();
        let total: f64 = weights.iter().sum();
        let rounded = |weight: &f64| (weight / total * f64::from(1u32 << BITS)).round() as i64;
        let mut taps = Taps { first: first.saturating_sub(before), weights: Vec::new(), around: 0 };
        for (i, weight) in (first..end).zip(weights.iter().map(rounded)) {
            match (before..before + len).contains(&i) {
                true => taps.weights.push(weight),
                false => taps.around += weight,
            }
        }
        taps
    };
    (0..to).map(one).collect()
}

/// Keys' cubic with a = −1/2 (Keys, IEEE TASSP 29(6), 1981).
fn cubic(x: f64) -> f64 {
    let (a, x) = (-0.5, x.abs());
    match x {
        x if x < 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * a,
        _ => 0.0,
    }
}
