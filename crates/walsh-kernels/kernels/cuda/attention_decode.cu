// Attention of few query rows over a cache, codes and overlay, on tensor cores: positions are rows of m16n8k16 matrices and
// query rows their columns, eight to a matrix. A simdgroup takes TILE positions at a time, whose rows lie in its own ring of
// shared memory by the time that it decodes them; simdgroups meet once, when their sums become one result.
//
// Weights are taken together with their value's scale: w = 2^(score + log2 scale - most), so that they keep their bits in a
// half whatever the scales are; the sum of weights has w / scale.

enum : int {
    SIMDS = THREADS / 32,
    PIECES = TILE / 16,
    // Whether queries stay in registers.
    HELD = HEAD_DIM * COLUMNS <= 256,
    HELD_WORDS = HELD ? HEAD_DIM / 8 * COLUMNS : 1,
    KEY_SCALED = KvForm<KEY_KIND>::SCALE_BYTES > 0,
    VALUE_SCALED = KvForm<VALUE_KIND>::SCALE_BYTES > 0
};

typedef Rows<KEY_KIND, KEY_BITS, KEY_BYTES> Keys;
typedef Rows<VALUE_KIND, VALUE_BITS, VALUE_BYTES> Values;

// What lies where in the group's memory.
enum : int {
    KEY_BOOK = 0,
    KEY_BOOK_BYTES = Keys::CODES ? Book<Keys::CODES ? KEY_BITS : 8>::BYTES : 0,
    ONE_BOOK = Keys::CODES && Values::CODES && KEY_BITS == VALUE_BITS,
    VALUE_BOOK = ONE_BOOK ? 0 : KEY_BOOK_BYTES,
    VALUE_BOOK_BYTES = Values::CODES && !ONE_BOOK ? Book<Values::CODES ? VALUE_BITS : 8>::BYTES : 0,
    // The queries as second matrices: for each step and lane two pairs, of each eight rows.
    QUERY = KEY_BOOK_BYTES + VALUE_BOOK_BYTES,
    QUERY_BYTES = HEAD_DIM / 16 * COLUMNS * 256,
    TURNED = QUERY + QUERY_BYTES,
    TURNED_BYTES = LIVE * HEAD_DIM * 4,
    PALEY_ROWS = TURNED + TURNED_BYTES,
    PALEY_BYTES = ORDER > 1 ? THREADS / 16 * HEAD_DIM * 4 : 0,
    MARKS = PALEY_ROWS + PALEY_BYTES,
    MARK_BYTES = (SIMDS + 1) * LIVE * 8,
    // What the positions of a simdgroup's tile are scaled by.
    NOTES = MARKS + MARK_BYTES,
    NOTE_BYTES = KEY_SCALED || VALUE_SCALED ? SIMDS * TILE * GROUPS * 16 : 0,
    RING = (NOTES + NOTE_BYTES + 127) / 128 * 128,
    KEY_STAGE = (TILE * Keys::STRIDE + 127) / 128 * 128,
    VALUE_STAGE = (TILE * Values::STRIDE + 127) / 128 * 128,
    STAGE = KEY_STAGE + VALUE_STAGE,
    // Words that hold the last codes of a row may end behind it.
    RING_BYTES = SIMDS * STAGES * STAGE + 16,
    // Sums meet where the ring was.
    SUM_BYTES = SIMDS * LIVE * HEAD_DIM * 4,
    ALL_BYTES = RING + (RING_BYTES > SUM_BYTES ? RING_BYTES : SUM_BYTES)
};
static_assert(ALL_BYTES <= DYNAMIC, "the group's memory holds all that lies in it");
static_assert(TURNED % 16 == 0 && RING % 16 == 0 && KEY_STAGE % 16 == 0 && VALUE_STAGE % 16 == 0, "rows are copied 16 bytes at a time");
static_assert(TILE == 16 || TILE == 32, "a lane looks after one position of a tile");

// A matrix of eight by eight halves, turned.
inline uint transposed(uint pair) {
    uint turned;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(turned) : "r"(pair));
    return turned;
}

