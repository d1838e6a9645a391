//! Attention over the codes of a KV cache, read where they lie.
//!
//! Queries are rotated once into the space of the keys, scores and sums are taken there, and one inverse rotation per
//! head ends it. A tile of codes is decoded to a worker's scratch, never to memory.

#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "no other set has products of bytes here")
)]
mod coded;
mod dense;
mod direct;
mod job;
mod kernels;
mod output;
mod queries;
mod tile;
mod walk;

use std::ops::Range;
use std::sync::Arc;

use walsh_core::ops::{AttentionDecode, AttentionPrefill, Mask, Operation};
use walsh_core::{
    Accesses, Buffer, CacheKind, Error, KvCache, KvRows, KvSide, Plan, Result, Tensor,
};
use walsh_formats::DType;
use walsh_formats::kv::{KvCodec, RowCodec};

use self::coded::Coded;
use self::job::{Fresh, Job, OverlayMap, Shape, Side, Stored};
use self::tile::Decoder;
use crate::lower::{Lowering, Target, whole};
use crate::memory::{View, address};
use crate::positions;
use crate::team::{Phase, Scratch};

/// What both forms of attention are lowered from.
struct Request<'a> {
    op: &'static str,
    query: &'a Tensor,
    /// The chunk's own keys and values.
    fresh: Option<(&'a Tensor, &'a Tensor)>,
    cache: &'a KvCache,
    positions: &'a Tensor,
    sequences: Option<&'a Tensor>,
    mask: Mask,
    sinks: Option<&'a Tensor>,
    output: &'a Tensor,
}

impl<'a> From<&'a AttentionDecode> for Request<'a> {
    fn from(op: &'a AttentionDecode) -> Self {
        Self {
            op: AttentionDecode::NAME,
            query: &op.query,
            fresh: None,
            cache: &op.cache,
            positions: &op.positions,
            sequences: op.sequences.as_ref(),
            mask: op.mask,
            sinks: op.sinks.as_ref(),
            output: &op.output,
        }
    }
}

impl<'a> From<&'a AttentionPrefill> for Request<'a> {
    fn from(op: &'a AttentionPrefill) -> Self {
        Self {
            op: AttentionPrefill::NAME,
            query: &op.query,
            fresh: Some((&op.keys, &op.values)),
            cache: &op.cache,
            positions: &op.positions,
            sequences: op.sequences.as_ref(),
            mask: op.mask,
            sinks: op.sinks.as_ref(),
            output: &op.output,
        }
    }
}

