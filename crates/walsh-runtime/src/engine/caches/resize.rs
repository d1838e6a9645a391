//! Caches of another size in the place of those that are there, with all that is in use.

use walsh::{Device, Tensor};

use super::super::options::EngineOptions;
use super::super::pages::PAGE;
use super::layers::Layers;
use super::{Caches, Plan, overlays_of_layer, slots_of_layer};
use crate::model::memory::LayerMemory;
use crate::{Model, Result};

/// Where things are, and where they go.
#[derive(Debug, Default)]
pub(in crate::engine) struct Moves {
    /// Of each group, the pages that are in use.
    pub(in crate::engine) pages: Vec<Vec<(i32, i32)>>,
    /// The copies of overlays that are in use.
    pub(in crate::engine) copies: Vec<(usize, usize)>,
}

impl Caches {
    /// Lays all out anew by a plan, a layer at a time, so that one is there twice at most. Page groups know of the new
    /// places already. Where it fails, the caches are of no use any more.
    pub(in crate::engine) fn resize(
        &mut self,
        (model, options): (&Model, &EngineOptions),
        plan: &Plan,
        moves: &Moves,
    ) -> Result<()> {
        let specs = model.layer_specs(&options.kv)?;
        let layers = Layers {
            model,
            specs: &specs,
            options,
        };
        let device = model.device();
        let sequences = self.slots + plan.copies.unwrap_or(0);
        for group in &mut self.groups {
            group.table = layers.table(sequences)?;
        }
        let slots = (0..self.slots).map(|slot| (slot, slot));
        let copies = moves
            .copies
            .iter()
            .map(|(from, to)| (self.slots + from, self.slots + to));
        let overlays: Vec<(usize, usize)> = slots.chain(copies).collect();
        for index in 0..self.layers.len() {
            let of = |group: &super::Group| group.layers.contains(&index);
            let group = self.groups.iter().position(of);
            let pages = group.map(|group| (plan.pages[group], &self.groups[group].table));
            let before = &self.layers[index];
            let preparation = before.cache().map(|cache| cache.preparation().clone());
            let preparation =
                preparation.filter(|found| found.equaliser.is_some() || found.center.is_some());
            let after = layers.memory(index, (sequences, pages), preparation)?;
            if let Some(group) = group {
                copy_pages(device, (before, &after), &moves.pages[group])?;
            }
            for (from, to) in &overlays {
                let from = overlays_of_layer(before, *from)?;
                for (from, to) in from.iter().zip(overlays_of_layer(&after, *to)?) {
                    device.copy(from, &to)?;
                }
            }
            self.layers[index] = after;
        }
        self.copies = plan.copies;
        Ok(())
    }
}

/// Copies pages of a layer to other places, those that stay side by side at once.
fn copy_pages(
    device: &Device,
    (before, after): (&LayerMemory, &LayerMemory),
    moves: &[(i32, i32)],
) -> Result<()> {
    let rows = |tensor: &Tensor, page: i32, count: usize| {
        let first = page as u64 * PAGE as u64;
        tensor.rows(first..first + (count * PAGE) as u64)
    };
    let (before, after) = (slots_of_layer(before)?, slots_of_layer(after)?);
    let alongside = |a: &(i32, i32), b: &(i32, i32)| b.0 - a.0 == 1 && b.1 - a.1 == 1;
    for run in moves.chunk_by(alongside) {
        let Some((from, to)) = run.first() else {
            continue;
        };
        for (before, after) in before.iter().zip(&after) {
            let (from, to) = (
                rows(before, *from, run.len())?,
                rows(after, *to, run.len())?,
            );
            device.copy(&from, &to)?;
        }
    }
    Ok(())
}
