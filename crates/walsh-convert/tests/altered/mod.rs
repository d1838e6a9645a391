//! Folders of the architectures' tests of walsh-runtime with another configuration and other tensors, and what becomes of
//! them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value as Json;
use walsh_convert::{Folder, Plan, PlanOptions, WriteOptions, kept};

pub(crate) type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// Where a folder is.
pub(crate) fn given(name: &str) -> PathBuf {
    let all = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crates");
    all.join("walsh-runtime/tests/architectures").join(name)
}

/// Converts a folder for Walsh alone; the notes of the plan, or why that fails.
fn converted(path: &Path) -> walsh_convert::Result<Vec<String>> {
    let folder = Folder::open(path)?;
    let source = folder.source(true)?;
    let options = PlanOptions {
        mix: kept(&source),
        overrides: &[],
        imatrix: None,
        allow_requantize: false,
    };
    let plan = Plan::new(&source, &options)?;
    plan.write(
        &mut std::io::sink(),
        &mut WriteOptions {
            threads: 2,
            cancel: &AtomicBool::new(false),
            progress: &mut |_| {},
        },
    )?;
    Ok(plan.notes)
}

/// What becomes of a folder with another configuration and other tensors.
pub(crate) fn changed(
    name: &str,
    change: impl FnOnce(&mut Json, &mut Tensors),
) -> Result<Vec<String>, String> {
    let place = tempfile::tempdir().expect("a temporary folder");
    for file in [
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    ] {
        fs::copy(given(name).join(file), place.path().join(file)).expect("copied");
    }
    let text = fs::read_to_string(given(name).join("config.json")).expect("a configuration");
    let mut config: Json = serde_json::from_str(&text).expect("JSON");
    let bytes = fs::read(given(name).join("model.safetensors")).expect("tensors");
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
