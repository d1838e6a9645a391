//! Runs the commands of README.md, CONTRIBUTING.md and the book: what a reader types works.
//!
//! Commands run as they stand but for their sizes, which SMALLER and the additions below cut down, and placeholders.
//! Commands for a GPU must give a clear error where there is none. Of scripts and of cargo's commands it is checked that
//! what they name is there.

mod book;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use support::{Folder, root, tiny::Tiny};
use walsh::formats::DType;

/// Sizes that would take long, and models that are too large to be fetched for this.
const SMALLER: [(&str, &str); 19] = [
    ("--shared 3000", "--shared 40"),
    ("-n -1", "-n 4"),
    ("llama3-8b:", "smollm2-135m:"),
    ("qwen2.5-coder-1.5b", "smollm2-135m"),
    ("fit --model smollm2-135m", "fit --model ./my.gguf"),
    ("fit --model gemma3-270m", "fit --model ./my.gguf"),
    ("--context 1024", "--context 64"),
    ("--context 4096", "--context 64"),
    ("--chunks 12", "--chunks 1"),
    ("--chunks 8", "--chunks 1"),
    ("--chunks 4", "--chunks 1"),
    ("--chunks 2", "--chunks 1"),
    ("0,4096", "0,16"),
    ("--depth 4096", "--depth 16"),
    ("--depth 64", "--depth 16"),
    ("--generate 128", "--generate 2"),
    ("--generate 64", "--generate 2"),
    ("--generate 32", "--generate 2"),
    ("--prompt 512", "--prompt 8"),
];

/// What stands for something of the reader's.
const PLACEHOLDERS: [(&str, &str); 8] = [
    ("PROMPT", "hi"),
    ("FILE", "kv.html"),
    ("MODEL", "smollm2-135m"),
    ("DEVICE", "cpu"),
    ("SPEC", "tq4"),
    ("NAME", "smollm2-135m"),
    ("N", "2"),
    ("…", ""),
];

/// A command of a document.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    text: String,
    /// The file and the line.
    at: String,
}

/// The commands of a document: the lines of its blocks for the shell, and what its text has between backticks that starts
/// like one.
fn commands(name: &str, text: &str) -> Vec<Found> {
    let mut found = Vec::new();
    let mut fence: Option<bool> = None;
    let mut begun = String::new();
    for (number, line) in text.lines().enumerate() {
        let at = format!("{name}:{}", number + 1);
        if let Some(language) = line.trim_start().strip_prefix("```") {
            fence = match fence {
                None => Some(language == "sh"),
                Some(_) => None,
            };
            continue;
        }
        match fence {
            Some(true) => {
                if let Some(part) = line.strip_suffix('\\') {
                    begun += part;
                    continue;
                }
                let text = std::mem::take(&mut begun) + without_comment(line);
                if !text.trim().is_empty() {
                    found.push(Found { text, at });
                }
            }
            Some(false) => {}
            None => {
                let spans = line.split('`').skip(1).step_by(2);
                let spans = spans.filter(|span| is_command(span) && span.contains(' '));
                found.extend(spans.map(|span| Found {
                    text: span.to_owned(),
                    at: at.clone(),
                }));
            }
        }
    }
    found
}

fn without_comment(line: &str) -> &str {
    let end = line
        .find("  #")
        .or_else(|| line.starts_with('#').then_some(0));
    line[..end.unwrap_or(line.len())].trim()
}

fn is_command(text: &str) -> bool {
    ["walsh ", "cargo ", ".ci/", "tools/", "python3 tools/"]
        .iter()
        .any(|start| text.starts_with(start))
}

/// A command of `walsh` as it is run here.
fn shortened(command: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in command.split(' ').filter(|word| !word.is_empty()) {
        let stands_for = PLACEHOLDERS.iter().find(|(name, _)| *name == word);
        words.push(stands_for.map_or(word, |(_, value)| value).to_owned());
    }
    let mut command = words.join(" ");
    for (long, short) in SMALLER {
        command = command.replace(long, short);
    }
    let first = |command: &str| command.split(' ').nth(1).unwrap_or_default().to_owned();
    let more: &[&str] = match first(&command).as_str() {
        _ if command.contains("--help") => &[],
        "generate" | "run" => &["--max-tokens 4"],
        "bench" if command.contains("--profile") => &["--generate 2", "--depth 16"],
        "bench" if command.contains("--shared") => &["--repetitions 1"],
        "bench" => &[
            "--generate 2",
            "--depth 16",
            "--prompt 8",
            "--repetitions 1",
        ],
        "bench-ops" => &["--quick"],
        "perplexity" => &["--file book.txt", "--context 64", "--chunks 1"],
        "fidelity" => &["--task sums", "--count 1"],
        "fit" => &["--model ./my.gguf", "--tokens 64", "--cache-dir cache"],
        "rm" => &["--cache-dir cache"],
        "imatrix" => &["--context 64"],
        "serve" => &["--port 0"],
        _ => &[],
    };
    for option in more {
        let name = option.split(' ').next().unwrap_or_default();
        let short = if name == "--max-tokens" { " -n " } else { "\n" };
        // Of several texts none is prefilled alone.
        let unfit = name == "--prompt" && command.contains("--sequences");
        if !unfit && !command.contains(name) && !command.contains(short) {
            // What is redirected comes last.
            let end = command.find(" < ").or_else(|| command.find(" > "));
            let end = end.unwrap_or(command.len());
            command.insert_str(end, &format!(" {option}"));
        }
    }
    command
}

