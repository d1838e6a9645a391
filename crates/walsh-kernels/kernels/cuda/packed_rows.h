// Rows of a weight in blocks as first matrices of m16n8k16 products, out of a ring in the group's memory: sixteen rows of each
// simdgroup, STAGE_BLOCKS blocks of each in a slot.
enum : int {
    // Whether a weight is a scale of six or eight bits times a code, which a half holds, and what both are multiplied with
    // belongs to 256 weights: numbers are halves then, as those that are stored so are. Otherwise they are bfloat16.
    GROUPED = STORED == Q4_K || STORED == Q5_K || STORED == Q6_K,
    HALVED = GROUPED || STORED == F16,
    STAGE_RUNS = STAGE_BLOCKS * PARTS * RUNS,
    // Rows start at multiples of BLOCK_ALIGN bytes, copies at multiples of sixteen; the last word of a block may end behind it.
    // Then eight rows lie in banks of their own, too.
    CHUNKS = BLOCK_ALIGN == 16 ? STAGE_BLOCKS * BLOCK_BYTES / 16 : (STAGE_BLOCKS * BLOCK_BYTES + 15 + 4 + 15) / 16 | 1,
    // Eight rows of floats, of which a lane reads two words at a time, lie two vectors apart.
    PITCH = CHUNKS + (FLOATS ? 2 : 0),
    SLOT_BYTES = 16 * 16 * PITCH,
    COPIES = (16 * CHUNKS + 31) / 32,
    // Whether a block has minima of its own.
    SUBTRACTS = STORED == Q4_K || STORED == Q5_K,
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
            uint chunk = min(32 * i + lane, 16 * CHUNKS - 1u);
            copied[i] = row(chunk / CHUNKS) + 16 * (chunk % CHUNKS);
        }
        UNROLL for (int side = 0; side < 2; side++) begin[side] = uint(ulong(origin)) + row(8 * side + lane / 4);
    }

    // Begins to copy `count` blocks of each row; where enough others follow, some of their bytes too.
    inline void copy(uint to, uint block, uint count, uint blocks, uint lane) const {
        static_assert(CHUNKS * 16 <= (STAGE_BLOCKS + 4) * BLOCK_BYTES, "four blocks are more than what is copied beyond a stage");
        static_assert(PITCH == CHUNKS || 32 % CHUNKS == 0, "whole rows at a time, where they lie apart");
        constexpr uint STEP = PITCH == CHUNKS ? 512 : 32 / CHUNKS * 16 * PITCH;
        bool whole = block + STAGE_BLOCKS + (BLOCK_ALIGN == 16 ? 0 : 4) <= blocks;
        const uchar *first = settled(origin + block * BLOCK_BYTES);
        to += PITCH == CHUNKS ? 16 * lane : 16 * (lane / CHUNKS * PITCH + lane % CHUNKS);
        UNROLL for (uint i = 0; i < COPIES; i++) {
            uint chunk = 32 * i + lane;
            const uchar *from = first + copied[i];
            uint shift = BLOCK_ALIGN == 16 ? 0 : uint(ulong(from) % 16);
            if (16 * CHUNKS % 32 != 0 && chunk >= 16 * CHUNKS) continue;
            if (whole || 16 * (chunk % CHUNKS) < shift + count * BLOCK_BYTES) copy_async<16>(to + STEP * i, from - shift);
        }
    }

    inline Bases bases(uint block) const {
        Bases bases;
        UNROLL for (int side = 0; side < 2; side++) bases.at[side] = BLOCK_ALIGN == 16 ? 0 : (begin[side] + block * BLOCK_BYTES) % 16;
        return bases;
    }
};

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

// The same of floats, which are what is multiplied; halves in the order of the input's.
inline void float_fragments(const uchar *slot, uint run, uint g, uint q, uint (&a)[2][4]) {
    UNROLL for (int side = 0; side < 2; side++) {
        const uint2 *row = (const uint2 *)(slot + (8 * side + g) * (16 * PITCH) + run * 64) + q;
        UNROLL for (int half = 0; half < 2; half++) {
            uint2 four = row[4 * half];
            a[half][side] = HALVED ? permuted(four.x, four.y, 0x5410) : four.x;
            a[half][2 + side] = HALVED ? permuted(four.x, four.y, 0x7632) : four.y;
        }
    }
}

