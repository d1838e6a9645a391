//! Tensors: shapes, views and transfers.

mod common;

use std::sync::Arc;

use common::{MOST_BYTES, assert_says, fake, hollow};
use walsh_core::{Access, Element, Error, Tensor, tensor_bytes};
use walsh_formats::DType;

#[test]
fn bytes_of_shapes() {
    assert_eq!(tensor_bytes(DType::F32, &[]).unwrap(), 4);
    assert_eq!(tensor_bytes(DType::F32, &[2, 3]).unwrap(), 24);
    assert_eq!(tensor_bytes(DType::Q4K, &[3, 512]).unwrap(), 3 * 288);
    assert_eq!(tensor_bytes(DType::Q4_0, &[0, 32]).unwrap(), 0);
    assert_eq!(tensor_bytes(DType::F32, &[1 << 40, 0]).unwrap(), 0);
    assert_says(tensor_bytes(DType::Q4K, &[3, 128]), &["multiple of 256"]);
    assert_says(tensor_bytes(DType::Q8_0, &[]), &["multiple of 32"]);
}

#[test]
fn shapes_past_63_bits_are_refused() {
    for shape in [
        &[u64::MAX][..],
        &[1 << 63],
        &[1 << 32, 1 << 32],
        &[1 << 40, 1 << 40, 0],
        &[0, 1 << 40, 1 << 40],
        &[3, 1 << 62],
    ] {
        for dtype in [DType::U8, DType::F32, DType::Q4_0] {
            assert_says(tensor_bytes(dtype, shape), &["2^63"]);
        }
    }
    // Elements that fit, in bytes that do not.
    assert_says(tensor_bytes(DType::F32, &[1 << 62]), &["2^63 bytes"]);
    assert!(tensor_bytes(DType::U8, &[1 << 62]).is_ok());
}

#[test]
fn views_lie_within_their_buffer() {
    let (device, _) = fake();
    let buffer = device.allocate(64).unwrap();
    let view = |offset, dtype, shape: &[u64]| Tensor::new(buffer.clone(), offset, dtype, shape);
    assert_eq!(view(16, DType::F32, &[3, 4]).unwrap().bytes(), 48);
    assert!(view(64, DType::F32, &[0]).is_ok());
    for (offset, shape) in [(20, 12), (68, 0), (u64::MAX - 3, 1)] {
        assert_says(
            view(offset, DType::F32, &[shape]),
            &["offset", "buffer's 64"],
        );
    }
    assert_says(view(2, DType::F32, &[1]), &["multiple of 4 for f32"]);
    assert_says(view(1, DType::Q4_0, &[32]), &["multiple of 2 for q4_0"]);
    assert!(view(1, DType::U8, &[1]).is_ok());
}

#[test]
fn rows_are_views_of_the_outermost_dimension() {
    let tensor = hollow(DType::Q4_0, &[5, 2, 64]);
    let rows = tensor.rows(1..3).unwrap();
    assert_eq!(rows.shape(), [2, 2, 64]);
    assert_eq!(rows.offset(), 2 * 36);
    assert_eq!(rows.bytes(), 2 * 2 * 36);
    assert_eq!(tensor.rows(5..5).unwrap().bytes(), 0);
    assert_says(tensor.rows(4..6), &["rows: range", "0..5", "4..6"]);
    #[allow(clippy::reversed_empty_ranges)]
    let reversed = tensor.rows(3..2);
    assert_says(reversed, &["3..2"]);

    let vector = hollow(DType::F32, &[8]);
    assert_eq!(vector.rows(2..4).unwrap().offset(), 8);
    assert_says(hollow(DType::Q4_0, &[64]).rows(0..32), &["block type"]);
    assert_says(hollow(DType::F32, &[]).rows(0..0), &["one dimension"]);
    let empty = hollow(DType::F32, &[0, 4]);
    assert_eq!(empty.rows(0..0).unwrap().bytes(), 0);
}

#[test]
fn reshapes_keep_every_number() {
    let tensor = hollow(DType::F32, &[4, 6]);
    let reshaped = tensor.reshape(&[2, 3, 4]).unwrap();
    assert_eq!((reshaped.row_len(), reshaped.row_count()), (4, 6));
    assert!(reshaped.span().same(&tensor.span()));
    assert_says(tensor.reshape(&[5, 5]), &["24 elements", "[5, 5]"]);
    let blocks = hollow(DType::Q8_0, &[4, 32]);
    assert_eq!(blocks.reshape(&[2, 64]).unwrap().elements(), 128);
    assert_says(blocks.reshape(&[8, 16]), &["multiple of 32"]);
}

#[test]
fn descriptions_name_type_and_shape() {
    assert_eq!(hollow(DType::Q4K, &[3, 256]).to_string(), "q4_K[3, 256]");
    assert_eq!(format!("{:?}", hollow(DType::F32, &[])), "f32[]");
}

