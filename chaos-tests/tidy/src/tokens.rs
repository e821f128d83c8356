//! Rust code as tokens: calls with bare numbers, tasks without an owner, queues without an end.
//!
//! Tokens, not text: strings and comments are no code, and macro bodies are. Tests are left out, and so is what
//! stands in a `const`, a `static` or an `impl Default`: there a number has a name.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use crate::{Complaint, source::File};

/// A buffer this large is a limit, not a hint.
const CAPACITY_HINT_MAX: f64 = 4096.0;

/// A queue of one is a slot: what it is says why.
const SLOT: f64 = 1.0;

/// Functions that take a limit, whatever they are called on.
const LIMITED: [&str; 6] =
    ["channel", "sync_channel", "buffered", "buffer_unordered", "for_each_concurrent", "timeout"];

/// Words that say that a function takes a limit when its name has one.
const LIMIT_WORDS: [&str; 8] =
    ["max", "limit", "timeout", "deadline", "interval", "capacity", "window", "buffer"];

/// Types that bring the time or the network with them.
const WORLDLY: [&str; 6] =
    ["Instant", "SystemTime", "TcpListener", "TcpStream", "UdpSocket", "UnixStream"];

/// Parts of `std` that reach out of the program.
const WORLDLY_STD: [&str; 4] = ["env", "fs", "process", "thread"];

/// Limits, waits and queue sizes that are bare numbers where they are used.
#[must_use]
pub fn limit_complaints(file: &File) -> Vec<Complaint> {
    let mut wrong = Vec::new();
    visit(file, &mut |before, call, after| {
        let name = call.to_string();
        let Some(arguments) = arguments(after) else { return };
        let bare = if is_path(before, "Duration") && name.starts_with("from_") {
            bare_numbers(&arguments, 0.0)
        } else if name == "with_capacity" {
            bare_numbers(&arguments, CAPACITY_HINT_MAX)
        } else {
            let semaphore = is_path(before, "Semaphore") && name == "new";
            (semaphore || takes_a_limit(&name)) && bare_numbers(&arguments, SLOT)
        };
        if bare {
            wrong.push(format!(
                "{}:{}: `{name}{arguments}`: give the number a name (a `const` that says why)",
                file.path,
                call.span().start().line,
            ));
        }
    });
    wrong
}

/// Whether a function of this name takes a limit. `max` alone is arithmetic.
fn takes_a_limit(name: &str) -> bool {
    let said = name.contains('_') && name.split('_').any(|word| LIMIT_WORDS.contains(&word));
    said || LIMITED.contains(&name)
}

/// Tasks that nobody owns and queues that have no end.
#[must_use]
pub fn owner_complaints(file: &File) -> Vec<Complaint> {
    let mut wrong = Vec::new();
    visit(file, &mut |before, word, after| {
        let name = word.to_string();
        let spawns = ["spawn", "spawn_local"].contains(&name.as_str());
        let spawns = spawns && (is_path(before, "tokio") || is_path(before, "task"));
        let imported = ["tokio", "task"].contains(&name.as_str()) && imports(after, "spawn");
        let complaint = if spawns || imported {
            "spawn into a JoinSet or a TaskTracker that somebody owns"
        } else if ["unbounded_channel", "unbounded"].contains(&name.as_str()) {
            "every queue has an end"
        } else if name == "channel" && is_path(before, "mpsc") && has_no_arguments(after) {
            "every queue has an end: use sync_channel"
        } else {
            return;
        };
        let line = word.span().start().line;
        wrong.push(format!("{}:{line}: `{name}`: {complaint}", file.path));
    });
    wrong
}

