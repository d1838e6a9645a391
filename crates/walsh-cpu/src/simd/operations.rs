//! How methods of tokens are written.

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
