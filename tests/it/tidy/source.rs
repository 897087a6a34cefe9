//! A reader of Rust source that is just good enough to list the paths a file names.
//!
//! It knows comments, strings, lifetimes, groups in `use` and which part of a file is for tests only. It does not
//! know scopes: a local module that is called like a dependency would be taken for it, and is to be renamed.

/// One path as it is written, groups written out: `use a::{b, c::d};` names `a::b` and `a::c::d`.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) path: String,
    pub(super) line: usize,
    /// Whether only tests compile it.
    pub(super) in_test: bool,
    /// How many `mod x { … }` of this file are around it.
    pub(super) inline_depth: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind<'a> {
    Word(&'a str),
    PathSeparator,
    Text(&'a str),
    Punctuation(char),
}

#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    kind: Kind<'a>,
    line: usize,
    in_test: bool,
    inline_depth: usize,
}

/// A file's tokens.
#[derive(Debug)]
pub(super) struct Source<'a> {
    tokens: Vec<Token<'a>>,
    names: Vec<Named>,
}

impl<'a> Source<'a> {
    /// Reads a file, or one that as a whole is for tests.
    pub(super) fn read(text: &'a str, for_tests: bool) -> Self {
        let mut tokens = tokens(text);
        mark_modules(&mut tokens);
        mark_tests(&mut tokens, for_tests);
        let names = names(&tokens);
        Self { tokens, names }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Named> {
        self.names.iter()
    }

    /// The modules in files of their own that only tests compile: `#[cfg(test)] mod x;`.
    pub(super) fn test_modules(&self) -> impl Iterator<Item = &'a str> {
        self.tokens.windows(3).filter_map(|window| match window {
            [
                Token {
                    kind: Kind::Word("mod"),
                    in_test: true,
                    ..
                },
                Token {
                    kind: Kind::Word(name),
                    ..
                },
                end,
            ] if end.kind == Kind::Punctuation(';') => Some(*name),
            _ => None,
        })
    }

    pub(super) fn has_code(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// Where a word stands outside tests.
    pub(super) fn lines_of_word(&self, word: &str) -> impl Iterator<Item = usize> {
        self.tokens
            .iter()
            .filter(move |token| !token.in_test && token.kind == Kind::Word(word))
            .map(|token| token.line)
    }

    /// Where a word stands in tests.
    pub(super) fn lines_of_word_in_tests(&self, word: &str) -> impl Iterator<Item = usize> {
        self.tokens
            .iter()
            .filter(move |token| token.in_test && token.kind == Kind::Word(word))
            .map(|token| token.line)
    }

    /// Where `.unwrap()` stands outside tests.
    pub(super) fn lines_of_unwrap(&self) -> impl Iterator<Item = usize> {
        let call = [
            Kind::Punctuation('.'),
            Kind::Word("unwrap"),
            Kind::Punctuation('('),
            Kind::Punctuation(')'),
        ];
        self.tokens
            .windows(call.len())
            .filter(move |window| !window[0].in_test && window.iter().map(|token| token.kind).eq(call))
            .map(|window| window[1].line)
    }
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let (length, kind) = next(rest, first);
        if let Some(kind) = kind {
            found.push(Token {
                kind,
                line,
                in_test: false,
                inline_depth: 0,
            });
        }
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    found
}

/// The length of the next token, and the token unless it is space or a comment.
fn next(rest: &str, first: char) -> (usize, Option<Kind<'_>>) {
    if first.is_whitespace() {
        return (first.len_utf8(), None);
    }
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), None);
    }
    if rest.starts_with("/*") {
        return (block_comment(rest), None);
    }
    if let Some((start, end, length)) = string(rest) {
        return (length, Some(Kind::Text(&rest[start..end])));
    }
    if first == '\'' {
        return (quote(rest), None);
    }
    if is_word(first) {
        let word = rest.strip_prefix("r#").unwrap_or(rest);
        let skipped = rest.len() - word.len();
        let length = word.find(|character| !is_word(character)).unwrap_or(word.len());
        return (skipped + length, Some(Kind::Word(&word[..length])));
    }
    if rest.starts_with("::") {
        return (2, Some(Kind::PathSeparator));
    }
    (first.len_utf8(), Some(Kind::Punctuation(first)))
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        let here = &rest[at..];
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// Start and end of a string's content and its whole length, when a string of any kind begins here.
fn string(rest: &str) -> Option<(usize, usize, usize)> {
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| {
        let after = rest.strip_prefix(prefix);
        after.is_some_and(|after| {
            after.starts_with('"')
                || (prefix.ends_with('r') && after.trim_start_matches('#').starts_with('"'))
        })
    })?;
    let opening = &rest[prefix.len()..];
    if prefix.ends_with('r') {
        let hashes = opening.find('"')?;
        let start = prefix.len() + hashes + 1;
        let closing = format!("\"{}", "#".repeat(hashes));
        let length = rest[start..].find(&closing).map_or(rest.len() - start, |at| at);
        let whole = (start + length + closing.len()).min(rest.len());
        return Some((start, start + length, whole));
    }
    let start = prefix.len() + 1;
    let mut escaped = false;
    for (at, character) in rest[start..].char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some((start, start + at, start + at + 1)),
            _ => {}
        }
    }
    Some((start, rest.len(), rest.len()))
}

