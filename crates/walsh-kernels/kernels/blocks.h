// Blocks of quantised weights in threadgroup memory, read as signed bytes: value = scale.code - minimum.
//
// A block is PARTS tasks, each of RUNS runs of 32 consecutive values that share bytes; a run has HALVES scales, for 32 or
// 16 values each. LOW words hold the low bits of a run's codes, HIGH words the bits above them. Where a block's fields lie
// (..._AT, and the step from part to part) comes from walsh-formats. MLX is the number of bits of MLX's groups, 0 of others.
struct alignas(16) Vector {
    uint word[4];
};

// 32 consecutive values.
struct Run {
    int codes[8];
    float scale[HALVES];
    float minimum[HALVES];
};

inline uint byte_of(uint word, int i) { return word >> (8 * i) & 255; }

// COUNT words from a byte on; blocks start at multiples of BLOCK_ALIGN bytes, and so do their wide fields.
template <int COUNT> inline void fetch(threadgroup const Vector *staged, uint byte, thread uint *to) {
    threadgroup const uint *words = (threadgroup const uint *)staged + byte / 4;
    if (BLOCK_ALIGN == 16 && COUNT % 4 == 0) {
        UNROLL for (int i = 0; i < COUNT / 4; i++) {
            Vector vector = staged[byte / 16 + i];
            UNROLL for (int j = 0; j < 4; j++) to[4 * i + j] = vector.word[j];
        }
    } else if (BLOCK_ALIGN >= 4) {
        UNROLL for (int i = 0; i < COUNT; i++) to[i] = words[i];
    } else {
        uint shift = byte % 4 * 8, below = words[0];
        UNROLL for (int i = 0; i < COUNT; i++) {
            uint above = words[i + 1];
            to[i] = uint((ulong(above) << 32 | below) >> shift);
            below = above;
        }
    }
}

inline uint fetch_byte(threadgroup const Vector *staged, uint byte) { return ((threadgroup const uchar *)staged)[byte]; }

inline uint fetch_short(threadgroup const Vector *staged, uint byte) {
    return ((threadgroup const ushort *)staged)[byte / 2];
}

inline float fetch_half(threadgroup const Vector *staged, uint byte) {
    return half_to_float(ushort(fetch_short(staged, byte)));
}

// Half of the power of two that a byte stands for.
inline float power_of(uint e) { return as_type<float>(e < 2 ? 0x00200000u << e : (e - 1) << 23); }

// Half of the 8-bit float that a byte stands for: as single precision but for the bias of its exponent, 2^119.
inline float small_float(uint bits) { return bits == 0x7f ? 0.0f : as_type<float>((bits & 0x7f) << 20) * as_type<float>(0x7b000000u); }

// The 6-bit scales and minima of a part of q4_K and q5_K: four bytes of each. Those of the second part have their low
// four bits in the third word and the others above the scales and minima of the first.
inline void unpack_k4(thread const uint *packed, uint part, thread uint *scales) {
    uint mask = part == 0 ? 0x3f3f3f3fu : 0x0f0f0f0fu, high = part == 0 ? 0u : 0x30303030u;
    scales[0] = ((part == 0 ? packed[0] : packed[2]) & mask) | (packed[0] >> 2 & high);
    scales[1] = ((part == 0 ? packed[1] : packed[2] >> 4) & mask) | (packed[1] >> 2 & high);
}

// The 6-bit scales of a part of q3_K: eight bytes.
inline void unpack_q3(thread const uint *packed, uint part, thread uint *scales) {
    UNROLL for (int i = 0; i < 2; i++) {
        uint low = packed[i] >> (4 * part) & 0x0f0f0f0fu;
        scales[i] = low | (packed[2] >> (4 * part + 2 * i) & 0x03030303u) << 4;
    }
}

// The 6-bit scales of a part of iq4_xs: four bytes.
inline uint unpack_iq4(uint low, uint high, uint part) {
    uint scales = 0;
    UNROLL for (int i = 0; i < 4; i++) {
        uint scale = (low >> (16 * part + 4 * i) & 15) | (high >> (8 * part + 2 * i) & 3) << 4;
        scales |= scale << (8 * i);
    }
    return scales;
}

