//! Standard input, byte by byte as it comes.

use std::io;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::interrupt::Signals;

/// What came first.
#[derive(Debug)]
pub(crate) enum Got<'s> {
    Bytes(&'s [u8]),
    /// There are no more, or the terminal is gone.
    End,
    Signal,
    /// The time is over.
    Nothing,
}

/// Reads standard input, for as long as no signal comes.
#[derive(Debug)]
pub(crate) struct Source {
    buffer: Box<[u8]>,
}

impl Default for Source {
    fn default() -> Self {
        Self {
            buffer: vec![0; 1 << 16].into(),
        }
    }
}

impl Source {
    /// Waits for bytes or a signal, or until some milliseconds are over.
    pub(crate) fn wait(
        &mut self,
        signals: &Signals,
        milliseconds: Option<u32>,
    ) -> io::Result<Got<'_>> {
        let timeout = milliseconds.map(|milliseconds| Timespec {
            tv_sec: i64::from(milliseconds / 1000),
            tv_nsec: i64::from(milliseconds % 1000 * 1_000_000),
        });
        let stdin = io::stdin();
        loop {
            let mut fds = [
                PollFd::new(signals, PollFlags::IN),
                PollFd::new(&stdin, PollFlags::IN),
            ];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) => return Ok(Got::Nothing),
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            if !fds[0].revents().is_empty() {
                signals.woken();
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
