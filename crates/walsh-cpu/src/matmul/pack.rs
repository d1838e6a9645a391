//! Packed weights: sixteen rows side by side.
//!
//! A packed weight is a row of *panels*; one of experts is their rows one after the other, where each has whole panels. A panel has sixteen rows of the weight, block by block; within a block it has
//! each 32-bit word of the sixteen blocks side by side, so that one vector holds a word of every row, and what lies `at`
//! bytes into a block lies `16 · at` bytes into these. Blocks that are no whole number of words (`q4_0`, `q5_0`, `q8_0`,
//! `iq4_nl`, `q3_K`, `q6_K`, `mxfp4`) have their scale, of one byte or two, apart: sixteen of them side by side. So a
//! packed weight is as large as its rows, rounded up to sixteen, and no bit of it is another.
//!
//! With one row of input a kernel reads a panel from end to end, as one stream, and adds up sixteen results at once,
//! without moving a code from one lane to another. What rows need for that, transposing, is done once.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use walsh_core::{Error, Result, Tensor};
use walsh_formats::DType;
use walsh_formats::ggml::{self, Field, Role};

use super::blocks;
use super::contract::Transposition;
use super::layout::LANES;
use super::registry;
use crate::isa::Isa;
use crate::memory::{ALIGN, CpuMemory, Pages, View};
use crate::team::{Group, Phase, Scratch, Team};

/// Whether a CPU device copies weights when it is asked to: into the order that its products read fastest
/// ([`Device::pack`](walsh_core::Device::pack)), and coarsely, to find the largest products
/// ([`Device::screen`](walsh_core::Device::screen)).
///
/// Products with one row of input add up in another order over packed weights, so that their last bits differ: who
/// wants the same bits on every run, whatever memory is free, says `Always` or `Never`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PackWeights {
    /// Where the instruction set gains by it and the packed weights take at most half of the memory that is free.
    #[default]
    Auto,
    /// Where the instruction set gains by it, whatever memory is free.
    Always,
    /// Not at all: all products read weights as they are stored.
    Never,
}

impl PackWeights {
    /// All of them, the default first.
    pub const ALL: &'static [PackWeights] =
        &[PackWeights::Auto, PackWeights::Always, PackWeights::Never];

    /// The name that [`FromStr`] reads: `auto`, `always` or `never`.
    pub fn name(self) -> &'static str {
        match self {
            PackWeights::Auto => "auto",
            PackWeights::Always => "always",
            PackWeights::Never => "never",
        }
    }
}

impl fmt::Display for PackWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is none of [`PackWeights`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown way to pack '{name}': expected auto, always or never")]
pub struct UnknownPacking {
    /// The name that was given.
    pub name: String,
}

impl FromStr for PackWeights {
    type Err = UnknownPacking;

    fn from_str(name: &str) -> Result<Self, UnknownPacking> {
        let found = PackWeights::ALL.iter().find(|how| how.name() == name);
        found
            .copied()
            .ok_or_else(|| UnknownPacking { name: name.into() })
    }
}

/// A weight `[n, k]` that can be packed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packing {
    n: usize,
    row_bytes: usize,
    block_bytes: usize,
    /// What blocks that are no whole number of words have apart: their scale, the first field or the last.
    apart: Option<Field>,
    transpose: Transposition,
}

impl Packing {
    /// How a weight of `n` rows of `k` values is packed for an instruction set; `None` where nothing would be gained:
    /// the set has no kernels for it, or there are fewer rows than a panel has.
    pub(crate) fn new(isa: Isa, weight: DType, n: usize, k: usize) -> Option<Packing> {
        Packing::by(registry::kernels(isa).packs?, weight, n, k)
    }

    /// The same for a set that has this.
    fn by(transpose: Transposition, weight: DType, n: usize, k: usize) -> Option<Packing> {
        let row_bytes = usize::try_from(weight.row_bytes(k as u64)?).ok()?;
        let packs = n >= LANES && blocks::is_side_by_side(weight);
        let form = ggml::form(weight).filter(|_| packs)?;
        let block_bytes = weight.block_bytes();
        let is_apart = |field: &Field| {
            matches!(field.role, Role::Scale | Role::PowerScale) && field.bytes == block_bytes % 4
        };
        Some(Packing {
            n,
            row_bytes,
            block_bytes,
            apart: form.fields.iter().copied().find(is_apart),
            transpose,
        })
    }

