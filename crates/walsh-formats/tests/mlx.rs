//! Weights as MLX quantises them: `golden/make_mlx.py` wrote codes, scales and biases, and what MLX makes of them.

use safetensors::{Dtype, SafeTensors};
use walsh_formats::error::FormatError;
use walsh_formats::mlx::{Recipe, Rows};
use walsh_formats::{DType, ggml};

static GOLDEN: &[u8] = include_bytes!("golden/mlx.safetensors");

/// A matrix of the golden file.
struct Matrix<'a> {
    name: String,
    recipe: Recipe,
    rows: Rows<'a>,
    values: Vec<f32>,
}

/// All matrices of the golden file whose recipes are read.
fn matrices<'a>(golden: &'a SafeTensors<'a>) -> Vec<Matrix<'a>> {
    let mut names: Vec<&str> = golden.names();
    names.retain(|name| name.ends_with(".codes"));
    names.sort_unstable();
    let mut matrices = Vec::new();
    for name in names {
        let name = name.trim_end_matches(".codes");
        let parts: Vec<&str> = name.split('.').collect();
        let number = |part: &str| part.parse().expect("a number");
        let Ok(recipe) = Recipe::new(parts[0], number(parts[1]), number(parts[2])) else {
            continue;
        };
        let tensor = |what: &str| golden.tensor(&format!("{name}.{what}"));
        let scales = tensor("scales").expect("scales");
        let values = tensor("values").expect("values");
        let rows = Rows {
            recipe,
            columns: values.shape()[1],
            codes: tensor("codes").expect("codes").data(),
            scales: scales.data(),
            biases: tensor("biases").map_or(&[], |biases| biases.data()),
            numbers: match scales.dtype() {
                Dtype::BF16 => DType::BF16,
                Dtype::F16 => DType::F16,
                _ => DType::U8,
            },
            global: tensor("global").map_or(&[], |global| global.data()),
            matrix: values.shape()[0],
        };
        let values = values.data().as_chunks::<4>().0;
        matrices.push(Matrix {
            name: name.to_owned(),
            recipe,
            rows,
            values: values
                .iter()
                .map(|value| f32::from_le_bytes(*value))
                .collect(),
        });
    }
    matrices
}

#[test]
fn values_are_those_of_mlx() {
    let golden = SafeTensors::deserialize(GOLDEN).expect("the file");
    let matrices = matrices(&golden);
    let mut types = Vec::new();
    for Matrix {
        name,
        recipe,
        rows,
        values,
    } in &matrices
    {
        for (row, expected) in values.chunks(rows.columns).enumerate() {
            let mut found = vec![f32::NAN; rows.columns];
            rows.decode(row, &mut found);
            assert_eq!(found, expected, "{name}: row {row}");
            for own in [true, false] {
                let dtype = match rows.global.is_empty() {
                    true => recipe.dtype(own),
                    false => DType::F32,
                };
                let bytes = dtype.row_bytes(rows.columns as u64).expect("whole blocks");
                let mut blocks = vec![0; bytes as usize];
                rows.pack(row, dtype, &mut blocks).expect("exact numbers");
                found.fill(f32::NAN);
                ggml::decode(dtype, &blocks, &mut found).expect("whole blocks");
                assert_eq!(found, expected, "{name}: row {row} as {dtype}");
                types.push(dtype);
            }
        }
    }
    for &dtype in DType::ALL {
        let is_own = dtype.file_id().is_some() && dtype.ggml_id().is_none();
        assert!(!is_own || types.contains(&dtype), "{dtype}");
    }
    for dtype in [
        DType::Q4_1,
        DType::Q5_1,
        DType::MXFP4,
        DType::NVFP4,
        DType::BF16,
        DType::F32,
    ] {
        assert!(types.contains(&dtype), "{dtype}");
    }
}

