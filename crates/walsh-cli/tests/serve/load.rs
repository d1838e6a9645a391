//! Many clients at once, some of which vanish.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::http::{connect, receive, send};
use super::{Server, user};

const CHAT: &str = "/v1/chat/completions";
const JSON: (&str, &str) = ("content-type", "application/json");

/// What a client asks for by its number.
fn body(number: usize) -> Value {
    let words = ["alpha", "beta", "gamma", "delta"];
    let text: Vec<&str> = (0..number % 13)
        .map(|place| words[(number + place) % 4])
        .collect();
    json!({
        "messages": user(&text.join(" ")),
        "max_tokens": 5 + number % 29,
        "temperature": if number.is_multiple_of(2) { 0.0 } else { 1.0 },
        "seed": number,
        "ignore_eos": true,
    })
}

/// Resident memory, in bytes.
fn resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id()));
    let status = status.expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.expect("a size") * 1024
}

#[test]
fn clients_that_vanish_leave_nothing_and_harm_nobody() {
    const CLIENTS: usize = 64;
    const KINDS: usize = 40;
    let server = Server::tiny(&["--deterministic", "--kv-memory", "2MB", "--log", "off"]);
    let text = |answer: Value| answer["choices"][0]["message"]["content"].to_string();
    let alone: Vec<String> = (0..KINDS)
        .map(|number| text(server.ok(CHAT, &body(number))))
        .collect();
    let round = |time: Duration| {
        let (start, answered, vanished) =
            (Instant::now(), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (server, alone, answered, vanished) = (&server, &alone, &answered, &vanished);
                scope.spawn(move || {
                    let mut turn = client;
                    while start.elapsed() < time {
                        turn += CLIENTS + 1;
                        let number = turn % KINDS;
                        if turn % 3 != 0 {
                            let answer = server.ok(CHAT, &body(number));
                            assert_eq!(text(answer), alone[number]);
                            answered.fetch_add(1, Ordering::Relaxed);
                            continue;
                        }
                        let mut asked = body(number);
                        asked["stream"] = (turn % 2 == 0).into();
                        asked["max_tokens"] = 150.into();
                        let mut stream = connect(server.address).expect("a connection");
                        send(
                            &mut stream,
                            ("POST", CHAT),
                            &[JSON],
                            asked.to_string().as_bytes(),
                        )
                        .expect("sent");
                        if turn % 2 == 0 {
                            let _ = stream.read(&mut vec![0; 1 + turn % 700]);
                        } else {
                            std::thread::sleep(Duration::from_millis((turn % 17) as u64));
                        }
                        vanished.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        server.idle();
        (answered.into_inner(), vanished.into_inner())
    };
    // What grows once, such as threads, tables and the allocator's arenas, does so in the first, or by chance in one behind it;
    // what is lost by request grows in all of them.
    round(Duration::from_secs(8));
    let mut resident_after = vec![resident(&server)];
    for _ in 0..3 {
        let before = resident_after[resident_after.len() - 1];
        let (answered, vanished) = round(Duration::from_secs(5));
        assert!(answered > 100 && vanished > 50, "{answered} {vanished}");
        let after = resident(&server);
        resident_after.push(after);
        if after.saturating_sub(before) as f64 / before as f64 <= 0.1 {
            break;
        }
        assert!(resident_after.len() < 4, "{resident_after:?}");
    }
    assert!(server.figure("walsh_requests_cancelled_total") > 0.0);
    assert_eq!(server.figure("walsh_put_off_total").fract(), 0.0);
}

#[test]
fn an_answer_goes_on_beside_a_long_prompt() {
    let server = Server::real(&["--context", "8192", "--log", "off"]);
    let ask = |body: &Value| {
        let mut stream = connect(server.address).expect("a connection");
        send(
            &mut stream,
            ("POST", CHAT),
            &[JSON],
            body.to_string().as_bytes(),
        )
        .expect("sent");
        stream
    };
    let long = "A ship came in, and the keeper wrote down its name. ".repeat(560);
    let long = ask(&json!({ "messages": user(&long), "max_tokens": 1 }));
    let runs = || (server.figure("walsh_requests_running") > 0.0).then_some(());
    super::wait(runs).expect("it runs");
    // Who comes while it is read does not wait for its end.
    let short =
        receive(ask(&json!({ "messages": user("Hello."), "max_tokens": 4 }))).expect("an answer");
    let first = short.json()["timings"]["first_token_ms"]
        .as_f64()
        .expect("a time");
    let long = receive(long).expect("an answer").json();
    let whole = long["timings"]["first_token_ms"].as_f64().expect("a time");
    assert!(
        long["usage"]["prompt_tokens"].as_u64() > Some(6000),
        "{long}"
    );
    assert!(first * 4.0 < whole, "{first} ms beside {whole} ms");
}
