mod recurrent;

use walsh::formats::kv::{KvCodec, KvCodecs, Overlay};
use walsh::ops::{
    Activation, Add, ArgMax, Attention, Direction, EmbeddingRows, ExpertMatMul, ExpertRoute,
    ExpertSum, Fresh, GatedActivation, KvDecode, KvStore, Mask, MatMul, MatMulTopK, Op, Operation,
    Pairing, RmsNorm, Rope, RopeConfig, RopeScaling, Rotate, Scale, Scoring, SoftCap, SumBefore,
    TopK, VectorSpace,
};
use walsh::{CacheSide, DType, KvCache, KvCacheOptions, OverlayOptions, Result};

use crate::{MOST_SETS, Maker};
use recurrent::Recurrent;

/// An op at one size.
pub struct Workload {
    /// What is particular about it.
    pub name: String,
    /// The op.
    pub op: &'static str,
    /// How many tokens the caches hold that it attends over.
    pub stored: u64,
    make: Box<Make>,
}

type Make = dyn Fn(&mut Maker) -> Result<Op>;

impl Workload {
    fn new(
        op: &'static str,
        name: impl Into<String>,
        make: impl Fn(&mut Maker) -> Result<Op> + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            op,
            stored: 0,
            make: Box::new(make),
        }
    }

    fn over(mut self, stored: u64) -> Self {
        self.stored = stored;
        self
    }

    /// The op with tensors of its own, number `index` of a list.
    pub(crate) fn op(&self, maker: &mut Maker, index: usize) -> Result<Op> {
        maker.begin(index);
        (self.make)(maker)
    }
}

/// How large the tensors are.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    width: u64,
    feed_forward: u64,
    vocabulary: u64,
    /// How many rows products have, a single one apart.
    rows: &'static [u64],
    /// How many tokens a prompt's chunk has.
    chunk: u64,
    /// How many tokens caches hold.
    contexts: &'static [u64],
    experts: Experts,
    recurrent: Recurrent,
}

/// A mixture of experts.
#[derive(Debug, Clone, Copy)]
struct Experts {
    count: u64,
    used: u64,
    /// The width of the stream, and that inside an expert.
    width: u64,
    inner: u64,
    /// How many tokens products have, a single one apart.
    tokens: &'static [u64],
}

impl Sizes {
    /// Those of a model of 8 billion parameters, and of long contexts.
    pub const MODEL: Self = Self {
        width: 4096,
        feed_forward: 14_336,
        vocabulary: 131_072,
        rows: &[8, 16, 64, 512, 2048],
        chunk: 2048,
        contexts: &[4 << 10, 32 << 10, 128 << 10],
        // Qwen 3's of 30 billion parameters.
        experts: Experts {
            count: 128,
            used: 8,
            width: 2048,
            inner: 768,
            tokens: &[8, 64, 512],
        },
        // Qwen 3.5's of 35 billion parameters.
        recurrent: Recurrent {
            heads: 32,
            key_heads: 16,
            dim: 128,
            tokens: &[512],
        },
    };

    /// Large enough to run.
    pub const SMALL: Self = Self {
        width: 256,
        feed_forward: 512,
        vocabulary: 1024,
        rows: &[8],
        chunk: 16,
        contexts: &[64, 80],
        experts: Experts {
            count: 8,
            used: 2,
            width: 256,
            inner: 96,
            tokens: &[8],
        },
        recurrent: Recurrent {
            heads: 4,
            key_heads: 2,
            dim: 32,
            tokens: &[8],
        },
    };

    /// A product of as many rows as a chunk has.
    pub(crate) fn product(&self) -> Workload {
        product(DType::F16, [self.chunk, self.width, self.width])
    }
}

/// Every op at the sizes of a model.
#[must_use]
pub fn workloads(sizes: &Sizes) -> Vec<Workload> {
    let mut all = Vec::new();
    products(sizes, &mut all);
    decodes(sizes, &mut all);
    prefills(sizes, &mut all);
    stores(sizes, &mut all);
    for rows in [1, sizes.chunk] {
        norms(sizes, rows, &mut all);
        elementwise(sizes, rows, &mut all);
    }
    selections(sizes, &mut all);
    mixtures(sizes.experts, &mut all);
    recurrent::workloads(sizes.recurrent, &mut all);
    all
}

