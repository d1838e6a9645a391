//! Which neighbours become one launch of a kernel for them.

use walsh_core::ops::{
    Activation, Add, GatedActivation, KvStore, MatMul, Op, Pairing, RmsNorm, Rope, RopeConfig,
    Scale, SumBefore,
};
use walsh_core::{KvCache, KvCacheOptions, Tensor};
use walsh_formats::DType;
use walsh_kernels::{Dispatch, Limits};

use crate::paper::{Bench, H200, h200, names, separate};

const WIDTH: u64 = 512;
const INNER: u64 = 1024;

/// The tensors of a block of a transformer.
struct Block<'a> {
    bench: &'a Bench,
    stream: Tensor,
    hidden: Tensor,
    gate: Tensor,
    up: Tensor,
    norm: Tensor,
}

impl<'a> Block<'a> {
    fn new(bench: &'a Bench, rows: u64) -> Self {
        let floats = |width| bench.tensor(DType::F32, &[rows, width]);
        Self {
            bench,
            stream: floats(WIDTH),
            hidden: floats(WIDTH),
            gate: floats(INNER),
            up: floats(INNER),
            norm: bench.tensor(DType::F32, &[WIDTH]),
        }
    }

    fn weight(&self, dtype: DType, n: u64, k: u64) -> Tensor {
        self.bench.tensor(dtype, &[n, k])
    }

    /// A product of a weight of its own.
    fn product(&self, dtype: DType, input: &Tensor, output: &Tensor) -> MatMul {
        MatMul {
            weight: self.weight(dtype, output.shape()[1], input.shape()[1]),
            input: input.clone(),
            bias: None,
            output: output.clone(),
        }
    }

    /// A product into a tensor of its own.
    fn projection(&self, dtype: DType, n: u64) -> MatMul {
        let rows = self.hidden.shape()[0];
        let output = self.bench.tensor(DType::F32, &[rows, n]);
        self.product(dtype, &self.hidden, &output)
    }

    fn norm(&self, adds: bool) -> RmsNorm {
        let before = adds.then(|| SumBefore {
            addend: self.stream.clone(),
            sum: self.stream.clone(),
        });
        RmsNorm {
            input: if adds { &self.hidden } else { &self.stream }.clone(),
            before,
            weight: Some(self.norm.clone()),
            eps: 1e-5,
            after: None,
            output: self.hidden.clone(),
        }
    }

    fn gated(&self) -> GatedActivation {
        GatedActivation {
            gate: self.gate.clone(),
            up: self.up.clone(),
            activation: Activation::Silu,
            output: self.gate.clone(),
        }
    }

    fn add(&self) -> Add {
        Add {
            a: self.stream.clone(),
            b: self.hidden.clone(),
            output: self.stream.clone(),
        }
    }

    /// Two blocks but for their attention, the last with an addition at its end.
    fn ops(&self) -> Vec<Op> {
        let q = DType::Q4K;
        let attended = self.bench.tensor(DType::F32, self.hidden.shape());
        let mut ops: Vec<Op> = Vec::new();
        for block in 0..2 {
            ops.extend([
                self.norm(block > 0).into(),
                self.projection(q, WIDTH).into(),
                self.projection(q, 128).into(),
                self.projection(DType::Q6K, 128).into(),
                self.product(q, &attended, &self.hidden).into(),
                self.norm(true).into(),
                self.product(q, &self.hidden, &self.gate).into(),
                self.product(q, &self.hidden, &self.up).into(),
                self.gated().into(),
                self.product(DType::Q6K, &self.gate, &self.hidden).into(),
            ]);
        }
        ops.push(self.add().into());
        ops
    }
}

/// The constants of a dispatch that say what it does beside its products.
fn does(dispatch: &Dispatch) -> [i64; 3] {
    ["NORM", "GATED", "ADD"].map(|name| dispatch.variant.constant(name))
}

