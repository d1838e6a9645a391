//! Each op's check: what fits passes, and each thing that does not is named.

mod common;

use common::{bad, f32s, good, hollow, i32s, shifted};
use walsh_core::Tensor;
use walsh_core::ops::{
    Activation, Add, ArgMax, EmbeddingRows, GatedActivation, MatMul, MatMulTopK, Op, Pairing,
    RmsNorm, Rope, RopeConfig, RopeScaling, Scale, SoftCap, SumBefore, Temperature, TopK,
};
use walsh_formats::DType;

/// One more than what a kernel's counters hold.
const TOO_LONG: u64 = 1 << 31;

#[test]
fn matmul() {
    let op = || MatMul {
        weight: hollow(DType::Q4K, &[3, 256]),
        input: f32s(&[2, 256]),
        bias: None,
        output: f32s(&[2, 3]),
    };
    good(op());
    let bias = Some(f32s(&[3]));
    good(MatMul { bias, ..op() });
    for dtype in [DType::I32, DType::U8] {
        let weight = hollow(dtype, &[3, 256]);
        bad(MatMul { weight, ..op() }, &["weight", dtype.name()]);
    }
    for shape in [&[3][..], &[1, 3, 256]] {
        let weight = f32s(shape);
        bad(MatMul { weight, ..op() }, &["weight", "2 dimensions"]);
        let input = f32s(shape);
        bad(MatMul { input, ..op() }, &["input", "2 dimensions"]);
    }
    for shape in [[0, 256], [3, 0], [TOO_LONG, 256], [1, TOO_LONG]] {
        let weight = f32s(&shape);
        bad(MatMul { weight, ..op() }, &["weight", "2^31 - 1"]);
        let input = f32s(&shape);
        bad(MatMul { input, ..op() }, &["input", "2^31 - 1"]);
    }
    let input = f32s(&[2, 255]);
    bad(
        MatMul { input, ..op() },
        &["input", "[2, 256]", "f32[2, 255]"],
    );
    let input = hollow(DType::F16, &[2, 256]);
    bad(MatMul { input, ..op() }, &["input", "f32", "f16"]);
    let output = f32s(&[3, 2]);
    bad(
        MatMul { output, ..op() },
        &["output", "[2, 3]", "f32[3, 2]"],
    );
    let bias = Some(f32s(&[2]));
    bad(MatMul { bias, ..op() }, &["bias", "[3]"]);
    let (square, bias) = (f32s(&[4, 4]), f32s(&[4]));
    let op = |input: &Tensor, bias: &Tensor, output: Tensor| MatMul {
        weight: square.clone(),
        input: input.clone(),
        bias: Some(bias.clone()),
        output,
    };
    let input = f32s(&[4, 4]);
    bad(
        op(&input, &bias, input.clone()),
        &["output", "apart from the inputs"],
    );
    bad(op(&input, &bias, square.clone()), &["output", "apart"]);
    bad(
        op(&input, &bias, shifted(&input, 60)),
        &["output", "overlapping"],
    );
    good(op(&input, &bias, shifted(&input, 64)));
    let output = f32s(&[4, 4]);
    let inside = output
        .rows(1..2)
        .and_then(|row| row.reshape(&[4]))
        .expect("a row");
    bad(op(&input, &inside, output), &["output", "overlapping"]);
}

#[test]
fn embedding_rows() {
    let op = || EmbeddingRows {
        table: hollow(DType::Q8_0, &[10, 64]),
        ids: i32s(&[3]),
        scale: 1.0,
        output: f32s(&[3, 64]),
    };
    good(op());
    let table = i32s(&[10, 64]);
    bad(EmbeddingRows { table, ..op() }, &["table", "i32"]);
    let table = f32s(&[640]);
    bad(EmbeddingRows { table, ..op() }, &["table", "2 dimensions"]);
    let table = f32s(&[0, 64]);
    bad(EmbeddingRows { table, ..op() }, &["table", "2^31 - 1"]);
    let ids = f32s(&[3]);
    bad(EmbeddingRows { ids, ..op() }, &["ids", "i32"]);
    for ids in [i32s(&[3, 1]), i32s(&[])] {
        bad(EmbeddingRows { ids, ..op() }, &["ids", "1 dimensions"]);
    }
    let ids = i32s(&[0]);
    bad(EmbeddingRows { ids, ..op() }, &["ids", "between 1"]);
    for scale in [f32::NAN, f32::INFINITY] {
        bad(EmbeddingRows { scale, ..op() }, &["scale", "finite"]);
    }
    let output = f32s(&[3, 63]);
    bad(EmbeddingRows { output, ..op() }, &["output", "[3, 64]"]);
    let output = f32s(&[1, 64]);
    let ids = hollow(DType::I32, &[1]);
    let ids = Tensor::new(output.buffer().clone(), 8, ids.dtype(), ids.shape()).expect("ids");
    bad(
        EmbeddingRows {
            ids,
            output,
            ..op()
        },
        &["output", "overlapping"],
    );
}

