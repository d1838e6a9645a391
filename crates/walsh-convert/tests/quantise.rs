//! Files out of files: values, importance, and what is refused.

use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use walsh_convert::{
    Collected, Files, Imatrix, Kept, Mix, Override, Plan, PlanOptions, Planned, WriteOptions,
};
use walsh_formats::DType;
use walsh_formats::ggml::{decode, encode, encode_weighted};
use walsh_formats::gguf::Gguf;
use walsh_formats::gguf::write::{NewTensor, Writer};
use walsh_formats::random::SplitMix64;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

const EXPERTS: u64 = 3;

/// A model of one layer, with a stack of experts, in `dtype`; `spoil` changes the values of a tensor.
fn model(folder: &Path, dtype: DType, spoil: impl Fn(&str, &mut [f32])) -> Result<PathBuf> {
    let mut writer = Writer::new();
    writer.set("general.architecture", "llama")?;
    writer.set("llama.block_count", 1_u32)?;
    writer.set("general.alignment", 64_u32)?;
    writer.set("tokenizer.ggml.tokens", vec!["a", "b"])?;
    let mut random = SplitMix64(5);
    for (name, shape) in [
        ("token_embd.weight", &[40, 256][..]),
        ("blk.0.attn_v.weight", &[300, 256]),
        ("blk.0.attn_norm.weight", &[256]),
        ("blk.0.ffn_down_exps.weight", &[EXPERTS, 20, 512]),
        ("blk.0.attn_q.bias", &[7]),
    ] {
        let count = shape.iter().product::<u64>() as usize;
        let mut values = random.normals(count);
        spoil(name, &mut values);
        let dtype = if shape.len() == 1 { DType::F32 } else { dtype };
        let mut data = vec![0; count / dtype.block_len() * dtype.block_bytes()];
        encode(dtype, &values, &mut data)?;
        writer.tensor(NewTensor {
            name,
            dtype,
            shape,
            data: data.into(),
        })?;
    }
    let path = folder.join(format!("{dtype}.gguf"));
    fs::write(&path, writer.to_bytes())?;
    Ok(path)
}

fn options<'a>(
    mix: Mix,
    overrides: &'a [Override],
    imatrix: Option<&'a Imatrix>,
) -> PlanOptions<'a> {
    PlanOptions {
        mix: Some(mix),
        overrides,
        imatrix,
        allow_requantize: false,
    }
}

/// Quantises a file in memory.
fn quantised(path: &Path, options: &PlanOptions<'_>, threads: usize) -> Result<Vec<u8>> {
    let files = Files::open(path)?;
    let source = files.source()?;
    let plan = Plan::new(&source, options)?;
    let mut out = Vec::new();
    let mut seen = 0;
    let mut progress = |progress: walsh_convert::Progress<'_>| {
        assert!(progress.done >= seen && progress.done <= progress.total);
        seen = progress.done;
    };
    plan.write(
        &mut out,
        &mut WriteOptions {
            threads,
            cancel: &AtomicBool::new(false),
            progress: &mut progress,
        },
    )?;
    assert_eq!(seen, plan.bytes().0);
    assert_eq!(out.len() as u64, plan.file_bytes()?);
    Ok(out)
}

fn plan(path: &Path, options: &PlanOptions<'_>) -> Result<Vec<Planned>> {
    let files = Files::open(path)?;
    let source = files.source()?;
    Ok(Plan::new(&source, options)?.tensors)
}

fn values(file: &Gguf<'_>, name: &str) -> Result<Vec<f32>> {
    let tensor = file.tensor(name).ok_or("no such tensor")?;
    let mut values = vec![0.0; tensor.values() as usize];
    decode(tensor.dtype, file.data(tensor), &mut values)?;
    Ok(values)
}

