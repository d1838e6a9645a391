//! The rotation of a vector, bit for bit as [`Rotation`] does it.
//!
//! Butterflies add the same pairs in whatever order vectors are visited, so that each pass over memory does as many of
//! them as registers hold. Of a size that is no power of two, blocks of the small matrix's order are brought to whole
//! vectors first, so that the butterflies between them are those of a power of two.

use walsh_formats::rotation::{MAX_HEAD_DIM, Rotation};

use crate::simd::{LANES, Simd, entries};

/// Vectors of lanes.
type Vectors = [[f32; LANES]];

/// What numbers are multiplied by at last.
#[derive(Clone, Copy)]
struct Last<'a> {
    factor: f32,
    signs: Option<&'a Vectors>,
}

/// The signs of a rotation, by vectors of lanes.
fn signs(rotation: &Rotation) -> &Vectors {
    rotation.signs().as_chunks().0
}

/// `r = H·(s∘x)/√D`.
#[inline(always)]
pub(crate) fn forward<S: Simd>(s: S, rotation: &Rotation, values: &mut [f32]) {
    assert_eq!(values.len(), rotation.head_dim(), "the rotation's size");
    if !values.len().is_multiple_of(LANES) {
        return rotation.forward(values);
    }
    turn(s, rotation, None, values);
}

/// `r = H·(s∘x)/√D` of `source`, into `values`.
#[inline(always)]
pub(crate) fn forward_from<S: Simd>(s: S, rotation: &Rotation, source: &[f32], values: &mut [f32]) {
    let len = rotation.head_dim();
    assert!(source.len() == len && values.len() == len && len.is_multiple_of(LANES));
    turn(s, rotation, Some(source.as_chunks().0), values);
}

/// Turns whole vectors of the source, or the values themselves, into the values.
#[inline(always)]
fn turn<S: Simd>(s: S, rotation: &Rotation, source: Option<&Vectors>, values: &mut [f32]) {
    let last = Last {
        factor: rotation.factor(),
        signs: None,
    };
    if rotation.order() == 1 {
        let source = (source, Some(signs(rotation)));
        return butterflies(s, source, values.as_chunks_mut().0, last);
    }
    let vectors = values.as_chunks_mut().0;
    for (i, (at, signs)) in vectors.iter_mut().zip(signs(rotation)).enumerate() {
        let x = s.read(source.map_or(&*at, |source| &source[i]));
        s.write(at, s.mul(x, s.read(signs)));
    }
    let blocks = Blocks::of(rotation);
    let mut turned = [0f32; MAX_HEAD_DIM];
    let turned = &mut turned[..blocks.count * blocks.stride];
    blocks.multiply(s, rotation.columns(), (values, blocks.order), turned);
    between(
        s,
        blocks.stride / LANES,
        turned.as_chunks_mut().0,
        Some(last),
    );
    blocks.join(s, turned, values);
}

/// `x = s∘(H·r)/√D`.
#[inline(always)]
pub(crate) fn inverse<S: Simd>(s: S, rotation: &Rotation, values: &mut [f32]) {
    let len = values.len();
    assert_eq!(len, rotation.head_dim(), "the rotation's size");
    if !len.is_multiple_of(LANES) {
        return rotation.inverse(values);
    }
    if rotation.order() == 1 {
        let last = Last {
            factor: rotation.factor(),
            signs: Some(signs(rotation)),
        };
        return butterflies(s, (None, None), values.as_chunks_mut().0, last);
    }
    let blocks = Blocks::of(rotation);
    let (mut apart, mut turned) = ([0f32; MAX_HEAD_DIM], [0f32; MAX_HEAD_DIM]);
    let apart = &mut apart[..blocks.count * blocks.stride];
    let turned = &mut turned[..blocks.count * blocks.stride];
    blocks.part(s, values, apart);
    between(s, blocks.stride / LANES, apart.as_chunks_mut().0, None);
    blocks.multiply(s, rotation.rows(), (apart, blocks.stride), turned);
    blocks.join(s, turned, values);
    let factor = s.splat(rotation.factor());
    for (at, signs) in values.as_chunks_mut().0.iter_mut().zip(signs(rotation)) {
        let factor = s.mul(factor, s.read(signs));
        s.write(at, s.mul(s.read(at), factor));
    }
}

entries! {
    /// `x = s∘(H·r)/√D`.
    pub(crate) fn inverse_with(rotation: &Rotation, values: &mut [f32]) = inverse
}

/// All butterflies of a power of two of vectors, of the source, or the values themselves, times signs where there are any.
#[inline(always)]
fn butterflies<S: Simd>(
    s: S,
    source: (Option<&Vectors>, Option<&Vectors>),
    values: &mut Vectors,
    last: Last<'_>,
) {
    match values.len() {
        1 => within::<S, 1>(s, source, values, Some(last)),
        2 => within::<S, 2>(s, source, values, Some(last)),
        4 => within::<S, 4>(s, source, values, Some(last)),
        _ => {
            within::<S, 4>(s, source, values, None);
            between(s, 4, values, Some(last));
        }
    }
}

/// The butterflies within each `N` vectors.
#[inline(always)]
fn within<S: Simd, const N: usize>(
    s: S,
    (source, signs): (Option<&Vectors>, Option<&Vectors>),
    values: &mut Vectors,
    last: Option<Last<'_>>,
) {
    let source = source.map(|source| source.as_chunks::<N>().0);
    let signs = signs.map(|signs| signs.as_chunks::<N>().0);
    let groups = values.as_chunks_mut::<N>().0;
    for (i, values) in groups.iter_mut().enumerate() {
        let from = source.map_or(&*values, |source| &source[i]);
        let signs = signs.map(|signs| &signs[i]);
        let mut v = [s.splat(0.0); N];
        for (k, v) in v.iter_mut().enumerate() {
            let mut x = s.read(&from[k]);
            if let Some(signs) = signs {
                x = s.mul(x, s.read(&signs[k]));
            }
            x = s.butterfly::<2>(s.butterfly::<1>(x));
            *v = s.butterfly::<8>(s.butterfly::<4>(x));
        }
        cross::<S, N>(s, &mut v);
        for (k, (v, to)) in v.into_iter().zip(values).enumerate() {
            s.write(to, finished(s, v, N * i + k, last));
        }
    }
}

