// The best of a thread's own numbers of a row: those whose index is its own modulo THREADS. A NaN fails the check.
inline Best own_best(constant SelectArgs &args, device const float *row, device uint *status, Position at) {
    Best best = {-as_type<float>(0x7f800000u), 0xffffffffu};
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
    return best;
}

// The best of all threads; `values` and `indices` have a place for each simdgroup.
inline Best group_best(Best best, threadgroup float *values, threadgroup uint *indices, Position at) {
    best = simd_best(best);
    if (at.lane == 0) {
        values[at.simd] = best.value;
        indices[at.simd] = best.index;
    }
    threadgroup_barrier();
    for (uint simd = 0; simd < THREADS / 32; simd++) {
        Best candidate = {values[simd], indices[simd]};
        if (better(candidate, best)) best = candidate;
    }
    return best;
}
