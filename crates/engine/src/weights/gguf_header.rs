//! The header of a GGUF file, versions 2 and 3: keys, tensor names, shapes, formats and places.
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
//!
//! candle reads this too, but knows neither IQ4_NL nor IQ4_XS and refuses a whole file for one such tensor; it is the
//! second opinion in the tests.
//!
//! Law: every length is compared with what is left of the file before anything is read or allocated for it, so memory
//! stays within a small multiple of the file's size, and every tensor that is returned lies inside the file.

use super::metadata::Value;
use super::stored::{Entry, Format};
use sglang_kernels::dtype::DType;
use std::collections::HashMap;

/// First bytes of the format.
pub const MAGIC: &[u8; 4] = b"GGUF";

/// What the header says.
pub struct Header {
    /// The keys.
    pub values: HashMap<String, Value>,
    /// Tensors by the names of the file.
    pub tensors: HashMap<String, Entry>,
}

/// What is wrong with the file.
type Parsed<T> = std::result::Result<T, String>;

/// Reads the header of `file`, which is the whole file.
pub fn parse(file: &[u8]) -> Parsed<Header> {
    let mut reader = Reader { file, at: 0 };
    if reader.fixed::<4>()? != *MAGIC {
        return Err("does not begin with GGUF".into());
    }
    match reader.u32()? {
        2 | 3 => {}
        version if (1..16).contains(&version.swap_bytes()) => {
            return Err("is big-endian, which is not supported".into())
        }
        version => return Err(format!("is GGUF version {version}; supported are 2 and 3")),
    }
    let (n_tensors, n_values) = (reader.u64()?, reader.u64()?);
    let values = reader.values(n_values)?;
    let mut claims = Vec::new();
    for _ in 0..n_tensors {
        claims.push(reader.claim()?);
    }
    let start = reader.at.next_multiple_of(alignment(&values)?);
    let mut tensors = HashMap::new();
    for claim in claims {
        let entry = claim.check(start, file.len()).map_err(|e| format!("tensor {}: {e}", claim.name))?;
        if tensors.insert(claim.name.clone(), entry).is_some() {
            return Err(format!("tensor {}: appears twice", claim.name));
        }
    }
    Ok(Header { values, tensors })
}

/// Tensors start at multiples of this.
fn alignment(values: &HashMap<String, Value>) -> Parsed<usize> {
    match values.get("general.alignment") {
        None => Ok(32),
        Some(&Value::Int(n @ 1..=65536)) if (n as usize).is_power_of_two() => Ok(n as usize),
        Some(other) => Err(format!("general.alignment must be a power of two up to 65536, not {other:?}")),
    }
}

/// A tensor as the header claims it.
struct Claim {
    name: String,
    /// Innermost first.
    sizes: Vec<u64>,
    kind: u32,
    offset: u64,
}

impl Claim {
    /// Its place, in a file of `len` bytes whose tensors begin at `start`.
    fn check(&self, start: usize, len: usize) -> Parsed<Entry> {
        let dtype = DType::from_ggml(self.kind).ok_or_else(|| unsupported(self.kind))?;
        let too_large = || format!("sizes {:?} at offset {} do not fit the file", self.sizes, self.offset);
        let sizes = self.sizes.iter().map(|&n| usize::try_from(n).ok().filter(|&n| n > 0));
        let mut shape = sizes.collect::<Option<Vec<usize>>>().filter(|s| !s.is_empty()).ok_or_else(too_large)?;
        if !shape[0].is_multiple_of(dtype.block_len()) {
            return Err(format!("rows of {} values are not whole {dtype} blocks of {}", shape[0], dtype.block_len()));
        }
        let blocks = shape[1..].iter().try_fold(shape[0] / dtype.block_len(), |n, &size| n.checked_mul(size));
        let bytes = blocks.and_then(|n| n.checked_mul(dtype.block_bytes()));
        let from = usize::try_from(self.offset).ok().and_then(|offset| start.checked_add(offset));
        let end = from.zip(bytes).and_then(|(from, bytes)| from.checked_add(bytes)).filter(|&end| end <= len);
        // The file has them innermost first.
        shape.reverse();
        let (from, end) = from.zip(end).ok_or_else(too_large)?;
        Ok(Entry { format: Format::Numbers(dtype), shape, range: from..end })
    }
}

