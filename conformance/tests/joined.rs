//! Lists whose neighbours a device joins: a block of a transformer gives what its ops give one by one, up to the rounding of
//! what is joined, which devices that join no products do not have.

mod simulated;

use conformance::{Rng, targets};
use walsh::formats::ggml;
use walsh::ops::{
    Activation, Add, GatedActivation, MatMul, Op, Pairing, RmsNorm, Rope, RopeConfig, SumBefore,
};
use walsh::{DType, Device, Tensor};

/// The sizes of a block, and the types of its weights: of most of them, and of the others.
#[derive(Debug, Clone, Copy)]
struct Shape {
    width: u64,
    inner: u64,
    types: [DType; 2],
}

const SHAPES: &[Shape] = &[
    shape(512, 1536, [DType::Q4K, DType::Q6K]),
    shape(768, 2048, [DType::Q5K, DType::Q3K]),
    shape(256, 768, [DType::Q2K, DType::IQ4XS]),
    // Rows that begin at no multiple of sixteen bytes, and pieces that are not full.
    shape(288, 480, [DType::Q4_0, DType::Q8_0]),
    shape(96, 224, [DType::Q5_0, DType::Q4_1]),
    shape(160, 320, [DType::Q5_1, DType::IQ4NL]),
    shape(512, 768, [DType::MXFP4, DType::IQ3S]),
    shape(512, 1536, [DType::BF16, DType::F16]),
];

const fn shape(width: u64, inner: u64, types: [DType; 2]) -> Shape {
    Shape {
        width,
        inner,
        types,
    }
}

/// The tensors of a block on a device, all of them drawn from the same seed.
struct Block<'a> {
    device: &'a Device,
    rng: Rng,
    rows: u64,
    shape: Shape,
}

impl Block<'_> {
    fn floats(&mut self, shape: &[u64]) -> Tensor {
        let numbers = self.rng.normals(shape.iter().product::<u64>() as usize);
        self.device.tensor(shape, &numbers).unwrap()
    }

    fn zeros(&self, width: u64) -> Tensor {
        self.device.zeros(DType::F32, &[self.rows, width]).unwrap()
    }

    fn product(&mut self, which: usize, input: &Tensor, output: &Tensor) -> Op {
        let (dtype, n, k) = (self.shape.types[which], output.row_len(), input.row_len());
        // Types of large blocks take rows of whole ones.
        let dtype = match k.is_multiple_of(dtype.block_len() as u64) {
            true => dtype,
            false => DType::Q8_0,
        };
        let mut blocks = vec![0; (n * k) as usize / dtype.block_len() * dtype.block_bytes()];
        ggml::random(dtype, 0.05, &mut self.rng, &mut blocks).unwrap();
        let bias = (n % 3 == 0).then(|| self.floats(&[n]));
        let weight = self.device.tensor_from_bytes(dtype, &[n, k], &blocks);
        MatMul {
            weight: weight.unwrap(),
            input: input.clone(),
            bias,
            output: output.clone(),
        }
        .into()
    }

    /// The ops of a block, and the tensors that they leave.
    fn ops(&mut self, activation: Activation) -> (Vec<Op>, Vec<Tensor>) {
        let Shape { width, inner, .. } = self.shape;
        let (rows, q) = (self.rows, self.zeros(width));
        let (k, v) = (self.zeros(width / 2), self.zeros(width / 2 + 1));
        let (hidden, gate, up) = (self.zeros(width), self.zeros(inner), self.zeros(inner));
        let stream = self.floats(&[rows, width]);
        let attended = self.floats(&[rows, width]);
        let weight = self.floats(&[width]);
        let norm = |input: &Tensor, before: Option<SumBefore>| -> Op {
            RmsNorm {
                input: input.clone(),
                before,
                weight: Some(weight.clone()),
                eps: 1e-5,
                after: None,
                output: hidden.clone(),
            }
            .into()
        };
        let positions: Vec<i32> = (0..rows as i32).map(|row| 3 * row + 1).collect();
        let heads = q.reshape(&[rows, width / 32, 32]).unwrap();
        let turn = Rope {
            input: heads.clone(),
            positions: self.device.tensor(&[rows], &positions).unwrap(),
            config: RopeConfig::new(32, 1e4, Pairing::HalfSplit),
            output: heads,
        };
        let gated = GatedActivation {
            gate: gate.clone(),
            up: up.clone(),
            activation,
            output: gate.clone(),
        };
        let before = SumBefore {
            addend: stream.clone(),
            sum: stream.clone(),
        };
        let add = Add {
            a: stream.clone(),
            b: hidden.clone(),
            output: stream.clone(),
        };
        let ops = vec![
            norm(&stream, None),
            self.product(0, &hidden, &q),
            self.product(0, &hidden, &k),
            self.product(1, &hidden, &v),
            turn.into(),
            self.product(0, &attended, &hidden),
            norm(&hidden, Some(before)),
            self.product(0, &hidden, &gate),
            self.product(0, &hidden, &up),
            gated.into(),
            self.product(1, &gate, &hidden),
            add.into(),
        ];
        (ops, vec![q, k, v, gate, up, hidden, stream])
    }
}

/// What a block leaves, its ops in lists of so many.
fn left(device: &Device, rows: u64, shape: Shape, at_once: usize) -> Vec<Vec<f32>> {
    let mut block = Block {
        device,
        rng: Rng(rows + shape.width),
        rows,
        shape,
    };
    let activation = match rows % 2 {
        0 => Activation::GeluTanh,
        _ => Activation::Silu,
    };
    let (ops, tensors) = block.ops(activation);
    for some in ops.chunks(at_once) {
        let mut list = device.record();
        for op in some {
            list.push(op.clone()).unwrap();
        }
        device.run(&list.finish().unwrap()).unwrap();
    }
    let read = |tensor: &Tensor| device.read::<f32>(tensor).unwrap();
    tensors.iter().map(read).collect()
}

/// How far numbers are from others, as a share of these.
fn distance(given: &[f32], expected: &[f32]) -> f64 {
    let squares = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|x| x * x).sum::<f64>();
    let pairs = given.iter().zip(expected);
    let off = squares(&mut pairs.map(|(a, b)| f64::from(a - b)));
    (off / squares(&mut expected.iter().map(|x| f64::from(*x)))).sqrt()
}

#[test]
fn a_block_gives_what_its_ops_give_one_by_one() {
    let simulator = simulated::target(1).unwrap();
    // How many share the work on a CPU is for other tests.
    let targets = targets().unwrap().into_iter();
    let targets = targets.filter(|target| target.team.is_none_or(|team| team == 0));
    for target in targets.chain([simulator]) {
        // A norm that sums in another order moves a few numbers to the next of their 8-bit codes.
        let most = if target.name.starts_with("cuda") {
            2e-3
        } else {
            0.0
        };
        // The simulator compiles a kernel of each type.
        let shapes = if target.name == "sim" {
            &SHAPES[..1]
        } else {
            SHAPES
        };
        for shape in shapes {
            for rows in [1, 2, 9, 33, 64] {
                let device = &target.device;
                let [together, alone] = [usize::MAX, 1].map(|n| left(device, rows, *shape, n));
                for (tensor, (together, alone)) in together.iter().zip(&alone).enumerate() {
                    let far = distance(together, alone);
                    assert!(
                        far <= most,
                        "{} {shape:?} {rows} rows, tensor {tensor}: {far:e}",
                        target.name
                    );
                }
            }
        }
    }
}
