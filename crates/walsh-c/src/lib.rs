//! Walsh for C, and for whatever calls C: `include/walsh.h` is made of this crate.
//!
//! Every call that can fail returns a [`WalshStatus`] and leaves what went wrong for [`walsh_last_error`]; what a call makes
//! goes where its last argument points. Nothing unwinds into the caller, and a handle that two threads use at once is an
//! error, not a race. What cannot be checked is that a pointer points to what its type says: the `Safety` of each function.

mod error;
mod model;
mod pointers;
mod session;
mod text;

use std::ffi::c_char;

pub use error::{WalshStatus, walsh_last_error};
pub use model::{
    WalshModel, WalshModelOptions, walsh_model_chats, walsh_model_context, walsh_model_free,
    walsh_model_is_end, walsh_model_open, walsh_model_vocabulary,
};
pub use session::{
    WalshSampling, WalshSession, WalshSessionOptions, walsh_sampling, walsh_session_cancel,
    walsh_session_fork, walsh_session_free, walsh_session_logits, walsh_session_new,
    walsh_session_next, walsh_session_position, walsh_session_read, walsh_session_restore,
    walsh_session_sample, walsh_session_save, walsh_session_seed, walsh_session_truncate,
};
pub use text::{walsh_chat_prompt, walsh_token_bytes, walsh_tokenize};

/// What a program is compiled for; it goes up when functions or structs change so that a program must be compiled anew.
pub const WALSH_ABI: u32 = 1;

/// The `WALSH_ABI` that the library has: a program that loads it by name compares.
#[unsafe(no_mangle)]
pub extern "C" fn walsh_abi() -> u32 {
    WALSH_ABI
}

/// The version of the library, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn walsh_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