fn products(sizes: &Sizes, all: &mut Vec<Workload>) {
    let width = sizes.width;
    for &dtype in DType::ALL.iter().filter(|dtype| dtype.is_real()) {
        for columns in [width, sizes.feed_forward, sizes.vocabulary] {
            all.push(product(dtype, [1, columns, width]));
        }
        for &rows in sizes.rows {
            all.push(product(dtype, [rows, width, width]));
        }
    }
}

/// `[m, k] · [n, k]`, from m, n and k.
fn product(dtype: DType, [m, n, k]: [u64; 3]) -> Workload {
    let name = format!("{dtype} [{m}, {k}] · [{n}, {k}]");
    Workload::new(MatMul::NAME, name, move |maker| {
        Ok(MatMul {
            weight: maker.product_weight(dtype, &[n, k])?,
            input: maker.floats(&[m, k])?,
            bias: None,
            output: maker.output(DType::F32, &[m, n])?,
        }
        .into())
    })
}

/// Query heads, KV heads and numbers per head: of Llama 3 8B, and of Gemma 3 270M.
const HEADS: [[u64; 3]; 2] = [[32, 8, 128], [4, 1, 256]];

/// Those of other models, which fewer codecs are measured with.
const OTHER_HEADS: [[u64; 3]; 7] = [
    [16, 8, 256],
    [16, 4, 256],
    [16, 2, 512],
    [9, 3, 64],
    [28, 4, 128],
    [24, 8, 96],
    [12, 2, 128],
];

const CODECS: [&str; 6] = ["f16", "q8_0", "q4_0", "tq8", "tq4", "tq3"];

/// Those that are measured at one shape alone.
const OTHER_CODECS: [&str; 6] = ["bf16", "q5_0", "tq6", "tq5", "k=tq5,v=tq3", "tq2"];

fn decodes(sizes: &Sizes, all: &mut Vec<Workload>) {
    for &context in sizes.contexts {
        for heads in HEADS {
            all.extend(CODECS.map(|codec| decode(codec, heads, context)));
        }
        all.extend(OTHER_CODECS.map(|codec| decode(codec, HEADS[0], context)));
        all.push(policy(HEADS[0], context));
    }
    for heads in OTHER_HEADS {
        all.extend(["f16", "tq4"].map(|codec| decode(codec, heads, sizes.contexts[1])));
    }
    for codec in ["f16", "tq4"] {
        all.push(batch(codec, HEADS[0], sizes.contexts[0]));
    }
}

/// A token over a cache of one sequence.
fn decode(codec: &'static str, [heads, kv_heads, dim]: [u64; 3], context: u64) -> Workload {
    let name = format!("{codec} [1, {heads}/{kv_heads}, {dim}] over {context}");
    let make = move |maker: &mut Maker| {
        let options = KvCacheOptions::global(codecs(codec)?, kv_heads, dim, context);
        let cache = maker.cache(options)?;
        attention(maker, heads, cache, &[context as i32 - 1])
    };
    Workload::new(Attention::NAME, name, make).over(context)
}

/// The same with prepared keys and an overlay, as a budget of four bits has them.
fn policy([heads, kv_heads, dim]: [u64; 3], context: u64) -> Workload {
    let name = format!("tq4 prepared, overlay [1, {heads}/{kv_heads}, {dim}] over {context}");
    let make = move |maker: &mut Maker| {
        let mut options = KvCacheOptions::global(codecs("tq4")?, kv_heads, dim, context);
        options.overlay = Some(OverlayOptions {
            tokens: Overlay {
                first: 4,
                recent: 32,
                codec: Some(KvCodec::Dense(DType::Q8_0)),
            },
            slack: 0,
        });
        let cache = maker.cache(options)?;
        let cache = maker.prepared(cache)?;
        attention(maker, heads, cache, &[context as i32 - 1])
    };
    Workload::new(Attention::NAME, name, make).over(context)
}

