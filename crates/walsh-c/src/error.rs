//! How calls end.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use walsh_runtime::{CoreError, Error};

/// How a call ended. `walsh_last_error` has the words.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalshStatus {
    /// It is done.
    Ok = 0,
    /// An argument cannot be used: a null pointer, a number out of range, text that is not UTF-8, a handle that another
    /// thread works with.
    Argument = 1,
    /// A file cannot be read or written, or is not what it should be.
    File = 2,
    /// The model cannot be run, cannot chat, or computes numbers that are none.
    Model = 3,
    /// The text does not fit into the context.
    ContextFull = 4,
    /// Memory is missing.
    Memory = 5,
    /// The device is not there, or has failed.
    Device = 6,
    /// `walsh_session_cancel` has ended it.
    Cancelled = 7,
    /// A fault of Walsh, which should be reported.
    Internal = 8,
}

/// What goes wrong between C and the library.
#[derive(Debug)]
pub(crate) struct Failure {
    status: WalshStatus,
    what: String,
}

/// What a call comes to.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// An argument that cannot be used.
    pub(crate) fn argument(what: impl Into<String>) -> Self {
        Self {
            status: WalshStatus::Argument,
            what: what.into(),
        }
    }

    /// Whether it is a call's end that somebody asked for.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.status == WalshStatus::Cancelled
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            status: status_of(&error),
            what: error.to_string(),
        }
    }
}

impl From<CoreError> for Failure {
    fn from(error: CoreError) -> Self {
        Error::from(error).into()
    }
}

fn status_of(error: &Error) -> WalshStatus {
    match error {
        Error::Sampling { .. }
        | Error::Option { .. }
        | Error::EmptyPrompt
        | Error::Dialogue { .. }
        | Error::Constraint { .. }
        | Error::Slot { .. }
        | Error::Core(CoreError::InvalidArgument { .. } | CoreError::Kv(_)) => {
            WalshStatus::Argument
        }
        Error::Store { .. } | Error::File { .. } | Error::Saved { .. } | Error::Output(_) => {
            WalshStatus::File
        }
        Error::ContextFull { .. } => WalshStatus::ContextFull,
        Error::NoRoom { .. } | Error::Core(CoreError::OutOfMemory { .. }) => WalshStatus::Memory,
        Error::Core(CoreError::Device { .. } | CoreError::Unsupported { .. }) => {
            WalshStatus::Device
        }
        Error::Cancelled => WalshStatus::Cancelled,
        // What is left is about a model's file, or what it computes.
        _ => WalshStatus::Model,
    }
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// What went wrong in the latest call of this thread that failed: one line of UTF-8, empty before there was one. It is valid
/// until another call of this thread fails.
#[unsafe(no_mangle)]
pub extern "C" fn walsh_last_error() -> *const c_char {
    LAST.with_borrow(|last| last.as_ptr())
}

/// Does the work of a call. What goes wrong, a panic included, is kept for [`walsh_last_error`].
pub(crate) fn call(work: impl FnOnce() -> Result<()>) -> WalshStatus {
    // What a panic leaves half done is behind a lock that it poisons, or dropped with it.
    let done = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(of_panic(&*panic)));
    let Err(Failure { status, what }) = done else {
        return WalshStatus::Ok;
    };
    // A message has no zero in it: what comes from files is shown with its control characters escaped.
    let what = CString::new(what.replace('\0', "\u{fffd}")).unwrap_or_default();
    LAST.set(what);
    status
}

/// The value of a call that cannot fail but by a panic, or by a null pointer: nothing then.
pub(crate) fn value<T: Default>(work: impl FnOnce() -> Option<T>) -> T {
    catch_unwind(AssertUnwindSafe(work))
        .ok()
        .flatten()
        .unwrap_or_default()
}

fn of_panic(panic: &(dyn Any + Send)) -> Failure {
    let said = panic.downcast_ref::<String>().map(String::as_str);
    let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
    Failure {
        status: WalshStatus::Internal,
        what: format!(
            "a fault of Walsh, please report it: {}",
            said.unwrap_or("a panic without words")
        ),
    }
}
