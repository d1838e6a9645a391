//! Rows whose numbers are read where they lie, thirty-two at a time: what families give, and how tiles are decoded from it.

use std::marker::PhantomData;

use bytemuck::{Pod, Zeroable};

use crate::simd::{LANES, Simd, Token};

/// Numbers of a head's vector in scratch, where zeros fill the last vector of lanes.
pub(in crate::kv) fn width(head_dim: usize) -> usize {
    head_dim.next_multiple_of(LANES)
}

/// Brings vectors from the model's order of channels to the lane order of codes, or back.
pub(in crate::kv) fn reorder(set: Token, rows: &mut [f32], to_lanes: bool) {
    let order = set.facts().order;
    for chunk in rows.chunks_exact_mut(LANES) {
        let before: [f32; LANES] = std::array::from_fn(|i| chunk[i]);
        for (lane, element) in order.iter().enumerate() {
            let element = usize::from(*element);
            if to_lanes {
                chunk[lane] = before[element];
            } else {
                chunk[element] = before[lane];
            }
        }
    }
}

/// Rows of one KV head that lie at a fixed distance from each other.
#[derive(Clone, Copy)]
pub(in crate::kv) struct Rows<'a> {
    /// The first row's codes.
    codes: *const u8,
    /// Bytes from row to row, and of a row.
    stride: usize,
    row_bytes: usize,
    /// The rows' scales, as many bytes of each; none for dense codecs.
    scales: &'a [u8],
    scale_bytes: usize,
    count: usize,
    memory: PhantomData<&'a [u8]>,
}

impl<'a> Rows<'a> {
    /// `count` rows of `row_bytes` bytes, `stride` bytes apart, and as many of their scales one after the other.
    #[inline]
    pub(in crate::kv) fn new(
        codes: &'a [u8],
        (stride, row_bytes): (usize, usize),
        (scales, scale_bytes): (&'a [u8], usize),
        count: usize,
    ) -> Self {
        assert!(count == 0 || (count - 1) * stride + row_bytes <= codes.len());
        assert!(count * scale_bytes <= scales.len());
        Self {
            codes: codes.as_ptr(),
            stride,
            row_bytes,
            scales,
            scale_bytes,
            count,
            memory: PhantomData,
        }
    }

    pub(in crate::kv) fn count(self) -> usize {
        self.count
    }

    /// The first `count` of them.
    pub(in crate::kv) fn first(self, count: usize) -> Self {
        assert!(count <= self.count, "as many rows as there are");
        Self { count, ..self }
    }

    /// Copies of these rows, and of others of the codec behind them, one after the other.
    pub(in crate::kv) fn join<'b>(self, others: Rows<'_>, room: &'b mut [u8]) -> Rows<'b> {
        let count = self.count + others.count;
        let (codes, rest) = room.split_at_mut(count * self.row_bytes);
        let (scales, _) = rest.split_at_mut(count * self.scale_bytes);
        for (row, to) in codes.chunks_exact_mut(self.row_bytes).enumerate() {
            to.copy_from_slice(match row.checked_sub(self.count) {
                None => self.row(row),
                Some(row) => others.row(row),
            });
        }
        let (first, second) = scales.split_at_mut(self.count * self.scale_bytes);
        first.copy_from_slice(&self.scales[..first.len()]);
        second.copy_from_slice(&others.scales[..second.len()]);
        let stride = (self.row_bytes, self.row_bytes);
        Rows::new(codes, stride, (scales, self.scale_bytes), count)
    }

    /// The bytes between the first row and a row, which need not exist: what follows the rows is asked for too.
    #[inline(always)]
    pub(in crate::kv) fn distance(self, row: usize) -> usize {
        row * self.stride
    }

    /// Where a distance from the first row is, to fetch from.
    #[inline(always)]
    pub(in crate::kv) fn address(self, distance: usize) -> *const u8 {
        self.codes.wrapping_add(distance)
    }

    /// The bytes of each row that are told apart as `T`, of which a row must have so many.
    #[inline(always)]
    pub(in crate::kv) fn of<T: Pod>(self, len: usize) -> RowsOf<'a, T> {
        const { assert!(align_of::<T>() == 1, "rows lie at any address") };
        assert!(len * size_of::<T>() <= self.row_bytes);
        RowsOf {
            codes: self.codes,
            stride: self.stride,
            count: self.count,
            len,
            memory: PhantomData,
        }
    }