    /// The same for so many rows.
    pub(super) fn of_rows(self, n: usize) -> Packing {
        Packing { n, ..self }
    }

    /// The bytes of a row.
    pub(super) fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// The number of panels.
    pub(crate) fn panels(&self) -> usize {
        self.n.div_ceil(LANES)
    }

    /// The bytes of a panel.
    pub(crate) fn panel_bytes(&self) -> usize {
        LANES * self.row_bytes
    }

    /// The bytes of the packed weight.
    pub(crate) fn bytes(&self) -> usize {
        self.panels() * self.panel_bytes()
    }

    /// Packs a panel, of [`Packing::panel_bytes`] bytes, of the rows as a file has them. Rows past the last are zero, which
    /// every type has zero for.
    pub(crate) fn pack(&self, index: usize, weight: &[u8], panel: &mut [u8]) {
        let rows = index * LANES..((index + 1) * LANES).min(self.n);
        let words = match self.apart {
            None => 0..self.block_bytes,
            Some(Field { at: 0, bytes, .. }) => bytes..self.block_bytes,
            Some(last) => 0..last.at,
        };
        let weight = &weight[rows.start * self.row_bytes..rows.end * self.row_bytes];
        for (block, to) in panel.chunks_exact_mut(LANES * self.block_bytes).enumerate() {
            let blocks: [&[u8]; LANES] = std::array::from_fn(|lane| {
                if lane < rows.len() {
                    &weight[lane * self.row_bytes + block * self.block_bytes..][..self.block_bytes]
                } else {
                    &ZEROS[..self.block_bytes]
                }
            });
            // What lies `at` bytes into a block lies sixteen times as far into the panel's.
            let words_of = blocks.map(|block| block[words.clone()].as_ptr());
            let to_words = &mut to[LANES * words.start..LANES * words.end];
            // SAFETY: sixteen blocks have so many words, and there is room for those of all.
            unsafe { (self.transpose)(&words_of, words.len() / 4, to_words.as_mut_ptr()) };
            if let Some(Field { at, bytes, .. }) = self.apart {
                let to = to[LANES * at..].chunks_exact_mut(bytes);
                for (block, to) in blocks.into_iter().zip(to) {
                    to.copy_from_slice(&block[at..at + bytes]);
                }
            }
        }
    }
}

/// A block of any type, for lanes without a row.
static ZEROS: [u8; 256] = [0; 256];

const _: () = assert!(DType::Q6K.block_bytes() <= ZEROS.len());

/// Packs weights on a team: `None` for those that gain nothing by it, and for all where the device leaves it to memory
/// and there is too little.
pub(crate) fn pack(
    weights: &[Tensor],
    how: Repacking,
    team: &Team,
) -> Result<Vec<Option<CpuMemory>>> {
    let size = |dimension: u64| usize::try_from(dimension).ok();
    let packing = |weight: &Tensor| {
        let (n, k) = (size(weight.row_count())?, size(weight.row_len())?);
        // Each expert's rows begin with a panel.
        let whole = match weight.shape() {
            [_, rows, _] => rows.is_multiple_of(LANES as u64),
            _ => true,
        };
        Packing::new(how.isa, weight.dtype(), n, k).filter(|_| whole)
    };
    let none = || weights.iter().map(|_| None).collect();
    let packings: Vec<_> = match how.packing {
        PackWeights::Never => return Ok(none()),
        _ => weights.iter().map(packing).collect(),
    };
    let room = |packing: &Packing| packing.bytes().next_multiple_of(ALIGN);
    let total: u64 = packings
        .iter()
        .flatten()
        .map(|packing| room(packing) as u64)
        .sum();
    if total == 0 || !how.packs(total) {
        return Ok(none());
    }
    let pages = Arc::new(Pages::whole(total)?);
    let (mut packed, mut phases): (Vec<_>, Vec<Box<dyn Phase>>) = (Vec::new(), Vec::new());
    let mut offset = 0;
    for (weight, packing) in weights.iter().zip(packings) {
        let Some(packing) = packing else {
            packed.push(None);
            continue;
        };
        let memory = CpuMemory::Part(pages.clone(), offset);
        offset += room(&packing);
        phases.push(Box::new(Pack {
            packing,
            weight: View::of(weight)?,
            panels: Panels(memory.base()),
        }));
        packed.push(Some(memory));
    }
    // SAFETY: each phase writes memory that nothing else knows yet, and reads what the lock of the device protects.
    unsafe { team.run(&[Group::new(phases)]) }.map_err(|error| Error::Device {
        device: "cpu".into(),
        message: error.to_string(),
    })?;
    Ok(packed)
}

