// Products of one row of the input with up to PARTS weights in blocks, and what stands before and behind them:
// output = input . weight^T (+ bias), of the input's RMS norm where NORM is set, gated where GATED is (silu 1, gelu 2), and
// added to another row where ADD is.
//
// Weights do not depend on what runs before: every simdgroup has its ring full of them when it begins to wait for the input.
// Every group makes the 8-bit form of the whole input for itself, then its simdgroups walk over rows of the weights, PANEL at a
// time, on their own.

enum : int { RING_SLOT = type::SLOT > other::SLOT ? type::SLOT : other::SLOT };

// The rows of weights that a simdgroup takes at a time, and the stage of them that it is at.
struct Walk {
    uint unit, stage;
};

struct Rows {
    const uchar *row[PANEL];
    // The weight, and its first row of these.
    uint part, first;
};

inline float activation(float x) { return GATED == 1 ? silu(x) : gelu_tanh(x); }

template <typename T> inline T *chosen(uint part, T *a, T *b, T *c, T *d) { return part == 0 ? a : part == 1 ? b : part == 2 ? c : d; }

struct Weights {
    const uchar *weight[4];

    inline Rows at(constant MatMulRowArgs &args, uint unit) const {
        Rows rows;
        if (GATED) {
            rows.part = 0;
            rows.first = unit;
            rows.row[0] = weight[0] + ulong(unit) * args.row_bytes[0];
            rows.row[PANEL - 1] = weight[1] + ulong(unit) * args.row_bytes[1];
        } else {
            rows.part = (unit >= args.first_unit[1]) + (unit >= args.first_unit[2]) + (unit >= args.first_unit[3]);
            rows.first = (unit - args.first_unit[rows.part]) * PANEL;
            const uchar *own = chosen(rows.part, weight[0], weight[1], weight[2], weight[3]);
            UNROLL for (int p = 0; p < PANEL; p++) rows.row[p] = own + ulong(min(rows.first + p, args.n[rows.part] - 1)) * args.row_bytes[rows.part];
        }
        return rows;
    }
};

// The second type of weights, for parts whose bit is set.
inline bool is_second(constant MatMulRowArgs &args, uint part) { return OTHER >= 0 && (args.second >> part & 1) != 0; }

