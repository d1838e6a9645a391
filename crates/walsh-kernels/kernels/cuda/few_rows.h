// Stages of a group's ring: rows of a weight, STAGE_BLOCKS blocks of each, and the same blocks of the input.
enum : int {
    // The input's numbers, and what follows them where they are halves.
    INPUT_SLOT = (STAGE_RUNS + (HALVED ? STAGE_BLOCKS : 0)) * TILES * 512,
    // Runs of a task whose numbers are in registers together: sums of many columns take them, too.
    RUNS_HELD = TILES > 4 ? 1 : RUNS,
    PAIRS_HELD = TILES > 4 ? 1 : 4
};

// Begins to copy so many vectors of VECTORS, a group together.
template <uint VECTORS> inline void copy_vectors(uint to, const uint4 *vectors, uint count, uint index) {
    const uchar *from = settled((const uchar *)(vectors + index));
    to += 16 * index;
    UNROLL for (uint i = 0; i < VECTORS; i += THREADS) {
        if (i + index < count) copy_async<16>(to + 16 * i, from + 16 * i);
    }
}

// Begins to copy `count` blocks of the input.
inline void copy_input(uint to, const uint4 *input, uint block, uint count, uint blocks, uint index) {
    const uint4 *numbers = input + ulong(block * (PARTS * RUNS * TILES)) * 32, *sides = input + ulong(blocks * (PARTS * RUNS) + block) * (TILES * 32);
    copy_vectors<STAGE_RUNS * TILES * 32>(to, numbers, count * (PARTS * RUNS * TILES * 32), index);
    if (HALVED) copy_vectors<STAGE_BLOCKS * TILES * 32>(to + 16 * (STAGE_RUNS * TILES * 32), sides, count * TILES * 32, index);
}

// Adds the products of a stage with TILES tiles of eight rows of the input.
inline void multiply_bfloat_rows(const uchar *slot, const Bases &base, uint count, const uint4 *input, uint lane, float (&sums)[TILES][4]) {
    uint g = lane / 4, q = lane % 4;
    const uint4 *numbers = input + lane;
    for (uint task = 0; task < count * PARTS; task++) {
        ROLLED for (int turn = 0; turn < RUNS; turn += RUNS_HELD) UNROLL for (int r = turn; r < turn + RUNS_HELD; r++) {
            uint a[2][4];
            bfloat_fragments(slot, base, task, r, g, q, a);
            UNROLL for (int tile = 0; tile < TILES; tile++) {
                uint4 b = numbers[((task * RUNS + r) * TILES + tile) * 32];
                multiply_bfloats(sums[tile], a[0], b.x, b.y);
                multiply_bfloats(sums[tile], a[1], b.z, b.w);
            }
        }
    }
}

// The same in halves: what belongs to 256 weights comes behind their sums.
inline void multiply_half_rows(const uchar *slot, const Bases &base, uint count, const uint4 *input, uint lane, float (&sums)[TILES][4]) {
    uint g = lane / 4, q = lane % 4;
    ROLLED for (uint block = 0; block < count; block++) {
        const uint4 *numbers = input + block * (PARTS * RUNS * TILES * 32) + lane, *sides = input + (STAGE_RUNS + block) * (TILES * 32) + lane;
        HalfBlock weights(slot, base, block, g, q);
        float inner[TILES][4] = {};
        ROLLED for (uint turn = 0; turn < 4; turn += PAIRS_HELD) UNROLL for (uint pair = turn; pair < turn + PAIRS_HELD; pair++) {
            uint a[2][2][4];
            // A pair that is not known to the compiler has its bits shifted to where it knows them.
            uint bit = HalfBlock::bit_of(pair);
            weights.integers(pair, weights.codes(pair, PAIRS_HELD == 1 ? bit : 0), PAIRS_HELD == 1 ? 0 : bit, a);
            UNROLL for (int nibble = 0; nibble < 2; nibble++) {
                UNROLL for (int tile = 0; tile < TILES; tile++) {
                    uint4 b = numbers[(HalfBlock::run(pair, nibble) * TILES + tile) * 32];
                    multiply_add(inner[tile], a[nibble][0], b.x, b.y);
                    multiply_add(inner[tile], a[nibble][1], b.z, b.w);
                }
            }
        }
        uint minima[4];
        weights.minima(q, minima);
        UNROLL for (int tile = 0; tile < TILES; tile++) {
            uint4 side = sides[tile * 32];
            float below[4] = {};
            if (SUBTRACTS) multiply_add(below, minima, side.x, side.y);
            UNROLL for (int i = 0; i < 4; i++) {
                const Head &head = weights.heads[i / 2];
                float product = head.scale * inner[tile][i];
                if (SUBTRACTS) product = fma(-head.minimum, below[i], product);
                sums[tile][i] = fma(as_type<float>(i % 2 == 0 ? side.z : side.w), product, sums[tile][i]);
            }
        }
    }
}

inline void multiply_rows(const uchar *slot, const Bases &base, uint count, const uint4 *input, uint lane, float (&sums)[TILES][4]) {
    if constexpr (HALVED) {
        multiply_half_rows(slot, base, count, input, lane, sums);
    } else {
        multiply_bfloat_rows(slot, base, count, input, lane, sums);
    }
}