#[test]
fn recipes_that_are_not_read_say_which_are() {
    for (mode, bits, group, part) in [
        ("affine", 7, 64, "7 bits in groups of 64"),
        ("affine", 4, 16, "groups of 16"),
        ("affine", 1, 64, "1 bits"),
        ("affine", 1, 32, "1 bits in groups of 32"),
        ("affine", u64::MAX, 64, "groups of 64"),
        ("mxfp4", 4, 64, "mxfp4 has 4"),
        ("nvfp4", 4, 32, "nvfp4 4 in groups of 16"),
        ("mxfp8", 8, 64, "mxfp4 has 4 and mxfp8 8 in groups of 32"),
        ("mxfp6", 6, 32, "\"mxfp6\" is not read"),
        ("Affine", 4, 64, "\"Affine\" is not read"),
    ] {
        let error = Recipe::new(mode, bits, group).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

/// A row of 64 codes of 4 bits, `code` each, with a scale and a bias.
fn packed(code: u8, [scale, bias]: [f32; 2]) -> Result<Vec<f32>, FormatError> {
    let rows = Rows {
        recipe: Recipe::new("affine", 4, 64)?,
        columns: 64,
        codes: &[code * 17; 32],
        scales: &scale.to_le_bytes(),
        biases: &bias.to_le_bytes(),
        numbers: DType::F32,
        global: &[],
        matrix: 1,
    };
    let mut block = [0; 36];
    rows.pack(0, DType::MLX4, &mut block)?;
    let mut values = vec![0.0; 64];
    ggml::decode(DType::MLX4, &block, &mut values)?;
    Ok(values)
}

#[test]
fn numbers_that_halves_do_not_hold_are_refused_and_never_rounded() {
    assert_eq!(packed(3, [0.5, -1.0]), Ok(vec![0.5; 64]));
    let smallest = 2f32.powi(-24);
    assert_eq!(packed(1, [smallest, 0.0]), Ok(vec![smallest; 64]));
    let wrong = [
        [smallest * 1.5, 0.0],
        [0.1, 0.0],
        [0.5, 1e-9],
        [65536.0, 0.0],
        [f32::NAN, 0.0],
        [0.5, f32::INFINITY],
    ];
    for numbers in wrong {
        let error = packed(3, numbers).unwrap_err();
        assert!(
            matches!(error, FormatError::Inexact { value: 0, .. }),
            "{error}"
        );
    }
    // What nothing is multiplied by may be what it is.
    assert_eq!(packed(0, [1e-7, 0.25]), Ok(vec![0.25; 64]));
    assert!(packed(0, [f32::NAN, 0.25]).is_err());
}

#[test]
fn scales_that_blocks_of_floats_do_not_have_are_refused() {
    for (mode, group, dtype, bad) in [
        ("mxfp4", 32, DType::MXFP4, &[0xff][..]),
        ("nvfp4", 16, DType::NVFP4, &[0x7f, 0x80, 0xb8, 0xff][..]),
    ] {
        let len = dtype.block_len();
        for scale in 0..=u8::MAX {
            let rows = Rows {
                recipe: Recipe::new(mode, 4, group).expect("a recipe"),
                columns: len,
                codes: &vec![0x22; len / 2],
                scales: &vec![scale; len / group as usize],
                biases: &[],
                numbers: DType::U8,
                global: &[],
                matrix: 1,
            };
            let packed = rows.pack(0, dtype, &mut vec![0; dtype.block_bytes()]);
            let is_fine = match mode {
                "mxfp4" => scale != 0xff,
                _ => scale < 0x7f,
            };
            assert_eq!(packed.is_ok(), is_fine, "{mode}: {scale:#x}");
            assert!(!(bad.contains(&scale) && is_fine));
        }
    }
}

#[test]
fn floats_that_are_none_are_refused() {
    for (scale, code, is_fine) in [(0x7f, 0x38, true), (0xff, 0x38, false), (0x7f, 0xff, false)] {
        let rows = Rows {
            recipe: Recipe::new("mxfp8", 8, 32).expect("a recipe"),
            columns: 32,
            codes: &[code; 32],
            scales: &[scale],
            biases: &[],
            numbers: DType::U8,
            global: &[],
            matrix: 1,
        };
        let mut floats = [0; 64];
        let packed = rows.pack(0, DType::BF16, &mut floats);
        assert_eq!(packed.is_ok(), is_fine, "{scale:#x} {code:#x}");
        assert!(!is_fine || floats == [0x80, 0x3f].repeat(32)[..]);
    }
}

#[test]
fn each_matrix_of_a_stack_has_its_scale() {
    let global: Vec<u8> = [2688.0f32, 5376.0]
        .into_iter()
        .flat_map(f32::to_le_bytes)
        .collect();
    let rows = Rows {
        recipe: Recipe::new("nvfp4", 4, 16).expect("a recipe"),
        columns: 16,
        // One times one, which half and twice are here.
        codes: &[0x22; 32],
        scales: &[0x38; 4],
        biases: &[],
        numbers: DType::U8,
        global: &global,
        matrix: 2,
    };
    for (row, expected) in [1.0, 1.0, 2.0, 2.0].into_iter().enumerate() {
        let mut values = [0.0; 16];
        rows.decode(row, &mut values);
        assert_eq!(values, [expected; 16]);
    }
}
