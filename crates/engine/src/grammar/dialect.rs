//! Patterns as text to patterns as trees.
//!
//! Law: the dialect is what Python's `re` and JavaScript's `RegExp` share and a finite automaton can decide; a text
//! matches the tree only if it full-matches the pattern in both (JavaScript's characters being those of its flag `u`).
//! What means different things to them is an error with its position. Sources: ECMA-262, "RegExp (Regular Expression)
//! Objects"; Python's library reference, "re".

use super::class::{self, Reading};
use regex_syntax::hir::{Class, ClassUnicode, Hir, Look, Repetition};

/// Groups may lie so deep in each other.
const MAX_DEPTH: usize = 100;

/// Why a text is no pattern (or no grammar) and where.
#[derive(Debug, PartialEq, Eq)]
pub struct Flaw {
    /// In characters from the start, the first being 0.
    pub at: usize,
    /// A sentence without its end.
    pub reason: String,
}

/// What was read, or why not.
pub type Parsed<T> = Result<T, Flaw>;

/// The tree of a pattern; groups are not captured.
pub fn parse(pattern: &str) -> Parsed<Hir> {
    let mut reader = Reader::new(pattern);
    while reader.leading_flags()? {}
    let tree = reader.alternatives()?;
    match reader.peek() {
        None => Ok(tree),
        Some(_) => reader.fail("unmatched `)`; write `\\)` for the character"),
    }
}

#[derive(Clone, Copy, Default)]
struct Flags {
    any_case: bool,
    dot_all: bool,
    multi_line: bool,
}

/// Reads a pattern, or the parts of a grammar that are written like one.
pub struct Reader {
    pattern: Vec<char>,
    /// Of the next character.
    pub at: usize,
    flags: Flags,
    depth: usize,
}

/// Part of a class in brackets, or what an escape stands for.
pub enum Member {
    /// One character.
    Char(char),
    /// `\d` and the like.
    Set(ClassUnicode),
}

impl Reader {
    /// At the start of a text.
    pub fn new(text: &str) -> Self {
        Reader { pattern: text.chars().collect(), at: 0, flags: Flags::default(), depth: 0 }
    }

    /// The next character.
    pub fn peek(&self) -> Option<char> {
        self.pattern.get(self.at).copied()
    }

    /// Passes the next character.
    pub fn next(&mut self) -> Option<char> {
        let c = self.peek();
        self.at += usize::from(c.is_some());
        c
    }

    /// Passes `text` if it comes next.
    pub fn eat(&mut self, text: &str) -> bool {
        let found = text.chars().eq(self.pattern[self.at..].iter().copied().take(text.chars().count()));
        self.at += if found { text.chars().count() } else { 0 };
        found
    }

    /// A flaw at the next character.
    pub fn fail<T>(&self, reason: impl Into<String>) -> Parsed<T> {
        fail_at(self.at, reason)
    }

    fn alternatives(&mut self) -> Parsed<Hir> {
        let mut branches = vec![self.sequence()?];
        while self.eat("|") {
            branches.push(self.sequence()?);
        }
        Ok(Hir::alternation(branches))
    }

    fn sequence(&mut self) -> Parsed<Hir> {
        let mut items = Vec::new();
        while self.peek().is_some_and(|c| c != '|' && c != ')') {
            let atom = self.atom()?;
            items.push(self.repeated(atom)?);
        }
        Ok(Hir::concat(items))
    }

    /// The atom with the quantifier that follows it, if one does. A lazy one stands for the same texts.
    fn repeated(&mut self, atom: Hir) -> Parsed<Hir> {
        let Some((min, max)) = self.quantifier()? else { return Ok(atom) };
        let lazy = self.eat("?");
        let at = self.at;
        if !lazy && self.peek() == Some('+') {
            return self.fail("possessive quantifiers are not supported");
        }
        if self.quantifier()?.is_some() {
            return fail_at(at, "a quantifier may not follow another; put the first part in a group");
        }
        Ok(Hir::repetition(Repetition { min, max, greedy: true, sub: Box::new(atom) }))
    }

