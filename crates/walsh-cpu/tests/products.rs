//! Products, through the device, on every instruction set of this machine.

use half::f16;
use walsh_core::ops::MatMul;
use walsh_core::{Device, Tensor};
use walsh_cpu::{Activations, CpuOptions, Isa, PackWeights, Threads};
use walsh_formats::DType;
use walsh_formats::random::SplitMix64;

const FLOAT_TYPES: &[DType] = &[DType::F32, DType::F16, DType::BF16];

fn block_types() -> impl Iterator<Item = DType> {
    let all = DType::ALL.iter().copied();
    all.filter(|dtype| dtype.is_quantised())
}

/// A device of one thread that packs what it can.
fn options(isa: Isa) -> CpuOptions {
    CpuOptions {
        threads: Threads::Count(1),
        isa: Some(isa),
        activations: Activations::Int8,
        packing: PackWeights::Always,
    }
}

/// Each instruction set of this machine, and a device.
fn devices() -> impl Iterator<Item = (Isa, Device)> {
    let sets = Isa::available().into_iter();
    sets.map(|isa| (isa, walsh_cpu::open(options(isa)).unwrap()))
}

/// A product's inputs.
struct Case {
    weight: DType,
    sizes: [usize; 3],
    weights: Vec<u8>,
    input: Vec<f32>,
    bias: Vec<f32>,
}

impl Case {
    /// A product of `m` rows with a weight `[n, k]`.
    fn new(weight: DType, m: usize, n: usize, k: usize) -> Case {
        let mut random = SplitMix64((m * 1000 + n) as u64);
        let bytes = weight.row_bytes((n * k) as u64).unwrap();
        let mut weights = vec![0; bytes as usize];
        let mut of_weights = SplitMix64(k as u64);
        walsh_formats::ggml::random(weight, 0.1, &mut of_weights, &mut weights).unwrap();
        Case {
            weight,
            sizes: [m, n, k],
            weights,
            input: (0..m * k).map(|_| random.normal()).collect(),
            bias: (0..n).map(|_| random.normal()).collect(),
        }
    }

    /// The weight on a device, as a file has it.
    fn stored(&self, device: &Device) -> Tensor {
        let [_, n, k] = self.sizes.map(|size| size as u64);
        device
            .tensor_from_bytes(self.weight, &[n, k], &self.weights)
            .unwrap()
    }

    /// The weight in panels, where the device has kernels for that.
    fn packed(&self, device: &Device) -> Option<Tensor> {
        let packed = device.pack(&[self.stored(device)]).unwrap().remove(0);
        packed.is_packed().then_some(packed)
    }

    /// The product with the first `m` rows of the input.
    fn rows(&self, device: &Device, weight: Tensor, m: usize) -> Vec<f32> {
        let [_, n, k] = self.sizes;
        let (rows, width) = (m as u64, n as u64);
        // What is not written must not be read.
        let output = device.tensor(&[rows, width], &vec![f32::NAN; m * n]);
        let product = MatMul {
            weight,
            input: device
                .tensor(&[rows, k as u64], &self.input[..m * k])
                .unwrap(),
            bias: Some(device.tensor(&[width], &self.bias).unwrap()),
            output: output.unwrap(),
        };
        let output = product.output.clone();
        let mut recorder = device.record();
        recorder.push(product).unwrap();
        device.run(&recorder.finish().unwrap()).unwrap();
        device.read(&output).unwrap()
    }

    fn run(&self, device: &Device) -> Vec<f32> {
        self.rows(device, self.stored(device), self.sizes[0])
    }

    fn run_packed(&self, device: &Device) -> Option<Vec<f32>> {
        let weight = self.packed(device)?;
        Some(self.rows(device, weight, self.sizes[0]))
    }

    /// The product in double precision.
    fn reference(&self) -> Vec<f64> {
        self.map(|x| x)
    }

    /// What each result comes to when nothing cancels.
    fn magnitudes(&self) -> Vec<f64> {
        self.map(f64::abs)
    }

    /// The product in double precision, with each term changed.
    fn map(&self, change: impl Fn(f64) -> f64) -> Vec<f64> {
        let [m, n, k] = self.sizes;
        let mut weights = vec![0.0; n * k];
        walsh_formats::ggml::decode(self.weight, &self.weights, &mut weights).unwrap();
        let mut output = Vec::with_capacity(m * n);
        for row in self.input.chunks_exact(k) {
            for (weights, bias) in weights.chunks_exact(k).zip(&self.bias) {
                let terms = row.iter().zip(weights);
                let products = terms.map(|(x, w)| change(f64::from(*x) * f64::from(*w)));
                output.push(products.sum::<f64>() + change(f64::from(*bias)));
            }
        }
        output
    }
}

