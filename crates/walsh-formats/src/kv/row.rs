//! A codec bound to a head size.

use half::f16;

use super::encode::{normalise, quantise, search, square_sum};
use super::{KvCodec, KvError, ScaleKind, Tq, pack};
use crate::codebook::{Codebook, codebook};
use crate::rotation::{MAX_HEAD_DIM, Rotation};
use crate::{DType, FormatError, ggml};

/// The most numbers that share a scale.
const GROUP: usize = 256;

/// A KV codec bound to a head size: everything about it has been checked, so that rows encode and decode without
/// surprises.
///
/// ```
/// use walsh_formats::kv::RowCodec;
/// let codec = RowCodec::new("tq4".parse()?, 64)?;
/// let row: Vec<f32> = (0..64).map(|i| (i as f32 * 0.7).sin()).collect();
/// let mut scratch = vec![0.0; 64];
/// let (mut codes, mut scales) = (vec![0; codec.code_bytes()], vec![0; codec.scale_bytes()]);
/// codec.encode_row(&row, &mut scratch, &mut codes, &mut scales)?;
/// let mut back = vec![0.0; 64];
/// codec.decode_row(&codes, &scales, &mut back);
/// assert!(row.iter().zip(&back).all(|(a, b)| (a - b).abs() < 0.3));
/// # Ok::<(), walsh_formats::kv::KvError>(())
/// ```
#[derive(Clone, Debug)]
pub struct RowCodec {
    codec: KvCodec,
    head_dim: usize,
    rotation: Option<Rotation>,
}

impl RowCodec {
    /// Binds a codec to a head size.
    ///
    /// # Errors
    /// [`KvError::HeadDim`] when the codec has no such head size: codebook codecs take multiples of 16 up to 256 and of 32
    /// up to 512, rotated ones those of them that [`Rotation`] takes; dense codecs whole blocks up to 512 numbers.
    pub fn new(codec: KvCodec, head_dim: usize) -> Result<Self, KvError> {
        let wrong = |why| KvError::HeadDim {
            head_dim,
            codec: codec.to_string(),
            why,
        };
        if !(1..=MAX_HEAD_DIM).contains(&head_dim) {
            return Err(wrong("it must be from 1 to 512"));
        }
        match codec {
            KvCodec::Dense(dtype) | KvCodec::Rotated(dtype) => {
                if !KvCodec::DENSE.contains(&dtype) {
                    return Err(wrong(
                        "this type does not hold keys or values; use f32, f16, bf16, q8_0, q5_0 or q4_0",
                    ));
                }
                if !head_dim.is_multiple_of(dtype.block_len()) {
                    return Err(wrong(
                        "it must be a multiple of the block of 32 numbers; f16 and tq8 take this size",
                    ));
                }
            }
            KvCodec::Tq(_) => {
                // Groups are whole vectors of sixteen.
                if !head_dim.is_multiple_of(if head_dim > GROUP { 32 } else { 16 }) {
                    return Err(wrong(
                        "it must be a multiple of 16 up to 256 and of 32 above; f16 takes this size",
                    ));
                }
            }
        }
        let unturned = || {
            wrong(
                "a rotation needs a multiple of 16 that is a power of two or 12, 20 or 28 times one; f16 and +norot take this size",
            )
        };
        let rotation = match codec.rotates() {
            // Rotated vectors are worked on sixteen numbers at a time.
            true if !head_dim.is_multiple_of(16) => return Err(unturned()),
            true => Some(Rotation::new(head_dim).map_err(|_| unturned())?),
            false => None,
        };
        Ok(Self {
            codec,
            head_dim,
            rotation,
        })
    }

    /// The codec.
    pub fn codec(&self) -> KvCodec {
        self.codec
    }

    /// Numbers per row.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Bytes of codes per row; for a dense codec, of the row.
    pub fn code_bytes(&self) -> usize {
        match self.codec {
            KvCodec::Dense(dtype) | KvCodec::Rotated(dtype) => {
                self.head_dim / dtype.block_len() * dtype.block_bytes()
            }
            KvCodec::Tq(tq) => self.head_dim * tq.bits.get() / 8,
        }
    }

    /// Scales per row: one for up to 256 numbers, one for each half of more, none for a dense codec.
    pub fn groups(&self) -> usize {
        match self.codec {
            KvCodec::Dense(_) | KvCodec::Rotated(_) => 0,
            KvCodec::Tq(_) => self.head_dim.div_ceil(GROUP),
        }
    }

    /// Numbers that share a scale; the whole row for a dense codec.
    pub fn group_len(&self) -> usize {
        self.head_dim / self.groups().max(1)
    }

    /// The type of the scales: f16 for least squares, f32 for norms, none for a dense codec.
    pub fn scale_dtype(&self) -> Option<DType> {
        match self.codec {
            KvCodec::Dense(_) | KvCodec::Rotated(_) => None,
            KvCodec::Tq(Tq {
                scale: ScaleKind::LeastSquares,
                ..
            }) => Some(DType::F16),
            KvCodec::Tq(Tq {
                scale: ScaleKind::Norm,
                ..
            }) => Some(DType::F32),
        }
    }

