//! What code may do only in some places: the invariants of ARCHITECTURE.md that can be read off a line.

use std::path::Path;

/// Something that is confined to places.
struct Confined {
    /// What a line must not have.
    mark: Mark,
    /// Where the rule holds, as the start of a path.
    within: &'static str,
    /// Where it may be all the same.
    except: &'static [&'static str],
    /// What is wrong elsewhere.
    what: &'static str,
}

enum Mark {
    /// One of these texts. Written in pieces where this file would be found.
    Text(&'static [&'static str]),
    /// A block, function or implementation that is unsafe.
    Unsafe,
    /// State of the process.
    State,
}

const RULES: &[Confined] = &[
    Confined {
        mark: Mark::Text(&[concat!("env", "::var"), concat!("env", "::set_var")]),
        within: "crates",
        except: &[],
        what: "reads the environment: make it a field of an options struct",
    },
    Confined {
        mark: Mark::Unsafe,
        within: "",
        except: &[
            "crates/walsh-cpu",
            "crates/walsh-cuda",
            "crates/walsh-metal",
            "crates/walsh-sim",
            "crates/walsh-core/src/buffer.rs",
            "crates/walsh-formats/src/ggml/reference.rs",
            "crates/walsh-convert/src/source.rs",
            "crates/walsh-runtime/src/model/file.rs",
            "crates/walsh-runtime/src/perplexity/softmax.rs",
            "crates/walsh-c",
            "crates/walsh-cli/src/system/unix/cut_short.rs",
            "crates/walsh-cli/src/system/windows/terminal.rs",
        ],
        what: "is unsafe where ARCHITECTURE.md names no reason to be",
    },
    Confined {
        mark: Mark::Text(&[
            "std::fs",
            "std::net",
            "std::process",
            "std::time",
            "Instant::",
            "SystemTime",
            "File::",
        ]),
        within: "crates/walsh-formats/src",
        except: &[],
        what: "walsh-formats knows no file, no clock and no system",
    },
    Confined {
        mark: Mark::Text(&[
            "cfg(feature",
            "cfg(target",
            "cfg!(",
            "walsh_cpu",
            "walsh_cuda",
        ]),
        within: "crates/walsh-core/src",
        except: &[],
        what: "walsh-core knows no backend, feature or platform",
    },
    Confined {
        mark: Mark::State,
        within: "crates",
        except: &[
            // Numbers for what must differ, and nothing else.
            "crates/walsh-core/src/buffer.rs",
            "crates/walsh-cuda/src/disk.rs",
            // What went wrong in a thread's latest call, as C programs ask for it.
            "crates/walsh-c/src/error.rs",
            "crates/walsh-sim",
            "crates/walsh-cli/src/interrupt.rs",
        ],
        what: "keeps state of the process: give it to whoever needs it",
    },
    Confined {
        mark: Mark::Text(&["ureq::", "TcpStream", "UdpSocket"]),
        within: "crates",
        except: &[
            "crates/walsh-runtime/src/store",
            "crates/walsh-serve/src/server.rs",
        ],
        what: "only the store and the server speak to a network",
    },
];

/// Each line of a Rust file that does what its place does not allow.
pub(super) fn check(path: &Path, text: &str) -> Vec<(usize, &'static str)> {
    // Tests and examples may look from outside; cargo speaks to build scripts through the environment.
    let named = |name: &str| path.components().any(|part| part.as_os_str() == name);
    if ["tests", "tests.rs", "examples", "build.rs"]
        .into_iter()
        .any(named)
    {
        return Vec::new();
    }
    let rules = RULES.iter().filter(|rule| {
        path.starts_with(rule.within) && !rule.except.iter().any(|place| path.starts_with(place))
    });
    let rules: Vec<&Confined> = rules.collect();
    let own = text.lines().take_while(|line| *line != "mod tests {");
    let mut found = Vec::new();
    for (index, line) in own.enumerate() {
        let code = line.split("//").next().unwrap_or(line);
        let broken = rules.iter().filter(|rule| rule.mark.is_in(code));
        found.extend(broken.map(|rule| (index + 1, rule.what)));
    }
    found
}

