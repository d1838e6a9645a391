//! Random lists: a list gives the bits that its ops give one after the other,
//! whatever runs at the same time.

mod simulated;

use conformance::{Rng, Target, targets};
use walsh::formats::ggml;
use walsh::formats::kv::Overlay;
use walsh::ops::{
    Activation, Add, ArgMax, Attention, EmbeddingRows, ExpertMatMul, ExpertRoute, Fresh,
    GatedActivation, KvDecode, KvStore, Mask, MatMul, Op, Pairing, RmsNorm, Rope, RopeConfig,
    Scale, Scoring, ShortConv, SoftCap, SumBefore, VectorSpace,
};
use walsh::{
    Activations, Buffer, CacheKind, CacheSide, DType, Device, KvCache, KvCacheOptions,
    OverlayOptions, Tensor,
};

/// Numbers per row, rows of the arena, and the most rows of an op: enough for
/// several workers to share an op, and for ops to run side by side.
const WIDTH: u64 = 64;
const ROWS: u64 = 640;
const MOST: usize = 160;
const TOKENS: u64 = 32;

/// The memory that random ops work in. Ops take overlapping views of the arena.
struct World {
    device: Device,
    arena: Tensor,
    ids: Tensor,
    positions: Tensor,
    /// Weights with rows of the arena's width, and of half of it.
    quantised: [Tensor; 2],
    /// As many experts as a row has numbers, so that the index of any is one.
    experts: Tensor,
    /// A ring, and a global cache with an overlay.
    caches: [KvCache; 2],
}

impl World {
    fn new(device: &Device, seed: u64) -> Self {
        let mut rng = Rng(seed);
        let numbers = rng.normals((ROWS * WIDTH) as usize);
        let weights = rng.normals((WIDTH * WIDTH) as usize);
        let quantised = [WIDTH, WIDTH / 2].map(|k| {
            let weights = &weights[..(WIDTH * k) as usize];
            let mut blocks = vec![0; weights.len() / 32 * DType::Q4_0.block_bytes()];
            ggml::encode(DType::Q4_0, weights, &mut blocks).unwrap();
            device
                .tensor_from_bytes(DType::Q4_0, &[WIDTH, k], &blocks)
                .unwrap()
        });
        let mut blocks = Vec::new();
        for _ in 0..WIDTH {
            let weights = rng.normals((WIDTH * WIDTH) as usize);
            let mut of_expert = vec![0; weights.len() / 32 * DType::Q4_0.block_bytes()];
            ggml::encode(DType::Q4_0, &weights, &mut of_expert).unwrap();
            blocks.extend(of_expert);
        }
        let experts = device
            .tensor_from_bytes(DType::Q4_0, &[WIDTH; 3], &blocks)
            .unwrap();
        let ids: Vec<i32> = (0..TOKENS as i32).map(|i| i * 7 % 64).collect();
        let positions: Vec<i32> = (50..50 + TOKENS as i32).collect();
        let ring = KvCacheOptions {
            codecs: "k=tq4,v=f16".parse().unwrap(),
            kv_heads: 1,
            head_dim: WIDTH,
            capacity: 64,
            kind: CacheKind::Ring,
            sequences: 1,
            overlay: None,
        };
        let global = KvCacheOptions {
            capacity: 100,
            kind: CacheKind::Global,
            overlay: Some(OverlayOptions {
                tokens: Overlay {
                    first: 4,
                    recent: 8,
                    codec: None,
                },
                slack: TOKENS,
            }),
            ..ring
        };
        Self {
            arena: device.tensor(&[ROWS, WIDTH], &numbers).unwrap(),
            ids: device.tensor(&[TOKENS], &ids).unwrap(),
            positions: device.tensor(&[TOKENS], &positions).unwrap(),
            quantised,
            experts,
            caches: [ring, global].map(|options| KvCache::new(device, options).unwrap()),
            device: device.clone(),
        }
    }

