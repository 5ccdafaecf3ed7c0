//! Formats of the KV cache.

use std::fmt;
use std::str::FromStr;

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KvFormat {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// The upper half of a single.
    BF16,
    /// 16-bit integers; each head's key and value of a token has an f32 scale.
    Int16,
    /// 8-bit integers, with scales of the same kind.
    Int8,
}

use KvFormat::*;

/// Every format: variant, name, bytes per value, bytes per vector besides.
const FORMATS: [(KvFormat, &str, usize, usize); 5] = [
    (F32, "float32", 4, 0),
    (F16, "float16", 2, 0),
    (BF16, "bfloat16", 2, 0),
    (Int16, "int16", 2, 4),
    (Int8, "q8_0", 1, 4),
];

impl KvFormat {
    /// All formats, in the order of their declaration.
    pub fn all() -> impl Iterator<Item = KvFormat> {
        FORMATS.iter().map(|f| f.0)
    }

    /// Bytes of the key, or value, of one head and token.
    pub fn vector_bytes(self, head_size: usize) -> usize {
        let (_, _, value, besides) = FORMATS[self as usize];
        value * head_size + besides
    }
}

impl fmt::Display for KvFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(FORMATS[*self as usize].1)
    }
}

impl FromStr for KvFormat {
    type Err = String;

    fn from_str(name: &str) -> Result<KvFormat, String> {
        FORMATS.iter().find(|f| f.1 == name).map(|f| f.0).ok_or_else(|| {
            let names: Vec<&str> = FORMATS.iter().map(|f| f.1).collect();
            format!("{name:?}: expected one of auto, {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_of_declaration() {
        for (i, format) in FORMATS.iter().enumerate() {
            assert_eq!(format.0 as usize, i);
            assert_eq!(format.1.parse(), Ok(format.0));
            assert_eq!(format.0.to_string(), format.1);
        }
        assert_eq!(Int8.vector_bytes(64), 68);
    }
}
