use walsh::formats::kv::{KvCodec, KvCodecs};
use walsh::ops::{Attention, Fresh, Mask};
use walsh::{CacheKind, DType, KvCacheOptions};

use super::host_cache::HostCache;
use super::kv::{overlay, specs, tokens, uneven};
use super::shared::{Problems, Table, rng};
use crate::reference::{AttentionShape, Row, Softmax, attention};
use crate::{Expected, HostTensor, Leave, Problem};

pub(super) const TABLES: &[Table] = &[Table::sampled(4, "Attention", attention_op)];

/// Positions of a page.
const PAGE: i32 = walsh::PAGE as i32;

/// Query tokens of one sequence.
#[derive(Debug, Clone, Copy)]
struct Run {
    sequence: usize,
    /// The position of the first query.
    first: i32,
    /// How many queries there are.
    queries: i32,
}

/// One attention over a cache.
#[derive(Debug, Clone)]
struct Case {
    options: KvCacheOptions,
    heads: u64,
    runs: Vec<Run>,
    window: Option<u32>,
    softcap: Option<f32>,
    sinks: bool,
    /// Whether keys are prepared.
    prepared: bool,
    /// Whether a query has a number that is none.
    nan: bool,
    /// The sequence whose first page those behind it have too.
    shared: Option<usize>,
}

impl Case {
    /// A case of a global cache that has room to spare.
    fn new(codecs: KvCodecs, head_dim: u64, first: i32, queries: i32) -> Self {
        let capacity = (first + queries) as u64 + 5;
        Self {
            options: KvCacheOptions::global(codecs, 2, head_dim, capacity),
            heads: 4,
            runs: vec![Run {
                sequence: 0,
                first,
                queries,
            }],
            window: None,
            softcap: None,
            sinks: false,
            prepared: false,
            nan: false,
            shared: None,
        }
    }

    fn grouped(mut self, kv_heads: u64, group: u64) -> Self {
        self.options.kv_heads = kv_heads;
        self.heads = kv_heads * group;
        self
    }

    fn ring(mut self, capacity: u64, window: u32) -> Self {
        self.options.capacity = capacity;
        self.options.kind = CacheKind::Ring;
        self.window = Some(window);
        self
    }
}

/// The cases that both forms share.
fn cases(queries: &[i32]) -> Vec<Case> {
    let mut cases = Vec::new();
    for (index, (spec, head_dim)) in specs().into_iter().chain(uneven()).enumerate() {
        for first in [0, 3, 70] {
            cases.push(Case::new(
                spec,
                head_dim,
                first,
                queries[index % queries.len()],
            ));
        }
    }
    let spec = |text: &str| text.parse::<KvCodecs>().expect("a spec");
    // Every group size that models use, and contexts around the sizes of tiles.
    for text in ["f16", "tq4"] {
        for group in 1..=16 {
            let base = Case::new(spec(text), 64, 37, queries[group as usize % queries.len()]);
            cases.push(base.grouped([1, 3][group as usize % 2], group));
        }
        for first in [15, 16, 31, 32, 63, 64, 127, 128, 255, 256, 257, 1000] {
            cases.push(Case::new(spec(text), 64, first, 1).grouped(1, 3));
        }
    }
    // What few query rows read as it is stored, in register blocks of each size and behind the last whole one.
    let dense = KvCodec::dense_types().map(|dtype| KvCodecs::both(KvCodec::Dense(dtype)));
    for codecs in dense.chain(["tq8", "k=q8_0,v=tq8"].map(spec)) {
        for (group, dim) in [
            (1, 160),
            (2, 64),
            (3, 96),
            (4, 256),
            (7, 128),
            (8, 32),
            (9, 64),
        ] {
            cases.push(Case::new(codecs, dim, 77, 1).grouped(2, group));
        }
    }
    for text in ["f16", "bf16", "tq8+norot"] {
        for (group, dim) in [(1, 48), (3, 80), (4, 16), (6, 112)] {
            cases.push(Case::new(spec(text), dim, 21, 1).grouped(1, group));
        }
    }
    for text in ["f32", "q8_0", "tq8", "k=tq5,v=tq4+norot"] {
        for queries in queries {
            let plain = Case::new(spec(text), 128, 150, *queries).grouped(2, 3);
            for window in [1, 2, 17, 64, 10_000] {
                cases.push(Case {
                    window: Some(window),
                    ..plain.clone()
                });
            }
            cases.push(Case {
                softcap: Some(50.0),
                ..plain.clone()
            });
            cases.push(Case {
                softcap: Some(2.0),
                window: Some(33),
                sinks: true,
                ..plain.clone()
            });
            cases.push(Case {
                sinks: true,
                ..plain
            });
        }
    }
    // A ring at every offset of its beginning.
    for first in 0..40 {
        let queries = queries[first as usize % queries.len()];
        let capacity = 16 + queries as u64;
        cases.push(Case::new(spec("tq4"), 64, first, queries).ring(capacity, 16));
    }
    cases.push(Case::new(spec("f16"), 256, 100_000, 3).ring(600, 512));
    for text in ["f16", "tq4", "tq8"] {
        let mut case = Case::new(spec(text), 64, 150, queries[1]).grouped(2, 3);
        case.nan = true;
        cases.push(case.clone());
        // No score of any part is a number.
        case.window = Some(20);
        cases.push(case);
    }
    // Heads of every kind of size, with rows of queries that do and do not share a pass.
    for dim in [33, 66, 100, 272, 300] {
        for (index, queries) in queries.iter().enumerate() {
            let base = Case::new(spec(["f16", "f32"][index % 2]), dim, 45, *queries);
            cases.push(base.grouped(2, [1, 3][index % 2]));
        }
    }
    policies(&mut cases, queries);
    cases
}

