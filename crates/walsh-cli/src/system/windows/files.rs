//! Files that only their owner may read, and files that are cut short.

use std::fs::{DirBuilder, OpenOptions};
use std::io;

/// Has a file that is made so be its owner's alone, as it is by itself: who may read a file follows from the folder that
/// it is made in, and a user's folders are theirs.
pub(crate) fn private_file(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

/// As [`private_file`], of a folder.
pub(crate) fn private_folder(builder: &mut DirBuilder) -> &mut DirBuilder {
    builder
}

/// Nothing to be done: a file that is mapped cannot be cut here.
pub(crate) fn report_cut_files() -> io::Result<()> {
    Ok(())
}