/// The time, the disk or the network in code that must not know them. `sockets_only`: the service has a clock.
#[must_use]
pub fn world_complaints(file: &File, sockets_only: bool) -> Vec<Complaint> {
    let mut wrong = Vec::new();
    let types = if sockets_only { &WORLDLY[2..] } else { &WORLDLY[..] };
    let parts: &[&str] = if sockets_only { &[] } else { &WORLDLY_STD };
    visit(file, &mut |before, word, after| {
        let name = word.to_string();
        let part = is_path(before, "std") && parts.contains(&name.as_str());
        let imported = name == "std" && parts.iter().any(|part| imports(after, part));
        if types.contains(&name.as_str()) || part || imported {
            let line = word.span().start().line;
            wrong.push(format!("{}:{line}: `{name}`: this crate must not know it", file.path));
        }
    });
    wrong
}

/// Sees the tokens before a word, the word, and the tokens after it.
type Check<'a> = dyn FnMut(&[TokenTree], &TokenTree, &[TokenTree]) + 'a;

/// Calls `check` with each word of code that ships.
fn visit(file: &File, check: &mut Check<'_>) {
    match file.text.parse::<TokenStream>() {
        Ok(stream) => visit_stream(stream, check),
        // rustc says it better.
        Err(error) => panic!("{}: {error}", file.path),
    }
}

fn visit_stream(stream: TokenStream, check: &mut Check<'_>) {
    let trees: Vec<TokenTree> = stream.into_iter().collect();
    let mut at = 0;
    while at < trees.len() {
        if let Some((attribute, after)) = attribute(&trees, at) {
            at = if is_test(attribute) { end_of_item(&trees, after) } else { after };
            continue;
        }
        if names_a_number(&trees, at) {
            at += trees[at..].iter().take_while(|tree| !is_punct(tree, ';')).count();
            continue;
        }
        if matches!(trees[at], TokenTree::Ident(_)) && is_defaults(&trees, at) {
            at = end_of_item(&trees, at);
            continue;
        }
        match &trees[at] {
            TokenTree::Ident(_) => check(&trees[..at], &trees[at], &trees[at + 1..]),
            TokenTree::Group(group) => visit_stream(group.stream(), check),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
        at += 1;
    }
}

/// The attribute that starts here, and where it ends.
fn attribute(trees: &[TokenTree], at: usize) -> Option<(&Group, usize)> {
    if !is_punct(trees.get(at)?, '#') {
        return None;
    }
    let at = if is_punct(trees.get(at + 1)?, '!') { at + 2 } else { at + 1 };
    let TokenTree::Group(group) = trees.get(at)? else { return None };
    (group.delimiter() == Delimiter::Bracket).then_some((group, at + 1))
}

/// `#[test]`, `#[tokio::test(…)]`, `#[cfg(test)]`, `#[cfg(any(test, …))]`.
fn is_test(attribute: &Group) -> bool {
    let text = attribute.stream().to_string();
    let mut words =
        text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty());
    match words.next() {
        Some("cfg") => {
            let words: Vec<&str> = words.collect();
            words.contains(&"test") && !words.contains(&"not")
        }
        Some("test") => true,
        Some("tokio") => words.next() == Some("test"),
        _ => false,
    }
}

/// Behind the item that starts here: its body or its semicolon.
fn end_of_item(trees: &[TokenTree], at: usize) -> usize {
    let ends = |tree: &TokenTree| match tree {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(_) | TokenTree::Ident(_) | TokenTree::Literal(_) => is_punct(tree, ';'),
    };
    at + trees[at..].iter().position(ends).map_or(trees.len() - at, |end| end + 1)
}

/// Whether `impl Default for …` starts here: a setting's name is its field, and its reason stands there.
fn is_defaults(trees: &[TokenTree], at: usize) -> bool {
    let words = trees[at..].iter().take_while(|tree| !matches!(tree, TokenTree::Group(_)));
    let words: Vec<String> = words.map(ToString::to_string).collect();
    words[0] == "impl" && words.windows(2).any(|pair| pair == ["Default", "for"])
}