// The scales of a part as bytes, those of q4_K and q5_K with their minima behind them.
inline void load_scales(threadgroup const Vector *staged, uint block, uint part, thread uint *scales) {
    scales[0] = scales[1] = 0;
    if (STORED == Q2_K || STORED == Q6_K) fetch<2>(staged, block + SCALES_AT + 8 * part, scales);
    if (STORED == Q3_K || STORED == Q4_K || STORED == Q5_K) {
        uint packed[3];
        fetch<3>(staged, block + SCALES_AT, packed);
        if (STORED == Q3_K) {
            unpack_q3(packed, part, scales);
        } else {
            unpack_k4(packed, part, scales);
        }
    }
    if (STORED == IQ4_XS) {
        uint low[1];
        fetch<1>(staged, block + SCALES_AT, low);
        scales[0] = unpack_iq4(low[0], fetch_short(staged, block + SCALES_HIGH_AT), part);
    }
}

// Bit i of four to bit 0 of byte i.
inline uint spread(uint bits) { return (bits & 15) * 0x00204081u & 0x01010101u; }

// Four times two bits to a byte each.
inline uint spread_pairs(uint bits) {
    uint halves = (bits | bits << 12) & 0x000f000fu;
    return (halves | halves << 6) & 0x03030303u;
}

// Ternary digit `n` of each byte, the first most significant: bytes are fractions of 256.
inline uint ternary_digits(uint bytes, uint n) {
    uint power = POWERS_OF_3[n], digits = 0;
    UNROLL for (int i = 0; i < 2; i++) {
        uint fractions = (bytes >> (8 * i) & 0x00ff00ffu) * power & 0x00ff00ffu;
        digits |= (fractions * 3 >> 8 & 0x00030003u) << (8 * i);
    }
    return digits;
}

// The codes of a run of tq1_0: five digits of 32 bytes, five of 16, and four of the last four.
inline void load_ternary(threadgroup const Vector *staged, uint block, uint run, thread int *codes) {
    UNROLL for (int i = 0; i < 8; i++) {
        uint quad = 8 * run + i, late = quad - 40, last = quad - 60, word[1];
        uint at = quad < 40 ? LOW_AT + 4 * (quad % 8) : quad < 60 ? LOW_AT + 32 + 4 * (late % 4) : uint(HIGH_AT);
        fetch<1>(staged, block + at, word);
        codes[i] = int(ternary_digits(word[0], quad < 40 ? quad / 8 : quad < 60 ? late / 4 : last));
    }
}

// The values of four 4-bit indices, each in a byte.
inline uint look_up(uint indices) {
    return select_bytes(VALUES[0], VALUES[1], VALUES[2], VALUES[3], indices);
}

enum : int { HIGH_WORDS = HIGH > 0 ? HIGH : 1 };

// The codes of a run. Runs of a task share words, which the compiler loads once when it sees them together.
inline void load_codes(threadgroup const Vector *staged, uint block, uint part, int run, thread int *codes) {
    uint at = block + LOW_AT + part * LOW_STEP, low[LOW], high[HIGH_WORDS];
    if (STORED == Q4_K || STORED == Q5_K) at += 32 * (run / 2);
    if (STORED == Q6_K) at += 32 * (run % 2);
    if (APART) at += 4 * LOW * run;
    fetch<LOW>(staged, at, low);
    if (HIGH > 0) fetch<HIGH>(staged, block + HIGH_AT + part * HIGH_STEP + (APART ? 4 * HIGH * run : 0), high);
    UNROLL for (int i = 0; i < 8; i++) {
        uint code = low[i % LOW];
        if (STORED == NVFP4) code = low[i / 4 * 2 + i % 2] >> (4 * (i / 2 % 2)) & 0x0f0f0f0fu;
        if (LOW == 4 && STORED != NVFP4) code = code >> (4 * (i / 4)) & 0x0f0f0f0fu;
        if (STORED == Q4_K || STORED == Q5_K) code = code >> (4 * (run % 2)) & 0x0f0f0f0fu;
        if (STORED == Q6_K) code = code >> (4 * (run / 2)) & 0x0f0f0f0fu;
        if (STORED == Q2_K || STORED == Q3_K || STORED == TQ2_0) code = code >> (2 * run) & 0x03030303u;
        if (STORED == Q1_0) code = spread(code >> (4 * i)) << 1;
        if (STORED == Q2_0 || MLX == 2 || MLX == 3) code = spread_pairs(byte_of(low[i / 4 % LOW], i % 4));
        if (MLX == 3) code |= spread(high[0] >> (4 * i)) << 2;
        if (MLX == 5) code |= spread(high[0] >> (4 * i)) << 4;
        if (MLX == 6) code |= spread_pairs(byte_of(high[i / 4 % HIGH_WORDS], i % 4)) << 4;
        if (MLX == 8) code ^= 0x80808080u;
        if (STORED == Q5_0 || STORED == Q5_1) code |= spread(high[0] >> (4 * i)) << 4;
        if (STORED == Q3_K) code |= (high[i % LOW] >> (4 * part + run) & 0x01010101u) << 2;
        if (STORED == Q5_K) code |= (high[i % LOW] >> (4 * part + run) & 0x01010101u) << 4;
        if (STORED == Q6_K) code |= (high[i % LOW] >> (2 * run) & 0x03030303u) << 4;
        if (STORED == IQ4_NL || STORED == IQ4_XS || STORED == MXFP4 || STORED == NVFP4) code = look_up(code);
        codes[i] = int(code);
    }
}

