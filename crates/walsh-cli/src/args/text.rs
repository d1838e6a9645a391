//! The commands that make text: `generate`, `chat` and `run`; and `tokenize`.

use std::path::PathBuf;

use clap::Args;
use walsh_runtime::store::Catalogue;

use super::shared::{
    AnswerArgs, EngineArgs, FormArgs, InputArgs, LoraArgs, ModelArgs, SamplingArgs, SessionArgs,
    with_specs,
};
use super::values::{MaxTokens, max_tokens};

/// `walsh generate`.
#[derive(Debug, Args)]
#[command(after_help = with_specs!("\
The text goes to standard output as it comes, the figures to standard error. Ctrl-C ends the text
(exit status 130).

Examples:
  walsh generate --chat \"What is a lighthouse for?\"
  walsh generate --temperature 0 --max-tokens 20 \"The capital of France is\"
  walsh generate --kv k=tq8,v=tq4 --context 8192 --file article.txt
  walsh generate --stop '}' -n -1 \"fn main() {\"
  walsh generate --chat --json-schema answer.json \"Which is the largest planet?\"
  walsh generate --regex \"(yes|no)\" \"Is the sky blue? The answer is \"
  walsh generate --save story.walsh \"Once upon a time\"
  walsh generate --load story.walsh \" The next day\"
  walsh generate --load story.walsh              goes on from there

"))]
#[command(mut_arg("system", |system| system.requires("chat")))]
#[command(mut_arg("template", |template| template.requires("chat")))]
pub(crate) struct Generate {
    /// The text to continue, or with --chat the question; - reads it from standard input. With --load
    /// it may be left out: the text goes on then
    #[arg(value_name = "PROMPT")]
    pub(crate) text: Option<String>,

    #[command(flatten)]
    pub(crate) input: InputArgs,

    /// Stop after N tokens; -1: when the model ends the text, or the context is full
    #[arg(short = 'n', long, aliases = ["n-predict", "predict"], value_name = "N")]
    #[arg(default_value = "256", value_parser = max_tokens, allow_negative_numbers = true)]
    pub(crate) max_tokens: MaxTokens,

    /// Put the prompt into the model's chat template
    #[arg(long)]
    pub(crate) chat: bool,

    /// Print the figures on standard error as JSON, and nothing else there but errors
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) form: FormArgs,

    #[command(flatten)]
    pub(crate) answer: AnswerArgs,

    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,

    #[command(flatten)]
    pub(crate) model: ModelArgs,

    #[command(flatten)]
    pub(crate) lora: LoraArgs,

    #[command(flatten)]
    pub(crate) session: SessionArgs,
}

/// `walsh chat`.
#[derive(Debug, Args)]
#[command(after_help = with_specs!("\
In the conversation: /help lists the commands, among them /undo, /regenerate, /system, /set, /save
and /load; //TEXT says a text that begins with a slash, and \"\"\" begins and ends one of several
lines. Ctrl-C ends an answer; at the prompt, twice leaves, as Ctrl-D does. The conversation is saved
with --save however it ends, by a signal as well. What is typed at a terminal is kept for another time
in the cache folder, in chat-history, which its owner alone can read.
Standard input may be a file or a pipe: each line is a message then, or a command.
On a terminal, control characters in answers are shown by their numbers; a pipe is given them as they
are.

Examples:
  walsh chat
  walsh chat --kv tq4 --context 8192
  walsh chat --system \"You answer in one sentence.\"
  walsh chat --load talk.walsh --save talk.walsh

"))]
pub(crate) struct Chat {
    /// Stop an answer after N tokens; -1: when the model ends it, or the context is full
    #[arg(short = 'n', long, aliases = ["n-predict", "predict"], value_name = "N")]
    #[arg(default_value = "1024", value_parser = max_tokens, allow_negative_numbers = true)]
    pub(crate) max_tokens: MaxTokens,

    #[command(flatten)]
    pub(crate) answer: AnswerArgs,

    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,

    #[command(flatten)]
    pub(crate) model: ModelArgs,

    #[command(flatten)]
    pub(crate) lora: LoraArgs,

