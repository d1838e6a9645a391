//! Standard input that a signal interrupts.

use std::io;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::Wake;
use crate::got::Got;

/// Reads standard input, for as long as no signal comes.
#[derive(Debug)]
pub(crate) struct Input {
    buffer: Box<[u8]>,
}

impl Default for Input {
    fn default() -> Self {
        Self {
            buffer: vec![0; 1 << 16].into(),
        }
    }
}

impl Input {
    /// Waits for bytes or a signal, or until some milliseconds are over.
    ///
    /// # Errors
    /// When standard input cannot be read.
    pub(crate) fn wait(&mut self, wake: &Wake, milliseconds: Option<u32>) -> io::Result<Got<'_>> {
        let timeout = milliseconds.map(|milliseconds| Timespec {
            tv_sec: i64::from(milliseconds / 1000),
            tv_nsec: i64::from(milliseconds % 1000 * 1_000_000),
        });
        let stdin = io::stdin();
        loop {
            let mut fds = [
                PollFd::new(wake, PollFlags::IN),
                PollFd::new(&stdin, PollFlags::IN),
            ];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) => return Ok(Got::Nothing),
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            if !fds[0].revents().is_empty() {
                wake.woken();
                return Ok(Got::Signal);
            }
            match rustix::io::read(&stdin, &mut self.buffer[..]) {
                Ok(0) | Err(Errno::IO) => return Ok(Got::End),
                Ok(length) => return Ok(Got::Bytes(&self.buffer[..length])),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whether this is what a terminal says that has gone.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::IO.raw_os_error())
}
