use walsh_runtime::chat::Message;
use walsh_runtime::{Conversation, GenerateOptions, RestoreOptions, Sampling};

use super::{Place, global, options, sliding};

fn new(place: &Place) -> Conversation {
    let mut options = options("tq4");
    options.context = 400;
    Conversation::new(&place.model, options, Some("Be brief.")).expect("a conversation")
}

fn say(conversation: &mut Conversation, message: &str) -> String {
    let options = GenerateOptions {
        max_tokens: Some(6),
        sampling: Sampling::greedy(),
        ..GenerateOptions::default()
    };
    let mut reply = conversation.say(message, options).expect("a reply");
    let text = reply
        .by_ref()
        .map(|piece| piece.expect("a piece"))
        .collect();
    drop(reply);
    text
}

fn said(place: &Place, messages: &[&str]) -> Conversation {
    let mut conversation = new(place);
    for message in messages {
        say(&mut conversation, message);
    }
    conversation
}

fn restored(place: &Place, conversation: &Conversation) -> Conversation {
    conversation.save(place.path()).expect("saved");
    let options = RestoreOptions::default();
    Conversation::restore(&place.model, place.path(), options).expect("restored")
}

/// Both hold the same and answer the same.
#[track_caller]
fn assert_same(one: &mut Conversation, other: &mut Conversation) {
    assert_eq!(one.messages(), other.messages());
    assert_eq!(one.session().tokens(), other.session().tokens());
    assert_eq!(say(one, "And now?"), say(other, "And now?"));
    assert_eq!(one.session().tokens(), other.session().tokens());
    assert_eq!(one.session().logits(), other.session().logits());
}

#[test]
fn a_restored_conversation_goes_on_as_the_saved_one() {
    for place in [global(), sliding()] {
        for messages in [&[][..], &["Hello"], &["Hello", "Why?"]] {
            let mut conversation = said(&place, messages);
            let mut restored = restored(&place, &conversation);
            let tokens = restored.session().position();
            assert_same(&mut restored, &mut conversation);
            if !messages.is_empty() {
                // Only what is new was read.
                let new = &restored.session().tokens()[tokens..];
                assert!(new.len() < tokens, "{new:?}");
            }
        }
    }
}

#[test]
fn an_exchange_that_is_taken_back_was_never_there() {
    for place in [global(), sliding()] {
        let mut conversation = said(&place, &["Hello", "Why?", "No."]);
        assert!(conversation.undo().expect("undone"));
        let mut restored = restored(&place, &conversation);
        assert_same(&mut conversation, &mut said(&place, &["Hello", "Why?"]));
        // Back over what was said before the file was written.
        assert!(restored.undo().expect("undone"));
        assert_same(&mut restored, &mut said(&place, &["Hello"]));
        assert!(restored.undo().expect("undone"));
        assert!(restored.undo().expect("undone"));
        assert!(!restored.undo().expect("nothing"));
        assert_eq!(restored.messages(), [Message::system("Be brief.")]);
        assert_same(&mut restored, &mut new(&place));
    }
}

#[test]
fn resetting_a_restored_conversation_keeps_its_system_message() {
    let place = global();
    let mut restored = restored(&place, &said(&place, &["Hello"]));
    restored.reset();
    assert!(!restored.undo().expect("nothing"));
    assert_same(&mut restored, &mut new(&place));
}

#[test]
fn a_conversation_can_be_taken_up_as_a_text() {
    let place = global();
    let conversation = said(&place, &["Hello"]);
    conversation.save(place.path()).expect("saved");
    let session = place.model.restore(place.path(), RestoreOptions::default());
    let session = session.expect("restored");
    assert_eq!(session.tokens(), conversation.session().tokens());
}