// Rows of a tile that follow each other, from an address that is a multiple of 16.
template <int BYTES, int STRIDE> inline void copy_tile(uint to, const uchar *from, uint lane) {
    const int ALL = TILE * BYTES / 16, OF_ROW = BYTES / 16 > 0 ? BYTES / 16 : 1;
    UNROLL for (int i = 0; i < (ALL + 31) / 32; i++) {
        uint part = 32u * i + lane;
        uint at = STRIDE == BYTES ? part * 16u : part / OF_ROW * STRIDE + part % OF_ROW * 16u;
        if (ALL % 32 == 0 || part < ALL) copy_async<16>(to + swizzled<BYTES == STRIDE ? BYTES : 0, WIDE_CHUNKS<BYTES>>(at), from + part * 16u);
    }
}

// Rows of a tile wherever they are.
template <int BYTES, int STRIDE> inline void copy_rows(uint to, const uchar *from, uint slot, uint lane) {
    const int STEP = Divides<BYTES>::STEP, OF_ROW = BYTES / STEP, ALL = TILE * OF_ROW;
    for (uint start = 0; start < ALL; start += 32u) {
        uint part = start + lane, row = part / OF_ROW;
        uint of_row = __shfl_sync(0xffffffffu, slot, row % TILE);
        uint at = swizzled<BYTES == STRIDE ? BYTES : 0, WIDE_CHUNKS<BYTES>>(row * STRIDE + part % OF_ROW * STEP);
        if (part < ALL) copy_async<STEP>(to + at, from + ulong(of_row) * BYTES + part % OF_ROW * STEP);
    }
}

// The scales of a lane's position, as they are stored.
struct Scales {
    uint key[GROUPS], value[GROUPS];
};

template <int KIND> inline uint raw_scale(const uchar *scales, ulong row, uint group) {
    if constexpr (KvForm<KIND>::SCALE_BYTES == 2) return ((const ushort *)scales)[row * ROW_GROUPS + group];
    if constexpr (KvForm<KIND>::SCALE_BYTES == 4) return ((const uint *)scales)[row * ROW_GROUPS + group];
    return 0;
}

template <int KIND> inline uint scale_bytes() {
    return KvForm<KIND>::SCALE_BYTES * ROW_GROUPS;
}

template <int KIND> inline float scale_from(uint raw, float factor) {
    if constexpr (KvForm<KIND>::SCALE_BYTES == 2) return half_to_float(ushort(raw));
    if constexpr (KvForm<KIND>::SCALE_BYTES == 4) return as_type<float>(raw) * factor;
    return 1.0f;
}

// A lane's state of its rows' softmax: of columns 2.t and 2.t + 1 of each eight.
struct Softmax {
    float most[COLUMNS][2], total[COLUMNS][2];
    float out[HEAD_DIM / 16][COLUMNS][4];
};

// What a lane knows of its columns' queries.
struct Columns {
    float factor[COLUMNS][2], offset[COLUMNS][2];
    int own[COLUMNS][2], existing;
};

// The score of a sum, times 1 / log 2.
inline float score_of(const AttentionDecodeArgs &args, float sum, float factor, float offset) {
    float score = CENTER ? fmaf(sum, factor, offset) : sum * factor;
    if (SOFTCAP) score = args.softcap * tanhf(score / args.softcap) * 1.44269504f;
    return score;
}

// Has scores of positions that a query does not see count for nothing.
template <int OF_ZONE>
inline void mask(const AttentionDecodeArgs &args, float (&scores)[COLUMNS][4], const int (&positions)[2], const Columns &columns) {
    UNROLL for (int n = 0; n < COLUMNS; n++) {
        UNROLL for (int e = 0; e < 4; e++) {
            int own = columns.own[n][e % 2], position = positions[e / 2];
            bool visible = position >= 0 && sees<OF_ZONE>(args, seen_at(args, own, columns.existing), recent_start(args, own), position);
            if (!visible) scores[n][e] = -as_type<float>(0x7f800000u);
        }
    }
}

