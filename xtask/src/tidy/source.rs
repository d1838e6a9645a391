//! A Rust file by its tokens: its modules, what they define and import, and the paths that they name. Tokens
//! rather than a syntax tree, because much code here lies in the arguments of macros, where there is no tree.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// A module, as the text of its file has it. The first of a file is the file's own, the others are written in it.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// The name of a module in braces, and the index of the scope that it lies in.
    pub(super) within: Option<(String, usize)>,
    /// The modules that are files of their own, and where an attribute says that they lie.
    pub(super) files: Vec<(String, Option<String>)>,
    /// What is defined here by name.
    pub(super) items: BTreeSet<String>,
    /// Words in the arguments of macros that make items: any of them may be the name of one.
    pub(super) made: BTreeSet<String>,
    /// All words but those of imports.
    pub(super) words: BTreeSet<String>,
    pub(super) imports: Vec<Import>,
    /// Paths of two names and more outside of imports, and the names of macros that are called.
    pub(super) mentions: Vec<Mention>,
}

/// A leaf of a `use`.
#[derive(Debug)]
pub(super) struct Import {
    /// What it is called here; none for `*`.
    pub(super) name: Option<String>,
    /// Whether it is handed on to other modules (`pub use`).
    pub(super) public: bool,
    pub(super) mention: Mention,
}

/// A path and its line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mention {
    pub(super) path: Vec<String>,
    /// Whether it is a macro that is called.
    pub(super) called: bool,
    pub(super) line: usize,
}

impl Mention {
    fn imported(path: Vec<String>, line: usize) -> Mention {
        Mention {
            path,
            called: false,
            line,
        }
    }
}

const ITEMS: [&str; 8] = [
    "fn", "struct", "enum", "union", "trait", "type", "const", "static",
];

/// The tokens of a file.
pub(super) fn tokens(text: &str) -> Result<TokenStream, (usize, String)> {
    text.parse().map_err(|error: proc_macro2::LexError| {
        let line = error.span().start().line;
        (line, format!("is no Rust: {error}"))
    })
}

/// The modules of a file, without what is compiled for tests alone.
pub(super) fn scopes(tokens: TokenStream) -> Vec<Scope> {
    let mut reader = Reader {
        scopes: vec![Scope::default()],
    };
    reader.module(tokens, 0);
    reader.scopes
}

struct Reader {
    scopes: Vec<Scope>,
}

