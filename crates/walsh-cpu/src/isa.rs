//! Instruction sets that the kernels are written for, and which of them this machine has.

use std::fmt;
use std::str::FromStr;

/// An instruction set that the CPU kernels have a path for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Plain Rust, whatever the target's baseline offers.
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX2 and the 8-bit dot product of VNNI on 256-bit vectors: AVX-VNNI, or where that is missing the same
    /// instruction as AVX-512 VNNI and VL encode it.
    AvxVnni,
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI.
    Avx512,
    /// AArch64 with NEON.
    Neon,
    /// AArch64 with NEON and the dot-product instructions.
    NeonDotprod,
    /// AArch64 with NEON, the dot-product instructions and the 8-bit matrix instructions.
    NeonI8mm,
}

impl Isa {
    /// Every instruction set, from the slowest to the fastest of each architecture.
    pub const ALL: &'static [Isa] = &[
        Isa::Portable,
        Isa::Avx2,
        Isa::AvxVnni,
        Isa::Avx512,
        Isa::Neon,
        Isa::NeonDotprod,
        Isa::NeonI8mm,
    ];

    /// The fastest instruction set of this machine.
    pub fn detect() -> Isa {
        *Isa::available().last().unwrap_or(&Isa::Portable)
    }

    /// The instruction sets that this machine can run, the fastest last. [`Isa::Portable`] is always among them.
    pub fn available() -> Vec<Isa> {
        Isa::ALL
            .iter()
            .copied()
            .filter(|isa| isa.is_available())
            .collect()
    }

    /// The instruction sets that this build has kernels for, whether the machine has them or not: those of its
    /// architecture. What follows from a set alone, such as plans and sizes, is the same on every machine for all of these.
    pub fn built() -> impl Iterator<Item = Isa> {
        let architecture = |isa: &Isa| match isa {
            Isa::Portable => true,
            Isa::Avx2 | Isa::AvxVnni | Isa::Avx512 => cfg!(target_arch = "x86_64"),
            Isa::Neon | Isa::NeonDotprod | Isa::NeonI8mm => cfg!(target_arch = "aarch64"),
        };
        Isa::ALL.iter().copied().filter(architecture)
    }

    /// Whether this machine can run the instruction set.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => has_avx2(),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => {
                has_avx2()
                    && (is_x86_feature_detected!("avxvnni")
                        || is_x86_feature_detected!("avx512vnni")
                            && is_x86_feature_detected!("avx512vl"))
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                has_avx2()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod => has_dotprod(),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm => has_dotprod() && std::arch::is_aarch64_feature_detected!("i8mm"),
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }

    /// The set whose code runs all but the products of quantised weights with 8-bit activations: the one that this set
    /// adds such products to, or itself.
    pub fn base(self) -> Isa {
        match self {
            Isa::AvxVnni => Isa::Avx2,
            Isa::NeonDotprod | Isa::NeonI8mm => Isa::Neon,
            Isa::Portable | Isa::Avx2 | Isa::Avx512 | Isa::Neon => self,
        }
    }

    /// The name that [`FromStr`] reads: `portable`, `avx2`, `avxvnni`, `avx512`, `neon`, `neon-dotprod` or `neon-i8mm`.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avxvnni",
            Isa::Avx512 => "avx512",
            Isa::Neon => "neon",
            Isa::NeonDotprod => "neon-dotprod",
            Isa::NeonI8mm => "neon-i8mm",
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

#[cfg(target_arch = "aarch64")]
fn has_dotprod() -> bool {
    Isa::Neon.is_available() && std::arch::is_aarch64_feature_detected!("dotprod")
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no instruction set of [`Isa`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown instruction set '{name}': expected portable, avx2, avxvnni, avx512, neon, neon-dotprod or neon-i8mm"
)]
pub struct UnknownIsa {
    /// The name that was given.
    pub name: String,
}

impl FromStr for Isa {
    type Err = UnknownIsa;

    fn from_str(name: &str) -> Result<Self, UnknownIsa> {
        Isa::ALL
            .iter()
            .copied()
            .find(|isa| isa.name() == name)
            .ok_or_else(|| UnknownIsa {
                name: name.to_owned(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for &isa in Isa::ALL {
            assert_eq!(isa.name().parse(), Ok(isa));
        }
        assert!("sse".parse::<Isa>().is_err());
    }

    #[test]
    fn detection_picks_an_available_set() {
        let available = Isa::available();
        assert_eq!(available[0], Isa::Portable);
        assert!(available.contains(&Isa::detect()));
        assert!(available.iter().all(|isa| available.contains(&isa.base())));
        assert!(
            available
                .iter()
                .all(|isa| Isa::built().any(|built| built == *isa))
        );
    }
}
