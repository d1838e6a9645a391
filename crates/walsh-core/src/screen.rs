use std::sync::Arc;

use crate::buffer::{Access, Buffer, DeviceId, Memory, Span};
use crate::tensor::Tensor;

/// What a device needs to find the largest products of a weight without reading all of it: a
/// coarse copy, and how far each row's product may be from the product with the copy.
///
/// [`Device::screen`](crate::Device::screen) makes one, and
/// [`MatMulTopK`](crate::ops::MatMulTopK) searches with it. All products with the copy are
/// computed; a row whose product, raised by as much as it may be off, does not reach what is
/// found already cannot be among the largest, and is never read. The others are multiplied
/// exactly, so that the result is that of a search through all products, to the bit: the
/// search for the largest inner products with a Cauchy-Schwarz bound on the residual of a
/// quantised copy.
#[derive(Debug, Clone)]
pub struct Screen {
    weight: Tensor,
    parts: Arc<[Buffer]>,
}

/// A part of a [`Screen`] as a backend makes it.
pub struct ScreenPart {
    /// The bytes that the memory has.
    pub bytes: u64,
    /// The memory.
    pub memory: Box<dyn Memory>,
}

/// Searches like those that a [`Screen`] is made for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScreenSample {
    /// The inputs, one after the other.
    pub inputs: Vec<f32>,
    /// For each input, the row of the weight whose product is the least of those that are
    /// searched for: of the k largest, the k-th.
    pub last: Vec<u32>,
}

impl Screen {
    /// The screen of `weight`, of what a backend made.
    pub(crate) fn new(device: DeviceId, weight: &Tensor, parts: Vec<ScreenPart>) -> Self {
        let part = |part: ScreenPart| Buffer::new(device, part.bytes, Access::Packed, part.memory);
        Self {
            weight: weight.clone(),
            parts: parts.into_iter().map(part).collect(),
        }
    }

    /// The weight that it was made of.
    #[must_use]
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// What the backend made, for itself.
    #[must_use]
    pub fn parts(&self) -> &[Buffer] {
        &self.parts
    }

    /// The bytes that it takes beside the weight.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(Buffer::bytes).sum()
    }

    /// All that a search reads of it.
    pub(crate) fn spans(&self) -> impl Iterator<Item = Span> {
        self.parts.iter().map(Buffer::span)
    }
}
