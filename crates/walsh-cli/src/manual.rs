//! `walsh manual`.

use clap::CommandFactory;
use walsh_runtime::Error;

use crate::args::{Cli, Manual};
use crate::failure::Outcome;

pub(crate) fn run(args: &Manual) -> Outcome {
    let write = || {
        std::fs::create_dir_all(&args.folder)?;
        clap_mangen::generate_to(Cli::command(), &args.folder)
    };
    write().map_err(|error| Error::file(&args.folder, &error))?;
    Ok(())
}
