//! Windows.

mod files;
mod input;
mod signals;
mod terminal;

pub(crate) use files::{private_file, private_folder, report_cut_files};
pub(crate) use input::{Input, is_gone};
pub(crate) use signals::{Wake, end_on_signals, watch_signals};
pub(crate) use std::os::windows::io::AsHandle as Terminal;
pub(crate) use terminal::{Keys, size, suspend};