/// Rings that have forgotten all that the first queries see.
fn forgotten(cases: &mut Vec<Case>) {
    for (text, dim) in [("f16", 64), ("tq4", 128), ("tq8", 80), ("q8_0", 256)] {
        for (queries, capacity, window) in [(2, 1, 1), (8, 3, 4), (40, 7, 5), (5, 2, 10_000)] {
            let spec = text.parse::<KvCodecs>().expect("a spec");
            let base = Case::new(spec, dim, 150, queries).grouped(2, 3);
            let case = base.ring(capacity, window);
            cases.push(case.clone());
            cases.push(Case {
                sinks: true,
                ..case.clone()
            });
            cases.push(Case {
                softcap: Some(20.0),
                ..case
            });
        }
    }
}

/// Overlays, prepared keys, and several sequences.
fn policies(cases: &mut Vec<Case>, queries: &[i32]) {
    let spec = |text: &str| text.parse::<KvCodecs>().expect("a spec");
    for (index, (text, dim)) in [
        ("tq4", 64),
        ("k=tq5,v=tq3", 128),
        ("k=tq4,v=tq2", 256),
        ("k=tq6,v=tq4", 80),
        ("k=f16,v=tq4", 64),
        ("k=tq4+norot,v=q4_0", 64),
        ("q4_0+rot", 128),
        ("tq3", 512),
    ]
    .into_iter()
    .enumerate()
    {
        for (turn, first) in [0, 2, 7, 40, 150].into_iter().enumerate() {
            let queries = queries[(index + turn) % queries.len()];
            let slack = queries as u64 - 1;
            let kept = [
                overlay(4, 32, slack),
                overlay(3, 9, slack + 2),
                overlay(5, 0, 0),
            ];
            let mut case = Case::new(spec(text), dim, first, queries).grouped(2, 3);
            case.options.overlay = Some(kept[turn % 3]);
            case.prepared = (index + turn) % 3 != 1;
            case.sinks = turn == 3;
            case.softcap = (turn == 4).then_some(20.0);
            cases.push(case.clone());
            // A window that ends within the overlay's recent tokens, at their edge, and behind them.
            case.window = Some([6, 9, 33][turn % 3]);
            cases.push(case.clone());
            let window = case.window.unwrap_or(1);
            cases.push(case.ring(u64::from(window) + queries as u64, window));
        }
    }
    for kept in [None, Some(overlay(2, 5, 64))] {
        for text in ["f16", "tq4"] {
            let mut case = Case::new(spec(text), 64, 0, 1).grouped(2, 2);
            case.options.sequences = 5;
            case.options.capacity = 200;
            case.options.overlay = kept;
            case.prepared = kept.is_some();
            let run = |sequence, first, queries| Run {
                sequence,
                first,
                queries,
            };
            // More tokens than a block takes, so that blocks begin and end within sequences.
            case.runs = vec![run(3, 90, 2), run(0, 0, 1), run(4, 130, 7), run(1, 17, 40)];
            cases.push(case.clone());
            case.runs = vec![run(2, 100, 1), run(1, 3, 1), run(0, 199, 1), run(4, 64, 1)];
            case.window = Some(50);
            cases.push(case);
        }
    }
}

