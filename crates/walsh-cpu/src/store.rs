//! Encoding keys and values into a KV cache.
//!
//! A first phase looks for what cannot be stored, so that nothing is written when there is any. An item of the second
//! encodes the key and the value of one token and KV head, into the overlay too where that holds the token. The bytes are
//! those of [`RowCodec::encode_row`](walsh_formats::kv::RowCodec::encode_row), whatever the instruction set.

mod blocks;
mod codebook;
mod encode;

use std::ops::Range;
use std::sync::Arc;

use walsh_core::ops::{KvStore, Operation};
use walsh_core::{Error, KvRows, KvSide, Plan, Result, Tensor};
use walsh_formats::kv::{KvError, RowCodec};
use walsh_formats::{DType, ggml};

use self::encode::Encoder;
use crate::isa::Isa;
use crate::lower::{Fault, Lowering, Target, whole};
use crate::memory::View;
use crate::positions::{self, Tokens};
use crate::team::{Phase, Scratch};

/// Up to this magnitude every codec stores a vector of at most 512 numbers: rotated, none exceeds √512 times it, which
/// half precision holds.
const SAFE_MAGNITUDE: f32 = 2000.0;

/// Where encoded rows go.
struct Rows {
    encoder: Encoder,
    codec: RowCodec,
    slots: usize,
    /// `[sequences · kv_heads][slots][code_bytes]`.
    codes: View<u8>,
    /// `[sequences · kv_heads][slots][scale_bytes]`; absent for dense codecs.
    scales: Option<View<u8>>,
}

impl Rows {
    fn of(rows: &KvRows) -> Result<Self> {
        Ok(Self {
            encoder: Encoder::of(&rows.codec),
            codec: rows.codec.clone(),
            slots: rows.codes.shape()[1] as usize,
            codes: View::of(&rows.codes)?,
            scales: rows.scales.as_ref().map(View::of).transpose()?,
        })
    }

    /// Encodes a row into a slot of a head. `scratch` holds a row.
    ///
    /// # Safety
    /// The device has the set, the list orders the accesses, and no other item writes this slot of this head.
    unsafe fn encode(
        &self,
        isa: Isa,
        (head, slot): (usize, usize),
        row: &[f32],
        scratch: &mut [f32],
    ) -> Result<(), KvError> {
        let target = head * self.slots + slot;
        let (code_bytes, scale_bytes) = (self.codec.code_bytes(), self.codec.scale_bytes());
        // SAFETY: the caller's.
        let (codes, scales) = unsafe {
            let scales = match &self.scales {
                Some(scales) => scales.slice_mut(target * scale_bytes..(target + 1) * scale_bytes),
                None => &mut [],
            };
            let codes = self
                .codes
                .slice_mut(target * code_bytes..(target + 1) * code_bytes);
            (codes, scales)
        };
        // SAFETY: the device has the set; the lengths are the codec's.
        if unsafe { encode::encode(isa, &self.encoder, row, scratch, codes, scales) } {
            return Ok(());
        }
        // No kernel, or a vector that needs care: the codec decides, and says what is wrong if anything is.
        self.codec.encode_row(row, scratch, codes, scales)
    }
}

/// Keys or values: where they come from and where they go.
struct Side {
    /// `[n][kv_heads][head_dim]`.
    source: View<u8>,
    /// `[kv_heads][head_dim]`: what is subtracted first.
    center: Option<View<f32>>,
    /// `[kv_heads][head_dim]`: what is divided by then.
    equaliser: Option<View<f32>>,
    rows: Rows,
    overlay: Option<Rows>,
}

impl Side {
    fn new(source: &Tensor, side: &KvSide) -> Result<Self> {
        Ok(Self {
            source: View::of(source)?,
            center: None,
            equaliser: None,
            rows: Rows::of(&side.rows)?,
            overlay: side.overlay.as_ref().map(Rows::of).transpose()?,
        })
    }
}

/// What is done with a token's vector of a head, given scratch of two rows.
type Each = unsafe fn(&Store, &Side, (usize, usize), &mut [f32]) -> Result<(), KvError>;

struct Store {
    isa: Isa,
    dtype: DType,
    kv_heads: usize,
    head_dim: usize,
    capacity: usize,
    /// The overlay's slots of the first tokens, and of the recent ones.
    overlay: (usize, usize),
    positions: View<i32>,
    sequences: Option<View<i32>>,
    sides: [Side; 2],
    fault: Arc<Fault>,
}

