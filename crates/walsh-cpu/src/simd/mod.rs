//! Sixteen numbers at a time: what the KV kernels ask of an instruction set.
//!
//! A kernel is written once, generic over [`Simd`], and inlined into one entry per instruction set that enables the
//! set's features ([`entries`]). Every operation that a cache's bytes depend on is exactly rounded and unfused, so that
//! all sets give the same bytes.

use crate::isa::Isa;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod bytes;
#[cfg(target_arch = "aarch64")]
mod neon;
mod operations;
mod portable;
mod products;
mod vectors;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::{Avx2, AvxVnni, pairs_in_16_bits};
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use bytes::Bytes;
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::{Neon, NeonProducts};
pub(crate) use operations::operations;
pub(crate) use portable::Portable;
#[cfg(target_arch = "x86_64")]
pub(crate) use products::{ColumnProducts, Gather, SMALL_FLOAT_UNIT};
pub(crate) use products::{
    Numbers, Primitives, Products, Quads, Quantised, Register, RowProducts, SHIFT, Scales, Unpack,
    Work,
};
pub(crate) use vectors::{LANES, Simd, Sixteen, Table, exp, table_numbers, tanh};

/// What plans and tables need to know of a set.
pub(crate) struct Facts {
    /// [`Simd::ORDER`].
    pub(crate) order: [u8; 16],
    /// [`Simd::FUSED_ROWS`].
    pub(crate) fused_rows: Option<(usize, usize)>,
}

impl Facts {
    fn of<S: Simd>(_: S) -> Facts {
        Facts {
            order: S::ORDER,
            fused_rows: S::FUSED_ROWS,
        }
    }
}

/// The token of the set that a device runs on: what code is compiled for.
#[derive(Clone, Copy)]
pub(crate) enum Token {
    Portable(Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

impl Token {
    /// That of a set that this machine has: a device is opened for no other.
    #[inline(always)]
    pub(crate) fn of(isa: Isa) -> Token {
        assert!(isa.is_available(), "a set of this machine");
        match isa {
            Isa::Portable => Token::Portable(Portable::new()),
            // SAFETY: the machine has the set, as the assertion has shown, and with it those that it adds to.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::AvxVnni => Token::Avx2(unsafe { Avx2::new_unchecked() }),
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Token::Avx512(unsafe { Avx512::new_unchecked() }),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::AvxVnni | Isa::Avx512 => unreachable!("no set of this machine"),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon | Isa::NeonDotprod | Isa::NeonI8mm => {
                // SAFETY: as above.
                Token::Neon(unsafe { Neon::new_unchecked() })
            }
            #[cfg(not(target_arch = "aarch64"))]
            Isa::Neon | Isa::NeonDotprod | Isa::NeonI8mm => unreachable!("no set of this machine"),
        }
    }

    /// What is known of the set.
    pub(crate) fn facts(self) -> Facts {
        match self {
            Token::Portable(s) => Facts::of(s),
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(s) => Facts::of(s),
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(s) => Facts::of(s),
            #[cfg(target_arch = "aarch64")]
            Token::Neon(s) => Facts::of(s),
        }
    }

    /// Runs work that is generic over the steps of decoding, compiled with the set's features.
    pub(crate) fn run<W: Steps>(self, work: W) -> W::Output {
        match self {
            Token::Portable(p) => work.by(p),
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(p) => p.run(Stepping(work)),
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(p) => p.run(Stepping(work)),
            // NEON is the target's baseline: the compiler finds it by itself.
            #[cfg(target_arch = "aarch64")]
            Token::Neon(_) => work.by(Portable::new()),
        }
    }
}

/// Work for [`Token::run`].
pub(crate) trait Steps {
    /// What it gives.
    type Output;

    /// Does it; always inlined.
    fn by<P: Primitives>(self, p: P) -> Self::Output;
}

/// [`Steps`] as work for a set of products.
#[cfg(target_arch = "x86_64")]
struct Stepping<W>(W);

#[cfg(target_arch = "x86_64")]
impl<P: Primitives, W: Steps> Work<P> for Stepping<W> {
    type Output = W::Output;

    #[inline(always)]
    fn on(self, p: P) -> W::Output {
        self.0.by(p)
    }
}

/// Compiles a function with the features of an instruction set.
macro_rules! compiled_for {
    (Avx2: $($function:tt)*) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c")]
        $($function)*
    };
    (Avx512: $($function:tt)*) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        $($function)*
    };
    (NeonDotprod: $($function:tt)*) => {
        #[cfg(target_arch = "aarch64")]
        #[target_feature(enable = "neon,dotprod")]
        $($function)*
    };
    (NeonI8mm: $($function:tt)*) => {
        #[cfg(target_arch = "aarch64")]
        #[target_feature(enable = "neon,dotprod,i8mm")]
        $($function)*
    };
}
pub(crate) use compiled_for;

