//! Folders of `mlx-lm` that do not go together: each is refused in a line that says what is wrong. That those which do are
//! read is for the architectures' tests of walsh-runtime, whose folder this is.

mod altered;

use safetensors::Dtype;
use serde_json::{Value as Json, json};

use altered::Tensors;

const V: &str = "model.layers.0.self_attn.v_proj";

fn changed(change: impl FnOnce(&mut Json, &mut Tensors)) -> Result<(), String> {
    altered::changed("mlx/llama", change).map(|_| ())
}

#[track_caller]
fn refused(part: &str, change: impl FnOnce(&mut Json, &mut Tensors)) {
    let error = changed(change).expect_err(part);
    assert!(error.contains(part) && !error.contains('\n'), "{error}");
}

/// The same with other values in `quantization`.
#[track_caller]
fn refused_of(part: &str, values: Json) {
    refused(part, |config, _| {
        for (key, value) in values.as_object().expect("an object") {
            config["quantization"][key] = value.clone();
        }
    });
}

#[test]
fn the_folder_itself_is_read() {
    assert_eq!(changed(|_, _| {}), Ok(()));
    // What older versions write.
    let plain = |config: &mut Json, _: &mut Tensors| {
        let all = config["quantization"].as_object_mut().expect("an object");
        all.remove("mode");
        config
            .as_object_mut()
            .expect("an object")
            .remove("quantization_config");
    };
    assert_eq!(changed(plain), Ok(()));
    // Mixed recipes leave to the mode what is as usual.
    let usual = |config: &mut Json, _: &mut Tensors| {
        config["quantization"]["group_size"] = json!(null);
        config["quantization"][V]["group_size"] = json!(null);
        let q = "model.layers.0.mlp.gate_proj";
        config["quantization"][q] = json!({"mode": "affine"});
    };
    assert_eq!(changed(usual), Ok(()));
    let said = |config: &mut Json, _: &mut Tensors| {
        config["quantization"]["model.layers.1.self_attn.o_proj"] = json!(false);
    };
    assert_eq!(changed(said), Ok(()));
}

#[test]
fn recipes_that_are_not_read_are_refused_by_name() {
    refused_of("the mode \"mxfp6\" is not read", json!({"mode": "mxfp6"}));
    refused_of("mode is 4", json!({"mode": 4}));
    refused_of("7 bits in groups of 64", json!({"bits": 7}));
    refused_of("bits is \"4\", no whole number", json!({"bits": "4"}));
    refused_of(
        "group_size is 64.5, no whole number",
        json!({"group_size": 64.5}),
    );
    refused_of(
        "\"linear_class\" is \"mlx\"",
        json!({"linear_class": "mlx"}),
    );
    let own = |recipe: Json| json!({V: recipe});
    refused_of(V, own(json!({"bits": 7})));
    let scaled = |scale| own(json!({"bits": 8, "group_size": 64, "global_scale": scale}));
    refused_of("global_scale is for nvfp4", scaled(json!(true)));
    refused_of("global_scale is 2, not true or false", scaled(json!(2)));
    refused_of("\"v_proj\" is in quantization", json!({"v_proj": false}));
    let recipe = json!({"bits": 4, "group_size": 64});
    refused_of("\"lm\" is in quantization", json!({"lm": recipe}));
    let plain = "model.layers.1.self_attn.o_proj";
    refused_of(plain, json!({plain: recipe}));
    refused_of("is not quantised", own(json!(false)));
    refused("quantization is missing or no object", |config, _| {
        config["quantization"] = json!(4);
    });
    refused("quantize_activations", |config, _| {
        config["quantize_activations"] = json!(true);
    });
}

