//! Models from elsewhere, from a server on this machine.

mod hub;
mod places;
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use server::{Reply, Server, file, model};
use sha2::{Digest, Sha256};
use walsh_runtime::store::{Catalogue, Progress, State, Store, StoreOptions};
use walsh_runtime::{Error, Watch};

/// A cache folder, and a store that asks a server.
struct Bench {
    root: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let root = tempfile::tempdir().unwrap();
        Bench { root }
    }

    fn cache(&self) -> PathBuf {
        self.root.path().join("cache")
    }

    fn token_file(&self) -> PathBuf {
        self.root.path().join("token")
    }

    fn options(&self, hub: &Server) -> StoreOptions {
        StoreOptions {
            folder: Some(self.cache()),
            catalogue: Catalogue::new(Vec::new()).unwrap(),
            hub: hub.at(""),
            token_file: Some(self.token_file()),
            silence: Duration::from_millis(300),
            pause: Duration::from_millis(1),
            ..StoreOptions::default()
        }
    }

    fn store(&self, hub: &Server) -> Store {
        Store::open(self.options(hub)).unwrap()
    }

    /// All files in the cache folder but locks, by their paths in it.
    fn files(&self) -> Vec<String> {
        fn walk(folder: &Path, names: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.file_type().unwrap().is_dir() {
                    true => walk(&entry.path(), names),
                    false => names.push(entry.path()),
                }
            }
        }
        let mut names = Vec::new();
        walk(&self.cache(), &mut names);
        let names = names
            .iter()
            .map(|name| name.strip_prefix(self.cache()).unwrap());
        let names = names.map(|name| name.to_str().unwrap().to_owned());
        let mut names: Vec<String> = names.filter(|name| !name.ends_with(".lock")).collect();
        names.sort();
        names
    }

    /// The files that could be taken for models.
    fn models(&self) -> Vec<String> {
        let files = self.files().into_iter();
        files
            .filter(|name| !name.rsplit('/').next().unwrap().starts_with('.'))
            .collect()
    }
}

fn pull(store: &Store, name: &str) -> Result<PathBuf, Error> {
    store.pull(name, &Watch::default(), &mut |_| {})
}

/// The error of a pull, after checking that it is one short line and took no longer than it had to.
#[track_caller]
fn refused(store: &Store, name: &str, expected: &str) -> String {
    let start = Instant::now();
    let error = pull(store, name).unwrap_err().to_string();
    assert!(error.contains(expected), "{expected:?} is not in {error:?}");
    assert!(!error.contains(char::is_control), "{error:?}");
    assert!(error.chars().count() < 500, "{error}");
    assert!(start.elapsed() < Duration::from_secs(5), "{error}");
    error
}

fn sha256(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_file_comes_whole_and_is_not_asked_for_again() {
    let bytes = model(300_000);
    let (sent, bench) = (bytes.clone(), Bench::new());
    let server = Server::start(move |request| file(request, &sent, "\"1\""));
    let store = bench.store(&server);
    let name = server.at("/some/x.gguf");
    let mut seen = Vec::new();
    let path = store
        .resolve(&name, &Watch::default(), &mut |progress| {
            seen.push(progress)
        })
        .unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);
    let total = 300_000;
    assert_eq!(
        seen.last(),
        Some(&Progress::Fetching { done: total, total })
    );
    let folder = format!("http/127.0.0.1+{}/some/x.gguf", server.port);
    let listing = format!("{folder}/.listing.json");
    assert_eq!(bench.files(), [listing, format!("{folder}/x.gguf")]);
    assert_eq!(pull(&store, &name).unwrap(), path);
    assert_eq!(
        pull(&store, &format!("{name}?download=true")).unwrap(),
        path
    );
    assert_eq!(server.paths(), ["/some/x.gguf"]);

    let listed = store.list().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0].name, listed[0].bytes), (&name, total));
    assert_eq!((&listed[0].path, listed[0].state), (&path, State::Ready));
    store.verify(&name, &Watch::default(), &mut |_| {}).unwrap();
    let mut damaged = bytes.clone();
    damaged[70] ^= 1;
    fs::write(&path, &damaged).unwrap();
    let error = store.verify(&name, &Watch::default(), &mut |_| {});
    assert!(error.unwrap_err().to_string().contains("damaged"));
    fs::write(&path, b"GGUF").unwrap();
    assert_eq!(store.list().unwrap()[0].state, State::Damaged);
    pull(&store, &name).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);

    assert_eq!(store.remove(&name).unwrap().bytes, total);
    assert_eq!(bench.files(), [""; 0]);
    assert!(store.list().unwrap().is_empty());
    let error = store.remove(&name).unwrap_err().to_string();
    assert!(error.contains("nothing to remove"), "{error}");
}

