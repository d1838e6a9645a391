//! What products and embeddings are lowered to, on a device that runs nothing.

use std::sync::{Arc, Mutex};

use walsh_core::ops::{EmbeddingRows, KvStore, MatMul, Op, Scale};
use walsh_core::{
    Access, Accesses, Activations, Backend, Buffer, Device, HostBytes, KvCache, KvCacheOptions,
    Memory, OverlayOptions, Plan, Program, Properties, Recording, Result, Span, Tensor,
};
use walsh_formats::DType;
use walsh_formats::kv::Overlay;
use walsh_kernels::{Dispatch, Fusion, Limits, List, Platform, Touch};

/// A device on paper: it lowers lists and keeps what they become.
struct Paper {
    properties: Properties,
    limits: Limits,
    lowered: Mutex<Vec<Dispatch>>,
}

struct Nothing;

impl Memory for Nothing {}
impl Program for Nothing {}

impl Backend for Paper {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn allocate(&self, _: u64) -> Result<Box<dyn Memory>> {
        Ok(Box::new(Nothing))
    }

    fn import(&self, _: Arc<dyn HostBytes>) -> Result<Box<dyn Memory>> {
        Ok(Box::new(Nothing))
    }

    fn write(&self, _: &Span, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn read(&self, _: &Span, _: &mut [u8]) -> Result<()> {
        Ok(())
    }

    fn record(self: Arc<Self>) -> Box<dyn Recording> {
        let device = walsh_core::DeviceId::unique();
        let allocate = move |bytes| {
            let memory = Box::new(Nothing);
            Ok(Buffer::new(device, bytes, Access::ReadWrite, memory))
        };
        Box::new(OnPaper {
            list: List::new(self.limits, Box::new(allocate)),
            paper: self,
        })
    }

    fn run(&self, _: &dyn Program) -> Result<()> {
        Ok(())
    }
}

struct OnPaper {
    paper: Arc<Paper>,
    list: List,
}

impl Recording for OnPaper {
    fn push(&mut self, op: &Op, accesses: &Accesses) -> Result<Plan> {
        self.list.push(op, accesses)
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn Program>> {
        *self.paper.lowered.lock().unwrap() = self.list.finish()?.dispatches;
        Ok(Box::new(Nothing))
    }
}

struct Bench {
    paper: Arc<Paper>,
    device: Device,
}

/// What an H200 is.
const H200: Limits = Limits {
    backend: "paper",
    multiprocessors: 132,
    threadgroup_bytes: 48 << 10,
    bfloat_matrices: true,
    fragment_bytes: 227 << 10,
    activations: Activations::Int8,
};

impl Bench {
    fn new(limits: Limits) -> Self {
        let paper = Arc::new(Paper {
            properties: Properties {
                backend: "paper",
                name: "paper".into(),
                architecture: "paper".into(),
                parallelism: 132,
            },
            limits,
            lowered: Mutex::default(),
        });
        let device = Device::new(paper.clone());
        Self { paper, device }
    }

    fn tensor(&self, dtype: DType, shape: &[u64]) -> Tensor {
        self.device.zeros(dtype, shape).unwrap()
    }

    /// A tensor that starts `offset` bytes into its buffer.
    fn shifted(&self, dtype: DType, shape: &[u64], offset: u64) -> Tensor {
        let bytes = self.tensor(dtype, shape).bytes();
        let buffer = self.device.allocate(bytes + offset).unwrap();
        Tensor::new(buffer, offset, dtype, shape).unwrap()
    }

    fn product(&self, weight: &Tensor, input: &Tensor) -> MatMul {
        MatMul {
            weight: weight.clone(),
            input: input.clone(),
            bias: None,
            output: self.tensor(DType::F32, &[input.shape()[0], weight.shape()[0]]),
        }
    }

    fn lower(&self, ops: Vec<Op>) -> Result<Vec<Dispatch>> {
        let mut list = self.device.record();
        for op in ops {
            list.push(op)?;
        }
        list.finish()?;
        Ok(std::mem::take(&mut self.paper.lowered.lock().unwrap()))
    }

