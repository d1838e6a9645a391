//! Folders of `mlx-lm` against its own logits: `make_mlx.py` made both.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::{Dtype, SafeTensors};
use walsh::formats::DType;
use walsh::formats::mlx::{Recipe, Rows};
use walsh::ops::MatMul;
use walsh::{Device, Tensor};
use walsh_convert::{Folder, Mix, Plan, PlanOptions, WriteOptions, kept};
use walsh_runtime::Model;

use super::{Golden, assert_near, read, session_of};

/// A folder, and what it gives.
fn folder(name: &str) -> (PathBuf, Golden) {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/architectures/mlx");
    (all.join(name), read(all.join(format!("{name}.gguf"))))
}

/// Makes a file of a folder, and says what types its tensors have.
pub(super) fn convert(
    path: &Path,
    (own_types, mix): (bool, Option<Mix>),
    to: &Path,
) -> walsh_convert::Result<Vec<DType>> {
    let folder = Folder::open(path)?;
    let source = folder.source(own_types)?;
    let options = PlanOptions {
        mix: mix.or_else(|| kept(&source)),
        overrides: &[],
        imatrix: None,
        allow_requantize: mix.is_some(),
    };
    let plan = Plan::new(&source, &options)?;
    let mut out = Vec::new();
    let mut how = WriteOptions {
        threads: 2,
        cancel: &Default::default(),
        progress: &mut |_| {},
    };
    plan.write(&mut out, &mut how)?;
    std::fs::write(to, out).expect("written");
    Ok(plan.tensors.iter().map(|tensor| tensor.to).collect())
}

/// The most that logits are off, as a share of the largest, prompt and single tokens alike.
pub(super) fn off(path: &Path, golden: &Golden, (device, tolerance): (&str, f64)) -> f64 {
    let device = walsh::open(device).expect("the processor");
    let model = Model::open(&device, path).expect("the model");
    let mut session = session_of(&model);
    let last = golden.tokens.len() - 1;
    session.prefill(&golden.tokens).expect("read");
    let mut most = assert_near((golden, tolerance), last, session.logits());
    session.truncate(0).expect("cut back");
    for (position, &token) in golden.tokens.iter().enumerate() {
        session.decode(token).expect("read");
        most = most.max(assert_near((golden, tolerance), position, session.logits()));
    }
    most
}

/// Sums of f32 in another order, and 8-bit activations.
pub(super) const DEVICES: [(&str, f64); 3] = [
    ("cpu:threads=1,activations=f32", 2e-5),
    ("cpu:threads=2,isa=portable,activations=f32", 2e-5),
    ("cpu:threads=1", 6e-2),
];

#[test]
fn logits_are_those_of_mlx() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let file = place.path().join("model.gguf");
    for name in ["llama", "qwen3moe"] {
        let (path, golden) = folder(name);
        let types = convert(&path, (true, None), &file).expect("converted");
        let expected: &[DType] = match name {
            "llama" => &[
                DType::MLX2,
                DType::MLX3,
                DType::MLX4,
                DType::MLX5,
                DType::MLX6,
                DType::MLX8,
                DType::MLX2G32,
                DType::MLX3G32,
                DType::MLX6G32,
                DType::MLX8G32,
                DType::Q4_1,
                DType::Q5_1,
                DType::BF16,
            ],
            // What is mxfp8 is in bfloat16.
            _ => &[DType::MXFP4, DType::NVFP4, DType::BF16],
        };
        for dtype in expected {
            assert!(types.contains(dtype), "{name}: {dtype}");
        }
        for device in DEVICES {
            let most = off(&file, &golden, device);
            println!("{name}, {}: off by {most:.1e}", device.0);
        }
    }
}

/// Blocks have no place for scales of whole matrices, and bfloat16 rounds what is multiplied by them.
#[test]
fn scales_of_whole_matrices_are_exact_in_f32() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let file = place.path().join("model.gguf");
    let (path, golden) = folder("global");
    convert(&path, (false, Some(Mix::F32)), &file).expect("converted");
    off(&file, &golden, DEVICES[0]);
    let types = convert(&path, (true, None), &file).expect("converted");
    assert!(types.contains(&DType::BF16) && types.contains(&DType::NVFP4));
    off(&file, &golden, (DEVICES[0].0, 1e-2));
}

