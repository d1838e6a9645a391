use std::fmt;

use walsh::ops::Op;
use walsh::{DType, Result, Tensor};

use crate::Expected;

/// A tensor of a [`Problem`], before it is on a device.
#[derive(Debug, Clone)]
pub struct HostTensor {
    /// The type of its numbers.
    pub dtype: DType,
    /// Its dimensions, outermost first.
    pub shape: Vec<u64>,
    /// Its bytes before the op runs.
    pub bytes: Vec<u8>,
    /// What the op must leave; `None` when it must not touch a byte.
    pub expected: Option<Expected>,
    /// Whether it lies in imported host memory, as weights do.
    pub imported: bool,
    /// Whether it is a product's weight, which targets may pack.
    pub weight: bool,
}

impl HostTensor {
    /// A tensor of this type from its stored bytes, which the op only reads.
    #[must_use]
    pub fn stored(dtype: DType, shape: &[u64], bytes: Vec<u8>) -> Self {
        Self {
            dtype,
            shape: shape.to_vec(),
            bytes,
            expected: None,
            imported: false,
            weight: false,
        }
    }

    /// Numbers that the op only reads.
    #[must_use]
    pub fn f32(shape: &[u64], values: &[f32]) -> Self {
        Self::stored(DType::F32, shape, bytemuck::cast_slice(values).to_vec())
    }

    /// Integers that the op only reads.
    #[must_use]
    pub fn i32(values: &[i32]) -> Self {
        let shape = [values.len() as u64];
        Self::stored(DType::I32, &shape, bytemuck::cast_slice(values).to_vec())
    }

    /// A tensor that the op fills. All its bits are set before the op runs,
    /// which reads as NaN or −1.
    #[must_use]
    pub fn output(dtype: DType, shape: &[u64], expected: Expected) -> Self {
        let bytes = walsh::tensor_bytes(dtype, shape).unwrap_or(0);
        Self {
            expected: Some(expected),
            ..Self::stored(dtype, shape, vec![0xff; bytes as usize])
        }
    }

    /// The same tensor, which the op overwrites.
    #[must_use]
    pub fn becomes(mut self, expected: Expected) -> Self {
        self.expected = Some(expected);
        self
    }

    /// The same tensor in imported host memory.
    #[must_use]
    pub fn imported(mut self) -> Self {
        self.imported = true;
        self
    }
}

/// Puts a problem's tensors into an op.
pub type Bind = Box<dyn Fn(&[Tensor]) -> Result<Op> + Send + Sync>;

/// One case of an op, without a device.
pub struct Problem {
    /// The op and what is particular about the case.
    pub name: String,
    /// What its numbers were drawn from.
    pub seed: u64,
    /// The tensors, in the order in which `bind` takes them.
    pub tensors: Vec<HostTensor>,
    /// Makes the op.
    pub bind: Bind,
}

impl Problem {
    /// A problem of a table.
    pub fn new(
        name: impl Into<String>,
        seed: u64,
        tensors: Vec<HostTensor>,
        bind: impl Fn(&[Tensor]) -> Result<Op> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            seed,
            tensors,
            bind: Box::new(bind),
        }
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (seed {:#x})", self.name, self.seed)
    }
}
