//! Grammars in EBNF: rules `name ::= …`, of which `root` derives the output.
//!
//! A body is made of "texts", [classes], `.` for any character, names, groups, `|` and the quantifiers of patterns;
//! `#` begins a comment. The notation is that of llama.cpp's GBNF.
//!
//! Law: no text is derived that the grammar does not derive. A grammar without recursion means exactly its texts. In
//! one with recursion, each longest part without it is read greedily, as the lexer of a programming language does: a
//! part that may swallow the start of what follows it hides texts, as `[a-z]*` hides that `"b"` may follow.

use super::class;
use super::dialect::{fail_at, set, Flaw, Member, Parsed, Reader};
use regex_syntax::hir::{Hir, Repetition};
use std::fmt::Write;

/// Parts may lie so deep in each other, through rules or groups.
const MAX_DEPTH: usize = 200;
/// Parts of a grammar without recursion, every rule written out where it is used.
const MAX_PARTS: usize = 20_000;

/// Of a grammar.
const MAX_RULES: usize = 1_000;

/// What a grammar derives.
pub enum Language {
    /// The texts that match a tree.
    Regular(Hir),
    /// The texts of a grammar in Lark's notation.
    Recursive(String),
}

/// Reads a grammar.
pub fn parse(text: &str) -> Result<Language, Flaw> {
    let mut source = Source { reader: Reader::new(text), rules: Vec::new(), depth: 0 };
    source.space();
    while source.reader.peek().is_some() {
        source.rule()?;
    }
    let rules = source.rules;
    let Some(root) = rules.iter().position(|rule| rule.name == "root") else {
        return fail_at(0, "there is no rule `root`; the output is derived from it");
    };
    check(&rules)?;
    let mut parts = Parts { known: vec![Known::Unasked; rules.len()], rules: &rules, depth: 0 };
    Ok(match parts.of_rule(root) {
        Some((tree, _)) => Language::Regular(tree),
        None => Language::Recursive(Lark::of(parts, root)),
    })
}

/// A rule that is defined, or at least named.
struct Rule {
    name: String,
    /// Where it was met first.
    at: usize,
    body: Option<Node>,
}

enum Node {
    Text(Hir),
    Rule(usize),
    Sequence(Vec<Node>),
    Choice(Vec<Node>),
    Repeat(Box<Node>, u32, Option<u32>),
}

struct Source {
    reader: Reader,
    rules: Vec<Rule>,
    depth: usize,
}

impl Source {
    /// Passes white space and comments.
    fn space(&mut self) {
        while let Some(c) = self.reader.peek().filter(|&c| c.is_whitespace() || c == '#') {
            self.reader.at += 1;
            while c == '#' && self.reader.peek().is_some_and(|c| c != '\n') {
                self.reader.at += 1;
            }
        }
    }