// Makes weights of the scores of sixteen positions, of which a lane has rows g and g + 8. The scores have the logarithms of the
// values' scales in them.
inline void weigh(float (&scores)[COLUMNS][4], const float (&inverses)[2], Softmax &state) {
    bool above = false;
    UNROLL for (int n = 0; n < COLUMNS; n++) {
        UNROLL for (int c = 0; c < 2; c++) above = above || fmaxf(scores[n][c], scores[n][2 + c]) > state.most[n][c] + 8.0f;
    }
    // Weights up to 256 fit in a half: sums are rescaled only where a score passes that.
    if (__any_sync(0xffffffffu, above)) {
        UNROLL for (int n = 0; n < COLUMNS; n++) {
            UNROLL for (int c = 0; c < 2; c++) {
                float peak = fmaxf(scores[n][c], scores[n][2 + c]);
                UNROLL for (uint mask = 4; mask < 32; mask *= 2) peak = fmaxf(peak, simd_shuffle_xor(peak, mask));
                float most = fmaxf(peak, state.most[n][c]);
                float keep = power_of_two(state.most[n][c] - most);
                state.most[n][c] = most;
                state.total[n][c] *= keep;
                UNROLL for (int i = 0; i < HEAD_DIM / 16; i++) state.out[i][n][c] *= keep, state.out[i][n][2 + c] *= keep;
            }
        }
    }
    UNROLL for (int n = 0; n < COLUMNS; n++) {
        UNROLL for (int e = 0; e < 4; e++) {
            scores[n][e] = power_of_two(scores[n][e] - state.most[n][e % 2]);
            state.total[n][e % 2] = VALUE_SCALED ? fmaf(scores[n][e], inverses[e / 2], state.total[n][e % 2]) : state.total[n][e % 2] + scores[n][e];
        }
    }
}

// Notes what a lane's position of a tile is scaled by, of each group: the key's scale, the value's share of the largest of its
// scales, and of that the logarithm and the inverse.
inline void note_scales(const AttentionDecodeArgs &args, const Scales &scales, uint notes, uint lane) {
    if (!(KEY_SCALED || VALUE_SCALED)) return;
    float values[GROUPS], largest = 0.0f;
    UNROLL for (int group = 0; group < GROUPS; group++) {
        values[group] = scale_from<VALUE_KIND>(scales.value[group], args.value_factor);
        largest = fmaxf(largest, values[group]);
    }
    // A value of zeros has no scale, and still a weight.
    largest = fmaxf(largest, 1e-12f);
    float inverse;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(largest));
    UNROLL for (int group = 0; group < GROUPS; group++) {
        float key = scale_from<KEY_KIND>(scales.key[group], args.key_factor);
        if (TILE == 32 || lane < TILE) {
            asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(notes + (lane * GROUPS + group) * 16u), "f"(key), "f"(values[group] * inverse),
                         "f"(VALUE_SCALED ? logarithm(largest) : 0.0f), "f"(VALUE_SCALED ? inverse : 1.0f));
        }
    }
}

// Adds a step's products of keys and queries.
inline void multiply_keys(float (&sums)[COLUMNS][4], const uint (&a)[4], int step, uint memory, const uint (&held)[HELD_WORDS], uint lane) {
    UNROLL for (int n = 0; n < COLUMNS; n++) {
        uint b[2];
        if constexpr (HELD) b[0] = held[2 * (step * COLUMNS + n)], b[1] = held[2 * (step * COLUMNS + n) + 1];
        else load_bytes<8, 8>({memory + QUERY + ((step * COLUMNS + n) * 32 + lane) * 8, 0u}, b);
        multiply_add(sums[n], a, b[0], b[1]);
    }
}

