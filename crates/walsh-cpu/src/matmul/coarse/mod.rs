//! Coarse copies of weights, with which the largest products are found: see [`Screen`].
//!
//! A row `w` of the weight has a copy `c` in blocks of 4 or 5 bits. Products of both with an input `x` differ by
//! `(w − c) · x`, at most `‖w − c‖ · ‖x‖` (Cauchy and Schwarz). Most of an input's norm lies in few of its columns, the
//! same for most inputs of a model, so what the copy leaves out there is kept beside it in 8 bits: the product with it is
//! added, and the norms are those of the other columns. What products in 32-bit floats lose to rounding is proportional
//! to `‖x‖`. A row's *reach* bounds all that, as a multiple of the input's *span*, [`span`].

mod rows;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use walsh_core::{Error, Result, Screen, ScreenPart, ScreenSample, Tensor};
use walsh_formats::DType;

use rows::{Room, coarsen};

use super::layout::LANES;
use super::pack::{PackWeights, Packing, Repacking};
use crate::isa::Isa;
use crate::memory::{CpuMemory, Pages, View};
use crate::team::{Group, Phase, Scratch, Team};

/// The types that copies have.
const COPIES: [DType; 2] = [DType::Q4_0, DType::Q5_0];

/// The type of what they leave out of some columns, and how many columns these are: a block.
pub(super) const FINE: DType = DType::Q8_0;
pub(super) const COLUMNS: usize = FINE.block_len();

/// The values of a block of a copy.
const BLOCK: usize = 32;

/// The smallest weight, in bytes, for which a search through a copy gains more than its own steps cost.
const LEAST_BYTES: u64 = 4 << 20;

/// About how many rows of the weight are copied to choose a copy, and with how many inputs: these differ much in how many
/// rows a search leaves out.
const LOOKS: usize = 2 << 10;
const INPUTS: usize = 8;

/// How much more time a byte takes in rows here and there than in a stream, on machines whose pages are small and whose
/// memory is far: measured were 5 to 12.
const SCATTERED: f64 = 8.0;

/// An input's norm is at most so many times its span.
const SPANS: f64 = 32.0;

/// A weight `[n, k]` that gains by a coarse copy.
#[derive(Clone, Copy, Debug)]
struct Coarsening {
    isa: Isa,
    weight: DType,
    n: usize,
    k: usize,
    row_bytes: usize,
    /// The type of the copy.
    copy: DType,
    /// How the copy is packed, and what it leaves out.
    coarse: Packing,
    fine: Packing,
}

impl Coarsening {
    /// `None` where nothing would be gained: the instruction set has no kernels of packed weights, or the weight's own
    /// blocks are not much larger than the smallest copy's.
    fn new(isa: Isa, weight: &Tensor) -> Option<Coarsening> {
        let size = |dimension: u64| usize::try_from(dimension).ok();
        let (n, k) = (size(weight.shape()[0])?, size(weight.shape()[1])?);
        let row_bytes = size(weight.dtype().row_bytes(k as u64)?)?;
        let [copy, ..] = COPIES;
        let coarse = Packing::new(isa, copy, n, k)?;
        // Those whose blocks have a third more bits than the smallest copy's.
        let gains = matches!(weight.dtype(), DType::Q8_0 | DType::Q6K | DType::Q5_1);
        gains.then_some(Coarsening {
            isa,
            weight: weight.dtype(),
            n,
            k,
            row_bytes,
            copy,
            coarse,
            fine: Packing::new(isa, FINE, n, COLUMNS)?,
        })
    }

    /// The same with a copy of another type.
    fn with_copy(self, copy: DType) -> Option<Coarsening> {
        let coarse = Packing::new(self.isa, copy, self.n, self.k)?;
        Some(Coarsening {
            copy,
            coarse,
            ..self
        })
    }

    /// Room to copy a row in.
    fn scratch_bytes(&self) -> usize {
        LANES * (self.coarse.row_bytes() + self.fine.row_bytes()) + 4 * (self.k + self.k / BLOCK)
    }

    /// The bytes of the parts of a screen.
    fn bytes(&self) -> [u64; 4] {
        [
            self.coarse.bytes() as u64,
            self.fine.bytes() as u64,
            4 * self.n as u64,
            4 * (COLUMNS as u64 + 1),
        ]
    }
}

