//! Kernels with a mistake in them: each is caught, whatever the order, and named.

mod planted;

use planted::{Launch, caught, kernel, numbers, run, simulator};
use walsh_sim::{SimOptions, Simulator};

const TWO_GROUPS: Launch = Launch {
    groups: [1, 2, 1],
    ..Launch::GROUP
};

#[test]
fn a_race_within_a_simdgroup() {
    caught(
        "shared.sums[at.index] = input[at.index];
         threadgroup_barrier();
         shared.sums[at.index] += shared.sums[at.index ^ 1];",
        &Launch::GROUP,
        &["a race", "`threadgroup memory`", "with no barrier between"],
    );
    caught(
        "if (at.index < 32) output[0] = input[0];",
        &Launch::GROUP,
        &["a race", "byte 0 of `output`"],
    );
}

#[test]
fn a_collective_orders_no_memory() {
    caught(
        "shared.sums[at.index] = input[at.index];
         float sum = simd_sum(input[at.index]);
         output[at.index] = sum + shared.sums[at.index ^ 1];",
        &Launch::GROUP,
        &["a race", "`threadgroup memory`"],
    );
}

#[test]
fn a_race_across_simdgroups_behind_a_simdgroup_barrier() {
    caught(
        "shared.sums[at.index] = input[at.index];
         simdgroup_barrier();
         output[at.index] = shared.sums[at.index ^ 32];",
        &Launch::GROUP,
        &["`threadgroup memory`"],
    );
    caught(
        "if (at.lane == 3) output[7] = 1.0f;",
        &Launch::GROUP,
        &["a race", "byte 28 of `output`", "wrote"],
    );
}

#[test]
fn a_race_between_groups() {
    caught(
        "threadgroup_barrier();
         output[at.index] = input[at.index];
         threadgroup_barrier();",
        &TWO_GROUPS,
        &["a race", "of `output`", "thread "],
    );
    caught(
        "output[64 * at.y + at.index] = 1.0f;
         threadgroup_barrier();
         if (at.index == 0 && at.y == 1) output[65] += output[63];",
        &TWO_GROUPS,
        &["a race", "of `output`"],
    );
}

#[test]
fn a_write_over_what_other_groups_read() {
    caught(
        "float all = 0.0f;
         for (uint i = 0; i < 4; i++) all += output[i];
         threadgroup_barrier();
         if (at.index == 0 && at.y == 1) output[2] = all;",
        &TWO_GROUPS,
        &["a race", "byte 8 of `output`"],
    );
}

#[test]
fn an_atomic_and_a_plain_access_race() {
    caught(
        "if (at.index == 0 || at.index == 40) atomic_min((device uint *)output, at.index);
         if (at.index == 63) output[0] = 0.0f;",
        &Launch::GROUP,
        &["a race", "byte 0 of `output`"],
    );
}

#[test]
fn out_of_bounds() {
    caught(
        "output[at.index] = input[at.index + 65];",
        &Launch::GROUP,
        &[
            "reads 4 bytes out of bounds: byte 512 of `input` (512 bytes)",
            "thread 63",
        ],
    );
    caught(
        "output[(int)at.index - 1] = 0.0f;",
        &Launch::GROUP,
        &[
            "writes 4 bytes out of bounds: byte -4 of `output`",
            "thread 0 ",
        ],
    );
    caught(
        "output[at.index] = input[(ulong)at.index << 40];",
        &Launch::GROUP,
        &["out of bounds", "near none of its buffers"],
    );
}

#[test]
fn bounds_are_those_of_the_binding() {
    let simulator = simulator(3);
    let device = simulator.device();
    let (input, output) = numbers(&device);
    let mut span = input.span();
    span.offset = 8;
    span.bytes = 4;
    let body = "if (at.index == 0) output[0] = input[args.count];";
    for (count, wrong) in [(0, None), (1, Some("byte 4")), (u32::MAX, Some("byte"))] {
        let launch = Launch {
            count,
            ..Launch::GROUP
        };
        let dispatch = launch.of(kernel(body), span.clone(), output.span());
        let outcome = simulator
            .run(&[dispatch])
            .map_err(|error| error.to_string());
        match wrong {
            None => assert_eq!(outcome, Ok(())),
            Some(word) => assert!(outcome.unwrap_err().contains(word)),
        }
    }
    assert_eq!(device.read::<f32>(&output).unwrap()[0], 2.0);
}

#[test]
fn a_write_to_what_is_only_read() {
    caught(
        "((device float *)input)[at.index] = 0.0f;",
        &Launch::GROUP,
        &["of `input` (512 bytes), which it only reads"],
    );
    caught(
        "((constant TestArgs *)&args);
         *(uint *)&args.count = 3;",
        &Launch::GROUP,
        &["of `arguments` (4 bytes), which it only reads"],
    );
}

