//! What is no file, and files that do not stay as they are.

use walsh::formats::gguf::write::NewValue;
use walsh_runtime::Model;

use crate::of;
use crate::support::tiny::Tiny;
use crate::support::{Folder, command, walsh};

#[cfg(unix)]
#[test]
fn pipes_and_devices_are_refused_at_once() {
    use std::os::unix::fs::symlink;

    let folder = Folder::new();
    let pipe = folder.path().join("pipe.gguf");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo").success());
    let link = folder.path().join("link.gguf");
    symlink(&pipe, &link).expect("a link");
    let zero = folder.path().join("zero.gguf");
    symlink("/dev/zero", &zero).expect("a link");
    for path in [&pipe, &link, &zero] {
        let device = walsh::open("cpu:threads=1,packing=never").expect("the processor");
        let error = Model::open(&device, path).expect_err("no file").to_string();
        assert!(error.contains("a pipe or a device"), "{error}");
        let path = path.to_str().expect("UTF-8");
        walsh(["inspect", path]).fails(1, "not a file");
        walsh(["generate", "--model", path, "x"]).fails(1, "not a file");
    }
    // A part of a split model.
    let parts = [
        ("split.no", Some(NewValue::U16(0))),
        ("split.count", Some(NewValue::U16(2))),
    ];
    let split = Tiny {
        metadata: parts.to_vec(),
        ..of("llama")
    };
    let first = folder.argument("split-00001-of-00002.gguf", &split.gguf());
    let second = folder.path().join("split-00002-of-00002.gguf");
    std::fs::rename(&pipe, &second).expect("moved");
    walsh(["inspect", &first]).fails(1, "split-00002-of-00002.gguf");
    // A session, and a lock.
    let model = folder.argument("tiny.gguf", &of("llama").gguf());
    let pipe = second.to_str().expect("UTF-8");
    walsh(["generate", "--model", &model, "--load", pipe, "x"]).fails(1, "not a file");
    let cache = folder.path().join("cache");
    std::fs::create_dir(&cache).expect("a folder");
    std::fs::rename(&second, cache.join(".smollm2-135m.lock")).expect("moved");
    let cache = cache.to_str().expect("UTF-8");
    walsh(["pull", "smollm2-135m", "--cache-dir", cache]).fails(1, ".smollm2-135m.lock");
}

/// A file that others shorten is the end of a run, which says why.
#[cfg(target_os = "linux")]
#[test]
fn a_file_that_is_cut_short_while_it_is_open_is_named_before_the_end() {
    use std::io::{Read, Write};
    use std::process::Stdio;

    let folder = Folder::new();
    let path = folder.argument("tiny.gguf", &of("llama").gguf());
    let mut chat = command()
        .args([
            "chat",
            "--threads",
            "1",
            "--max-tokens",
            "2",
            "--model",
            &path,
        ])
        .args(["--device", "cpu:packing=never"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut input = chat.stdin.take().expect("a pipe");
    let mut output = chat.stdout.take().expect("a pipe");
    input.write_all(b"hello\n").expect("written");
    // The model is open once it answers.
    let mut first = [0];
    output.read_exact(&mut first).expect("an answer");
    let file = std::fs::File::options().write(true).open(&path);
    file.expect("there").set_len(4096).expect("cut");
    // The command may be gone before it is asked again.
    drop(input.write_all(b"more\n"));
    drop(input);
    let ended = chat.wait_with_output().expect("the command ends");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("cut short"), "{said}");
}
