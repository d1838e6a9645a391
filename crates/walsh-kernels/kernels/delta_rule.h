// The gated delta rule over a run's tokens: a group has 32 columns of a head's state, a column to each lane, and a simdgroup
// a share of their rows, which it keeps in registers from the first token to the last.
enum : int { SHARES = THREADS / 32, ROWS = KEY_DIM / SHARES };

struct Shared {
    float query[KEY_DIM];
    float key[KEY_DIM];
    float norms[2][SHARES];
    float found[SHARES][32];
    float read[SHARES][32];
};

inline float softplus(float x) { return x > 20.0f ? x : log(1.0f + exp(x)); }

// The sum over simdgroups of what each has of a lane's column.
inline float all_shares(threadgroup const float *shares, uint lane) {
    float sum = 0.0f;
    UNROLL for (uint share = 0; share < SHARES; share++) sum += shares[share * 32 + lane];
    return sum;
}

inline void delta_rule(constant DeltaRuleArgs &args, device const float *mixed, device const float *decay, device const float *rate,
                       device const float *decay_bias, device const float *decay_scale, device const int *slot_mapping,
                       device const uint *verdict, device float *state, device float *output, threadgroup Shared &shared, Position at) {
    uint piece = at.x % args.pieces, head = at.x / args.pieces % args.heads, row = at.x / args.pieces / args.heads;
    device const int *entry = slot_mapping + 8u * row;
    if (verdict[0] != 0xffffffffu || entry[4] != int(row)) return;
    uint rows = uint(entry[5]), column = piece * 32u + at.lane;
    bool live = column < VALUE_DIM;
    uint key_head = TILED ? head % args.key_heads : head / (args.heads / args.key_heads);
    uint keys = args.key_heads * KEY_DIM, width = 2u * keys + args.heads * VALUE_DIM;
    device float *own = state + ((ulong(uint(entry[0])) * args.heads + head) * KEY_DIM + at.simd * ROWS) * VALUE_DIM + column;
    float held[ROWS];
    bool begins = entry[6] == 0;
    UNROLL for (uint r = 0; r < ROWS; r++) held[r] = live && !begins ? own[r * VALUE_DIM] : 0.0f;
    for (uint t = 0; t < rows; t++) {
        device const float *token = mixed + ulong(row + t) * width;
        float q2 = 0.0f, k2 = 0.0f;
        for (uint i = at.index; i < KEY_DIM; i += THREADS) {
            float q = token[key_head * KEY_DIM + i], k = token[keys + key_head * KEY_DIM + i];
            shared.query[i] = q;
            shared.key[i] = k;
            q2 = fma(q, q, q2);
            k2 = fma(k, k, k2);
        }
        q2 = simd_sum(q2);
        k2 = simd_sum(k2);
        if (at.lane == 0) {
            shared.norms[0][at.simd] = q2;
            shared.norms[1][at.simd] = k2;
        }
        float value = live ? token[2u * keys + head * VALUE_DIM + column] : 0.0f;
        uint scalar = (row + t) * args.heads + head;
        float kept = exp(decay_scale[head] * softplus(decay[scalar] + decay_bias[head]));
        float step = 1.0f / (1.0f + exp(-rate[scalar]));
        threadgroup_barrier();
        q2 = 0.0f;
        k2 = 0.0f;
        UNROLL for (uint share = 0; share < SHARES; share++) {
            q2 += shared.norms[0][share];
            k2 += shared.norms[1][share];
        }
        float query_norm = 1.0f / sqrt(q2 + args.epsilon) / sqrt(float(KEY_DIM));
        float key_norm = 1.0f / sqrt(k2 + args.epsilon);
        threadgroup const float *k = shared.key + at.simd * ROWS;
        threadgroup const float *q = shared.query + at.simd * ROWS;
        float found = 0.0f;
        UNROLL for (uint r = 0; r < ROWS; r++) found = fma(held[r], k[r], found);
        shared.found[at.simd][at.lane] = found;
        threadgroup_barrier();
        found = all_shares(shared.found[0], at.lane);
        float change = step * key_norm * (value - kept * key_norm * found);
        float read = 0.0f;
        UNROLL for (uint r = 0; r < ROWS; r++) {
            held[r] = fma(k[r], change, kept * held[r]);
            read = fma(q[r], held[r], read);
        }
        shared.read[at.simd][at.lane] = read;
        threadgroup_barrier();
        if (at.simd == 0 && live) output[(ulong(row + t) * args.heads + head) * VALUE_DIM + column] = query_norm * all_shares(shared.read[0], at.lane);
    }
    if (live) {
        UNROLL for (uint r = 0; r < ROWS; r++) own[r * VALUE_DIM] = held[r];
    }
}