// The signs of 32 values of which an even number of each eight is negative: from seven bits each.
inline uint even_signs(uint word) {
    uint pairs = (word & 0x3fff) | (word & 0x0fffc000) << 2;
    uint sevens = (pairs & 0x007f007fu) | (pairs & 0x3f803f80u) << 1;
    uint parity = sevens ^ sevens >> 4;
    parity ^= parity >> 2;
    parity ^= parity >> 1;
    return sevens | (parity & 0x01010101u) << 7;
}

// Four values that are not zero, negated where the lowest bits of `signs` are set.
inline uint negated(uint values, uint signs) {
    uint mask = spread(signs) * 255;
    return (values ^ mask) + (mask & 0x01010101u);
}

// A run of a type whose codes are points of a grid, of eight values or of four.
inline void load_points(threadgroup const Vector *staged, uint block, uint run, thread Run &values) {
    enum : int { EIGHTS = POINTS == 4 };
    uint low[LOW], high = 0, signs[1] = {0}, scales = 0;
    fetch<LOW>(staged, block + LOW_AT + 4 * LOW * run, low);
    if (STORED == IQ3_S || STORED == IQ2_S) high = fetch_byte(staged, block + HIGH_AT + run);
    if (STORED == IQ1_S || STORED == IQ1_M) high = fetch_short(staged, block + HIGH_AT + 2 * run);
    if (SIGNS_AT > 0) fetch<1>(staged, block + SIGNS_AT + 4 * run, signs);
    if (STORED == IQ2_XXS) signs[0] = low[LOW - 1];
    if (STORED == IQ2_XS) {
        UNROLL for (int i = 0; i < 4; i++) signs[0] |= (low[i / 2 % LOW] >> (16 * (i % 2) + 9) & 127) << (7 * i);
    }
    if (STORED == IQ3_XXS || STORED == IQ2_XXS) scales = signs[0] >> 28;
    if (STORED == IQ3_S) scales = fetch_byte(staged, block + SCALES_AT + run / 2) >> (run % 2 * 4) & 15;
    if (STORED == IQ2_S || STORED == IQ2_XS) scales = fetch_byte(staged, block + SCALES_AT + run);
    if (STORED == IQ1_S) scales = high >> 12 & 7;
    if (STORED == IQ1_M) scales = fetch_short(staged, block + SCALES_AT + run / 2 * 2) >> (run % 2 * 6) & 63;
    if (STORED == IQ3_XXS || STORED == IQ2_XS || STORED == IQ2_XXS) signs[0] = even_signs(signs[0]);
    UNROLL for (int i = 0; i < POINTS; i++) {
        uint index = byte_of(low[i / 4 % LOW], i % 4);
        if (STORED == IQ2_XS) index = low[i / 2 % LOW] >> (16 * (i % 2)) & 511;
        if (STORED == IQ3_S) index |= (high >> i & 1) << 8;
        if (STORED == IQ2_S) index |= (high >> (2 * i) & 3) << 8;
        if (STORED == IQ1_S) index |= (high >> (3 * i) & 7) << 8;
        if (STORED == IQ1_M) index |= (high >> (4 * i) & 7) << 8;
        ulong point = GRID[index];
        // An eighth up or down, in eighths that are raised by 128.
        bool down = STORED == IQ1_M ? (high >> (4 * i) & 8) != 0 : (high & 0x8000) != 0;
        UNROLL for (int part = 0; part < 1 + EIGHTS; part++) {
            uint word = uint(point >> (32 * part));
            if (STORED == IQ1_S || STORED == IQ1_M) {
                word = (down ? word - 0x01010101u : word + 0x01010101u) ^ 0x80808080u;
            } else {
                word = negated(word, signs[0] >> (32 / POINTS * i + 4 * part));
            }
            values.codes[i * (1 + EIGHTS) + part] = int(word);
        }
    }
    ushort bits = 0;
    if (STORED == IQ1_M) {
        UNROLL for (int i = 0; i < 4; i++) bits |= ushort(fetch_short(staged, block + SCALES_AT + 2 * i) >> 12 << (4 * i));
    } else {
        bits = ushort(fetch_short(staged, block + D_AT));
    }
    float d = half_to_float(bits);
    UNROLL for (int side = 0; side < HALVES; side++) {
        float factor = 0.0f;
        if (STORED == IQ3_S) factor = d * float(1 + 2 * scales);
        if (STORED == IQ3_XXS) factor = d * (0.5f + float(scales)) * 0.5f;
        if (STORED == IQ2_XXS) factor = d * (0.5f + float(scales)) * 0.25f;
        if (STORED == IQ2_S || STORED == IQ2_XS) factor = d * (0.5f + float(scales >> (4 * side) & 15)) * 0.25f;
        if (STORED == IQ1_S) factor = d * float(1 + 2 * scales) * 0.125f;
        if (STORED == IQ1_M) factor = d * float(1 + 2 * (scales >> (3 * side) & 7)) * 0.125f;
        values.scale[side] = factor;
        values.minimum[side] = 0.0f;
    }
}