/// Caches of pages in any order: sequences of unequal length, shared pages, windows, overlays.
fn paged(cases: &mut Vec<Case>) {
    let run = |sequence, first, queries| Run {
        sequence,
        first,
        queries,
    };
    let uneven = [
        run(3, 90, 2),
        run(0, 0, 1),
        run(4, 191, 7),
        run(1, 17, 40),
        run(2, 64, 1),
    ];
    let single = [
        run(1, 150, 1),
        run(4, 63, 1),
        run(0, 64, 1),
        run(2, 319, 1),
        run(3, 0, 1),
    ];
    let alone = [run(0, 200, 1)];
    let many: Vec<Run> = (0..33).map(|s| run(s, (s * 37 % 130) as i32, 1)).collect();
    for (index, text) in [
        "tq4",
        "f16",
        "k=tq5,v=tq3",
        "q8_0",
        "k=f16,v=tq8+norot",
        "tq4+norm",
    ]
    .into_iter()
    .enumerate()
    {
        let codecs = text.parse::<KvCodecs>().expect("a spec");
        let kept = (index % 2 == 0).then(|| overlay(2, 9, 40));
        for (turn, runs) in [&uneven[..], &single, &alone, &many]
            .into_iter()
            .enumerate()
        {
            // Each codec with half of them, and many sequences with two codecs.
            let wanted = match turn {
                3 => index < 2,
                _ => (index + turn) % 2 == 0,
            };
            if !wanted {
                continue;
            }
            let dim = [64, 128, 96, 64][(index + turn) % 4];
            let mut case = Case::new(codecs, dim, 0, 1).grouped([2, 1][turn / 3], [2, 3][turn % 2]);
            case.options.sequences = runs.len() as u64;
            case.options.capacity = 320;
            case.options.kind = CacheKind::Paged {
                pages: 3 * runs.len() as u64 + 7,
            };
            case.options.overlay = kept;
            case.prepared = kept.is_some();
            case.runs = runs.to_vec();
            cases.push(case.clone());
            case.window = Some([50, 70, 3, 129][turn]);
            case.softcap = (turn == 1).then_some(20.0);
            case.sinks = turn == 2;
            cases.push(case.clone());
            if kept.is_none() {
                case.window = None;
                let long = runs.iter().find(|run| run.first >= PAGE);
                case.shared = long.map(|run| run.sequence);
                cases.push(case);
            }
        }
    }
}

/// Decodes, and prefills behind them.
fn attention_op() -> Problems {
    let mut decodes = cases(&[1, 2, 5, 8, 40]);
    forgotten(&mut decodes);
    paged(&mut decodes);
    let decodes = decodes.into_iter().map(|case| problem(case, false));
    let mut prefills = cases(&[1, 7, 16, 33, 65]);
    paged(&mut prefills);
    Box::new(decodes.chain(prefills.into_iter().map(|case| problem(case, true))))
}

fn name(case: &Case, prefill: bool) -> String {
    let Case { options, heads, .. } = case;
    let runs: Vec<String> = case
        .runs
        .iter()
        .map(|run| format!("{} from {} of {}", run.queries, run.first, run.sequence))
        .collect();
    let mut name = format!(
        "Attention {}{} {:?} {}: [{}, {heads}/{}, {}]",
        options.codecs,
        if prefill { " + fresh" } else { "" },
        options.kind,
        options.capacity,
        runs.join(" + "),
        options.kv_heads,
        options.head_dim,
    );
    if let Some(window) = case.window {
        name.push_str(&format!(" window {window}"));
    }
    if let Some(softcap) = case.softcap {
        name.push_str(&format!(" softcap {softcap}"));
    }
    if let Some(overlay) = options.overlay {
        let tokens = overlay.tokens;
        name.push_str(&format!(" overlay {}+{}", tokens.first, tokens.recent));
    }
    let marks = [
        ("sinks", case.sinks),
        ("prepared", case.prepared),
        ("NaN", case.nan),
        ("shared", case.shared.is_some()),
    ];
    for (what, is) in marks {
        if is {
            name.push_str(&format!(" {what}"));
        }
    }
    name
}

