//! A device without kernels: it keeps bytes, plans ops and counts runs.

#![allow(dead_code)] // each test binary uses its part

use std::any::Any;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use walsh_core::ops::Op;
use walsh_core::{
    Access, Accesses, Backend, Buffer, Device, DeviceId, Error, HostBytes, Memory, Plan, Program,
    Properties, Recording, Result, Span, Tensor,
};
use walsh_formats::DType;

/// The most bytes that the device gives out at once.
pub(crate) const MOST_BYTES: u64 = 1 << 24;

struct Bytes(Mutex<Vec<u8>>);

impl Memory for Bytes {}

struct Nothing;

impl Memory for Nothing {}

struct Fake {
    properties: Properties,
    runs: Arc<AtomicUsize>,
}

/// A list, while it is recorded and behind that.
#[derive(Default)]
struct Recorded {
    commands: usize,
}

impl Program for Recorded {}

/// A device, and how many commands its runs have carried out.
pub(crate) fn fake() -> (Device, Arc<AtomicUsize>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let device = Device::new(Arc::new(Fake {
        properties: Properties {
            backend: "fake",
            name: "fake".into(),
            architecture: "none".into(),
            parallelism: 1,
        },
        runs: runs.clone(),
    }));
    (device, runs)
}

/// A tensor in a buffer of its own that has no memory behind it, of any size.
pub(crate) fn hollow(dtype: DType, shape: &[u64]) -> Tensor {
    let buffer = Buffer::new(
        DeviceId::unique(),
        i64::MAX as u64,
        Access::ReadWrite,
        Box::new(Nothing),
    );
    Tensor::new(buffer, 0, dtype, shape).expect("a shape that fits")
}

pub(crate) fn f32s(shape: &[u64]) -> Tensor {
    hollow(DType::F32, shape)
}

pub(crate) fn i32s(shape: &[u64]) -> Tensor {
    hollow(DType::I32, shape)
}

/// The same memory as `tensor`, from `offset` bytes further on.
pub(crate) fn shifted(tensor: &Tensor, offset: u64) -> Tensor {
    let offset = tensor.offset() + offset;
    Tensor::new(
        tensor.buffer().clone(),
        offset,
        tensor.dtype(),
        tensor.shape(),
    )
    .expect("within the buffer")
}

fn bytes(span: &Span) -> &Mutex<Vec<u8>> {
    &span.buffer.memory::<Bytes>().expect("a fake buffer").0
}

fn range(span: &Span) -> std::ops::Range<usize> {
    span.offset as usize..(span.offset + span.bytes) as usize
}

impl Backend for Fake {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn allocate(&self, bytes: u64) -> Result<Box<dyn Memory>> {
        if bytes > MOST_BYTES {
            return Err(Error::OutOfMemory {
                device: "fake".into(),
                bytes,
            });
        }
        Ok(Box::new(Bytes(Mutex::new(vec![0; bytes as usize]))))
    }

    fn import(&self, bytes: Arc<dyn HostBytes>) -> Result<Box<dyn Memory>> {
        Ok(Box::new(Bytes(Mutex::new(bytes.bytes().to_vec()))))
    }

    fn write(&self, to: &Span, data: &[u8]) -> Result<()> {
        bytes(to).lock().unwrap()[range(to)].copy_from_slice(data);
        Ok(())
    }

    fn read(&self, from: &Span, data: &mut [u8]) -> Result<()> {
        data.copy_from_slice(&bytes(from).lock().unwrap()[range(from)]);
        Ok(())
    }

    /// Block types alone gain by it.
    fn pack(&self, weights: &[Tensor]) -> Result<Vec<Option<Box<dyn Memory>>>> {
        let pack = |weight: &Tensor| {
            let memory = || Box::new(Nothing) as Box<dyn Memory>;
            weight.dtype().is_quantised().then(memory)
        };
        Ok(weights.iter().map(pack).collect())
    }

    fn record(self: Arc<Self>) -> Box<dyn Recording> {
        Box::new(Recorded::default())
    }

    fn run(&self, program: &dyn Program) -> Result<()> {
        let program: &dyn Any = program;
        let recorded = program.downcast_ref::<Recorded>().expect("a fake program");
        self.runs.fetch_add(recorded.commands, Ordering::Relaxed);
        Ok(())
    }
}

impl Recording for Recorded {
    fn push(&mut self, op: &Op, _: &Accesses) -> Result<Plan> {
        if let Op::ArgMax(_) = op {
            return Err(Error::Unsupported {
                op: op.name(),
                backend: "fake",
                why: "it has no such kernel".into(),
            });
        }
        self.commands += 1;
        Ok(Plan {
            kernel: "fake".into(),
            pieces: 3,
            workspace: 64,
        })
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn Program>> {
        Ok(self)
    }
}

/// Checks that an error's text holds each of the words.
#[track_caller]
pub(crate) fn assert_says<T: std::fmt::Debug>(result: Result<T>, words: &[&str]) {
    let error = result.expect_err("an error").to_string();
    for word in words {
        assert!(error.contains(word), "{error:?} lacks {word:?}");
    }
    assert!(!error.contains('\n'), "{error:?}");
}

/// The op is sound.
#[track_caller]
pub(crate) fn good(op: impl Into<Op>) {
    op.into().validate().unwrap();
}

/// The op is refused with an error that names it and the argument.
#[track_caller]
pub(crate) fn bad(op: impl Into<Op>, words: &[&str]) {
    let op = op.into();
    let mut all = vec![op.name()];
    all.extend(words);
    assert_says(op.validate(), &all);
}
