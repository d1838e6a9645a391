//! Decoding codes to centroids, without their scales.

use walsh_formats::codebook::codebook;
use walsh_formats::kv::{RowCodec, TqBits};

use super::planes::{Planes, Words, each_word, join};
use crate::kv::codec::numbers::{Numbers, Reader, Rows};
use crate::simd::{LANES, Simd, Table, table_numbers};

/// What decodes rows.
pub(in crate::kv) struct Decoder {
    bits: TqBits,
    head_dim: usize,
    /// The table of the centroids.
    centroids: Vec<f32>,
}

impl Decoder {
    pub(in crate::kv::codec) fn new(bits: TqBits, codec: &RowCodec) -> Self {
        Self {
            bits,
            head_dim: codec.head_dim(),
            centroids: table_numbers(&codebook(bits).centroids),
        }
    }

    /// Whether value rows come out in the set's lane order.
    pub(in crate::kv::codec) fn reordered(&self) -> bool {
        match self.bits {
            TqBits::B2 | TqBits::B3 | TqBits::B8 => false,
            TqBits::B4 | TqBits::B5 | TqBits::B6 => true,
        }
    }

    /// Whether [`read`] has these codes: they are bytes.
    pub(in crate::kv::codec) fn is_read(&self) -> bool {
        self.bits == TqBits::B8
    }
}

/// Reads rows of codes that are bytes.
///
/// # Safety
/// As the reader's, of codes that [are read](Decoder::is_read).
#[inline(always)]
pub(in crate::kv::codec) unsafe fn read<S: Simd, R: Reader<S>>(s: S, decoder: &Decoder, reader: R) {
    let table = Table::new(s, &decoder.centroids);
    // SAFETY: the caller's.
    unsafe { reader.read(s, Codes(&table)) }
}

/// Codes of eight bits, without their rows' scales.
#[derive(Clone, Copy)]
struct Codes<'a, S: Simd>(&'a Table<'a, S>);

impl<S: Simd> Numbers<S> for Codes<'_, S> {
    #[inline(always)]
    unsafe fn pair(self, s: S, row: *const u8, pair: usize) -> [S::F; 2] {
        // SAFETY: the caller's: the row has these numbers.
        unsafe {
            [
                self.chunk(s, row, 2 * pair),
                self.chunk(s, row, 2 * pair + 1),
            ]
        }
    }

    #[inline(always)]
    unsafe fn chunk(self, s: S, row: *const u8, chunk: usize) -> S::F {
        // SAFETY: the caller's: the row has these numbers.
        unsafe { s.lookup::<8>(self.0, s.load_u8(row.add(LANES * chunk))) }
    }
}

/// Decodes a panel of keys.
///
/// # Safety
/// The rows lie in readable memory, and `out` has room for the panel.
#[inline(always)]
pub(in crate::kv::codec) unsafe fn key_panel<S: Simd>(
    s: S,
    decoder: &Decoder,
    rows: Rows,
    first: usize,
    out: *mut f32,
) {
    // SAFETY: the caller's.
    unsafe {
        match decoder.bits {
            TqBits::B2 => code_panel::<S, 2>(s, decoder, rows, first, out),
            TqBits::B3 => code_panel::<S, 3>(s, decoder, rows, first, out),
            TqBits::B4 => code_panel::<S, 4>(s, decoder, rows, first, out),
            TqBits::B5 => code_panel::<S, 5>(s, decoder, rows, first, out),
            TqBits::B6 => code_panel::<S, 6>(s, decoder, rows, first, out),
            TqBits::B8 => code_panel::<S, 8>(s, decoder, rows, first, out),
        }
    }
}

