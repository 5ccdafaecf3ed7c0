//! Checks of what callers pass.
//!
//! The law: an op checks every length, index and shape before it computes, and a wrong one is an error that says what
//! was given and what would be right.

use crate::device::{CopyRows, DeviceError, Heads, HostMatrix, KvShape, OutputRow, Pick, Result, Span, PAGE};

fn refuse<T>(message: String) -> Result<T> {
    Err(DeviceError::Unsupported(message))
}

/// `have` values must be at least `want`.
pub fn enough(what: &str, have: usize, want: usize) -> Result<()> {
    if have >= want {
        return Ok(());
    }
    refuse(format!("{what} holds {have} values; {want} are needed"))
}

/// Every index must be below `end`.
pub fn below(what: &str, indices: impl IntoIterator<Item = usize>, end: usize) -> Result<()> {
    match indices.into_iter().find(|&i| i >= end) {
        None => Ok(()),
        Some(index) => refuse(format!("{what} {index} is out of range; there are {end}")),
    }
}

/// Parts of one width.
pub fn matrix(parts: &[HostMatrix]) -> Result<()> {
    if let Some(pair) = parts.windows(2).find(|pair| pair[0].cols != pair[1].cols) {
        return refuse(format!("{} columns below {}: parts of a matrix have one width", pair[1].cols, pair[0].cols));
    }
    parts.iter().try_for_each(part)
}

/// Whole blocks, and as many bytes as the shape says.
fn part(host: &HostMatrix) -> Result<()> {
    let HostMatrix { rows, cols, dtype, bytes } = *host;
    if !cols.is_multiple_of(dtype.block_len()) {
        return refuse(format!("a {dtype} matrix with {cols} columns; a multiple of {} is needed", dtype.block_len()));
    }
    let want = rows * dtype.row_bytes(cols);
    if bytes.len() != want {
        return refuse(format!("a {rows} × {cols} {dtype} matrix is {want} bytes, not {}", bytes.len()));
    }
    Ok(())
}

/// K divides H, and both are there.
pub fn heads(heads: Heads) -> Result<()> {
    if heads.kv > 0 && heads.q > 0 && heads.q.is_multiple_of(heads.kv) && heads.size > 0 {
        return Ok(());
    }
    refuse(format!("{} query heads cannot share {} key/value heads of size {}", heads.q, heads.kv, heads.size))
}

/// Heads, layer, pages and rows of [`crate::Device::store_kv`] and [`crate::Device::attention`].
pub fn spans(shape: KvShape, of: Heads, layer: usize, spans: &[Span], rows: usize) -> Result<()> {
    heads(of)?;
    if (of.kv, of.size) != (shape.kv_heads, shape.head_size) {
        let (k, s) = (shape.kv_heads, shape.head_size);
        return refuse(format!("{} heads of size {}; the cache holds {k} heads of size {s}", of.kv, of.size));
    }
    below("layer", [layer], shape.layers)?;
    if let Some(two) = spans.windows(2).find(|two| two[1].rows.start < two[0].rows.end) {
        return refuse(format!("span {:?} after {:?}; spans must ascend and not overlap", two[1].rows, two[0].rows));
    }
    spans.iter().try_for_each(|span| one_span(shape, span, rows))
}

fn one_span(shape: KvShape, span: &Span, rows: usize) -> Result<()> {
    if span.rows.start > span.rows.end || span.rows.end > rows {
        return refuse(format!("span {:?} is not within {rows} rows", span.rows));
    }
    let pages = (span.position + span.rows.len()).div_ceil(PAGE);
    enough("page table", span.pages.len(), pages)?;
    below("page", span.pages.iter().map(|&p| p as usize), shape.pages)
}

/// The output of attention holds every row of the spans.
pub fn attended(heads: Heads, spans: &[Span], out: usize) -> Result<()> {
    let rows = spans.iter().map(|s| s.rows.end).max().unwrap_or(0);
    enough("out of attention", out, rows * heads.q * heads.size)
}

/// Pages and rows of [`crate::Device::copy_rows`].
pub fn copies(shape: KvShape, copies: &[CopyRows]) -> Result<()> {
    below("page", copies.iter().flat_map(|c| [c.from as usize, c.to as usize]), shape.pages)?;
    match copies.iter().find(|c| c.rows > PAGE) {
        None => Ok(()),
        Some(copy) => refuse(format!("{} rows to copy of a page of {PAGE}", copy.rows)),
    }
}

/// Operands of [`crate::Device::layer_norm`].
pub fn layer_norm(x: usize, weight: usize, bias: usize, rows: usize, out: usize) -> Result<()> {
    enough("bias of layer_norm", bias, weight)?;
    enough("x of layer_norm", x, rows * weight)?;
    enough("out of layer_norm", out, rows * weight)
}

/// At least one expert, and no more than there are.
pub fn routes(experts: usize, top: usize) -> Result<()> {
    match (1..=experts).contains(&top) {
        true => Ok(()),
        false => refuse(format!("{top} of {experts} experts for each row; at least one of those there are is needed")),
    }
}

/// Operands of [`crate::Device::scatter_add`].
pub fn scatter(x: usize, rows: &[usize], weights: &[f32], width: usize, out: usize) -> Result<()> {
    enough("x of scatter_add", x, rows.len() * width)?;
    enough("weights of scatter_add", weights.len(), rows.len())?;
    below("row", rows.iter().copied(), out / width.max(1))
}

/// Token numbers, mask length and temperature of output rows.
pub fn outputs(vocab: usize, rows: &[OutputRow]) -> Result<()> {
    rows.iter().try_for_each(|row| {
        below("token", row.of_tokens.iter().map(|&t| t as usize), vocab)?;
        let params = match &row.pick {
            Pick::Given(token) => return below("token", [*token as usize], vocab),
            Pick::Sample(params) => params,
        };
        below("token", params.edits.iter().map(|e| e.0 as usize), vocab)?;
        below("token", params.seen.iter().map(|&t| t as usize), vocab)?;
        match &params.allowed {
            Some(words) => enough("token mask (in words of 32)", words.len(), vocab.div_ceil(32)),
            None => Ok(()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    #[test]
    fn errors_say_what_would_be_right() {
        let text = |r: Result<()>| r.unwrap_err().to_string();
        assert_eq!(text(enough("x", 3, 4)), "x holds 3 values; 4 are needed");
        assert_eq!(text(below("page", [1, 9], 8)), "page 9 is out of range; there are 8");
        let host = HostMatrix { rows: 2, cols: 33, dtype: DType::Q4_0, bytes: &[] };
        assert_eq!(text(matrix(&[host])), "a Q4_0 matrix with 33 columns; a multiple of 32 is needed");
        let host = HostMatrix { rows: 2, cols: 32, dtype: DType::Q4_0, bytes: &[0; 5] };
        assert_eq!(text(matrix(&[host])), "a 2 × 32 Q4_0 matrix is 36 bytes, not 5");
        let uneven = Heads { q: 9, kv: 2, size: 64 };
        assert_eq!(text(heads(uneven)), "9 query heads cannot share 2 key/value heads of size 64");
    }
}
