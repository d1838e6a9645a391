//! Decoding a tile of cached rows into scratch: keys as panels, values as rows.
//!
//! A *panel* holds 16 positions side by side, `[head_dim][16]`, so that scores come out as vectors over positions with
//! no reduction across lanes. Value rows stay rows; those of codecs with 4-bit planes come out in the instruction
//! set's lane order, which the output undoes once at the end.

use walsh_formats::DType;
use walsh_formats::kv::{KvCodec, RowCodec, ScaleKind, Tq, TqBits};

use super::dense::{Numbers, with_numbers};
use crate::simd::{LANES, Simd, Table, entries, table_numbers};

/// Numbers of a head's vector in scratch, where zeros fill the last vector of lanes.
pub(super) fn width(head_dim: usize) -> usize {
    head_dim.next_multiple_of(LANES)
}

/// A codec with the table of its centroids.
pub(super) struct Decoder {
    pub(super) codec: RowCodec,
    pub(super) centroids: Vec<f32>,
}

impl Decoder {
    pub(super) fn new(codec: RowCodec) -> Self {
        let centroids = codec.centroids().map(table_numbers).unwrap_or_default();
        Self { codec, centroids }
    }
}

/// Rows of one KV head that lie at a fixed distance from each other.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    /// The first row's codes.
    pub(super) codes: *const u8,
    /// Bytes from row to row.
    pub(super) stride: usize,
    /// The first row's scales; unused for dense codecs.
    pub(super) scales: *const u8,
    /// How many rows there are, at least one.
    pub(super) count: usize,
}

/// Whether value rows of a codec come out in the set's lane order.
pub(super) fn reordered(codec: KvCodec) -> bool {
    match codec {
        KvCodec::Dense(_) | KvCodec::Rotated(_) => false,
        KvCodec::Tq(tq) => matches!(tq.bits, TqBits::B4 | TqBits::B5 | TqBits::B6),
    }
}

entries! {
    /// Decodes keys to panels, `[count / 16 rounded up][width][16]`, without the scales of codecs that have one per
    /// row. Positions past the count repeat the last one.
    ///
    /// # Safety
    /// The rows lie in readable memory, and `out` has room for the panels.
    pub(super) unsafe fn key_panels(decoder: &Decoder, rows: Rows, out: *mut f32) = decode_keys
}

entries! {
    /// Decodes values to rows, `[count][width]`, without the scales of codecs that have one per row.
    ///
    /// # Safety
    /// As for [`key_panels`].
    pub(super) unsafe fn value_rows(decoder: &Decoder, rows: Rows, out: *mut f32) = decode_values
}

/// See [`key_panels`].
#[inline(always)]
unsafe fn decode_keys<S: Simd>(s: S, decoder: &Decoder, rows: Rows, out: *mut f32) {
    let codec = &decoder.codec;
    let d = codec.head_dim();
    for first in (0..rows.count).step_by(LANES) {
        // SAFETY: panel `first / 16` of the output; rows below the count.
        unsafe {
            let out = out.add(first * width(d));
            match codec.codec() {
                KvCodec::Dense(dtype) | KvCodec::Rotated(dtype) => {
                    with_numbers!(dtype, numbers => dense_panel::<S, _>(s, numbers, rows, first, (d, out)));
                }
                KvCodec::Tq(tq) => {
                    match tq.bits {
                        TqBits::B2 => code_panel::<S, 2>(s, decoder, rows, first, out),
                        TqBits::B3 => code_panel::<S, 3>(s, decoder, rows, first, out),
                        TqBits::B4 => code_panel::<S, 4>(s, decoder, rows, first, out),
                        TqBits::B5 => code_panel::<S, 5>(s, decoder, rows, first, out),
                        TqBits::B6 => code_panel::<S, 6>(s, decoder, rows, first, out),
                        TqBits::B8 => code_panel::<S, 8>(s, decoder, rows, first, out),
                    }
                    if codec.groups() > 1 {
                        scale_panel(s, codec, rows, first, out);
                    }
                }
            }
        }
    }
}

