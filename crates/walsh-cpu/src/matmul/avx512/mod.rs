//! AVX-512 kernels with VNNI.

use std::arch::x86_64::__cpuid;
use std::sync::OnceLock;

use exact::WideBlocks;

use super::blocks::with_block;
use super::contract::{Kernel, Kernels, ProductShape};
use super::float::with_float;
use super::layout::LANES;
use crate::isa::Isa;

mod decode;
mod dot;
mod exact;
mod quantise;
mod stream;
mod tile;
mod vectors;

pub(super) static KERNELS: Kernels = Kernels {
    isa: Isa::Avx512,
    dot_rows: 1,
    float_dot_rows: dot::FLOAT_ROWS,
    tile_rows,
    float_tile_rows: tile::ROWS,
    packs: Some(vectors::transpose),
    panel_rows: LANES,
    prepare: quantise::prepare,
    dot: dot_kernel,
    tile: tile_kernel,
    float_dot: float_dot_kernel,
    float_tile: float_tile_kernel,
};

fn dot_kernel(shape: ProductShape) -> Kernel {
    with_block!(shape.weight, B => dot::row::<B> as Kernel, else => unreachable!("other weights take floats"))
}

/// The most rows for which the streaming kernel is the faster: on processors that execute 512-bit instructions in halves
/// (Zen 4, family 19h) its loads and stores cost nothing, on others they hold the arithmetic up.
fn stream_rows() -> usize {
    static ROWS: OnceLock<usize> = OnceLock::new();
    *ROWS.get_or_init(|| {
        let name = __cpuid(0);
        let signature = __cpuid(1).eax;
        let family = (signature >> 8 & 15) + (signature >> 20 & 255);
        let amd = [name.ebx, name.edx, name.ecx]
            .map(u32::to_le_bytes)
            .concat()
            == *b"AuthenticAMD";
        if amd && family == 0x19 { 128 } else { 16 }
    })
}

fn tile_rows(shape: ProductShape) -> usize {
    if shape.m > stream_rows() {
        tile::ROWS
    } else {
        stream::ROWS
    }
}

fn tile_kernel(shape: ProductShape) -> Kernel {
    with_block!(shape.weight, B => {
        match (shape.packed, shape.m > stream_rows()) {
            _ if shape.is_packed_row() => stream::packed_row::<B> as Kernel,
            (true, false) => stream::packed_product::<B>,
            (true, true) => tile::packed_product::<B>,
            (false, false) => stream::product::<B>,
            (false, true) => tile::product::<B>,
        }
    }, else => unreachable!("other weights take floats"))
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
