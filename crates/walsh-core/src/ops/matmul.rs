use std::fmt;

use super::TopK;
use super::check::Check;
use super::cost::{Cost, bytes};
use super::operation::Operation;
use super::select::check_largest;
use crate::Result;
use crate::buffer::Span;
use crate::hazard::Accesses;
use crate::screen::Screen;
use crate::tensor::Tensor;

/// `output[m, n] = Σ_k input[m, k] · weight[n, k] (+ bias[n])`, with the weight
/// read as it is stored.
///
/// Backends may quantise the input to 8 bits per number for block-quantised
/// weights, within a normalised mean squared error of 1e-4, unless the device was
/// opened not to.
#[derive(Debug, Clone)]
pub struct MatMul {
    /// `[N, K]` of any floating-point or block type, as it is stored or
    /// [packed](crate::Device::pack).
    pub weight: Tensor,
    /// `f32 [M, K]`.
    pub input: Tensor,
    /// `f32 [N]`.
    pub bias: Option<Tensor>,
    /// `f32 [M, N]`.
    pub output: Tensor,
}

/// The k largest products of each row of the input with the rows of a weight, in
/// descending order, equals by ascending index: what [`TopK`] finds in the
/// output of [`MatMul`], with the very bits that this gives on the device for that
/// many rows, but no tensor holds all products. A product that is not a number is an
/// [`Error::Value`](crate::Error::Value) when the list runs.
///
/// With a screen, a device may leave out rows of the weight that cannot be among the
/// largest; see [`Screen`].
#[derive(Debug, Clone)]
pub struct MatMulTopK {
    /// `[N, K]`, as [`MatMul::weight`].
    pub weight: Tensor,
    /// The weight's, from [`Device::screen`](crate::Device::screen).
    pub screen: Option<Screen>,
    /// `f32 [M, K]`.
    pub input: Tensor,
    /// `f32 [M, k]`; its shape sets k, from 1 to N.
    pub values: Tensor,
    /// `i32 [M, k]`.
    pub indices: Tensor,
}

impl MatMulTopK {
    /// The shape of all products, `[M, N]`.
    #[must_use]
    pub fn products(&self) -> [u64; 2] {
        [self.input.shape()[0], self.weight.shape()[0]]
    }

    /// The same as two ops, for a backend that computes all products: `products` is
    /// `f32` of [their shape](Self::products).
    #[must_use]
    pub fn through(&self, products: Tensor) -> (MatMul, TopK) {
        let product = MatMul {
            weight: self.weight.clone(),
            input: self.input.clone(),
            bias: None,
            output: products.clone(),
        };
        let largest = TopK {
            input: products,
            values: self.values.clone(),
            indices: self.indices.clone(),
        };
        (product, largest)
    }
}

/// Checks the factors of products, and returns the shape of these.
fn check_factors(check: Check, weight: &Tensor, input: &Tensor) -> Result<[u64; 2]> {
    check.rank("weight", weight, 2)?;
    check.size("weight", weight)?;
    if !weight.dtype().is_real() {
        return check.fail("weight", "of a floating-point or block type", weight);
    }
    check.rank("input", input, 2)?;
    check.size("input", input)?;
    let (n, k) = (weight.shape()[0], weight.shape()[1]);
    let m = input.shape()[0];
    check.f32("input", input, &[m, k])?;
    Ok([m, n])
}

impl Operation for MatMulTopK {
    const NAME: &'static str = "MatMulTopK";

    fn validate(&self) -> Result<()> {
        let check = Check(Self::NAME);
        let products = check_factors(check, &self.weight, &self.input)?;
        check_largest(check, products, &self.values, &self.indices)?;
        if let Some(screen) = &self.screen {
            let of = screen.weight();
            if !of.span().same(&self.weight.span()) || of.shape() != self.weight.shape() {
                return check.fail("screen", format_args!("of {}", self.weight), of);
            }
        }
        check.disjoint("values", &self.values, &[&self.weight, &self.input])?;
        let read = [&self.weight, &self.input, &self.values];
        check.disjoint("indices", &self.indices, &read)
    }

    fn accesses(&self) -> Accesses {
        let mut accesses = Accesses {
            reads: vec![self.weight.span(), self.input.span()],
            writes: vec![self.values.span(), self.indices.span()],
        };
        if let Some(screen) = &self.screen {
            accesses.reads.extend(screen.spans());
        }
        accesses
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} · {} -> {}", self.input, self.weight, self.indices)
    }

    fn weights(&self) -> Vec<Span> {
        let copies = self.screen.iter().flat_map(Screen::spans);
        copies.chain([self.weight.span()]).collect()
    }

    /// With a screen, that of its copy: how many rows of the weight are read beside
    /// it depends on the numbers.
    fn cost(&self, _: u64) -> Cost {
        let screen = self.screen.as_ref();
        let weight = screen.map_or(self.weight.bytes(), Screen::bytes);
        Cost {
            bytes: weight + bytes([&self.input, &self.values, &self.indices]),
            operations: 2 * self.input.row_count() * self.weight.elements(),
        }
    }
}

impl Operation for MatMul {
    const NAME: &'static str = "MatMul";

    fn validate(&self) -> Result<()> {
        let check = Check(Self::NAME);
        let products = check_factors(check, &self.weight, &self.input)?;
        check.f32("output", &self.output, &products)?;
        if let Some(bias) = &self.bias {
            check.f32("bias", bias, &products[1..])?;
            check.disjoint("output", &self.output, &[bias])?;
        }
        check.disjoint("output", &self.output, &[&self.weight, &self.input])
    }

    fn accesses(&self) -> Accesses {
        let mut accesses = Accesses {
            reads: vec![self.weight.span(), self.input.span()],
            writes: vec![self.output.span()],
        };
        if let Some(bias) = &self.bias {
            accesses.read(bias.span());
        }
        accesses
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} · {} -> {}", self.input, self.weight, self.output)
    }

    fn weights(&self) -> Vec<Span> {
        vec![self.weight.span()]
    }

    fn cost(&self, _: u64) -> Cost {
        let tensors = [&self.weight, &self.input, &self.output];
        Cost {
            bytes: bytes(tensors.into_iter().chain(&self.bias)),
            operations: 2 * self.input.row_count() * self.weight.elements(),
        }
    }
}
