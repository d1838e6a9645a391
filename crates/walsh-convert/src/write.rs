//! Writing what was planned: tensor after tensor, rows on all threads.

use std::io::{BufWriter, Read, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use walsh_formats::ggml;

use crate::plan::{Plan, Planned};
use crate::source::Tensor;
use crate::{Error, Result};

/// How many bytes of output are made before they are written.
const SLAB: usize = 32 << 20;

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The tensor that is being written.
    pub tensor: &'a str,
    /// The bytes of the source that are done.
    pub done: u64,
    /// The bytes of the source.
    pub total: u64,
}

/// What is there of a file that a run has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// How many tensors it has.
    pub tensors: usize,
    /// Where they end; 0 where there is nothing, not even the file's head.
    pub bytes: u64,
}

/// How a plan is carried out.
pub struct WriteOptions<'a> {
    /// How many threads encode, at least one.
    pub threads: usize,
    /// Ends it when set.
    pub cancel: &'a AtomicBool,
    /// Is told about every slab.
    pub progress: &'a mut dyn FnMut(Progress<'_>),
}

impl Plan<'_> {
    /// The bytes of the file.
    ///
    /// # Errors
    /// When the model cannot be written as a file.
    pub fn file_bytes(&self) -> Result<u64> {
        Ok(self.writer()?.file_bytes())
    }

    /// Writes the file. What it takes of memory is a slab of output and a row for each thread.
    ///
    /// # Errors
    /// Those of `out`, values that their type does not hold, and [`Error::Cancelled`]. What was written stays.
    pub fn write(&self, out: &mut dyn Write, options: &mut WriteOptions<'_>) -> Result<()> {
        self.write_from(Kept::default(), out, options)
    }

    /// What a file of so many bytes that a run of the same plan has left has of the whole one: its head and whole tensors.
    /// Whether it was made of the same values is for the caller to know.
    ///
    /// # Errors
    /// When the model cannot be written as a file, or the file cannot be read.
    pub fn kept(&self, left: &mut dyn Read, length: u64) -> Result<Kept> {
        let writer = self.writer()?;
        let (head, mut found) = (writer.head(), Vec::new());
        left.take(head.len() as u64).read_to_end(&mut found)?;
        if found != head {
            return Ok(Kept::default());
        }
        let ends = (0..=self.tensors.len()).map(|tensors| writer.end_of(tensors));
        let whole = ends.take_while(|end| *end <= length).count();
        let tensors = whole.saturating_sub(1);
        Ok(Kept {
            tensors,
            bytes: writer.end_of(tensors),
        })
    }

    /// Writes what a file lacks that has [`kept`](Self::kept) of the whole one, and has been cut to that.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_from(
        &self,
        kept: Kept,
        out: &mut dyn Write,
        options: &mut WriteOptions<'_>,
    ) -> Result<()> {
        let writer = self.writer()?;
        let mut out = BufWriter::with_capacity(1 << 20, out);
        if kept.bytes == 0 {
            out.write_all(&writer.head())?;
        }
        let mut file = writer.go_on(out, kept.tensors);
        let (total, _) = self.bytes();
        let done = self.tensors.iter().take(kept.tensors);
        let mut done: u64 = done.map(|tensor| tensor.bytes_from).sum();
        let tensors = self.source.tensors.iter().zip(&self.tensors);
        for (tensor, planned) in tensors.skip(kept.tensors) {
            // Without values there are no rows to go over, however many the shape counts.
            if tensor.bytes() == 0 {
                continue;
            }
            let work = Work {
                tensor,
                planned,
                importance: self.imatrix.and_then(|imatrix| imatrix.get(&tensor.name)),
            };
            let rows = tensor.rows() as usize;
            let row_bytes = (planned.bytes_to / tensor.rows().max(1)) as usize;
            let slab_rows = (SLAB / row_bytes.max(1)).clamp(1, rows.max(1));
            let mut slab = Vec::new();
            for first in (0..rows).step_by(slab_rows) {
                if options.cancel.load(Ordering::Relaxed) {
                    return Err(Error::Cancelled);
                }
                (options.progress)(Progress {
                    tensor: &tensor.name,
                    done: done + tensor.bytes() / rows as u64 * first as u64,
                    total,
                });
                let count = slab_rows.min(rows - first);
                if work.is_copied() && tensor.is_stored() {
                    for row in first..first + count {
                        file.put(&tensor.row(row)?)?;
                    }
                    continue;
                }
                slab.resize(count * row_bytes, 0);
                work.encode(first, &mut slab, options)?;
                file.put(&slab)?;
            }
            done += tensor.bytes();
        }
        file.finish()?;
        (options.progress)(Progress {
            tensor: "",
            done: total,
            total,
        });
        Ok(())
    }
}

/// A tensor that is encoded.
struct Work<'a> {
    tensor: &'a Tensor<'a>,
    planned: &'a Planned,
    importance: Option<&'a [f32]>,
}

impl Work<'_> {
    /// Whether rows stay as they are.
    fn is_copied(&self) -> bool {
        self.planned.from == self.planned.to && !self.tensor.is_merged()
    }

    /// Encodes the rows from `first` on that `slab` has room for.
    fn encode(&self, first: usize, slab: &mut [u8], options: &WriteOptions<'_>) -> Result<()> {
        /// Values that a thread takes at once.
        const PIECE: usize = 1 << 16;
        let columns = self.tensor.columns() as usize;
        let row_bytes = (self.planned.bytes_to / self.tensor.rows()) as usize;
        let piece_rows = (PIECE / columns).max(1);
        let pieces: Vec<Mutex<&mut [u8]>> = slab
            .chunks_mut(piece_rows * row_bytes)
            .map(Mutex::new)
            .collect();
        let next = AtomicUsize::new(0);
        let failure = Mutex::new(None);
        let work = || {
            let mut values = vec![0.0; columns];
            while !options.cancel.load(Ordering::Relaxed) {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(piece) = pieces.get(index) else {
                    return;
                };
                // Each is taken once.
                let Ok(mut piece) = piece.lock() else {
                    return;
                };
                for (row, bytes) in piece.chunks_mut(row_bytes).enumerate() {
                    let row = first + index * piece_rows + row;
                    if let Err(error) = self.encode_row(row, &mut values, bytes) {
                        next.store(pieces.len(), Ordering::Relaxed);
                        if let Ok(mut failure) = failure.lock() {
                            failure.get_or_insert(error);
                        }
                        return;
                    }
                }
            }
        };
        let helpers = options.threads.min(pieces.len()).saturating_sub(1);
        thread::scope(|scope| {
            for _ in 0..helpers {
                scope.spawn(work);
            }
            work();
        });
        match failure.into_inner() {
            Ok(Some(error)) => Err(error),
            _ if options.cancel.load(Ordering::Relaxed) => Err(Error::Cancelled),
            _ => Ok(()),
        }
    }

    fn encode_row(&self, row: usize, values: &mut [f32], out: &mut [u8]) -> Result<()> {
        if self.is_copied() {
            out.copy_from_slice(&self.tensor.row(row)?);
            return Ok(());
        }
        self.tensor.read(row, values)?;
        let to = self.planned.to;
        let encoded = match self.importance {
            None => ggml::encode(to, values, out),
            Some(importance) => {
                let matrix = row / self.tensor.rows_per_matrix() as usize;
                let columns = matrix * values.len()..(matrix + 1) * values.len();
                ggml::encode_weighted(to, values, &importance[columns], out)
            }
        };
        encoded.map_err(|error| Error::Values {
            tensor: format!("{}, row {row}", self.tensor.name),
            error,
        })
    }
}
