// Merges the parts of each query vector: the stored ones, whose sums are turned back into the model's space, then the
// chunk's own. One group per vector; teams of sixteen lanes share the parts. A vector that sees nothing gives zeros.
enum : int { TEAMS = THREADS / 16 };

struct Shared {
    float sums[TEAMS][HEAD_DIM];
    float row[2][ORDER > 1 ? HEAD_DIM : 1];
};

inline void attention_combine(constant AttentionCombineArgs &args, device const float *partial, device const float *sinks,
                              device const uint *status, device float *output, threadgroup Shared &shared,
                              Position at) {
    if (status[0] != 0xffffffffu) return;
    uint l = at.lane % 16u;
    uint team = at.index / 16u;
    uint vector = at.x;
    uint first = vector * args.all_parts;
    device const float *statistics = partial + args.statistics;
    float infinity = as_type<float>(0x7f800000u);
    float sink = SINKS ? sinks[vector % args.heads] : -infinity;
    float peak = sink;
    for (uint part = at.lane; part < args.all_parts; part += 32) peak = max(peak, statistics[2u * (first + part)]);
    peak = simd_max(peak);
    float sum = 0.0f;
    for (uint part = at.lane; part < args.all_parts; part += 32) {
        float most = statistics[2u * (first + part)];
        float weighed = statistics[2u * (first + part) + 1u];
        sum += most > -infinity ? weighed * exp(most - peak) : weighed;
    }
    sum = simd_sum(sum);
    if (SINKS) sum += exp(sink - peak);
    float v[PER_LANE];
    float plain[PER_LANE];
    UNROLL for (uint c = 0; c < PER_LANE; c++) {
        v[c] = 0.0f;
        plain[c] = 0.0f;
    }
    for (uint part = team; part < args.all_parts; part += TEAMS) {
        float most = statistics[2u * (first + part)];
        if (most > -infinity) {
            float weight = exp(most - peak);
            UNROLL for (uint c = 0; c < PER_LANE; c++) {
                uint number = l + 16u * c;
                if (number < HEAD_DIM) {
                    float x = partial[ulong(first + part) * HEAD_DIM + number];
                    if (part < args.stored_parts) v[c] = fma(weight, x, v[c]);
                    else plain[c] = fma(weight, x, plain[c]);
                }
            }
        }
    }
    // The stored sums meet in the first simdgroup, which turns them back.
    row_store(v, l, shared.sums[team]);
    threadgroup_barrier();
    if (at.simd == 0) {
        UNROLL for (uint c = 0; c < PER_LANE; c++) {
            v[c] = 0.0f;
            for (uint other = 0; other < TEAMS; other++) {
                if (l + 16u * c < HEAD_DIM) v[c] += shared.sums[other][l + 16u * c];
            }
        }
        if (ROTATE) rotate_inverse(v, l, shared.row[ORDER > 1 ? at.lane / 16u : 0]);
    }
    threadgroup_barrier();
    row_store(plain, l, shared.sums[team]);
    threadgroup_barrier();
    if (at.index >= 16) return;
    UNROLL for (uint c = 0; c < PER_LANE; c++) {
        uint number = l + 16u * c;
        if (number < HEAD_DIM) {
            for (uint other = 0; other < TEAMS; other++) v[c] += shared.sums[other][number];
            output[ulong(vector) * HEAD_DIM + number] = sum == 0.0f ? 0.0f : v[c] / sum;
        }
    }
}