fn importance(folder: &Path, columns: &[(&str, usize, usize)]) -> Result<(PathBuf, Vec<f32>)> {
    let mut collected = Collected {
        dataset: "a text".to_owned(),
        chunks: 3,
        chunk_tokens: 512,
        ..Collected::default()
    };
    let mut last = Vec::new();
    for (name, columns, matrices) in columns {
        let sums: Vec<f32> = (0..columns * matrices)
            .map(|i| 2.0 + (i % 37) as f32)
            .collect();
        last = sums.iter().map(|sum| sum / 2.0).collect();
        collected
            .tensors
            .insert((*name).to_owned(), (sums, vec![2; *matrices]));
    }
    let path = folder.join("imatrix.gguf");
    collected.write(&mut File::create(&path)?)?;
    Ok((path, last))
}

#[test]
fn tensors_are_encoded_row_by_row_and_the_rest_is_kept() -> Result {
    let folder = tempfile::tempdir()?;
    let path = model(folder.path(), DType::F16, |_, _| {})?;
    let overrides = ["attn_v=q5_1".parse()?, "attn|token=q8_0".parse()?];
    let options = options(Mix::Q4KS, &overrides, None);
    let out = quantised(&path, &options, 2)?;
    assert!(out == quantised(&path, &options, 1)?);
    let original = fs::read(&path)?;
    let (original, file) = (Gguf::parse(&original)?, Gguf::parse(&out)?);
    assert_eq!(file.metadata().u32("general.file_type")?, 14);
    assert_eq!(file.metadata().u32("general.quantization_version")?, 2);
    assert_eq!(file.metadata().array("tokenizer.ggml.tokens")?.len(), 2);
    let mut seen = Vec::new();
    for tensor in file.tensors() {
        let mut expected = vec![0; tensor.bytes as usize];
        encode(
            tensor.dtype,
            &values(&original, tensor.name)?,
            &mut expected,
        )?;
        assert!(file.data(tensor) == expected, "{}", tensor.name);
        assert_eq!(
            Some(&tensor.shape),
            original.tensor(tensor.name).map(|tensor| &tensor.shape)
        );
        seen.push((tensor.name, tensor.dtype));
    }
    // In the order of layers and names.
    assert_eq!(
        seen,
        [
            ("token_embd.weight", DType::Q8_0),
            ("blk.0.attn_norm.weight", DType::F32),
            ("blk.0.attn_q.bias", DType::F32),
            ("blk.0.attn_v.weight", DType::Q5_1),
            ("blk.0.ffn_down_exps.weight", DType::Q4K),
        ]
    );
    Ok(())
}

#[test]
fn tensors_without_values_are_written() -> Result {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("empty.gguf");
    let mut writer = Writer::new();
    writer.set("general.architecture", "llama")?;
    let ones = vec![0; 2 * 256];
    for (name, shape, data) in [
        ("blk.0.attn_k.weight", &[4, 0][..], &[][..]),
        ("blk.0.attn_q.weight", &[1 << 62, 0], &[]),
        ("blk.0.attn_v.weight", &[0, 256], &[]),
        ("blk.0.ffn_up.weight", &[1, 256], &ones),
        ("blk.0.ffn_up_exps.weight", &[0, 1 << 30, 256], &[]),
    ] {
        writer.tensor(NewTensor {
            name,
            dtype: DType::F16,
            shape,
            data: data.into(),
        })?;
    }
    fs::write(&path, writer.to_bytes())?;
    for mix in [Mix::Q4KM, Mix::F16] {
        let out = quantised(&path, &options(mix, &[], None), 2)?;
        let file = Gguf::parse(&out)?;
        let lengths = file.tensors().iter().map(|tensor| tensor.bytes);
        assert_eq!(lengths.filter(|bytes| *bytes > 0).count(), 1);
        let tensor = file.tensor("blk.0.attn_q.weight").ok_or("no tensor")?;
        assert_eq!(tensor.shape, [1 << 62, 0]);
    }
    Ok(())
}

