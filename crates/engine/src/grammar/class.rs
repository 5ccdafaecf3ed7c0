//! Sets of characters in patterns.
//!
//! Law: where Python's `re` and JavaScript's `RegExp` disagree about a set, a pattern gets the characters that both
//! mean. So a set is read [`Reading::Narrow`] where its members are allowed, and [`Reading::Wide`] where they are
//! excluded.

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, HirKind};

/// Which characters a set stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Those in it for both dialects.
    Narrow,
    /// Those in it for either.
    Wide,
}

impl Reading {
    fn opposite(self) -> Self {
        match self {
            Reading::Narrow => Reading::Wide,
            Reading::Wide => Reading::Narrow,
        }
    }
}

const ASCII_WORD: &[(char, char)] = &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];
/// Where lines end; `.` without the flag `s` matches all others.
const LINE_ENDS: &[(char, char)] = &[('\n', '\n'), ('\r', '\r'), ('\u{2028}', '\u{2029}')];
const SPACE: &[(char, char)] = &[
    ('\t', '\r'),
    (' ', ' '),
    ('\u{a0}', '\u{a0}'),
    ('\u{1680}', '\u{1680}'),
    ('\u{2000}', '\u{200a}'),
    ('\u{2028}', '\u{2029}'),
    ('\u{202f}', '\u{202f}'),
    ('\u{205f}', '\u{205f}'),
    ('\u{3000}', '\u{3000}'),
];
/// Python's separators and next line, JavaScript's byte order mark.
const SPACE_FOR_ONE: &[(char, char)] = &[('\u{1c}', '\u{1f}'), ('\u{85}', '\u{85}'), ('\u{feff}', '\u{feff}')];

/// The set of these ranges, both ends included.
pub fn of(ranges: &[(char, char)]) -> ClassUnicode {
    ClassUnicode::new(ranges.iter().map(|&(first, last)| ClassUnicodeRange::new(first, last)))
}

/// The set without the characters of `set`.
pub fn negated(mut set: ClassUnicode) -> ClassUnicode {
    set.negate();
    set
}

/// `.`
pub fn dot(line_ends_too: bool) -> ClassUnicode {
    negated(if line_ends_too { ClassUnicode::empty() } else { of(LINE_ENDS) })
}

/// `\d`, `\w`, `\s` and their negations by their letter; `None` for any other.
pub fn of_escape(letter: char, reading: Reading) -> Option<ClassUnicode> {
    let set = match (letter, reading) {
        ('D' | 'W' | 'S', _) => negated(of_escape(letter.to_ascii_lowercase(), reading.opposite())?),
        ('d', Reading::Narrow) => of(&[('0', '9')]),
        ('d', Reading::Wide) => of_pattern(r"\d")?,
        ('w', Reading::Narrow) => of(ASCII_WORD),
        ('w', Reading::Wide) => of_pattern(r"[\w\pN]")?,
        ('s', Reading::Narrow) => of(SPACE),
        ('s', Reading::Wide) => of(&[SPACE, SPACE_FOR_ONE].concat()),
        _ => return None,
    };
    Some(set)
}

/// The characters with a Unicode property, e.g. `Lu` or `Script=Greek`; `None` if there is no such property.
pub fn of_property(name: &str) -> Option<ClassUnicode> {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '='));
    plain.then(|| of_pattern(&format!(r"\p{{{name}}}"))).flatten()
}

fn of_pattern(pattern: &str) -> Option<ClassUnicode> {
    match regex_syntax::parse(pattern).ok()?.into_kind() {
        HirKind::Class(Class::Unicode(set)) => Some(set),
        _ => None,
    }
}

/// The set with the other cases of its characters. JavaScript alone, and only without its flag `u`, keeps `k` apart
/// from the Kelvin sign and `s` from `ſ`: read narrow, no ASCII character gets a case beyond ASCII or the reverse.
pub fn any_case(set: &ClassUnicode, reading: Reading) -> ClassUnicode {
    let ascii = of(&[('\0', '\x7f')]);
    let folded = |part: &ClassUnicode, within: &ClassUnicode| {
        let mut part = part.clone();
        part.intersect(within);
        part.case_fold_simple();
        part
    };
    let (mut low, mut high) = (folded(set, &ascii), folded(set, &negated(ascii.clone())));
    if reading == Reading::Narrow {
        low.intersect(&ascii);
        high.intersect(&negated(ascii));
    }
    low.union(&high);
    low
}
