//! A checked reader over the file's bytes.

use super::error::GgufError;

/// Reads little-endian values front to back; every read is checked against the end.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Cursor { bytes, at: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn remaining(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    /// The bytes since `start`, a former position.
    pub(super) fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.at]
    }

    /// The next `count` bytes; `what` names them in the error.
    pub(super) fn take(
        &mut self,
        count: u64,
        what: impl FnOnce() -> String,
    ) -> Result<&'a [u8], GgufError> {
        if count > self.remaining() {
            return Err(GgufError::Truncated {
                what: what(),
                at: self.at as u64,
                needed: count,
                len: self.bytes.len() as u64,
            });
        }
        let start = self.at;
        // No truncation: `count` is at most the slice's length.
        self.at += count as usize;
        Ok(&self.bytes[start..self.at])
    }

    fn array<const N: usize>(
        &mut self,
        what: impl FnOnce() -> String,
    ) -> Result<[u8; N], GgufError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, what)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self, what: impl FnOnce() -> String) -> Result<u8, GgufError> {
        Ok(u8::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u16(&mut self, what: impl FnOnce() -> String) -> Result<u16, GgufError> {
        Ok(u16::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u32(&mut self, what: impl FnOnce() -> String) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: impl FnOnce() -> String) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A string's bytes: a 64-bit length, then that many bytes.
    pub(super) fn string_bytes(
        &mut self,
        what: impl Fn() -> String,
    ) -> Result<&'a [u8], GgufError> {
        let len = self.u64(&what)?;
        self.take(len, &what)
    }

    pub(super) fn string(&mut self, what: impl Fn() -> String) -> Result<&'a str, GgufError> {
        let bytes = self.string_bytes(&what)?;
        std::str::from_utf8(bytes).map_err(|_| GgufError::Utf8 { what: what() })
    }

    /// A count of things that take at least `smallest` bytes each. One that the rest of the file cannot
    /// hold is an error, so that whoever allocates by it stays within a multiple of the file's size.
    pub(super) fn checked_count(
        &self,
        count: u64,
        smallest: u64,
        what: impl FnOnce() -> String,
    ) -> Result<u64, GgufError> {
        match count.checked_mul(smallest) {
            Some(bytes) if bytes <= self.remaining() => Ok(count),
            _ => Err(GgufError::Count {
                what: what(),
                count,
                len: self.bytes.len() as u64,
            }),
        }
    }
}
