use super::*;
use crate::SessionOptions;
use convolutions::Convolutions;
use mix::Role;
use shape::SHAPES;
use unlike::Unlike;

/// Gemma's form in small: a window, norms of queries and keys, norms behind both parts, rows that are no
/// multiple of 256.
const SMALL: Shape = Shape {
    name: "small",
    layers: 7,
    width: 160,
    heads: 4,
    kv_heads: 2,
    head_dim: 64,
    feed_forward: 512,
    vocabulary: 700,
    context: 512,
    window: Some(16),
    ..SHAPES[2]
};

/// A mixture of experts in small, of rows that are multiples of 256 and others.
const MIXTURE: Shape = Shape {
    name: "mixture",
    layers: 3,
    width: 256,
    heads: 4,
    kv_heads: 2,
    head_dim: 64,
    feed_forward: 96,
    experts: Some([8, 3]),
    vocabulary: 700,
    context: 512,
    ..SHAPES[3]
};

/// Layers that keep a state in small, the last of four attends; a mixture of experts, one of them shared.
const HYBRID: Shape = Shape {
    name: "hybrid",
    layers: 5,
    width: 256,
    heads: 4,
    kv_heads: 2,
    head_dim: 64,
    feed_forward: 96,
    experts: Some([8, 3]),
    states: Some(shape::States {
        heads: 4,
        key_heads: 2,
        dim: 32,
        shared: Some(160),
    }),
    vocabulary: 700,
    context: 512,
    ..SHAPES[7]
};

/// Gemma 4's forms in small: layers without keys and values of their own and embeddings for each layer, keys that are values
/// and experts beside a feed-forward part. The sixth layer and the last attend globally.
const UNLIKE: [Shape; 2] = [
    unlike(Unlike {
        global: [1, 128],
        keys_are_values: false,
        inputs: Some(32),
        sharing: 2,
        beside: None,
    }),
    unlike(Unlike {
        global: [1, 128],
        keys_are_values: true,
        inputs: None,
        sharing: 0,
        beside: Some([8, 3, 96]),
    }),
];

const fn unlike(unlike: Unlike) -> Shape {
    Shape {
        name: "unlike",
        layers: 8,
        width: 160,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        feed_forward: 512,
        unlike: Some(unlike),
        vocabulary: 700,
        context: 512,
        window: Some(16),
        ..SHAPES[10]
    }
}

/// LFM2's form in small: the third layer attends, and layers behind the second have experts.
const CONVOLVING: Shape = Shape {
    name: "convolving",
    layers: 4,
    width: 256,
    heads: 4,
    kv_heads: 2,
    head_dim: 64,
    feed_forward: 96,
    experts: Some([8, 3]),
    convolutions: Some(Convolutions {
        attending: &[2],
        dense: Some([2, 160]),
    }),
    vocabulary: 700,
    context: 512,
    ..SHAPES[12]
};

fn model(shape: &'static Shape, mix: Mix) -> Model {
    let device = walsh::open("cpu:threads=2").expect("the CPU");
    Model::synthetic(&device, &Synthetic { shape, mix }).expect("a model")
}

#[test]
fn names_read_back_and_others_are_told_what_exists() {
    let (shapes, mixes) = Synthetic::names();
    for shape in &shapes {
        for mix in &mixes {
            let text = format!("{shape}:{mix}");
            assert_eq!(text.parse::<Synthetic>().expect("known").to_string(), text);
        }
    }
    for text in [
        "",
        "llama3-8b",
        "llama3-8b:",
        "llama3-8b:q4_2",
        "llama9:q4_0",
        ":q4_0",
    ] {
        let error = text.parse::<Synthetic>().expect_err("unknown").to_string();
        for name in ["llama3-8b", "gemma3-27b", "q4_k_m", "bf16"] {
            assert!(error.contains(name), "{error}");
        }
        assert!(!error.contains('\n'), "{error}");
    }
}

