//! Circles of files: files of a crate each of which reaches all others by what it uses.
//!
//! A file uses another where it names something that the other defines: in a `use`, by a path, or by calling its
//! macro. What counts is the file that defines it, whatever modules hand it on: `pub use` of a name is no use of it
//! unless the file has that name in its code as well. A `*` counts for the module that it opens. No use are
//! `mod x;`, an import of a module by itself, methods and fields of a value that came from elsewhere (a text does
//! not say whose they are), and whatever is compiled for tests alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::Finding;
use super::source::{self, Mention, Scope};

/// How many files may use each other: a pair that belongs together, and one that holds it.
const LARGEST_CIRCLE: usize = 3;

/// How long names are followed from import to import: further than any text here goes.
const LONGEST_CHAIN: usize = 16;

/// Each file that is part of a circle which is too large.
pub(super) fn check(files: &BTreeMap<PathBuf, String>) -> Vec<Finding> {
    let roots = files.keys().filter(|path| {
        let mut parts = path.components().rev().map(|part| part.as_os_str());
        let root = parts
            .next()
            .is_some_and(|name| name == "lib.rs" || name == "main.rs");
        root && parts.next().is_some_and(|folder| folder == "src")
    });
    let mut found = Vec::new();
    for root in roots {
        // A file that is no Rust is told of by itself.
        if let Some(tree) = Tree::read(files, root) {
            found.extend(tree.circles());
        }
    }
    found
}

/// The modules of a crate.
struct Tree {
    modules: Vec<Module>,
    /// The files that define a macro, by its name.
    macros: BTreeMap<String, BTreeSet<PathBuf>>,
}

struct Module {
    file: PathBuf,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    scope: Scope,
}

/// What a path leads to.
#[derive(Clone, Copy, PartialEq)]
enum Target {
    Module(usize),
    /// Something that a module's file defines.
    Item(usize),
}

/// What a file takes from another: names, and the first line that does.
struct Arrow {
    names: BTreeSet<String>,
    line: usize,
}

type Arrows<'a> = BTreeMap<(&'a Path, &'a Path), Arrow>;

impl Tree {
    fn read(files: &BTreeMap<PathBuf, String>, root: &Path) -> Option<Tree> {
        let mut tree = Tree {
            modules: Vec::new(),
            macros: BTreeMap::new(),
        };
        let folder = root.parent().unwrap_or(Path::new("")).to_owned();
        let mut waiting = vec![(root.to_owned(), folder, None)];
        while let Some((file, folder, parent)) = waiting.pop() {
            let text = &files[&file];
            let tokens = source::tokens(text).ok()?;
            for name in macros(text) {
                let places = tree.macros.entry(name.to_owned()).or_default();
                places.insert(file.clone());
            }
            for (module, folder) in tree.add(source::scopes(tokens), (&file, folder), parent) {
                for (name, place) in &tree.modules[module].scope.files {
                    let beside = file.parent().unwrap_or(Path::new(""));
                    let candidates = match place {
                        Some(place) => vec![(beside.join(place), beside.to_owned())],
                        None => [format!("{name}.rs"), format!("{name}/mod.rs")]
                            .map(|path| (folder.join(path), folder.join(name)))
                            .to_vec(),
                    };
                    // One that is not there is generated, or for the compiler to tell.
                    let there = candidates
                        .into_iter()
                        .find(|(path, _)| files.contains_key(path));
                    if let Some((path, folder)) = there {
                        waiting.push((path, folder, Some((module, name.clone()))));
                    }
                }
            }
        }
        Some(tree)
    }

    /// Adds the modules of a file whose submodules lie in a folder: each with the folder of its own.
    fn add(
        &mut self,
        scopes: Vec<Scope>,
        (file, folder): (&Path, PathBuf),
        parent: Option<(usize, String)>,
    ) -> Vec<(usize, PathBuf)> {
        let first = self.modules.len();
        let mut added: Vec<(usize, PathBuf)> = Vec::new();
        for scope in scopes {
            let index = self.modules.len();
            let (parent, folder) = match &scope.within {
                None => (parent.clone(), folder.clone()),
                Some((name, outer)) => {
                    let folder = added[*outer].1.join(name);
                    (Some((first + outer, name.clone())), folder)
                }
            };
            if let Some((parent, name)) = &parent {
                self.modules[*parent].children.insert(name.clone(), index);
            }
            self.modules.push(Module {
                file: file.to_owned(),
                parent: parent.map(|(parent, _)| parent),
                children: BTreeMap::new(),
                scope,
            });
            added.push((index, folder));
        }
        added
    }

