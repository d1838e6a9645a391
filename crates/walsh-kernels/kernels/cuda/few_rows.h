// Rows of a weight in blocks as first matrices of m16n8k16 products, out of a group's ring: sixteen rows of each simdgroup,
// STAGE_FEW blocks of each, and the same blocks of the input.
enum : int {
    // Whether numbers are halves: a weight is a scale of six or eight bits times a code, which a half holds, and what both are
    // multiplied with belongs to 256 weights. Otherwise they are bfloat16.
    HALVED = STORED == Q4_K || STORED == Q5_K || STORED == Q6_K,
    STAGE_FEW = PARTS > 1 ? BLOCK_BYTES > 180 ? 1 : 2 : BLOCK_BYTES > 24 ? 8 : 16,
    STAGE_RUNS = STAGE_FEW * PARTS * RUNS,
    // Rows start at multiples of BLOCK_ALIGN bytes, copies at multiples of sixteen; the last word of a block may end behind it.
    // Then eight rows lie in banks of their own, too.
    CHUNKS_FEW = BLOCK_ALIGN == 16 ? STAGE_FEW * BLOCK_BYTES / 16 : (STAGE_FEW * BLOCK_BYTES + 15 + 4 + 15) / 16 | 1,
    SLOT_FEW = 16 * 16 * CHUNKS_FEW,
    COPIES = (16 * CHUNKS_FEW + 31) / 32,
    // The input's numbers, and what follows them where they are halves.
    INPUT_SLOT = (STAGE_RUNS + (HALVED ? STAGE_FEW : 0)) * TILES * 512,
    // Runs of a task whose numbers are in registers together: sums of many columns take them, too.
    RUNS_HELD = TILES > 4 ? 1 : RUNS,
    PAIRS_HELD = TILES > 4 ? 1 : 4,
    // Whether codes may be negative.
    SIGNED = STORED == Q8_0 || STORED == IQ4_NL || STORED == IQ4_XS
};

// Where a stage's first blocks begin in a slot: of the two rows that a lane multiplies.
struct Bases {
    uint at[2];
};

// A simdgroup's rows of a weight, of which the last are the weight's last again.
struct Rows {
    const uchar *origin;
    // How far behind the first row's beginning lies what a lane copies of a stage: one chunk of every 32.
    uint copied[COPIES];
    // Where the first blocks of the two rows that a lane multiplies begin.
    uint begin[2];

    inline Rows(const uchar *weight, ulong row_bytes, uint first, uint n, uint lane) {
        origin = weight + ulong(first) * row_bytes;
        auto row = [&](uint i) { return min(i, n - 1 - first) * uint(row_bytes); };
        UNROLL for (uint i = 0; i < COPIES; i++) {
            uint chunk = min(32 * i + lane, 16 * CHUNKS_FEW - 1u);
            copied[i] = row(chunk / CHUNKS_FEW) + 16 * (chunk % CHUNKS_FEW);
        }
        UNROLL for (int side = 0; side < 2; side++) begin[side] = uint(ulong(origin)) + row(8 * side + lane / 4);
    }

    // Begins to copy `count` blocks of each row; where enough others follow, some of their bytes too.
    inline void copy(uint to, uint block, uint count, uint blocks, uint lane) const {
        static_assert(CHUNKS_FEW * 16 <= (STAGE_FEW + 4) * BLOCK_BYTES, "four blocks are more than what is copied beyond a stage");
        bool whole = block + STAGE_FEW + (BLOCK_ALIGN == 16 ? 0 : 4) <= blocks;
        const uchar *first = settled(origin + block * BLOCK_BYTES);
        to += 16 * lane;
        UNROLL for (uint i = 0; i < COPIES; i++) {
            uint chunk = 32 * i + lane;
            const uchar *from = first + copied[i];
            uint shift = BLOCK_ALIGN == 16 ? 0 : uint(ulong(from) % 16);
            if (16 * CHUNKS_FEW % 32 != 0 && chunk >= 16 * CHUNKS_FEW) continue;
            if (whole || 16 * (chunk % CHUNKS_FEW) < shift + count * BLOCK_BYTES) copy_async<16>(to + 512 * i, from - shift);
        }
    }

    inline Bases bases(uint block) const {
        Bases bases;
        UNROLL for (int side = 0; side < 2; side++) bases.at[side] = BLOCK_ALIGN == 16 ? 0 : (begin[side] + block * BLOCK_BYTES) % 16;
        return bases;
    }
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
    if (HALVED) copy_vectors<STAGE_FEW * TILES * 32>(to + 16 * (STAGE_RUNS * TILES * 32), sides, count * TILES * 32, index);
}

inline uint word_of(const Vector *staged, uint byte) {
    uint word[1];
    fetch<1>(staged, byte, word);
    return word[0];
}

