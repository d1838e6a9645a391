// The index of each row's largest number. One group per row.
struct Shared {
    float value[THREADS / 32];
    uint index[THREADS / 32];
};

inline void arg_max(constant SelectArgs &args, device const float *input, device int *output, device uint *status,
                    threadgroup Shared &shared, Position at) {
    device const float *row = input + ulong(at.x) * args.width;
    float infinity = as_type<float>(0x7f800000u);
    Best best = {-infinity, 0xffffffffu};
    bool strange = false;
    for (uint index = at.index; index < args.width; index += THREADS) {
        Best candidate = {row[index], index};
        strange = strange || candidate.value != candidate.value;
        if (better(candidate, best)) best = candidate;
    }
    if (strange) {
        atomic_min(status, args.check);
        atomic_min(status + 1 + args.check, at.x);
    }
    best = simd_best(best);
    if (at.lane == 0) {
        shared.value[at.simd] = best.value;
        shared.index[at.simd] = best.index;
    }
    threadgroup_barrier();
    for (uint simd = 0; simd < THREADS / 32; simd++) {
        Best candidate = {shared.value[simd], shared.index[simd]};
        if (better(candidate, best)) best = candidate;
    }
    if (at.index == 0) output[at.x] = int(best.index);
}