/// A server whose connections break, and what the next pulls make of it.
#[test]
fn broken_connections_are_gone_on_with() {
    let bytes = model(5_000_000);
    let asked = Arc::new(AtomicUsize::new(0));
    let (sent, count, bench) = (bytes.clone(), Arc::clone(&asked), Bench::new());
    // Each connection brings 400,000 bytes.
    let server = Server::start(move |request| {
        count.fetch_add(1, Ordering::Relaxed);
        file(request, &sent, "\"1\"").cut(400_000)
    });
    let (store, name) = (bench.store(&server), server.at("/x.gguf"));
    let error = refused(&store, &name, "the next pull goes on from there");
    assert!(error.contains("2.0 MB are here"), "{error}");
    assert_eq!(asked.load(Ordering::Relaxed), 5);
    let listed = store.list().unwrap();
    let done = 2_000_000;
    assert_eq!((&listed[0].name, listed[0].bytes), (&name, 5_000_000));
    assert_eq!(listed[0].state, State::Partial { done });
    assert_eq!(bench.models(), [""; 0]);
    // A store that is opened anew clears no partial file away.
    let store = bench.store(&server);
    refused(&store, &name, "4.0 MB are here");
    // The last one ends exactly at the end.
    let mut first = None;
    let path = store
        .pull(&name, &Watch::default(), &mut |progress| {
            first.get_or_insert(progress);
        })
        .unwrap();
    assert!(matches!(
        first,
        Some(Progress::Checking {
            total: 5_000_000,
            ..
        })
    ));
    assert_eq!(fs::read(path).unwrap(), bytes);
    let ranges: Vec<_> = server
        .seen()
        .iter()
        .map(|r| r.header("Range").map(str::to_owned))
        .collect();
    assert_eq!(ranges[0], None);
    assert_eq!(ranges[5].as_deref(), Some("bytes=2000000-"));
    assert!(
        server.seen()[1..]
            .iter()
            .all(|r| r.header("If-Range") == Some("\"1\""))
    );
}

/// What lies in the cache is the beginning of another file, or the server counts otherwise.
#[test]
fn what_cannot_be_gone_on_with_is_begun_anew() {
    let (old, new) = (model(200_000), {
        let mut new = model(200_000);
        new[5] ^= 1;
        new
    });
    type Answer = fn(&server::Request, &[u8]) -> Reply;
    let answers: [(&str, Answer); 6] = [
        ("ignores ranges", |_, new| {
            Reply::new(200, new).with("ETag", "\"2\"")
        }),
        ("has another version", |request, new| {
            file(request, new, "\"2\"")
        }),
        (
            "has another version, and heeds no If-Range",
            |request, new| {
                let start = request.header("Range").map_or(0, |_| 100_000);
                let range = format!("bytes {start}-199999/200000");
                let status = if start > 0 { 206 } else { 200 };
                Reply::new(status, &new[start..])
                    .with("Content-Range", range)
                    .with("ETag", "\"2\"")
            },
        ),
        ("gives another range", |request, new| {
            match request.header("Range") {
                Some(_) => Reply::new(206, new).with("Content-Range", "bytes 0-199999/200000"),
                None => Reply::new(200, new),
            }
        }),
        ("has no such range", |request, new| {
            match request.header("Range") {
                Some(_) => Reply::new(416, b""),
                None => Reply::new(200, new),
            }
        }),
        ("is shorter by now", |request, new| {
            file(request, &new[..90_000], "\"2\"")
        }),
    ];
    for (what, answer) in answers {
        let (bench, is_new) = (Bench::new(), Arc::new(AtomicBool::new(false)));
        let (before, after, switch) = (old.clone(), new.clone(), Arc::clone(&is_new));
        let server = Server::start(move |request| match switch.load(Ordering::Relaxed) {
            true => answer(request, &after),
            false if request.header("Range").is_some() => Reply::new(503, b""),
            false => file(request, &before, "\"1\"").cut(100_000),
        });
        let (store, name) = (bench.store(&server), server.at("/x.gguf"));
        refused(&store, &name, "503");
        assert_eq!(
            store.list().unwrap()[0].state,
            State::Partial { done: 100_000 },
            "{what}"
        );
        is_new.store(true, Ordering::Relaxed);
        let path = pull(&store, &name).unwrap_or_else(|error| panic!("{what}: {error}"));
        let length = if what.contains("shorter") {
            90_000
        } else {
            200_000
        };
        assert_eq!(fs::read(path).unwrap(), new[..length], "{what}");
        assert_eq!(bench.models().len(), 1, "{what}");
    }
}

