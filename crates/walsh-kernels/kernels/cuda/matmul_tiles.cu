// The tiled product on tensor cores. A warp computes half of the tile in each dimension, in m16n8k16 pieces.
inline uint narrow_pair(float a, float b) {
    uint pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(b), "f"(a));
    return pair;
}

// Four 8 x 8 matrices of 16-bit numbers: lane i names row i % 8 of matrix i / 8.
inline void load_matrices(uint (&to)[4], const Vector *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(uint(__cvta_generic_to_shared(row)))
                 : "memory");
}

// sums += a.b of a 16 x 16 and a 16 x 8 matrix.
inline void multiply_add(float (&sums)[4], const uint (&a)[4], uint b_low, uint b_high) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b_low), "r"(b_high));
}

inline void matmul_tiles(const TilesArgs &args, const uchar *weight, const uint *input, const float *bias, float *output, Shared &shared, Position at) {
    enum : int { M = TILE_M / 32, N = TILE_N / 16 };
    const Vector *vectors = (const Vector *)input;
    uint start = at.z * args.share, end = min(args.blocks, start + args.share);
    output += ulong(at.z) * args.rows * args.n;
    uint first_n = at.x * TILE_N, first_m = at.y * TILE_M;
    uint warp_m = at.simd / 2 * (16 * M), warp_n = at.simd % 2 * (8 * N);
    float sums[M][N][4] = {};
    InputVectors held;
    load_input(args, vectors, first_m, start * PARTS, 0, at.index, held);
    for (uint block = start; block < end; block += STEP_BLOCKS) {
        uint base = stage_tile(args, weight, first_n, block, shared, at.index);
        for (int pass = 0; pass < PAIRS * RUNS; pass++) {
            threadgroup_barrier();
            fill_weights(shared, base, pass / RUNS, pass % RUNS, at.index);
            store_input(held, shared, at.index);
            threadgroup_barrier();
            // The next pass's input is on its way while this one's is multiplied.
            bool last = pass + 1 == PAIRS * RUNS;
            uint next = last ? (block + STEP_BLOCKS) * PARTS : block * PARTS + (pass + 1) / RUNS * 2;
            load_input(args, vectors, first_m, next, last ? 0 : (pass + 1) % RUNS, at.index, held);
            // Rolled, it takes few enough registers for three groups to a multiprocessor.
            _Pragma("unroll 1") for (int k = 0; k < DEPTH / 16; k++) {
                uint a[M][4], b[N / 2][4];
                UNROLL for (int i = 0; i < M; i++) {
                    uint row = warp_m + 16 * i + at.lane % 16;
                    load_matrices(a[i], &shared.input[row][place_of(row, 2 * k + at.lane / 16)]);
                }
                UNROLL for (int j = 0; j < N / 2; j++) {
                    uint row = warp_n + 16 * j + at.lane % 8 + at.lane / 16 * 8;
                    load_matrices(b[j], &shared.weights[row][place_of(row, 2 * k + at.lane / 8 % 2)]);
                }
                UNROLL for (int i = 0; i < M; i++) {
                    UNROLL for (int j = 0; j < N; j++) multiply_add(sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
                }
            }
        }
    }
    UNROLL for (int i = 0; i < M; i++) {
        UNROLL for (int j = 0; j < N; j++) {
            UNROLL for (int e = 0; e < 4; e++) {
                uint row = first_m + warp_m + 16 * i + at.lane / 4 + e / 2 * 8;
                uint column = first_n + warp_n + 8 * j + at.lane % 4 * 2 + e % 2;
                if (row >= args.rows || column >= args.n) continue;
                float sum = sums[i][j][e];
                if (args.biased != 0) sum += bias[column];
                output[ulong(row) * args.n + column] = sum;
            }
        }
    }
}