/// What is wrong with there being this file.
pub(super) fn file(path: &Path) -> Option<&'static str> {
    let builds = path.ends_with("build.rs") && !path.starts_with("crates/walsh-sim");
    builds.then_some("nothing but the simulator is built by a script: no product has C or C++")
}

impl Mark {
    fn is_in(&self, code: &str) -> bool {
        match self {
            Mark::Text(texts) => texts.iter().any(|text| code.contains(text)),
            Mark::Unsafe => code
                .match_indices(concat!("un", "safe "))
                .any(|(at, word)| {
                    let begins = ["{", "fn ", "impl", "extern ", "trait "];
                    begins
                        .iter()
                        .any(|begin| code[at + word.len()..].starts_with(begin))
                }),
            Mark::State => {
                let stored = code
                    .trim_start()
                    .trim_start_matches("pub ")
                    .strip_prefix("static ");
                let changes = ["mut ", "Mutex", "RwLock", "Atomic", "Cell<"];
                stored.is_some_and(|stored| changes.iter().any(|word| stored.contains(word)))
                    || code.contains(concat!("thread_", "local!"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, line: &str) -> usize {
        check(Path::new(path), &format!("{line}\n")).len()
    }

    #[test]
    fn every_rule_finds_what_it_is_for_and_leaves_its_exceptions_alone() {
        let unsafe_block = concat!("let x = un", "safe { *p };");
        for (line, wrong, right) in [
            (
                concat!("std::env", "::var(\"A\")"),
                "crates/walsh/src/lib.rs",
                "xtask/src/main.rs",
            ),
            (
                concat!("env", "::set_var(\"A\")"),
                "crates/walsh/src/lib.rs",
                "crates/walsh-sim/build.rs",
            ),
            (
                unsafe_block,
                "crates/walsh/src/lib.rs",
                "crates/walsh-cpu/src/isa.rs",
            ),
            (
                unsafe_block,
                "conformance/src/lib.rs",
                "crates/walsh-cli/tests/support/mod.rs",
            ),
            (
                concat!("un", "safe impl Send for A {}"),
                "crates/walsh-core/src/list.rs",
                "crates/walsh-core/src/buffer.rs",
            ),
            (
                "use std::fs;",
                "crates/walsh-formats/src/lib.rs",
                "crates/walsh-formats/src/kv/tests.rs",
            ),
            (
                "let now = Instant::now();",
                "crates/walsh-formats/src/lib.rs",
                "crates/walsh-core/src/list.rs",
            ),
            (
                "#[cfg(feature = \"cuda\")]",
                "crates/walsh-core/src/lib.rs",
                "crates/walsh/src/lib.rs",
            ),
            (
                "static A: Mutex<u32> = x;",
                "crates/walsh/src/lib.rs",
                "crates/walsh-sim/src/hooks.rs",
            ),
            (
                "    pub static A: AtomicU64 = x;",
                "crates/walsh/src/lib.rs",
                "crates/walsh-core/src/buffer.rs",
            ),
            (
                "ureq::get(x)",
                "crates/walsh-runtime/src/lib.rs",
                "crates/walsh-runtime/src/store/http.rs",
            ),
        ] {
            assert_eq!(count(wrong, line), 1, "{line}");
            assert_eq!(count(right, line), 0, "{line}");
            assert_eq!(count(wrong, &format!("// {line}")), 0, "{line}");
            assert_eq!(count(wrong, &format!("mod tests {{\n{line}")), 0, "{line}");
        }
        let table = "static A: OnceLock<Vec<f32>> = OnceLock::new();";
        assert_eq!(count("crates/walsh/src/lib.rs", table), 0);
        assert!(file(Path::new("crates/walsh/build.rs")).is_some());
        assert_eq!(file(Path::new("crates/walsh-sim/build.rs")), None);
    }
}
