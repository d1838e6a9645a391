//! Folders of weights in 8-bit floats that do not go together: each is refused in a line that says what is wrong. That those
//! which do are read is for the architectures' tests of walsh-runtime, whose folders these are.

mod altered;

use safetensors::Dtype;
use serde_json::{Value as Json, json};

use altered::{Tensors, changed};

const V: &str = "model.layers.0.self_attn.v_proj";
const FINE: &str = "fp8/qwen3";
const COMPRESSED: &str = "fp8/llama";
const STATIC: &str = "fp8/static";

#[track_caller]
fn refused(name: &str, part: &str, change: impl FnOnce(&mut Json, &mut Tensors)) {
    let error = changed(name, change).expect_err(part);
    assert!(error.contains(part) && !error.contains('\n'), "{error}");
}

/// The same with another value in `quantization_config`, at a path of keys.
#[track_caller]
fn refused_of(name: &str, part: &str, (path, value): (&[&str], Json)) {
    refused(name, part, |config, _| {
        let at = &mut config["quantization_config"];
        *path.iter().fold(at, |at, key| &mut at[*key]) = value;
    });
}

fn tensor<'a>(tensors: &'a mut Tensors, kind: &str) -> &'a mut (Dtype, Vec<usize>, Vec<u8>) {
    tensors.get_mut(&format!("{V}.{kind}")).expect("a tensor")
}

#[test]
fn what_is_rounded_is_said() {
    let notes = |name| changed(name, |_, _| {}).expect("converted");
    let fine = notes(FINE);
    assert!(
        fine.len() == 1 && fine[0].contains("14 tensors are 8-bit floats"),
        "{fine:?}"
    );
    // Powers of two lose nothing.
    assert_eq!(notes("fp8/qwen3moe"), [""; 0]);
    let fixed = notes(STATIC);
    assert!(fixed[1].contains("scales of the inputs"), "{fixed:?}");
}

#[test]
fn what_says_the_same_in_other_words_is_read() {
    let renamed = |config: &mut Json, tensors: &mut Tensors| {
        let own = config["quantization_config"]
            .as_object_mut()
            .expect("an object");
        let list = own.remove("modules_to_not_convert").expect("a list");
        own.insert("ignored_layers".to_owned(), list);
        own.insert("expert_dtype".to_owned(), json!(null));
        let scales = tensors
            .remove(&format!("{V}.weight_scale_inv"))
            .expect("scales");
        tensors.insert(format!("{V}.weight_scale"), scales);
    };
    assert!(changed(FINE, renamed).is_ok());
    // Blocks are cut where the matrix ends: scales of [1, 1] are one.
    let large = |config: &mut Json, tensors: &mut Tensors| {
        config["quantization_config"]["weight_block_size"] = json!([128, 128]);
        let scales = tensors
            .iter_mut()
            .filter(|(name, _)| name.ends_with("scale_inv"));
        for (_, (_, shape, data)) in scales {
            *shape = vec![1, 1];
            data.truncate(2);
        }
    };
    assert!(changed(FINE, large).is_ok());
    let whole = |_: &mut Json, tensors: &mut Tensors| tensor(tensors, "weight_scale").1.clear();
    assert!(changed(STATIC, whole).is_ok());
}

