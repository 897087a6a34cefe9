//! What a filter may be made of, told from its text and its parsed form.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, SourceInfo};
use cel::{ParseErrors, Value};

use crate::domain::event::refusal::quote;

use super::{MAX_DEPTH, MAX_NODES, VARIABLES, Work, is_pattern};

/// Most brackets that are open at once.
const MAX_BRACKETS: usize = 32;
/// Most parts of the text: names, numbers and signs.
const MAX_PARTS: usize = 512;
/// Most sums; each may copy a text of the event.
const MAX_SUMS: usize = 8;
/// Most regular expressions.
const MAX_MATCHES: usize = 4;
/// Most bytes of a regular expression.
const MAX_PATTERN: usize = 256;
/// Most states of a compiled regular expression, roughly: a class of characters counts as [`CLASS`].
const MAX_STATES: usize = 8192;
/// What a class of characters counts.
const CLASS: usize = 64;
/// What a class counts that has characters of all scripts, such as `\w`: it is compiled anew for each event.
const LARGE_CLASS: usize = 1024;
/// A search for a pattern is as much work as so many passes over the event.
const SEARCH: usize = 4;

/// Functions beside the operators.
const FUNCTIONS: [&str; 10] = [
    "bool",
    "contains",
    "double",
    "endsWith",
    "int",
    "matches",
    "size",
    "startsWith",
    "string",
    "uint",
];
/// Operators, as the parser names them.
const OPERATORS: [&str; 17] = [
    "_?_:_", "_&&_", "_||_", "!_", "_-_", "_+_", "_*_", "_/_", "_%_", "_==_", "_!=_", "_>=_", "_<=_", "_>_",
    "_<_", "-_", "_[_]",
];
/// What macros are made of.
const INNER: [&str; 2] = ["@not_strictly_false", "@in"];
const SUM: &str = "_+_";
/// Operators that look at none of their operands but truth values.
const LOGIC: [&str; 5] = ["_&&_", "_||_", "!_", "_?_:_", "@not_strictly_false"];
/// Operators that look at no more than the smaller one of their operands.
const EQUALITY: [&str; 2] = ["_==_", "_!=_"];

/// How much of the event a value can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Extent {
    /// Nothing of it.
    Constant,
    /// One element of the list that is gone over: all elements together are at most the event.
    Element,
    /// Any part, or all of it.
    Event,
}

/// What the value of an expression, whose depth the parser bounded, can hold.
fn extent(node: &IdedExpr, own: &[&str]) -> Extent {
    match &node.expr {
        Expr::Ident(name) if own.contains(&name.as_str()) => Extent::Element,
        Expr::Ident(_) => Extent::Event,
        Expr::Select(select) if select.test => Extent::Constant,
        Expr::Select(select) => extent(&select.operand, own),
        Expr::Call(call) => match (call.func_name.as_str(), call.args.as_slice()) {
            ("_?_:_", [_, this, that]) => extent(this, own).max(extent(that, own)),
            ("_[_]", [whole, _]) => extent(whole, own),
            (SUM | "string", _) => most(call.target.as_deref(), &call.args, own),
            // A number or a truth value.
            _ => Extent::Constant,
        },
        _ => Extent::Constant,
    }
}

fn most(target: Option<&IdedExpr>, args: &[IdedExpr], own: &[&str]) -> Extent {
    let extents = target.into_iter().chain(args).map(|operand| extent(operand, own));
    extents.max().unwrap_or(Extent::Constant)
}

/// Refuses, before it is parsed, what could make the parser recurse too deep.
pub(super) fn check_text(source: &str) -> Result<(), String> {
    let (mut open, mut parts, mut within) = (0_usize, 0, false);
    for character in source.chars() {
        let goes_on = character.is_alphanumeric() || character == '_';
        let is_same = goes_on && within;
        if !(character.is_whitespace() || is_same) {
            parts += 1;
        }
        within = goes_on;
        match character {
            '(' | '[' | '{' => open += 1,
            ')' | ']' | '}' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > MAX_BRACKETS {
            return Err(format!(
                "over {MAX_BRACKETS} brackets are open at once; write it simpler"
            ));
        }
    }
    if parts > MAX_PARTS {
        return Err(format!(
            "the filter has over {MAX_PARTS} words and signs; write it shorter"
        ));
    }
    Ok(())
}

/// The first thing that the parser found.
pub(super) fn parse_message(source: &str, errors: &ParseErrors) -> String {
    let Some(first) = errors.errors.first() else {
        return "this is not CEL".to_owned();
    };
    let (line, column) = first.pos;
    let mut text: String = first.msg.chars().take(160).collect();
    if text.contains("expecting") {
        // The list of everything that could stand there helps nobody.
        text.truncate(text.find(" expecting").unwrap_or(text.len()));
    }
    let column = usize::try_from(column).unwrap_or(1).clamp(1, source.len() + 1);
    format!("at line {} column {column}: {text}", line.max(1))
}

/// Walks a parsed filter.
pub(super) struct Bounds<'a> {
    source: &'a str,
    info: &'a SourceInfo,
    nodes: usize,
    sums: usize,
    work: Work,
    /// There is a loop over a list.
    pub(super) has_loop: bool,
    /// Regular expressions.
    pub(super) patterns: usize,
}

