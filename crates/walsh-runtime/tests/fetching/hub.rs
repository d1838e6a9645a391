//! Repositories of the hub.

use super::*;

const NAMES: [&str; 4] = [
    "M-Q4_K_M.gguf",
    "M-Q8_0.gguf",
    "sub/M-F16.gguf",
    "mmproj-F16.gguf",
];

/// A hub with one repository, `o/r`, whose files differ in length; what it says of it can be changed.
fn hub(change: impl Fn(String) -> String + Send + Sync + 'static) -> Server {
    Server::start(move |request| match request.path.as_str() {
        "/api/models/o/r?blobs=true" => Reply::new(200, change(description()).as_bytes()),
        path => match path.strip_prefix("/o/r/resolve/main/") {
            Some(name) => match NAMES.iter().position(|other| *other == name) {
                Some(at) => file(request, &content(at), "\"1\""),
                None => Reply::new(404, b""),
            },
            None => Reply::new(401, b""),
        },
    })
}

fn content(at: usize) -> Vec<u8> {
    model(10_000 + at)
}

fn description() -> String {
    let files: Vec<String> = NAMES
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let (bytes, sha256) = (10_000 + at, sha256(&content(at)));
            format!(
                r#"{{"rfilename":"{name}","size":{bytes},"blobId":"x","lfs":{{"sha256":"{sha256}","size":{bytes},"pointerSize":134}}}}"#
            )
        })
        .collect();
    let readme = r#"{"rfilename":"README.md","size":3}"#;
    format!(
        r#"{{"id":"o/r","sha":"0","gated":false,"siblings":[{readme},{}]}}"#,
        files.join(",")
    )
}

#[test]
fn a_model_of_a_repository_is_found_by_its_quant_with_and_without_a_network() {
    let (server, bench) = (hub(|text| text), Bench::new());
    let store = bench.store(&server);
    let path = pull(&store, "hf:o/r").unwrap();
    assert_eq!(path, bench.cache().join("hf/o/r/M-Q4_K_M.gguf"));
    assert_eq!(fs::read(&path).unwrap(), content(0));
    let full = pull(&store, "hf:o/r:f16").unwrap();
    assert_eq!(full, bench.cache().join("hf/o/r/sub/M-F16.gguf"));
    assert_eq!(
        bench.models(),
        ["hf/o/r/M-Q4_K_M.gguf", "hf/o/r/sub/M-F16.gguf"]
    );
    let asked = server.paths().len();
    assert_eq!(asked, 4);
    // All of these are here, by whatever name.
    for name in [
        "hf:o/r",
        "hf:o/r:Q4_K_M",
        "hf:o/r:q4_k_m",
        "hf:o/r:M-Q4_K_M",
    ] {
        assert_eq!(pull(&store, name).unwrap(), path, "{name}");
    }
    assert_eq!(server.paths().len(), asked);
    let listed = store.list().unwrap();
    let names: Vec<&str> = listed.iter().map(|listed| listed.name.as_str()).collect();
    assert_eq!(names, ["hf:o/r:F16", "hf:o/r:Q4_K_M"]);
    assert!(listed.iter().all(|listed| listed.state == State::Ready));
    for name in names {
        store.verify(name, &Watch::default(), &mut |_| {}).unwrap();
    }

    refused(
        &store,
        "hf:o/r:Q5_K_M",
        "hf:o/r: the repository has no Q5_K_M: put one of these behind the colon: Q4_K_M, Q8_0, F16",
    );
    refused(&store, "hf:o/r:M", "several models with M");
    refused(
        &store,
        "hf:o/other",
        "hf:o/other does not exist or is not open to all",
    );
    let error = store.remove("hf:o/r:Q8_0").unwrap_err().to_string();
    assert!(
        error.contains("what is here is hf:o/r:Q4_K_M, hf:o/r:F16"),
        "{error}"
    );
    store.remove("hf:o/r").unwrap();
    store.remove("hf:o/r:F16").unwrap();
    assert_eq!(bench.files(), [""; 0]);
}

#[test]
fn what_is_here_stays_what_it_was() {
    let is_new = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&is_new);
    let server = hub(move |text| match switch.load(Ordering::Relaxed) {
        true => text
            .replace("M-Q4_K_M", "M-v2-Q4_K_M")
            .replace("10001", "99"),
        false => text,
    });
    let bench = Bench::new();
    let store = bench.store(&server);
    let q8 = pull(&store, "hf:o/r:Q8_0").unwrap();
    is_new.store(true, Ordering::Relaxed);
    pull(&store, "hf:o/r:F16").unwrap();
    assert_eq!(pull(&store, "hf:o/r:Q8_0").unwrap(), q8);
    store
        .verify("hf:o/r:Q8_0", &Watch::default(), &mut |_| {})
        .unwrap();
    // What is not here is what the repository has now.
    store.remove("hf:o/r:Q8_0").unwrap();
    refused(&store, "hf:o/r:Q8_0", "10001 bytes");
}

#[test]
fn what_comes_is_held_against_what_the_hub_states() {
    let other = sha256(b"another");
    let wrong = sha256(&content(0));
    let server = hub(move |text| text.replace(&wrong, &other));
    let bench = Bench::new();
    let store = bench.store(&server);
    refused(&store, "hf:o/r", "another SHA-256");
    assert_eq!(bench.models(), [""; 0]);
    assert!(store.list().unwrap().is_empty());

    // As does a hub that states it beside a file, before it refers to it.
    let bytes = model(5000);
    let (stated, sent) = (sha256(b"another"), bytes.clone());
    let linked = Server::start(move |request| match request.path.as_str() {
        "/x.gguf" => Reply::to("/y.gguf").with("X-Linked-Etag", format!("\"{stated}\"")),
        _ => file(request, &sent, "W/\"1\""),
    });
    let store = bench.store(&linked);
    refused(&store, &linked.at("/x.gguf"), "another SHA-256");
    pull(&store, &linked.at("/y.gguf")).unwrap();
}

