//! How functions are compiled for instruction sets.

/// Defines always inlined methods of a token, whose bodies may use the set's intrinsics.
macro_rules! operations {
    () => {};
    (
        $(#[$doc:meta])*
        $vis:vis fn $name:ident $(<const $c:ident: $ct:ty>)? ($($args:tt)*) $(-> $ret:ty)? $body:block
        $($rest:tt)*
    ) => {
        $(#[$doc])*
        #[inline(always)]
        $vis fn $name $(<const $c: $ct>)? ($($args)*) $(-> $ret)? {
            // SAFETY: the token exists only where the set does; what is read and written is the body's own.
            #[allow(unused_unsafe, reason = "some bodies are safe")]
            unsafe { $body }
        }
        $crate::simd::operations! { $($rest)* }
    };
    (
        $(#[$doc:meta])*
        $vis:vis unsafe fn $name:ident $(<const $c:ident: $ct:ty>)? ($($args:tt)*) $(-> $ret:ty)? $body:block
        $($rest:tt)*
    ) => {
        $(#[$doc])*
        #[inline(always)]
        $vis unsafe fn $name $(<const $c: $ct>)? ($($args)*) $(-> $ret)? {
            // SAFETY: the token exists only where the set does; pointers are valid as the trait's methods ask.
            unsafe { $body }
        }
        $crate::simd::operations! { $($rest)* }
    };
}
pub(crate) use operations;

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