/// A node to look at.
struct Visit<'e> {
    node: &'e IdedExpr,
    depth: usize,
    /// Variables of the loop around it.
    own: Vec<&'e str>,
}

impl<'a> Bounds<'a> {
    pub(super) const fn new(source: &'a str, info: &'a SourceInfo) -> Self {
        Self {
            source,
            info,
            nodes: 0,
            sums: 0,
            work: Work { once: 0, each: 0 },
            has_loop: false,
            patterns: 0,
        }
    }

    /// How often what was checked may go over the event; a sum may be as large as all its parts.
    pub(super) const fn work(&self) -> Work {
        Work {
            once: self.work.once * (1 + self.sums),
            each: self.work.each * (1 + self.sums),
        }
    }

    /// Counts a call. Even one that fails may go over its operands, to tell what they were.
    fn count(&mut self, call: &CallExpr, own: &[&str]) {
        let name = call.func_name.as_str();
        if LOGIC.contains(&name) {
            return;
        }
        let extent = match call.args.as_slice() {
            [left, right] if EQUALITY.contains(&name) => extent(left, own).min(extent(right, own)),
            args => most(call.target.as_deref(), args, own),
        };
        let passes = if name == "matches" { SEARCH } else { 1 };
        match extent {
            Extent::Constant => {}
            Extent::Event if !own.is_empty() => self.work.each += passes,
            Extent::Element | Extent::Event => self.work.once += passes,
        }
    }

    fn at(&self, id: u64, message: impl std::fmt::Display) -> String {
        let start = self.info.offset_for(id).map_or(0, |(start, _)| start);
        let before = self
            .source
            .chars()
            .take(usize::try_from(start).unwrap_or_default());
        let (line, column) = before.fold((1_usize, 1_usize), |(line, column), character| match character {
            '\n' => (line + 1, 1),
            _ => (line, column + 1),
        });
        format!("at line {line} column {column}: {message}")
    }