/// Such as the page of a network that wants a login first.
#[test]
fn a_page_in_between_costs_nothing_that_is_here() {
    let (bytes, bench) = (model(200_000), Bench::new());
    let (sent, turn) = (bytes.clone(), AtomicUsize::new(0));
    let server = Server::start(move |request| match turn.fetch_add(1, Ordering::Relaxed) {
        0 => file(request, &sent, "\"1\"").cut(100_000),
        1 | 4 => Reply::new(503, b""),
        2 => Reply::new(200, b"<html>").with("Content-Type", "text/html"),
        3 | 5 => Reply::new(200, b" <html>"),
        6 => Reply::new(416, b""),
        7 => Reply::new(200, &sent).cut(0),
        8 => Reply::new(200, b"<html>"),
        _ => file(request, &sent, "\"1\""),
    });
    let (store, name) = (bench.store(&server), server.at("/x.gguf"));
    for expected in [
        "503",
        "a web page",
        "a web page",
        "503",
        "a web page",
        "a web page",
    ] {
        refused(&store, &name, expected);
        let done = 100_000;
        assert_eq!(store.list().unwrap()[0].state, State::Partial { done });
    }
    let path = pull(&store, &name).unwrap();
    assert_eq!(fs::read(path).unwrap(), bytes);
    assert_eq!(
        server.seen().last().unwrap().header("Range"),
        Some("bytes=100000-")
    );
}

