//! The rules of the dialect.

use std::collections::{BTreeMap, BTreeSet};

use super::tokens::{Kind, Token, tokens};

/// The dialect's words that are not C++'s: address spaces, two for the compiler, and functions.
const WORDS: &[&str] = &[
    "device",
    "constant",
    "threadgroup",
    "thread",
    "ROLLED",
    "UNROLL",
    "TABLE",
    "as_type",
    "half_to_float",
    "float_to_half",
    "dot4",
    "simd_shuffle",
    "simd_shuffle_xor",
    "simd_sum",
    "simd_max",
    "simdgroup_barrier",
    "threadgroup_barrier",
    "atomic_min",
    "usual_quotient",
    "select_bytes",
    "fma",
    "exp",
    "log",
    "tanh",
    "cos",
    "sin",
    "rint",
    "sqrt",
    "min",
    "max",
    "abs",
];

/// Those of them that are address spaces.
const SPACES: [&str; 4] = ["device", "constant", "threadgroup", "thread"];

/// A dialect that is longer is a language.
const MOST_WORDS: usize = 31;

/// What all lanes must reach.
const COLLECTIVES: &[&str] = &[
    "simd_shuffle",
    "simd_shuffle_xor",
    "simd_sum",
    "simd_max",
    "simdgroup_barrier",
    "threadgroup_barrier",
];

/// Types of the dialect, which are also called to convert.
const TYPES: &[&str] = &[
    "bool", "char", "uchar", "short", "ushort", "int", "uint", "long", "ulong", "float", "void",
];

/// Words of C++ that a parenthesis may follow.
const KEYWORDS: &[&str] = &[
    "if",
    "for",
    "while",
    "switch",
    "return",
    "sizeof",
    "alignas",
    "static_assert",
    "decltype",
];

/// Words that no text uses, each with the reason.
const BANNED: &[(&str, &str)] = &[
    ("auto", "types are written out"),
    ("double", "a Metal kernel has none"),
    ("half", "halves are `ushort` and go through half_to_float"),
    ("new", "a kernel allocates nothing"),
    ("delete", "a kernel allocates nothing"),
    ("static", "a kernel keeps nothing between runs"),
    ("goto", "control flow stays uniform where it must"),
    ("asm", "that is a native text's"),
    ("volatile", "it means three things on three platforms"),
    ("virtual", "a Metal kernel has none"),
    ("try", "a kernel throws nothing"),
    ("throw", "a kernel throws nothing"),
    ("using", "names are written out"),
    ("blockIdx", "the position is given as `at`"),
    ("threadIdx", "the position is given as `at`"),
    ("metal", "the text belongs to no platform"),
    ("cuda", "the text belongs to no platform"),
];

/// Types and qualifiers of Metal's language, which no name may be.
const RESERVED: &[&str] = &[
    "kernel", "vertex", "fragment", "sampler", "texture", "uint2", "uint3", "uint4", "int2",
    "int3", "int4", "float2", "float3", "float4",
];

/// A kernel's text.
pub(super) struct Text {
    pub(super) path: String,
    pub(super) source: String,
}

impl Text {
    pub(super) fn new(path: String, source: String) -> Self {
        Self { path, source }
    }

    /// Whether it defines a function of this name.
    pub(super) fn defines(&self, name: &str) -> bool {
        functions(&tokens(&self.source))
            .iter()
            .any(|f| f.name == name)
    }

    pub(super) fn declares_struct(&self, name: &str) -> bool {
        structs(&tokens(&self.source)).contains(&name)
    }
}

/// A function of a text.
struct Function<'a> {
    name: &'a str,
    /// The tokens of its body.
    body: Vec<Token<'a>>,
}