/// See [`value_rows`].
#[inline(always)]
unsafe fn decode_values<S: Simd>(s: S, decoder: &Decoder, rows: Rows, out: *mut f32) {
    let codec = &decoder.codec;
    // SAFETY: the caller's rows, and room for what is decoded.
    unsafe {
        match codec.codec() {
            KvCodec::Dense(dtype) | KvCodec::Rotated(dtype) => {
                let d = codec.head_dim();
                with_numbers!(dtype, numbers => dense_rows::<S, _>(s, numbers, rows, d, out));
            }
            KvCodec::Tq(tq) => {
                match tq.bits {
                    TqBits::B2 => code_rows::<S, 2>(s, decoder, rows, out),
                    TqBits::B3 => code_rows::<S, 3>(s, decoder, rows, out),
                    TqBits::B4 => code_rows::<S, 4>(s, decoder, rows, out),
                    TqBits::B5 => code_rows::<S, 5>(s, decoder, rows, out),
                    TqBits::B6 => code_rows::<S, 6>(s, decoder, rows, out),
                    TqBits::B8 => code_rows::<S, 8>(s, decoder, rows, out),
                }
                if codec.groups() > 1 {
                    scale_rows(s, codec, rows, out);
                }
            }
        }
    }
}

entries! {
    /// Writes the factor of each row: its scale where the codec has one per row, else 1. Rows past the count get 1.
    ///
    /// # Safety
    /// The rows' scales lie in readable memory.
    pub(super) unsafe fn row_factors(codec: &RowCodec, rows: Rows, out: &mut [f32]) = decode_factors
}

/// See [`row_factors`].
#[inline(always)]
unsafe fn decode_factors<S: Simd>(s: S, codec: &RowCodec, rows: Rows, out: &mut [f32]) {
    if codec.groups() != 1 {
        out.fill(1.0);
        return;
    }
    let (stored, padding) = out.split_at_mut(rows.count.min(out.len()));
    padding.fill(1.0);
    let halves = codec.scale_dtype() == Some(DType::F16);
    let whole = if halves {
        stored.len() / LANES * LANES
    } else {
        0
    };
    for first in (0..whole).step_by(LANES) {
        // SAFETY: sixteen rows below the count, and as many numbers of the output.
        unsafe {
            s.store(
                stored.as_mut_ptr().add(first),
                s.load_f16(rows.scales.add(2 * first)),
            )
        };
    }
    for (i, out) in stored.iter_mut().enumerate().skip(whole) {
        // SAFETY: a row below the count.
        *out = unsafe { scale(s, codec, rows, i, 0) };
    }
}

/// The factor of one group of a row.
///
/// # Safety
/// The row is below the count, and the codec has scales.
#[inline(always)]
unsafe fn scale<S: Simd>(s: S, codec: &RowCodec, rows: Rows, row: usize, group: usize) -> f32 {
    let at = row * codec.groups() + group;
    // SAFETY: the caller's rows, and room for what is decoded.
    unsafe {
        match codec.codec() {
            KvCodec::Tq(Tq {
                scale: ScaleKind::Norm,
                ..
            }) => rows.scales.cast::<f32>().add(at).read_unaligned() * codec.scale_factor(),
            _ => s.half(rows.scales.add(2 * at)),
        }
    }
}

#[inline(always)]
unsafe fn dense_panel<S: Simd, N: Numbers<S>>(
    s: S,
    numbers: N,
    rows: Rows,
    first: usize,
    (d, out): (usize, *mut f32),
) {
    // SAFETY: the caller's rows; `row` stays below the count.
    unsafe {
        let row = |i: usize| {
            let row = (first + i).min(rows.count - 1);
            rows.codes.add(row * rows.stride)
        };
        for pair in 0..d / 32 {
            let mut blocks = [[s.splat(0.0); LANES]; 2];
            for i in 0..LANES {
                [blocks[0][i], blocks[1][i]] = numbers.pair(s, row(i), pair);
            }
            for (half, block) in blocks.iter_mut().enumerate() {
                store_columns(s, block, out.add((2 * pair + half) * LANES * LANES));
            }
        }
        for chunk in d / 32 * 2..d.div_ceil(LANES) {
            let mut block = [s.splat(0.0); LANES];
            for (i, slot) in block.iter_mut().enumerate() {
                *slot = last_numbers(s, numbers, row(i), chunk, d);
            }
            store_columns(s, &mut block, out.add(chunk * LANES * LANES));
        }
    }
}

