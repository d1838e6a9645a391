//! Caches in memory of their own. Apart from what a cache is, so that the ops that name caches, and the lists and
//! devices that name ops, lie between the two.

use walsh_formats::DType;

use super::layout::{Layout, SideLayout};
use super::{KvCache, KvCacheOptions, KvSideTensors, KvTensors};
use crate::Result;
use crate::device::Device;

impl KvCache {
    /// Allocates an empty cache.
    ///
    /// # Errors
    /// When a codec does not fit the head size, a size is zero, the capacity
    /// does not fit 31 bits, or memory is missing.
    pub fn new(device: &Device, options: KvCacheOptions) -> Result<Self> {
        let [key, value] = Self::layouts(&options)?;
        let tensors = [key.allocate(device)?, value.allocate(device)?];
        Self::from_tensors(options, tensors)
    }
}

impl SideLayout {
    fn allocate(&self, device: &Device) -> Result<KvSideTensors> {
        let overlay = self.overlay.as_ref().map(|layout| layout.allocate(device));
        Ok(KvSideTensors {
            rows: self.rows.allocate(device)?,
            overlay: overlay.transpose()?,
        })
    }
}

impl Layout {
    fn allocate(&self, device: &Device) -> Result<KvTensors> {
        let scales = self.scales.as_ref();
        Ok(KvTensors {
            codes: device.zeros(DType::U8, &self.codes)?,
            scales: scales
                .map(|(dtype, shape)| device.zeros(*dtype, shape))
                .transpose()?,
        })
    }
}