/// The functions of a text: each is `inline`, and its name is the first word that a parenthesis follows.
fn functions<'a>(tokens: &[Token<'a>]) -> Vec<Function<'a>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = next(tokens, at, |token| token.text == "inline") {
        let called = |i: usize| tokens[i].kind == Kind::Word && followed(tokens, i, "(");
        let Some(name) = (start + 1..tokens.len()).find(|i| called(*i)) else {
            break;
        };
        let Some(open) = next(tokens, name, |token| matches!(token.text, "{" | ";")) else {
            break;
        };
        if tokens[open].text == ";" {
            // Declared ahead: the body is elsewhere.
            at = open;
            continue;
        }
        let end = closing(tokens, open);
        found.push(Function {
            name: tokens[name].text,
            body: tokens[open + 1..end].to_vec(),
        });
        at = end;
    }
    found
}

/// The types that a text declares.
fn structs<'a>(tokens: &[Token<'a>]) -> Vec<&'a str> {
    let declared = tokens.windows(2).filter(|pair| pair[0].text == "struct");
    let mut names: Vec<&str> = declared.map(|pair| pair[1].text).collect();
    // `struct alignas(16) Name`.
    let aligned = tokens
        .windows(6)
        .filter(|w| w[0].text == "struct" && w[1].text == "alignas");
    names.extend(aligned.map(|w| w[5].text));
    let defined = tokens
        .iter()
        .enumerate()
        .filter(|(_, t)| t.text == "typedef");
    let ends = defined.filter_map(|(at, _)| next(tokens, at, |token| token.text == ";"));
    names.extend(ends.map(|end| tokens[end - 1].text));
    names
}

fn next(tokens: &[Token<'_>], from: usize, is: impl Fn(&Token<'_>) -> bool) -> Option<usize> {
    (from..tokens.len()).find(|i| is(&tokens[*i]))
}

fn followed(tokens: &[Token<'_>], at: usize, sign: &str) -> bool {
    tokens.get(at + 1).is_some_and(|token| token.text == sign)
}

/// Where the brace at `open` closes.
fn closing(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0usize;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return index;
        }
    }
    tokens.len()
}

/// The names that are called in a run of tokens, template arguments or not, each with its place.
fn calls<'a>(tokens: &[Token<'a>]) -> Vec<(usize, &'a str)> {
    let called = |(index, token): (usize, &Token<'a>)| {
        let plain = followed(tokens, index, "(");
        let is = token.kind == Kind::Word && (plain || has_template_call(tokens, index));
        is.then_some((index, token.text))
    };
    tokens.iter().enumerate().filter_map(called).collect()
}

/// Whether `name<...>(` stands here, as against a comparison.
fn has_template_call(tokens: &[Token<'_>], at: usize) -> bool {
    if !followed(tokens, at, "<") {
        return false;
    }
    let mut depth = 0;
    for (index, token) in tokens.iter().enumerate().skip(at + 1) {
        match token.text {
            "<" => depth += 1,
            ">" => depth -= 1,
            ";" | "{" | "}" | "&&" | "||" | "?" => return false,
            _ => {}
        }
        if depth == 0 {
            return followed(tokens, index, "(");
        }
    }
    false
}

/// Every breach of a rule, as `path:line: what`.
pub(super) fn check(texts: &[Text]) -> Vec<String> {
    let parsed: Vec<Vec<Token<'_>>> = texts.iter().map(|text| tokens(&text.source)).collect();
    let all: Vec<Function<'_>> = parsed.iter().flat_map(|tokens| functions(tokens)).collect();
    let mut known: BTreeSet<&str> = all.iter().map(|function| function.name).collect();
    let declared: BTreeSet<&str> = parsed.iter().flat_map(|tokens| structs(tokens)).collect();
    known.extend(&declared);
    let together = collective_functions(&all);
    let mut found = Vec::new();
    for (text, tokens) in texts.iter().zip(&parsed) {
        let mut check = Check {
            text,
            found: &mut found,
        };
        check.lines();
        check.words(tokens);
        check.calls(tokens, &known);
        check.pointers(tokens, &declared);
        check.conditions(tokens, &together);
    }
    found.extend(recursion(&all));
    found
}

/// The dialect's own words, as the host's header gives them, are those that the rules know, and not too many.
pub(super) fn check_dialect(header: &str) -> Vec<String> {
    let tokens = tokens(header);
    let mut given: BTreeSet<&str> = functions(&tokens).iter().map(|f| f.name).collect();
    let defined = tokens
        .windows(3)
        .filter(|w| w[0].text == "#" && w[1].text == "define");
    given.extend(defined.map(|w| w[2].text));
    let known: BTreeSet<&str> = WORDS.iter().copied().collect();
    let mut found = Vec::new();
    if given.len() > MOST_WORDS {
        found.push(format!(
            "dialect/host.h: {} words, more than {MOST_WORDS}",
            given.len()
        ));
    }
    let differ = given.symmetric_difference(&known);
    found.extend(differ.map(|word| {
        format!("dialect/host.h: `{word}` is not in it and in the list of lint-kernels")
    }));
    found
}

struct Check<'a> {
    text: &'a Text,
    found: &'a mut Vec<String>,
}

