//! Pictures of a prompt: from the bytes of a file to the pixels that a vision tower takes, and their place among tokens.
//!
//! Laws: the pixels are those of CLIP's own processor (bicubic resampling with 8 bits between the passes, as Pillow does
//! it); a picture's keys depend on its content only, so the prefix cache tells pictures apart and knows the same again.

mod resize;

use crate::error::{Error, Result};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Cursor;
use std::ops::Range;
use std::sync::Arc;

/// Keys of picture positions have this bit, which no token id has.
const KEY: u32 = 1 << 31;
/// Most pixels in a row or column.
const MOST_PIXELS: u32 = 16_384;
/// Most memory that decoding may take, in bytes.
const MOST_BYTES: u64 = 512 << 20;

/// How a model's pictures are prepared.
#[derive(Debug, Clone, PartialEq)]
pub struct Preprocess {
    /// Filled up to a square with the mean colour first.
    pub pad: bool,
    /// Length of the shorter side after resizing.
    pub shortest: usize,
    /// Side of the square that is cut out of the middle.
    pub crop: usize,
    /// Mean of each channel.
    pub mean: [f32; 3],
    /// Standard deviation of each channel.
    pub std: [f32; 3],
}

/// A picture, ready for the vision tower.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Normalised values `[3, side, side]`.
    pub pixels: Vec<f32>,
    /// Of the pixels.
    pub hash: u64,
}

/// A picture among the tokens of a sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// The picture.
    pub image: Arc<Image>,
    /// Its positions.
    pub at: Range<usize>,
}

/// Rows of a step that belong to a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageRows {
    /// The picture.
    pub image: Arc<Image>,
    /// Rows of the step.
    pub rows: Range<usize>,
    /// The feature of the first row.
    pub first: usize,
}

/// 8-bit colours, row by row.
struct Rgb {
    width: usize,
    height: usize,
    values: Vec<[u8; 3]>,
}

/// What a picture lies in the middle of. It is never laid out, since around a long strip it is 200 times as large.
struct Frame {
    width: usize,
    height: usize,
    /// Around the picture.
    colour: [u8; 3],
}

impl Preprocess {
    /// Decodes a PNG, JPEG, WebP or GIF file (its first frame) and prepares it.
    pub fn image(&self, file: &[u8]) -> Result<Image> {
        let rgb = decode(file).map_err(|e| Error::bad("image_data", format!("an image cannot be read: {e}")))?;
        let frame = self.frame(&rgb);
        let scaled = |len: usize| self.shortest * len / frame.width.min(frame.height);
        let pixels = self.normalised(&resize::bicubic(&rgb, &frame, scaled(frame.width), scaled(frame.height)));
        let mut hasher = DefaultHasher::new();
        pixels.iter().for_each(|value| value.to_bits().hash(&mut hasher));
        Ok(Image { pixels, hash: hasher.finish() })
    }

    /// The picture's own size, or the square that holds it.
    fn frame(&self, rgb: &Rgb) -> Frame {
        let side = rgb.width.max(rgb.height);
        let (width, height) = if self.pad { (side, side) } else { (rgb.width, rgb.height) };
        Frame { width, height, colour: self.mean.map(|mean| (mean * 255.0) as u8) }
    }

    /// The middle, as `(value / 255 − mean) / std`, channel by channel; black where the picture does not reach.
    fn normalised(&self, rgb: &Rgb) -> Vec<f32> {
        let start = |len: usize| (len as isize - self.crop as isize).div_euclid(2);
        let (left, top) = (start(rgb.width), start(rgb.height));
        let value = |channel: usize, y: usize, x: usize| {
            let (x, y) = (left + x as isize, top + y as isize);
            let inside = (0..rgb.width as isize).contains(&x) && (0..rgb.height as isize).contains(&y);
            let value = if inside { rgb.values[y as usize * rgb.width + x as usize][channel] } else { 0 };
            (f32::from(value) / 255.0 - self.mean[channel]) / self.std[channel]
        };
        let places = (0..3).flat_map(|c| (0..self.crop).flat_map(move |y| (0..self.crop).map(move |x| (c, y, x))));
        places.map(|(c, y, x)| value(c, y, x)).collect()
    }
}

fn decode(file: &[u8]) -> std::result::Result<Rgb, String> {
    let mut reader = image::ImageReader::new(Cursor::new(file)).with_guessed_format().map_err(|e| e.to_string())?;
    if reader.format().is_none() {
        return Err("it is no PNG, JPEG, WebP or GIF file".into());
    }
    let mut limits = image::Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(MOST_PIXELS), Some(MOST_PIXELS));
    limits.max_alloc = Some(MOST_BYTES);
    reader.limits(limits);
    let decoded = reader.decode().map_err(|e| e.to_string())?;
    let (width, height) = (decoded.width() as usize, decoded.height() as usize);
    if width == 0 || height == 0 || width.max(height) / width.min(height) > 200 {
        return Err(format!("{width} × {height} pixels are no picture"));
    }
    let values = decoded.to_rgb8().into_raw().as_chunks().0.to_vec();
    Ok(Rgb { width, height, values })
}

/// How pictures come into the prompts of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Sight {
    /// Of the model.
    pub preprocess: Preprocess,
    /// Positions that a picture takes.
    pub n_tokens: usize,
    /// The token that stands for a picture, where the vocabulary has one.
    pub token: Option<u32>,
}

impl Sight {
    /// Puts pictures between the parts of a prompt.
    pub fn place(&self, parts: Vec<Vec<u32>>, images: Vec<Image>) -> Result<(Vec<u32>, Vec<Placed>)> {
        if parts.len() != images.len() + 1 {
            let (marks, n) = (parts.len() - 1, images.len());
            return Err(Error::bad("image_data", format!("{n} image(s) for {marks} <image> mark(s) in the prompt")));
        }
        let (mut tokens, mut placed) = (Vec::new(), Vec::new());
        let mut images = images.into_iter();
        for part in parts {
            tokens.extend(part);
            if let Some(image) = images.next() {
                let start = tokens.len();
                tokens.extend((0..self.n_tokens).map(|i| image.key(i)));
                placed.push(Placed { image: Arc::new(image), at: start..tokens.len() });
            }
        }
        Ok((tokens, placed))
    }
}

impl Image {
    /// What stands for feature `i` among tokens.
    fn key(&self, i: usize) -> u32 {
        let mut hasher = DefaultHasher::new();
        (self.hash, i).hash(&mut hasher);
        KEY | hasher.finish() as u32
    }
}

/// Whether this stands for a part of a picture and is no token.
pub fn is_key(token: u32) -> bool {
    token & KEY != 0
}

impl Placed {
    /// The part within positions `run`, whose first is row `row` of the step.
    pub fn rows(&self, run: Range<usize>, row: usize) -> Option<ImageRows> {
        let (start, end) = (self.at.start.max(run.start), self.at.end.min(run.end));
        let rows = (start < end).then(|| row + start - run.start..row + end - run.start)?;
        Some(ImageRows { image: self.image.clone(), rows, first: start - self.at.start })
    }
}
