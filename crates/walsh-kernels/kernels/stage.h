// How rows of blocks come into threadgroup memory: in pieces of ALIGN bytes, each lane of a simdgroup its share.
template <int BYTES> struct Piece;
template <> struct Piece<2> {
    typedef ushort Type;
};
template <> struct Piece<4> {
    typedef uint Type;
};
template <> struct Piece<16> {
    typedef Vector Type;
};
typedef Piece<ALIGN>::Type Unit;

// What a lane stages of a row, in vectors, and a simdgroup: the blocks and a word that shifted reads may touch.
enum : int { LANE_VECTORS = (STAGE * BLOCK_BYTES + 4 + 511) / 512, STAGED = 32 * LANE_VECTORS };

// Brings `count` bytes of each of COUNT rows, and zeros behind them. All loads of a turn are under way before the first
// store waits for one.
template <int COUNT> inline void stage_rows(device const uchar *from, thread const ulong *rows, uint count, threadgroup Vector (*to)[STAGED], uint lane) {
    for (int turn = 0; turn < 16 / ALIGN; turn++) {
        Unit held[COUNT][LANE_VECTORS];
        UNROLL for (int row = 0; row < COUNT; row++) {
            device const Unit *units = (device const Unit *)(from + rows[row]);
            UNROLL for (int i = 0; i < LANE_VECTORS; i++) {
                uint index = (turn * LANE_VECTORS + i) * 32 + lane;
                held[row][i] = index < count / ALIGN ? units[index] : Unit();
            }
        }
        UNROLL for (int row = 0; row < COUNT; row++) {
            UNROLL for (int i = 0; i < LANE_VECTORS; i++) {
                uint index = (turn * LANE_VECTORS + i) * 32 + lane;
                ((threadgroup Unit *)to[row])[index] = held[row][i];
            }
        }
    }
}
