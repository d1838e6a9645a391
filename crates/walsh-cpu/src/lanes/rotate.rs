//! The rotation of a vector, bit for bit as [`Rotation`] does it.

use walsh_formats::rotation::Rotation;

use super::{Lanes, entries};

/// `r = H·(s∘x)/√D`.
///
/// # Safety
/// The machine has the instruction set.
#[inline(always)]
pub(crate) unsafe fn forward<S: Lanes>(rotation: &Rotation, values: &mut [f32]) {
    if rotation.order() != 1 || !values.len().is_multiple_of(16) {
        return rotation.forward(values);
    }
    // SAFETY: signs and values are of the same length, a multiple of 16.
    unsafe {
        let p = values.as_mut_ptr();
        for (i, signs) in rotation.signs().chunks_exact(16).enumerate() {
            let at = p.add(16 * i);
            let v = S::mul(S::load(at), S::load(signs.as_ptr()));
            let v = S::butterfly::<1>(v);
            let v = S::butterfly::<2>(v);
            let v = S::butterfly::<4>(v);
            S::store(at, S::butterfly::<8>(v));
        }
        wide_butterflies::<S>(values);
        let factor = S::splat(rotation.factor());
        for i in (0..values.len()).step_by(16) {
            let at = values.as_mut_ptr().add(i);
            S::store(at, S::mul(S::load(at), factor));
        }
    }
}

entries! {
    /// `x = s∘(H·r)/√D`.
    ///
    /// # Safety
    /// The machine has the instruction set.
    pub(crate) fn inverse_with(rotation: &Rotation, values: &mut [f32]) = inverse
}

/// `x = s∘(H·r)/√D`.
///
/// # Safety
/// The machine has the instruction set.
#[inline(always)]
pub(crate) unsafe fn inverse<S: Lanes>(rotation: &Rotation, values: &mut [f32]) {
    if rotation.order() != 1 || !values.len().is_multiple_of(16) {
        return rotation.inverse(values);
    }
    // SAFETY: as in `forward`.
    unsafe {
        let p = values.as_mut_ptr();
        for i in (0..values.len()).step_by(16) {
            let v = S::butterfly::<1>(S::load(p.add(i)));
            let v = S::butterfly::<2>(v);
            let v = S::butterfly::<4>(v);
            S::store(p.add(i), S::butterfly::<8>(v));
        }
        wide_butterflies::<S>(values);
        let factor = S::splat(rotation.factor());
        for (i, signs) in rotation.signs().chunks_exact(16).enumerate() {
            let at = values.as_mut_ptr().add(16 * i);
            let sign = S::mul(factor, S::load(signs.as_ptr()));
            S::store(at, S::mul(S::load(at), sign));
        }
    }
}

/// The butterflies between numbers that are 16 or more apart.
#[inline(always)]
unsafe fn wide_butterflies<S: Lanes>(values: &mut [f32]) {
    let mut half = 16;
    while half < values.len() {
        for pair in values.chunks_exact_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            for i in (0..half).step_by(16) {
                // SAFETY: both halves are whole vectors.
                unsafe {
                    let (a, b) = (low.as_mut_ptr().add(i), high.as_mut_ptr().add(i));
                    let (x, y) = (S::load(a), S::load(b));
                    S::store(a, S::add(x, y));
                    S::store(b, S::sub(x, y));
                }
            }
        }
        half *= 2;
    }
}