// Sixteen positions of a stage, from its row 16.piece on.
inline void take_piece(const AttentionDecodeArgs &args, uint stage, uint notes, uint piece, int first, bool masked, uint memory,
                       const uint (&held)[HELD_WORDS], const Columns &columns, Softmax &state, uint lane) {
    uint g = lane / 4u, t = lane % 4u;
    uint key_book = memory + KEY_BOOK + 4u * lane, value_book = memory + VALUE_BOOK + 4u * lane;
    float sums[GROUPS][COLUMNS][4] = {};
    if constexpr (Keys::DENSE) {
        uint row = stage + (16u * piece + lane % 16u) * Keys::STRIDE + lane / 16u * 16u;
        UNROLL for (int step = 0; step < HEAD_DIM / 16; step++) {
            uint a[4];
            load_matrices(a, row + 32u * step);
            multiply_keys(sums[step * GROUPS / (HEAD_DIM / 16)], a, step, memory, held, lane);
        }
    } else {
        Row upper = {stage + 16u * piece * Keys::STRIDE, g * Keys::STRIDE}, lower = {upper.base + 8u * Keys::STRIDE, upper.offset};
        UNROLL for (int chunk = 0; chunk < HEAD_DIM / 16 / Keys::REACH; chunk++) {
            uint high[Keys::PAIRS], low[Keys::PAIRS];
            key_pairs<KEY_KIND, KEY_BITS, KEY_BYTES>(upper, chunk, t, key_book, high);
            key_pairs<KEY_KIND, KEY_BITS, KEY_BYTES>(lower, chunk, t, key_book, low);
            UNROLL for (int i = 0; i < Keys::REACH; i++) {
                int step = chunk * Keys::REACH + i;
                uint a[4] = {high[2 * i], low[2 * i], high[2 * i + 1], low[2 * i + 1]};
                multiply_keys(sums[step * GROUPS / (HEAD_DIM / 16)], a, step, memory, held, lane);
            }
        }
    }
    float scores[COLUMNS][4], inverses[2] = {1.0f, 1.0f}, parts[GROUPS][2];
    UNROLL for (int side = 0; side < 2; side++) {
        float log = 0.0f, key_scale[GROUPS];
        UNROLL for (int group = 0; group < GROUPS; group++) {
            key_scale[group] = parts[group][side] = 1.0f;
            if (KEY_SCALED || VALUE_SCALED) {
                asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                             : "=f"(key_scale[group]), "=f"(parts[group][side]), "=f"(log), "=f"(inverses[side])
                             : "r"(notes + ((16u * piece + 8u * side + g) * GROUPS + group) * 16u));
            }
        }
        UNROLL for (int n = 0; n < COLUMNS; n++) {
            UNROLL for (int c = 0; c < 2; c++) {
                float sum = KEY_SCALED ? sums[0][n][2 * side + c] * key_scale[0] : sums[0][n][2 * side + c];
                UNROLL for (int group = 1; group < GROUPS; group++) sum = fmaf(sums[group][n][2 * side + c], key_scale[group], sum);
                float &score = scores[n][2 * side + c];
                if (VALUE_SCALED && !SOFTCAP && !CENTER) score = fmaf(sum, columns.factor[n][c], log);
                else score = score_of(args, sum, columns.factor[n][c], columns.offset[n][c]) + log;
            }
        }
    }
    if (masked) {
        int position = first + int(16u * piece + g), positions[2] = {position, position + 8};
        mask<0>(args, scores, positions, columns);
    }
    weigh(scores, inverses, state);
    uint weights[GROUPS][COLUMNS][2];
    UNROLL for (int group = 0; group < GROUPS; group++) {
        UNROLL for (int n = 0; n < COLUMNS; n++) {
            UNROLL for (int side = 0; side < 2; side++) {
                float part = GROUPS > 1 ? parts[group][side] : 1.0f;
                weights[group][n][side] = transposed(half_pair(scores[n][2 * side] * part, scores[n][2 * side + 1] * part));
            }
        }
    }
    if constexpr (Values::DENSE) {
        uint row = stage + KEY_STAGE + (16u * piece + lane % 8u + lane / 16u * 8u) * Values::STRIDE + lane / 8u % 2u * 16u;
        UNROLL for (int i = 0; i < HEAD_DIM / 16; i++) {
            uint a[4];
            load_matrices_transposed(a, row + 32u * i);
            UNROLL for (int n = 0; n < COLUMNS; n++) {
                multiply_add(state.out[i][n], a, weights[i * GROUPS / (HEAD_DIM / 16)][n][0], weights[i * GROUPS / (HEAD_DIM / 16)][n][1]);
            }
        }
    } else {
        uint base = stage + KEY_STAGE + 16u * piece * Values::STRIDE, even = 2u * t * Values::STRIDE, odd = even + Values::STRIDE;
        uint on = base + 8u * Values::STRIDE;
        UNROLL for (int group = 0; group < GROUPS; group++) {
            enum : int { OWN = Values::OWN };
            uint left[OWN], right[OWN], own = (group * 8u + g) * OWN;
            value_pairs<VALUE_KIND, VALUE_BITS, VALUE_BYTES>({base, even}, {base, odd}, own, value_book, left);
            value_pairs<VALUE_KIND, VALUE_BITS, VALUE_BYTES>({on, even}, {on, odd}, own, value_book, right);
            UNROLL for (int i = 0; i < OWN / 2; i++) {
                uint a[4] = {left[2 * i], left[2 * i + 1], right[2 * i], right[2 * i + 1]};
                UNROLL for (int n = 0; n < COLUMNS; n++) {
                    multiply_add(state.out[group * OWN / 2 + i][n], a, weights[group][n][0], weights[group][n][1]);
                }
            }
        }
    }
}