/// Normalised mean squared error.
fn nmse(found: impl IntoIterator<Item = f32>, expected: impl IntoIterator<Item = f64>) -> f64 {
    let (mut error, mut norm) = (0.0, 0.0);
    for (found, expected) in found.into_iter().zip(expected) {
        error += (f64::from(found) - expected).powi(2);
        norm += expected.powi(2);
    }
    error / norm
}

/// K is a multiple of the block and of nothing larger.
fn lengths(dtype: DType) -> &'static [usize] {
    match dtype.block_len() {
        1 => &[1, 67, 600],
        32 => &[32, 96, 576, 800],
        64 => &[64, 448, 576],
        128 => &[128, 640, 896],
        _ => &[256, 1280],
    }
}

#[test]
fn products_are_close_to_double_precision() {
    let portable = walsh_cpu::open(options(Isa::Portable)).unwrap();
    let devices: Vec<_> = devices().collect();
    for weight in block_types().chain(FLOAT_TYPES.iter().copied()) {
        for m in [1, 2, 3, 4, 5, 7, 8, 9, 17, 64, 131] {
            for &k in lengths(weight) {
                let case = Case::new(weight, m, 37, k);
                let reference = case.reference();
                let limit = if weight.is_quantised() { 1e-4 } else { 1e-11 };
                let portable = case.run(&portable);
                for (isa, device) in &devices {
                    let found = case.run(device);
                    let error = nmse(found.iter().copied(), reference.iter().copied());
                    assert!(error <= limit, "{isa} {weight} m={m} k={k}: {error:e}");
                    let apart = nmse(found, portable.iter().map(|&x| f64::from(x)));
                    assert!(
                        apart <= 1e-11,
                        "{isa} {weight} m={m} k={k}: {apart:e} from portable"
                    );
                }
            }
        }
    }
}

