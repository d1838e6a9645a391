//! The pages of all layers, and whose they are.

use std::ops::Range;

use walsh::formats::kv::RowCodec;
use walsh::{DType, Device, KeyPreparation, KvCodec, KvTensors, LayerKv, Tensor};

use super::group::{PAGE, PageCopy, PageGroup};
use super::layers::{GroupSize, Layers};
use crate::{Model, Result, SessionOptions};

/// Layers that see equally far back share page numbers.
pub(crate) struct Group {
    pub(crate) pages: PageGroup,
    /// The layers, in ascending order.
    layers: Vec<usize>,
}

impl Group {
    pub(crate) fn new(pages: PageGroup, layers: Vec<usize>) -> Self {
        Self { pages, layers }
    }
}

/// Pages of all layers, for any number of texts.
pub(crate) struct Pool {
    model: Model,
    options: SessionOptions,
    specs: Vec<LayerKv>,
    pub(crate) groups: Vec<Group>,
    /// Of each layer that has a cache.
    rows: Vec<Option<PageRows>>,
    /// What keys are prepared with.
    preparations: Vec<KeyPreparation>,
}

/// The pages of a layer.
pub(super) struct PageRows {
    pub(super) pages: usize,
    /// Those of keys and of values: `[kv_heads, pages · 64, …]`.
    pub(super) sides: [KvTensors; 2],
}

impl Pool {
    /// Empty pages, as many of each group as `pages` says, for texts in so many slots; options have the defaults filled in.
    pub(crate) fn new(
        (model, options): (&Model, &SessionOptions),
        slots: usize,
        pages: &dyn Fn(usize, &GroupSize) -> usize,
    ) -> Result<Self> {
        let specs = model.layer_specs(&options.kv)?;
        let config = model.config();
        let calibration = specs.iter().any(LayerKv::needs_calibration);
        let calibration = calibration.then(|| model.calibration()).transpose()?;
        let mut preparations = vec![KeyPreparation::default(); config.layers.len()];
        for index in config.cached_layers() {
            let spec = &specs[index];
            if let Some(found) = calibration.filter(|_| spec.needs_calibration()) {
                let (layer, moments) = (&config.layers[index], &found.layers[index]);
                preparations[index] = moments.preparation(model.device(), layer, spec)?;
            }
        }
        let mut pool = Self {
            model: model.clone(),
            options: options.clone(),
            specs,
            groups: Vec::new(),
            rows: config.layers.iter().map(|_| None).collect(),
            preparations,
        };
        for (index, size) in pool.layers().groups()?.iter().enumerate() {
            let count = pages(index, size);
            let layers = config.cached_layers();
            let is_of = |layer: &usize| pool.layers().window(&config.layers[*layer]) == size.window;
            let layers: Vec<usize> = layers.filter(is_of).collect();
            for layer in &layers {
                pool.rows[*layer] = Some(pool.empty(*layer, count)?);
            }
            let shape = (slots, options.context);
            let group = PageGroup::new(size.window, shape, count);
            pool.groups.push(Group::new(group, layers));
        }
        Ok(pool)
    }