/// Whether a `const` or `static` item starts here (not `const fn`, `*const T`, `<const N: …>`, `&'static T`).
fn names_a_number(trees: &[TokenTree], at: usize) -> bool {
    let is_item = |word: &str| word == "const" || word == "static";
    let named = match trees.get(at + 1) {
        Some(TokenTree::Ident(name)) => {
            !["fn", "async", "unsafe", "extern"].iter().any(|w| name == w)
        }
        _ => false,
    };
    let free = match at.checked_sub(1).map(|before| &trees[before]) {
        Some(TokenTree::Punct(before)) => !['<', ',', '*', '\''].contains(&before.as_char()),
        _ => true,
    };
    named && free && is_item(&trees[at].to_string())
}

fn is_punct(tree: &TokenTree, expected: char) -> bool {
    matches!(tree, TokenTree::Punct(punct) if punct.as_char() == expected)
}

/// Whether what stands before is `name::`.
fn is_path(before: &[TokenTree], name: &str) -> bool {
    match before {
        [.., TokenTree::Ident(word), a, b] => word == name && is_punct(a, ':') && is_punct(b, ':'),
        _ => false,
    }
}

/// Whether what follows is `::name` or `::{…, name, …}`.
fn imports(after: &[TokenTree], name: &str) -> bool {
    match after {
        [a, b, TokenTree::Group(group), ..] if is_punct(a, ':') && is_punct(b, ':') => {
            group.stream().into_iter().any(|tree| matches!(tree, TokenTree::Ident(w) if w == name))
        }
        _ => false,
    }
}

/// The arguments of the call that follows, a turbofish skipped.
fn arguments(after: &[TokenTree]) -> Option<Group> {
    let skipped = match after {
        [a, b, c, ..] if is_punct(a, ':') && is_punct(b, ':') && is_punct(c, '<') => {
            let mut depth = 0_i32;
            let closes = |tree: &TokenTree| {
                depth += i32::from(is_punct(tree, '<')) - i32::from(is_punct(tree, '>'));
                depth == 0
            };
            after[2..].iter().position(closes)? + 3
        }
        _ => 0,
    };
    let TokenTree::Group(group) = after.get(skipped)? else { return None };
    (group.delimiter() == Delimiter::Parenthesis).then(|| group.clone())
}

fn has_no_arguments(after: &[TokenTree]) -> bool {
    arguments(after).is_some_and(|arguments| arguments.stream().is_empty())
}

/// Whether one of the arguments is a number above `hint_max` (or a product of numbers) and nothing else.
fn bare_numbers(arguments: &Group, hint_max: f64) -> bool {
    let trees: Vec<TokenTree> = arguments.stream().into_iter().collect();
    let operator = |tree: &TokenTree| ['*', '+', '-', '<'].iter().any(|c| is_punct(tree, *c));
    trees.split(|tree| is_punct(tree, ',')).any(|argument| {
        let numbers: Vec<f64> = argument.iter().filter_map(number).collect();
        let only = argument.iter().all(|tree| number(tree).is_some() || operator(tree));
        let large = numbers.len() > 1 || numbers.iter().any(|number| *number > hint_max);
        only && large
    })
}

