//! What the backend asks of Metal: all that it calls, and nothing that decides.

use std::fmt;
use std::ptr::NonNull;

/// What a GPU says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The name that Apple gives it.
    pub(crate) name: String,
    /// Whether it is of the family `Apple7` (M1, A14) or a later one.
    pub(crate) apple7: bool,
    /// Whether it and the processor have one memory.
    pub(crate) unified: bool,
    /// The threadgroup memory of a group, in bytes.
    pub(crate) threadgroup_bytes: u64,
    /// The most bytes of one buffer.
    pub(crate) buffer_bytes: u64,
    /// The bytes that it works on without moving memory.
    pub(crate) working_set: u64,
    /// The bytes of a page of the host's memory.
    pub(crate) page: u64,
}

/// Who touches a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    /// The host and the GPU. It begins as zeros.
    Shared,
    /// Kernels alone, each of which may read what one wrote before it in the same run.
    Private,
}

/// What a compiled kernel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Compiled {
    /// The threads that go in step.
    pub(crate) width: u64,
    /// The most threads of a group, as its registers allow.
    pub(crate) most_threads: u64,
    /// The threadgroup memory that its text declares, in bytes.
    pub(crate) threadgroup_bytes: u64,
}

/// Why Metal did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Memory is missing.
    OutOfMemory,
    /// The GPU takes no more work from this process.
    Lost(String),
    /// Something else, in Metal's words.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory => f.write_str("memory is missing"),
            Self::Lost(why) | Self::Other(why) => f.write_str(why),
        }
    }
}

/// A range of a buffer that a dispatch is given.
pub(crate) struct Bound<'a, M> {
    pub(crate) memory: &'a M,
    /// The first byte.
    pub(crate) offset: u64,
    /// How many bytes the kernel may touch. Metal is not told: its pointers have no end.
    pub(crate) bytes: u64,
}

/// A dispatch as it is encoded: its arguments are the buffer 0, its buffers follow in order.
pub(crate) struct Launch<'a, A: Api> {
    pub(crate) pipeline: &'a A::Pipeline,
    pub(crate) args: &'a [u8],
    pub(crate) buffers: &'a [Bound<'a, A::Memory>],
    pub(crate) groups: [u32; 3],
    pub(crate) threads: u32,
}

/// The calls.
///
/// Work is encoded into [`Commands`](Self::Commands): dispatches run side by side, but for barriers, behind which all that
/// was dispatched before has ended and can be seen.
pub(crate) trait Api: Send + Sync + Sized + 'static {
    /// A buffer.
    type Memory: Send + Sync + 'static;
    /// A kernel that is ready to be dispatched.
    type Pipeline: Send + Sync + 'static;
    /// A command buffer that is being encoded. It keeps nothing alive that it uses.
    type Commands;

    fn facts(&self) -> &Facts;

    /// The bytes of all buffers that this process has on the GPU.
    fn allocated(&self) -> u64;

    /// A buffer of at least one byte; `None` when memory is missing.
    fn allocate(&self, bytes: u64, storage: Storage) -> Option<Self::Memory>;

    /// A buffer over memory of the host, for reading: `None` when Metal does not take it.
    ///
    /// # Safety
    /// The range is whole pages, which stay as they are for as long as the buffer lives.
    unsafe fn wrap(&self, base: NonNull<u8>, bytes: u64) -> Option<Self::Memory>;

    /// Copies bytes into a shared buffer that no work uses.
    ///
    /// # Safety
    /// They lie within the buffer, and nothing else touches them meanwhile.
    unsafe fn write(&self, memory: &Self::Memory, at: u64, data: &[u8]);

    /// Copies bytes out of a shared buffer that no work writes.
    ///
    /// # Safety
    /// As for [`write`](Self::write).
    unsafe fn read(&self, memory: &Self::Memory, at: u64, data: &mut [u8]);

    /// Copies bytes from one buffer to another on the GPU; the seconds that it took.
    ///
    /// # Safety
    /// The ranges lie within their buffers and do not overlap, and nothing else touches them meanwhile. They begin at words
    /// and are whole words.
    ///
    /// # Errors
    /// What became of it.
    unsafe fn copy(
        &self,
        from: &Bound<'_, Self::Memory>,
        to: &Bound<'_, Self::Memory>,
    ) -> Result<f64, Failure>;

    /// Compiles a text and prepares its entry point, both without the liberties of fast mathematics.
    ///
    /// # Errors
    /// The compiler's words.
    fn compile(&self, source: &str, symbol: &str) -> Result<(Self::Pipeline, Compiled), String>;

    /// Begins a command buffer.
    ///
    /// # Errors
    /// When there is none to be had.
    fn begin(&self) -> Result<Self::Commands, Failure>;

    /// Adds a dispatch.
    ///
    /// # Safety
    /// The launch is what the pipeline's text declares, each range lies within its buffer, and all that it names lives
    /// until [`finish`](Self::finish) returns.
    unsafe fn dispatch(&self, commands: &mut Self::Commands, launch: &Launch<'_, Self>);

    /// Has what follows wait for all dispatches so far.
    fn barrier(&self, commands: &mut Self::Commands);

    /// Runs what was encoded to its end; the seconds that the GPU took.
    ///
    /// # Errors
    /// What became of it.
    fn finish(&self, commands: Self::Commands) -> Result<f64, Failure>;
}
