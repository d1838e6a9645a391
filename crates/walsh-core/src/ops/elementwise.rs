use std::fmt;

use walsh_formats::DType;

use super::check::Check;
use super::operation::Operation;
use crate::Result;
use crate::hazard::Accesses;
use crate::tensor::Tensor;

/// The function that a gate passes through.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// `x`: the gate as it is.
    Identity,
    /// `x · sigmoid(x)`.
    Silu,
    /// `sigmoid(x)`.
    Sigmoid,
    /// GELU in its tanh form (Hendrycks and Gimpel, arXiv 1606.08415).
    GeluTanh,
    /// `g · sigmoid(alpha · g)` of the gate g, which is at most the limit; it multiplies
    /// `u + 1`, where u is `up` between minus the limit and the limit (gpt-oss).
    ClampedSwish {
        /// The factor inside the sigmoid; finite.
        alpha: f32,
        /// The bound; above 0.
        limit: f32,
    },
}

/// `output = activation(gate) · up` (Shazeer, arXiv 2002.05202).
#[derive(Debug, Clone)]
pub struct GatedActivation {
    /// `f32`, any shape.
    pub gate: Tensor,
    /// `f32`, the gate's shape.
    pub up: Tensor,
    /// The gate's function.
    pub activation: Activation,
    /// `f32`, the gate's shape; may be an input in place.
    pub output: Tensor,
}

/// `output = a + b`, where b may be one row that is added to every row of a.
#[derive(Debug, Clone)]
pub struct Add {
    /// `f32`, any shape.
    pub a: Tensor,
    /// `f32`, the shape of a or of its last dimension alone.
    pub b: Tensor,
    /// `f32`, the shape of a; may be an input of that shape in place.
    pub output: Tensor,
}

/// `output = factor · input`.
#[derive(Debug, Clone)]
pub struct Scale {
    /// `f32`, any shape.
    pub input: Tensor,
    /// The factor; finite.
    pub factor: f32,
    /// `f32`, the input's shape; may be the input in place.
    pub output: Tensor,
}

/// `output = cap · tanh(input / cap)`.
#[derive(Debug, Clone)]
pub struct SoftCap {
    /// `f32`, any shape.
    pub input: Tensor,
    /// The bound; above 0.
    pub cap: f32,
    /// `f32`, the input's shape; may be the input in place.
    pub output: Tensor,
}

fn check_map(check: Check, name: &'static str, input: &Tensor, output: &Tensor) -> Result<()> {
    check.dtype(name, input, DType::F32)?;
    check.size(name, input)?;
    check.f32("output", output, input.shape())?;
    check.in_place_or_disjoint("output", output, &[input])
}

impl Operation for GatedActivation {
    const NAME: &'static str = "GatedActivation";

    fn validate(&self) -> Result<()> {
        let check = Check(Self::NAME);
        check_map(check, "gate", &self.gate, &self.output)?;
        check.f32("up", &self.up, self.gate.shape())?;
        if let Activation::ClampedSwish { alpha, limit } = self.activation {
            check.finite("activation.alpha", alpha)?;
            check.positive("activation.limit", limit)?;
        }
        check.in_place_or_disjoint("output", &self.output, &[&self.up])
    }

    fn accesses(&self) -> Accesses {
        Accesses {
            reads: vec![self.gate.span(), self.up.span()],
            writes: vec![self.output.span()],
        }
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} -> {}", self.activation, self.gate, self.output)
    }
}

impl Operation for Add {
    const NAME: &'static str = "Add";

    fn validate(&self) -> Result<()> {
        let check = Check(Self::NAME);
        check_map(check, "a", &self.a, &self.output)?;
        check.dtype("b", &self.b, DType::F32)?;
        if self.b.shape() == self.a.shape() {
            return check.in_place_or_disjoint("output", &self.output, &[&self.b]);
        }
        if self.b.shape() != [self.a.row_len()] {
            return check.fail(
                "b",
                format_args!("of shape {:?} or [{}]", self.a.shape(), self.a.row_len()),
                &self.b,
            );
        }
        check.disjoint("output", &self.output, &[&self.b])
    }

    fn accesses(&self) -> Accesses {
        Accesses {
            reads: vec![self.a.span(), self.b.span()],
            writes: vec![self.output.span()],
        }
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} + {} -> {}", self.a, self.b, self.output)
    }
}

impl Operation for Scale {
    const NAME: &'static str = "Scale";

    fn validate(&self) -> Result<()> {
        let check = Check(Self::NAME);
        check_map(check, "input", &self.input, &self.output)?;
        check.finite("factor", self.factor)
    }

    fn accesses(&self) -> Accesses {
        Accesses {
            reads: vec![self.input.span()],
            writes: vec![self.output.span()],
        }
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} × {} -> {}", self.input, self.factor, self.output)
    }
}

impl Operation for SoftCap {
    const NAME: &'static str = "SoftCap";

    fn validate(&self) -> Result<()> {
        let check = Check(Self::NAME);
        check_map(check, "input", &self.input, &self.output)?;
        check.positive("cap", self.cap)
    }

    fn accesses(&self) -> Accesses {
        Accesses {
            reads: vec![self.input.span()],
            writes: vec![self.output.span()],
        }
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cap {} -> {}", self.input, self.cap, self.output)
    }
}
