// Attention of few query rows over a cache, codes and overlay, on tensor cores: positions are rows of m16n8k16 matrices and
// query rows their columns, eight to a matrix. A simdgroup takes TILE positions at a time, whose rows lie in its own ring of
// shared memory by the time that it decodes them; simdgroups meet once, when their sums become one result. Of the groups that
// share a pair of query rows and a KV head, the last to end merges their results.
//
// Weights are taken together with their value's scale: w = 2^(score + log2 scale - most), so that they keep their bits in a
// half whatever the scales are; the sum of weights has w / scale.

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

// The sixteen rows of a tile of the overlay, wherever they are.
template <int BYTES, int STRIDE> inline void copy_overlaid(uint to, const uchar *from, uint slot, uint lane) {
    const int STEP = Divides<BYTES>::STEP, OF_ROW = BYTES / STEP, ALL = 16 * OF_ROW;
    UNROLL for (uint start = 0; start < ALL; start += 32u) {
        uint part = start + lane, row = part / OF_ROW;
        uint of_row = __shfl_sync(0xffffffffu, slot, row % 16u);
        if (ALL % 32 == 0 || part < ALL) copy_async<STEP>(to + row * STRIDE + part % OF_ROW * STEP, from + ulong(of_row) * BYTES + part % OF_ROW * STEP);
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

// Sixteen positions of a stage, from its row 16.piece on. `positions` are those of a lane's rows; -1 where there is none.
template <int OF_ZONE>
inline void take_piece(const AttentionDecodeArgs &args, uint stage, uint notes, uint piece, const int (&positions)[2], bool masked, uint memory,
                       const uint (&held)[HELD_WORDS], const Columns &columns, Softmax &state, uint lane) {
    typedef Zone<OF_ZONE> Here;
    typedef typename Here::Keys OwnKeys;
    typedef typename Here::Values OwnValues;
    uint g = lane / 4u, t = lane % 4u;
    uint key_book = memory + KEY_BOOK + 4u * lane, value_book = memory + VALUE_BOOK + 4u * lane;
    float sums[GROUPS][COLUMNS][4] = {};
    if constexpr (Keys::DENSE) {
        uint row = stage + (16u * piece + lane % 16u) * OwnKeys::STRIDE + lane / 16u * 16u;
        UNROLL for (int step = 0; step < HEAD_DIM / 16; step++) {
            uint a[4];
            load_matrices(a, row + 32u * step);
            multiply_keys(sums[step * GROUPS / (HEAD_DIM / 16)], a, step, memory, held, lane);
        }
    } else {
        Row upper = {stage + 16u * piece * OwnKeys::STRIDE, g * OwnKeys::STRIDE}, lower = {upper.base + 8u * OwnKeys::STRIDE, upper.offset};
        UNROLL for (int chunk = 0; chunk < HEAD_DIM / 16 / Keys::REACH; chunk++) {
            uint high[Keys::PAIRS], low[Keys::PAIRS];
            key_pairs<Keys, OwnKeys>(upper, chunk, t, key_book, high);
            key_pairs<Keys, OwnKeys>(lower, chunk, t, key_book, low);
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
            if (Here::SCALED) {
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
    if (OF_ZONE == 1 || masked) mask<OF_ZONE>(args, scores, positions, columns);
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
        uint row = stage + Here::KEY_STAGE + (16u * piece + lane % 8u + lane / 16u * 8u) * OwnValues::STRIDE + lane / 8u % 2u * 16u;
        UNROLL for (int i = 0; i < HEAD_DIM / 16; i++) {
            uint a[4];
            load_matrices_transposed(a, row + 32u * i);
            UNROLL for (int n = 0; n < COLUMNS; n++) {
                multiply_add(state.out[i][n], a, weights[i * GROUPS / (HEAD_DIM / 16)][n][0], weights[i * GROUPS / (HEAD_DIM / 16)][n][1]);
            }
        }
    } else {
        uint base = stage + Here::KEY_STAGE + 16u * piece * OwnValues::STRIDE, even = 2u * t * OwnValues::STRIDE, odd = even + OwnValues::STRIDE;
        uint on = base + 8u * OwnValues::STRIDE;
        UNROLL for (int group = 0; group < GROUPS; group++) {
            enum : int { OWN = Values::OWN };
            uint left[OWN], right[OWN], own = (group * 8u + g) * OWN;
            value_pairs<OwnValues>({base, even}, {base, odd}, own, value_book, left);
            value_pairs<OwnValues>({on, even}, {on, odd}, own, value_book, right);
            UNROLL for (int i = 0; i < OWN / 2; i++) {
                uint a[4] = {left[2 * i], left[2 * i + 1], right[2 * i], right[2 * i + 1]};
                UNROLL for (int n = 0; n < COLUMNS; n++) {
                    multiply_add(state.out[group * OWN / 2 + i][n], a, weights[group][n][0], weights[group][n][1]);
                }
            }
        }
    }
}

// Where a pair's rows are.
struct Cache {
    const uchar *keys, *values, *key_scales, *value_scales, *overlay_keys, *overlay_values;
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

// Sends for sixteen places of the overlay.
template <int OF_ZONE>
inline void fetch_overlaid(const AttentionDecodeArgs &args, const Cache &cache, const Line &line, int place, uint stage, uint lane) {
    typedef Zone<OF_ZONE> Here;
    int position = position_at<1>(line, min(place + int(lane % 16u), line.places - 1));
    uint slot = slot_of(args, (const int *)nullptr, position, 1u);
    copy_overlaid<OVERLAY_KEY_BYTES, Here::Keys::STRIDE>(stage, cache.overlay_keys, slot, lane);
    copy_overlaid<OVERLAY_VALUE_BYTES, Here::Values::STRIDE>(stage + Here::KEY_STAGE, cache.overlay_values, slot, lane);
    end_copies();
}

// Sixteen places of the overlay out of a stage.
template <int OF_ZONE>
inline void take_overlaid(const AttentionDecodeArgs &args, const Line &line, int place, uint stage, uint memory,
                          const uint (&held)[HELD_WORDS], const Columns &columns, Softmax &state, uint lane) {
    int positions[2];
    UNROLL for (int side = 0; side < 2; side++) {
        int own = place + int(lane / 4u) + 8 * side;
        positions[side] = own < line.places ? position_at<1>(line, own) : -1;
    }
    take_piece<OF_ZONE>(args, stage, 0u, 0u, positions, true, memory, held, columns, state, lane);
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
        if (KEY_TURNS) rotate_forward(v, l, (float *)(memory + PALEY_ROWS) + (ORDER > 1 ? mine * HEAD_DIM : 0));
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

// The share of a group that lies in one pair: what the group has found of it is in the group's memory then.
inline void take_pair(const AttentionDecodeArgs &args, const float *query, const float *equaliser, const float *center,
                      const Cache &cache, const int *slot_mapping, const Unit &unit, const Pair &pair, int from, int to,
                      float *partial, uint result, uchar *memory, Position at) {
    // What follows from the lane is worked out here, and not kept from one pair to the next.
    asm volatile("" : "+r"(at.lane), "+r"(at.index));
    uint base = shared_at(memory), ring = base + RING + at.simd * SIMD_RING, notes = base + NOTES + at.simd * (TILE * GROUPS * 16);
    int own = from + int(at.simd), next = own, overlaid = min(unit.overlaid, to);
    if (OVERLAY) next += (max(unit.overlaid - own, 0) + SIMDS - 1) / SIMDS * SIMDS;
    int coming = next, before = (unit.first_tile - unit.overlaid) * TILE;
    // Where no tile of codes comes, the overlay's may.
    bool sent = OVERLAY && own < overlaid && next >= to;
    if (sent) fetch_overlaid<OVERLAY>(args, cache, unit.overlay, 16 * own, ring, at.lane);
    Scales scales[STAGES - 1];
    UNROLL for (int i = 0; i < STAGES - 1; i++) {
        if (coming < to) scales[i] = fetch(args, cache, unit.codes, before + coming * TILE, ring + i * STAGE, at.lane);
        else end_copies();
        coming += SIMDS;
    }
    turn_queries(args, query, equaliser, center, unit.first_row, unit.rows, pair.head, memory, at);
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
            int position = first + 16 * piece + int(at.lane / 4u), positions[2] = {position, position + 8};
            take_piece<0>(args, ring + turn * STAGE, notes, piece, positions, masked, base, held, columns, state, at.lane);
        }
        __syncwarp();
        turn = turn + 1u == STAGES ? 0u : turn + 1u;
    }
    if constexpr (OVERLAY) {
        for (; own < overlaid; own += SIMDS) {
            if (!sent) fetch_overlaid<OVERLAY>(args, cache, unit.overlay, 16 * own, ring, at.lane);
            sent = false;
            await_copies<0>();
            __syncwarp();
            take_overlaid<OVERLAY>(args, unit.overlay, 16 * own, ring, base, held, columns, state, at.lane);
            __syncwarp();
        }
    }
    await_copies<0>();
    merge_simds(args, state, partial, result, pair.results == 1u, unit.rows, memory, at);
}

// Gives zeros to the rows of a pair of which no tile is anybody's.
inline void finish_unseen(const AttentionDecodeArgs &args, const int *slot_mapping, float *output, Position at) {
    for (uint number = at.x; number < args.units * args.kv_heads; number += args.groups) {
        Unit unit = unit_of(args, slot_mapping, number / args.kv_heads);
        if (unit.tiles > 0) continue;
        for (uint item = at.index; item < unit.rows * HEAD_DIM; item += THREADS) {
            uint row = unit.first_row + item / HEAD_DIM;
            ulong vector = ulong(row / args.group) * args.heads + number % args.kv_heads * args.group + row % args.group;
            output[vector * HEAD_DIM + item % HEAD_DIM] = 0.0f;
        }
    }
}

inline void attention_decode(const AttentionDecodeArgs &args, const float *query, const float *equaliser, const float *center,
                             const uchar *keys, const uchar *key_scales, const uchar *values, const uchar *value_scales,
                             const uchar *overlay_keys, const uchar *overlay_values, const int *slot_mapping,
                             const int *table, const uint *status, const float *sinks, float *partial, uint *counts, float *output,
                             uchar *memory, Position at) {
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
        Pair pair;
        pair.head = uint(max(begin - before, 0) / max(share.stride, 1));
        int line = before + int(pair.head) * share.stride;
        for (; pair.head < args.kv_heads && line < end; pair.head++, line += share.stride) {
            int from = max(begin - line, 0), to = min(end - line, unit.tiles);
            if (from >= to) continue;
            uint of_all = number * args.kv_heads + pair.head, first = uint(line / share.share);
            pair.first = of_all + first;
            pair.results = uint((line + unit.tiles - 1) / share.share) - first + 1u;
            ulong row = uint(unit.holder) * args.kv_heads + pair.head, overlaid = (uint(unit.sequence) * args.kv_heads + pair.head) * args.overlay_slots;
            Cache cache;
            cache.keys = keys + row * args.key_slots * KEY_BYTES;
            cache.values = values + row * args.value_slots * VALUE_BYTES;
            cache.key_scales = key_scales + row * args.key_slots * scale_bytes<KEY_KIND>();
            cache.value_scales = value_scales + row * args.value_slots * scale_bytes<VALUE_KIND>();
            cache.overlay_keys = overlay_keys + overlaid * OVERLAY_KEY_BYTES;
            cache.overlay_values = overlay_values + overlaid * OVERLAY_VALUE_BYTES;
            cache.pages = PAGE > 0 ? table + uint(unit.sequence) * args.per_sequence : table;
            take_pair(args, query, equaliser, center, cache, slot_mapping, unit, pair, from, to, partial, of_all + at.x, memory, at);
            bool ends = pair.results == 1u || is_last(counts + of_all, pair.results, memory, at);
            if (ends && pair.results > 1u) merge_results(args, partial, pair, unit.rows, memory, at);
            __syncthreads();
            if (ends) finish(args, sinks, output, unit, pair.head, memory, at);
            __syncthreads();
        }
        before += share.stride * int(args.kv_heads);
    }
    finish_unseen(args, slot_mapping, output, at);
}
