// Looks for keys and values that cannot be stored, before anything is. One simdgroup per vector; keys come first.
inline void kv_inspect(constant KvInspectArgs &args, device const float *keys, device const float *values,
                       device const float *equaliser, device const float *center, device uint *status, Position at) {
    uint vector = args.first + at.x * (THREADS / 32) + at.simd;
    if (vector >= args.end) return;
    uint side = vector >= args.vectors ? 1u : 0u;
    uint item = vector - side * args.vectors;
    device const float *source = side == 1u ? values : keys;
    ulong first = ulong(item) * HEAD_DIM;
    ulong of_head = ulong(item % args.kv_heads) * HEAD_DIM;
    float most = 0.0f;
    float squares = 0.0f;
    bool finite = true;
    for (uint number = at.lane; number < HEAD_DIM; number += 32) {
        float x = source_number(source, args.source, first + number);
        if (CENTER && side == 0u) x -= center[of_head + number];
        if (EQUALISER && side == 0u) x /= equaliser[of_head + number];
        finite = finite && abs(x) < as_type<float>(0x7f800000u);
        most = max(most, abs(x));
        // Scaled by 2^-70, so that the squares of all finite numbers have a sum.
        float small = x * 8.470329472543003e-22f;
        squares = fma(small, small, squares);
    }
    most = simd_max(finite ? most : as_type<float>(0x7f800000u));
    float norm = sqrt(simd_sum(squares));
    bool fits = most < args.most[side] && norm < args.norm[side];
    if (at.lane == 0 && !fits) {
        atomic_min(status, args.check);
        atomic_min(status + 1 + args.check, (side << 31) | item);
    }
}