pub(crate) fn plan(op: &KvStore, target: Target) -> Result<Plan> {
    Ok(Plan {
        kernel: format!("kv_store.{}.{}", op.cache.codecs(), target.isa),
        pieces: op.positions.elements() * op.cache.kv_heads(),
        workspace: 0,
    })
}

pub(crate) fn lower(op: &KvStore, lowering: &mut Lowering) -> Result<()> {
    let tokens = Tokens {
        op: KvStore::NAME,
        positions: &op.positions,
        sequences: op.sequences.as_ref(),
        most: None,
    };
    let checked = positions::checked(&tokens, &op.cache, lowering)?;
    let preparation = op.cache.preparation();
    let view = |tensor: &Option<Tensor>| tensor.as_ref().map(View::of).transpose();
    let keys = Side {
        center: view(&preparation.center)?,
        equaliser: view(&preparation.equaliser)?,
        ..Side::new(&op.keys, op.cache.key())?
    };
    let overlay = op.cache.overlay();
    let store = Arc::new(Store {
        isa: lowering.target().isa,
        dtype: op.keys.dtype(),
        kv_heads: op.cache.kv_heads() as usize,
        head_dim: op.cache.head_dim() as usize,
        capacity: op.cache.capacity() as usize,
        overlay: overlay.map_or((0, 0), |o| (o.tokens.first as usize, o.ring() as usize)),
        positions: View::of(&op.positions)?,
        sequences: op.sequences.as_ref().map(View::of).transpose()?,
        sides: [keys, Side::new(&op.values, op.cache.value())?],
        fault: lowering.fault(),
    });
    let mut accesses = op.accesses();
    accesses.read(whole(&checked));
    // The storing phase waits for this buffer, which the inspection writes in name only.
    let inspected = lowering.workspace(4)?;
    let mut inspection = accesses.clone();
    inspection.writes = vec![whole(&inspected)];
    lowering.phase(&inspection, Inspect(store.clone()));
    accesses.read(whole(&inspected));
    lowering.phase(&accesses, Encode(store));
    lowering.release(inspected);
    Ok(())
}

impl Store {
    fn items(&self) -> usize {
        self.positions.len() * self.kv_heads
    }

    /// A token's vector of a head as it is encoded.
    ///
    /// # Safety
    /// The list orders the accesses.
    unsafe fn load(&self, side: &Side, (token, head): (usize, usize), row: &mut [f32]) {
        let at = token * self.kv_heads + head;
        let row_bytes = self.head_dim * self.dtype.block_bytes();
        let of_head = head * self.head_dim..(head + 1) * self.head_dim;
        // SAFETY: the caller's.
        unsafe {
            let source = side.source.slice(at * row_bytes..(at + 1) * row_bytes);
            if ggml::decode(self.dtype, source, row).is_err() {
                // The op was validated: its type is f32, f16 or bf16, which rows of any length decode from.
                row.fill(f32::NAN);
            }
            if let Some(center) = &side.center {
                for (k, c) in row.iter_mut().zip(center.slice(of_head.clone())) {
                    *k -= c;
                }
            }
            if let Some(equaliser) = &side.equaliser {
                for (k, e) in row.iter_mut().zip(equaliser.slice(of_head)) {
                    *k /= e;
                }
            }
        }
    }

    /// The sequence of a token, and how many of its tokens follow, itself included.
    ///
    /// # Safety
    /// The list orders the accesses.
    unsafe fn sequence(&self, token: usize) -> (usize, usize) {
        let Some(sequences) = &self.sequences else {
            return (0, self.positions.len() - token);
        };
        // SAFETY: the caller's.
        let sequences = unsafe { sequences.slice(token..sequences.len()) };
        let of_it = sequences.iter().take_while(|s| **s == sequences[0]);
        (sequences[0] as usize, of_it.count())
    }

