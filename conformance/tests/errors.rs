//! What every backend must refuse, when an op is recorded and when it runs.

mod simulated;

use std::sync::Arc;

use conformance::cases::{Table, tables};
use conformance::{Problem, Target, targets};
use walsh::ops::{
    ArgMax, Attention, EmbeddingRows, ExpertMatMul, ExpertRoute, KvDecode, KvStore, Mask,
    MatMulTopK, Op, Scale, Scoring, TopK, VectorSpace,
};
use walsh::{
    CacheKind, CacheSide, DType, Device, Error, KvCache, KvCacheOptions, ScreenSample, Tensor,
};

fn each_target(test: impl Fn(&Device)) {
    let simulator = simulated::target(1).unwrap();
    for Target { name, device, .. } in targets().unwrap().into_iter().chain([simulator]) {
        println!("on {name}");
        test(&device);
    }
}

/// Records the ops.
fn step<const N: usize>(device: &Device, ops: [Op; N]) -> walsh::Step {
    let mut list = device.record();
    ops.into_iter().for_each(|op| list.push(op).unwrap());
    list.finish().unwrap()
}

/// Running the step meets a value that the op cannot take.
#[track_caller]
fn assert_refused(device: &Device, step: &walsh::Step, op: &str, words: &[&str]) {
    let error = device.run(step).expect_err("an error");
    let Error::Value { op: given, message } = &error else {
        panic!("{error}");
    };
    assert_eq!(*given, op);
    for word in words {
        assert!(message.contains(word), "{message:?} lacks {word:?}");
    }
}

/// One problem of each table.
fn one_of_each() -> Vec<Problem> {
    let first = |table: &Table| table.problems().next();
    tables().filter_map(first).collect()
}

/// A problem's tensors, number `odd` of them made by `make`.
fn tensors(
    problem: &Problem,
    device: &Device,
    odd: usize,
    make: impl Fn(&conformance::HostTensor) -> Tensor,
) -> Vec<Tensor> {
    let hosts = problem.tensors.iter().enumerate();
    hosts
        .map(|(index, host)| match index == odd {
            true => make(host),
            false => device.zeros(host.dtype, &host.shape).unwrap(),
        })
        .collect()
}

#[test]
fn tensors_of_another_device_are_refused() {
    let device = walsh::open("cpu:threads=1").unwrap();
    let other = walsh::open("cpu:threads=1").unwrap();
    for problem in one_of_each() {
        let mut refused = 0;
        for odd in 0..problem.tensors.len() {
            let tensors = tensors(&problem, &device, odd, |host| {
                other.zeros(host.dtype, &host.shape).unwrap()
            });
            let op = (problem.bind)(&tensors).unwrap();
            let id = tensors[odd].buffer().id();
            let accesses = op.accesses();
            let mut spans = accesses.reads.iter().chain(&accesses.writes);
            let uses = spans.any(|span| span.buffer.id() == id);
            let mut list = device.record();
            let pushed = list.push(op);
            assert_eq!(pushed.is_err(), uses, "{problem:?}, tensor {odd}");
            if let Err(error) = pushed {
                refused += 1;
                assert!(error.to_string().contains("another device"), "{error}");
                assert_eq!(list.finish().unwrap().list().commands().len(), 0);
            }
        }
        assert!(refused >= 2, "{problem:?}");
    }
}

#[test]
fn read_only_outputs_are_refused() {
    let device = walsh::open("cpu:threads=1").unwrap();
    for problem in one_of_each() {
        let hosts = problem.tensors.iter().enumerate();
        for (odd, _) in hosts.filter(|(_, host)| host.expected.is_some()) {
            let tensors = tensors(&problem, &device, odd, |host| {
                let bytes: Arc<[u8]> = Arc::from(host.bytes.as_slice());
                let buffer = device.import(Arc::new(bytes)).unwrap();
                Tensor::new(buffer, 0, host.dtype, &host.shape).unwrap()
            });
            let mut list = device.record();
            let error = list.push((problem.bind)(&tensors).unwrap()).unwrap_err();
            assert!(error.to_string().contains("read-only"), "{error}");
        }
    }
}

