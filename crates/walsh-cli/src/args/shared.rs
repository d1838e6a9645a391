//! Options that several commands have.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use walsh::{DeviceSpec, Isa, KvSpec};
use walsh_runtime::Lora;
use walsh_runtime::store::Catalogue;

use super::values::{
    Seed, bytes, count, count_or_none, fraction, looked_up, non_negative, positive, seed, stop_text,
};

/// Where named models are kept.
#[derive(Debug, Args)]
pub(crate) struct Cache {
    /// Folder for fetched models [default: walsh/models in the user's cache folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
}

/// Which model, on what.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// A GGUF file, or a model's name as for 'walsh pull' (fetched if it is not here yet)
    #[arg(short, long, value_name = "PATH|NAME", default_value = Catalogue::DEFAULT)]
    pub(crate) model: String,

    #[command(flatten)]
    pub(crate) on: DeviceArgs,

    #[command(flatten)]
    pub(crate) cache: Cache,
}

/// What is added to the model.
#[derive(Debug, Args)]
pub(crate) struct LoraArgs {
    /// Apply a LoRA adapter beside the model's weights: a GGUF file, or a folder that PEFT has saved, and
    /// what it is multiplied by [default: 1]. May be given several times; adapters add up
    #[arg(long, value_name = "PATH[=SCALE]")]
    pub(crate) lora: Vec<Lora>,
}

/// The help of `--device`.
fn device_help() -> String {
    format!(
        "The device: cuda:0 for the first NVIDIA GPU; metal:0 for the first of Apple's, on a Mac; cpu, \
         or cpu:SETTING,... with isa={}; \
         activations=int8 or f32: the precision in which products with quantised weights read their \
         input; and packing=auto, always or never: whether weights are copied into the order that \
         products read fastest (auto: where that gains and takes at most half of the memory that is \
         free)",
        Isa::names()
    )
}

/// What runs it.
#[derive(Debug, Args)]
pub(crate) struct DeviceArgs {
    #[arg(long, value_name = "DEVICE", default_value = "cpu", help = device_help())]
    pub(crate) device: DeviceSpec,

    /// Worker threads [default: one per core]
    #[arg(short, long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub(crate) threads: Option<NonZeroUsize>,
}

/// Help on SPECs behind other help.
macro_rules! with_specs {
    ($text:literal) => {
        concat!(
            $text,
            "\
SPEC, how the KV cache keeps keys and values:
  2.25bit 2.5bit 3bit 3.5bit
  4bit 5bit 8bit              the best that Walsh knows for that many bits per value: what 'walsh fit'
                              found for the model, if it was run
  f32 f16 bf16                floats
  q8_0 q5_0 q4_0              ggml's blocks: 8.5, 5.5 and 4.5 bits per value; +rot rotates first
  tq8 tq6 tq5 tq4 tq3 tq2     rotated codebooks (TurboQuant) of that many bits; below 8, keys are
                              equalised and centred, and the first 4 and recent 32 tokens are kept
                              in q8_0 as well
  +plain                      after a tq codec: nothing but rotation and codes
  +norot, +norm               after a tq codec: without the rotation; with mlx-native's scale, and of
                              heads of 512 with its scale factor, such as +norm:1.05
  k=CODEC,v=CODEC             keys and values apart, such as k=tq5,v=tq4
Settings follow behind semicolons (quote them for the shell):
  first=N recent=N[:CODEC]    the tokens that are also kept in a denser codec; overlay=off: none
  equalise=off center=off     how keys are prepared
  layers=0-1,-1:SPEC          layers that differ, -1 being the last
'walsh inspect --kv SPEC' shows what a SPEC means for a model, and its bytes per token."
        )
    };
}

pub(super) use with_specs;

/// The cache of a session.
#[derive(Debug, Args)]
pub(crate) struct SessionArgs {
    /// Tokens that the session can hold, refused where memory would not hold them [default: the
    /// model's context, at most 4096; with --load as many as when it was saved]
    #[arg(short, long, alias = "ctx-size", value_name = "N", value_parser = count)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) context: Option<NonZeroUsize>,

    /// How keys and values are cached [default: f16, and with --load as it was saved]; SPEC is
    /// explained below
    #[arg(long, value_name = "SPEC")]
    pub(crate) kv: Option<KvSpec>,

    /// Go on from a file that --save wrote, with the same model
    #[arg(long, value_name = "FILE")]
    pub(crate) load: Option<PathBuf>,

    /// Write the session to a file at the end: text, KV cache and all
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
}

/// Many texts at once.
#[derive(Debug, Args)]
pub(crate) struct EngineArgs {
    /// The most texts that are written at once
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    #[arg(default_value = "16")]
    pub(crate) sequences: NonZeroUsize,

    /// The most tokens of a text, its prompt included [default: the model's context, at most 4096]
    #[arg(short, long, alias = "ctx-size", value_name = "N", value_parser = count)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) context: Option<NonZeroUsize>,

    /// How keys and values are cached; SPEC is explained below
    #[arg(long, value_name = "SPEC", default_value = "f16")]
    pub(crate) kv: KvSpec,