fn unsupported(kind: u32) -> String {
    let known: Vec<_> = (0..64).filter_map(DType::from_ggml).map(|dtype| dtype.to_string()).collect();
    format!("has GGUF type {kind}; supported are {}", known.join(", "))
}

/// Reads little-endian values and never past the end.
struct Reader<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: u64) -> Parsed<&'a [u8]> {
        let left = &self.file[self.at..];
        let len = usize::try_from(len).ok().filter(|&len| len <= left.len());
        let len =
            len.ok_or_else(|| format!("is cut off or damaged: the header runs past the end at byte {}", self.at))?;
        self.at += len;
        Ok(&left[..len])
    }

    fn fixed<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let bytes = self.take(N as u64)?;
        Ok(std::array::from_fn(|i| bytes[i]))
    }

    fn u32(&mut self) -> Parsed<u32> {
        self.fixed().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Parsed<u64> {
        self.fixed().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Parsed<String> {
        let len = self.u64()?;
        Ok(String::from_utf8_lossy(self.take(len)?).into_owned())
    }

    fn values(&mut self, n: u64) -> Parsed<HashMap<String, Value>> {
        let mut values = HashMap::new();
        for _ in 0..n {
            let key = self.text()?;
            let kind = self.u32()?;
            let value = if kind == 9 { self.list() } else { self.scalar(kind) };
            let value = value.map_err(|e| format!("key {key}: {e}"))?;
            if values.insert(key.clone(), value).is_some() {
                return Err(format!("key {key}: appears twice"));
            }
        }
        Ok(values)
    }

    /// A value that is not an array. Type numbers are those of the format.
    fn scalar(&mut self, kind: u32) -> Parsed<Value> {
        Ok(match kind {
            0 => Value::Int(u8::from_le_bytes(self.fixed()?).into()),
            1 => Value::Int(i8::from_le_bytes(self.fixed()?).into()),
            2 => Value::Int(u16::from_le_bytes(self.fixed()?).into()),
            3 => Value::Int(i16::from_le_bytes(self.fixed()?).into()),
            4 => Value::Int(u32::from_le_bytes(self.fixed()?).into()),
            5 => Value::Int(i32::from_le_bytes(self.fixed()?).into()),
            6 => Value::Float(f32::from_le_bytes(self.fixed()?).into()),
            7 => Value::Bool(self.fixed::<1>()? != [0]),
            8 => Value::Text(self.text()?),
            10 => Value::Int(i64::try_from(self.u64()?).unwrap_or(i64::MAX)),
            11 => Value::Int(i64::from_le_bytes(self.fixed()?)),
            12 => Value::Float(f64::from_le_bytes(self.fixed()?)),
            9 => return Err("is an array of arrays, which is not supported".into()),
            kind => return Err(format!("has unknown type {kind}; the file is damaged")),
        })
    }

    fn list(&mut self) -> Parsed<Value> {
        let (kind, n) = (self.u32()?, self.u64()?);
        if n > (self.file.len() - self.at) as u64 {
            return Err(format!("is cut off or damaged: a list of {n} values is longer than the file"));
        }
        let scalars = (0..n).map(|_| self.scalar(kind));
        Ok(match kind {
            8 => Value::Texts(scalars.map(|v| v.map(as_text)).collect::<Parsed<_>>()?),
            6 | 12 => Value::Floats(scalars.map(|v| v.map(as_float)).collect::<Parsed<_>>()?),
            _ => Value::Ints(scalars.map(|v| v.map(as_int)).collect::<Parsed<_>>()?),
        })
    }

    fn claim(&mut self) -> Parsed<Claim> {
        let name = self.text()?;
        let n_sizes = self.u32()?;
        if n_sizes > 4 {
            return Err(format!("tensor {name}: has {n_sizes} dimensions; at most 4 are possible"));
        }
        let sizes = (0..n_sizes).map(|_| self.u64()).collect::<Parsed<_>>()?;
        Ok(Claim { name, sizes, kind: self.u32()?, offset: self.u64()? })
    }
}

fn as_text(value: Value) -> String {
    match value {
        Value::Text(text) => text,
        _ => String::new(),
    }
}

fn as_float(value: Value) -> f32 {
    match value {
        Value::Float(x) => x as f32,
        _ => 0.0,
    }
}

fn as_int(value: Value) -> i64 {
    match value {
        Value::Int(n) => n,
        Value::Bool(b) => b.into(),
        _ => 0,
    }
}