/// How a device packs.
pub(crate) struct Repacking {
    pub(crate) isa: Isa,
    pub(crate) packing: PackWeights,
    /// The memory that is free.
    pub(crate) available: Option<u64>,
}

impl Repacking {
    /// Whether so many bytes of packed weights are made.
    fn packs(&self, bytes: u64) -> bool {
        match self.packing {
            PackWeights::Always => true,
            PackWeights::Never => false,
            PackWeights::Auto => self.available.is_some_and(|free| bytes <= free / 2),
        }
    }
}

/// The memory that panels go to.
struct Panels(*mut u8);

// SAFETY: each panel is written by the one thread that packs it.
unsafe impl Send for Panels {}
// SAFETY: as above.
unsafe impl Sync for Panels {}

struct Pack {
    packing: Packing,
    weight: View<u8>,
    panels: Panels,
}

impl Phase for Pack {
    fn items(&self) -> usize {
        self.packing.panels()
    }

    fn cost(&self) -> u64 {
        self.packing.bytes() as u64 / 3
    }

    unsafe fn run(&self, items: Range<usize>, _: &mut Scratch) {
        let bytes = self.packing.panel_bytes();
        for panel in items {
            // SAFETY: the panels have the sizes of the packing and each is of one item; the lock of the device keeps
            // writers of the weight away.
            unsafe {
                let to = self.panels.0.add(panel * bytes);
                let to = std::slice::from_raw_parts_mut(to, bytes);
                self.packing.pack(panel, self.weight.all(), to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_from_the_shape_alone() {
        unsafe fn none(_: &[*const u8; LANES], _: usize, _: *mut u8) {}
        for (dtype, n, k, bytes) in [
            (DType::Q4_0, 576, 1536, 576 * 48 * 18),
            // Rounded up to sixteen rows.
            (DType::Q4_0, 40, 64, 48 * 2 * 18),
            (DType::Q8_0, 16, 32, 16 * 34),
            (DType::Q6K, 192, 256, 192 * 210),
        ] {
            let found = Packing::by(none, dtype, n, k).map(|packing| packing.bytes());
            assert_eq!(found, Some(bytes), "{dtype} [{n}, {k}]");
        }
        for (dtype, n, k) in [
            (DType::F16, 40, 64),
            (DType::F32, 40, 64),
            (DType::Q4_0, LANES - 1, 64),
            (DType::Q4K, 16, 128),
        ] {
            assert!(Packing::by(none, dtype, n, k).is_none(), "{dtype} {n} {k}");
        }
    }

    #[test]
    fn memory_decides_unless_the_device_was_told() {
        for (packing, available, expected) in [
            (PackWeights::Auto, Some(200), true),
            (PackWeights::Auto, Some(199), false),
            (PackWeights::Auto, None, false),
            (PackWeights::Always, Some(0), true),
            (PackWeights::Always, None, true),
            (PackWeights::Never, Some(u64::MAX), false),
        ] {
            let how = Repacking {
                isa: Isa::Portable,
                packing,
                available,
            };
            assert_eq!(how.packs(100), expected, "{packing} {available:?}");
        }
    }

    #[test]
    fn names_read_back() {
        for how in PackWeights::ALL {
            assert_eq!(how.name().parse(), Ok(*how));
        }
        let error = "yes".parse::<PackWeights>().unwrap_err().to_string();
        assert!(error.contains("auto, always or never"), "{error}");
    }
}