    /// The memory for keys and values of all texts, such as 2GB [default: as much as they can use, at
    /// most half of what is free]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(crate) kv_memory: Option<u64>,

    /// A folder in which what prompts begin with is kept, and found again by the next run with the
    /// same model and cache
    #[arg(long, value_name = "DIR")]
    pub(crate) prefix_folder: Option<PathBuf>,

    /// The most that the files of that folder take; those used longest ago go
    #[arg(long, value_name = "SIZE", value_parser = bytes, requires = "prefix_folder", default_value = "4GB")]
    pub(crate) prefix_folder_size: u64,

    /// Look up to N tokens up, where a text goes on as it did before, and read them in one step: 0 to 7.
    /// The answer is the same (on a GPU, up to rounding), and comes sooner where it repeats what was said
    #[arg(long, value_name = "N", default_value = "0", value_parser = looked_up)]
    pub(crate) look_up: usize,

    /// Go on only from what a text's own calls would have left, to the bit: no answer depends on what
    /// else is served then (on a GPU, but for rounding), and beginnings are shared by messages and by 256
    /// tokens alone
    #[arg(long)]
    pub(crate) deterministic: bool,
}

/// How the next token is chosen.
#[derive(Debug, Args)]
pub(crate) struct SamplingArgs {
    /// Flattens (above 1) or sharpens (below 1) the choice; 0 always takes the likeliest token
    /// [default: the model's, or 0.7]
    #[arg(long, visible_alias = "temp", value_name = "T")]
    #[arg(value_parser = non_negative, allow_negative_numbers = true)]
    pub(crate) temperature: Option<f32>,

    /// Choose among the K likeliest tokens; 0 means all [default: the model's, or 40]
    #[arg(long, value_name = "K", value_parser = count_or_none, allow_negative_numbers = true)]
    pub(crate) top_k: Option<usize>,

    /// Choose among the likeliest tokens that together have probability P [default: the model's, or 0.95]
    #[arg(long, value_name = "P", value_parser = fraction, allow_negative_numbers = true)]
    pub(crate) top_p: Option<f32>,

    /// Leave out tokens with less than P times the likeliest one's probability [default: the model's, or 0.05]
    #[arg(long, value_name = "P", value_parser = fraction, allow_negative_numbers = true)]
    pub(crate) min_p: Option<f32>,

    /// Make tokens of the last 64 less likely; 1 changes nothing [default: the model's, or 1]
    #[arg(long, alias = "repeat-penalty", value_name = "R")]
    #[arg(value_parser = positive, allow_negative_numbers = true)]
    pub(crate) repetition_penalty: Option<f32>,

    /// Makes a run repeatable [default: drawn anew, and printed; so does -1]
    #[arg(short, long, value_name = "S", value_parser = seed, allow_negative_numbers = true)]
    pub(crate) seed: Option<Seed>,
}

/// The form that a text is to have: at most one of these.
#[derive(Debug, Default, Args)]
#[group(multiple = false)]
pub(crate) struct FormArgs {
    /// Generate JSON by a JSON schema: that of a file, or one that begins with {
    #[arg(long, value_name = "FILE|SCHEMA")]
    pub(crate) json_schema: Option<String>,

    /// Generate what a regular expression matches as a whole
    #[arg(long, value_name = "REGEX", allow_hyphen_values = true)]
    pub(crate) regex: Option<String>,

    /// Generate what the rule 'start' of a grammar derives, which a file has in llguidance's kind of Lark
    #[arg(long, value_name = "FILE")]
    pub(crate) grammar: Option<PathBuf>,
}

/// Where a text comes from: at most one of these.
#[derive(Debug, Default, Args)]
pub(crate) struct InputArgs {
    /// The same as PROMPT, also where it begins with a hyphen
    #[arg(
        short,
        long,
        value_name = "TEXT",
        conflicts_with = "text",
        allow_hyphen_values = true
    )]
    pub(crate) prompt: Option<String>,

    /// Read the text from a file
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["text", "prompt"])]
    pub(crate) file: Option<PathBuf>,
}

/// How an answer is asked for, and where it ends.
#[derive(Debug, Args)]
pub(crate) struct AnswerArgs {
    /// The system message of the chat template
    #[arg(
        long,
        alias = "system-prompt",
        value_name = "TEXT",
        conflicts_with = "load"
    )]
    #[arg(allow_hyphen_values = true)]
    pub(crate) system: Option<String>,

    /// A chat template in Jinja to use instead of the model's
    #[arg(long, alias = "chat-template-file", value_name = "FILE")]
    pub(crate) template: Option<PathBuf>,

    /// End the text where TEXT would begin, which is not printed; may be given several times
    #[arg(long, alias = "reverse-prompt", value_name = "TEXT", value_parser = stop_text)]
    #[arg(allow_hyphen_values = true)]
    pub(crate) stop: Vec<String>,

    /// Let names of control tokens in what you write, such as <|im_end|>, stand for the tokens
    #[arg(long)]
    pub(crate) special: bool,
    /// Let the terminal break lines anywhere, instead of between words
    #[arg(long, alias = "nowordwrap")]
    pub(crate) no_word_wrap: bool,
}