/// The rows that a run's queries see.
struct Context {
    /// As the codes have them, and, for prefill, the chunk's own.
    rows: Vec<Row>,
    /// The cached ones as the overlay has them.
    overlaid: Vec<Row>,
}

impl Context {
    /// The rows as a query at a position reads them.
    fn seen_by<'a>(&'a self, own: i64, options: &KvCacheOptions) -> Vec<&'a Row> {
        let kept = options.overlay.map_or((0, 0), |overlay| {
            let tokens = overlay.tokens;
            (i64::from(tokens.first), i64::from(tokens.recent))
        });
        let choose = |(index, row): (usize, &'a Row)| match self.overlaid.get(index) {
            Some(overlaid) if row_is_kept(overlaid.position, own, kept) => overlaid,
            _ => row,
        };
        self.rows.iter().enumerate().map(choose).collect()
    }
}

fn row_is_kept(position: i64, own: i64, (first, recent): (i64, i64)) -> bool {
    position < first || position > own - recent
}

fn problem(case: Case, prefill: bool) -> Problem {
    let name = name(&case, prefill);
    let (seed, mut rng) = rng(&name);
    let options = case.options;
    let mut cache = HostCache::new(options, case.prepared, &mut rng);
    let mask = Mask {
        window: case.window,
        softcap: case.softcap,
        ..Mask::causal(options.head_dim)
    };
    let sizes = AttentionShape {
        heads: case.heads as usize,
        kv_heads: options.kv_heads as usize,
        head_dim: options.head_dim as usize,
    };
    let sinks = rng.normals(sizes.heads);
    let softmax = Softmax {
        mask,
        sinks: case.sinks.then_some(&sinks),
    };
    let (mut positions, mut sequences) = (Vec::new(), Vec::new());
    let (mut query, mut fresh, mut values) = (Vec::new(), Vec::new(), Vec::new());
    let mut magnitudes = Magnitudes {
        value: 1.0,
        score: 0.0,
    };
    for run in &case.runs {
        let own: Vec<i32> = (run.first..run.first + run.queries).collect();
        // What the cache holds: all that came before, and for a decode the queries' own tokens. A ring has forgotten
        // the oldest.
        let held = run.first + if prefill { 0 } else { run.queries };
        let oldest = match options.kind {
            CacheKind::Global => 0,
            CacheKind::Ring => (held - options.capacity as i32).max(0),
            // What no query sees has no page.
            CacheKind::Paged { .. } => {
                let window = case.window.map_or(i32::MAX, |window| window as i32);
                (run.first.saturating_add(1).saturating_sub(window)).max(0)
            }
        };
        let before: Vec<i32> = (oldest..held).collect();
        let shared = match (case.shared, options.kind) {
            (Some(with), CacheKind::Paged { .. })
                if held > PAGE && cache.share(0, [with, run.sequence]) =>
            {
                PAGE
            }
            _ => 0,
        };
        for row in tokens(&mut rng, &options, &before) {
            if row.position >= i64::from(shared) {
                cache.store(run.sequence, &row);
            }
        }
        let load = |overlaid| -> Vec<Row> {
            let load = |p: &i32| cache.load(run.sequence, i64::from(*p), overlaid);
            before.iter().map(load).collect()
        };
        let mut context = Context {
            rows: load(false),
            overlaid: load(true),
        };
        let chunk = tokens(&mut rng, &options, &own);
        if prefill {
            context.rows.extend(chunk.iter().cloned());
        }
        let mut q = rng.normals(own.len() * sizes.heads * sizes.head_dim);
        if case.nan {
            q[sizes.head_dim / 2] = f32::NAN;
        }
        let rows = |own| context.seen_by(own, &options);
        values.extend(attention(sizes, &q, &own, &rows, softmax));
        let numbers = context.rows.iter().flat_map(|row| &row.values);
        magnitudes.value = numbers.fold(magnitudes.value, |most, value| most.max(value.abs()));
        let score = cache.score_deviation((&q, sizes.heads), &context.rows);
        let score = score * f64::from(mask.scale);
        magnitudes.score = magnitudes.score.max(score);
        positions.extend(&own);
        sequences.extend(own.iter().map(|_| run.sequence as i32));
        query.extend(q);
        fresh.extend(chunk);
    }
    let shape = [positions.len() as u64, case.heads, options.head_dim];
    let mut tensors = vec![
        HostTensor::f32(&shape, &query),
        HostTensor::i32(&positions),
        HostTensor::output(DType::F32, &shape, expected(values, magnitudes, &options)),
    ];
    let kv_shape = [positions.len() as u64, options.kv_heads, options.head_dim];
    let side = |numbers: fn(&Row) -> &Vec<f32>| {
        let all: Vec<f32> = fresh.iter().flat_map(|row| numbers(row).clone()).collect();
        HostTensor::f32(&kv_shape, &all)
    };
    tensors.extend([side(|row| &row.keys), side(|row| &row.values)]);
    tensors.extend([
        HostTensor::i32(&sequences),
        HostTensor::f32(&[case.heads], &sinks),
    ]);
    tensors.extend(cache.tensors());
    tensors.extend(cache.preparation());
    let (several, with_sinks) = (options.sequences > 1, case.sinks);
    Problem::new(name, seed, tensors, move |t| {
        let cache = HostCache::bind(options, &t[7..])?;
        let (query, positions, output) = (t[0].clone(), t[1].clone(), t[2].clone());
        let sequences = several.then(|| t[5].clone());
        let sinks = with_sinks.then(|| t[6].clone());
        let fresh = prefill.then(|| Fresh {
            keys: t[3].clone(),
            values: t[4].clone(),
        });
        Ok(Attention {
            query,
            fresh,
            cache,
            positions,
            sequences,
            mask,
            sinks,
            output,
        }
        .into())
    })
}

