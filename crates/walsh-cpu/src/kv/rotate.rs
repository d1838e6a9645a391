//! The rotation of a vector, bit for bit as [`Rotation`] does it.
//!
//! Butterflies add the same pairs in whatever order vectors are visited, so that each pass over memory does as many of
//! them as registers hold. Of a size that is no power of two, blocks of the small matrix's order are brought to whole
//! vectors first, so that the butterflies between them are those of a power of two.

use walsh_formats::rotation::{MAX_HEAD_DIM, Rotation};

use crate::simd::{LANES, Simd, entries};

/// What numbers are multiplied by at last.
#[derive(Clone, Copy)]
struct Last<'a> {
    factor: f32,
    signs: Option<&'a [f32]>,
}

/// `r = H·(s∘x)/√D`.
#[inline(always)]
pub(crate) fn forward<S: Simd>(s: S, rotation: &Rotation, values: &mut [f32]) {
    assert_eq!(values.len(), rotation.head_dim(), "the rotation's size");
    if !values.len().is_multiple_of(LANES) {
        return rotation.forward(values);
    }
    let values = values.as_mut_ptr();
    // SAFETY: the slice has been measured.
    unsafe { turn(s, rotation, values, values) }
}

/// `r = H·(s∘x)/√D` of `source`, into `values`.
#[inline(always)]
pub(crate) fn forward_from<S: Simd>(s: S, rotation: &Rotation, source: &[f32], values: &mut [f32]) {
    let len = rotation.head_dim();
    assert!(source.len() == len && values.len() == len && len.is_multiple_of(LANES));
    // SAFETY: the slices have been measured.
    unsafe { turn(s, rotation, source.as_ptr(), values.as_mut_ptr()) }
}

/// # Safety
/// Both pointers, which may be the same, are valid for the rotation's size, a multiple
/// of 16.
#[inline(always)]
unsafe fn turn<S: Simd>(s: S, rotation: &Rotation, source: *const f32, values: *mut f32) {
    let len = rotation.head_dim();
    let last = Last {
        factor: rotation.factor(),
        signs: None,
    };
    // SAFETY: the caller's values and signs; there are as many signs.
    unsafe {
        if rotation.order() == 1 {
            return butterflies(s, (source, Some(rotation.signs())), (values, len), last);
        }
        for i in (0..len).step_by(LANES) {
            let signs = s.load(rotation.signs().as_ptr().add(i));
            s.store(values.add(i), s.mul(s.load(source.add(i)), signs));
        }
        let blocks = Blocks::of(rotation);
        let mut turned = [0f32; MAX_HEAD_DIM];
        let turned = &mut turned[..blocks.count * blocks.stride];
        blocks.multiply(s, rotation.columns(), (values, blocks.order), turned);
        between(
            s,
            blocks.stride,
            (turned.as_mut_ptr(), turned.len()),
            Some(last),
        );
        blocks.join(s, turned, std::slice::from_raw_parts_mut(values, len));
    }
}

/// `x = s∘(H·r)/√D`.
#[inline(always)]
pub(crate) fn inverse<S: Simd>(s: S, rotation: &Rotation, values: &mut [f32]) {
    let len = values.len();
    assert_eq!(len, rotation.head_dim(), "the rotation's size");
    if !len.is_multiple_of(LANES) {
        return rotation.inverse(values);
    }
    // SAFETY: signs and values are of the same length.
    unsafe {
        if rotation.order() == 1 {
            let last = Last {
                factor: rotation.factor(),
                signs: Some(rotation.signs()),
            };
            let values = values.as_mut_ptr();
            return butterflies(s, (values, None), (values, len), last);
        }
        let blocks = Blocks::of(rotation);
        let (mut apart, mut turned) = ([0f32; MAX_HEAD_DIM], [0f32; MAX_HEAD_DIM]);
        let apart = &mut apart[..blocks.count * blocks.stride];
        let turned = &mut turned[..blocks.count * blocks.stride];
        blocks.part(s, values, apart);
        between(s, blocks.stride, (apart.as_mut_ptr(), apart.len()), None);
        let lines = rotation.rows();
        blocks.multiply(s, lines, (apart.as_ptr(), blocks.stride), turned);
        blocks.join(s, turned, values);
        let factor = s.splat(rotation.factor());
        for i in (0..len).step_by(LANES) {
            let at = values.as_mut_ptr().add(i);
            let factor = s.mul(factor, s.load(rotation.signs().as_ptr().add(i)));
            s.store(at, s.mul(s.load(at), factor));
        }
    }
}

entries! {
    /// `x = s∘(H·r)/√D`.
    pub(crate) fn inverse_with(rotation: &Rotation, values: &mut [f32]) = inverse
}