#[test]
fn a_block_of_one_row_is_four_launches_beside_its_attention() {
    let bench = h200();
    let block = Block::new(&bench, 1);
    let (lowered, text) = bench.record(block.ops()).unwrap();
    assert_eq!(names(&lowered), ["matmul_row"; 8]);
    let expected = [[1, 0, 0], [0, 0, 1], [1, 1, 0], [0, 0, 1]];
    let done: Vec<[i64; 3]> = lowered.iter().map(does).collect();
    assert_eq!(done, [expected, expected].concat());
    // Attention would stand behind the first; the second does not read what it leaves.
    let barriers: Vec<bool> = lowered.iter().map(|dispatch| dispatch.barrier).collect();
    assert_eq!(barriers[2..4], [true, true]);
    // The norm writes its output, and so does every product: nothing is missing in memory.
    let gate = lowered[2].accesses().writes;
    for tensor in [&block.hidden, &block.gate, &block.up] {
        assert!(gate.iter().any(|span| span.same(&tensor.span())));
    }
    // The list says what its commands have become.
    let lines: Vec<&str> = text.lines().filter(|line| *line != "---").collect();
    assert_eq!(lines.len(), 21);
    assert!(
        lines.iter().all(|line| line.contains("matmul_row")),
        "{text}"
    );
}

#[test]
fn some_rows_share_a_form_of_their_input_and_add_in_the_product() {
    let bench = h200();
    let block = Block::new(&bench, 8);
    let (lowered, text) = bench.record(block.ops()[..10].to_vec()).unwrap();
    let (form, product) = ("round_rows", "matmul_few");
    let expected = [
        form, product, product, form, product, form, product, form, product,
    ];
    assert_eq!(names(&lowered), expected);
    // Sixteen rows of a weight are a unit; those of q and k are one launch.
    assert_eq!(lowered[1].variant.constant("TILES"), 1);
    // The sum that the next norm begins with is made by the product.
    assert_eq!(lowered[4].variant.constant("ADD"), 1);
    // A norm makes the form of what it gives, which it leaves in memory, too, and so does a gate.
    assert_eq!(makers(&lowered, form), [1, 0, 1, 2]);
    let written = [&block.hidden, &block.hidden, &block.gate];
    for (at, tensor) in [0, 5, 7].into_iter().zip(written) {
        let writes = lowered[at].accesses().writes;
        assert!(writes.iter().any(|span| span.same(&tensor.span())));
    }
    // The list says what its commands have become: a norm and the products behind it the same.
    let lines: Vec<&str> = text.lines().filter(|line| *line != "---").collect();
    assert_eq!(lines.len(), 10);
    assert!(lines.iter().all(|line| line.contains(product)), "{text}");
    // A row of 512 numbers is a group's.
    assert_eq!(
        [lowered[0].groups, lowered[7].groups],
        [[8, 1, 1], [4, 1, 1]]
    );
}

/// What the launches of a kernel that makes forms do before that.
fn makers(lowered: &[Dispatch], form: &str) -> Vec<i64> {
    let forms = lowered.iter().filter(|d| d.variant.kernel().name == form);
    forms.map(|d| d.variant.constant("BEFORE")).collect()
}

#[test]
fn a_norm_or_a_gate_that_no_form_follows_is_a_launch() {
    let bench = h200();
    let block = Block::new(&bench, 8);
    // Rows too long for a group's registers, another kind of gate, and a product in between that reads no form of it.
    let long = bench.tensor(DType::F32, &[8, 16384]);
    let norm = RmsNorm {
        input: long.clone(),
        weight: Some(bench.tensor(DType::F32, &[16384])),
        output: bench.tensor(DType::F32, &[8, 16384]),
        ..block.norm(false)
    };
    let behind = block.product(DType::Q4K, &norm.output, &block.gate);
    let lowered = bench.lower(vec![norm.into(), behind.into()]).unwrap();
    assert_eq!(names(&lowered), ["rms_norm", "round_rows", "matmul_few"]);
    let gated = GatedActivation {
        activation: Activation::Sigmoid,
        ..block.gated()
    };
    let down = block.product(DType::Q4K, &block.gate, &block.hidden);
    let lowered = bench
        .lower(vec![gated.into(), down.clone().into()])
        .unwrap();
    assert_eq!(names(&lowered), ["map", "round_rows", "matmul_few"]);
    let lowered = bench
        .lower(vec![block.norm(false).into(), down.into()])
        .unwrap();
    assert_eq!(names(&lowered), ["rms_norm", "round_rows", "matmul_few"]);
}

