//! The console.

use std::io;
use std::mem::MaybeUninit;
use std::os::windows::io::{AsHandle, AsRawHandle};

use windows_sys::Win32::System::Console::{
    CONSOLE_MODE, ENABLE_ECHO_INPUT, ENABLE_LINE_INPUT, ENABLE_PROCESSED_INPUT,
    ENABLE_PROCESSED_OUTPUT, ENABLE_VIRTUAL_TERMINAL_INPUT, ENABLE_VIRTUAL_TERMINAL_PROCESSING,
    GetConsoleMode, GetConsoleScreenBufferInfo, SetConsoleMode,
};

use super::Terminal;

/// The columns and rows of a console, where it knows them.
pub(crate) fn size(terminal: impl Terminal) -> Option<(u16, u16)> {
    let mut info = MaybeUninit::uninit();
    // SAFETY: the handle is open, and the function writes one such struct where it does not fail.
    let window = unsafe {
        let handle = terminal.as_handle().as_raw_handle();
        if GetConsoleScreenBufferInfo(handle, info.as_mut_ptr()) == 0 {
            return None;
        }
        info.assume_init().srWindow
    };
    let length = |first: i16, last: i16| u16::try_from(i32::from(last) - i32::from(first) + 1).ok();
    Some((
        length(window.Left, window.Right)?,
        length(window.Top, window.Bottom)?,
    ))
}

/// How the console handed over what is typed and took what is printed, to be put back.
#[derive(Debug)]
pub(crate) struct Keys {
    typed: CONSOLE_MODE,
    /// Of standard output and standard error, where they are a console.
    printed: [Option<CONSOLE_MODE>; 2],
}

impl Keys {
    /// The console as it is.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn of_terminal() -> io::Result<Self> {
        Ok(Self {
            typed: mode(io::stdin())?,
            printed: [mode(io::stdout()).ok(), mode(io::stderr()).ok()],
        })
    }

    /// Has the console hand over each key, as bytes that terminals send, and heed what terminals are told.
    ///
    /// # Errors
    /// When the console is gone.
    pub(crate) fn each(&self) -> io::Result<()> {
        let lines = ENABLE_LINE_INPUT | ENABLE_ECHO_INPUT | ENABLE_PROCESSED_INPUT;
        set(
            io::stdin(),
            self.typed & !lines | ENABLE_VIRTUAL_TERMINAL_INPUT,
        )?;
        self.print(|mode| mode | ENABLE_PROCESSED_OUTPUT | ENABLE_VIRTUAL_TERMINAL_PROCESSING)
    }

    /// Puts the console back.
    ///
    /// # Errors
    /// As for [`each`](Self::each).
    pub(crate) fn put_back(&self) -> io::Result<()> {
        set(io::stdin(), self.typed).and(self.print(|mode| mode))
    }

    fn print(&self, change: impl Fn(CONSOLE_MODE) -> CONSOLE_MODE) -> io::Result<()> {
        let [out, err] = self.printed.map(|mode| mode.map(&change));
        out.map_or(Ok(()), |mode| set(io::stdout(), mode))?;
        err.map_or(Ok(()), |mode| set(io::stderr(), mode))
    }
}

fn mode(console: impl AsHandle) -> io::Result<CONSOLE_MODE> {
    let mut mode = 0;
    // SAFETY: the handle is open, and the function writes one mode.
    match unsafe { GetConsoleMode(console.as_handle().as_raw_handle(), &raw mut mode) } {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(mode),
    }
}

fn set(console: impl AsHandle, mode: CONSOLE_MODE) -> io::Result<()> {
    // SAFETY: the handle is open.
    match unsafe { SetConsoleMode(console.as_handle().as_raw_handle(), mode) } {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Nothing: programs are not stopped from the keyboard here.
///
/// # Errors
/// None.
pub(crate) fn suspend() -> io::Result<()> {
    Ok(())
}
