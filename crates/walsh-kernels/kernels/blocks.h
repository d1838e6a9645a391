// Blocks of quantised weights in threadgroup memory, read as signed bytes: value = scale.code - minimum.
//
// A block is PARTS tasks, each of RUNS runs of 32 consecutive values that share bytes; a run has HALVES scales, for 32 or
// 16 values each. LOW words hold the low bits of a run's codes, HIGH words the bits above them. Where a block's fields lie
// (..._AT, and the step from part to part) comes from walsh-formats.
struct alignas(16) Vector {
    uint word[4];
};

// 32 consecutive values.
struct Run {
    int codes[8];
    float scale[HALVES];
    float minimum[HALVES];
};

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

inline float fetch_half(threadgroup const Vector *staged, uint byte) {
    return half_to_float(((threadgroup const ushort *)staged)[byte / 2]);
}

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
        scales[0] = unpack_iq4(low[0], ((threadgroup const ushort *)staged)[(block + SCALES_HIGH_AT) / 2], part);
    }
}

// Bit i of four to bit 0 of byte i.
inline uint spread(uint bits) { return (bits & 15) * 0x00204081u & 0x01010101u; }

// The values of four 4-bit indices.
inline uint look_up(uint indices) {
    ulong low = ulong(IQ4_WORDS[1]) << 32 | IQ4_WORDS[0], high = ulong(IQ4_WORDS[3]) << 32 | IQ4_WORDS[2];
    uint values = 0;
    UNROLL for (int i = 0; i < 4; i++) {
        uint index = indices >> (8 * i);
        ulong word = (index & 8) != 0 ? high : low;
        values |= (uint(word >> (index % 8 * 8)) & 255) << (8 * i);
    }
    return values;
}

// The codes of a run. Runs of a task share words, which the compiler loads once when it sees them together.
inline void load_codes(threadgroup const Vector *staged, uint block, uint part, int run, thread int *codes) {
    uint at = block + LOW_AT + part * LOW_STEP, low[LOW], high[HIGH > 0 ? HIGH : 1];
    if (STORED == Q4_K || STORED == Q5_K) at += 32 * (run / 2);
    if (STORED == Q6_K) at += 32 * (run % 2);
    if (STORED == IQ4_XS) at += 16 * run;
    fetch<LOW>(staged, at, low);
    if (HIGH > 0) fetch<HIGH>(staged, block + HIGH_AT + part * HIGH_STEP, high);
    UNROLL for (int i = 0; i < 8; i++) {
        uint code = low[i % LOW];
        if (LOW == 4) code = code >> (4 * (i / 4)) & 0x0f0f0f0fu;
        if (STORED == Q4_K || STORED == Q5_K) code = code >> (4 * (run % 2)) & 0x0f0f0f0fu;
        if (STORED == Q6_K) code = code >> (4 * (run / 2)) & 0x0f0f0f0fu;
        if (STORED == Q2_K || STORED == Q3_K) code = code >> (2 * run) & 0x03030303u;
        if (STORED == Q5_0 || STORED == Q5_1) code |= spread(high[0] >> (4 * i)) << 4;
        if (STORED == Q3_K) code |= (high[i % LOW] >> (4 * part + run) & 0x01010101u) << 2;
        if (STORED == Q5_K) code |= (high[i % LOW] >> (4 * part + run) & 0x01010101u) << 4;
        if (STORED == Q6_K) code |= (high[i % LOW] >> (2 * run) & 0x03030303u) << 4;
        if (STORED == IQ4_NL || STORED == IQ4_XS) code = look_up(code);
        codes[i] = int(code);
    }
}

inline uint byte_of(uint word, int i) { return word >> (8 * i) & 255; }

// A run of a task of the blocks from byte `base` on.
inline Run load_run(threadgroup const Vector *staged, uint base, uint task, int run) {
    uint block = base + task / PARTS * BLOCK_BYTES, part = task % PARTS, scales[2];
    load_scales(staged, block, part, scales);
    float d = fetch_half(staged, block + D_AT), m = M_AT >= 0 ? fetch_half(staged, block + M_AT) : 0.0f;
    Run values;
    load_codes(staged, block, part, run, values.codes);
    UNROLL for (int side = 0; side < HALVES; side++) {
        uint packed = byte_of(run < 2 ? scales[0] : scales[1], 2 * (run % 2) + side), single = byte_of(scales[0], run);
        float factor = d;
        if (STORED == Q4_K || STORED == Q5_K) factor = d * float(single);
        if (STORED == Q2_K) factor = d * float(packed & 15);
        if (STORED == Q3_K) factor = d * float(int(packed) - 32);
        if (STORED == Q6_K) factor = d * float(int(packed ^ 128) - 128);
        if (STORED == IQ4_XS) factor = d * float(int(single) - 32);
        float minimum = float(ZERO) * factor;
        if (STORED == Q4_1 || STORED == Q5_1) minimum = -m;
        if (STORED == Q4_K || STORED == Q5_K) minimum = m * float(byte_of(scales[1], run));
        if (STORED == Q2_K) minimum = m * float(packed >> 4);
        values.scale[side] = factor;
        values.minimum[side] = minimum;
    }
    return values;
}