fn round_trip<T: Element + PartialEq + std::fmt::Debug>(data: &[T]) {
    let (device, _) = fake();
    let tensor = device.tensor(&[data.len() as u64], data).unwrap();
    assert_eq!(tensor.dtype(), T::DTYPE);
    assert_eq!(device.read::<T>(&tensor).unwrap(), data);
}

#[test]
fn numbers_round_trip() {
    round_trip(&[1.5f32, -2.0]);
    round_trip(&[7i32, -1, i32::MAX]);
    round_trip(&[7u8; 5]);
    round_trip(&[half::f16::ONE]);
    round_trip(&[half::bf16::ONE, half::bf16::NEG_ONE]);
    round_trip::<f32>(&[]);
}

#[test]
fn transfers_check_type_size_and_device() {
    let (device, _) = fake();
    let (other, _) = fake();
    let tensor = device.zeros(DType::F32, &[2, 2]).unwrap();
    assert_says(device.read::<i32>(&tensor), &["read", "i32", "f32"]);
    assert_says(device.write(&tensor, &[1i32; 4]), &["write", "i32"]);
    assert_says(
        device.write(&tensor, &[1.0f32; 3]),
        &["16 bytes for f32[2, 2]", "12 bytes"],
    );
    assert_says(
        device.read_bytes(&tensor, &mut [0; 17]),
        &["16 bytes", "17 bytes"],
    );
    assert_says(device.tensor(&[3], &[0.0f32; 2]), &["12 bytes", "8 bytes"]);
    assert_says(other.write(&tensor, &[1.0f32; 4]), &["on this device"]);
    assert_says(other.read::<f32>(&tensor), &["on this device"]);
    // The type is checked before memory is taken for the numbers.
    assert_says(
        device.read::<i32>(&hollow(DType::U8, &[1 << 62])),
        &["i32", "u8"],
    );
    assert_eq!(device.read::<f32>(&tensor).unwrap(), [0.0; 4]);
}

#[test]
fn imported_memory_is_read_only() {
    let (device, _) = fake();
    let bytes: Arc<[u8]> = Arc::from(&[1u8, 2, 3, 4][..]);
    let buffer = device.import(Arc::new(bytes)).unwrap();
    assert_eq!(buffer.access(), Access::ReadOnly);
    let tensor = Tensor::new(buffer, 1, DType::U8, &[2]).unwrap();
    assert_eq!(device.read::<u8>(&tensor).unwrap(), [2, 3]);
    assert_says(device.write(&tensor, &[0u8; 2]), &["read-only"]);
}

#[test]
fn a_tensor_is_filled_with_tiles_and_copied() {
    let (device, _) = fake();
    let buffer = device.allocate(32).unwrap();
    let part = |offset, len| Tensor::new(buffer.clone(), offset, DType::U8, &[len]).unwrap();
    for len in [1, 2, 3, 4, 7, 17, 24] {
        let whole = part(0, 32);
        device.write(&whole, &[9u8; 32]).unwrap();
        device.fill(&part(3, len), &[1, 2, 3]).unwrap();
        let mut expected = [9u8; 32];
        for (index, byte) in expected[3..3 + len as usize].iter_mut().enumerate() {
            *byte = (index % 3 + 1) as u8;
        }
        assert_eq!(device.read::<u8>(&whole).unwrap(), expected, "{len}");
    }
    device.copy(&part(3, 4), &part(27, 4)).unwrap();
    assert_eq!(device.read::<u8>(&part(26, 6)).unwrap(), [3, 1, 2, 3, 1, 9]);
    assert_says(
        device.copy(&part(0, 4), &part(3, 4)),
        &["apart from the source"],
    );
    assert_says(
        device.copy(&part(0, 4), &part(8, 5)),
        &["5 bytes", "4 bytes"],
    );
    assert_says(device.fill(&part(0, 4), &[]), &["at least one byte"]);
    let fixed: Arc<[u8]> = Arc::from(&[0u8; 4][..]);
    let fixed = device.import(Arc::new(fixed)).unwrap();
    let fixed = Tensor::new(fixed, 0, DType::U8, &[4]).unwrap();
    assert_says(device.fill(&fixed, &[1]), &["read-only"]);
    assert_says(device.copy(&part(0, 4), &fixed), &["read-only"]);
    let (other, _) = fake();
    assert_says(other.copy(&part(0, 4), &part(4, 4)), &["on this device"]);
    assert_says(other.fill(&part(0, 4), &[1]), &["on this device"]);
}

#[test]
fn missing_memory_is_an_error() {
    let (device, _) = fake();
    let error = device.zeros(DType::U8, &[MOST_BYTES + 1]).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { bytes, .. } if bytes == MOST_BYTES + 1));
}
