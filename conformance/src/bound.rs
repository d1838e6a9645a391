use std::sync::Arc;

use walsh::ops::Op;
use walsh::{DType, Device, Result, ScreenSample, Step, Tensor};

use crate::{HostTensor, Problem, Rng, Target};

/// Guard bytes on either side of a tensor.
const GUARD: usize = 64;

/// What guard bytes hold.
const GUARD_BYTE: u8 = 0xa7;

/// A tensor between guard bytes.
struct Placed {
    tensor: Tensor,
    /// The whole buffer.
    whole: Tensor,
    /// What the whole buffer holds before the op runs.
    image: Vec<u8>,
}

impl Placed {
    fn new(device: &Device, host: &HostTensor, rng: &mut Rng) -> Result<Self> {
        // As allocations begin, or less well aligned: kernels differ in what they ask for.
        let shift = rng.below(8).saturating_sub(4) * alignment(host.dtype);
        let offset = GUARD + shift;
        let mut image = vec![GUARD_BYTE; offset + host.bytes.len() + GUARD];
        image[offset..offset + host.bytes.len()].copy_from_slice(&host.bytes);
        let buffer = if host.imported {
            device.import(Arc::new(Arc::<[u8]>::from(image.as_slice())))?
        } else {
            device.allocate(image.len() as u64)?
        };
        Ok(Self {
            tensor: Tensor::new(buffer.clone(), offset as u64, host.dtype, &host.shape)?,
            whole: Tensor::new(buffer, 0, DType::U8, &[image.len() as u64])?,
            image,
        })
    }
}

/// The smallest step between the offsets that a tensor may have, but 16 for
/// bytes: codes of a KV cache are read in vectors.
fn alignment(dtype: DType) -> usize {
    match dtype {
        DType::F32 | DType::I32 => 4,
        DType::U8 => 16,
        _ => 2,
    }
}

/// A problem on one target.
pub struct Bound<'a> {
    problem: &'a Problem,
    target: Target,
    placed: Vec<Placed>,
    step: Step,
}

impl<'a> Bound<'a> {
    /// Puts the tensors onto the device and records the op.
    ///
    /// # Errors
    /// What the device says.
    pub fn new(problem: &'a Problem, target: &Target) -> Result<Self> {
        let device = &target.device;
        let mut rng = Rng(problem.seed);
        let placed = problem
            .tensors
            .iter()
            .map(|host| Placed::new(device, host, &mut rng))
            .collect::<Result<Vec<_>>>()?;
        let mut tensors: Vec<Tensor> = placed.iter().map(|p| p.tensor.clone()).collect();
        for (index, host) in problem.tensors.iter().enumerate() {
            if !(host.weight && target.packs) {
                continue;
            }
            // What is packed is what the weight holds now.
            if !host.imported {
                device.write_bytes(&placed[index].whole, &placed[index].image)?;
            }
            let weight = std::slice::from_ref(&tensors[index]);
            tensors[index] = device.pack(weight)?.remove(0);
        }
        let mut op = (problem.bind)(&tensors)?;
        if let Op::MatMulTopK(op) = &mut op
            && target.packs
        {
            for placed in &placed {
                device.write_bytes(&placed.whole, &placed.image)?;
            }
            let count = op.values.shape()[1];
            let sample = ScreenSample::find(device, &op.weight, &op.input, count)?;
            op.screen = device.screen(&op.weight, &sample)?;
        }
        let mut list = device.record();
        list.push(op)?;
        Ok(Self {
            problem,
            target: target.clone(),
            step: list.finish()?,
            placed,
        })
    }

    /// Gives every tensor the bytes that it has before the op runs.
    ///
    /// # Errors
    /// What the device says.
    pub fn reset(&self) -> Result<()> {
        let hosts = self.problem.tensors.iter();
        for (placed, _) in self.placed.iter().zip(hosts).filter(|(_, h)| !h.imported) {
            self.target
                .device
                .write_bytes(&placed.whole, &placed.image)?;
        }
        Ok(())
    }

    /// Runs the op once.
    ///
    /// # Errors
    /// What the device says.
    pub fn run(&self) -> Result<()> {
        self.target.device.run(&self.step)
    }

    /// The bytes of all buffers, guards included.
    ///
    /// # Errors
    /// What the device says.
    pub fn contents(&self) -> Result<Vec<Vec<u8>>> {
        let read = |placed: &Placed| {
            let mut bytes = vec![0; placed.image.len()];
            let device = &self.target.device;
            device.read_bytes(&placed.whole, &mut bytes)?;
            Ok(bytes)
        };
        self.placed.iter().map(read).collect()
    }

    /// Checks what [`contents`](Self::contents) gave after a run: results,
    /// inputs and guards.
    ///
    /// # Errors
    /// The first difference, in words.
    pub fn check(&self, contents: &[Vec<u8>]) -> Result<(), String> {
        let tensors = self.problem.tensors.iter().zip(&self.placed);
        for (index, ((host, placed), bytes)) in tensors.zip(contents).enumerate() {
            let start = placed.tensor.offset() as usize;
            let end = start + host.bytes.len();
            if bytes[..start] != placed.image[..start] || bytes[end..] != placed.image[end..] {
                return Err(format!("tensor {index}: written out of bounds"));
            }
            let given = &bytes[start..end];
            match &host.expected {
                Some(expected) => expected
                    .check(
                        host.dtype,
                        given,
                        self.target.approximation(&self.problem.name),
                    )
                    .map_err(|wrong| format!("tensor {index} {}: {wrong}", placed.tensor))?,
                None if given != host.bytes => {
                    return Err(format!("tensor {index}: an input was written to"));
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Resets, runs and checks twice: a replay gives the same bits.
    ///
    /// # Errors
    /// The first difference, in words.
    pub fn verify(&self) -> Result<(), String> {
        let once = || {
            self.reset()?;
            self.run()?;
            self.contents()
        };
        let first = once().map_err(|error| error.to_string())?;
        self.check(&first)?;
        let second = once().map_err(|error| error.to_string())?;
        if first == second {
            return Ok(());
        }
        Err("a replay gave other bits".into())
    }
}
