//! What keys and queries of a model look like, channel by channel, and how keys are prepared from it.
//!
//! A key's channels differ in size, and so do the queries' that they meet. Quantisation spreads its error evenly over the
//! channels that it sees, so a channel counts for much where queries are large. Dividing keys by
//! e = (rms k / rms q)^½ and multiplying queries by it leaves every score as it was and makes every channel's share in the
//! error alike. A mean that all keys share costs range and tells softmax nothing: it is subtracted.
//!
//! Both come from a built-in text, so that codes do not depend on what a session reads.

mod file;
mod moments;
mod options;
#[cfg(test)]
mod tests;

use crate::model::graph::{Layerwise, Reading};
use crate::tokenizer::Special;
use crate::{Model, Result, Watch};
pub use moments::{Calibration, KeyMoments};
pub use options::{CalibrationListener, CalibrationNotice, CalibrationOptions};

/// What is read.
const TEXT: &str = include_str!("text.txt");

/// At most this many tokens of it are.
const TOKENS: usize = 1024;

impl Model {
    /// What calibration finds about its keys: kept from before, or measured on
    /// first use.
    ///
    /// # Errors
    /// When the model computes a number that is not finite.
    pub fn calibration(&self) -> Result<&Calibration> {
        let (kept, options) = self.calibration_kept();
        if let Some(known) = kept.get() {
            return Ok(known);
        }
        // Whatever adapters it has: preparing keys by what is found loses nothing of others.
        let found = Calibration::find(&self.base(), options)?;
        Ok(kept.get_or_init(|| found))
    }
}

impl Calibration {
    /// The calibration that was kept for a model, or a new one, which is kept.
    fn find(model: &Model, options: &CalibrationOptions) -> Result<Self> {
        let folder = options.folder.as_deref();
        if let Some(kept) = folder.and_then(|folder| file::load(model, folder)) {
            return Ok(kept);
        }
        let tell = |notice: CalibrationNotice<'_>| {
            if let Some(listener) = &options.notice {
                listener(notice);
            }
        };
        let watch = Watch::cancelled_by(&options.cancel);
        let found = Self::measure(model, &mut |done, layers| {
            tell(CalibrationNotice::Measuring { done, layers });
            watch.check()
        })?;
        if let Some(folder) = folder
            && let Err(error) = file::save(model, folder, &found)
        {
            tell(CalibrationNotice::NotKept(&error));
        }
        Ok(found)
    }

    /// Reads the built-in text and looks at every layer's keys and queries.
    fn measure(
        model: &Model,
        progress: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<Self> {
        let (device, config) = (model.device(), model.config());
        let mut tokens = model.tokenizer().encode_prompt(TEXT, Special::Text)?;
        tokens.truncate(TOKENS.min(config.context));
        let rows = tokens.len();
        let layerwise = Layerwise::new(model, rows)?;
        let (graph, intermediates) = (layerwise.graph(), &layerwise.intermediates);
        device.write(&intermediates.ids, &tokens)?;
        let count = config.layers.len();
        let mut layers = Vec::with_capacity(count);
        for index in 0..count {
            device.run(&graph.layer(rows, index, Reading::CodesAndFresh)?)?;
            let layer = &config.layers[index];
            layers.push(match layer.is_cached() {
                false => KeyMoments::none(layer),
                true => {
                    let heads = intermediates.heads(config, index)?;
                    let (keys, queries) = (device.read(&heads.key)?, device.read(&heads.query)?);
                    KeyMoments::of(layer, &keys, &queries)
                }
            });
            progress(index + 1, count)?;
        }
        Ok(Self { layers })
    }
}