/// The value of a numeric literal; hexadecimal and binary ones count as large.
fn number(tree: &TokenTree) -> Option<f64> {
    let TokenTree::Literal(literal) = tree else { return None };
    let text = literal.to_string().replace('_', "");
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let based = text.starts_with("0x") || text.starts_with("0b");
    Some(if based { f64::INFINITY } else { text[..digits].parse().unwrap_or(f64::INFINITY) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> File {
        File { path: "node/edge/src/listener.rs".to_owned(), text: text.to_owned() }
    }

    fn check(complaints: impl Fn(&File) -> Vec<Complaint>, table: &[(&str, usize)]) {
        for (text, expected) in table {
            let found = complaints(&file(text));
            assert_eq!(found.len(), *expected, "{text}: {found:?}");
        }
    }

    #[test]
    fn a_bare_limit_is_seen() {
        #[rustfmt::skip]
        let table = [
            ("fn f() { mpsc::channel(64) }",                                 1),
            ("fn f() { mpsc::channel::<Vec<u8>>(64) }",                      1),
            ("fn f() { mpsc::channel(64 * 1024) }",                          1),
            ("fn f() { mpsc::channel(QUEUE_MAX) }",                          0),
            ("fn f() { oneshot::channel() }",                                0),
            ("fn f() { mpsc::channel(1) }",                                  0),
            ("fn f() { Duration::from_secs(1) }",                            1),
            ("impl Default for C { fn default() -> Self { C { a: Duration::from_secs(5) } } }", 0),
            ("impl Defaults for C { fn f() { Duration::from_secs(5) } }",    1),
            ("fn f() { timeout(Duration::from_secs(5), x) }",                1),
            ("fn f() { select! { () = sleep(Duration::from_secs(5)) => {} } }", 1),
            ("fn f() { Duration::from_millis(config.drain_ms) }",            0),
            ("fn f() { Duration::from_secs(0) }",                            0),
            ("fn f() { Semaphore::new(16) }",                                1),
            ("fn f() { Window::new(16) }",                                   0),
            ("fn f() { builder.max_frame_size(1 << 20) }",                   1),
            ("fn f() { a.max(1) }",                                          0),
            ("fn f() { Vec::with_capacity(16) }",                            0),
            ("fn f() { Vec::with_capacity(65_536) }",                        1),
            ("const WAIT: Duration = Duration::from_secs(5);",               0),
            ("impl A { const WAIT: Duration = Duration::from_secs(5); }",    0),
            ("static WAIT: Duration = Duration::from_secs(5);",              0),
            ("const fn f() { Duration::from_secs(5) }",                      1),
            ("fn f<const N: usize>(a: &'static str) { Duration::from_secs(5) }", 1),
            ("#[test] fn f() { Duration::from_secs(5) }",                    0),
            ("#[tokio::test(flavor = \"multi_thread\")] async fn f() { mpsc::channel(64) }", 0),
            ("#[cfg(test)] mod tests { fn f() { mpsc::channel(64) } }",      0),
            ("#[cfg(not(test))] mod real { fn f() { mpsc::channel(64) } }",  1),
            ("#[cfg(test)] use a::b; fn f() { mpsc::channel(64) }",          1),
            ("// mpsc::channel(64)\nfn f() { \"mpsc::channel(64)\" }",       0),
        ];
        check(limit_complaints, &table);
    }

    #[test]
    fn a_task_without_an_owner_is_seen() {
        #[rustfmt::skip]
        let table = [
            ("fn f() { tokio::spawn(x) }",              1),
            ("fn f() { tokio::task::spawn(x) }",        1),
            ("use tokio::{net::TcpStream, spawn};",     1),
            ("fn f() { connections.spawn(x) }",         0),
            ("fn f() { mpsc::unbounded_channel() }",    1),
            ("fn f() { mpsc::channel() }",              1),
            ("fn f() { mpsc::channel::<u8>() }",        1),
            ("fn f() { mpsc::channel(QUEUE_MAX) }",     0),
            ("#[test] fn f() { mpsc::channel() }",      0),
        ];
        check(owner_complaints, &table);
    }

    #[test]
    fn the_world_in_a_pure_crate_is_seen() {
        #[rustfmt::skip]
        let table = [
            ("use std::time::Instant;",                 1),
            ("use std::{fmt, fs};",                     1),
            ("fn f() { std::thread::spawn(x) }",        1),
            ("use std::net::SocketAddr;",               0),
            ("#[cfg(test)] mod tests { use std::fs; }", 0),
        ];
        check(|file| world_complaints(file, false), &table);
        check(|file| world_complaints(file, true), &[("use std::time::Instant;", 0)]);
        check(|file| world_complaints(file, true), &[("use tokio::net::TcpStream;", 1)]);
    }

    #[test]
    fn a_complaint_names_the_line() {
        let found = limit_complaints(&file("//! A file.\n\nfn f() {\n    channel(64)\n}\n"));
        let expected = "node/edge/src/listener.rs:4: `channel(64)`: give the number a name (a `const` that says why)";
        assert_eq!(found, [expected]);
    }
}
