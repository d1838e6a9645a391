//! Damaged and hostile files: an error that says what is wrong, and never a panic.

use std::panic::catch_unwind;

use walsh_formats::ggml;
use walsh_formats::gguf::{Array, Gguf, GgufError, Value, split_info};
use walsh_formats::random::SplitMix64;

static SMALL: &[u8] = include_bytes!("golden/small.gguf");

/// A file written value by value, so that any of them can be wrong.
struct Raw(Vec<u8>);

impl Raw {
    fn new(tensors: u64, pairs: u64) -> Raw {
        Raw(b"GGUF\x03\0\0\0".to_vec()).u64(tensors).u64(pairs)
    }

    fn u8(mut self, value: u8) -> Raw {
        self.0.push(value);
        self
    }

    fn u32(mut self, value: u32) -> Raw {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Raw {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn string(self, value: &str) -> Raw {
        let mut raw = self.u64(value.len() as u64);
        raw.0.extend(value.as_bytes());
        raw
    }

    fn tensor(self, name: &str, ne: &[u64], (id, offset): (u32, u64)) -> Raw {
        let raw = self.string(name).u32(ne.len() as u32);
        let raw = ne.iter().fold(raw, |raw, length| raw.u64(*length));
        raw.u32(id).u64(offset)
    }

    /// Padding up to the tensor data, then `bytes` of it.
    fn data(mut self, bytes: usize) -> Raw {
        let start = self.0.len().next_multiple_of(32);
        self.0.resize(start + bytes, 0);
        self
    }

    fn error(&self) -> GgufError {
        let error = Gguf::parse(&self.0).expect_err("the file is bad");
        let text = error.to_string();
        assert!(!text.contains('\n') && text.len() < 600, "{text}");
        error
    }
}

const F32: u32 = 0;
const Q8_0: u32 = 8;

#[test]
fn other_files_are_recognised() {
    for (start, hint) in [
        (&b"version https://git-lfs"[..], "Git LFS"),
        (b"<!DOCTYPE html>", "web page"),
        (b"lmgg\x01\0\0\0", "older"),
        (b"PK\x03\x04....", "zip"),
        (b"\x7fELF....", "gguf file"),
    ] {
        let error = Gguf::parse(start).unwrap_err().to_string();
        assert!(
            error.starts_with("not a GGUF file") && error.contains(hint),
            "{error}"
        );
    }
    assert!(matches!(Gguf::parse(b""), Err(GgufError::Truncated { .. })));
}

#[test]
fn absurd_counts_are_refused_before_anything_is_allocated() {
    for count in [u64::MAX, 1 << 62, 1 << 40, 100] {
        assert!(matches!(
            Raw::new(count, 0).error(),
            GgufError::Count { .. }
        ));
        assert!(matches!(
            Raw::new(0, count).error(),
            GgufError::Count { .. }
        ));
        // A key's length, a string's length, and arrays of everything.
        let key = Raw::new(0, 1).u64(count).u64(0);
        assert!(matches!(key.error(), GgufError::Truncated { .. }));
        let string = Raw::new(0, 1).string("k").u32(8).u64(count);
        assert!(matches!(string.error(), GgufError::Truncated { .. }));
        for element in 0..13 {
            let array = Raw::new(0, 1).string("k").u32(9).u32(element).u64(count);
            assert!(
                matches!(array.error(), GgufError::Count { .. }),
                "{element}"
            );
        }
        let name = Raw::new(1, 0).u64(count).u64(0).u64(0);
        assert!(matches!(name.error(), GgufError::Truncated { .. }));
    }
    let dimensions = Raw::new(1, 0).string("t").u32(u32::MAX).u64(0).u64(0);
    assert!(matches!(
        dimensions.error(),
        GgufError::Dimensions {
            count: u32::MAX,
            ..
        }
    ));
}

#[test]
fn bad_metadata_is_refused() {
    let twice = Raw::new(0, 2)
        .string("k")
        .u32(0)
        .u8(1)
        .string("k")
        .u32(0)
        .u8(2);
    assert!(matches!(twice.error(), GgufError::DuplicateKey { .. }));
    let unknown = Raw::new(0, 1).string("k").u32(13).u64(0);
    assert!(matches!(
        unknown.error(),
        GgufError::ValueType { id: 13, .. }
    ));
    let unknown = Raw::new(0, 1).string("k").u32(9).u32(77).u64(0);
    assert!(matches!(
        unknown.error(),
        GgufError::ValueType { id: 77, .. }
    ));
    let boolean = Raw::new(0, 1).string("k").u32(7).u8(2);
    assert!(matches!(boolean.error(), GgufError::Bool { value: 2, .. }));
    let mut text = Raw::new(0, 1).string("k").u32(8).string("abc");
    *text.0.last_mut().unwrap() = 0xff;
    assert!(matches!(text.error(), GgufError::Utf8 { .. }));

    // Five levels of arrays, then a million: neither recursion nor memory may follow.
    for levels in [5, 1_000_000] {
        let mut deep = Raw::new(0, 1).string("k").u32(9);
        for _ in 0..levels {
            deep = deep.u32(9).u64(1);
        }
        assert!(matches!(
            deep.u32(0).u64(0).error(),
            GgufError::ArrayDepth { .. }
        ));
    }

    for alignment in [0, 1, 4, 24, 33, u32::MAX] {
        let raw = Raw::new(0, 1)
            .string("general.alignment")
            .u32(4)
            .u32(alignment);
        assert!(
            matches!(raw.error(), GgufError::Alignment { .. }),
            "{alignment}"
        );
    }
    let huge = Raw::new(0, 1)
        .string("general.alignment")
        .u32(10)
        .u64(1 << 63);
    assert!(
        Gguf::parse(&huge.0).is_ok(),
        "without tensors there is nothing to align"
    );
    let text = Raw::new(0, 1)
        .string("general.alignment")
        .u32(8)
        .string("32");
    assert!(matches!(text.error(), GgufError::WrongType { .. }));
}

#[test]
fn bad_tensors_are_refused_by_name() {
    let says = |raw: Raw, expected: &[&str]| {
        let text = raw.error().to_string();
        assert!(expected.iter().all(|part| text.contains(part)), "{text}");
    };
    let one = |ne: &[u64], id, offset| Raw::new(1, 0).tensor("blk.0.w", ne, (id, offset));
    says(
        one(&[32], 15, 0).data(64),
        &["blk.0.w", "type 15 (q8_K)", "q4_K"],
    );
    says(one(&[32], 4, 0).data(64), &["blk.0.w", "type 4,"]);
    says(one(&[32], 99, 0).data(64), &["blk.0.w", "type 99,"]);
    says(
        one(&[33, 2], Q8_0, 0).data(128),
        &["blk.0.w", "rows of 33", "32", "q8_0"],
    );
    says(one(&[16, 2], Q8_0, 0).data(128), &["blk.0.w", "rows of 16"]);
    says(
        one(&[1, 1, 1, 1, 1], F32, 0).data(64),
        &["blk.0.w", "5 dimensions"],
    );
    says(
        one(&[8], F32, 16).data(64),
        &["blk.0.w", "offset 16", "multiple of 32"],
    );
    says(
        one(&[8], F32, 64).data(64),
        &["blk.0.w", "32 bytes", "offset 64", "has only 64"],
    );
    says(one(&[17], F32, 0).data(64), &["blk.0.w", "68 bytes"]);
    says(
        one(&[1], F32, u64::MAX - 31).data(64),
        &["blk.0.w", "offset 18446744073709551584"],
    );
    says(one(&[u64::MAX], F32, 0).data(64), &["blk.0.w", "2^64"]);
    says(
        one(&[1 << 32, 1 << 32], F32, 0).data(64),
        &["blk.0.w", "2^64"],
    );
    says(
        one(&[1 << 32, 1 << 32, 0], F32, 0).data(64),
        &["blk.0.w", "2^64"],
    );
    says(
        one(&[1 << 30, 1 << 30, 1 << 2], F32, 0).data(64),
        &["blk.0.w", "2^64"],
    );
    says(one(&[8], F32, 0), &["blk.0.w", "has only 0"]);

    let two = |first, second| {
        let raw = Raw::new(2, 0).tensor("a", &[16], (F32, first));
        raw.tensor("b", &[16], (F32, second)).data(128)
    };
    assert!(Gguf::parse(&two(64, 0).0).is_ok());
    says(two(0, 32), &["\"a\" and \"b\" overlap"]);
    says(two(32, 0), &["\"b\" and \"a\" overlap"]);
    says(two(0, 0), &["overlap"]);
    let twice = Raw::new(2, 0)
        .tensor("a", &[8], (F32, 0))
        .tensor("a", &[8], (F32, 32));
    assert!(matches!(
        twice.data(64).error(),
        GgufError::DuplicateTensor { .. }
    ));
}

#[test]
fn tensors_of_no_values_or_no_dimensions_are_read() {
    let raw = Raw::new(3, 0);
    let raw = raw
        .tensor("none", &[0, 4], (F32, 32))
        .tensor("scalar", &[], (F32, 0));
    let raw = raw.tensor("after", &[1], (F32, 32)).data(36);
    let gguf = Gguf::parse(&raw.0).unwrap();
    assert_eq!(gguf.tensor("none").unwrap().bytes, 0);
    assert_eq!(gguf.tensor("scalar").unwrap().values(), 1);
    assert_eq!(gguf.data(gguf.tensor("after").unwrap()), [0; 4]);
}

#[test]
fn names_cannot_break_a_message() {
    let name = format!("a\n\u{1b}[31m{}", "x".repeat(100_000));
    let raw = Raw::new(1, 0).tensor(&name, &[32], (77, 0));
    let text = raw.error().to_string();
    assert!(
        !text.contains(['\n', '\u{1b}']) && text.len() < 600,
        "{text}"
    );
}

/// Reads everything that a file offers.
fn read_all(bytes: &[u8]) -> Result<(), GgufError> {
    fn read_array(array: &Array<'_>) {
        let strings = array
            .strings()
            .map(|strings| strings.map(str::len).sum::<usize>());
        let floats = array.f32s().map(|floats| floats.sum::<f32>());
        let ints = array.i32s().map(|ints| ints.fold(0, i32::wrapping_add));
        let bools = array
            .bools()
            .map(|bools| bools.filter(|bool| *bool).count());
        let _ = (strings, floats, ints, bools);
        for value in array.values() {
            if let Ok(Value::Array(inner)) = value {
                read_array(&inner);
            }
        }
    }
    let gguf = Gguf::parse(bytes)?;
    for (key, value) in gguf.metadata().iter() {
        assert_eq!(
            gguf.metadata().get(key).map(Value::value_type),
            Some(value.value_type())
        );
        let _ = (
            value.to_string(),
            gguf.metadata().u32(key),
            gguf.metadata().f32(key),
        );
        if let Value::Array(array) = value {
            read_array(array);
        }
    }
    let _ = split_info(gguf.metadata());
    for tensor in gguf.tensors() {
        let data = gguf.data(tensor);
        assert_eq!(data.len() as u64, tensor.bytes);
        if tensor.dtype.is_real() {
            let mut out = vec![0.0; tensor.values() as usize];
            ggml::decode(tensor.dtype, data, &mut out).expect("a parsed tensor decodes");
        }
    }
    Ok(())
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    // Behind the last tensor there is only padding, which a file may lack.
    let gguf = Gguf::parse(SMALL).unwrap();
    let end = gguf
        .tensors()
        .iter()
        .map(|tensor| tensor.offset + tensor.bytes)
        .max()
        .unwrap();
    for len in 0..SMALL.len() {
        let result = catch_unwind(|| read_all(&SMALL[..len]));
        let result = result.unwrap_or_else(|_| panic!("panicked on the first {len} bytes"));
        assert_eq!(
            result.is_ok(),
            len as u64 >= end,
            "the first {len} bytes: {result:?}"
        );
    }
}

#[test]
fn no_changed_byte_makes_a_panic() {
    let mut bytes = SMALL.to_vec();
    let mut refused = 0;
    for at in 0..bytes.len() {
        let original = bytes[at];
        let bits = (0..8).map(|bit| original ^ (1 << bit));
        for changed in bits.chain([0, 0x7f, 0x80, 0xff]) {
            bytes[at] = changed;
            let result = catch_unwind(|| read_all(&bytes));
            let result = result.unwrap_or_else(|_| panic!("panicked on byte {at} = {changed:#x}"));
            refused += usize::from(result.is_err());
        }
        bytes[at] = original;
    }
    assert!(refused > 1000, "only {refused} changes were noticed");
}

#[test]
fn random_bytes_behind_the_magic_make_no_panic() {
    let mut random = SplitMix64(7);
    for _ in 0..20_000 {
        let mut bytes = SMALL.to_vec();
        let (at, len) = (
            random.bits() as usize % bytes.len(),
            1 + random.bits() as usize % 16,
        );
        for byte in bytes.iter_mut().skip(at).take(len) {
            *byte = random.bits() as u8;
        }
        let _ = catch_unwind(|| read_all(&bytes)).expect("no panic");
    }
}