impl Check<'_> {
    fn report(&mut self, line: usize, what: String) {
        self.found
            .push(format!("{}:{line}: {what}", self.text.path));
    }

    fn lines(&mut self) {
        let source = self.text.source.lines().enumerate();
        for (index, _) in source.filter(|(_, line)| line.trim_start().starts_with('#')) {
            self.report(index + 1, "a line for the preprocessor".into());
        }
    }

    fn words(&mut self, tokens: &[Token<'_>]) {
        for (index, token) in tokens.iter().enumerate() {
            let word = token.text;
            if let Some((_, why)) = BANNED.iter().find(|(banned, _)| *banned == word) {
                self.report(token.line, format!("`{word}`: {why}"));
            }
            if RESERVED.contains(&word) {
                self.report(
                    token.line,
                    format!("`{word}` is a word of Metal's language"),
                );
            }
            if word.starts_with("__") || word == "[[" {
                self.report(token.line, format!("`{word}` belongs to a platform"));
            }
            let member = index > 0 && [".", "->"].contains(&tokens[index - 1].text);
            let components = |set: &str| word.chars().all(|c| set.contains(c));
            let swizzle =
                (2..=4).contains(&word.len()) && (components("xyzw") || components("rgba"));
            if member && swizzle && token.kind == Kind::Word {
                self.report(token.line, format!("`.{word}`: a swizzle"));
            }
        }
    }

    /// Whatever is called is the dialect's, a text's, or a type.
    fn calls(&mut self, tokens: &[Token<'_>], known: &BTreeSet<&str>) {
        for (index, name) in calls(tokens) {
            let listed = [WORDS, TYPES, KEYWORDS]
                .iter()
                .any(|list| list.contains(&name));
            if !listed && !known.contains(name) {
                let line = tokens[index].line;
                self.report(
                    line,
                    format!("`{name}` is neither in the dialect nor in a text"),
                );
            }
        }
    }

    /// Pointers and references say where they point: a Metal kernel has no address space that is meant otherwise, and no
    /// compiler here asks for it.
    fn pointers(&mut self, tokens: &[Token<'_>], declared: &BTreeSet<&str>) {
        let is_type = |token: &Token<'_>| {
            TYPES.contains(&token.text)
                || declared.contains(token.text)
                || token.kind == Kind::Word && token.text.ends_with("Args")
        };
        for (index, token) in tokens.iter().enumerate() {
            // `Vector *v`, `Vector &v`, and `Vector (*v)[2]`, a pointer to an array.
            let to_array = index > 1 && tokens[index - 1].text == "(";
            let declarator = ["*", "&"].contains(&token.text);
            let Some(kind) = index.checked_sub(1 + usize::from(to_array)) else {
                continue;
            };
            if !declarator || !is_type(&tokens[kind]) {
                continue;
            }
            let words = tokens[..kind].iter().rev();
            let mut words = words.take_while(|token| token.kind == Kind::Word);
            if !words.any(|token| SPACES.contains(&token.text)) {
                let what = format!(
                    "`{} {}` names no address space",
                    tokens[kind].text, token.text
                );
                self.report(token.line, what);
            }
        }
    }

    /// No collective stands where the lanes that reach it depend on a condition within its own expression.
    fn conditions(&mut self, tokens: &[Token<'_>], together: &BTreeSet<&str>) {
        // For each parenthesis that is open, and the statement: whether a condition governs what comes next in it.
        let mut governed = vec![false];
        let mut heads = Vec::new();
        for (index, token) in tokens.iter().enumerate() {
            let top = governed.len() - 1;
            match token.text {
                "?" | "&&" | "||" => governed[top] = true,
                "(" | "[" => {
                    let before = index.checked_sub(1).map_or("", |at| tokens[at].text);
                    heads.push(
                        token.text == "(" && ["if", "for", "while", "switch"].contains(&before),
                    );
                    governed.push(false);
                }
                ")" | "]" => {
                    if governed.len() > 1 {
                        governed.pop();
                    }
                    // What is behind the head of a statement is a statement of its own.
                    if heads.pop() == Some(true)
                        && let Some(top) = governed.last_mut()
                    {
                        *top = false;
                    }
                }
                "," | ";" => governed[top] = false,
                "{" | "}" => {
                    governed = vec![false];
                    heads.clear();
                }
                word if together.contains(word) && governed.contains(&true) => {
                    let what =
                        format!("`{word}` behind `?`, `&&` or `||`: not all lanes may reach it");
                    self.report(token.line, what);
                }
                _ => {}
            }
        }
    }
}

/// The collectives, and the functions that call one, however indirectly.
fn collective_functions<'a>(functions: &[Function<'a>]) -> BTreeSet<&'a str> {
    let mut together: BTreeSet<&str> = COLLECTIVES.iter().copied().collect();
    loop {
        let before = together.len();
        for function in functions {
            if calls(&function.body)
                .iter()
                .any(|(_, name)| together.contains(name))
            {
                together.insert(function.name);
            }
        }
        if together.len() == before {
            return together;
        }
    }
}