    /// The bytes of a row.
    #[inline(always)]
    pub(in crate::kv) fn row(self, row: usize) -> &'a [u8] {
        self.of(self.row_bytes).row(row)
    }

    /// All rows as one run of single-precision numbers, and how many are between the beginnings of two; none where they
    /// are not aligned.
    pub(in crate::kv) fn singles(self) -> Option<(&'a [f32], usize)> {
        let bytes = match self.count {
            0 => 0,
            count => (count - 1) * self.stride + self.row_bytes,
        };
        // SAFETY: so many bytes were measured when the rows were made.
        let bytes = unsafe { std::slice::from_raw_parts(self.codes, bytes) };
        let numbers = bytemuck::try_cast_slice(bytes).ok()?;
        (self.stride.is_multiple_of(4)).then_some((numbers, self.stride / 4))
    }

    /// The scales of all rows.
    #[inline(always)]
    pub(super) fn scales(self) -> &'a [u8] {
        self.scales
    }

    /// Scales of a row from one of its bytes on.
    #[inline(always)]
    pub(super) fn scale<const N: usize>(self, row: usize, at: usize) -> [u8; N] {
        let bytes = &self.scales[row * self.scale_bytes + at..][..N];
        std::array::from_fn(|i| bytes[i])
    }
}

/// [`Rows`] of so many `T` each.
#[derive(Clone, Copy)]
pub(in crate::kv) struct RowsOf<'a, T> {
    codes: *const u8,
    stride: usize,
    count: usize,
    len: usize,
    memory: PhantomData<&'a T>,
}

impl<'a, T: Pod> RowsOf<'a, T> {
    pub(in crate::kv) fn count(self) -> usize {
        self.count
    }

    /// Bytes from row to row.
    pub(in crate::kv) fn stride(self) -> usize {
        self.stride
    }

    #[inline(always)]
    pub(in crate::kv) fn row(self, row: usize) -> &'a [T] {
        assert!(row < self.count, "a row that is there");
        // SAFETY: the row is there, and has been measured to hold so many, whose bytes are of any value and at any address.
        unsafe {
            let start = self.codes.add(row * self.stride);
            std::slice::from_raw_parts(start.cast::<T>(), self.len)
        }
    }

    /// # Safety
    /// There is such a row, and it has so many and one more.
    #[inline(always)]
    pub(in crate::kv) unsafe fn get(self, row: usize, index: usize) -> &'a T {
        debug_assert!(row < self.count && index < self.len);
        // SAFETY: both are there, as this method asks; bytes are of any value and at any address.
        unsafe { &*self.codes.add(row * self.stride).cast::<T>().add(index) }
    }

    /// A row, or the last one where it is behind that.
    #[inline(always)]
    pub(in crate::kv) fn row_or_last(self, row: usize) -> &'a [T] {
        self.row(row.min(self.count - 1))
    }
}

/// How numbers of a row are read.
pub(in crate::kv) trait Numbers<S: Simd>: Copy {
    /// Thirty-two numbers where they lie.
    type Pair: Pod;
    /// Sixteen numbers of a row that is not of whole pairs.
    type Half: Pod;
    /// Whether pairs begin with a scale of theirs, in half precision.
    const SCALED: bool = false;

    /// A pair of vectors.
    fn pair(self, s: S, from: &Self::Pair) -> [S::F; 2];

    /// As [`pair`](Self::pair), without the scale of the pair.
    #[inline(always)]
    fn unscaled(self, s: S, from: &Self::Pair) -> [S::F; 2] {
        self.pair(s, from)
    }

    /// The last vector of a row that is not of whole pairs.
    fn half(self, s: S, from: &Self::Half) -> S::F;
}

/// What is done with rows once it is known how their numbers are read.
pub(in crate::kv) trait Reader<S: Simd> {
    /// Reads rows.
    fn read<N: Numbers<S>>(self, s: S, numbers: N);
}

/// Sixteen columns of a panel and more.
type Columns = [[f32; LANES]];

/// Decodes a panel of keys, of the rows from `first` on.
pub(super) struct KeyPanel<'a> {
    pub(super) rows: Rows<'a>,
    pub(super) first: usize,
    pub(super) head_dim: usize,
    /// `[width]`.
    pub(super) out: &'a mut Columns,
}

