//! Kernels of the tests' own, and what becomes of them.

#![allow(dead_code)] // each test binary uses its part

use walsh_core::{Buffer, Device, Error, Span, Tensor};
use walsh_kernels::{ArgsLayout, Binding, Dispatch, Field, Kernel, Parameter, Touch, Variant};
use walsh_sim::{SimOptions, Simulator};

const fn buffer(name: &'static str, kind: &'static str, touch: Touch) -> Parameter {
    Parameter { name, kind, touch }
}

const ARGS: ArgsLayout = ArgsLayout {
    name: "TestArgs",
    bytes: 4,
    fields: &[Field {
        name: "count",
        kind: "uint",
        offset: 0,
        count: 1,
    }],
};

/// A kernel named `planted` that reads `input` and writes `output`, both of floats, with this body and threadgroup
/// memory of `float sums[128]`.
pub(crate) fn kernel(body: &str) -> &'static Kernel {
    let text = format!(
        "TABLE float HALVES[4] = {{0.5f, 0.25f, 0.125f, 0.0625f}};\n\
         struct Shared {{ float sums[128]; }};\n\
         inline void planted(constant TestArgs &args, device const float *input, device float *output,\n\
         \x20                   threadgroup Shared &shared, Position at) {{\n{body}\n}}\n"
    );
    Box::leak(Box::new(Kernel {
        name: "planted",
        includes: &[],
        tables: |_| String::new(),
        text: text.leak(),
        native: &[],
        constants: &["THREADS"],
        args: ARGS,
        buffers: &const {
            [
                buffer("input", "float", Touch::Reads),
                buffer("output", "float", Touch::Writes),
            ]
        },
        shared: true,
    }))
}

/// A launch of a kernel between two ranges of buffers.
pub(crate) struct Launch {
    pub(crate) threads: i64,
    pub(crate) groups: [u32; 3],
    pub(crate) count: u32,
    pub(crate) barrier: bool,
}

impl Launch {
    pub(crate) const GROUP: Self = Self {
        threads: 64,
        groups: [1, 1, 1],
        count: 64,
        barrier: false,
    };

    pub(crate) fn of(&self, kernel: &'static Kernel, input: Span, output: Span) -> Dispatch {
        let bind = |span, touch| Binding { span, touch };
        let mut dispatch = Dispatch::alone(
            Variant::new(kernel, &[("THREADS", self.threads)]),
            self.groups,
            self.count.to_le_bytes().to_vec(),
            vec![bind(input, Touch::Reads), bind(output, Touch::Writes)],
        );
        dispatch.barrier = self.barrier;
        dispatch
    }
}

/// A simulator whose orders begin at a seed.
pub(crate) fn simulator(seed: u64) -> Simulator {
    let options = SimOptions {
        seed,
        ..SimOptions::default()
    };
    Simulator::new(options).expect("a C++ compiler")
}

/// 128 numbers, 0 to 127, and 128 numbers of −1.
pub(crate) fn numbers(device: &Device) -> (Tensor, Tensor) {
    let ascending: Vec<f32> = (0..128u8).map(f32::from).collect();
    let input = device.tensor(&[128], &ascending).expect("memory");
    let output = device.tensor(&[128], &[-1.0f32; 128]).expect("memory");
    (input, output)
}

/// Runs a body as a kernel of one launch; what it wrote, or what went wrong.
pub(crate) fn run(body: &str, launch: &Launch, seed: u64) -> Result<Vec<f32>, String> {
    let simulator = simulator(seed);
    let device = simulator.device();
    let (input, output) = numbers(&device);
    let dispatch = launch.of(kernel(body), input.span(), output.span());
    let outcome = simulator.run(&[dispatch]);
    let output = device.read::<f32>(&output).expect("memory of the device");
    match outcome {
        Ok(()) => Ok(output),
        Err(Error::Device { device, message }) => Err(format!("{device}: {message}")),
        Err(other) => panic!("{other}"),
    }
}

/// Asserts that a body fails under several seeds, each time with all these words, and that the device works on.
#[track_caller]
pub(crate) fn caught(body: &str, launch: &Launch, words: &[&str]) {
    for seed in 0..6 {
        let error = run(body, launch, seed).expect_err("an error");
        let named = [
            &*format!("seed {seed:#x}"),
            "planted THREADS=",
            "group [",
            "thread ",
        ];
        for word in words.iter().chain(&named) {
            assert!(error.contains(word), "{error:?} lacks {word:?}");
        }
    }
}

/// The whole of a buffer.
pub(crate) fn whole(buffer: &Buffer) -> Span {
    Span {
        buffer: buffer.clone(),
        offset: 0,
        bytes: buffer.bytes(),
    }
}
