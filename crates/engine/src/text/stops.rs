//! Stop strings in text that arrives in pieces.
//!
//! Laws: the match is the one that is complete first (of those, the longest), however the text is cut into pieces; no
//! part of a matched stop string is ever returned as text; text that cannot begin a stop string is returned at once.

/// Finds the first stop string of a text.
#[derive(Debug, Default)]
pub struct StopMatcher {
    stops: Vec<String>,
    /// Text that may be the beginning of a stop string.
    held: String,
    matched: bool,
}

/// What one more piece of text led to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct StopStep {
    /// Text that is certainly before any stop string.
    pub text: String,
    /// The stop string that was found; nothing after it is looked at.
    pub matched: Option<String>,
}

impl StopMatcher {
    /// Looks for any of `stops`; empty ones are never found.
    pub fn new(stops: &[String]) -> Self {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        StopMatcher { stops, ..Self::default() }
    }

    /// Takes the next piece.
    pub fn push(&mut self, piece: &str) -> StopStep {
        if self.matched {
            return StopStep::default();
        }
        self.held.push_str(piece);
        let found = self.stops.iter().filter_map(|stop| Some((self.held.find(stop)?, stop)));
        let first = found.min_by_key(|(start, stop)| (start + stop.len(), *start));
        if let Some((start, stop)) = first {
            let matched = Some(stop.clone());
            let mut text = std::mem::take(&mut self.held);
            text.truncate(start);
            self.matched = true;
            return StopStep { text, matched };
        }
        let keep = self.held.len() - self.possible_start();
        let rest = self.held.split_off(keep);
        StopStep { text: std::mem::replace(&mut self.held, rest), matched: None }
    }

    /// The text held back, when no more follows.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Length of the longest end of the held text that a stop string begins with.
    fn possible_start(&self) -> usize {
        let held = self.held.as_bytes();
        let longest = |stop: &String| {
            let stop = stop.as_bytes();
            (1..stop.len().min(held.len() + 1)).rev().find(|&n| held.ends_with(&stop[..n]))
        };
        self.stops.iter().filter_map(longest).max().unwrap_or(0)
    }
}
