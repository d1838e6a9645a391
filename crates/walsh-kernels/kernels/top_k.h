// Each row's k largest numbers in order. One group per row: every thread knows the best of its own numbers (those whose
// index is its own modulo THREADS); the best of all is taken, and the simdgroup of its thread looks for that thread's
// next one.
struct Shared {
    float value[THREADS];
    uint index[THREADS];
    float simd_value[THREADS / 32];
    uint simd_index[THREADS / 32];
};

inline void top_k(constant SelectArgs &args, device const float *input, device float *values, device int *indices,
                  device uint *status, threadgroup Shared &shared, Position at) {
    device const float *row = input + ulong(at.x) * args.width;
    float infinity = as_type<float>(0x7f800000u);
    Best best = own_best(args, row, status, at);
    shared.value[at.index] = best.value;
    shared.index[at.index] = best.index;
    for (uint taken = 0; taken < args.k; taken++) {
        threadgroup_barrier();
        Best own = {shared.value[at.index], shared.index[at.index]};
        best = group_best(own, shared.simd_value, shared.simd_index, at);
        if (at.index == 0) {
            values[at.x * args.k + taken] = best.value;
            indices[at.x * args.k + taken] = int(best.index);
        }
        uint owner = best.index % THREADS;
        if (owner / 32u == at.simd) {
            Best next = {-infinity, 0xffffffffu};
            for (uint index = owner + at.lane * THREADS; index < args.width; index += 32u * THREADS) {
                Best candidate = {row[index], index};
                if (better(best, candidate) && better(candidate, next)) next = candidate;
            }
            next = simd_best(next);
            if (at.lane == 0) {
                shared.value[owner] = next.value;
                shared.index[owner] = next.index;
            }
        }
    }
}