/// All butterflies of a power of two, of the source times signs where there are any.
///
/// # Safety
/// Both pointers, which may be the same, and the signs are valid for the length, a
/// power of two from 16 on.
#[inline(always)]
unsafe fn butterflies<S: Simd>(
    s: S,
    source: (*const f32, Option<&[f32]>),
    values: (*mut f32, usize),
    last: Last,
) {
    // SAFETY: the caller's values and signs.
    unsafe {
        match values.1 {
            LANES => within::<S, 1>(s, source, values, Some(last)),
            32 => within::<S, 2>(s, source, values, Some(last)),
            64 => within::<S, 4>(s, source, values, Some(last)),
            _ => {
                within::<S, 4>(s, source, values, None);
                between(s, 4 * LANES, values, Some(last));
            }
        }
    }
}

/// The butterflies within each `N` vectors.
///
/// # Safety
/// As for [`butterflies`].
#[inline(always)]
unsafe fn within<S: Simd, const N: usize>(
    s: S,
    (source, signs): (*const f32, Option<&[f32]>),
    (values, len): (*mut f32, usize),
    last: Option<Last>,
) {
    for start in (0..len).step_by(N * LANES) {
        // SAFETY: the caller's values and signs.
        unsafe {
            let mut v = [s.splat(0.0); N];
            for (k, v) in v.iter_mut().enumerate() {
                let at = start + k * LANES;
                let mut x = s.load(source.add(at));
                if let Some(signs) = signs {
                    x = s.mul(x, s.load(signs.as_ptr().add(at)));
                }
                x = s.butterfly::<2>(s.butterfly::<1>(x));
                *v = s.butterfly::<8>(s.butterfly::<4>(x));
            }
            cross::<S, N>(s, &mut v);
            put::<S, N>(s, &v, (start, LANES), values, last);
        }
    }
}

/// The butterflies between numbers that are `half` or more apart, a multiple of 16.
///
/// # Safety
/// The values are valid for the length, which is a power of two times `half`, from 2 on.
#[inline(always)]
unsafe fn between<S: Simd>(s: S, mut half: usize, values: (*mut f32, usize), last: Option<Last>) {
    let len = values.1;
    while half < len {
        // SAFETY: the caller's values and signs.
        unsafe {
            if 2 * half < len {
                let last = last.filter(|_| 4 * half == len);
                apart::<S, 4>(s, half, values, last);
                half *= 4;
            } else {
                apart::<S, 2>(s, half, values, last);
                half *= 2;
            }
        }
    }
}

/// The butterflies between each `N` vectors that are `half` apart.
///
/// # Safety
/// As for [`between`].
#[inline(always)]
unsafe fn apart<S: Simd, const N: usize>(
    s: S,
    half: usize,
    (values, len): (*mut f32, usize),
    last: Option<Last>,
) {
    for start in (0..len).step_by(N * half) {
        for at in (start..start + half).step_by(LANES) {
            // SAFETY: the caller's values and signs.
            unsafe {
                let mut v = [s.splat(0.0); N];
                for (k, v) in v.iter_mut().enumerate() {
                    *v = s.load(values.add(at + k * half));
                }
                cross::<S, N>(s, &mut v);
                put::<S, N>(s, &v, (at, half), values, last);
            }
        }
    }
}

/// The butterflies of `N` vectors with each other.
#[inline(always)]
fn cross<S: Simd, const N: usize>(s: S, v: &mut [S::F; N]) {
    for h in [1, 2] {
        for i in (0..N).filter(|i| i & h == 0 && i + h < N) {
            (v[i], v[i + h]) = (s.add(v[i], v[i + h]), s.sub(v[i], v[i + h]));
        }
    }
}

/// Stores vectors from a place on, some distance apart.
///
/// # Safety
/// All lie within the values and within the signs.
#[inline(always)]
unsafe fn put<S: Simd, const N: usize>(
    s: S,
    v: &[S::F; N],
    (start, distance): (usize, usize),
    values: *mut f32,
    last: Option<Last>,
) {
    for (k, v) in v.iter().enumerate() {
        let (at, mut v) = (start + k * distance, *v);
        // SAFETY: the caller's values and signs.
        unsafe {
            if let Some(last) = last {
                let mut factor = s.splat(last.factor);
                if let Some(signs) = last.signs {
                    factor = s.mul(factor, s.load(signs.as_ptr().add(at)));
                }
                v = s.mul(v, factor);
            }
            s.store(values.add(at), v);
        }
    }
}

/// Blocks of as many numbers as the small matrix has rows: side by side, or apart so that each begins a whole vector.
struct Blocks {
    count: usize,
    order: usize,
    /// From one block to the next where they are apart: one vector or two.
    stride: usize,
}

