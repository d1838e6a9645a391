//! Folders of weights in 8-bit floats against transformers' own logits: `make_fp8.py` made both.

use std::path::Path;

use walsh::formats::DType;
use walsh_convert::Mix;

use super::mlx::{DEVICES, convert, off};
use super::{Golden, read};

/// Blocks with scales in f32 and as powers of two, rows, and whole matrices with scales of their inputs.
const FOLDERS: [&str; 4] = ["qwen3", "qwen3moe", "llama", "static"];

#[test]
fn logits_are_those_of_dequantised_models() {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/architectures/fp8");
    let place = tempfile::tempdir().expect("a temporary folder");
    let file = place.path().join("model.gguf");
    for name in FOLDERS {
        let path = all.join(name);
        let golden = read(all.join(format!("{name}.gguf")));
        let types = convert(&path, (true, None), &file).expect("converted");
        let is_expected = |dtype: &DType| matches!(dtype, DType::BF16 | DType::F32);
        assert!(types.iter().all(is_expected) && types.contains(&DType::BF16));
        for device in DEVICES {
            let most = off(&file, &golden, device);
            println!("{name}, {}: off by {most:.1e}", device.0);
        }

        let exact = Golden {
            logits: golden.exact.clone(),
            ..golden
        };
        convert(&path, (false, Some(Mix::F32)), &file).expect("converted");
        let most = off(&file, &exact, DEVICES[0]);
        println!("{name} in f32: off by {most:.1e}");
        convert(&path, (false, Some(Mix::Q8_0)), &file).expect("converted");
        off(&file, &exact, (DEVICES[0].0, 5e-2));
    }
}
