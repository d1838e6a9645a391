//! Models whose weights a device has packed.

use walsh::Isa;
use walsh_runtime::sampling::{Random, Sampler};
use walsh_runtime::{GenerateOptions, Model, Sampling, Session};

use super::{go_on, open_on, options, text};
use crate::tiny::Tiny;

fn models(settings: &str) -> [Model; 2] {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let gguf = Tiny::default().gguf();
    ["never", "always"].map(|how| {
        let device = format!("cpu:threads=2,packing={how}{settings}");
        open_on(&device, &folder, "model.gguf", &gguf)
    })
}

fn logits(model: &Model) -> Vec<f32> {
    let mut session = model.session(options("f16")).expect("a session");
    go_on(&mut session, 3)
        .into_iter()
        .map(f32::from_bits)
        .collect()
}

#[test]
fn packing_changes_no_logit_by_more_than_rounding_does() {
    let [plain, packed] = models("");
    assert_eq!(plain.packed_bytes(), 0);
    let packs = Isa::detect().base().name().starts_with("avx");
    assert_eq!(packed.packed_bytes() > 0, packs);
    let (expected, found) = (logits(&plain), logits(&packed));
    let largest = expected
        .iter()
        .fold(0.0f32, |most, logit| most.max(logit.abs()));
    for (expected, found) in expected.iter().zip(&found) {
        // A sum in another order flips a few 8-bit codes of activations.
        assert!(
            (expected - found).abs() <= 0.02 * largest,
            "{expected} {found} of {largest}"
        );
    }
}

#[test]
fn activations_in_single_precision_read_weights_as_they_are_stored() {
    let [plain, packed] = models(",activations=f32");
    assert_eq!(packed.packed_bytes(), 0);
    assert_eq!(logits(&plain), logits(&packed));
}

/// The likeliest token that is found with a screen first.
const FIRST_SCREENED: usize = 17;

fn started(model: &Model) -> Session {
    let mut session = model.session(options("f16")).expect("a session");
    session.prefill(&text(12, 5)).expect("read");
    session
}

#[test]
fn a_screen_finds_the_likeliest_token() {
    let [_, model] = models("");
    let (mut by_host, mut on_device) = (started(&model), started(&model));
    // AVX2 packs as well, and so has a screen.
    let has_screens = model.packed_bytes() > 0;
    for (number, token) in text(FIRST_SCREENED + 2, 3).into_iter().enumerate() {
        by_host.decode(token).expect("read");
        let largest = by_host.logits().iter().copied().fold(f32::MIN, f32::max);
        let expected = by_host.logits().iter().position(|x| *x == largest);
        let likeliest = on_device.decode_likeliest(token).expect("read");
        assert_eq!(Some(likeliest as usize), expected);
        let made = has_screens && number + 1 >= FIRST_SCREENED;
        assert_eq!(model.screen_bytes() > 0, made, "token {number}");
    }
    assert_eq!(go_on(&mut by_host, 5), go_on(&mut on_device, 5));
}

#[test]
fn a_screen_changes_no_choice_among_the_likeliest() {
    let [_, model] = models("");
    let mut first = started(&model);
    for token in text(FIRST_SCREENED, 9) {
        first.decode_likeliest(token).expect("read");
    }
    assert_eq!(model.screen_bytes() > 0, model.packed_bytes() > 0);
    for (top_k, top_p) in [(1, 1.0), (3, 0.9), (40, 1.0), (1000, 0.95)] {
        let sampling = Sampling {
            temperature: 1.3,
            top_k,
            top_p,
            ..Sampling::default()
        };
        let options = GenerateOptions {
            max_tokens: Some(20),
            sampling,
            ..GenerateOptions::default()
        };
        let mut session = started(&model);
        session.set_seed(11);
        let generation = session.generate_from(&[7], options);
        generation
            .expect("a text")
            .for_each(|piece| drop(piece.expect("a piece")));
        let (tokens, logits) = (session.tokens().to_vec(), session.logits().to_vec());

        let mut by_host = started(&model);
        let mut sampler = Sampler::new(&sampling).expect("options");
        let mut random = Random::new(11);
        by_host.prefill(&[7]).expect("read");
        for token in &tokens[13..] {
            let chosen = sampler.sample(by_host.logits(), &[], &mut random);
            assert_eq!(chosen.expect("a token"), *token, "top-k {top_k}");
            by_host.decode(*token).expect("read");
        }
        // The last token was not read by the generation.
        let mut again = started(&model);
        again.prefill(&[7]).expect("read");
        for token in &tokens[13..tokens.len() - 1] {
            again.decode(*token).expect("read");
        }
        assert_eq!(again.logits(), logits, "top-k {top_k}");
    }
}
