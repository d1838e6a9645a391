//! The checks of the ops that keep a state: what fits passes, and each thing that does not is named.

mod common;

use common::{bad, f32s, good, hollow, i32s, shifted};
use walsh_core::ops::{DeltaRule, HeadOrder, Op, ShortConv};
use walsh_formats::DType;

fn conv() -> ShortConv {
    ShortConv {
        input: f32s(&[3, 48]),
        weight: f32s(&[48, 4]),
        silu: true,
        state: f32s(&[5, 3, 48]),
        positions: i32s(&[3]),
        sequences: Some(i32s(&[3])),
        output: f32s(&[3, 48]),
    }
}

#[test]
fn short_conv() {
    let op = conv;
    good(op());
    let alone = ShortConv {
        sequences: None,
        ..op()
    };
    good(alone);
    let of = |channels: u64, taps: u64| ShortConv {
        input: f32s(&[3, channels]),
        weight: f32s(&[channels, taps]),
        state: f32s(&[5, taps.max(1) - 1, channels]),
        output: f32s(&[3, channels]),
        ..op()
    };
    good(of(16, 2));
    bad(of(40, 4), &["input", "multiple of 16"]);
    bad(of(48, 1), &["weight", "2 to 4 taps"]);
    bad(of(48, 5), &["weight", "2 to 4 taps"]);
    let input = f32s(&[3, 3, 16]);
    bad(ShortConv { input, ..op() }, &["input", "2 dimensions"]);
    let input = hollow(DType::F16, &[3, 48]);
    bad(ShortConv { input, ..op() }, &["input", "f32"]);
    let weight = hollow(DType::F16, &[48, 4]);
    bad(ShortConv { weight, ..op() }, &["weight", "f32"]);
    let weight = f32s(&[32, 4]);
    bad(ShortConv { weight, ..op() }, &["weight", "[48, 4]"]);
    let state = f32s(&[5, 4, 48]);
    bad(ShortConv { state, ..op() }, &["state", "[5, 3, 48]"]);
    let state = f32s(&[0, 3, 48]);
    bad(ShortConv { state, ..op() }, &["state", "2^31 - 1"]);
    let positions = i32s(&[4]);
    bad(ShortConv { positions, ..op() }, &["positions", "[3]"]);
    let sequences = Some(f32s(&[3]));
    bad(ShortConv { sequences, ..op() }, &["sequences", "i32"]);
    let output = f32s(&[3, 32]);
    bad(ShortConv { output, ..op() }, &["output", "[3, 48]"]);
    // A row's output may not be where a later row finds its inputs.
    let in_place = op();
    let output = in_place.input.clone();
    bad(ShortConv { output, ..in_place }, &["output", "overlapping"]);
    let long = ShortConv {
        state: f32s(&[16, 3, 48]),
        ..op()
    };
    let input = shifted(&long.state, 4).rows(0..1).expect("rows");
    let input = input.reshape(&[3, 48]).expect("as rows");
    bad(ShortConv { input, ..long }, &["state", "overlapping"]);
}

fn delta() -> DeltaRule {
    DeltaRule {
        mixed: f32s(&[3, 2 * 2 * 16 + 4 * 32]),
        decay: f32s(&[3, 4]),
        rate: f32s(&[3, 4]),
        decay_bias: f32s(&[4]),
        decay_scale: f32s(&[4]),
        order: HeadOrder::Tiled,
        state: f32s(&[5, 4, 16, 32]),
        positions: i32s(&[3]),
        sequences: Some(i32s(&[3])),
        output: f32s(&[3, 4, 32]),
    }
}

#[test]
fn delta_rule() {
    let op = delta;
    good(op());
    assert_eq!((op().key_heads(), op().sizes()), (2, [4, 16, 32]));
    let of = |key_heads: u64, heads: u64, dim: u64| DeltaRule {
        mixed: f32s(&[3, (2 * key_heads + heads) * dim]),
        decay: f32s(&[3, heads]),
        rate: f32s(&[3, heads]),
        decay_bias: f32s(&[heads]),
        decay_scale: f32s(&[heads]),
        state: f32s(&[5, heads, dim, dim]),
        output: f32s(&[3, heads, dim]),
        ..op()
    };
    good(of(4, 4, 256));
    bad(of(4, 4, 272), &["state", "at most 256"]);
    bad(of(4, 4, 24), &["state", "multiple of 16"]);
    bad(of(3, 4, 16), &["mixed", "a multiple of the key heads"]);
    bad(of(0, 4, 16), &["mixed", "a multiple of the key heads"]);
    let mixed = f32s(&[3, 2 * 2 * 16 + 4 * 32 + 8]);
    bad(DeltaRule { mixed, ..op() }, &["mixed", "[3, 192]"]);
    let mixed = hollow(DType::BF16, &[3, 192]);
    bad(DeltaRule { mixed, ..op() }, &["mixed", "f32"]);
    let state = f32s(&[4, 16, 32]);
    bad(DeltaRule { state, ..op() }, &["state", "4 dimensions"]);
    let decay = f32s(&[3, 5]);
    bad(DeltaRule { decay, ..op() }, &["decay", "[3, 4]"]);
    let rate = f32s(&[4, 3]);
    bad(DeltaRule { rate, ..op() }, &["rate", "[3, 4]"]);
    let decay_bias = f32s(&[1]);
    bad(DeltaRule { decay_bias, ..op() }, &["decay_bias", "[4]"]);
    let decay_scale = hollow(DType::F16, &[4]);
    bad(
        DeltaRule {
            decay_scale,
            ..op()
        },
        &["decay_scale", "f32"],
    );
    let positions = f32s(&[3]);
    bad(DeltaRule { positions, ..op() }, &["positions", "i32"]);
    let output = f32s(&[3, 128]);
    bad(DeltaRule { output, ..op() }, &["output", "[3, 4, 32]"]);
    let decay = f32s(&[3, 4]);
    let rate = shifted(&decay, 8);
    good(DeltaRule {
        decay: decay.clone(),
        rate,
        ..op()
    });
    let own = op();
    let decay_bias = own.state.reshape(&[10240]).and_then(|all| all.rows(4..8));
    let decay_bias = decay_bias.expect("a part");
    bad(DeltaRule { decay_bias, ..own }, &["state", "overlapping"]);
}

#[test]
fn a_state_is_read_and_written_and_costs_what_one_sequence_has() {
    let op = DeltaRule {
        sequences: None,
        ..delta()
    };
    let (state, accesses) = (op.state.span(), Op::from(op.clone()).accesses());
    assert!(accesses.reads.iter().any(|span| span.same(&state)));
    assert!(accesses.writes.iter().any(|span| span.same(&state)));
    let one = 4 * 16 * 32 * 4;
    let few = Op::from(op).cost(0);
    let all = Op::from(delta()).cost(0);
    // Three tokens are of three sequences at most, and there are their numbers to read.
    assert_eq!(all.bytes - few.bytes, 2 * 2 * one + 3 * 4);
    assert_eq!(all.operations, 7 * 3 * 4 * 16 * 32);
}