/// A token of each of many sequences of a quarter to twice a length.
fn batch(codec: &'static str, [heads, kv_heads, dim]: [u64; 3], length: u64) -> Workload {
    const SEQUENCES: u64 = 64;
    let lengths: Vec<u64> = (0..SEQUENCES)
        .map(|sequence| length / 4 + sequence * 37 % SEQUENCES * (length * 7 / 4) / SEQUENCES)
        .collect();
    let stored = lengths.iter().sum::<u64>() / SEQUENCES;
    let name = format!("{codec} [{SEQUENCES}, {heads}/{kv_heads}, {dim}] over {stored} each");
    let make = move |maker: &mut Maker| {
        let mut options = KvCacheOptions::global(codecs(codec)?, kv_heads, dim, 2 * length);
        options.sequences = SEQUENCES;
        let positions: Vec<i32> = lengths.iter().map(|length| *length as i32 - 1).collect();
        let cache = maker.cache(options)?;
        attention(maker, heads, cache, &positions)
    };
    Workload::new(Attention::NAME, name, make).over(stored)
}

/// Attention of a token of each of a cache's sequences.
fn attention(maker: &mut Maker, heads: u64, cache: KvCache, positions: &[i32]) -> Result<Op> {
    let (tokens, dim) = (positions.len() as u64, cache.head_dim());
    let sequences = (tokens > 1).then(|| maker.sequences(tokens)).transpose()?;
    Ok(Attention {
        query: maker.floats(&[tokens, heads, dim])?,
        fresh: None,
        cache,
        positions: maker.positions(positions)?,
        sequences,
        mask: Mask::causal(dim),
        sinks: None,
        output: maker.output(DType::F32, &[tokens, heads, dim])?,
    }
    .into())
}

fn prefills(sizes: &Sizes, all: &mut Vec<Workload>) {
    let [heads, kv_heads, dim] = HEADS[0];
    let chunk = sizes.chunk / 4;
    for before in [0, sizes.contexts[0], sizes.contexts[1]] {
        for codec in ["f16", "tq4"] {
            let name = format!("{codec} [{chunk}, {heads}/{kv_heads}, {dim}] behind {before}");
            let make = move |maker: &mut Maker| {
                let capacity = before + chunk;
                let options = KvCacheOptions::global(codecs(codec)?, kv_heads, dim, capacity);
                Ok(Attention {
                    query: maker.floats(&[chunk, heads, dim])?,
                    fresh: Some(Fresh {
                        keys: maker.floats(&[chunk, kv_heads, dim])?,
                        values: maker.floats(&[chunk, kv_heads, dim])?,
                    }),
                    cache: maker.cache(options)?,
                    positions: maker.positions(&ascending(before, chunk))?,
                    sequences: None,
                    mask: Mask::causal(dim),
                    sinks: None,
                    output: maker.output(DType::F32, &[chunk, heads, dim])?,
                }
                .into())
            };
            all.push(Workload::new(Attention::NAME, name, make).over(before));
        }
    }
}

/// The positions of a chunk.
fn ascending(first: u64, count: u64) -> Vec<i32> {
    (first..first + count).map(|n| n as i32).collect()
}