    /// Where a path leads that is named in a module; none where it leads out of the crate.
    fn resolve(&self, from: usize, path: &[String], chain: usize) -> Option<Target> {
        let chain = chain.checked_sub(1)?;
        let (first, mut rest) = path.split_first()?;
        let mut target = match first.as_str() {
            "crate" => Target::Module(0),
            "self" => Target::Module(from),
            "super" => Target::Module(self.modules[from].parent?),
            name => self.find_on_the_way(from, name, (rest, chain))?,
        };
        while let (Target::Module(module), Some((name, after))) = (target, rest.split_first()) {
            rest = after;
            target = match name.as_str() {
                "self" => target,
                "super" => Target::Module(self.modules[module].parent?),
                // A name that the text does not have is made by a macro of the module.
                name => self
                    .find_on_the_way(module, name, (rest, chain))
                    .unwrap_or(Target::Item(module)),
            };
        }
        Some(target)
    }

    /// What a name is in a module, where `rest` of the path follows it: a function may have the name of a module.
    fn find_on_the_way(
        &self,
        module: usize,
        name: &str,
        (rest, chain): (&[String], usize),
    ) -> Option<Target> {
        match self.modules[module].children.get(name) {
            Some(child) if !rest.is_empty() => Some(Target::Module(*child)),
            _ => self.find(module, name, chain),
        }
    }

    /// What a name is in a module.
    fn find(&self, module: usize, name: &str, chain: usize) -> Option<Target> {
        self.find_written(module, name, chain)
            .or_else(|| self.find_made(module, name, chain))
    }

    fn find_written(&self, module: usize, name: &str, chain: usize) -> Option<Target> {
        let here = &self.modules[module];
        if here.scope.items.contains(name) {
            return Some(Target::Item(module));
        }
        if let Some(child) = here.children.get(name) {
            return Some(Target::Module(*child));
        }
        let imports = here.scope.imports.iter();
        let mut named = imports.filter(|import| import.name.as_deref() == Some(name));
        if let Some(import) = named.next() {
            // `use name::…` within `name` itself is of another crate.
            let path = &import.mention.path;
            return match path[0] == name && path.len() > 1 {
                true => None,
                false => self.resolve_import(module, path, chain),
            };
        }
        self.opened(module, chain)
            .find_map(|opened| self.find_written(opened, name, chain.checked_sub(1)?))
    }

    /// An import of a name by itself (`use name;`) is a crate's, or a macro's that is handed on.
    fn resolve_import(&self, module: usize, path: &[String], chain: usize) -> Option<Target> {
        match path {
            [name] if !["crate", "self", "super"].contains(&name.as_str()) => None,
            _ => self.resolve(module, path, chain),
        }
    }

    fn find_made(&self, module: usize, name: &str, chain: usize) -> Option<Target> {
        if self.modules[module].scope.made.contains(name) {
            return Some(Target::Item(module));
        }
        self.opened(module, chain)
            .find_map(|opened| self.find_made(opened, name, chain.checked_sub(1)?))
    }

    /// The modules whose names a module has by `*`.
    fn opened(&self, module: usize, chain: usize) -> impl Iterator<Item = usize> {
        let imports = self.modules[module].scope.imports.iter();
        let opened = imports.filter(|import| import.name.is_none());
        opened.filter_map(move |import| {
            match self.resolve(module, &import.mention.path, chain)? {
                Target::Module(opened) if opened != module => Some(opened),
                _ => None,
            }
        })
    }

