//! Files whose checksums hold and whose contents are made up: whatever they say,
//! they are refused or taken up as a session that works.

use std::fs;

use twox_hash::XxHash3_128;
use walsh_runtime::{Conversation, GenerateOptions, RestoreOptions, Sampling};

use super::{Place, options, sliding, text};

/// Where the sections of a file lie: the range of each, without its checksum.
fn sections(bytes: &[u8]) -> (usize, Vec<std::ops::Range<usize>>) {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4")) as usize;
    let table = 52 + word(20);
    let header = table + 12 * word(48);
    let mut at = header + 16;
    let range = |index: usize| {
        let start = at;
        at += word(table + 12 * index + 4) + 16;
        start..at - 16
    };
    (header, (0..word(48)).map(range).collect())
}

/// Makes the checksums right.
fn seal(bytes: &mut [u8]) {
    let (header, sections) = sections(bytes);
    for end in std::iter::once(header).chain(sections.iter().map(|section| section.end)) {
        let checksum = XxHash3_128::oneshot(&bytes[..end]);
        bytes[end..end + 16].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// Takes the file up in both ways and uses what comes of it. Returns whether
/// something did.
fn used(place: &Place) -> bool {
    let session = place.model.restore(place.path(), RestoreOptions::default());
    let is_session = session.is_ok();
    if let Ok(mut session) = session {
        let position = session.position();
        let read = session.prefill(&text(5, 1));
        let _ = read.and_then(|()| session.truncate(position / 2));
        let _ = session.fork().and_then(|mut fork| fork.decode(1));
    }
    let restored = Conversation::restore(&place.model, place.path(), RestoreOptions::default());
    if let Ok(mut conversation) = restored {
        let options = GenerateOptions {
            max_tokens: Some(2),
            sampling: Sampling::greedy(),
            ..GenerateOptions::default()
        };
        let _ = conversation.undo();
        let _ = conversation.say("So?", options).map(|reply| reply.count());
        while let Ok(true) = conversation.undo() {}
    }
    is_session
}

#[test]
fn made_up_contents_are_refused_or_used_without_a_panic() {
    let place = sliding();
    let conversation = Conversation::new(&place.model, options("tq4"), None);
    let mut conversation = conversation.expect("a conversation");
    let short = GenerateOptions {
        max_tokens: Some(2),
        ..GenerateOptions::default()
    };
    let reply = conversation.say("Hi", short).expect("a reply");
    reply.for_each(|piece| drop(piece.expect("a piece")));
    conversation.save(place.path()).expect("saved");
    let whole = fs::read(place.path()).expect("the file");
    let (_, ranges) = sections(&whole);
    assert_eq!(ranges.last().expect("sections").end + 16, whole.len());
    // All but the logits and the codes: META, TOKN, CALL, RAND and CHAT.
    let places: Vec<usize> = [0, 1, 2, 4, 6]
        .into_iter()
        .flat_map(|section: usize| ranges[section].clone())
        .step_by(3)
        .collect();
    let mut accepted = 0;
    for (index, at) in places.iter().copied().enumerate() {
        let mut bytes = whole.clone();
        bytes[at] = match index % 4 {
            0 => 0,
            1 => bytes[at].wrapping_add(1),
            2 => bytes[at] ^ 0x80,
            _ => 0xff,
        };
        seal(&mut bytes);
        fs::write(place.path(), &bytes).expect("written");
        accepted += usize::from(used(&place));
    }
    let refused = places.len() - accepted;
    assert!(
        accepted > 20 && refused > 50,
        "{accepted} of {}",
        places.len()
    );
}
