//! The bytes of each token, laid end to end.
//!
//! Law: a vocabulary spells bytes in one of two ways. Byte-level: one printable character per byte (Radford et al.
//! 2019, GPT-2). Sentence pieces: plain text with `▁` for a space and `<0xNN>` for single bytes.

use tokenizers::DecoderWrapper;

/// Ids above this are taken for damage.
const MAX_VOCAB: usize = 1 << 24;

/// Token id to bytes.
pub struct TokenBytes {
    bytes: Vec<u8>,
    /// Token `i` is `bytes[starts[i]..starts[i + 1]]`.
    starts: Vec<usize>,
}

impl TokenBytes {
    /// Ids without an entry are empty.
    pub fn new(mut entries: Vec<(u32, Vec<u8>)>) -> Result<Self, String> {
        entries.sort();
        entries.dedup_by_key(|(id, _)| *id);
        if let Some((id, _)) = entries.last().filter(|(id, _)| *id as usize >= MAX_VOCAB) {
            return Err(format!("token id {id} is too large; at most {MAX_VOCAB} tokens are possible"));
        }
        let mut table = TokenBytes { bytes: Vec::new(), starts: vec![0] };
        for (id, bytes) in entries {
            table.resize(id as usize);
            table.bytes.extend(bytes);
            table.starts.push(table.bytes.len());
        }
        Ok(table)
    }

    /// Makes it `len` ids, the new ones empty.
    pub fn resize(&mut self, len: usize) {
        self.starts.truncate(len + 1);
        self.bytes.truncate(*self.starts.last().unwrap_or(&0));
        self.starts.resize(len + 1, self.bytes.len());
    }

    /// Number of ids.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Bytes of a token; empty beyond the end.
    pub fn get(&self, id: u32) -> &[u8] {
        match self.starts.get(id as usize..) {
            Some(&[start, end, ..]) => &self.bytes[start..end],
            _ => &[],
        }
    }
}

/// How a vocabulary spells bytes.
pub enum Spelling {
    /// One character per byte; byte `i` of the list is spelled `char(256 + i)`, the others by themselves.
    ByteLevel(Vec<u8>),
    /// `▁` and `<0xNN>`.
    Sentence,
}

impl Spelling {
    /// Told by the decoder of a tokenizer; with it, whether decoding drops a first space.
    pub fn of(decoder: Option<&DecoderWrapper>) -> Result<(Self, bool), String> {
        let json = serde_json::to_value(decoder).map_err(|e| e.to_string())?;
        let steps = json["decoders"].as_array().cloned().unwrap_or_else(|| vec![json.clone()]);
        let step = |kind: &str| steps.iter().find(|step| step["type"] == kind);
        if step("ByteLevel").is_some() {
            return Ok((Spelling::ByteLevel((0..=255).filter(|&byte| !is_printable(byte)).collect()), false));
        }
        let strips = step("Strip").is_some_and(|s| s["content"] == " " && s["start"].as_u64() > Some(0));
        match step("Metaspace") {
            Some(metaspace) => Ok((Spelling::Sentence, metaspace["prepend_scheme"] != "never")),
            None if step("ByteFallback").is_some() => Ok((Spelling::Sentence, strips)),
            None => Err(format!(
                "tokenizer with decoder {json} is not supported; supported are ByteLevel, ByteFallback, Metaspace"
            )),
        }
    }

    /// The bytes that a token of the vocabulary stands for.
    pub fn bytes(&self, token: &str) -> Vec<u8> {
        match self {
            Spelling::ByteLevel(shifted) => {
                let bytes: Option<Vec<u8>> = token.chars().map(|c| byte_of(c, shifted)).collect();
                bytes.unwrap_or_else(|| token.as_bytes().to_vec())
            }
            Spelling::Sentence => match single_byte(token) {
                Some(byte) => vec![byte],
                None => token.replace('▁', " ").into_bytes(),
            },
        }
    }
}

fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

fn byte_of(c: char, shifted: &[u8]) -> Option<u8> {
    match u8::try_from(c) {
        Ok(byte) => is_printable(byte).then_some(byte),
        Err(_) => shifted.get(c as usize - 256).copied(),
    }
}

/// `<0x0A>` → 10.
fn single_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}