/// Copies the files of one of the repository's folders.
fn copy(from: &str, to: &str, folder: &Folder) {
    let to = folder.path().join(to);
    fs::create_dir_all(&to).expect("a folder");
    for entry in fs::read_dir(root().join(from)).expect("the folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name");
        fs::copy(&path, to.join(name)).expect("a copy");
    }
}

/// A folder with all that the documents' commands find in a reader's.
fn reader() -> Folder {
    let folder = Folder::new();
    let make = |name: &str| fs::create_dir_all(folder.path().join(name)).expect("a folder");
    folder.file("my.gguf", &Tiny::default().gguf());
    let halves = Tiny {
        dtype: DType::F16,
        ..Tiny::default()
    };
    folder.file("my-f16.gguf", &halves.gguf());
    folder.file("sql.gguf", &support::tiny::adapter(1));
    copy(
        "crates/walsh-convert/tests/folders/qwen3",
        "my-model",
        &folder,
    );
    let book = fs::read_to_string(root().join("tests/data/persuasion.txt")).expect("the text");
    let beginning: String = book.chars().take(3000).collect();
    let article: String = book.chars().take(100).collect();
    make("tests/data");
    make("docs/book/src/kv");
    make("cache");
    folder.file("book.txt", beginning.as_bytes());
    folder.file("article.txt", article.as_bytes());
    folder.file(
        "questions.jsonl",
        b"{\"prompt\": \"Once\", \"max_tokens\": 2}\n",
    );
    folder.file(
        "template.jinja",
        b"{% for m in messages %}{{ m.content }}\n{% endfor %}",
    );
    folder.file("tests/data/persuasion.txt", beginning.as_bytes());
    for entry in fs::read_dir(root().join("docs/book/src/kv")).expect("the pages") {
        let path = entry.expect("an entry").path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let name = path.file_name().expect("a name");
            fs::copy(&path, folder.path().join("docs/book/src/kv").join(name)).expect("a copy");
        }
    }
    // A model that may be removed.
    folder.file("cache/smollm2-135m.gguf", b"not whole");
    folder
}

/// Runs a server until it listens, and asks it to end; what is wrong with that.
fn serve(command: &str, folder: &Folder) -> Result<(), String> {
    let mut child = support::command()
        .args(command.split(' ').skip(1))
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut said = String::new();
    for line in BufReader::new(child.stderr.take().expect("a pipe")).lines() {
        let line = line.expect("text");
        if line.starts_with("listening on ") {
            // SAFETY: a signal to a child that was not waited for.
            unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
        }
        said += &line;
        said.push('\n');
    }
    let status = child.wait().expect("a child").code();
    match status == Some(0) && said.contains("listening on http://127.0.0.1:") {
        true => Ok(()),
        false => Err(format!("status {status:?}: {said}")),
    }
}

/// Runs a command of `walsh`; what is wrong with how it ended.
fn run(command: &str, folder: &Folder) -> Result<(), String> {
    if command.starts_with("walsh serve") && !command.contains("--help") {
        return serve(command, folder);
    }
    let binary = Path::new(env!("CARGO_BIN_EXE_walsh"));
    let output = Command::new("sh")
        .args(["-c", "PATH=\"$0:$PATH\"; eval \"$1\""])
        .arg(binary.parent().expect("its folder"))
        .arg(command)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .expect("a shell");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    let refused = |device: &str, word: &str| command.contains(device) && words.contains(word);
    let lacks = refused("cuda:", "CUDA") && output.status.code() == Some(1)
        || refused("metal:", "not in this build") && output.status.code() == Some(2);
    if lacks {
        println!("not run, it needs a GPU: {command}");
        return Ok(());
    }
    match output.status.code() {
        Some(0) => Ok(()),
        status => Err(format!("status {status:?}: {}", words.trim())),
    }
}

