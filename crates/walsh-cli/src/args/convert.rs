//! The commands that make models of models.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use walsh_convert::{Mix, Override};
use walsh_runtime::Lora;

use super::shared::{Cache, ModelArgs};
use super::values::{chunk_tokens, count};

/// What all files are made with.
#[derive(Debug, Args)]
pub(crate) struct Making {
    /// The GGUF file to write
    #[arg(value_name = "OUT")]
    pub(crate) output: PathBuf,

    /// How much each column of the weights matters, as 'walsh imatrix' and llama.cpp measure it
    #[arg(long, value_name = "FILE")]
    pub(crate) imatrix: Option<PathBuf>,

    /// A type for the tensors whose names a regular expression is found in; may be given several times, and the first
    /// that fits counts; one that no tensor gets its type by is an error
    #[arg(long = "tensor", value_name = "REGEX=TYPE")]
    pub(crate) tensors: Vec<Override>,

    /// Show what would become of each tensor, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Threads [default: one per core]
    #[arg(short = 't', long, value_name = "N", value_parser = count)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) threads: Option<NonZeroUsize>,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `walsh quantize`.
#[derive(Debug, Args)]
#[command(after_help = "\
The types and their mixes are llama.cpp's: q8_0, q6_k, q5_k_m, q5_k_s, q5_1, q5_0, q4_k_m, q4_k_s,
q4_1, q4_0, iq4_nl, iq4_xs, mxfp4_moe, q3_k_l, q3_k_m, q3_k_s, iq3_m, iq3_s, iq3_xs, iq3_xxs,
q2_k, q2_k_s, iq2_m, iq2_s, iq2_xs, iq2_xxs, and f32, f16, bf16. Those of iq2 and iq3 want --imatrix.
OUT appears when it is whole: a run that is ended leaves nothing under its name.

Examples:
  walsh quantize ./my-f16.gguf ./my-q4.gguf
  walsh quantize ./my-f16.gguf ./my-q5.gguf --type q5_k_m --tensor 'ffn_down=q6_k'
  walsh quantize ./my-f16.gguf ./my-iq4.gguf --type iq4_xs --imatrix ./my.imatrix.gguf
  walsh quantize ./my-f16.gguf ./my-q4.gguf --dry-run")]
pub(crate) struct Quantize {
    /// The model to quantise: a GGUF file, a folder as for 'walsh convert', or a model's name as for 'walsh pull'
    #[arg(value_name = "IN")]
    pub(crate) input: String,

    /// The type of most tensors, and which get another
    #[arg(short, long = "type", value_name = "TYPE", default_value = "q4_k_m")]
    pub(crate) mix: Mix,

    /// Quantise what is quantised already, which loses more than quantising the original
    #[arg(long)]
    pub(crate) allow_requantize: bool,

    #[command(flatten)]
    pub(crate) making: Making,

    #[command(flatten)]
    pub(crate) cache: Cache,
}

/// `walsh convert`.
#[derive(Debug, Args)]
#[command(after_help = "\
The folder has config.json, model.safetensors or its shards, and tokenizer.json or tokenizer.model: the
weights in f32, f16, bf16, 8-bit floats with scales, or as MLX quantises them. Families: Llama,
Mistral, Qwen 2 and 3 (with experts too), Gemma 3 (text), Phi 3, SmolLM 3, OLMo 2. Commands that take a model take such a folder too, and keep what it is converted
to in the cache folder.
With --lora, IN may be a GGUF file too. Quantised weights that an adapter is added to are decoded, added to
and quantised again, in their type or the one asked for.

Examples:
  walsh convert ./my-model ./my-model.gguf
  walsh convert ./my-model ./my-model-q4.gguf --type q4_k_m
  walsh convert ./my-model ./my-sql.gguf --lora ./sql-adapter --type q4_k_m
  walsh convert ./my-q8.gguf ./my-sql.gguf --lora ./sql.gguf=0.8")]
pub(crate) struct Convert {
    /// The folder; with --lora, or a GGUF file
    #[arg(value_name = "IN")]
    pub(crate) input: PathBuf,

    /// The type of most tensors, as for 'walsh quantize' [default: as they are stored]
    #[arg(short, long = "type", value_name = "TYPE")]
    pub(crate) mix: Option<Mix>,

    /// Add a LoRA adapter to the weights: a GGUF file, or a folder that PEFT has saved, and what it is
    /// multiplied by [default: 1]. May be given several times; adapters add up
    #[arg(long, value_name = "PATH[=SCALE]")]
    pub(crate) lora: Vec<Lora>,

    #[command(flatten)]
    pub(crate) making: Making,
}

/// `walsh imatrix`.
#[derive(Debug, Args)]
#[command(after_help = "\
The file is llama.cpp's: the squares of what each column of the weights is multiplied by, added up over
chunks of a text, which should be like what the model is to read and write. 100 chunks are a good start.
Take the least quantised model that there is.

Examples:
  walsh imatrix --model ./my-f16.gguf --file book.txt --output ./my.imatrix.gguf --chunks 100
  walsh quantize ./my-f16.gguf ./my-q4.gguf --imatrix ./my.imatrix.gguf")]
pub(crate) struct Imatrix {
    /// The text to read
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// The file to write
    #[arg(short, long, value_name = "OUT")]
    pub(crate) output: PathBuf,

    /// Tokens in a chunk
    #[arg(
        short,
        long,
        alias = "ctx-size",
        value_name = "N",
        default_value_t = 512
    )]
    #[arg(value_parser = chunk_tokens, allow_negative_numbers = true)]
    pub(crate) context: usize,

    /// Read at most N chunks [default: all that the file has]
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub(crate) chunks: Option<NonZeroUsize>,

    #[command(flatten)]
    pub(crate) model: ModelArgs,
}
