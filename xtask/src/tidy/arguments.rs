//! How many arguments functions take.
//!
//! Whatever is written `fn name(…)` counts, in macros and tests too, but for what others prescribe: functions of a
//! foreign calling convention (`extern "C"`) and, in them, blocks of declarations. `self` is no argument, and what a
//! macro repeats counts once.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use super::source::{is, word};

/// How many arguments a function may take, beside `self`.
const MOST_ARGUMENTS: usize = 5;

/// Each function that takes too many, by its line.
pub(super) fn check(tokens: TokenStream) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    within(tokens, &mut found);
    found
}

fn within(tokens: TokenStream, found: &mut Vec<(usize, String)>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) if !is_foreign(&tokens[..at]) => within(group.stream(), found),
            TokenTree::Ident(ident) if *ident == "fn" && !is_foreign(&tokens[..at]) => {
                let Some((name, arguments)) = signature(&tokens[at + 1..]) else {
                    continue;
                };
                let count = count(arguments);
                if count > MOST_ARGUMENTS {
                    let line = ident.span().start().line;
                    let what = format!(
                        "{name} takes {count} arguments: group what belongs together, {MOST_ARGUMENTS} are the most"
                    );
                    found.push((line, what));
                }
            }
            _ => {}
        }
    }
}

/// Whether tokens end with `extern` or `extern "C"`.
fn is_foreign(before: &[TokenTree]) -> bool {
    let mut last = before.iter().rev();
    let token = match last.next() {
        Some(TokenTree::Literal(_)) => last.next(),
        token => token,
    };
    token.and_then(word).is_some_and(|word| word == "extern")
}

/// The name and the arguments of a function, whose `fn` stands before the tokens; none of a type `fn(…)`.
fn signature(tokens: &[TokenTree]) -> Option<(String, TokenStream)> {
    // In a macro the name may be `$name`.
    let at = usize::from(is(tokens.first()?, '$'));
    let name = word(tokens.get(at)?)?;
    let mut depth = 0;
    for (index, token) in tokens.iter().enumerate().skip(at + 1) {
        match token {
            TokenTree::Group(group) if depth == 0 => {
                let is_list = group.delimiter() == Delimiter::Parenthesis;
                return is_list.then(|| (name, group.stream()));
            }
            token => depth += angle(&tokens[..index], token),
        }
    }
    None
}

/// By how much a token changes how deep generics lie in each other.
fn angle(before: &[TokenTree], token: &TokenTree) -> i32 {
    let is_arrow = before.last().is_some_and(|before| is(before, '-'));
    match token {
        token if is(token, '<') => 1,
        token if is(token, '>') && !is_arrow => -1,
        _ => 0,
    }
}

fn count(arguments: TokenStream) -> usize {
    let tokens: Vec<TokenTree> = arguments.into_iter().collect();
    let (mut count, mut depth, mut begin) = (0, 0, 0);
    for at in 0..=tokens.len() {
        let ends = tokens
            .get(at)
            .is_none_or(|token| is(token, ',') && depth == 0);
        if ends {
            let argument = &tokens[begin..at];
            // `$($name: $type),*` leaves its mark behind the comma.
            let is_mark = matches!(argument, [mark] if is(mark, '*') || is(mark, '+'));
            count += usize::from(!argument.is_empty() && !is_mark && !is_self(argument));
            begin = at + 1;
        } else {
            depth += angle(&tokens[..at], &tokens[at]);
        }
    }
    count
}

/// Whether an argument is `self`, `&self`, `&'a mut self`, `mut self` or `self: …`.
fn is_self(argument: &[TokenTree]) -> bool {
    let words = argument.iter().enumerate().filter_map(|(at, token)| {
        let is_lifetime = at > 0 && is(&argument[at - 1], '\'');
        word(token).filter(|_| !is_lifetime)
    });
    let mut words = words.skip_while(|word| word == "mut");
    words.next().is_some_and(|word| word == "self")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let tokens = super::super::source::tokens(text).expect("Rust");
        let found = check(tokens).into_iter();
        found
            .map(|(line, what)| format!("{line}: {what}"))
            .collect()
    }

    #[test]
    fn six_arguments_are_found_wherever_they_are() {
        for text in [
            "fn f(a: u8, b: u8, c: u8, d: u8, e: u8, g: u8) {}",
            "trait T { fn f(&self, a: u8, b: u8, c: u8, d: u8, e: u8, g: u8); }",
            "impl A { pub(crate) unsafe fn f<'a>(&'a mut self, a: u8, b: u8, c: u8, d: u8, e: u8, g: u8,) {} }",
            "fn f<F: Fn(u8) -> u8, const N: usize>(a: F, b: u8, c: u8, d: u8, e: u8, g: [u8; N]) -> u8 { 0 }",
            "macro_rules! m { ($f:ident) => { fn $f(a: u8, b: u8, c: u8, d: u8, e: u8, g: u8) {} } }",
            "made! { fn f(a: u8, b: u8, c: u8, d: u8, e: u8, $($g: u8),*) {} }",
            "#[cfg(test)] mod tests { fn f(a: u8, b: u8, c: u8, d: u8, e: u8, (g, h): (u8, u8)) {} }",
        ] {
            assert_eq!(
                found(&format!("\n{text}")),
                ["2: f takes 6 arguments: group what belongs together, 5 are the most"],
                "{text}"
            );
        }
    }

    #[test]
    fn five_and_self_are_not() {
        for text in [
            "fn f(a: u8, b: u8, c: u8, d: u8, e: u8) {}",
            "fn f(a: A<u8, u8>, b: (u8, u8), c: [u8; 2], d: impl Fn(u8, u8) -> B<u8, u8>, e: fn(u8, u8) -> u8,) {}",
            "fn f(&self, a: u8, b: u8, c: u8, d: u8, e: u8) {}",
            "fn f(mut self, a: u8, b: u8, c: u8, d: u8, e: u8) {}",
            "fn f(self: Box<Self>, a: u8, b: u8, c: u8, d: u8, e: u8) {}",
            "type F = fn(u8, u8, u8, u8, u8, u8);",
            "struct S { f: unsafe extern \"C\" fn(u8, u8, u8, u8, u8, u8) }",
            "extern \"C\" fn f(a: u8, b: u8, c: u8, d: u8, e: u8, g: u8) {}",
            "unsafe extern \"C\" { fn f(a: u8, b: u8, c: u8, d: u8, e: u8, g: u8); }",
            "const T: &str = \"fn f(a: u8, b: u8, c: u8, d: u8, e: u8, g: u8)\";",
        ] {
            assert_eq!(found(text), [""; 0], "{text}");
        }
    }
}