/// A vector of lanes behind the whole pairs of a row of `d` numbers.
#[inline(always)]
unsafe fn last_numbers<S: Simd, N: Numbers<S>>(
    s: S,
    numbers: N,
    row: *const u8,
    chunk: usize,
    d: usize,
) -> S::F {
    // SAFETY: the caller's rows, and room for what is decoded.
    unsafe {
        match d - chunk * LANES {
            LANES.. => numbers.chunk(s, row, chunk),
            count => numbers.rest(s, row, chunk, count),
        }
    }
}

/// Sixteen numbers of sixteen rows, number by number.
#[inline(always)]
unsafe fn store_columns<S: Simd>(s: S, block: &mut [S::F; LANES], out: *mut f32) {
    // SAFETY: the caller's: the output holds 256 numbers.
    unsafe {
        s.transpose(block);
        for (i, column) in block.iter().enumerate() {
            s.store(out.add(i * LANES), *column);
        }
    }
}

#[inline(always)]
unsafe fn dense_rows<S: Simd, N: Numbers<S>>(
    s: S,
    numbers: N,
    rows: Rows,
    d: usize,
    out: *mut f32,
) {
    for i in 0..rows.count {
        // SAFETY: the caller's rows; `i` is below the count.
        unsafe {
            let (row, out) = (rows.codes.add(i * rows.stride), out.add(i * width(d)));
            for pair in 0..d / 32 {
                let [a, b] = numbers.pair(s, row, pair);
                s.store(out.add(32 * pair), a);
                s.store(out.add(32 * pair + LANES), b);
            }
            for chunk in d / 32 * 2..d.div_ceil(LANES) {
                s.store(
                    out.add(LANES * chunk),
                    last_numbers(s, numbers, row, chunk, d),
                );
            }
        }
    }
}

/// Where the planes of a row's codes lie: the low bits first, then the high ones of widths that are no power of two.
pub(super) struct Planes {
    pub(super) low: usize,
    high: usize,
    pub(super) high_at: usize,
}