/// A broken-off pull is gone on with by the stated SHA-256, without asking for the same version.
#[test]
fn a_stated_sha256_is_all_that_going_on_needs() {
    let bytes = content(0);
    let server = Server::start(move |request| match request.path.as_str() {
        "/api/models/o/r?blobs=true" => Reply::new(200, description().as_bytes()),
        _ => {
            let reply = file(request, &bytes, "\"changes\"").cut(4000);
            Reply {
                headers: reply
                    .headers
                    .into_iter()
                    .filter(|(name, _)| *name != "ETag")
                    .collect(),
                ..reply
            }
        }
    });
    let bench = Bench::new();
    let path = pull(&bench.store(&server), "hf:o/r").unwrap();
    assert_eq!(fs::read(path).unwrap(), content(0));
    let seen = server.seen();
    assert_eq!(seen.len(), 4);
    assert!(
        seen.iter()
            .all(|request| request.header("If-Range").is_none())
    );
}

#[test]
fn hubs_that_say_odd_things_are_refused() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let within = format!(r#"{{"siblings":[{deep}]}}"#);
    let beside = format!(r#"{{"x":{deep},"siblings":[]}}"#);
    let large = format!(r#"{{"siblings":[],"x":"{}"}}"#, "x".repeat(9 << 20));
    let one = |name: &str| format!(r#"{{"siblings":[{{"rfilename":"{name}","size":5}}]}}"#);
    for (text, expected) in [
        (
            "<html>".to_owned(),
            "does not describe hf:o/r as a hub does",
        ),
        ("{}".to_owned(), "siblings"),
        (within, "does not describe"),
        (beside, "no GGUF files"),
        (large, "more than 8388608 bytes"),
        (r#"{"siblings":[]}"#.to_owned(), "no GGUF files"),
        (
            one("x-00001-of-00002.gguf").replace(
                "]}",
                r#",{"rfilename":"x-00002-of-00002.gguf","size":18446744073709551615}]}"#,
            ),
            "make room",
        ),
        (
            one("x.gguf").replace('5', "18446744073709551616"),
            "does not describe",
        ),
        (one("../../x.gguf"), "cannot be part"),
        (one("/etc/x.gguf"), "cannot be part"),
        (one("a\\\\..\\\\x.gguf"), "cannot be part"),
        (one("\\u001b[31m.gguf"), "\\u{1b}[31m"),
        (one(&format!("{}.gguf", "x".repeat(5000))), "cannot be part"),
        (one("x-00002-of-00002.gguf"), "needs all of them"),
        (one(".listing.json.gguf"), "cannot be part"),
        (
            r#"{"siblings":[{"rfilename":"x.gguf"}]}"#.to_owned(),
            "no size",
        ),
        (
            r#"{"siblings":[{"rfilename":"x.gguf","lfs":{"size":1,"sha256":"../x"}}]}"#.to_owned(),
            "SHA-256",
        ),
        (
            r#"{"siblings":[{"rfilename":"x.gguf","lfs":{"size":-1,"sha256":""}}]}"#.to_owned(),
            "does not describe",
        ),
    ] {
        let bench = Bench::new();
        let server = hub(move |_| text.clone());
        refused(&bench.store(&server), "hf:o/r", expected);
        assert_eq!(bench.models(), [""; 0]);
    }
    let bench = Bench::new();
    for (hub, expected) in [
        ("http://example.org", "not encrypted"),
        ("nonsense", ""),
        ("https://user:secret@example.org", "user's name"),
    ] {
        let options = StoreOptions {
            hub: hub.to_owned(),
            folder: Some(bench.cache()),
            ..StoreOptions::default()
        };
        refused(&Store::open(options).unwrap(), "hf:o/r", expected);
    }
    assert_eq!(bench.files(), [""; 0]);
}

#[test]
fn parts_of_a_repository_s_model_come_together() {
    let names = [
        "Q8_0/M-Q8_0-00001-of-00002.gguf",
        "Q8_0/M-Q8_0-00002-of-00002.gguf",
    ];
    let server = Server::start(move |request| match request.path.as_str() {
        "/api/models/o/r?blobs=true" => {
            let file =
                |at: usize| format!(r#"{{"rfilename":"{}","size":{}}}"#, names[at], 10_000 + at);
            let text = format!(r#"{{"siblings":[{},{}]}}"#, file(1), file(0));
            Reply::new(200, text.as_bytes())
        }
        path => match names.iter().position(|name| path.ends_with(name)) {
            Some(at) => file(request, &content(at), "\"1\""),
            None => Reply::new(404, b""),
        },
    });
    let bench = Bench::new();
    let store = bench.store(&server);
    let mut last = None;
    let path = store
        .pull("hf:o/r", &Watch::default(), &mut |progress| {
            last = Some(progress)
        })
        .unwrap();
    assert_eq!(path, bench.cache().join("hf/o/r").join(names[0]));
    let total = 20_001;
    assert_eq!(last, Some(Progress::Fetching { done: total, total }));
    assert_eq!(store.list().unwrap()[0].name, "hf:o/r:Q8_0");
    // The hub states no SHA-256, but what came has one.
    store
        .verify("hf:o/r:Q8_0", &Watch::default(), &mut |_| {})
        .unwrap();
    store.remove("hf:o/r:Q8_0").unwrap();
    assert_eq!(bench.files(), [""; 0]);
}