// Sixteen places of the overlay, read where they lie, number by number: there are few of them.
inline void take_overlay(const AttentionDecodeArgs &args, const uchar *keys, const uchar *values, const Line &line, int place,
                         const uchar *memory, const Columns &columns, Softmax &state, uint lane) {
    uint g = lane / 4u, t = lane % 4u;
    const uint2 *queries = (const uint2 *)(memory + QUERY);
    int places[2], positions[2];
    ulong slots[2];
    UNROLL for (int side = 0; side < 2; side++) {
        places[side] = place + int(g + 8u * side);
        positions[side] = position_at<1>(line, min(places[side], line.places - 1));
        slots[side] = slot_of(args, (const int *)nullptr, positions[side], 1u);
    }
    float scores[COLUMNS][4] = {};
    UNROLL for (uint step = 0; step < HEAD_DIM / 16; step++) {
        // Loads of all numbers at once would take registers from the sums.
        if (step % 4u == 0u) asm volatile("" ::: "memory");
        uint a[4];
        UNROLL for (int i = 0; i < 4; i++) {
            const uchar *row = keys + slots[i % 2] * OVERLAY_KEY_BYTES;
            uint number = Keys::number(2u * step + i / 2, t);
            float low, high;
            row_numbers<OVERLAY_KEY_KIND, 1, 1>(row, number, nullptr, &low);
            row_numbers<OVERLAY_KEY_KIND, 1, 1>(row, number + Keys::APART, nullptr, &high);
            a[i] = half_pair(low, high);
        }
        UNROLL for (int n = 0; n < COLUMNS; n++) {
            uint2 b = queries[(step * COLUMNS + n) * 32 + lane];
            multiply_add(scores[n], a, b.x, b.y);
        }
    }
    UNROLL for (int n = 0; n < COLUMNS; n++) {
        UNROLL for (int e = 0; e < 4; e++) scores[n][e] = score_of(args, scores[n][e], columns.factor[n][e % 2], columns.offset[n][e % 2]);
    }
    UNROLL for (int side = 0; side < 2; side++) {
        if (places[side] >= line.places) positions[side] = -1;
    }
    mask<1>(args, scores, positions, columns);
    const float inverses[2] = {1.0f, 1.0f};
    weigh(scores, inverses, state);
    uint weights[COLUMNS][2];
    UNROLL for (int n = 0; n < COLUMNS; n++) {
        UNROLL for (int side = 0; side < 2; side++) weights[n][side] = transposed(half_pair(scores[n][2 * side], scores[n][2 * side + 1]));
    }
    const uchar *rows[4];
    UNROLL for (int i = 0; i < 4; i++) {
        int at = min(place + int(2u * t + i % 2 + i / 2 * 8), line.places - 1);
        rows[i] = values + ulong(slot_of(args, (const int *)nullptr, position_at<1>(line, at), 1u)) * OVERLAY_VALUE_BYTES;
    }
    UNROLL for (int i = 0; i < HEAD_DIM / 16; i++) {
        if (i % 4 == 0) asm volatile("" ::: "memory");
        uint a[4];
        UNROLL for (int j = 0; j < 4; j++) {
            uint number = Values::value_number(i, j % 2, g);
            float low, high;
            row_numbers<OVERLAY_VALUE_KIND, 1, 1>(rows[j / 2 * 2], number, nullptr, &low);
            row_numbers<OVERLAY_VALUE_KIND, 1, 1>(rows[j / 2 * 2 + 1], number, nullptr, &high);
            a[j] = half_pair(low, high);
        }
        UNROLL for (int n = 0; n < COLUMNS; n++) multiply_add(state.out[i][n], a, weights[n][0], weights[n][1]);
    }
}

// Where a pair's rows are.
struct Cache {
    const uchar *keys, *values, *key_scales, *value_scales;
    const int *pages;
};

// Sends for a tile of codes, from its first position on, and for the scales of a lane's position.
inline Scales fetch(const AttentionDecodeArgs &args, const Cache &cache, const Line &line, int first, uint stage, uint lane) {
    Scales scales;
    uint slot;
    if (!WRAPS && args.aligned != 0u && first >= line.seen.start && first + TILE <= line.seen.end) {
        // Its rows follow each other: tiles end where pages do.
        slot = slot_of(args, cache.pages, first, 0u);
        copy_tile<KEY_BYTES, Keys::STRIDE>(stage, cache.keys + ulong(slot) * KEY_BYTES, lane);
        copy_tile<VALUE_BYTES, Values::STRIDE>(stage + KEY_STAGE, cache.values + ulong(slot) * VALUE_BYTES, lane);
        slot += lane % TILE;
    } else {
        int position = max(min(first + int(lane % TILE), line.seen.end - 1), line.seen.start);
        slot = slot_of(args, cache.pages, position, 0u);
        copy_rows<KEY_BYTES, Keys::STRIDE>(stage, cache.keys, slot, lane);
        copy_rows<VALUE_BYTES, Values::STRIDE>(stage + KEY_STAGE, cache.values, slot, lane);
    }
    UNROLL for (int group = 0; group < GROUPS; group++) {
        scales.key[group] = raw_scale<KEY_KIND>(cache.key_scales, slot, group);
        scales.value[group] = raw_scale<VALUE_KIND>(cache.value_scales, slot, group);
    }
    end_copies();
    return scales;
}

