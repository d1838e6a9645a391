//! AVX-512 kernels with VNNI.

use exact::WideBlocks;

use super::blocks::with_block;
use super::float::with_float;
use super::kernels::{Kernel, Kernels};
use super::plan::ProductShape;
use crate::isa::Isa;

mod columns;
mod decode;
mod dot;
mod exact;
mod quantise;
mod stream;
mod tile;

pub(super) static KERNELS: Kernels = Kernels {
    isa: Isa::Avx512,
    dot_rows: 1,
    float_dot_rows: dot::FLOAT_ROWS,
    tile_rows: stream::ROWS,
    float_tile_rows: tile::ROWS,
    panel_rows: columns::LANES,
    prepare: quantise::prepare,
    dot: dot_kernel,
    tile: tile_kernel,
    float_dot: float_dot_kernel,
    float_tile: float_tile_kernel,
};

fn dot_kernel(shape: ProductShape) -> Kernel {
    with_block!(shape.weight, B => dot::row::<B> as Kernel, else => unreachable!("other weights take floats"))
}

fn tile_kernel(shape: ProductShape) -> Kernel {
    with_block!(shape.weight, B => stream::product::<B> as Kernel, else => unreachable!("other weights take floats"))
}

fn float_dot_kernel(shape: ProductShape) -> Kernel {
    with_block!(shape.weight, B => exact::rows::<B>(shape.m), else => {
        with_float!(shape.weight, F => dot::floats::<F>(shape.m), else => unreachable!("plans refuse other types"))
    })
}

fn float_tile_kernel(shape: ProductShape) -> Kernel {
    with_block!(shape.weight, B => tile::float_product::<WideBlocks<B>> as Kernel, else => {
        with_float!(shape.weight, F => tile::float_product::<F> as Kernel, else => unreachable!("plans refuse other types"))
    })
}
