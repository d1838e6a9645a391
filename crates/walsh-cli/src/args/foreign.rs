//! Flags of other programs that do what Walsh does, and what to write here.

use std::ffi::OsString;

/// Flags of llama.cpp and ollama that are no flags of Walsh, and what to use instead.
const FLAGS: &[(&[&str], &str)] = &[
    (
        &[
            "-ngl",
            "--n-gpu-layers",
            "--gpu-layers",
            "-dev",
            "-mg",
            "--main-gpu",
            "-sm",
            "--split-mode",
        ],
        "a model runs on one device as a whole: --device cuda:0 for the first GPU, --device cpu",
    ),
    (
        &["-ctk", "--cache-type-k", "-ctv", "--cache-type-v"],
        "--kv k=CODEC,v=CODEC says how keys and values are cached, such as --kv q8_0 or --kv k=tq5,v=tq4",
    ),
    (
        &[
            "-cnv",
            "--conversation",
            "-i",
            "--interactive",
            "-if",
            "--interactive-first",
        ],
        "'walsh chat' holds a conversation",
    ),
    (
        &["-no-cnv", "--no-conversation", "-st", "--single-turn"],
        "'walsh generate' continues a text, and with --chat answers one question",
    ),
    (&["-sys"], "--system TEXT gives the system message"),
    (
        &["-sysf", "--system-prompt-file"],
        "--system \"$(cat FILE)\" gives the system message",
    ),
    (&["-r"], "--stop TEXT ends the text before TEXT"),
    (
        &["--chat-template"],
        "--template FILE reads a template in Jinja from a file; without it, the model's own is used",
    ),
    (
        &["--jinja", "--no-jinja"],
        "chat templates are always Jinja programs: leave it out",
    ),
    (
        &["-hf", "-hfr", "--hf-repo"],
        "--model hf:OWNER/REPO:QUANT takes a model of a repository, as 'walsh pull' does",
    ),
    (
        &["-hff", "--hf-file"],
        "--model hf:OWNER/REPO:QUANT takes the file of a repository that has QUANT in its name",
    ),
    (
        &["-hft", "--hf-token"],
        "a token is read from the hub's usual file in the cache folder, huggingface/token",
    ),
    (
        &["-mu", "--model-url"],
        "--model takes an https address that ends in .gguf as well",
    ),
    (
        &["-dr", "--docker-repo"],
        "--model takes a GGUF file, a name of 'walsh list', hf:OWNER/REPO:QUANT or an https address",
    ),
    (
        &["--prompt-cache"],
        "--save FILE keeps a session and --load FILE goes on from it",
    ),
    (
        &["--prompt-cache-all", "--prompt-cache-ro"],
        "--save FILE keeps a session and --load FILE goes on from it",
    ),
    (
        &[
            "-fa",
            "--flash-attn",
            "-nkvo",
            "--no-kv-offload",
            "-kvu",
            "--kv-unified",
            "--swa-full",
        ],
        "there is one kind of attention, which needs no flag: leave it out",
    ),
    (
        &[
            "-b",
            "--batch-size",
            "-ub",
            "--ubatch-size",
            "-tb",
            "--threads-batch",
        ],
        "Walsh chooses how many tokens it reads at a time: leave it out; --threads N is for all work",
    ),
    (
        &[
            "--mmap",
            "--no-mmap",
            "--mlock",
            "-dio",
            "--direct-io",
            "--numa",
            "--no-warmup",
            "--warmup",
        ],
        "a model's file is always mapped: leave it out",
    ),
    (
        &[
            "--presence-penalty",
            "--frequency-penalty",
            "--repeat-last-n",
            "--dry-multiplier",
        ],
        "--repetition-penalty R makes the tokens of the last 64 less likely",
    ),
    (
        &[
            "--typical",
            "--typical-p",
            "--mirostat",
            "--xtc-probability",
            "--xtc-threshold",
            "--samplers",
            "--sampler-seq",
            "--top-n-sigma",
            "--dynatemp-range",
            "-l",
            "--logit-bias",
        ],
        "tokens are chosen by --temperature, --top-k, --top-p, --min-p and --repetition-penalty",
    ),
    (
        &["--grammar-file"],
        "'walsh generate --grammar FILE' takes a grammar, in llguidance's kind of Lark",
    ),
    (
        &["-j", "-jf", "--json-schema-file"],
        "'walsh generate --json-schema' takes a schema, or the file that has it",
    ),
    (
        &["--ignore-eos"],
        "a text ends where the model ends it; --save and --load go on from there",
    ),
    (
        &["--keep", "--context-shift", "--no-context-shift"],
        "nothing is dropped from a context: --context N makes it larger",
    ),
    (
        &["-e", "--escape", "--no-escape"],
        "a text is taken as it is; $'a\\nb' has a line break in most shells",
    ),
    (
        &["--verbose-prompt"],
        "'walsh tokenize' shows the tokens of a text",
    ),
    (
        &[
            "-v",
            "--verbose",
            "-lv",
            "--log-disable",
            "--log-file",
            "-co",
            "--color",
            "--no-display-prompt",
            "--simple-io",
            "--no-perf",
            "--perf",
            "--show-timings",
        ],
        "the text goes to standard output and figures to standard error, --json makes them JSON: leave it out",
    ),
    (
        &["--lora-scaled"],
        "--lora PATH=SCALE applies an adapter with a scale",
    ),
    (
        &[
            "--control-vector",
            "--mmproj",
            "--image",
            "--audio",
            "-md",
            "--model-draft",
            "--rope-scaling",
            "--rope-scale",
            "--rope-freq-base",
            "--rope-freq-scale",
            "--yarn-orig-ctx",
            "--override-kv",
            "-ot",
            "--override-tensor",
        ],
        "a model runs as its file has it, with text alone",
    ),
    (
        &[
            "--keepalive",
            "--think",
            "--hidethinking",
            "--format",
            "--insecure",
        ],
        "it has no counterpart here: leave it out",
    ),
    (
        &["--input-file", "-bf", "--binary-file"],
        "--file FILE reads the text from a file",
    ),
    (
        &[
            "--ppl-stride",
            "--hellaswag",
            "--winogrande",
            "--kl-divergence",
            "--kl-divergence-base",
        ],
        "'walsh perplexity' gives perplexity, and with several --kv the divergence from the first",
    ),
];