/// As in files of Llama 3 8B and Gemma 3 270M that llama.cpp has quantised.
#[test]
fn the_mix_is_that_of_known_files() {
    let bytes = |text: &str| text.parse::<Synthetic>().expect("known").bytes();
    assert_eq!(bytes("llama3-8b:q4_k_m"), 4_912_898_048);
    assert_eq!(bytes("llama3-8b:q8_0"), 8_532_934_656);
    let favoured: Vec<usize> = (0..18)
        .filter(|&layer| Mix::Q4KM.dtype(Role::Value(layer), 256, 18) == DType::Q6K)
        .collect();
    assert_eq!(favoured, [0, 1, 4, 7, 10, 13, 15, 16, 17]);
    for (role, columns, dtype) in [
        (Role::Output, 640, DType::Q8_0),
        (Role::Value(0), 640, DType::Q8_0),
        (Role::Value(2), 640, DType::Q5_0),
        (Role::Down(0), 2048, DType::Q6K),
        (Role::Down(2), 2048, DType::Q4K),
        (Role::Other, 640, DType::Q5_0),
        (Role::Other, 1024, DType::Q4K),
    ] {
        assert_eq!(
            Mix::Q4KM.dtype(role, columns, 18),
            dtype,
            "{role:?} {columns}"
        );
    }
}

#[test]
fn logits_stay_finite_through_all_layers_and_differ() {
    let mixes = || Mix::NAMES.iter().map(|&(_, mix)| mix);
    let all = mixes().map(|mix| model(&SMALL, mix));
    let all = all.chain(mixes().map(|mix| model(&MIXTURE, mix)));
    let all = all.chain(mixes().map(|mix| model(&HYBRID, mix)));
    let all = all.chain(mixes().map(|mix| model(&CONVOLVING, mix)));
    let all = all.chain(
        UNLIKE
            .iter()
            .flat_map(|shape| mixes().map(move |mix| model(shape, mix))),
    );
    let deep = ["q4_k_m", "q4_0"].map(|mix| {
        let device = walsh::open("cpu:threads=2").expect("the CPU");
        let synthetic = format!("smollm2-135m:{mix}").parse().expect("known");
        Model::synthetic(&device, &synthetic).expect("a model")
    });
    for model in all.chain(deep) {
        let mut session = model
            .session(SessionOptions {
                context: 64,
                ..SessionOptions::default()
            })
            .expect("a session");
        session.prefill(&[1, 50, 200, 3]).expect("read");
        let first = session.logits().to_vec();
        session.decode(600).expect("read");
        for logits in [&first[..], session.logits()] {
            let mean = logits.iter().map(|x| x.abs()).sum::<f32>() / logits.len() as f32;
            assert!((0.01..1e3).contains(&mean), "{}: {mean}", model.name());
        }
        assert_ne!(first, session.logits(), "{}", model.name());
    }
}

#[test]
fn a_scale_beside_a_weight_multiplies_its_products() {
    const NAME: &str = "blk.2.ffn_down";
    let device = walsh::open("cpu:threads=2").expect("the CPU");
    // The logits, with a weight changed and a scale beside it.
    let logits = |factor: f32, scale: Option<f32>| {
        let synthetic = Synthetic {
            shape: &SMALL,
            mix: Mix::Pure(DType::F32),
        };
        let mut parts = synthetic.parts(&device)?;
        let place = &parts.places[&format!("{NAME}.weight")];
        let weight = Tensor::new(place.buffer.clone(), place.offset, DType::F32, &place.shape)?;
        let changed = device.read::<f32>(&weight)?.into_iter();
        let changed: Vec<f32> = changed.map(|x| x * factor).collect();
        device.write(&weight, &changed)?;
        for (name, scale) in [("scale", scale), ("input_scale", scale)] {
            if let Some(scale) = scale {
                let place = Place::of(&device.tensor(&[1], &[scale])?);
                parts.places.insert(format!("{NAME}.{name}"), place);
            }
        }
        let model = parts.assemble(&device)?;
        let mut session = model.session(SessionOptions {
            context: 16,
            ..SessionOptions::default()
        })?;
        session.prefill(&[1, 50, 200, 3])?;
        Ok::<_, Error>(session.logits().to_vec())
    };
    let plain = logits(1.0, None).expect("runs");
    assert_eq!(logits(2.0, Some(0.5)).expect("runs"), plain);
    assert_ne!(logits(1.0, Some(0.5)).expect("runs"), plain);
    let error = logits(1.0, Some(f32::NAN))
        .expect_err("refused")
        .to_string();
    assert!(error.contains("blk.2.ffn_down.scale"), "{error}");
}