#[test]
fn ids_outside_the_table() {
    each_target(|device| {
        let table = device.tensor(&[5, 32], &[1.0f32; 160]).unwrap();
        let ids = device.zeros(DType::I32, &[200]).unwrap();
        let output = device.tensor(&[200, 32], &[7.0f32; 6400]).unwrap();
        let step = step(
            device,
            [EmbeddingRows {
                table,
                ids: ids.clone(),
                scale: 2.0,
                output: output.clone(),
            }
            .into()],
        );
        for wrong in [-1, 5, i32::MAX, i32::MIN] {
            let mut numbers = [4; 200];
            numbers[150] = wrong;
            device.write(&ids, &numbers).unwrap();
            let words = [&*wrong.to_string(), "5 rows"];
            assert_refused(device, &step, "EmbeddingRows", &words);
            assert_eq!(device.read::<f32>(&output).unwrap(), [7.0; 6400]);
        }
        device.write(&ids, &[4; 200]).unwrap();
        device.run(&step).unwrap();
        assert_eq!(device.read::<f32>(&output).unwrap(), [2.0; 6400]);
    });
}

#[test]
fn rows_with_nan_have_no_largest_number() {
    each_target(|device| {
        let input = device.zeros(DType::F32, &[3, 40]).unwrap();
        let output = device.zeros(DType::I32, &[3]).unwrap();
        let max = step(
            device,
            [ArgMax {
                input: input.clone(),
                output,
            }
            .into()],
        );
        let top = step(
            device,
            [TopK {
                input: input.clone(),
                values: device.zeros(DType::F32, &[3, 4]).unwrap(),
                indices: device.zeros(DType::I32, &[3, 4]).unwrap(),
            }
            .into()],
        );
        // Where vectors read, and behind them.
        for place in [40, 55, 79] {
            let mut numbers = [1.0f32; 120];
            numbers[place] = f32::NAN;
            device.write(&input, &numbers).unwrap();
            assert_refused(device, &max, "ArgMax", &["row 1", "NaN"]);
            assert_refused(device, &top, "TopK", &["row 1", "NaN"]);
        }
        device.write(&input, &[1.0f32; 120]).unwrap();
        device.run(&max).unwrap();
        device.run(&top).unwrap();
    });
}

#[test]
fn logits_that_are_not_finite_choose_no_experts() {
    each_target(|device| {
        let logits = device.zeros(DType::F32, &[3, 40]).unwrap();
        let bias = device.zeros(DType::F32, &[40]).unwrap();
        let route = |scoring, bias: Option<&Tensor>| {
            step(
                device,
                [ExpertRoute {
                    logits: logits.clone(),
                    bias: bias.cloned(),
                    scoring,
                    scale: 1.0,
                    ids: device.zeros(DType::I32, &[3, 4]).unwrap(),
                    weights: device.zeros(DType::F32, &[3, 4]).unwrap(),
                }
                .into()],
            )
        };
        let plain = route(Scoring::SoftmaxOfChosen, None);
        let biased = route(Scoring::Sigmoid { normalised: true }, Some(&bias));
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in [40, 55, 79] {
                let mut numbers = [1.0f32; 120];
                numbers[place] = odd;
                device.write(&logits, &numbers).unwrap();
                for step in [&plain, &biased] {
                    assert_refused(device, step, "ExpertRoute", &["row 1", "not finite"]);
                }
            }
            // All of a row.
            let mut numbers = [1.0f32; 120];
            numbers[..40].fill(odd);
            device.write(&logits, &numbers).unwrap();
            assert_refused(device, &plain, "ExpertRoute", &["row 0", "not finite"]);
            device.write(&logits, &[1.0f32; 120]).unwrap();
            let mut numbers = [0.0f32; 40];
            numbers[33] = odd;
            device.write(&bias, &numbers).unwrap();
            assert_refused(device, &biased, "ExpertRoute", &["the bias", "not finite"]);
            device.write(&bias, &[0.0f32; 40]).unwrap();
        }
        device.run(&plain).unwrap();
        device.run(&biased).unwrap();
    });
}