impl<S: Simd> Reader<S> for KeyPanel<'_> {
    #[inline(always)]
    fn read<N: Numbers<S>>(self, s: S, numbers: N) {
        let Self {
            rows,
            first,
            head_dim: d,
            out,
        } = self;
        let pairs = rows.of::<N::Pair>(d / 32);
        let mut sources = [pairs.row(first); LANES];
        for (i, source) in sources.iter_mut().enumerate() {
            *source = pairs.row_or_last(first + i);
        }
        for (pair, out) in out.chunks_exact_mut(2 * LANES).take(d / 32).enumerate() {
            let mut blocks = [[s.splat(0.0); LANES]; 2];
            for i in 0..LANES {
                // SAFETY: each row has `d / 32` pairs.
                let from = unsafe { sources[i].get_unchecked(pair) };
                [blocks[0][i], blocks[1][i]] = numbers.pair(s, from);
            }
            for (block, out) in blocks.iter_mut().zip(out.chunks_exact_mut(LANES)) {
                store_columns(s, block, out);
            }
        }
        for chunk in d / 32 * 2..d.div_ceil(LANES) {
            let mut block = [s.splat(0.0); LANES];
            for (i, slot) in block.iter_mut().enumerate() {
                let row = rows.row((first + i).min(rows.count - 1));
                *slot = last_numbers(s, numbers, row, (chunk, d));
            }
            store_columns(s, &mut block, &mut out[chunk * LANES..][..LANES]);
        }
    }
}

/// A vector of lanes behind the whole pairs of a row of `d` numbers; past the last one it is zero.
#[inline(always)]
fn last_numbers<S: Simd, N: Numbers<S>>(
    s: S,
    numbers: N,
    row: &[u8],
    (chunk, d): (usize, usize),
) -> S::F {
    let bytes = size_of::<N::Half>();
    let row = &row[bytes * chunk..];
    match d - chunk * LANES {
        LANES.. => numbers.half(s, bytemuck::from_bytes(&row[..bytes])),
        count => {
            let mut padded = N::Half::zeroed();
            let there = bytes / LANES * count;
            bytemuck::bytes_of_mut(&mut padded)[..there].copy_from_slice(&row[..there]);
            numbers.half(s, &padded)
        }
    }
}

/// Sixteen numbers of sixteen rows, number by number.
#[inline(always)]
fn store_columns<S: Simd>(s: S, block: &mut [S::F; LANES], out: &mut Columns) {
    s.transpose(block);
    for (out, column) in out.iter_mut().zip(block) {
        s.write(out, *column);
    }
}

/// Decodes rows of values.
pub(super) struct ValueRows<'a> {
    pub(super) rows: Rows<'a>,
    pub(super) head_dim: usize,
    /// `[rows][width]`.
    pub(super) out: &'a mut [f32],
}

impl<S: Simd> Reader<S> for ValueRows<'_> {
    #[inline(always)]
    fn read<N: Numbers<S>>(self, s: S, numbers: N) {
        let Self {
            rows,
            head_dim: d,
            out,
        } = self;
        let pairs = rows.of::<N::Pair>(d / 32);
        for (i, out) in out.chunks_exact_mut(width(d)).take(rows.count).enumerate() {
            let out = out.as_chunks_mut::<LANES>().0;
            let (whole, rest) = out.split_at_mut(d / 32 * 2);
            for (from, out) in pairs.row(i).iter().zip(whole.as_chunks_mut::<2>().0) {
                let [a, b] = numbers.pair(s, from);
                s.write(&mut out[0], a);
                s.write(&mut out[1], b);
            }
            for (chunk, out) in rest.iter_mut().enumerate() {
                let at = (d / 32 * 2 + chunk, d);
                s.write(out, last_numbers(s, numbers, rows.row(i), at));
            }
        }
    }
}

/// The scales of a pair of sixteen rows from one on; those past the last row are the last one again.
#[inline(always)]
pub(in crate::kv) fn pair_scales<S: Simd, T: Pod>(
    s: S,
    rows: RowsOf<'_, T>,
    (first, pair): (usize, usize),
) -> S::F {
    assert!(first < rows.count && pair < rows.len && size_of::<T>() >= 2);
    let last = rows.count - 1 - first;
    let mut scales = [[0u8; 2]; LANES];
    for (i, scale) in scales.iter_mut().enumerate() {
        let row = first + if last >= LANES - 1 { i } else { i.min(last) };
        // SAFETY: the row is there and has the pair, which begins with two bytes of its scale.
        *scale = unsafe {
            let row = rows.codes.add(row * rows.stride).cast::<T>();
            row.add(pair).cast::<[u8; 2]>().read()
        };
    }
    s.read_f16(bytemuck::cast_ref(&scales))
}