inline void matmul_row(constant MatMulRowArgs &args, device const uchar *weight_0, device const uchar *weight_1, device const uchar *weight_2, device const uchar *weight_3,
                       device const float *input, device const float *norm, device const float *bias_0, device const float *bias_1, device const float *bias_2,
                       device const float *bias_3, device const float *addend, device float *normed, device float *output_0, device float *output_1, device float *output_2,
                       device float *output_3, device float *joined, threadgroup uchar *memory, Position at) {
    __shared__ Marks marks;
    Weights weights = {{weight_0, weight_1, weight_2, weight_3}};
    uchar *ring = memory + args.code_bytes + at.simd * (SLOTS * RING_SLOT);
    uint ring_at = shared_at(ring), plane = args.code_bytes / 48;
    uint step = gridDim.x * SIMDS;
    Walk here = {at.simd * gridDim.x + at.x, 0}, ahead = here;
    uint stages[2] = {args.stages[0], args.stages[OTHER >= 0]};

    auto advance = [&](Walk &walk) {
        if (++walk.stage >= stages[is_second(args, weights.at(args, walk.unit).part)]) walk = {walk.unit + step, 0};
    };
    auto fetch = [&](uint slot) {
        if (ahead.unit < args.units) {
            Rows rows = weights.at(args, ahead.unit);
            bool second = is_second(args, rows.part);
            UNROLL for (int p = 0; p < PANEL; p++) {
                if (OTHER >= 0 && second) {
                    uint block = ahead.stage * other::STAGE;
                    other::copy_row(ring_at + slot * RING_SLOT + p * other::ROW_SLOT, rows.row[p], block, min(args.blocks[1] - block, uint(other::STAGE)), at.lane);
                } else {
                    uint block = ahead.stage * type::STAGE;
                    type::copy_row(ring_at + slot * RING_SLOT + p * type::ROW_SLOT, rows.row[p], block, min(args.blocks[0] - block, uint(type::STAGE)), at.lane);
                }
            }
            advance(ahead);
        }
        end_copies();
    };
    UNROLL for (uint slot = 0; slot < SLOTS; slot++) fetch(slot);

    uint fours = args.k / 4;
    float4 by[HELD];
    if (NORM) {
        UNROLL for (uint i = 0; i < HELD; i++) {
            uint four = i * THREADS + at.index;
            by[i] = four < fours ? ((const float4 *)norm)[four] : float4{0.0f, 0.0f, 0.0f, 0.0f};
        }
    }
    walsh_begin();
    for (uint base = 0; base < fours; base += HELD * THREADS) {
        float4 held[HELD];
        UNROLL for (uint i = 0; i < HELD; i++) {
            uint four = base + i * THREADS + at.index;
            held[i] = four < fours ? ((const float4 *)input)[four] : float4{0.0f, 0.0f, 0.0f, 0.0f};
        }
        if (NORM) {
            float factor = norm_factor(held, args.k, args.eps, marks, at);
            UNROLL for (uint i = 0; i < HELD; i++) {
                uint four = i * THREADS + at.index;
                held[i].x = held[i].x * factor * by[i].x;
                held[i].y = held[i].y * factor * by[i].y;
                held[i].z = held[i].z * factor * by[i].z;
                held[i].w = held[i].w * factor * by[i].w;
                // What the norm leaves in memory, each group a part of it.
                if (four < fours && i % gridDim.x == at.x) ((float4 *)normed)[four] = held[i];
            }
        }
        UNROLL for (uint i = 0; i < HELD; i++) {
            uint four = base + i * THREADS + at.index;
            round_four(held[i], four, four < fours, (uint *)memory, plane);
        }
    }
    __syncthreads();

    uint slot = 0;
    while (here.unit < args.units) {
        Rows rows = weights.at(args, here.unit);
        bool second = is_second(args, rows.part);
        float sums[PANEL];
        UNROLL for (int p = 0; p < PANEL; p++) sums[p] = 0.0f;
        // A lane for each row: what is added to its product is on its way while that is computed.
        uint own = GATED ? rows.first : rows.first + at.lane, part = GATED ? at.lane : rows.part;
        bool live = at.lane < PANEL && (GATED || own < args.n[rows.part]);
        float plus = 0.0f, base = 0.0f;
        if (live && (args.biased >> part & 1) != 0) plus = chosen(part, bias_0, bias_1, bias_2, bias_3)[own];
        if (ADD && live) base = addend[own];
        uint count = stages[second];
        for (uint stage = 0; stage < count; stage++) {
            await_copies<SLOTS - 1>();
            __syncwarp();
            const uchar *piece = ring + slot * RING_SLOT;
            if (OTHER >= 0 && second) {
                uint block = stage * other::STAGE;
                other::multiply_piece(piece, rows.row, block, min(args.blocks[1] - block, uint(other::STAGE)), memory, plane, at.lane, sums);
            } else {
                uint block = stage * type::STAGE;
                type::multiply_piece(piece, rows.row, block, min(args.blocks[0] - block, uint(type::STAGE)), memory, plane, at.lane, sums);
            }
            __syncwarp();
            fetch(slot);
            slot = slot + 1 == SLOTS ? 0 : slot + 1;
        }
        here.unit += step;
        UNROLL for (int p = 0; p < PANEL; p++) sums[p] = simd_sum(sums[p]);
        float value = (at.lane == 0 ? sums[0] : sums[PANEL - 1]) + plus;
        if (live) chosen(part, output_0, output_1, output_2, output_3)[own] = value;
        if (ADD && live) joined[own] = value + base;
        if (GATED) {
            float up = simd_shuffle(value, 1u);
            __syncwarp();
            if (at.lane == 0) joined[own] = activation(value) * up;
        }
    }
}