impl Reader {
    /// Reads the body of a module.
    fn module(&mut self, tokens: TokenStream, scope: usize) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        let mut place = None;
        while at < tokens.len() {
            if let Some(next) = after_tests(&tokens, at) {
                at = next;
                continue;
            }
            if let Some(path) = path_attribute(&tokens[at]) {
                place = Some(path);
            }
            let word = word(&tokens[at]);
            let name = tokens.get(at + 1).and_then(self::word);
            match (word.as_deref(), name) {
                (Some("mod"), Some(name)) => {
                    self.submodule(name, place.take(), (&tokens, at + 2), scope);
                    at += 3;
                    continue;
                }
                (Some("macro_rules"), None) => {
                    self.scopes[scope]
                        .items
                        .extend(tokens.get(at + 2).and_then(self::word));
                }
                (Some(kind), Some(name)) if ITEMS.contains(&kind) && name != "fn" => {
                    // `const _: () = …` has no name, and `unsafe`, `async` and `extern` come before `fn`.
                    self.scopes[scope].items.insert(name);
                }
                _ => {}
            }
            if let (Some(_), true, Some(TokenTree::Group(group))) = (
                &word,
                tokens.get(at + 1).is_some_and(|token| is(token, '!')),
                tokens.get(at + 2),
            ) {
                words(group.stream(), &mut self.scopes[scope].made);
            }
            at = self.code(&tokens, at, scope);
        }
    }

    /// Reads a module from behind its name on: its body, or the end of its declaration.
    fn submodule(
        &mut self,
        name: String,
        place: Option<String>,
        (tokens, at): (&[TokenTree], usize),
        scope: usize,
    ) {
        match tokens.get(at) {
            Some(TokenTree::Group(body)) => {
                self.scopes.push(Scope {
                    within: Some((name, scope)),
                    ..Scope::default()
                });
                self.module(body.stream(), self.scopes.len() - 1);
            }
            _ => self.scopes[scope].files.push((name, place)),
        }
    }

    /// Reads what begins at a token, of a module or of the inside of anything, and says where the next begins.
    fn code(&mut self, tokens: &[TokenTree], at: usize, scope: usize) -> usize {
        match &tokens[at] {
            TokenTree::Group(group) => {
                self.inside(group, scope);
                at + 1
            }
            // `use<'a>` says what a returned type captures.
            TokenTree::Ident(ident)
                if *ident == "use" && !tokens.get(at + 1).is_some_and(|token| is(token, '<')) =>
            {
                self.import(tokens, at + 1, scope)
            }
            TokenTree::Ident(ident) => {
                let line = ident.span().start().line;
                let (path, next) = path(tokens, at);
                self.scopes[scope].words.extend(path.iter().cloned());
                // What `::` leads to from elsewhere, as in `<T as A>::B`, is nobody's by name.
                let led_to =
                    at > 0 && is(&tokens[at - 1], ':') && at > 1 && is(&tokens[at - 2], ':');
                let called = tokens.get(next).is_some_and(|token| is(token, '!'))
                    && matches!(tokens.get(next + 1), Some(TokenTree::Group(_)));
                if !led_to && (path.len() > 1 || called) {
                    self.scopes[scope]
                        .mentions
                        .push(Mention { path, called, line });
                }
                next
            }
            _ => at + 1,
        }
    }

    fn inside(&mut self, group: &Group, scope: usize) {
        let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            at = match after_tests(&tokens, at) {
                Some(next) => next,
                None => self.code(&tokens, at, scope),
            };
        }
    }

    /// Reads the tree of a `use`, and says where its end is.
    fn import(&mut self, tokens: &[TokenTree], at: usize, scope: usize) -> usize {
        let end = tokens[at..].iter().position(|token| is(token, ';'));
        let end = end.map_or(tokens.len(), |end| at + end);
        // Before the `use`: `pub`, or `pub` and where to.
        let before = tokens[..at - 1].iter().rev().take(2);
        let public = before.filter_map(word).any(|word| word == "pub");
        let first = self.scopes[scope].imports.len();
        self.tree(&tokens[at..end], &[], scope);
        for import in &mut self.scopes[scope].imports[first..] {
            import.public = public;
        }
        end
    }

    fn tree(&mut self, tokens: &[TokenTree], before: &[String], scope: usize) {
        // `use ::name` is another crate's.
        if tokens.first().is_some_and(|token| is(token, ':')) {
            return;
        }
        let mut whole = before.to_vec();
        let mut line = 0;
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Ident(ident) if *ident == "as" => break,
                TokenTree::Ident(ident) => {
                    line = ident.span().start().line;
                    whole.push(ident.to_string());
                }
                TokenTree::Group(group) => {
                    let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
                    for branch in tokens.split(|token| is(token, ',')) {
                        self.tree(branch, &whole, scope);
                    }
                    return;
                }
                token if is(token, '*') => {
                    let line = token.span().start().line;
                    let mention = Mention::imported(whole, line);
                    let name = None;
                    let public = false;
                    self.scopes[scope].imports.push(Import {
                        name,
                        public,
                        mention,
                    });
                    return;
                }
                _ => {}
            }
            at += 1;
        }
        // `a::{self}` is `a`.
        if whole.len() > 1 && whole.last().is_some_and(|last| last == "self") {
            whole.pop();
        }
        let renamed = tokens.get(at + 1).and_then(word);
        let renamed = renamed.or_else(|| tokens.get(at + 1).is_some().then(|| "_".to_owned()));
        if let Some(name) = renamed.or_else(|| whole.last().cloned())
            && !tokens.is_empty()
        {
            let mention = Mention::imported(whole, line);
            self.scopes[scope].imports.push(Import {
                name: Some(name),
                public: false,
                mention,
            });
        }
    }
}

/// The names that `::` joins from a token on, and where they end.
fn path(tokens: &[TokenTree], at: usize) -> (Vec<String>, usize) {
    let mut names: Vec<String> = word(&tokens[at]).into_iter().collect();
    let mut at = at + 1;
    while let [first, second, third, ..] = &tokens[at..]
        && is(first, ':')
        && is(second, ':')
        && let Some(name) = word(third)
    {
        names.push(name);
        at += 3;
    }
    (names, at)
}

/// Where what is compiled for tests alone ends, if it begins at a token.
fn after_tests(tokens: &[TokenTree], at: usize) -> Option<usize> {
    let attribute = |at: usize| match (tokens.get(at), tokens.get(at + 1)) {
        (Some(mark), Some(TokenTree::Group(group)))
            if is(mark, '#') && group.delimiter() == Delimiter::Bracket =>
        {
            Some(group)
        }
        _ => None,
    };
    if !for_tests(attribute(at)?) {
        return None;
    }
    let mut at = at + 2;
    while attribute(at).is_some() {
        at += 2;
    }
    // An item ends with its body or with `;`; a `struct` of a tuple has parentheses before it.
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                return Some(at + 1);
            }
            token if is(token, ';') => return Some(at + 1),
            _ => at += 1,
        }
    }
    Some(at)
}

