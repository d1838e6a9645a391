//! Launches side by side: neighbours of a list that need not wait for each other become one launch, so that what a launch
//! costs, and the wait behind it, is paid once.

use std::fmt::Write;
use std::ops::Range;

use crate::dispatch::Dispatch;
use crate::kernel::{Platform, Variant};

/// The most dispatches of a launch: their arguments are its parameters.
const MOST: usize = 4;

/// The most groups of a launch.
const MOST_GROUPS: u64 = i32::MAX as u64;

/// What a launch compiles: the variants of its dispatches, in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fusion {
    variants: Vec<Variant>,
}

impl Fusion {
    /// The code of these dispatches as one launch.
    #[must_use]
    pub fn of(dispatches: &[Dispatch]) -> Self {
        Self {
            variants: dispatches.iter().map(|d| d.variant.clone()).collect(),
        }
    }

    /// How the dispatches of a list become launches: each is a range of neighbours of one kernel that have no hazard between
    /// them. Kernels that ask for memory at their launch, or do something before they wait, stay alone.
    #[must_use]
    pub fn launches(dispatches: &[Dispatch]) -> Vec<Range<usize>> {
        let mut launches: Vec<Range<usize>> = Vec::new();
        let mut groups = 0;
        for (at, dispatch) in dispatches.iter().enumerate() {
            let own: u64 = dispatch.groups.iter().map(|g| u64::from(*g)).product();
            let joins = launches.last().filter(|launch| {
                launch.len() < MOST
                    && !dispatch.barrier
                    && dispatch.fits_beside(&dispatches[launch.start])
                    && groups + own <= MOST_GROUPS
            });
            if joins.is_some() {
                groups += own;
                if let Some(launch) = launches.last_mut() {
                    launch.end = at + 1;
                }
            } else {
                groups = own;
                launches.push(at..at + 1);
            }
        }
        launches
    }

    /// The name of the compiled entry point.
    #[must_use]
    pub fn symbol(&self) -> String {
        match &self.variants[..] {
            [alone] => alone.symbol(),
            several => several
                .iter()
                .map(Variant::symbol)
                .collect::<Vec<_>>()
                .join("__"),
        }
    }

    /// Threadgroup memory that is asked for at the launch, in bytes.
    #[must_use]
    pub fn dynamic_bytes(&self) -> u32 {
        self.variants.first().map_or(0, Variant::dynamic_bytes)
    }

    /// The whole text for CUDA's compiler.
    #[must_use]
    pub fn source(&self) -> String {
        let [first, .., _] = &self.variants[..] else {
            return self
                .variants
                .first()
                .map_or_else(String::new, |alone| alone.source(Platform::Cuda));
        };
        let mut source = Variant::header(Platform::Cuda);
        for (at, variant) in self.variants.iter().enumerate() {
            if !self.variants[..at].contains(variant) {
                source.push_str(&variant.text(Platform::Cuda));
            }
        }
        // Where each part's groups end in line, and its grid.
        source.push_str("struct WalshPart {\n    uint end, x, y, nothing;\n};\n");
        let (count, threads) = (self.variants.len(), first.threads());
        let _ = write!(
            source,
            "struct WalshParts {{\n    WalshPart part[{count}];\n}};\n\
             extern \"C\" __global__ void __launch_bounds__({threads}) {}(const __grid_constant__ WalshParts parts",
            self.symbol()
        );
        for (at, variant) in self.variants.iter().enumerate() {
            let (space, args) = (variant.space(), variant.kernel().args.name);
            let _ = write!(
                source,
                ", const __grid_constant__ {space}::{args} args_{at}"
            );
            for buffer in variant.kernel().buffers {
                let _ = write!(source, ", {}_{at}", buffer.pointer());
            }
        }
        source.push_str(") {\n");
        if first.kernel().shared {
            source.push_str("    __shared__ union {\n");
            for (at, variant) in self.variants.iter().enumerate() {
                let _ = writeln!(source, "        {}::Shared part_{at};", variant.space());
            }
            source.push_str("    } shared;\n");
        }
        source.push_str("    walsh_begin();\n    uint group = blockIdx.x;\n");
        for (at, variant) in self.variants.iter().enumerate() {
            let (space, name) = (variant.space(), variant.kernel().name);
            let buffers: String = variant
                .kernel()
                .buffers
                .iter()
                .map(|buffer| format!("{}_{at}, ", buffer.name))
                .collect();
            let shared = match first.kernel().shared {
                true => format!("shared.part_{at}, "),
                false => String::new(),
            };
            let before = match at {
                0 => "0u".to_owned(),
                _ => format!("parts.part[{}].end", at - 1),
            };
            let _ = write!(
                source,
                "    if (group < parts.part[{at}].end) {{\n\
                 \x20       group -= {before};\n\
                 \x20       uint x = parts.part[{at}].x, y = parts.part[{at}].y;\n\
                 \x20       Position at = {{group % x, group / x % y, group / x / y, threadIdx.x, threadIdx.x % 32, threadIdx.x / 32}};\n\
                 \x20       {space}::{name}(args_{at}, {buffers}{shared}at);\n\
                 \x20       return;\n    }}\n"
            );
        }
        source.push_str("}\n");
        source
    }

    /// The grid of a launch, and what it is told of its parts, where there are several.
    #[must_use]
    pub fn grid(dispatches: &[Dispatch]) -> ([u32; 3], Vec<u32>) {
        if let [alone] = dispatches {
            return (alone.groups, Vec::new());
        }
        let (mut end, mut parts) = (0, Vec::with_capacity(4 * dispatches.len()));
        for dispatch in dispatches {
            let [x, y, z] = dispatch.groups;
            end += x * y * z;
            parts.extend([end, x, y, 0]);
        }
        ([end, 1, 1], parts)
    }
}

impl Dispatch {
    /// Whether it and another can be one launch, as far as their kernels go.
    fn fits_beside(&self, other: &Self) -> bool {
        let [kernel, others] = [self, other].map(|dispatch| dispatch.variant.kernel());
        let begins = kernel.text_on(Platform::Cuda).contains("walsh_begin()");
        kernel.name == others.name
            && self.variant.threads() == other.variant.threads()
            && self.variant.dynamic_bytes() == 0
            && !begins
    }
}
