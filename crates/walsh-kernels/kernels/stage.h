// How rows of blocks come into threadgroup memory: STAGE blocks of a row at a time, each lane of a simdgroup its share.
// What a lane stages of a row, in vectors, and a simdgroup: the blocks and a word that shifted reads may touch.
enum : int { LANE_VECTORS = (STAGE * BLOCK_BYTES + 4 + 511) / 512, STAGED = 32 * LANE_VECTORS };

// What a lane holds of a turn of COUNT rows on its way from memory to threadgroup memory.
template <int COUNT> struct Held {
    Unit units[COUNT][LANE_VECTORS];
};

// Turns that it takes to bring a stage.
enum : int { TURNS = 16 / ALIGN };

inline uint unit_of(uint turn, uint i, uint lane) { return (turn * LANE_VECTORS + i) * 32 + lane; }

// Loads a lane's units of `count` bytes of each row, and zeros behind them.
template <int COUNT> inline void load_turn(device const uchar *from, thread const ulong *rows, uint count, uint turn, uint lane, thread Held<COUNT> &held) {
    UNROLL for (int row = 0; row < COUNT; row++) {
        device const Unit *units = (device const Unit *)(from + rows[row]);
        UNROLL for (int i = 0; i < LANE_VECTORS; i++) {
            uint index = unit_of(turn, i, lane);
            held.units[row][i] = Unit();
            if (index < count / ALIGN) held.units[row][i] = units[index];
        }
    }
}

template <int COUNT> inline void store_turn(thread const Held<COUNT> &held, threadgroup Vector (*to)[STAGED], uint turn, uint lane) {
    UNROLL for (int row = 0; row < COUNT; row++) {
        UNROLL for (int i = 0; i < LANE_VECTORS; i++) ((threadgroup Unit *)to[row])[unit_of(turn, i, lane)] = held.units[row][i];
    }
}