/// Whether an attribute is `test`, `cfg(test)` or `cfg(all(test, …))`.
fn for_tests(attribute: &Group) -> bool {
    let text = attribute.stream().to_string().replace(' ', "");
    ["test", "cfg(test)"].contains(&text.as_str()) || text.starts_with("cfg(all(test,")
}

/// The file that `#[path = "…"]` names.
fn path_attribute(token: &TokenTree) -> Option<String> {
    let TokenTree::Group(group) = token else {
        return None;
    };
    let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
    match &tokens[..] {
        [key, mark, TokenTree::Literal(value)] if is(mark, '=') => {
            let value = value.to_string();
            (word(key)? == "path").then(|| value.trim_matches('"').to_owned())
        }
        _ => None,
    }
}

fn words(tokens: TokenStream, found: &mut BTreeSet<String>) {
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => drop(found.insert(ident.to_string())),
            TokenTree::Group(group) => words(group.stream(), found),
            _ => {}
        }
    }
}

pub(super) fn word(token: &TokenTree) -> Option<String> {
    match token {
        TokenTree::Ident(ident) => Some(ident.to_string()),
        _ => None,
    }
}

pub(super) fn is(token: &TokenTree, mark: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Scope> {
        scopes(tokens(text).expect("Rust"))
    }

    fn paths(mentions: &[Mention]) -> Vec<String> {
        mentions
            .iter()
            .map(|mention| mention.path.join("::"))
            .collect()
    }

    #[test]
    fn imports_are_read_leaf_by_leaf() {
        let scopes = read(
            "pub(crate) use super::{self, a::{B, C as D}, e::*};\nuse ::std::f;\nfn g() { use crate::h; }",
        );
        let imports: Vec<(String, Option<&str>, usize)> = scopes[0]
            .imports
            .iter()
            .map(|import| {
                let path = import.mention.path.join("::");
                (path, import.name.as_deref(), import.mention.line)
            })
            .collect();
        assert_eq!(
            imports,
            [
                ("super".to_owned(), Some("super"), 1),
                ("super::a::B".to_owned(), Some("B"), 1),
                ("super::a::C".to_owned(), Some("D"), 1),
                ("super::e".to_owned(), None, 1),
                ("crate::h".to_owned(), Some("h"), 3),
            ]
        );
    }

    #[test]
    fn paths_are_found_wherever_they_lie() {
        let scopes = read(
            "// no::comment\nfn a(x: super::T) -> Vec<crate::u::V> {\n    call!(\"no::string\", self::w::X);\n    <x as y::Z>::no(a.b)\n}",
        );
        let found = &scopes[0].mentions;
        assert_eq!(
            paths(found),
            ["super::T", "crate::u::V", "call", "self::w::X", "y::Z"]
        );
        assert_eq!(found[0].line, 2);
    }

    #[test]
    fn modules_have_what_they_define() {
        let scopes = read(
            "mod a;\n#[path = \"c.rs\"]\nmod b;\nmod c { pub(crate) const fn d() {} mod e; }\nstruct F(G);\nmake! { H, i: [J] }\nmacro_rules! k { () => {} }",
        );
        let place = Some("c.rs".to_owned());
        assert_eq!(
            scopes[0].files,
            [("a".to_owned(), None), ("b".to_owned(), place)]
        );
        assert_eq!(scopes[0].items.iter().collect::<Vec<_>>(), ["F", "k"]);
        assert_eq!(scopes[0].made.iter().collect::<Vec<_>>(), ["H", "J", "i"]);
        assert_eq!(scopes[1].within, Some(("c".to_owned(), 0)));
        assert_eq!(scopes[1].items.iter().collect::<Vec<_>>(), ["d"]);
        assert_eq!(scopes[1].files, [("e".to_owned(), None)]);
    }

    #[test]
    fn what_is_compiled_for_tests_alone_is_left_out() {
        for text in [
            "#[cfg(test)]\nmod tests { use crate::a; }",
            "#[cfg(test)]\nmod tests;",
            "#[cfg(all(test, unix))]\n#[rustfmt::skip]\nuse crate::a;",
            "#[test]\nfn a() { crate::b() }",
            "impl A { #[cfg(test)] fn b() { c::d() } }",
        ] {
            let scopes = read(text);
            let [scope] = &scopes[..] else {
                panic!("{text}: {scopes:?}");
            };
            assert!(scope.files.is_empty(), "{text}");
            assert!(scope.imports.is_empty(), "{text}");
            assert_eq!(scope.mentions, [], "{text}");
        }
        let scopes = read("#[cfg(test)]\nuse a::B;\nuse c::D;\n#[cfg(not(test))]\nuse e::F;");
        assert_eq!(scopes[0].imports.len(), 2);
    }

    #[test]
    fn what_is_no_rust_is_told() {
        assert!(tokens("fn a() {\n").is_err());
    }
}
