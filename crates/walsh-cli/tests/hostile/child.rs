//! A run of the command from outside: how it ended, how long it took, how much memory it had.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Ends a run that hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most bytes on standard error that anyone reads.
const MOST_WORDS: u64 = 20_000;

/// What became of a run.
#[derive(Debug)]
pub(crate) struct Ended {
    /// `None` for one that was ended because it hung.
    status: Option<ExitStatus>,
    seconds: f64,
    /// The largest resident memory in bytes.
    memory: u64,
    words: String,
    words_bytes: u64,
}

impl Ended {
    /// Why the run is a fault, with what it said; `None` for one that went well or ended with an error message.
    pub(crate) fn fault(&self, most_memory: u64) -> Option<String> {
        let said = self.words.escape_debug().to_string();
        let said: String = said.chars().take(600).collect();
        let Some(status) = self.status else {
            return Some(format!("no end within {} s; {said}", PATIENCE.as_secs()));
        };
        if let Some(signal) = status.signal() {
            return Some(format!("signal {signal}; {said}"));
        }
        if !matches!(status.code(), Some(0..=2)) {
            return Some(format!("{status}; {said}"));
        }
        if self.words.contains("panicked") {
            return Some(format!("a panic; {said}"));
        }
        if self.words_bytes > MOST_WORDS {
            return Some(format!("{} bytes on standard error", self.words_bytes));
        }
        if status.code() != Some(0) && !self.words.contains("walsh: ") {
            return Some(format!("{status} without a message; {said}"));
        }
        let (megabytes, most) = (self.memory >> 20, most_memory >> 20);
        (megabytes > most).then(|| format!("{megabytes} MiB resident of {most}; {said}"))
    }

    /// Whether the command did what it was asked for.
    pub(crate) fn went_well(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    pub(crate) fn memory(&self) -> u64 {
        self.memory
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.seconds
    }
}

/// Runs the command in a folder. What it prints goes to files there.
pub(crate) fn run(command: &mut Command, folder: &Path) -> Ended {
    let words = folder.join("words");
    let out = File::create(folder.join("out")).expect("a file for the text");
    let err = File::create(&words).expect("a file for the words");
    let started = Instant::now();
    let child = command.stdout(out).stderr(err).spawn();
    let pid = child.expect("the command starts").id() as libc::pid_t;
    let (status, memory) = wait(pid, started);
    let words_bytes = fs::metadata(&words).map_or(0, |meta| meta.len());
    let words = match words_bytes {
        0..=MOST_WORDS => fs::read(&words).unwrap_or_default(),
        _ => Vec::new(),
    };
    Ended {
        status,
        seconds: started.elapsed().as_secs_f64(),
        memory,
        words: String::from_utf8_lossy(&words).into_owned(),
        words_bytes,
    }
}

/// Waits for a child, and ends it when it takes too long.
fn wait(pid: libc::pid_t, started: Instant) -> (Option<ExitStatus>, u64) {
    let mut hung = false;
    loop {
        let mut status = 0;
        // SAFETY: zeros are a value of this structure of numbers.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: both places outlive the call, and nobody else waits for this child.
        let found = unsafe { libc::wait4(pid, &mut status, libc::WNOHANG, &mut usage) };
        if found == pid {
            let status = (!hung).then(|| ExitStatus::from_raw(status));
            return (status, usage.ru_maxrss.cast_unsigned() * 1024);
        }
        assert_eq!(found, 0, "waiting failed");
        if started.elapsed() > PATIENCE && !hung {
            hung = true;
            // SAFETY: it is this program's child, and was not waited for yet.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Lets the command have 8 GB of addresses, and nothing on standard input.
pub(crate) fn limited(mut command: Command) -> Command {
    use std::os::unix::process::CommandExt;
    command.stdin(Stdio::null());
    let limit = || {
        let most = libc::rlimit {
            rlim_cur: 8_000_000 << 10,
            rlim_max: 8_000_000 << 10,
        };
        // SAFETY: the structure outlives the call.
        match unsafe { libc::setrlimit(libc::RLIMIT_AS, &most) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: a system call is all that happens between fork and exec.
    unsafe { command.pre_exec(limit) };
    command
}
