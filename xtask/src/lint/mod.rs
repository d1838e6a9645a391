//! Rules of the kernels' texts that no compiler knows: `cargo run -p xtask -- lint-kernels`.
//!
//! The three compilers between them find what one of them refuses. These rules find what all of them take and what is
//! none the less outside the dialect, and collectives that a condition may keep some lanes from.

mod rules;
mod tokens;

use std::path::Path;
use std::process::ExitCode;

use walsh_kernels::{Kernel, kernels};

use rules::{Text, check, check_dialect};

/// Checks every text of the dialect and every entry of the kernel table.
pub(crate) fn run() -> ExitCode {
    let findings = match findings() {
        Ok(findings) => findings,
        Err(error) => {
            eprintln!("lint-kernels: {error}");
            return ExitCode::from(2);
        }
    };
    let (texts, entries) = (findings.texts, kernels().len());
    if findings.list.is_empty() {
        println!("lint-kernels: {texts} texts and {entries} kernels in order");
        return ExitCode::SUCCESS;
    }
    for finding in &findings.list {
        eprintln!("{finding}");
    }
    eprintln!("lint-kernels: {} things to mend", findings.list.len());
    ExitCode::FAILURE
}

struct Findings {
    texts: usize,
    list: Vec<String>,
}

fn findings() -> Result<Findings, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .ok_or("xtask does not lie in the repository")?;
    let folder = "crates/walsh-kernels/kernels";
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let entries = std::fs::read_dir(root.join(folder)).map_err(|e| format!("{folder}: {e}"))?;
    let mut texts = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| format!("{folder}: {e}"))?.path();
        if path.extension().is_some_and(|extension| extension == "h") {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            texts.push(Text::new(format!("{folder}/{name}"), read(&path)?));
        }
    }
    if texts.is_empty() {
        return Err(format!("{folder} holds no texts"));
    }
    texts.sort_by(|a, b| a.path.cmp(&b.path));
    let mut list = check(&texts);
    let dialect = |name: &str| read(&root.join(folder).join("dialect").join(name));
    list.extend(check_dialect(&(dialect("host.h")? + &dialect("plain.h")?)));
    let table = kernels();
    list.extend(table.iter().flat_map(|kernel| check_kernel(kernel)));
    let used = |text: &&Text| {
        let same = |part: &&str| **part == text.source;
        table
            .iter()
            .any(|kernel| same(&kernel.text) || kernel.includes.iter().any(same))
    };
    let unused = texts.iter().filter(|text| !used(text));
    list.extend(unused.map(|text| format!("{}:1: no kernel uses it", text.path)));
    Ok(Findings {
        texts: texts.len(),
        list,
    })
}

/// The most buffers of a kernel: Metal's argument tables and CUDA's parameters have room for more, but what has more
/// hides what it does.
const MOST_BUFFERS: usize = 9;

/// Rules of a table entry.
fn check_kernel(kernel: &Kernel) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut report = |what: String| wrong.push(format!("kernel {}: {what}", kernel.name));
    let for_all = !kernel.text.is_empty();
    let native = kernel.native.first().map_or("", |native| native.text);
    let own = if for_all { kernel.text } else { native };
    if for_all && kernel.buffers.len() > MOST_BUFFERS {
        report(format!(
            "{} buffers, at most {MOST_BUFFERS} are possible",
            kernel.buffers.len()
        ));
    }
    if !kernel.constants.contains(&"THREADS") {
        report("THREADS is not among its constants".into());
    }
    let all = Text::new(String::new(), kernel.includes.concat() + own);
    if !all.defines(kernel.name) {
        report("its text, with what it builds on, defines no function of its name".into());
    }
    if all.declares_struct("Shared") != kernel.shared {
        report("its `shared` does not say whether its text has a `struct Shared`".into());
    }
    let end = kernel
        .args
        .fields
        .iter()
        .map(|field| (field.offset, field.name));
    if !end.is_sorted() {
        report("its arguments are out of order".into());
    }
    wrong
}

#[cfg(test)]
mod tests {
    use walsh_kernels::{ArgsLayout, Parameter, Touch};

    use super::*;

    const RIGHT: Kernel = Kernel {
        name: "right",
        includes: &[],
        tables: |_| String::new(),
        text: "struct Shared { float x; }; inline void right(constant Args &args) {}",
        native: &[],
        constants: &["THREADS"],
        args: ArgsLayout {
            name: "Args",
            bytes: 0,
            fields: &[],
        },
        buffers: &[],
        shared: true,
    };

    #[test]
    fn the_table_and_its_texts_are_in_order() {
        assert_eq!(findings().unwrap().list, [""; 0]);
    }

    #[test]
    fn entries_outside_the_rules_are_found() {
        assert_eq!(check_kernel(&RIGHT), [""; 0]);
        let buffer = Parameter {
            name: "x",
            kind: "float",
            touch: Touch::Reads,
        };
        let ten: &'static [Parameter] = vec![buffer; 10].leak();
        for (kernel, word) in [
            (
                Kernel {
                    buffers: ten,
                    ..RIGHT
                },
                "10 buffers",
            ),
            (
                Kernel {
                    constants: &["WIDTH"],
                    ..RIGHT
                },
                "THREADS",
            ),
            (
                Kernel {
                    name: "other",
                    ..RIGHT
                },
                "no function of its name",
            ),
            (
                Kernel {
                    shared: false,
                    ..RIGHT
                },
                "`struct Shared`",
            ),
        ] {
            let found = check_kernel(&kernel);
            assert!(
                matches!(&found[..], [one] if one.contains(word)),
                "{found:?} lacks {word}"
            );
        }
    }
}
