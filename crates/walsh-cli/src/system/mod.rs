//! What differs between systems: signals, the terminal, standard input that a signal interrupts, and files that only
//! their owner may read. Each system's folder has the same items.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::{
    Input, Keys, Terminal, Wake, end_on_signals, is_gone, private_file, private_folder,
    report_cut_files, size, suspend, watch_signals,
};
#[cfg(windows)]
pub(crate) use windows::{
    Input, Keys, Terminal, Wake, end_on_signals, is_gone, private_file, private_folder,
    report_cut_files, size, suspend, watch_signals,
};