#[test]
fn what_is_said_and_not_known_is_refused_by_name() {
    for (path, value, part) in [
        (
            &["quant_method"][..],
            json!("gptq"),
            "quantised (quantization_config: \"gptq\"), of which",
        ),
        (&["quant_method"], json!(null), "no quant_method"),
        (&["quant_method"], json!(8), "quant_method is 8"),
        (&["fmt"], json!("e5m2"), "fmt is \"e5m2\""),
        (&["scale_fmt"], json!("e4m3"), "scale_fmt is \"e4m3\""),
        (&["expert_dtype"], json!("fp4"), "expert_dtype is \"fp4\""),
        (
            &["activation_scheme"],
            json!("none"),
            "activation_scheme is \"none\"",
        ),
        (
            &["activation_scheme"],
            json!("static"),
            "no scale of its inputs",
        ),
        (&["weight_block_size"], json!([32]), "two whole numbers"),
        (&["weight_block_size"], json!([32, 0]), "two whole numbers"),
        (&["weight_block_size"], json!([32, -1]), "two whole numbers"),
        (&["weight_block_size"], json!([64, 32]), "asks for [1, 3]"),
        (&["weight_block_size"], json!(null), "asks for [1]"),
        (
            &["modules_to_not_convert"],
            json!([V]),
            "says that it is not quantised",
        ),
        (&["modules_to_not_convert"], json!([1]), "no list of names"),
        (
            &["weights_are"],
            json!("odd"),
            "\"weights_are\" is not known",
        ),
    ] {
        refused_of(FINE, part, (path, value));
    }
    refused(FINE, "is F8_E4M3", |config, _| {
        config["quantization_config"] = json!(null);
    });
    refused(
        FINE,
        "quantization_config is missing or no object",
        |config, _| {
            config["quantization_config"] = json!("fp8");
        },
    );
    const WEIGHTS: [&str; 3] = ["config_groups", "group_0", "weights"];
    let weights = |key: &'static str| [WEIGHTS[0], WEIGHTS[1], WEIGHTS[2], key];
    for (path, value, part) in [
        (
            &["format"][..],
            json!("int-quantized"),
            "format is \"int-quantized\"",
        ),
        (&["format"], json!(null), "format is missing"),
        (
            &["kv_cache_scheme"],
            json!({"num_bits": 8}),
            "kv_cache_scheme is given",
        ),
        (
            &["sparsity_config"],
            json!({"format": "sparse-24-bitmask"}),
            "sparsity_config is given",
        ),
        (&["ignore"], json!([V]), "says that it is not quantised"),
        (&["config_groups"], json!({}), "one strategy"),
        (
            &["config_groups"],
            json!([]),
            "config_groups is missing or no object",
        ),
        (
            &["config_groups", "group_0", "output_activations"],
            json!({}),
            "output_activations",
        ),
        (
            &["config_groups", "group_0", "odd"],
            json!(1),
            "\"odd\" is not known",
        ),
        (&weights("num_bits"), json!(4), "8-bit floats are read"),
        (&weights("type"), json!("int"), "type is \"int\""),
        (&weights("symmetric"), json!(false), "symmetric is false"),
        (&weights("dynamic"), json!(true), "dynamic is true"),
        (&weights("group_size"), json!(32), "group_size is given"),
        (
            &weights("strategy"),
            json!("group"),
            "strategy is \"group\"",
        ),
        (&weights("strategy"), json!("tensor"), "asks for [1]"),
        (
            &weights("strategy"),
            json!("block"),
            "block_structure is missing",
        ),
        (
            &weights("actorder"),
            json!("group"),
            "\"actorder\" is not known",
        ),
        (
            &["config_groups", "group_0", "input_activations", "dynamic"],
            json!(false),
            "no scale of its inputs",
        ),
    ] {
        refused_of(COMPRESSED, part, (path, value));
    }
}

#[test]
fn tensors_that_do_not_go_together_are_refused_by_name() {
    let scale = format!("{V}.weight_scale_inv");
    refused(
        FINE,
        "v_proj.weight: its scales (weight_scale_inv",
        |_, tensors| {
            tensors.remove(&scale);
        },
    );
    refused(FINE, "v_proj.weight (its scales) is I8", |_, tensors| {
        let (dtype, shape, data) = tensor(tensors, "weight_scale_inv");
        *dtype = Dtype::I8;
        data.truncate(shape.iter().product());
    });
    refused(
        FINE,
        "which quantization_config does not speak of",
        |_, tensors| {
            tensors.insert(format!("{V}.input_scale"), (Dtype::F32, vec![], vec![0; 4]));
        },
    );
    refused(STATIC, "no scale of its inputs", |_, tensors| {
        tensors.remove(&format!("{V}.input_scale"));
    });
    refused(FINE, "are a matrix, not [32, 8, 8]", |_, tensors| {
        tensor(tensors, "weight").1 = vec![32, 8, 8];
    });
    refused(FINE, "is F8_E5M2", |_, tensors| {
        tensor(tensors, "weight").0 = Dtype::F8_E5M2;
        tensors.remove(&scale);
    });
    // Scales of nothing.
    refused(FINE, "weight_scale_inv\" is of no part", |_, tensors| {
        let scales = tensors[&scale].clone();
        tensors.insert("model.norm.weight_scale_inv".to_owned(), scales);
    });
    for (kind, bytes) in [("weight", &[0x7f][..]), ("weight_scale_inv", &[0xc0, 0x7f])] {
        refused(FINE, "attn_v.weight: value 0 is NaN", |_, tensors| {
            tensor(tensors, kind).2[..bytes.len()].copy_from_slice(bytes);
        });
    }
}
