// Rows of results to their slots.
inline void expert_scatter(constant ExpertScatterArgs &args, device const float *results, device const uint *order, device float *output, Position at) {
    uint row = at.x / args.pieces, column = at.x % args.pieces * THREADS + at.index, slot = order[row];
    if (slot == 0xffffffffu || column >= args.n) return;
    output[ulong(slot) * args.n + column] = results[ulong(row) * args.n + column];
}
