//! Reference decoding.

use half::f16;

use super::IQ4_VALUES;
use super::blocks::*;
use crate::dtype::DType;
use crate::error::{FormatError, join_names};

/// Decodes `out.len()` values from exactly the bytes that they take.
///
/// Bytes need no alignment. Any bit pattern decodes: a block whose scale is NaN or infinite gives values
/// that are not finite. `I32` and `U8` hold no floats and are an error.
///
/// # Errors
/// [`FormatError::PartialBlock`] and [`FormatError::ByteLength`] for lengths that do not go together,
/// [`FormatError::Unsupported`] for `I32` and `U8`.
pub fn decode(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<(), FormatError> {
    super::check_length(dtype, out.len(), bytes.len())?;
    match dtype {
        DType::F32 => elements(bytes, out, f32::from_le_bytes),
        DType::F16 => elements(bytes, out, |bytes| f16::from_le_bytes(bytes).to_f32()),
        DType::BF16 => elements(bytes, out, |bytes| {
            f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)
        }),
        DType::Q4_0 => blocks::<BlockQ4_0, BLOCK>(bytes, out),
        DType::Q4_1 => blocks::<BlockQ4_1, BLOCK>(bytes, out),
        DType::Q5_0 => blocks::<BlockQ5_0, BLOCK>(bytes, out),
        DType::Q5_1 => blocks::<BlockQ5_1, BLOCK>(bytes, out),
        DType::Q8_0 => blocks::<BlockQ8_0, BLOCK>(bytes, out),
        DType::Q2K => blocks::<BlockQ2K, SUPER_BLOCK>(bytes, out),
        DType::Q3K => blocks::<BlockQ3K, SUPER_BLOCK>(bytes, out),
        DType::Q4K => blocks::<BlockQ4K, SUPER_BLOCK>(bytes, out),
        DType::Q5K => blocks::<BlockQ5K, SUPER_BLOCK>(bytes, out),
        DType::Q6K => blocks::<BlockQ6K, SUPER_BLOCK>(bytes, out),
        DType::IQ4NL => blocks::<BlockIq4Nl, BLOCK>(bytes, out),
        DType::IQ4XS => blocks::<BlockIq4Xs, SUPER_BLOCK>(bytes, out),
        DType::I32 | DType::U8 => {
            let floats: Vec<DType> = DType::ALL
                .iter()
                .copied()
                .filter(|other| other.is_real())
                .collect();
            return Err(FormatError::Unsupported {
                what: "decoding floats from",
                dtype,
                supported: join_names(&floats),
            });
        }
    }
    Ok(())
}

fn elements<const N: usize>(bytes: &[u8], out: &mut [f32], read: impl Fn([u8; N]) -> f32) {
    for (value, bytes) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *value = read(*bytes);
    }
}

/// A block of `N` values that can be decoded.
trait Decode<const N: usize>: Block {
    fn decode(&self, out: &mut [f32; N]);
}

fn blocks<B: Decode<N>, const N: usize>(bytes: &[u8], out: &mut [f32]) {
    let stored = bytes.chunks_exact(size_of::<B>());
    for (values, bytes) in out.as_chunks_mut::<N>().0.iter_mut().zip(stored) {
        bytemuck::pod_read_unaligned::<B>(bytes).decode(values);
    }
}

/// The 4-bit code of value `i` of a block of 32 whose halves share bytes.
fn nibble(qs: &[u8], i: usize) -> u8 {
    (qs[i % 16] >> (4 * (i / 16))) & 15
}

/// The same with a fifth bit.
fn five_bits(qs: &[u8; 16], qh: [u8; 4], i: usize) -> u8 {
    let high = (u32::from_le_bytes(qh) >> i) as u8 & 1;
    nibble(qs, i) | (high << 4)
}

impl Decode<BLOCK> for BlockQ4_0 {
    fn decode(&self, out: &mut [f32; BLOCK]) {
        let d = self.d.to_f32();
        for (i, value) in out.iter_mut().enumerate() {
            *value = d * (f32::from(nibble(&self.qs, i)) - 8.0);
        }
    }
}

impl Decode<BLOCK> for BlockQ4_1 {
    fn decode(&self, out: &mut [f32; BLOCK]) {
        let (d, m) = (self.d.to_f32(), self.m.to_f32());
        for (i, value) in out.iter_mut().enumerate() {
            *value = d * f32::from(nibble(&self.qs, i)) + m;
        }
    }
}

impl Decode<BLOCK> for BlockQ5_0 {
    fn decode(&self, out: &mut [f32; BLOCK]) {
        let d = self.d.to_f32();
        for (i, value) in out.iter_mut().enumerate() {
            *value = d * (f32::from(five_bits(&self.qs, self.qh, i)) - 16.0);
        }
    }
}

impl Decode<BLOCK> for BlockQ5_1 {
    fn decode(&self, out: &mut [f32; BLOCK]) {
        let (d, m) = (self.d.to_f32(), self.m.to_f32());
        for (i, value) in out.iter_mut().enumerate() {
            *value = d * f32::from(five_bits(&self.qs, self.qh, i)) + m;
        }
    }
}

impl Decode<BLOCK> for BlockQ8_0 {
    fn decode(&self, out: &mut [f32; BLOCK]) {
        let d = self.d.to_f32();
        for (value, q) in out.iter_mut().zip(self.qs) {
            *value = d * f32::from(q);
        }
    }
}

