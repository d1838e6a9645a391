//! What C hands over, checked as far as it can be.

use std::ffi::{CStr, c_char};

use crate::error::{Failure, Result};

/// A handle, or whatever else a pointer is to.
///
/// # Safety
/// The pointer is null, or to a valid `T` that stays as it is while the reference lives.
pub(crate) unsafe fn reference<'a, T>(pointer: *const T, name: &str) -> Result<&'a T> {
    // SAFETY: as the caller says.
    unsafe { pointer.as_ref() }.ok_or_else(|| null(name))
}

/// Text up to its zero; none for a null pointer.
///
/// # Safety
/// The pointer is null, or to bytes that end with a zero and stay as they are while the reference lives.
pub(crate) unsafe fn optional_text<'a>(
    pointer: *const c_char,
    name: &str,
) -> Result<Option<&'a str>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: it is not null, and the caller says that it ends.
    let bytes = unsafe { CStr::from_ptr(pointer) };
    let text = bytes
        .to_str()
        .map_err(|_| Failure::argument(format!("{name} is not UTF-8")))?;
    Ok(Some(text))
}

/// Text up to its zero.
///
/// # Safety
/// As for [`optional_text`].
pub(crate) unsafe fn text<'a>(pointer: *const c_char, name: &str) -> Result<&'a str> {
    // SAFETY: as the caller says.
    unsafe { optional_text(pointer, name) }?.ok_or_else(|| null(name))
}

/// So many values; of none the pointer may be null.
///
/// # Safety
/// The pointer is null, or to so many values that stay as they are while the reference lives.
pub(crate) unsafe fn values<'a, T>(pointer: *const T, count: usize, name: &str) -> Result<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(null(name));
    }
    if count > isize::MAX as usize / size_of::<T>() {
        return Err(Failure::argument(format!("{count} {name} are too many")));
    }
    // SAFETY: it is not null, they are no more bytes than a slice can have, and the caller says that they are there.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
}

/// Writes one value where a pointer is to.
///
/// # Safety
/// The pointer is null, or to room for a `T`.
pub(crate) unsafe fn put<T>(pointer: *mut T, value: T, name: &str) -> Result<()> {
    if pointer.is_null() {
        return Err(null(name));
    }
    // SAFETY: it is not null, and the caller says that there is room. What was there is no value of ours.
    unsafe { pointer.write(value) };
    Ok(())
}

/// Room of a caller's for values whose number the caller does not know.
pub(crate) struct Room<T> {
    /// Where they go.
    pub(crate) to: *mut T,
    /// How many have room.
    pub(crate) capacity: usize,
    /// Where their number goes.
    pub(crate) count: *mut usize,
}

impl<T: Copy> Room<T> {
    /// Writes their number, and as many as have room.
    ///
    /// # Safety
    /// `to` is null, or to room for `capacity` values; `count` is null, or to room for a number.
    pub(crate) unsafe fn fill(self, values: &[T], name: &str) -> Result<()> {
        // SAFETY: as the caller says.
        unsafe { put(self.count, values.len(), "count") }?;
        let fitting = values.len().min(self.capacity);
        if fitting == 0 {
            return Ok(());
        }
        if self.to.is_null() {
            return Err(null(name));
        }
        // SAFETY: it is not null, the caller says that there is room for as many, and what is ours is not the caller's.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), self.to, fitting) };
        Ok(())
    }
}

/// Options, of which a null pointer has the usual ones.
///
/// # Safety
/// The pointer is null, or to a valid `T` that begins with its size.
pub(crate) unsafe fn options<T: Copy>(pointer: *const T, usual: T, name: &str) -> Result<T> {
    if pointer.is_null() {
        return Ok(usual);
    }
    // SAFETY: it is not null, and begins with a number.
    let size = unsafe { pointer.cast::<usize>().read() };
    match size == size_of::<T>() {
        // SAFETY: the caller says that it is valid, and it says itself that it is whole.
        true => Ok(unsafe { pointer.read() }),
        false => Err(Failure::argument(format!(
            "the size in {name} is {size}, and should be {}: set it to sizeof, and compile against the header of this library",
            size_of::<T>()
        ))),
    }
}

fn null(name: &str) -> Failure {
    Failure::argument(format!("{name} is null"))
}
