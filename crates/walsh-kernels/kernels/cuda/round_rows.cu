// Rows of input as matmul_few reads them, as second matrices: for each 32 numbers of a tile of eight rows, of lane 4.n + q the
// numbers 4.q to 4.q + 3 of row n and those sixteen further; rows that fill a tile up are zeros.
//
// HALVES 0: bfloat16, in order. HALVES 1: halves, the second and the third of each four exchanged, of 256 numbers divided by a
// power of two near the largest. Behind all numbers follow, for each 256 numbers of a tile, of lane 4.n + q the sums of 32 of
// row n, two times q on, as two pairs of halves of which the second is what the first leaves, and the powers of rows 2.q and
// 2.q + 1.
struct Shared {
    Marks marks;
};

// Of 256 numbers of a row, or fewer at its end, a simdgroup together.
inline void round_group(constant RoundRowsArgs &args, const float *input, const float *by, float *written, uint *output, uint row, uint group, uint lane) {
    uint block = 8 * group + lane / 4;
    float x[8] = {};
    if (row < args.rows && block < args.blocks) {
        ulong place = (ulong(row) * args.blocks + block) * 8 + lane % 4;
        const float4 *from = (const float4 *)(BEFORE == NORM ? written : input);
        float4 first = from[place], second = from[place + 4];
        if (BEFORE >= GATES) {
            first = gated(first, ((const float4 *)by)[place]);
            second = gated(second, ((const float4 *)by)[place + 4]);
            ((float4 *)written)[place] = first;
            ((float4 *)written)[place + 4] = second;
        }
        float read[8] = {first.x, first.y, first.z, first.w, second.x, second.y, second.z, second.w};
        UNROLL for (int i = 0; i < 8; i++) x[i] = read[i];
    }
    uint4 *numbers = (uint4 *)output + (ulong(block) * TILES + row / 8) * 32 + row % 8 * 4 + lane % 4;
    if (!HALVES) {
        if (block < args.blocks) *numbers = {bfloat_pair(x[0], x[1]), bfloat_pair(x[2], x[3]), bfloat_pair(x[4], x[5]), bfloat_pair(x[6], x[7])};
        return;
    }
    float most = 0.0f;
    UNROLL for (int i = 0; i < 8; i++) most = max(most, abs(x[i]));
    UNROLL for (uint mask = 16; mask > 0; mask /= 2) most = max(most, simd_shuffle_xor(most, mask));
    // Neither the power nor its inverse is below the normal numbers or infinite.
    uint power = min(max(as_type<uint>(most) & 0x7f800000u, 0x01000000u), 0x7e000000u);
    float inverse = as_type<float>(0x7f000000u - power), sum = 0.0f;
    uint pairs[4];
    UNROLL for (int i = 0; i < 4; i++) {
        uint from = i / 2 * 4 + i % 2;
        pairs[i] = half_pair(x[from] * inverse, x[from + 2] * inverse);
        sum += half_to_float(ushort(pairs[i])) + half_to_float(ushort(pairs[i] >> 16));
    }
    *numbers = {pairs[0], pairs[1], pairs[2], pairs[3]};
    UNROLL for (uint mask = 2; mask > 0; mask /= 2) sum += simd_shuffle_xor(sum, mask);
    float next = simd_shuffle_xor(sum, 4u);
    uint *sides = output + ulong(args.blocks) * TILES * 128 + (ulong(group) * TILES + row / 8) * 128;
    if (lane % 8 == 0) {
        uint high = half_pair(sum, next);
        uint *own = sides + (row % 8 * 4 + lane / 8) * 4;
        own[0] = high;
        own[1] = half_pair(sum - half_to_float(ushort(high)), next - half_to_float(ushort(high >> 16)));
    }
    if (lane < 8) sides[(lane * 4 + row % 8 / 2) * 4 + 2 + row % 2] = power;
}

inline void round_rows(constant RoundRowsArgs &args, device const float *input, device const float *by, device float *written, device uint *output, threadgroup Shared &shared, Position at) {
    if (BEFORE == NORM) {
        // A group has a row.
        uint fours = 8 * args.blocks;
        ulong first = ulong(at.x) * fours;
        if (at.x < args.rows) norm_row((const float4 *)input + first, (const float4 *)by, (float4 *)written + first, fours, args.eps, shared.marks, at);
        __syncthreads();
        for (uint group = at.simd; 8 * group < args.blocks; group += SIMDS) round_group(args, input, by, written, output, at.x, group, at.lane);
        return;
    }
    enum : int { ROWS = 8 * TILES };
    uint item = at.x * SIMDS + at.simd, row = item % ROWS, group = item / ROWS;
    if (8 * group < args.blocks) round_group(args, input, by, written, output, row, group, at.lane);
}
