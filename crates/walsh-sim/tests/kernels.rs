//! Kernels without a mistake: they pass whatever the order, and give the same numbers.

mod planted;

use half::f16;
use planted::{Launch, kernel, numbers, run, simulator};

#[test]
fn right_kernels_pass_and_give_the_same_under_every_seed() {
    // A sum over the group in each of the ways that need a barrier.
    let body = "float x = input[64 * at.y + at.index];
         float sum = simd_sum(x);
         if (at.lane == 0) shared.sums[at.simd] = sum;
         threadgroup_barrier();
         float total = shared.sums[0] + shared.sums[1];
         threadgroup_barrier();
         shared.sums[at.index] = x;
         simdgroup_barrier();
         float neighbour = shared.sums[at.index ^ 1];
         simdgroup_barrier();
         shared.sums[at.index] = neighbour;
         threadgroup_barrier();
         float across = shared.sums[at.index ^ 32];
         output[64 * at.y + at.index] = total + 1000.0f * across + simd_shuffle(x, 31 - at.lane) + simd_max(x);";
    let launch = Launch {
        groups: [1, 2, 1],
        ..Launch::GROUP
    };
    let expected: Vec<f32> = (0..128u32)
        .map(|i| {
            let (group, index) = (i / 64, i % 64);
            let total = 64 * (64 * group) + 63 * 32;
            let across = 64 * group + ((index ^ 32) ^ 1);
            let first = 64 * group + index / 32 * 32;
            (total + 1000 * across + first + 31 - index % 32 + first + 31) as f32
        })
        .collect();
    for seed in 0..40 {
        assert_eq!(run(body, &launch, seed).unwrap(), expected, "seed {seed}");
    }
}

#[test]
fn orders_differ_between_seeds_and_repeat_with_them() {
    // Which thread comes last is the one thing that atomics let a kernel see.
    let body = "simd_sum(1.0f);
         atomic_min((device uint *)output, 1u);
         device uint *first = (device uint *)output;
         if (at.index == 0) first[1] = first[1];";
    assert!(run(body, &Launch::GROUP, 1).is_ok());
    let wrong = "if (at.index == 3 || at.index == 50) output[0] = 1.0f;";
    let message = |seed| run(wrong, &Launch::GROUP, seed).unwrap_err();
    let seeds = 0..16;
    let second = |seed| message(seed).contains(": group [0, 0, 0], thread 50");
    let count = seeds.clone().filter(|seed| second(*seed)).count();
    assert!((1..16).contains(&count), "{count} of 16");
    for seed in seeds {
        assert_eq!(message(seed), message(seed));
    }
}

#[test]
fn sums_are_added_in_the_order_of_cuda() {
    let simulator = simulator(2);
    let device = simulator.device();
    let (input, output) = numbers(&device);
    let mut values: Vec<f32> = (0..128u32)
        .map(|i| {
            ((i.wrapping_mul(2_654_435_761) % 1000) as f32 - 499.5)
                * 1.37f32.powi(i as i32 % 40 - 20)
        })
        .collect();
    device.write(&input, &values).unwrap();
    let launch = Launch {
        threads: 32,
        ..Launch::GROUP
    };
    let sum = kernel("output[at.index] = simd_sum(input[at.index]);");
    simulator
        .run(&[launch.of(sum, input.span(), output.span())])
        .unwrap();
    for mask in [16, 8, 4, 2, 1] {
        values = (0..32)
            .map(|lane| values[lane] + values[lane ^ mask])
            .collect();
    }
    let given = device.read::<f32>(&output).unwrap();
    assert_eq!(given[..32], values);
}

#[test]
fn operations_in_place() {
    let simulator = simulator(6);
    let device = simulator.device();
    let (input, _) = numbers(&device);
    let double = kernel("output[at.index] = 2.0f * input[at.index];");
    let dispatch = Launch::GROUP.of(double, input.span(), input.span());
    simulator.run(&[dispatch]).unwrap();
    assert_eq!(
        device.read::<f32>(&input).unwrap()[61..66],
        [122.0, 124.0, 126.0, 64.0, 65.0]
    );
    let shift = kernel("output[at.index] = input[at.index + 1];");
    let dispatch = Launch::GROUP.of(shift, input.span(), input.span());
    let error = simulator.run(&[dispatch]).unwrap_err().to_string();
    assert!(error.contains("a race"), "{error}");
}

