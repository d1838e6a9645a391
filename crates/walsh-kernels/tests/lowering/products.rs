//! What products and embeddings are lowered to.

use walsh_core::ops::{EmbeddingRows, MatMul, Scale};
use walsh_core::{Activations, Tensor};
use walsh_formats::DType;
use walsh_kernels::{Dispatch, Limits, Touch};

use crate::paper::{Bench, H200, names, separate};

impl Bench {
    pub(crate) fn product(&self, weight: &Tensor, input: &Tensor) -> MatMul {
        MatMul {
            weight: weight.clone(),
            input: input.clone(),
            bias: None,
            output: self.tensor(DType::F32, &[input.shape()[0], weight.shape()[0]]),
        }
    }

    /// What a product of this shape runs last.
    fn product_of(&self, dtype: DType, [m, n, k]: [u64; 3]) -> Dispatch {
        let weight = self.tensor(dtype, &[n, k]);
        let op = self.product(&weight, &self.tensor(DType::F32, &[m, k]));
        self.lower(vec![op.into()]).unwrap().pop().unwrap()
    }
}

#[test]
fn products_of_one_input_share_its_8_bit_form() {
    let bench = separate();
    let input = bench.tensor(DType::F32, &[1, 512]);
    let product = |dtype| bench.product(&bench.tensor(dtype, &[64, 512]), &input);
    let overwrite = Scale {
        input: bench.tensor(DType::F32, &[1, 512]),
        factor: 2.0,
        output: input.clone(),
    };
    let lowered = bench
        .lower(vec![
            product(DType::Q4K).into(),
            product(DType::Q6K).into(),
            // Tasks of this type are of one run: another order of the same numbers.
            product(DType::Q8_0).into(),
            overwrite.into(),
            product(DType::Q4K).into(),
        ])
        .unwrap();
    let [form, product] = ["quantise", "matmul_blocks"];
    assert_eq!(
        names(&lowered),
        [form, product, product, form, product, "map", form, product]
    );
    let barriers: Vec<bool> = lowered.iter().map(|dispatch| dispatch.barrier).collect();
    assert_eq!(
        barriers,
        [false, true, false, false, true, false, true, true]
    );
}

#[test]
fn the_kernel_follows_the_rows_of_the_input() {
    let bench = separate();
    for (rows, bucket, groups) in [(1, 1, 1), (2, 4, 1), (4, 4, 1), (5, 8, 1), (20, 8, 3)] {
        let dispatch = bench.product_of(DType::Q4K, [rows, 64, 512]);
        assert_eq!(dispatch.variant.constant("ROWS"), bucket, "{rows} rows");
        assert_eq!(dispatch.groups[1], groups, "{rows} rows");
    }
    for dtype in [DType::Q4K, DType::F16, DType::BF16] {
        let tiled = bench.product_of(dtype, [1025, 4096, 512]);
        assert_eq!(tiled.variant.kernel().name, "matmul_tiles");
        assert_eq!(tiled.groups, [64, 9, 1]);
    }
    // Few rows, rows that are not whole blocks of 32, and floats that tensor cores would round.
    for (dtype, rows, k) in [
        (DType::F16, 32, 512),
        (DType::BF16, 1025, 520),
        (DType::F32, 1025, 512),
    ] {
        let floats = bench.product_of(dtype, [rows, 4096, k]);
        assert_eq!(floats.variant.kernel().name, "matmul_floats");
    }
}

#[test]
fn tiles_fit_the_threadgroup_memory() {
    let tile = |threadgroup_bytes| {
        let limits = Limits {
            threadgroup_bytes,
            joins: false,
            ..H200
        };
        Bench::new(limits).product_of(DType::Q6K, [256, 64, 256])
    };
    assert_eq!(tile(48 << 10).variant.constant("TILE_M"), 128);
    assert_eq!(tile(32 << 10).variant.constant("TILE_M"), 64);
    assert_eq!(tile(16 << 10).variant.kernel().name, "matmul_blocks");
}

#[test]
fn an_input_that_is_to_stay_as_it_is_is_not_rounded_for_tiles() {
    let bench = Bench::new(Limits {
        activations: Activations::F32,
        ..H200
    });
    let dispatch = bench.product_of(DType::Q6K, [256, 64, 256]);
    assert_eq!(dispatch.variant.kernel().name, "matmul_blocks");
    assert_eq!(dispatch.variant.constant("PLANES"), 3);
}

#[test]
fn a_device_without_products_of_bfloat16_matrices_has_no_tiles() {
    let older = Bench::new(Limits {
        bfloat_matrices: false,
        fragment_bytes: 0,
        warpgroup_matrices: false,
        cluster_groups: 1,
        joins: false,
        ..H200
    });
    for rows in [1, 33, 1025] {
        let weight = older.tensor(DType::Q4K, &[4096, 512]);
        let op = older.product(&weight, &older.tensor(DType::F32, &[rows, 512]));
        let lowered = older.lower(vec![op.into()]).unwrap();
        assert_eq!(names(&lowered), ["quantise", "matmul_blocks"], "{rows}");
    }
}