#[test]
fn recipes_of_other_files_are_refused() {
    refused_of(
        "config.json's quantization is of another file",
        json!({"bits": 8}),
    );
    let recipe = json!({"bits": 4, "group_size": 64});
    refused_of(
        "config.json's quantization is of another file",
        json!({V: recipe}),
    );
    let recipe = json!({"bits": 8, "group_size": 128});
    refused_of(
        "config.json's quantization is of another file",
        json!({V: recipe}),
    );
    refused("model.layers.0.self_attn.v_proj", |config, _| {
        let all = config["quantization"].as_object_mut().expect("an object");
        all.remove(V);
    });
    refused(
        "quantised (quantization_config: no quant_method",
        |config, _| {
            config
                .as_object_mut()
                .expect("an object")
                .remove("quantization");
        },
    );
    refused("is U32", |config, _| {
        let all = config.as_object_mut().expect("an object");
        all.retain(|key, _| !key.starts_with("quantization"));
    });
}

#[test]
fn tensors_that_do_not_go_together_are_refused_by_name() {
    let of = |kind: &str| format!("{V}.{kind}");
    refused("has no scales", |config, tensors| {
        tensors.remove(&of("scales"));
        config["quantization"]
            .as_object_mut()
            .expect("an object")
            .remove(V);
    });
    refused("v_proj.weight: its codes are missing", |config, tensors| {
        tensors.remove(&of("weight"));
        config["quantization"]
            .as_object_mut()
            .expect("an object")
            .remove(V);
    });
    refused("v_proj.weight: its biases are missing", |_, tensors| {
        tensors.remove(&of("biases"));
    });
    refused("its scales are BF16", |_, tensors| {
        tensors.get_mut(&of("biases")).expect("biases").0 = Dtype::F16;
    });
    refused("it has scales, but is I32", |_, tensors| {
        tensors.get_mut(&of("weight")).expect("codes").0 = Dtype::I32;
    });
    refused("v_proj.weight (its scales) is U16", |_, tensors| {
        tensors.get_mut(&of("scales")).expect("scales").0 = Dtype::U16;
    });
    refused(
        "it has biases, which its mode has not",
        |config, tensors| {
            config["quantization"][V] = json!({"bits": 4, "group_size": 32, "mode": "mxfp4"});
            let (dtype, shape, data) = tensors.get_mut(&of("scales")).expect("scales");
            (*dtype, shape[1]) = (Dtype::U8, 2 * shape[1]);
            let _ = data;
        },
    );
    let global = || (Dtype::F32, vec![], vec![0; 4]);
    refused("which quantization does not speak of", |_, tensors| {
        tensors.insert(of("global_scale"), global());
    });
    for (part, shape) in [
        ("(global_scale) are missing", None),
        ("not F32 [1]", Some(vec![2])),
    ] {
        refused(part, |config, tensors| {
            let own = json!({"bits": 4, "group_size": 16, "mode": "nvfp4", "global_scale": true});
            config["quantization"][V] = own;
            tensors.remove(&of("biases"));
            let (dtype, lengths, data) = tensors.get_mut(&of("scales")).expect("scales");
            // 128 values of each row, which were 64 of 8 bits.
            (*dtype, lengths[1]) = (Dtype::U8, 8);
            data.resize(8 * lengths[0], 0);
            if let Some(shape) = shape.clone() {
                let bytes = vec![0; 4 * shape.iter().product::<usize>()];
                tensors.insert(of("global_scale"), (Dtype::F32, shape, bytes));
            }
        });
    }
    // A stray tensor of a module that is not quantised.
    refused("o_proj", |_, tensors| {
        let biases = tensors[&of("biases")].clone();
        tensors.insert("model.layers.1.self_attn.o_proj.biases".to_owned(), biases);
    });
    for kind in ["scales", "biases"] {
        refused("attn_v.weight: the group of value 0", |_, tensors| {
            let (_, _, data) = tensors.get_mut(&of(kind)).expect("numbers");
            // NaN.
            data[..2].copy_from_slice(&[0xc0, 0x7f]);
        });
        // 1.5 · 2⁻²⁴ lies between two halves.
        refused("hold exactly", |_, tensors| {
            let (_, _, data) = tensors.get_mut(&of(kind)).expect("numbers");
            data[..2].copy_from_slice(&0x33c0u16.to_le_bytes());
        });
    }
}
