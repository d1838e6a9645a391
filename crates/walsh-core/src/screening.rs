//! Making screens: the search that samples what they are for, and the checks of what
//! they are made of.

use walsh_formats::DType;

use crate::ops::MatMulTopK;
use crate::screen::{Screen, ScreenSample};
use crate::tensor::Tensor;
use crate::{Device, Error, Result};

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
