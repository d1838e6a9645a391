//! Recording: hazards, listings, replay and refusals.

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::{assert_says, fake};
use walsh_core::ops::{Add, ArgMax, Scale};
use walsh_core::{
    Access, Accesses, Buffer, Device, DeviceId, Error, HazardTracker, Memory, Span, Tensor,
};
use walsh_formats::DType;

fn vector(device: &Device) -> Tensor {
    device.zeros(DType::F32, &[4]).unwrap()
}

fn scale(input: &Tensor, output: &Tensor) -> Scale {
    Scale {
        input: input.clone(),
        factor: 2.0,
        output: output.clone(),
    }
}

/// Where barriers lie in a list of copies from one vector to another.
fn barriers(copies: &[(usize, usize)]) -> Vec<bool> {
    let (device, _) = fake();
    let vectors: Vec<Tensor> = (0..4).map(|_| vector(&device)).collect();
    let mut list = device.record();
    for (from, to) in copies {
        list.push(scale(&vectors[*from], &vectors[*to])).unwrap();
    }
    let step = list.finish().unwrap();
    step.list().commands().iter().map(|c| c.barrier).collect()
}

#[test]
fn barriers_lie_where_hazards_are() {
    // Apart, and two readers of one vector.
    assert_eq!(barriers(&[(0, 1), (2, 3)]), [false, false]);
    assert_eq!(barriers(&[(0, 1), (0, 2)]), [false, false]);
    // Read after write, write after read, write after write.
    assert_eq!(barriers(&[(0, 1), (1, 2)]), [false, true]);
    assert_eq!(barriers(&[(0, 1), (2, 0)]), [false, true]);
    assert_eq!(barriers(&[(0, 1), (2, 1)]), [false, true]);
    // An op alone in place, and what a barrier settles.
    assert_eq!(barriers(&[(0, 0)]), [false]);
    assert_eq!(barriers(&[(0, 1), (1, 2), (0, 3)]), [false, true, false]);
    assert_eq!(barriers(&[(0, 1), (1, 2), (2, 3)]), [false, true, true]);
}

#[test]
fn parts_of_one_buffer_have_no_hazard() {
    let (device, _) = fake();
    let rows = device.zeros(DType::F32, &[4, 4]).unwrap();
    let row = |index| rows.rows(index..index + 1).unwrap();
    let mut list = device.record();
    list.push(scale(&row(0), &row(1))).unwrap();
    list.push(scale(&row(2), &row(3))).unwrap();
    list.push(scale(&rows.rows(0..2).unwrap(), &rows.rows(2..4).unwrap()))
        .unwrap();
    assert_eq!(list.finish().unwrap().list().barriers(), 1);
}

struct Nothing;

impl Memory for Nothing {}

/// The tracker against a model that looks at every byte.
#[test]
fn the_tracker_agrees_with_a_byte_wise_model() {
    const BYTES: usize = 24;
    let buffers: Vec<Buffer> = (0..2)
        .map(|_| {
            let device = DeviceId::unique();
            Buffer::new(device, BYTES as u64, Access::ReadWrite, Box::new(Nothing))
        })
        .collect();
    let mut state = 1u64;
    let mut below = |end: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % end
    };
    for _ in 0..200 {
        let mut tracker = HazardTracker::new();
        // What happened to each byte since the last barrier: (read, written).
        let mut model = [[(false, false); BYTES]; 2];
        for _ in 0..30 {
            let mut accesses = Accesses::default();
            let mut touched = Vec::new();
            for access in 0..1 + below(3) {
                let buffer = below(2) as usize;
                let offset = below(BYTES as u64);
                let bytes = below(1 + (BYTES as u64 - offset).min(5));
                let span = Span {
                    buffer: buffers[buffer].clone(),
                    offset,
                    bytes,
                };
                let write = access == 0;
                if write {
                    accesses.write(span);
                } else {
                    accesses.read(span);
                }
                touched.push((buffer, offset as usize..(offset + bytes) as usize, write));
            }
            let conflict = touched.iter().any(|(buffer, range, write)| {
                model[*buffer][range.clone()]
                    .iter()
                    .any(|(read, written)| *written || (*write && *read))
            });
            assert_eq!(tracker.add(&accesses), conflict);
            if conflict {
                model = [[(false, false); BYTES]; 2];
            }
            for (buffer, range, write) in touched {
                for (read, written) in &mut model[buffer][range] {
                    *read |= !write;
                    *written |= write;
                }
            }
        }
    }
}

#[test]
fn listings_show_ops_plans_and_barriers() {
    let (device, _) = fake();
    let (a, b) = (vector(&device), vector(&device));
    let mut list = device.record();
    list.push(scale(&a, &b)).unwrap();
    list.push(Add {
        a: b.clone(),
        b: a.clone(),
        output: a,
    })
    .unwrap();
    assert_eq!(
        list.finish().unwrap().to_string(),
        "Scale f32[4] × 2 -> f32[4]  [fake ×3, 64 B workspace]\n\
         ---\n\
         Add f32[4] + f32[4] -> f32[4]  [fake ×3, 64 B workspace]\n"
    );
    assert_eq!(device.record().finish().unwrap().to_string(), "");
}

#[test]
fn a_step_replays() {
    let (device, runs) = fake();
    let (a, b) = (vector(&device), vector(&device));
    let mut list = device.record();
    list.push(scale(&a, &b)).unwrap();
    list.push(scale(&b, &a)).unwrap();
    let step = list.finish().unwrap();
    for _ in 0..3 {
        device.run(&step).unwrap();
    }
    assert_eq!(runs.load(Ordering::Relaxed), 6);
    // The step outlives the caller's tensors.
    drop((a, b));
    device.run(&step).unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 8);
}

#[test]
fn a_refused_op_leaves_the_list_as_it_was() {
    let (device, runs) = fake();
    let (other, _) = fake();
    let (a, b) = (vector(&device), vector(&device));
    let foreign = vector(&other);
    let bytes: Arc<[u8]> = Arc::from(&[0u8; 16][..]);
    let imported = device.import(Arc::new(bytes)).unwrap();
    let imported = Tensor::new(imported, 0, DType::F32, &[4]).unwrap();

    let mut list = device.record();
    list.push(scale(&a, &b)).unwrap();
    assert_says(list.push(scale(&foreign, &b)), &["Scale", "another device"]);
    assert_says(list.push(scale(&a, &foreign)), &["Scale", "another device"]);
    assert_says(list.push(scale(&a, &imported)), &["output", "read-only"]);
    list.push(scale(&imported, &b)).unwrap();
    let wide = device.zeros(DType::F32, &[5]).unwrap();
    assert_says(list.push(scale(&a, &wide)), &["Scale: output", "f32[5]"]);
    let unsupported = list.push(ArgMax {
        input: device.zeros(DType::F32, &[1, 4]).unwrap(),
        output: device.zeros(DType::I32, &[1]).unwrap(),
    });
    assert!(matches!(unsupported, Err(Error::Unsupported { .. })));
    assert_says(unsupported, &["ArgMax", "fake", "no such kernel"]);

    let step = list.finish().unwrap();
    assert_eq!(step.list().commands().len(), 2);
    // A refused op leaves no hazard behind either: both write b.
    assert_eq!(step.list().barriers(), 1);
    assert_says(other.run(&step), &["recorded by this device"]);
    assert_says(other.profile(&step), &["recorded by this device"]);
    assert_says(device.profile(&step), &["profile", "fake", "one by one"]);
    device.run(&step).unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 2);
}
