//! Encoding keys and values into a KV cache.
//!
//! A first phase looks for what cannot be stored, so that nothing is written when there is any. An item of the second
//! encodes the key and the value of one token and KV head, into the overlay too where that holds the token. A store that
//! is not worth a second thread does both in one phase of a single item. The bytes are those of
//! [`RowCodec::encode_row`](walsh_formats::kv::RowCodec::encode_row), whatever the instruction set.

mod load;

use std::ops::{Deref, Range};
use std::sync::Arc;

use bytemuck::Pod;
use walsh_core::ops::{KvStore, Operation};
use walsh_core::{CacheSide, Error, KeyPreparation, KvCache, KvRows, Result, Tensor};
use walsh_formats::DType;
use walsh_formats::kv::{KvError, RowCodec};
use walsh_formats::rotation::Rotation;

use crate::kv::codec::{self, Encoder};
use crate::kv::pages::Pages;
use crate::kv::positions::{self, Tokens};
use crate::lowering::{Fault, Lowering};
use crate::memory::View;
use crate::simd::Token;
use crate::team::{Phase, Scratch};

/// The estimated time, in nanoseconds, below which a store is one item: a team gives no part of it to another thread.
const FEW: u64 = 3_000;

/// Where encoded rows go.
struct Rows {
    encoder: Encoder,
    codec: RowCodec,
    slots: usize,
    /// `[sequences · kv_heads][slots][code_bytes]`; of pages, `[kv_heads][slots][code_bytes]`.
    codes: View<u8>,
    /// The same of `scale_bytes`; absent for dense codecs.
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

    /// Whether rows are encoded rotated.
    fn takes_rotated(&self) -> bool {
        self.codec.rotation().is_some() && self.encoder.takes_rotated()
    }

    /// About how many nanoseconds a row takes.
    fn cost(&self) -> u64 {
        self.encoder.cost(self.codec.head_dim())
    }
}

/// A vector that is about to be encoded.
struct Row<'a> {
    /// As it was loaded.
    plain: &'a [f32],
    /// Rotated, if an encoder takes it so.
    turned: Option<&'a [f32]>,
    /// As much scratch.
    spare: &'a mut [f32],
}

/// Keys or values: where they come from and where they go.
struct Side {
    /// What errors call a vector of it.
    name: &'static str,
    dtype: DType,
    /// `[n][kv_heads][head_dim]`.
    source: View<u8>,
    /// `[kv_heads][head_dim]`: what is subtracted first.
    center: Option<View<f32>>,
    /// `[kv_heads][head_dim]`: what is divided by then.
    equaliser: Option<View<f32>>,
    rows: Rows,
    overlay: Option<Rows>,
    /// What rows are rotated with before they are encoded. The overlay rotates as the codec beside it does.
    rotation: Option<Rotation>,
}

impl Side {
    fn new(which: CacheSide, source: &Tensor, cache: &KvCache) -> Result<Self> {
        let side = cache.side(which);
        let KeyPreparation { equaliser, center } = cache.preparation();
        let view = |tensor: &Option<Tensor>| {
            let tensor = tensor.as_ref().filter(|_| which == CacheSide::Keys);
            tensor.map(View::of).transpose()
        };
        let rows = Rows::of(&side.rows)?;
        let overlay = side.overlay.as_ref().map(Rows::of).transpose()?;
        // Rows that are no whole vectors have no kernel.
        let rotated = [Some(&rows), overlay.as_ref()]
            .into_iter()
            .flatten()
            .find(|rows| rows.takes_rotated() && rows.codec.head_dim().is_multiple_of(16));
        Ok(Self {
            name: match which {
                CacheSide::Keys => "key",
                CacheSide::Values => "value",
            },
            dtype: source.dtype(),
            source: View::of(source)?,
            center: view(center)?,
            equaliser: view(equaliser)?,
            rotation: rotated.and_then(|rows| rows.codec.rotation().cloned()),
            rows,
            overlay,
        })
    }