// Brings the queries of a tile of rows into the space of the keys, as halves of the second matrix. Each is divided by its
// largest number, so that halves hold it whatever it is.
inline void turn_queries(const AttentionDecodeArgs &args, const float *query, const float *equaliser, const float *center, uint first_row, uint rows, uint head, uchar *memory, Position at) {
    float *turned = (float *)(memory + TURNED);
    float2 *marks = (float2 *)(memory + MARKS + SIMDS * LIVE * 8);
    uint l = at.lane % 16u, mine = at.index / 16u;
    for (uint start = 0; start < LIVE; start += THREADS / 16) {
        uint row = start + mine;
        bool present = row < rows;
        uint token = (first_row + row) / args.group;
        ulong vector = ulong(token) * args.heads + head * args.group + (first_row + row) % args.group;
        float v[PER_LANE], offset = 0.0f, largest = 0.0f;
        UNROLL for (uint c = 0; c < PER_LANE; c++) {
            uint number = l + 16u * c;
            v[c] = 0.0f;
            if (present && number < HEAD_DIM) {
                float q = query[vector * HEAD_DIM + number] * args.scale;
                if (CENTER) offset = fmaf(q, center[head * HEAD_DIM + number], offset);
                v[c] = EQUALISER ? q * equaliser[head * HEAD_DIM + number] : q;
            }
        }
        offset = row_sum(offset);
        if (ROTATE) rotate_forward(v, l, (float *)(memory + PALEY_ROWS) + (ORDER > 1 ? mine * HEAD_DIM : 0));
        UNROLL for (uint c = 0; c < PER_LANE; c++) largest = fmaxf(largest, fabsf(v[c]));
        largest = row_max(largest);
        float inverse = largest > 0.0f ? 1.0f / largest : 0.0f;
        // What is no number stays none.
        if (row < LIVE) {
            UNROLL for (uint c = 0; c < PER_LANE; c++) {
                if (l + 16u * c < HEAD_DIM) turned[row * HEAD_DIM + l + 16u * c] = v[c] * inverse;
            }
            if (l == 0u) marks[row] = make_float2(largest, offset);
        }
    }
    __syncthreads();
    uint2 *queries = (uint2 *)(memory + QUERY);
    for (uint item = at.index; item < HEAD_DIM / 16 * COLUMNS * 32; item += THREADS) {
        uint lane = item % 32u, n = item / 32u % COLUMNS, step = item / 32u / COLUMNS;
        const float *row = turned + (8u * n + lane / 4u) * HEAD_DIM;
        uint pair[2];
        UNROLL for (uint i = 0; i < 2; i++) {
            uint number = Keys::number(2u * step + i, lane % 4u);
            pair[i] = half_pair(row[number], row[number + Keys::APART]);
        }
        queries[item] = make_uint2(pair[0], pair[1]);
    }
    __syncthreads();
}

inline Columns columns_of(const AttentionDecodeArgs &args, const int *slot_mapping, const Unit &unit, const uchar *memory, uint lane) {
    const float log2e = SOFTCAP ? 1.0f : 1.44269504f;
    const float2 *marks = (const float2 *)(memory + MARKS + SIMDS * LIVE * 8);
    Columns columns;
    UNROLL for (int n = 0; n < COLUMNS; n++) {
        UNROLL for (int c = 0; c < 2; c++) {
            uint row = 8u * n + 2u * (lane % 4u) + c;
            columns.factor[n][c] = marks[row].x * log2e;
            columns.offset[n][c] = marks[row].y * log2e;
            columns.own[n][c] = unit.last_own;
            // Rows that are not there see what the last one sees.
            uint token = (unit.first_row + min(row, unit.rows - 1u)) / args.group;
            if (unit.first_own < unit.last_own) columns.own[n][c] = slot_mapping[8u * token + 1u];
        }
    }
    columns.existing = unit.existing;
    return columns;
}

