//! Copies between host and device, through pinned memory.
//!
//! A few bytes (the ids and positions of a token) go through a ring and cost the host no wait. Much goes through two
//! pieces in turn: while the device copies one, the host fills or empties the other.

use std::sync::Arc;

use cudarc::driver::sys::CUdeviceptr;
use walsh_core::Result;

use crate::context::{Context, Event};
use crate::memory::Pinned;

/// The ring's size.
const RING: usize = 256 << 10;

/// What goes through the ring at most.
const SMALL: usize = 16 << 10;

/// The size of a piece.
const PIECE: usize = 8 << 20;

/// Where copies in the ring begin.
const ALIGN: usize = 16;

/// An event that takes no time.
const UNTIMED: u32 = 2;

/// Pinned memory that is used in turn, and when the device is done with it.
struct Piece {
    memory: Pinned,
    done: Event,
    busy: bool,
}

impl Piece {
    fn new(context: &Arc<Context>) -> Result<Self> {
        Ok(Self {
            memory: Pinned::new(context, PIECE)?,
            done: Event::new(context, UNTIMED)?,
            busy: false,
        })
    }

    /// Waits until the device is done with it.
    fn free(&mut self) -> Result<()> {
        if self.busy {
            self.done.wait()?;
            self.busy = false;
        }
        Ok(())
    }

    /// Notes that the stream's last work uses it.
    fn hand_over(&mut self) -> Result<()> {
        self.busy = true;
        self.done.record()
    }
}

/// All copies between the host and one device.
pub(crate) struct Transfers {
    context: Arc<Context>,
    ring: Pinned,
    /// Bytes of the ring that the stream may still read.
    used: usize,
    /// Made when they are first needed.
    pieces: Option<[Piece; 2]>,
}

impl Transfers {
    pub(crate) fn new(context: &Arc<Context>) -> Result<Self> {
        Ok(Self {
            context: context.clone(),
            ring: Pinned::new(context, RING)?,
            used: 0,
            pieces: None,
        })
    }

    /// Copies host bytes to the device behind all work before. The host need not keep them.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn write(&mut self, to: CUdeviceptr, data: &[u8]) -> Result<()> {
        if data.len() > SMALL {
            return self.write_pieces(to, data);
        }
        if data.is_empty() {
            return Ok(());
        }
        let at = self.room(data.len())?;
        // SAFETY: `room` gives bytes that no copy uses.
        unsafe { self.ring.slice_mut(at, data.len()) }.copy_from_slice(data);
        self.to_device(to, self.ring.base().wrapping_add(at), data.len())
    }

    /// Copies bytes of the device to the host when all work before has ended.
    ///
    /// # Errors
    /// When the device fails, or work before did.
    pub(crate) fn read(&mut self, from: CUdeviceptr, data: &mut [u8]) -> Result<()> {
        if data.len() > SMALL {
            return self.read_pieces(from, data);
        }
        if data.is_empty() {
            return Ok(());
        }
        let at = self.room(data.len())?;
        self.to_host(self.ring.base().wrapping_add(at), from, data.len())?;
        self.synchronize("reading from the device")?;
        // SAFETY: the copy has ended.
        data.copy_from_slice(unsafe { self.ring.slice(at, data.len()) });
        Ok(())
    }

    /// Waits for all that the stream was given.
    ///
    /// # Errors
    /// When some of it failed.
    pub(crate) fn synchronize(&mut self, doing: &'static str) -> Result<()> {
        self.context.synchronize(doing)?;
        self.used = 0;
        Ok(())
    }

    /// Where in the ring so many bytes are free; at most [`SMALL`].
    fn room(&mut self, bytes: usize) -> Result<usize> {
        if bytes > self.ring.len() - self.used {
            self.synchronize("writing to the device")?;
        }
        let at = self.used;
        self.used = (at + bytes).next_multiple_of(ALIGN).min(self.ring.len());
        Ok(at)
    }

    fn write_pieces(&mut self, to: CUdeviceptr, data: &[u8]) -> Result<()> {
        self.make_pieces()?;
        for (at, part) in data.chunks(PIECE).enumerate() {
            let piece = self.piece(at)?;
            piece.free()?;
            // SAFETY: the device is done with it.
            unsafe { piece.memory.slice_mut(0, part.len()) }.copy_from_slice(part);
            let base = piece.memory.base();
            self.to_device(to + (at * PIECE) as u64, base, part.len())?;
            self.piece(at)?.hand_over()?;
        }
        Ok(())
    }

    fn read_pieces(&mut self, from: CUdeviceptr, data: &mut [u8]) -> Result<()> {
        self.make_pieces()?;
        let bytes = data.len();
        let ask = |this: &mut Self, at: usize| -> Result<()> {
            let begin = at * PIECE;
            if begin >= bytes {
                return Ok(());
            }
            let piece = this.piece(at)?;
            piece.free()?;
            let base = piece.memory.base();
            this.to_host(base, from + begin as u64, PIECE.min(bytes - begin))?;
            this.piece(at)?.hand_over()
        };
        ask(self, 0)?;
        for (at, part) in data.chunks_mut(PIECE).enumerate() {
            ask(self, at + 1)?;
            let piece = self.piece(at)?;
            piece.free()?;
            // SAFETY: the copy into it has ended, and the next into it was not asked for yet.
            part.copy_from_slice(unsafe { piece.memory.slice(0, part.len()) });
        }
        Ok(())
    }

    fn make_pieces(&mut self) -> Result<()> {
        if self.pieces.is_none() {
            self.pieces = Some([Piece::new(&self.context)?, Piece::new(&self.context)?]);
        }
        Ok(())
    }

    fn piece(&mut self, at: usize) -> Result<&mut Piece> {
        let context = &self.context;
        let pieces = self.pieces.as_mut();
        let pieces = pieces.ok_or_else(|| context.failure("no memory for copies"))?;
        Ok(&mut pieces[at % 2])
    }

    fn to_device(&self, to: CUdeviceptr, from: *const u8, bytes: usize) -> Result<()> {
        let context = &self.context;
        // SAFETY: the caller's range of the device and pinned bytes that stay until the stream is behind the copy.
        let code =
            unsafe { (context.driver.copy_to_device)(to, from.cast(), bytes, context.stream) };
        context.check(code, "writing to the device")
    }

    fn to_host(&self, to: *mut u8, from: CUdeviceptr, bytes: usize) -> Result<()> {
        let context = &self.context;
        // SAFETY: as above, the other way.
        let code = unsafe { (context.driver.copy_to_host)(to.cast(), from, bytes, context.stream) };
        context.check(code, "reading from the device")
    }
}

impl Drop for Transfers {
    fn drop(&mut self) {
        // The device may still copy from pinned memory that goes now. A lost one does nothing any more.
        let _ = self
            .context
            .enter()
            .and_then(|()| self.context.synchronize("closing the device"));
    }
}
