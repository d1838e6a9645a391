//! Standard input that a signal interrupts.

use std::io::{self, Read};
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::Duration;

use super::Wake;
use super::signals::Event;
use crate::got::Got;

/// The most that is read at once, in bytes.
const MOST: usize = 1 << 16;

/// Reads standard input, for as long as no signal comes.
#[derive(Debug, Default)]
pub(crate) struct Input {
    bytes: Vec<u8>,
    /// Whether a thread reads: nothing ends a read before there is something, so that what it brings may be for a later
    /// wait.
    is_reading: bool,
}

impl Input {
    /// Waits for bytes or a signal, or until some milliseconds are over.
    ///
    /// # Errors
    /// When standard input cannot be read.
    pub(crate) fn wait(&mut self, wake: &Wake, milliseconds: Option<u32>) -> io::Result<Got<'_>> {
        if !self.is_reading {
            let send = wake.send.clone();
            thread::Builder::new()
                .name("stdin".into())
                // Nobody may be left to be told.
                .spawn(move || drop(send.send(Event::Read(read()))))?;
            self.is_reading = true;
        }
        let time = milliseconds.map_or(Duration::MAX, |milliseconds| {
            Duration::from_millis(milliseconds.into())
        });
        match wake.events.recv_timeout(time) {
            Ok(Event::Signal) => Ok(Got::Signal),
            Ok(Event::Read(read)) => {
                self.is_reading = false;
                self.bytes = read?;
                Ok(match self.bytes.is_empty() {
                    true => Got::End,
                    false => Got::Bytes(&self.bytes),
                })
            }
            Err(RecvTimeoutError::Timeout) => Ok(Got::Nothing),
            Err(RecvTimeoutError::Disconnected) => Ok(Got::End),
        }
    }
}

/// What one read brings: nothing where there is no more.
fn read() -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; MOST];
    let length = io::stdin().lock().read(&mut bytes)?;
    bytes.truncate(length);
    Ok(bytes)
}

/// Whether this is what a terminal says that has gone: a console says nothing of the kind.
pub(crate) fn is_gone(_: &io::Error) -> bool {
    false
}
