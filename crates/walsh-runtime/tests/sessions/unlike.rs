//! Layers that are unlike each other: heads of several sizes, and layers that attend to what others have stored.

use walsh::formats::DType;
use walsh::formats::gguf::Gguf;
use walsh::formats::gguf::write::{NewTensor, NewValue, Writer};
use walsh_runtime::{
    FitOptions, ImportanceOptions, Model, SessionOptions, TextReader, fit, importance, inspect,
};

use super::{Place, of_architecture, open, shared, text};

/// Heads of so many times the size, with weights of their own.
fn with_large_heads(times: usize) -> Place {
    let bytes = of_architecture("gemma4");
    let gguf = Gguf::parse(&bytes).expect("a file");
    let mut writer = Writer::new();
    let sizes = [
        "attention.key_length",
        "attention.value_length",
        "attention.key_length_swa",
        "attention.value_length_swa",
        "rope.dimension_count",
        "rope.dimension_count_swa",
    ];
    for (key, value) in gguf.metadata().iter() {
        let key = key.to_string();
        let size = key.strip_prefix("gemma4.");
        let value = match (size, value.integer()) {
            (Some(name), Some(size)) if sizes.contains(&name) => {
                NewValue::from(size as u32 * times as u32)
            }
            _ => NewValue::try_from(*value).expect("a value"),
        };
        if key != "general.alignment" {
            writer.set(&key, value).expect("a new key");
        }
    }
    let mut seed = 7u32;
    let mut noise = move || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    for tensor in gguf.tensors() {
        let name = tensor.name;
        let numbers = gguf.data(tensor).chunks_exact(4);
        let number = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let mut numbers: Vec<f32> = numbers.map(number).collect();
        let mut shape = tensor.shape.clone();
        let heads = ["attn_q.", "attn_k.", "attn_v.", "attn_output."];
        if heads.iter().any(|part| name.contains(part)) {
            let dim = usize::from(name.contains("attn_output."));
            shape[dim] *= times as u64;
            // Of the spread that the model's own have.
            let spread = (12.0 / shape[1] as f32).sqrt();
            let count = shape.iter().product::<u64>();
            numbers = (0..count).map(|_| spread * noise()).collect();
        } else if name.contains("_norm.weight")
            && !name.contains("attn_norm")
            && (name.contains("attn_q") || name.contains("attn_k"))
        {
            shape[0] *= times as u64;
            numbers = numbers.repeat(times);
            if name.contains("attn_q") {
                // Norms have the scale of scores in them.
                let root = (numbers.len() as f32).sqrt();
                numbers.iter_mut().for_each(|factor| *factor /= root);
            }
        } else if name == "rope_freqs.weight" {
            shape[0] *= times as u64;
            let each = numbers
                .iter()
                .flat_map(|factor| std::iter::repeat_n(*factor, times));
            numbers = each.collect();
        }
        let data: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let new = NewTensor {
            name,
            dtype: DType::F32,
            shape: &shape,
            data: data.into(),
        };
        writer.tensor(new).expect("a new tensor");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = open(&folder, "model.gguf", &writer.to_bytes());
    Place { folder, model }
}

/// The logits behind each token of a text that is read one by one from stored codes.
fn logits(model: &Model, kv: &str) -> Vec<f32> {
    let options = SessionOptions {
        context: 64,
        kv: kv.parse().expect("a SPEC"),
        chunk: 8,
        ..SessionOptions::default()
    };
    let mut session = model.session(options).expect("a session");
    let mut all = Vec::new();
    for token in text(24, 3) {
        session.decode(token).expect("read");
        all.extend_from_slice(session.logits());
    }
    all
}

/// How far numbers are from others, as a share of their size.
fn distance(numbers: &[f32], others: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x).powi(2);
    let off: f64 = numbers.iter().zip(others).map(|(a, b)| square(a - b)).sum();
    let size: f64 = others.iter().map(|x| square(*x)).sum();
    (off / size).sqrt()
}

#[test]
fn codes_of_heads_of_512_numbers_say_what_was_stored() {
    let place = with_large_heads(16);
    let config = place.model.config();
    let sizes: Vec<usize> = config.layers.iter().map(|layer| layer.head_dim).collect();
    assert_eq!(sizes, [256, 512, 256, 512]);
    let exact = logits(&place.model, "f32");
    let mut wrong = Vec::new();
    for (kv, least, most) in [
        ("f16", 1e-6, 2e-3),
        ("q8_0", 1e-4, 2e-2),
        ("tq8;overlay=off", 1e-4, 3e-2),
        ("4bit;overlay=off", 1e-2, 0.15),
        ("tq4;overlay=off", 1e-2, 0.2),
        ("tq2;overlay=off", 5e-2, 0.7),
    ] {
        let off = distance(&logits(&place.model, kv), &exact);
        println!("{kv}: off by {off:.1e}");
        wrong.extend((!(least..most).contains(&off)).then_some((kv, off)));
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn layers_without_caches_cost_nothing() {
    let place = shared();
    let model = &place.model;
    let spec = "f16".parse().expect("a SPEC");
    // Of the first three layers: keys and values of a head each.
    let row = 2 * 2 * (32 + 64 + 32);
    assert_eq!(model.kv_bytes_per_token(&spec).expect("a cost"), row);
    assert_eq!(model.kv_bits_per_value(&spec).expect("a cost"), 16.0);
    let options = super::options("f16");
    let session = model.session(options.clone()).expect("a session");
    assert_eq!(
        session.kv_bytes(),
        model.kv_bytes(&options).expect("a cost")
    );
    // What is said of layers without a cache changes none.
    let named = super::options("f16;layers=3-5:tq2");
    assert_eq!(model.kv_bytes(&named).expect("a cost"), session.kv_bytes());
    let shape = inspect(model, &[], 64).expect("a description").shape;
    assert_eq!(shape.sharing_layers, [3, 4, 5]);
    let heads: Vec<_> = shape
        .unlike_heads
        .iter()
        .map(|kind| (kind.kv_heads, kind.head_dim, kind.layers.clone()))
        .collect();
    assert_eq!(heads, [(1, 32, vec![0, 2, 3]), (1, 64, vec![1, 4, 5])]);
    assert_eq!((shape.per_layer_width, shape.feed_forward), (Some(8), 48));
}

#[test]
fn what_unlike_layers_do_not_allow_is_refused() {
    let place = shared();
    let error = fit(&place.model, &FitOptions::default()).expect_err("refused");
    assert!(
        error.to_string().contains("cannot be fitted yet"),
        "{error}"
    );
    let options = ImportanceOptions {
        context: 32,
        chunks: None,
        cancel: Default::default(),
    };
    let bytes = [b'a'; 100];
    let mut reader = TextReader::new("a text", &bytes[..]);
    let found = importance(&place.model, &mut reader, &options, &mut |_, _| {});
    let error = found.expect_err("refused");
    assert!(
        error.to_string().contains("embeddings for each layer"),
        "{error}"
    );
}
