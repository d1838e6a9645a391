//! Lists through the encoder and the mock: right ones give the simulator's numbers, and each planted mistake is caught.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use walsh_core::ops::{Add, EmbeddingRows, MatMul, RmsNorm, Scale};
use walsh_core::{Activations, Device, Error, HostBytes, Result, Step, Tensor};
use walsh_formats::DType;
use walsh_kernels::{Kernel, Variant, kernels};
use walsh_sim::SimOptions;

use crate::api::Compiled;
use crate::device::MetalOptions;
use crate::testing::{Mistake, Mock};

/// A device over a mock with a mistake.
fn planted(mistake: impl Into<Option<Mistake>>) -> Result<Device> {
    let mut mock = Mock::new(7)?;
    mock.mistake = mistake.into();
    // A list that fails runs again, a dispatch at a time.
    mock.forgets = mock.mistake.is_none();
    crate::backend::device(mock, MetalOptions::default())
}

/// A list that has hazards and pairs without one, and what it leaves.
struct List {
    step: Step,
    ids: Tensor,
    outputs: Vec<Tensor>,
}

const ROWS: u64 = 3;
const WIDTH: u64 = 64;
const OUT: u64 = 96;

fn numbers(count: u64, seed: u32) -> Vec<f32> {
    let number = |i: u64| ((i as u32).wrapping_mul(2_654_435_761) ^ seed) % 1000;
    (0..count).map(|i| number(i) as f32 / 500.0 - 1.0).collect()
}

impl List {
    /// Dispatches: 0 and 1 the check of ids and the rows, 2 the norm, 3 and 4 the product with the form of its input, 5 the
    /// sum, 6 an op that has a hazard with none of the last two.
    fn new(device: &Device) -> Result<Self> {
        let floats = |shape: &[u64], seed| {
            let count = shape.iter().product();
            device.tensor(shape, &numbers(count, seed))
        };
        let zeros = |shape: &[u64]| device.zeros(DType::F32, shape);
        let ids = device.tensor(&[ROWS], &[4i32, 0, 6])?;
        let blocks: Vec<u8> = (0..OUT * WIDTH / 32 * 18)
            .map(|i| {
                if i % 18 == 1 {
                    0x2c
                } else {
                    (i * 37 % 251) as u8
                }
            })
            .collect();
        let weight = device.tensor_from_bytes(DType::Q4_0, &[OUT, WIDTH], &blocks)?;
        let (rows, normed) = (zeros(&[ROWS, WIDTH])?, zeros(&[ROWS, WIDTH])?);
        let (product, sum) = (zeros(&[ROWS, OUT])?, zeros(&[ROWS, OUT])?);
        let scaled = zeros(&[ROWS, WIDTH])?;
        let mut list = device.record();
        list.push(EmbeddingRows {
            table: floats(&[7, WIDTH], 1)?,
            ids: ids.clone(),
            scale: 2.0,
            output: rows.clone(),
        })?;
        list.push(RmsNorm {
            input: rows.clone(),
            before: None,
            weight: Some(floats(&[WIDTH], 2)?),
            eps: 1e-5,
            after: None,
            output: normed.clone(),
        })?;
        list.push(MatMul {
            weight,
            input: normed.clone(),
            bias: None,
            output: product.clone(),
        })?;
        list.push(Add {
            a: product.clone(),
            b: floats(&[ROWS, OUT], 3)?,
            output: sum.clone(),
        })?;
        list.push(Scale {
            input: rows.clone(),
            factor: 0.5,
            output: scaled.clone(),
        })?;
        Ok(Self {
            step: list.finish()?,
            ids,
            outputs: vec![rows, normed, product, sum, scaled],
        })
    }

    fn outcome(device: &Device, runs: usize) -> Result<Vec<Vec<f32>>> {
        let list = Self::new(device)?;
        for _ in 0..runs {
            device.run(&list.step)?;
        }
        list.outputs
            .iter()
            .map(|output| device.read(output))
            .collect()
    }
}

/// What the simulator by itself makes of the list.
fn expected() -> Vec<Vec<f32>> {
    let mut options = SimOptions::default();
    options.limits.multiprocessors = crate::limits(Activations::Int8).multiprocessors;
    List::outcome(&walsh_sim::open(options).unwrap(), 1).unwrap()
}

/// What is wrong with a list in which a mistake is planted: an error, or other numbers.
#[track_caller]
fn caught(mistake: Mistake, words: &[&str]) {
    let outcome = planted(mistake).and_then(|device| List::outcome(&device, 1));
    let message = match outcome {
        Err(error) => error.to_string(),
        Ok(numbers) if numbers != expected() => "other numbers".into(),
        Ok(_) => panic!("{mistake:?} is not caught"),
    };
    assert!(!message.contains('\n'), "{message}");
    for word in words {
        assert!(message.contains(word), "{mistake:?}: {message}");
    }
}