#[test]
fn elementwise() {
    let x = f32s(&[2, 3]);
    let y = f32s(&[2, 3]);
    let gated = |gate: &Tensor, up: &Tensor, output: &Tensor| GatedActivation {
        gate: gate.clone(),
        up: up.clone(),
        activation: Activation::Silu,
        output: output.clone(),
    };
    let add = |a: &Tensor, b: &Tensor, output: &Tensor| Add {
        a: a.clone(),
        b: b.clone(),
        output: output.clone(),
    };
    let scale = |input: &Tensor, factor, output: &Tensor| Scale {
        input: input.clone(),
        factor,
        output: output.clone(),
    };
    let cap = |input: &Tensor, cap, output: &Tensor| SoftCap {
        input: input.clone(),
        cap,
        output: output.clone(),
    };
    for output in [&x, &y, &f32s(&[2, 3])] {
        good(gated(&x, &y, output));
        good(add(&x, &y, output));
        good(scale(&x, 0.0, output));
        good(cap(&x, 1.0, output));
    }
    good(scale(&f32s(&[]), 1.0, &f32s(&[])));
    good(add(&x, &f32s(&[3]), &x));

    let partly = shifted(&x, 4);
    let words = ["output", "in place", "partly overlapping"];
    bad(gated(&x, &y, &partly), &words);
    bad(gated(&y, &x, &partly), &words);
    bad(add(&x, &y, &partly), &words);
    bad(add(&y, &x, &partly), &words);
    bad(scale(&x, 1.0, &partly), &words);
    bad(cap(&x, 1.0, &partly), &words);
    // A row that is added to every row cannot be the output's memory.
    let row = x.rows(1..2).and_then(|row| row.reshape(&[3])).expect("row");
    bad(add(&y, &row, &x), &["output", "overlapping"]);

    let (flat, other) = (f32s(&[6]), i32s(&[2, 3]));
    bad(gated(&x, &flat, &y), &["up", "[2, 3]", "f32[6]"]);
    bad(add(&x, &flat, &y), &["b", "[2, 3] or [3]", "f32[6]"]);
    bad(add(&x, &f32s(&[2, 1]), &y), &["b"]);
    bad(scale(&x, 1.0, &flat), &["output", "[2, 3]"]);
    bad(scale(&other, 1.0, &y), &["input", "f32", "i32"]);
    bad(gated(&other, &y, &y), &["gate", "f32", "i32"]);
    bad(add(&x, &other, &y), &["b", "f32", "i32"]);
    for shape in [[0, 3], [1, TOO_LONG]] {
        let x = f32s(&shape);
        bad(scale(&x, 1.0, &x), &["input", "2^31 - 1"]);
        bad(cap(&x, 1.0, &x), &["input", "2^31 - 1"]);
        bad(add(&x, &x, &x), &["a", "2^31 - 1"]);
        bad(gated(&x, &x, &x), &["gate", "2^31 - 1"]);
    }
    bad(scale(&x, f32::NAN, &y), &["factor", "finite"]);
    bad(scale(&x, f32::INFINITY, &y), &["factor", "finite"]);
    for wrong in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        bad(cap(&x, wrong, &y), &["cap", "above 0"]);
    }
}

