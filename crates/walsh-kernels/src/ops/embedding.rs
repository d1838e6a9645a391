//! Rows of embedding tables.

use walsh_core::ops::EmbeddingRows;
use walsh_core::{Result, Tensor};

use super::blocks::{self, form, type_constant};
use super::matmul::row_alignment;
use crate::args::args;
use crate::check::CheckKind;
use crate::kernel::{Kernel, Variant, no_tables, reads, writes};
use crate::lower::{Lowering, layout};

/// Threads of a group.
const THREADS: i64 = 128;

args! {
    /// Arguments of `check_ids`.
    CheckIdsArgs {
        /// How many ids there are.
        count: u32,
        /// Rows of the table.
        table_rows: u32,
        /// The check's number.
        check: u32,
    }

    /// Arguments of `embedding` and `embedding_floats`.
    EmbeddingArgs {
        /// The bytes of a row of the table.
        row_bytes: u64,
        /// Numbers of a row.
        width: u32,
        /// Blocks of a row.
        blocks: u32,
        /// Groups that share a row.
        pieces: u32,
        /// What each number is multiplied by.
        scale: f32,
    }
}

static CHECK_IDS: Kernel = Kernel {
    name: "check_ids",
    includes: &[],
    tables: no_tables,
    text: include_str!("../../kernels/check_ids.h"),
    native: &[],
    constants: &["THREADS"],
    args: layout::<CheckIdsArgs>(),
    buffers: &[reads("ids", "int"), writes("status", "uint")],
    shared: false,
};

static EMBEDDING: Kernel = Kernel {
    name: "embedding",
    includes: &[
        include_str!("../../kernels/blocks.h"),
        include_str!("../../kernels/unit.h"),
        include_str!("../../kernels/stage.h"),
    ],
    tables: blocks::tables,
    text: include_str!("../../kernels/embedding.h"),
    native: &[],
    constants: &["THREADS", "TYPE", "ALIGN"],
    args: layout::<EmbeddingArgs>(),
    buffers: &[
        reads("table", "uchar"),
        reads("ids", "int"),
        reads("verdict", "uint"),
        writes("output", "float"),
    ],
    shared: true,
};

static EMBEDDING_FLOATS: Kernel = Kernel {
    name: "embedding_floats",
    includes: &[],
    tables: blocks::tables,
    text: include_str!("../../kernels/embedding_floats.h"),
    native: &[],
    constants: &["THREADS", "TYPE"],
    args: layout::<EmbeddingArgs>(),
    buffers: &[
        reads("table", "uchar"),
        reads("ids", "int"),
        reads("verdict", "uint"),
        writes("output", "float"),
    ],
    shared: false,
};

pub(crate) const KERNELS: &[&Kernel] = &[&CHECK_IDS, &EMBEDDING, &EMBEDDING_FLOATS];

/// Adds the check that ids are below a number.
pub(super) fn check_ids(
    ids: &Tensor,
    rows: u64,
    kind: CheckKind,
    lowering: &mut Lowering<'_>,
) -> Result<()> {
    let args = CheckIdsArgs {
        count: ids.elements() as u32,
        // Ids are of 31 bits: a longer table takes them all.
        table_rows: rows.min(1 << 31) as u32,
        check: lowering.check(kind)?,
    };
    let variant = Variant::new(&CHECK_IDS, &[("THREADS", THREADS)]);
    let spans = vec![ids.span(), lowering.status()];
    lowering.dispatch(variant, [1, 1, 1], &args, spans)
}

pub(crate) fn lower(op: &EmbeddingRows, lowering: &mut Lowering<'_>) -> Result<()> {
    lowering.countable(&[&op.ids, &op.output])?;
    let table_rows = op.table.row_count();
    let kind = CheckKind::Ids {
        ids: op.ids.span(),
        rows: table_rows,
    };
    check_ids(&op.ids, table_rows, kind, lowering)?;

    let (dtype, width) = (op.table.dtype(), op.table.row_len());
    let row_bytes = op.table.bytes() / table_rows;
    let form = form(dtype);
    let blocks = width / dtype.block_len() as u64;
    let (variant, share) = match &form {
        Some(form) => (
            Variant::new(
                &EMBEDDING,
                &[
                    ("THREADS", THREADS),
                    ("TYPE", type_constant(dtype)),
                    ("ALIGN", row_alignment(&op.table, row_bytes)),
                ],
            ),
            form.stage as u64 * (THREADS as u64 / 32),
        ),
        None => (
            Variant::new(
                &EMBEDDING_FLOATS,
                &[("THREADS", THREADS), ("TYPE", type_constant(dtype))],
            ),
            THREADS as u64,
        ),
    };
    let pieces = blocks.div_ceil(share);
    let args = EmbeddingArgs {
        row_bytes,
        width: width as u32,
        blocks: blocks as u32,
        pieces: pieces as u32,
        scale: op.scale,
    };
    let spans = vec![
        op.table.span(),
        op.ids.span(),
        lowering.verdict(),
        op.output.span(),
    ];
    let groups = [pieces * op.ids.elements(), 1, 1];
    lowering.dispatch(variant, groups, &args, spans)
}