    /// The least and the largest number of repetitions, if a quantifier comes next.
    pub fn quantifier(&mut self) -> Parsed<Option<(u32, Option<u32>)>> {
        let bounds = match self.peek() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            Some('{') => return self.counted(),
            _ => return Ok(None),
        };
        self.at += 1;
        Ok(Some(bounds))
    }

    /// `{2}`, `{2,}`, `{2,5}`; any other `{` is the character.
    fn counted(&mut self) -> Parsed<Option<(u32, Option<u32>)>> {
        let start = self.at;
        self.at += 1;
        let min = self.number()?;
        let comma = self.eat(",");
        let max = if comma { self.number()? } else { min };
        if !self.eat("}") || (min.is_none() && !comma) {
            self.at = start;
            return Ok(None);
        }
        match (min, max) {
            (None, _) => fail_at(start, "a count without a least number means different things; write `{0,n}`"),
            (Some(min), Some(max)) if min > max => {
                fail_at(start, format!("the least count {min} is above the largest, {max}"))
            }
            (Some(min), max) => Ok(Some((min, max))),
        }
    }

    fn number(&mut self) -> Parsed<Option<u32>> {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        let digits: String = self.pattern[start..self.at].iter().collect();
        match digits.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) if digits.is_empty() => Ok(None),
            Err(_) => fail_at(start, format!("the count {digits} is too large")),
        }
    }

    fn atom(&mut self) -> Parsed<Hir> {
        let start = self.at;
        match self.next() {
            Some('(') => self.group(start),
            Some('[') => self.class(start),
            Some('.') => Ok(set(class::dot(self.flags.dot_all))),
            Some('^') => self.anchor(start, Look::Start),
            Some('$') => self.anchor(start, Look::End),
            Some('\\') => self.escaped(start),
            Some(c @ ('*' | '+' | '?')) => {
                fail_at(start, format!("nothing to repeat; write `\\{c}` for the character"))
            }
            Some(c) => Ok(self.literal(c)),
            None => fail_at(start, "the pattern ends too early"),
        }
    }

    fn literal(&self, c: char) -> Hir {
        match self.flags.any_case {
            true => set(class::any_case(&class::of(&[(c, c)]), Reading::Narrow)),
            false => Hir::literal(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }

    fn anchor(&self, start: usize, look: Look) -> Parsed<Hir> {
        match self.flags.multi_line {
            true => fail_at(start, "anchors under the flag `m` are not supported; the whole text always matches"),
            false => Ok(Hir::look(look)),
        }
    }

    fn group(&mut self, start: usize) -> Parsed<Hir> {
        let outer = self.flags;
        if self.eat("?") {
            self.group_kind(start)?;
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return fail_at(start, format!("groups lie more than {MAX_DEPTH} deep in each other"));
        }
        let tree = self.alternatives()?;
        if !self.eat(")") {
            return fail_at(start, "this `(` has no `)`; write `\\(` for the character");
        }
        self.depth -= 1;
        self.flags = outer;
        Ok(tree)
    }

    /// What stands between `(?` and the content of the group.
    fn group_kind(&mut self, start: usize) -> Parsed<()> {
        const IRREGULAR: [(&str, &str); 8] = [
            ("=", "look-ahead"),
            ("!", "look-ahead"),
            ("<=", "look-behind"),
            ("<!", "look-behind"),
            (">", "an atomic group"),
            ("P=", "a back-reference"),
            ("(", "a condition"),
            ("#", "a comment"),
        ];
        if let Some((_, name)) = IRREGULAR.iter().find(|(sign, _)| self.eat(sign)) {
            return fail_at(start, format!("{name} is not supported"));
        }
        if self.eat("P<") || self.eat("<") {
            return self.group_name(start);
        }
        if self.flags_until(start)? != ':' {
            return fail_at(start, "flags for the rest of a pattern may only begin it; write `(?i:…)`");
        }
        Ok(())
    }

    fn group_name(&mut self, start: usize) -> Parsed<()> {
        let first = self.at;
        while self.peek().is_some_and(|c| c == '_' || c.is_alphabetic() || (c.is_numeric() && self.at > first)) {
            self.at += 1;
        }
        match self.at > first && self.eat(">") {
            true => Ok(()),
            false => {
                fail_at(start, "a group's name is letters, digits and `_`, begins with no digit, and ends with `>`")
            }
        }
    }

    /// `(?i)` at the start of the pattern.
    fn leading_flags(&mut self) -> Parsed<bool> {
        let start = self.at;
        let is_flag = |c: &char| c.is_ascii_lowercase();
        if !self.eat("(?") {
            return Ok(false);
        }
        let n = self.pattern[self.at..].iter().take_while(|c| is_flag(c)).count();
        if n == 0 || self.pattern.get(self.at + n) != Some(&')') {
            self.at = start;
            return Ok(false);
        }
        self.flags_until(start)?;
        Ok(true)
    }

    /// Sets flags up to the `:` or `)` that ends them.
    fn flags_until(&mut self, start: usize) -> Parsed<char> {
        let mut on = true;
        loop {
            match self.next() {
                Some('i') => self.flags.any_case = on,
                Some('s') => self.flags.dot_all = on,
                Some('m') => self.flags.multi_line = on,
                // Patterns are Unicode in any case.
                Some('u') if on => {}
                Some('-') if on => on = false,
                Some(end @ (':' | ')')) => return Ok(end),
                Some(c) => return fail_at(start, format!("the flag `{c}` is not supported; i, s and u are")),
                None => return fail_at(start, "this `(` has no `)`; write `\\(` for the character"),
            }
        }
    }

    /// After a backslash, outside of brackets.
    fn escaped(&mut self, start: usize) -> Parsed<Hir> {
        match self.peek() {
            Some('1'..='9' | 'k') => return fail_at(start, "a back-reference is not supported"),
            Some('b') => return Ok(self.look(Look::WordAscii)),
            Some('B') => return Ok(self.look(Look::WordAsciiNegate)),
            _ => {}
        }
        Ok(match self.escape(start, Reading::Narrow)? {
            Member::Char(c) => self.literal(c),
            Member::Set(members) => set(self.cased(members, Reading::Narrow)),
        })
    }

    fn look(&mut self, look: Look) -> Hir {
        self.at += 1;
        Hir::look(look)
    }

    fn cased(&self, members: ClassUnicode, reading: Reading) -> ClassUnicode {
        match self.flags.any_case {
            true => class::any_case(&members, reading),
            false => members,
        }
    }

    /// After a backslash, which is at `start`, within brackets or not.
    pub fn escape(&mut self, start: usize, reading: Reading) -> Parsed<Member> {
        let Some(c) = self.next() else { return fail_at(start, "a `\\` at the end; write `\\\\` for the character") };
        if let Some(members) = class::of_escape(c, reading) {
            return Ok(Member::Set(members));
        }
        let c = match c {
            't' => '\t',
            'n' => '\n',
            'v' => '\x0b',
            'f' => '\x0c',
            'r' => '\r',
            '0' if !self.peek().is_some_and(|c| c.is_ascii_digit()) => '\0',
            'x' => self.code(start, 2)?,
            'u' => self.unicode(start)?,
            'p' | 'P' => return self.property(start, c == 'P'),
            c if c.is_ascii_alphanumeric() => return fail_at(start, format!("the escape `\\{c}` is not supported")),
            c => c,
        };
        Ok(Member::Char(c))
    }

    fn property(&mut self, start: usize, negate: bool) -> Parsed<Member> {
        let end = self.pattern[self.at..].iter().position(|&c| c == '}').unwrap_or(0);
        let text: String = self.pattern[self.at..self.at + end].iter().collect();
        let Some(name) = text.strip_prefix('{') else { return fail_at(start, "a property is written `\\p{Name}`") };
        let Some(members) = class::of_property(name) else {
            return fail_at(start, format!("there is no Unicode property `{name}`"));
        };
        self.at += end + 1;
        Ok(Member::Set(if negate { class::negated(members) } else { members }))
    }

    /// `\u0041`, `\u{1f642}`, or two surrogates.
    fn unicode(&mut self, start: usize) -> Parsed<char> {
        if self.eat("{") {
            let n = self.pattern[self.at..].iter().position(|&c| c == '}').unwrap_or(0);
            let c = self.code(start, n)?;
            self.at += 1;
            return Ok(c);
        }
        let first = self.hex(start, 4)?;
        if !(0xd800..0xdc00).contains(&first) || !self.eat("\\u") {
            return char_of(start, first);
        }
        let second = self.hex(start, 4)?.wrapping_sub(0xdc00);
        char_of(start, if second < 0x400 { 0x10000 + ((first - 0xd800) << 10) + second } else { first })
    }

    fn code(&mut self, start: usize, n: usize) -> Parsed<char> {
        let code = self.hex(start, n)?;
        char_of(start, code)
    }

    fn hex(&mut self, start: usize, n: usize) -> Parsed<u32> {
        let digits: String = self.pattern[self.at..].iter().take(n).collect();
        let whole = digits.len() == n && digits.chars().all(|c| c.is_ascii_hexdigit());
        let code = u32::from_str_radix(&digits, 16).ok().filter(|_| whole);
        self.at += n;
        code.map_or_else(|| fail_at(start, "the hexadecimal digits of this escape are missing"), Ok)
    }

    /// Within brackets, after the first, which is at `start`.
    pub fn class(&mut self, start: usize) -> Parsed<Hir> {
        let negate = self.eat("^");
        let reading = if negate { Reading::Wide } else { Reading::Narrow };
        if self.peek() == Some(']') {
            return self.fail("a `]` at the start of a class means different things; write `\\]` for the character");
        }
        // Put together at the end: a union sorts all that it has so far.
        let mut ranges = Vec::new();
        while !self.eat("]") {
            if self.peek().is_none() {
                return fail_at(start, "this `[` has no `]`; write `\\[` for the character");
            }
            ranges.extend_from_slice(self.members(reading)?.ranges());
        }
        let members = self.cased(ClassUnicode::new(ranges), reading);
        Ok(set(if negate { class::negated(members) } else { members }))
    }

    /// A character, a range, or the set of an escape.
    fn members(&mut self, reading: Reading) -> Parsed<ClassUnicode> {
        let start = self.at;
        let first = self.member(reading)?;
        let is_range = self.peek() == Some('-') && self.pattern.get(self.at + 1).is_some_and(|&c| c != ']');
        let last = match is_range {
            true => {
                self.at += 1;
                self.member(reading)?
            }
            false => match first {
                Member::Char(c) => return Ok(class::of(&[(c, c)])),
                Member::Set(members) => return Ok(members),
            },
        };
        match (first, last) {
            (Member::Char(first), Member::Char(last)) if first <= last => Ok(class::of(&[(first, last)])),
            (Member::Char(_), Member::Char(_)) => fail_at(start, "the range ends before it begins"),
            _ => fail_at(start, "a range needs characters at its ends; write `\\-` for the character"),
        }
    }

    fn member(&mut self, reading: Reading) -> Parsed<Member> {
        let start = self.at;
        match self.next() {
            Some('\\') if self.eat("b") => Ok(Member::Char('\x08')),
            Some('\\') => self.escape(start, reading),
            Some(c) => Ok(Member::Char(c)),
            None => fail_at(start, "the class ends too early"),
        }
    }
}

/// A flaw.
pub fn fail_at<T>(at: usize, reason: impl Into<String>) -> Parsed<T> {
    Err(Flaw { at, reason: reason.into() })
}

/// The tree of a set.
pub fn set(members: ClassUnicode) -> Hir {
    Hir::class(Class::Unicode(members))
}

fn char_of(start: usize, code: u32) -> Parsed<char> {
    char::from_u32(code).map_or_else(|| fail_at(start, format!("U+{code:04X} is no character")), Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_of_many_characters_has_each_of_them() {
        let apart: String = ('\u{20000}'..'\u{3e000}').step_by(2).collect();
        assert_eq!(
            parse(&format!("[{apart}]")).unwrap(),
            set(class::of(&apart.chars().map(|c| (c, c)).collect::<Vec<_>>()))
        );
    }
}