    /// Encodes a vector into nothing, to see whether it can be stored.
    #[cold]
    fn try_encoding(&self, row: &[f32], scratch: &mut [f32]) -> Result<(), KvError> {
        for rows in [Some(&self.rows), self.overlay.as_ref()]
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

    /// About how many nanoseconds a vector takes.
    fn cost(&self) -> u64 {
        let overlay = self.overlay.as_ref().map_or(0, |rows| rows.cost());
        self.rows.cost() + overlay + 20
    }
}

/// Where a token goes.
struct Slots {
    sequence: usize,
    slot: Option<usize>,
    /// Whose rows have the slot: the sequence's, or where they are in pages the first's, which are all sequences'.
    owner: usize,
    /// The overlay's slot.
    kept: Option<usize>,
}

/// Tokens of one sequence up to an end.
#[derive(Default)]
struct Run {
    sequence: usize,
    end: usize,
}

struct Store {
    set: Token,
    kv_heads: usize,
    head_dim: usize,
    capacity: usize,
    /// The overlay's slots of the first tokens, and of the recent ones.
    overlay: (usize, usize),
    positions: View<i32>,
    sequences: Option<View<i32>>,
    /// Where positions lie, if in pages.
    pages: Option<Pages>,
    sides: Vec<Side>,
    fault: Arc<Fault>,
}

pub(crate) fn lower(op: &KvStore, lowering: &mut Lowering) -> Result<()> {
    let tokens = Tokens {
        op: KvStore::NAME,
        positions: &op.positions,
        sequences: op.sequences.as_ref(),
        limits: op.token_limits(),
    };
    let isa = lowering.target().isa;
    lowering.kernel(format!("kv_store.{}.{isa}", op.cache.codecs()));
    let checked = positions::checked(&tokens, op.cache.table(), lowering)?;
    let sides = op.sides();
    let sides = sides.map(|(side, source)| Side::new(side, source, &op.cache));
    let overlay = op.cache.overlay();
    let store = Arc::new(Store {
        set: lowering.target().token(),
        kv_heads: op.cache.kv_heads() as usize,
        head_dim: op.cache.head_dim() as usize,
        capacity: op.cache.capacity() as usize,
        overlay: overlay.map_or((0, 0), |o| (o.tokens.first as usize, o.ring() as usize)),
        positions: View::of(&op.positions)?,
        sequences: op.sequences.as_ref().map(View::of).transpose()?,
        pages: Pages::of(&op.cache)?,
        sides: sides.collect::<Result<_>>()?,
        fault: lowering.fault(),
    });
    let mut accesses = op.accesses();
    accesses.read(checked.span());
    if store.cost() < FEW {
        lowering.phase(&accesses, StoreFew(store));
        return Ok(());
    }
    // The storing phase waits for this buffer, which the inspection writes in name only.
    let inspected = lowering.workspace(4)?;
    let mut inspection = accesses.clone();
    inspection.writes = vec![inspected.span()];
    lowering.phase(&inspection, Inspect(store.clone()));
    accesses.read(inspected.span());
    lowering.phase(&accesses, Encode(store));
    lowering.release(inspected);
    Ok(())
}

impl Store {
    fn items(&self) -> usize {
        self.positions.len() * self.kv_heads
    }

    /// About how many nanoseconds encoding takes.
    fn cost(&self) -> u64 {
        let both: u64 = self.sides.iter().map(Side::cost).sum();
        self.items() as u64 * both
    }

    fn scratch_bytes(&self) -> usize {
        3 * self.head_dim * size_of::<f32>()
    }
}

/// A store while it runs.
#[derive(Clone, Copy)]
struct Storing<'a>(&'a Store);

impl Deref for Storing<'_> {
    type Target = Store;

    fn deref(&self) -> &Store {
        self.0
    }
}

impl<'a> Storing<'a> {
    /// # Safety
    /// While this lives, nothing writes what the store reads, and nothing else touches the slots of the tokens and heads
    /// that it is given.
    unsafe fn new(store: &'a Store) -> Self {
        Self(store)
    }

