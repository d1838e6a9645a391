//! Reading a file that the Python package `gguf` wrote (`golden/make_gguf.py`), and writing the same.

use std::path::Path;

use safetensors::SafeTensors;
use walsh_formats::DType;
use walsh_formats::gguf::write::{NewTensor, NewValue, Writer};
use walsh_formats::gguf::{Gguf, GgufError, Value, ValueType, check_split, split_info, split_path};

static SMALL: &[u8] = include_bytes!("golden/small.gguf");
static TYPES: &[u8] = include_bytes!("golden/types.gguf");
static GGML: &[u8] = include_bytes!("golden/ggml.safetensors");

#[test]
fn tensors_of_every_type_are_read() {
    let gguf = Gguf::parse(TYPES).unwrap();
    let golden = SafeTensors::deserialize(GGML).unwrap();
    for &dtype in DType::ALL {
        // The package has no such type, or no numbers of it.
        if !dtype.is_real() || dtype == DType::Q2_0 || dtype.ggml_id().is_none() {
            continue;
        }
        let name = dtype.name().to_uppercase();
        let tensor = gguf.tensor(&name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(
            (tensor.dtype, tensor.shape.as_slice()),
            (dtype, &[2u64, 256][..])
        );
        let stored = golden.tensor(&format!("decode.{name}.bytes")).unwrap();
        assert_eq!(
            gguf.data(tensor),
            &stored.data()[..tensor.bytes as usize],
            "{name}"
        );
    }
    let known = DType::ALL.iter().filter(|dtype| dtype.ggml_id().is_some());
    assert_eq!(gguf.tensors().len(), known.count() - 2);
}

#[test]
fn every_metadata_type_is_read() {
    let gguf = Gguf::parse(SMALL).unwrap();
    assert_eq!((gguf.version(), gguf.alignment()), (3, 64));
    let metadata = gguf.metadata();
    assert_eq!(metadata.len(), 21);
    assert_eq!(metadata.str("general.architecture"), Ok("llama"));
    assert_eq!(metadata.get("t.u8"), Some(&Value::U8(200)));
    assert_eq!(metadata.get("t.i8"), Some(&Value::I8(-100)));
    assert_eq!(metadata.get("t.u16"), Some(&Value::U16(60_000)));
    assert_eq!(metadata.get("t.i16"), Some(&Value::I16(-30_000)));
    assert_eq!(metadata.get("t.u32"), Some(&Value::U32(4_000_000_000)));
    assert_eq!(metadata.get("t.i32"), Some(&Value::I32(-2_000_000_000)));
    assert_eq!(metadata.get("t.f32"), Some(&Value::F32(0.1)));
    assert_eq!(metadata.get("t.true"), Some(&Value::Bool(true)));
    assert_eq!(metadata.get("t.false"), Some(&Value::Bool(false)));
    assert_eq!(metadata.get("t.string"), Some(&Value::String("héllo 世界")));
    assert_eq!(metadata.get("t.u64"), Some(&Value::U64(u64::MAX)));
    assert_eq!(metadata.get("t.i64"), Some(&Value::I64(i64::MIN)));
    assert_eq!(metadata.get("t.f64"), Some(&Value::F64(0.1)));
    assert_eq!(metadata.get("absent"), None);

    let strings: Vec<&str> = metadata
        .array("t.strings")
        .unwrap()
        .strings()
        .unwrap()
        .collect();
    assert_eq!(strings, ["<s>", "", "Ġa"]);
    let floats: Vec<f32> = metadata
        .array("t.floats")
        .unwrap()
        .f32s()
        .unwrap()
        .collect();
    assert_eq!(floats, [0.5, -1.25]);
    let ints: Vec<i32> = metadata.array("t.ints").unwrap().i32s().unwrap().collect();
    assert_eq!(ints, [1, -2, 3]);
    let bools: Vec<bool> = metadata
        .array("t.bools")
        .unwrap()
        .bools()
        .unwrap()
        .collect();
    assert_eq!(bools, [true, false, true]);
    let bytes = metadata.array("t.bytes").unwrap();
    assert_eq!(bytes.i32s().unwrap().collect::<Vec<_>>(), [1, 2, 255]);
    let nested = metadata.array("t.nested").unwrap();
    assert_eq!((nested.element_type(), nested.len()), (ValueType::Array, 2));
    let mut inner = Vec::new();
    for value in nested.values() {
        match value.unwrap() {
            Value::Array(array) => inner.push(array.i32s().unwrap().collect::<Vec<_>>()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(inner, [vec![1, 2], vec![3]]);
}

#[test]
fn tensors_are_read_outermost_first() {
    let gguf = Gguf::parse(SMALL).unwrap();
    let found: Vec<_> = gguf
        .tensors()
        .iter()
        .map(|tensor| {
            (
                tensor.name,
                tensor.dtype,
                tensor.shape.as_slice(),
                tensor.bytes,
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("f32", DType::F32, &[2, 3][..], 24),
            ("f16", DType::F16, &[5], 10),
            ("q8_0", DType::Q8_0, &[2, 64], 136),
            ("i32", DType::I32, &[1, 2, 3, 4], 96),
        ]
    );
    for tensor in gguf.tensors() {
        assert!(tensor.offset.is_multiple_of(64));
    }
    let f32 = gguf.data(gguf.tensor("f32").unwrap());
    assert_eq!(f32[..8], [0, 0, 0, 0, 0, 0, 128, 63]);
    let q8_0 = gguf.data(gguf.tensor("q8_0").unwrap());
    assert!(q8_0.iter().copied().eq(0..136));
    assert_eq!(gguf.tensor("absent"), None);
    assert_eq!(gguf.tensor("i32").unwrap().values(), 24);
}

#[test]
fn version_2_is_read_and_others_are_refused() {
    let mut bytes = SMALL.to_vec();
    bytes[4] = 2;
    assert_eq!(Gguf::parse(&bytes).unwrap().version(), 2);
    for version in [0, 1, 4] {
        bytes[4] = version;
        let error = Gguf::parse(&bytes).unwrap_err();
        assert_eq!(
            error,
            GgufError::Version {
                found: version.into()
            }
        );
    }
    bytes[4..8].copy_from_slice(&[0, 0, 0, 3]);
    assert_eq!(Gguf::parse(&bytes).unwrap_err(), GgufError::BigEndian);
}

/// The content of the golden file.
fn small() -> Writer<'static> {
    let mut writer = Writer::new();
    let mut set = |key: &str, value: NewValue| writer.set(key, value).unwrap();
    set("general.architecture", "llama".into());
    set("general.alignment", 64_u32.into());
    set("t.u8", 200_u8.into());
    set("t.i8", (-100_i8).into());
    set("t.u16", 60_000_u16.into());
    set("t.i16", (-30_000_i16).into());
    set("t.u32", 4_000_000_000_u32.into());
    set("t.i32", (-2_000_000_000_i32).into());
    set("t.f32", 0.1_f32.into());
    set("t.true", true.into());
    set("t.false", false.into());
    set("t.string", "héllo 世界".into());
    set("t.u64", u64::MAX.into());
    set("t.i64", i64::MIN.into());
    set("t.f64", 0.1_f64.into());
    set("t.strings", vec!["<s>", "", "Ġa"].into());
    set("t.floats", vec![0.5_f32, -1.25].into());
    set("t.ints", vec![1, -2, 3].into());
    set("t.bools", vec![true, false, true].into());
    set("t.bytes", vec![1_u8, 2, 255].into());
    let nested = vec![vec![1, 2].into(), vec![3].into()];
    set("t.nested", NewValue::Array(ValueType::Array, nested));

    let f32: Vec<u8> = (0..6_u8).flat_map(|i| f32::from(i).to_le_bytes()).collect();
    let f16 = [0_u16, 0x3c00, 0x4000, 0x4200, 0x4400];
    let f16: Vec<u8> = f16.into_iter().flat_map(u16::to_le_bytes).collect();
    let i32: Vec<u8> = (0..24_i32).flat_map(i32::to_le_bytes).collect();
    let tensors: [(&str, DType, &[u64], Vec<u8>); 4] = [
        ("f32", DType::F32, &[2, 3], f32),
        ("f16", DType::F16, &[5], f16),
        ("q8_0", DType::Q8_0, &[2, 64], (0..136).collect()),
        ("i32", DType::I32, &[1, 2, 3, 4], i32),
    ];
    for (name, dtype, shape, data) in tensors {
        let data = data.into();
        writer
            .tensor(NewTensor {
                name,
                dtype,
                shape,
                data,
            })
            .unwrap();
    }
    writer
}

#[test]
fn the_writer_writes_what_python_writes() {
    let bytes = small().to_bytes();
    if let Some(at) = bytes
        .iter()
        .zip(SMALL)
        .position(|(ours, theirs)| ours != theirs)
    {
        panic!("the files differ at byte {at}");
    }
    assert_eq!(bytes.len(), SMALL.len());
    let mut streamed = Vec::new();
    small().write_to(&mut streamed).unwrap();
    assert!(streamed == bytes);
}

#[test]
fn the_writer_refuses_what_no_reader_takes() {
    let mut writer = small();
    let mixed = NewValue::Array(ValueType::U32, vec![1_u32.into(), "x".into()]);
    assert!(matches!(
        writer.set("mixed", mixed),
        Err(GgufError::Write { .. })
    ));
    let mut deep = NewValue::from(1_u8);
    let mut element = ValueType::U8;
    for _ in 0..4 {
        deep = NewValue::Array(element, vec![deep]);
        element = ValueType::Array;
    }
    writer.set("deep", deep.clone()).unwrap();
    assert!(Gguf::parse(&writer.to_bytes()).is_ok());
    deep = NewValue::Array(element, vec![deep]);
    assert!(matches!(
        writer.set("deep", deep),
        Err(GgufError::ArrayDepth { .. })
    ));
    assert!(writer.set("general.alignment", 24_u32).is_err());
    assert!(writer.set("general.alignment", "64").is_err());
    let mut tensor = |name: &str, dtype, shape: &[u64], bytes: usize| {
        let data = vec![0; bytes].into();
        writer
            .tensor(NewTensor {
                name,
                dtype,
                shape,
                data,
            })
            .unwrap_err()
    };
    assert!(matches!(
        tensor("f32", DType::F32, &[1], 4),
        GgufError::DuplicateTensor { .. }
    ));
    assert!(matches!(
        tensor("a", DType::F32, &[1], 3),
        GgufError::Write { .. }
    ));
    assert!(matches!(
        tensor("a", DType::U8, &[1], 1),
        GgufError::Write { .. }
    ));
    assert!(matches!(
        tensor("a", DType::F32, &[1; 5], 4),
        GgufError::Write { .. }
    ));
    assert!(matches!(
        tensor("a", DType::Q8_0, &[2, 16], 34),
        GgufError::PartialBlock { .. }
    ));
}

#[test]
fn typed_getters_convert_what_fits_and_refuse_the_rest() {
    let gguf = Gguf::parse(SMALL).unwrap();
    let metadata = gguf.metadata();
    assert_eq!(metadata.u32("t.u8"), Ok(200));
    assert_eq!(metadata.u64("t.u64"), Ok(u64::MAX));
    assert_eq!(metadata.i32("t.i16"), Ok(-30_000));
    assert_eq!(metadata.f32("t.f64"), Ok(0.1));
    assert_eq!(metadata.bool("t.true"), Ok(true));
    assert_eq!(metadata.opt_u32("absent"), Ok(None));
    assert_eq!(metadata.opt_array("absent"), Ok(None));

    let says = |error: GgufError, parts: &[&str]| {
        let text = error.to_string();
        assert!(!text.contains('\n'), "{text}");
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    };
    says(
        metadata.u32("absent").unwrap_err(),
        &["\"absent\"", "missing"],
    );
    says(
        metadata.u32("t.string").unwrap_err(),
        &["\"t.string\"", "u32", "string"],
    );
    says(
        metadata.opt_u32("t.f32").unwrap_err(),
        &["\"t.f32\"", "u32", "f32"],
    );
    says(
        metadata.u32("t.u64").unwrap_err(),
        &["t.u64", "18446744073709551615", "u32"],
    );
    says(metadata.u64("t.i8").unwrap_err(), &["t.i8", "-100", "u64"]);
    says(
        metadata.str("t.strings").unwrap_err(),
        &["string", "array of 3 string"],
    );
    says(metadata.bool("t.u8").unwrap_err(), &["bool", "u8"]);
    let strings = metadata.array("t.strings").unwrap();
    says(
        strings.f32s().err().unwrap(),
        &["t.strings", "array of f32", "array of 3 string"],
    );
    says(
        strings.i32s().err().unwrap(),
        &["t.strings", "array of i32"],
    );
    says(
        strings.bools().err().unwrap(),
        &["t.strings", "array of bool"],
    );
    let floats = metadata.array("t.floats").unwrap();
    says(
        floats.strings().err().unwrap(),
        &["t.floats", "array of string"],
    );
}

#[test]
fn array_contents_are_checked_when_read() {
    let mut writer = Writer::new();
    writer.set("big", vec![1_u64, 1 << 40]).unwrap();
    writer.set("bools", vec![true, false, true]).unwrap();
    writer.set("strings", vec!["ok", "zz"]).unwrap();
    let mut bytes = writer.to_bytes();
    let at = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|w| w == what).unwrap();
    let bools = at(&bytes, &[1, 0, 1]);
    bytes[bools + 1] = 7;
    let zz = at(&bytes, b"zz");
    bytes[zz] = 0xff;
    let gguf = Gguf::parse(&bytes).unwrap();
    let array = |key| gguf.metadata().array(key).unwrap();
    assert!(matches!(
        array("big").i32s().err(),
        Some(GgufError::IntegerRange { .. })
    ));
    assert!(matches!(
        array("bools").bools().err(),
        Some(GgufError::Bool { value: 7, .. })
    ));
    assert!(matches!(
        array("strings").strings().err(),
        Some(GgufError::Utf8 { .. })
    ));
    let raw: Vec<&[u8]> = array("strings").byte_strings().unwrap().collect();
    assert_eq!(raw, [&b"ok"[..], b"\xffz"]);
    let values: Vec<_> = array("bools").values().collect();
    assert!(values[0].is_ok() && values[1].is_err() && values[2].is_ok());
}

fn part(no: u16, count: u16, total: i32, tensors: &[&str]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.set("split.no", no).unwrap();
    writer.set("split.count", count).unwrap();
    writer.set("split.tensors.count", total).unwrap();
    for name in tensors {
        let data = vec![0; 4].into();
        let tensor = NewTensor {
            name,
            dtype: DType::F32,
            shape: &[1],
            data,
        };
        writer.tensor(tensor).unwrap();
    }
    writer.to_bytes()
}

#[test]
fn parts_of_a_split_model_are_checked() {
    let check = |parts: &[Vec<u8>]| {
        let parts: Vec<Gguf<'_>> = parts
            .iter()
            .map(|part| Gguf::parse(part).unwrap())
            .collect();
        check_split(&parts).map_err(|error| error.to_string())
    };
    let (first, second) = (part(0, 2, 3, &["a", "b"]), part(1, 2, 3, &["c"]));
    assert_eq!(check(&[first.clone(), second.clone()]), Ok(()));
    let refused = [
        (vec![second.clone(), first.clone()], "part 2"),
        (vec![first.clone()], "2 parts"),
        (
            vec![first.clone(), second.clone(), second.clone()],
            "2 parts",
        ),
        (
            vec![first.clone(), part(1, 2, 3, &["b"])],
            "\"b\" is in two parts",
        ),
        (
            vec![first.clone(), part(1, 2, 3, &[])],
            "2 tensors together",
        ),
        (vec![first.clone(), SMALL.to_vec()], "not a part"),
        (vec![part(2, 2, 3, &[])], "not below"),
    ];
    for (parts, expected) in refused {
        let error = check(&parts).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(check(&[SMALL.to_vec()]), Ok(()));
    assert_eq!(check(&[part(0, 1, 1, &["a"])]), Ok(()));
    let gguf = Gguf::parse(&second).unwrap();
    let split = split_info(gguf.metadata()).unwrap().unwrap();
    assert_eq!((split.no, split.count, split.tensors), (1, 2, Some(3)));
    let whole = Gguf::parse(SMALL).unwrap();
    assert_eq!(split_info(whole.metadata()), Ok(None));
}

#[test]
fn parts_are_named_from_1_on() {
    let first = Path::new("/models/x-00001-of-00003.gguf");
    let third = Path::new("/models/x-00003-of-00003.gguf");
    assert_eq!(split_path(first, 2, 3).as_deref(), Some(third));
    assert_eq!(split_path(third, 0, 3).as_deref(), Some(first));
    assert_eq!(split_path(first, 3, 3), None);
    assert_eq!(split_path(first, 0, 4), None);
    for name in [
        "x.gguf",
        "x-1-of-00003.gguf",
        "x-00004-of-00003.gguf",
        "x-00000-of-00003.gguf",
        "x-+0001-of-00003.gguf",
    ] {
        assert_eq!(split_path(Path::new(name), 0, 3), None, "{name}");
    }
}

#[test]
fn a_streamed_file_is_the_one_that_is_written_at_once() {
    let shapes: [&[u64]; 3] = [&[3], &[2, 32], &[5]];
    let types = [DType::F32, DType::Q8_0, DType::F16];
    let data: Vec<Vec<u8>> = [12, 68, 10].map(|len| (0..len).collect()).to_vec();
    let (mut whole, mut declared) = (Writer::new(), Writer::new());
    for (index, (shape, dtype)) in shapes.into_iter().zip(types).enumerate() {
        let name = format!("tensor {index}");
        declared.declare(&name, dtype, shape).unwrap();
        whole
            .tensor(NewTensor {
                name: &name,
                dtype,
                shape,
                data: data[index].as_slice().into(),
            })
            .unwrap();
    }
    let mut stream = declared.stream(Vec::new()).unwrap();
    stream.put(&data[0]).unwrap();
    stream.put(&data[1][..40]).unwrap();
    // More than the tensor lacks, which changes nothing.
    assert!(stream.put(&data[1][39..]).is_err());
    stream.put(&data[1][40..]).unwrap();
    stream.put(&data[2]).unwrap();
    assert!(stream.put(&[0]).is_err());
    let streamed = stream.finish().unwrap();
    assert_eq!(streamed, whole.to_bytes());
    assert_eq!(streamed.len() as u64, declared.file_bytes());

    let mut short = declared.stream(Vec::new()).unwrap();
    short.put(&data[0]).unwrap();
    assert!(short.finish().is_err());
    assert!(declared.declare("tensor 0", DType::F32, &[1]).is_err());
    assert!(declared.declare("codes", DType::U8, &[1]).is_err());
}

#[test]
fn metadata_is_copied_as_it_is() {
    let mut writer = Writer::new();
    writer.set("a", vec!["x", "y"]).unwrap();
    writer.set("b", 7_u16).unwrap();
    writer.set("c", vec![1.5_f32]).unwrap();
    let bytes = writer.to_bytes();
    let mut copy = Writer::new();
    for (key, value) in Gguf::parse(&bytes).unwrap().metadata().iter() {
        copy.set(key, NewValue::try_from(*value).unwrap()).unwrap();
    }
    assert_eq!(copy.to_bytes(), bytes);
}
