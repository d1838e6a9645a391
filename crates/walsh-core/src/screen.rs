use std::sync::Arc;

use walsh_formats::DType;

use crate::buffer::{Access, Buffer, DeviceId, Memory, Span};
use crate::ops::MatMulTopK;
use crate::tensor::Tensor;
use crate::{Device, Error, Result};

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

impl ScreenSample {
    /// Searches for the `count` largest products of each of some inputs, `f32 [M, K]`,
    /// with a weight, `[N, K]`, by computing all products.
    ///
    /// # Errors
    /// As of [`MatMulTopK`].
    pub fn find(device: &Device, weight: &Tensor, inputs: &Tensor, count: u64) -> Result<Self> {
        let &[rows, _] = inputs.shape() else {
            let expected = "of 2 dimensions";
            return Err(Error::argument("screen", "inputs", expected, inputs));
        };
        let shape = [rows, count];
        let indices = device.zeros(DType::I32, &shape)?;
        let mut list = device.record();
        list.push(MatMulTopK {
            weight: weight.clone(),
            screen: None,
            input: inputs.clone(),
            values: device.zeros(DType::F32, &shape)?,
            indices: indices.clone(),
        })?;
        device.run(&list.finish()?)?;
        let mut found = vec![0i32; (indices.bytes() / 4) as usize];
        device.read_into(&indices, &mut found)?;
        let mut numbers = vec![0.0; (inputs.bytes() / 4) as usize];
        device.read_into(inputs, &mut numbers)?;
        let last = found.chunks_exact(count as usize);
        Ok(Self {
            inputs: numbers,
            last: last.map(|row| row[row.len() - 1] as u32).collect(),
        })
    }
}

impl Device {
    /// What finds the largest products of a weight, `[N, K]`, without reading all of
    /// it; see [`Screen`]. `None` where the device does not [do so](Self::screens), where
    /// it would not pay, and where a number of the weight is not finite. It takes memory
    /// beside the weight, which must not be packed: rows are read from it. It does not
    /// follow what is written to the weight later.
    ///
    /// It is made for searches like those of the sample: the columns where its inputs are
    /// largest are copied more exactly, and the copy has as few bits as such searches
    /// allow. Others find what all products would give as well, in more time.
    ///
    /// # Errors
    /// When the weight is another device's, is packed or has another shape, the sample
    /// is empty, its inputs have not as many numbers or its rows are not the weight's, or
    /// the device fails.
    pub fn screen(&self, weight: &Tensor, sample: &ScreenSample) -> Result<Option<Screen>> {
        self.check_transfer("screen", weight, weight.bytes() as usize)?;
        let &[rows, width] = weight.shape() else {
            let expected = "of 2 dimensions";
            return Err(Error::argument("screen", "weight", expected, weight));
        };
        let ScreenSample { inputs, last } = sample;
        let numbers = last.len() as u64 * width;
        if last.is_empty() || inputs.len() as u64 != numbers {
            let expected = format_args!("rows of {width} numbers, one for each input");
            let found = format_args!("{} for {}", inputs.len(), last.len());
            return Err(Error::argument("screen", "sample", expected, found));
        }
        if let Some(row) = last.iter().find(|row| u64::from(**row) >= rows) {
            let expected = format_args!("below {rows}");
            return Err(Error::argument(
                "screen",
                "a row of the sample",
                expected,
                row,
            ));
        }
        let parts = self.backend().screen(weight, sample)?;
        Ok(parts.map(|parts| Screen::new(self.id(), weight, parts)))
    }
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
        self.parts.iter().map(|part| Span {
            buffer: part.clone(),
            offset: 0,
            bytes: part.bytes(),
        })
    }
}