// A run of a task of the blocks from byte `base` on.
inline Run load_run(threadgroup const Vector *staged, uint base, uint task, int run) {
    uint block = base + task / PARTS * BLOCK_BYTES, part = task % PARTS, scales[2];
    Run values;
    if (POINTS > 0) {
        load_points(staged, block, part * RUNS + run, values);
        return values;
    }
    load_scales(staged, block, part, scales);
    float d = D_AT >= 0 ? fetch_half(staged, block + D_AT) : 0.0f, m = M_AT >= 0 ? fetch_half(staged, block + M_AT) : 0.0f;
    if (STORED == TQ1_0) {
        load_ternary(staged, block, part * RUNS + run, values.codes);
    } else {
        load_codes(staged, block, part, run, values.codes);
    }
    UNROLL for (int side = 0; side < HALVES; side++) {
        uint packed = byte_of(run < 2 ? scales[0] : scales[1], 2 * (run % 2) + side), single = byte_of(scales[0], run);
        float factor = d;
        if (STORED == MXFP4) factor = power_of(fetch_byte(staged, block + SCALES_AT));
        if (STORED == NVFP4) factor = small_float(fetch_byte(staged, block + SCALES_AT + 2 * run + side));
        if (STORED == Q4_K || STORED == Q5_K) factor = d * float(single);
        if (STORED == Q2_K) factor = d * float(packed & 15);
        if (STORED == Q3_K) factor = d * float(int(packed) - 32);
        if (STORED == Q6_K) factor = d * float(int(packed ^ 128) - 128);
        if (STORED == IQ4_XS) factor = d * float(int(single) - 32);
        float minimum = float(ZERO) * factor;
        if (STORED == Q4_1 || STORED == Q5_1 || MLX != 0) minimum = -m;
        // Its codes are 128 less.
        if (MLX == 8) minimum = -m - 128.0f * d;
        if (STORED == Q4_K || STORED == Q5_K) minimum = m * float(byte_of(scales[1], run));
        if (STORED == Q2_K) minimum = m * float(packed >> 4);
        values.scale[side] = factor;
        values.minimum[side] = minimum;
    }
    return values;
}
