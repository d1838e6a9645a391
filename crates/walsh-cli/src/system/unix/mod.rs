//! Linux, macOS and other systems of their kind.

mod cut_short;
mod files;
mod input;
mod signals;
mod terminal;

pub(crate) use cut_short::report_cut_files;
pub(crate) use files::{private_file, private_folder};
pub(crate) use input::{Input, is_gone};
pub(crate) use signals::{Wake, end_on_signals, watch_signals};
pub(crate) use std::os::fd::AsFd as Terminal;
pub(crate) use terminal::{Keys, size, suspend};