#[test]
fn a_collective_that_not_all_lanes_reach() {
    caught(
        "float sum = 0.0f;
         if (at.lane < 31) sum = simd_sum(1.0f);
         output[at.index] = sum;",
        &Launch::GROUP,
        &[
            "not all threads reach simd_sum in `if (at.lane < 31)",
            "returned",
        ],
    );
    caught(
        "if (at.index == 40) return;
         output[at.index] = simd_shuffle_xor(input[at.index], 1);",
        &Launch::GROUP,
        &["simd_shuffle_xor", "thread 40 returned"],
    );
}

#[test]
fn lanes_that_reach_different_collectives() {
    caught(
        "float sum;
         if (at.lane & 1)
             sum = simd_sum(input[at.index]);
         else
             sum = simd_max(input[at.index]);
         output[at.index] = sum;",
        &Launch::GROUP,
        &["threads part", "simd_sum", "simd_max"],
    );
    caught(
        "float sum;
         if (at.lane & 1)
             sum = simd_sum(input[at.index]);
         else
             sum = simd_sum(input[at.index]);
         output[at.index] = sum;",
        &Launch::GROUP,
        &["threads part"],
    );
}

#[test]
fn a_barrier_that_not_all_threads_reach() {
    caught(
        "if (at.index >= 32) return;
         threadgroup_barrier();
         output[at.index] = 1.0f;",
        &Launch::GROUP,
        &["not all threads reach threadgroup_barrier", "returned"],
    );
    caught(
        "if (at.simd == 0)
             threadgroup_barrier();
         else
             simdgroup_barrier();
         threadgroup_barrier();",
        &Launch::GROUP,
        &["threads part", "threadgroup_barrier in"],
    );
}

#[test]
fn shuffles_from_no_lane_and_under_different_masks() {
    caught(
        "output[at.index] = simd_shuffle(input[at.index], at.lane + 1);",
        &Launch::GROUP,
        &["asks simd_shuffle for lane 32 of 32"],
    );
    caught(
        "output[at.index] = simd_shuffle_xor(input[at.index], at.lane < 16 ? 1 : 2);",
        &Launch::GROUP,
        &["lanes pass different masks"],
    );
}

#[test]
fn threadgroup_memory_that_nothing_wrote() {
    caught(
        "output[at.index] = shared.sums[at.index];",
        &Launch::GROUP,
        &[
            "reads 4 bytes that nothing wrote at byte",
            "`threadgroup memory` (512 bytes)",
        ],
    );
    // What the group before wrote is not there any more.
    caught(
        "if (at.y == 0) shared.sums[at.index] = 1.0f;
         threadgroup_barrier();
         if (at.y == 1) output[at.index] = shared.sums[at.index];
         else output[64 + at.index] = shared.sums[at.index];",
        &TWO_GROUPS,
        &["that nothing wrote", "group [0, 1, 0]"],
    );
}

#[test]
fn workspace_that_nothing_wrote() {
    let simulator = simulator(5);
    let device = simulator.device();
    let (input, output) = numbers(&device);
    let scratch = simulator.workspace(256).unwrap();
    let copy = kernel("if (at.index < args.count) output[at.index] = input[at.index];");
    let fill = |count| {
        let launch = Launch {
            count,
            ..Launch::GROUP
        };
        launch.of(copy, input.span(), planted::whole(&scratch))
    };
    let launch = Launch {
        barrier: true,
        ..Launch::GROUP
    };
    let empty = launch.of(copy, planted::whole(&scratch), output.span());
    simulator.run(&[fill(64), empty.clone()]).unwrap();
    assert_eq!(
        device.read::<f32>(&output).unwrap()[..64],
        device.read::<f32>(&input).unwrap()[..64]
    );
    // What an earlier run left does not count.
    for dispatches in [vec![empty.clone()], vec![fill(63), empty]] {
        let error = simulator.run(&dispatches).unwrap_err().to_string();
        assert!(error.contains("that nothing wrote"), "{error}");
    }
}

#[test]
fn a_dispatch_that_needs_a_barrier_before_it() {
    let copy = kernel("output[at.index] = input[at.index];");
    let mut wrong = 0;
    for seed in 0..16 {
        let simulator = simulator(seed);
        let device = simulator.device();
        let (input, output) = numbers(&device);
        let between = device.tensor(&[128], &[7.0f32; 128]).unwrap();
        for barrier in [true, false] {
            device.write(&between, &[7.0f32; 128]).unwrap();
            let second = Launch {
                barrier,
                ..Launch::GROUP
            };
            let dispatches = [
                Launch::GROUP.of(copy, input.span(), between.span()),
                second.of(copy, between.span(), output.span()),
            ];
            simulator.run(&dispatches).unwrap();
            let right = device.read::<f32>(&output).unwrap()[5] == 5.0;
            assert!(right || !barrier);
            wrong += u32::from(!right);
        }
    }
    assert!((1..16).contains(&wrong), "{wrong} of 16 orders show it");
}

