//! A device on paper: lists are lowered, and nothing runs.

use std::sync::{Arc, Mutex};

use walsh_core::ops::Op;
use walsh_core::{
    Access, Accesses, Activations, Backend, Buffer, Device, HostBytes, Memory, Plan, Program,
    Properties, Recording, Result, Span, Tensor,
};
use walsh_formats::DType;
use walsh_kernels::{Dispatch, Limits, List};

/// A device on paper: it lowers lists and keeps what they become.
struct Paper {
    properties: Properties,
    limits: Limits,
    lowered: Mutex<Vec<Dispatch>>,
}

struct Nothing;

impl Memory for Nothing {}

/// What commands have become with their neighbours.
struct Lowered(Vec<(usize, Plan)>);

impl Program for Lowered {
    fn joined(&self) -> &[(usize, Plan)] {
        &self.0
    }
}

impl Backend for Paper {
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

    fn read(&self, _: &Span, _: &mut [u8]) -> Result<()> {
        Ok(())
    }

    fn record(self: Arc<Self>) -> Box<dyn Recording> {
        let device = walsh_core::DeviceId::unique();
        let allocate = move |bytes| {
            let memory = Box::new(Nothing);
            Ok(Buffer::new(device, bytes, Access::ReadWrite, memory))
        };
        Box::new(OnPaper {
            list: List::new(self.limits, Box::new(allocate)),
            paper: self,
        })
    }

    fn run(&self, _: &dyn Program) -> Result<()> {
        Ok(())
    }
}

struct OnPaper {
    paper: Arc<Paper>,
    list: List,
}

impl Recording for OnPaper {
    fn push(&mut self, op: &Op, accesses: &Accesses) -> Result<Plan> {
        self.list.push(op, accesses)
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn Program>> {
        let lowered = self.list.finish()?;
        *self.paper.lowered.lock().unwrap() = lowered.dispatches;
        Ok(Box::new(Lowered(lowered.joined)))
    }
}

pub(crate) struct Bench {
    paper: Arc<Paper>,
    pub(crate) device: Device,
}

/// What an H200 is.
pub(crate) const H200: Limits = Limits {
    backend: "paper",
    multiprocessors: 132,
    threadgroup_bytes: 48 << 10,
    bfloat_matrices: true,
    fragment_bytes: 227 << 10,
    warpgroup_matrices: true,
    cluster_groups: 8,
    joins: true,
    activations: Activations::Int8,
};

impl Bench {
    pub(crate) fn new(limits: Limits) -> Self {
        let paper = Arc::new(Paper {
            properties: Properties {
                backend: "paper",
                name: "paper".into(),
                architecture: "paper".into(),
                parallelism: 132,
            },
            limits,
            lowered: Mutex::default(),
        });
        let device = Device::new(paper.clone());
        Self { paper, device }
    }

    pub(crate) fn tensor(&self, dtype: DType, shape: &[u64]) -> Tensor {
        self.device.zeros(dtype, shape).unwrap()
    }

    /// A tensor that starts `offset` bytes into its buffer.
    pub(crate) fn shifted(&self, dtype: DType, shape: &[u64], offset: u64) -> Tensor {
        let bytes = self.tensor(dtype, shape).bytes();
        let buffer = self.device.allocate(bytes + offset).unwrap();
        Tensor::new(buffer, offset, dtype, shape).unwrap()
    }

    pub(crate) fn lower(&self, ops: Vec<Op>) -> Result<Vec<Dispatch>> {
        self.record(ops).map(|(dispatches, _)| dispatches)
    }

    /// What a list becomes, and how it is printed.
    pub(crate) fn record(&self, ops: Vec<Op>) -> Result<(Vec<Dispatch>, String)> {
        let mut list = self.device.record();
        for op in ops {
            list.push(op)?;
        }
        let text = list.finish()?.to_string();
        let dispatches = std::mem::take(&mut *self.paper.lowered.lock().unwrap());
        Ok((dispatches, text))
    }
}

pub(crate) fn h200() -> Bench {
    Bench::new(H200)
}

/// The same with every op by itself.
pub(crate) fn separate() -> Bench {
    Bench::new(Limits {
        joins: false,
        ..H200
    })
}

pub(crate) fn names(dispatches: &[Dispatch]) -> Vec<&'static str> {
    let name = |dispatch: &Dispatch| dispatch.variant.kernel().name;
    dispatches.iter().map(name).collect()
}
