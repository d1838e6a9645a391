// Rows of a weight in blocks as first matrices of m16n8k16 products of bfloat16, out of a simdgroup's ring: sixteen rows,
// STAGE_FEW blocks of each.
enum : int {
    STAGE_FEW = PARTS > 1 ? BLOCK_BYTES > 180 ? 1 : 2 : BLOCK_BYTES <= 24 ? 16 : 8,
    // Rows start at any even byte, copies at multiples of sixteen; the last word of a block may end behind it. Eight rows lie in
    // banks of their own.
    CHUNKS_FEW = (STAGE_FEW * BLOCK_BYTES + 15 + 4 + 15) / 16 | 1,
    SLOT_FEW = 16 * 16 * CHUNKS_FEW,
    // Runs of a task whose numbers are in registers together: sums of many columns take them, too.
    RUNS_HELD = TILES > 4 ? 1 : RUNS,
    // Whether codes may be negative.
    SIGNED = STORED == Q8_0 || STORED == IQ4_NL || STORED == IQ4_XS
};

// Begins to copy `count` blocks from `block` on of a simdgroup's rows, of which the last are the weight's last again.
inline void copy_rows(uint to, const uchar *weight, ulong row_bytes, uint first, uint n, uint block, uint count, uint lane) {
    UNROLL for (uint i = 0; i < (16 * CHUNKS_FEW + 31) / 32; i++) {
        uint chunk = i * 32 + lane, row = chunk / CHUNKS_FEW, place = chunk % CHUNKS_FEW;
        if (row >= 16) break;
        const uchar *from = weight + ulong(min(first + row, n - 1)) * row_bytes + block * BLOCK_BYTES;
        uint shift = BLOCK_ALIGN == 16 ? 0 : uint(ulong(from) % 16);
        if (16 * place < shift + count * BLOCK_BYTES) copy_async<16>(to + 16 * chunk, from - shift + 16 * place);
    }
}

inline uint word_of(const Vector *staged, uint byte) {
    uint word[1];
    fetch<1>(staged, byte, word);
    return word[0];
}

// Words q and q + 4 of the codes of a run.
inline void load_pair(const Vector *staged, uint block, uint part, int run, uint q, uint (&codes)[2]) {
    uint at = block + LOW_AT + part * LOW_STEP;
    if (STORED == Q4_K || STORED == Q5_K) at += 32 * (run / 2);
    if (STORED == Q6_K) at += 32 * (run % 2);
    if (STORED == IQ4_XS) at += 16 * run;
    uint bits = HIGH == 1 ? word_of(staged, block + HIGH_AT) >> (4 * q) : 0;
    UNROLL for (int i = 0; i < 2; i++) {
        uint code = word_of(staged, at + 4 * q + (LOW == 4 ? 0 : 16 * i));
        uint high = HIGH > 1 ? word_of(staged, block + HIGH_AT + part * HIGH_STEP + 4 * q + 16 * i) : 0;
        if (LOW == 4) code = code >> (4 * i) & 0x0f0f0f0fu;
        if (STORED == Q4_K || STORED == Q5_K) code = code >> (4 * (run % 2)) & 0x0f0f0f0fu;
        if (STORED == Q6_K) code = code >> (4 * (run / 2)) & 0x0f0f0f0fu;
        if (STORED == Q2_K || STORED == Q3_K) code = code >> (2 * run) & 0x03030303u;
        if (STORED == Q5_0 || STORED == Q5_1) code |= spread(bits >> (16 * i)) << 4;
        if (STORED == Q3_K) code |= (high >> (4 * part + run) & 0x01010101u) << 2;
        if (STORED == Q5_K) code |= (high >> (4 * part + run) & 0x01010101u) << 4;
        if (STORED == Q6_K) code |= (high >> (2 * run) & 0x03030303u) << 4;
        if (STORED == IQ4_NL || STORED == IQ4_XS) code = look_up(code);
        codes[i] = code;
    }
}

// Four codes as two pairs of values: scale.code - minimum.
inline void decode_four(uint codes, uint scale, uint minimum, uint &low, uint &high) {
    if (SIGNED) {
        low = bfloat_pair(float(int(codes << 24) >> 24), float(int(codes << 16) >> 24));
        high = bfloat_pair(float(int(codes << 8) >> 24), float(int(codes) >> 24));
    } else {
        // 128 + code, whose last seven bits the code is, less 128.
        low = fma_bfloats(permuted(codes, 0x43434343u, 0x4140), 0x3f803f80u, 0xc300c300u);
        high = fma_bfloats(permuted(codes, 0x43434343u, 0x4342), 0x3f803f80u, 0xc300c300u);
    }
    low = fma_bfloats(low, scale, minimum);
    high = fma_bfloats(high, scale, minimum);
}

// Adds the products of a piece, which begins at a block of the weight's rows, with TILES tiles of eight rows of the input.
inline void multiply_rows(const uchar *slot, const uchar *weight, ulong row_bytes, uint first, uint n, uint block, uint count, const uint4 *input, uint lane, float (&sums)[TILES][4]) {
    uint g = lane / 4, q = lane % 4, base[2];
    UNROLL for (int side = 0; side < 2; side++) {
        ulong from = ulong(weight) + ulong(min(first + 8 * side + g, n - 1)) * row_bytes + block * BLOCK_BYTES;
        base[side] = BLOCK_ALIGN == 16 ? 0 : uint(from % 16);
    }
    const uint4 *numbers = input + ulong(block * PARTS * RUNS * TILES) * 32 + lane;
    for (uint task = 0; task < count * PARTS; task++) {
        ROLLED for (int turn = 0; turn < RUNS; turn += RUNS_HELD) UNROLL for (int r = turn; r < turn + RUNS_HELD; r++) {
            // Of either half of 32 numbers the two pairs of two rows.
            uint a[2][4];
            UNROLL for (int side = 0; side < 2; side++) {
                const Vector *row = (const Vector *)(slot + (8 * side + g) * (16 * CHUNKS_FEW));
                uint codes[2];
                Run run = load_run(row, base[side], task, r);
                load_pair(row, base[side] + task / PARTS * BLOCK_BYTES, task % PARTS, r, q, codes);
                UNROLL for (int half = 0; half < 2; half++) {
                    float scale = run.scale[HALVES == 1 ? 0 : half], minimum = MINIMA ? -run.minimum[HALVES == 1 ? 0 : half] : 0.0f;
                    decode_four(codes[half], bfloat_pair(scale, scale), bfloat_pair(minimum, minimum), a[half][side], a[half][2 + side]);
                }
            }
            UNROLL for (int tile = 0; tile < TILES; tile++) {
                uint4 b = numbers[((task * RUNS + r) * TILES + tile) * 32];
                multiply_bfloats(sums[tile], a[0], b.x, b.y);
                multiply_bfloats(sums[tile], a[1], b.z, b.w);
            }
        }
    }
}
