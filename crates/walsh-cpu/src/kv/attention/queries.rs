//! Queries as they meet the keys: scaled, and in the space of the stored ones.

use walsh_formats::rotation::Rotation;

use crate::kv::rotate;
use crate::simd::{LANES, Simd, entries};

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
    /// Prepares a query; returns what the scores of stored keys lack, the product of the query and the centre. `scaled` and
    /// `prepared` are whole vectors of lanes, and all else as many numbers or, past which zeros are written, up to 15 fewer.
    /// What is rotated is of whole vectors.
    pub(super) fn prepare(preparation: &Preparation<'_>, query: Query<'_>) -> f32 = prepare_row
}

/// See [`prepare`].
#[inline(always)]
fn prepare_row<S: Simd>(s: S, preparation: &Preparation<'_>, query: Query<'_>) -> f32 {
    let Query {
        source,
        scaled,
        prepared,
    } = query;
    let scale = s.splat(preparation.scale);
    let scaled = scaled.as_chunks_mut().0;
    for (i, out) in scaled.iter_mut().enumerate() {
        s.write(out, s.mul(load_padded(s, source, LANES * i), scale));
    }
    let offset = match preparation.center {
        Some(center) => {
            let mut sums = s.splat(0.0);
            for (i, numbers) in scaled.iter().enumerate() {
                let c = load_padded(s, center, LANES * i);
                sums = s.fma(s.read(numbers), c, sums);
            }
            s.reduce_add(sums)
        }
        None => 0.0,
    };
    let Some(prepared) = prepared else {
        return offset;
    };
    let vectors = prepared.as_chunks_mut().0.iter_mut().zip(scaled.iter());
    for (i, (out, scaled)) in vectors.enumerate() {
        let mut numbers = s.read(scaled);
        if let Some(equaliser) = preparation.equaliser {
            numbers = s.mul(numbers, load_padded(s, equaliser, LANES * i));
        }
        s.write(out, numbers);
    }
    if let Some(rotation) = preparation.rotation {
        rotate::forward(s, rotation, prepared);
    }
    offset
}

/// A vector of lanes from a number on, with zeros past the last one.
#[inline(always)]
fn load_padded<S: Simd>(s: S, numbers: &[f32], at: usize) -> S::F {
    let rest = numbers.get(at..).unwrap_or_default();
    match rest.first_chunk() {
        Some(whole) => s.read(whole),
        None => {
            let mut padded = [0.0; LANES];
            padded[..rest.len()].copy_from_slice(rest);
            s.read(&padded)
        }
    }
}
