// The tiled product of dense weights: its text, or a platform's own, stands behind this.
inline void matmul_tiles(constant TilesArgs &args, device const uchar *weight, device const uint *input, device const float *bias, device float *output, threadgroup Shared &shared, Position at);

// Products of rows in the order of their experts: a tile's rows are one expert's.
inline void expert_tiles(constant TilesArgs &args, device const uchar *weight, device const uint *input, device const float *bias, device const uint *tiles, device float *output, threadgroup Shared &shared, Position at) {
    uint expert = tiles[at.y];
    if (expert == 0xffffffffu) return;
    matmul_tiles(args, weight + ulong(expert) * args.n * args.row_bytes, input, bias + ulong(expert) * args.n, output, shared, at);
}