#[test]
fn a_form_that_nothing_reads_is_no_launch_though_its_memory_is_used_again() {
    let bench = h200();
    let block = Block::new(&bench, 300);
    let ops: Vec<Op> = (0..4).flat_map(|_| block.ops()).collect();
    let lowered = bench.lower(ops).unwrap();
    assert!(!names(&lowered).contains(&"quantise"));
}

#[test]
fn floats_are_multiplied_as_matrices_where_their_rows_are_whole_blocks() {
    let bench = h200();
    let earlier = Bench::new(Limits {
        warpgroup_matrices: false,
        ..H200
    });
    let (floats, tiles, wgmma) = ("matmul_floats", "matmul_tiles", "matmul_wgmma");
    for dtype in [DType::F16, DType::BF16, DType::F32] {
        for (rows, k, before, kernel) in [
            (1, 512, floats, floats),
            (2, 512, floats, wgmma),
            (33, 96, tiles, wgmma),
            (2048, 4096, tiles, wgmma),
            (2048, 4080, floats, floats),
        ] {
            for (bench, kernel) in [(&earlier, before), (&bench, kernel)] {
                let product = MatMul {
                    weight: bench.tensor(dtype, &[1000, k]),
                    input: bench.tensor(DType::F32, &[rows, k]),
                    bias: None,
                    output: bench.tensor(DType::F32, &[rows, 1000]),
                };
                let lowered = bench.lower(vec![product.into()]).unwrap();
                let expected = if dtype == DType::F32 { floats } else { kernel };
                assert!(names(&lowered).contains(&expected), "{dtype} {rows} {k}");
            }
        }
    }
}

#[test]
fn rows_beyond_the_few_are_computed_in_tiles() {
    let bench = h200();
    let earlier = Bench::new(Limits {
        warpgroup_matrices: false,
        ..H200
    });
    let (few, tiles, wgmma) = ("matmul_few", "matmul_tiles", "matmul_wgmma");
    let expected = [(2, few, few), (32, few, few), (33, few, wgmma)];
    for (rows, before, kernel) in expected
        .into_iter()
        .chain([(64, few, wgmma), (65, tiles, wgmma)])
    {
        for (bench, kernel) in [(&earlier, before), (&bench, kernel)] {
            let block = Block::new(bench, rows);
            let lowered = bench
                .lower(vec![block.projection(DType::Q4K, 4096).into()])
                .unwrap();
            assert!(names(&lowered).contains(&kernel), "{rows}");
        }
    }
    // Types that the kernel of few rows does not read are in tiles from fewer rows on.
    for (rows, kernel) in [(32, "matmul_blocks"), (33, "matmul_tiles")] {
        let block = Block::new(&bench, rows);
        let lowered = bench
            .lower(vec![block.projection(DType::IQ3S, 4096).into()])
            .unwrap();
        assert!(names(&lowered).contains(&kernel), "{rows}");
    }
}

#[test]
fn many_rows_share_slabs_of_their_input_and_add_in_the_product() {
    let bench = h200();
    let block = Block::new(&bench, 300);
    let lowered = bench.lower(block.ops()[..10].to_vec()).unwrap();
    let (form, product) = ("slab_rows", "matmul_wgmma");
    // q and k are one launch, of one type; so are gate and up.
    let expected = [
        form, product, product, form, product, form, product, form, product,
    ];
    assert_eq!(names(&lowered), expected);
    assert_eq!(makers(&lowered, form), [1, 0, 1, 2]);
    let adds: Vec<i64> = lowered
        .iter()
        .filter(|dispatch| dispatch.variant.kernel().name == product)
        .map(|dispatch| dispatch.variant.constant("ADD"))
        .collect();
    assert_eq!(adds, [0, 0, 1, 0, 0]);
}

