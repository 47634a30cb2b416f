//! Rust source as far as imports show in it: modules, `use` trees, and paths that begin with `crate`,
//! `super`, `self` or a child. What is compiled for tests only is left out.

use std::collections::{BTreeMap, BTreeSet};

/// A part of source text. Lifetimes, numbers and characters are of no interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Word(&'a str),
    /// The inside of a string.
    Text(&'a str),
    /// `::`
    Step,
    Mark(char),
}

/// What a file says of modules.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct File {
    /// Modules in files of their own, and the file's name where an attribute gives it.
    pub(super) children: Vec<(String, Option<String>)>,
    /// Paths that it mentions: of `use` and in the code.
    pub(super) paths: Vec<Vec<String>>,
    /// Those that it does something with itself: all but names that a `pub use` brings and that stand nowhere
    /// else in it.
    pub(super) own_paths: Vec<Vec<String>>,
    /// Names that its `use`s bring, for those who import them from here.
    pub(super) names: BTreeMap<String, Vec<String>>,
}

impl File {
    pub(super) fn parse(text: &str) -> Self {
        let tokens = without_tests(&tokens(text));
        let (mut file, mut at) = (Self::default(), 0);
        // Modules inside the file that are open: how deep their braces are.
        let (mut depth, mut inner) = (0_usize, Vec::new());
        let (mut passed_on, mut words, mut relative) = (Vec::new(), BTreeSet::new(), Vec::new());
        while let Some(&token) = tokens.get(at) {
            let rest = &tokens[at..];
            at += 1;
            match (token, rest) {
                (_, [Token::Word("mod"), Token::Word(name), Token::Mark(';'), ..]) => {
                    file.children.push(((*name).to_owned(), path_attribute(&tokens[..at - 1])));
                }
                (_, [Token::Word("mod"), Token::Word(_), Token::Mark('{'), ..]) => inner.push(depth + 1),
                (Token::Mark('{'), _) => depth += 1,
                (Token::Mark('}'), _) => {
                    inner.pop_if(|open| *open == depth);
                    depth = depth.saturating_sub(1);
                }
                (Token::Word("use"), _) => {
                    let end = rest.iter().position(|token| *token == Token::Mark(';')).unwrap_or(rest.len());
                    let mut found = Vec::new();
                    use_tree(&rest[1..end], &[], &mut found);
                    let is_public = matches!(tokens[..at - 1], [.., Token::Word("pub") | Token::Mark(')')]);
                    for (path, name) in found {
                        let path = out_of(inner.len(), path);
                        file.names.insert(name.clone(), path.clone());
                        file.paths.push(path.clone());
                        if is_public {
                            passed_on.push((name, path));
                        } else {
                            file.own_paths.push(path);
                        }
                    }
                    at += end;
                }
                (Token::Word("crate" | "super" | "self"), _) if at < 2 || tokens[at - 2] != Token::Step => {
                    let path = path_at(rest);
                    at += 2 * (path.len() - 1);
                    let path = out_of(inner.len(), path);
                    file.paths.push(path.clone());
                    file.own_paths.push(path);
                }
                (Token::Word(word), _) => {
                    words.insert(word);
                    // Of paths that begin with a child, which may be declared further down.
                    if rest.get(1) == Some(&Token::Step)
                        && (at < 2 || !matches!(tokens[at - 2], Token::Step | Token::Mark('.')))
                    {
                        relative.push(out_of(inner.len(), path_at(rest)));
                    }
                }
                _ => {}
            }
        }
        relative.retain(|path| file.children.iter().any(|(child, _)| path.first() == Some(child)));
        file.paths.extend(relative.iter().cloned());
        file.own_paths.append(&mut relative);
        let is_used = |(name, _): &(String, Vec<String>)| words.contains(&**name);
        file.own_paths.extend(passed_on.into_iter().filter(is_used).map(|(_, path)| path));
        file
    }
}

/// A path as it reads from the file, not from a module inside it.
fn out_of(inner: usize, mut path: Vec<String>) -> Vec<String> {
    for _ in 0..inner {
        if path.first().is_some_and(|first| first == "super") {
            path.remove(0);
            if path.first().is_none_or(|first| first != "super") {
                path.insert(0, "self".to_owned());
                break;
            }
        }
    }
    path
}

