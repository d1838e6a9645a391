//! Which GPUs serve, what kernels are chosen by, and how a device is opened.

use walsh_core::{Activations, Error};
use walsh_kernels::Limits;

use crate::api::Facts;

/// How a Metal device is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MetalOptions {
    /// Which GPU, counted as Metal lists them.
    pub ordinal: u32,
    /// How products with block-quantised weights read their input.
    pub activations: Activations,
}

/// The threadgroup memory that every GPU of the kind that serves has, in bytes.
const THREADGROUP_BYTES: u32 = 32 << 10;

/// How many groups run side by side at least. No call of Metal says how many cores a GPU has; the smallest of an M1 has
/// seven, and a core holds several groups.
const GROUPS: u32 = 16;

/// What kernels are chosen by.
#[must_use]
pub fn limits(activations: Activations) -> Limits {
    Limits {
        backend: "metal",
        multiprocessors: GROUPS,
        threadgroup_bytes: THREADGROUP_BYTES,
        // Tiles are faster than dot products of bytes, for which these GPUs have no instruction.
        bfloat_matrices: true,
        fragment_bytes: 0,
        warpgroup_matrices: false,
        cluster_groups: 1,
        joins: true,
        activations,
    }
}

/// The most bytes of arguments that a dispatch is given by value.
pub(crate) const MOST_ARGS: usize = 4096;

/// The threads of a simdgroup: the dialect counts lanes so.
pub(crate) const LANES: u64 = 32;

/// Whether the kernels run on a GPU.
///
/// # Errors
/// What it lacks.
pub(crate) fn check(facts: &Facts) -> Result<(), String> {
    let Facts { name, .. } = facts;
    if !facts.apple7 || !facts.unified {
        return Err(format!(
            "{name} is not of the family Apple7 (M1, A14) or newer, which the kernels need: use the device cpu"
        ));
    }
    if facts.threadgroup_bytes < u64::from(THREADGROUP_BYTES) {
        return Err(format!(
            "{name} has {} bytes of threadgroup memory, but the kernels need {THREADGROUP_BYTES}: use the device cpu",
            facts.threadgroup_bytes
        ));
    }
    Ok(())
}

/// An error of the device that a spec names.
pub(crate) fn failure(spec: &str, message: impl std::fmt::Display) -> Error {
    Error::Device {
        device: spec.into(),
        message: message.to_string(),
    }
}

/// The spec of a GPU.
pub(crate) fn spec(ordinal: u32) -> String {
    format!("metal:{ordinal}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_that_lack_what_kernels_need_are_named_with_it() {
        let m1 = Facts {
            name: "Apple M1".into(),
            apple7: true,
            unified: true,
            threadgroup_bytes: 32 << 10,
            buffer_bytes: 8 << 30,
            working_set: 10 << 30,
            page: 16 << 10,
        };
        assert_eq!(check(&m1), Ok(()));
        let old = Facts {
            name: "AMD Radeon".into(),
            apple7: false,
            unified: false,
            ..m1.clone()
        };
        let error = check(&old).unwrap_err();
        assert!(
            error.contains("AMD Radeon") && error.contains("Apple7"),
            "{error}"
        );
        let small = Facts {
            threadgroup_bytes: 16 << 10,
            ..m1
        };
        let error = check(&small).unwrap_err();
        assert!(
            error.contains("16384") && error.contains("32768"),
            "{error}"
        );
    }

    #[test]
    fn no_kernel_of_another_platform_is_chosen() {
        let limits = limits(Activations::Int8);
        assert_eq!((limits.backend, limits.fragment_bytes), ("metal", 0));
    }
}
