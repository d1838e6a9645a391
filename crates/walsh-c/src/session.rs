//! Sessions: texts in the making.

use std::ffi::c_char;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, TryLockError};

use walsh_runtime::sampling::{Random, Sampler, drawn_seed};
use walsh_runtime::{Error, RestoreOptions, Sampling, Session, SessionOptions, Watch};

use crate::error::{Failure, Result, WalshStatus, call, value};
use crate::model::WalshModel;
use crate::pointers::{Room, optional_text, options, put, reference, text, values};

/// A text in the making: its tokens, the KV caches of all layers. One thread at a time works with it; a second one is told so.
pub struct WalshSession {
    text: Mutex<Text>,
    cancel: Arc<AtomicBool>,
}

/// What a session's calls work with.
struct Text {
    session: Session,
    random: Random,
    /// That of the latest call, which has room to work in.
    sampler: Option<(Sampling, Sampler)>,
}

/// How a session is started. Set `size` to `sizeof(WalshSessionOptions)`, and what is not of interest to 0.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct WalshSessionOptions {
    /// Of this struct, in bytes.
    pub size: usize,
    /// How many tokens it can hold; 0 for the model's own context, but at most 4,096.
    pub context: usize,
    /// How many tokens are read at a time; 0 for 512.
    pub chunk: usize,
    /// How the KV cache is kept, such as "4bit" or "k=tq5,v=tq4"; null for "f16".
    pub kv: *const c_char,
}

const USUAL: WalshSessionOptions = WalshSessionOptions {
    size: size_of::<WalshSessionOptions>(),
    context: 0,
    chunk: 0,
    kv: std::ptr::null(),
};

/// How the next token is chosen, by llama.cpp's steps in its order. `walsh_sampling` fills it in.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct WalshSampling {
    /// Of this struct, in bytes.
    pub size: usize,
    /// What logits are divided by; 0 takes the likeliest token.
    pub temperature: f32,
    /// How many of the likeliest tokens stay; 0 keeps all.
    pub top_k: u32,
    /// The fewest likeliest tokens whose probabilities reach this sum stay; 1 keeps all.
    pub top_p: f32,
    /// Tokens at least this probable, relative to the likeliest, stay; 0 keeps all.
    pub min_p: f32,
    /// How much less likely recent tokens become, from 0.01 to 100; 1 changes nothing.
    pub repetition_penalty: f32,
    /// How many of the latest tokens the penalty looks at.
    pub repetition_window: u32,
}

impl From<Sampling> for WalshSampling {
    fn from(sampling: Sampling) -> Self {
        let number = |number| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            size: size_of::<Self>(),
            temperature: sampling.temperature,
            top_k: number(sampling.top_k),
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            repetition_penalty: sampling.repetition_penalty,
            repetition_window: number(sampling.repetition_window),
        }
    }
}

impl From<WalshSampling> for Sampling {
    fn from(asked: WalshSampling) -> Self {
        Self {
            temperature: asked.temperature,
            top_k: asked.top_k as usize,
            top_p: asked.top_p,
            min_p: asked.min_p,
            repetition_penalty: asked.repetition_penalty,
            repetition_window: asked.repetition_window as usize,
        }
    }
}

impl WalshSession {
    fn new(mut session: Session) -> Self {
        let cancel = Arc::new(AtomicBool::new(false));
        session.set_watch(Watch::cancelled_by(&cancel));
        Self {
            text: Mutex::new(Text {
                session,
                random: Random::new(drawn_seed()),
                sampler: None,
            }),
            cancel,
        }
    }

    /// Works with it, if nobody else does.
    fn work<T>(&self, work: impl FnOnce(&mut Text) -> Result<T>) -> Result<T> {
        match self.text.try_lock() {
            Ok(mut text) => work(&mut text),
            Err(TryLockError::WouldBlock) => Err(Failure::argument(
                "another thread works with the session: one at a time",
            )),
            Err(TryLockError::Poisoned(_)) => Err(Failure::argument(
                "the session broke down in an earlier call: free it",
            )),
        }
    }

