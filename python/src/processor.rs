//! The processor as a device, for what is computed on arrays.

use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use walsh::formats::kv::{KvCodec, KvCodecs, RowCodec};
use walsh::ops::KvStore;
use walsh::{DType, Device, KvCache, KvCacheOptions, Step, Tensor};

use crate::errors::{Failure, Result};
use crate::slot::Own;

/// The device of this process, opened when it is first needed.
pub(crate) fn processor(py: Python<'_>) -> Result<Device> {
    // It is locked with the interpreter's lock held alone, so that nobody holds it where a process is forked.
    static OPENED: Mutex<Option<Own<Device>>> = Mutex::new(None);
    let opened = || OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    // What a process that was forked has is its parent's.
    let known = opened().as_ref().and_then(|own| own.look().ok().cloned());
    if let Some(device) = known {
        return Ok(device);
    }
    let device = py.detach(|| walsh::open("cpu"))?;
    *opened() = Some(Own::new(device.clone()));
    Ok(device)
}

/// Encodes so many rows at a time as devices do, whose codes are those of [`RowCodec`] to the bit.
pub(crate) struct Encoder {
    device: Device,
    codec: RowCodec,
    input: Tensor,
    cache: KvCache,
    step: Step,
}

impl Encoder {
    pub(crate) fn new(
        device: &Device,
        codec: KvCodec,
        [rows, head_dim]: [usize; 2],
    ) -> Result<Self> {
        let codecs = KvCodecs::both(codec);
        let (count, width) = (rows as u64, head_dim as u64);
        let cache = KvCache::new(device, KvCacheOptions::global(codecs, 1, width, count))?;
        let input = device.zeros(DType::F32, &[count, 1, width])?;
        let positions: Vec<i32> = (0..rows).map(|row| row as i32).collect();
        let mut list = device.record();
        list.push(KvStore {
            keys: Some(input.clone()),
            values: None,
            positions: device.tensor(&[count], &positions)?,
            sequences: None,
            cache: cache.clone(),
        })?;
        Ok(Self {
            step: list.finish()?,
            codec: RowCodec::new(codec, head_dim)?,
            device: device.clone(),
            input,
            cache,
        })
    }

    /// Takes a copy of the rows.
    pub(crate) fn take(&self, numbers: &[f32]) -> Result<()> {
        Ok(self.device.write(&self.input, numbers)?)
    }

    /// Encodes the rows that it has, of which the first has the number `first` in messages.
    pub(crate) fn encode(&self, first: usize, codes: &mut [u8], scales: &mut [u8]) -> Result<()> {
        if let Err(error) = self.device.run(&self.step) {
            // The codec says of a row what the device says of a position.
            let numbers: Vec<f32> = self.device.read(&self.input)?;
            return Err(self.refusal(first, &numbers).unwrap_or(error.into()));
        }
        let rows = &self.cache.key().rows;
        self.device.read_bytes(&rows.codes, codes)?;
        if let Some(from) = &rows.scales {
            self.device.read_bytes(from, scales)?;
        }
        Ok(())
    }

    /// Why a row cannot be encoded, if there is one.
    fn refusal(&self, first: usize, numbers: &[f32]) -> Option<Failure> {
        let width = self.codec.head_dim();
        let mut scratch = vec![0.0; width];
        let mut codes = vec![0; self.codec.code_bytes()];
        let mut scales = vec![0; self.codec.scale_bytes()];
        let mut rows = numbers.chunks_exact(width).zip(first..);
        rows.find_map(|(row, at)| {
            let encoded = self
                .codec
                .encode_row(row, &mut scratch, &mut codes, &mut scales);
            let error = encoded.err()?;
            Some(Failure::Named("FormatError", format!("row {at}: {error}")))
        })
    }
}
