//! A device that runs nothing and notes which kernels it would need.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use walsh::ops::Op;
use walsh::{
    Access, Accesses, Backend, Buffer, Device, DeviceId, HostBytes, Memory, Plan, Program,
    Properties, Recording, Result, Span,
};
use walsh_kernels::{Fusion, Limits, List, Variant};

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
    /// Launches of several kernels that a model needs, by their symbols, with the limits that they are chosen by.
    pub(crate) fusions: BTreeMap<String, (Fusion, BTreeSet<usize>)>,
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

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
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
        let list = |limits: &Limits| {
            let device = DeviceId::unique();
            let memory = move |bytes| {
                let nothing = Box::new(Nothing);
                Ok(Buffer::new(device, bytes, Access::ReadWrite, nothing))
            };
            List::new(*limits, Box::new(memory))
        };
        let lists = self.limits.iter().map(list);
        Box::new(Noting {
            lists: lists.collect(),
            recorder: self,
        })
    }

    fn run(&self, _: &dyn Program) -> Result<()> {
        Ok(())
    }
}

/// A list whose kernels are noted.
struct Noting {
    recorder: Arc<Recorder>,
    /// The list by each of the limits.
    lists: Vec<List>,
}

impl Recording for Noting {
    /// An op without a kernel is noted and left out: the others of its list are wanted, too.
    fn push(&mut self, op: &Op, accesses: &Accesses) -> Result<Plan> {
        for list in &mut self.lists {
            if let Err(error) = list.push(op, accesses) {
                let mut wanted = self.recorder.lock();
                let entry = wanted.missing.entry(op.name());
                entry.or_insert((error.to_string(), 0)).1 += 1;
            }
        }
        Ok(Plan {
            kernel: "noted".into(),
            pieces: 1,
            workspace: 0,
        })
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn Program>> {
        let hot = self.recorder.hot;
        for (number, list) in self.lists.into_iter().enumerate() {
            let dispatches = list.finish()?.dispatches;
            let mut wanted = self.recorder.lock();
            for dispatch in &dispatches {
                let variant = dispatch.variant.clone();
                let entry = wanted.kernels.entry(variant.symbol());
                let kernel = entry.or_insert_with(|| Kernel {
                    variant,
                    hot: false,
                    limits: BTreeSet::new(),
                });
                kernel.hot |= hot;
                kernel.limits.insert(number);
            }
            // What stands side by side in other lists is a matter of chance.
            let launches = Fusion::launches(&dispatches).into_iter();
            for launch in launches.filter(|launch| hot && launch.len() > 1) {
                let fusion = Fusion::of(&dispatches[launch]);
                let entry = wanted.fusions.entry(fusion.symbol());
                entry
                    .or_insert_with(|| (fusion, BTreeSet::new()))
                    .1
                    .insert(number);
            }
        }
        Ok(Box::new(Nothing))
    }
}
