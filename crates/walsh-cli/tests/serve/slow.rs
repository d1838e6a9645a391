//! Clients that do nothing, or little at a time, and the limits that they run into.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use super::http::{connect, receive, request, send};
use super::support::tiny::Tiny;
use super::{Server, user};

const CHAT: &str = "/v1/chat/completions";
const JSON: (&str, &str) = ("content-type", "application/json");

/// Lets this process, and servers that it starts, open so many files, or as many as it may; how many that are.
fn open_files(wanted: u64) -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both are given a limit that lives as long as the call.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_cur.max(wanted.min(limit.rlim_max));
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
    }
    limit.rlim_cur
}

#[test]
fn ten_thousand_idle_connections_keep_nobody_out() {
    const WANTED: u64 = 10_000;
    // This process has other tests besides, and a server some files of its own.
    let spare = 1000;
    let count = open_files(WANTED + spare).saturating_sub(spare).min(WANTED);
    if count < WANTED {
        println!("the limit of open files allows {count} connections instead of {WANTED}");
    }
    let server = Server::tiny(&["--max-connections", "11000", "--log", "off"]);
    let idle: Vec<TcpStream> = (0..count)
        .map(|_| TcpStream::connect(server.address).expect("a connection"))
        .collect();
    let start = Instant::now();
    server.ok(CHAT, &json!({ "messages": user("a"), "max_tokens": 2 }));
    assert!(start.elapsed() < Duration::from_secs(10));
    // Half of them say the beginning of something.
    for mut stream in idle.iter().step_by(2) {
        stream.write_all(b"POST /v1/chat/comp").expect("sent");
    }
    server.ok(CHAT, &json!({ "messages": user("b"), "max_tokens": 2 }));
    drop(idle);
    server.ok(CHAT, &json!({ "messages": user("c"), "max_tokens": 2 }));
}

#[test]
fn more_connections_than_there_may_be_wait() {
    // Those that say nothing are closed when their time is over, and make room.
    let server = Server::tiny(&["--max-connections", "8", "--read-timeout", "2s"]);
    let idle: Vec<TcpStream> = (0..40)
        .map(|_| TcpStream::connect(server.address).expect("a connection"))
        .collect();
    let start = Instant::now();
    server.ok(CHAT, &json!({ "messages": user("a"), "max_tokens": 2 }));
    assert!(start.elapsed() > Duration::from_secs(1));
    drop(idle);
    // Nor does a server that may open few files end, or refuse whoever comes when there are fewer again.
    let server = Server::with_limit(libc::RLIMIT_NOFILE, 64, &["--read-timeout", "2s"]);
    let idle: Vec<TcpStream> = (0..200)
        .map(|_| TcpStream::connect(server.address).expect("a connection"))
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    drop(idle);
    server.ok(CHAT, &json!({ "messages": user("a"), "max_tokens": 2 }));
}

/// Sends a byte at a time until nobody listens, at most so long; what came back.
fn drip(server: &Server, text: &[u8], most: Duration) -> (Duration, Vec<u8>) {
    let mut stream = connect(server.address).expect("a connection");
    let start = Instant::now();
    stream
        .set_read_timeout(Some(Duration::from_millis(50)))
        .expect("a timeout");
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    for byte in text.iter().cycle() {
        let sent = stream.write_all(&[*byte]);
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => answer.extend(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                assert!(start.elapsed() < most, "it is still listened to");
                assert!(sent.is_ok(), "{sent:?}");
            }
            Err(_) => break,
        }
    }
    (start.elapsed(), answer)
}