/// Whether a device makes coarse copies of a weight.
pub(crate) fn coarsens(weight: &Tensor, how: &Repacking) -> bool {
    let Some(coarsening) = Coarsening::new(how.isa, weight) else {
        return false;
    };
    let bytes: u64 = coarsening.bytes().iter().sum();
    match how.packing {
        PackWeights::Never => false,
        PackWeights::Always => true,
        PackWeights::Auto => {
            weight.bytes() >= LEAST_BYTES && how.available.is_some_and(|free| bytes <= free / 2)
        }
    }
}

/// Makes the coarse copy of a weight on a team, and what belongs to it: `None` where the device [makes none](coarsens), or
/// nothing would be gained by it with such inputs, and where a number of the weight is not finite.
pub(crate) fn coarse_copy(
    weight: &Tensor,
    sample: &ScreenSample,
    how: &Repacking,
    team: &Team,
) -> Result<Option<Vec<ScreenPart>>> {
    let coarsening = Coarsening::new(how.isa, weight);
    let Some(coarsening) = coarsening.filter(|_| coarsens(weight, how)) else {
        return Ok(None);
    };
    let weight = View::of(weight)?;
    let columns = largest_columns(&sample.inputs, coarsening.k);
    let look = Look {
        weight: &weight,
        columns: &columns,
        sample,
    };
    let copies: Vec<Coarsening> = COPIES
        .iter()
        .filter_map(|copy| coarsening.with_copy(*copy))
        .collect();
    let costs = look.costs(&copies)?;
    let cheapest = copies
        .into_iter()
        .zip(costs)
        .min_by(|a, b| a.1.total_cmp(&b.1));
    let gains =
        |cost: f64| cost < coarsening.row_bytes as f64 || how.packing == PackWeights::Always;
    let Some((coarsening, _)) = cheapest.filter(|(_, cost)| gains(*cost)) else {
        return Ok(None);
    };
    let sizes = coarsening.bytes();
    let pages = |bytes| Ok::<_, Error>(CpuMemory::Part(Arc::new(Pages::whole(bytes)?), 0));
    let (coarse, fine) = (pages(sizes[0])?, pages(sizes[1])?);
    let (reach, about) = (CpuMemory::zeroed(sizes[2])?, CpuMemory::zeroed(sizes[3])?);
    let seen = Arc::new(Seen {
        finite: AtomicBool::new(true),
        lost: AtomicU32::new(0),
    });
    let phase = Coarsen {
        coarsening,
        columns,
        weight,
        copy: Copies {
            coarse: coarse.base(),
            fine: fine.base(),
            reach: reach.base().cast(),
        },
        seen: seen.clone(),
    };
    // SAFETY: the phase writes memory that nothing else knows yet, and reads what the lock of the device protects.
    unsafe { team.run(&[Group::new(vec![Box::new(phase)])]) }.map_err(|error| Error::Device {
        device: "cpu".into(),
        message: error.to_string(),
    })?;
    if !seen.finite.load(Ordering::Relaxed) {
        return Ok(None);
    }
    // SAFETY: the memory is new, and has room for the columns and a number.
    unsafe {
        let about = about.base().cast::<u32>();
        about.cast::<[u32; COLUMNS]>().write(columns);
        about.add(COLUMNS).write(seen.lost.load(Ordering::Relaxed));
    }
    let parts = sizes.into_iter().zip([coarse, fine, reach, about]);
    let part = |(bytes, memory)| ScreenPart {
        bytes,
        memory: Box::new(memory),
    };
    Ok(Some(parts.map(part).collect()))
}

/// An estimate of what searches cost with copies, from some of the rows and some inputs.
struct Look<'a> {
    weight: &'a View<u8>,
    columns: &'a [u32; COLUMNS],
    sample: &'a ScreenSample,
}

/// An input that is looked at.
struct Searched<'a> {
    input: &'a [f32],
    norms: Norms,
    /// What a product must reach to be found.
    bound: f32,
}