#[test]
fn a_synthetic_model_takes_text_and_calibrates() {
    let model = model(&SMALL, Mix::Q4KM);
    assert_eq!(model.config().layers[5].window, None);
    assert_eq!(model.config().layers[6].window, Some(16));
    let mut session = model
        .session(SessionOptions {
            kv: "tq4".parse().expect("a SPEC"),
            context: 128,
            ..SessionOptions::default()
        })
        .expect("a session");
    let tokens = model
        .tokenizer()
        .encode("Ü a", crate::tokenizer::Special::Text);
    session.prefill(&tokens.expect("bytes")).expect("read");
    assert!(session.logits().iter().all(|logit| logit.is_finite()));
}

#[test]
fn only_layers_that_attend_cost_by_the_token() {
    let model = model(&HYBRID, Mix::Q4KM);
    let config = model.config();
    assert_eq!(config.cached_layers().collect::<Vec<_>>(), [3]);
    let kv = "f16".parse().expect("a SPEC");
    assert_eq!(
        model.kv_bytes_per_token(&kv).expect("bytes"),
        2 * 2 * 64 * 2
    );
    assert_eq!(model.kv_bits_per_value(&kv).expect("bits"), 16.0);
    // Of each of four layers, four heads of 32 · 32 numbers, and three tokens of 8 heads of 32.
    assert_eq!(config.state_bytes(), 4 * 4 * (4 * 32 * 32 + 3 * 8 * 32));
}

#[test]
fn convolutions_keep_their_latest_inputs_alone() {
    let model = model(&CONVOLVING, Mix::Q4KM);
    let config = model.config();
    assert_eq!(config.cached_layers().collect::<Vec<_>>(), [2]);
    let mixtures: Vec<bool> = config.layers.iter().map(|layer| layer.mixture).collect();
    assert_eq!(mixtures, [false, false, true, true]);
    // Of each of three layers, two tokens of 256 channels.
    assert_eq!(config.state_bytes(), 3 * 4 * 2 * 256);
}

/// As published, in billions.
#[test]
fn shapes_of_other_forms_have_as_many_weights() {
    for (name, billions) in [
        ("gemma4-e4b", 7.5),
        ("gemma4-31b", 30.7),
        ("gemma4-26b-a4b", 25.2),
        ("lfm2-1.2b", 1.17),
        ("lfm2-8b-a1b", 8.34),
    ] {
        let synthetic: Synthetic = format!("{name}:q4_k_m").parse().expect("known");
        let weights = synthetic.shape.weights();
        let count: u64 = weights
            .iter()
            .map(|w| w.shape.iter().product::<u64>())
            .sum();
        let found = count as f64 / 1e9;
        assert!((found - billions).abs() < 0.05, "{name}: {found}");
    }
}

#[test]
fn gemmas_largest_form_scales_scores_by_the_width_per_head() {
    let synthetic: Synthetic = "gemma3-27b:q4_k_m".parse().expect("known");
    let header = synthetic.shape.header("a").expect("a header");
    let files = ModelFiles::in_memory(PathBuf::new(), header);
    let parsed = files.parse().expect("a header");
    let config = ModelConfig::read(&files.path, parsed[0].metadata(), 262_144, None);
    let config = config.expect("a shape");
    assert_eq!(config.attention_scale, (1.0f64 / 168.0).sqrt() as f32);
    assert_eq!(
        config
            .layers
            .iter()
            .filter(|l| l.window == Some(1024))
            .count(),
        52
    );
}
