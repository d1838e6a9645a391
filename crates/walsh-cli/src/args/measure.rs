//! The commands that measure: `perplexity`, `fidelity`, `fit`, `bench` and `bench-ops`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use walsh::KvSpec;
use walsh_runtime::{FidelityTask, Synthetic};

use super::shared::{Cache, DeviceArgs, LoraArgs, ModelArgs, with_specs};
use super::values::{chunk_tokens, count, count_or_none, fidelity_task, fitted_bits, op_name};

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
    #[arg(
        short,
        long,
        alias = "ctx-size",
        value_name = "N",
        default_value_t = 1024
    )]
    #[arg(value_parser = chunk_tokens, allow_negative_numbers = true)]
    pub(crate) context: usize,

    /// Score at most N chunks [default: all that the file has]
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
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

    #[command(flatten)]
    pub(crate) lora: LoraArgs,
}

impl Perplexity {
    /// Products in single precision: what differs between two caches is then the caches.
    const DEVICE: &str = "cpu:activations=f32";
}

/// `walsh fidelity`.
#[derive(Debug, Args)]
#[command(after_help = with_specs!("\
Asks the model questions that are made from the seed, once with each SPEC, always takes the likeliest
token, and compares what comes of it with what comes of the first SPEC:
  greedy   requests that are answered at length: the tokens before the first that differs
  recall   a number that stands somewhere in a text of 2048, 8192 or 16384 tokens, asked for at its end
  sums     sums of three or four steps in words, right by the last number of the answer
  tools    requests for which one of four tools has to be called: the JSON must name it and its arguments
Questions go through the model's chat template; a model without one goes on with them as plain text.
'same right or wrong' are questions that both SPECs answer rightly, or neither; 'lost' and 'gained' are
the others, which only the first or only this SPEC answers rightly. 'same result' asks for more: the
same number, the same call, or none in both. --json has all of it, with counts. --report writes a page.

The device is cpu:activations=f32 unless --device says otherwise, as for 'walsh perplexity'.

Examples:
  walsh fidelity --kv f16 --kv 4bit --kv 3bit
  walsh fidelity --kv f16 --kv 4bit --task recall --count 30
  walsh fidelity --kv f16 --kv 8bit --task greedy --tokens 200 --report fidelity.html

"))]
#[command(mut_arg("device", |device| device.default_value(Perplexity::DEVICE)))]
pub(crate) struct Fidelity {
    /// How keys and values are cached; may be given several times, the one to compare with first
    #[arg(long, value_name = "SPEC", default_value = "f16")]
    pub(crate) kv: Vec<KvSpec>,

    /// What is asked: greedy, recall, sums or tools; may be given several times [default: all]
    #[arg(long, value_name = "NAME", value_parser = fidelity_task)]
    pub(crate) task: Vec<FidelityTask>,

    /// Questions of each task, of recall for each length [default: greedy 50, recall 10, sums 200,
    /// tools 200]
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub(crate) count: Option<NonZeroUsize>,

    /// What questions are made from
    #[arg(short, long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,

    /// The most tokens of an answer of greedy [default: 64]
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub(crate) tokens: Option<NonZeroUsize>,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// Write a report as an HTML page
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

impl Fidelity {
    /// The tasks that are asked for.
    pub(crate) fn tasks(&self) -> Vec<FidelityTask> {
        match self.task.as_slice() {
            [] => FidelityTask::ALL.to_vec(),
            tasks => tasks.to_vec(),
        }
    }
}

/// `walsh fit`.
#[derive(Debug, Args)]
#[command(after_help = "\
For the keys and the values of each layer: how far the model's predictions on a built-in text move
(KL divergence in nats) when they alone are kept in 2 bits. What can spare bits least is given most.
The sensitivities are kept in the cache folder; from then on the SPECs 2.25bit, 2.5bit, 3bit, 3.5bit,
4bit and 5bit stand for what is fitted to the model. An interrupted fit goes on with the next.

The device is cpu:activations=f32 unless --device says otherwise: products that round their input to
8 bits move predictions by more than a layer does.

Examples:
  walsh fit
  walsh fit --model gemma3-270m --budget 2.5
  walsh fit --model smollm2-135m --budget 4 --stats
  walsh fit --model ./my.gguf --tokens 256 --json")]
#[command(mut_arg("device", |device| device.default_value(Perplexity::DEVICE)))]
pub(crate) struct Fit {
    /// Bits per value of the SPEC that is shown, on average over all layers, keys and values, scales
    /// not counted: from 2 to 6
    #[arg(short, long, value_name = "BITS", default_value = "3", value_parser = fitted_bits)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) budget: f64,

