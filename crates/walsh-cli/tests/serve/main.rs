//! `walsh serve`, from outside: what it answers, what it refuses, and how it ends.

#[path = "../support/mod.rs"]
mod support;

mod adapters;
mod clients;
mod documents;
mod ending;
mod hostile;
mod http;
mod interfaces;
mod load;
mod models;
mod slots;
mod slow;
mod tools;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use http::{Answer, request};
use support::tiny::Tiny;
use support::{Folder, command};

/// A server that ends with its test.
struct Server {
    child: Child,
    address: SocketAddr,
    /// What it has said on standard error.
    said: Arc<Mutex<String>>,
    _folder: Folder,
}

impl Server {
    /// With a tiny model, which says nothing sensible.
    fn tiny(options: &[&str]) -> Self {
        Self::of(&Tiny::default(), options)
    }

    fn of(tiny: &Tiny, options: &[&str]) -> Self {
        let folder = Folder::new();
        let model = folder.argument("tiny.gguf", &tiny.gguf());
        let own = ["--model", &model, "--device", "cpu:threads=1"];
        Self::start(folder, &[&own[..], options].concat())
    }

    /// With the model that is fetched by default.
    fn real(options: &[&str]) -> Self {
        Self::start(Folder::new(), options)
    }

    fn start(folder: Folder, options: &[&str]) -> Self {
        Self::spawn(command(), folder, options)
    }

    /// With a tiny model, and less of something that the system gives.
    fn with_limit(what: libc::__rlimit_resource_t, most: u64, options: &[&str]) -> Self {
        let folder = Folder::new();
        let model = folder.argument("tiny.gguf", &Tiny::default().gguf());
        let own = ["--model", &model, "--device", "cpu:threads=1"];
        let mut command = command();
        // SAFETY: system calls are all that happens between fork and exec.
        unsafe {
            command.pre_exec(move || {
                let limit = libc::rlimit {
                    rlim_cur: most,
                    rlim_max: most,
                };
                libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
                libc::setrlimit(what, &limit);
                Ok(())
            });
        }
        Self::spawn(command, folder, &[&own[..], options].concat())
    }

    fn spawn(mut command: Command, folder: Folder, options: &[&str]) -> Self {
        let mut child: Child = command
            .args(["serve", "--port", "0"])
            .args(options)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let said = Arc::<Mutex<String>>::default();
        let (lines, heard) = (child.stderr.take().expect("a pipe"), Arc::clone(&said));
        std::thread::spawn(move || {
            for line in BufReader::new(lines).lines().map_while(Result::ok) {
                let mut said = heard.lock().expect("no panic");
                said.push_str(&line);
                said.push('\n');
            }
        });
        let listening = || {
            let over = child.try_wait().expect("a child");
            let said = said.lock().expect("no panic");
            let address = said
                .lines()
                .find_map(|line| line.strip_prefix("listening on http://"));
            let address = address.map(|address| address.parse().expect("an address"));
            assert!(over.is_none() || address.is_some(), "{said}");
            address
        };
        let address = wait(listening).expect("it listens");
        Self {
            child,
            address,
            said,
            _folder: folder,
        }
    }

    fn said(&self) -> String {
        self.said.lock().expect("no panic").clone()
    }

    fn get(&self, path: &str) -> Answer {
        request(self.address, "GET", path, &[], b"").expect("an answer")
    }

    fn post(&self, path: &str, body: &Value) -> Answer {
        let kind = [("content-type", "application/json")];
        request(
            self.address,
            "POST",
            path,
            &kind,
            body.to_string().as_bytes(),
        )
        .expect("an answer")
    }

    /// Posts what goes well.
    #[track_caller]
    fn ok(&self, path: &str, body: &Value) -> Value {
        let answer = self.post(path, body);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Posts what is refused: the error.
    #[track_caller]
    fn refused(&self, path: &str, body: &Value, status: u16) -> Value {
        let answer = self.post(path, body);
        assert_eq!(answer.status, status, "{answer:?}");
        let error = answer.json()["error"].clone();
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|m| !m.contains("panic")),
            "{error}"
        );
        error
    }

    /// A figure of its metrics, of all models together.
    fn figure(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text();
        let start = format!("{name}{{");
        let lines = text.lines().filter(|line| line.starts_with(&start));
        let number = |line: &str| -> Option<f64> { line.rsplit(' ').next()?.parse().ok() };
        let numbers: Option<Vec<f64>> = lines.map(number).collect();
        match numbers.as_deref() {
            None | Some([]) => panic!("{name}: {text}"),
            Some(numbers) => numbers.iter().sum(),
        }
    }

    /// Waits until nobody is served, and nothing is left of who was.
    fn idle(&self) {
        let idle = || {
            let busy = [
                "walsh_requests_running",
                "walsh_requests_waiting",
                "walsh_kv_pages_used",
            ];
            busy.iter()
                .all(|name| self.figure(name) == 0.0)
                .then_some(())
        };
        assert!(wait(idle).is_some(), "{}", self.get("/metrics").text());
    }

    fn signal(&self, signal: i32) {
        // SAFETY: a signal to a child that was not waited for.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// Waits for its end.
    fn status(&mut self) -> std::process::ExitStatus {
        let ended = wait(|| self.child.try_wait().expect("a child"));
        ended.unwrap_or_else(|| panic!("it does not end: {}", self.said()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for something, a minute at most.
fn wait<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(60) {
        if let Some(found) = look() {
            return Some(found);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

/// A message of the user.
fn user(text: &str) -> Value {
    serde_json::json!([{ "role": "user", "content": text }])
}
