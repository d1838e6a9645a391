//! Lists of ops, lowered one after the other.

use walsh_core::ops::{MatMul, Op, Operation};
use walsh_core::{
    Access, Accesses, Buffer, DeviceId, HazardTracker, Memory, Plan, Result, Workspace,
};

use crate::check::Check;
use crate::dispatch::{Dispatch, Lowered};
use crate::kernel::Variant;
use crate::lower::{Allocate, Limits, Lowering, STATUS_WORDS};
use crate::neighbours;
use crate::ops;

/// A command list that is being lowered.
pub struct List {
    limits: Limits,
    allocate: Allocate,
    /// Allocated with the first op.
    status: Option<Buffer>,
    workspace: Workspace,
    dispatches: Vec<Dispatch>,
    checks: Vec<Check>,
    commands: usize,
}

impl List {
    /// A list without ops.
    #[must_use]
    pub fn new(limits: Limits, allocate: Allocate) -> Self {
        Self {
            limits,
            allocate,
            status: None,
            workspace: Workspace::default(),
            dispatches: Vec::new(),
            checks: Vec::new(),
            commands: 0,
        }
    }

    /// Lowers a validated op behind those already there; which dispatches that takes. `accesses` are the op's.
    ///
    /// # Errors
    /// [`Error::Unsupported`](walsh_core::Error::Unsupported) when no kernel takes the op; what `allocate` says. The list
    /// is then as it was before.
    pub fn push(&mut self, op: &Op, accesses: &Accesses) -> Result<Plan> {
        let status = self.status()?;
        let mut lowering = Lowering {
            limits: self.limits,
            allocate: &mut self.allocate,
            workspace: self.workspace.clone(),
            taken: 0,
            dispatches: Vec::new(),
            status,
            checks: Vec::new(),
            earlier_checks: self.checks.len(),
            op: op.name(),
            command: self.commands,
        };
        ops::lower(op, &mut lowering)?;
        let Lowering {
            workspace,
            taken,
            dispatches,
            checks,
            ..
        } = lowering;
        let plan = plan(&dispatches, taken);
        self.dispatches.extend(dispatches);
        self.checks.extend(checks);
        self.workspace = workspace;
        for written in &accesses.writes {
            self.workspace.invalidate(written);
        }
        self.commands += 1;
        Ok(plan)
    }

    /// What the list has become.
    ///
    /// # Errors
    /// What `allocate` says.
    pub fn finish(mut self) -> Result<Lowered> {
        let status = self.status()?;
        let mut lowering = Lowering {
            limits: self.limits,
            allocate: &mut self.allocate,
            // What ops took as they were pushed may be in use anywhere in the list.
            workspace: Workspace::default(),
            taken: 0,
            dispatches: Vec::new(),
            status: status.clone(),
            checks: Vec::new(),
            earlier_checks: self.checks.len(),
            op: MatMul::NAME,
            command: 0,
        };
        let joined = neighbours::join(self.dispatches, &mut lowering)?;
        let mut dispatches = lowering.dispatches;
        let mut hazards = HazardTracker::new();
        for dispatch in &mut dispatches {
            dispatch.barrier = hazards.add(&dispatch.accesses());
        }
        Ok(Lowered {
            backend: self.limits.backend,
            status,
            dispatches,
            checks: self.checks,
            joined,
        })
    }

    fn status(&mut self) -> Result<Buffer> {
        if let Some(status) = &self.status {
            return Ok(status.clone());
        }
        let status = (self.allocate)(4 * STATUS_WORDS)?;
        Ok(self.status.insert(status).clone())
    }
}

/// The kernels of an op, the groups of the largest and the workspace that they take.
pub(crate) fn plan(dispatches: &[Dispatch], workspace: u64) -> Plan {
    let names: Vec<String> = dispatches.iter().map(|d| d.variant.symbol()).collect();
    let pieces = dispatches
        .iter()
        .map(|d| d.groups.iter().map(|g| u64::from(*g)).product::<u64>());
    Plan {
        kernel: names.join(" + "),
        pieces: pieces.max().unwrap_or(0),
        workspace,
    }
}

/// The variants that an op runs, in order, on a device that need not be there.
///
/// # Errors
/// As [`List::push`].
pub fn variants_of(op: &Op, limits: &Limits) -> Result<Vec<Variant>> {
    let mut list = imagined(*limits);
    list.push(op, &op.accesses())?;
    let variant = |dispatch: Dispatch| dispatch.variant;
    Ok(list.finish()?.dispatches.into_iter().map(variant).collect())
}

