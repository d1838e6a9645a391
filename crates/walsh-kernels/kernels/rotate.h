// Rotates vectors, or turns them back. Sixteen lanes per vector.
enum : int { VECTORS = THREADS / 16 };

struct Shared {
    float rows[ORDER > 1 ? VECTORS : 1][ORDER > 1 ? HEAD_DIM : 1];
};

inline void rotate(constant RotateArgs &args, device const uchar *input, device uchar *output,
                   threadgroup Shared &shared, Position at) {
    uint l = at.lane % 16u;
    uint mine = at.index / 16u;
    uint vector = at.x * VECTORS + mine;
    bool present = vector < args.vectors;
    ulong first = ulong(vector) * HEAD_DIM;
    threadgroup float *row = shared.rows[ORDER > 1 ? mine : 0];
    float v[PER_LANE];
    UNROLL for (uint c = 0; c < PER_LANE; c++) v[c] = present ? source_number(input, args.kind, first + l + 16u * c) : 0.0f;
    if (FORWARD) rotate_forward(v, l, row);
    if (!FORWARD) rotate_inverse(v, l, row);
    if (!present) return;
    UNROLL for (uint c = 0; c < PER_LANE; c++) put_number(output, args.kind, first + l + 16u * c, v[c]);
}