impl Planes {
    #[inline(always)]
    pub(super) const fn of<const BITS: usize>(d: usize) -> Self {
        let low = match BITS {
            2 | 3 => 2,
            8 => 8,
            _ => 4,
        };
        Self {
            low,
            high: BITS - low,
            high_at: d * low / 8,
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
        each_word::<S, BITS, _>(s, rows, first, decoder.codec.head_dim(), &mut panel);
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

/// What is done with the codes of sixteen rows, a word of 32 bits of each at a time.
pub(super) trait Words<S: Simd, const BITS: usize> {
    /// Takes a word of the low planes, and the word of the high planes whose bits from `bit` on belong to it.
    ///
    /// # Safety
    /// There is such a word, and room for what it becomes.
    unsafe fn word(&mut self, word: usize, low: S::I, high: (S::I, usize));
}

/// Passes the words of sixteen rows from `first` on; rows past the count are the last one.
///
/// # Safety
/// The rows have codes of `BITS` bits of `d` numbers.
#[inline(always)]
pub(super) unsafe fn each_word<S: Simd, const BITS: usize, W: Words<S, BITS>>(
    s: S,
    rows: Rows,
    first: usize,
    d: usize,
    each: &mut W,
) {
    let planes = Planes::of::<BITS>(d);
    let row_bytes = d * BITS / 8;
    let (start, last) = (first * rows.stride, rows.count - 1 - first);
    let start = rows.codes.wrapping_add(start);
    let mut sources = [start; LANES];
    if last >= LANES - 1 {
        for i in 1..LANES {
            sources[i] = sources[i - 1].wrapping_add(rows.stride);
        }
    } else {
        for (i, source) in sources.iter_mut().enumerate() {
            *source = start.wrapping_add(i.min(last) * rows.stride);
        }
    }
    // SAFETY: the caller's: sixteen rows of `row_bytes` bytes.
    unsafe {
        let mut high_words = [s.splat_i(0); MAX_HIGH_WORDS];
        let mut word = 0;
        while planes.high > 0 && 4 * word < row_bytes - planes.high_at {
            let (columns, skip) = eight_words(s, &sources, planes.high_at + 4 * word, row_bytes);
            for column in &columns[skip..] {
                if let Some(slot) = high_words.get_mut(word) {
                    *slot = *column;
                }
                word += 1;
            }
        }
        let (words, per_word) = (planes.high_at / 4, 32 / planes.low);
        let high = |word: usize| {
            let bit = word * per_word * planes.high;
            (high_words[bit / 32], bit % 32)
        };
        let mut word = 0;
        // One by one, so that they stay in registers.
        while word + 8 <= words {
            let columns = s.columns(&sources.map(|source| source.wrapping_add(4 * word)));
            each.word(word, columns[0], high(word));
            each.word(word + 1, columns[1], high(word + 1));
            each.word(word + 2, columns[2], high(word + 2));
            each.word(word + 3, columns[3], high(word + 3));
            each.word(word + 4, columns[4], high(word + 4));
            each.word(word + 5, columns[5], high(word + 5));
            each.word(word + 6, columns[6], high(word + 6));
            each.word(word + 7, columns[7], high(word + 7));
            word += 8;
        }
        while word < words {
            let (columns, skip) = eight_words(s, &sources, 4 * word, row_bytes);
            let end = 8.min(skip + words - word);
            for column in &columns[skip..end] {
                each.word(word, *column, high(word));
                word += 1;
            }
        }
    }
}

/// The most words of a row's high plane: 512 numbers of 2 bits.
const MAX_HIGH_WORDS: usize = 32;

/// Eight 32-bit words of sixteen rows, word by word, and which of them is the one at byte `at`: near a row's end they
/// begin earlier, so as not to reach past it. Bytes past the end are zero.
///
/// # Safety
/// The rows have `row_bytes` bytes, more than `at`.
#[inline(always)]
unsafe fn eight_words<S: Simd>(
    s: S,
    sources: &[*const u8; LANES],
    at: usize,
    row_bytes: usize,
) -> ([S::I; 8], usize) {
    let back = (at + 32).saturating_sub(row_bytes).next_multiple_of(4);
    let short = back >= 32 || back > at;
    let mut starts = *sources;
    for start in &mut starts {
        *start = start.wrapping_add(if short { at } else { at - back });
    }
    // SAFETY: 32 bytes of each row, or what it has from `at` on.
    unsafe {
        if short {
            (s.short_columns(&starts, row_bytes - at), 0)
        } else {
            (s.columns(&starts), back / 4)
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
    let d = decoder.codec.head_dim();
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

/// Puts the high bits above the low ones; what lies above both is left as it is.
#[inline(always)]
fn join<S: Simd, const BITS: usize>(s: S, low: S::I, high: S::I) -> S::I {
    match BITS {
        3 => s.or(s.and(low, s.splat_i(3)), s.shl::<2>(high)),
        _ => s.or(s.and(low, s.splat_i(15)), s.shl::<4>(high)),
    }
}

#[inline(always)]
unsafe fn scale_panel<S: Simd>(s: S, codec: &RowCodec, rows: Rows, first: usize, out: *mut f32) {
    for group in 0..codec.groups() {
        let mut factors = [0.0; LANES];
        for (i, factor) in factors.iter_mut().enumerate() {
            let row = (first + i).min(rows.count - 1);
            // SAFETY: a row below the count.
            *factor = unsafe { scale(s, codec, rows, row, group) };
        }
        for dim in group * codec.group_len()..(group + 1) * codec.group_len() {
            // SAFETY: the panel has `head_dim` vectors.
            unsafe {
                let at = out.add(dim * LANES);
                s.store(at, s.mul(s.load(at), s.load(factors.as_ptr())));
            }
        }
    }
}

#[inline(always)]
unsafe fn scale_rows<S: Simd>(s: S, codec: &RowCodec, rows: Rows, out: *mut f32) {
    let len = codec.group_len();
    for i in 0..rows.count {
        for group in 0..codec.groups() {
            // SAFETY: the rows decoded before.
            unsafe {
                let factor = s.splat(scale(s, codec, rows, i, group));
                for chunk in 0..len / LANES {
                    let at = out.add(i * codec.head_dim() + group * len + chunk * LANES);
                    s.store(at, s.mul(s.load(at), factor));
                }
            }
        }
    }
}
