// Rows of input as bfloat16, in the order in which matmul_few reads them as second matrices: for each 32 numbers of a tile of eight
// rows, of lane 4.n + q the numbers 4.q to 4.q + 3 of row n and those sixteen further; rows that fill a tile up are zeros.
inline void round_rows(constant RoundRowsArgs &args, device const float *input, device uint *output, Position at) {
    uint item = at.x * THREADS + at.index, lane = item % 32, tile = item / 32 % TILES, block = item / (32 * TILES), row = 8 * tile + lane / 4;
    if (block >= args.blocks) return;
    uint4 numbers = {0, 0, 0, 0};
    if (row < args.rows) {
        const float4 *own = (const float4 *)input + (ulong(row) * args.blocks + block) * 8 + lane % 4;
        float4 first = own[0], second = own[4];
        numbers = {bfloat_pair(first.x, first.y), bfloat_pair(first.z, first.w), bfloat_pair(second.x, second.y), bfloat_pair(second.z, second.w)};
    }
    ((uint4 *)output)[item] = numbers;
}