#[test]
fn a_list_gives_the_numbers_of_the_simulator_with_the_barriers_of_its_hazards() {
    let mock = Mock::new(3).unwrap();
    let seen = mock.counter();
    let device = crate::backend::device(mock, MetalOptions::default()).unwrap();
    assert_eq!(device.properties().backend, "metal");
    assert_eq!(List::outcome(&device, 2).unwrap(), expected());
    // Two runs of seven dispatches: all but the last wait for the one before.
    assert_eq!(seen(), (14, 10, 0));
}

#[test]
fn a_barrier_that_is_missing_is_caught() {
    for at in 1..6 {
        caught(Mistake::NoBarrier(at), &["no barrier keeps", "behind"]);
    }
}

#[test]
fn a_barrier_for_nothing_is_caught() {
    caught(
        Mistake::Barrier(6),
        &["a barrier before walsh_", "is for nothing"],
    );
}

#[test]
fn wrong_offsets_are_caught() {
    // In the middle of a number, behind the end, and a number further on than the tensor goes.
    caught(Mistake::Offset(2, 0, 2), &["rms_norm", "no multiple of 4"]);
    caught(
        Mistake::Offset(2, 0, 1 << 20),
        &["rms_norm", "more of `input` than there is"],
    );
    caught(Mistake::Offset(2, 0, 4), &["more of `input` than there is"]);
}

#[test]
fn an_offset_into_another_tensor_of_the_same_buffer_is_caught_by_the_numbers() {
    let run = |mistake: Option<Mistake>| {
        let device = planted(mistake)?;
        let buffer = device.allocate(1024)?;
        let view = |at| Tensor::new(buffer.clone(), at, DType::F32, &[64]);
        let (input, other, output) = (view(0)?, view(256)?, view(512)?);
        device.write(&input, &numbers(64, 1))?;
        device.write(&other, &numbers(64, 2))?;
        let mut list = device.record();
        list.push(Scale {
            input,
            factor: 3.0,
            output: output.clone(),
        })?;
        device.run(&list.finish()?)?;
        device.read::<f32>(&output)
    };
    let right: Vec<f32> = numbers(64, 1).iter().map(|x| 3.0 * x).collect();
    assert_eq!(run(None).unwrap(), right);
    assert_ne!(run(Some(Mistake::Offset(0, 0, 256))).unwrap(), right);
}

#[test]
fn wrong_bindings_are_caught() {
    caught(Mistake::Swapped(1, 0, 2), &[]);
    caught(Mistake::Unbound(2), &["rms_norm", "buffers of"]);
    caught(Mistake::Threads(2), &["rms_norm", "threads"]);
    caught(Mistake::Args(2), &["rms_norm", "bytes of arguments"]);
}

#[test]
fn buffers_that_are_given_back_early_are_caught() {
    caught(Mistake::Freed(3, 0), &["which was given back"]);
    // It runs again a dispatch at a time, which names the first that uses it.
    caught(Mistake::FreedEarly(3, 0), &["given back"]);
}

#[test]
fn what_a_program_uses_outlives_its_users() {
    let device = planted(None).unwrap();
    let List { step, outputs, ids } = List::new(&device).unwrap();
    let sum = outputs[3].clone();
    drop((outputs, ids));
    device.run(&step).unwrap();
    assert_eq!(device.read::<f32>(&sum).unwrap(), expected()[3]);
}

#[test]
fn a_command_buffer_that_fails_is_an_error_with_the_kernels_name() {
    let mut mock = Mock::new(1).unwrap();
    mock.mistake = Some(Mistake::Broken("rms_norm"));
    mock.forgets = false;
    let device = crate::backend::device(mock, MetalOptions::default()).unwrap();
    let list = List::new(&device).unwrap();
    for _ in 0..2 {
        let error = device.run(&list.step).unwrap_err().to_string();
        assert!(
            error.starts_with("metal:0: running walsh_rms_norm_"),
            "{error}"
        );
        assert!(error.ends_with("failed: it broke"), "{error}");
    }
    // The device is none the worse for it.
    assert_eq!(device.read::<i32>(&list.ids).unwrap(), [4, 0, 6]);
}