impl Look<'_> {
    /// What a search with each of some copies costs for each row of the weight, in bytes of a stream: of the copy, and of
    /// rows that are not left out.
    fn costs(&self, copies: &[Coarsening]) -> Result<Vec<f64>> {
        let Some(any) = copies.first() else {
            return Ok(Vec::new());
        };
        let searched = self.searched(any)?;
        let costs = copies.iter().map(|copy| self.cost(copy, &searched));
        costs.collect()
    }

    /// Inputs of the sample, spread over it.
    fn searched(&self, of: &Coarsening) -> Result<Vec<Searched<'_>>> {
        let mut values = vec![0.0; of.k];
        let inputs = self.sample.inputs.chunks_exact(of.k).zip(&self.sample.last);
        let some = inputs.step_by(self.sample.last.len().div_ceil(INPUTS));
        let searched = some.map(|(input, last)| {
            self.decode(of, *last as usize, &mut values)?;
            Ok(Searched {
                input,
                norms: self.norms(input),
                bound: dot(&values, input),
            })
        });
        searched.collect()
    }

    fn cost(&self, copy: &Coarsening, searched: &[Searched<'_>]) -> Result<f64> {
        let mut values = vec![0.0; copy.k];
        let mut scratch = vec![0.0f32; copy.scratch_bytes().div_ceil(4)];
        let (mut looks, mut reaching) = (0, 0);
        for row in (0..copy.n).step_by(copy.n.div_ceil(LOOKS)) {
            self.decode(copy, row, &mut values)?;
            let scratch = bytemuck::cast_slice_mut(&mut scratch);
            let room = Room::within(scratch, copy, 0, self.columns);
            let at = row * copy.row_bytes..(row + 1) * copy.row_bytes;
            // SAFETY: the lock of the device keeps writers away.
            let (reach, lost) = coarsen(copy, unsafe { self.weight.slice(at) }, room);
            for search in searched {
                let highest = dot(&values, search.input) + reach * span(&search.norms, lost);
                reaching += u32::from(highest >= search.bound);
                looks += 1;
            }
        }
        let share = f64::from(reaching) / f64::from(looks);
        let read = (copy.coarse.row_bytes() + copy.fine.row_bytes() + 4) as f64;
        Ok(read + share * SCATTERED * copy.row_bytes as f64)
    }

    /// A row's numbers.
    fn decode(&self, of: &Coarsening, row: usize, values: &mut [f32]) -> Result<()> {
        // SAFETY: the lock of the device keeps writers away.
        let row = unsafe {
            self.weight
                .slice(row * of.row_bytes..(row + 1) * of.row_bytes)
        };
        Ok(walsh_formats::ggml::decode(of.weight, row, values)?)
    }

    fn norms(&self, input: &[f32]) -> Norms {
        let norm = |x: &[f32]| f64::from(dot(x, x)).sqrt();
        let (mut rest, mut kept) = (input.to_vec(), [0.0; COLUMNS]);
        for (kept, column) in kept.iter_mut().zip(self.columns) {
            *kept = std::mem::take(&mut rest[*column as usize]);
        }
        Norms {
            input: norm(input),
            rest: norm(&rest),
            kept: norm(&kept),
        }
    }
}

/// About the product of two rows of whole blocks.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; BLOCK];
    for (a, b) in a.chunks_exact(BLOCK).zip(b.chunks_exact(BLOCK)) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += a * b;
        }
    }
    lanes.iter().sum()
}

/// The parts of a screen that was made here.
pub(super) struct Parts {
    /// The type of the copy.
    pub(super) copy: DType,
    /// The copy, packed.
    pub(super) coarse: View<u8>,
    /// What it leaves out of some columns, packed.
    pub(super) fine: View<u8>,
    /// Each row's reach.
    pub(super) reach: View<f32>,
    /// The columns, and as an `f32` the most that is lost of what the copy leaves out of them, relative to all that it
    /// leaves out.
    pub(super) about: View<u32>,
}

impl Parts {
    pub(super) fn of(screen: &Screen) -> Result<Parts> {
        let foreign = || Error::Device {
            device: "cpu".into(),
            message: "the screen was not made by the CPU backend".into(),
        };
        let [coarse, fine, reach, about] = screen.parts() else {
            return Err(foreign());
        };
        let shape = screen.weight().shape();
        let rows = shape[0].next_multiple_of(LANES as u64);
        let has = |copy: &DType| copy.row_bytes(shape[1]).map(|row| row * rows);
        let copy = COPIES.iter().find(|copy| has(copy) == Some(coarse.bytes()));
        Ok(Parts {
            copy: *copy.ok_or_else(foreign)?,
            coarse: View::range(coarse, 0, coarse.bytes())?,
            fine: View::range(fine, 0, fine.bytes())?,
            reach: View::range(reach, 0, reach.bytes())?,
            about: View::range(about, 0, about.bytes())?,
        })
    }
}

