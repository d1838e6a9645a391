//! The terminal.

use std::io;

use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr,
    tcgetwinsize, tcsetattr,
};
use signal_hook::consts::SIGTSTP;

use super::Terminal;

/// The columns and rows of a terminal, where it knows them.
pub(crate) fn size(terminal: impl Terminal) -> Option<(u16, u16)> {
    let size = tcgetwinsize(terminal).ok()?;
    Some((size.ws_col, size.ws_row))
}

/// How the terminal of standard input handed over what is typed, to be put back.
#[derive(Debug)]
pub(crate) struct Keys(Termios);

impl Keys {
    /// The terminal as it is.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn of_terminal() -> io::Result<Self> {
        Ok(Self(tcgetattr(io::stdin())?))
    }

    /// Has the terminal hand over each key, as bytes.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub(crate) fn each(&self) -> io::Result<()> {
        let mut raw = self.0.clone();
        raw.input_modes &= !(InputModes::BRKINT
            | InputModes::ICRNL
            | InputModes::INPCK
            | InputModes::ISTRIP
            | InputModes::IXON);
        raw.control_modes |= ControlModes::CS8;
        raw.local_modes &=
            !(LocalModes::ECHO | LocalModes::ICANON | LocalModes::IEXTEN | LocalModes::ISIG);
        raw.special_codes[SpecialCodeIndex::VMIN] = 1;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        Ok(tcsetattr(io::stdin(), OptionalActions::Drain, &raw)?)
    }

    /// Puts the terminal back.
    ///
    /// # Errors
    /// As for [`each`](Self::each).
    pub(crate) fn put_back(&self) -> io::Result<()> {
        Ok(tcsetattr(io::stdin(), OptionalActions::Drain, &self.0)?)
    }
}

/// Stops the program as a shell expects of Ctrl-Z, until it is told to go on.
///
/// # Errors
/// When the system refuses.
pub(crate) fn suspend() -> io::Result<()> {
    signal_hook::low_level::raise(SIGTSTP)
}
