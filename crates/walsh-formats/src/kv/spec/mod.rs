//! SPECs: what users write to say how a model's KV cache is kept.

mod budget;
mod parse;
#[cfg(test)]
mod tests;

use std::fmt;

pub use budget::Budget;

use super::{KvCodec, KvCodecs, KvError, Tq, TqBits};
use crate::DType;

/// Tokens that are also kept in a denser codec and read from there: the first ones, which much attention sinks into,
/// and the most recent ones.
///
/// A side (keys or values) whose own codec has as many bits is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Overlay {
    /// How many tokens from the start.
    pub first: u32,
    /// How many of the most recent ones, the query's own included.
    pub recent: u32,
    /// How they are kept, rotated as the side's own codec is. `None` for `q8_0`, or `tq8` where the head size is no
    /// multiple of 32.
    pub codec: Option<KvCodec>,
}

impl Overlay {
    /// What goes with a codebook codec of fewer than 8 bits.
    pub const STANDARD: Self = Self {
        first: 4,
        recent: 32,
        codec: None,
    };

    /// How a side of the cache keeps these tokens; `None` when its own codec has as many bits.
    pub fn side(&self, codec: KvCodec, head_dim: usize) -> Option<KvCodec> {
        let kept = self
            .codec
            .unwrap_or(if head_dim.is_multiple_of(DType::Q8_0.block_len()) {
                KvCodec::Dense(DType::Q8_0)
            } else {
                KvCodec::Tq(Tq::new(TqBits::B8))
            })
            .with_rotation(codec.rotates());
        (kept.code_bits() > codec.code_bits()).then_some(kept)
    }
}

/// How one layer's cache is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LayerKv {
    /// The codecs.
    pub codecs: KvCodecs,
    /// Whether keys are divided, and queries multiplied, by a factor per channel that evens out the channels' share in
    /// the scores.
    pub equalise: bool,
    /// Whether keys are stored less their mean.
    pub center: bool,
    /// Which tokens are also kept more exactly.
    pub overlay: Option<Overlay>,
}

impl LayerKv {
    /// The codecs with the policy that goes with them: codebook keys of fewer than 8 bits are equalised and centred, and
    /// where a side has a codebook codec of fewer than 8 bits there is an overlay. All others are plain. A
    /// codec counts as one of a codebook that is no GGML type.
    pub fn standard(codecs: KvCodecs) -> Self {
        let coarse = |codec: KvCodec| codec.turns() && codec.code_bits() < TqBits::B8.get();
        let prepared = coarse(codecs.key) && codecs.key.rotates();
        Self {
            codecs,
            equalise: prepared,
            center: prepared,
            overlay: (coarse(codecs.key) || coarse(codecs.value)).then_some(Overlay::STANDARD),
        }
    }

    /// The codecs and nothing else.
    pub const fn plain(codecs: KvCodecs) -> Self {
        Self {
            codecs,
            equalise: false,
            center: false,
            overlay: None,
        }
    }

    /// Whether keys are prepared with what a calibration finds.
    pub const fn needs_calibration(&self) -> bool {
        self.equalise || self.center
    }

    /// What it means at a head size, in words.
    pub fn describe(&self, head_dim: usize) -> String {
        let KvCodecs { key, value } = self.codecs;
        let mut words = if key == value {
            vec![format!("keys and values in {key}")]
        } else {
            vec![format!("keys in {key}, values in {value}")]
        };
        match (self.equalise, self.center) {
            (true, true) => words.push("keys equalised and centred".to_owned()),
            (true, false) => words.push("keys equalised".to_owned()),
            (false, true) => words.push("keys centred".to_owned()),
            (false, false) => {}
        }
        if let Some(overlay) = self.overlay {
            let Overlay { first, recent, .. } = overlay;
            let kept = [("keys", key), ("values", value)]
                .into_iter()
                .filter_map(|(side, codec)| Some((side, overlay.side(codec, head_dim)?)))
                .collect::<Vec<_>>();
            let of = match kept.as_slice() {
                [(_, a), (_, b)] if a == b => format!("in {a}"),
                sides => sides
                    .iter()
                    .map(|(side, codec)| format!("{side} in {codec}"))
                    .collect::<Vec<_>>()
                    .join(", "),
            };
            words.push(format!(
                "first {first} and recent {recent} tokens also {of}"
            ));
        }
        words.join("; ")
    }
}