    /// `count` rows of the arena from anywhere on, most often from a row's
    /// beginning.
    fn view(&self, rng: &mut Rng, count: u64) -> Tensor {
        let most = ROWS - count;
        let mut start = rng.below(most as usize + 1) as u64 * WIDTH;
        if rng.below(4) == 0 && start > 0 {
            start -= rng.below(WIDTH as usize) as u64;
        }
        let buffer = self.arena.buffer().clone();
        Tensor::new(buffer, start * 4, DType::F32, &[count, WIDTH]).unwrap()
    }

    /// Rows as heads of one number row each.
    fn heads(&self, rng: &mut Rng, tokens: u64, heads: u64) -> Tensor {
        let view = self.view(rng, tokens * heads);
        view.reshape(&[tokens, heads, WIDTH]).unwrap()
    }

    /// One row without its dimension.
    fn row(&self, rng: &mut Rng) -> Tensor {
        self.view(rng, 1).reshape(&[WIDTH]).unwrap()
    }

    /// A random op. It may be one that is refused, because views overlap.
    fn op(&self, rng: &mut Rng) -> Op {
        let rows = 1 + rng.below(MOST) as u64;
        let tokens = TOKENS;
        match rng.below(16) {
            0 => Scale {
                input: self.view(rng, rows),
                factor: 0.75,
                output: self.view(rng, rows),
            }
            .into(),
            1 => Add {
                a: self.view(rng, rows),
                b: self.row(rng),
                output: self.view(rng, rows),
            }
            .into(),
            2 => SoftCap {
                input: self.view(rng, rows),
                cap: 3.0,
                output: self.view(rng, rows),
            }
            .into(),
            3 => GatedActivation {
                gate: self.view(rng, rows),
                up: self.view(rng, rows),
                activation: *rng.pick(&[Activation::Silu, Activation::GeluTanh]),
                output: self.view(rng, rows),
            }
            .into(),
            4 | 5 => RmsNorm {
                input: self.view(rng, rows),
                before: (rng.below(2) == 0).then(|| SumBefore {
                    addend: self.view(rng, rows),
                    sum: self.view(rng, rows),
                }),
                weight: (rng.below(2) == 0).then(|| self.row(rng)),
                eps: 1e-5,
                after: None,
                output: self.view(rng, rows),
            }
            .into(),
            6 => {
                let weight = match rng.below(3) {
                    2 => self.view(rng, WIDTH),
                    which => self.quantised[which].clone(),
                };
                let (input, k) = (self.view(rng, rows), weight.shape()[1]);
                MatMul {
                    // The same memory serves inputs of both widths.
                    input: input.reshape(&[rows * WIDTH / k, k]).unwrap(),
                    weight,
                    bias: None,
                    output: self.view(rng, rows),
                }
                .into_op()
            }
            7 => Rope {
                input: self.heads(rng, tokens, 2),
                positions: rng.pick(&[&self.positions, &self.ids]).to_owned().clone(),
                config: RopeConfig::new(*rng.pick(&[WIDTH, 32]), 10_000.0, Pairing::Pairwise),
                output: self.heads(rng, tokens, 2),
            }
            .into(),
            8 => ArgMax {
                input: self.view(rng, tokens),
                output: self.ids.clone(),
            }
            .into(),
            9 => EmbeddingRows {
                table: self.quantised[0].clone(),
                ids: self.ids.clone(),
                scale: 1.0,
                output: self.view(rng, tokens),
            }
            .into(),
            10 => KvStore {
                keys: (rng.below(4) > 0).then(|| self.heads(rng, tokens, 1)),
                values: (rng.below(4) > 0).then(|| self.heads(rng, tokens, 1)),
                positions: self.positions.clone(),
                cache: rng.pick(&self.caches).clone(),
                sequences: None,
            }
            .into(),
            11 => KvDecode {
                cache: rng.pick(&self.caches).clone(),
                side: *rng.pick(&[CacheSide::Keys, CacheSide::Values]),
                positions: self.positions.clone(),
                sequences: None,
                space: VectorSpace::Model,
                output: self.heads(rng, tokens, 1),
            }
            .into(),
            12 => ExpertMatMul {
                weight: self.experts.clone(),
                ids: self.ids.reshape(&[tokens, 1]).unwrap(),
                input: self.view(rng, tokens),
                bias: None,
                output: self.heads(rng, tokens, 1),
            }
            .into(),
            13 => {
                let weights = self.view(rng, 1).buffer().clone();
                let row = rng.below(ROWS as usize) as u64;
                ExpertRoute {
                    logits: self.view(rng, tokens),
                    bias: None,
                    scoring: Scoring::Sigmoid { normalised: false },
                    scale: 1.0,
                    ids: self.ids.reshape(&[tokens, 1]).unwrap(),
                    weights: Tensor::new(weights, 4 * row * WIDTH, DType::F32, &[tokens, 1])
                        .unwrap(),
                }
                .into()
            }
            // Its state is read and written.
            14 => ShortConv {
                input: self.view(rng, tokens),
                weight: self.view(rng, 4).reshape(&[WIDTH, 4]).unwrap(),
                silu: true,
                state: self.view(rng, 3).reshape(&[1, 3, WIDTH]).unwrap(),
                positions: self.positions.clone(),
                sequences: None,
                output: self.view(rng, tokens),
            }
            .into(),
            _ => self.attention(rng, tokens),
        }
    }