// Words q and q + 4 of the codes of a run.
inline void load_pair(const Vector *staged, uint block, uint part, int run, uint q, uint (&codes)[2]) {
    uint at = block + LOW_AT + part * LOW_STEP;
    if (STORED == IQ4_XS) at += 16 * run;
    uint bits = HIGH == 1 ? word_of(staged, block + HIGH_AT) >> (4 * q) : 0;
    UNROLL for (int i = 0; i < 2; i++) {
        uint code = word_of(staged, at + 4 * q + (LOW == 4 ? 0 : 16 * i));
        uint high = HIGH > 1 ? word_of(staged, block + HIGH_AT + part * HIGH_STEP + 4 * q + 16 * i) : 0;
        if (LOW == 4) code = code >> (4 * i) & 0x0f0f0f0fu;
        if (STORED == Q2_K || STORED == Q3_K) code = code >> (2 * run) & 0x03030303u;
        if (STORED == Q5_0 || STORED == Q5_1) code |= spread(bits >> (16 * i)) << 4;
        if (STORED == Q3_K) code |= (high >> (4 * part + run) & 0x01010101u) << 2;
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

// Adds the products of a stage with TILES tiles of eight rows of the input.
inline void multiply_bfloat_rows(const uchar *slot, const Bases &base, uint count, const uint4 *input, uint lane, float (&sums)[TILES][4]) {
    uint g = lane / 4, q = lane % 4;
    const uint4 *numbers = input + lane;
    for (uint task = 0; task < count * PARTS; task++) {
        ROLLED for (int turn = 0; turn < RUNS; turn += RUNS_HELD) UNROLL for (int r = turn; r < turn + RUNS_HELD; r++) {
            // Of either half of 32 numbers the two pairs of two rows.
            uint a[2][4];
            UNROLL for (int side = 0; side < 2; side++) {
                const Vector *row = (const Vector *)(slot + (8 * side + g) * (16 * CHUNKS_FEW));
                uint codes[2];
                Run run = load_run(row, base.at[side], task, r);
                load_pair(row, base.at[side] + task / PARTS * BLOCK_BYTES, task % PARTS, r, q, codes);
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

// What is common to a block's weights of a row, and its scales and minima, a byte each.
struct Head {
    float scale, minimum;
    uint scales[4], minima[2];
};

inline Head load_head(const Vector *row, uint block) {
    Head head = {};
    if (STORED == Q6_K) {
        head.scale = fetch_half(row, block + D_AT);
        fetch<4>(row, block + SCALES_AT, head.scales);
        // Signed ones as 128 more.
        UNROLL for (int i = 0; i < 4; i++) head.scales[i] ^= 0x80808080u;
    } else {
        Vector all = row[block / 16];
        head.scale = half_to_float(ushort(all.word[D_AT / 4] >> (8 * (D_AT % 4))));
        head.minimum = half_to_float(ushort(all.word[M_AT / 4] >> (8 * (M_AT % 4))));
        UNROLL for (int part = 0; part < 2; part++) {
            uint both[2];
            unpack_k4(all.word + SCALES_AT / 4, part, both);
            head.scales[part] = both[0];
            head.minima[part] = both[1];
        }
    }
    return head;
}

// The bits of a where the mask has ones, and all of b, in one instruction.
inline uint masked_or(uint a, uint mask, uint b) {
    uint c;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(c) : "r"(a), "r"(mask), "r"(b));
    return c;
}

// Four codes as halves, as pairs of the first and the third, the second and the fourth, out of the low four bits of a word's bytes
// or the high ones: 1024 more than the code, or than sixteen times the code. The bits above begin at `bit` of their bytes.
inline void code_pairs(uint low, uint high, int nibble, int bit, uint (&pairs)[2]) {
    UNROLL for (int i = 0; i < 2; i++) {
        pairs[i] = masked_or(low >> (8 * i), 0x000f000fu << (4 * nibble), 0x64006400u);
        // In one shift: what is beside the bits is masked.
        int left = 4 + 4 * nibble - bit - 8 * i;
        uint above = left < 0 ? high >> -left : high << left;
        if (STORED == Q5_K) pairs[i] = masked_or(above, 0x00100010u << (4 * nibble), pairs[i]);
        if (STORED == Q6_K) pairs[i] = masked_or(above, 0x00300030u << (4 * nibble), pairs[i]);
    }
}

// The same as products of codes and a scale, a byte of a word.
inline void scale_pairs(uint scales, uint byte, int nibble, uint (&pairs)[2]) {
    // As halves: 1024 more than the scale's byte.
    uint scale = permuted(scales, 0x64646464u, 0x4040 + 0x0101 * byte);
    // Less 1152 or 1024, a sixteenth of all where codes are sixteen times themselves.
    if (STORED == Q6_K) {
        scale = nibble ? fma_halves(scale, 0x2c002c00u, 0xd480d480u) : fma_halves(scale, 0x3c003c00u, 0xe480e480u);
        // Less 1536 or 1056.
        UNROLL for (int i = 0; i < 2; i++) pairs[i] = multiply_halves(fma_halves(pairs[i], 0x3c003c00u, nibble ? 0xe600e600u : 0xe420e420u), scale);
    } else {
        scale = nibble ? fma_halves(scale, 0x2c002c00u, 0xd400d400u) : fma_halves(scale, 0x3c003c00u, 0xe400e400u);
        uint offset = multiply_halves(scale, 0xe400e400u);
        UNROLL for (int i = 0; i < 2; i++) pairs[i] = fma_halves(pairs[i], scale, offset);
    }
}

// A word that begins so many bits behind a whole one.
inline uint shifted_word(const uint *words, uint shift) {
    if (BLOCK_ALIGN >= 4) return words[0];
    return uint((ulong(words[1]) << 32 | words[0]) >> shift);
}

// A word of few that are in registers.
template <int COUNT> inline uint chosen_word(const uint (&words)[COUNT], uint place) {
    uint word = words[0];
    UNROLL for (uint i = 1; i < COUNT; i++) word = place == i ? words[i] : word;
    return word;
}

// The same in halves: what belongs to 256 weights comes behind their sums.
inline void multiply_half_rows(const uchar *slot, const Bases &base, uint count, const uint4 *input, uint lane, float (&sums)[TILES][4]) {
    uint g = lane / 4, q = lane % 4;
    ROLLED for (uint block = 0; block < count; block++) {
        const uint4 *numbers = input + block * (PARTS * RUNS * TILES * 32) + lane, *sides = input + (STAGE_RUNS + block) * (TILES * 32) + lane;
        Head heads[2];
        // A lane's words of a row: the q-th of every four.
        const uint *words[2];
        uint shifts[2];
        UNROLL for (int side = 0; side < 2; side++) {
            const uchar *row = slot + (8 * side + g) * (16 * CHUNKS_FEW);
            uint at = base.at[side] + block * BLOCK_BYTES;
            heads[side] = load_head((const Vector *)row, at);
            words[side] = (const uint *)row + at / 4 + q;
            shifts[side] = at % 4 * 8;
        }
        float inner[TILES][4] = {};
        // The runs whose codes are halves of the same bytes: neighbours, those of q6_K two apart.
        ROLLED for (uint turn = 0; turn < 4; turn += PAIRS_HELD) UNROLL for (uint pair = turn; pair < turn + PAIRS_HELD; pair++) {
            uint run = STORED == Q6_K ? pair / 2 * 4 + pair % 2 : 2 * pair, bit = STORED == Q6_K ? 2 * (pair % 2) : 2 * pair;
            uint low[2][2], high[2][2] = {}, scales[2][2];
            UNROLL for (int side = 0; side < 2; side++) {
                UNROLL for (int half = 0; half < 2; half++) {
                    low[side][half] = shifted_word(words[side] + LOW_AT / 4 + 8 * pair + 4 * half, shifts[side]);
                    if (HIGH == 0) continue;
                    uint above = HIGH_AT / 4 + 4 * half + (STORED == Q5_K ? 0 : pair / 2 * (HIGH_STEP / 4));
                    high[side][half] = shifted_word(words[side] + above, shifts[side]) >> (PAIRS_HELD == 1 ? bit : 0);
                }
                UNROLL for (int nibble = 0; nibble < 2; nibble++) {
                    uint word = STORED == Q6_K ? chosen_word(heads[side].scales, pair / 2 * 2 + nibble) : chosen_word(heads[side].scales, pair / 2);
                    scales[side][nibble] = word >> (16 * (pair % 2));
                }
            }
            UNROLL for (int nibble = 0; nibble < 2; nibble++) {
                uint a[2][4];
                UNROLL for (int side = 0; side < 2; side++) {
                    UNROLL for (int half = 0; half < 2; half++) {
                        uint pairs[2];
                        code_pairs(low[side][half], high[side][half], nibble, (PAIRS_HELD == 1 ? 0 : bit) + (STORED == Q6_K ? 4 : 1) * nibble, pairs);
                        scale_pairs(scales[side][nibble], STORED == Q6_K ? half : nibble, nibble, pairs);
                        a[half][side] = pairs[0];
                        a[half][2 + side] = pairs[1];
                    }
                }
                UNROLL for (int tile = 0; tile < TILES; tile++) {
                    uint4 b = numbers[((run + (STORED == Q6_K ? 2 : 1) * nibble) * TILES + tile) * 32];
                    multiply_add(inner[tile], a[0], b.x, b.y);
                    multiply_add(inner[tile], a[1], b.z, b.w);
                }
            }
        }
        uint minima[4];
        UNROLL for (int side = 0; side < 2; side++) {
            uint two = (q / 2 == 0 ? heads[side].minima[0] : heads[side].minima[1]) >> (16 * (q % 2));
            minima[side] = minima[2 + side] = fma_halves(permuted(two, 0x64646464u, 0x4140), 0x3c003c00u, 0xe400e400u);
        }
        UNROLL for (int tile = 0; tile < TILES; tile++) {
            uint4 side = sides[tile * 32];
            float below[4] = {};
            if (MINIMA) multiply_add(below, minima, side.x, side.y);
            UNROLL for (int i = 0; i < 4; i++) {
                const Head &head = heads[i / 2];
                float product = head.scale * inner[tile][i];
                if (MINIMA) product = fma(-head.minimum, below[i], product);
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