#[test]
fn groups_of_many_rows_fit_a_multiprocessor_and_take_every_row() {
    let bench = h200();
    let types = [
        DType::Q4_0,
        DType::Q4_1,
        DType::Q5_0,
        DType::Q5_1,
        DType::Q8_0,
        DType::IQ4NL,
    ];
    let large = [
        DType::Q2K,
        DType::Q3K,
        DType::Q4K,
        DType::Q5K,
        DType::Q6K,
        DType::IQ4XS,
    ];
    let shapes = [
        (16, 256),
        (1023, 512),
        (4096, 14336),
        (14336, 4096),
        (131_072, 4096),
    ];
    let floats = [DType::F16, DType::BF16];
    for dtype in types.into_iter().chain(large).chain(floats) {
        for (n, k) in shapes.into_iter().chain([(100, 256), (4096, 2048 + 256)]) {
            for rows in [33, 48, 64, 65, 130, 200, 512, 2048] {
                let product = MatMul {
                    weight: bench.tensor(dtype, &[n, k]),
                    input: bench.tensor(DType::F32, &[rows, k]),
                    bias: None,
                    output: bench.tensor(DType::F32, &[rows, n]),
                };
                let lowered = bench.lower(vec![product.into()]).unwrap();
                let what = format!("{dtype} [{n}, {k}], {rows} rows");
                assert_eq!(names(&lowered), ["slab_rows", "matmul_wgmma"], "{what}");
                let variant = &lowered[1].variant;
                let constant = |name| variant.constant(name) as u64;
                let [cluster, columns, bytes] = ["CLUSTER", "COLUMNS", "DYNAMIC"].map(constant);
                let (warpgroups, resident) = (constant("THREADS") / 128, constant("RESIDENT"));
                // Sums take half as many registers as there are columns.
                assert!(resident * warpgroups * columns <= 512, "{what}");
                assert!(resident * (bytes + 1024) <= 228 << 10, "{what}");
                // What is read, read next, and not yet ordered again.
                let read = match (dtype, constant("TOGETHER")) {
                    (DType::Q6K, 1) => 2,
                    _ => 1,
                };
                let fewest = 2 * read + warpgroups - 1;
                assert!(
                    constant("SLOTS") >= 2 && constant("INPUT_SLOTS") >= fewest,
                    "{what}"
                );
                let (groups, tiles) = (u64::from(lowered[1].groups[0]), rows.div_ceil(columns));
                assert!((1..=8).contains(&cluster), "{what}");
                let units = groups / cluster / tiles * warpgroups;
                assert_eq!(groups, units / warpgroups * tiles * cluster, "{what}");
                assert!((n..n + 64 * warpgroups).contains(&(64 * units)), "{what}");
                assert_eq!(u64::from(lowered[0].groups[0]), tiles * columns, "{what}");
            }
        }
    }
}

