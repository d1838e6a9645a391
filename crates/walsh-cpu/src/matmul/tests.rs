use half::f16;
use walsh_formats::DType;

use super::contract::{Operands, ProductError, ProductShape, Source};
use super::pack::Packing;
use super::plan::ProductPlan;
use super::testing::{Random, block_types, random_weights};
use crate::isa::Isa;
use crate::memory::Parts;
use crate::team::Scratch;
use walsh_core::Activations;

const FLOAT_TYPES: &[DType] = &[DType::F32, DType::F16, DType::BF16];

/// A product's inputs.
#[derive(Clone)]
struct Case {
    shape: ProductShape,
    activations: Activations,
    weights: Vec<u8>,
    input: Vec<f32>,
    bias: Vec<f32>,
}

impl Case {
    fn new(weight: DType, m: usize, n: usize, k: usize) -> Case {
        let mut random = Random((m * 1000 + n) as u64);
        Case {
            shape: ProductShape {
                weight,
                m,
                n,
                k,
                packed: false,
            },
            activations: Activations::Int8,
            weights: random_weights(weight, n, k, k as u64),
            input: (0..m * k).map(|_| random.normal()).collect(),
            bias: (0..n).map(|_| random.normal()).collect(),
        }
    }

    /// The product by an instruction set, with the items in some order.
    fn run(&self, isa: Isa, threads: usize) -> Vec<f32> {
        let plan = ProductPlan::new(isa, threads, self.activations, self.shape).unwrap();
        let layout = plan.layout();
        let (mut prepared, mut scratch) = (Scratch::new(), Scratch::new());
        prepared.reserve(layout.bytes());
        scratch.reserve(plan.scratch_bytes());
        let packed = self.packed(isa);
        // What is not written must not be read.
        prepared.bytes().fill(0xff);
        scratch.bytes().fill(0xff);
        let mut output = vec![f32::NAN; self.shape.m * self.shape.n];
        // SAFETY: all items are this thread's.
        unsafe {
            let source = Source::of(&self.input);
            layout.prepare(0..layout.items(), source, Parts::of(prepared.bytes()));
            let operands = Operands {
                weight: packed.as_ref().unwrap_or(&self.weights),
                input: if layout.is_plain() {
                    bytemuck::cast_slice(&self.input)
                } else {
                    prepared.bytes()
                },
                bias: Some(&self.bias),
                output: Parts::of(&mut output),
            };
            for item in (0..plan.items()).rev() {
                plan.run(item..item + 1, operands, scratch.bytes());
            }
        }
        output
    }

    /// The weight in panels, where the shape says so.
    fn packed(&self, isa: Isa) -> Option<Vec<u8>> {
        let ProductShape {
            weight,
            n,
            k,
            packed,
            ..
        } = self.shape;
        packed.then(|| {
            let packing = Packing::new(isa, weight, n, k).unwrap();
            let mut bytes = vec![0xff; packing.bytes()];
            for (index, panel) in bytes.chunks_exact_mut(packing.panel_bytes()).enumerate() {
                packing.pack(index, &self.weights, panel);
            }
            bytes
        })
    }

    /// The same with a packed weight, where an instruction set takes it.
    fn packed_for(&self, isa: Isa) -> Option<Case> {
        let ProductShape { weight, n, k, .. } = self.shape;
        Packing::new(isa, weight, n, k)?;
        let mut case = self.clone();
        case.shape.packed = true;
        Some(case)
    }

