// Products of single rows with the weights, floats, of the experts that ids name: the groups of a slot stand together,
// and each does what a group of a dense product of one row does. Nothing runs when a check has failed.
inline void expert_floats(constant MatMulFloatsArgs &args, device const uchar *weight, device const float *input, device const float *bias, device const int *ids, device const uint *verdict, device float *output, threadgroup Shared &shared, Position at) {
    if (verdict[0] != 0xffffffffu) return;
    uint rows = SIMDS / args.split, groups = (args.n + rows - 1) / rows;
    uint slot = at.x / groups, first = uint(ids[slot]) * args.n;
    Position within = {at.x % groups, 0, 0, at.index, at.lane, at.simd};
    matmul_floats(args, weight + ulong(first) * args.row_bytes, input + ulong(slot / args.slots) * args.k, bias + first, output + ulong(slot) * args.n, shared, within);
}
