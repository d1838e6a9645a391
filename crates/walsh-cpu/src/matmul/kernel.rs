//! Kernels that are generic over a set of products, compiled for each.

use std::marker::PhantomData;

use super::contract::Job;
use crate::simd::{Products, Work};

/// A product kernel.
pub(super) trait Body<P> {
    /// Computes a work item; always inlined.
    fn product(p: P, job: &Job<'_>, scratch: &mut [u8]);
}

/// A kernel compiled with the features of a set of products.
pub(super) fn kernel<P: Products, K: Body<P>>(job: &Job<'_>, scratch: &mut [u8]) {
    P::of_machine().run(Call {
        job,
        scratch,
        body: PhantomData::<K>,
    });
}

/// A call of a kernel.
struct Call<'a, K> {
    job: &'a Job<'a>,
    scratch: &'a mut [u8],
    body: PhantomData<K>,
}

impl<P, K: Body<P>> Work<P> for Call<'_, K> {
    type Output = ();

    #[inline(always)]
    fn on(self, p: P) {
        K::product(p, self.job, self.scratch);
    }
}

/// Evaluates an expression in which a name stands for a number of rows, from 1 to a constant of at most 12.
macro_rules! with_rows {
    ($rows:expr, $most:ident, $name:ident => $call:expr) => {
        with_rows!(@ $rows, $most, $name, $call, 1 2 3 4 5 6 7 8 9 10 11 12)
    };
    (@ $rows:expr, $most:ident, $name:ident, $call:expr, $($count:literal)*) => {
        match $rows {
            $($count if const { $count <= $most } => {
                const $name: usize = $count;
                $call
            })*
            rows => unreachable!("a tile of {rows} rows"),
        }
    };
}
pub(super) use with_rows;