/// The names that `walsh --help` lists.
fn subcommands() -> Vec<String> {
    let help = support::walsh(["--help"]).ok();
    let listed = help
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1);
    let listed = listed.take_while(|line| line.starts_with("  "));
    // What is indented further goes on with a line that was wrapped.
    let named = listed.filter(|line| !line.starts_with("   "));
    let names: Vec<String> = named
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        // That takes a command's name.
        .filter(|name| name != "help")
        .collect();
    assert!(names.contains(&"generate".to_owned()), "{help}");
    names
}

/// What a command of cargo or a script names, and the repository does not have.
fn missing(command: &str) -> Option<String> {
    let words: Vec<&str> = command.split(' ').collect();
    let behind = |flag: &str| {
        let at = words.iter().position(|word| *word == flag)?;
        words.get(at + 1).copied()
    };
    if words[0] != "cargo" {
        let script = words.iter().find(|word| word.contains('/'))?;
        let is_there = root().join(script).is_file();
        return (!is_there).then(|| format!("there is no {script}"));
    }
    let package = behind("-p").unwrap_or("walsh-cli");
    let folders = ["crates", "."].map(|parent| root().join(parent).join(package));
    let Some(folder) = folders
        .iter()
        .find(|folder| folder.join("Cargo.toml").is_file())
    else {
        return Some(format!("there is no package {package}"));
    };
    for (flag, parent) in [("--test", "tests"), ("--example", "examples")] {
        let Some(name) = behind(flag) else { continue };
        let parent = folder.join(parent);
        if !parent.join(name).is_dir() && !parent.join(format!("{name}.rs")).is_file() {
            return Some(format!("{package} has no {parent:?}/{name}"));
        }
    }
    let path = behind("--path")?;
    (!root().join(path).is_dir()).then(|| format!("there is no {path}"))
}

#[test]
fn every_command_of_the_documents_runs() {
    let mut documents = vec!["README.md".to_owned(), "CONTRIBUTING.md".to_owned()];
    documents.extend(book::chapters());
    let folder = reader();
    let (mut seen, mut failures) = (BTreeSet::new(), Vec::new());
    for document in &documents {
        let text = fs::read_to_string(root().join(document)).expect("a document");
        for Found { text, at } in commands(document, &text) {
            let ours = text
                .strip_prefix("cargo run --release -- ")
                .map(|arguments| format!("walsh {arguments}"));
            let command = ours.unwrap_or(text);
            let outcome = match command.strip_prefix("walsh ") {
                // What comes from elsewhere is tested against a server of the test's own.
                Some(arguments) if arguments.contains("hf:") || arguments.contains("https:") => {
                    println!("not run, it needs a network: {command}");
                    Ok(())
                }
                Some(arguments) => {
                    let names = match arguments.split(' ').next() {
                        Some("COMMAND") => subcommands(),
                        _ => vec![String::new()],
                    };
                    names.iter().try_for_each(|name| {
                        let command = shortened(&command.replace("COMMAND", name));
                        match seen.insert(command.clone()) {
                            true => run(&command, &folder).map_err(|e| format!("{command}: {e}")),
                            false => Ok(()),
                        }
                    })
                }
                None => missing(&command).map_or(Ok(()), Err),
            };
            if let Err(error) = outcome {
                failures.push(format!("{at}: {error}"));
            }
        }
    }
    assert!(seen.len() > 20, "only {seen:?}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn commands_are_found_in_blocks_and_between_backticks() {
    let text = "Say `walsh list` or `walsh`.\n```sh\nwalsh a \\\n  b  # c\n\n```\n```rust\nwalsh x\n```\n`MODEL`\n";
    let texts: Vec<String> = commands("d", text).into_iter().map(|f| f.text).collect();
    assert_eq!(texts, ["walsh list", "walsh a b"]);
    assert_eq!(
        shortened("walsh bench --synthetic llama3-8b:q4_0 --depth 0"),
        "walsh bench --synthetic smollm2-135m:q4_0 --depth 0 --generate 2 --prompt 8 --repetitions 1"
    );
    assert_eq!(
        shortened("walsh generate --model MODEL - < a.txt"),
        "walsh generate --model smollm2-135m - --max-tokens 4 < a.txt"
    );
    assert!(missing("cargo test -p walsh-core").is_none());
    assert!(missing("cargo test -p walsh-nothing").is_some());
    assert!(missing("cargo test -p conformance --test nothing").is_some());
    assert!(missing(".ci/nothing").is_some());
}