/// The length of a character literal, or of a lifetime's quotation mark.
fn quote(rest: &str) -> usize {
    let mut characters = rest.char_indices().skip(1);
    match characters.next() {
        Some((_, '\\')) => {
            // The character after the backslash may itself be a quotation mark.
            let after = rest
                .char_indices()
                .skip(3)
                .find(|(_, character)| *character == '\'');
            after.map_or(rest.len(), |(at, _)| at + 1)
        }
        Some(_) => match characters.next() {
            Some((at, '\'')) => at + 1,
            _ => 1,
        },
        None => 1,
    }
}

/// The index after the item that starts at `from`: its `;`, or the end of its first braces.
fn end_of_item(tokens: &[Token<'_>], from: usize) -> usize {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(from) {
        match token.kind {
            Kind::Punctuation('{' | '(' | '[') => depth += 1,
            Kind::Punctuation(closing @ ('}' | ')' | ']')) => {
                depth = depth.saturating_sub(1);
                if depth == 0 && closing == '}' {
                    return index + 1;
                }
            }
            Kind::Punctuation(';') if depth == 0 => return index + 1,
            _ => {}
        }
    }
    tokens.len()
}

/// Notes for each token how many `mod x { … }` are around it.
fn mark_modules(tokens: &mut [Token<'_>]) {
    for index in 0..tokens.len() {
        let opens = matches!(tokens[index].kind, Kind::Word("mod"))
            && matches!(tokens.get(index + 1).map(|token| token.kind), Some(Kind::Word(_)))
            && matches!(
                tokens.get(index + 2).map(|token| token.kind),
                Some(Kind::Punctuation('{'))
            );
        if opens {
            let end = end_of_item(tokens, index);
            tokens[index + 3..end]
                .iter_mut()
                .for_each(|token| token.inline_depth += 1);
        }
    }
}

/// Notes which tokens only tests compile: the items behind `#[cfg(test)]` and `#[test]`.
fn mark_tests(tokens: &mut [Token<'_>], all: bool) {
    const CFG_TEST: [Kind<'_>; 7] = [
        Kind::Punctuation('#'),
        Kind::Punctuation('['),
        Kind::Word("cfg"),
        Kind::Punctuation('('),
        Kind::Word("test"),
        Kind::Punctuation(')'),
        Kind::Punctuation(']'),
    ];
    if all {
        for token in tokens {
            token.in_test = true;
        }
        return;
    }
    for index in 0..tokens.len() {
        let here = tokens[index..]
            .iter()
            .take(CFG_TEST.len())
            .map(|token| token.kind);
        if here.eq(CFG_TEST) {
            let end = end_of_item(tokens, index + CFG_TEST.len());
            tokens[index..end]
                .iter_mut()
                .for_each(|token| token.in_test = true);
        }
    }
}

/// Every path the tokens name.
fn names(tokens: &[Token<'_>]) -> Vec<Named> {
    let mut found = Vec::new();
    let mut index = 0;
    while index < tokens.len() {
        let token = tokens[index];
        match token.kind {
            Kind::Word("use") => {
                index = group(tokens, index + 1, "", &mut found);
                continue;
            }
            Kind::Word("extern") if matches!(kind(tokens, index + 1), Some(Kind::Word("crate"))) => {
                if let Some(Kind::Word(name)) = kind(tokens, index + 2) {
                    found.push(named(token, name.to_owned()));
                }
                index += 3;
                continue;
            }
            Kind::Word(word) if begins_path(tokens, index) => {
                let mut path = word.to_owned();
                while let (Some(Kind::PathSeparator), Some(Kind::Word(next))) =
                    (kind(tokens, index + 1), kind(tokens, index + 2))
                {
                    path.push_str("::");
                    path.push_str(next);
                    index += 2;
                }
                found.push(named(token, path));
            }
            // An attribute may name a path as text: `#[serde(with = "crate::a::b")]`.
            Kind::Text(text) if is_path(text) => found.push(named(token, text.to_owned())),
            _ => {}
        }
        index += 1;
    }
    found
}

fn named(token: Token<'_>, path: String) -> Named {
    Named {
        path,
        line: token.line,
        in_test: token.in_test,
        inline_depth: token.inline_depth,
    }
}

fn kind<'a>(tokens: &[Token<'a>], index: usize) -> Option<Kind<'a>> {
    tokens.get(index).map(|token| token.kind)
}

