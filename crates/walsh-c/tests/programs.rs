//! The header is that of the library, and programs in C use it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The shared library, which lies in `deps` beside this test.
fn library() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let deps = test.parent().expect("the folder of this test");
    let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    deps.join(format!("{prefix}walsh_c{suffix}"))
}

fn run(command: &mut Command) -> Output {
    let output = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    output
}

/// Compiles a program, without a warning of the compiler's.
fn compiled(source: &str, into: &Path) -> PathBuf {
    let program = into.join("program");
    let library = library();
    run(Command::new("cc")
        .args([
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-Wpedantic",
            "-Werror",
            "-O1",
            "-pthread",
        ])
        .arg("-I")
        .arg(folder().join("include"))
        .arg(folder().join(source))
        .arg(&library)
        .arg("-Wl,-rpath")
        .arg(library.parent().expect("its folder"))
        .arg("-o")
        .arg(&program));
    program
}

/// `cbindgen --config crates/walsh-c/cbindgen.toml crates/walsh-c` prints it, too.
#[test]
fn the_header_is_that_of_the_library() {
    let config = cbindgen::Config::from_file(folder().join("cbindgen.toml")).expect("settings");
    let bindings = cbindgen::Builder::new()
        .with_crate(folder())
        .with_config(config);
    let mut header = Vec::new();
    bindings.generate().expect("a header").write(&mut header);
    let header = String::from_utf8(header).expect("text");
    let path = folder().join("include/walsh.h");
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    if header != kept {
        let new = library().with_file_name("walsh.h");
        std::fs::write(&new, header).expect("written");
        panic!("{} is not of today: {} is", path.display(), new.display());
    }
}

#[test]
fn every_function_does_what_the_header_says() {
    let temporary = tempfile::tempdir().expect("a folder");
    let program = compiled("tests/check.c", temporary.path());
    let output = run(Command::new(program)
        .arg("smollm2-135m")
        .arg(temporary.path()));
    assert_eq!(output.stdout, b"done\n");
}

#[test]
fn the_example_answers() {
    let temporary = tempfile::tempdir().expect("a folder");
    let program = compiled("examples/answer.c", temporary.path());
    let question = "Say \"hello\"\nin one word.";
    let output = run(Command::new(&program).args(["smollm2-135m", question]));
    assert!(output.stdout.len() > 2, "{output:?}");
    let wrong = Command::new(program)
        .args(["/no/such.gguf", question])
        .output();
    let wrong = wrong.expect("it starts");
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("/no/such.gguf"));
}