    /// How layers are kept.
    pub(super) fn layers(&self) -> Layers<'_> {
        Layers {
            model: &self.model,
            specs: &self.specs,
            options: &self.options,
        }
    }

    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    pub(crate) fn device(&self) -> &Device {
        self.model.device()
    }

    /// How many entries a row of a page table has.
    pub(super) fn entries(&self) -> usize {
        self.options.context.div_ceil(PAGE)
    }

    /// The group of a layer that has pages.
    pub(crate) fn group_of(&self, layer: usize) -> Option<usize> {
        let has = |group: &Group| group.layers.contains(&layer);
        self.groups.iter().position(has)
    }

    /// The pages of a layer that has some.
    pub(super) fn rows(&self, layer: usize) -> Option<&PageRows> {
        self.rows[layer].as_ref()
    }

    /// What a layer's keys are prepared with.
    pub(crate) fn preparation(&self, layer: usize) -> &KeyPreparation {
        &self.preparations[layer]
    }

    /// The layers of a group.
    pub(crate) fn layers_of(&self, group: usize) -> &[usize] {
        &self.groups[group].layers
    }

    fn empty(&self, layer: usize, pages: usize) -> Result<PageRows> {
        let config = &self.model.config().layers[layer];
        let shape = [config.kv_heads as u64, (pages * PAGE) as u64];
        let codecs = self.specs[layer].codecs;
        let side = |codec| empty(self.device(), (codec, config.head_dim), shape);
        Ok(PageRows {
            pages,
            sides: [side(codecs.key)?, side(codecs.value)?],
        })
    }

    /// Copies the first positions of a page to another of the same group.
    pub(crate) fn copy_page(&self, group: usize, page: PageCopy) -> Result<()> {
        for layer in self.layers_of(group) {
            for slots in self.slots_of(*layer)? {
                let of = |number: i32| {
                    let first = number as u64 * PAGE as u64;
                    slots.rows(first..first + page.positions as u64)
                };
                self.device().copy(&of(page.from)?, &of(page.to)?)?;
            }
        }
        Ok(())
    }

    /// The pages of a layer: of each KV head's codes, or scales, `[slots, width]`, in an order that does not change: keys
    /// before values, codes before scales, head by head.
    pub(crate) fn slots_of(&self, layer: usize) -> Result<Vec<Tensor>> {
        self.rows[layer].as_ref().map_or(Ok(Vec::new()), slots)
    }

    /// What a slot has at some positions; the pages are there.
    pub(crate) fn stored(&self, slot: usize, positions: &Range<usize>) -> Result<Vec<Tensor>> {
        let mut pieces = Vec::new();
        for (index, group) in self.groups.iter().enumerate() {
            let rows = group.pages.rows_of(slot, positions);
            for layer in self.layers_of(index) {
                for slots in self.slots_of(*layer)? {
                    for rows in &rows {
                        pieces.push(slots.rows(rows.clone())?);
                    }
                }
            }
        }
        Ok(pieces)
    }

    /// What pages of each group hold up to a position; with each page its entry of a row.
    pub(crate) fn pieces(&self, pages: &[Vec<(usize, i32)>], end: usize) -> Result<Vec<Tensor>> {
        let mut pieces = Vec::new();
        for (index, pages) in pages.iter().enumerate() {
            for layer in self.layers_of(index) {
                for slots in self.slots_of(*layer)? {
                    for (entry, page) in pages {
                        let rows = end.min((entry + 1) * PAGE).saturating_sub(entry * PAGE);
                        let at = *page as u64 * PAGE as u64;
                        pieces.push(slots.rows(at..at + rows as u64)?);
                    }
                }
            }
        }
        Ok(pieces)
    }

    /// Gives a layer so many pages in other memory, with what lies in those of `moves`: from where, and where to. Where it
    /// fails, the layer is as it was.
    pub(crate) fn lay_out(
        &mut self,
        layer: usize,
        pages: usize,
        moves: &[(i32, i32)],
    ) -> Result<()> {
        let after = self.empty(layer, pages)?;
        let alongside = |a: &(i32, i32), b: &(i32, i32)| b.0 - a.0 == 1 && b.1 - a.1 == 1;
        for (before, after) in self.slots_of(layer)?.iter().zip(&slots(&after)?) {
            for run in moves.chunk_by(alongside) {
                let Some((from, to)) = run.first() else {
                    continue;
                };
                let of = |tensor: &Tensor, page: i32| {
                    let first = page as u64 * PAGE as u64;
                    tensor.rows(first..first + (run.len() * PAGE) as u64)
                };
                self.device().copy(&of(before, *from)?, &of(after, *to)?)?;
            }
        }
        self.rows[layer] = Some(after);
        Ok(())
    }
}

/// Memory for rows of a codec: of so many heads, each with so many slots.
pub(super) fn empty(
    device: &Device,
    (codec, head_dim): (KvCodec, usize),
    [heads, slots]: [u64; 2],
) -> Result<KvTensors> {
    let codec = RowCodec::new(codec, head_dim).map_err(walsh::Error::from)?;
    let shape = |last: usize| [heads, slots, last as u64];
    let scales = codec.scale_dtype();
    let scales = scales.map(|dtype| device.zeros(dtype, &shape(codec.groups())));
    Ok(KvTensors {
        codes: device.zeros(DType::U8, &shape(codec.code_bytes()))?,
        scales: scales.transpose()?,
    })
}

fn slots(rows: &PageRows) -> Result<Vec<Tensor>> {
    let tensors = |side: &'_ KvTensors| [Some(side.codes.clone()), side.scales.clone()];
    let tensors = rows.sides.iter().flat_map(tensors).flatten();
    heads(tensors)
}

/// The rows of each head of tensors `[heads, slots, width]`, one by one.
pub(crate) fn heads(tensors: impl Iterator<Item = Tensor>) -> Result<Vec<Tensor>> {
    let mut all = Vec::new();
    for tensor in tensors {
        let [heads, slots, width] = [0, 1, 2].map(|dim| tensor.shape()[dim]);
        for head in 0..heads {
            all.push(tensor.rows(head..head + 1)?.reshape(&[slots, width])?);
        }
    }
    Ok(all)
}
