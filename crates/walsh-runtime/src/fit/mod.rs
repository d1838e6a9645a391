//! Budgets that are fitted to a model: bits go to the layers whose keys or values can spare them least.
//!
//! How sensitive a side of a layer is, is measured: the KL divergence of the model's next-token distribution from that with
//! an unquantised cache when this side alone is kept in 2 bits, on a built-in text. What follows from it for a budget is
//! arithmetic, and a SPEC with `layers=`.

mod allot;
mod file;
mod measure;
mod stats;

use std::ops::RangeInclusive;
use std::path::Path;

use walsh::formats::kv::{Budget, Tq};
use walsh::{KvCodec, KvCodecs, KvSpec};

use crate::{Error, Model, Result};
use allot::{WIDTHS, allot};
pub use measure::{FitOptions, fit};
pub use stats::{LayerStats, SideStats, stored_stats};

/// What a layer's keys and values cost when they alone have 2 bits: mean KL divergence in nats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sensitivity {
    /// Of the keys.
    pub keys: f64,
    /// Of the values.
    pub values: f64,
}

/// What fitting finds about a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// How many tokens were read.
    pub tokens: usize,
    /// The layers.
    pub layers: Vec<Sensitivity>,
}

impl Fit {
    /// The bits per value that codecs of a fit can have on average.
    pub const BITS: RangeInclusive<f64> =
        WIDTHS[0].get() as f64..=WIDTHS[WIDTHS.len() - 1].get() as f64;

    /// Whether a budget can be fitted.
    pub fn has(budget: Budget) -> bool {
        Self::BITS.contains(&budget.bits())
    }

    /// Why a model cannot be fitted, if it cannot.
    #[must_use]
    pub fn why_not(model: &Model) -> Option<&'static str> {
        let config = model.config();
        if config.recurrent.is_some() {
            return Some(
                "layers that keep a state have no keys and values to be fitted: give the model's others a SPEC",
            );
        }
        (!config.has_alike_heads()).then_some(
            "a model whose layers have keys and values of unlike sizes, or share them, cannot be fitted yet: give it a SPEC",
        )
    }

    /// The fit that was kept for a model in a folder, if there is one.
    pub(crate) fn load(model: &Model, folder: &Path) -> Result<Option<Self>> {
        file::load(model, folder)
    }

    /// The fit that comes with Walsh for a model, if it is one of the catalogue.
    pub(crate) fn shipped(model: &Model) -> Result<Option<Self>> {
        file::shipped(model)
    }

    /// How each layer is kept in so many bits per value, on average over all layers and sides and scales not counted.
    ///
    /// # Errors
    /// When no codecs of a fit have so many on average: fewer than 2, or more than 6.
    pub fn codecs(&self, bits: f64) -> Result<Vec<KvCodecs>> {
        if !Self::BITS.contains(&bits) {
            let (least, most) = (Self::BITS.start(), Self::BITS.end());
            let range = format_args!("from {least} to {most} bits per value");
            return Err(Error::option("a fitted budget", range, bits));
        }
        let sides = self
            .layers
            .iter()
            .flat_map(|layer| [layer.keys, layer.values]);
        let widths = allot(&sides.collect::<Vec<_>>(), bits);
        let codec = |bits| KvCodec::Tq(Tq::new(bits));
        let layers = widths.as_chunks().0.iter().map(|[key, value]| KvCodecs {
            key: codec(*key),
            value: codec(*value),
        });
        Ok(layers.collect())
    }

    /// The SPEC of these [codecs](Self::codecs), each layer with the policy that goes with them.
    ///
    /// # Errors
    /// As [`codecs`](Self::codecs).
    pub fn spec(&self, bits: f64) -> Result<KvSpec> {
        KvSpec::of_layers(&self.codecs(bits)?)
            .ok_or_else(|| Error::measure("a model without layers has no budget to fit"))
    }
}