    /// As [`work`](Self::work), for a call that `walsh_session_cancel` ends. What was asked for too late to end it ends the next.
    fn read<T>(&self, work: impl FnOnce(&mut Text) -> Result<T>) -> Result<T> {
        self.work(|text| {
            if self.cancel.swap(false, Ordering::Relaxed) {
                return Err(Error::Cancelled.into());
            }
            let done = work(text);
            if done.as_ref().is_err_and(Failure::is_cancelled) {
                self.cancel.store(false, Ordering::Relaxed);
            }
            done
        })
    }
}

impl Text {
    fn sample(&mut self, sampling: Sampling) -> Result<i32> {
        if self.session.position() == 0 {
            return Err(Failure::argument(
                "the session is empty, so nothing follows: read tokens first",
            ));
        }
        let kept = self.sampler.take().filter(|(kept, _)| *kept == sampling);
        let mut sampler = match kept {
            Some((_, sampler)) => sampler,
            None => Sampler::new(&sampling)?,
        };
        let (logits, tokens) = (self.session.logits(), self.session.tokens());
        let token = sampler.sample(logits, tokens, &mut self.random);
        self.sampler = Some((sampling, sampler));
        Ok(token?)
    }

    fn next(&mut self, token: i32, sampling: Sampling) -> Result<i32> {
        // Then few logits are computed, and none are copied.
        if sampling.temperature == 0.0 && sampling.repetition_penalty == 1.0 {
            // Whether the rest of it is in range.
            Sampler::new(&sampling)?;
            return Ok(self.session.decode_likeliest(token)?);
        }
        self.session.decode(token)?;
        self.sample(sampling)
    }
}

/// Hands a session over.
///
/// # Safety
/// `to` is null or has room for a pointer.
unsafe fn hand_over(session: Session, to: *mut *mut WalshSession) -> Result<()> {
    let handle = Box::into_raw(Box::new(WalshSession::new(session)));
    // SAFETY: as the caller says; it was found not to be null.
    unsafe { put(to, handle, "session") }
}

/// What is left where a token was to be, when none was chosen.
const NO_TOKEN: i32 = -1;

/// How a token is chosen; the likeliest for a null pointer.
///
/// # Safety
/// The pointer is null or valid.
unsafe fn chosen_by(sampling: *const WalshSampling) -> Result<Sampling> {
    let greedy = Sampling::greedy().into();
    // SAFETY: as the caller says.
    Ok(unsafe { options(sampling, greedy, "sampling") }?.into())
}

/// How a model's makers say that tokens are chosen, and the usual values for what they do not say; greedy for a null pointer.
///
/// # Safety
/// The pointer is null, or of an open model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walsh_sampling(model: *const WalshModel) -> WalshSampling {
    let recommended = value(|| {
        // SAFETY: as the caller says.
        let model = unsafe { reference(model, "model") }.ok()?;
        Some(Some(model.0.recommended_sampling().or_usual()))
    });
    recommended.unwrap_or_else(Sampling::greedy).into()
}

/// Starts a session.
///
/// # Safety
/// `model` is null or open; `options` is null or valid; `session` is null or has room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walsh_session_new(
    model: *const WalshModel,
    options: *const WalshSessionOptions,
    session: *mut *mut WalshSession,
) -> WalshStatus {
    call(|| {
        // SAFETY: as the caller says.
        let (model, asked) = unsafe {
            put(session, std::ptr::null_mut(), "session")?;
            let asked = self::options(options, USUAL, "options")?;
            (reference(model, "model")?, asked)
        };
        let mut options = SessionOptions {
            context: asked.context,
            ..SessionOptions::default()
        };
        if asked.chunk > 0 {
            options.chunk = asked.chunk;
        }
        // SAFETY: as the caller says.
        if let Some(kv) = unsafe { optional_text(asked.kv, "kv") }? {
            options.kv = kv.parse().map_err(walsh::Error::from)?;
        }
        let made = model.0.session(options)?;
        // SAFETY: as the caller says.
        unsafe { hand_over(made, session) }
    })
}