    fn rule(&mut self) -> Parsed<()> {
        let start = self.reader.at;
        let Some(name) = self.name().filter(|_| self.defines()) else {
            return fail_at(start, "expected a rule, `name ::= …`");
        };
        let rule = self.index(name, start);
        if rule >= MAX_RULES {
            return fail_at(start, format!("the grammar has more than {MAX_RULES} rules"));
        }
        if self.rules[rule].body.is_some() {
            return fail_at(start, format!("the rule `{}` is defined twice", self.rules[rule].name));
        }
        let body = self.choice()?;
        self.rules[rule].body = Some(body);
        Ok(())
    }

    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        while let Some(c) = self.reader.peek().filter(|&c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.')) {
            if name.is_empty() && !c.is_alphabetic() && c != '_' {
                return None;
            }
            name.push(c);
            self.reader.at += 1;
        }
        (!name.is_empty()).then_some(name)
    }

    /// Passes the `::=` after a name.
    fn defines(&mut self) -> bool {
        self.space();
        let defines = self.reader.eat("::=");
        self.space();
        defines
    }

    fn index(&mut self, name: String, at: usize) -> usize {
        self.rules.iter().position(|rule| rule.name == name).unwrap_or_else(|| {
            self.rules.push(Rule { name, at, body: None });
            self.rules.len() - 1
        })
    }

    fn choice(&mut self) -> Parsed<Node> {
        let mut branches = vec![self.sequence()?];
        while self.reader.eat("|") {
            self.space();
            branches.push(self.sequence()?);
        }
        Ok(Node::Choice(branches))
    }

    fn sequence(&mut self) -> Parsed<Node> {
        let mut items = Vec::new();
        while let Some(item) = self.item()? {
            self.space();
            items.push(match self.reader.quantifier()? {
                Some((min, max)) => Node::Repeat(Box::new(item), min, max),
                None => item,
            });
            self.space();
        }
        Ok(Node::Sequence(items))
    }

    /// `None` at the end of a sequence.
    fn item(&mut self) -> Parsed<Option<Node>> {
        let start = self.reader.at;
        match self.reader.peek() {
            None | Some('|' | ')') => return Ok(None),
            Some(c) if c.is_alphabetic() || c == '_' => return Ok(self.reference(start)),
            _ => {}
        }
        Ok(Some(match self.reader.next() {
            Some('"') => self.text(start)?,
            Some('[') => Node::Text(self.reader.class(start)?),
            Some('.') => Node::Text(set(class::dot(true))),
            Some('(') => self.group(start)?,
            _ => return fail_at(start, "expected a \"text\", a [class], a name, or a group in parentheses"),
        }))
    }

    /// A rule's name, unless it begins the next rule.
    fn reference(&mut self, start: usize) -> Option<Node> {
        let name = self.name()?;
        let end = self.reader.at;
        let ends_here = self.defines();
        self.reader.at = if ends_here { start } else { end };
        (!ends_here).then(|| Node::Rule(self.index(name, start)))
    }

    fn group(&mut self, start: usize) -> Parsed<Node> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return fail_at(start, format!("groups lie more than {MAX_DEPTH} deep in each other"));
        }
        self.space();
        let inner = self.choice()?;
        self.depth -= 1;
        match self.reader.eat(")") {
            true => Ok(inner),
            false => fail_at(start, "this `(` has no `)`"),
        }
    }

    /// In quotes, from after the first.
    fn text(&mut self, start: usize) -> Parsed<Node> {
        let mut text = String::new();
        loop {
            let at = self.reader.at;
            match self.reader.next() {
                Some('"') => return Ok(Node::Text(Hir::literal(text.into_bytes()))),
                Some('\\') => match self.reader.escape(at, class::Reading::Narrow)? {
                    Member::Char(c) => text.push(c),
                    Member::Set(_) => return fail_at(at, "a text holds characters; write a [class] for a set"),
                },
                Some(c) if c != '\n' => text.push(c),
                _ => return fail_at(start, "this text has no `\"` at its end"),
            }
        }
    }
}

/// Every rule must be defined and derive some text, or a text begun with it could not be completed.
fn check(rules: &[Rule]) -> Parsed<()> {
    if let Some(rule) = rules.iter().find(|rule| rule.body.is_none()) {
        return fail_at(rule.at, format!("the rule `{}` is not defined", rule.name));
    }
    let mut ends = vec![false; rules.len()];
    let mut before = usize::MAX;
    while before != ends.iter().filter(|&&end| end).count() {
        before = ends.iter().filter(|&&end| end).count();
        // Rules are mostly made of later ones.
        for (i, rule) in rules.iter().enumerate().rev() {
            ends[i] = ends[i] || rule.body.as_ref().is_some_and(|body| derives(body, &ends));
        }
    }
    match ends.iter().position(|&end| !end) {
        Some(i) => fail_at(rules[i].at, format!("the rule `{}` derives no text: it never ends", rules[i].name)),
        None => Ok(()),
    }
}

/// Whether a node derives a text by rules that are known to.
fn derives(node: &Node, ends: &[bool]) -> bool {
    match node {
        Node::Text(tree) => tree.properties().minimum_len().is_some(),
        Node::Rule(rule) => ends[*rule],
        Node::Sequence(items) => items.iter().all(|item| derives(item, ends)),
        Node::Choice(branches) => branches.iter().any(|branch| derives(branch, ends)),
        Node::Repeat(inner, min, _) => *min == 0 || derives(inner, ends),
    }
}

/// A tree and the number of parts it was made from.
type Tree = (Hir, usize);

/// The trees of nodes that reach no recursion.
struct Parts<'a> {
    rules: &'a [Rule],
    known: Vec<Known>,
    depth: usize,
}

#[derive(Clone)]
enum Known {
    Unasked,
    /// Being asked for: whoever asks again is recursive.
    Open,
    Tree(Option<Tree>),
}