#[test]
fn rms_norm() {
    let (input, addend, sum, output) = (f32s(&[2, 8]), f32s(&[2, 8]), f32s(&[2, 8]), f32s(&[2, 8]));
    let op = || RmsNorm {
        input: input.clone(),
        before: None,
        weight: Some(f32s(&[8])),
        eps: 1e-6,
        after: None,
        output: output.clone(),
    };
    let summed = |sum: &Tensor, output: &Tensor| RmsNorm {
        before: Some(SumBefore {
            addend: addend.clone(),
            sum: sum.clone(),
        }),
        output: output.clone(),
        ..op()
    };
    good(op());
    good(RmsNorm {
        output: input.clone(),
        ..op()
    });
    good(RmsNorm {
        after: Some(output.clone()),
        ..op()
    });
    for sum in [&sum, &input, &addend] {
        good(summed(sum, &output));
    }
    good(summed(&addend, &input));
    good(summed(&input, &addend));

    for wrong in [0.0, -1e-6, f32::NAN, f32::INFINITY] {
        bad(RmsNorm { eps: wrong, ..op() }, &["eps", "above 0"]);
    }
    let weight = |weight| RmsNorm {
        weight: Some(weight),
        ..op()
    };
    bad(weight(f32s(&[2, 8])), &["weight", "[8]"]);
    bad(weight(hollow(DType::F16, &[8])), &["weight", "f32"]);
    let row = output.rows(0..1).and_then(|row| row.reshape(&[8]));
    bad(weight(row.expect("a row")), &["output", "overlapping"]);
    let input_of = |input: Tensor| RmsNorm { input, ..op() };
    bad(input_of(f32s(&[])), &["input", "one dimension"]);
    bad(input_of(f32s(&[0, 8])), &["input", "2^31 - 1"]);
    bad(input_of(i32s(&[2, 8])), &["input", "f32"]);
    bad(input_of(f32s(&[3, 8])), &["output", "[3, 8]"]);
    bad(
        RmsNorm {
            output: shifted(&input, 4),
            ..op()
        },
        &["output", "partly"],
    );
    // The sum has memory of its own.
    bad(summed(&output, &output), &["output", "overlapping"]);
    bad(summed(&shifted(&addend, 4), &output), &["sum", "partly"]);
    bad(summed(&shifted(&input, 4), &output), &["sum", "partly"]);
    bad(summed(&f32s(&[2, 7]), &output), &["before.sum", "[2, 8]"]);
    bad(
        RmsNorm {
            after: Some(sum.clone()),
            ..summed(&sum, &output)
        },
        &["after", "overlapping"],
    );
    let inside = sum.rows(0..1).and_then(|row| row.reshape(&[8]));
    bad(
        RmsNorm {
            weight: inside.ok(),
            ..summed(&sum, &output)
        },
        &["before.sum", "overlapping"],
    );
    bad(
        RmsNorm {
            after: Some(f32s(&[8])),
            ..op()
        },
        &["after", "[2, 8]"],
    );
}

#[test]
fn rope() {
    let op = || Rope {
        input: f32s(&[3, 2, 64]),
        positions: i32s(&[3]),
        config: RopeConfig::new(64, 10_000.0, Pairing::HalfSplit),
        output: f32s(&[3, 2, 64]),
    };
    let with = |config: RopeConfig| Rope { config, ..op() };
    let plain = || RopeConfig::new(64, 10_000.0, Pairing::HalfSplit);
    let scaled = |scaling| with(RopeConfig { scaling, ..plain() });
    good(op());
    let input = f32s(&[3, 2, 64]);
    good(Rope {
        output: input.clone(),
        input: input.clone(),
        ..op()
    });
    bad(
        Rope {
            output: shifted(&input, 4),
            input,
            ..op()
        },
        &["output", "partly"],
    );
    let input = f32s(&[3, 128]);
    bad(Rope { input, ..op() }, &["input", "3 dimensions"]);
    let positions = i32s(&[2]);
    bad(Rope { positions, ..op() }, &["positions", "[3]"]);
    let positions = f32s(&[3]);
    bad(Rope { positions, ..op() }, &["positions", "i32"]);
    let output = f32s(&[3, 2, 32]);
    bad(Rope { output, ..op() }, &["output", "[3, 2, 64]"]);
    for dims in [0, 1, 63, 66] {
        bad(
            with(RopeConfig { dims, ..plain() }),
            &["config.dims", "even", "64"],
        );
    }
    for base in [0.0, -1.0, f32::NAN] {
        bad(with(RopeConfig { base, ..plain() }), &["config.base"]);
    }
    let warm = |scale, context, dims| {
        let temperature = Some(Temperature { scale, context });
        with(RopeConfig {
            dims,
            temperature,
            ..plain()
        })
    };
    good(warm(0.1, 8192, 64));
    bad(warm(f32::NAN, 8192, 64), &["temperature.scale", "finite"]);
    bad(warm(0.1, 0, 64), &["temperature.context", "above 0"]);
    bad(warm(0.1, 8192, 62), &["config.dims", "head size 64"]);
    for factors in [vec![1.0; 31], vec![0.0; 32], vec![f32::NAN; 32]] {
        let factors = Some(factors);
        bad(with(RopeConfig { factors, ..plain() }), &["config.factors"]);
    }
    for factor in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        bad(scaled(RopeScaling::Linear { factor }), &["factor"]);
    }
    let llama3 = |factor, low_frequency_factor, high_frequency_factor| {
        scaled(RopeScaling::Llama3 {
            factor,
            low_frequency_factor,
            high_frequency_factor,
            original_context: 8192,
        })
    };
    good(llama3(8.0, 1.0, 4.0));
    bad(llama3(0.0, 1.0, 4.0), &["factor"]);
    bad(llama3(8.0, 4.0, 4.0), &["high_frequency_factor"]);
    bad(llama3(8.0, f32::NAN, 4.0), &["high_frequency_factor"]);
    let yarn = |factor, original_context, attention_factor, beta_slow| {
        scaled(RopeScaling::Yarn {
            factor,
            original_context,
            extrapolation: 1.0,
            attention_factor,
            beta_fast: 32.0,
            beta_slow,
            rounded: true,
        })
    };
    good(yarn(4.0, 4096, 1.0, 1.0));
    bad(yarn(0.0, 4096, 1.0, 1.0), &["scaling.factor"]);
    bad(yarn(4.0, 0, 1.0, 1.0), &["original_context"]);
    bad(yarn(4.0, 4096, 0.0, 1.0), &["attention_factor"]);
    bad(yarn(4.0, 4096, 1.0, -1.0), &["beta_slow"]);
}

