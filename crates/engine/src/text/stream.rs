//! Bytes in, whole characters out.
//!
//! Law: what has been returned, put together, is what `String::from_utf8_lossy` makes of all bytes at once.

/// Decodes UTF-8 that arrives in pieces; a character is held back until its last byte is there.
#[derive(Debug, Default)]
pub struct TextStream {
    /// The beginning of a character, at most 3 bytes.
    held: Vec<u8>,
}

impl TextStream {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The text that `bytes` complete.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let keep = self.held.len() - unfinished(&self.held);
        let rest = self.held.split_off(keep);
        String::from_utf8_lossy(&std::mem::replace(&mut self.held, rest)).into_owned()
    }

    /// What is left at the end: a replacement character if one was begun and not finished, else nothing.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned()
    }
}

/// Length of a character that is begun at the end of `bytes` and could still become valid.
fn unfinished(bytes: &[u8]) -> usize {
    let last = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
    match std::str::from_utf8(last) {
        Err(e) if e.error_len().is_none() => last.len(),
        _ => 0,
    }
}