#[test]
fn misaligned_accesses() {
    caught(
        "output[at.index] = *(device const float *)((device const uchar *)input + 2 * at.index);",
        &Launch::GROUP,
        &[
            "a pointer to byte",
            "of `input`",
            "whose address is no multiple of 4",
        ],
    );
    caught(
        "struct alignas(16) Wide { uint words[4]; };
         if (at.index == 1) {
             Wide wide = *(device const Wide *)(input + at.index);
             *(device Wide *)(output + 4) = wide;
         }",
        &Launch::GROUP,
        &["of `input`", "whose address is no multiple of 16"],
    );
}

#[test]
fn copies_of_structs_are_seen() {
    let body = "struct Pair { uint words[9]; };
         if (at.index == 0) *(device Pair *)(output + args.count) = *(device const Pair *)(input + 64);";
    let launch = |count| Launch {
        count,
        ..Launch::GROUP
    };
    let output = run(body, &launch(119), 1).unwrap();
    assert_eq!(
        output[119..],
        [64.0, 65.0, 66.0, 67.0, 68.0, 69.0, 70.0, 71.0, 72.0]
    );
    caught(body, &launch(120), &["out of bounds", "`output`"]);
}

#[test]
fn loops_that_do_not_end() {
    let options = SimOptions {
        most_steps: 10_000,
        ..SimOptions::default()
    };
    let simulator = Simulator::new(options).unwrap();
    let device = simulator.device();
    let (input, output) = numbers(&device);
    for body in [
        "while (input[0] == 0.0f) output[at.index] += 1.0f;",
        "while (simd_sum(1.0f) > 0.0f) {}",
        "while (input[0] == 0.0f) threadgroup_barrier();",
    ] {
        let dispatch = Launch::GROUP.of(kernel(body), input.span(), output.span());
        let error = simulator.run(&[dispatch]).unwrap_err().to_string();
        assert!(error.contains("does not end: 10000 loads"), "{error}");
    }
}

#[test]
fn arithmetic_and_indices_that_mean_nothing() {
    let body = |expression: &str| format!("output[at.index] = (float)({expression});");
    for (expression, words) in [
        ("at.index / (args.count - 64)", "divides by zero"),
        ("(int)at.index % (int)(args.count - 64)", "divides by zero"),
        ("at.index << (args.count / 2)", "shifts by"),
        ("HALVES[at.index]", "an index outside an array"),
        ("shared.sums[128 + at.index]", "an index outside an array"),
    ] {
        caught(&body(expression), &Launch::GROUP, &[words]);
    }
    let output = run(&body("HALVES[at.index & 3]"), &Launch::GROUP, 1).unwrap();
    assert_eq!(output[..5], [0.5, 0.25, 0.125, 0.0625, 0.5]);
}

#[test]
fn texts_that_do_not_compile() {
    for (body, word) in [
        ("output[at.index] = nothing;", "nothing"),
        ("output[at.index] = 0.5 * input[at.index];", "double"),
    ] {
        let error = run(body, &Launch::GROUP, 1).unwrap_err();
        assert!(
            error.contains("planted THREADS=64 does not compile"),
            "{error}"
        );
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn more_than_the_device_has() {
    let launch = |threads| Launch {
        threads,
        ..Launch::GROUP
    };
    for threads in [0, 33, 2048] {
        let error = run("", &launch(threads), 1).unwrap_err();
        assert!(error.contains("whole simdgroups up to 1024"), "{error}");
    }
    let mut options = SimOptions::default();
    options.limits.threadgroup_bytes = 511;
    let simulator = Simulator::new(options).unwrap();
    let (input, output) = numbers(&simulator.device());
    let dispatch = Launch::GROUP.of(kernel(""), input.span(), output.span());
    let error = simulator.run(&[dispatch]).unwrap_err().to_string();
    assert!(
        error.contains("wants 512 bytes of threadgroup memory, but there are 511"),
        "{error}"
    );
}

#[test]
fn the_device_is_usable_after_a_fault() {
    let simulator = simulator(9);
    let device = simulator.device();
    let (input, output) = numbers(&device);
    let launch = |body| Launch::GROUP.of(kernel(body), input.span(), output.span());
    let wrong = launch("threadgroup_barrier(); output[at.index + 100] = simd_sum(1.0f);");
    let right = launch("output[at.index] = simd_sum(1.0f);");
    for _ in 0..3 {
        assert!(simulator.run(std::slice::from_ref(&wrong)).is_err());
        simulator.run(std::slice::from_ref(&right)).unwrap();
        assert_eq!(device.read::<f32>(&output).unwrap()[..64], [32.0; 64]);
    }
}

#[test]
fn outputs_that_a_kernel_forgets_keep_their_poison() {
    let body = "if (at.index != 17) output[at.index] = 1.0f;";
    let output = run(body, &Launch::GROUP, 4).unwrap();
    assert_eq!(output[16..19], [1.0, -1.0, 1.0]);
}
