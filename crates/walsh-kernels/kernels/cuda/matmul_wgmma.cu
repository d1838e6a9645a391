// Products of rows of input, COLUMNS at a time, with up to four weights of one type, in blocks, halves or bfloat16, on Hopper's
// tensor cores: output = input . weight^T (+ bias), added to other rows where ADD is set. The weight is the first matrix, which a
// warpgroup decodes into registers, 64 rows for each; the second, the input as `slab_rows` makes it, comes by bulk copies into a ring that all
// warpgroups of a group read, ordered by the first lane of all. CLUSTER groups share the stages of the same rows, and add up each
// other's sums.
//
// Weights do not depend on what runs before: their rings are full when a group begins to wait for the input.

enum : int {
    WARPGROUPS = THREADS / 128,
    // How many turns behind its own the lane that orders the input fills slots again: the others may be behind it by as many.
    BEHIND = WARPGROUPS - 1,
    ROWS = 64,
    // Whether a stage's weights are decoded before any is multiplied: with few columns the warpgroups of other groups work meanwhile,
    // and what costs is that the simdgroups of one wait for each other.
    WHOLE = type::GROUPED && COLUMNS <= 64,
    // Numbers of a stage of the weights; the input comes in slabs of 64, TOGETHER of which are a slot of its ring. A pair of runs is
    // a slab's; one of q6_K's lies in two.
    DEPTH = STAGE_BLOCKS * type::PARTS * type::RUNS * 32,
    STAGE_SLABS = DEPTH / 64,
    SLAB = 128 * COLUMNS,
    INPUT_SLOT = TOGETHER * SLAB,
    SLOTS_READ = type::STORED == type::Q6_K && TOGETHER == 1 ? 2 : 1,
    SLABS_READ = SLOTS_READ * TOGETHER,
    WEIGHTS_AT = INPUT_SLOTS * INPUT_SLOT,
    BARRIERS_AT = WEIGHTS_AT + SLOTS * SIMDS * type::SLOT_BYTES
};
static_assert(BARRIERS_AT + 16 * INPUT_SLOTS <= DYNAMIC && 4 * (PITCH + 1) * COLUMNS <= DYNAMIC, "the rings, and the sums where they were, fit the group's memory");
static_assert(INPUT_SLOTS >= 2 * SLOTS_READ + BEHIND, "what is read, what is read next, and what is not yet ordered again");
static_assert(DEPTH % 64 == 0 && STAGE_SLABS % SLABS_READ == 0 && STAGE_SLABS % TOGETHER == 0 && (DEPTH == 256 || !type::GROUPED),
              "a stage is whole slots of the input, and a block where weights are grouped");

// A barrier in the group's memory, which turns over when so many have arrived and so many bytes have come.
inline void begin_barrier(uint barrier, uint count) { asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory"); }

inline void arrive(uint barrier) { asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(barrier) : "memory"); }

inline void expect_bytes(uint barrier, uint bytes) { asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory"); }

// Waits for turn `turn` of a barrier to be over, of which 0 is the first.
inline void await_turn(uint barrier, uint turn) {
    asm volatile("{\n"
                 ".reg .pred over;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared.b64 over, [%0], %1;\n"
                 "@!over bra again;\n"
                 "}" ::"r"(barrier),
                 "r"(turn & 1u)
                 : "memory");
}

inline void copy_bulk(uint to, const uchar *from, uint bytes, uint barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from), "r"(bytes), "r"(barrier)
                 : "memory");
}

inline void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

inline void end_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

