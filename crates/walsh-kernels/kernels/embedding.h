// Rows of a table in blocks, decoded and scaled. A simdgroup takes one stage of one row. Nothing is written when a check
// has failed.
enum : int { SIMDS = THREADS / 32, STAGE_TASKS = STAGE * PARTS };

struct Shared {
    Vector staged[SIMDS][1][STAGED];
};

inline void embedding(constant EmbeddingArgs &args, device const uchar *table, device const int *ids, device const uint *verdict, device float *output, threadgroup Shared &shared, Position at) {
    if (verdict[0] != 0xffffffffu) return;
    uint item = at.x / args.pieces;
    uint block = (at.x % args.pieces * SIMDS + at.simd) * STAGE;
    if (block >= args.blocks) return;
    uint count = min(args.blocks - block, uint(STAGE));
    ulong start[1] = {ulong(uint(ids[item])) * args.row_bytes};
    threadgroup Vector(*staged)[STAGED] = shared.staged[at.simd];
    Held<1> held;
    for (uint turn = 0; turn < TURNS; turn++) {
        load_turn<1>(table + ulong(block) * BLOCK_BYTES, start, count * BLOCK_BYTES, turn, at.lane, held);
        store_turn<1>(held, staged, turn, at.lane);
    }
    simdgroup_barrier();
    device float *numbers = output + ulong(item) * args.width + block * (32 * RUNS * PARTS);
    for (uint index = at.lane; index < count * PARTS; index += 32) {
        UNROLL for (int r = 0; r < RUNS; r++) {
            Run run = load_run(staged[0], 0, index, r);
            UNROLL for (int i = 0; i < 32; i++) {
                int code = int(byte_of(uint(run.codes[i / 4]), i % 4) ^ 128) - 128;
                float value = run.scale[i / 16 % HALVES] * float(code - ZERO);
                if (M_AT >= 0) value -= run.minimum[i / 16 % HALVES];
                numbers[(index * RUNS + r) * 32 + i] = args.scale * value;
            }
        }
    }
}
