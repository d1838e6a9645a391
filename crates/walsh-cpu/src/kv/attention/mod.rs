//! Attention over the codes of a KV cache, read where they lie.
//!
//! Queries are rotated once into the space of the keys, scores and sums are taken there, and one inverse rotation per
//! head ends it. A tile of codes is decoded to a worker's scratch, never to memory.

mod direct;
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "no other set has products of bytes here")
)]
mod int8;
mod job;
mod kernels;
mod output;
mod queries;
mod scratch;
mod shape;
mod walk;
mod zones;

use std::ops::Range;
use std::sync::Arc;

use walsh_core::ops::{Attention, Operation};
use walsh_core::{Accesses, Buffer, CacheKind, Error, KvCache, KvRows, KvSide, Result};
use walsh_formats::DType;
use walsh_formats::kv::{KvCodec, RowCodec};

use self::int8::Int8;
use self::job::{Fresh, Job, OverlayMap, Run, Side, Stored};
use self::shape::Shape;
use crate::kv::codec::Decoder;
use crate::kv::pages::Pages;
use crate::kv::positions;
use crate::lowering::Lowering;
use crate::memory::View;
use crate::target::Target;
use crate::team::{Phase, Scratch};

/// The sizes of an op, where there are kernels for them.
fn shape_of(op: &Attention) -> Result<Shape> {
    let shape = Shape {
        tokens: op.query.shape()[0] as usize,
        heads: op.query.shape()[1] as usize,
        kv_heads: op.cache.kv_heads() as usize,
        head_dim: op.cache.head_dim() as usize,
        capacity: op.cache.capacity() as usize,
    };
    // A codec has checked the size; what is rotated is so by whole vectors.
    let rotated = |side: &KvSide| side.rows.codec.rotation().is_some();
    if shape.head_dim != shape.width() && (rotated(op.cache.key()) || rotated(op.cache.value())) {
        return Err(Error::Unsupported {
            op: Attention::NAME,
            backend: "cpu",
            why: format!(
                "a rotated head of {} numbers, which are no multiple of 16",
                shape.head_dim
            ),
        });
    }
    Ok(shape)
}

/// How many parts the context is cut into: one when the chunk's own rows are part of it.
fn parts_of(op: &Attention, shape: &Shape, target: Target) -> usize {
    match op.fresh {
        Some(_) => 1,
        None => shape.parts(target.threads, op.sequences.is_some()),
    }
}

/// The codes as integers, where the device attends so.
fn int8(op: &Attention, target: Target) -> Option<Int8> {
    let codec = |side: &KvSide| side.rows.codec.clone();
    Int8::of(&codec(op.cache.key()), &codec(op.cache.value()), target)
}

/// What runs for it, for people.
fn name(op: &Attention, job: &Job, target: Target) -> String {
    let form = match op.fresh {
        Some(_) => "prefill",
        None => "decode",
    };
    let codes = match job.int8 {
        Some(_) => ".int8",
        None => "",
    };
    let (codecs, isa) = (op.cache.codecs(), target.isa);
    format!("attention_{form}.{codecs}.{isa}{codes}")
}

/// Adds the phases of attention.
pub(crate) fn lower(op: &Attention, lowering: &mut Lowering) -> Result<()> {
    let shape = shape_of(op)?;
    let parts = parts_of(op, &shape, lowering.target());
    let tokens = positions::Tokens {
        op: Attention::NAME,
        positions: &op.positions,
        sequences: op.sequences.as_ref(),
        limits: op.token_limits(),
    };
    let checked = positions::checked(&tokens, op.cache.table(), lowering)?;
    let bytes = (shape.partials(parts) * size_of::<f32>()) as u64;
    let workspace = (parts > 1).then(|| lowering.workspace(bytes)).transpose()?;
    let job = job(op, (shape, parts), workspace.as_ref(), lowering.target())?;
    lowering.kernel(name(op, &job, lowering.target()));
    let job = Arc::new(job);
    let mut attend = op.accesses();
    attend.read(checked.span());
    let Some(workspace) = workspace else {
        lowering.phase(&attend, Attend(job));
        return Ok(());
    };
    let merge = Accesses {
        reads: vec![workspace.span()],
        writes: attend.writes.clone(),
    };
    // A context that is short when the op runs is one part: its output is written at once, and not merged.
    attend.write(workspace.span());
    lowering.phase(&attend, Attend(job.clone()));
    lowering.phase(&merge, Merge(job));
    lowering.release(workspace);
    Ok(())
}