/// The norms of an input, and of parts of it.
pub(super) struct Norms {
    pub(super) input: f64,
    /// Of what products leave to the copy alone: the columns that are not kept apart, and what those lose in 8 bits.
    pub(super) rest: f64,
    /// Of what 8 bits have of the columns that are kept apart.
    pub(super) kept: f64,
}

/// What reaches are multiples of; `lost` is as in [`Parts::about`].
pub(super) fn span(norms: &Norms, lost: f32) -> f32 {
    let span = norms.rest + norms.kept * f64::from(lost);
    (span.max(norms.input / SPANS) as f32).next_up()
}

/// The columns where the rows of a sample are largest, relative to their norms; of equals the first.
fn largest_columns(sample: &[f32], k: usize) -> [u32; COLUMNS] {
    let mut weights = vec![0.0; k];
    for row in sample.chunks_exact(k) {
        let norm: f32 = row.iter().map(|x| x * x).sum();
        if norm.is_normal() {
            for (sum, x) in weights.iter_mut().zip(row) {
                *sum += x * x / norm;
            }
        }
    }
    let mut order: Vec<u32> = (0..k as u32).collect();
    order.sort_by(|a, b| weights[*b as usize].total_cmp(&weights[*a as usize]));
    let mut columns = [0; COLUMNS];
    columns.copy_from_slice(&order[..COLUMNS]);
    columns
}

/// What was seen of all rows.
struct Seen {
    /// Whether all numbers are finite.
    finite: AtomicBool,
    /// The bits of the `f32` that [`Parts::about`] has.
    lost: AtomicU32,
}

/// The memory that copies go to.
struct Copies {
    coarse: *mut u8,
    fine: *mut u8,
    reach: *mut f32,
}

// SAFETY: each panel, with the reach of its rows, is written by the one thread that makes it.
unsafe impl Send for Copies {}
// SAFETY: as above.
unsafe impl Sync for Copies {}

/// Makes the copy, panel by panel.
struct Coarsen {
    coarsening: Coarsening,
    columns: [u32; COLUMNS],
    weight: View<u8>,
    copy: Copies,
    seen: Arc<Seen>,
}

impl Phase for Coarsen {
    fn items(&self) -> usize {
        self.coarsening.coarse.panels()
    }

    fn cost(&self) -> u64 {
        (self.coarsening.n * self.coarsening.k) as u64
    }

    fn scratch_bytes(&self) -> usize {
        self.coarsening.scratch_bytes()
    }

    unsafe fn run(&self, items: Range<usize>, scratch: &mut Scratch) {
        let Coarsening {
            n,
            k,
            row_bytes,
            coarse,
            fine,
            ..
        } = self.coarsening;
        let scratch = scratch.bytes();
        for panel in items {
            let first = panel * LANES;
            let count = LANES.min(n - first);
            for row in 0..count {
                let room = Room::within(scratch, &self.coarsening, row, &self.columns);
                let at = (first + row) * row_bytes..(first + row + 1) * row_bytes;
                // SAFETY: nothing of this group writes the weight.
                let of_row = unsafe { self.weight.slice(at) };
                let (reach, lost) = coarsen(&self.coarsening, of_row, room);
                if !(reach.is_finite() && lost.is_finite()) {
                    self.seen.finite.store(false, Ordering::Relaxed);
                }
                // Numbers that are not negative are ordered as their bits.
                self.seen.lost.fetch_max(lost.to_bits(), Ordering::Relaxed);
                // SAFETY: each row's is written once.
                unsafe { self.copy.reach.add(first + row).write(reach) };
            }
            let rows = &scratch[4 * (k + k / BLOCK)..];
            let fine_rows = &rows[LANES * coarse.row_bytes()..];
            for (packing, memory, rows) in [
                (coarse, self.copy.coarse, rows),
                (fine, self.copy.fine, fine_rows),
            ] {
                let bytes = packing.panel_bytes();
                // SAFETY: the memory has room for all panels, and each is of one item.
                let to =
                    unsafe { std::slice::from_raw_parts_mut(memory.add(panel * bytes), bytes) };
                packing.of_rows(count).pack(0, rows, to);
            }
        }
    }
}
