// A piece of rows of a weight in blocks, STAGE blocks of each, as it lies in a simdgroup's ring.
enum : int {
    // Rows start at any even byte, copies at multiples of sixteen; the last word of a block may end behind it.
    ROW_SLOT = (STAGE * BLOCK_BYTES + 15 + 4 + 15) / 16 * 16,
    SLOT = PANEL * ROW_SLOT,
    CHUNKS = (STAGE * BLOCK_BYTES + 15 + 15) / 16
};

// Begins to copy `count` blocks from `block` on of a row.
inline void copy_row(uint to, const uchar *row, uint block, uint count, uint lane) {
    const uchar *first = row + block * BLOCK_BYTES;
    uint shift = uint(ulong(first) % 16), chunks = (shift + count * BLOCK_BYTES + 15) / 16;
    first -= shift;
    UNROLL for (uint i = 0; i < (CHUNKS + 31) / 32; i++) {
        uint chunk = i * 32 + lane;
        if (chunk < chunks) copy_async<16>(to + 16 * chunk, first + 16 * chunk);
    }
}

// Adds the products of a piece with the input's numbers from the piece's first on.
inline void multiply_piece(const uchar *slot, const uchar *const (&rows)[PANEL], uint block, uint count, const uchar *codes, uint plane, uint lane, float (&sums)[PANEL]) {
    uint base[PANEL];
    UNROLL for (int p = 0; p < PANEL; p++) base[p] = BLOCK_ALIGN == 16 ? 0 : uint(ulong(rows[p] + block * BLOCK_BYTES) % 16);
    UNROLL for (int turn = 0; turn < STAGE * PARTS / 32; turn++) {
        uint index = turn * 32 + lane;
        if (index >= count * PARTS) break;
        uint first = (block * PARTS + index) * RUNS;
        UNROLL for (int r = 0; r < RUNS; r++) {
            const Vector *own = (const Vector *)codes + input_place(first + r);
            Vector numbers[3];
            UNROLL for (int v = 0; v < 3; v++) numbers[v] = own[v * plane];
            UNROLL for (int p = 0; p < PANEL; p++) {
                Run run = load_run((const Vector *)(slot + p * ROW_SLOT), base[p], index, r);
                sums[p] = accumulate(sums[p], run, numbers);
            }
        }
    }
}
