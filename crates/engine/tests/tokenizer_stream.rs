//! Streaming text: for every way to cut a text into pieces, the pieces give what the whole gives.

use proptest::prelude::*;
use sglang_engine::text::{StopMatcher, TextStream};

/// Cuts `whole` after each of `cuts`, taken modulo its length.
fn pieces<'a, T>(whole: &'a [T], cuts: &[usize]) -> Vec<&'a [T]> {
    let mut at: Vec<_> = cuts.iter().map(|cut| cut % (whole.len() + 1)).chain([0, whole.len()]).collect();
    at.sort_unstable();
    at.windows(2).map(|pair| &whole[pair[0]..pair[1]]).collect()
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        any::<char>().prop_map(|c| c.to_string().into_bytes()),
        "[a-c]{0,3}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..4),
        Just(vec![0xf0, 0x9f]),
        Just(vec![0xe2, 0x82]),
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn streamed_text_is_the_text_of_the_whole(bytes in bytes(), cuts in prop::collection::vec(any::<usize>(), 0..8)) {
        let mut stream = TextStream::new();
        let mut text: String = pieces(&bytes, &cuts).into_iter().map(|piece| stream.push(piece)).collect();
        text.push_str(&stream.finish());
        prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn whole_characters_are_not_held_back(text in ".{0,12}", cuts in prop::collection::vec(any::<usize>(), 0..4)) {
        let mut stream = TextStream::new();
        let mut read = 0;
        let mut shown = String::new();
        for piece in pieces(text.as_bytes(), &cuts) {
            read += piece.len();
            shown += &stream.push(piece);
            let whole = (0..=read).rev().find(|&n| text.is_char_boundary(n)).unwrap_or(0);
            prop_assert_eq!(&shown, &text[..whole]);
        }
    }

    #[test]
    fn stops_are_found_as_in_the_whole_text(
        text in "[abé]{0,16}",
        stops in prop::collection::vec("[abé]{0,5}", 0..4),
        cuts in prop::collection::vec(any::<usize>(), 0..6),
    ) {
        let chars: Vec<char> = text.chars().collect();
        let mut matcher = StopMatcher::new(&stops);
        let (mut shown, mut matched, mut read) = (String::new(), None, String::new());
        for piece in pieces(&chars, &cuts) {
            let piece: String = piece.iter().collect();
            read += &piece;
            let step = matcher.push(&piece);
            shown += &step.text;
            matched = matched.or(step.matched);
            if matched.is_none() {
                let held = &read[shown.len()..];
                prop_assert!(held.is_empty() || stops.iter().any(|s| s.len() > held.len() && s.starts_with(held)));
            }
        }
        shown += &matcher.finish();
        prop_assert_eq!((shown, matched), first_stop(&text, &stops));
    }
}

/// The text before the stop string that is complete first, and that stop string; the longest of several.
fn first_stop(text: &str, stops: &[String]) -> (String, Option<String>) {
    for end in (0..=text.len()).filter(|&end| text.is_char_boundary(end)) {
        let found = stops.iter().filter(|stop| !stop.is_empty() && text[..end].ends_with(stop.as_str()));
        if let Some(stop) = found.max_by_key(|stop| stop.len()) {
            return (text[..end - stop.len()].to_owned(), Some(stop.clone()));
        }
    }
    (text.to_owned(), None)
}

#[test]
fn bytes_that_cannot_become_a_character_come_out_at_once() {
    let mut stream = TextStream::new();
    assert_eq!(stream.push(b"a\xffb\xc0"), "a\u{fffd}b\u{fffd}");
    assert_eq!(stream.push(b"\xf0\x9f"), "");
    assert_eq!(stream.push(b"a"), "\u{fffd}a");
    assert_eq!(stream.finish(), "");
}

#[test]
fn the_stop_that_is_complete_first_wins() {
    let mut matcher = StopMatcher::new(&["abcd".into(), "bc".into(), "xbc".into()]);
    let step = matcher.push("abcd");
    assert_eq!((step.text.as_str(), step.matched.as_deref()), ("a", Some("bc")));
    let mut matcher = StopMatcher::new(&["bc".into(), "abc".into()]);
    assert_eq!(matcher.push("xabc").matched.as_deref(), Some("abc"));
}

#[test]
fn a_stop_string_never_leaks_in_part() {
    let mut matcher = StopMatcher::new(&["\n\nQ:".into(), "</s>".into()]);
    let shown = ["A: 4\n", "\n", "\nQ", ": 5"].map(|piece| matcher.push(piece));
    let texts = shown.each_ref().map(|step| step.text.as_str());
    assert_eq!(texts, ["A: 4", "", "\n", ""]);
    assert_eq!(shown[3].matched.as_deref(), Some("\n\nQ:"));
    assert_eq!(matcher.push("more").text, "");
    assert_eq!(matcher.finish(), "");
}

#[test]
fn what_only_looked_like_a_stop_comes_out_at_the_end() {
    let mut matcher = StopMatcher::new(&["stop".into()]);
    assert_eq!(matcher.push("do not sto").text, "do not ");
    assert_eq!(matcher.finish(), "sto");
}
