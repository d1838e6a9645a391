// Rows of input as matmul_wgmma reads them, as second matrices: of each `columns` rows slabs of 64 numbers, rows filled up with zeros
// to `padded` and numbers to whole slabs. A row's 128 bytes of a slab are eight vectors, vector i in place of i ^ row % 8;
// two vectors hold sixteen numbers in the order that a lane of the weights decodes four in.
//
// HALVES 0: bfloat16. HALVES 1: halves, of a row divided by a power of two that its largest number is below 2^15 times of; the powers
// of all rows follow the slabs.
struct Shared {
    float most[THREADS / 32];
    Marks marks;
};

inline void slab_rows(constant SlabRowsArgs &args, device const float *input, device const float *by, device float *written, device uint *output, threadgroup Shared &shared, Position at) {
    uint row = at.x, steps = 2 * args.blocks, all = 4 * args.slabs;
    ulong first_four = ulong(row) * args.blocks * 8;
    const float4 *own = (const float4 *)(BEFORE != 0 ? written : input) + first_four;
    if (row >= args.rows) steps = 0;
    if (BEFORE != 0 && row < args.rows) {
        const float4 *from = (const float4 *)input + first_four;
        float4 *to = (float4 *)written + first_four;
        if (BEFORE == NORM) norm_row(from, (const float4 *)by, to, 4 * steps, args.eps, shared.marks, at);
        for (uint i = at.index; BEFORE >= GATES && i < 4 * steps; i += THREADS) to[i] = gated(from[i], ((const float4 *)by)[first_four + i]);
        __syncthreads();
    }
    float inverse = 1.0f;
    if (HALVES) {
        float most = 0.0f;
        for (uint i = at.index; i < 4 * steps; i += THREADS) {
            float4 x = own[i];
            most = max(most, max(max(abs(x.x), abs(x.y)), max(abs(x.z), abs(x.w))));
        }
        most = simd_max(most);
        if (at.lane == 0) shared.most[at.simd] = most;
        threadgroup_barrier();
        UNROLL for (int i = 0; i < THREADS / 32; i++) most = max(most, shared.most[i]);
        // Neither the power nor its inverse is below the normal numbers or infinite.
        uint power = min(max(as_type<uint>(most) & 0x7f800000u, 0x08000000u), 0x7f000000u) - 0x07000000u;
        inverse = as_type<float>(0x7f000000u - power);
        float *powers = (float *)output + ulong(args.slabs) * 32 * args.padded;
        if (at.index == 0) powers[row] = as_type<float>(power);
    }
    for (uint first = 0; first < all; first += THREADS) {
        uint step = first + at.index;
        float x[16] = {};
        if (step < steps) {
            UNROLL for (int i = 0; i < 4; i++) {
                float4 four = own[4 * step + i];
                x[4 * i] = four.x * inverse;
                x[4 * i + 1] = four.y * inverse;
                x[4 * i + 2] = four.z * inverse;
                x[4 * i + 3] = four.w * inverse;
            }
        }
        uint words[2][4];
        UNROLL for (int vector = 0; vector < 2; vector++) {
            UNROLL for (int i = 0; i < 4; i++) {
                words[vector][i] = HALVES ? half_pair(x[4 * i + vector], x[4 * i + 2 + vector]) : bfloat_pair(x[4 * i + 2 * vector], x[4 * i + 2 * vector + 1]);
            }
        }
        uint4 *to = (uint4 *)output + ((ulong(row / args.columns) * args.slabs + step / 4) * args.columns + row % args.columns) * 8;
        UNROLL for (int vector = 0; vector < 2; vector++) {
            if (step < all) to[(step % 4 * 2 + vector) ^ row % 8] = {words[vector][0], words[vector][1], words[vector][2], words[vector][3]};
        }
    }
}
