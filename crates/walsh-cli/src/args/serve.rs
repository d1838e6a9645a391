//! The command that serves.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use walsh_runtime::Lora;
use walsh_runtime::store::Catalogue;

use super::shared::{Cache, DeviceArgs, EngineArgs, with_specs};
use super::values::{bytes, count_or_none, duration, share, some_time};

/// What is logged on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Log {
    /// A line for each request
    Text,
    /// The same as JSON
    Json,
    /// Nothing but what goes wrong
    Off,
}

/// `walsh serve`.
#[derive(Debug, Args)]
#[command(after_help = with_specs!("\
Whatever speaks to OpenAI's, Anthropic's or llama-server's interface can use it: the base URL is
http://127.0.0.1:8080/v1, and without /v1 for Anthropic's clients. A browser finds a page to chat
at http://127.0.0.1:8080. SIGTERM or Ctrl-C lets requests that run end first; a second one does not.

Examples:
  walsh serve
  walsh serve --model smollm2-135m --model coder=./qwen.gguf --kv-memory 4GB
  walsh serve --host 0.0.0.0 --api-key-file keys.txt
  curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{\"messages\": [{\"role\": \"user\", \"content\": \"What is a lighthouse for?\"}]}'

"))]
#[command(mut_arg("kv", |kv| kv.default_value("4bit")))]
#[command(mut_arg("context", |context| {
    context.help("The most tokens of a text, its prompt included [default: the model's context, or what half of the free memory holds]")
}))]
pub(crate) struct Serve {
    /// A GGUF file, or a model's name as for 'walsh pull' (fetched if it is not here yet); several may be
    /// given, each opened when it is first asked for. NAME= before it is what requests call it
    #[arg(short, long, value_name = "[NAME=]PATH|NAME", default_value = Catalogue::DEFAULT)]
    pub(crate) model: Vec<String>,

    /// Open the model, which has to be the only one, with a LoRA adapter: a GGUF file, or a folder that PEFT has
    /// saved, and what requests take of it that say nothing [default: 1]. May be given several times. A request
    /// takes others by its field lora, and one alone by the name MODEL:ADAPTER
    #[arg(long, value_name = "PATH[=SCALE]")]
    pub(crate) lora: Vec<Lora>,

    /// The address to listen at: others than this machine's own need --api-key or --no-auth
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) host: IpAddr,

    /// The port to listen at; 0 for one that is free
    #[arg(long, value_name = "PORT", default_value = "8080")]
    pub(crate) port: u16,

    /// A key that requests have to have; may be given several times. Others see it in the list of
    /// processes: a file is safer
    #[arg(long, value_name = "KEY")]
    pub(crate) api_key: Vec<String>,

    /// A file of such keys, one in a line
    #[arg(long, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,

    /// Serve whoever can reach the address
    #[arg(long, conflicts_with_all = ["api_key", "api_key_file"])]
    pub(crate) no_auth: bool,

    /// Let pages of an origin, its scheme and host, use the server; * for all
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) cors: Vec<String>,

    /// How long requests that run may take to end when the server is to
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s")]
    pub(crate) grace: Duration,

    /// Close a model that nobody has asked for in this time [default: never]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) close_after: Option<Duration>,

    /// The longest that a request may take; its answer ends then, wherever it is [default: as long as it
    /// takes]
    #[arg(long, value_name = "TIME", value_parser = some_time)]
    pub(crate) request_timeout: Option<Duration>,

    /// The longest that a client may take for a request's head, and between two parts of its body
    #[arg(long, value_name = "TIME", value_parser = some_time, default_value = "20s")]
    pub(crate) read_timeout: Duration,

    /// The longest that a client may take to read what is sent
    #[arg(long, value_name = "TIME", value_parser = some_time, default_value = "60s")]
    pub(crate) write_timeout: Duration,

    /// The part of --kv-memory that is one model's, by the name that requests call it; those without one
    /// share the rest. May be given several times
    #[arg(long, value_name = "NAME=SIZE", value_parser = share)]
    pub(crate) kv_share: Vec<(String, u64)>,

    /// A folder in which the texts of slots are saved with POST /slots/ID?action=save, as llama-server
    /// does it
    #[arg(long, alias = "slot-save-path", value_name = "DIR")]
    pub(crate) slot_folder: Option<PathBuf>,

    /// Requests that wait for others, at most; more are told to come again
    #[arg(long, value_name = "N", value_parser = count_or_none, default_value = "256")]
    pub(crate) queue: usize,

    /// The largest request
    #[arg(long, value_name = "SIZE", value_parser = bytes, default_value = "32MB")]
    pub(crate) max_body: u64,

    /// Connections at once, at most; more wait
    #[arg(long, value_name = "N", default_value = "1024")]
    pub(crate) max_connections: NonZeroUsize,

    /// What is logged on standard error
    #[arg(long, value_name = "KIND", value_enum, default_value = "text")]
    pub(crate) log: Log,

    /// Log the texts of prompts and answers, too
    #[arg(long)]
    pub(crate) log_texts: bool,

    #[command(flatten)]
    pub(crate) engine: EngineArgs,

    #[command(flatten)]
    pub(crate) on: DeviceArgs,

    #[command(flatten)]
    pub(crate) cache: Cache,
}