#[test]
fn atomics_order_nothing_but_themselves() {
    let body = "atomic_min((device uint *)output + (at.index & 1), 1000 + at.index + 64 * at.y);";
    let launch = Launch {
        groups: [1, 2, 1],
        ..Launch::GROUP
    };
    let output = run(body, &launch, 8).unwrap();
    assert_eq!([output[0].to_bits(), output[1].to_bits()], [1000, 1001]);
}

#[test]
fn halves_are_those_of_the_format() {
    let simulator = simulator(1);
    let device = simulator.device();
    let bits: Vec<u32> = (0..=u16::MAX)
        .flat_map(|half| {
            // Each half, and single-precision numbers on and beside the middle to the next.
            let here = f16::from_bits(half).to_f32().to_bits();
            let next = f16::from_bits(half.wrapping_add(1)).to_f32().to_bits();
            let middle = here / 2 + next / 2 + (here & next & 1);
            [here, middle.wrapping_sub(1), middle, middle.wrapping_add(1)]
        })
        .collect();
    let floats: Vec<f32> = bits.iter().map(|bits| f32::from_bits(*bits)).collect();
    let count = floats.len() as u64;
    let input = device.tensor(&[count], &floats).unwrap();
    let output = device
        .zeros(walsh_core::formats::DType::F32, &[count])
        .unwrap();
    let body = "uint index = THREADS * at.x + at.index;
         ushort half = float_to_half(input[index]);
         output[index] = as_type<float>((uint)half << 16 | float_to_half(half_to_float(half)));";
    let launch = Launch {
        groups: [bits.len() as u32 / 64, 1, 1],
        ..Launch::GROUP
    };
    simulator
        .run(&[launch.of(kernel(body), input.span(), output.span())])
        .unwrap();
    for (value, given) in floats.iter().zip(device.read::<f32>(&output).unwrap()) {
        let [again, half] = [given.to_bits() as u16, (given.to_bits() >> 16) as u16];
        let expected = f16::from_f32(*value);
        if value.is_nan() {
            assert!(f16::from_bits(half).is_nan() && f16::from_bits(again).is_nan());
        } else {
            assert_eq!([half, again], [expected.to_bits(); 2], "{value:e}");
        }
    }
}

#[test]
fn words_mean_what_they_mean_on_a_device() {
    for (expression, expected) in [
        (
            "dot4(0x7f80ff02, 0x7f80fd03, -5)",
            127.0 * 127.0 + 16384.0 + 3.0 + 6.0 - 5.0,
        ),
        (
            "fma(0.1f, 10.0f, -1.0f)",
            f64::from(0.1f32.mul_add(10.0, -1.0)),
        ),
        ("0.1f * 10.0f - 1.0f", 0.0),
        ("rint(2.5f) + rint(3.5f) + rint(-0.5f)", 6.0),
        ("min(3, -4) + max(2u, 7u) + min(2.5f, 3.0f)", 5.5),
        ("max(as_type<float>(0x7fc00000u), 2.0f)", 2.0),
        ("abs(-3) + abs(-0.5f) + sqrt(16.0f)", 7.5),
        (
            "exp(1.0f) + tanh(0.5f) + cos(1.0f) + sin(1.0f)",
            4.562_172_5,
        ),
        ("as_type<float>(0x40490fdbu)", std::f64::consts::PI),
        ("simd_sum((int)at.index - 1)", 32.0 * 14.5),
        ("simd_sum(at.index)", 496.0),
        ("simd_max(-1.0f - at.lane)", -1.0),
    ] {
        let launch = Launch {
            threads: 32,
            ..Launch::GROUP
        };
        let body = format!("output[at.index] = (float)({expression});");
        let given = f64::from(run(&body, &launch, 1).unwrap()[7]);
        assert!(
            (given - expected).abs() < 1e-6 * expected.abs().max(1e-3),
            "{expression}: {given}, not {expected}"
        );
    }
}

#[test]
fn simulators_share_compiled_code_and_nothing_else() {
    std::thread::scope(|scope| {
        for seed in 0..4 {
            scope.spawn(move || {
                for round in 0..20 {
                    let body = "output[at.index] = input[at.index] + simd_sum(1.0f);";
                    let output = run(body, &Launch::GROUP, seed + 4 * round).unwrap();
                    assert_eq!(output[40], 72.0);
                }
            });
        }
    });
}