#[test]
fn missing_memory_and_a_lost_gpu_are_errors_of_their_own() {
    let device = planted(Mistake::Memory(3)).unwrap();
    let list = List::new(&device).unwrap();
    let error = device.run(&list.step).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
    assert!(!error.to_string().contains(" 0 bytes"), "{error}");
    device.run(&list.step).unwrap();

    // What checks said of a run that failed is nothing to the next.
    let device = planted(Mistake::Memory(3)).unwrap();
    let list = List::new(&device).unwrap();
    device.write(&list.ids, &[4i32, 7, 6]).unwrap();
    assert!(device.run(&list.step).is_err());
    device.write(&list.ids, &[4i32, 0, 6]).unwrap();
    device.run(&list.step).unwrap();
    assert_eq!(device.read::<f32>(&list.outputs[3]).unwrap(), expected()[3]);

    let device = planted(Mistake::Lost(3)).unwrap();
    let list = List::new(&device).unwrap();
    for _ in 0..2 {
        let error = device.run(&list.step).unwrap_err().to_string();
        assert!(
            error.contains("the GPU is lost") && error.contains("it is gone"),
            "{error}"
        );
    }
    let error = device.read::<i32>(&list.ids).unwrap_err().to_string();
    assert!(error.contains("the GPU is lost"), "{error}");
}

#[test]
fn what_only_a_run_can_know_is_reported_and_leaves_the_list_usable() {
    let device = planted(None).unwrap();
    let list = List::new(&device).unwrap();
    device.write(&list.ids, &[4i32, 7, 6]).unwrap();
    let error = device.run(&list.step).unwrap_err();
    assert!(matches!(error, Error::Value { .. }), "{error}");
    assert!(error.to_string().contains("id 7"), "{error}");
    device.write(&list.ids, &[4i32, 0, 6]).unwrap();
    device.run(&list.step).unwrap();
    assert_eq!(device.read::<f32>(&list.outputs[3]).unwrap(), expected()[3]);
}

/// Some value for each of a kernel's constants: a group of 64 threads.
fn constants(kernel: &Kernel) -> Vec<(&'static str, i64)> {
    let names = kernel.constants.iter().copied();
    let value = |name| if name == "THREADS" { 64 } else { 1 };
    names.map(|name| (name, value(name))).collect()
}

#[test]
fn kernels_that_a_gpu_cannot_run_are_named() {
    let right = Compiled {
        width: 32,
        most_threads: 1024,
        threadgroup_bytes: 0,
    };
    for (compiled, words) in [
        (
            Compiled { width: 16, ..right },
            "simdgroups have 16 threads",
        ),
        (
            Compiled {
                most_threads: 31,
                ..right
            },
            "leave room for 31",
        ),
        (
            Compiled {
                threadgroup_bytes: 40 << 10,
                ..right
            },
            "40960 bytes of threadgroup memory of 32768",
        ),
    ] {
        let mut mock = Mock::new(1).unwrap();
        mock.compiled = compiled;
        let device = crate::backend::device(mock, MetalOptions::default()).unwrap();
        let Err(error) = List::new(&device) else {
            panic!("{words}: the list is compiled");
        };
        let error = error.to_string();
        assert!(error.contains("walsh_") && error.contains(words), "{error}");
        let mut mock = Mock::new(1).unwrap();
        mock.compiled = compiled;
        let variant = Variant::new(kernels()[0], &constants(kernels()[0]));
        let refused = crate::pipelines::refused(&mock, &[&variant]);
        assert!(
            refused.len() == 1 && refused[0].contains(words),
            "{refused:?}"
        );
    }
}

#[test]
fn kernels_are_timed_one_by_one() {
    let mut mock = Mock::new(1).unwrap();
    mock.forgets = false;
    let device = crate::backend::device(mock, MetalOptions::default()).unwrap();
    let list = List::new(&device).unwrap();
    let times = device.profile(&list.step).unwrap();
    assert_eq!(times.len(), 7);
    let commands: Vec<usize> = times.iter().map(|time| time.command).collect();
    assert_eq!(commands, [0, 0, 1, 2, 2, 3, 4]);
    assert!(times.iter().all(|time| time.seconds > 0.0));
    assert_eq!(device.read::<f32>(&list.outputs[3]).unwrap(), expected()[3]);
}

/// Pages of the host, which say when they are gone.
struct Pages {
    base: *mut u8,
    gone: Arc<AtomicBool>,
}

const PAGES: std::alloc::Layout = match std::alloc::Layout::from_size_align(8192, 4096) {
    Ok(layout) => layout,
    Err(_) => panic!("a layout"),
};

impl Pages {
    fn new(gone: &Arc<AtomicBool>) -> Self {
        // SAFETY: the layout has a size.
        let base = unsafe { std::alloc::alloc_zeroed(PAGES) };
        assert!(!base.is_null());
        let numbers = numbers(1024, 5);
        // SAFETY: 4096 of 8192 bytes, which nobody else has.
        unsafe {
            base.cast::<f32>()
                .copy_from_nonoverlapping(numbers.as_ptr(), 1024)
        };
        let gone = gone.clone();
        Self { base, gone }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
        // SAFETY: allocated in `new`.
        unsafe { std::alloc::dealloc(self.base, PAGES) };
    }
}

