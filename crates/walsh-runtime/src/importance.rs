//! How much the columns of a model's weights matter: the squares of what they are multiplied by on a text.
//!
//! The protocol is that of llama.cpp's `llama-imatrix`: the text is tokenised once and cut into chunks of N tokens, each
//! read from its beginning; the first token is replaced by BOS when the model adds one. The output's weight is left out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::model::graph::{Intermediates, Layerwise, Reading, Taps};
use crate::model::weights::Stored;
use crate::perplexity::read_tokens;
use crate::{Error, Model, Result, TextReader, Watch};

/// What is read.
#[derive(Debug, Clone)]
pub struct ImportanceOptions {
    /// Tokens in a chunk.
    pub context: usize,
    /// How many chunks at most; all that the text has when `None`.
    pub chunks: Option<usize>,
    /// Setting it ends the run before the next layer.
    pub cancel: Arc<AtomicBool>,
}

/// Sums of squares of one tensor's columns.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnSquares {
    /// The sums; of a stack of experts, one expert's after the other's.
    pub sums: Vec<f64>,
    /// How many rows went into them, for each expert.
    pub rows: Vec<u64>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Importance {
    /// By the name that the tensor has in the model's file.
    pub tensors: BTreeMap<String, ColumnSquares>,
    /// Chunks read.
    pub chunks: usize,
}

/// Reads a text, chunk by chunk, and adds up the squares of all inputs of products.
///
/// # Errors
/// When the text has fewer tokens than a chunk, the model cannot take that many, an input is not finite, and
/// [`Error::Cancelled`].
pub fn importance(
    model: &Model,
    text: &mut TextReader<'_>,
    options: &ImportanceOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Importance> {
    let (device, config, context) = (model.device(), model.config(), options.context);
    if config.recurrent.is_some() {
        return Err(Error::measure(
            "the importance of layers that keep a state cannot be measured yet: quantise without",
        ));
    }
    if config.per_layer_width.is_some() || config.experts.is_some_and(|all| all.beside.is_some()) {
        return Err(Error::measure(
            "the importance of embeddings for each layer, and of experts beside a feed-forward part, cannot be measured yet: quantise without",
        ));
    }
    if context == 0 {
        return Err(Error::measure("a chunk needs at least one token"));
    }
    if context > config.context {
        return Err(Error::measure(format!(
            "the model takes {} tokens, and a chunk has {context}: use smaller chunks",
            config.context
        )));
    }
    let most = options.chunks.map(|chunks| chunks.saturating_mul(context));
    let tokens = read_tokens(model.tokenizer(), text, most)?;
    let chunks = tokens.len() / context;
    if chunks == 0 {
        return Err(Error::measure(format!(
            "the text has {} tokens, and at least one chunk of {context} is needed: use a longer text or smaller chunks",
            tokens.len()
        )));
    }
    let tokenizer = model.tokenizer();
    let bos = tokenizer.bos().filter(|_| tokenizer.add_bos());
    let layerwise = Layerwise::new(model, context)?;
    let (graph, intermediates) = (layerwise.graph(), &layerwise.intermediates);
    let taps = Taps::new(device, intermediates)?;
    let watch = Watch::cancelled_by(&options.cancel);
    let steps = (0..config.layers.len())
        .map(|layer| graph.tapped_layer(layer, Reading::CodesAndFresh, &taps))
        .collect::<Result<Vec<_>>>()?;
    let mut found = Collector {
        model,
        tensors: BTreeMap::new(),
    };
    for (index, chunk) in tokens.chunks_exact(context).enumerate() {
        let mut chunk = chunk.to_vec();
        if let Some(bos) = bos {
            chunk[0] = bos;
        }
        device.write(&intermediates.ids, &chunk)?;
        for (layer, step) in steps.iter().enumerate() {
            watch.check()?;
            device.run(step)?;
            found.look(layer, &taps, intermediates)?;
        }
        progress(index + 1, chunks);
    }
    Ok(Importance {
        tensors: found.tensors,
        chunks,
    })
}

struct Collector<'a> {
    model: &'a Model,
    tensors: BTreeMap<String, ColumnSquares>,
}

