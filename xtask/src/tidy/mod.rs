//! Rules of the repository that neither rustfmt nor clippy knows.

mod arguments;
mod circles;
mod layers;
mod places;
mod source;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Files of code that are longer than this want splitting by meaning.
const LONGEST_FILE: usize = 600;

/// Committed files larger than this belong elsewhere.
const LARGEST_FILE: usize = 2 << 20;

/// Hosts that code may name: papers, examples and this machine. What else is fetched, is fetched through a
/// package manager as the machine has it configured.
const KNOWN_HOSTS: &[&str] = &[
    "arxiv.org",
    "doi.org",
    "example.com",
    "example.org",
    "127.0.0.1",
    // The name of SVG, which nothing is fetched by.
    "www.w3.org",
];

/// Hosts of package registries and model stores, which no text of the repository names. Written in
/// pieces, so that this file does not either.
const REGISTRIES: &[&str] = &[
    concat!("crates", ".io"),
    concat!("pypi", ".org"),
    concat!("python", "hosted"),
    concat!("hugging", "face.co"),
    concat!("npmjs", "."),
    concat!("arti", "factory"),
];

/// The one host that Walsh itself speaks to unless it is told otherwise, and where alone it is named.
const HUB: (&str, &str) = (
    concat!("hugging", "face.co"),
    "crates/walsh-runtime/src/store/hub.rs",
);

/// Marks of unfinished work, in pieces for the same reason.
const MARKERS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("HA", "CK:"),
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("db", "g!("),
    concat!("#[ig", "nore"),
    concat!("```ig", "nore"),
];

/// One breach of a rule.
#[derive(Debug, PartialEq)]
struct Finding {
    path: PathBuf,
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.what)
    }
}

/// Checks every committed or committable file of the working tree.
pub(crate) fn run() -> ExitCode {
    match check_tree() {
        Err(error) => {
            eprintln!("tidy: {error}");
            ExitCode::from(2)
        }
        Ok((files, findings)) if findings.is_empty() => {
            println!("tidy: {files} files in order");
            ExitCode::SUCCESS
        }
        Ok((_, findings)) => {
            for finding in &findings {
                eprintln!("{finding}");
            }
            eprintln!("tidy: {} things to mend", findings.len());
            ExitCode::FAILURE
        }
    }
}

fn check_tree() -> Result<(usize, Vec<Finding>), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .ok_or("xtask does not lie in the repository")?;
    let listing = Command::new("git")
        .current_dir(root)
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .output()
        .map_err(|error| format!("cannot run git: {error}"))?;
    if !listing.status.success() {
        let why = String::from_utf8_lossy(&listing.stderr);
        return Err(format!("git ls-files: {}", why.trim()));
    }
    let names = String::from_utf8(listing.stdout).map_err(|_| "a file name is not UTF-8")?;
    let mut findings = Vec::new();
    let mut files = 0;
    let mut sources = BTreeMap::new();
    for name in names.split_terminator('\0') {
        let path = Path::new(name);
        let full = root.join(path);
        // Listed, but removed from the working tree or not a plain file.
        if !full.symlink_metadata().is_ok_and(|data| data.is_file()) {
            continue;
        }
        let bytes = std::fs::read(&full).map_err(|error| format!("{name}: {error}"))?;
        files += 1;
        findings.extend(check_file(path, &bytes));
        if path.extension().is_some_and(|extension| extension == "rs") {
            let text = String::from_utf8(bytes).map_err(|_| format!("{name} is not UTF-8"))?;
            sources.insert(path.to_owned(), text);
        }
    }
    findings.extend(circles::check(&sources));
    if files == 0 {
        return Err("git lists no files".to_owned());
    }
    Ok((files, findings))
}