/// Defines a function that runs one that is generic over [`Simd`] on the instruction set whose token it is given first: compiled
/// with the set's features, and with the set's token for its first argument. It is as safe as that function.
macro_rules! entries {
    ($($entry:tt)*) => { $crate::simd::entry! { Simd $($entry)* } };
}
pub(crate) use entries;

/// As [`entries`] of a function that is generic over [`Bytes`], for the sets that have them.
macro_rules! byte_entries {
    ($($entry:tt)*) => {
        $crate::simd::entry! { Bytes #[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, unused_imports))] $($entry)* }
    };
}
pub(crate) use byte_entries;

/// What [`entries`] and [`byte_entries`] define.
macro_rules! entry {
    ($of:ident $(#[$doc:meta])* $vis:vis fn $($function:tt)*) => {
        $crate::simd::entry! { @ $of [$(#[$doc])*] [$vis] [] $($function)* }
    };
    ($of:ident $(#[$doc:meta])* $vis:vis unsafe fn $($function:tt)*) => {
        $crate::simd::entry! { @ $of [$(#[$doc])*] [$vis] [unsafe] $($function)* }
    };
    (
        @ $of:ident [$($doc:tt)*] [$vis:vis] [$($unsafe:tt)?]
        $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:path
    ) => {
        $($doc)*
        $vis $($unsafe)? fn $name(set: $crate::simd::Token, $($arg: $ty),*) $(-> $ret)? {
            use $body as body;

            $crate::simd::compiled_for! {
                Avx2: $($unsafe)? fn avx2(s: $crate::simd::Avx2, $($arg: $ty),*) $(-> $ret)? {
                    // SAFETY: what the entry asks for.
                    $($unsafe)? { body(s, $($arg),*) }
                }
            }

            $crate::simd::compiled_for! {
                Avx512: $($unsafe)? fn avx512(s: $crate::simd::Avx512, $($arg: $ty),*) $(-> $ret)? {
                    // SAFETY: as above.
                    $($unsafe)? { body(s, $($arg),*) }
                }
            }

            match set {
                // SAFETY: the token exists only where the set does. What an unsafe entry asks for is what it hands on.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Token::Avx2(s) => unsafe { avx2(s, $($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Token::Avx512(s) => unsafe { avx512(s, $($arg),*) },
                #[cfg(target_arch = "aarch64")]
                $crate::simd::Token::Neon(s) => {
                    $crate::simd::entry! { @baseline $of [$($unsafe)?] body(s: $crate::simd::Neon, $($arg: $ty),*) $(-> $ret)? }
                }
                $crate::simd::Token::Portable(s) => {
                    $crate::simd::entry! { @baseline $of [$($unsafe)?] body(s: $crate::simd::Portable, $($arg: $ty),*) $(-> $ret)? }
                }
            }
        }
    };
    (
        @baseline Simd [$($unsafe:tt)?]
        $body:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)?
    ) => {{
        // By itself: inlined, it would make the choice set up a stack that the other sets have no use for.
        #[cfg_attr(target_arch = "x86_64", inline(never))]
        $($unsafe)? fn baseline($($arg: $ty),*) $(-> $ret)? {
            // SAFETY: what the entry asks for.
            $($unsafe)? { $body($($arg),*) }
        }
        // SAFETY: as above.
        $($unsafe)? { baseline($($arg),*) }
    }};
    (
        @baseline Bytes [$($unsafe:tt)?]
        $body:ident($s:ident: $set:ty, $($arg:ident: $ty:ty),*) $(-> $ret:ty)?
    ) => {{
        let _ = $s;
        unreachable!("attention over codes is in f32 on a set without products of bytes")
    }};
}
pub(crate) use entry;

/// Defines a function that is compiled for each instruction set and takes the
/// one to run as its first argument. The body must be branch-free enough for
/// the compiler to vectorise.
macro_rules! versions {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$doc])*
        $vis fn $name(set: $crate::simd::Token, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body

            $crate::simd::compiled_for! {
                Avx2: fn avx2($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
            }

            $crate::simd::compiled_for! {
                Avx512: fn avx512($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
            }

            match set {
                // SAFETY: the token exists only where the set does.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Token::Avx2(_) => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Token::Avx512(_) => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "aarch64")]
                $crate::simd::Token::Neon(_) => body($($arg),*),
                $crate::simd::Token::Portable(_) => body($($arg),*),
            }
        }
    };
}
pub(crate) use versions;

#[cfg(test)]
mod tests;