    fn arrows(&self) -> Arrows<'_> {
        let mut arrows = Arrows::new();
        for (index, module) in self.modules.iter().enumerate() {
            for (to, mention) in self.used(index).filter(|(to, _)| *to != module.file) {
                let arrow = arrows.entry((&*module.file, to)).or_insert(Arrow {
                    names: BTreeSet::new(),
                    line: mention.line,
                });
                arrow.line = arrow.line.min(mention.line);
                arrow.names.extend(mention.path.last().cloned());
            }
        }
        arrows
    }

    /// The files that a module uses, its own among them, and by which words.
    fn used(&self, index: usize) -> impl Iterator<Item = (&Path, &Mention)> {
        let module = &self.modules[index];
        let file = |module: usize| Some(&*self.modules[module].file);
        let imported = module.scope.imports.iter().filter_map(move |import| {
            let words = &module.scope.words;
            let named = |name: &String| !import.public || words.contains(name);
            if !import.name.as_ref().is_none_or(named) {
                return None;
            }
            let to = match self.resolve(index, &import.mention.path, LONGEST_CHAIN)? {
                Target::Module(_) if import.name.is_some() => None,
                Target::Module(module) | Target::Item(module) => file(module),
            };
            Some((to?, &import.mention))
        });
        let mentioned = module.scope.mentions.iter().filter_map(move |mention| {
            let to = match self.resolve(index, &mention.path, LONGEST_CHAIN) {
                _ if mention.called => self.macro_file(mention),
                Some(Target::Item(module)) => file(module),
                Some(Target::Module(_)) | None => None,
            };
            Some((to?, mention))
        });
        imported.chain(mentioned)
    }

    /// The one file that defines a macro, if it is one of the crate: macros are found by more rules than the
    /// text shows, but hardly two have the same name.
    fn macro_file(&self, mention: &Mention) -> Option<&Path> {
        let places = self.macros.get(mention.path.last()?)?;
        let mut places = places.iter().map(PathBuf::as_path);
        places.next().filter(|_| places.next().is_none())
    }

    fn circles(&self) -> Vec<Finding> {
        let arrows = self.arrows();
        let reach = |from: &Path| {
            let mut reached = BTreeSet::new();
            let mut waiting = vec![from.to_owned()];
            while let Some(file) = waiting.pop() {
                for (_, to) in arrows.keys().filter(|(from, _)| *from == file) {
                    if reached.insert(to.to_path_buf()) {
                        waiting.push(to.to_path_buf());
                    }
                }
            }
            reached
        };
        let files: BTreeSet<&Path> = arrows.keys().map(|(from, _)| *from).collect();
        let reached: BTreeMap<&Path, BTreeSet<PathBuf>> =
            files.into_iter().map(|file| (file, reach(file))).collect();
        let mut found = Vec::new();
        for (file, reach) in &reached {
            let back = |other: &&Path| reached[*other].contains(*file);
            let others = reached.keys().copied();
            let circle: Vec<&Path> = others
                .filter(|other| reach.contains(*other))
                .filter(back)
                .collect();
            if circle.len() > LARGEST_CIRCLE {
                found.push(told(file, &circle, &arrows));
            }
        }
        found
    }
}

/// What is wrong with a file of a circle.
fn told(file: &Path, circle: &[&Path], arrows: &Arrows) -> Finding {
    let out = arrows
        .iter()
        .filter(|((from, to), _)| *from == file && circle.contains(to));
    let mut lines = Vec::new();
    let mut uses = Vec::new();
    for ((_, to), arrow) in out {
        let names: Vec<&str> = arrow.names.iter().map(String::as_str).collect();
        uses.push(format!("{} ({})", to.display(), names.join(", ")));
        lines.push(arrow.line);
    }
    Finding {
        path: file.to_owned(),
        line: lines.into_iter().min().unwrap_or(1),
        what: format!(
            "is one of {} files that use each other, where {LARGEST_CIRCLE} may: it uses {}; \
             move what they share to a file below them",
            circle.len(),
            uses.join(", ")
        ),
    }
}