impl Request<'_> {
    fn shape(&self) -> Result<Shape> {
        let shape = Shape {
            tokens: self.query.shape()[0] as usize,
            heads: self.query.shape()[1] as usize,
            kv_heads: self.cache.kv_heads() as usize,
            head_dim: self.cache.head_dim() as usize,
            capacity: self.cache.capacity() as usize,
        };
        // A codec has checked the size; what is rotated is so by whole vectors.
        let rotated = |side: &KvSide| side.rows.codec.rotation().is_some();
        if shape.head_dim != shape.width()
            && (rotated(self.cache.key()) || rotated(self.cache.value()))
        {
            return Err(Error::Unsupported {
                op: self.op,
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
    fn parts(&self, shape: &Shape, target: Target) -> usize {
        if self.fresh.is_some() {
            1
        } else {
            shape.parts(target.threads)
        }
    }

    fn plan(&self, form: &str, target: Target) -> Result<Plan> {
        let shape = self.shape()?;
        let parts = self.parts(&shape, target);
        let form_of_codes = match self.coded(target) {
            Some(_) => ".int8",
            None => "",
        };
        Ok(Plan {
            kernel: format!(
                "attention_{form}.{}.{}{form_of_codes}",
                self.cache.codecs(),
                target.isa
            ),
            pieces: (shape.items() * parts) as u64,
            workspace: (shape.partials(parts) * size_of::<f32>()) as u64,
        })
    }

    /// The codes as integers, where the device attends so.
    fn coded(&self, target: Target) -> Option<Coded> {
        let codec = |side: &'_ KvSide| side.rows.codec.clone();
        Coded::of(&codec(self.cache.key()), &codec(self.cache.value()), target)
    }

    fn lower(&self, accesses: Accesses, lowering: &mut Lowering) -> Result<()> {
        let shape = self.shape()?;
        let parts = self.parts(&shape, lowering.target());
        let tokens = positions::Tokens {
            op: self.op,
            positions: self.positions,
            sequences: self.sequences,
            most: self
                .fresh
                .is_none()
                .then(|| self.cache.decode_tokens())
                .flatten(),
        };
        let checked = positions::checked(&tokens, self.cache, lowering)?;
        let bytes = (shape.partials(parts) * size_of::<f32>()) as u64;
        let workspace = (parts > 1).then(|| lowering.workspace(bytes)).transpose()?;
        let fresh = self.fresh.map(|(keys, values)| -> Result<Fresh> {
            Ok(Fresh {
                keys: View::<f32>::of(keys)?.base(),
                values: View::<f32>::of(values)?.base(),
            })
        });
        let partials = match &workspace {
            Some(buffer) => address(buffer, 0)?.cast(),
            None => std::ptr::null_mut(),
        };
        let job = Job {
            isa: lowering.target().isa,
            shape,
            scale: self.mask.scale,
            window: self
                .mask
                .window
                .map_or(usize::MAX, |window| window as usize),
            softcap: self.mask.softcap.unwrap_or(0.0),
            ring: self.cache.kind() == CacheKind::Ring,
            key: side(self.cache.key())?,
            value: side(self.cache.value())?,
            overlay: overlay(self.cache),
            equaliser: numbers(self.cache.preparation().equaliser.as_ref())?,
            center: numbers(self.cache.preparation().center.as_ref())?,
            fresh: fresh.transpose()?,
            query: View::<f32>::of(self.query)?.base(),
            positions: View::<i32>::of(self.positions)?.base(),
            sequences: match self.sequences {
                Some(sequences) => View::<i32>::of(sequences)?.base(),
                None => std::ptr::null(),
            },
            sinks: numbers(self.sinks)?,
            output: View::<f32>::of(self.output)?.base(),
            coded: self.coded(lowering.target()),
            parts,
            partials,
            plain: Decoder::new(RowCodec::new(KvCodec::Dense(DType::F32), shape.head_dim)?),
        };
        let mut alive: Vec<Buffer> = accesses
            .reads
            .iter()
            .chain(&accesses.writes)
            .map(|span| span.buffer.clone())
            .collect();
        alive.extend(workspace.clone());
        let job = Arc::new(Shared { job, _alive: alive });
        let mut attend = accesses;
        attend.read(whole(&checked));
        let Some(workspace) = workspace else {
            lowering.phase(&attend, Attend(job));
            return Ok(());
        };
        let writes = std::mem::replace(&mut attend.writes, vec![whole(&workspace)]);
        lowering.phase(&attend, Attend(job.clone()));
        let merge = Accesses {
            reads: vec![whole(&workspace)],
            writes,
        };
        lowering.phase(&merge, Merge(job));
        lowering.release(workspace);
        Ok(())
    }
}

/// The numbers of a tensor that may be absent.
fn numbers(tensor: Option<&Tensor>) -> Result<*const f32> {
    match tensor {
        Some(tensor) => Ok(View::<f32>::of(tensor)?.base()),
        None => Ok(std::ptr::null()),
    }
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
    let scales = match &rows.scales {
        Some(scales) => address(scales.buffer(), scales.offset())?,
        None => std::ptr::null_mut(),
    };
    Ok(Stored {
        decoder: Decoder::new(rows.codec.clone()),
        codes: address(rows.codes.buffer(), rows.codes.offset())?,
        scales,
        slots: rows.codes.shape()[1] as usize,
    })
}

/// A job with the memory that its pointers are into.
struct Shared {
    job: Job,
    _alive: Vec<Buffer>,
}

/// Attends: the whole of it, or the parts.
struct Attend(Arc<Shared>);

/// Merges the parts.
struct Merge(Arc<Shared>);

impl Phase for Attend {
    fn items(&self) -> usize {
        self.0.job.items()
    }

    fn cost(&self) -> u64 {
        self.0.job.cost()
    }

    fn scratch_bytes(&self) -> usize {
        self.0.job.scratch() * size_of::<f32>()
    }

    unsafe fn run(&self, items: Range<usize>, scratch: &mut Scratch) {
        let scratch = scratch.floats(self.0.job.scratch());
        for item in items {
            // SAFETY: the device has the set, the tensors were validated, and the list orders their accesses.
            unsafe { self.0.job.run(item, scratch) };
        }
    }
}

impl Phase for Merge {
    fn items(&self) -> usize {
        self.0.job.shape.tokens * self.0.job.shape.heads
    }

    fn grain(&self) -> usize {
        4
    }

    fn cost(&self) -> u64 {
        self.0.job.merge_cost()
    }

    fn scratch_bytes(&self) -> usize {
        self.0.job.shape.width() * size_of::<f32>()
    }

    unsafe fn run(&self, items: Range<usize>, scratch: &mut Scratch) {
        let scratch = scratch.floats(self.0.job.shape.width());
        for vector in items {
            // SAFETY: as above, and the list puts this behind the parts.
            unsafe { self.0.job.merge(vector, scratch) };
        }
    }
}

pub(crate) fn plan_decode(op: &AttentionDecode, target: Target) -> Result<Plan> {
    Request::from(op).plan("decode", target)
}

pub(crate) fn plan_prefill(op: &AttentionPrefill, target: Target) -> Result<Plan> {
    Request::from(op).plan("prefill", target)
}

pub(crate) fn lower_decode(op: &AttentionDecode, lowering: &mut Lowering) -> Result<()> {
    Request::from(op).lower(op.accesses(), lowering)
}

pub(crate) fn lower_prefill(op: &AttentionPrefill, lowering: &mut Lowering) -> Result<()> {
    Request::from(op).lower(op.accesses(), lowering)
}