/// The job of an op in so many parts, whose partial results are in workspace where they are several.
fn job(
    op: &Attention,
    (shape, parts): (Shape, usize),
    workspace: Option<&Buffer>,
    target: Target,
) -> Result<Job> {
    let fresh = op.fresh.as_ref().map(|fresh| -> Result<Fresh> {
        Ok(Fresh {
            keys: View::of(&fresh.keys)?,
            values: View::of(&fresh.values)?,
        })
    });
    Ok(Job {
        set: target.token(),
        scale: op.mask.scale,
        window: op.mask.window.map_or(usize::MAX, |window| window as usize),
        softcap: op.mask.softcap.unwrap_or(0.0),
        ring: op.cache.kind() == CacheKind::Ring,
        pages: Pages::of(&op.cache)?,
        key: side(op.cache.key())?,
        value: side(op.cache.value())?,
        overlay: overlay(&op.cache),
        equaliser: op
            .cache
            .preparation()
            .equaliser
            .as_ref()
            .map(View::of)
            .transpose()?,
        center: op
            .cache
            .preparation()
            .center
            .as_ref()
            .map(View::of)
            .transpose()?,
        fresh: fresh.transpose()?,
        query: View::of(&op.query)?,
        positions: View::of(&op.positions)?,
        sequences: op.sequences.as_ref().map(View::of).transpose()?,
        sinks: op.sinks.as_ref().map(View::of).transpose()?,
        output: View::of(&op.output)?,
        int8: int8(op, target),
        parts,
        partials: workspace
            .map(|buffer| View::of_span(&buffer.span()))
            .transpose()?,
        plain: Decoder::new(RowCodec::new(KvCodec::Dense(DType::F32), shape.head_dim)?),
        shape,
    })
}

fn overlay(cache: &KvCache) -> OverlayMap {
    cache
        .overlay()
        .map_or(OverlayMap::default(), |overlay| OverlayMap {
            first: overlay.tokens.first as usize,
            recent: overlay.tokens.recent as usize,
            ring: overlay.ring() as usize,
        })
}

fn side(side: &KvSide) -> Result<Side> {
    Ok(Side {
        stored: stored(&side.rows)?,
        overlay: side.overlay.as_ref().map(stored).transpose()?,
    })
}

fn stored(rows: &KvRows) -> Result<Stored> {
    Ok(Stored {
        decoder: Decoder::new(rows.codec.clone()),
        codes: View::of(&rows.codes)?,
        scales: rows.scales.as_ref().map(View::of).transpose()?,
        slots: rows.codes.shape()[1] as usize,
    })
}

/// Attends: the whole of it, or the parts.
struct Attend(Arc<Job>);

/// Merges the parts.
struct Merge(Arc<Job>);

impl Phase for Attend {
    fn items(&self) -> usize {
        self.0.items()
    }

    fn cost(&self) -> u64 {
        self.0.cost()
    }

    fn scratch_bytes(&self) -> usize {
        self.0.scratch() * size_of::<f32>()
    }

    unsafe fn run(&self, items: Range<usize>, scratch: &mut Scratch) {
        let scratch = scratch.floats(self.0.scratch());
        // SAFETY: the list orders the op's accesses; items are blocks and parts of their own, and a part has workspace of
        // its own.
        let run = unsafe { Run::new(&self.0) };
        for item in items {
            run.attend(item, scratch);
        }
    }
}

impl Phase for Merge {
    fn items(&self) -> usize {
        self.0.shape.tokens * self.0.shape.heads
    }

    fn grain(&self) -> usize {
        4
    }

    fn cost(&self) -> u64 {
        self.0.merge_cost()
    }

    fn scratch_bytes(&self) -> usize {
        self.0.shape.width() * size_of::<f32>()
    }

    unsafe fn run(&self, items: Range<usize>, scratch: &mut Scratch) {
        let scratch = scratch.floats(self.0.shape.width());
        // SAFETY: the list puts this behind the parts, and an item is a vector of its own.
        let run = unsafe { Run::new(&self.0) };
        for vector in items {
            run.merge(vector, scratch);
        }
    }
}