/// The butterflies between vectors that are `half` vectors or more apart, of a power of two times `half`, from 2 on.
#[inline(always)]
fn between<S: Simd>(s: S, mut half: usize, values: &mut Vectors, last: Option<Last<'_>>) {
    let len = values.len();
    while half < len {
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

/// The butterflies between each `N` vectors that are `half` vectors apart.
#[inline(always)]
fn apart<S: Simd, const N: usize>(s: S, half: usize, values: &mut Vectors, last: Option<Last<'_>>) {
    for (block, values) in values.chunks_exact_mut(N * half).enumerate() {
        for at in 0..half {
            let mut v = [s.splat(0.0); N];
            for (k, v) in v.iter_mut().enumerate() {
                // SAFETY: `at` is below `half`, `k` below `N`, and a block has `N · half` vectors.
                *v = s.read(unsafe { values.get_unchecked(at + k * half) });
            }
            cross::<S, N>(s, &mut v);
            for (k, v) in v.into_iter().enumerate() {
                let place = at + k * half;
                let v = finished(s, v, block * N * half + place, last);
                // SAFETY: as above.
                s.write(unsafe { values.get_unchecked_mut(place) }, v);
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

/// The vector of a place, times what it is multiplied by at last, if it is the last time.
#[inline(always)]
fn finished<S: Simd>(s: S, v: S::F, at: usize, last: Option<Last<'_>>) -> S::F {
    let Some(last) = last else {
        return v;
    };
    let mut factor = s.splat(last.factor);
    if let Some(signs) = last.signs {
        factor = s.mul(factor, s.read(&signs[at]));
    }
    s.mul(v, factor)
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
    #[inline(always)]
    fn multiply<S: Simd>(&self, s: S, lines: &[f32], input: (&[f32], usize), output: &mut [f32]) {
        // A multiple of 16 numbers is a multiple of four blocks.
        if self.stride == LANES {
            self.products::<S, 4, 1>(s, lines, input, output);
        } else {
            self.products::<S, 2, 2>(s, lines, input, output);
        }
    }

    /// [`multiply`](Self::multiply) for `N` blocks of `V` vectors at a time, of which there is a multiple.
    #[inline(always)]
    fn products<S: Simd, const N: usize, const V: usize>(
        &self,
        s: S,
        lines: &[f32],
        (input, distance): (&[f32], usize),
        output: &mut [f32],
    ) {
        let lines = &lines.as_chunks::<LANES>().0.as_chunks::<V>().0[..self.order];
        let output = output.as_chunks_mut::<LANES>().0.as_chunks_mut::<V>().0;
        let groups = output[..self.count].as_chunks_mut::<N>().0;
        for (group, output) in groups.iter_mut().enumerate() {
            let blocks: [&[f32]; N] =
                std::array::from_fn(|k| &input[(N * group + k) * distance..][..self.order]);
            let mut sums = [[s.splat(0.0); V]; N];
            for (j, lines) in lines.iter().enumerate() {
                for v in 0..V {
                    let line = s.read(&lines[v]);
                    for (sums, block) in sums.iter_mut().zip(blocks) {
                        // A product with ±1 is exact, so that nothing is lost or gained by fusing it.
                        sums[v] = s.fma(line, s.splat(block[j]), sums[v]);
                    }
                }
            }
            for (sums, output) in sums.iter().zip(output) {
                for (sum, output) in sums.iter().zip(output) {
                    s.write(output, *sum);
                }
            }
        }
    }

    /// Brings blocks that are side by side apart. What follows them is unspecified.
    #[inline(always)]
    fn part<S: Simd>(&self, s: S, values: &[f32], apart: &mut [f32]) {
        let last = self.count - 1;
        let blocks = apart.chunks_exact_mut(self.stride).take(last);
        for (block, apart) in blocks.enumerate() {
            // What is read behind a block is less than the next one.
            let from = values[block * self.order..][..self.stride].as_chunks().0;
            for (from, to) in from.iter().zip(apart.as_chunks_mut().0) {
                s.write(to, s.read(from));
            }
        }
        apart[last * self.stride..][..self.order].copy_from_slice(&values[last * self.order..]);
    }

    /// Brings blocks that are apart side by side.
    #[inline(always)]
    fn join<S: Simd>(&self, s: S, apart: &[f32], values: &mut [f32]) {
        let last = self.count - 1;
        for (block, apart) in apart.chunks_exact(self.stride).take(last).enumerate() {
            // What is written behind a block is less than the next one, which comes later.
            let to = values[block * self.order..][..self.stride]
                .as_chunks_mut()
                .0;
            for (from, to) in apart.as_chunks().0.iter().zip(to) {
                s.write(to, s.read(from));
            }
        }
        values[last * self.order..].copy_from_slice(&apart[last * self.stride..][..self.order]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::simd::Token;

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
                forward_with(Token::of(isa), &rotation, &mut got);
                assert_eq!(bits(&got), bits(&expected), "{isa} D={d} forward");
                rotation.inverse(&mut expected);
                inverse_with(Token::of(isa), &rotation, &mut got);
                assert_eq!(bits(&got), bits(&expected), "{isa} D={d} inverse");
            }
        }
    }
}
