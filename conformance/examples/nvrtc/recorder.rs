//! A device that runs nothing and notes which kernels it would need: what compile gates compile.

#![allow(dead_code)] // each gate uses its part

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use conformance::cases::tables;
use conformance::{Bound, Target};
use walsh::ops::Op;
use walsh::{
    Access, Accesses, Backend, Buffer, Device, DeviceId, Error, HostBytes, Memory, Plan, Program,
    Properties, Recording, Span,
};
use walsh_kernels::{Fusion, Limits, List, Variant};
use walsh_runtime::{Model, SessionOptions, Synthetic};

/// The models whose kernels are asked for, and the caches that they are asked for with.
pub(crate) const MODELS: &[&str] = &[
    "llama3-8b:q4_k_m",
    "gemma3-27b:q4_k_m",
    "smollm2-135m:q4_0",
    "qwen3-30b-a3b:q4_k_m",
];
pub(crate) const CACHES: &[&str] = &["f16", "tq8", "tq4", "tq3"];
const ROWS: &[usize] = &[8, 16, 32, 64];

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
    fn new(limits: Vec<Limits>) -> Self {
        Self {
            properties: Properties {
                backend: "nobody's",
                name: "a GPU that is not there".into(),
                architecture: "any".into(),
                parallelism: 1,
            },
            limits,
            wanted: Arc::default(),
            hot: false,
        }
    }

    /// A device that notes for the same list; `hot` for models.
    fn device(&self, hot: bool) -> Device {
        Device::new(Arc::new(Self {
            hot,
            ..self.clone()
        }))
    }

    /// Every kernel that models need and, where they are asked for too, the cases of conformance.
    ///
    /// # Errors
    /// What has no list.
    pub(crate) fn wanted(limits: Vec<Limits>, cases: bool) -> Result<Wanted, String> {
        let recorder = Self::new(limits);
        let target = Target {
            name: recorder.properties.name.clone(),
            device: recorder.device(false),
            approximates: true,
            extends: false,
            packs: false,
            team: None,
        };
        for table in tables().filter(|_| cases) {
            for problem in table.problems() {
                Bound::new(&problem, &target)
                    .map_err(|error| format!("{}: {error}", problem.name))?;
            }
        }
        let device = recorder.device(true);
        for name in MODELS {
            let explain = |error: walsh_runtime::Error| format!("{name}: {error}");
            let synthetic: Synthetic = name.parse().map_err(explain)?;
            let model = Model::synthetic(&device, &synthetic).map_err(explain)?;
            for cache in CACHES {
                let options = SessionOptions {
                    context: 2048,
                    kv: cache.parse().map_err(|error| format!("{cache}: {error}"))?,
                    ..SessionOptions::default()
                };
                let mut session = model.session(options).map_err(explain)?;
                session.prefill(&[1; 600]).map_err(explain)?;
                session.decode(1).map_err(explain)?;
                // As many rows as several texts decode at once.
                for rows in ROWS.iter().filter(|_| *cache == CACHES[0]) {
                    session.prefill(&vec![1; *rows]).map_err(explain)?;
                }
            }
        }
        Ok(std::mem::take(&mut *recorder.lock()))
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

    fn allocate(&self, _: u64) -> Result<Box<dyn Memory>, Error> {
        Ok(Box::new(Nothing))
    }

    fn import(&self, _: Arc<dyn HostBytes>) -> Result<Box<dyn Memory>, Error> {
        Ok(Box::new(Nothing))
    }

    fn write(&self, _: &Span, _: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    fn copy(&self, _: &Span, _: &Span) -> Result<(), Error> {
        Ok(())
    }

    fn read(&self, _: &Span, data: &mut [u8]) -> Result<(), Error> {
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

    fn run(&self, _: &dyn Program) -> Result<(), Error> {
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
    fn push(&mut self, op: &Op, accesses: &Accesses) -> Result<Plan, Error> {
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

    fn finish(self: Box<Self>) -> Result<Box<dyn Program>, Error> {
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