impl Collector<'_> {
    /// Adds what a layer's products took as inputs.
    fn look(&mut self, layer: usize, taps: &Taps, intermediates: &Intermediates) -> Result<()> {
        let config = self.model.config();
        let device = self.model.device();
        let is_fused = config.architecture.is_fused();
        let [attention, attended, feed_forward, down]: [Vec<f32>; 4] = [
            device.read(&taps.attention)?,
            device.read(&taps.attended)?,
            device.read(&taps.feed_forward)?,
            device.read(&taps.down)?,
        ];
        let queries: &[&str] = match (is_fused, self.model.weights().layers[layer].stored()) {
            (true, _) => &["attn_qkv"],
            (false, None) => &["attn_q"],
            (false, Some(Stored { value: None, .. })) => &["attn_q", "attn_k"],
            (false, Some(_)) => &["attn_q", "attn_k", "attn_v"],
        };
        self.add(layer, queries, squares(&attention, config.width, None))?;
        let rows = attention.len() / config.width;
        let width = config.heads * config.layers[layer].head_dim;
        let attended = squares(&attended[..rows * width], width, None);
        self.add(layer, &["attn_output"], attended)?;
        let inner = config.layers[layer].feed_forward;
        let Some(experts) = &config.experts else {
            let gates: &[&str] = match is_fused {
                true => &["ffn_up"],
                false => &["ffn_gate", "ffn_up"],
            };
            self.add(layer, gates, squares(&feed_forward, config.width, None))?;
            let down = squares(&down[..rows * inner], inner, None);
            return self.add(layer, &["ffn_down"], down);
        };
        let ids = intermediates.experts().map(|ids| device.read::<i32>(ids));
        let ids = ids.transpose()?.unwrap_or_default();
        let chosen = |slots| {
            Some(Chosen {
                ids: &ids,
                count: experts.count,
                slots,
            })
        };
        // A row is the input of all experts that were chosen for it; what they make of it has a row each.
        let gates = squares(&feed_forward, config.width, chosen(experts.used));
        self.add(layer, &["ffn_gate_exps", "ffn_up_exps"], gates)?;
        self.add(layer, &["ffn_down_exps"], squares(&down, inner, chosen(1)))
    }

    fn add(&mut self, layer: usize, parts: &[&str], found: ColumnSquares) -> Result<()> {
        if !found.sums.iter().all(|sum| sum.is_finite()) {
            return Err(Error::measure(format!(
                "an input of layer {layer} is not finite: the model's file may be damaged"
            )));
        }
        for part in parts {
            let name = format!("blk.{layer}.{part}.weight");
            match self.tensors.get_mut(&name) {
                None => {
                    self.tensors.insert(name, found.clone());
                }
                Some(all) => {
                    for (all, found) in all.sums.iter_mut().zip(&found.sums) {
                        *all += found;
                    }
                    for (all, found) in all.rows.iter_mut().zip(&found.rows) {
                        *all += found;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Which experts rows went to.
struct Chosen<'a> {
    ids: &'a [i32],
    /// How many experts there are.
    count: usize,
    /// How many ids each row has.
    slots: usize,
}

/// The squares of rows of `columns` numbers, by column and by expert.
fn squares(values: &[f32], columns: usize, chosen: Option<Chosen<'_>>) -> ColumnSquares {
    let matrices = chosen.as_ref().map_or(1, |chosen| chosen.count);
    let mut found = ColumnSquares {
        sums: vec![0.0; matrices * columns],
        rows: vec![0; matrices],
    };
    for (row, values) in values.chunks_exact(columns).enumerate() {
        let mut add = |matrix: usize| {
            let sums = &mut found.sums[matrix * columns..(matrix + 1) * columns];
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum += f64::from(*value) * f64::from(*value);
            }
            found.rows[matrix] += 1;
        };
        match &chosen {
            None => add(0),
            Some(chosen) => {
                for id in &chosen.ids[row * chosen.slots..(row + 1) * chosen.slots] {
                    add(*id as usize);
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_go_to_their_columns_and_experts() {
        let values = [1.0, 2.0, 3.0, 4.0];
        let all = squares(&values, 2, None);
        assert_eq!((all.sums, all.rows), (vec![10.0, 20.0], vec![2]));
        let chosen = |ids, slots| {
            Some(Chosen {
                ids,
                count: 3,
                slots,
            })
        };
        let each = squares(&values, 2, chosen(&[2, 0], 1));
        assert_eq!(each.sums, [9.0, 16.0, 0.0, 0.0, 1.0, 4.0]);
        assert_eq!(each.rows, [1, 0, 1]);
        let both = squares(&values, 2, chosen(&[2, 0, 2, 1], 2));
        assert_eq!(both.sums, [1.0, 4.0, 9.0, 16.0, 10.0, 20.0]);
        assert_eq!(both.rows, [1, 1, 2]);
    }
}
