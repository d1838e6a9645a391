//! The command at a terminal.

use std::io::{Read, Write};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use pty_process::Size;
use pty_process::blocking::{Command, Pty, open};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long anything may take on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// The command at a terminal of 80 columns and 24 rows, and what it showed.
pub(crate) struct Terminal {
    pty: Pty,
    child: Child,
    shown: Vec<u8>,
    /// How much of that was looked at.
    seen: usize,
}

impl Terminal {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let (pty, pts) = open().expect("a terminal");
        pty.resize(Size::new(24, 80)).expect("its size");
        let command = Command::new(env!("CARGO_BIN_EXE_walsh")).args(arguments);
        // SAFETY: system calls are all that happens between fork and exec.
        let child = unsafe { command.pre_exec(super::heed_signals) }
            .spawn(pts)
            .expect("the command starts");
        Self {
            pty,
            child,
            shown: Vec::new(),
            seen: 0,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends bytes as if they were typed.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.pty.write_all(bytes).expect("the terminal takes keys");
    }

    pub(crate) fn resize(&mut self, columns: u16) {
        self.pty.resize(Size::new(24, columns)).expect("a new size");
    }

    /// Waits until a text is shown, behind what was waited for before, and returns
    /// what is between.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let started = Instant::now();
        loop {
            let new = &self.shown[self.seen..];
            let found = new
                .windows(text.len())
                .position(|window| window == text.as_bytes());
            if let Some(at) = found {
                let before = String::from_utf8_lossy(&new[..at]).into_owned();
                self.seen += at + text.len();
                return before;
            }
            let is_over = !self.take() || started.elapsed() > PATIENCE;
            assert!(!is_over, "{text:?} is not in {:?}", self.rest());
        }
    }

    /// Waits until what was typed is taken for a message, and the answer begins.
    #[track_caller]
    pub(crate) fn wait_for_answer(&mut self) {
        // From there on pasted texts come without marks.
        self.wait_for("\x1b[?2004l");
        while self.rest().is_empty() {
            assert!(self.take(), "there is no answer");
        }
    }

    /// What was not waited for.
    pub(crate) fn rest(&self) -> String {
        String::from_utf8_lossy(&self.shown[self.seen..]).into_owned()
    }

    /// Takes more of what is shown; false when there is nothing more to come.
    fn take(&mut self) -> bool {
        let second = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        let mut fds = [PollFd::new(&self.pty, PollFlags::IN)];
        if poll(&mut fds, Some(&second)).expect("a wait") == 0 {
            return true;
        }
        let mut bytes = [0; 4096];
        match self.pty.read(&mut bytes) {
            Ok(0) | Err(_) => false,
            Ok(length) => {
                self.shown.extend_from_slice(&bytes[..length]);
                true
            }
        }
    }

    /// Waits until the command has ended, and returns its exit status.
    #[track_caller]
    pub(crate) fn end(mut self) -> Option<i32> {
        let started = Instant::now();
        while self.take() {
            assert!(
                started.elapsed() < PATIENCE,
                "it goes on: {:?}",
                self.rest()
            );
        }
        self.child.wait().expect("the command ends").code()
    }

    /// Takes the terminal away, and returns how the command ended.
    pub(crate) fn hang_up(mut self) -> ExitStatus {
        drop(self.pty);
        self.child.wait().expect("the command ends")
    }
}

/// Sends a signal by its name.
pub(crate) fn signal(id: u32, name: &str) {
    let killed = std::process::Command::new("kill")
        .args([&format!("-{name}"), &id.to_string()])
        .status();
    assert!(killed.expect("kill runs").success());
}
