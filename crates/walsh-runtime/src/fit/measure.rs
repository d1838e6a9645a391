//! How sensitive each layer's keys and values are.
//!
//! All tokens of the text go through a layer at once. What is before the layer whose side is quantised does not change, so
//! the state of the reference is taken along from layer to layer, and each side's run begins with it. Only the quantised
//! layer has a cache; all others attend over keys and values as they were computed.

use std::ops::Range;

use walsh::formats::kv::Tq;
use walsh::{DType, KvCache, KvCodec, KvCodecs, LayerKv, Step};

use super::allot::WIDTHS;
use super::{Fit, Sensitivity, file};
use crate::model::graph::{Graph, Intermediates, Reading};
use crate::model::memory::LayerMemory;
use crate::perplexity::{Normaliser, divergence, in_parallel};
use crate::session::{SessionOptions, cache_options};
use crate::tokenizer::Special;
use crate::{Error, Model, Result, Watch};

/// What is read: neither what calibration sees, so that its centres are not at their best, nor what budgets are judged by.
const TEXT: &str = include_str!("text.txt");

/// The most bytes of logits that are computed at a time.
const LOGIT_BYTES: usize = 16 << 20;

/// The first of so many parts of the text does not count: overlays hold most of what is before its tokens.
const PARTS: usize = 4;

/// How a side is kept that is not looked at.
const EXACT: KvCodec = KvCodec::Dense(DType::F32);

/// How a model is fitted.
#[derive(Debug, Clone, Default)]
pub struct FitOptions {
    /// How many tokens of the built-in text are read; what the first quarter of them predicts does not count. 0 for as many as
    /// are enough: [`TOKENS`](Self::TOKENS) behind the longest window of the model's layers, as far as the text has them.
    pub tokens: usize,
    /// May end the run with [`Error::Cancelled`], and is told how far it is, in runs of single layers.
    pub watch: Watch,
}

impl FitOptions {
    /// As many tokens as are enough for a model whose layers attend to all of a text.
    pub const TOKENS: usize = 256;
    /// With fewer, there is little behind the tokens that overlays keep.
    const LEAST_TOKENS: usize = 64;
}

/// The tokens of the text that are read, as the options ask for them.
pub(super) fn text_for(model: &Model, options: &FitOptions) -> Result<Vec<i32>> {
    let config = model.config();
    if let Some(why) = Fit::why_not(model) {
        return Err(Error::measure(why));
    }
    let mut tokens = model.tokenizer().encode_prompt(TEXT, Special::Text)?;
    let (least, most) = (FitOptions::LEAST_TOKENS, tokens.len().min(config.context));
    if most < least {
        return Err(Error::measure(format!(
            "a fit takes at least {least} tokens, and the model has a context of {}: it cannot be fitted",
            config.context
        )));
    }
    let window = config.layers.iter().filter_map(|layer| layer.window).max();
    // What a window cuts off is seen behind it alone.
    let enough = [window.unwrap_or(0) + FitOptions::TOKENS, FitOptions::TOKENS];
    let count = match options.tokens {
        0 => enough
            .into_iter()
            .find(|count| *count <= most)
            .unwrap_or(most),
        count => count,
    };
    if !(least..=most).contains(&count) {
        let range = format_args!("from {least} to {most} with this model");
        return Err(Error::option("tokens", range, count));
    }
    tokens.truncate(count);
    Ok(tokens)
}

/// The fit that was kept for a model, if as many tokens were read for it; else how sensitive each layer's keys and values
/// are is measured and kept, where the model was opened with a folder for it. A run that is ended is taken up by the next
/// one of as many tokens at the layer that it had come to.
///
/// The model's device should not round activations to 8 bits, which adds noise that hides what little a side of a large
/// model changes. Beside the model, the logits of three quarters of the tokens are in memory, and the intermediates of
/// all of them.
///
/// # Errors
/// When the text or the model's context has not so many tokens, the model computes a number that is not finite, the fit
/// cannot be kept, or the run is cancelled.
pub fn fit(model: &Model, options: &FitOptions) -> Result<Fit> {
    let model = &model.base();
    let folder = model.kept_in();
    let text = text_for(model, options)?;
    let mut layers = Vec::new();
    if let Some(folder) = folder {
        match file::load(model, folder) {
            Ok(Some(kept)) if kept.tokens == text.len() => return Ok(kept),
            // Made anew, as what cannot be read is.
            _ => file::check(model, folder)?,
        }
        layers = file::load_part(model, folder, text.len());
    }
    let mut fit = Fit {
        tokens: text.len(),
        layers,
    };
    let worst = KvCodec::Tq(Tq::new(WIDTHS[0]));
    let mut run = Run::new(model, &text, &options.watch)?;
    run.skip(fit.layers.len());
    for layer in fit.layers.len()..model.config().layers.len() {
        run.go_to(layer)?;
        fit.layers.push(Sensitivity {
            keys: run.divergence_with(KvCodecs {
                key: worst,
                value: EXACT,
            })?,
            values: run.divergence_with(KvCodecs {
                key: EXACT,
                value: worst,
            })?,
        });
        if let Some(folder) = folder {
            file::save(model, folder, &fit)?;
        }
    }
    Ok(fit)
}