#[test]
fn reshapes_of_an_input_share_no_8_bit_form() {
    let bench = separate();
    let input = bench.tensor(DType::F32, &[1, 512]);
    let product = |k| {
        let input = input.reshape(&[512 / k, k]).unwrap();
        bench.product(&bench.tensor(DType::Q8_0, &[64, k]), &input)
    };
    let ops = [512, 256, 512, 256].map(|k| product(k).into()).to_vec();
    let [form, product] = ["quantise", "matmul_blocks"];
    assert_eq!(
        names(&bench.lower(ops).unwrap()),
        [form, product, form, product, product, product]
    );
}

#[test]
fn a_tile_is_shared_by_groups_where_there_are_few_tiles() {
    let bench = separate();
    let weight = bench.tensor(DType::Q4K, &[1024, 4096]);
    let mut op = bench.product(&weight, &bench.tensor(DType::F32, &[100, 4096]));
    op.bias = Some(bench.tensor(DType::F32, &[1024]));
    let lowered = bench.lower(vec![op.into()]).unwrap();
    assert_eq!(
        names(&lowered),
        ["narrow_rows", "matmul_tiles", "sum_parts"]
    );
    assert_eq!(lowered[1].groups, [16, 1, 8]);
    assert!(lowered[2].barrier, "the sum reads what the tiles leave");
    // The bias is added once, to the sum.
    assert_eq!(lowered[1].buffers[2].span.bytes, 0);
    assert_eq!(lowered[2].buffers[1].span.bytes, 4 * 1024);
}

#[test]
fn loads_are_as_wide_as_the_offset_and_the_rows_allow() {
    let bench = separate();
    let align = |dtype, k, offset| {
        let weight = bench.shifted(dtype, &[3, k], offset);
        let op = bench.product(&weight, &bench.tensor(DType::F32, &[1, k]));
        let lowered = bench.lower(vec![op.into()]).unwrap();
        lowered.last().unwrap().variant.constant("ALIGN")
    };
    assert_eq!(align(DType::Q4K, 4096, 0), 16);
    assert_eq!(align(DType::Q4K, 4096, 8), 4);
    assert_eq!(align(DType::Q4K, 4096, 6), 2);
    // Rows of 210 bytes, and of eight times as many.
    assert_eq!(align(DType::Q6K, 256, 0), 2);
    assert_eq!(align(DType::Q6K, 2048, 0), 16);
    assert_eq!(align(DType::Q4_0, 576, 0), 4);
}

#[test]
fn long_rows_are_shared_by_simdgroups_where_there_are_few() {
    let bench = separate();
    // A simdgroup takes two rows and a stage of 4096 numbers, a group has four simdgroups.
    assert_eq!(
        bench.product_of(DType::Q4K, [1, 14336, 4096]).groups[0],
        1792
    );
    assert_eq!(
        bench.product_of(DType::Q4K, [1, 4096, 14336]).groups[0],
        2048
    );
    assert_eq!(bench.product_of(DType::Q4K, [1, 1024, 4096]).groups[0], 256);
}

#[test]
fn ids_are_checked_before_rows_are_fetched() {
    let bench = separate();
    let embedding = EmbeddingRows {
        table: bench.tensor(DType::Q5_0, &[100, 640]),
        ids: bench.tensor(DType::I32, &[3]),
        scale: 1.0,
        output: bench.tensor(DType::F32, &[3, 640]),
    };
    let lowered = bench.lower(vec![embedding.into()]).unwrap();
    assert_eq!(names(&lowered), ["check_ids", "embedding"]);
    assert!(lowered[1].barrier, "the gathering reads the verdict");
    let verdict = &lowered[1].buffers[2];
    assert_eq!((verdict.span.bytes, verdict.touch), (4, Touch::Reads));
}

#[test]
fn an_input_of_2_to_the_31_numbers_is_refused() {
    let bench = separate();
    let rows = (1 << 31) / 256;
    let weight = bench.tensor(DType::Q4K, &[1, 256]);
    let op = bench.product(&weight, &bench.tensor(DType::F32, &[rows, 256]));
    let error = bench.lower(vec![op.into()]).unwrap_err().to_string();
    assert!(error.contains("2^31"), "{error}");
}

#[test]
fn a_grid_that_no_device_has_is_refused() {
    let bench = separate();
    let weight = bench.tensor(DType::F16, &[1, 8]);
    let op = bench.product(&weight, &bench.tensor(DType::F32, &[8 * 70_000, 8]));
    let error = bench.lower(vec![op.into()]).unwrap_err().to_string();
    let expected = "MatMul is not supported by the paper backend: ";
    assert!(
        error.contains("grid") && error.starts_with(expected),
        "{error}"
    );
}
