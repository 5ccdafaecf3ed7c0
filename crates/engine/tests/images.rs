//! Pictures: pixels as CLIP's processor makes them, every format, and files that are no pictures.

mod fixtures;

use fixtures::{fixture, json};
use image::{ImageFormat, Rgb, RgbImage};
use proptest::prelude::*;
use sglang_engine::image::Preprocess;
use sglang_engine::model::config::ModelConfig;
use sglang_engine::weights;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Cursor;

/// Counts the bytes that a thread has allocated, now and at most.
struct Counting;

thread_local! {
    static HELD: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: all is done by the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (now, most) = HELD.get();
        let now = now.saturating_add(layout.size());
        HELD.set((now, most.max(now)));
        // SAFETY: what the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        let (now, most) = HELD.get();
        // What another thread allocated was never counted here.
        HELD.set((now.saturating_sub(layout.size()), most));
        // SAFETY: what the caller promises.
        unsafe { System.dealloc(place, layout) }
    }
}

fn preprocess() -> Preprocess {
    let files = weights::open(&fixture("llava")).unwrap();
    ModelConfig::of(&files).unwrap().vision.unwrap().sight.preprocess
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(fixture(name)).unwrap()
}

fn floats(value: &serde_json::Value, to: &mut Vec<f32>) {
    match value.as_array() {
        Some(list) => list.iter().for_each(|value| floats(value, to)),
        None => to.push(value.as_f64().unwrap() as f32),
    }
}

/// Largest difference, in steps of 8-bit colours.
fn difference(ours: &[f32], expected: &[f32], preprocess: &Preprocess) -> f32 {
    assert_eq!(ours.len(), expected.len());
    let channel = ours.len() / 3;
    let steps = |(i, (a, b)): (usize, (&f32, &f32))| (a - b).abs() * 255.0 * preprocess.std[i / channel];
    ours.iter().zip(expected).enumerate().map(steps).fold(0.0, f32::max)
}

#[test]
fn pixels_are_those_of_the_reference_processor() {
    let (preprocess, mut expected) = (preprocess(), Vec::new());
    floats(&json("llava/reference.json")["pixel_values"], &mut expected);
    let ours = preprocess.image(&read("llava/image.png")).unwrap();
    let steps = difference(&ours.pixels, &expected, &preprocess);
    assert!(steps <= 1.01, "{steps} steps of 255");
}

/// Resampled by Pillow, up and down, wide and tall, in each format; see `images/make.py`.
#[test]
fn resampling_is_that_of_pillow() {
    for case in json("images/expected.json").as_array().unwrap() {
        let number = |key: &str| case[key].as_u64().unwrap() as usize;
        let (shortest, crop, pad) = (number("shortest"), number("crop"), case["pad"].as_bool().unwrap());
        let preprocess = Preprocess { pad, shortest, crop, mean: [0.5; 3], std: [0.5; 3] };
        let name = case["file"].as_str().unwrap();
        let ours = preprocess.image(&read(&format!("images/{name}"))).unwrap();
        let mut expected = Vec::new();
        floats(&case["rgb"], &mut expected);
        let expected: Vec<f32> = expected.iter().map(|v| (v / 255.0 - 0.5) / 0.5).collect();
        let steps = difference(&ours.pixels, &expected, &preprocess);
        let allowed = if name.ends_with(".jpg") { 3.01 } else { 1.01 };
        assert!(steps <= allowed, "{case:.80}: {steps} steps of 255");
    }
}

fn png(picture: &RgbImage) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, ImageFormat::Png).unwrap();
    file.into_inner()
}

fn padding(pad: bool) -> Preprocess {
    Preprocess { pad, shortest: 56, crop: 56, mean: [0.48, 0.46, 0.41], std: [0.27; 3] }
}

/// Bit for bit as if the file had been a square, up and down, of odd and even margins.
#[test]
fn padding_is_that_of_a_square_file() {
    let around = Rgb(padding(true).mean.map(|mean| (mean * 255.0) as u8));
    for (width, height) in [(40, 40), (41, 9), (9, 40), (300, 3), (2, 300), (301, 160), (160, 300)] {
        let picture = RgbImage::from_fn(width, height, |x, y| Rgb([x * 37 + y, y * 101, x * y].map(|v| v as u8)));
        let side = width.max(height);
        let (left, top) = ((side - width) / 2, (side - height) / 2);
        let square = RgbImage::from_fn(side, side, |x, y| {
            let inside = (left..left + width).contains(&x) && (top..top + height).contains(&y);
            if inside {
                *picture.get_pixel(x - left, y - top)
            } else {
                around
            }
        });
        let (padded, expected) = (padding(true).image(&png(&picture)), padding(false).image(&png(&square)));
        assert_eq!(padded.unwrap(), expected.unwrap(), "{width} × {height}");
    }
}

/// A long strip takes memory for itself, not for the square around it, which has 200 times as many pixels.
#[test]
fn padding_takes_no_memory() {
    for (width, height) in [(16_384, 82), (82, 16_384)] {
        let file = png(&RgbImage::new(width, height));
        let (before, _) = HELD.get();
        HELD.set((before, before));
        padding(true).image(&file).unwrap();
        let taken = HELD.get().1 - before;
        assert!(taken < 48 << 20, "{width} × {height}: {taken} bytes");
    }
}

#[test]
fn content_tells_pictures_apart() {
    let preprocess = preprocess();
    let hash = |name: &str| preprocess.image(&read(name)).unwrap().hash;
    assert_eq!(hash("images/flag.png"), hash("images/flag.png"));
    assert_eq!(hash("images/flag.png"), hash("images/flag.webp"), "the same pixels in another format");
    assert_ne!(hash("images/flag.png"), hash("llava/image.png"));
}

/// A PNG header that promises more pixels than anyone has memory for.
fn bomb(width: u32, height: u32) -> Vec<u8> {
    let mut file = read("images/flag.png");
    file[16..20].copy_from_slice(&width.to_be_bytes());
    file[20..24].copy_from_slice(&height.to_be_bytes());
    let crc = file[12..29].iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    });
    file[29..33].copy_from_slice(&(!crc).to_be_bytes());
    file
}

#[test]
fn bombs_are_refused() {
    for (width, height) in [(60_000, 60_000), (16_000, 16_000), (1, 20_000), (0, 5), (4_000, 1)] {
        let error = preprocess().image(&bomb(width, height)).unwrap_err().to_string();
        assert!(error.starts_with("an image cannot be read: "), "{error}");
    }
}

proptest! {
    #[test]
    fn damage_never_panics(
        name in prop::sample::select(vec!["flag.png", "flag.webp", "flag.gif", "photo.jpg"]),
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut file = read(&format!("images/{name}"));
        hits.iter().for_each(|(at, byte)| { let at = at.index(file.len()); file[at] = *byte; });
        file.truncate(cut.map_or(file.len(), |cut| cut.index(file.len())));
        let _ = preprocess().image(&file);
    }
}
