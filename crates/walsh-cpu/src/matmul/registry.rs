//! Which kernels an instruction set has.

use super::contract::Kernels;
#[cfg(target_arch = "aarch64")]
use super::neon;
use super::portable;
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use crate::isa::Isa;

/// The kernels of an instruction set; those of plain Rust when it is another architecture's.
pub(super) fn kernels(isa: Isa) -> &'static Kernels {
    match isa {
        Isa::Portable => &portable::KERNELS,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => &avx2::KERNELS,
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni => avx2::vnni(),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => &avx512::KERNELS,
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Avx2 | Isa::AvxVnni | Isa::Avx512 => &portable::KERNELS,
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => &neon::PLAIN,
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDotprod => &neon::DOTPROD,
        #[cfg(target_arch = "aarch64")]
        Isa::NeonI8mm => &neon::I8MM,
        #[cfg(not(target_arch = "aarch64"))]
        Isa::Neon | Isa::NeonDotprod | Isa::NeonI8mm => &portable::KERNELS,
    }
}
