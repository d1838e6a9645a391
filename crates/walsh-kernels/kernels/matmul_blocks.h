// output[m, n] = input[m] . weight[n] (+ bias[n]) for a few rows of input and weights in blocks.
//
// A simdgroup takes PANEL rows of the weight and at most ROWS of the input. Stage by stage it brings the blocks into
// threadgroup memory, decodes each task once, and multiplies bytes. `split` simdgroups share a panel's stages.
enum : int { SIMDS = THREADS / 32, STAGE_TASKS = STAGE * PARTS };

struct Shared {
    Vector staged[SIMDS][PANEL][STAGED];
    float partial[SIMDS][PANEL * ROWS];
};

inline void matmul_blocks(constant MatMulArgs &args, device const uchar *weight, device const uint *input, device const float *bias, device float *output, threadgroup Shared &shared, Position at) {
    uint split = args.split, share = at.simd % split;
    uint first = (at.x * (SIMDS / split) + at.simd / split) * PANEL, first_row = at.y * ROWS;
    uint rows = min(args.rows - first_row, uint(ROWS));
    uint tasks = args.blocks * PARTS;
    uint pitch = row_vectors(tasks);
    device const Vector *vectors = (device const Vector *)input + ulong(first_row) * PLANES * pitch;
    ulong starts[PANEL];
    float sums[PANEL][ROWS];
    UNROLL for (int p = 0; p < PANEL; p++) {
        starts[p] = ulong(min(first + p, args.n - 1)) * args.row_bytes;
        UNROLL for (int m = 0; m < ROWS; m++) sums[p][m] = 0.0f;
    }
    threadgroup Vector(*staged)[STAGED] = shared.staged[at.simd];
    for (uint block = share * STAGE; block < args.blocks; block += split * STAGE) {
        uint count = min(args.blocks - block, uint(STAGE));
        for (uint turn = 0; turn < TURNS; turn++) {
            Held<PANEL> held;
            load_turn<PANEL>(weight + ulong(block) * BLOCK_BYTES, starts, count * BLOCK_BYTES, turn, at.lane, held);
            // All loads are on their way before a store waits for one, and what was staged before has been read.
            simdgroup_barrier();
            store_turn<PANEL>(held, staged, turn, at.lane);
        }
        simdgroup_barrier();
        UNROLL for (int turn = 0; turn < STAGE_TASKS / 32; turn++) {
            uint index = turn * 32 + at.lane;
            if (index >= count * PARTS) break;
            device const Vector *column = vectors + task_vector(block * PARTS + index);
            UNROLL for (int r = 0; r < RUNS; r++) {
                Run runs[PANEL];
                UNROLL for (int p = 0; p < PANEL; p++) runs[p] = load_run(staged[p], 0, index, r);
                UNROLL for (int m = 0; m < ROWS; m++) {
                    if (ROWS > 1 && uint(m) >= rows) break;
                    UNROLL for (int plane = 0; plane < PLANES; plane++) {
                        Vector numbers[VECTORS];
                        UNROLL for (int v = 0; v < VECTORS; v++) numbers[v] = column[(m * PLANES + plane) * pitch + (r * VECTORS + v) * 32];
                        UNROLL for (int p = 0; p < PANEL; p++) sums[p][m] = accumulate(sums[p][m], runs[p], numbers);
                    }
                }
            }
        }
    }
    UNROLL for (int p = 0; p < PANEL; p++) {
        UNROLL for (int m = 0; m < ROWS; m++) {
            float sum = simd_sum(sums[p][m]);
            if (at.lane == 0) shared.partial[at.simd][p * ROWS + m] = sum;
        }
    }
    threadgroup_barrier();
    uint p = at.lane / ROWS, m = at.lane % ROWS;
    if (share != 0 || p >= PANEL || m >= rows || first + p >= args.n) return;
    float sum = shared.partial[at.simd][at.lane];
    UNROLL for (uint other = 1; other < SIMDS; other++) {
        if (other < split) sum += shared.partial[at.simd + other][at.lane];
    }
    if (args.biased != 0) sum += bias[first + p];
    output[ulong(first_row + m) * args.n + first + p] = sum;
}