#[test]
fn what_is_no_model_is_told_by_its_first_bytes() {
    let bench = Bench::new();
    let server = Server::start(|request| match request.path.as_str() {
        "/html.gguf" => Reply::new(200, b"<!DOCTYPE html>").with("Content-Type", "text/html; x"),
        "/page.gguf" => Reply::new(200, b"\n <html>"),
        "/lfs.gguf" => Reply::new(200, b"version https://git-lfs/spec/v1\noid sha256:1"),
        "/json.gguf" => Reply::new(200, b"{\"error\": 1}"),
        "/short.gguf" => Reply::new(200, b"GG"),
        "/empty.gguf" => Reply::new(200, b""),
        "/packed.gguf" => Reply::new(200, &model(90)).with("Content-Encoding", "gzip"),
        "/endless.gguf" => {
            Reply::new(200, b"4\r\nGGUF\r\n0\r\n\r\n").with("Transfer-Encoding", "chunked")
        }
        "/untold.gguf" => Reply::new(200, &model(90)).with("Content-Length", "x"),
        "/huge.gguf" => Reply::new(200, &model(90)).with("Content-Length", "9000000000000000000"),
        "/later.gguf" => Reply::new(202, b""),
        _ => Reply::new(200, b"MZ\x90\x1b[31m"),
    });
    let store = bench.store(&server);
    for (path, expected) in [
        ("/html.gguf", "gave a web page instead of a GGUF file"),
        ("/page.gguf", "gave a web page"),
        ("/lfs.gguf", "a pointer of Git LFS"),
        ("/json.gguf", "a text in JSON"),
        ("/short.gguf", "something else"),
        ("/empty.gguf", "an empty file"),
        ("/program.gguf", "something else"),
        ("/packed.gguf", "gzip"),
        ("/endless.gguf", "does not say how long"),
        ("/untold.gguf", ""),
        ("/huge.gguf", "make room"),
        ("/later.gguf", "answers 202"),
    ] {
        refused(&store, &server.at(path), expected);
    }
    assert_eq!(bench.files(), [""; 0]);
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn refusals_say_what_to_do() {
    let bench = Bench::new();
    let server = Server::start(|request| {
        let status = request.path[1..4].parse().unwrap_or(200);
        Reply::new(status, b"<html>no</html>").with("Retry-After", "7")
    });
    let other = Server::start(|_| Reply::new(403, b""));
    let store = bench.store(&server);
    let at = |path: &str| server.at(&format!("{path}.gguf"));
    for (name, expected) in [
        (at("/401"), "token into"),
        (at("/403"), "licence"),
        (other.at("/x.gguf"), "fetch it otherwise"),
        (at("/404"), "check the name"),
        (at("/429"), "try again in 7 s"),
        (at("/500"), "try again later"),
        (at("/503"), "try again later"),
        (at("/418"), "answers 418"),
        (at("/304"), "answers 304"),
        (at("/416"), "answers 416"),
        (at("/302"), "says none"),
    ] {
        let error = refused(&store, &name, expected);
        let is_asked = error.contains("token");
        assert_eq!(
            is_asked,
            error.contains(bench.token_file().to_str().unwrap()),
            "{error}"
        );
    }
    fs::write(bench.token_file(), "hf_secret\n").unwrap();
    let error = refused(&store, &at("/403"), "owner of the token");
    assert!(!error.contains("hf_secret"), "{error}");
    assert_eq!(bench.files(), [""; 0]);

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    refused(
        &store,
        &format!("http://127.0.0.1:{port}/x.gguf"),
        "refuses the connection: check",
    );
    refused(
        &store,
        &format!("https://127.0.0.1:{}/x.gguf", server.port),
        "127.0.0.1",
    );
    refused(&store, "http://example.org/x.gguf", "not encrypted");
}

#[test]
fn redirects_are_followed_to_an_end_and_the_token_stays_with_the_hub() {
    let bytes = model(1000);
    let sent = bytes.clone();
    let elsewhere = Server::start(move |request| file(request, &sent, "\"1\""));
    let target = elsewhere.at("/blob?signature=secret");
    let hub = Server::start(move |request| match request.path.as_str() {
        "/a/x.gguf" => Reply::to("/b/x.gguf"),
        "/b/x.gguf" => Reply::to(&target),
        "/clear/x.gguf" => Reply::to("http://example.org/x.gguf"),
        "/file/x.gguf" => Reply::to("file:///etc/passwd"),
        "/odd/x.gguf" => Reply::to("http://127.0.0.1:99999/\u{1b}"),
        _ => Reply::to("/circle/y.gguf"),
    });
    let bench = Bench::new();
    fs::write(bench.token_file(), "  hf_secret\n").unwrap();
    let store = bench.store(&hub);
    let path = pull(&store, &hub.at("/a/x.gguf")).unwrap();
    assert_eq!(fs::read(path).unwrap(), bytes);
    let token = |server: &Server| -> Vec<Option<String>> {
        let seen = server.seen();
        seen.iter()
            .map(|r| r.header("Authorization").map(str::to_owned))
            .collect()
    };
    let bearer = Some("Bearer hf_secret".to_owned());
    assert_eq!(token(&hub), [bearer.clone(), bearer]);
    assert_eq!(token(&elsewhere), [None]);
    for (path, expected) in [
        ("/clear/x.gguf", "not encrypted"),
        ("/file/x.gguf", "is no address"),
        ("/odd/x.gguf", "does not answer as servers do"),
        ("/circle/x.gguf", "more than 10 times"),
    ] {
        refused(&store, &hub.at(path), expected);
    }
    assert_eq!(
        hub.paths()
            .iter()
            .filter(|path| path.starts_with("/circle"))
            .count(),
        11
    );

    // A token that is none is said where it would be sent, and nowhere else.
    for odd in ["two words", "\u{1b}", &"x".repeat(5000)] {
        fs::write(bench.token_file(), odd).unwrap();
        refused(&store, &hub.at("/a/y.gguf"), "holds no token");
    }
    pull(&store, &elsewhere.at("/z.gguf")).unwrap();
}

#[test]
fn a_server_that_falls_silent_is_given_up() {
    let (bytes, bench) = (model(100_000), Bench::new());
    let server = Server::start(move |request| match request.path.as_str() {
        "/never.gguf" => Reply::new(200, b"").hanging().with("Content-Length", "9"),
        _ => match request.header("Range") {
            Some(_) => file(request, &bytes, "\"1\"").cut(0).hanging(),
            None => file(request, &bytes, "\"1\"").cut(50_000).hanging(),
        },
    });
    let mut options = bench.options(&server);
    options.silence = Duration::from_millis(100);
    let store = Store::open(options).unwrap();
    refused(
        &store,
        &server.at("/x.gguf"),
        "said nothing for 0.1 s: 50.0 kB are here",
    );
    refused(&store, &server.at("/never.gguf"), "said nothing for 0.1 s");
    // One that takes the connection, and no more.
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = deaf.local_addr().unwrap().port();
    refused(
        &store,
        &format!("http://127.0.0.1:{port}/x.gguf"),
        "said nothing for 0.1 s",
    );
    refused(
        &store,
        &format!("https://127.0.0.1:{port}/x.gguf"),
        "said nothing for 0.1 s",
    );
}

#[test]
fn a_pull_that_is_ended_keeps_what_it_has() {
    let bytes = model(400_000);
    let (sent, bench) = (bytes.clone(), Bench::new());
    let server = Server::start(move |request| match request.header("Range") {
        None => file(request, &sent, "\"1\"").cut(300_000).hanging(),
        Some(_) => file(request, &sent, "\"1\""),
    });
    let mut options = bench.options(&server);
    options.silence = Duration::from_secs(30);
    let (store, name) = (Store::open(options).unwrap(), server.at("/x.gguf"));
    let watch = Watch::default();
    let cancel = Arc::clone(&watch.cancel);
    let ended = Mutex::new(None);
    let error = store.pull(&name, &watch, &mut |progress| {
        if matches!(progress, Progress::Fetching { done: 300_000, .. }) {
            cancel.store(true, Ordering::Relaxed);
            *ended.lock().unwrap() = Some(Instant::now());
        }
    });
    assert!(matches!(error, Err(Error::Cancelled)), "{error:?}");
    let ended = ended.lock().unwrap().unwrap();
    assert!(ended.elapsed() < Duration::from_secs(1));
    assert_eq!(
        store.list().unwrap()[0].state,
        State::Partial { done: 300_000 }
    );
    let path = pull(&store, &name).unwrap();
    assert_eq!(fs::read(path).unwrap(), bytes);
    assert_eq!(server.seen()[1].header("Range"), Some("bytes=300000-"));

    // Before anything came, nothing is left; and a lock is not waited for.
    let error = store.pull(&server.at("/y.gguf"), &watch, &mut |_| {});
    assert!(matches!(error, Err(Error::Cancelled)), "{error:?}");
    assert_eq!(bench.models().len(), 1);
}

#[test]
fn all_parts_of_an_address_come() {
    let parts = [model(5000), model(3000)];
    let sent = parts.clone();
    let server = Server::start(move |request| match request.path.as_str() {
        "/m/x-00001-of-00002.gguf" => file(request, &sent[0], "\"1\""),
        "/m/x-00002-of-00002.gguf" => file(request, &sent[1], "\"2\""),
        _ => Reply::new(404, b""),
    });
    let bench = Bench::new();
    let (store, name) = (bench.store(&server), server.at("/m/x-00001-of-00002.gguf"));
    let path = pull(&store, &name).unwrap();
    let second = path.with_file_name("x-00002-of-00002.gguf");
    assert_eq!(fs::read(&path).unwrap(), parts[0]);
    assert_eq!(fs::read(&second).unwrap(), parts[1]);
    assert_eq!(store.list().unwrap()[0].bytes, 8000);
    store.verify(&name, &Watch::default(), &mut |_| {}).unwrap();
    // One that is gone is fetched alone.
    fs::remove_file(&path).unwrap();
    assert_eq!(
        store.list().unwrap()[0].state,
        State::Partial { done: 3000 }
    );
    pull(&store, &name).unwrap();
    assert_eq!(server.paths().len(), 3);
    refused(&store, &server.at("/m/y-00001-of-00002.gguf"), "404");
    assert_eq!(store.remove(&name).unwrap().bytes, 8000);
    assert_eq!(bench.models(), [""; 0]);
}
