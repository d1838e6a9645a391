//! Packed weights: products read them, and nothing else does.

mod common;

use common::{assert_says, fake};
use walsh_core::ops::{EmbeddingRows, ExpertMatMul, MatMul};
use walsh_core::{Device, Tensor};
use walsh_formats::DType;

fn weight(device: &Device) -> Tensor {
    device.zeros(DType::Q4_0, &[16, 32]).unwrap()
}

fn packed(device: &Device) -> Tensor {
    device.pack(&[weight(device)]).unwrap().remove(0)
}

#[test]
fn what_gains_is_packed_and_the_rest_is_as_it_was() {
    let (device, _) = fake();
    let floats = device.zeros(DType::F16, &[16, 32]).unwrap();
    let weights = device.pack(&[weight(&device), floats.clone()]).unwrap();
    assert!(weights[0].is_packed() && !weights[1].is_packed());
    assert_eq!(
        (weights[0].dtype(), weights[0].shape(), weights[0].bytes()),
        (DType::Q4_0, &[16, 32][..], 16 * 18)
    );
    assert!(weights[1].span().same(&floats.span()));
    assert!(device.pack(&[]).unwrap().is_empty());
}

#[test]
fn products_take_a_packed_weight() {
    let (device, _) = fake();
    let mut list = device.record();
    list.push(MatMul {
        weight: packed(&device),
        input: device.zeros(DType::F32, &[1, 32]).unwrap(),
        bias: None,
        output: device.zeros(DType::F32, &[1, 16]).unwrap(),
    })
    .unwrap();
    list.finish().unwrap();
}

#[test]
fn experts_are_packed_together() {
    let (device, _) = fake();
    let weight = device.zeros(DType::Q4_0, &[2, 16, 32]).unwrap();
    let packed = device.pack(&[weight]).unwrap().remove(0);
    assert!(packed.is_packed() && packed.shape() == [2, 16, 32]);
    let mut list = device.record();
    list.push(ExpertMatMul {
        weight: packed,
        ids: device.zeros(DType::I32, &[1, 1]).unwrap(),
        input: device.zeros(DType::F32, &[1, 32]).unwrap(),
        bias: None,
        output: device.zeros(DType::F32, &[1, 1, 16]).unwrap(),
    })
    .unwrap();
    list.finish().unwrap();
}

#[test]
fn other_ops_refuse_it() {
    let (device, _) = fake();
    let mut list = device.record();
    let pushed = list.push(EmbeddingRows {
        table: packed(&device),
        ids: device.zeros(DType::I32, &[1]).unwrap(),
        scale: 1.0,
        output: device.zeros(DType::F32, &[1, 32]).unwrap(),
    });
    assert_says(pushed, &["EmbeddingRows", "packed weight"]);
}

#[test]
fn its_bytes_are_not_to_be_seen() {
    let (device, _) = fake();
    let (packed, plain) = (packed(&device), weight(&device));
    let mut bytes = vec![0; 16 * 18];
    assert_says(device.read_bytes(&packed, &mut bytes), &["packed weight"]);
    assert_says(device.write_bytes(&packed, &bytes), &["packed weight"]);
    assert_says(device.copy(&packed, &plain), &["packed weight"]);
    assert_says(device.copy(&plain, &packed), &["packed weight"]);
    assert_says(device.fill(&packed, &[0]), &["packed weight"]);
    assert_says(packed.reshape(&[8, 64]), &["packed weight"]);
    assert_says(packed.rows(0..8), &["packed weight"]);
    let view = Tensor::new(packed.buffer().clone(), 0, DType::U8, &[16]);
    assert_says(view, &["packed weight"]);
}

#[test]
fn what_cannot_be_packed_is_refused() {
    let (device, _) = fake();
    let (other, _) = fake();
    assert_says(device.pack(&[packed(&device)]), &["pack", "packed weight"]);
    assert_says(other.pack(&[weight(&device)]), &["on this device"]);
    let vector = device.zeros(DType::Q4_0, &[32]).unwrap();
    assert_says(device.pack(&[vector]), &["2 or 3 dimensions"]);
}