inline void await_products() { asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory"); }

// Sums that products have written until now.
inline void settle(float (&sums)[COLUMNS / 2]) {
    UNROLL for (int i = 0; i < COLUMNS / 2; i++) asm volatile("" : "+f"(sums[i])::"memory");
}

// Registers that products have read until now.
template <int COUNT> inline void settle(uint (&words)[COUNT]) {
    UNROLL for (int i = 0; i < COUNT; i++) asm volatile("" : "+r"(words[i])::"memory");
}

// A second matrix in the group's memory, so many bytes behind the beginning of a slot: 128 bytes of each row beside each other,
// swizzled.
inline ulong matrix_at(uint at, uint behind) {
    ulong matrix;
    asm("mov.b64 %0, {%1, %2};" : "=l"(matrix) : "r"((at >> 4 | 1u << 16) + behind / 16), "r"(1u << 30 | 64u));
    return matrix;
}

// A place in the input's ring, and how often it has gone round.
struct Place {
    uint slot = 0, round = 0;

    inline void next() {
        bool last = ++slot == INPUT_SLOTS;
        slot = last ? 0 : slot;
        round += last;
    }
};

// What a simdgroup knows of the input's ring.
struct Input {
    // The group's slabs, one behind the other.
    const uchar *slabs;
    uint ring, count, index;
    // How many slabs are ordered, and slots are read.
    uint ordered = 0, read = 0;
    // Where the next one comes, the next one that is read is, and the next one to be ordered goes.
    Place coming, leaving, going;

    inline uint full(uint slot) const { return ring + BARRIERS_AT + 8 * slot; }
    inline uint empty(uint slot) const { return full(slot) + 8 * INPUT_SLOTS; }

    // Begins to fill the next slot.
    inline void order() {
        if (index == 0) {
            uint bytes = min(count - ordered, uint(TOGETHER)) * SLAB;
            expect_bytes(full(going.slot), bytes);
            copy_bulk(ring + going.slot * INPUT_SLOT, slabs + ordered * SLAB, bytes, full(going.slot));
        }
        ordered += TOGETHER;
        going.next();
    }

    inline void begin() {
        for (uint i = 0; i < INPUT_SLOTS && ordered < count; i++) order();
        __syncwarp();
    }

    // Where the slabs of the next slot lie, once they have come.
    inline uint await() {
        await_turn(full(coming.slot), coming.round);
        uint at = simd_shuffle(ring + coming.slot * INPUT_SLOT, 0u);
        coming.next();
        return at;
    }

    // Says that a slot is read.
    inline void release() {
        if (index % 32 == 0) arrive(empty(leaving.slot));
        leaving.next();
        if (index < 32 && read >= BEHIND && ordered < count) {
            if (index == 0) await_turn(empty(going.slot), going.round - 1);
            order();
        }
        read++;
    }
};

// A stage's weights in halves: a block's.
struct HalfStage {
    type::HalfBlock block;
    type::HalfBlock::Codes codes;
    type::Power powers[2];
    float ratios[2];

    inline void begin(const uchar *slot, const type::Bases &bases, uint, uint lane) {
        block = type::HalfBlock(slot, bases, 0, lane / 4, lane % 4);
        UNROLL for (int side = 0; side < 2; side++) ratios[side] = powers[side].take(block.heads[side]);
        codes = block.codes(0);
    }

    // Decodes a pair of runs, and loads the codes of the next.
    inline void decode(uint pair, uint (&to)[2][2][4]) {
        block.weights(pair, codes, powers, to);
        if (pair < 3) codes = block.codes(pair + 1);
    }

    // Makes sums until now fit the block's powers.
    inline void fit(float (&sums)[COLUMNS / 2]) const {
        if (!__any_sync(WALSH_LANES, ratios[0] != 1.0f || ratios[1] != 1.0f)) return;
        UNROLL for (int i = 0; i < COLUMNS / 2; i++) sums[i] *= ratios[i / 2 % 2];
    }

    inline float factor(int side) const { return powers[side].up(); }
};

// The same in bfloat16, zeros behind the last run.
struct BfloatStage {
    const uchar *slot;
    type::Bases bases;
    uint runs, lane;

    inline void begin(const uchar *new_slot, const type::Bases &new_bases, uint new_runs, uint new_lane) {
        slot = new_slot;
        bases = new_bases;
        runs = new_runs;
        lane = new_lane;
    }

    inline void decode(uint pair, uint (&to)[2][2][4]) const {
        UNROLL for (uint i = 0; i < 2; i++) {
            uint run = 2 * pair + i;
            if (run < runs) {
                type::bfloat_fragments(slot, bases, run / type::RUNS, run % type::RUNS, lane / 4, lane % 4, to[i]);
            } else {
                UNROLL for (int j = 0; j < 8; j++) to[i][j / 4][j % 4] = 0;
            }
        }
    }

    inline void fit(float (&)[COLUMNS / 2]) const {}

    inline float factor(int) const { return 1.0f; }
};

// The same of floats, as they are stored.
struct FloatStage : BfloatStage {
    inline void decode(uint pair, uint (&to)[2][2][4]) const {
        UNROLL for (uint i = 0; i < 2; i++) {
            if (2 * pair + i < runs) {
                type::float_fragments(slot, 2 * pair + i, lane / 4, lane % 4, to[i]);
            } else {
                UNROLL for (int j = 0; j < 8; j++) to[i][j / 4][j % 4] = 0;
            }
        }
    }
};

template <bool GROUPED, bool FLOATS> struct StageOf {
    typedef BfloatStage Type;
};
template <> struct StageOf<true, false> {
    typedef HalfStage Type;
};
template <> struct StageOf<false, true> {
    typedef FloatStage Type;
};

inline void matmul_wgmma(constant MatMulWgmmaArgs &args, device const uchar *weight_0, device const uchar *weight_1, device const uchar *weight_2, device const uchar *weight_3,
                         device const uint *input, device const float *bias_0, device const float *bias_1, device const float *bias_2, device const float *bias_3,
                         device const float *addend, device float *output_0, device float *output_1, device float *output_2, device float *output_3, device float *joined,
                         threadgroup uchar *memory, Position at) {
    uint group = at.x / CLUSTER, share = at.x % CLUSTER, own_stages = (args.stages + CLUSTER - 1) / CLUSTER;
    uint begin = share * own_stages, end = min(begin + own_stages, args.stages);
    // Groups side by side have the same rows of the weights.
    uint tiles = args.padded / COLUMNS, first_unit = group / tiles * WARPGROUPS, first_column = group % tiles * COLUMNS;
    uint ring = shared_at(memory);
    if (at.index == 0) {
        for (uint i = 0; i < INPUT_SLOTS; i++) {
            begin_barrier(ring + BARRIERS_AT + 8 * i, 1);
            begin_barrier(ring + BARRIERS_AT + 8 * (INPUT_SLOTS + i), SIMDS);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    // A warpgroup behind the last unit reads the last one's weights again.
    uint unit = min(first_unit + at.simd / 4, args.units - 1);
    uint part = part_of(args, unit);
    // So does a simdgroup behind the last row.
    uint n = args.n[part], first = min((unit - args.first_unit[part]) * ROWS + at.simd % 4 * 16, n - 1);
    type::Rows rows(chosen(part, weight_0, weight_1, weight_2, weight_3), args.row_bytes[part], first, n, at.lane);
    uint own = ring + WEIGHTS_AT + at.simd * type::SLOT_BYTES;
    auto count = [&](uint stage) { return min(args.blocks - stage * STAGE_BLOCKS, uint(STAGE_BLOCKS)); };
    auto fetch = [&](uint turn) {
        uint stage = begin + turn;
        if (stage < end) rows.copy(own + turn % SLOTS * (SIMDS * type::SLOT_BYTES), stage * STAGE_BLOCKS, count(stage), args.blocks, at.lane);
        end_copies();
    };
    UNROLL for (uint turn = 0; turn < SLOTS - 1; turn++) fetch(turn);
    walsh_begin();
    Input slabs;
    slabs.slabs = (const uchar *)input + (ulong(first_column) * args.slabs + ulong(STAGE_SLABS * begin) * COLUMNS) * 128;
    slabs.ring = ring;
    slabs.count = min(STAGE_SLABS * end, args.slabs) - min(STAGE_SLABS * begin, args.slabs);
    slabs.index = at.index;
    slabs.begin();
    float sums[COLUMNS / 2] = {};
    typename StageOf<type::GROUPED, type::FLOATS>::Type stage;
    auto runs_of = [&](uint turn) { return count(begin + turn) * type::PARTS * type::RUNS; };
    auto prepare = [&](uint turn) {
        await_copies<SLOTS - 2>();
        // All lanes' copies have come, and the slot of the turn before is free.
        __syncwarp();
        fetch(turn + SLOTS - 1);
        const uchar *slot = memory + WEIGHTS_AT + (turn % SLOTS * SIMDS + at.simd) * type::SLOT_BYTES;
        stage.begin(slot, rows.bases((begin + turn) * STAGE_BLOCKS), runs_of(turn), at.lane);
    };
    uint from[SLOTS_READ];
    auto await = [&] {
        UNROLL for (uint i = 0; i < SLOTS_READ; i++) from[i] = slabs.await();
    };
    auto release = [&] {
        UNROLL for (uint i = 0; i < SLOTS_READ; i++) slabs.release();
    };
    auto multiply = [&](uint pair, const uint (&a)[2][2][4]) {
        UNROLL for (uint nibble = 0; nibble < 2; nibble++) {
            uint run = type::GROUPED ? type::HalfBlock::run(pair, nibble) : 2 * pair + nibble, slab = run / 2 % SLABS_READ;
            UNROLL for (uint half = 0; half < 2; half++) {
                multiply_tile(sums, a[nibble][half], matrix_at(from[slab / TOGETHER], slab % TOGETHER * SLAB + run % 2 * 64 + half * 32));
            }
        }
    };
    auto finished = [&](uint (&a)[2][2][4]) {
        UNROLL for (int i = 0; i < 4; i++) settle(a[i / 2][i % 2]);
    };
    if constexpr (WHOLE) {
        uint a[4][2][2][4];
        for (uint turn = 0; begin + turn < end; turn++) {
            prepare(turn);
            if (turn > 0) stage.fit(sums);
            UNROLL for (uint pair = 0; pair < 4; pair++) stage.decode(pair, a[pair]);
            UNROLL for (uint first = 0; first < 4; first += SLABS_READ) {
                await();
                begin_products();
                UNROLL for (uint pair = first; pair < first + SLABS_READ; pair++) multiply(pair, a[pair]);
                end_products();
                await_products();
                settle(sums);
                UNROLL for (uint pair = first; pair < first + SLABS_READ; pair++) finished(a[pair]);
                release();
            }
        }
    } else {
        // Of two pairs of runs, one of which is decoded while the other is multiplied.
        uint a[2][2][2][4];
        if (begin < end) {
            prepare(0);
            stage.decode(0, a[0]);
        }
        for (uint turn = 0; begin + turn < end; turn++) {
            uint runs = runs_of(turn);
            bool more = begin + turn + 1 < end;
            UNROLL for (uint pair = 0; pair < STAGE_SLABS; pair++) {
                // Only the last stage ends early.
                if (2 * pair >= runs) break;
                if (pair % SLABS_READ == 0) await();
                begin_products();
                multiply(pair, a[pair % 2]);
                end_products();
                if (pair + 1 < STAGE_SLABS) {
                    stage.decode(pair + 1, a[(pair + 1) % 2]);
                } else if (more) {
                    prepare(turn + 1);
                    stage.decode(0, a[0]);
                }
                await_products();
                settle(sums);
                finished(a[pair % 2]);
                if (pair % SLABS_READ == SLABS_READ - 1) release();
            }
            if (more) stage.fit(sums);
        }
    }
    await_copies<0>();
    // Sums meet where the rings were, which all have read: column after column of a group's rows.
    __syncthreads();
    UNROLL for (int i = 0; i < COLUMNS / 2; i++) {
        meeting_at(memory, at.simd * 16 + at.lane / 4 + 8 * (i / 2 % 2), i / 4 * 8 + at.lane % 4 * 2 + i % 2) = sums[i] * stage.factor(i / 2 % 2);
    }
    float *powers = (float *)memory + COLUMNS * PITCH;
    const float *column_powers = (const float *)input + ulong(args.slabs) * 32 * args.padded + first_column;
    for (uint column = at.index; type::HALVED && column < COLUMNS; column += THREADS) powers[column] = column_powers[column];
    add_up<ROWS, COLUMNS>(args, first_unit, first_column, bias_0, bias_1, bias_2, bias_3, addend, output_0, output_1, output_2, output_3, joined,
                          type::HALVED ? powers : nullptr, memory, at);
}