#[test]
fn who_writes_slowly_is_heard_for_a_while() {
    let server = Server::tiny(&["--read-timeout", "2s", "--request-timeout", "4s"]);
    let most = Duration::from_secs(20);
    std::thread::scope(|scope| {
        // A head that never ends.
        let heads = (0..8).map(|_| {
            let head = b"x-more: and more\r\n";
            scope.spawn(|| drip(&server, &[&b"GET / HTTP/1.1\r\n"[..], head].concat(), most))
        });
        let heads: Vec<_> = heads.collect();
        // A body that does not, with a part each time before it is given up.
        let body = scope.spawn(|| {
            let mut stream = connect(server.address).expect("a connection");
            let head = format!(
                "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9999\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).expect("sent");
            let start = Instant::now();
            stream
                .set_read_timeout(Some(Duration::from_millis(100)))
                .expect("a timeout");
            let mut answer = [0; 12];
            while stream.read(&mut answer).is_err() {
                let _ = stream.write_all(b" ");
                assert!(start.elapsed() < most);
            }
            (start.elapsed(), answer)
        });
        // Others are served meanwhile.
        server.ok(CHAT, &json!({ "messages": user("a"), "max_tokens": 2 }));
        for head in heads {
            let (time, answer) = head.join().expect("no panic");
            assert!(time > Duration::from_secs(1), "{time:?}");
            assert!(
                answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
                "{answer:?}"
            );
        }
        let (time, answer) = body.join().expect("no panic");
        assert_eq!(&answer, b"HTTP/1.1 408");
        assert!(time > Duration::from_secs(3), "{time:?}");
    });
    // A part that does not come at all.
    let mut stream = connect(server.address).expect("a connection");
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let start = Instant::now();
    let answer = receive(stream).expect("an answer");
    assert_eq!(answer.status, 408);
    assert!(start.elapsed() < Duration::from_secs(4));
}

#[test]
fn heads_have_a_size() {
    let server = Server::tiny(&[]);
    let ask = |bytes: usize| {
        let value = "a".repeat(bytes);
        request(server.address, "GET", "/health", &[("x-long", &value)], b"")
    };
    assert_eq!(ask(50_000).expect("an answer").status, 200);
    for bytes in [200_000, 10_000_000] {
        // Who goes on sending may not hear it.
        if let Ok(answer) = ask(bytes) {
            assert_eq!(answer.status, 431);
        }
    }
    let names: Vec<String> = (0..200).map(|number| format!("x-{number}")).collect();
    let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "a")).collect();
    let answer = request(server.address, "GET", "/health", &headers, b"").expect("an answer");
    assert_eq!(answer.status, 431);
}

#[test]
fn who_does_not_read_is_given_up() {
    let server = Server::tiny(&["--max-connections", "1", "--write-timeout", "2s"]);
    // An answer that no buffer of the system holds.
    let body = json!({ "content": "a b ".repeat(300_000), "with_pieces": true }).to_string();
    let mut slow = connect(server.address).expect("a connection");
    send(&mut slow, ("POST", "/tokenize"), &[JSON], body.as_bytes()).expect("sent");
    let start = Instant::now();
    // Nobody else gets in until it is.
    server.ok(CHAT, &json!({ "messages": user("a"), "max_tokens": 2 }));
    let time = start.elapsed();
    assert!(
        time > Duration::from_secs(1) && time < Duration::from_secs(30),
        "{time:?}"
    );
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    assert!(rest.len() < 20 << 20, "{}", rest.len());
    let whole = server.post(
        "/tokenize",
        &json!({ "content": "a b ".repeat(300_000), "with_pieces": true }),
    );
    assert!(whole.body.len() > 20 << 20, "{}", whole.body.len());
}

#[test]
fn a_request_has_its_time() {
    let slow = Tiny {
        layers: 24,
        metadata: vec![("llama.context_length", Some(65536u32.into()))],
        ..Tiny::default()
    };
    let options = [
        "--context",
        "60000",
        "--request-timeout",
        "2s",
        "--sequences",
        "1",
    ];
    let server = Server::of(&slow, &options);
    let endless = json!({ "messages": user("a"), "ignore_eos": true, "max_tokens": 50_000 });
    let start = Instant::now();
    let answer = server.ok(CHAT, &endless);
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert!(answer["usage"]["completion_tokens"].as_u64() > Some(0));
    // A request's own time counts where it is shorter.
    let mut short = endless.clone();
    short["timeout"] = json!(0.2);
    let start = Instant::now();
    let fewer = server.ok(CHAT, &short);
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(
        fewer["usage"]["completion_tokens"].as_u64()
            < answer["usage"]["completion_tokens"].as_u64()
    );
    server.idle();
}

#[test]
fn slow_readers_hold_nobody_up() {
    let server = Server::tiny(&[]);
    let body = json!({ "messages": user("a"), "stream": true, "ignore_eos": true }).to_string();
    let slow: Vec<TcpStream> = (0..4)
        .map(|_| {
            let mut stream = connect(server.address).expect("a connection");
            send(&mut stream, ("POST", CHAT), &[JSON], body.as_bytes()).expect("sent");
            stream
        })
        .collect();
    server.ok(CHAT, &json!({ "messages": user("b"), "max_tokens": 3 }));
    server.idle();
    for stream in slow {
        assert!(
            receive(stream)
                .expect("an answer")
                .text()
                .contains("[DONE]")
        );
    }
}