/// A list that nothing runs.
fn imagined(limits: Limits) -> List {
    let device = DeviceId::unique();
    let allocate = move |bytes| {
        let memory = Box::new(Imagined);
        Ok(Buffer::new(device, bytes, Access::ReadWrite, memory))
    };
    List::new(limits, Box::new(allocate))
}

/// Memory that nothing runs on.
struct Imagined;

impl Memory for Imagined {}

#[cfg(test)]
mod tests {
    use walsh_core::formats::DType;
    use walsh_core::ops::{ArgMax, GatedActivation, MatMul, Scale};
    use walsh_core::{Activations, Tensor, tensor_bytes};

    use super::*;
    use crate::kernels;

    const LIMITS: Limits = Limits {
        backend: "paper",
        multiprocessors: 8,
        threadgroup_bytes: 32 << 10,
        bfloat_matrices: true,
        fragment_bytes: 0,
        warpgroup_matrices: false,
        cluster_groups: 1,
        joins: false,
        activations: Activations::Int8,
    };

    /// A tensor that no memory stands behind.
    fn tensor(dtype: DType, shape: &[u64]) -> Tensor {
        let bytes = tensor_bytes(dtype, shape).unwrap();
        let buffer = Buffer::new(
            DeviceId::unique(),
            bytes,
            Access::ReadWrite,
            Box::new(Imagined),
        );
        Tensor::new(buffer, 0, dtype, shape).unwrap()
    }

    #[test]
    fn every_table_entry_is_sound() {
        for kernel in kernels() {
            assert!(
                kernel.text.is_empty() || kernel.buffers.len() <= 9,
                "{} has too many buffers",
                kernel.name
            );
            assert!(
                kernel.constants.contains(&"THREADS"),
                "{} has no THREADS",
                kernel.name
            );
            let begins = format!("inline void {}(", kernel.name);
            let natives = kernel.native.iter().map(|native| native.text);
            let texts = natives.chain((!kernel.text.is_empty()).then_some(kernel.text));
            assert!(texts.clone().count() > 0, "{} has no text", kernel.name);
            let before = kernel.includes.iter().any(|text| text.contains(&begins));
            for text in texts {
                assert!(before || text.contains(&begins), "{}", kernel.name);
            }
        }
    }

    #[test]
    fn an_op_that_cannot_be_lowered_leaves_the_list_as_it_was() {
        let product = |rows: u64| -> Op {
            MatMul {
                weight: tensor(DType::Q4_0, &[32, 32]),
                input: tensor(DType::F32, &[rows, 32]),
                bias: None,
                output: tensor(DType::F32, &[rows, 32]),
            }
            .into()
        };
        let list = || {
            imagined(Limits {
                bfloat_matrices: false,
                ..LIMITS
            })
        };
        let (wide, narrow) = (product(1 << 20), product(3));
        let (mut with, mut without) = (list(), list());
        // Its input is quantised before the grid of its product turns out to be too large.
        let error = with.push(&wide, &wide.accesses()).unwrap_err().to_string();
        assert!(error.contains("a grid of"), "{error}");
        let plans = [&mut with, &mut without].map(|list| {
            let plan = list.push(&narrow, &narrow.accesses()).unwrap();
            assert_eq!(list.dispatches.len(), 2);
            assert!(list.dispatches.iter().all(|dispatch| dispatch.command == 0));
            plan
        });
        assert_eq!(plans[0], plans[1]);
        let again = with.push(&wide, &wide.accesses()).unwrap_err().to_string();
        assert_eq!(again, error);
    }

    #[test]
    fn more_numbers_than_kernels_count_are_refused() {
        let half = tensor(DType::F32, &[1 << 15, 1 << 15]);
        let scale = |input: &Tensor| -> Op {
            let (input, output) = (input.clone(), input.clone());
            Scale {
                input,
                factor: 2.0,
                output,
            }
            .into()
        };
        assert!(variants_of(&scale(&half), &LIMITS).is_ok());
        let large = tensor(DType::F32, &[1 << 15, 1 << 16]);
        let ops: [Op; 3] = [
            scale(&large),
            GatedActivation {
                gate: large.clone(),
                up: large.clone(),
                activation: walsh_core::ops::Activation::Silu,
                output: large.clone(),
            }
            .into(),
            ArgMax {
                input: large.clone(),
                output: tensor(DType::I32, &[1 << 15]),
            }
            .into(),
        ];
        for op in ops {
            op.validate().unwrap();
            let error = variants_of(&op, &LIMITS).unwrap_err().to_string();
            assert!(
                error.contains("2^31") && error.contains(op.name()),
                "{error}"
            );
        }
    }
}