impl Blocks {
    fn of(rotation: &Rotation) -> Self {
        let order = rotation.order();
        Self {
            count: rotation.head_dim() / order,
            order,
            stride: order.next_multiple_of(LANES),
        }
    }

    /// Multiplies blocks, so far from each other, with the matrix of padded columns `lines`; the products are apart.
    ///
    /// # Safety
    /// `input` has as many blocks.
    #[inline(always)]
    unsafe fn multiply<S: Simd>(
        &self,
        s: S,
        lines: &[f32],
        input: (*const f32, usize),
        output: &mut [f32],
    ) {
        // SAFETY: the caller's values and signs. A multiple of 16 numbers is a multiple of four blocks.
        unsafe {
            if self.stride == LANES {
                self.products::<S, 4, 1>(s, lines, input, output);
            } else {
                self.products::<S, 2, 2>(s, lines, input, output);
            }
        }
    }

    /// [`multiply`](Self::multiply) for `N` blocks of `V` vectors at a time.
    ///
    /// # Safety
    /// As there, and there is a multiple of `N` blocks.
    #[inline(always)]
    unsafe fn products<S: Simd, const N: usize, const V: usize>(
        &self,
        s: S,
        lines: &[f32],
        (input, distance): (*const f32, usize),
        output: &mut [f32],
    ) {
        assert!(lines.len() == self.order * V * LANES && output.len() == self.count * V * LANES);
        for first in (0..self.count).step_by(N) {
            // SAFETY: the caller's values and signs; lines and output have been measured.
            unsafe {
                let mut sums = [[s.splat(0.0); V]; N];
                for j in 0..self.order {
                    for v in 0..V {
                        let line = s.load(lines.as_ptr().add((j * V + v) * LANES));
                        for (k, sums) in sums.iter_mut().enumerate() {
                            let x = s.splat(*input.add((first + k) * distance + j));
                            // A product with ±1 is exact, so that nothing is lost or gained by fusing it.
                            sums[v] = s.fma(line, x, sums[v]);
                        }
                    }
                }
                for (k, sums) in sums.iter().enumerate() {
                    for (v, sum) in sums.iter().enumerate() {
                        let at = ((first + k) * V + v) * LANES;
                        s.store(output.as_mut_ptr().add(at), *sum);
                    }
                }
            }
        }
    }

    /// Brings blocks that are side by side apart. What follows them is unspecified.
    ///
    /// # Safety
    /// The slices have as many blocks.
    #[inline(always)]
    unsafe fn part<S: Simd>(&self, s: S, values: &[f32], apart: &mut [f32]) {
        let last = self.count - 1;
        for block in 0..last {
            for i in (0..self.stride).step_by(LANES) {
                // SAFETY: within both; what is read behind a block is less than the next one.
                unsafe {
                    let x = s.load(values.as_ptr().add(block * self.order + i));
                    s.store(apart.as_mut_ptr().add(block * self.stride + i), x);
                }
            }
        }
        apart[last * self.stride..][..self.order].copy_from_slice(&values[last * self.order..]);
    }

    /// Brings blocks that are apart side by side.
    ///
    /// # Safety
    /// As for [`part`](Self::part).
    #[inline(always)]
    unsafe fn join<S: Simd>(&self, s: S, apart: &[f32], values: &mut [f32]) {
        let last = self.count - 1;
        for block in 0..last {
            for i in (0..self.stride).step_by(LANES) {
                // SAFETY: within both; what is written behind a block is less than the next one, which comes later.
                unsafe {
                    let x = s.load(apart.as_ptr().add(block * self.stride + i));
                    s.store(values.as_mut_ptr().add(block * self.order + i), x);
                }
            }
        }
        values[last * self.order..].copy_from_slice(&apart[last * self.stride..][..self.order]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;

    entries! {
        /// See [`forward`].
        fn forward_with(rotation: &Rotation, values: &mut [f32]) = forward
    }

    #[test]
    fn every_set_turns_as_the_rotation_does() {
        let sizes = [
            16, 24, 32, 64, 128, 256, 512, 48, 80, 96, 112, 160, 192, 320, 384, 448,
        ];
        for isa in Isa::available() {
            for d in sizes {
                let rotation = Rotation::new(d).unwrap();
                let x: Vec<f32> = (0..d)
                    .map(|i| ((i * 7919 + d) % 1009) as f32 / 37.0 - 13.0)
                    .collect();
                let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                let (mut expected, mut got) = (x.clone(), x.clone());
                rotation.forward(&mut expected);
                forward_with(isa, &rotation, &mut got);
                assert_eq!(bits(&got), bits(&expected), "{isa} D={d} forward");
                rotation.inverse(&mut expected);
                inverse_with(isa, &rotation, &mut got);
                assert_eq!(bits(&got), bits(&expected), "{isa} D={d} inverse");
            }
        }
    }
}