#[test]
fn a_reply_that_fails_loses_nothing_that_was_said() {
    let place = sliding();
    let mut conversation = said(&place, &["Hello", "Why?"]);
    let messages = conversation.messages().to_vec();
    let impossible = GenerateOptions {
        sampling: Sampling {
            top_p: 2.0,
            ..Sampling::greedy()
        },
        ..GenerateOptions::default()
    };
    assert!(conversation.say("No.", impossible).is_err());
    assert_eq!(conversation.messages(), messages);
    let mut restored = restored(&place, &conversation);
    // Both read everything anew.
    assert_same(&mut conversation, &mut restored);
    for _ in 0..2 {
        assert!(restored.undo().expect("undone"));
    }
    assert_eq!(restored.messages(), &messages[..3]);
    say(&mut restored, "And now?");
    assert_eq!(restored.messages().len(), 5);
}

fn regenerate(conversation: &mut Conversation, sampling: Sampling) -> Option<String> {
    let options = GenerateOptions {
        max_tokens: Some(6),
        sampling,
        ..GenerateOptions::default()
    };
    let mut reply = conversation.regenerate(options).expect("a reply")?;
    Some(
        reply
            .by_ref()
            .map(|piece| piece.expect("a piece"))
            .collect(),
    )
}

#[test]
fn an_answer_is_generated_anew_in_its_place() {
    for place in [global(), sliding()] {
        let mut conversation = said(&place, &["Hello", "Why?"]);
        let messages = conversation.messages().to_vec();
        let again = regenerate(&mut conversation, Sampling::greedy());
        assert_eq!(
            again.as_ref(),
            messages.last().map(|message| &message.content)
        );
        assert_eq!(conversation.messages(), messages);
        assert_same(&mut conversation, &mut said(&place, &["Hello", "Why?"]));
    }
    assert_eq!(regenerate(&mut new(&global()), Sampling::greedy()), None);
}

#[test]
fn an_answer_that_cannot_be_generated_anew_stays() {
    let place = global();
    let mut conversation = said(&place, &["Hello", "Why?"]);
    let messages = conversation.messages().to_vec();
    let impossible = GenerateOptions {
        sampling: Sampling {
            top_p: 2.0,
            ..Sampling::greedy()
        },
        ..GenerateOptions::default()
    };
    assert!(conversation.regenerate(impossible).is_err());
    assert_eq!(conversation.messages(), messages);
    assert!(conversation.undo().expect("undone"));
    assert_eq!(conversation.messages(), &messages[..3]);
    say(&mut conversation, "And now?");
    assert_eq!(conversation.messages().len(), 5);
}

#[test]
fn another_system_message_counts_from_the_next_turn_on() {
    let place = global();
    let mut conversation = said(&place, &["Hello"]);
    let before = conversation.messages().to_vec();
    conversation.set_system(Some("Be long."));
    assert_eq!(conversation.system(), Some("Be long."));
    assert_eq!(conversation.messages()[0], Message::system("Be long."));
    assert_eq!(conversation.messages()[1..], before[1..]);
    let mut restored = restored(&place, &conversation);
    assert_same(&mut conversation, &mut restored);
    for system in [None, Some("Be brief.")] {
        restored.set_system(system);
        assert_eq!(restored.system(), system);
    }
    assert!(restored.undo().expect("undone"));
    assert!(restored.undo().expect("undone"));
    assert!(!restored.undo().expect("nothing"));
    assert_same(&mut restored, &mut new(&place));
}

#[test]
fn a_conversation_goes_on_in_another_session() {
    let place = sliding();
    let mut conversation = said(&place, &["Hello", "Why?"]);
    let tokens = conversation.session().tokens().to_vec();
    let mut larger = options("q8_0");
    larger.context = 500;
    conversation.reopen(larger).expect("reopened");
    assert_eq!(conversation.session().tokens(), tokens);
    assert_eq!(conversation.session().context(), 500);
    say(&mut conversation, "And now?");
    assert!(conversation.session().tokens().starts_with(&tokens));
    assert!(conversation.undo().expect("undone"));
    assert!(conversation.undo().expect("undone"));
    assert_eq!(conversation.messages().len(), 3);
    // What does not fit changes nothing.
    let tokens = conversation.session().tokens().to_vec();
    let mut small = options("f16");
    small.context = 8;
    assert!(conversation.reopen(small).is_err());
    assert_eq!(conversation.session().tokens(), tokens);
    assert_eq!(conversation.session().context(), 500);
}
