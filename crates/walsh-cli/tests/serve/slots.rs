//! Slots, as llama-server's clients use them.

use serde_json::{Value, json};

use super::http::request;
use super::support::tiny::Tiny;
use super::{Folder, Server, user};

const CHAT: &str = "/v1/chat/completions";

/// A conversation whose beginning is long, and the next question in it.
fn body(question: &str) -> Value {
    let system = "The lighthouse keeper counts ships. ".repeat(4);
    let system = json!({ "role": "system", "content": system });
    json!({
        "messages": [system, user(question)[0]], "max_tokens": 4, "temperature": 0, "ignore_eos": true,
    })
}

fn cached(answer: &Value) -> u64 {
    let details = &answer["usage"]["prompt_tokens_details"]["cached_tokens"];
    details.as_u64().expect("a number")
}

fn act(server: &Server, slot: &str, action: &str, file: &str) -> (u16, Value) {
    let path = format!("/slots/{slot}?action={action}");
    let answer = server.post(&path, &json!({ "filename": file }));
    (answer.status, answer.json())
}

#[test]
fn a_saved_slot_is_not_read_again_by_another_server() {
    let folder = Folder::new();
    let saved = folder.path().join("saved");
    let option = ["--slot-folder", saved.to_str().expect("UTF-8")];
    let with = |more: &[&str]| Server::tiny(&[&option[..], &["--log", "off"], more].concat());
    let server = with(&[]);
    let mut first = body("How many?");
    first["id_slot"] = 5.into();
    let answer = server.ok(CHAT, &first);
    server.idle();
    let slots = server.get("/slots").json();
    let [idle, held] = [0, 5].map(|slot: usize| slots[slot].clone());
    assert_eq!((&idle["id"], &idle["n_tokens"]), (&json!(0), &json!(0)));
    assert_eq!(
        (&held["is_processing"], &held["id_task"]),
        (&json!(false), &json!(-1))
    );
    let (status, done) = act(&server, "5", "save", "ships.bin");
    assert_eq!(status, 200, "{done}");
    assert_eq!(done["n_saved"], held["n_tokens"]);
    assert_eq!(done["filename"], "ships.bin");
    let size = std::fs::metadata(saved.join("ships.bin"))
        .expect("a file")
        .len();
    assert_eq!(done["n_written"], size);
    let again = server.ok(CHAT, &first);
    assert_eq!(again["choices"], answer["choices"]);
    let tokens = cached(&again);
    assert!(tokens > 100, "{again}");
    drop(server);

    let server = with(&[]);
    let (status, done) = act(&server, "2", "restore", "ships.bin");
    assert_eq!(status, 200, "{done}");
    assert_eq!(done["n_read"], size);
    assert_eq!(
        server.get("/slots").json()[2]["n_tokens"],
        done["n_restored"]
    );
    let again = server.ok(CHAT, &first);
    assert_eq!(
        (&again["choices"], cached(&again)),
        (&answer["choices"], tokens)
    );
    assert!(server.figure("walsh_prompt_tokens_reused_total") >= tokens as f64);
    // Who erases needs no body.
    for slot in [5, 2] {
        let path = format!("/slots/{slot}?action=erase");
        let erased = request(server.address, "POST", &path, &[], b"").expect("an answer");
        assert_eq!(erased.status, 200, "{erased:?}");
        assert_eq!(erased.json()["id_slot"], slot);
        let elsewhere = [("origin", "https://example.com")];
        let erased = request(server.address, "POST", &path, &elsewhere, b"").expect("an answer");
        assert_eq!(erased.status, 415);
        let kind = [("content-type", "application/json")];
        let erased = request(server.address, "POST", &path, &kind, b"{").expect("an answer");
        assert_eq!(erased.status, 400);
    }
    assert!(cached(&server.ok(CHAT, &first)) < tokens);
    // The number of a slot comes with llama-server's own answers.
    let prompt = json!({ "prompt": "abc", "n_predict": 2, "id_slot": 3 });
    assert_eq!(server.ok("/completion", &prompt)["id_slot"], 3);

    what_is_wrong_with_a_file_is_told(&server, &saved);
    let other = Tiny {
        name: "Other",
        first_norm: 2.0,
        ..Tiny::default()
    };
    let other = Server::of(&other, &option);
    let (status, told) = act(&other, "0", "restore", "ships.bin");
    let message = told["error"]["message"].as_str().unwrap_or_default();
    assert!(
        status == 400 && message.contains("not with \"Other\""),
        "{told}"
    );
    let (status, told) = act(&with(&["--kv", "q8_0"]), "0", "restore", "ships.bin");
    let message = told["error"]["message"].as_str().unwrap_or_default();
    assert!(status == 400 && message.contains("SPEC"), "{told}");
}