    /// Tokens of the built-in text that are read [default: 256, behind the longest window of the
    /// model's layers]
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub(crate) tokens: Option<NonZeroUsize>,

    /// Also show what the SPEC stores of each layer's keys and values for that text: their root mean
    /// square as they are encoded, the same over the stored scales, and the squared error of the codes
    #[arg(long)]
    pub(crate) stats: bool,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) model: ModelArgs,
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
  walsh bench --shared 3000 --kv f16 --kv 4bit
  walsh bench --synthetic llama3-8b:q4_k_m --depth 0
  walsh bench --synthetic llama3-8b:q4_k_m --device cuda:0 --depth 0 --profile

"))]
pub(crate) struct Bench {
    /// Instead of a file a model of a known shape with random weights, made on the device: smollm2-135m,
    /// llama3-8b, gemma3-27b, qwen3-30b-a3b, granite3-3b-a800m, qwen3.5-0.8b, qwen3.5-27b,
    /// qwen3.5-35b-a3b, gemma4-e4b, gemma4-31b, gemma4-26b-a4b, lfm2-1.2b or lfm2-8b-a1b, and the types of its weights: q4_k_m, q4_0, q5_0, q6_k, q8_0, f16 or bf16
    #[arg(long, value_name = "SHAPE:TYPES", conflicts_with = "model")]
    pub(crate) synthetic: Option<Synthetic>,

    /// Tokens of the prefill test; 0 leaves it out
    #[arg(short, long, value_name = "N", default_value_t = 512, value_parser = count_or_none)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) prompt: usize,

    /// Tokens of the decode test, or of --profile; 0 leaves it out
    #[arg(short, long, value_name = "N", default_value_t = 128, value_parser = count_or_none)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) generate: usize,

    /// Tokens in the cache beforehand, separated by commas
    #[arg(
        long,
        value_name = "DEPTH",
        value_delimiter = ',',
        default_value = "0,4096",
        value_parser = count_or_none,
        allow_negative_numbers = true
    )]
    pub(crate) depth: Vec<usize>,

    /// How keys and values are cached; may be given several times
    #[arg(long, value_name = "SPEC", default_value = "f16")]
    pub(crate) kv: Vec<KvSpec>,

    /// Decode so many texts at once instead, each behind DEPTH tokens of its own; several numbers
    /// separated by commas
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = count_or_none)]
    #[arg(allow_negative_numbers = true, conflicts_with_all = ["prompt", "profile"])]
    pub(crate) sequences: Vec<usize>,

    /// Measure instead the time to the first token behind N tokens and 20 more, and behind the same N
    /// and another 20, which an engine that has read the first does not read again
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    #[arg(conflicts_with_all = ["prompt", "generate", "depth", "sequences", "profile"])]
    pub(crate) shared: Option<NonZeroUsize>,

    /// With --shared: also the time after a restart, with what was read kept in this folder
    #[arg(long, value_name = "DIR", requires = "shared")]
    pub(crate) prefix_folder: Option<PathBuf>,

    /// Show instead where the time of a decoded token goes, op by op and kernel by kernel
    #[arg(long, conflicts_with_all = ["prompt", "repetitions"])]
    pub(crate) profile: bool,

    /// Repetitions of each test [default: 5, or 3 of long ones]
    #[arg(short, long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub(crate) repetitions: Option<NonZeroUsize>,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) model: ModelArgs,

    #[command(flatten)]
    pub(crate) lora: LoraArgs,
}

/// `walsh types`.
#[derive(Debug, Args)]
pub(crate) struct Types {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) on: DeviceArgs,

    #[command(flatten)]
    pub(crate) cache: Cache,
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
  walsh bench-ops --device cuda:0 --op Attention --op KvStore
  walsh bench-ops --quick --json")]
pub(crate) struct BenchOps {
    /// Only where the name holds TEXT
    #[arg(value_name = "TEXT")]
    pub(crate) filter: Option<String>,

    /// Only this op; may be given several times [default: all]
    #[arg(long, value_name = "OP", value_parser = op_name)]
    pub(crate) op: Vec<&'static str>,

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