fn check_file(path: &Path, bytes: &[u8]) -> Vec<Finding> {
    let mut check = Check {
        path,
        findings: Vec::new(),
    };
    if bytes.len() > LARGEST_FILE {
        check.report(1, format!("{} bytes are too many to commit", bytes.len()));
    }
    let kind = Kind::of(path);
    let Ok(text) = std::str::from_utf8(bytes) else {
        return check.findings;
    };
    if kind == Kind::Data {
        return check.findings;
    }
    check.form(text);
    for (index, line) in text.lines().enumerate() {
        check.words(index + 1, line, kind);
    }
    if kind == Kind::Code {
        let lines = text.lines().count();
        if lines > LONGEST_FILE {
            check.report(
                1,
                format!("{lines} lines: split what is over {LONGEST_FILE}"),
            );
        }
    }
    if path.extension().is_some_and(|extension| extension == "rs") {
        for (line, what) in places::check(path, text) {
            check.report(line, what);
        }
        if let Some(what) = places::file(path) {
            check.report(1, what);
        }
        check.rust(text);
    }
    if path.ends_with("Cargo.toml") && !path.starts_with("fuzz") {
        check.manifest(text);
    }
    if path == Path::new("ARCHITECTURE.md")
        && let Some((line, what)) = layers::map(text)
    {
        check.report(line, what);
    }
    check.findings
}

/// What rules a file comes under.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Programs, scripts and settings.
    Code,
    Prose,
    /// What is not written by hand, or not by us.
    Data,
}

impl Kind {
    fn of(path: &Path) -> Kind {
        let within = |folder: &str| path.components().any(|part| part.as_os_str() == folder);
        let extension = path.extension().and_then(|extension| extension.to_str());
        match extension {
            Some("rs" | "cu" | "h" | "c" | "cpp") => Kind::Code,
            Some("js" | "mjs" | "css") => Kind::Code,
            Some("py" | "pyi" | "sh" | "toml") => Kind::Code,
            None if within(".ci") => Kind::Code,
            Some("md") => Kind::Prose,
            _ => Kind::Data,
        }
    }
}

struct Check<'a> {
    path: &'a Path,
    findings: Vec<Finding>,
}

impl Check<'_> {
    fn report(&mut self, line: usize, what: impl Into<String>) {
        self.findings.push(Finding {
            path: self.path.to_owned(),
            line,
            what: what.into(),
        });
    }

    fn form(&mut self, text: &str) {
        for (index, line) in text.split_terminator('\n').enumerate() {
            if line.ends_with([' ', '\t', '\r']) {
                self.report(index + 1, "white space at the end of the line");
            }
        }
        if !text.is_empty() && !text.ends_with('\n') {
            self.report(text.lines().count(), "the last line has no end");
        }
    }

    fn words(&mut self, number: usize, line: &str, kind: Kind) {
        let (hub, its_home) = HUB;
        let path = self.path;
        let may_name = |host: &str| host == hub && path == Path::new(its_home);
        let named = REGISTRIES.iter().filter(|host| line.contains(**host));
        for host in named.filter(|host| !may_name(host)) {
            self.report(number, format!("names the registry {host}"));
        }
        if kind == Kind::Prose {
            return;
        }
        for marker in MARKERS.iter().filter(|marker| line.contains(**marker)) {
            self.report(number, format!("unfinished: {marker}"));
        }
        for host in hosts(line) {
            if !KNOWN_HOSTS.contains(&host) && !may_name(host) {
                self.report(number, format!("names the host {host}"));
            }
        }
    }

    fn rust(&mut self, text: &str) {
        let found = match source::tokens(text) {
            Ok(tokens) => arguments::check(tokens),
            Err(broken) => vec![broken],
        };
        for (line, what) in found {
            self.report(line, what);
        }
    }

    fn manifest(&mut self, text: &str) {
        for (line, what) in layers::manifest(text) {
            self.report(line, what);
        }
        let lints = text.split_once("[lints]\n").map(|(_, rest)| rest);
        let is_member = text.contains("[package]\n");
        if is_member && !lints.is_some_and(|rest| rest.starts_with("workspace = true")) {
            self.report(1, "does not take the workspace's lints");
        }
    }
}