/// The macros that a file defines, whatever module of it they lie in.
fn macros(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(str::trim_start);
    let named = lines.filter_map(|line| line.strip_prefix("macro_rules! "));
    named.filter_map(|rest| rest.split([' ', '{']).next())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files of circles that are too large, in a crate of the given files.
    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let findings = check(&tree(files));
        let paths = findings.iter().map(|finding| finding.path.display());
        paths.map(|path| path.to_string()).collect()
    }

    fn tree(files: &[(&str, &str)]) -> BTreeMap<PathBuf, String> {
        let files = files.iter();
        files
            .map(|(path, text)| (PathBuf::from(path), text.to_string()))
            .collect()
    }

    /// A crate whose files `a` to `d` use the next one each, the last of them by a text.
    fn ring(last: &str) -> Vec<String> {
        found(&[
            (
                "x/src/lib.rs",
                "mod a; mod b; mod c; mod d; macro_rules! e { () => {} }",
            ),
            (
                "x/src/a.rs",
                "use crate::b::B; pub struct A; pub(crate) mod inner { pub struct I; }",
            ),
            ("x/src/b.rs", "pub struct B(super::c::C);"),
            ("x/src/c.rs", "use super::{d::{D, E}}; pub struct C;"),
            (
                "x/src/d.rs",
                &format!("pub struct D; pub struct E;\n{last}"),
            ),
        ])
    }

    #[test]
    fn a_ring_of_four_is_found_however_it_is_closed() {
        let all = ["x/src/a.rs", "x/src/b.rs", "x/src/c.rs", "x/src/d.rs"];
        for last in [
            "use crate::a::A;",
            "use super::a::{self, A as F};",
            "use crate::a; fn f() { a::f() }",
            "fn f() { g(|x: crate::a::A| x) }",
            "fn f() -> Vec<super::a::A> { vec![] }",
            "fn f() { println!(\"{}\", crate::a::f()) }",
            "fn f() { use crate::a::A; }",
            "use crate::a::*;",
            "use crate::a::inner::I;",
            "mod deep { use super::super::a::A; }",
            "pub use crate::a::A; fn f(a: A) {}",
        ] {
            assert_eq!(ring(last), all, "{last}");
        }
    }

    #[test]
    fn what_is_no_use_closes_no_ring() {
        for last in [
            "",
            "use crate::a;",
            "pub(crate) use crate::a::A;",
            "// crate::a::A\nconst T: &str = \"crate::a::A\";",
            "#[cfg(test)] mod tests { use crate::a::A; }",
            "use a::A;",
            "use ::a::A;",
            "fn f() { <a as b>::c(d.e()) }",
            "use self::D as A; fn f() { A::a() }",
        ] {
            assert_eq!(ring(last), [""; 0], "{last}");
        }
    }

    #[test]
    fn three_files_may_use_each_other() {
        let three = [
            (
                "x/src/lib.rs",
                "mod a; mod b; use a::A; use b::B; pub struct L;",
            ),
            ("x/src/a.rs", "use crate::{L, b::B}; pub struct A;"),
            ("x/src/b.rs", "use crate::L; pub struct B;"),
        ];
        assert_eq!(found(&three), [""; 0]);
    }

    #[test]
    fn names_count_for_the_file_that_defines_them() {
        let crate_of = |parent: &str, shared: &str| {
            found(&[
                ("x/src/main.rs", "mod p;"),
                ("x/src/p/mod.rs", parent),
                ("x/src/p/a.rs", shared),
                ("x/src/p/b.rs", "use super::Shared; pub struct B;"),
                ("x/src/p/c.rs", "use super::Shared; pub struct C;"),
                ("x/src/p/shared.rs", "pub struct Shared;"),
            ])
        };
        let parent = "mod a; mod b; mod c; mod shared; use {a::A, b::B, c::C};";
        // Handed on by the parent, by name or by all names: the parent itself is not used.
        for handed_on in ["pub(crate) use shared::Shared;", "use shared::*;"] {
            let parent = format!("{parent} {handed_on}");
            assert_eq!(crate_of(&parent, "use super::Shared;"), [""; 0]);
        }
        // The parent's own, and one that a macro of it makes.
        for own in ["pub struct Shared;", "make! { Shared }"] {
            let circle = crate_of(&format!("{parent} {own}"), "use super::Shared;");
            assert_eq!(
                circle,
                [
                    "x/src/p/a.rs",
                    "x/src/p/b.rs",
                    "x/src/p/c.rs",
                    "x/src/p/mod.rs"
                ]
            );
        }
    }

    #[test]
    fn a_function_may_have_the_name_of_a_module() {
        let ring = |call: &str| {
            found(&[
                (
                    "x/src/lib.rs",
                    "mod a; mod b; mod c; use a::A; pub fn a() {}",
                ),
                ("x/src/a.rs", "use crate::b::B; pub struct A;"),
                ("x/src/b.rs", "use crate::c::C; pub struct B;"),
                ("x/src/c.rs", &format!("pub struct C; fn f() {{ {call} }}")),
            ])
        };
        assert_eq!(ring("crate::a::A"), [""; 0]);
        assert_eq!(ring("crate::a()").len(), 4);
    }

    #[test]
    fn macros_and_modules_elsewhere_are_followed() {
        let crate_of = |call: &str| {
            found(&[
                (
                    "x/src/lib.rs",
                    "#[macro_use]\nmod a; mod b;\n#[path = \"deep/other.rs\"]\nmod c;",
                ),
                (
                    "x/src/a.rs",
                    "macro_rules! made {\n() => { $crate::b::B } }",
                ),
                ("x/src/b.rs", "mod inner { mod file; } use crate::c::C;"),
                ("x/src/b/inner/file.rs", call),
                ("x/src/deep/other.rs", "use crate::b::inner::file::F;"),
            ])
        };
        assert_eq!(crate_of("pub struct F;"), [""; 0]);
        assert_eq!(crate_of("pub struct F; made! {}").len(), 4);
        assert_eq!(crate_of("pub struct F; crate::made! {}").len(), 4);
    }

    #[test]
    fn a_finding_says_what_is_used_and_where() {
        let files = [
            ("x/src/lib.rs", "mod a; mod b; mod c; mod d;"),
            ("x/src/a.rs", "pub struct A;\nuse crate::b::{B,\n C};"),
            ("x/src/b.rs", "use crate::c::C; pub struct B; pub struct C;"),
            ("x/src/c.rs", "use crate::d::D; pub struct C;"),
            ("x/src/d.rs", "use crate::a::A; pub struct D;"),
        ];
        assert_eq!(
            check(&tree(&files))[0].to_string(),
            "x/src/a.rs:2: is one of 4 files that use each other, where 3 may: it uses x/src/b.rs (B, C); \
             move what they share to a file below them"
        );
    }
}
