//! Arrays of numpy's: what comes in is checked and copied while Python waits, so that nobody can change it while it is
//! used; what goes out takes the memory over.

use std::ops::Range;
use std::thread::{available_parallelism, scope};

use numpy::{Element, PyArrayDyn, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::errors::{Failure, Result};

/// How many numbers are copied, and worked on, at a time.
pub(crate) const CHUNK: usize = 1 << 21;

/// An array of one type whose numbers follow each other.
pub(crate) struct Input<'py, T: Element> {
    array: Bound<'py, PyArrayDyn<T>>,
    name: &'static str,
    shape: Vec<usize>,
}

impl<'py, T: Element + Copy> Input<'py, T> {
    /// An array of so many dimensions.
    pub(crate) fn new(name: &'static str, given: &Bound<'py, PyAny>, rank: usize) -> Result<Self> {
        let expected = numpy::dtype::<T>(given.py());
        let Ok(array) = given.cast::<PyArrayDyn<T>>() else {
            let found = match given.cast::<PyUntypedArray>() {
                Ok(array) => format!("is of {}", array.dtype()),
                Err(_) => format!("is a {}", given.get_type().name()?),
            };
            return Err(Failure::array(format!(
                "{name} must be an array of {expected}, but {found}: convert it by numpy.ascontiguousarray(x, numpy.{expected})"
            )));
        };
        let array = array.clone();
        if !array.is_c_contiguous() {
            return Err(Failure::array(format!(
                "{name} must be contiguous: make it so by numpy.ascontiguousarray(x)"
            )));
        }
        let shape = array.shape().to_vec();
        if shape.len() != rank {
            return Err(Failure::array(format!(
                "{name} must have {rank} dimensions, but has the shape {shape:?}"
            )));
        }
        Ok(Self { array, name, shape })
    }

    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// A copy of some of its numbers.
    pub(crate) fn copy(&self, range: Range<usize>) -> Result<Vec<T>> {
        self.with(range, |numbers| Ok(numbers.to_vec()))
    }

    /// Looks at some of its numbers, with the interpreter's lock held: nobody changes them meanwhile.
    pub(crate) fn with<R>(
        &self,
        range: Range<usize>,
        look: impl FnOnce(&[T]) -> Result<R>,
    ) -> Result<R> {
        let changed = || {
            Failure::array(format!(
                "{} was changed in size while it was read",
                self.name
            ))
        };
        let reader = self.array.try_readonly().map_err(|_| changed())?;
        let numbers = reader.as_slice().map_err(|_| changed())?;
        look(numbers.get(range).ok_or_else(changed)?)
    }

    /// A copy of all.
    pub(crate) fn all(&self) -> Result<Vec<T>> {
        self.copy(0..self.shape.iter().product())
    }
}

/// Memory for so many values; where there is none, an error instead of the end of the process.
pub(crate) fn room<T>(count: usize) -> Result<Vec<T>> {
    let mut values = Vec::new();
    values.try_reserve_exact(count).map_err(|_| {
        let bytes = count.saturating_mul(size_of::<T>());
        let what = format!("no memory for an array of {bytes} bytes: ask for less at a time");
        Failure::Named("OutOfMemoryError", what)
    })?;
    Ok(values)
}

/// So many zeros, whose memory is not touched yet.
pub(crate) fn zeros<T: Copy + Default>(count: usize) -> Result<Vec<T>> {
    drop(room::<T>(count)?);
    Ok(vec![T::default(); count])
}

/// Does work for all rows, side by side on the processor's cores: which rows, and their part of an output that has so many
/// numbers for each.
pub(crate) fn in_parts<T: Send>(
    rows: usize,
    (mut out, len): (&mut [T], usize),
    work: &(impl Fn(Range<usize>, &mut [T]) -> Result<()> + Sync),
) -> Result<()> {
    let threads = available_parallelism().map_or(1, usize::from);
    let step = rows.div_ceil(threads).max(1);
    scope(|scope| {
        let mut running = Vec::new();
        for start in (0..rows).step_by(step) {
            let end = rows.min(start + step);
            let (part, rest) = out.split_at_mut((end - start) * len);
            out = rest;
            running.push(scope.spawn(move || work(start..end, part)));
        }
        let mut done = Ok(());
        for thread in running {
            let ended = thread.join();
            let failed = |_| Err(Failure::internal("a thread has failed"));
            done = done.and(ended.unwrap_or_else(failed));
        }
        done
    })
}