#[test]
fn files_of_gguf_have_types_of_ggml_alone() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let file = place.path().join("model.gguf");
    let (path, golden) = folder("qwen3moe");
    let types = convert(&path, (false, None), &file).expect("converted");
    assert!(types.iter().all(|dtype| dtype.ggml_id().is_some()));
    off(&file, &golden, DEVICES[0]);

    let (path, golden) = folder("llama");
    let error = convert(&path, (false, None), &file)
        .expect_err("no type for 6 bits")
        .to_string();
    assert!(error.contains("mlx") && error.contains("--type"), "{error}");
    let types = convert(&path, (false, Some(Mix::Q8_0)), &file).expect("converted");
    assert!(types.iter().all(|dtype| dtype.ggml_id().is_some()));
    off(&file, &golden, (DEVICES[0].0, 3e-2));
}

/// Numbers of a golden file.
fn numbers(golden: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let data = golden.tensor(name).expect("a tensor").data();
    let numbers = data.as_chunks::<4>().0.iter();
    numbers.map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// The weight of a golden file's matrix in blocks, with what it consists of; `None` where its recipe is not read.
fn blocks(golden: &SafeTensors<'_>, name: &str) -> Option<(DType, [u64; 2], Vec<u8>)> {
    let parts: Vec<&str> = name.split('.').collect();
    let number = |part: &str| part.parse().expect("a number");
    let recipe = Recipe::new(parts[0], number(parts[1]), number(parts[2])).ok()?;
    let tensor = |what: &str| golden.tensor(&format!("{name}.{what}"));
    let (values, scales) = (tensor("values").ok()?, tensor("scales").ok()?);
    let [rows, columns] = [values.shape()[0], values.shape()[1]];
    let groups = Rows {
        recipe,
        columns,
        codes: tensor("codes").ok()?.data(),
        scales: scales.data(),
        biases: tensor("biases").map_or(&[], |biases| biases.data()),
        numbers: match scales.dtype() {
            Dtype::BF16 => DType::BF16,
            Dtype::F16 => DType::F16,
            _ => DType::U8,
        },
        global: &[],
        matrix: rows,
    };
    let dtype = recipe.dtype(true);
    let bytes = dtype.row_bytes(columns as u64).expect("whole blocks") as usize;
    let mut blocks = vec![0; rows * bytes];
    for (row, blocks) in blocks.chunks_exact_mut(bytes).enumerate() {
        groups.pack(row, dtype, blocks).expect("exact numbers");
    }
    Some((dtype, [rows as u64, columns as u64], blocks))
}

/// The product of rows of 128 numbers with a weight.
fn product(device: &Device, weight: Tensor, rows: &[f32]) -> walsh::Result<Vec<f32>> {
    let count = rows.len() as u64 / 128;
    let input = device.zeros(DType::F32, &[count, 128])?;
    let output = device.zeros(DType::F32, &[count, weight.shape()[0]])?;
    device.write(&input, rows)?;
    let mut list = device.record();
    list.push(MatMul {
        weight,
        input,
        bias: None,
        output: output.clone(),
    })?;
    device.run(&list.finish()?)?;
    device.read(&output)
}

#[test]
fn products_are_those_of_mlx() {
    let place = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crates");
    let bytes = std::fs::read(place.join("walsh-formats/tests/golden/mlx.safetensors"));
    let bytes = bytes.expect("the file");
    let golden = SafeTensors::deserialize(&bytes).expect("tensors");
    let input = numbers(&golden, "input");
    let mut names = golden.names();
    names.retain(|name| name.ends_with(".product"));
    names.sort_unstable();
    let mut types = Vec::new();
    for name in names {
        let name = name.trim_end_matches(".product");
        let Some((dtype, shape, blocks)) = blocks(&golden, name) else {
            continue;
        };
        let expected = numbers(&golden, &format!("{name}.product"));
        let largest = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        for isa in ["", ",isa=portable"] {
            let device = format!("cpu:threads=1,activations=f32{isa}");
            let device = walsh::open(&device).expect("the processor");
            let bytes: Arc<[u8]> = blocks.clone().into();
            let buffer = device.import(Arc::new(bytes)).expect("imported");
            let weight = Tensor::new(buffer, 0, dtype, &shape).expect("a weight");
            let found = product(&device, weight, &input).expect("a product");
            for (found, expected) in found.iter().zip(&expected) {
                let off = (found - expected).abs();
                assert!(
                    off <= 1e-4 * largest,
                    "{name}{isa}: {found}, not {expected}"
                );
            }
        }
        types.push(dtype);
    }
    types.sort_unstable();
    types.dedup();
    assert_eq!(types.len(), 15, "{types:?}");
}