// What the simdgroups have found becomes one result.
inline void merge(const AttentionDecodeArgs &args, Softmax &state, float *partial, uint result, uint rows, uchar *memory, Position at) {
    uint g = at.lane / 4u, t = at.lane % 4u;
    float2 *marks = (float2 *)(memory + MARKS);
    float *sums = (float *)(memory + RING);
    __syncthreads();
    UNROLL for (int n = 0; n < COLUMNS; n++) {
        UNROLL for (int c = 0; c < 2; c++) {
            UNROLL for (uint mask = 4; mask < 32; mask *= 2) state.total[n][c] += simd_shuffle_xor(state.total[n][c], mask);
            uint row = at.simd * LIVE + 8u * n + 2u * t + c;
            if (8u * n + 2u * t + c >= rows) continue;
            if (g == 0u) marks[row] = make_float2(state.most[n][c], state.total[n][c]);
            UNROLL for (int i = 0; i < HEAD_DIM / 16; i++) {
                sums[row * HEAD_DIM + Values::value_number(i, 0u, g)] = state.out[i][n][c];
                sums[row * HEAD_DIM + Values::value_number(i, 1u, g)] = state.out[i][n][2 + c];
            }
        }
    }
    __syncthreads();
    for (uint item = at.index; item < rows * HEAD_DIM; item += THREADS) {
        uint row = item / HEAD_DIM;
        float peak = LEAST, sum = 0.0f, total = 0.0f;
        UNROLL for (int simd = 0; simd < SIMDS; simd++) peak = fmaxf(peak, marks[simd * LIVE + row].x);
        UNROLL for (int simd = 0; simd < SIMDS; simd++) {
            float2 mark = marks[simd * LIVE + row];
            float keep = power_of_two(mark.x - peak);
            sum = fmaf(keep, sums[simd * LIVE * HEAD_DIM + item], sum);
            total = fmaf(keep, mark.y, total);
        }
        ulong place = ulong(result) * args.result_rows + row;
        partial[place * HEAD_DIM + item % HEAD_DIM] = sum;
        if (item % HEAD_DIM == 0u) ((float2 *)(partial + args.statistics))[place] = make_float2(peak, total);
    }
    __syncthreads();
}

// The share of a group that lies in one pair.
inline void take_pair(const AttentionDecodeArgs &args, const float *query, const float *equaliser, const float *center,
                      const Cache &cache, const uchar *overlay_keys, const uchar *overlay_values, const int *slot_mapping,
                      const Unit &unit, uint head, int from, int to, float *partial, uint result, uchar *memory, Position at) {
    uint base = shared_at(memory), ring = base + RING + at.simd * (STAGES * STAGE), notes = base + NOTES + at.simd * (TILE * GROUPS * 16);
    int own = from + int(at.simd), next = own;
    if (OVERLAY) next += (max(unit.overlaid - own, 0) + SIMDS - 1) / SIMDS * SIMDS;
    int coming = next, before = (unit.first_tile - unit.overlaid) * TILE;
    Scales scales[STAGES - 1];
    UNROLL for (int i = 0; i < STAGES - 1; i++) {
        if (coming < to) scales[i] = fetch(args, cache, unit.codes, before + coming * TILE, ring + i * STAGE, at.lane);
        else end_copies();
        coming += SIMDS;
    }
    turn_queries(args, query, equaliser, center, unit.first_row, unit.rows, head, memory, at);
    uint held[HELD_WORDS];
    if constexpr (HELD) {
        UNROLL for (int i = 0; i < HELD_WORDS / 2; i++) {
            uint2 b = ((const uint2 *)(memory + QUERY))[i * 32 + at.lane];
            held[2 * i] = b.x, held[2 * i + 1] = b.y;
        }
    }
    Columns columns = columns_of(args, slot_mapping, unit, memory, at.lane);
    Softmax state;
    UNROLL for (int n = 0; n < COLUMNS; n++) {
        UNROLL for (int c = 0; c < 2; c++) state.most[n][c] = LEAST, state.total[n][c] = 0.0f;
        UNROLL for (int i = 0; i < HEAD_DIM / 16; i++) {
            UNROLL for (int e = 0; e < 4; e++) state.out[i][n][e] = 0.0f;
        }
    }
    if constexpr (OVERLAY) {
        ulong row = (uint(unit.sequence) * args.kv_heads + head) * args.overlay_slots;
        for (; own < min(unit.overlaid, to); own += SIMDS) {
            take_overlay(args, overlay_keys + row * OVERLAY_KEY_BYTES, overlay_values + row * OVERLAY_VALUE_BYTES, unit.overlay, 16 * own, memory,
                         columns, state, at.lane);
        }
    }
    // What all rows see needs no look at each.
    int all_start = max(seen_at(args, unit.last_own, unit.existing).start, unit.codes.seen.start);
    int all_end = min(seen_at(args, unit.first_own, unit.existing).end, unit.codes.seen.end);
    if (OVERLAY) all_end = min(all_end, recent_start(args, unit.first_own));
    uint turn = 0;
    for (int tile = next; tile < to; tile += SIMDS) {
        await_copies<STAGES - 2>();
        __syncwarp();
        Scales these = scales[0];
        UNROLL for (int i = 0; i + 2 < STAGES; i++) scales[i] = scales[i + 1];
        uint filled = turn == 0u ? STAGES - 1 : turn - 1u;
        if (coming < to) scales[STAGES - 2] = fetch(args, cache, unit.codes, before + coming * TILE, ring + filled * STAGE, at.lane);
        else end_copies();
        coming += SIMDS;
        int first = before + tile * TILE;
        bool masked = first < all_start || first + TILE > all_end;
        note_scales(args, these, notes, at.lane);
        __syncwarp();
        _Pragma("unroll 1") for (int piece = 0; piece < PIECES; piece++) {
            take_piece(args, ring + turn * STAGE, notes, piece, first, masked, base, held, columns, state, at.lane);
        }
        __syncwarp();
        turn = turn + 1u == STAGES ? 0u : turn + 1u;
    }
    await_copies<0>();
    merge(args, state, partial, result, unit.rows, memory, at);
}

