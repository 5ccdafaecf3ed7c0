//! Jump-forward: text that a grammar forces is appended without asking the model, in the tokens that the tokenizer
//! would write (cf. compressed finite state machines, Zheng et al. 2024, arXiv 2312.07104).
//!
//! Law: the model makes every free choice, and never after a boundary between tokens that the tokenizer might not have
//! made: forced text is spelled only up to the first place from which an allowed token could reach beyond it.

use super::vocabulary::Vocabulary;

/// Whether a byte may come next, by byte.
pub type NextBytes = [bool; 256];

impl Vocabulary {
    /// Tokens for the text of `last`, which was just chosen, and the beginning of `forced`, and how many bytes of
    /// `forced` they spell. `next` may follow all of `forced`. `None` where no token past `last` is certain.
    pub fn respelled(&self, last: Option<u32>, forced: &[u8], next: &NextBytes) -> Option<(Vec<u32>, usize)> {
        let last = last.map_or(&[][..], |token| self.bytes(token));
        let n_last = last.len();
        let bytes = [last, forced].concat();
        let text = bytes.utf8_chunks().next()?.valid();
        let mut tokens = self.tokenizer().encode_piece(text)?;
        if text.len() < bytes.len() {
            // The rest of a character may belong to it.
            tokens.pop();
        }
        let last_place = bytes.len().saturating_sub(self.depth());
        let certain = (last_place..bytes.len()).find(|&at| self.goes_beyond(&bytes[at..], next)).unwrap_or(bytes.len());
        let mut ends = Vec::with_capacity(tokens.len());
        for &token in &tokens {
            ends.push(ends.last().unwrap_or(&0) + self.bytes(token).len());
        }
        let n_certain = ends.partition_point(|&end| end <= certain);
        let end = *ends[..n_certain].last()?;
        tokens.truncate(n_certain);
        (end > n_last).then(|| (tokens, end - n_last))
    }
}