// A run's weights of two rows as bfloat16: of either half of 32 numbers the two pairs of each row.
inline void bfloat_fragments(const uchar *slot, const Bases &base, uint task, int r, uint g, uint q, uint (&a)[2][4]) {
    UNROLL for (int side = 0; side < 2; side++) {
        const Vector *row = (const Vector *)(slot + (8 * side + g) * (16 * PITCH));
        uint codes[2];
        Run run = load_run(row, base.at[side], task, r);
        load_pair(row, base.at[side] + task / PARTS * BLOCK_BYTES, task % PARTS, r, q, codes);
        UNROLL for (int half = 0; half < 2; half++) {
            float scale = run.scale[HALVES == 1 ? 0 : half], minimum = MINIMA ? -run.minimum[HALVES == 1 ? 0 : half] : 0.0f;
            decode_four(codes[half], bfloat_pair(scale, scale), bfloat_pair(minimum, minimum), a[half][side], a[half][2 + side]);
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

// The same as weights: a factor times a scale, a byte of a word, times the code, less what `less` times a minimum is.
inline void weight_pairs(uint scales, uint byte, uint minima, uint place, int nibble, uint factor, uint less, uint (&pairs)[2]) {
    uint scale = multiply_halves(fma_halves(permuted(scales, 0x64646464u, 0x4040 + 0x0101 * byte), 0x3c003c00u, STORED == Q6_K ? 0xe480e480u : 0xe400e400u), factor);
    uint below = multiply_halves(fma_halves(permuted(minima, 0x64646464u, 0x4040 + 0x0101 * place), 0x3c003c00u, 0xe400e400u), less);
    UNROLL for (int i = 0; i < 2; i++) {
        // Less 1024, and the middle of signed codes; a sixteenth of it where codes are sixteen times themselves.
        uint code = nibble ? fma_halves(pairs[i], 0x2c002c00u, STORED == Q6_K ? 0xd600d600u : 0xd400d400u)
                           : fma_halves(pairs[i], 0x3c003c00u, STORED == Q6_K ? 0xe420e420u : 0xe400e400u);
        pairs[i] = SUBTRACTS ? fma_halves(code, scale, below) : multiply_halves(code, scale);
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

// What a row's weights are multiplied with so that halves hold them: a power of two that a block much larger than those before it
// makes smaller.
struct Power {
    float down = as_type<float>(0x7f800000u);
    // What is common to a block's scales, and less what is to its minima.
    uint factor, less;

    // Takes a block; by what sums until now are to be multiplied.
    inline float take(const Head &head) {
        const float largest = STORED == Q4_K ? 63 * 15 : STORED == Q5_K ? 63 * 31 : 128 * 32;
        float most = max(largest * abs(head.scale), 63.0f * abs(head.minimum)), ratio = 1.0f;
        if (!(most * down <= 16384.0f)) {
            // The largest is less than 128.
            float next = as_type<float>(0x82000000u - min(max(as_type<uint>(most) & 0x7f800000u, 0x04000000u), 0x7f000000u));
            ratio = next / down;
            down = next;
        }
        float scale = head.scale * down, minimum = -head.minimum * down;
        factor = half_pair(scale, scale);
        less = half_pair(minimum, minimum);
        return ratio;
    }

    // Sums times this are sums of weights.
    inline float up() const { return 1.0f / down; }
};

// A block's weights of two rows as halves. Its runs come in pairs whose codes are halves of the same bytes: neighbours, those of
// q6_K two apart.
struct HalfBlock {
    Head heads[2];
    // A lane's words of a row: the q-th of every four.
    const uint *words[2];
    uint shifts[2];

    HalfBlock() = default;

    inline HalfBlock(const uchar *slot, const Bases &base, uint block, uint g, uint q) {
        UNROLL for (int side = 0; side < 2; side++) {
            const uchar *row = slot + (8 * side + g) * (16 * PITCH);
            uint at = base.at[side] + block * BLOCK_BYTES;
            heads[side] = load_head((const Vector *)row, at);
            words[side] = (const uint *)row + at / 4 + q;
            shifts[side] = at % 4 * 8;
        }
    }

    // The runs of a pair.
    static inline uint run(uint pair, uint nibble) { return STORED == Q6_K ? pair / 2 * 4 + pair % 2 + 2 * nibble : 2 * pair + nibble; }

    // The words of a pair's codes: of each row, of either half of 32 numbers. `bit` is where the upper codes' bits are shifted to the
    // first of a byte: not needed where the pair is known to the compiler.
    struct Codes {
        uint low[2][2], high[2][2];
    };

    inline Codes codes(uint pair, uint bit = 0) const {
        Codes codes = {};
        UNROLL for (int side = 0; side < 2; side++) {
            UNROLL for (int half = 0; half < 2; half++) {
                codes.low[side][half] = shifted_word(words[side] + LOW_AT / 4 + 8 * pair + 4 * half, shifts[side]);
                if (HIGH == 0) continue;
                uint above = HIGH_AT / 4 + 4 * half + (STORED == Q5_K ? 0 : pair / 2 * (HIGH_STEP / 4));
                codes.high[side][half] = shifted_word(words[side] + above, shifts[side]) >> bit;
            }
        }
        return codes;
    }

    // Where the upper codes' bits of a pair begin in their bytes.
    static inline uint bit_of(uint pair) { return STORED == Q6_K ? 2 * (pair % 2) : 2 * pair; }

    // A pair's integers: of the first run and the second, of either half of 32 numbers, the two pairs of each row.
    inline void integers(uint pair, const Codes &codes, uint bit, uint (&a)[2][2][4]) const {
        each(pair, codes, bit, a, [&](int side, int nibble, int half, uint scales, uint (&pairs)[2]) { scale_pairs(scales, STORED == Q6_K ? half : nibble, nibble, pairs); });
    }

    // The same as weights, times a factor of each row.
    inline void weights(uint pair, const Codes &codes, const Power (&powers)[2], uint (&a)[2][2][4]) const {
        each(pair, codes, bit_of(pair), a, [&](int side, int nibble, int half, uint scales, uint (&pairs)[2]) {
            uint minima = chosen_word(heads[side].minima, pair / 2) >> (16 * (pair % 2));
            weight_pairs(scales, STORED == Q6_K ? half : nibble, minima, nibble, nibble, powers[side].factor, powers[side].less, pairs);
        });
    }

    // Calls `decode` for the codes of each row, run and half.
    template <typename Decode> inline void each(uint pair, const Codes &codes, uint bit, uint (&a)[2][2][4], Decode decode) const {
        UNROLL for (int side = 0; side < 2; side++) {
            UNROLL for (int nibble = 0; nibble < 2; nibble++) {
                uint word = STORED == Q6_K ? chosen_word(heads[side].scales, pair / 2 * 2 + nibble) : chosen_word(heads[side].scales, pair / 2);
                UNROLL for (int half = 0; half < 2; half++) {
                    uint pairs[2];
                    code_pairs(codes.low[side][half], codes.high[side][half], nibble, bit + (STORED == Q6_K ? 4 : 1) * nibble, pairs);
                    decode(side, nibble, half, word >> (16 * (pair % 2)), pairs);
                    a[nibble][half][side] = pairs[0];
                    a[nibble][half][2 + side] = pairs[1];
                }
            }
        }
    }

    // The minima of its runs, twice side by side.
    inline void minima(uint q, uint (&a)[4]) const {
        UNROLL for (int side = 0; side < 2; side++) {
            uint two = (q / 2 == 0 ? heads[side].minima[0] : heads[side].minima[1]) >> (16 * (q % 2));
            a[side] = a[2 + side] = fma_halves(permuted(two, 0x64646464u, 0x4140), 0x3c003c00u, 0xe400e400u);
        }
    }
};
