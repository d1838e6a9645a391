//! Runs the built command, and makes small models for it.
#![allow(dead_code)] // each test file uses its own part

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub(crate) mod bias;
#[cfg(unix)]
pub(crate) mod pty;
pub(crate) mod tiny;

/// What a run printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn new(output: Output) -> Self {
        Self {
            status: output.status.code(),
            out: String::from_utf8(output.stdout).expect("standard output is UTF-8"),
            err: String::from_utf8(output.stderr).expect("standard error is UTF-8"),
        }
    }

    /// The run went well; returns its standard output.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.status, Some(0), "{self:?}");
        self.out
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(self) -> serde_json::Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The run failed with one line, behind that about the cache if the run had begun, which
    /// starts with the command's name, holds `part` and speaks of no panic.
    #[track_caller]
    pub(crate) fn fails(&self, status: i32, part: &str) {
        assert_eq!(self.status, Some(status), "{self:?}");
        let line = behind_start(&self.err).trim_end();
        assert!(line.starts_with("walsh: "), "{self:?}");
        assert!(!line.contains('\n'), "{self:?}");
        assert!(line.contains(part), "{part:?} is not in {line:?}");
        assert!(!line.contains("panicked"), "{self:?}");
    }
}

/// What standard error has behind the line about the cache, which a run begins with.
pub(crate) fn behind_start(err: &str) -> &str {
    match err.split_once('\n') {
        Some((first, rest)) if first.starts_with("KV cache ") => rest,
        _ => err,
    }
}

/// The command, ready to be given arguments.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walsh"));
    // SAFETY: system calls are all that happens between fork and exec.
    #[cfg(unix)]
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(&mut command, heed_signals);
    }
    command
}

/// Makes a child heed the signals that whoever runs the tests may have them ignore: a shell does so with SIGINT for what it
/// runs in the background, `nohup` with SIGHUP.
#[cfg(unix)]
pub(crate) fn heed_signals() -> std::io::Result<()> {
    for signal in [libc::SIGINT, libc::SIGHUP, libc::SIGTERM] {
        // SAFETY: the default action is no function of this program.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    Ok(())
}

/// Runs the command without standard input.
pub(crate) fn walsh<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Ran {
    let output = command()
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the command starts");
    Ran::new(output)
}

/// Runs the command with bytes on standard input.
pub(crate) fn walsh_with(input: &[u8], arguments: &[&str]) -> Ran {
    let mut child = command()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A command that does not read all of it closes the pipe.
    let _ = stdin.write_all(input);
    drop(stdin);
    Ran::new(child.wait_with_output().expect("the command ends"))
}

/// A folder that is removed at the end of a test.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file and returns its path.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, bytes).expect("the file is written");
        path
    }

    /// Writes a file and returns its path as an argument.
    pub(crate) fn argument(&self, name: &str, bytes: &[u8]) -> String {
        self.file(name, bytes).to_str().expect("UTF-8").to_owned()
    }
}

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
