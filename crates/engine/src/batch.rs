//! One step of the model: which tokens run, where their KV goes, and which rows are answered.

pub use crate::image::ImageRows;
pub use sglang_kernels::device::{CopyRows, OutputRow, Pick, Picked, SampleParams, Span, NO_TOKEN};

/// The work of one step. Law: rows of spans tile `tokens` in order; outputs ascend by row; copies come before rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// `T` token ids; 0 where a picture is.
    pub tokens: Vec<u32>,
    /// Rows that are parts of pictures.
    pub images: Vec<ImageRows>,
    /// One span per sequence.
    pub spans: Vec<Span>,
    /// Page rows to copy before anything else.
    pub copies: Vec<CopyRows>,
    /// `R` rows whose next token is wanted.
    pub outputs: Vec<Output>,
    /// Rows whose state after the last norm is wanted, ascending.
    pub states: Vec<usize>,
}

/// What was wanted of a step, in the batch's order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answers {
    /// One per output.
    pub picked: Vec<Picked>,
    /// `D` values per row of [`Batch::states`].
    pub states: Vec<Vec<f32>>,
}

/// A row that is answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Row of the step.
    pub row: usize,
    /// What is wanted of it.
    pub ask: OutputRow,
}

impl Batch {
    /// Nothing to run.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Positions of all rows, in order.
    pub fn positions(&self) -> impl Iterator<Item = u32> + '_ {
        self.spans.iter().flat_map(|span| (0..span.rows.len()).map(move |i| (span.position + i) as u32))
    }
}
