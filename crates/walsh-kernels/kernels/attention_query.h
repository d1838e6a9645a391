// Brings queries into the space of the stored keys: scaled, times the equaliser, rotated; behind each vector, the product
// of the scaled query with the keys' centre. Sixteen lanes per vector.
enum : int { VECTORS = THREADS / 16, STRIDE = HEAD_DIM + 4 };

struct Shared {
    float rows[ORDER > 1 ? VECTORS : 1][ORDER > 1 ? HEAD_DIM : 1];
};

inline void attention_query(constant AttentionQueryArgs &args, device const float *query, device const float *equaliser,
                            device const float *center, device float *output, threadgroup Shared &shared, Position at) {
    uint l = at.lane % 16u;
    uint mine = at.index / 16u;
    uint vector = at.x * VECTORS + mine;
    bool present = vector < args.vectors;
    uint of_head = vector % args.heads / args.group * HEAD_DIM;
    float v[PER_LANE];
    float offset = 0.0f;
    UNROLL for (uint c = 0; c < PER_LANE; c++) {
        uint number = l + 16u * c;
        v[c] = 0.0f;
        if (present && number < HEAD_DIM) {
            float q = query[ulong(vector) * HEAD_DIM + number] * args.scale;
            if (CENTER) offset = fma(q, center[of_head + number], offset);
            v[c] = EQUALISER ? q * equaliser[of_head + number] : q;
        }
    }
    offset = row_sum(offset);
    if (ROTATE) rotate_forward(v, l, shared.rows[ORDER > 1 ? mine : 0]);
    if (!present) return;
    device float *out = output + ulong(vector) * STRIDE;
    UNROLL for (uint c = 0; c < PER_LANE; c++) {
        if (l + 16u * c < HEAD_DIM) out[l + 16u * c] = v[c];
    }
    if (l < 4u) out[HEAD_DIM + l] = l == 0u ? offset : 0.0f;
}