#[test]
fn groups_of_a_few_rows_fit_a_multiprocessor_and_take_every_row() {
    let types = [
        DType::Q4_0,
        DType::Q8_0,
        DType::Q2K,
        DType::Q4K,
        DType::Q5K,
        DType::Q6K,
        DType::IQ4XS,
    ];
    let shapes = [(16, 256), (1023, 512), (4096, 14336), (131_072, 4096)];
    // What groups may ask for, in KB, and the most rows for which two stages of anything fit.
    for (kilobytes, most_rows) in [(99, 32), (163, 32), (227, 64)] {
        for cluster_groups in [1, 8] {
            let bench = Bench::new(Limits {
                fragment_bytes: kilobytes << 10,
                warpgroup_matrices: false,
                cluster_groups,
                ..H200
            });
            for dtype in types {
                for (n, k) in shapes {
                    for rows in [2, 9, 17, 64].into_iter().filter(|rows| *rows <= most_rows) {
                        let product = MatMul {
                            weight: bench.tensor(dtype, &[n, k]),
                            input: bench.tensor(DType::F32, &[rows, k]),
                            bias: None,
                            output: bench.tensor(DType::F32, &[rows, n]),
                        };
                        let lowered = bench.lower(vec![product.into()]).unwrap();
                        let what = format!("{dtype} [{n}, {k}], {rows} rows, {kilobytes} KB");
                        assert_eq!(names(&lowered), ["round_rows", "matmul_few"], "{what}");
                        let variant = &lowered[1].variant;
                        let [simds, cluster, resident, slots, bytes] =
                            ["THREADS", "CLUSTER", "RESIDENT", "SLOTS", "DYNAMIC"]
                                .map(|name| variant.constant(name) as u64);
                        let (simds, groups) = (simds / 32, u64::from(lowered[1].groups[0]));
                        assert!((1..=u64::from(cluster_groups)).contains(&cluster), "{what}");
                        assert!(slots >= 2 && groups.is_multiple_of(cluster), "{what}");
                        let room = u64::from(kilobytes + 1) << 10;
                        assert!(resident * (bytes + 1024) <= room, "{what}");
                        let rows_taken = groups / cluster * simds * 16;
                        assert!((n..n + simds * 16).contains(&rows_taken), "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_device_that_is_told_so_keeps_ops_apart() {
    let bench = separate();
    let block = Block::new(&bench, 1);
    let lowered = bench.lower(block.ops()).unwrap();
    assert!(!names(&lowered).contains(&"matmul_row"));
    let exact = Bench::new(Limits {
        activations: walsh_core::Activations::F32,
        ..H200
    });
    let block = Block::new(&exact, 1);
    let lowered = exact.lower(block.ops()).unwrap();
    assert!(!names(&lowered).contains(&"matmul_row"));
}

#[test]
fn what_is_written_over_while_others_read_it_is_not_joined() {
    let bench = h200();
    let block = Block::new(&bench, 1);
    // The product's output takes the place of the norm's input.
    let square = block.product(DType::Q4K, &block.hidden, &block.stream);
    let lowered = bench
        .lower(vec![block.norm(false).into(), square.into()])
        .unwrap();
    assert_eq!(names(&lowered), ["rms_norm", "matmul_row"]);
    assert!(lowered[1].barrier);
    // A norm in its own place.
    let in_place = RmsNorm {
        output: block.stream.clone(),
        ..block.norm(false)
    };
    let product = block.product(DType::Q4K, &block.stream, &block.gate);
    let lowered = bench.lower(vec![in_place.into(), product.into()]).unwrap();
    assert_eq!(names(&lowered), ["rms_norm", "matmul_row"]);
    // Two products into one tensor.
    let twice = [(); 2].map(|()| block.product(DType::Q4K, &block.hidden, &block.gate).into());
    let lowered = bench.lower(twice.to_vec()).unwrap();
    assert_eq!(names(&lowered), ["matmul_row"; 2]);
    assert!(lowered[1].barrier);
}

#[test]
fn weights_that_the_list_writes_are_not_read_before_their_time() {
    let bench = h200();
    let block = Block::new(&bench, 1);
    let scale = Scale {
        input: block.norm.clone(),
        factor: 2.0,
        output: block.norm.clone(),
    };
    let ops: Vec<Op> = vec![
        scale.into(),
        block.norm(false).into(),
        block.projection(DType::Q4K, 128).into(),
    ];
    let lowered = bench.lower(ops).unwrap();
    assert_eq!(names(&lowered), ["map", "rms_norm", "matmul_row"]);
}

#[test]
fn a_form_that_another_kernel_reads_stays() {
    let bench = h200();
    let block = Block::new(&bench, 8);
    // A weight that does not begin at a multiple of sixteen is read by the dialect's kernel.
    let odd = MatMul {
        weight: bench.shifted(DType::Q4K, &[128, WIDTH], 8),
        ..block.projection(DType::Q4K, 128)
    };
    let ops: Vec<Op> = vec![
        block.projection(DType::Q4K, 128).into(),
        odd.into(),
        block.projection(DType::Q4K, 64).into(),
    ];
    let lowered = bench.lower(ops).unwrap();
    let expected = [
        "round_rows",
        "matmul_few",
        "quantise",
        "matmul_blocks",
        "matmul_few",
    ];
    let mut given = names(&lowered);
    // Which form comes first does not matter.
    given[..3].sort_unstable();
    let mut sorted = expected;
    sorted[..3].sort_unstable();
    assert_eq!(given, sorted);
    // Each in memory of its own.
    let forms = ["round_rows", "quantise"].map(|name| {
        let form = lowered.iter().find(|d| d.variant.kernel().name == name);
        form.unwrap().accesses().writes[0].buffer.id()
    });
    assert_ne!(forms[0], forms[1]);
}

#[test]
fn reshapes_of_an_input_are_other_inputs() {
    let bench = h200();
    let input = bench.tensor(DType::F32, &[1, WIDTH]);
    let product = |k| {
        let input = input.reshape(&[WIDTH / k, k]).unwrap();
        bench.product(&bench.tensor(DType::Q8_0, &[64, k]), &input)
    };
    let ops = [WIDTH, 256, 128, WIDTH].map(|k| product(k).into()).to_vec();
    let lowered = bench.lower(ops).unwrap();
    let few = ["round_rows", "matmul_few"];
    let expected = [&["matmul_row"][..], &few, &few, &["matmul_row"]].concat();
    assert_eq!(names(&lowered), expected);
}

#[test]
fn a_form_of_what_has_been_overwritten_is_made_again() {
    let bench = h200();
    let block = Block::new(&bench, 8);
    let overwrite = Scale {
        input: block.gate.clone(),
        factor: 2.0,
        output: block.gate.clone(),
    };
    let product = || block.product(DType::Q4K, &block.gate, &block.hidden);
    let ops: Vec<Op> = vec![product().into(), overwrite.into(), product().into()];
    let lowered = bench.lower(ops).unwrap();
    let (form, product) = ("round_rows", "matmul_few");
    assert_eq!(names(&lowered), [form, product, "map", form, product]);
    assert!(lowered[3].barrier);
}

/// What two layers of the same turning and storing become; angles and slots are worked out in the first.
fn stored_keys(bench: &Bench, query: &Tensor, key: &Tensor, values: &Tensor) -> Vec<Dispatch> {
    let positions = bench.tensor(DType::I32, &[2]);
    let options = KvCacheOptions::global("tq4".parse().unwrap(), 4, 128, 64);
    let turn = |input: &Tensor| Rope {
        input: input.clone(),
        positions: positions.clone(),
        config: RopeConfig::new(128, 1e4, Pairing::HalfSplit),
        output: input.clone(),
    };
    let store = || KvStore {
        keys: Some(key.clone()),
        values: Some(values.clone()),
        positions: positions.clone(),
        sequences: None,
        cache: KvCache::new(&bench.device, options).unwrap(),
    };
    let layer = || -> [Op; 3] { [turn(query).into(), turn(key).into(), store().into()] };
    bench.lower([layer(), layer()].concat()).unwrap()
}

#[test]
fn keys_are_looked_at_where_they_are_turned() {
    let bench = h200();
    let heads = |heads| bench.tensor(DType::F32, &[2, heads, 128]);
    let (query, key, values) = (heads(8), heads(4), heads(4));
    let lowered = stored_keys(&bench, &query, &key, &values);
    let first = [
        "rope_table",
        "rope",
        "rope",
        "kv_tokens",
        "kv_inspect",
        "kv_store",
        "kv_store",
    ];
    let second = ["rope_inspect", "kv_store", "kv_store"];
    assert_eq!(names(&lowered), [&first[..], &second].concat());
    // Four vectors to a group: of two tokens 8 query heads, and twice 4 of keys and values.
    assert_eq!(lowered[7].groups, [8, 1, 1]);
    assert!(
        lowered[8].barrier,
        "nothing is stored before all has been looked at"
    );
    // Values that lie where queries are turned are not looked at meanwhile.
    let shared = query.reshape(&[4, 4, 128]).unwrap().rows(0..2).unwrap();
    let lowered = stored_keys(&bench, &query, &key, &shared);
    assert!(!names(&lowered).contains(&"rope_inspect"));
}