    /// Numbers of a tensor that the store reads.
    fn read<T: Pod>(self, view: &'a View<T>, range: Range<usize>) -> &'a [T] {
        // SAFETY: nothing writes what the store reads while it runs.
        unsafe { view.slice(range) }
    }

    /// Encodes a row into a slot of a head.
    fn put(
        self,
        rows: &Rows,
        (head, slot): (usize, usize),
        row: &mut Row<'_>,
    ) -> Result<(), KvError> {
        let target = head * rows.slots + slot;
        let of_row = |bytes: usize| target * bytes..(target + 1) * bytes;
        // SAFETY: a token that is stored has slots of its own, of several in a slot the last alone, each head has its own
        // rows, and a token and head are of one item.
        let (codes, scales) = unsafe {
            let scales = match &rows.scales {
                Some(scales) => scales.slice_mut(of_row(rows.codec.scale_bytes())),
                None => &mut [],
            };
            (
                rows.codes.slice_mut(of_row(rows.codec.code_bytes())),
                scales,
            )
        };
        let encoded = match row.turned {
            Some(turned) if rows.takes_rotated() => turned,
            _ => row.plain,
        };
        if codec::encode(self.set, &rows.encoder, encoded, codes, scales) {
            return Ok(());
        }
        // No kernel, or a vector that needs care: the codec decides, and says what is wrong if anything is.
        rows.codec.encode_row(row.plain, row.spare, codes, scales)
    }

    /// Loads a token's vector of a head; whether it is so small that every codec stores it.
    fn load(self, side: &'a Side, (token, head): (usize, usize), row: &mut [f32]) -> bool {
        let at = token * self.kv_heads + head;
        let row_bytes = self.head_dim * side.dtype.block_bytes();
        let of_head = |view| self.read(view, head * self.head_dim..(head + 1) * self.head_dim);
        let source = load::Source {
            dtype: side.dtype,
            bytes: self.read(&side.source, at * row_bytes..(at + 1) * row_bytes),
            center: side.center.as_ref().map(of_head),
            equaliser: side.equaliser.as_ref().map(of_head),
        };
        load::load(self.set, source, row)
    }

    /// Where a token goes. `run` is the one of the token before, if it is known.
    fn slots_of(self, token: usize, run: &mut Run) -> Slots {
        let tokens = self.positions.len();
        if token >= run.end {
            *run = match &self.0.sequences {
                None => Run {
                    sequence: 0,
                    end: tokens,
                },
                Some(sequences) => {
                    let sequences = self.read(sequences, token..tokens);
                    let of_it = sequences.iter().take_while(|s| **s == sequences[0]);
                    Run {
                        sequence: sequences[0] as usize,
                        end: token + of_it.count(),
                    }
                }
            };
        }
        let position = self.read(&self.0.positions, token..token + 1)[0] as usize;
        // Of several tokens in a slot only the last is encoded into it.
        let left = run.end - token;
        let (first, ring) = self.overlay;
        let slot = match &self.pages {
            None => (left <= self.capacity).then_some(position % self.capacity),
            // SAFETY: nothing writes what the store reads while it runs.
            Some(pages) => Some(unsafe { pages.read() }.slot(run.sequence, position)),
        };
        Slots {
            sequence: run.sequence,
            slot,
            owner: if self.pages.is_some() {
                0
            } else {
                run.sequence
            },
            kept: match position {
                position if position < first => Some(position),
                position if left <= ring => Some(first + position % ring),
                _ => None,
            },
        }
    }

    /// Encodes one token's vector of a head into every slot that holds it.
    fn encode_one(
        self,
        side: &'a Side,
        (token, head, slots): (usize, usize, &Slots),
        scratch: &mut [f32],
    ) -> Result<(), KvError> {
        let (plain, scratch) = scratch.split_at_mut(self.head_dim);
        let (turned, spare) = scratch.split_at_mut(self.head_dim);
        self.load(side, (token, head), plain);
        let mut row = Row {
            plain,
            turned: None,
            spare,
        };
        if let Some(rotation) = &side.rotation {
            load::turn(self.set, rotation, row.plain, turned);
            row.turned = Some(turned);
        }
        if let Some(slot) = slots.slot {
            let head = slots.owner * self.kv_heads + head;
            self.put(&side.rows, (head, slot), &mut row)?;
        }
        if let (Some(overlay), Some(slot)) = (&side.overlay, slots.kept) {
            let head = slots.sequence * self.kv_heads + head;
            self.put(overlay, (head, slot), &mut row)?;
        }
        Ok(())
    }

    /// Encodes keys and values of some items; the first that cannot be is reported.
    fn encode(self, items: Range<usize>, scratch: &mut Scratch) {
        let scratch = scratch.floats(3 * self.head_dim);
        let (mut run, mut item) = (Run::default(), items.start);
        while item < items.end {
            let (token, first) = (item / self.kv_heads, item % self.kv_heads);
            let heads = first..self.kv_heads.min(first + items.end - item);
            item += heads.len();
            let slots = self.slots_of(token, &mut run);
            if slots.slot.is_none() && slots.kept.is_none() {
                continue;
            }
            for head in heads {
                for side in &self.0.sides {
                    if let Err(wrong) = self.encode_one(side, (token, head, &slots), scratch) {
                        return self.report((side.name, token, head), &wrong);
                    }
                }
            }
        }
    }

    /// Whether all vectors of some items can be stored; the first that cannot is reported.
    fn inspect(self, items: Range<usize>, scratch: &mut Scratch) -> bool {
        let (row, scratch) = scratch
            .floats(2 * self.head_dim)
            .split_at_mut(self.head_dim);
        for item in items {
            let (token, head) = (item / self.kv_heads, item % self.kv_heads);
            for side in &self.0.sides {
                if self.load(side, (token, head), row) {
                    continue;
                }
                if let Err(wrong) = side.try_encoding(row, scratch) {
                    self.report((side.name, token, head), &wrong);
                    return false;
                }
            }
        }
        true
    }

    #[cold]
    fn report(self, (what, token, head): (&str, usize, usize), wrong: &KvError) {
        let position = self.read(&self.0.positions, token..token + 1)[0];
        self.fault.report(Error::Value {
            op: KvStore::NAME,
            message: format!("{what} of position {position}, head {head}: {wrong}"),
        });
    }
}

/// Stores few tokens: looks for vectors that cannot be stored, and stores if there is none.
struct StoreFew(Arc<Store>);

/// Looks for vectors that cannot be stored.
struct Inspect(Arc<Store>);

/// Stores.
struct Encode(Arc<Store>);

impl Phase for StoreFew {
    fn items(&self) -> usize {
        1
    }

    fn cost(&self) -> u64 {
        self.0.cost()
    }

    fn scratch_bytes(&self) -> usize {
        self.0.scratch_bytes()
    }

    unsafe fn run(&self, _: Range<usize>, scratch: &mut Scratch) {
        let items = self.0.items();
        // SAFETY: the list orders the accesses, and the phase has one item.
        let store = unsafe { Storing::new(&self.0) };
        if store.inspect(0..items, scratch) {
            store.encode(0..items, scratch);
        }
    }
}

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
        self.0.scratch_bytes()
    }

    unsafe fn run(&self, items: Range<usize>, scratch: &mut Scratch) {
        // SAFETY: the list orders these reads after the sources' writes; nothing is stored.
        unsafe { Storing::new(&self.0) }.inspect(items, scratch);
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
        self.0.cost()
    }

    fn scratch_bytes(&self) -> usize {
        self.0.scratch_bytes()
    }

    unsafe fn run(&self, items: Range<usize>, scratch: &mut Scratch) {
        // SAFETY: the list orders the accesses, and each token and head is one item.
        unsafe { Storing::new(&self.0) }.encode(items, scratch);
    }
}