#[test]
fn named_tensors_get_their_types_in_every_mix() -> Result {
    let folder = tempfile::tempdir()?;
    let path = model(folder.path(), DType::F16, |_, _| {})?;
    let chosen = |mix, texts: &[&str]| -> Result<Vec<DType>> {
        let overrides: std::result::Result<Vec<Override>, _> =
            texts.iter().map(|text| text.parse()).collect();
        let planned = plan(&path, &options(mix, &overrides?, None))?;
        let named = planned.iter().filter(|tensor| tensor.shape.len() > 1);
        Ok(named.map(|tensor| tensor.to).collect())
    };
    for (mix, base) in [
        (Mix::F32, DType::F32),
        (Mix::F16, DType::F16),
        (Mix::BF16, DType::BF16),
    ] {
        assert_eq!(
            chosen(mix, &["attn_v=q8_0"])?,
            [base, DType::Q8_0, base],
            "{mix}"
        );
    }
    for mix in [Mix::F16, Mix::Q4KM] {
        for texts in [
            // Found in no name, in that of a tensor that stays, and behind another.
            &["attn_w=q8_0"][..],
            &["attn_v=q8_0", "attn_norm=q8_0"],
            &["attn=q8_0", "attn_v=q5_1"],
        ] {
            let (name, _) = texts[texts.len() - 1].split_once('=').ok_or("no type")?;
            refused(chosen(mix, texts), &format!("{name:?}"));
        }
    }
    Ok(())
}

#[test]
fn an_importance_is_that_of_each_expert() -> Result {
    let folder = tempfile::tempdir()?;
    let path = model(folder.path(), DType::F32, |_, _| {})?;
    let name = "blk.0.ffn_down_exps.weight";
    let (importance, weights) = importance(folder.path(), &[(name, 512, EXPERTS as usize)])?;
    let imatrix = Imatrix::open(&importance)?;
    assert_eq!(imatrix.get(name), Some(&weights[..]));
    let out = quantised(&path, &options(Mix::Q4KM, &[], Some(&imatrix)), 2)?;
    let file = Gguf::parse(&out)?;
    let original = fs::read(&path)?;
    let stored = values(&Gguf::parse(&original)?, name)?;
    let tensor = file.tensor(name).ok_or("no such tensor")?;
    let mut expected = vec![0; tensor.bytes as usize];
    let rows = stored
        .chunks(512)
        .zip(expected.chunks_mut(tensor.bytes as usize / 60));
    for (row, (values, bytes)) in rows.enumerate() {
        let expert = row / 20;
        encode_weighted(tensor.dtype, values, &weights[512 * expert..][..512], bytes)?;
    }
    assert!(file.data(tensor) == expected);
    let mut plain = expected.clone();
    encode(tensor.dtype, &stored, &mut plain)?;
    assert!(plain != expected);
    assert_eq!(file.metadata().u32("quantize.imatrix.chunks_count")?, 3);
    Ok(())
}

#[track_caller]
fn refused<T>(result: Result<T>, part: &str) {
    let Err(error) = result else {
        panic!("it was not refused: {part}");
    };
    let text = error.to_string();
    assert!(text.contains(part), "{part:?} is not in {text:?}");
    assert!(!text.contains('\n'), "{text:?}");
}