/// What the model predicts behind the tokens that count.
#[derive(Default)]
struct Predictions {
    logits: Vec<f32>,
    normalisers: Vec<Normaliser>,
}

/// A run over the text.
struct Run<'a> {
    model: &'a Model,
    watch: &'a Watch,
    rows: usize,
    /// How many rows of logits there are at a time.
    logit_rows: usize,
    intermediates: Intermediates,
    /// Each layer's cache: one that keeps nothing, since nothing is read from it.
    caches: Vec<LayerMemory>,
    /// Each layer as it is.
    steps: Vec<Step>,
    reference: Predictions,
    /// The layer that the reference has come to.
    before: usize,
    /// What it has there.
    state: [Vec<f32>; 2],
    done: usize,
    total: usize,
}

/// The tokens of the text, and their positions, where lists find them.
pub(super) fn read_text(model: &Model, tokens: &[i32], logit_rows: usize) -> Result<Intermediates> {
    let (device, config, rows) = (model.device(), model.config(), tokens.len());
    let intermediates = Intermediates::new(device, config, rows, logit_rows)?;
    let positions: Vec<i32> = (0..rows).map(|position| position as i32).collect();
    device.write(&intermediates.ids, tokens)?;
    device.write(&intermediates.positions, &positions)?;
    Ok(intermediates)
}

/// A layer's cache for so many tokens of the text.
pub(super) fn layer_cache(
    model: &Model,
    index: usize,
    rows: usize,
    kv: &LayerKv,
) -> Result<KvCache> {
    let device = model.device();
    let layer = &model.config().layers[index];
    let options = SessionOptions {
        context: rows,
        chunk: rows,
        scored: rows,
        ..SessionOptions::default()
    };
    let cache = KvCache::new(device, cache_options(layer, kv, &options))?;
    if !kv.needs_calibration() {
        return Ok(cache);
    }
    let moments = &model.calibration()?.layers[index];
    let preparation = moments.preparation(device, layer, kv)?;
    Ok(cache.with_preparation(preparation)?)
}

impl<'a> Run<'a> {
    /// The reference's run.
    fn new(model: &'a Model, text: &[i32], watch: &'a Watch) -> Result<Self> {
        let config = model.config();
        let rows = text.len();
        let row_bytes = config.vocabulary * size_of::<f32>();
        let logit_rows = (LOGIT_BYTES / row_bytes).clamp(1, rows.max(1));
        let intermediates = read_text(model, text, logit_rows)?;
        let count = config.layers.len();
        let mut run = Self {
            model,
            watch,
            rows,
            logit_rows,
            intermediates,
            caches: LayerMemory::idle(model.device(), config)?,
            steps: Vec::with_capacity(count),
            reference: Predictions::default(),
            before: 0,
            state: [Vec::new(), Vec::new()],
            done: 0,
            // Once through all layers, from each on to the end twice, and through each to the next.
            total: count + count * (count + 1) + count.saturating_sub(1),
        };
        for layer in 0..count {
            let step = run.graph().layer(rows, layer, Reading::CodesAndFresh)?;
            run.steps.push(step);
            run.run_layers(layer..layer + 1)?;
        }
        let mut reference = Predictions::default();
        run.predict(|_, logits, normalisers| {
            reference.logits.extend_from_slice(logits);
            reference.normalisers.extend_from_slice(normalisers);
            Ok(())
        })?;
        run.reference = reference;
        Ok(run)
    }