/// The hosts of the URLs in a line.
fn hosts(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("://").filter_map(|(at, separator)| {
        let rest = &line[at + separator.len()..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '-');
        let host = &rest[..end.unwrap_or(rest.len())];
        host.contains('.').then_some(host)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        let findings = check_file(Path::new(path), text.as_bytes());
        findings.iter().map(|finding| finding.to_string()).collect()
    }

    #[test]
    fn every_rule_finds_what_it_is_for() {
        let source = "crates/walsh/src/lib.rs";
        assert_eq!(found(source, "fn main() {}\n"), [""; 0]);
        for marker in MARKERS {
            assert_eq!(
                found(source, &format!("// {marker}\n")).len(),
                1,
                "{marker}"
            );
        }
        for registry in REGISTRIES {
            assert_eq!(
                found("README.md", &format!("see {registry}\n")).len(),
                1,
                "{registry}"
            );
        }
        let line = concat!("let a = std::env", "::var(\"A\");\n");
        assert_eq!(found(source, line).len(), 1);
        assert_eq!(found("xtask/src/main.rs", line), [""; 0]);
        let (hub, its_home) = HUB;
        let line = format!("const HUB: &str = \"https://{hub}\";\n");
        assert_eq!(found(its_home, &line), [""; 0]);
        assert_eq!(
            found("crates/walsh-runtime/src/store/http.rs", &line).len(),
            2
        );
        assert_eq!(found(its_home, &format!("// {}\n", REGISTRIES[0])).len(), 1);
        let url = |host: &str| format!("//! See https://{host}/a/b.\n");
        assert_eq!(found(source, &url("arxiv.org")), [""; 0]);
        assert_eq!(
            found(source, &url("host.invalid")),
            [format!("{source}:1: names the host host.invalid")]
        );
        assert_eq!(found(source, &"//\n".repeat(600)), [""; 0]);
        for path in [source, "a/b.h", "a/b.cu", "a/page/b.js", "a.py", ".ci/run"] {
            assert_eq!(found(path, &"//\n".repeat(601)).len(), 1, "{path}");
        }
        assert_eq!(found("README.md", &"//\n".repeat(601)), [""; 0]);
        assert_eq!(found(source, "a \nb").len(), 2);
        let six = "fn f(a: u8, b: u8, c: u8, d: u8, e: u8, g: u8) {}\n";
        assert_eq!(found(source, six).len(), 1);
        assert_eq!(
            found("crates/a/tests/b.rs", "\nfn a() {\n"),
            ["crates/a/tests/b.rs:2: is no Rust: cannot parse string into token stream"]
        );
        assert_eq!(found("a.bin", &"\0".repeat(LARGEST_FILE + 1)).len(), 1);
    }

    #[test]
    fn a_manifest_takes_the_lints_and_keeps_the_order() {
        let manifest = |lints: &str, uses: &str| {
            let text = format!(
                "[package]\nname = \"walsh-core\"\n\n{lints}\n[dependencies]\n{uses}.workspace = true\n"
            );
            found("crates/a/Cargo.toml", &text)
        };
        let lints = "[lints]\nworkspace = true\n";
        assert_eq!(manifest(lints, "walsh-formats"), [""; 0]);
        assert_eq!(
            manifest(lints, "walsh-cpu"),
            ["crates/a/Cargo.toml:8: walsh-core is below walsh-cpu and cannot use it"]
        );
        assert_eq!(manifest("", "walsh-formats").len(), 1);
        let bare = "[package]\nname = \"xtask\"\n";
        assert_eq!(
            found("xtask/Cargo.toml", bare),
            ["xtask/Cargo.toml:1: does not take the workspace's lints"]
        );
        assert_eq!(found("Cargo.toml", "[workspace]\n"), [""; 0]);
    }
}