/// Words with steps between them.
fn path_at(tokens: &[Token<'_>]) -> Vec<String> {
    let mut path = Vec::new();
    let mut rest = tokens;
    while let [Token::Word(word), tail @ ..] = rest {
        path.push((*word).to_owned());
        let [Token::Step, after @ ..] = tail else { break };
        if !matches!(after, [Token::Word(_), ..]) {
            break;
        }
        rest = after;
    }
    path
}

/// The file that `#[path = "..."]` names right before a `mod`.
fn path_attribute(before: &[Token<'_>]) -> Option<String> {
    let before = match before {
        [head @ .., Token::Word("pub")] => head,
        other => other,
    };
    match before {
        [.., Token::Word("path"), Token::Mark('='), Token::Text(name), Token::Mark(']')] => {
            Some((*name).to_owned())
        }
        _ => None,
    }
}

/// The paths of a `use`, each with the name that it brings.
fn use_tree(tokens: &[Token<'_>], prefix: &[String], found: &mut Vec<(Vec<String>, String)>) {
    let (mut path, mut at) = (prefix.to_vec(), 0);
    while let Some(token) = tokens.get(at) {
        match token {
            Token::Word("as") => break,
            Token::Word("self") if !path.is_empty() => {}
            Token::Word(word) => path.push((*word).to_owned()),
            Token::Mark('*') => path.push("*".to_owned()),
            Token::Mark('{') => {
                let inside = &tokens[at + 1..tokens.len() - 1];
                return branches(inside).into_iter().for_each(|branch| use_tree(branch, &path, found));
            }
            _ => {}
        }
        at += 1;
    }
    let renamed = match tokens.get(at..) {
        Some([Token::Word("as"), Token::Word(name), ..]) => Some((*name).to_owned()),
        _ => None,
    };
    if let Some(name) = renamed.or_else(|| path.last().cloned()) {
        found.push((path, name));
    }
}

/// Splits at commas that stand in no braces.
fn branches<'t, 'a>(tokens: &'t [Token<'a>]) -> Vec<&'t [Token<'a>]> {
    let mut depth = 0;
    let mut parts = tokens.split(|token| {
        match token {
            Token::Mark('{') => depth += 1,
            Token::Mark('}') => depth -= 1,
            _ => {}
        }
        depth == 0 && *token == Token::Mark(',')
    });
    parts.by_ref().filter(|part| !part.is_empty()).collect()
}

/// Without what stands behind `#[cfg(test)]` or `#[cfg(all(test, ...))]`: an item, a statement.
fn without_tests<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    use Token::{Mark, Word};
    let (mut kept, mut at) = (Vec::new(), 0);
    while let Some(token) = tokens.get(at) {
        let rest = &tokens[at..];
        let test =
            matches!(rest, [Mark('#'), Mark('['), Word("cfg"), Mark('('), Word("test"), Mark(')'), ..])
                || matches!(
                    rest,
                    [Mark('#'), Mark('['), Word("cfg"), Mark('('), Word("all"), Mark('('), Word("test"), ..]
                );
        if test {
            at += attribute(rest);
            at += item(&tokens[at..]);
        } else {
            kept.push(*token);
            at += 1;
        }
    }
    kept
}

/// Tokens of the attribute at the beginning.
fn attribute(tokens: &[Token<'_>]) -> usize {
    tokens.iter().position(|token| *token == Token::Mark(']')).map_or(tokens.len(), |end| end + 1)
}

/// Tokens of the item or statement at the beginning, with further attributes: to a `;` outside of braces or
/// to its last brace, but never out of the braces around it.
fn item(tokens: &[Token<'_>]) -> usize {
    let mut at = 0;
    while let [Token::Mark('#'), Token::Mark('['), ..] = tokens[at..] {
        at += attribute(&tokens[at..]);
    }
    let mut depth = 0_usize;
    for (length, token) in tokens.iter().enumerate().skip(at) {
        match token {
            Token::Mark('{' | '(' | '[') => depth += 1,
            Token::Mark('}') if depth == 0 => return length,
            Token::Mark('}') if depth == 1 => return length + 1,
            Token::Mark('}' | ')' | ']') => depth = depth.saturating_sub(1),
            Token::Mark(';') if depth == 0 => return length + 1,
            _ => {}
        }
    }
    tokens.len()
}

pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some(first) = rest.chars().next() {
        let len = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            comment(rest)
        } else if let Some((open, close)) = quotes(rest) {
            let inside = &rest[open..];
            let end = string(inside, &close);
            found.push(Token::Text(&inside[..end]));
            (open + end + close.len()).min(rest.len())
        } else if first == '\'' {
            character(rest)
        } else if first.is_alphanumeric() || first == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            found.push(Token::Word(&rest[..end]));
            end
        } else if rest.starts_with("::") {
            found.push(Token::Step);
            2
        } else {
            if !first.is_whitespace() {
                found.push(Token::Mark(first));
            }
            first.len_utf8()
        };
        rest = &rest[len..];
    }
    found
}

