//! Adapters that become part of a model's weights.

use std::path::Path;

use walsh::formats::DType;
use walsh_convert::{Adapter, Files, Mix, Plan, PlanOptions, Source, WriteOptions};
use walsh_runtime::{Lora, Model};

use super::{Golden, Mixture, TOLERANCE, gguf, golden, model_path, peft, session, worst};

fn merged(source: &mut Source<'_>, adapters: &[Lora]) -> walsh_convert::Result<()> {
    let mut read = Vec::new();
    for Lora { path, scale } in adapters {
        read.push((Adapter::open(path, &source.base())?, *scale));
    }
    source.merge(read)
}

/// Writes a model with adapters, and says what types its tensors had and have.
fn write(
    from: &Path,
    adapters: &[Lora],
    mix: Option<Mix>,
    to: &Path,
) -> walsh_convert::Result<Vec<(DType, DType)>> {
    let files = Files::open(from)?;
    let mut source = files.source()?;
    merged(&mut source, adapters)?;
    let options = PlanOptions {
        mix,
        overrides: &[],
        imatrix: None,
        allow_requantize: false,
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
    let types = plan.tensors.iter().map(|tensor| (tensor.from, tensor.to));
    Ok(types.collect())
}

fn open(path: &Path) -> Model {
    let device = walsh::open("cpu:threads=1,activations=f32").expect("the processor");
    Model::open(&device, path).expect("the model")
}

fn adapters(mixture: &Mixture) -> Vec<Lora> {
    let all = mixture.adapters.iter();
    all.map(|(name, scale)| peft(name, *scale)).collect()
}

fn off(path: &Path, golden: &Golden, mixture: &Mixture) -> f64 {
    worst(&open(path), golden, mixture)
}

#[test]
fn a_merged_model_is_the_model_with_its_adapters() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [path, small] = ["merged.gguf", "q8.gguf"].map(|name| folder.path().join(name));
    for name in ["llama", "qwen2", "phi3", "granite", "qwen3moe"] {
        let golden = golden(name);
        for mixture in &golden.mixtures {
            let adapters = adapters(mixture);
            write(&model_path(name), &adapters, None, &path).expect("written");
            let most = off(&path, &golden, mixture);
            assert!(most < TOLERANCE, "{name}: {most:.1e}");
        }
    }
    // Into a smaller type, and into weights that have one.
    let golden = golden("llama");
    let mixture = &golden.mixtures[2];
    let q8 = Some(Mix::Q8_0);
    write(&model_path("llama"), &adapters(mixture), q8, &path).expect("written");
    let at_once = off(&path, &golden, mixture);
    assert!((1e-6..0.03).contains(&at_once), "{at_once:.1e}");
    write(&model_path("llama"), &[], q8, &small).expect("written");
    let types = write(&small, &adapters(mixture), None, &path).expect("written");
    assert!(types.iter().all(|(from, to)| from == to));
    assert!(types.iter().any(|(from, _)| *from == DType::Q8_0));
    let again = off(&path, &golden, mixture);
    assert!((1e-6..0.06).contains(&again), "{again:.1e}");
    // What counts for nothing leaves the file as it is.
    let none = [peft("llama-all", 0.0)];
    write(&small, &none, None, &path).expect("written");
    let [before, after] = [&small, &path].map(|path| std::fs::read(path).expect("a file"));
    assert!(before == after);
}

#[test]
fn what_cannot_be_merged_is_refused() {
    let files = Files::open(&model_path("llama")).expect("the model");
    let refused = |adapters: &[Lora]| {
        let mut source = files.source().expect("a model");
        let error = merged(&mut source, adapters).expect_err("an error");
        error.to_string()
    };
    let twice = [peft("llama-all", 1.0), gguf("llama-all", 1.0)];
    assert!(refused(&twice).contains("it is the same adapter as"));
    let error = refused(&[peft("qwen3moe-attention", 1.0)]);
    assert!(error.contains("adapter of another model"), "{error}");
    let error = refused(&[gguf("qwen2-all", 1.0)]);
    assert!(error.contains("architecture \"qwen2\""), "{error}");
    let error = refused(&[peft("llama-all", f32::NAN)]);
    assert!(error.contains("its scale is NaN"), "{error}");
}

/// A session over a merged model is one of any model.
#[test]
fn a_merged_model_needs_no_adapters() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("merged.gguf");
    let adapters = [peft("llama-all", 1.0)];
    write(&model_path("llama"), &adapters, None, &path).expect("written");
    let model = open(&path);
    assert!(model.adapters().is_empty());
    session(&model).prefill(&[1, 2, 3]).expect("read");
}