/// With one token, several, and so many that a GPU puts them in order.
#[test]
fn ids_of_no_expert_are_refused() {
    each_target(|device| {
        for dtype in [DType::Q8_0, DType::F32] {
            for tokens in [1u64, 3, 40] {
                let ids = device.zeros(DType::I32, &[tokens, 2]).unwrap();
                let product = |width: u64| ExpertMatMul {
                    weight: device.zeros(dtype, &[4, width, 64]).unwrap(),
                    ids: ids.clone(),
                    input: device.zeros(DType::F32, &[tokens, 64]).unwrap(),
                    bias: None,
                    output: device.zeros(DType::F32, &[tokens, 2, width]).unwrap(),
                };
                // The second takes the word of the first that its ids are good.
                let products = step(device, [product(16).into(), product(20).into()]);
                let right = vec![3i32; 2 * tokens as usize];
                for id in [4, -1, i32::MAX, i32::MIN] {
                    let mut wrong = right.clone();
                    *wrong.last_mut().unwrap() = id;
                    device.write(&ids, &wrong).unwrap();
                    let words = [&format!("id {id} is none of 4 experts")[..]];
                    assert_refused(device, &products, "ExpertMatMul", &words);
                }
                device.write(&ids, &right).unwrap();
                device.run(&products).unwrap();
            }
        }
    });
}

#[test]
fn products_with_nan_have_no_largest_number() {
    each_target(|device| {
        let weight = device.zeros(DType::Q8_0, &[40, 64]).unwrap();
        let input = device.tensor(&[1, 64], &[1.0f32; 64]).unwrap();
        let sample = ScreenSample::find(device, &weight, &input, 4).unwrap();
        let screen = device.screen(&weight, &sample).unwrap();
        let top = step(
            device,
            [MatMulTopK {
                weight: weight.clone(),
                screen: screen.clone(),
                input: input.clone(),
                values: device.zeros(DType::F32, &[1, 4]).unwrap(),
                indices: device.zeros(DType::I32, &[1, 4]).unwrap(),
            }
            .into()],
        );
        for place in [0, 31, 40] {
            let mut numbers = [1.0f32; 64];
            numbers[place] = f32::NAN;
            device.write(&input, &numbers).unwrap();
            assert_refused(device, &top, "MatMulTopK", &["row 0", "NaN"]);
        }
        device.write(&input, &[1.0f32; 64]).unwrap();
        device.run(&top).unwrap();

        // A screen belongs to its weight.
        let mut list = device.record();
        let other = MatMulTopK {
            weight: device.zeros(DType::Q8_0, &[40, 64]).unwrap(),
            screen,
            input: input.clone(),
            values: device.zeros(DType::F32, &[1, 41]).unwrap(),
            indices: device.zeros(DType::I32, &[1, 41]).unwrap(),
        };
        let error = list.push(other).unwrap_err().to_string();
        assert!(error.contains("values"), "{error}");
        if let Some(screen) = device.screen(&weight, &sample).unwrap() {
            let other = MatMulTopK {
                weight: device.zeros(DType::Q8_0, &[40, 64]).unwrap(),
                screen: Some(screen),
                input: input.clone(),
                values: device.zeros(DType::F32, &[1, 4]).unwrap(),
                indices: device.zeros(DType::I32, &[1, 4]).unwrap(),
            };
            let error = list.push(other).unwrap_err().to_string();
            assert!(error.contains("screen"), "{error}");
        }
        let flat = device.tensor(&[64], &[1.0f32; 64]).unwrap();
        for (inputs, count) in [(&flat, 4), (&input, 0), (&input, 41)] {
            ScreenSample::find(device, &weight, inputs, count).unwrap_err();
        }
        for (numbers, last) in [(32, vec![0]), (0, vec![]), (64, vec![40])] {
            let inputs = vec![1.0; numbers];
            let sample = ScreenSample { inputs, last };
            let error = device.screen(&weight, &sample).unwrap_err().to_string();
            assert!(error.contains("sample"), "{error}");
        }
    });
}

/// A cache of 8 positions, the tensors of a store of 3 tokens and of an
/// attention over them.
struct Caching {
    cache: KvCache,
    keys: Tensor,
    values: Tensor,
    positions: Tensor,
    query: Tensor,
    output: Tensor,
}

impl Caching {
    fn new(device: &Device, spec: &str, kind: CacheKind) -> Self {
        let options = KvCacheOptions {
            codecs: spec.parse().unwrap(),
            kv_heads: 2,
            head_dim: 64,
            capacity: 8,
            kind,
            sequences: 1,
            overlay: None,
        };
        let ones = |heads: u64| {
            let numbers = vec![1.0f32; 3 * heads as usize * 64];
            device.tensor(&[3, heads, 64], &numbers).unwrap()
        };
        Self {
            cache: KvCache::new(device, options).unwrap(),
            keys: ones(2),
            values: ones(2),
            positions: device.tensor(&[3], &[0, 1, 2]).unwrap(),
            query: ones(4),
            output: ones(4),
        }
    }