/// The low two bits of value `i` of a block of the 2-bit and 3-bit types.
fn two_bits(qs: &[u8; 64], i: usize) -> u8 {
    let (half, shift, byte) = (i / 128, i / 32 % 4, i % 32);
    (qs[32 * half + byte] >> (2 * shift)) & 3
}

/// The low four bits of value `i` of a block of Q4_K and Q5_K.
fn four_bits(qs: &[u8; 128], i: usize) -> u8 {
    (qs[32 * (i / 64) + i % 32] >> (4 * (i / 32 % 2))) & 15
}

impl Decode<SUPER_BLOCK> for BlockQ2K {
    fn decode(&self, out: &mut [f32; SUPER_BLOCK]) {
        let (d, dmin) = (self.d.to_f32(), self.dmin.to_f32());
        for (i, value) in out.iter_mut().enumerate() {
            let packed = self.scales[i / 16];
            let scale = d * f32::from(packed & 15);
            let min = dmin * f32::from(packed >> 4);
            *value = scale * f32::from(two_bits(&self.qs, i)) - min;
        }
    }
}

impl Decode<SUPER_BLOCK> for BlockQ3K {
    fn decode(&self, out: &mut [f32; SUPER_BLOCK]) {
        let d = self.d.to_f32();
        for (i, value) in out.iter_mut().enumerate() {
            let run = i / 16;
            let low = (self.scales[run % 8] >> (4 * (run / 8))) & 15;
            let high = (self.scales[8 + run % 4] >> (2 * (run / 4))) & 3;
            let scale = d * (f32::from(low | (high << 4)) - 32.0);
            let third = (self.hmask[i % 32] >> (i / 32)) & 1;
            *value = scale * (f32::from(two_bits(&self.qs, i) | (third << 2)) - 4.0);
        }
    }
}

/// The 6-bit scale and minimum of run `j` (0 to 7) of 32 values in a block of Q4_K or Q5_K.
///
/// The first four of each lie in the low six bits of bytes 0 to 7. Of the last four, the low four bits
/// lie in bytes 8 to 11 (scale low, minimum high) and the high two in the upper bits of bytes 0 to 7.
#[inline]
pub fn scale_min_k4(scales: &[u8; 12], j: usize) -> (u8, u8) {
    if j < 4 {
        return (scales[j] & 63, scales[j + 4] & 63);
    }
    let low = scales[j + 4];
    let scale = (low & 15) | ((scales[j - 4] >> 6) << 4);
    let min = (low >> 4) | ((scales[j] >> 6) << 4);
    (scale, min)
}

impl Decode<SUPER_BLOCK> for BlockQ4K {
    fn decode(&self, out: &mut [f32; SUPER_BLOCK]) {
        let (d, dmin) = (self.d.to_f32(), self.dmin.to_f32());
        for (i, value) in out.iter_mut().enumerate() {
            let (scale, min) = scale_min_k4(&self.scales, i / 32);
            let q = f32::from(four_bits(&self.qs, i));
            *value = d * f32::from(scale) * q - dmin * f32::from(min);
        }
    }
}

impl Decode<SUPER_BLOCK> for BlockQ5K {
    fn decode(&self, out: &mut [f32; SUPER_BLOCK]) {
        let (d, dmin) = (self.d.to_f32(), self.dmin.to_f32());
        for (i, value) in out.iter_mut().enumerate() {
            let (scale, min) = scale_min_k4(&self.scales, i / 32);
            let fifth = (self.qh[i % 32] >> (i / 32)) & 1;
            let q = f32::from(four_bits(&self.qs, i) | (fifth << 4));
            *value = d * f32::from(scale) * q - dmin * f32::from(min);
        }
    }
}

impl Decode<SUPER_BLOCK> for BlockQ6K {
    fn decode(&self, out: &mut [f32; SUPER_BLOCK]) {
        let d = self.d.to_f32();
        for (i, value) in out.iter_mut().enumerate() {
            let low = (self.ql[64 * (i / 128) + i % 64] >> (4 * (i / 64 % 2))) & 15;
            let high = two_bits(&self.qh, i);
            let scale = d * f32::from(self.scales[i / 16]);
            *value = scale * (f32::from(low | (high << 4)) - 32.0);
        }
    }
}

impl Decode<BLOCK> for BlockIq4Nl {
    fn decode(&self, out: &mut [f32; BLOCK]) {
        let d = self.d.to_f32();
        for (i, value) in out.iter_mut().enumerate() {
            *value = d * f32::from(IQ4_VALUES[usize::from(nibble(&self.qs, i))]);
        }
    }
}

impl Decode<SUPER_BLOCK> for BlockIq4Xs {
    fn decode(&self, out: &mut [f32; SUPER_BLOCK]) {
        let d = self.d.to_f32();
        for (run, values) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let low = (self.scales_l[run / 2] >> (4 * (run % 2))) & 15;
            let high = (self.scales_h >> (2 * run)) as u8 & 3;
            let scale = d * (f32::from(low | (high << 4)) - 32.0);
            let qs = &self.qs[16 * run..16 * run + 16];
            for (i, value) in values.iter_mut().enumerate() {
                *value = scale * f32::from(IQ4_VALUES[usize::from(nibble(qs, i))]);
            }
        }
    }
}
