//! The types of mixes against llama.cpp's: `golden/make_mixes.py` made the tables.

use std::error::Error;
use std::fs::File;
use std::path::Path;

use serde_json::Value;
use walsh_convert::{Collected, Files, Imatrix, Mix, Plan, PlanOptions};
use walsh_formats::DType;
use walsh_formats::gguf::write::Writer;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

fn lengths(value: &Value) -> Vec<u64> {
    let list = value.as_array().into_iter().flatten();
    list.filter_map(Value::as_u64).collect()
}

/// A file with a model's head, and a hole where its data would be.
fn write_head(path: &Path, model: &Value) -> Result {
    let mut writer = Writer::new();
    let architecture = model["architecture"].as_str().ok_or("no architecture")?;
    writer.set("general.architecture", architecture)?;
    for (key, value) in model["numbers"].as_object().ok_or("no numbers")? {
        let value = value.as_u64().ok_or("no number")? as u32;
        writer.set(&format!("{architecture}.{key}"), value)?;
    }
    for tensor in model["tensors"].as_array().ok_or("no tensors")? {
        let shape = lengths(&tensor[1]);
        let dtype = if shape.len() == 1 {
            DType::F32
        } else {
            DType::F16
        };
        writer.declare(tensor[0].as_str().ok_or("no name")?, dtype, &shape)?;
    }
    let file = File::create(path)?;
    writer.stream(&file)?;
    Ok(file.set_len(writer.file_bytes())?)
}

#[test]
fn tensors_get_the_types_that_llama_cpp_gives_them() -> Result {
    let golden: Value = serde_json::from_str(include_str!("golden/mixes.json"))?;
    let folder = tempfile::tempdir()?;
    let importance = folder.path().join("imatrix.gguf");
    let (mut compared, mut refused) = (0, 0);
    for model in golden["models"].as_array().ok_or("no models")? {
        let path = folder.path().join("model.gguf");
        write_head(&path, model)?;
        let files = Files::open(&path)?;
        let source = files.source()?;
        // For one tensor, so that there is one.
        let name = "blk.0.attn_output.weight";
        let tensors = model["tensors"].as_array().ok_or("no tensors")?;
        let own = tensors.iter().find(|tensor| tensor[0] == name);
        let columns = lengths(&own.ok_or("no such tensor")?[1])[1] as usize;
        let mut collected = Collected::default();
        let sums = (vec![1.0; columns], vec![1]);
        collected.tensors.insert(name.to_owned(), sums);
        collected.write(&mut File::create(&importance)?)?;
        let imatrix = Imatrix::open(&importance)?;
        for (mix, types) in model["types"].as_object().ok_or("no types")? {
            let mix: Mix = mix.parse()?;
            for (way, imatrix) in [(0, None), (1, Some(&imatrix))] {
                let options = PlanOptions {
                    mix: Some(mix),
                    overrides: &[],
                    imatrix,
                    allow_requantize: false,
                };
                let plan = Plan::new(&source, &options)?;
                // Those that llama.cpp makes with an importance alone.
                if types[way].is_null() && way == 0 {
                    refused += 1;
                    continue;
                }
                let letters = types[way].as_str().ok_or("no types")?;
                assert_eq!(plan.tensors.len(), letters.len());
                for (planned, letter) in plan.tensors.iter().zip(letters.chars()) {
                    let theirs = golden["letters"][letter.to_string()].as_str();
                    let ours = planned.to.name().to_lowercase();
                    let name = &planned.name;
                    assert_eq!(
                        Some(&*ours),
                        theirs,
                        "{}, {mix}, {name}, with an importance: {}",
                        model["name"],
                        way == 1
                    );
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 10_000 && refused < 60, "{compared}, {refused}");
    Ok(())
}