    /// What a product of this shape runs last.
    fn product_of(&self, dtype: DType, [m, n, k]: [u64; 3]) -> Dispatch {
        let weight = self.tensor(dtype, &[n, k]);
        let op = self.product(&weight, &self.tensor(DType::F32, &[m, k]));
        self.lower(vec![op.into()]).unwrap().pop().unwrap()
    }
}

fn h200() -> Bench {
    Bench::new(H200)
}

fn names(dispatches: &[Dispatch]) -> Vec<&'static str> {
    let name = |dispatch: &Dispatch| dispatch.variant.kernel().name;
    dispatches.iter().map(name).collect()
}

#[test]
fn products_of_one_input_share_its_8_bit_form() {
    let bench = h200();
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
    let bench = h200();
    for (rows, bucket, groups) in [(1, 1, 1), (2, 4, 1), (4, 4, 1), (5, 8, 1), (20, 8, 3)] {
        let dispatch = bench.product_of(DType::Q4K, [rows, 64, 512]);
        assert_eq!(dispatch.variant.constant("ROWS"), bucket, "{rows} rows");
        assert_eq!(dispatch.groups[1], groups, "{rows} rows");
    }
    let tiled = bench.product_of(DType::Q4K, [1025, 4096, 512]);
    assert_eq!(tiled.variant.kernel().name, "matmul_tiles");
    assert_eq!(tiled.groups, [64, 9, 1]);
    let floats = bench.product_of(DType::F16, [129, 65, 512]);
    assert_eq!(floats.variant.kernel().name, "matmul_floats");
}

#[test]
fn tiles_fit_the_threadgroup_memory() {
    let tile = |threadgroup_bytes| {
        let limits = Limits {
            threadgroup_bytes,
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
    let bench = h200();
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
    let bench = h200();
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
    let bench = h200();
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
    let bench = h200();
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
    let bench = h200();
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
    let bench = h200();
    let rows = (1 << 31) / 256;
    let weight = bench.tensor(DType::Q4K, &[1, 256]);
    let op = bench.product(&weight, &bench.tensor(DType::F32, &[rows, 256]));
    let error = bench.lower(vec![op.into()]).unwrap_err().to_string();
    assert!(error.contains("2^31"), "{error}");
}

#[test]
fn a_grid_that_no_device_has_is_refused() {
    let bench = h200();
    let weight = bench.tensor(DType::F16, &[1, 8]);
    let op = bench.product(&weight, &bench.tensor(DType::F32, &[8 * 70_000, 8]));
    let error = bench.lower(vec![op.into()]).unwrap_err().to_string();
    let expected = "MatMul is not supported by the paper backend: ";
    assert!(
        error.contains("grid") && error.starts_with(expected),
        "{error}"
    );
}

#[test]
fn neighbours_of_one_kernel_without_a_hazard_are_one_launch() {
    let bench = h200();
    let input = bench.tensor(DType::F32, &[1, 512]);
    let product = |dtype, n| bench.product(&bench.tensor(dtype, &[n, 512]), &input);
    let first = product(DType::Q4K, 256);
    let behind = bench.product(&bench.tensor(DType::Q4K, &[512, 256]), &first.output);
    let ops: Vec<Op> = vec![
        first.into(),
        product(DType::Q4K, 32).into(),
        product(DType::Q6K, 64).into(),
        behind.into(),
    ];
    let lowered = bench.lower(ops).unwrap();
    let launches = Fusion::launches(&lowered);
    let kernels: Vec<(usize, &str)> = launches
        .iter()
        .map(|launch| (launch.len(), names(&lowered[launch.clone()])[0]))
        .collect();
    let quantise = (1, "quantise");
    let wanted = [
        quantise,
        (3, "matmul_blocks"),
        quantise,
        (1, "matmul_blocks"),
    ];
    assert_eq!(kernels, wanted);
    // Groups in line: those of each end where those of the next begin.
    let three = &lowered[launches[1].clone()];
    let (grid, parts) = Fusion::grid(three);
    let ends: Vec<u32> = parts.chunks(4).map(|part| part[0]).collect();
    let groups = three.iter().map(|d| d.groups.iter().product::<u32>());
    let sums: Vec<u32> = groups
        .scan(0, |sum, own| {
            *sum += own;
            Some(*sum)
        })
        .collect();
    assert_eq!((grid, ends), ([sums[2], 1, 1], sums));
    // One text of each variant, and one entry point that names all.
    let fusion = Fusion::of(three);
    let source = fusion.source();
    let symbols: Vec<String> = three.iter().map(|d| d.variant.symbol()).collect();
    assert_eq!(source.matches("__global__").count(), 1);
    assert_eq!(fusion.symbol(), symbols.join("__"));
    for symbol in symbols {
        assert_eq!(
            source
                .matches(&format!("namespace {symbol}_text {{"))
                .count(),
            1
        );
    }
    // A launch alone is what its variant is.
    let alone = Fusion::of(&lowered[..1]);
    assert_eq!(alone.symbol(), lowered[0].variant.symbol());
    assert_eq!(alone.source(), lowered[0].variant.source(Platform::Cuda));
    assert_eq!(Fusion::grid(&lowered[..1]), (lowered[0].groups, Vec::new()));
}

#[test]
fn keys_values_and_their_overlays_are_stored_in_one_launch() {
    let bench = h200();
    let codecs = "tq4".parse().unwrap();
    let mut options = KvCacheOptions::global(codecs, 8, 128, 64);
    options.overlay = Some(OverlayOptions {
        tokens: Overlay {
            first: 4,
            recent: 32,
            codec: None,
        },
        slack: 0,
    });
    let numbers = || bench.tensor(DType::F32, &[1, 8, 128]);
    let store = KvStore {
        keys: Some(numbers()),
        values: Some(numbers()),
        positions: bench.tensor(DType::I32, &[1]),
        sequences: None,
        cache: KvCache::new(&bench.device, options).unwrap(),
    };
    let lowered = bench.lower(vec![store.into()]).unwrap();
    let launches = Fusion::launches(&lowered);
    let kernels: Vec<(usize, &str)> = launches
        .iter()
        .map(|launch| (launch.len(), names(&lowered[launch.clone()])[0]))
        .collect();
    assert_eq!(
        kernels,
        [(1, "kv_tokens"), (1, "kv_inspect"), (4, "kv_store")]
    );
}