    fn attention(&self, rng: &mut Rng, tokens: u64) -> Op {
        let mask = Mask {
            window: Some(4),
            ..Mask::causal(WIDTH)
        };
        let (query, output) = (self.heads(rng, tokens, 2), self.heads(rng, tokens, 2));
        if rng.below(2) == 0 {
            return Attention {
                query,
                fresh: None,
                cache: rng.pick(&self.caches).clone(),
                positions: self.positions.clone(),
                mask,
                output,
                sequences: None,
                sinks: None,
            }
            .into();
        }
        Attention {
            query,
            fresh: Some(Fresh {
                keys: self.heads(rng, tokens, 1),
                values: self.heads(rng, tokens, 1),
            }),
            cache: rng.pick(&self.caches).clone(),
            positions: self.positions.clone(),
            mask,
            output,
            sequences: None,
            sinks: None,
        }
        .into()
    }

    /// The bytes of all memory.
    fn contents(&self) -> Vec<Vec<u8>> {
        let whole = |buffer: &Buffer| {
            let view = Tensor::new(buffer.clone(), 0, DType::U8, &[buffer.bytes()]).unwrap();
            self.device.read::<u8>(&view).unwrap()
        };
        let mut all = vec![whole(self.arena.buffer()), whole(self.ids.buffer())];
        let spans = self.caches.iter().flat_map(KvCache::spans);
        all.extend(spans.map(|span| whole(&span.buffer)));
        all
    }
}

/// A product's output has as many columns as its weight has rows.
trait IntoOp {
    fn into_op(self) -> Op;
}

impl IntoOp for MatMul {
    fn into_op(mut self) -> Op {
        let shape = [self.input.shape()[0], self.weight.shape()[0]];
        let output = &self.output;
        let output = Tensor::new(output.buffer().clone(), output.offset(), DType::F32, &shape);
        self.output = output.unwrap_or(self.output);
        self.into()
    }
}

/// Every device, the simulator, and the Metal backend over its mock, which looks at each barrier.
fn everything() -> Vec<Target> {
    let simulator = simulated::target(1).unwrap();
    let metal = Target {
        name: "metal's mock".into(),
        device: walsh_metal::testing::device(1, Activations::Int8).unwrap(),
        ..simulator.clone()
    };
    let mut targets = targets().unwrap();
    targets.extend([simulator, metal]);
    targets
}

