//! What tells one model from another.

use std::fmt;

use twox_hash::XxHash3_128;
use walsh::formats::gguf::Gguf;

use super::file::ModelFiles;
use crate::Result;

/// Tells models apart: files that were saved for one are refused with another.
///
/// It is the XXH3-128 of the headers of all parts (metadata and tensor tables),
/// the parts' lengths, and the first and last 4 KiB of every tensor: enough to
/// notice another quantisation or fine-tune, in milliseconds whatever the size.
/// It is no proof against forgery.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 16]);

/// How much of either end of a tensor counts.
const END_BYTES: usize = 4096;

impl Fingerprint {
    pub(super) fn of(files: &ModelFiles) -> Result<Self> {
        let mut hasher = XxHash3_128::new();
        for (part, gguf) in files.parts.iter().zip(files.parse()?) {
            let bytes = part.bytes();
            hasher.write(&(bytes.len() as u64).to_le_bytes());
            hasher.write(header(bytes, &gguf));
            for tensor in gguf.tensors() {
                let data = gguf.data(tensor);
                let ends = data.len().min(END_BYTES);
                hasher.write(&data[..ends]);
                hasher.write(&data[data.len() - ends..]);
            }
        }
        Ok(Self(hasher.finish_128().to_be_bytes()))
    }

    /// The fingerprint as it was stored.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The fingerprint, to be stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// All before the first tensor's data.
fn header<'a>(bytes: &'a [u8], gguf: &Gguf<'_>) -> &'a [u8] {
    let first = gguf.tensors().iter().map(|tensor| tensor.offset).min();
    let end = first.and_then(|offset| usize::try_from(offset).ok());
    end.and_then(|end| bytes.get(..end)).unwrap_or(bytes)
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}