impl Parts<'_> {
    fn of_rule(&mut self, rule: usize) -> Option<Tree> {
        match std::mem::replace(&mut self.known[rule], Known::Open) {
            Known::Open => None,
            Known::Unasked => {
                let tree = self.rules[rule].body.as_ref().and_then(|body| self.of(body));
                self.known[rule] = Known::Tree(tree.clone());
                tree
            }
            Known::Tree(tree) => {
                self.known[rule] = Known::Tree(tree.clone());
                tree
            }
        }
    }

    fn of(&mut self, node: &Node) -> Option<Tree> {
        self.depth += 1;
        let tree = if self.depth > MAX_DEPTH { None } else { self.of_shallow(node) };
        self.depth -= 1;
        tree.filter(|(_, parts)| *parts <= MAX_PARTS)
    }

    fn of_shallow(&mut self, node: &Node) -> Option<Tree> {
        match node {
            Node::Text(tree) => Some((tree.clone(), 1)),
            Node::Rule(rule) => self.of_rule(*rule),
            Node::Sequence(items) => self.of_all(items).map(|(trees, n)| (Hir::concat(trees), n)),
            Node::Choice(branches) => self.of_all(branches).map(|(trees, n)| (Hir::alternation(trees), n)),
            Node::Repeat(inner, min, max) => self.of(inner).map(|(tree, n)| (repeated(tree, *min, *max), n)),
        }
    }

    fn of_all(&mut self, nodes: &[Node]) -> Option<(Vec<Hir>, usize)> {
        let mut trees = Vec::new();
        let mut n_parts = 1;
        for node in nodes {
            let (tree, n) = self.of(node)?;
            trees.push(tree);
            n_parts += n;
            if n_parts > MAX_PARTS {
                return None;
            }
        }
        Some((trees, n_parts))
    }
}

fn repeated(tree: Hir, min: u32, max: Option<u32>) -> Hir {
    Hir::repetition(Repetition { min, max, greedy: true, sub: Box::new(tree) })
}

/// Writes a grammar in Lark's notation: `r0`, `r1`, … for rules, `T0`, `T1`, … for parts without recursion.
struct Lark<'a> {
    parts: Parts<'a>,
    terminals: Vec<String>,
}

impl<'a> Lark<'a> {
    fn of(parts: Parts<'a>, root: usize) -> String {
        let rules = parts.rules;
        let mut lark = Lark { parts, terminals: Vec::new() };
        let mut text = format!("start: r{root}\n");
        for (i, body) in rules.iter().enumerate().filter_map(|(i, rule)| Some((i, rule.body.as_ref()?))) {
            if lark.parts.of_rule(i).is_none() {
                let body = lark.node(body);
                let _ = writeln!(text, "r{i}: {body}");
            }
        }
        for (i, terminal) in lark.terminals.iter().enumerate() {
            let _ = writeln!(text, "T{i}: /{terminal}/");
        }
        text
    }

    fn node(&mut self, node: &Node) -> String {
        if let Some((tree, _)) = self.parts.of(node) {
            return self.terminal(tree);
        }
        match node {
            Node::Text(tree) => self.terminal(tree.clone()),
            Node::Rule(rule) => format!("r{rule}"),
            Node::Sequence(items) => self.sequence(items),
            Node::Choice(branches) if branches.len() == 1 => self.node(&branches[0]),
            Node::Choice(branches) => {
                let branches: Vec<String> = branches.iter().map(|branch| self.node(branch)).collect();
                format!("({})", branches.join(" | "))
            }
            Node::Repeat(inner, min, max) => {
                let max = max.map_or_else(String::new, |max| max.to_string());
                format!("({}){{{min},{max}}}", self.node(inner))
            }
        }
    }

    /// Neighbours without recursion become one terminal.
    fn sequence(&mut self, items: &[Node]) -> String {
        let mut written = Vec::new();
        let mut run = Vec::new();
        for item in items {
            match self.parts.of(item) {
                Some((tree, _)) => run.push(tree),
                None => {
                    let before = std::mem::take(&mut run);
                    written.extend((!before.is_empty()).then(|| self.terminal(Hir::concat(before))));
                    written.push(self.node(item));
                }
            }
        }
        written.extend((!run.is_empty()).then(|| self.terminal(Hir::concat(run))));
        written.join(" ")
    }

    fn terminal(&mut self, tree: Hir) -> String {
        if tree.properties().maximum_len() == Some(0) {
            return "\"\"".into();
        }
        let pattern = tree.to_string().replace('/', "\\/").replace('\n', "\\n");
        let found = self.terminals.iter().position(|terminal| *terminal == pattern);
        let i = found.unwrap_or_else(|| {
            self.terminals.push(pattern);
            self.terminals.len() - 1
        });
        format!("T{i}")
    }
}
