//! The book, and the documents beside it, as text: that chapters are listed, that links lead somewhere, that snippets are
//! of programs that tests run, and that pictures are what the script makes. mdBook is not needed for it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use super::support::root;

/// The folder of the chapters, from the root.
pub(crate) const CHAPTERS: &str = "docs/book/src";

/// The chapters, as paths from the root, but for the list of them.
pub(crate) fn chapters() -> Vec<String> {
    let entries = fs::read_dir(root().join(CHAPTERS)).expect("the chapters");
    let names = entries.map(|entry| {
        let name = entry.expect("an entry").file_name();
        name.into_string().expect("UTF-8")
    });
    let mut names: Vec<String> = names
        .filter(|name| name.ends_with(".md") && name != "SUMMARY.md")
        .map(|name| format!("{CHAPTERS}/{name}"))
        .collect();
    names.sort();
    names
}

fn read(document: &str) -> String {
    fs::read_to_string(root().join(document)).unwrap_or_else(|e| panic!("{document}: {e}"))
}

/// The lines of a document that are not code, with their numbers, and without what stands between backticks.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let parts = line.split('`').step_by(2);
            lines.push((number + 1, parts.collect::<Vec<_>>().join("``")));
        }
    }
    lines
}

/// Where the links and pictures of a line lead.
fn targets(line: &str) -> Vec<&str> {
    let behind = line.split("](").skip(1);
    behind.filter_map(|rest| rest.split(')').next()).collect()
}

/// The names by which links reach a document's headings, as mdBook and code hosts make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        let Some(heading) = line.strip_prefix('#').filter(|_| !fenced) else {
            continue;
        };
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        });
        found.insert(kept.collect());
    }
    found
}

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => assert!(plain.pop(), "{path:?}"),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

/// What is wrong with where a link of a document leads.
fn astray(document: &str, text: &str, target: &str) -> Option<String> {
    if target.starts_with("https://") || target.starts_with("http://") {
        return None;
    }
    let (file, anchor) = match target.split_once('#') {
        Some((file, anchor)) => (file, Some(anchor)),
        None => (target, None),
    };
    let other = match file {
        "" => text.to_owned(),
        file => {
            let path = plain(&Path::new(document).parent().expect("a folder").join(file));
            // A book is read where the repository is not.
            if document.starts_with(CHAPTERS) && !path.starts_with(CHAPTERS) {
                return Some("leads out of the book".into());
            }
            let is_there = root().join(&path).exists();
            if !is_there {
                return Some("leads nowhere".into());
            }
            match anchor {
                Some(_) => read(path.to_str().expect("UTF-8")),
                None => return None,
            }
        }
    };
    let anchor = anchor?;
    (!anchors(&other).contains(anchor)).then(|| "names no heading".into())
}

#[test]
fn every_link_leads_somewhere() {
    let mut documents = chapters();
    let others = [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "python/README.md",
        "fuzz/README.md",
        "docs/book/src/SUMMARY.md",
    ];
    documents.extend(others.map(str::to_owned));
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for document in &documents {
        let mut text = read(document);
        // A document that is a chapter as a whole: its links have to hold in both places.
        for path in included(document, &text) {
            if path.ends_with(".md") {
                text += &read(&path);
            }
        }
        for (number, line) in prose(&text) {
            for target in targets(&line) {
                seen += 1;
                if let Some(what) = astray(document, &text, target) {
                    wrong.push(format!("{document}:{number}: {target} {what}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 50, "{seen} links");
}

#[test]
fn links_that_lead_nowhere_are_seen() {
    let chapter = "docs/book/src/start.md";
    let text = "# One\n\n## Two `of` them, too\n\n```sh\n# none\n```\n";
    let wrong = |target: &str| astray(chapter, text, target);
    assert_eq!(wrong("#one"), None);
    assert_eq!(wrong("#two-of-them-too"), None);
    assert_eq!(wrong("models.md#hybrids"), None);
    assert!(wrong("#none").is_some_and(|what| what.contains("heading")));
    assert!(wrong("models.md#nothing").is_some_and(|what| what.contains("heading")));
    assert!(wrong("nothing.md").is_some_and(|what| what.contains("nowhere")));
    assert!(wrong("../../../README.md").is_some_and(|what| what.contains("out of")));
    let lines = prose("a [b](c) `[d](e)` ![f](g)\n```\n[h](i)\n```\n");
    let found: Vec<&str> = lines.iter().flat_map(|(_, line)| targets(line)).collect();
    assert_eq!(found, ["c", "g"]);
}

#[test]
fn the_summary_lists_every_chapter_once() {
    let summary = read("docs/book/src/SUMMARY.md");
    let lines = summary.lines().flat_map(targets);
    let mut listed: Vec<String> = lines.map(|name| format!("{CHAPTERS}/{name}")).collect();
    listed.sort();
    assert_eq!(listed, chapters());
}

/// What a chapter takes in of other files, as paths from the root.
fn included(chapter: &str, text: &str) -> Vec<String> {
    let behind = text.split("{{#include ").skip(1);
    let names = behind.filter_map(|rest| rest.split("}}").next());
    let folder = Path::new(chapter).parent().expect("a folder");
    let paths = names.map(|name| plain(&folder.join(name)).to_string_lossy().into_owned());
    paths.collect()
}

/// Programs of Rust and C are examples, which tests build and run, and nothing else.
#[test]
fn programs_in_the_book_are_examples() {
    let mut seen = 0;
    for chapter in chapters() {
        let text = read(&chapter);
        for path in included(&chapter, &text) {
            assert!(root().join(&path).is_file(), "{chapter}: no {path}");
        }
        for language in ["rust", "c"] {
            for block in text.split(&format!("```{language}")).skip(1) {
                let Some(block) = block.strip_prefix('\n') else {
                    continue;
                };
                let code = block.split("\n```").next().unwrap_or_default();
                let paths = included(&chapter, code);
                assert!(
                    code.lines().count() == 1
                        && paths.len() == 1
                        && paths[0].contains("/examples/"),
                    "{chapter}: {code}"
                );
                seen += 1;
            }
        }
    }
    assert!(seen >= 5, "{seen} programs");
}

#[test]
fn pictures_are_what_the_script_makes() {
    let check = Command::new("python3")
        .args(["tools/book_pictures.py", "--check"])
        .current_dir(root())
        .output()
        .expect("Python");
    assert!(
        check.status.success(),
        "{}",
        String::from_utf8_lossy(&check.stderr)
    );
    for chapter in chapters() {
        let text = read(&chapter);
        for (number, line) in prose(&text) {
            let undescribed = line.contains("![](");
            assert!(
                !undescribed,
                "{chapter}:{number}: say in words what is to be seen"
            );
        }
    }
}
