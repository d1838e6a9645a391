// What a group of the tiled product has in threadgroup memory: some blocks of TILE_N rows of the weight as they are
// stored, and DEPTH columns of those rows and of TILE_M rows of the input as bfloat16.
//
// A step is STEP_BLOCKS blocks of each row; a group takes args.share blocks, and groups that share a tile lie behind each
// other in z. Its tasks are taken in pairs: run r of both tasks is what the tiles hold.
enum : int {
    TILE_N = 64,
    DEPTH = 64,
    ROW_VECTORS = DEPTH / 8,
    PAIRS = STEP_BLOCKS * PARTS / 2,
    // Blocks start up to 14 bytes behind the unit that they start in; shifted reads touch a word behind them.
    STEP_VECTORS = (STEP_BLOCKS * BLOCK_BYTES + 14 + 4 + 15) / 16,
};

struct Shared {
    Vector staged[TILE_N][STEP_VECTORS];
    Vector weights[TILE_N][ROW_VECTORS];
    Vector input[TILE_M][ROW_VECTORS];
};

static_assert(sizeof(Shared) <= (TILE_M == 64 ? 32768 : 49152), "what the host takes a tile to need");

// Where a row of a tile has a vector: eight rows have the same columns in different banks.
inline uint place_of(uint row, uint vector) { return vector ^ row % 8; }

// Two numbers rounded to bfloat16, the first in the low half.
inline uint narrow_pair(float a, float b);

// Brings the blocks from `block` on of all rows; returns the byte at which they start in what is staged.
inline uint stage_tile(constant TilesArgs &args, device const uchar *weight, uint first_row, uint block, threadgroup Shared &shared, uint index) {
    enum : int { UNITS = STEP_VECTORS * 16 / ALIGN, ALL = TILE_N * UNITS, TURN = 8 };
    uint base = block * BLOCK_BYTES % ALIGN, count = min(args.blocks - block, uint(STEP_BLOCKS)) * BLOCK_BYTES;
    uint live = (base + count + ALIGN - 1) / ALIGN;
    device const uchar *from = weight + (ulong(block) * BLOCK_BYTES - base);
    for (uint first = index; first < ALL; first += TURN * THREADS) {
        Unit held[TURN];
        UNROLL for (int i = 0; i < TURN; i++) {
            uint at = first + i * THREADS, row = min(first_row + at / UNITS, args.n - 1), unit = at % UNITS;
            // Not by `?`, which takes no struct of one address space beside one of another.
            held[i] = Unit();
            if (unit < live && at < ALL) held[i] = ((device const Unit *)(from + row * args.row_bytes))[unit];
        }
        UNROLL for (int i = 0; i < TURN; i++) {
            uint at = first + i * THREADS;
            if (at < ALL) ((threadgroup Unit *)shared.staged[at / UNITS])[at % UNITS] = held[i];
        }
    }
    return base;
}

// Decodes run `run` of a pair of tasks of every row: two threads a row, one for each task. Floats lie where they were staged, in
// whole vectors; blocks of theirs are tasks.
inline void fill_weights(threadgroup Shared &shared, uint base, uint pair, int run, uint index) {
    uint row = index / 2, which = index % 2;
    if (FLOATS) {
        UNROLL for (int v = 0; v < 4; v++) {
            Vector vector = shared.staged[row][4 * which + v];
            if (STORED == F16) {
                UNROLL for (int j = 0; j < 4; j++) vector.word[j] = narrow_pair(half_to_float(ushort(vector.word[j])), half_to_float(ushort(vector.word[j] >> 16)));
            }
            shared.weights[row][place_of(row, 4 * which + v)] = vector;
        }
        return;
    }
    Run values = load_run(shared.staged[row], base, 2 * pair + which, run);
    UNROLL for (int v = 0; v < 4; v++) {
        Vector vector;
        UNROLL for (int j = 0; j < 4; j++) {
            float pairs[2];
            UNROLL for (int k = 0; k < 2; k++) {
                int i = 8 * v + 2 * j + k, side = i / 16 % HALVES;
                int code = int(byte_of(uint(values.codes[i / 4]), i % 4) ^ 128) - 128;
                pairs[k] = fma(values.scale[side], float(code), -values.minimum[side]);
            }
            vector.word[j] = narrow_pair(pairs[0], pairs[1]);
        }
        shared.weights[row][place_of(row, 4 * which + v)] = vector;
    }
}

// A thread's share of the input's tile.
enum : int { INPUT_VECTORS = TILE_M * ROW_VECTORS / THREADS };

struct InputVectors {
    Vector vectors[INPUT_VECTORS];
};

// Loads the columns that belong to run `run` of a pair of tasks, zeros where there are none.
inline void load_input(constant TilesArgs &args, device const Vector *input, uint first_row, uint task, int run, uint index, thread InputVectors &held) {
    uint pitch = args.blocks * (PARTS * RUNS * 4);
    UNROLL for (int i = 0; i < INPUT_VECTORS; i++) {
        uint at = i * THREADS + index, row = first_row + at / ROW_VECTORS, part = at % ROW_VECTORS;
        uint vector = ((task + part / 4) * RUNS + run) * 4 + part % 4;
        held.vectors[i] = Vector();
        if (row < args.rows && vector < pitch) held.vectors[i] = input[ulong(row) * pitch + vector];
    }
}

inline void store_input(thread const InputVectors &held, threadgroup Shared &shared, uint index) {
    UNROLL for (int i = 0; i < INPUT_VECTORS; i++) {
        uint at = i * THREADS + index;
        shared.input[at / ROW_VECTORS][place_of(at / ROW_VECTORS, at % ROW_VECTORS)] = held.vectors[i];
    }
}
