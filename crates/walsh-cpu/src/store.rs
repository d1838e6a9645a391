//! Encoding keys and values into a KV cache.
//!
//! An item encodes the key and the value of one token and KV head. The bytes are those of
//! [`RowCodec::encode_row`](walsh_formats::kv::RowCodec::encode_row), whatever the instruction set.

mod encode;

use std::ops::Range;
use std::sync::Arc;

use walsh_core::ops::{KvStore, Operation};
use walsh_core::{Error, KvSide, Plan, Result};
use walsh_formats::kv::{KvError, RowCodec};
use walsh_formats::{DType, ggml};

use self::encode::Encoder;
use crate::isa::Isa;
use crate::lower::{Fault, Lowering, Target, whole};
use crate::memory::View;
use crate::positions;
use crate::team::{Phase, Scratch};

/// Keys or values: where they come from and where they go.
struct Side {
    encoder: Encoder,
    codec: RowCodec,
    /// `[n][kv_heads][head_dim]`.
    source: View<u8>,
    /// `[kv_heads][capacity][code_bytes]`.
    codes: View<u8>,
    /// `[kv_heads][capacity][scale_bytes]`; absent for dense codecs.
    scales: Option<View<u8>>,
}

struct Store {
    isa: Isa,
    dtype: DType,
    kv_heads: usize,
    head_dim: usize,
    capacity: usize,
    positions: View<i32>,
    sides: [Side; 2],
    fault: Arc<Fault>,
}

pub(crate) fn plan(op: &KvStore, target: Target) -> Result<Plan> {
    Ok(Plan {
        kernel: format!("kv_store.{}.{}", op.cache.spec(), target.isa),
        pieces: op.positions.elements() * op.cache.kv_heads(),
        workspace: 0,
    })
}

pub(crate) fn lower(op: &KvStore, lowering: &mut Lowering) -> Result<()> {
    let checked = positions::checked(KvStore::NAME, &op.positions, &op.cache, lowering)?;
    let side = |source, side: &KvSide| -> Result<Side> {
        Ok(Side {
            encoder: Encoder::of(&side.codec),
            codec: side.codec.clone(),
            source: View::of(source)?,
            codes: View::of(&side.codes)?,
            scales: side.scales.as_ref().map(View::of).transpose()?,
        })
    };
    let phase = Store {
        isa: lowering.target().isa,
        dtype: op.keys.dtype(),
        kv_heads: op.cache.kv_heads() as usize,
        head_dim: op.cache.head_dim() as usize,
        capacity: op.cache.capacity() as usize,
        positions: View::of(&op.positions)?,
        sides: [
            side(&op.keys, op.cache.key())?,
            side(&op.values, op.cache.value())?,
        ],
        fault: lowering.fault(),
    };
    let mut accesses = op.accesses();
    accesses.read(whole(&checked));
    lowering.phase(&accesses, phase);
    Ok(())
}

impl Store {
    /// Encodes one row of one side; `token` and `head` say where it comes from, `slot` where it goes. `scratch`
    /// holds two rows.
    ///
    /// # Safety
    /// The list orders the accesses, and no other item writes this slot of this head.
    unsafe fn encode(
        &self,
        side: &Side,
        (token, head, slot): (usize, usize, usize),
        scratch: &mut [f32],
    ) -> Result<(), KvError> {
        let d = self.head_dim;
        let (row, scratch) = scratch.split_at_mut(d);
        let at = token * self.kv_heads + head;
        let row_bytes = d * self.dtype.block_bytes();
        let target = head * self.capacity + slot;
        let (code_bytes, scale_bytes) = (side.codec.code_bytes(), side.codec.scale_bytes());
        // SAFETY: the caller's.
        let (source, codes, scales) = unsafe {
            let scales = match &side.scales {
                Some(scales) => scales.slice_mut(target * scale_bytes..(target + 1) * scale_bytes),
                None => &mut [],
            };
            (
                side.source.slice(at * row_bytes..(at + 1) * row_bytes),
                side.codes
                    .slice_mut(target * code_bytes..(target + 1) * code_bytes),
                scales,
            )
        };
        if ggml::decode(self.dtype, source, row).is_err() {
            // The op was validated: its type is f32, f16 or bf16, which rows of any length decode from.
            row.fill(f32::NAN);
        }
        // SAFETY: the device has the set; the lengths are the codec's.
        if unsafe { encode::encode(self.isa, &side.encoder, row, scratch, codes, scales) } {
            return Ok(());
        }
        // No kernel, or a vector that needs care: the codec decides, and says what is wrong if anything is.
        side.codec.encode_row(row, scratch, codes, scales)
    }
}

impl Phase for Store {
    fn items(&self) -> usize {
        self.positions.len() * self.kv_heads
    }

    fn grain(&self) -> usize {
        8
    }

    fn cost(&self) -> u64 {
        (self.items() * self.head_dim) as u64
    }

    fn scratch_bytes(&self) -> usize {
        2 * self.head_dim * size_of::<f32>()
    }

    unsafe fn run(&self, items: Range<usize>, scratch: &mut Scratch) {
        let scratch = scratch.floats(2 * self.head_dim);
        // SAFETY: the list orders this read after the positions' writes.
        let positions = unsafe { self.positions.all() };
        for item in items {
            let (token, head) = (item / self.kv_heads, item % self.kv_heads);
            // Of more tokens than a ring has slots, only the last keep theirs.
            if token + self.capacity < positions.len() {
                continue;
            }
            let slot = positions[token] as usize % self.capacity;
            for (side, what) in self.sides.iter().zip(["key", "value"]) {
                // SAFETY: tokens that are written have slots of their own, and each head has its own rows.
                if let Err(wrong) = unsafe { self.encode(side, (token, head, slot), scratch) } {
                    self.fault.report(Error::Value {
                        op: KvStore::NAME,
                        message: format!(
                            "{what} of position {}, head {head}: {wrong}",
                            positions[token]
                        ),
                    });
                    return;
                }
            }
        }
    }
}