    /// Encodes one token's vector of a head into every slot that holds it.
    ///
    /// # Safety
    /// As for [`Rows::encode`].
    unsafe fn encode(
        &self,
        side: &Side,
        (token, head): (usize, usize),
        scratch: &mut [f32],
    ) -> Result<(), KvError> {
        let (row, scratch) = scratch.split_at_mut(self.head_dim);
        let (first, ring) = self.overlay;
        // SAFETY: the caller's; of several tokens in a slot only the last is encoded into it.
        unsafe {
            let (sequence, left) = self.sequence(token);
            let position = self.positions.slice(token..token + 1)[0] as usize;
            let slot = (left <= self.capacity).then_some(position % self.capacity);
            let kept = match position {
                position if position < first => Some(position),
                position if left <= ring => Some(first + position % ring),
                _ => None,
            };
            if slot.is_none() && kept.is_none() {
                return Ok(());
            }
            self.load(side, (token, head), row);
            let head = sequence * self.kv_heads + head;
            if let Some(slot) = slot {
                side.rows.encode(self.isa, (head, slot), row, scratch)?;
            }
            if let (Some(overlay), Some(slot)) = (&side.overlay, kept) {
                overlay.encode(self.isa, (head, slot), row, scratch)?;
            }
        }
        Ok(())
    }

    /// Whether a token's vector of a head can be stored.
    ///
    /// # Safety
    /// The list orders the accesses.
    unsafe fn inspect(
        &self,
        side: &Side,
        at: (usize, usize),
        scratch: &mut [f32],
    ) -> Result<(), KvError> {
        let (row, scratch) = scratch.split_at_mut(self.head_dim);
        // SAFETY: the caller's.
        unsafe { self.load(side, at, row) };
        // A NaN is in no order with the bound.
        let safe = row
            .iter()
            .fold(true, |safe, x| safe & (x.abs() <= SAFE_MAGNITUDE));
        if safe {
            return Ok(());
        }
        for rows in [Some(&side.rows), side.overlay.as_ref()]
            .into_iter()
            .flatten()
        {
            let mut codes = vec![0; rows.codec.code_bytes()];
            let mut scales = vec![0; rows.codec.scale_bytes()];
            rows.codec
                .encode_row(row, scratch, &mut codes, &mut scales)?;
        }
        Ok(())
    }

    /// Does something with the keys and the values of some items; the first that fails is reported.
    ///
    /// # Safety
    /// As for `each`.
    unsafe fn for_each(&self, items: Range<usize>, scratch: &mut Scratch, each: Each) {
        let scratch = scratch.floats(2 * self.head_dim);
        for item in items {
            let (token, head) = (item / self.kv_heads, item % self.kv_heads);
            for (side, what) in self.sides.iter().zip(["key", "value"]) {
                // SAFETY: the caller's.
                if let Err(wrong) = unsafe { each(self, side, (token, head), scratch) } {
                    // SAFETY: the list orders this read after the positions' writes.
                    let position = unsafe { self.positions.slice(token..token + 1)[0] };
                    self.fault.report(Error::Value {
                        op: KvStore::NAME,
                        message: format!("{what} of position {position}, head {head}: {wrong}"),
                    });
                    return;
                }
            }
        }
    }
}

/// Looks for vectors that cannot be stored.
struct Inspect(Arc<Store>);

/// Stores.
struct Encode(Arc<Store>);

impl Phase for Inspect {
    fn items(&self) -> usize {
        self.0.items()
    }

    fn grain(&self) -> usize {
        32
    }

    fn cost(&self) -> u64 {
        (self.items() * self.0.head_dim) as u64 / 8
    }

    fn scratch_bytes(&self) -> usize {
        2 * self.0.head_dim * size_of::<f32>()
    }

    unsafe fn run(&self, items: Range<usize>, scratch: &mut Scratch) {
        // SAFETY: the list orders these reads after the sources' writes.
        unsafe { self.0.for_each(items, scratch, Store::inspect) };
    }
}

impl Phase for Encode {
    fn items(&self) -> usize {
        self.0.items()
    }

    fn grain(&self) -> usize {
        8
    }

    fn cost(&self) -> u64 {
        (self.items() * self.0.head_dim) as u64
    }

    fn scratch_bytes(&self) -> usize {
        2 * self.0.head_dim * size_of::<f32>()
    }

    unsafe fn run(&self, items: Range<usize>, scratch: &mut Scratch) {
        // SAFETY: tokens that are written have slots of their own, each head has its own rows, and the list orders the
        // accesses.
        unsafe { self.0.for_each(items, scratch, Store::encode) };
    }
}