// SAFETY: plain bytes that nothing changes.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}
// SAFETY: the allocation stays where it is until it is dropped.
unsafe impl HostBytes for Pages {
    fn bytes(&self) -> &[u8] {
        // SAFETY: as above; a page and a half.
        unsafe { std::slice::from_raw_parts(self.base, 6144) }
    }
}

/// An op's output over imported memory, and how many buffers lie over the host's.
fn imported(host: Arc<dyn HostBytes>) -> (Vec<f32>, usize, Device, Step) {
    let mock = Mock::new(1).unwrap();
    let seen = mock.counter();
    let device = crate::backend::device(mock, MetalOptions::default()).unwrap();
    let buffer = device.import(host).unwrap();
    let input = Tensor::new(buffer, 64, DType::F32, &[100]).unwrap();
    let output = device.zeros(DType::F32, &[100]).unwrap();
    let mut list = device.record();
    list.push(Scale {
        input,
        factor: 2.0,
        output: output.clone(),
    })
    .unwrap();
    let step = list.finish().unwrap();
    device.run(&step).unwrap();
    let numbers = device.read::<f32>(&output).unwrap();
    let (_, _, wrapped) = seen();
    (numbers, wrapped, device, step)
}

#[test]
fn memory_that_begins_a_page_is_read_where_it_lies_and_kept() {
    let gone = Arc::new(AtomicBool::new(false));
    let right: Vec<f32> = numbers(1024, 5)[16..116].iter().map(|x| 2.0 * x).collect();
    let (given, wrapped, device, step) = imported(Arc::new(Pages::new(&gone)));
    assert_eq!((given, wrapped), (right.clone(), 1));
    assert!(!gone.load(Ordering::Relaxed), "the list still reads it");
    device.run(&step).unwrap();
    drop((device, step));
    assert!(gone.load(Ordering::Relaxed));

    // Other memory is copied.
    let all = numbers(1025, 5);
    let bytes: Vec<u8> = all.iter().flat_map(|x| x.to_le_bytes()).collect();
    struct Behind(Vec<u8>);
    // SAFETY: the vector is not touched while it is shared.
    unsafe impl HostBytes for Behind {
        fn bytes(&self) -> &[u8] {
            let inner = self.0.as_ptr().align_offset(4096) + 4;
            &self.0[inner..inner + 4096]
        }
    }
    let mut padded = vec![0; 3 * 4096];
    let inner = padded.as_ptr().align_offset(4096) + 4;
    padded[inner..inner + 4096].copy_from_slice(&bytes[..4096]);
    let (given, wrapped, ..) = imported(Arc::new(Behind(padded)));
    assert_eq!((given, wrapped), (right, 0));
}

#[test]
fn a_buffer_beyond_what_the_gpu_has_is_refused() {
    let device = planted(None).unwrap();
    let error = device.allocate((1 << 32) + 1).unwrap_err().to_string();
    assert!(
        error.contains("4294967297") && error.contains("4294967296"),
        "{error}"
    );
    assert!(device.allocate(0).is_ok());
}

#[test]
fn tensors_are_copied_on_the_gpu_and_never_over_what_is_only_read() {
    let device = planted(None).unwrap();
    let buffer = device.allocate(1024).unwrap();
    let part = |at, count| Tensor::new(buffer.clone(), at, DType::F32, &[count]).unwrap();
    let (from, to) = (part(4, 50), part(512, 50));
    device.write(&from, &numbers(50, 9)).unwrap();
    device.copy(&from, &to).unwrap();
    assert_eq!(device.read::<f32>(&to).unwrap(), numbers(50, 9));
    device.copy(&part(0, 0), &part(1024, 0)).unwrap();
    // What is no whole words, which Metal does not copy, too.
    let bytes = |at, count| Tensor::new(buffer.clone(), at, DType::U8, &[count]).unwrap();
    for (from, to, count) in [(5, 801, 3), (4, 802, 8), (7, 803, 1)] {
        device.copy(&bytes(from, count), &bytes(to, count)).unwrap();
        let read = |tensor: &Tensor| device.read::<u8>(tensor).unwrap();
        assert_eq!(read(&bytes(to, count)), read(&bytes(from, count)));
    }
    let bytes: Arc<[u8]> = vec![0; 200].into();
    let host = device.import(Arc::new(bytes)).unwrap();
    let read_only = Tensor::new(host, 0, DType::F32, &[50]).unwrap();
    assert!(device.copy(&from, &read_only).is_err());
}
