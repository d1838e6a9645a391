//! What an engine is started with.

use std::path::PathBuf;

use walsh::formats::DType;
use walsh::{KvCodec, KvSpec};

use crate::session::DEFAULT_CONTEXT;
use crate::{Error, Model, Result, SessionOptions};

/// How an engine is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// The most texts that are in a step at once.
    pub sequences: usize,
    /// The most tokens of a text, what is generated included; 0 for the model's own
    /// context, but at most [`DEFAULT_CONTEXT`].
    pub context: usize,
    /// How the KV cache is kept; a budget is what the model [makes of it](Model::kv_policy).
    pub kv: KvSpec,
    /// The bytes of the KV cache of all texts; 0 for as many as they can use, but at
    /// most half of what the device has free.
    pub kv_memory: u64,
    /// The most tokens of prompts that are read in a step. A prompt is read in chunks
    /// of so many from its beginning on, whoever else is served.
    pub chunk: usize,
    /// Whether the keys and values of texts are kept behind them, in pages that nobody
    /// else needs, so that another text that begins alike does not read them again.
    pub keep_prefixes: bool,
    /// A folder in which what was read of prompts is kept, to be found after a restart: by
    /// engines of this model, SPEC, calibration and device alone.
    pub prefix_folder: Option<PathBuf>,
    /// The most bytes of all files of that folder; those that were of use the longest ago go.
    pub prefix_folder_bytes: u64,
    /// The most tokens that are looked up for requests that [ask for it](crate::Request::look_up):
    /// where a text goes on as it did before, several of its tokens are read, and chosen, in
    /// one step. 0 looks up none. Of one engine, requests that look up and those that do not
    /// have the same answers where a row's sums do not depend on how many rows there are,
    /// as on CPUs with packed weights; on GPUs they differ by rounding. Models whose layers
    /// keep a state take 0 alone. Overlays have room
    /// for what is looked up, and are summed in another order than by an engine without.
    pub look_up: usize,
    /// Whether a text goes on only from what it would have read itself by the same
    /// calls, to the bit, so that its answer does not depend on what else is served.
    /// Otherwise its calls may end where other texts were seen to part from it, and
    /// what was generated for others is gone on from too, as in a conversation: it was
    /// read token by token, over codes alone, and differs from a prompt that is read at
    /// once by as much as rounding does. On NVIDIA GPUs sums still differ by rounding:
    /// products of one row are of numbers in 8 bits and those of several of halves or
    /// bfloat16, and attention shares contexts out by all that are in a step.
    pub deterministic: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            sequences: 16,
            context: 0,
            kv: KvSpec::plain(KvCodec::Dense(DType::F16)),
            kv_memory: 0,
            chunk: 256,
            keep_prefixes: true,
            prefix_folder: None,
            prefix_folder_bytes: 4 << 30,
            look_up: 0,
            deterministic: false,
        }
    }
}

impl EngineOptions {
    /// The most texts at once: what a step's products have rows for.
    const MOST_SEQUENCES: usize = 1024;

    /// The most tokens that are looked up: with the next, as many as attention takes in one pass over the codes.
    const MOST_LOOKED_UP: usize = 7;

    /// How each text is kept.
    pub(super) fn of_each(&self) -> SessionOptions {
        SessionOptions {
            context: self.context,
            kv: self.kv.clone(),
            chunk: self.chunk,
            // Besides a text's next token, those that it may go on with are read.
            scored: 1 + self.look_up,
        }
    }

    /// The options with the defaults filled in.
    pub(super) fn resolved(&self, model: &Model) -> Result<Self> {
        let context = match self.context {
            0 => model.config().context.min(DEFAULT_CONTEXT),
            context => context,
        };
        let most = i32::MAX as usize / 2;
        for (name, size, most) in [
            ("sequences", self.sequences, Self::MOST_SEQUENCES),
            ("context", context, most),
            ("chunk", self.chunk, most),
        ] {
            if size == 0 || size > most {
                return Err(Error::option(
                    name,
                    format_args!("between 1 and {most}"),
                    size,
                ));
            }
        }
        if self.look_up > Self::MOST_LOOKED_UP {
            let expected = format_args!("at most {}", Self::MOST_LOOKED_UP);
            return Err(Error::option("look_up", expected, self.look_up));
        }
        if self.look_up > 0 && model.config().recurrent.is_some() {
            // What was looked up in vain would have to be taken back out of states.
            let expected = "0 with a model whose layers keep a state";
            return Err(Error::option("look_up", expected, self.look_up));
        }
        Ok(Self {
            context,
            kv: model.kv_policy(&self.kv)?,
            chunk: self.chunk.min(context),
            ..self.clone()
        })
    }
}