/// Ends a session; nothing for a null pointer.
///
/// # Safety
/// The pointer is null, or one that this library made and nothing has freed; nobody uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walsh_session_free(session: *mut WalshSession) {
    value(|| {
        // SAFETY: it was made by `Box::into_raw`, and the caller says that nobody else has it.
        (!session.is_null()).then(|| drop(unsafe { Box::from_raw(session) }))
    });
}

/// Appends tokens, as a prompt is read: many at a time. When it fails half way, the chunks that were read stay.
///
/// # Safety
/// `session` is null or valid; `tokens` is null or has `count` numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walsh_session_read(
    session: *const WalshSession,
    tokens: *const i32,
    count: usize,
) -> WalshStatus {
    call(|| {
        // SAFETY: as the caller says.
        let (session, tokens) = unsafe {
            let tokens = values(tokens, count, "tokens")?;
            (reference(session, "session")?, tokens)
        };
        session.read(|text| Ok(text.session.prefill(tokens)?))
    })
}

/// Chooses the token that follows what was read; it is not appended. A null pointer for `sampling` takes the
/// likeliest; `token` is -1 where the call fails.
///
/// # Safety
/// `session` is null or valid; `sampling` is null or valid; `token` is null or has room for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walsh_session_sample(
    session: *const WalshSession,
    sampling: *const WalshSampling,
    token: *mut i32,
) -> WalshStatus {
    call(|| {
        // SAFETY: as the caller says.
        let (session, sampling) = unsafe {
            put(token, NO_TOKEN, "token")?;
            (reference(session, "session")?, chosen_by(sampling)?)
        };
        let chosen = session.work(|text| text.sample(sampling))?;
        // SAFETY: as the caller says.
        unsafe { put(token, chosen, "token") }
    })
}

/// Appends a token and chooses the one that follows: the step of writing. A null pointer for `sampling` takes the likeliest,
/// for which the least is computed, and nothing of which the logits are known afterwards. `next` is -1 where the call fails.
///
/// # Safety
/// `session` is null or valid; `sampling` is null or valid; `next` is null or has room for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walsh_session_next(
    session: *const WalshSession,
    token: i32,
    sampling: *const WalshSampling,
    next: *mut i32,
) -> WalshStatus {
    call(|| {
        // SAFETY: as the caller says.
        let (session, sampling) = unsafe {
            put(next, NO_TOKEN, "next")?;
            (reference(session, "session")?, chosen_by(sampling)?)
        };
        let chosen = session.read(|text| text.next(token, sampling))?;
        // SAFETY: as the caller says.
        unsafe { put(next, chosen, "next") }
    })
}

/// The logits behind the latest token, one to each token of the vocabulary: `count` is their number, whatever has room in
/// `logits`. They are zeros where they are not known: at the start, behind a truncation, and behind a `walsh_session_next`
/// that took the likeliest.
///
/// # Safety
/// `session` is null or valid; `logits` is null or has room for `capacity` numbers; `count` is null or has room for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walsh_session_logits(
    session: *const WalshSession,
    logits: *mut f32,
    capacity: usize,
    count: *mut usize,
) -> WalshStatus {
    call(|| {
        // SAFETY: as the caller says.
        let session = unsafe { reference(session, "session") }?;
        session.work(|text| {
            let room = Room {
                to: logits,
                capacity,
                count,
            };
            // SAFETY: as the caller says.
            unsafe { room.fill(text.session.logits(), "logits") }
        })
    })
}

