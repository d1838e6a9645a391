// Products of a few rows of input, TILES tiles of eight, with up to four weights in blocks of one type: output = input . weight^T (+ bias),
// added to other rows where ADD is set. The weight is the first matrix: a simdgroup takes sixteen of its rows,
// which it decodes once for all rows of the input; SPLIT simdgroups share them, each with some stages.
//
// Weights do not depend on what runs before: every simdgroup has its ring full of them when it begins to wait for the input.

enum : int { SIMDS = THREADS / 32, SLOT = type::SLOT_FEW };
static_assert(SIMDS * SLOTS * SLOT <= DYNAMIC && SIMDS * 512 * TILES <= DYNAMIC, "the ring, and the sums where it was, fit the group's memory");

template <typename T> inline T *chosen(uint part, T *a, T *b, T *c, T *d) { return part == 0 ? a : part == 1 ? b : part == 2 ? c : d; }

inline void matmul_few(constant MatMulFewArgs &args, device const uchar *weight_0, device const uchar *weight_1, device const uchar *weight_2, device const uchar *weight_3,
                       device const uint *input, device const float *bias_0, device const float *bias_1, device const float *bias_2, device const float *bias_3,
                       device const float *addend, device float *output_0, device float *output_1, device float *output_2, device float *output_3, device float *joined,
                       threadgroup uchar *memory, Position at) {
    // A simdgroup behind the last unit has no stage.
    uint unit = at.x * (SIMDS / SPLIT) + at.simd / SPLIT, share = at.simd % SPLIT;
    uint part = (unit >= args.first_unit[1]) + (unit >= args.first_unit[2]) + (unit >= args.first_unit[3]);
    uint first = (unit - args.first_unit[part]) * 16, n = args.n[part];
    const uchar *weight = chosen(part, weight_0, weight_1, weight_2, weight_3);
    ulong row_bytes = args.row_bytes[part];
    uint stages = unit < args.units ? args.stages : 0;
    uchar *ring = memory + at.simd * (SLOTS * SLOT);
    uint ring_at = shared_at(ring), ahead = share;
    auto fetch = [&](uint slot) {
        if (ahead < stages) {
            uint block = ahead * type::STAGE_FEW;
            type::copy_rows(ring_at + slot * SLOT, weight, row_bytes, first, n, block, min(args.blocks - block, uint(type::STAGE_FEW)), at.lane);
            ahead += SPLIT;
        }
        end_copies();
    };
    UNROLL for (uint slot = 0; slot < SLOTS; slot++) fetch(slot);
    walsh_begin();
    const uint4 *numbers = (const uint4 *)input;
    float sums[TILES][4];
    UNROLL for (int tile = 0; tile < TILES; tile++) {
        UNROLL for (int i = 0; i < 4; i++) sums[tile][i] = 0.0f;
    }
    uint slot = 0;
    for (uint stage = share; stage < stages; stage += SPLIT) {
        await_copies<SLOTS - 1>();
        __syncwarp();
        uint block = stage * type::STAGE_FEW;
        type::multiply_rows(ring + slot * SLOT, weight, row_bytes, first, n, block, min(args.blocks - block, uint(type::STAGE_FEW)), numbers, at.lane, sums);
        __syncwarp();
        fetch(slot);
        slot = slot + 1 == SLOTS ? 0 : slot + 1;
    }
    // Sums meet where the rings were: of each simdgroup column after column of its rows.
    await_copies<0>();
    __syncthreads();
    enum : int { ROWS = 16, COLUMNS = 8 * TILES };
    float *meeting = (float *)memory;
    UNROLL for (int tile = 0; tile < TILES; tile++) {
        UNROLL for (int i = 0; i < 4; i++) {
            uint row = at.lane / 4 + 8 * (i / 2), column = 8 * tile + at.lane % 4 * 2 + i % 2;
            meeting[(at.simd * COLUMNS + column) * ROWS + row] = sums[tile][i];
        }
    }
    __syncthreads();
    for (uint number = at.index; number < SIMDS / SPLIT * ROWS * COLUMNS; number += THREADS) {
        uint row = number % ROWS, column = number / ROWS % COLUMNS, group = number / (ROWS * COLUMNS);
        uint own = at.x * (SIMDS / SPLIT) + group;
        if (own >= args.units || column >= args.rows) continue;
        uint from = (own >= args.first_unit[1]) + (own >= args.first_unit[2]) + (own >= args.first_unit[3]);
        uint place = (own - args.first_unit[from]) * ROWS + row;
        if (place >= args.n[from]) continue;
        float sum = 0.0f;
        UNROLL for (int split = 0; split < SPLIT; split++) sum += meeting[((group * SPLIT + split) * COLUMNS + column) * ROWS + row];
        if ((args.biased >> from & 1) != 0) sum += chosen(from, bias_0, bias_1, bias_2, bias_3)[place];
        ulong to = ulong(column) * args.n[from] + place;
        chosen(from, output_0, output_1, output_2, output_3)[to] = sum;
        if (ADD) joined[to] = sum + addend[to];
    }
}