    fn store(&self) -> Op {
        KvStore {
            keys: Some(self.keys.clone()),
            values: Some(self.values.clone()),
            positions: self.positions.clone(),
            cache: self.cache.clone(),
            sequences: None,
        }
        .into()
    }

    fn attend(&self) -> Op {
        Attention {
            query: self.query.clone(),
            fresh: None,
            cache: self.cache.clone(),
            positions: self.positions.clone(),
            mask: Mask::causal(64),
            output: self.output.clone(),
            sequences: None,
            sinks: None,
        }
        .into()
    }

    fn decode(&self) -> Op {
        KvDecode {
            cache: self.cache.clone(),
            side: CacheSide::Values,
            positions: self.positions.clone(),
            sequences: None,
            space: VectorSpace::Model,
            output: self.values.clone(),
        }
        .into()
    }

    fn contents(&self, device: &Device) -> Vec<u8> {
        let mut all = Vec::new();
        for span in self.cache.spans() {
            let shape = [span.bytes];
            let view = Tensor::new(span.buffer, span.offset, DType::U8, &shape).unwrap();
            all.extend(device.read::<u8>(&view).unwrap());
        }
        all
    }
}

#[test]
fn positions_that_do_not_fit() {
    each_target(|device| {
        let caching = Caching::new(device, "tq4", CacheKind::Global);
        let [store, attend, decode] =
            [caching.store(), caching.attend(), caching.decode()].map(|op| step(device, [op]));
        let empty = caching.contents(device);
        let output = device.read::<f32>(&caching.output).unwrap();
        for (wrong, word) in [
            ([6, 7, 8], "8"),
            ([-1, 0, 1], "-1"),
            ([3, 3, 4], "ascend"),
            ([3, 5, 6], "ascend"),
            ([2, 1, 0], "ascend"),
            ([i32::MAX - 1, i32::MAX, i32::MIN], ""),
        ] {
            device.write(&caching.positions, &wrong).unwrap();
            assert_refused(device, &store, "KvStore", &[word]);
            assert_refused(device, &attend, "Attention", &[word]);
            assert_refused(device, &decode, "KvDecode", &[word]);
            let values = device.read::<f32>(&caching.values).unwrap();
            assert!(values.iter().all(|x| *x == 1.0));
            assert_eq!(caching.contents(device), empty, "{wrong:?}");
            assert_eq!(device.read::<f32>(&caching.output).unwrap(), output);
        }
        device.write(&caching.positions, &[0, 1, 2]).unwrap();
        device.run(&store).unwrap();
        assert_ne!(caching.contents(device), empty);
        device.run(&attend).unwrap();
    });
}

#[test]
fn pages_that_are_missing_or_stored_into_by_two() {
    each_target(|device| {
        let options = KvCacheOptions {
            kind: CacheKind::Paged { pages: 5 },
            sequences: 2,
            ..KvCacheOptions::global("tq4".parse().unwrap(), 2, 64, 192)
        };
        let table = device.tensor(&[2, 3], &[-1i32; 6]).unwrap();
        let sequences = device.tensor(&[3], &[1, 1, 0]).unwrap();
        let cache = KvCache::new(device, options).unwrap();
        let caching = Caching {
            cache: cache.with_table(table.clone()).unwrap(),
            ..Caching::new(device, "tq4", CacheKind::Global)
        };
        let ops = |mask: Mask| {
            let (mut store, mut attend) = (caching.store(), caching.attend());
            if let (Op::KvStore(store), Op::Attention(attend)) = (&mut store, &mut attend) {
                store.sequences = Some(sequences.clone());
                attend.sequences = Some(sequences.clone());
                attend.mask = mask;
            }
            (step(device, [store]), step(device, [attend]))
        };
        let (store, attend) = ops(Mask::causal(64));
        let window = Mask {
            window: Some(2),
            ..Mask::causal(64)
        };
        let (_, near) = ops(window);
        device.write(&caching.positions, &[63, 64, 0]).unwrap();
        let empty = caching.contents(device);
        for (entries, stored, seen) in [
            ([3, 0, 0, 1, -1, 0], Some("64"), Some("64")),
            ([-7, 0, 0, 1, 2, 0], Some("sequence 0"), Some("sequence 0")),
            ([3, 0, 0, 1, 5, 0], Some("page 5"), Some("page 5")),
            (
                [3, 0, 0, 1, i32::MAX, 0],
                Some("page 2147483647"),
                Some("64"),
            ),
            // Queries may share a page, and sequences may not store into one.
            ([1, 0, 0, 1, 2, 0], Some("page 1"), None),
            ([2, 0, 0, 1, 1, 0], Some("page 1"), None),
        ] {
            device.write(&table, &entries).unwrap();
            match stored {
                Some(word) => assert_refused(device, &store, "KvStore", &[word]),
                None => device.run(&store).unwrap(),
            }
            match seen {
                Some(word) => assert_refused(device, &attend, "Attention", &[word]),
                None => device.run(&attend).unwrap(),
            }
            assert_eq!(caching.contents(device), empty, "{entries:?}");
        }
        // What lies before the window needs no page.
        device.write(&table, &[3, -1, -1, -1, 4, 2]).unwrap();
        device.write(&caching.positions, &[128, 129, 5]).unwrap();
        device.run(&store).unwrap();
        assert_ne!(caching.contents(device), empty);
        device.write(&caching.positions, &[65, 66, 5]).unwrap();
        device.run(&near).unwrap();
        assert_refused(device, &attend, "Attention", &["sequence 1", "no page"]);
    });
}