    #[command(flatten)]
    pub(crate) session: SessionArgs,
}

/// `walsh run`.
#[derive(Debug, Args)]
#[command(after_help = with_specs!("\
With a question, 'walsh generate --chat'; without one, 'walsh chat'.

Examples:
  walsh run smollm2-135m
  walsh run ./my.gguf \"Why is the sky blue?\"

"))]
pub(crate) struct Run {
    /// A GGUF file, or a model's name as for 'walsh pull' [default: as for --model]
    #[arg(value_name = "PATH|NAME", conflicts_with = "model")]
    pub(crate) target: Option<String>,

    /// The question, of one or more words; - reads it from standard input
    #[arg(value_name = "PROMPT")]
    pub(crate) question: Vec<String>,

    #[command(flatten)]
    pub(crate) chat: Chat,
}

/// `walsh batch`.
#[derive(Debug, Args)]
#[command(after_help = with_specs!("\
A line of FILE is a JSON object: {\"prompt\": TEXT} or {\"messages\": [{\"role\", \"content\"}, ...]},
and as it likes max_tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed, stop,
priority, salt and lora ([{\"id\", \"scale\"}, ...] by the numbers of --lora, from 0 on), which hold
instead of the options, and one of json_schema (a schema), regex and grammar (texts), the form of its
answer, as for 'walsh generate'. Its answer is the same object with text, finish (end, stop, max_tokens
or context_full), prompt_tokens and generated_tokens, or with error. Answers come in the order of the lines. With --output, a run that was ended goes on where it
was.

What prompts begin with in common is read once, as far as messages, or 256 tokens at a time, are the
same; of lines with a salt, with those of the same salt.

Examples:
  walsh batch questions.jsonl
  walsh batch questions.jsonl --output answers.jsonl --sequences 32 --kv 4bit --kv-memory 2GB

"))]
pub(crate) struct Batch {
    /// The prompts, one in a line
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// Write the answers to a file, behind those that it has [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Stop an answer after N tokens; -1: when the model ends it, or the context is full
    #[arg(short = 'n', long, aliases = ["n-predict", "predict"], value_name = "N")]
    #[arg(default_value = "256", value_parser = max_tokens, allow_negative_numbers = true)]
    pub(crate) max_tokens: MaxTokens,

    #[command(flatten)]
    pub(crate) engine: EngineArgs,

    #[command(flatten)]
    pub(crate) sampling: SamplingArgs,

    #[command(flatten)]
    pub(crate) model: ModelArgs,

    #[command(flatten)]
    pub(crate) lora: LoraArgs,
}

/// `walsh tokenize`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each line has a token's id and its text. In JSON, a token whose bytes are no text of their own has
them as numbers.

Examples:
  walsh tokenize \"Once upon a time\"
  walsh tokenize --model ./my.gguf --ids --file article.txt
  walsh tokenize --special \"<|im_start|>user\"
  walsh tokenize --decode \"504 2365 253\"")]
pub(crate) struct Tokenize {
    /// The text, or with --decode the ids; - reads it from standard input
    #[arg(value_name = "TEXT")]
    pub(crate) text: Option<String>,

    #[command(flatten)]
    pub(crate) input: InputArgs,

    /// Put ids, separated by spaces or commas, back into text
    #[arg(long, conflicts_with_all = ["no_bos", "ids"])]
    pub(crate) decode: bool,

    /// Let names of control tokens, such as <|im_end|>, stand for the tokens; with --decode, write them
    #[arg(long)]
    pub(crate) special: bool,

    /// Leave out what the model has before and after a whole text, such as the beginning-of-text token
    #[arg(long)]
    pub(crate) no_bos: bool,

    /// Print the ids alone, in one line
    #[arg(long, conflicts_with = "json")]
    pub(crate) ids: bool,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// A GGUF file, or a model's name as for 'walsh pull'
    #[arg(short, long, value_name = "PATH|NAME", default_value = Catalogue::DEFAULT)]
    pub(crate) model: String,

    #[command(flatten)]
    pub(crate) cache: super::Cache,
}
