//! Instruction sets that the kernels are written for, and which of them this machine has.

#[cfg(target_arch = "aarch64")]
use std::arch::is_aarch64_feature_detected;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

/// Defines [`Isa`] from a table: what it is, its name, the architecture that it is of, the set that it is based on, and
/// whether this machine has it.
macro_rules! instruction_sets {
    ($($(#[$doc:meta])* $set:ident = $name:literal, on $here:meta, over $base:ident, if $present:expr;)*) => {
        /// An instruction set that the CPU kernels have a path for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Isa {
            $($(#[$doc])* $set,)*
        }

        impl Isa {
            /// Every instruction set, from the slowest to the fastest of each architecture.
            pub const ALL: &'static [Isa] = &[$(Isa::$set),*];

            /// Whether this build has kernels for it: those of its architecture.
            fn is_built(self) -> bool {
                match self {
                    $(Isa::$set => cfg!($here),)*
                }
            }

            /// Asks the machine; [`is_available`](Self::is_available) remembers the answer.
            fn is_present(self) -> bool {
                match self {
                    $(Isa::$set => {
                        #[cfg($here)]
                        let present = $present;
                        #[cfg(not($here))]
                        let present = false;
                        present
                    })*
                }
            }

            /// The set whose code runs all but the products of quantised weights with 8-bit activations: the one that this
            /// set adds such products to, or itself.
            pub fn base(self) -> Isa {
                match self {
                    $(Isa::$set => Isa::$base,)*
                }
            }

            /// The name that [`FromStr`] reads, such as `avx2`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Isa::$set => $name,)*
                }
            }
        }
    };
}

instruction_sets! {
    /// Plain Rust, whatever the target's baseline offers.
    Portable = "portable", on all(), over Portable, if true;
    /// x86-64 with AVX2, FMA and F16C.
    Avx2 = "avx2", on target_arch = "x86_64", over Avx2, if has_avx2();
    /// x86-64 with AVX2 and AVX-VNNI: the 8-bit dot product on 256-bit vectors.
    AvxVnni = "avxvnni", on target_arch = "x86_64", over Avx2, if has_avx2()
        && is_x86_feature_detected!("avxvnni");
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI.
    Avx512 = "avx512", on target_arch = "x86_64", over Avx512, if has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni");
    /// AArch64 with NEON.
    Neon = "neon", on target_arch = "aarch64", over Neon, if is_aarch64_feature_detected!("neon");
    /// AArch64 with NEON and the dot-product instructions.
    NeonDotprod = "neon-dotprod", on target_arch = "aarch64", over Neon, if has_dotprod();
    /// AArch64 with NEON, the dot-product instructions and the 8-bit matrix instructions.
    NeonI8mm = "neon-i8mm", on target_arch = "aarch64", over Neon,
        if has_dotprod() && is_aarch64_feature_detected!("i8mm");
}

impl Isa {
    /// The fastest instruction set of this machine.
    pub fn detect() -> Isa {
        *Isa::available().last().unwrap_or(&Isa::Portable)
    }

    /// The instruction sets that this machine can run, the fastest last. [`Isa::Portable`] is always among them.
    pub fn available() -> Vec<Isa> {
        let all = Isa::ALL.iter().copied();
        all.filter(|isa| isa.is_available()).collect()
    }

    /// The instruction sets that this build has kernels for, whether the machine has them or not: those of its
    /// architecture. What follows from a set alone, such as plans and sizes, is the same on every machine for all of these.
    pub fn built() -> impl Iterator<Item = Isa> {
        Isa::ALL.iter().copied().filter(|isa| isa.is_built())
    }

    /// Whether this machine can run the instruction set.
    #[inline]
    pub fn is_available(self) -> bool {
        static AVAILABLE: OnceLock<u32> = OnceLock::new();
        let available = AVAILABLE.get_or_init(|| {
            let present = Isa::ALL.iter().filter(|isa| isa.is_present());
            present.fold(0, |sets, isa| sets | 1 << *isa as u32)
        });
        available >> self as u32 & 1 == 1
    }

    /// All names, as a sentence lists them.
    pub fn names() -> String {
        let names: Vec<_> = Isa::ALL.iter().map(|isa| isa.name()).collect();
        match names.split_last() {
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
            None => String::new(),
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
    is_aarch64_feature_detected!("neon") && is_aarch64_feature_detected!("dotprod")
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no instruction set of [`Isa`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown instruction set '{name}': expected {}", Isa::names())]
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
        let error = "sse".parse::<Isa>().unwrap_err().to_string();
        assert!(error.contains("'sse': expected portable, avx2"), "{error}");
        assert!(error.ends_with(" or neon-i8mm"), "{error}");
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
