// Blocks of quantised weights in threadgroup memory, read as signed bytes: value = scale.code - minimum.
//
// A row is taken in stages of STAGE blocks. A block is PARTS tasks, each of RUNS runs of 32 consecutive values that
// share bytes; a run has HALVES scales, for 32 or 16 values each. LOW words of a task hold the low bits of its codes,
// HIGH words the bits above them. Where a block's fields lie (..._AT, and the step from part to part) comes from
// walsh-formats.
struct alignas(16) Vector {
    uint word[4];
};

// A block's part as it is stored, and what its scales are made of.
struct Task {
    uint low[LOW];
    uint high[HIGH > 0 ? HIGH : 1];
    uint scales[2];
    float d, m;
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

// The 6-bit scales and minima of a part of q4_K and q5_K: four bytes of each.
inline void unpack_k4(thread const uint *packed, uint part, thread uint *scales) {
    uint high = packed[0] >> 2 & 0x30303030u, high_minima = packed[1] >> 2 & 0x30303030u;
    scales[0] = part == 0 ? packed[0] & 0x3f3f3f3fu : (packed[2] & 0x0f0f0f0fu) | high;
    scales[1] = part == 0 ? packed[1] & 0x3f3f3f3fu : (packed[2] >> 4 & 0x0f0f0f0fu) | high_minima;
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

// A task of the stage.
inline Task load_task(threadgroup const Vector *staged, uint index) {
    uint block = index / PARTS * BLOCK_BYTES, part = index % PARTS;
    Task task;
    fetch<LOW>(staged, block + LOW_AT + part * LOW_STEP, task.low);
    if (HIGH > 0) fetch<HIGH>(staged, block + HIGH_AT + part * HIGH_STEP, task.high);
    task.d = fetch_half(staged, block + D_AT);
    task.m = M_AT >= 0 ? fetch_half(staged, block + M_AT) : 0.0f;
    task.scales[0] = task.scales[1] = 0;
    if (STORED == Q4_K || STORED == Q5_K) {
        uint packed[3];
        fetch<3>(staged, block + SCALES_AT, packed);
        unpack_k4(packed, part, task.scales);
    }
    if (STORED == Q3_K) {
        uint packed[3];
        fetch<3>(staged, block + SCALES_AT, packed);
        unpack_q3(packed, part, task.scales);
    }
    if (STORED == Q2_K || STORED == Q6_K) fetch<2>(staged, block + SCALES_AT + 8 * part, task.scales);
    if (STORED == IQ4_XS) {
        uint low[1];
        fetch<1>(staged, block + SCALES_AT, low);
        uint high = ((threadgroup const ushort *)staged)[(block + SCALES_HIGH_AT) / 2];
        task.scales[0] = unpack_iq4(low[0], high, part);
    }
    return task;
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

// Word i of a run's codes.
inline uint codes_of(thread const Task &task, uint part, int run, int i) {
    if (STORED == Q8_0) return task.low[i % LOW];
    if (STORED == Q4_K || STORED == Q5_K) {
        uint code = task.low[(8 * (run / 2) + i) % LOW] >> (4 * (run % 2)) & 0x0f0f0f0fu;
        if (STORED == Q4_K) return code;
        return code | (task.high[i] >> (4 * part + run) & 0x01010101u) << 4;
    }
    if (STORED == Q6_K) {
        uint code = task.low[(8 * (run % 2) + i) % LOW] >> (4 * (run / 2)) & 0x0f0f0f0fu;
        return code | (task.high[i] >> (2 * run) & 0x03030303u) << 4;
    }
    if (STORED == Q2_K || STORED == Q3_K) {
        uint code = task.low[i % LOW] >> (2 * run) & 0x03030303u;
        if (STORED == Q2_K) return code;
        return code | (task.high[i] >> (4 * part + run) & 0x01010101u) << 2;
    }
    uint code = task.low[(4 * run + i % 4) % LOW] >> (4 * (i / 4)) & 0x0f0f0f0fu;
    if (STORED == Q5_0 || STORED == Q5_1) return code | spread(task.high[0] >> (4 * i)) << 4;
    if (STORED == IQ4_NL || STORED == IQ4_XS) return look_up(code);
    return code;
}

inline uint byte_of(uint word, int i) { return word >> (8 * i) & 255; }

// A run of a task.
inline Run load_run(thread const Task &task, uint part, int run) {
    Run values;
    UNROLL for (int i = 0; i < 8; i++) values.codes[i] = int(codes_of(task, part, run, i));
    UNROLL for (int side = 0; side < HALVES; side++) {
        int scale = 2 * run + side;
        uint packed = byte_of(task.scales[scale / 4 % 2], scale % 4), single = byte_of(task.scales[0], run);
        float factor = task.d;
        if (STORED == Q4_K || STORED == Q5_K) factor = task.d * float(single);
        if (STORED == Q2_K) factor = task.d * float(packed & 15);
        if (STORED == Q3_K) factor = task.d * float(int(packed) - 32);
        if (STORED == Q6_K) factor = task.d * float(int(packed ^ 128) - 128);
        if (STORED == IQ4_XS) factor = task.d * float(int(single) - 32);
        float minimum = float(ZERO) * factor;
        if (STORED == Q4_1 || STORED == Q5_1) minimum = -task.m;
        if (STORED == Q4_K || STORED == Q5_K) minimum = task.m * float(byte_of(task.scales[1], run));
        if (STORED == Q2_K) minimum = task.m * float(packed >> 4);
        values.scale[side] = factor;
        values.minimum[side] = minimum;
    }
    return values;
}
