// Products of a few rows of input, TILES tiles of eight, with up to four weights in blocks of one type: output = input . weight^T (+ bias),
// added to other rows where ADD is set. The weight is the first matrix: a simdgroup takes sixteen of its rows, which it decodes
// once for all rows of the input. The input's stages lie in the group's memory, for all its simdgroups. CLUSTER groups share the
// stages of the same rows, and add up each other's sums.
//
// Weights do not depend on what runs before: rings are full of them when a group begins to wait for the input.

enum : int {
    ROWS = 16,
    COLUMNS = 8 * TILES,
    WEIGHTS = SIMDS * type::SLOT_BYTES,
    SLOT = WEIGHTS + type::INPUT_SLOT
};
static_assert(SLOTS * SLOT <= DYNAMIC && 4 * PITCH * COLUMNS <= DYNAMIC, "the ring, and the sums where it was, fit the group's memory");

inline void matmul_few(constant MatMulFewArgs &args, device const uchar *weight_0, device const uchar *weight_1, device const uchar *weight_2, device const uchar *weight_3,
                       device const uint *input, device const float *bias_0, device const float *bias_1, device const float *bias_2, device const float *bias_3,
                       device const float *addend, device float *output_0, device float *output_1, device float *output_2, device float *output_3, device float *joined,
                       threadgroup uchar *memory, Position at) {
    uint group = at.x / CLUSTER, share = at.x % CLUSTER, own_stages = (args.stages + CLUSTER - 1) / CLUSTER;
    uint begin = share * own_stages, end = min(begin + own_stages, args.stages);
    // A simdgroup behind the last unit has no weights.
    uint unit = group * SIMDS + at.simd;
    bool some = unit < args.units;
    uint part = part_of(args, unit);
    uint first = (unit - args.first_unit[part]) * ROWS, n = args.n[part];
    type::Rows rows(chosen(part, weight_0, weight_1, weight_2, weight_3), args.row_bytes[part], first, n, at.lane);
    uint ring = shared_at(memory);
    asm volatile("" : "+r"(ring));
    auto count = [&](uint stage) { return min(args.blocks - stage * STAGE_BLOCKS, uint(STAGE_BLOCKS)); };
    auto fetch_weights = [&](uint turn) {
        uint stage = begin + turn;
        if (some && stage < end) rows.copy(ring + turn % SLOTS * SLOT + at.simd * type::SLOT_BYTES, stage * STAGE_BLOCKS, count(stage), args.blocks, at.lane);
    };
    auto fetch_input = [&](uint turn) {
        uint stage = begin + turn;
        if (stage < end) type::copy_input(ring + turn % SLOTS * SLOT + WEIGHTS, (const uint4 *)input, stage * STAGE_BLOCKS, count(stage), args.blocks, at.index);
    };
    UNROLL for (uint turn = 0; turn < SLOTS - 1; turn++) {
        fetch_weights(turn);
        end_copies();
    }
    walsh_begin();
    UNROLL for (uint turn = 0; turn < SLOTS - 1; turn++) {
        fetch_input(turn);
        end_copies();
    }
    float sums[TILES][4] = {};
    for (uint turn = 0; begin + turn < end; turn++) {
        uint stage = begin + turn;
        await_copies<SLOTS - 2>();
        // All have come, and the slot of the turn before is free.
        __syncthreads();
        fetch_weights(turn + SLOTS - 1);
        fetch_input(turn + SLOTS - 1);
        end_copies();
        const uchar *slot = memory + turn % SLOTS * SLOT;
        if (some) type::multiply_rows(slot + at.simd * type::SLOT_BYTES, rows.bases(stage * STAGE_BLOCKS), count(stage), (const uint4 *)(slot + WEIGHTS), at.lane, sums);
    }
    // Sums meet where the rings were.
    await_copies<0>();
    __syncthreads();
    UNROLL for (int tile = 0; tile < TILES; tile++) {
        UNROLL for (int i = 0; i < 4; i++) {
            meeting_at(memory, at.simd * ROWS + at.lane / 4 + 8 * (i / 2), 8 * tile + at.lane % 4 * 2 + i % 2) = sums[tile][i];
        }
    }
    add_up<ROWS, COLUMNS>(args, group * SIMDS, 0, bias_0, bias_1, bias_2, bias_3, addend, output_0, output_1, output_2, output_3, joined, nullptr, memory, at);
}