/// Layers from `first` to `last`, both included; negative numbers count from the end, −1 being the last layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LayerRange {
    /// The first layer.
    pub first: i32,
    /// The last layer.
    pub last: i32,
}

impl LayerRange {
    /// The ranges of layers that are given in ascending order.
    fn of(layers: &[i32]) -> Vec<Self> {
        let runs = layers.chunk_by(|layer, next| layer + 1 == *next);
        runs.filter_map(|run| {
            let (&first, &last) = (run.first()?, run.last()?);
            Some(Self { first, last })
        })
        .collect()
    }
}

/// How a model's KV cache is kept: a policy for all layers, and the layers that differ.
///
/// The text form, a SPEC, is a codec, a pair or a [`Budget`], and settings behind semicolons:
///
/// ```
/// use walsh_formats::kv::KvSpec;
/// for spec in [
///     "4bit",                                    // the best that 4 bits per value give
///     "tq4",                                     // keys and values of 4 bits, with equaliser, centre and overlay
///     "tq4+plain",                               // nothing but rotation and codes
///     "k=tq5,v=tq4;first=8;recent=64:f16",       // which tokens are kept more exactly, and how
///     "tq4;equalise=off;overlay=off",
///     "3bit;layers=0-1,-2--1:f16",               // the first two and the last two layers in half precision
/// ] {
///     assert_eq!(spec.parse::<KvSpec>()?.to_string(), spec);
/// }
/// # Ok::<(), walsh_formats::kv::KvError>(())
/// ```
#[derive(Clone, Debug)]
pub struct KvSpec {
    /// How layers are kept that no exception names.
    pub all: LayerKv,
    /// The layers that differ, and how.
    pub exceptions: Vec<(Vec<LayerRange>, LayerKv)>,
    /// The budget that it was written as.
    named: Option<Budget>,
}

/// Two SPECs are equal that keep layers alike, whether or not one of them is written as a budget.
impl PartialEq for KvSpec {
    fn eq(&self, other: &Self) -> bool {
        self.all == other.all && self.exceptions == other.exceptions
    }
}

impl Eq for KvSpec {}

impl From<LayerKv> for KvSpec {
    fn from(all: LayerKv) -> Self {
        Self {
            all,
            exceptions: Vec::new(),
            named: None,
        }
    }
}

impl KvSpec {
    /// One codec for keys and values of all layers, and nothing else.
    pub fn plain(codec: KvCodec) -> Self {
        LayerKv::plain(KvCodecs::both(codec)).into()
    }

    /// A model whose layers have these codecs, each with the policy that goes with them: the commonest pair for all
    /// layers, and the others as exceptions. `None` where there is no layer.
    pub fn of_layers(layers: &[KvCodecs]) -> Option<Self> {
        let mut kinds: Vec<(KvCodecs, Vec<i32>)> = Vec::new();
        for (layer, codecs) in (0..).zip(layers) {
            match kinds.iter_mut().find(|(known, _)| known == codecs) {
                Some((_, layers)) => layers.push(layer),
                None => kinds.push((*codecs, vec![layer])),
            }
        }
        kinds.sort_by_key(|(_, layers)| std::cmp::Reverse(layers.len()));
        let mut kinds = kinds.into_iter();
        let (all, _) = kinds.next()?;
        Some(Self {
            all: LayerKv::standard(all),
            exceptions: kinds
                .map(|(codecs, layers)| (LayerRange::of(&layers), LayerKv::standard(codecs)))
                .collect(),
            named: None,
        })
    }

