// Looks for keys and values that cannot be stored, before anything is. One simdgroup per vector; keys come first.
inline void kv_inspect(constant KvInspectArgs &args, device const uchar *keys, device const uchar *values,
                       device const float *equaliser, device const float *center, device uint *status, Position at) {
    uint vector = args.first + at.x * (THREADS / 32) + at.simd;
    if (vector >= args.end) return;
    uint side = vector >= args.vectors ? 1u : 0u;
    uint item = vector - side * args.vectors;
    device const uchar *source = side == 1u ? values : keys;
    ulong first = ulong(item) * HEAD_DIM;
    ulong of_head = ulong(item % args.kv_heads) * HEAD_DIM;
    Finding finding = {0.0f, 0.0f, true};
    UNROLL for (uint number = at.lane; number < HEAD_DIM; number += 32) {
        look(finding, source_number(source, SOURCE, first + number), side == 0u, of_head + number, equaliser, center);
    }
    bool stays = fits(finding, args.most[side], args.norm[side]);
    if (at.lane == 0 && !stays) refuse(status, args.check, side, item);
}