#[test]
fn selections() {
    let max = |input: Tensor, output: Tensor| ArgMax { input, output };
    good(max(f32s(&[2, 5]), i32s(&[2])));
    bad(max(f32s(&[5]), i32s(&[1])), &["input", "2 dimensions"]);
    bad(max(f32s(&[2, 0]), i32s(&[2])), &["input", "2^31 - 1"]);
    bad(max(i32s(&[2, 5]), i32s(&[2])), &["input", "f32"]);
    bad(max(f32s(&[2, 5]), f32s(&[2])), &["output", "i32"]);
    bad(max(f32s(&[2, 5]), i32s(&[5])), &["output", "[2]"]);
    let input = f32s(&[2, 5]);
    let inside = Tensor::new(input.buffer().clone(), 4, DType::I32, &[2]);
    bad(
        max(input, inside.expect("indices")),
        &["output", "overlapping"],
    );

    let top = |input: &Tensor, values: &Tensor, indices: &Tensor| TopK {
        input: input.clone(),
        values: values.clone(),
        indices: indices.clone(),
    };
    let (input, values, indices) = (f32s(&[2, 5]), f32s(&[2, 3]), i32s(&[2, 3]));
    good(top(&input, &values, &indices));
    for k in [0, 6] {
        bad(
            top(&input, &f32s(&[2, k]), &i32s(&[2, k])),
            &["values", "1 to 5"],
        );
    }
    bad(top(&input, &f32s(&[3, 3]), &indices), &["values", "[2, 3]"]);
    bad(top(&input, &values, &i32s(&[2, 2])), &["indices", "[2, 3]"]);
    bad(
        top(&input, &f32s(&[6]), &indices),
        &["values", "2 dimensions"],
    );
    let inside = Tensor::new(values.buffer().clone(), 4, DType::I32, &[2, 3]);
    bad(
        top(&input, &values, &inside.expect("indices")),
        &["indices", "overlapping"],
    );
}

#[test]
fn largest_products() {
    let op = || MatMulTopK {
        weight: hollow(DType::Q4K, &[8, 256]),
        screen: None,
        input: f32s(&[2, 256]),
        values: f32s(&[2, 3]),
        indices: i32s(&[2, 3]),
    };
    good(op());
    let weight = hollow(DType::I32, &[8, 256]);
    bad(MatMulTopK { weight, ..op() }, &["weight", "i32"]);
    let input = f32s(&[2, 512]);
    bad(MatMulTopK { input, ..op() }, &["input", "256"]);
    for values in [f32s(&[2, 0]), f32s(&[2, 9])] {
        bad(MatMulTopK { values, ..op() }, &["values", "[2, 1 to 8]"]);
    }
    for indices in [f32s(&[2, 3]), i32s(&[2, 2])] {
        bad(MatMulTopK { indices, ..op() }, &["indices"]);
    }
    let input = f32s(&[2, 256]);
    let values = input.rows(0..1).and_then(|row| row.reshape(&[2, 128]));
    let values = values.expect("as many numbers");
    let (weight, indices) = (hollow(DType::Q4K, &[128, 256]), i32s(&[2, 128]));
    let overlapping = MatMulTopK {
        weight,
        screen: None,
        input,
        values,
        indices,
    };
    bad(overlapping, &["values", "overlapping"]);
}

/// An op is in some row of these tables.
#[test]
fn every_op_has_rows() {
    let tables = [
        include_str!("validate.rs"),
        include_str!("validate_experts.rs"),
        include_str!("validate_kv.rs"),
        include_str!("validate_recurrent.rs"),
    ];
    for name in Op::NAMES {
        let row = format!("{name} {{");
        let is_there = tables.iter().any(|table| table.contains(&row));
        assert!(is_there, "{name}: no row says what is refused");
    }
}