/// Functions that call themselves. Names that are given to several functions are left out: one may call another.
fn recursion(functions: &[Function<'_>]) -> Vec<String> {
    let mut graph: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut several = BTreeSet::new();
    for function in functions {
        let called = calls(&function.body)
            .into_iter()
            .map(|(_, name)| name)
            .collect();
        if graph.insert(function.name, called).is_some() {
            several.insert(function.name);
        }
    }
    let reaches = |name: &str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![name]);
        while let Some(next) = open.pop() {
            for called in graph.get(next).into_iter().flatten() {
                if *called == name {
                    return true;
                }
                if !several.contains(called) && seen.insert(*called) {
                    open.push(called);
                }
            }
        }
        false
    };
    let names = graph
        .keys()
        .filter(|name| !several.contains(*name) && reaches(name));
    names
        .map(|name| format!("`{name}` calls itself, which a Metal kernel cannot"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(body: &str) -> Vec<String> {
        let text = format!(
            "struct Vector {{ uint word[4]; }};\ntypedef Vector Unit;\n\
             inline float row_sum(float x) {{ return simd_sum(x); }}\n\
             template <int N> inline int folded(int x) {{ return x % N; }}\n\
             inline void entry(device float *output, float x, bool a, Position at) {{\n{body}\n}}\n"
        );
        check(&[Text::new("k.h".into(), text)])
    }

    #[test]
    fn texts_within_the_dialect_pass() {
        for body in [
            "UNROLL for (uint i = 0; i < 4 && a; i++) output[i] = simd_sum(x);",
            "if (a && x > 0.0f) output[0] = row_sum(x);",
            "float sum = row_sum(a ? x : 0.0f);\nx = sum > 0.0f ? 1.0f : sum;",
            "x = min(a ? 1.0f : x, row_sum(x));",
            "output[a ? 1 : 0] = simd_max(x); x = as_type<float>(uint(x)) + float(folded<3>(4));",
            "Vector v = a ? *(device const Vector *)output : Unit(); thread Vector(*p)[2]; x = v.word[0] + at.x;",
            "static_assert(sizeof(Vector) == 16, \"auto ( half\"); // auto simd",
            "bool b = simd_sum(x) > 0.0f && a;",
        ] {
            assert_eq!(found(body), [""; 0], "{body}");
        }
    }

    #[test]
    fn every_breach_is_found_where_it_is() {
        for (body, words) in [
            ("#if 1", "k.h:6: a line for the preprocessor"),
            ("\n  #define A 1", "k.h:7: a line for the preprocessor"),
            ("auto y = x;", "`auto`"),
            ("double y = x;", "`double`"),
            ("half y;", "`half`"),
            ("float2 y;", "`float2` is a word of Metal's"),
            ("float kernel = x;", "`kernel` is a word of Metal's"),
            ("static float y = 1.0f;", "`static`"),
            ("float *y = new float[2];", "`new`"),
            ("float *y = output;", "`float *` names no address space"),
            ("const Vector &y = v[0];", "`Vector &` names no"),
            ("x = *(const uint *)output;", "`uint *` names no"),
            ("Unit (*y)[2];", "`Unit *` names no"),
            ("x = blockIdx.x;", "`blockIdx`"),
            ("x = metal::fma(x, x, x);", "`metal`"),
            ("x = __expf(x);", "`__expf` belongs to a platform"),
            ("[[unroll]] for (;;) {}", "`[[` belongs to a platform"),
            ("asm(\"\");", "`asm`"),
            ("v.xy = x;", "`.xy`: a swizzle"),
            ("x = v->rgba;", "`.rgba`: a swizzle"),
            ("x = powf(x, 2.0f);", "k.h:6: `powf` is neither"),
            ("x = clamped<2>(x);", "`clamped` is neither"),
            ("x = a ? simd_sum(x) : 0.0f;", "`simd_sum` behind"),
            ("x = a ? 0.0f : (1.0f + row_sum(x));", "`row_sum` behind"),
            (
                "if (a && simd_max(x) > 0.0f) x = 0.0f;",
                "`simd_max` behind",
            ),
            (
                "bool b = a || min(2.0f, row_sum(x)) > 0.0f;",
                "`row_sum` behind",
            ),
            (
                "while (a || simd_sum(x) > 0.0f) x -= 1.0f;",
                "`simd_sum` behind",
            ),
            (
                "x = a ? output[uint(simd_sum(x))] : x;",
                "`simd_sum` behind",
            ),
        ] {
            let given = found(body);
            assert!(
                given.iter().any(|line| line.contains(words)),
                "{body}: {given:?}"
            );
        }
    }

    #[test]
    fn functions_that_call_themselves_are_found() {
        let check = |text: &str| check(&[Text::new("k.h".into(), text.into())]);
        let direct = check("inline int f(int x) { return f(x - 1); }");
        assert_eq!(direct.len(), 1, "{direct:?}");
        let pair = "inline int f(int x) { return g(x); }\ninline int g(int x) { return f(x); }";
        assert_eq!(check(pair).len(), 2);
        // Another function of the same name.
        let overloaded =
            "inline int f(int x) { return x; }\ninline int f(float x) { return f(int(x)); }";
        assert_eq!(check(overloaded), [""; 0]);
    }

    #[test]
    fn the_dialect_stays_small_and_listed() {
        assert!(WORDS.len() <= MOST_WORDS);
        assert!(COLLECTIVES.iter().all(|word| WORDS.contains(word)));
        let header = |words: &[&str]| {
            let defined = words
                .iter()
                .map(|word| format!("inline void {word}(int x) {{}}\n"));
            defined.collect::<String>()
        };
        assert_eq!(check_dialect(&header(WORDS)), [""; 0]);
        assert_eq!(check_dialect(&header(&WORDS[1..])).len(), 1);
        let mut more = WORDS.to_vec();
        more.extend(["one", "two", "three", "four"]);
        assert_eq!(check_dialect(&header(&more)).len(), 5);
    }
}