fn stores(sizes: &Sizes, all: &mut Vec<Workload>) {
    let [_, kv_heads, dim] = HEADS[0];
    for tokens in [1, sizes.chunk] {
        for codec in CODECS {
            let name = format!("{codec} [{tokens}, {kv_heads}, {dim}]");
            let make = move |maker: &mut Maker| {
                // All ops store into one cache, each at a place of its own.
                let capacity = tokens * MOST_SETS as u64;
                let options = KvCacheOptions::global(codecs(codec)?, kv_heads, dim, capacity);
                let first = tokens * maker.index as u64;
                Ok(KvStore {
                    keys: Some(maker.floats(&[tokens, kv_heads, dim])?),
                    values: Some(maker.floats(&[tokens, kv_heads, dim])?),
                    positions: maker.ascending(first, tokens)?,
                    sequences: None,
                    cache: maker.output_cache(options)?,
                }
                .into())
            };
            all.push(Workload::new(KvStore::NAME, name, make));
        }
    }
    let tokens = sizes.chunk;
    for codec in CODECS {
        let name = format!("{codec} [{tokens}, {kv_heads}, {dim}]");
        let make = move |maker: &mut Maker| {
            let options = KvCacheOptions::global(codecs(codec)?, kv_heads, dim, tokens);
            Ok(KvDecode {
                cache: maker.cache(options)?,
                side: CacheSide::Keys,
                positions: maker.ascending(0, tokens)?,
                sequences: None,
                space: VectorSpace::Model,
                output: maker.output(DType::F32, &[tokens, kv_heads, dim])?,
            }
            .into())
        };
        all.push(Workload::new(KvDecode::NAME, name, make));
    }
    let shape = [tokens, kv_heads, dim];
    all.push(Workload::new(
        Rotate::NAME,
        format!("{shape:?}"),
        move |maker| {
            Ok(Rotate {
                input: maker.floats(&shape)?,
                direction: Direction::Forward,
                output: maker.output(DType::F32, &shape)?,
            }
            .into())
        },
    ));
}

fn codecs(text: &str) -> Result<KvCodecs> {
    Ok(text.parse()?)
}

fn norms(sizes: &Sizes, rows: u64, all: &mut Vec<Workload>) {
    let [heads, _, dim] = HEADS[0];
    let width = sizes.width;
    for shape in [vec![rows, width], vec![rows, heads, dim]] {
        let name = format!("{shape:?}");
        all.push(Workload::new(RmsNorm::NAME, name, move |maker| {
            Ok(RmsNorm {
                input: maker.floats(&shape)?,
                before: None,
                weight: Some(maker.floats(&shape[shape.len() - 1..])?),
                eps: 1e-5,
                after: None,
                output: maker.output(DType::F32, &shape)?,
            }
            .into())
        }));
    }
    let shape = [rows, width];
    let name = format!("{shape:?} and a sum before");
    all.push(Workload::new(RmsNorm::NAME, name, move |maker| {
        Ok(RmsNorm {
            input: maker.floats(&shape)?,
            before: Some(SumBefore {
                addend: maker.floats(&shape)?,
                sum: maker.output(DType::F32, &shape)?,
            }),
            weight: Some(maker.floats(&[width])?),
            eps: 1e-5,
            after: None,
            output: maker.output(DType::F32, &shape)?,
        }
        .into())
    }));
    let name = format!("[{rows}, {heads}, {dim}]");
    all.push(Workload::new(Rope::NAME, name, move |maker| {
        Ok(Rope {
            input: maker.floats(&[rows, heads, dim])?,
            positions: maker.ascending(0, rows)?,
            config: RopeConfig {
                dims: dim,
                base: 500_000.0,
                pairing: Pairing::Pairwise,
                scaling: RopeScaling::None,
                factors: None,
                temperature: None,
            },
            output: maker.output(DType::F32, &[rows, heads, dim])?,
        }
        .into())
    }));
}

fn elementwise(sizes: &Sizes, rows: u64, all: &mut Vec<Workload>) {
    let inner = [rows, sizes.feed_forward];
    let name = format!("{inner:?}");
    all.push(Workload::new(GatedActivation::NAME, name, move |maker| {
        Ok(GatedActivation {
            gate: maker.floats(&inner)?,
            up: maker.floats(&inner)?,
            activation: Activation::Silu,
            output: maker.output(DType::F32, &inner)?,
        }
        .into())
    }));
    let stream = [rows, sizes.width];
    let name = format!("{stream:?}");
    all.push(Workload::new(Add::NAME, name, move |maker| {
        Ok(Add {
            a: maker.floats(&stream)?,
            b: maker.floats(&stream)?,
            output: maker.output(DType::F32, &stream)?,
        }
        .into())
    }));
    let name = format!("{stream:?}");
    all.push(Workload::new(Scale::NAME, name, move |maker| {
        Ok(Scale {
            input: maker.floats(&stream)?,
            factor: 0.5,
            output: maker.output(DType::F32, &stream)?,
        }
        .into())
    }));
    let [vocabulary, width] = [sizes.vocabulary, sizes.width];
    let name = format!("q4_K [{rows}] of [{vocabulary}, {width}]");
    all.push(Workload::new(EmbeddingRows::NAME, name, move |maker| {
        Ok(EmbeddingRows {
            table: maker.weight(DType::Q4K, &[vocabulary, width])?,
            ids: maker.ids(vocabulary, rows)?,
            scale: 1.0,
            output: maker.output(DType::F32, &[rows, width])?,
        }
        .into())
    }));
}

