//! The checks of the ops of experts: what fits passes, and each thing that does not is named.

mod common;

use common::{bad, f32s, good, hollow, i32s, shifted};
use walsh_core::Tensor;
use walsh_core::ops::{Activation, ExpertMatMul, ExpertRoute, ExpertSum, GatedActivation, Scoring};
use walsh_formats::DType;

#[test]
fn expert_route() {
    let op = || ExpertRoute {
        logits: f32s(&[3, 16]),
        bias: None,
        scoring: Scoring::Softmax,
        scale: 1.0,
        ids: i32s(&[3, 4]),
        weights: f32s(&[3, 4]),
    };
    good(op());
    let sigmoid = || ExpertRoute {
        scoring: Scoring::Sigmoid { normalised: true },
        bias: Some(f32s(&[16])),
        ..op()
    };
    good(sigmoid());
    for scoring in [Scoring::Softmax, Scoring::SoftmaxOfChosen] {
        bad(
            ExpertRoute {
                scoring,
                ..sigmoid()
            },
            &["bias", "sigmoids"],
        );
    }
    let bias = Some(f32s(&[15]));
    bad(ExpertRoute { bias, ..sigmoid() }, &["bias", "[16]"]);
    let logits = f32s(&[3]);
    bad(ExpertRoute { logits, ..op() }, &["logits", "2 dimensions"]);
    let logits = i32s(&[3, 16]);
    bad(ExpertRoute { logits, ..op() }, &["logits", "f32"]);
    let logits = f32s(&[0, 16]);
    bad(ExpertRoute { logits, ..op() }, &["logits", "2^31 - 1"]);
    let many = |experts, used| ExpertRoute {
        logits: f32s(&[3, experts]),
        ids: i32s(&[3, used]),
        weights: f32s(&[3, used]),
        ..op()
    };
    good(many(512, 32));
    good(many(1, 1));
    bad(many(513, 4), &["logits", "at most 512"]);
    bad(many(512, 33), &["ids", "1 to 32"]);
    bad(many(16, 17), &["ids", "1 to 16"]);
    bad(many(16, 0), &["ids", "1 to 16"]);
    let ids = i32s(&[4, 4]);
    bad(ExpertRoute { ids, ..op() }, &["ids", "[3, 4]"]);
    let ids = f32s(&[3, 4]);
    bad(ExpertRoute { ids, ..op() }, &["ids", "i32"]);
    let weights = f32s(&[3, 5]);
    bad(ExpertRoute { weights, ..op() }, &["weights", "[3, 4]"]);
    for scale in [f32::NAN, f32::INFINITY] {
        bad(ExpertRoute { scale, ..op() }, &["scale", "finite"]);
    }
    let ids = i32s(&[3, 4]);
    let (buffer, shape) = (ids.buffer().clone(), [3, 4]);
    let weights = Tensor::new(buffer, 4, DType::F32, &shape).expect("a view");
    bad(
        ExpertRoute {
            ids,
            weights,
            ..op()
        },
        &["weights", "overlapping"],
    );
}

#[test]
fn expert_matmul() {
    let op = || ExpertMatMul {
        weight: hollow(DType::Q4K, &[5, 3, 256]),
        ids: i32s(&[7, 2]),
        input: f32s(&[7, 256]),
        bias: None,
        output: f32s(&[7, 2, 3]),
    };
    good(op());
    let input = f32s(&[7, 2, 256]);
    good(ExpertMatMul { input, ..op() });
    let bias = Some(f32s(&[5, 3]));
    good(ExpertMatMul { bias, ..op() });
    let weight = hollow(DType::I32, &[5, 3, 256]);
    bad(ExpertMatMul { weight, ..op() }, &["weight", "i32"]);
    let weight = hollow(DType::Q4K, &[15, 256]);
    bad(ExpertMatMul { weight, ..op() }, &["weight", "3 dimensions"]);
    for shape in [[0, 3, 256], [5, 0, 256], [5, 3, 1 << 31]] {
        let weight = hollow(DType::F16, &shape);
        bad(ExpertMatMul { weight, ..op() }, &["weight", "2^31 - 1"]);
    }
    let ids = i32s(&[14]);
    bad(ExpertMatMul { ids, ..op() }, &["ids", "2 dimensions"]);
    let ids = f32s(&[7, 2]);
    bad(ExpertMatMul { ids, ..op() }, &["ids", "i32"]);
    let ids = i32s(&[7, 0]);
    bad(ExpertMatMul { ids, ..op() }, &["ids", "2^31 - 1"]);
    for shape in [&[7, 255][..], &[6, 256], &[7, 1, 256], &[14, 256]] {
        let input = f32s(shape);
        bad(
            ExpertMatMul { input, ..op() },
            &["input", "[7, 256] or [7, 2, 256]"],
        );
    }
    let output = f32s(&[14, 3]);
    bad(ExpertMatMul { output, ..op() }, &["output", "[7, 2, 3]"]);
    let bias = Some(f32s(&[3]));
    bad(ExpertMatMul { bias, ..op() }, &["bias", "[5, 3]"]);
    let output = f32s(&[7, 2, 3]);
    let buffer = output.buffer().clone();
    let ids = Tensor::new(buffer, 160, DType::I32, &[7, 2]).expect("a view");
    bad(
        ExpertMatMul {
            ids,
            output,
            ..op()
        },
        &["output", "overlapping"],
    );
}

#[test]
fn expert_sum() {
    let op = || ExpertSum {
        input: f32s(&[3, 2, 8]),
        weights: f32s(&[3, 2]),
        onto: None,
        output: f32s(&[3, 8]),
    };
    good(op());
    let sum = f32s(&[3, 8]);
    for output in [sum.clone(), f32s(&[3, 8])] {
        let onto = Some(sum.clone());
        good(ExpertSum {
            onto,
            output,
            ..op()
        });
    }
    let output = shifted(&sum, 32);
    let onto = Some(sum);
    bad(
        ExpertSum {
            onto,
            output,
            ..op()
        },
        &["output", "partly overlapping"],
    );
    let input = f32s(&[6, 8]);
    bad(ExpertSum { input, ..op() }, &["input", "3 dimensions"]);
    let weights = f32s(&[3, 3]);
    bad(ExpertSum { weights, ..op() }, &["weights", "[3, 2]"]);
    let output = f32s(&[3, 2, 8]);
    bad(ExpertSum { output, ..op() }, &["output", "[3, 8]"]);
    let onto = Some(f32s(&[8]));
    bad(ExpertSum { onto, ..op() }, &["onto", "[3, 8]"]);
    let input = f32s(&[3, 2, 8]);
    let output = input.rows(0..1).and_then(|row| row.reshape(&[2, 8]));
    let output = output.expect("a view");
    let op = ExpertSum {
        input: input.rows(0..2).expect("rows"),
        weights: f32s(&[2, 2]),
        onto: None,
        output,
    };
    bad(op, &["output", "apart from the inputs"]);
}

#[test]
fn clamped_gates() {
    let op = |alpha, limit| GatedActivation {
        gate: f32s(&[4]),
        up: f32s(&[4]),
        activation: Activation::ClampedSwish { alpha, limit },
        output: f32s(&[4]),
    };
    good(op(1.702, 7.0));
    bad(op(f32::NAN, 7.0), &["alpha", "finite"]);
    for limit in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        bad(op(1.702, limit), &["limit", "above 0"]);
    }
}