/// How many tokens it holds.
///
/// # Safety
/// `session` is null or valid; `position` is null or has room for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walsh_session_position(
    session: *const WalshSession,
    position: *mut usize,
) -> WalshStatus {
    call(|| {
        // SAFETY: as the caller says.
        let session = unsafe { reference(session, "session") }?;
        let tokens = session.work(|text| Ok(text.session.position()))?;
        // SAFETY: as the caller says.
        unsafe { put(position, tokens, "position") }
    })
}

/// Cuts the text back to its first `position` tokens. What follows is what would follow if no more had been read.
///
/// # Safety
/// `session` is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walsh_session_truncate(
    session: *const WalshSession,
    position: usize,
) -> WalshStatus {
    call(|| {
        // SAFETY: as the caller says.
        let session = unsafe { reference(session, "session") }?;
        session.read(|text| Ok(text.session.truncate(position)?))
    })
}

/// Another session that holds the same text, and goes on as this one would.
///
/// # Safety
/// `session` is null or valid; `fork` is null or has room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walsh_session_fork(
    session: *const WalshSession,
    fork: *mut *mut WalshSession,
) -> WalshStatus {
    call(|| {
        // SAFETY: as the caller says.
        let session = unsafe {
            put(fork, std::ptr::null_mut(), "fork")?;
            reference(session, "session")?
        };
        let made = session.work(|text| {
            let fork = WalshSession::new(text.session.fork()?);
            fork.work(|other| {
                other.random = text.random;
                Ok(())
            })?;
            Ok(fork)
        })?;
        // SAFETY: as the caller says.
        unsafe { put(fork, Box::into_raw(Box::new(made)), "fork") }
    })
}

/// Has tokens chosen by the random numbers of a seed from here on; without, they differ from session to session.
///
/// # Safety
/// `session` is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walsh_session_seed(
    session: *const WalshSession,
    seed: u64,
) -> WalshStatus {
    call(|| {
        // SAFETY: as the caller says.
        let session = unsafe { reference(session, "session") }?;
        session.work(|text| {
            text.random = Random::new(seed);
            Ok(())
        })
    })
}

/// Writes a session to a file: its tokens, the codes of its KV caches, its logits. An earlier file is replaced once the new one
/// is whole.
///
/// # Safety
/// `session` is null or valid; `path` is null or ends with a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walsh_session_save(
    session: *const WalshSession,
    path: *const c_char,
) -> WalshStatus {
    call(|| {
        // SAFETY: as the caller says.
        let (session, path) = unsafe { (reference(session, "session")?, text(path, "path")?) };
        session.work(|text| Ok(text.session.save(path)?))
    })
}

/// Takes up a session that `walsh_session_save` wrote, or `walsh generate --save`, with the same model. It goes on as the saved
/// one would have; random numbers are its own.
///
/// # Safety
/// `model` is null or open; `path` is null or ends with a zero; `session` is null or has room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walsh_session_restore(
    model: *const WalshModel,
    path: *const c_char,
    session: *mut *mut WalshSession,
) -> WalshStatus {
    call(|| {
        // SAFETY: as the caller says.
        let (model, path) = unsafe {
            put(session, std::ptr::null_mut(), "session")?;
            (reference(model, "model")?, text(path, "path")?)
        };
        let restored = model.0.restore(path, RestoreOptions::default())?;
        // SAFETY: as the caller says.
        unsafe { hand_over(restored, session) }
    })
}

/// Ends the call that another thread is in with the session, within a chunk of tokens: it returns `WALSH_STATUS_CANCELLED`, and
/// what it has read stays. Where no thread is in one, the next call that reads ends at once.
///
/// # Safety
/// `session` is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn walsh_session_cancel(session: *const WalshSession) -> WalshStatus {
    call(|| {
        // SAFETY: as the caller says.
        let session = unsafe { reference(session, "session") }?;
        session.cancel.store(true, Ordering::Relaxed);
        Ok(())
    })
}