    fn graph(&self) -> Graph<'_> {
        Graph {
            device: self.model.device(),
            config: self.model.config(),
            weights: self.model.weights(),
            screen: None,
            memory: &self.caches,
            intermediates: &self.intermediates,
            adapters: None,
        }
    }

    /// Counts a layer that is about to be run.
    fn count(&mut self) -> Result<()> {
        self.watch.check()?;
        self.watch.tell(self.done, self.total);
        self.done += 1;
        Ok(())
    }

    /// Counts what an earlier run has done of the first layers.
    fn skip(&mut self, layers: usize) {
        let all = self.caches.len();
        self.done += (0..layers).map(|layer| 2 * (all - layer)).sum::<usize>();
    }

    /// Runs layers as they are.
    fn run_layers(&mut self, layers: Range<usize>) -> Result<()> {
        for layer in layers {
            self.count()?;
            self.model.device().run(&self.steps[layer])?;
        }
        Ok(())
    }

    /// Goes on with the reference to the state before a layer.
    fn go_to(&mut self, layer: usize) -> Result<()> {
        while self.before < layer {
            self.restore()?;
            self.run_layers(self.before..self.before + 1)?;
            let [stream, hidden] = self.intermediates.state();
            let device = self.model.device();
            self.state = [device.read(stream)?, device.read(hidden)?];
            self.before += 1;
        }
        Ok(())
    }

    /// Puts the reference's state where lists find it. The first layer begins with the ids.
    fn restore(&self) -> Result<()> {
        if self.before > 0 {
            for (tensor, state) in self.intermediates.state().into_iter().zip(&self.state) {
                self.model.device().write(tensor, state)?;
            }
        }
        Ok(())
    }

    /// The divergence when the layer that the state is before has these codecs.
    fn divergence_with(&mut self, codecs: KvCodecs) -> Result<f64> {
        let layer = self.before;
        let mut caches = self.caches.clone();
        caches[layer] =
            layer_cache(self.model, layer, self.rows, &LayerKv::standard(codecs))?.into();
        let graph = Graph {
            memory: &caches,
            ..self.graph()
        };
        let quantised = graph.layer(self.rows, layer, Reading::Codes)?;
        self.restore()?;
        self.count()?;
        self.model.device().run(&quantised)?;
        self.run_layers(layer + 1..self.caches.len())?;
        let mut sum = 0.0;
        self.predict(|first, logits, normalisers| {
            let width = logits.len() / normalisers.len();
            let row = |row: usize| {
                let at = first + row;
                let reference = &self.reference.logits[at * width..][..width];
                let theirs = (reference, &self.reference.normalisers[at]);
                Ok(divergence(
                    theirs,
                    (&logits[row * width..][..width], &normalisers[row]),
                ))
            };
            let divergences = in_parallel(normalisers.len(), self.workers(), row)?;
            sum += divergences.iter().sum::<f64>();
            Ok(())
        })?;
        Ok(sum / self.reference.normalisers.len() as f64)
    }

    /// Hands out the logits behind the tokens that count, some rows at a time: the first one's number among them, the
    /// logits and what normalises them.
    fn predict(
        &self,
        mut each: impl FnMut(usize, &[f32], &[Normaliser]) -> Result<()>,
    ) -> Result<()> {
        let start = self.rows / PARTS;
        let vocabulary = self.model.config().vocabulary;
        let mut logits = vec![0.0; self.logit_rows * vocabulary];
        let mut row = start;
        while row < self.rows {
            self.watch.check()?;
            let count = self.logit_rows.min(self.rows - row);
            let device = self.model.device();
            device.run(&self.graph().head(row, count)?)?;
            let logits = &mut logits[..count * vocabulary];
            device.read_into(&self.intermediates.logits.rows(0..count as u64)?, logits)?;
            let normalisers = in_parallel(count, self.workers(), |index| {
                let logits = &logits[index * vocabulary..][..vocabulary];
                Normaliser::new(logits).ok_or_else(|| not_finite(row + index))
            })?;
            each(row - start, logits, &normalisers)?;
            row += count;
        }
        Ok(())
    }

    fn workers(&self) -> usize {
        self.model.device().properties().parallelism.max(1)
    }
}

/// The error for logits that hold NaN or infinity.
fn not_finite(position: usize) -> Error {
    Error::measure(format!(
        "the logits at position {position} of the built-in text are not finite: the model file is damaged, download it again"
    ))
}
