//! Any bytes as a GGUF file: parsing, reading every metadata value, and decoding what it holds must
//! neither panic nor allocate more than a few times the input's size.

#![no_main]

use libfuzzer_sys::fuzz_target;
use walsh_formats::DType;
use walsh_formats::ggml;
use walsh_formats::gguf::{Array, Gguf, Value, split_info};

/// Values decoded of one tensor; the corpus is small, and time goes into parsing.
const DECODED: usize = 1024;

fuzz_target!(|bytes: &[u8]| {
    let Ok(gguf) = Gguf::parse(bytes) else {
        return;
    };
    let metadata = gguf.metadata();
    for (key, value) in metadata.iter() {
        assert_eq!(
            metadata.get(key).map(Value::value_type),
            Some(value.value_type())
        );
        // Every getter, of which at most one fits.
        let _ = (
            metadata.u32(key),
            metadata.u64(key),
            metadata.i32(key),
            metadata.f32(key),
        );
        let _ = (metadata.bool(key), metadata.str(key), value.to_string());
        if let Value::Array(array) = value {
            read_array(array);
        }
    }
    let _ = split_info(metadata);
    for tensor in gguf.tensors() {
        let data = gguf.data(tensor);
        assert_eq!(data.len() as u64, tensor.bytes);
        assert!(gguf.tensor(tensor.name).is_some());
        let blocks =
            (data.len() / tensor.dtype.block_bytes()).min(DECODED / tensor.dtype.block_len());
        let mut values = vec![0.0; blocks * tensor.dtype.block_len()];
        let decoded = ggml::decode(
            tensor.dtype,
            &data[..blocks * tensor.dtype.block_bytes()],
            &mut values,
        );
        assert_eq!(
            decoded.is_ok(),
            !matches!(tensor.dtype, DType::I32 | DType::U8)
        );
    }
});

fn read_array(array: &Array<'_>) {
    let strings = array
        .strings()
        .map(|strings| strings.map(str::len).sum::<usize>());
    let floats = array.f32s().map(|floats| floats.sum::<f32>());
    let ints = array.i32s().map(|ints| ints.fold(0, i32::wrapping_add));
    let bools = array
        .bools()
        .map(|bools| bools.filter(|bool| *bool).count());
    std::hint::black_box((strings.is_ok(), floats.is_ok(), ints.is_ok(), bools.is_ok()));
    let values = array.values();
    assert_eq!(values.len(), array.len());
    for value in values {
        if let Ok(Value::Array(inner)) = value {
            read_array(&inner);
        }
    }
}