    /// How each of a model's layers is kept.
    ///
    /// # Errors
    /// [`KvError::Layers`] when a range reaches past the model's layers, or two exceptions name the same layer.
    pub fn layers(&self, count: usize) -> Result<Vec<LayerKv>, KvError> {
        let mut layers = vec![self.all; count];
        let mut named = vec![false; count];
        for (ranges, kv) in &self.exceptions {
            for range in ranges {
                let wrong = |why: String| KvError::Layers {
                    given: self.to_string(),
                    why,
                };
                let index = |number: i32| {
                    let count = count as i64;
                    let index = i64::from(number) + if number < 0 { count } else { 0 };
                    (0..count).contains(&index).then_some(index as usize)
                };
                let outside = || {
                    wrong(format!(
                        "layers {range} are not all among the model's {count}"
                    ))
                };
                let first = index(range.first).ok_or_else(outside)?;
                let last = index(range.last).ok_or_else(outside)?;
                if first > last {
                    return Err(wrong(format!(
                        "layers {range} of {count} end before they begin"
                    )));
                }
                for layer in first..=last {
                    if std::mem::replace(&mut named[layer], true) {
                        return Err(wrong(format!("layer {layer} is named twice")));
                    }
                    layers[layer] = *kv;
                }
            }
        }
        Ok(layers)
    }

    /// What it means at a head size, in words.
    pub fn describe(&self, head_dim: usize) -> String {
        let mut words = self.all.describe(head_dim);
        for (ranges, kv) in &self.exceptions {
            let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
            words.push_str(&format!(
                "; layers {}: {}",
                ranges.join(", "),
                kv.describe(head_dim)
            ));
        }
        words
    }

    /// The budget that it is, where nothing stands behind the budget's name: how a model's layers are kept in it may then
    /// be fitted to the model.
    pub fn budget(&self) -> Option<Budget> {
        let is_bare = |budget: &Budget| self.exceptions.is_empty() && self.all == budget.kv();
        self.named.filter(is_bare)
    }

    /// The same as codecs and settings, whatever budget it was written as.
    pub fn spelled_out(&self) -> Self {
        Self {
            named: None,
            ..self.clone()
        }
    }

    /// Whether some layer's keys are prepared with what a calibration finds.
    pub fn needs_calibration(&self) -> bool {
        let layers = self.exceptions.iter().map(|(_, kv)| kv);
        layers.chain([&self.all]).any(LayerKv::needs_calibration)
    }
}

impl fmt::Display for LayerRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl fmt::Display for LayerKv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let standard = Self::standard(self.codecs);
        let KvCodecs { key, value } = self.codecs;
        let both_turn = key.turns() && value.turns();
        if *self == Self::plain(self.codecs) && *self != standard && both_turn {
            return if key == value {
                write!(f, "{key}+plain")
            } else {
                write!(f, "k={key}+plain,v={value}+plain")
            };
        }
        write!(f, "{}", self.codecs)?;
        self.write_settings(f)
    }
}

impl LayerKv {
    /// Where the policy differs from the one that goes with the codecs.
    fn write_settings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let standard = Self::standard(self.codecs);
        let switch = |on| if on { "on" } else { "off" };
        if self.equalise != standard.equalise {
            write!(f, ";equalise={}", switch(self.equalise))?;
        }
        if self.center != standard.center {
            write!(f, ";center={}", switch(self.center))?;
        }
        match (self.overlay, standard.overlay) {
            (None, Some(_)) => f.write_str(";overlay=off"),
            (Some(overlay), base) => {
                let none = Overlay {
                    first: 0,
                    recent: 0,
                    codec: None,
                };
                let base = base.unwrap_or(none);
                let codec = match overlay.codec {
                    Some(codec) => format!(":{codec}"),
                    None => String::new(),
                };
                if overlay.first != base.first {
                    write!(f, ";first={}", overlay.first)?;
                }
                if overlay.recent != base.recent || overlay.codec != base.codec {
                    write!(f, ";recent={}{codec}", overlay.recent)?;
                }
                Ok(())
            }
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Display for KvSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self
            .named
            .filter(|budget| budget.kv().codecs == self.all.codecs)
        {
            Some(budget) => {
                f.write_str(budget.name())?;
                self.all.write_settings(f)?;
            }
            None => write!(f, "{}", self.all)?,
        }
        for (ranges, kv) in &self.exceptions {
            f.write_str(";layers=")?;
            for (index, range) in ranges.iter().enumerate() {
                if index > 0 {
                    f.write_str(",")?;
                }
                write!(f, "{range}")?;
            }
            write!(f, ":{kv}")?;
        }
        Ok(())
    }
}
