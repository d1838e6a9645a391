// output[m, n] = input[m] . weight[n] (+ bias[n]) for many rows of input and weights in blocks, both rounded to bfloat16:
// a group computes a tile of TILE_M by TILE_N, a thread every sixteenth row of it and every eighth column.
inline uint narrow_pair(float a, float b) { return narrow(a) | narrow(b) << 16; }

inline float number_of(threadgroup const Vector (*tile)[ROW_VECTORS], uint row, uint column) {
    threadgroup const Vector *vector = &tile[row][place_of(row, column / 8)];
    return as_type<float>(uint(((threadgroup const ushort *)vector)[column % 8]) << 16);
}

inline void matmul_tiles(constant TilesArgs &args, device const uchar *weight, device const uint *input, device const float *bias, device float *output, threadgroup Shared &shared, Position at) {
    enum : int { M = TILE_M / 16, N = TILE_N / 8 };
    uint start = at.z * args.share, end = min(args.blocks, start + args.share);
    output += ulong(at.z) * args.rows * args.n;
    uint first_n = at.x * TILE_N, first_m = at.y * TILE_M, m = at.index / 8, n = at.index % 8;
    float sums[M][N];
    UNROLL for (int i = 0; i < M; i++) {
        UNROLL for (int j = 0; j < N; j++) sums[i][j] = 0.0f;
    }
    for (uint block = start; block < end; block += STEP_BLOCKS) {
        uint base = stage_tile(args, weight, first_n, block, shared, at.index);
        for (int pass = 0; pass < PAIRS * RUNS; pass++) {
            uint pair = pass / RUNS;
            int run = pass % RUNS;
            InputVectors held;
            load_input(args, (device const Vector *)input, first_m, block * PARTS + 2 * pair, run, at.index, held);
            threadgroup_barrier();
            fill_weights(shared, base, pair, run, at.index);
            store_input(held, shared, at.index);
            threadgroup_barrier();
            for (uint k = 0; k < DEPTH; k++) {
                float w[N];
                UNROLL for (int j = 0; j < N; j++) w[j] = number_of(shared.weights, n + 8 * j, k);
                UNROLL for (int i = 0; i < M; i++) {
                    if (first_m + m + 16 * i >= args.rows) break;
                    float x = number_of(shared.input, m + 16 * i, k);
                    UNROLL for (int j = 0; j < N; j++) sums[i][j] = fma(x, w[j], sums[i][j]);
                }
            }
        }
    }
    UNROLL for (int i = 0; i < M; i++) {
        UNROLL for (int j = 0; j < N; j++) {
            uint row = first_m + m + 16 * i, column = first_n + n + 8 * j;
            if (row >= args.rows || column >= args.n) continue;
            float sum = sums[i][j];
            if (args.biased != 0) sum += bias[column];
            output[ulong(row) * args.n + column] = sum;
        }
    }
}
