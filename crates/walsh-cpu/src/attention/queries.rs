//! Queries as they meet the keys: scaled, and in the space of the stored ones.

use walsh_formats::rotation::Rotation;

use super::tile::LANES;
use crate::rotate;
use crate::simd::{Simd, entries};

/// What is done to the queries of a KV head.
pub(super) struct Preparation<'a> {
    /// The score's scale.
    pub(super) scale: f32,
    /// What was subtracted from the head's keys.
    pub(super) center: Option<&'a [f32]>,
    /// What its keys were divided by.
    pub(super) equaliser: Option<&'a [f32]>,
    pub(super) rotation: Option<&'a Rotation>,
}

/// A query vector.
pub(super) struct Query<'a> {
    pub(super) source: &'a [f32],
    /// The vector times the scale.
    pub(super) scaled: &'a mut [f32],
    /// The vector for stored keys, if there are any.
    pub(super) prepared: Option<&'a mut [f32]>,
}

entries! {
    /// Prepares a query; returns what the scores of stored keys lack, the product of the query and the centre.
    ///
    /// # Safety
    /// The machine has the instruction set. `scaled` and `prepared` hold whole vectors of lanes, and all else as many
    /// numbers or, past which zeros are written, up to 15 fewer. What is rotated is of whole vectors.
    pub(super) fn prepare(preparation: &Preparation<'_>, query: Query<'_>) -> f32 = prepare_row
}

/// See [`prepare`].
#[inline(always)]
unsafe fn prepare_row<S: Simd>(preparation: &Preparation<'_>, query: Query<'_>) -> f32 {
    let Query {
        source,
        scaled,
        prepared,
    } = query;
    // SAFETY: the caller's.
    unsafe {
        let scale = S::splat(preparation.scale);
        for at in (0..source.len()).step_by(LANES) {
            let numbers = load_padded::<S>(source, at);
            S::store(scaled.as_mut_ptr().add(at), S::mul(numbers, scale));
        }
        let scaled = scaled.as_ptr();
        let offset = match preparation.center {
            Some(center) => {
                let mut sums = S::splat(0.0);
                for at in (0..center.len()).step_by(LANES) {
                    let c = load_padded::<S>(center, at);
                    sums = S::fma(S::load(scaled.add(at)), c, sums);
                }
                S::reduce_add(sums)
            }
            None => 0.0,
        };
        let Some(prepared) = prepared else {
            return offset;
        };
        let out = prepared.as_mut_ptr();
        for at in (0..prepared.len()).step_by(LANES) {
            let mut numbers = S::load(scaled.add(at));
            if let Some(equaliser) = preparation.equaliser {
                numbers = S::mul(numbers, load_padded::<S>(equaliser, at));
            }
            S::store(out.add(at), numbers);
        }
        if let Some(rotation) = preparation.rotation {
            rotate::forward::<S>(rotation, prepared);
        }
        offset
    }
}

/// A vector of lanes from a number on, with zeros past the last one.
///
/// # Safety
/// The machine has the instruction set.
#[inline(always)]
unsafe fn load_padded<S: Simd>(numbers: &[f32], at: usize) -> S::F {
    let rest = numbers.get(at..).unwrap_or_default();
    let mut padded = [0.0; LANES];
    // SAFETY: the caller's; sixteen numbers either way.
    unsafe {
        if rest.len() >= LANES {
            return S::load(rest.as_ptr());
        }
        padded[..rest.len()].copy_from_slice(rest);
        S::load(padded.as_ptr())
    }
}