fn selections(sizes: &Sizes, all: &mut Vec<Workload>) {
    let shape = [1, sizes.vocabulary];
    all.push(Workload::new(
        ArgMax::NAME,
        format!("{shape:?}"),
        move |maker| {
            Ok(ArgMax {
                input: maker.floats(&shape)?,
                output: maker.output(DType::I32, &[1])?,
            }
            .into())
        },
    ));
    let k = 40;
    all.push(Workload::new(
        TopK::NAME,
        format!("{shape:?}, k = {k}"),
        move |maker| {
            Ok(TopK {
                input: maker.floats(&shape)?,
                values: maker.output(DType::F32, &[1, k])?,
                indices: maker.output(DType::I32, &[1, k])?,
            }
            .into())
        },
    ));
    let (width, vocabulary) = (sizes.width, sizes.vocabulary);
    all.push(Workload::new(
        MatMulTopK::NAME,
        format!("q8_0 [1, {width}] · [{vocabulary}, {width}], k = {k}"),
        move |maker| {
            let weight = maker.weight(DType::Q8_0, &[vocabulary, width])?;
            let input = maker.floats(&[1, width])?;
            Ok(MatMulTopK {
                screen: maker.screen(&weight, &input, k)?,
                weight,
                input,
                values: maker.output(DType::F32, &[1, k])?,
                indices: maker.output(DType::I32, &[1, k])?,
            }
            .into())
        },
    ));
    all.push(Workload::new(
        SoftCap::NAME,
        format!("{shape:?}"),
        move |maker| {
            Ok(SoftCap {
                input: maker.floats(&shape)?,
                cap: 30.0,
                output: maker.output(DType::F32, &shape)?,
            }
            .into())
        },
    ));
}

fn mixtures(sizes: Experts, all: &mut Vec<Workload>) {
    let Experts {
        count,
        used,
        width,
        inner,
        ..
    } = sizes;
    for &tokens in [1].iter().chain(sizes.tokens) {
        let name = format!("{used} of [{tokens}, {count}]");
        all.push(Workload::new(ExpertRoute::NAME, name, move |maker| {
            Ok(ExpertRoute {
                logits: maker.floats(&[tokens, count])?,
                bias: None,
                scoring: Scoring::SoftmaxOfChosen,
                scale: 1.0,
                ids: maker.output(DType::I32, &[tokens, used])?,
                weights: maker.output(DType::F32, &[tokens, used])?,
            }
            .into())
        }));
        for dtype in [DType::Q4K, DType::Q8_0, DType::F16] {
            let name = format!("{dtype} [{tokens}, {used}, {width}] · [{count}, {inner}, {width}]");
            all.push(Workload::new(ExpertMatMul::NAME, name, move |maker| {
                Ok(ExpertMatMul {
                    weight: maker.product_weight(dtype, &[count, inner, width])?,
                    ids: maker.experts(count, [tokens, used])?,
                    input: maker.floats(&[tokens, width])?,
                    bias: None,
                    output: maker.output(DType::F32, &[tokens, used, inner])?,
                }
                .into())
            }));
        }
        let name = format!("[{tokens}, {used}, {width}]");
        all.push(Workload::new(ExpertSum::NAME, name, move |maker| {
            Ok(ExpertSum {
                input: maker.floats(&[tokens, used, width])?,
                weights: maker.floats(&[tokens, used])?,
                onto: None,
                output: maker.output(DType::F32, &[tokens, width])?,
            }
            .into())
        }));
    }
}