/// Bytes of a block comment, which may hold others.
fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let pair = text.as_bytes().get(at..at + 2).unwrap_or_default();
        match pair {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            break;
        }
    }
    at
}

/// If a string begins here: the bytes before its inside, and what closes it.
fn quotes(text: &str) -> Option<(usize, String)> {
    let body = text.strip_prefix(['b', 'c']).unwrap_or(text);
    let raw = body.strip_prefix('r');
    let hashes = raw.map_or(0, |raw| raw.len() - raw.trim_start_matches('#').len());
    let before = text.len() - body.len() + raw.map_or(0, |_| 1 + hashes);
    text.get(before..)?.starts_with('"').then(|| {
        let close = format!("\"{}", "#".repeat(hashes));
        (before + 1, if raw.is_some() { format!("{close}\0") } else { close })
    })
}

/// Bytes up to what closes a string; a raw one is marked by a NUL behind that.
fn string(inside: &str, close: &str) -> usize {
    if let Some(close) = close.strip_suffix('\0') {
        return inside.find(close).unwrap_or(inside.len());
    }
    let mut escaped = false;
    let end = inside.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.unwrap_or(inside.len())
}

/// Bytes of a character, or of the quote of a lifetime.
fn character(text: &str) -> usize {
    let inside = &text[1..];
    let Some(first) = inside.chars().next() else { return 1 };
    if first == '\\' {
        // The character behind the backslash may be a quote.
        return inside.get(2..).and_then(|tail| tail.find('\'')).map_or(text.len(), |end| end + 4);
    }
    match inside[first.len_utf8()..].starts_with('\'') {
        true => first.len_utf8() + 2,
        false => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        File::parse(text).paths.into_iter().map(|path| path.join("::")).collect()
    }

    #[test]
    fn trees_of_use_are_taken_apart() {
        let file = File::parse("pub use super::{a::{self, B as C}, d, e::*};\nuse std::io;");
        let paths: Vec<_> = file.paths.iter().map(|path| path.join("::")).collect();
        assert_eq!(paths, ["super::a", "super::a::B", "super::d", "super::e::*", "std::io"]);
        assert_eq!(file.names["C"].join("::"), "super::a::B");
        assert!(file.names.contains_key("a") && !file.names.contains_key("B"));
        assert_eq!(file.own_paths, [["std", "io"]]);
        let own =
            |text| File::parse(text).own_paths.into_iter().map(|path| path.join("::")).collect::<Vec<_>>();
        assert_eq!(own("pub use a::{B, C}; use d::E; fn f(c: C) {}"), ["d::E", "a::C"]);
    }

    #[test]
    fn paths_in_code_are_seen_and_those_in_comments_and_strings_are_not() {
        let text = r####"
            // crate::no
            /* crate::no /* crate::no */ crate::no */
            fn f<'a>(x: &'a crate::yes::X) { g("crate::no \" crate::no", '"', '\'', b'{', r#"crate::no""#) }
            impl super::also::Y for Z { const C: char = '\u{7f}'; }
            fn h() { other::crate_name::i(); self::too::j::<u8>() }
        "####;
        assert_eq!(paths(text), ["crate::yes::X", "super::also::Y", "self::too::j"]);
    }

    #[test]
    fn what_is_for_tests_is_left_out() {
        let text = "
            #[cfg(test)]
            #[allow(dead_code)]
            mod tests { use crate::no; fn f() { if true {} crate::no() } }
            #[cfg(test)]
            mod files;
            #[cfg(all(test, feature = \"net\"))]
            use crate::no::{a, b};
            fn f() { #[cfg(test)] crate::no::trip(); crate::yes() }
            struct S { #[cfg(test)] field: crate::no::T }
            mod real;
            use super::last;
        ";
        let file = File::parse(text);
        assert_eq!(file.children, [("real".to_owned(), None)]);
        assert_eq!(paths(text), ["crate::yes", "super::last"]);
    }

    #[test]
    fn modules_inside_a_file_count_as_the_file() {
        let text =
            "mod sealed { pub trait T: super::U {} fn f() { super::super::g() } } fn h() { super::i() }";
        assert_eq!(paths(text), ["self::U", "super::g", "super::i"]);
        assert_eq!(
            File::parse("#[path = \"x/y.rs\"]\nmod z;\nmod w;").children,
            [("z".to_owned(), Some("x/y.rs".to_owned())), ("w".to_owned(), None)]
        );
    }
}
