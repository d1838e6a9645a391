// Rows of a table of floats, scaled: one thread per number. Nothing is written when a check has failed.
inline void embedding_floats(constant EmbeddingArgs &args, device const uchar *table, device const int *ids, device const uint *verdict, device float *output, Position at) {
    uint item = at.x / args.pieces, index = at.x % args.pieces * THREADS + at.index;
    if (verdict[0] != 0xffffffffu || index >= args.width) return;
    device const uchar *row = table + ulong(uint(ids[item])) * args.row_bytes;
    float value = 0.0f;
    if (STORED == F32) value = ((device const float *)row)[index];
    if (STORED == F16) value = half_to_float(((device const ushort *)row)[index]);
    if (STORED == BF16) value = as_type<float>(uint(((device const ushort *)row)[index]) << 16);
    output[ulong(item) * args.width + index] = args.scale * value;
}