/// Decodes rows of values.
///
/// # Safety
/// The rows lie in readable memory, and `out` has room for them.
#[inline(always)]
pub(in crate::kv::codec) unsafe fn value_rows<S: Simd>(
    s: S,
    decoder: &Decoder,
    rows: Rows,
    out: *mut f32,
) {
    // SAFETY: the caller's.
    unsafe {
        match decoder.bits {
            TqBits::B2 => code_rows::<S, 2>(s, decoder, rows, out),
            TqBits::B3 => code_rows::<S, 3>(s, decoder, rows, out),
            TqBits::B4 => code_rows::<S, 4>(s, decoder, rows, out),
            TqBits::B5 => code_rows::<S, 5>(s, decoder, rows, out),
            TqBits::B6 => code_rows::<S, 6>(s, decoder, rows, out),
            TqBits::B8 => code_rows::<S, 8>(s, decoder, rows, out),
        }
    }
}

#[inline(always)]
unsafe fn code_panel<S: Simd, const BITS: usize>(
    s: S,
    decoder: &Decoder,
    rows: Rows,
    first: usize,
    out: *mut f32,
) {
    // SAFETY: the caller's: a panel of output.
    unsafe {
        let mut panel = Panel {
            simd: s,
            table: Table::new(s, &decoder.centroids),
            out,
        };
        each_word::<S, BITS, _>(s, rows, first, decoder.head_dim, &mut panel);
    }
}

/// A panel of decoded numbers.
struct Panel<'a, S: Simd> {
    simd: S,
    table: Table<'a, S>,
    out: *mut f32,
}

impl<S: Simd, const BITS: usize> Words<S, BITS> for Panel<'_, S> {
    #[inline(always)]
    unsafe fn word(&mut self, word: usize, low: S::I, (high, bit): (S::I, usize)) {
        let s = self.simd;
        let planes = Planes::of::<BITS>(0);
        let per_word = 32 / planes.low;
        // SAFETY: the caller's rows, and room for what is decoded.
        unsafe {
            let high = s.shr(high, s.splat_i(bit as u32));
            for i in 0..per_word {
                let low = s.shr(low, s.splat_i((i * planes.low) as u32));
                let index = if planes.high == 0 {
                    low
                } else {
                    let high = s.shr(high, s.splat_i((i * planes.high) as u32));
                    join::<S, BITS>(s, low, high)
                };
                let out = self.out.add((word * per_word + i) * LANES);
                s.store(out, s.lookup::<BITS>(&self.table, index));
            }
        }
    }
}

#[inline(always)]
unsafe fn code_rows<S: Simd, const BITS: usize>(
    s: S,
    decoder: &Decoder,
    rows: Rows,
    out: *mut f32,
) {
    let d = decoder.head_dim;
    let planes = Planes::of::<BITS>(d);
    // SAFETY: the caller's rows; chunks stay within their rows.
    unsafe {
        let table = Table::new(s, &decoder.centroids);
        let natural: [u32; LANES] = std::array::from_fn(|i| i as u32);
        let lanes = if planes.low == 4 {
            S::ORDER.map(u32::from)
        } else {
            natural
        };
        let times = |n: usize| lanes.map(|lane| lane * n as u32);
        let low_shift = s.load_i(times(2).as_ptr());
        let high_shift = s.load_i(times(planes.high).as_ptr());
        for i in 0..rows.count {
            let row = rows.codes.add(i * rows.stride);
            for chunk in 0..d / LANES {
                let low = match planes.low {
                    2 => {
                        let word = row.add(4 * chunk).cast::<u32>().read_unaligned();
                        s.shr(s.splat_i(word), low_shift)
                    }
                    4 => s.nibbles(row.add(8 * chunk)),
                    _ => s.load_u8(row.add(16 * chunk)),
                };
                let index = if planes.high == 0 {
                    low
                } else {
                    let at = row.add(planes.high_at + 2 * planes.high * chunk);
                    let word = match planes.high {
                        1 => u32::from(at.cast::<u16>().read_unaligned()),
                        _ => at.cast::<u32>().read_unaligned(),
                    };
                    join::<S, BITS>(s, low, s.shr(s.splat_i(word), high_shift))
                };
                s.store(
                    out.add(i * d + LANES * chunk),
                    s.lookup::<BITS>(&table, index),
                );
            }
        }
    }
}
