//! Packing of codes into bit planes.
//!
//! A plane of `w` bits holds `8/w` codes per byte, the first in the lowest bits. Widths that do not divide eight are
//! two planes, one after the other: 3 = 2 + 1, 5 = 4 + 1, 6 = 4 + 2, the low bits first. No bit is padding.

use crate::codebook::TqBits;

/// Packs one code per byte of `codes` into `out`, whose length is `codes.len() · bits / 8`.
///
/// # Panics
/// If the number of codes is not a multiple of eight or `out` has another length.
pub fn pack(bits: TqBits, codes: &[u8], out: &mut [u8]) {
    assert!(codes.len().is_multiple_of(8) && out.len() == codes.len() * bits.get() / 8);
    let (mut shift, mut rest) = (0, out);
    for &width in bits.planes() {
        let (plane, tail) = rest.split_at_mut(codes.len() * width / 8);
        for (bytes, group) in plane.chunks_exact_mut(width).zip(codes.as_chunks::<8>().0) {
            let eight = squeeze(u64::from_le_bytes(*group) >> shift, width);
            bytes.copy_from_slice(&eight.to_le_bytes()[..width]);
        }
        shift += width;
        rest = tail;
    }
}

/// Brings the low `width` bits of eight bytes together.
#[inline]
fn squeeze(bytes: u64, width: usize) -> u64 {
    /// The low `bits` of every `field` bits.
    const fn mask(bits: usize, field: usize) -> u64 {
        let one = if bits == 64 {
            u64::MAX
        } else {
            (1 << bits) - 1
        };
        let (mut mask, mut at) = (0, 0);
        while at < 64 {
            mask |= one << at;
            at += field;
        }
        mask
    }
    if width == 8 {
        return bytes;
    }
    // Fields of 8 bits become fields of 16 with twice the content, then of 32, then one of 64.
    let x = bytes & mask(width, 8);
    let x = (x | x >> (8 - width)) & mask(2 * width, 16);
    let x = (x | x >> (16 - 2 * width)) & mask(4 * width, 32);
    (x | x >> (32 - 4 * width)) & mask(8 * width, 64)
}

/// Unpacks what [`pack`] wrote, one code per byte.
///
/// # Panics
/// As [`pack`].
pub fn unpack(bits: TqBits, packed: &[u8], codes: &mut [u8]) {
    assert!(codes.len().is_multiple_of(8) && packed.len() == codes.len() * bits.get() / 8);
    codes.fill(0);
    let (mut shift, mut rest) = (0, packed);
    for &width in bits.planes() {
        let (plane, tail) = rest.split_at(codes.len() * width / 8);
        let mask = ((1u16 << width) - 1) as u8;
        for (byte, group) in plane.iter().zip(codes.chunks_exact_mut(8 / width)) {
            for (i, code) in group.iter_mut().enumerate() {
                *code |= (byte >> (i * width) & mask) << shift;
            }
        }
        shift += width;
        rest = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_reads_back() {
        for bits in TqBits::ALL {
            let codes: Vec<u8> = (0..112u32)
                .map(|i| ((i * 37 + 5) % (1 << bits.get())) as u8)
                .collect();
            let mut packed = vec![0; codes.len() * bits.get() / 8];
            pack(bits, &codes, &mut packed);
            let mut back = vec![0xff; codes.len()];
            unpack(bits, &packed, &mut back);
            assert_eq!(codes, back, "{bits:?}");
        }
    }

    #[test]
    fn the_layout_is_fixed() {
        let codes = [0b110, 0b001, 0b111, 0b000, 0b101, 0b010, 0b011, 0b100];
        let mut out = [0; 3];
        pack(TqBits::B3, &codes, &mut out);
        assert_eq!(out, [0b00_11_01_10, 0b00_11_10_01, 0b1001_0101]);
        let mut out = [0; 4];
        pack(TqBits::B4, &codes, &mut out);
        assert_eq!(out, [0x16, 0x07, 0x25, 0x43]);
    }
}