#[test]
fn a_ring_takes_any_position_from_zero() {
    each_target(|device| {
        let caching = Caching::new(device, "f16", CacheKind::Ring);
        let store = step(device, [caching.store()]);
        for first in [0, 7, 8, 1_000_003, i32::MAX - 2] {
            let positions = [first, first + 1, first + 2];
            device.write(&caching.positions, &positions).unwrap();
            device.run(&store).unwrap();
        }
        device.write(&caching.positions, &[-3, -2, -1]).unwrap();
        assert_refused(device, &store, "KvStore", &["-3"]);
    });
}

#[test]
fn vectors_that_are_not_finite() {
    for spec in ["f32", "f16", "q8_0", "tq4", "tq8+norm", "k=tq4,v=tq2+norot"] {
        each_target(|device| {
            let caching = Caching::new(device, spec, CacheKind::Global);
            let store = step(device, [caching.store()]);
            for side in [&caching.keys, &caching.values] {
                for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut numbers = [1.0f32; 384];
                    numbers[300] = wrong;
                    device.write(side, &numbers).unwrap();
                    assert_refused(device, &store, "KvStore", &["position 2"]);
                }
                device.write(side, &[1.0f32; 384]).unwrap();
            }
            device.run(&store).unwrap();
        });
    }
}

#[test]
fn an_error_stores_nothing_and_the_list_stays_usable() {
    each_target(|device| {
        let caching = Caching::new(device, "tq4", CacheKind::Global);
        let mark = device.tensor(&[4], &[1.0f32; 4]).unwrap();
        let double = Scale {
            input: mark.clone(),
            factor: 2.0,
            output: mark.clone(),
        };
        // The second doubling waits for the attention's output to be read.
        let behind = Scale {
            input: caching.output.clone(),
            factor: 3.0,
            output: caching.output.clone(),
        };
        let step = step(
            device,
            [
                caching.store(),
                caching.attend(),
                behind.into(),
                double.into(),
            ],
        );
        device.write(&caching.positions, &[7, 8, 9]).unwrap();
        assert!(device.run(&step).is_err());
        for stored in caching.cache.tensors() {
            let mut bytes = vec![1; stored.bytes() as usize];
            device.read_bytes(stored, &mut bytes).unwrap();
            assert!(bytes.iter().all(|byte| *byte == 0));
        }
        // A GPU is past the ops behind an error before anyone can know of it; the CPU stops.
        let output = device.read::<f32>(&caching.output).unwrap();
        if device.properties().backend == "cpu" {
            assert_eq!(output, [1.0; 768]);
        }

        device.write(&mark, &[1.0f32; 4]).unwrap();
        device.write(&caching.positions, &[0, 1, 2]).unwrap();
        device.run(&step).unwrap();
        assert_eq!(device.read::<f32>(&mark).unwrap(), [2.0; 4]);
        let attended = device.read::<f32>(&caching.output).unwrap();
        assert!(attended.iter().all(|x| (x - 3.0).abs() < 1.5));
    });
}
