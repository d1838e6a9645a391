// Products of single rows with the weights, in blocks, of the experts that ids name: the groups of a slot stand together,
// and each does what a group of a dense product of one row does. Nothing runs when a check has failed.
inline void expert_blocks(constant MatMulArgs &args, device const uchar *weight, device const uint *input, device const float *bias, device const int *ids, device const uint *verdict, device float *output, threadgroup Shared &shared, Position at) {
    if (verdict[0] != 0xffffffffu) return;
    uint rows = SIMDS / args.split * PANEL, groups = (args.n + rows - 1) / rows;
    uint slot = at.x / groups, first = uint(ids[slot]) * args.n;
    Position within = {at.x % groups, 0, 0, at.index, at.lane, at.simd};
    ulong start = ulong(slot / args.slots) * PLANES * row_vectors(args.blocks * PARTS) * 4;
    matmul_blocks(args, weight + ulong(first) * args.row_bytes, input + start, bias + first, output + ulong(slot) * args.n, shared, within);
}