/// Whether the word is the first of a path of several.
fn begins_path(tokens: &[Token<'_>], index: usize) -> bool {
    if kind(tokens, index + 1) != Some(Kind::PathSeparator) {
        return false;
    }
    match index.checked_sub(1).and_then(|before| kind(tokens, before)) {
        Some(Kind::PathSeparator) => {
            // `::tokio::time` begins at the root; `Vec::<u8>::new` and `a::b` do not begin here.
            !matches!(
                index.checked_sub(2).and_then(|before| kind(tokens, before)),
                Some(Kind::Word(_) | Kind::Punctuation('>'))
            )
        }
        Some(Kind::Punctuation('.')) => false,
        _ => true,
    }
}

fn is_path(text: &str) -> bool {
    text.contains("::")
        && text
            .split("::")
            .all(|word| !word.is_empty() && word.chars().all(is_word))
}

/// Reads one tree of a `use` and returns the index after it; `self` stands for the prefix.
fn group(tokens: &[Token<'_>], mut index: usize, prefix: &str, found: &mut Vec<Named>) -> usize {
    let mut path = prefix.to_owned();
    let mut last = None;
    while let Some(token) = tokens.get(index) {
        match token.kind {
            Kind::Word("as") => index += 1, // the new name says nothing about the layer
            Kind::Word("self") if !path.is_empty() => last = Some(*token),
            Kind::Word(word) => {
                append(&mut path, word);
                last = Some(*token);
            }
            Kind::Punctuation('*') => {
                append(&mut path, "*");
                last = Some(*token);
            }
            Kind::PathSeparator => {}
            Kind::Punctuation('{') => {
                index += 1;
                while !matches!(kind(tokens, index), None | Some(Kind::Punctuation('}'))) {
                    index = group(tokens, index, &path, found);
                    if kind(tokens, index) == Some(Kind::Punctuation(',')) {
                        index += 1;
                    }
                }
                return index + 1;
            }
            _ => break, // `,` `}` `;`
        }
        index += 1;
    }
    if let Some(token) = last {
        found.push(named(token, path));
    }
    // Something unexpected, such as `impl Trait + use<'a>`, must not be read forever.
    if matches!(kind(tokens, index), Some(Kind::Punctuation(',' | '}'))) {
        index
    } else {
        index + 1
    }
}

fn append(path: &mut String, word: &str) {
    if !path.is_empty() {
        path.push_str("::");
    }
    path.push_str(word);
}