    /// Bytes of scales per row.
    pub fn scale_bytes(&self) -> usize {
        self.groups() * self.scale_dtype().map_or(0, DType::block_bytes)
    }

    /// The rotation, if the codec has one.
    pub fn rotation(&self) -> Option<&Rotation> {
        self.rotation.as_ref()
    }

    /// The codebook, if the codec has one.
    pub fn codebook(&self) -> Option<&'static Codebook> {
        match self.codec {
            KvCodec::Dense(_) | KvCodec::Rotated(_) => None,
            KvCodec::Tq(tq) => Some(codebook(tq.bits)),
        }
    }

    /// The centroids of the codebook, if the codec has one.
    pub fn centroids(&self) -> Option<&'static [f32]> {
        self.codebook().map(|book| book.centroids.as_slice())
    }

    /// What a stored scale is multiplied by when it is decoded: 1, but 1/√D for norms of whole heads.
    pub fn scale_factor(&self) -> f32 {
        match self.codec {
            KvCodec::Tq(Tq {
                scale: ScaleKind::Norm,
                ..
            }) if self.groups() == 1 => (1.0 / (self.head_dim as f64).sqrt()) as f32,
            _ => 1.0,
        }
    }

    /// Encodes one row of `head_dim` numbers: rotate, scale, quantise, pack.
    ///
    /// `scratch` holds `head_dim` numbers, `codes` [`code_bytes`](Self::code_bytes) and `scales`
    /// [`scale_bytes`](Self::scale_bytes). A zero row stores zero scales and decodes to zero; a half-precision scale
    /// below 2⁻²⁵ rounds to zero as any half would.
    ///
    /// # Errors
    /// [`KvError::NotFinite`] for NaN and infinities, [`KvError::OutOfRange`] for magnitudes that what is stored
    /// cannot represent, [`KvError::Length`] for slices of other lengths. Nothing is written then.
    pub fn encode_row(
        &self,
        row: &[f32],
        scratch: &mut [f32],
        codes: &mut [u8],
        scales: &mut [u8],
    ) -> Result<(), KvError> {
        self.check_lengths(row.len(), scratch.len(), codes.len(), scales.len())?;
        if let Some(channel) = row.iter().position(|v| !v.is_finite()) {
            return Err(KvError::NotFinite {
                channel,
                value: row[channel],
            });
        }
        let tq = match self.codec {
            KvCodec::Dense(dtype) => return self.encode_dense(dtype, row, codes),
            KvCodec::Rotated(dtype) => {
                scratch.copy_from_slice(row);
                if let Some(rotation) = &self.rotation {
                    rotation.forward(scratch);
                }
                return self.encode_dense(dtype, scratch, codes);
            }
            KvCodec::Tq(tq) => tq,
        };
        let mut unpacked = [0u8; MAX_HEAD_DIM];
        let unpacked = &mut unpacked[..self.head_dim];
        let stored = match tq.scale {
            ScaleKind::LeastSquares => self.quantise_fitted(tq, row, scratch, unpacked)?,
            ScaleKind::Norm => self.quantise_normed(tq, row, unpacked)?,
        };
        for (group, scale) in stored[..self.groups()].iter().enumerate() {
            match tq.scale {
                ScaleKind::LeastSquares => {
                    scales[2 * group..][..2].copy_from_slice(&f16::from_f32(*scale).to_le_bytes());
                }
                ScaleKind::Norm => scales[4 * group..][..4].copy_from_slice(&scale.to_le_bytes()),
            }
        }
        pack::pack(tq.bits, unpacked, codes);
        Ok(())
    }

    /// Quantises a row by the least-squares convention; returns the scale of each group.
    fn quantise_fitted(
        &self,
        tq: Tq,
        row: &[f32],
        scratch: &mut [f32],
        codes: &mut [u8],
    ) -> Result<[f32; 2], KvError> {
        scratch.copy_from_slice(row);
        if let Some(rotation) = &self.rotation {
            rotation.forward(scratch);
        }
        let book = codebook(tq.bits);
        let mut stored = [0f32; 2];
        let group_len = self.group_len();
        let groups = scratch
            .chunks_exact_mut(group_len)
            .zip(codes.chunks_exact_mut(group_len));
        for ((values, codes), stored) in groups.zip(&mut stored) {
            let sigma = (square_sum(values) / group_len as f64).sqrt() as f32;
            if sigma == 0.0 {
                // All codes of a zero vector are alike; the scale makes it zero.
                codes.fill(book.code(0.0));
                continue;
            }
            if !sigma.is_finite() {
                return Err(self.out_of_range(f64::from(sigma)));
            }
            normalise(values, sigma);
            *stored = sigma * search(book, values, codes);
            if !f16::from_f32(*stored).is_finite() {
                return Err(self.out_of_range(f64::from(sigma)));
            }
        }
        Ok(stored)
    }

    /// Quantises a row by the norm convention; returns the scale of each group.
    fn quantise_normed(&self, tq: Tq, row: &[f32], codes: &mut [u8]) -> Result<[f32; 2], KvError> {
        let mut rotated = [0f64; MAX_HEAD_DIM];
        let rotated = &mut rotated[..self.head_dim];
        for (r, x) in rotated.iter_mut().zip(row) {
            *r = f64::from(*x);
        }
        if let Some(rotation) = &self.rotation {
            rotation.forward_f64(rotated);
        }
        let book = codebook(tq.bits);
        let mut stored = [0f32; 2];
        let group_len = self.group_len();
        let groups = rotated
            .chunks_exact(group_len)
            .zip(codes.chunks_exact_mut(group_len));
        for ((values, codes), stored) in groups.zip(&mut stored) {
            let norm = square_sum(values).sqrt();
            let sigma = norm / (group_len as f64).sqrt();
            *stored = if self.groups() == 1 { norm } else { sigma } as f32;
            if !stored.is_finite() {
                return Err(self.out_of_range(norm));
            }
            if sigma == 0.0 {
                codes.fill(book.code(0.0));
                continue;
            }
            quantise(book, values, sigma, codes);
        }
        Ok(stored)
    }

    /// Decodes one row as it lies, that is in rotated space if the codec rotates.
    ///
    /// # Panics
    /// If a slice has another length than the codec's.
    pub fn decode_row_rotated(&self, codes: &[u8], scales: &[u8], out: &mut [f32]) {
        if let Err(wrong) = self.check_lengths(out.len(), self.head_dim, codes.len(), scales.len())
        {
            panic!("{wrong}");
        }
        let tq = match self.codec {
            KvCodec::Dense(dtype) | KvCodec::Rotated(dtype) => {
                return decode_dense(dtype, codes, out);
            }
            KvCodec::Tq(tq) => tq,
        };
        let centroids = &codebook(tq.bits).centroids;
        let mut unpacked = [0u8; MAX_HEAD_DIM];
        let unpacked = &mut unpacked[..self.head_dim];
        pack::unpack(tq.bits, codes, unpacked);
        let group_len = self.group_len();
        for (group, values) in out.chunks_exact_mut(group_len).enumerate() {
            let scale = self.decode_scale(scales, group);
            for (value, code) in values.iter_mut().zip(&unpacked[group * group_len..]) {
                *value = centroids[usize::from(*code)] * scale;
            }
        }
    }

    /// Decodes one row to the space of the model.
    ///
    /// # Panics
    /// If a slice has another length than the codec's.
    pub fn decode_row(&self, codes: &[u8], scales: &[u8], out: &mut [f32]) {
        self.decode_row_rotated(codes, scales, out);
        if let Some(rotation) = &self.rotation {
            rotation.inverse(out);
        }
    }

    /// The factor of a group's centroids: its stored scale times [`scale_factor`](Self::scale_factor).
    fn decode_scale(&self, scales: &[u8], group: usize) -> f32 {
        match self.scale_dtype() {
            Some(DType::F16) => {
                f16::from_le_bytes([scales[2 * group], scales[2 * group + 1]]).to_f32()
            }
            Some(_) => {
                let at = 4 * group;
                f32::from_le_bytes([scales[at], scales[at + 1], scales[at + 2], scales[at + 3]])
                    * self.scale_factor()
            }
            None => 1.0,
        }
    }

    fn encode_dense(&self, dtype: DType, row: &[f32], codes: &mut [u8]) -> Result<(), KvError> {
        // Half and brain floats round a finite number past their range to infinity, and blocks hold half scales.
        let largest = row.iter().fold(0f32, |a, v| a.max(v.abs()));
        ggml::encode(dtype, row, codes).map_err(|wrong| match wrong {
            FormatError::NotFinite { index, value, .. } => KvError::NotFinite {
                channel: index,
                value,
            },
            _ => self.out_of_range(f64::from(largest)),
        })
    }

    fn out_of_range(&self, magnitude: f64) -> KvError {
        KvError::OutOfRange {
            magnitude,
            codec: self.codec.to_string(),
        }
    }

    fn check_lengths(
        &self,
        row: usize,
        scratch: usize,
        codes: usize,
        scales: usize,
    ) -> Result<(), KvError> {
        for (what, expected, found) in [
            ("numbers", self.head_dim, row),
            ("scratch, in numbers,", self.head_dim, scratch),
            ("codes, in bytes,", self.code_bytes(), codes),
            ("scales, in bytes,", self.scale_bytes(), scales),
        ] {
            if expected != found {
                let (codec, head_dim) = (self.codec.to_string(), self.head_dim);
                return Err(KvError::Length {
                    codec,
                    head_dim,
                    what,
                    expected,
                    found,
                });
            }
        }
        Ok(())
    }
}

fn decode_dense(dtype: DType, codes: &[u8], out: &mut [f32]) {
    // The lengths and the type were checked when the codec was made.
    if let Err(wrong) = ggml::decode(dtype, codes, out) {
        panic!("{wrong}");
    }
}