inline void attention_decode(const AttentionDecodeArgs &args, const float *query, const float *equaliser, const float *center,
                             const uchar *keys, const uchar *key_scales, const uchar *values, const uchar *value_scales,
                             const uchar *overlay_keys, const uchar *overlay_values, const int *slot_mapping,
                             const int *table, const uint *status, float *partial, uchar *memory, Position at) {
    // Books depend on nothing that a launch before this one writes.
    if constexpr (Keys::CODES) fill_book<KEY_BITS, KEY_HALVES>(memory + KEY_BOOK, at.index);
    if constexpr (Values::CODES && !ONE_BOOK) fill_book<VALUE_BITS, VALUE_HALVES>(memory + VALUE_BOOK, at.index);
    walsh_begin();
    uint verdict = status[0], number = 0;
    Unit unit = unit_of(args, slot_mapping, 0u);
    if (verdict != 0xffffffffu) return;
    Share share = share_of_one(args, unit);
    if (args.units > 1u) share.share = share_of_all(args, slot_mapping, at.lane);
    int begin = int(at.x) * share.share, end = begin + share.share, before = 0;
    if (args.units > 1u) before = unit_at(args, slot_mapping, begin, at.lane, number);
    for (; number < args.units && before < end; number++) {
        if (args.units > 1u) {
            unit = unit_of(args, slot_mapping, number);
            share.stride = unit.tiles;
        }
        uint head = uint(max(begin - before, 0) / max(share.stride, 1));
        int line = before + int(head) * share.stride;
        for (; head < args.kv_heads && line < end; head++, line += share.stride) {
            int from = max(begin - line, 0), to = min(end - line, unit.tiles);
            if (from >= to) continue;
            ulong key_row = (uint(unit.holder) * args.kv_heads + head) * args.key_slots;
            ulong value_row = (uint(unit.holder) * args.kv_heads + head) * args.value_slots;
            Cache cache;
            cache.keys = keys + key_row * KEY_BYTES;
            cache.values = values + value_row * VALUE_BYTES;
            cache.key_scales = key_scales + key_row * scale_bytes<KEY_KIND>();
            cache.value_scales = value_scales + value_row * scale_bytes<VALUE_KIND>();
            cache.pages = PAGE > 0 ? table + uint(unit.sequence) * args.per_sequence : table;
            take_pair(args, query, equaliser, center, cache, overlay_keys, overlay_values, slot_mapping, unit, head, from, to, partial,
                      number * args.kv_heads + head + at.x, memory, at);
        }
        before += share.stride * int(args.kv_heads);
    }
}
