use std::fs;

use walsh_runtime::{Conversation, Fingerprint, RestoreOptions, Session, check_readable};

use super::tiny::Tiny;
use super::{Place, global, open, options, sliding, text};

fn saved(place: &Place, count: usize) -> (Session, Vec<u8>) {
    let mut session = place.model.session(options("tq4")).expect("a session");
    session.prefill(&text(count, 1)).expect("read");
    session.save(place.path()).expect("saved");
    let bytes = fs::read(place.path()).expect("the file");
    (session, bytes)
}

#[track_caller]
fn refused(place: &Place, part: &str) {
    let restored = place.model.restore(place.path(), RestoreOptions::default());
    let message = restored.expect_err("an error").to_string();
    assert!(message.contains(part), "{part:?} is not in {message:?}");
    assert!(!message.contains('\n'), "{message:?}");
}

#[test]
fn a_file_cut_at_every_byte_is_refused() {
    let place = sliding();
    let (_, bytes) = saved(&place, 3);
    let file = fs::File::options()
        .write(true)
        .open(place.path())
        .expect("the file");
    for length in (1..bytes.len()).rev() {
        file.set_len(length as u64).expect("cut");
        refused(&place, "cut off");
    }
    file.set_len(0).expect("cut");
    refused(&place, "not saved by Walsh");
}

#[test]
fn a_changed_byte_is_refused_wherever_it_is() {
    let place = sliding();
    let (_, mut bytes) = saved(&place, 3);
    // All of the header, and every section.
    for at in (0..160).chain((160..bytes.len()).step_by(7)) {
        bytes[at] ^= 0x10;
        fs::write(place.path(), &bytes).expect("written");
        refused(&place, "a.walsh");
        bytes[at] ^= 0x10;
    }
    fs::write(place.path(), &bytes).expect("written");
    let whole = place.model.restore(place.path(), RestoreOptions::default());
    assert_eq!(whole.expect("restored").tokens(), text(3, 1));
}

#[test]
fn another_model_is_refused_and_both_are_named() {
    let place = global();
    saved(&place, 3);
    let other = Tiny {
        first_norm: 2.0,
        ..Tiny::default()
    };
    let other = open(&place.folder, "other.gguf", &other.gguf());
    let restored = other.restore(place.path(), RestoreOptions::default());
    let message = restored.expect_err("another model").to_string();
    for model in [&place.model, &other] {
        let fingerprint = model.fingerprint().expect("a fingerprint");
        let named = format!("\"Tiny\" ({fingerprint})");
        assert!(message.contains(&named), "{message}");
    }
}

#[test]
fn options_that_contradict_a_file_are_refused() {
    let place = global();
    saved(&place, 3);
    let restore = |context, kv: Option<&str>| {
        let kv = kv.map(|kv| kv.parse().expect("a SPEC"));
        let restored = place.model.restore(
            place.path(),
            RestoreOptions {
                context,
                kv,
                ..RestoreOptions::default()
            },
        );
        restored.map(|session| session.context())
    };
    assert_eq!(restore(0, None).expect("restored"), 64);
    assert_eq!(restore(64, Some("tq4")).expect("restored"), 64);
    let message = restore(0, Some("tq8"))
        .expect_err("another SPEC")
        .to_string();
    assert!(
        message.contains("tq4") && message.contains("tq8"),
        "{message}"
    );
    // What was read, and a chunk, must fit.
    assert_eq!(restore(8, None).expect("restored"), 8);
    let message = restore(7, None).expect_err("a smaller one").to_string();
    assert!(message.contains('8') && message.contains('7'), "{message}");
}

#[test]
fn a_failed_save_leaves_the_old_file() {
    let place = global();
    let (session, bytes) = saved(&place, 3);
    for path in [
        place.folder.path().to_owned(),
        place.folder.path().join("missing/a.walsh"),
        place.path().join("below a file"),
    ] {
        let message = session.save(&path).expect_err("no such place").to_string();
        assert_eq!(message.lines().count(), 1);
    }
    assert_eq!(fs::read(place.path()).expect("the file"), bytes);
    session.save(place.path()).expect("saved again");
    assert_eq!(fs::read(place.path()).expect("the file"), bytes);
    let names = fs::read_dir(place.folder.path()).expect("the folder");
    assert_eq!(names.count(), 2, "the model and the session alone");
}

#[test]
fn what_is_no_session_is_refused() {
    let place = global();
    let model = place.folder.path().join("model.gguf");
    let restored = place.model.restore(&model, RestoreOptions::default());
    let message = restored.expect_err("a model").to_string();
    assert!(message.contains("not saved by Walsh"), "{message}");
    assert!(check_readable(&model).is_err());
    assert!(check_readable(place.path()).is_err(), "there is none yet");
    saved(&place, 3);
    check_readable(place.path()).expect("a session");
    let conversation = Conversation::restore(&place.model, place.path(), RestoreOptions::default());
    let Err(error) = conversation else {
        panic!("a text is no conversation");
    };
    assert!(error.to_string().contains("no conversation"), "{error}");
}

#[test]
fn a_file_is_as_large_as_what_it_holds() {
    let place = global();
    let (_, three) = saved(&place, 3);
    let (_, thirty) = saved(&place, 30);
    // Two layers, keys and values of 32 bytes and a scale of 2; a token; a call. Of the overlay, 31 slots of 68 bytes
    // more are in use: the fourth of the first tokens, and all 30 of the ring.
    let expected = 27 * (2 * 2 * 34 + 4) + 3 * 4 + 31 * 2 * 2 * 68;
    assert_eq!(thirty.len() - three.len(), expected);
}

#[test]
fn fingerprints_tell_models_apart() {
    let gguf = Tiny::default().gguf();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let of = |name: &str, gguf: &[u8]| -> Fingerprint {
        let model = open(&folder, name, gguf);
        let fingerprint = model.fingerprint().expect("a fingerprint");
        assert_eq!(model.fingerprint().expect("again"), fingerprint);
        fingerprint
    };
    let same = of("one.gguf", &gguf);
    assert_eq!(of("two.gguf", &gguf), same, "wherever it lies");
    assert_eq!(same.to_string().len(), 32);
    assert_eq!(Fingerprint::from_bytes(*same.as_bytes()), same);
    let tensors = walsh::gguf::Gguf::parse(&gguf).expect("a model");
    for tensor in tensors.tensors() {
        for at in [tensor.offset, tensor.offset + tensor.bytes - 1] {
            let mut changed = gguf.clone();
            changed[at as usize] ^= 1;
            assert_ne!(of("changed.gguf", &changed), same, "{}", tensor.name);
        }
    }
    let name = gguf.windows(4).position(|word| word == b"Tiny");
    let mut renamed = gguf.clone();
    renamed[name.expect("its name")] = b't';
    assert_ne!(of("renamed.gguf", &renamed), same);
    let mut longer = gguf;
    longer.extend([0; 64]);
    assert_ne!(of("longer.gguf", &longer), same);
}
