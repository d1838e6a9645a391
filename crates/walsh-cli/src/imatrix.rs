//! `walsh imatrix`.

use std::collections::BTreeMap;
use std::path::Path;

use walsh_convert::{Collected, Files, Folder};
use walsh_runtime::{ImportanceOptions, Replacement, TextReader, check_writable, importance};

use crate::args::Imatrix;
use crate::failure::{Failure, Outcome};
use crate::output::{self, Notes, shown_path};
use crate::progress::Steps;
use crate::quantize::check_apart;
use crate::{convert, interrupt, models};

pub(crate) fn run(args: &Imatrix) -> Outcome {
    let mut text = TextReader::open(&args.file)?;
    check_writable(&args.output)?;
    let given = Path::new(&args.model.model);
    let mut inputs = vec![args.file.clone(), given.to_owned()];
    if convert::is_folder(given) {
        inputs.extend(Folder::files(given)?);
    }
    check_apart(&args.output, &inputs)?;
    let notes = Notes::for_figures(false);
    let cancel = interrupt::on_interrupt()?;
    let model = models::open(&args.model, &notes, &cancel)?;
    // Of a model in parts all, and one that was asked for by its name.
    check_apart(&args.output, Files::open(model.path())?.paths())?;
    let options = ImportanceOptions {
        context: args.context,
        chunks: args.chunks.map(usize::from),
        cancel,
    };
    let steps = Steps::new("chunks", &notes);
    let found = importance(&model, &mut text, &options, &mut |done, all| {
        steps.show(done, all);
    })?;
    drop(steps);
    let count = found.tensors.len();
    let tensors = found.tensors.into_iter().map(|(name, squares)| {
        let sums = squares.sums.iter().map(|sum| *sum as f32).collect();
        (name, (sums, squares.rows))
    });
    let name = args.file.file_name();
    let collected = Collected {
        tensors: tensors.collect::<BTreeMap<_, _>>(),
        dataset: name.map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        chunks: found.chunks as u32,
        chunk_tokens: args.context as u32,
    };
    let mut file = Replacement::create(&args.output)?;
    collected
        .write(file.file())
        .map_err(|error| Failure::run(format_args!("{}: {error}", shown_path(&args.output))))?;
    file.commit()?;
    output::print(&format!(
        "{}: {count} tensors, from {} chunks of {} tokens\n",
        shown_path(&args.output),
        found.chunks,
        args.context
    ))
}