fn what_is_wrong_with_a_file_is_told(server: &Server, saved: &std::path::Path) {
    let whole = std::fs::read(saved.join("ships.bin")).expect("a file");
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 4;
    std::fs::write(saved.join("damaged.bin"), damaged).expect("written");
    std::fs::write(saved.join("cut.bin"), &whole[..whole.len() / 2]).expect("written");
    std::fs::write(saved.join("other.txt"), "a text").expect("written");
    std::fs::create_dir(saved.join("folder")).expect("made");
    let names = |folder: &std::path::Path| -> Vec<_> {
        let entries = std::fs::read_dir(folder).expect("a folder");
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("an entry").path())
            .collect();
        names.sort();
        names
    };
    let before = (names(saved), names(saved.parent().expect("a folder")));
    for (slot, action, file, status, what) in [
        ("0", "restore", "absent.bin", 404, "absent.bin"),
        ("0", "restore", "damaged.bin", 400, "damaged"),
        ("0", "restore", "cut.bin", 400, "cut off"),
        ("0", "restore", "other.txt", 400, "not saved by Walsh"),
        ("0", "restore", "folder", 500, "folder"),
        ("0", "restore", "../ships.bin", 400, "bare name"),
        ("0", "save", "/tmp/ships.bin", 400, "bare name"),
        ("0", "save", "a/b", 400, "bare name"),
        ("0", "save", "a\\b", 400, "bare name"),
        ("0", "save", "..", 400, "bare name"),
        ("0", "save", ".hidden", 400, "bare name"),
        ("0", "save", "", 400, "bare name"),
        ("0", "save", "a\0b", 400, "bare name"),
        ("0", "save", &"a".repeat(200), 400, "bare name"),
        ("9", "save", "nothing.bin", 400, "holds no text"),
        ("16", "save", "a.bin", 400, "below 16"),
        ("-1", "save", "a.bin", 400, "below 16"),
        ("first", "erase", "a.bin", 400, "below 16"),
        ("0", "forget", "a.bin", 400, "save, restore or erase"),
    ] {
        let (found, told) = act(server, slot, action, file);
        let message = told["error"]["message"].as_str().unwrap_or_default();
        assert!(found == status && message.contains(what), "{file}: {told}");
        let place = saved.parent().and_then(|folder| folder.to_str());
        assert!(!message.contains(place.expect("UTF-8")), "{message}");
    }
    for body in [json!({}), json!({ "filename": 7 })] {
        let error = server.refused("/slots/0?action=save", &body, 400);
        assert_eq!(error["param"], "filename");
    }
    let error = server.refused(CHAT, &json!({ "messages": user("a"), "id_slot": 16 }), 400);
    assert_eq!(error["param"], "id_slot");
    let after = (names(saved), names(saved.parent().expect("a folder")));
    assert_eq!(before, after);
}

/// As on a disk that is full: no file grows beyond a few thousand bytes.
#[test]
fn a_disk_that_is_full_leaves_nothing() {
    let folder = Folder::new();
    let saved = folder.path().join("saved");
    let saved_text = saved.to_str().expect("UTF-8");
    let options = ["--slot-save-path", saved_text, "--log", "off"];
    let server = Server::with_limit(libc::RLIMIT_FSIZE, 10_000, &options);
    server.ok(CHAT, &body("How many?"));
    let (status, told) = act(&server, "0", "save", "ships.bin");
    assert_eq!(status, 500, "{told}");
    assert!(
        told["error"]["message"]
            .as_str()
            .is_some_and(|m| m.starts_with("ships.bin")),
        "{told}"
    );
    assert_eq!(std::fs::read_dir(&saved).expect("a folder").count(), 0);
    server.ok(CHAT, &body("And now?"));
    // A folder that cannot be one is told before anything is served.
    let file = folder.argument("file", b"");
    let said = super::support::walsh(["serve", "--port", "0", "--slot-folder", &file]);
    said.fails(1, "file");
}