    /// The same, with activations in some precision.
    fn with(self, activations: Activations) -> Case {
        Case {
            activations,
            ..self
        }
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
        let ProductShape {
            weight, m, n, k, ..
        } = self.shape;
        let mut weights = vec![0.0; n * k];
        walsh_formats::ggml::decode(weight, &self.weights, &mut weights).unwrap();
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
    for weight in block_types().chain(FLOAT_TYPES.iter().copied()) {
        for m in [1, 2, 3, 4, 5, 7, 8, 9, 17, 64, 131] {
            for &k in lengths(weight) {
                let case = Case::new(weight, m, 37, k);
                let reference = case.reference();
                let limit = if weight.is_quantised() { 1e-4 } else { 1e-11 };
                let portable = case.run(Isa::Portable, 1);
                for isa in Isa::available() {
                    let found = case.run(isa, 1);
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
    for weight in block_types() {
        for &k in lengths(weight) {
            let mut case = Case::new(weight, 64, 37, k).with(Activations::F32);
            let (reference, magnitudes) = (case.reference(), case.magnitudes());
            for isa in Isa::available() {
                for m in [1, 3, 5, 64] {
                    case.shape.m = m;
                    for (i, found) in case.run(isa, 1).into_iter().enumerate() {
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
    for isa in Isa::available() {
        for weight in block_types() {
            for m in [1, 2, 4, 7, 64, 131] {
                for &k in lengths(weight) {
                    // The last panel is not full; there may be a single one.
                    for n in [16, 37] {
                        let case = Case::new(weight, m, n, k);
                        let Some(packed) = case.packed_for(isa) else {
                            continue;
                        };
                        let expected = case.run(isa, 1).into_iter().map(f64::from);
                        let apart = nmse(packed.run(isa, 1), expected);
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
    let packing = |isa, weight, n| Packing::new(isa, weight, n, 256).is_some();
    for isa in Isa::available() {
        let gains = isa != Isa::Portable && cfg!(target_arch = "x86_64");
        assert_eq!(packing(isa, DType::Q4_0, 16), gains, "{isa}");
        assert!(!packing(isa, DType::Q4_0, 15), "{isa}");
        assert!(!packing(isa, DType::F16, 16), "{isa}");
        assert!(Packing::new(isa, DType::Q4K, 16, 128).is_none(), "{isa}");
        let shape = ProductShape {
            weight: DType::F16,
            m: 1,
            n: 16,
            k: 32,
            packed: true,
        };
        let planned = ProductPlan::new(isa, 1, Activations::Int8, shape).map(|_| ());
        assert_eq!(
            planned,
            Err(ProductError::Packed {
                isa,
                weight: DType::F16
            })
        );
    }
}

#[test]
fn items_do_not_depend_on_the_number_of_threads() {
    for isa in Isa::available() {
        for (weight, activations) in [
            (DType::Q4_0, Activations::Int8),
            (DType::Q6K, Activations::Int8),
            (DType::Q6K, Activations::F32),
            (DType::F16, Activations::Int8),
        ] {
            for m in [1, 3, 130] {
                let case = Case::new(weight, m, 203, 512).with(activations);
                let packed = match activations {
                    Activations::Int8 => case.packed_for(isa),
                    Activations::F32 => None,
                };
                for case in [Some(case), packed].into_iter().flatten() {
                    let expected = case.run(isa, 1);
                    for threads in [2, 7, 64] {
                        assert!(
                            case.run(isa, threads) == expected,
                            "{isa} {weight} m={m} threads={threads} {:?}",
                            case.shape
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_that_is_not_finite_is_nan_and_the_others_are_not() {
    for isa in Isa::available() {
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
                    let packed = case.packed_for(isa);
                    for case in [Some(case), packed].into_iter().flatten() {
                        for (i, value) in case.run(isa, 1).into_iter().enumerate() {
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
    for isa in Isa::available() {
        for m in [1, 3, 20] {
            let mut case = Case::new(DType::Q4_0, m, 19, 64);
            case.weights[5 * 36..5 * 36 + 2].copy_from_slice(&f16::NAN.to_le_bytes());
            let packed = case.packed_for(isa);
            for case in [Some(case), packed].into_iter().flatten() {
                for (i, value) in case.run(isa, 1).into_iter().enumerate() {
                    assert_eq!(value.is_nan(), i % 19 == 5, "{isa} m={m} at {i}");
                }
            }
        }
    }
}

#[test]
fn weights_may_start_on_any_even_address() {
    for isa in Isa::available() {
        let types = block_types().chain(FLOAT_TYPES.iter().copied());
        let each = |dtype| {
            Activations::ALL
                .iter()
                .map(move |&precise| (dtype, precise))
        };
        for (weight, activations) in types.flat_map(each) {
            let case = Case::new(weight, 2, 5, 256).with(activations);
            let expected = case.run(isa, 1);
            for offset in [2, 6, 14] {
                let mut moved = Case::new(weight, 2, 5, 256).with(activations);
                moved.weights.splice(0..0, vec![0; offset]);
                let mut shifted = ShiftedCase {
                    case: moved,
                    offset,
                };
                assert!(
                    shifted.run(isa) == expected,
                    "{isa} {weight} offset={offset}"
                );
            }
        }
    }
}

/// A case whose weights start `offset` bytes into their vector.
struct ShiftedCase {
    case: Case,
    offset: usize,
}

impl ShiftedCase {
    fn run(&mut self, isa: Isa) -> Vec<f32> {
        let plan = ProductPlan::new(isa, 1, self.case.activations, self.case.shape).unwrap();
        let (mut prepared, mut scratch) = (Scratch::new(), Scratch::new());
        prepared.reserve(plan.layout().bytes());
        scratch.reserve(plan.scratch_bytes());
        let mut output = vec![0.0; self.case.shape.m * self.case.shape.n];
        let layout = plan.layout();
        // SAFETY: all items are this thread's.
        unsafe {
            let source = Source::of(&self.case.input);
            layout.prepare(0..layout.items(), source, Parts::of(prepared.bytes()));
            let operands = Operands {
                weight: &self.case.weights[self.offset..],
                input: if layout.is_plain() {
                    bytemuck::cast_slice(&self.case.input)
                } else {
                    prepared.bytes()
                },
                bias: Some(&self.case.bias),
                output: Parts::of(&mut output),
            };
            plan.run(0..plan.items(), operands, scratch.bytes());
        }
        output
    }
}

#[test]
fn what_cannot_be_planned_is_an_error() {
    let plan = |weight, m, n, k| {
        let shape = ProductShape {
            weight,
            m,
            n,
            k,
            packed: false,
        };
        ProductPlan::new(Isa::Portable, 1, Activations::Int8, shape).map(|_| ())
    };
    assert_eq!(
        plan(DType::Q4_0, 0, 1, 32),
        Err(ProductError::Empty { m: 0, n: 1, k: 32 })
    );
    assert_eq!(
        plan(DType::I32, 1, 1, 32),
        Err(ProductError::Type(DType::I32))
    );
    let error = ProductError::PartialBlock {
        weight: DType::Q4K,
        k: 128,
    };
    assert_eq!(plan(DType::Q4K, 1, 1, 128), Err(error.clone()));
    assert_eq!(
        error.to_string(),
        "weight rows of 128 values are not whole blocks of 256"
    );
}
