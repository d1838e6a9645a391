//! A device that runs nothing and notes which kernels it would need.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use walsh::ops::Op;
use walsh::{
    Accesses, Backend, Device, HostBytes, Memory, Plan, Program, Properties, Recording, Result,
    Span,
};
use walsh_kernels::{Limits, Variant};

/// The multiprocessors of a large GPU: kernels are chosen as for one.
const MULTIPROCESSORS: u32 = 132;

/// What kernels are chosen by on a large GPU of a compute capability.
pub(crate) fn limits(capability: (i32, i32)) -> Limits {
    walsh::cuda::limits(capability, MULTIPROCESSORS, walsh::Activations::Int8)
}

/// A kernel that was asked for.
pub(crate) struct Kernel {
    pub(crate) variant: Variant,
    /// Whether a model needs it.
    pub(crate) hot: bool,
    /// The limits that it is chosen by, as numbers among the recorder's.
    pub(crate) limits: BTreeSet<usize>,
}

/// What was asked for.
#[derive(Default)]
pub(crate) struct Wanted {
    /// Each kernel by its symbol.
    pub(crate) kernels: BTreeMap<String, Kernel>,
    /// What has no kernel, with the first reason and how often.
    pub(crate) missing: BTreeMap<&'static str, (String, usize)>,
}

/// The device's backend, and the other end of what it notes.
#[derive(Clone)]
pub(crate) struct Recorder {
    properties: Properties,
    limits: Vec<Limits>,
    wanted: Arc<Mutex<Wanted>>,
    hot: bool,
}

impl Recorder {
    /// A recorder of what is chosen by each of some limits.
    pub(crate) fn new(limits: Vec<Limits>) -> Self {
        Self {
            properties: Properties {
                backend: "nvrtc",
                name: "a GPU that is not there".into(),
                architecture: "any".into(),
                parallelism: MULTIPROCESSORS as usize,
            },
            limits,
            wanted: Arc::default(),
            hot: false,
        }
    }

    /// A device that notes for the same list; `hot` for models.
    pub(crate) fn device(&self, hot: bool) -> Device {
        Device::new(Arc::new(Self {
            hot,
            ..self.clone()
        }))
    }

    pub(crate) fn take(&self) -> Wanted {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *wanted)
    }
}

struct Nothing;

impl Memory for Nothing {}
impl Program for Nothing {}

impl Backend for Recorder {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn allocate(&self, _: u64) -> Result<Box<dyn Memory>> {
        Ok(Box::new(Nothing))
    }

    fn import(&self, _: Arc<dyn HostBytes>) -> Result<Box<dyn Memory>> {
        Ok(Box::new(Nothing))
    }

    fn write(&self, _: &Span, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn copy(&self, _: &Span, _: &Span) -> Result<()> {
        Ok(())
    }

    fn read(&self, _: &Span, data: &mut [u8]) -> Result<()> {
        data.fill(0);
        Ok(())
    }

    fn record(self: Arc<Self>) -> Box<dyn Recording> {
        Box::new(Noting(self))
    }

    fn run(&self, _: &dyn Program) -> Result<()> {
        Ok(())
    }
}

/// A list whose kernels are noted.
struct Noting(Arc<Recorder>);

impl Recording for Noting {
    /// An op without a kernel is noted and goes on: the others of its list are wanted, too.
    fn push(&mut self, op: &Op, _: &Accesses) -> Result<Plan> {
        let recorder = &self.0;
        let mut wanted = recorder
            .wanted
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (number, limits) in recorder.limits.iter().enumerate() {
            match walsh_kernels::variants_of(op, limits) {
                Ok(variants) => {
                    for variant in variants {
                        let entry = wanted.kernels.entry(variant.symbol());
                        let kernel = entry.or_insert_with(|| Kernel {
                            variant,
                            hot: false,
                            limits: BTreeSet::new(),
                        });
                        kernel.hot |= recorder.hot;
                        kernel.limits.insert(number);
                    }
                }
                Err(error) => {
                    let entry = wanted.missing.entry(op.name());
                    entry.or_insert((error.to_string(), 0)).1 += 1;
                }
            }
        }
        Ok(Plan {
            kernel: "noted".into(),
            pieces: 1,
            workspace: 0,
        })
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn Program>> {
        Ok(Box::new(Nothing))
    }
}