#[test]
fn products_of_floats_are_as_close_as_single_precision_is_however_many_rows() {
    for isa in Isa::available() {
        let device = walsh_cpu::open(CpuOptions {
            activations: Activations::F32,
            ..options(isa)
        })
        .unwrap();
        for weight in block_types() {
            for &k in lengths(weight) {
                let case = Case::new(weight, 64, 37, k);
                let (reference, magnitudes) = (case.reference(), case.magnitudes());
                let stored = case.stored(&device);
                for m in [1, 2, 3, 5, 64] {
                    let found = case.rows(&device, stored.clone(), m);
                    for (i, found) in found.into_iter().enumerate() {
                        let error = (f64::from(found) - reference[i]).abs();
                        let limit = 1e-6 * magnitudes[i];
                        assert!(
                            error <= limit,
                            "{isa} {weight} m={m} k={k} at {i}: {error:e} of {limit:e}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn packed_weights_give_the_same_products() {
    for (isa, device) in devices() {
        for weight in block_types() {
            for m in [1, 2, 4, 7, 64, 131] {
                for &k in lengths(weight) {
                    // The last panel is not full; there may be a single one.
                    for n in [16, 37] {
                        let case = Case::new(weight, m, n, k);
                        let Some(packed) = case.run_packed(&device) else {
                            continue;
                        };
                        let apart = nmse(packed, case.run(&device).into_iter().map(f64::from));
                        assert!(
                            apart <= 1e-11,
                            "{isa} {weight} m={m} n={n} k={k}: {apart:e}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn weights_are_packed_where_that_gains_and_never_for_floats() {
    for (isa, device) in devices() {
        let packs = |weight, n| Case::new(weight, 1, n, 256).packed(&device).is_some();
        let gains = isa != Isa::Portable && cfg!(target_arch = "x86_64");
        assert_eq!(packs(DType::Q4_0, 16), gains, "{isa}");
        assert_eq!(packs(DType::Q6K, 16), gains, "{isa}");
        assert!(!packs(DType::Q4_0, 15), "{isa}");
        assert!(!packs(DType::F16, 16), "{isa}");
        let never = CpuOptions {
            packing: PackWeights::Never,
            ..options(isa)
        };
        let never = walsh_cpu::open(never).unwrap();
        assert!(Case::new(DType::Q4_0, 1, 16, 256).packed(&never).is_none());
    }
}

#[test]
fn sums_do_not_depend_on_the_number_of_threads() {
    for isa in Isa::available() {
        for activations in [Activations::Int8, Activations::F32] {
            let devices = [1, 2, 7, 64].map(|threads| {
                let threads = Threads::Count(threads);
                let options = CpuOptions {
                    threads,
                    activations,
                    ..options(isa)
                };
                walsh_cpu::open(options).unwrap()
            });
            for weight in [DType::Q4_0, DType::Q6K, DType::F16] {
                for m in [1, 3, 130] {
                    let case = Case::new(weight, m, 203, 512);
                    let found = devices.each_ref().map(|device| case.run(device));
                    let packed = devices.each_ref().map(|device| case.run_packed(device));
                    for other in 1..devices.len() {
                        let what = format!("{isa} {weight} m={m} device {other}");
                        assert!(found[other] == found[0], "{what}");
                        assert!(packed[other] == packed[0], "{what}, packed");
                    }
                }
            }
        }
    }
}

/// The weights of a team's items are worth a claim, and little of its time passes while it waits for the last ones.
#[test]
fn items_suffice_for_the_team() {
    // The share of a team's time in which some of it waits, were all items of one length.
    let idle = |items: usize, threads: usize| {
        1.0 - items as f64 / (items.div_ceil(threads) * threads) as f64
    };
    for isa in Isa::available() {
        for (m, threads, most) in [(1, 2, 0.1), (1, 8, 0.2), (512, 2, 0.1), (512, 16, 0.2)] {
            if m > 1 && isa == Isa::Portable {
                continue; // Its items are those of one row.
            }
            let threads_of = CpuOptions {
                threads: Threads::Count(threads),
                ..options(isa)
            };
            let device = walsh_cpu::open(threads_of).unwrap();
            for n in [576, 1536, 2048, 14336, 49152, 262_144] {
                let zeros = |shape: &[u64]| device.zeros(DType::F32, shape).unwrap();
                let product = MatMul {
                    weight: device.zeros(DType::Q4_1, &[n, 576]).unwrap(),
                    input: zeros(&[m, 576]),
                    bias: None,
                    output: zeros(&[m, n]),
                };
                let mut recorder = device.record();
                recorder.push(product).unwrap();
                let step = recorder.finish().unwrap();
                let items = step.list().commands()[0].plan.pieces as usize;
                let idle = idle(items, threads);
                assert!(idle <= most, "{isa} n={n} m={m} threads={threads}: {idle}");
            }
        }
    }
}

#[test]
fn a_row_that_is_not_finite_is_nan_and_the_others_are_not() {
    for (isa, device) in devices() {
        for weight in [
            DType::Q4_0,
            DType::Q4_1,
            DType::Q8_0,
            DType::Q4K,
            DType::Q6K,
        ] {
            for m in [1, 2, 3, 5, 20] {
                for bad in [f32::NAN, f32::INFINITY] {
                    let mut case = Case::new(weight, m, 19, 768);
                    let row = m / 2;
                    case.input[row * 768 + 700] = bad;
                    let packed = case.run_packed(&device);
                    for found in [Some(case.run(&device)), packed].into_iter().flatten() {
                        for (i, value) in found.into_iter().enumerate() {
                            assert_eq!(
                                value.is_nan(),
                                i / 19 == row,
                                "{isa} {weight} m={m} at {i}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_weight_that_is_nan_makes_its_column_nan() {
    for (isa, device) in devices() {
        for m in [1, 3, 20] {
            let mut case = Case::new(DType::Q4_0, m, 19, 64);
            case.weights[5 * 36..5 * 36 + 2].copy_from_slice(&f16::NAN.to_le_bytes());
            let packed = case.run_packed(&device);
            for found in [Some(case.run(&device)), packed].into_iter().flatten() {
                for (i, value) in found.into_iter().enumerate() {
                    assert_eq!(value.is_nan(), i % 19 == 5, "{isa} m={m} at {i}");
                }
            }
        }
    }
}

#[test]
fn weights_may_start_on_any_even_address() {
    for isa in Isa::available() {
        for activations in [Activations::Int8, Activations::F32] {
            let device = walsh_cpu::open(CpuOptions {
                activations,
                ..options(isa)
            })
            .unwrap();
            for weight in block_types().chain(FLOAT_TYPES.iter().copied()) {
                let case = Case::new(weight, 2, 5, 256);
                let expected = case.run(&device);
                let bytes = case.weights.len() as u64;
                for offset in [2, 6, 14] {
                    let buffer = device.allocate(bytes + offset).unwrap();
                    let moved = Tensor::new(buffer, offset, weight, &[5, 256]);
                    let Ok(moved) = moved else {
                        assert_eq!(weight, DType::F32, "floats lie on multiples of four");
                        continue;
                    };
                    device.write_bytes(&moved, &case.weights).unwrap();
                    let found = case.rows(&device, moved, 2);
                    assert!(found == expected, "{isa} {weight} offset={offset}");
                }
            }
        }
    }
}
