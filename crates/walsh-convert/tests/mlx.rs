//! Folders of `mlx-lm` that do not go together: each is refused in a line that says what is wrong. That those which do are
//! read is for the architectures' tests of walsh-runtime, whose folder this is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value as Json, json};
use walsh_convert::{Folder, Plan, PlanOptions, WriteOptions, kept};

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

const V: &str = "model.layers.0.self_attn.v_proj";

fn given() -> PathBuf {
    let all = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crates");
    all.join("walsh-runtime/tests/architectures/mlx/llama")
}

/// Converts a folder for Walsh alone; why that fails.
fn converted(path: &Path) -> walsh_convert::Result<()> {
    let folder = Folder::open(path)?;
    let source = folder.source(true)?;
    let options = PlanOptions {
        mix: kept(&source),
        overrides: &[],
        imatrix: None,
        allow_requantize: false,
    };
    Plan::new(&source, &options)?.write(
        &mut std::io::sink(),
        &mut WriteOptions {
            threads: 2,
            cancel: &AtomicBool::new(false),
            progress: &mut |_| {},
        },
    )
}

/// What becomes of the folder with another configuration and other tensors.
fn changed(change: impl FnOnce(&mut Json, &mut Tensors)) -> Result<(), String> {
    let place = tempfile::tempdir().expect("a temporary folder");
    for name in [
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    ] {
        fs::copy(given().join(name), place.path().join(name)).expect("copied");
    }
    let text = fs::read_to_string(given().join("config.json")).expect("a configuration");
    let mut config: Json = serde_json::from_str(&text).expect("JSON");
    let bytes = fs::read(given().join("model.safetensors")).expect("tensors");
    let file = SafeTensors::deserialize(&bytes).expect("tensors");
    let tensors = file.tensors().into_iter();
    let mut tensors: Tensors = tensors
        .map(|(name, view)| {
            let shape = view.shape().to_vec();
            (name, (view.dtype(), shape, view.data().to_vec()))
        })
        .collect();
    change(&mut config, &mut tensors);
    fs::write(place.path().join("config.json"), config.to_string()).expect("written");
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        let view = TensorView::new(*dtype, shape.clone(), data).expect("a tensor");
        (name.clone(), view)
    });
    let bytes = safetensors::serialize(views, None).expect("a file");
    fs::write(place.path().join("model.safetensors"), bytes).expect("written");
    converted(place.path()).map_err(|error| error.to_string())
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
        let q = "model.layers.0.self_attn.q_proj";
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
    refused_of("the mode \"mxfp8\" is not read", json!({"mode": "mxfp8"}));
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
    let scaled = json!({"bits": 8, "group_size": 64, "global_scale": true});
    refused_of("\"global_scale\" is not known", own(scaled));
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
    refused("quantised (quantization_config)", |config, _| {
        config
            .as_object_mut()
            .expect("an object")
            .remove("quantization");
    });
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