/// Whether a device may take the codes of a cache as integers: both sides have at most six bits and a scale per row.
fn has_integers(options: &KvCacheOptions) -> bool {
    let coded = |codec| matches!(codec, KvCodec::Tq(tq) if tq.bits.get() <= 6);
    coded(options.codecs.key) && coded(options.codecs.value) && options.head_dim <= 256
}

/// What an output's error is at most, and for how much of it there is leave.
fn expected(values: Vec<f64>, sizes: Magnitudes, options: &KvCacheOptions) -> Expected {
    let largest = f64::from(sizes.value);
    // A centroid on the grid of bytes is off by 0.0084 of a number's deviation, the root mean square for six bits, where
    // most are used. A score is off by that part of its own deviation, and an output by as much of the values; a sum is
    // off by that part of them too, where no value's deviation is above the largest.
    let rms = 0.0084 * largest * sizes.score.hypot(1.0);
    let leave = has_integers(options).then(|| Leave {
        bounds: vec![3.0 * rms; values.len()],
        squared_error: values.len() as f64 * rms * rms / 4.0,
        why: "centroids on a grid of 255 steps",
    });
    // Queries, centroids and weights as halves are each off by 2^-12 of themselves at most, a score by about as much of its
    // deviation.
    let half = 1e-3 * largest * sizes.score.hypot(1.0);
    let finite = values.iter().filter(|value| value.is_finite());
    let squares: f64 = finite.map(|value| value.powi(2)).sum();
    let halves = Some(Leave {
        bounds: vec![3.0 * half; values.len()],
        squared_error: 4e-6 * squares * (sizes.score / 2.0).max(1.0).powi(2),
        why: "products of halves, 2e-3 of the output's norm where scores are of usual size",
    });
    Expected::Close {
        bounds: vec![1e-5 * largest; values.len()],
        values,
        leave,
        halves,
        why: "f32 scores, exponentials and sums over exactly decoded codes",
    }
}

/// How large the numbers of a case become.
#[derive(Debug, Clone, Copy)]
struct Magnitudes {
    /// The largest magnitude of a value, at least 1.
    value: f32,
    /// The largest deviation of a score whose key's numbers, as they are stored, each deviate by theirs.
    score: f64,
}
