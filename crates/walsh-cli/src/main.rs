//! The `walsh` command: reads arguments, calls the runtime, prints.

mod args;
mod asked;
mod batch;
mod bench;
mod bench_ops;
mod chat;
mod completions;
mod convert;
mod doctor;
mod failure;
mod fidelity;
mod fit;
mod generate;
mod got;
mod imatrix;
mod input;
mod inspect;
mod interrupt;
mod manual;
mod models;
mod output;
mod perplexity;
mod progress;
mod quantize;
mod serve;
mod stream;
mod system;
mod terminal;
mod tokenize;
mod types;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use failure::{Failure, Outcome};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return failure::report_usage(&error),
    };
    match watch_files().and_then(|()| run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn watch_files() -> Outcome {
    system::report_cut_files()
        .map_err(|error| Failure::run(format_args!("cannot watch for files that are cut: {error}")))
}

fn run(command: Command) -> Outcome {
    match command {
        Command::Pull(args) => models::pull(&args),
        Command::List(args) => models::list(&args),
        Command::Rm(args) => models::remove(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Chat(args) => chat::run(&args),
        Command::Run(args) => generate::run_model(args),
        Command::Batch(args) => batch::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Tokenize(args) => tokenize::run(&args),
        Command::Perplexity(args) => perplexity::run(&args),
        Command::Fidelity(args) => fidelity::run(&args),
        Command::Fit(args) => fit::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::BenchOps(args) => bench_ops::run(&args),
        Command::Quantize(args) => quantize::run(&args),
        Command::Imatrix(args) => imatrix::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Types(args) => types::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Manual(args) => manual::run(&args),
    }
}