#[test]
fn a_list_gives_what_its_ops_give_one_by_one() {
    let (mut barriers, mut commands) = (0, 0);
    let (mut compared, mut cut_short) = (0, 0);
    for target in everything() {
        for seed in 0..12 {
            let case = format!("{} seed {seed}", target.name);
            let (together, alone) = (
                World::new(&target.device, seed),
                World::new(&target.device, seed),
            );
            let mut list = target.device.record();
            let mut steps = Vec::new();
            let mut rng = Rng(1000 + seed);
            while steps.len() < 40 {
                let mut same = rng;
                if list.push(together.op(&mut rng)).is_ok() {
                    let mut single = target.device.record();
                    single.push(alone.op(&mut same)).unwrap();
                    steps.push(single.finish().unwrap());
                }
            }
            let list = list.finish().unwrap();
            barriers += list.list().barriers();
            commands += list.list().commands().len();
            // Replays go on from what the runs before left.
            for replay in 0..3 {
                let one_by_one = steps.iter().find_map(|step| target.device.run(step).err());
                let at_once = target.device.run(&list).err();
                assert_eq!(at_once.is_some(), one_by_one.is_some(), "{case}");
                if at_once.is_some() {
                    // Numbers that overflowed reached an op that refuses NaN.
                    cut_short += 1;
                    break;
                }
                compared += 1;
                let equal = together.contents() == alone.contents();
                assert!(equal, "{case} replay {replay}:\n{list}");
            }
        }
    }
    // Neither all nor no ops wait for others, and few runs end early, or the
    // test would test nothing.
    assert!(cut_short < compared / 4, "{cut_short} against {compared}");
    assert!(barriers > commands / 4 && barriers < commands * 9 / 10);
}

#[test]
fn products_of_reshapes_are_those_of_each_alone() {
    let simulators = [Activations::Int8, Activations::F32].map(|a| simulated::with(1, a).unwrap());
    for target in targets().unwrap().into_iter().chain(simulators) {
        let device = &target.device;
        // Few rows, and more than a tile takes.
        for rows in [1, 40] {
            let numbers = Rng(7).normals(512 * rows);
            let input = device.tensor(&[rows as u64, 512], &numbers).unwrap();
            let product = |k: u64| {
                let weights = Rng(k).normals((64 * k) as usize);
                let mut blocks = vec![0; weights.len() / 32 * DType::Q8_0.block_bytes()];
                ggml::encode(DType::Q8_0, &weights, &mut blocks).unwrap();
                let m = 512 * rows as u64 / k;
                MatMul {
                    weight: device
                        .tensor_from_bytes(DType::Q8_0, &[64, k], &blocks)
                        .unwrap(),
                    input: input.reshape(&[m, k]).unwrap(),
                    bias: None,
                    output: device.zeros(DType::F32, &[m, 64]).unwrap(),
                }
            };
            let run = |products: &[MatMul]| {
                let mut list = device.record();
                for product in products {
                    list.push(product.clone()).unwrap();
                }
                device.run(&list.finish().unwrap()).unwrap();
                let read = |product: &MatMul| device.read::<f32>(&product.output).unwrap();
                products.iter().map(read).collect::<Vec<_>>()
            };
            let products = [512, 256, 128, 512].map(product);
            let alone: Vec<_> = products
                .iter()
                .flat_map(|product| run(std::slice::from_ref(product)))
                .collect();
            assert_eq!(run(&products), alone, "{} {rows} rows", target.name);
        }
    }
}

#[test]
fn threads_share_a_device() {
    for target in everything() {
        let (device, name) = (&target.device, &target.name);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                scope.spawn(move || {
                    let numbers = Rng(thread).normals(4096);
                    let x = device.tensor(&[4096], &numbers).unwrap();
                    let mut list = device.record();
                    for _ in 0..8 {
                        let (input, output) = (x.clone(), x.clone());
                        list.push(Scale {
                            input,
                            factor: 0.5,
                            output,
                        })
                        .unwrap();
                    }
                    let step = list.finish().unwrap();
                    for run in 1..=10 {
                        device.run(&step).unwrap();
                        let factor = 0.5f32.powi(8 * run);
                        let expected: Vec<f32> = numbers.iter().map(|n| n * factor).collect();
                        assert_eq!(device.read::<f32>(&x).unwrap(), expected, "{name}");
                    }
                });
            }
        });
    }
}