#[test]
fn what_cannot_be_is_refused() -> Result {
    let folder = tempfile::tempdir()?;
    let quantised_path = model(folder.path(), DType::Q8_0, |_, _| {})?;
    refused(
        plan(&quantised_path, &options(Mix::Q4KM, &[], None)),
        "--allow-requantize",
    );
    // What stays is not quantised again.
    plan(&quantised_path, &options(Mix::Q8_0, &[], None))?;
    let allowed = PlanOptions {
        allow_requantize: true,
        ..options(Mix::Q4KM, &[], None)
    };
    plan(&quantised_path, &allowed)?;

    let nan = model(folder.path(), DType::F32, |name, values| {
        if name == "blk.0.attn_v.weight" {
            values[256 * 7 + 3] = f32::NAN;
        }
    });
    // The encoder of the test's own file refuses it too, and so it is put there behind its back.
    refused(nan, "finite");
    let path = model(folder.path(), DType::F32, |_, _| {})?;
    let mut bytes = fs::read(&path)?;
    let place = {
        let file = Gguf::parse(&bytes)?;
        let tensor = file.tensor("blk.0.attn_v.weight").ok_or("no such tensor")?;
        tensor.offset as usize + 4 * (256 * 7 + 3)
    };
    bytes[place..place + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let spoilt = folder.path().join("spoilt.gguf");
    fs::write(&spoilt, bytes)?;
    refused(
        quantised(&spoilt, &options(Mix::Q4KM, &[], None), 2),
        "blk.0.attn_v.weight, row 7",
    );

    let (wrong, _) = importance(folder.path(), &[("blk.0.attn_v.weight", 255, 1)])?;
    let imatrix = Imatrix::open(&wrong)?;
    refused(
        plan(&path, &options(Mix::Q4KM, &[], Some(&imatrix))),
        "255 numbers",
    );
    refused(
        Imatrix::open(&path).map_err(Into::into),
        "importance matrix",
    );
    refused(
        Imatrix::open(&folder.path().join("missing")).map_err(Into::into),
        "missing",
    );
    let text = folder.path().join("old.dat");
    fs::write(&text, [7; 100])?;
    refused(Imatrix::open(&text).map_err(Into::into), "llama-imatrix");
    refused(Files::open(&text).map_err(Into::into), "old.dat");
    refused(Files::open(folder.path()).map_err(Into::into), "no file");
    for (text, part) in [
        ("attn_v", "REGEX=TYPE"),
        ("(=q4_0", "unclosed"),
        ("a=q9", "q9"),
        ("a=iq1_s", "not written"),
    ] {
        refused(text.parse::<Override>().map_err(Into::into), part);
    }
    Ok(())
}

#[test]
fn what_a_run_has_left_is_taken_up_to_the_same_bytes() -> Result {
    let folder = tempfile::tempdir()?;
    let path = model(folder.path(), DType::F16, |_, _| {})?;
    let options = options(Mix::Q4KM, &[], None);
    let whole = quantised(&path, &options, 1)?;
    let files = Files::open(&path)?;
    let source = files.source()?;
    let plan = Plan::new(&source, &options)?;
    let mut counts = Vec::new();
    for length in (0..whole.len()).step_by(97).chain([whole.len()]) {
        let left = &whole[..length];
        let kept = plan.kept(&mut &left[..], length as u64)?;
        assert!(kept.bytes <= length as u64);
        let mut out = whole[..kept.bytes as usize].to_vec();
        let mut seen = 0;
        plan.write_from(
            kept,
            &mut out,
            &mut WriteOptions {
                threads: 2,
                cancel: &AtomicBool::new(false),
                progress: &mut |progress| {
                    assert!(progress.done >= seen && progress.done <= progress.total);
                    seen = progress.done;
                },
            },
        )?;
        assert!(out == whole, "{length}");
        counts.push(kept.tensors);
    }
    counts.dedup();
    assert_eq!(counts, [0, 1, 2, 3, 4, 5]);
    // Of another plan, or what is none.
    for change in [0, 100] {
        let mut other = whole.clone();
        other[change] ^= 1;
        let kept = plan.kept(&mut &other[..], other.len() as u64)?;
        assert_eq!(kept, Kept::default());
    }
    Ok(())
}

#[test]
fn a_run_that_is_cancelled_ends() -> Result {
    let folder = tempfile::tempdir()?;
    let path = model(folder.path(), DType::F32, |_, _| {})?;
    let files = Files::open(&path)?;
    let source = files.source()?;
    let plan = Plan::new(&source, &options(Mix::Q4KM, &[], None))?;
    let cancel = AtomicBool::new(true);
    let ended = plan.write(
        &mut Vec::new(),
        &mut WriteOptions {
            threads: 2,
            cancel: &cancel,
            progress: &mut |_| {},
        },
    );
    assert!(matches!(ended, Err(walsh_convert::Error::Cancelled)));
    assert!(matches!(files.paths(), [own] if *own == path));
    Ok(())
}
