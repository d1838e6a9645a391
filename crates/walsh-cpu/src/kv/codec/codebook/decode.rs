//! Decoding codes to centroids, without their scales.

use walsh_formats::codebook::codebook;
use walsh_formats::kv::{RowCodec, TqBits};

use super::planes::{CodeRows, Planes, Words, join};
use crate::kv::codec::numbers::{KeyPanel, Numbers, Reader, ValueRows};
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

/// Reads rows of codes that are bytes, which others [are not read](Decoder::is_read) as.
#[inline(always)]
pub(in crate::kv::codec) fn read<S: Simd, R: Reader<S>>(s: S, decoder: &Decoder, reader: R) {
    let table = Table::new(s, &decoder.centroids);
    reader.read(s, Codes(&table));
}

/// Codes of eight bits, without their rows' scales.
#[derive(Clone, Copy)]
struct Codes<'a, S: Simd>(&'a Table<'a, S>);

impl<S: Simd> Numbers<S> for Codes<'_, S> {
    type Pair = [[u8; LANES]; 2];
    type Half = [u8; LANES];

    #[inline(always)]
    fn pair(self, s: S, from: &Self::Pair) -> [S::F; 2] {
        [self.half(s, &from[0]), self.half(s, &from[1])]
    }

    #[inline(always)]
    fn half(self, s: S, from: &Self::Half) -> S::F {
        s.lookup::<8>(self.0, s.read_u8(from))
    }
}

/// Decodes a panel of keys.
#[inline(always)]
pub(in crate::kv::codec) fn key_panel<S: Simd>(s: S, decoder: &Decoder, panel: KeyPanel<'_>) {
    match decoder.bits {
        TqBits::B2 => code_panel::<S, 2>(s, decoder, panel),
        TqBits::B3 => code_panel::<S, 3>(s, decoder, panel),
        TqBits::B4 => code_panel::<S, 4>(s, decoder, panel),
        TqBits::B5 => code_panel::<S, 5>(s, decoder, panel),
        TqBits::B6 => code_panel::<S, 6>(s, decoder, panel),
        TqBits::B8 => code_panel::<S, 8>(s, decoder, panel),
    }
}

/// Decodes rows of values.
#[inline(always)]
pub(in crate::kv::codec) fn value_rows<S: Simd>(s: S, decoder: &Decoder, values: ValueRows<'_>) {
    match decoder.bits {
        TqBits::B2 => code_rows::<S, 2>(s, decoder, values),
        TqBits::B3 => code_rows::<S, 3>(s, decoder, values),
        TqBits::B4 => code_rows::<S, 4>(s, decoder, values),
        TqBits::B5 => code_rows::<S, 5>(s, decoder, values),
        TqBits::B6 => code_rows::<S, 6>(s, decoder, values),
        TqBits::B8 => code_rows::<S, 8>(s, decoder, values),
    }
}

#[inline(always)]
fn code_panel<S: Simd, const BITS: usize>(s: S, decoder: &Decoder, panel: KeyPanel<'_>) {
    let mut decoded = Panel {
        simd: s,
        table: Table::new(s, &decoder.centroids),
        out: panel.out,
    };
    let codes = CodeRows::<BITS>::new(panel.rows, decoder.head_dim);
    codes.each_word(s, panel.first, &mut decoded);
}

/// A panel of decoded numbers.
struct Panel<'a, S: Simd> {
    simd: S,
    table: Table<'a, S>,
    out: &'a mut [[f32; LANES]],
}

impl<S: Simd, const BITS: usize> Words<S, BITS> for Panel<'_, S> {
    #[inline(always)]
    unsafe fn word(&mut self, word: usize, low: S::I, (high, bit): (S::I, usize)) {
        let s = self.simd;
        let planes = Planes::of::<BITS>(0);
        let per_word = 32 / planes.low;
        let high = s.shr(high, s.splat_i(bit as u32));
        let out = &mut self.out[word * per_word..][..per_word];
        for (i, out) in out.iter_mut().enumerate() {
            let low = s.shr(low, s.splat_i((i * planes.low) as u32));
            let index = if planes.high == 0 {
                low
            } else {
                let high = s.shr(high, s.splat_i((i * planes.high) as u32));
                join::<S, BITS>(s, low, high)
            };
            s.write(out, s.lookup::<BITS>(&self.table, index));
        }
    }
}

#[inline(always)]
fn code_rows<S: Simd, const BITS: usize>(s: S, decoder: &Decoder, values: ValueRows<'_>) {
    let ValueRows { rows, out, .. } = values;
    let d = decoder.head_dim;
    let planes = Planes::of::<BITS>(d);
    let table = Table::new(s, &decoder.centroids);
    let natural: [u32; LANES] = std::array::from_fn(|i| i as u32);
    let lanes = if planes.low == 4 {
        S::ORDER.map(u32::from)
    } else {
        natural
    };
    let times = |n: usize| lanes.map(|lane| lane * n as u32);
    let low_shift = s.read_i(&times(2));
    let high_shift = s.read_i(&times(planes.high));
    let codes = rows.of::<u8>(d * BITS / 8);
    for (i, out) in out.chunks_exact_mut(d).take(rows.count()).enumerate() {
        let (low, high) = codes.row(i).split_at(planes.high_at);
        for (chunk, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            // SAFETY: a chunk of sixteen numbers has twice as many bytes as bits, of each plane.
            let index = unsafe {
                let at = low.as_ptr().add(2 * planes.low * chunk);
                let low = match planes.low {
                    2 => s.shr(s.splat_i(at.cast::<u32>().read_unaligned()), low_shift),
                    4 => s.nibbles(at),
                    _ => s.load_u8(at),
                };
                let at = high.as_ptr().wrapping_add(2 * planes.high * chunk);
                let word = match planes.high {
                    0 => 0,
                    1 => u32::from(at.cast::<u16>().read_unaligned()),
                    _ => at.cast::<u32>().read_unaligned(),
                };
                if planes.high == 0 {
                    low
                } else {
                    join::<S, BITS>(s, low, s.shr(s.splat_i(word), high_shift))
                }
            };
            s.write(out, s.lookup::<BITS>(&table, index));
        }
    }
}
