//! How a model's makers would have its tokens chosen.

use walsh::formats::gguf::write::NewValue;
use walsh_runtime::Sampling;

use super::*;

fn recommended(metadata: &[(&'static str, NewValue)]) -> Tiny {
    let stated = metadata
        .iter()
        .map(|(key, value)| (*key, Some(value.clone())));
    Tiny {
        metadata: stated.collect(),
        ..of("llama")
    }
}

#[test]
fn what_the_file_recommends_is_read() {
    let tiny = recommended(&[
        ("general.sampling.temp", 0.25_f32.into()),
        ("general.sampling.top_k", 20_i32.into()),
        ("general.sampling.top_p", 0.5_f32.into()),
        ("general.sampling.min_p", 0_u32.into()),
        ("general.sampling.penalty_repeat", 1.5_f32.into()),
        ("general.sampling.penalty_last_n", (-1_i32).into()),
        ("general.sampling.mirostat", 0_i32.into()),
        ("general.sampling.mirostat_tau", 5.0_f32.into()),
        ("general.sampling.xtc_probability", 0.0_f32.into()),
        (
            "general.sampling.sequence",
            "penalties;dry;top_k;typ_p;top_p;min_p;xtc;temperature".into(),
        ),
    ]);
    let model = open(&tiny).expect("the model");
    let found = model.recommended_sampling();
    let expected = Sampling {
        temperature: 0.25,
        top_k: 20,
        top_p: 0.5,
        min_p: 0.0,
        repetition_penalty: 1.5,
        repetition_window: usize::MAX,
    };
    assert_eq!(found.otherwise(Sampling::default()), expected);
    assert!(found.unsupported.is_empty(), "{found:?}");
    let plain = open(&of("llama")).expect("the model");
    let found = plain.recommended_sampling();
    assert_eq!(found.otherwise(expected), expected);
}

#[test]
fn steps_that_a_sequence_lacks_are_switched_off() {
    let of_sequence = |sequence: &str| {
        let tiny = recommended(&[("general.sampling.sequence", sequence.into())]);
        open(&tiny)
            .expect("the model")
            .recommended_sampling()
            .clone()
    };
    let found = of_sequence("topk;temp");
    let off = Sampling {
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        ..Sampling::default()
    };
    assert_eq!(found.otherwise(Sampling::default()), off);
    for sequence in ["temperature;top_k", "top_k;top_k", "top_k;adaptive_p", ""] {
        let found = of_sequence(sequence);
        let kept = found.otherwise(Sampling::default());
        assert_eq!(kept, Sampling::default(), "{sequence}");
        assert_eq!(found.unsupported.len(), 1, "{found:?}");
    }
}

#[test]
fn recommendations_that_cannot_be_are_refused_on_opening() {
    for (key, value) in [
        ("general.sampling.temp", NewValue::F32(f32::NAN)),
        ("general.sampling.temp", NewValue::F32(-1.0)),
        ("general.sampling.temp", "warm".into()),
        ("general.sampling.top_p", 1.5_f32.into()),
        ("general.sampling.min_p", NewValue::F32(f32::INFINITY)),
        ("general.sampling.top_k", 2.5_f32.into()),
        ("general.sampling.penalty_last_n", u64::MAX.into()),
        ("general.sampling.penalty_repeat", 0_u32.into()),
        ("general.sampling.sequence", 4_u32.into()),
    ] {
        refused(&recommended(&[(key, value)]), &[key]);
    }
}

#[test]
fn the_command_heeds_the_file_unless_it_is_told_otherwise() {
    let folder = Folder::new();
    let tiny = recommended(&[
        ("general.sampling.temp", 0.0_f32.into()),
        ("general.sampling.mirostat", 2_i32.into()),
    ]);
    let path = folder.file("tiny.gguf", &tiny.gguf());
    let path = path.to_str().expect("UTF-8");
    let run = |more: &[&str]| {
        let fixed = ["generate", "--model", path, "--threads", "1", "-n", "12"];
        let ran = walsh(fixed.iter().chain(more).chain(&["ab"]));
        assert_eq!(ran.status, Some(0), "{ran:?}");
        ran
    };
    let heeded = run(&[]);
    assert_eq!(heeded.out, run(&["--temperature", "0"]).out);
    assert!(
        heeded.err.contains("general.sampling.mirostat = 2"),
        "{heeded:?}"
    );
    let drawn = run(&["--temperature", "5", "--top-k", "0", "--seed", "1"]);
    assert_ne!(heeded.out, drawn.out);
}

#[test]
fn what_cannot_be_had_is_said_in_one_line_of_bounded_length() {
    let keys = (0..300).map(|n| -> &'static str { format!("general.sampling.x{n}").leak() });
    let stated: Vec<_> = keys.map(|key| (key, NewValue::U32(1))).collect();
    let folder = Folder::new();
    let path = folder.file("tiny.gguf", &recommended(&stated).gguf());
    let path = path.to_str().expect("UTF-8");
    let ran = walsh([
        "generate",
        "--model",
        path,
        "--threads",
        "1",
        "-n",
        "1",
        "ab",
    ]);
    assert_eq!(ran.status, Some(0), "{ran:?}");
    let said = ran
        .err
        .lines()
        .find(|line| line.contains("general.sampling.x0 = 1"));
    let said = said.expect("a line");
    assert!(said.len() < 1000 && said.ends_with("left out"), "{said}");
}