    pub(super) fn check(&mut self, root: &IdedExpr) -> Result<(), String> {
        let mut open = vec![Visit {
            node: root,
            depth: 1,
            own: Vec::new(),
        }];
        while let Some(visit) = open.pop() {
            self.nodes += 1;
            if visit.depth > MAX_DEPTH {
                return Err(self.at(
                    visit.node.id,
                    format!("nested or chained over {MAX_DEPTH} levels; write it shorter"),
                ));
            }
            if self.nodes > MAX_NODES {
                return Err(format!("the filter has over {MAX_NODES} parts; write it shorter"));
            }
            self.node(visit.node, &visit.own)?;
            match &visit.node.expr {
                Expr::Select(select) => {
                    open.push(Visit {
                        node: &select.operand,
                        depth: visit.depth + 1,
                        own: visit.own,
                    });
                }
                Expr::Call(call) => {
                    let children: Vec<&IdedExpr> =
                        call.target.as_deref().into_iter().chain(&call.args).collect();
                    for child in children {
                        open.push(Visit {
                            node: child,
                            depth: visit.depth + 1,
                            own: visit.own.clone(),
                        });
                    }
                }
                Expr::Comprehension(inner) => {
                    let mut own = vec![inner.iter_var.as_str(), inner.accu_var.as_str()];
                    own.extend(inner.iter_var2.as_deref());
                    open.push(Visit {
                        node: &inner.iter_range,
                        depth: visit.depth + 1,
                        own: Vec::new(),
                    });
                    for node in [
                        &inner.accu_init,
                        &inner.loop_cond,
                        &inner.loop_step,
                        &inner.result,
                    ] {
                        open.push(Visit {
                            node,
                            depth: visit.depth + 1,
                            own: own.clone(),
                        });
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn node(&mut self, node: &IdedExpr, own: &[&str]) -> Result<(), String> {
        let in_loop = !own.is_empty();
        match &node.expr {
            Expr::Ident(name) => {
                if own.contains(&name.as_str()) || VARIABLES.contains(&name.as_str()) {
                    return Ok(());
                }
                let name = quote(name);
                Err(self.at(
                    node.id,
                    format!(
                        "there is no variable {name:?}; there are {}",
                        VARIABLES.join(", ")
                    ),
                ))
            }
            Expr::Literal(_) | Expr::Select(_) => Ok(()),
            Expr::List(list) => {
                let is_constant = |item: &IdedExpr| matches!(item.expr, Expr::Literal(_));
                if list.elements.iter().all(is_constant) && list.optional_indices.is_empty() {
                    Ok(())
                } else {
                    Err(self.at(node.id, "a list may hold constants only"))
                }
            }
            Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => {
                Err(self.at(node.id, "objects cannot be made in a filter"))
            }
            Expr::Comprehension(inner) => {
                if matches!(inner.accu_init.expr, Expr::List(_) | Expr::Map(_)) {
                    return Err(self.at(
                        node.id,
                        "`map` and `filter` build lists; use `all`, `exists` or `exists_one`",
                    ));
                }
                if in_loop {
                    return Err(self.at(
                        node.id,
                        "`all`, `exists` and `exists_one` cannot stand within each other",
                    ));
                }
                self.has_loop = true;
                self.work.once += 1;
                Ok(())
            }
            Expr::Call(call) => {
                self.count(call, own);
                let name = call.func_name.as_str();
                match name {
                    "matches" => self.pattern(node, call.args.last(), in_loop),
                    // The counter of `exists_one` adds literals.
                    SUM if in_loop
                        && !call
                            .args
                            .iter()
                            .any(|arg| matches!(arg.expr, Expr::Literal(LiteralValue::Int(_)))) =>
                    {
                        Err(self.at(
                            node.id,
                            "there are no sums within `all`, `exists` and `exists_one`",
                        ))
                    }
                    SUM => {
                        self.sums += 1;
                        if self.sums > MAX_SUMS {
                            return Err(self.at(node.id, format!("at most {MAX_SUMS} sums are allowed")));
                        }
                        Ok(())
                    }
                    name if OPERATORS.contains(&name)
                        || INNER.contains(&name)
                        || FUNCTIONS.contains(&name) =>
                    {
                        Ok(())
                    }
                    name => {
                        let name = quote(name);
                        let known = FUNCTIONS.join(", ");
                        Err(self.at(
                            node.id,
                            format!("there is no function {name:?}; there are {known}"),
                        ))
                    }
                }
            }
        }
    }

    fn pattern(&mut self, node: &IdedExpr, pattern: Option<&IdedExpr>, in_loop: bool) -> Result<(), String> {
        let literal = pattern.and_then(|pattern| match &pattern.expr {
            Expr::Literal(literal @ LiteralValue::String(_)) => {
                Value::try_from(literal.to_val().as_ref()).ok()
            }
            _ => None,
        });
        let Some(Value::String(text)) = literal else {
            return Err(self.at(node.id, "`matches` takes a text that stands in the filter"));
        };
        if in_loop {
            return Err(self.at(
                node.id,
                "`matches` cannot stand within `all`, `exists` and `exists_one`",
            ));
        }
        if text.len() > MAX_PATTERN || states(&text) > MAX_STATES {
            return Err(self.at(node.id, "the pattern of `matches` is too large; repeat less"));
        }
        self.patterns += 1;
        if self.patterns > MAX_MATCHES {
            return Err(self.at(
                node.id,
                format!("at most {MAX_MATCHES} uses of `matches` are allowed"),
            ));
        }
        if !is_pattern(&text) {
            let place = pattern.map_or(node.id, |pattern| pattern.id);
            let shown = quote(&text);
            let message = format!(
                "the pattern {shown:?} of `matches` is no regular expression; there is no look-around"
            );
            return Err(self.at(place, message));
        }
        Ok(())
    }
}

/// Roughly the states of a compiled pattern, never too few: every part as often as all its repetitions together say.
fn states(pattern: &str) -> usize {
    // Without regard to case every letter is a class.
    let has_flags = |(at, _): (usize, &str)| {
        let flag = pattern.get(at + 2..).and_then(|rest| rest.chars().next());
        flag.is_some_and(|flag| flag.is_alphabetic() && flag != 'P')
    };
    let letter = if pattern.match_indices("(?").any(has_flags) {
        CLASS
    } else {
        1
    };
    let (mut parts, mut times) = (0_usize, 1_usize);
    let mut rest = pattern.chars().peekable();
    while let Some(character) = rest.next() {
        parts = parts.saturating_add(match character {
            '\\' => match rest.next() {
                Some('p' | 'P' | 'w' | 'W') => LARGE_CLASS,
                Some(escaped) if escaped.is_alphabetic() => CLASS,
                _ => letter,
            },
            '.' | '[' => CLASS,
            _ => letter,
        });
        if character == '{' {
            let counts: String = std::iter::from_fn(|| rest.next_if(|next| *next != '}')).collect();
            let most = counts
                .split(',')
                .filter_map(|count| count.trim().parse::<usize>().ok())
                .max();
            times = times.saturating_mul(most.unwrap_or(1).max(1));
        }
    }
    parts.saturating_mul(times)
}