/// Commands of ollama, and what there is instead.
const COMMANDS: &[(&[&str], &str)] = &[
    (
        &["ps", "stop"],
        "'walsh serve' says at /metrics what it is doing, and ends by Ctrl-C or SIGTERM",
    ),
    (
        &["create", "cp"],
        "a model is a GGUF file: --model takes its path",
    ),
    (
        &["push", "signin", "signout"],
        "models are fetched and never sent: see 'walsh pull'",
    ),
    (&["launch"], "'walsh chat' holds a conversation"),
];

/// What to write instead of the first word of a command line that is another
/// program's command or flag.
pub(crate) fn advice(arguments: &[OsString]) -> Option<String> {
    let command = arguments.first().and_then(|word| word.to_str());
    let listed =
        |(commands, _): &&(&[&str], _)| command.is_some_and(|word| commands.contains(&word));
    if let (Some((_, instead)), Some(command)) = (COMMANDS.iter().find(listed), command) {
        return Some(format!("there is no command {command}: {instead}"));
    }
    let words = arguments.iter().filter_map(|word| word.to_str());
    words.take_while(|&word| word != "--").find_map(|word| {
        let flag = word.split_once('=').map_or(word, |(flag, _)| flag);
        let (_, instead) = FLAGS.iter().find(|(flags, _)| flags.contains(&flag))?;
        Some(format!("there is no {flag}: {instead}"))
    })
}
