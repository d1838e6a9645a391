//! Types with blocks of 32 values: a scale, codes, and perhaps a minimum.

/// Defines all decoders of a type: its largest code, the code that stands for zero or the field of the minimum, and its
/// codes along a row, across rows, and of two blocks in a wide register.
macro_rules! small_block {
    (
        $type:ident: codes to $top:literal, $kind:ident $what:tt;
        along |$p:ident, $block:ident, $codes:ident| $along:expr;
        across |$s:ident, $blocks:ident, $signed:ident| $across:expr;
        wide |$w:ident, $first:ident, $second:ident| $wide:expr;
    ) => {
        impl $crate::matmul::blocks::Decode for $type {
            const RUN: usize = 32;
            const TOP: u8 = $top;
            const ZERO: Option<u8> = small_block!(@zero $kind $what);

            #[inline(always)]
            fn decode<P: $crate::simd::Primitives>(
                &self,
                $p: P,
                out: $crate::matmul::blocks::Decoded<'_>,
            ) {
                let $block = self;
                let $codes: &mut [u8] = &mut out.codes[..32];
                $along;
                let d = $p.widen(self.d);
                out.scales[0] = d;
                out.mins[0] = small_block!(@minimum $kind $what, self, $p, d);
            }
        }

        impl $crate::matmul::blocks::Columns for $type {
            #[inline(always)]
            fn start<W: $crate::matmul::blocks::SideBySide>(
                blocks: W,
                kept: &mut $crate::matmul::blocks::Kept<W::Set>,
            ) {
                small_block!(@start $kind $what, blocks, kept);
            }

            #[inline(always)]
            fn run<S: $crate::simd::Unpack>(
                s: S,
                kept: &$crate::matmul::blocks::Kept<S>,
                _: usize,
            ) -> $crate::matmul::blocks::Run<S> {
                // Used where there is no minimum.
                let _ = s;
                $crate::matmul::blocks::Run {
                    scale: kept.factors[0],
                    min: small_block!(@run $kind $what, s, kept),
                }
            }

            #[inline(always)]
            fn codes<W: $crate::matmul::blocks::SideBySide>(
                $blocks: W,
                part: $crate::matmul::blocks::Part,
                _: &mut $crate::matmul::blocks::Kept<W::Set>,
            ) -> $crate::matmul::blocks::Codes<W::Set> {
                let ($s, $signed) = ($blocks.set(), part.signed);
                // Not all types use both.
                let _ = ($s, $signed);
                $across
            }
        }

        #[cfg(target_arch = "x86_64")]
        impl $crate::matmul::blocks::Wide for $type {
            #[inline(always)]
            fn wide(
                $w: $crate::simd::Avx512,
                blocks: &[Self],
            ) -> $crate::matmul::blocks::Group {
                let mut codes = [$w.no_codes(); 4];
                for (codes, pair) in codes.iter_mut().zip(blocks.chunks_exact(2)) {
                    let ($first, $second) = (&pair[0], &pair[1]);
                    *codes = $wide;
                }
                $w.small_group(codes, $w.gathered(blocks), small_block!(@factor $kind $what))
            }
        }

        #[cfg(target_arch = "x86_64")]
        impl $crate::matmul::blocks::wide::Small for $type {
            const FIELDS: [usize; 2] = small_block!(@fields $kind $what);
        }
    };

    (@zero zero $zero:literal) => { Some($zero) };
    (@zero minimum $field:ident) => { None };

    (@minimum zero $zero:literal, $self:ident, $p:ident, $d:ident) => { $zero as f32 * $d };
    (@minimum minimum $field:ident, $self:ident, $p:ident, $d:ident) => { -$p.widen($self.$field) };

    (@start zero $zero:literal, $blocks:ident, $kept:ident) => {
        $kept.factors[0] = $blocks.halves(std::mem::offset_of!(Self, d));
    };
    (@start minimum $field:ident, $blocks:ident, $kept:ident) => {{
        const { assert!(std::mem::offset_of!(Self, d) == 0) };
        const { assert!(std::mem::offset_of!(Self, $field) == 2) };
        $crate::matmul::blocks::across::keep_scale_and_minimum($blocks, $kept);
    }};

    (@run zero $zero:literal, $s:ident, $kept:ident) => { $s.numbers(0.0) };
    (@run minimum $field:ident, $s:ident, $kept:ident) => { $kept.factors[1] };

    (@fields zero $zero:literal) => { [std::mem::offset_of!(Self, d); 2] };
    (@fields minimum $field:ident) => {
        [std::mem::offset_of!(Self, d), std::mem::offset_of!(Self, $field)]
    };

    (@factor zero $zero:literal) => { $zero as f32 };
    (@factor minimum $field:ident) => { -1.0 };
}
pub(super) use small_block;
