//! A codec bound to a head size.

use super::family::{Encoded, Source};
use super::{Bounds, KvCodec, KvError, Storage};
use crate::DType;
use crate::codebook::Codebook;
use crate::rotation::{MAX_HEAD_DIM, Rotation};

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
    storage: Storage,
    head_dim: usize,
    rotation: Option<Rotation>,
    code_bytes: usize,
    groups: usize,
    scale_factor: f32,
    gain: f32,
}

impl RowCodec {
    /// Binds a codec to a head size.
    ///
    /// # Errors
    /// [`KvError::HeadDim`] when the codec has no such head size: codebook codecs take multiples of 16 up to 256 and of 32
    /// up to 512, rotated ones those of them that [`Rotation`] takes; dense codecs whole blocks up to 512 numbers.
    pub fn new(codec: KvCodec, head_dim: usize) -> Result<Self, KvError> {
        let wrong = |why: &str| KvError::HeadDim {
            head_dim,
            codec: codec.to_string(),
            why: why.to_owned(),
        };
        if !(1..=MAX_HEAD_DIM).contains(&head_dim) {
            return Err(wrong("it must be from 1 to 512"));
        }
        let storage = codec.storage().ok_or_else(|| {
            let mut types: Vec<_> = KvCodec::dense_types().map(DType::name).collect();
            let last = types.pop().unwrap_or_default();
            let types = types.join(", ");
            wrong(&format!(
                "this type does not hold keys or values; use {types} or {last}"
            ))
        })?;
        if let Some(why) = storage.family().refuses(head_dim) {
            return Err(wrong(why));
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
        let family = storage.family();
        Ok(Self {
            codec,
            storage,
            head_dim,
            rotation,
            code_bytes: family.code_bytes(head_dim),
            groups: family.groups(head_dim),
            scale_factor: family.scale_factor(head_dim),
            gain: 1.0,
        })
    }

    /// The codec as a cache has it for keys: a least-squares scale is raised by half of what it shortens a row by, so that
    /// a row and its codes are of one length.
    ///
    /// A row's codes are its projection, shorter than it by the share that they leave unexplained, and scores shrink with
    /// them. All of it put back gives the noise that is left more weight than the scores gain by; docs/book/src/kv.md has what both
    /// sides lose by each.
    #[must_use]
    pub fn for_keys(self) -> Self {
        self.raised(0.5)
    }

    /// The codec as a cache has it for values: a least-squares scale is raised by all that it shortens a row by, so that
    /// what attention averages is right on average. Noise averages out, and a row that is too short does not.
    #[must_use]
    pub fn for_values(self) -> Self {
        // The search for a scale leaves about nine tenths of the codebook's error.
        self.raised(0.9)
    }

    fn raised(self, share: f64) -> Self {
        let Some(book) = self
            .codebook()
            .filter(|_| self.scale_dtype() == Some(DType::F16))
        else {
            return self;
        };
        // In whole 4096ths, so that all machines have the same.
        let steps = (share * book.mean_squared_error() * 4096.0).round();
        Self {
            gain: (1.0 + steps / 4096.0) as f32,
            ..self
        }
    }

    /// What a searched scale is multiplied by before it is stored: 1 unless the codec is [for keys](Self::for_keys) or
    /// [for values](Self::for_values).
    pub fn gain(&self) -> f32 {
        self.gain
    }

    /// The codec.
    pub fn codec(&self) -> KvCodec {
        self.codec
    }

    /// Numbers per row.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// What it stores, rotated or not.
    pub fn storage(&self) -> Storage {
        self.storage
    }

    /// Bytes of codes per row; for a dense codec, of the row.
    pub fn code_bytes(&self) -> usize {
        self.code_bytes
    }

    /// Scales per row: one for up to 256 numbers, one for each half of more, none for a dense codec.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Numbers that share a scale; the whole row for a dense codec.
    pub fn group_len(&self) -> usize {
        self.head_dim / self.groups.max(1)
    }

    /// The type of the scales: f16 for least squares, f32 for norms, none for a dense codec.
    pub fn scale_dtype(&self) -> Option<DType> {
        self.storage.scale_dtype()
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
        self.storage.family().codebook()
    }

    /// The centroids of the codebook, if the codec has one.
    pub fn centroids(&self) -> Option<&'static [f32]> {
        self.codebook().map(|book| book.centroids.as_slice())
    }

    /// What a stored scale is multiplied by when it is decoded: 1, but 1/√D for norms of whole heads.
    pub fn scale_factor(&self) -> f32 {
        self.scale_factor
    }

    /// What vectors stay below so that they can be stored, rotated in single precision. A rotation moves magnitude between
    /// the numbers of a vector, whose norm bounds each of them, and √D times which bounds the sums that they come from.
    pub fn bounds(&self) -> Bounds {
        let bounds = self.storage.family().bounds(self.group_len());
        // A little below the largest number.
        let sums = 3.39e38 / (self.head_dim as f64).sqrt();
        match self.rotation {
            Some(_) => Bounds {
                number: f64::INFINITY,
                norm: bounds.norm.min(bounds.number).min(sums),
            },
            None => bounds,
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
        let source = Source {
            row,
            scratch,
            rotation: self.rotation.as_ref(),
        };
        self.storage
            .family()
            .encode(
                source,
                Encoded {
                    codes,
                    scales,
                    gain: self.gain,
                },
            )
            .map_err(|refusal| refusal.of(&self.codec))
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
        self.storage.family().decode(codes, scales, out);
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
