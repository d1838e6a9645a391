// A pass over one zone of positions for many query rows, on tensor cores: a tile of keys and values is decoded to halves in the
// group's memory once for all ROWS rows of queries, sixteen of which are a simdgroup's. Results are those of `attention_pass`.
//
// Where tokens have sequences, the rows of a sequence's run of tokens are cut into tiles, and a group finds its own by counting
// those of the runs before. Grid: parts, tiles of rows, KV heads.
enum : int {
    SIMDS = THREADS / 32,
    // Matrices of query rows of a simdgroup.
    BLOCKS = ROWS / 16 / SIMDS,
    // Bytes from one row of halves to the next: rows that `ldmatrix` reads at once lie in different banks.
    STRIDE = HEAD_DIM * 2 + 16,
    STEPS = HEAD_DIM / 16,
    // Numbers of a row that a thread decodes at a time.
    CHUNK = 16,
    CHUNKS = HEAD_DIM / CHUNK
};

// How a side's rows come into a tile of halves: copied there as they are while the tile before is multiplied, or copied as they
// are and decoded from there; or, where they begin at odd places or are many bytes, decoded from where they lie.
template <int KIND, int BYTES> struct Side {
    enum : int {
        STEP = Divides<BYTES>::STEP,
        DIRECT = KIND == KIND_F16,
        COPIED = !DIRECT && STEP >= 4 && KIND != KIND_F32,
        TILES = DIRECT ? 2 : 1,
        TILE_BYTES = POSITIONS * STRIDE,
        RAW_BYTES = COPIED ? POSITIONS * BYTES : 0,
        ALL_BYTES = TILES * TILE_BYTES + (RAW_BYTES + 15) / 16 * 16
    };
};
typedef Side<KEY_KIND, KEY_BYTES> KeySide;
typedef Side<VALUE_KIND, VALUE_BYTES> ValueSide;

// What lies where in the group's memory: of each side its tiles, then what is copied.
enum : int {
    QUERIES = 0,
    KEYS = QUERIES + ROWS * STRIDE,
    VALUES = KEYS + KeySide::ALL_BYTES,
    PLACES = VALUES + ValueSide::ALL_BYTES,
    ROW_NOTES = PLACES + 3 * POSITIONS * 32,
    KEY_BOOK = ROW_NOTES + ROWS * 16,
    VALUE_BOOK = KEY_BOOK + (KvForm<KEY_KIND>::CODEBOOK ? 4 << KEY_BITS : 16),
    ALL_BYTES = VALUE_BOOK + (KvForm<VALUE_KIND>::CODEBOOK ? 4 << VALUE_BITS : 16)
};
static_assert(ALL_BYTES <= DYNAMIC, "the group's memory holds all that lies in it");

// A place of a tile: the rows of its key and its value, what their codes are scaled by, and its position, -1 behind the last.
struct Place {
    uint key_row, value_row;
    float key_scale, value_scale;
    int position, nothing[3];
};

// A query row: what its scores are multiplied by, what is added to them, and its own position.
struct RowNote {
    float factor, offset;
    int own, nothing;
};

// Rows of queries that share a pass.
struct Tile {
    uint first_row, rows;
};

inline Tile tile_of(const AttentionPassArgs &args, const int *slot_mapping, uint number, uint lane) {
    Tile tile = {number * ROWS, 0u};
    if (args.sequences == 0u) {
        tile.rows = min(uint(ROWS), args.unit_rows - tile.first_row);
        return tile;
    }
    uint before = 0;
    for (uint start = 0; start < args.tokens; start += 32u) {
        uint token = start + lane, own = 0, rows = 0;
        if (token < args.tokens) {
            const int *entry = slot_mapping + 8u * token;
            rows = uint(entry[5]) * args.group;
            // A run is counted by its first token.
            own = uint(entry[4]) == token ? (rows + ROWS - 1) / ROWS : 0u;
        }
        uint through = own;
        UNROLL for (uint reach = 1; reach < 32; reach *= 2) {
            uint other = __shfl_up_sync(0xffffffffu, through, reach);
            if (lane >= reach) through += other;
        }
        uint holders = __ballot_sync(0xffffffffu, before + through > number);
        if (holders != 0u) {
            uint holder = __ffs(holders) - 1;
            uint within = (number - before - __shfl_sync(0xffffffffu, through - own, holder)) * ROWS;
            tile.first_row = (start + holder) * args.group + within;
            tile.rows = min(uint(ROWS), __shfl_sync(0xffffffffu, rows, holder) - within);
            return tile;
        }
        before += __shfl_sync(0xffffffffu, through, 31);
    }
    return tile;
}

// BYTES bytes of device memory from a place that is a multiple of STEP.
template <int BYTES, int STEP> inline void read_bytes(const uchar *at, uint (&words)[(BYTES + 3) / 4]) {
    UNROLL for (int i = 0; i < BYTES / STEP; i++) {
        if constexpr (STEP == 16) {
            uint4 four = ((const uint4 *)at)[i];
            words[4 * i] = four.x, words[4 * i + 1] = four.y, words[4 * i + 2] = four.z, words[4 * i + 3] = four.w;
        } else if constexpr (STEP == 8) {
            uint2 two = ((const uint2 *)at)[i];
            words[2 * i] = two.x, words[2 * i + 1] = two.y;
        } else if constexpr (STEP == 4) {
            words[i] = ((const uint *)at)[i];
        } else if constexpr (STEP == 2) {
            uint bits = ((const ushort *)at)[i];
            words[i / 2] = i % 2 == 0 ? bits : words[i / 2] | bits << 16;
        } else {
            uint bits = at[i];
            words[i / 4] = i % 4 == 0 ? bits : words[i / 4] | bits << (8 * (i % 4));
        }
    }
}

// CHUNK numbers of a row, as halves.
template <int KIND, int BITS, int BYTES>
inline void stage_chunk(const uchar *row, uint chunk, float scale, const float *book, uchar *to) {
    uint pairs[CHUNK / 2];
    if constexpr (KIND == KIND_F32) {
        uint words[CHUNK];
        read_bytes<64, 4>(row + chunk * 64u, words);
        UNROLL for (int i = 0; i < CHUNK / 2; i++) pairs[i] = half_pair(as_type<float>(words[2 * i]), as_type<float>(words[2 * i + 1]));
    } else if constexpr (KvForm<KIND>::CODEBOOK) {
        enum : int { LOW = Planes<BITS>::LOW, HIGH = Planes<BITS>::HIGH, LOW_BYTES = 2 * LOW, HIGH_BYTES = 2 * HIGH };
        uint low[(LOW_BYTES + 3) / 4], high[HIGH > 0 ? (HIGH_BYTES + 3) / 4 : 1] = {};
        read_bytes<LOW_BYTES, Divides<LOW_BYTES | BYTES>::STEP>(row + chunk * LOW_BYTES, low);
        if constexpr (HIGH > 0) read_bytes<HIGH_BYTES, Divides<HIGH_BYTES | BYTES | (HEAD_DIM * LOW / 8)>::STEP>(row + HEAD_DIM * LOW / 8 + chunk * HIGH_BYTES, high);
        float numbers[CHUNK];
        UNROLL for (int i = 0; i < CHUNK; i++) {
            uint code = low[i * LOW / 32] >> (i * LOW % 32) & ((1u << LOW) - 1u);
            if constexpr (HIGH > 0) code |= (high[i * HIGH / 32] >> (i * HIGH % 32) & ((1u << HIGH) - 1u)) << LOW;
            numbers[i] = book[code] * scale;
        }
        UNROLL for (int i = 0; i < CHUNK / 2; i++) pairs[i] = half_pair(numbers[2 * i], numbers[2 * i + 1]);
    } else {
        float numbers[CHUNK];
        row_numbers<KIND, BITS, CHUNK>(row, chunk * CHUNK, book, numbers);
        if constexpr (KvForm<KIND>::SCALE_BYTES > 0) {
            UNROLL for (int i = 0; i < CHUNK; i++) numbers[i] *= scale;
        }
        UNROLL for (int i = 0; i < CHUNK / 2; i++) pairs[i] = half_pair(numbers[2 * i], numbers[2 * i + 1]);
    }
    ((uint4 *)to)[0] = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
    ((uint4 *)to)[1] = make_uint4(pairs[4], pairs[5], pairs[6], pairs[7]);
}

// Sends for the rows of a tile.
template <int KIND, int BYTES, int OF_VALUES>
inline void copy_rows(const uchar *rows, const Place *places, uint side, uint tile, uint index) {
    typedef Side<KIND, BYTES> S;
    if constexpr (S::DIRECT || S::COPIED) {
        enum : int { OF_ROW = BYTES / S::STEP };
        uint to = side + (S::DIRECT ? tile % 2u * S::TILE_BYTES : S::TILES * S::TILE_BYTES);
        for (uint item = index; item < POSITIONS * OF_ROW; item += THREADS) {
            uint place = item / OF_ROW, part = item % OF_ROW;
            uint row = OF_VALUES ? places[place].value_row : places[place].key_row;
            copy_async<S::STEP>(to + place * (S::DIRECT ? STRIDE : BYTES) + part * S::STEP, rows + ulong(row) * BYTES + part * S::STEP);
        }
    }
}

// Decodes the rows of a tile.
template <int KIND, int BITS, int BYTES, int OF_VALUES>
inline void decode_rows(const uchar *rows, const Place *places, const float *book, uchar *side, uint index) {
    typedef Side<KIND, BYTES> S;
    if constexpr (!S::DIRECT) {
        for (uint item = index; item < POSITIONS * CHUNKS; item += THREADS) {
            uint place = item / CHUNKS, chunk = item % CHUNKS;
            const uchar *row = side + S::TILES * S::TILE_BYTES + place * BYTES;
            if (!S::COPIED) row = rows + ulong(OF_VALUES ? places[place].value_row : places[place].key_row) * BYTES;
            float scale = OF_VALUES ? places[place].value_scale : places[place].key_scale;
            stage_chunk<KIND, BITS, BYTES>(row, chunk, scale, book, side + place * STRIDE + chunk * 32u);
        }
    }
}

// A simdgroup's rows' softmax: of each sixteen, rows g and g + 8.
struct Softmax {
    float most[BLOCKS][2], total[BLOCKS][2];
    float out[BLOCKS][HEAD_DIM / 8][4];
};

// Has scores of positions that a query does not see count for nothing.
inline void mask(const AttentionPassArgs &args, float (&scores)[BLOCKS][POSITIONS / 8][4], const RowNote *notes, int existing, const Place *places, Position at) {
    UNROLL for (int m = 0; m < BLOCKS; m++) {
        UNROLL for (int side = 0; side < 2; side++) {
            int own = notes[16u * (BLOCKS * at.simd + m) + at.lane / 4u + 8u * side].own, recent = recent_start(args, own);
            Seen seen = ZONE == 2 ? Seen{args.window > 0u ? own + 1 - int(args.window) : 0, own + 1} : seen_at(args, own, existing);
            UNROLL for (int n = 0; n < POSITIONS / 8; n++) {
                UNROLL for (int c = 0; c < 2; c++) {
                    int position = places[8u * n + 2u * (at.lane % 4u) + c].position;
                    bool visible = position >= 0 && sees<ZONE>(args, seen, recent, position);
                    if (!visible) scores[m][n][2 * side + c] = -as_type<float>(0x7f800000u);
                }
            }
        }
    }
}

inline void take_tile(const AttentionPassArgs &args, uint queries, uint keys, uint values, const RowNote *notes, int existing, bool masked,
                      const Place *places, Softmax &state, Position at) {
    uint g = at.lane / 4u, t = at.lane % 4u;
    float scores[BLOCKS][POSITIONS / 8][4] = {};
    uint query_row = queries + (16u * BLOCKS * at.simd + at.lane % 16u) * STRIDE + at.lane / 16u * 16u;
    uint key_row = keys + (at.lane % 8u + at.lane / 16u * 8u) * STRIDE + at.lane / 8u % 2u * 16u;
    UNROLL for (int step = 0; step < STEPS; step++) {
        uint a[BLOCKS][4];
        UNROLL for (int m = 0; m < BLOCKS; m++) load_matrices(a[m], query_row + 16u * m * STRIDE + 32u * step);
        UNROLL for (int n = 0; n < POSITIONS / 16; n++) {
            uint b[4];
            load_matrices(b, key_row + 16u * n * STRIDE + 32u * step);
            UNROLL for (int m = 0; m < BLOCKS; m++) {
                multiply_add(scores[m][2 * n], a[m], b[0], b[1]);
                multiply_add(scores[m][2 * n + 1], a[m], b[2], b[3]);
            }
        }
    }
    UNROLL for (int m = 0; m < BLOCKS; m++) {
        UNROLL for (int side = 0; side < 2; side++) {
            RowNote note = notes[16u * (BLOCKS * at.simd + m) + g + 8u * side];
            UNROLL for (int n = 0; n < POSITIONS / 8; n++) {
                UNROLL for (int c = 0; c < 2; c++) {
                    float &score = scores[m][n][2 * side + c];
                    score = CENTER ? fmaf(score, note.factor, note.offset) : score * note.factor;
                    if (SOFTCAP) score = args.softcap * tanhf(score / args.softcap) * 1.44269504f;
                }
            }
        }
    }
    if (masked) mask(args, scores, notes, existing, places, at);
    bool above = false;
    float peak[BLOCKS][2];
    UNROLL for (int m = 0; m < BLOCKS; m++) {
        UNROLL for (int side = 0; side < 2; side++) {
            peak[m][side] = LEAST;
            UNROLL for (int n = 0; n < POSITIONS / 8; n++) {
                UNROLL for (int c = 0; c < 2; c++) peak[m][side] = fmaxf(peak[m][side], scores[m][n][2 * side + c]);
            }
            above = above || peak[m][side] > state.most[m][side] + 8.0f;
        }
    }
    // Weights up to 256 fit in a half: sums are rescaled only where a score passes that.
    if (__any_sync(0xffffffffu, above)) {
        UNROLL for (int m = 0; m < BLOCKS; m++) {
            UNROLL for (int side = 0; side < 2; side++) {
                UNROLL for (uint reach = 1; reach < 4; reach *= 2) peak[m][side] = fmaxf(peak[m][side], simd_shuffle_xor(peak[m][side], reach));
                float most = fmaxf(peak[m][side], state.most[m][side]), keep = power_of_two(state.most[m][side] - most);
                state.most[m][side] = most;
                state.total[m][side] *= keep;
                UNROLL for (int n = 0; n < HEAD_DIM / 8; n++) state.out[m][n][2 * side] *= keep, state.out[m][n][2 * side + 1] *= keep;
            }
        }
    }
    uint value_row = values + (at.lane % 16u) * STRIDE + at.lane / 16u * 16u;
    UNROLL for (int n = 0; n < POSITIONS / 16; n++) {
        uint a[BLOCKS][4];
        UNROLL for (int m = 0; m < BLOCKS; m++) {
            UNROLL for (int half = 0; half < 2; half++) {
                float(&of)[4] = scores[m][2 * n + half];
                UNROLL for (int e = 0; e < 4; e++) {
                    of[e] = power_of_two(of[e] - state.most[m][e / 2]);
                    state.total[m][e / 2] += of[e];
                }
                a[m][2 * half] = half_pair(of[0], of[1]);
                a[m][2 * half + 1] = half_pair(of[2], of[3]);
            }
        }
        UNROLL for (int i = 0; i < STEPS; i++) {
            uint b[4];
            load_matrices_transposed(b, value_row + 16u * n * STRIDE + 32u * i);
            UNROLL for (int m = 0; m < BLOCKS; m++) {
                multiply_add(state.out[m][2 * i], a[m], b[0], b[1]);
                multiply_add(state.out[m][2 * i + 1], a[m], b[2], b[3]);
            }
        }
    }
}

// The queries of a tile as halves, each divided by its largest number, so that halves hold it whatever it is.
inline void stage_queries(const AttentionPassArgs &args, const float *query, const int *slot_mapping, const Tile &tile, uint head, uchar *memory, Position at) {
    RowNote *notes = (RowNote *)(memory + ROW_NOTES);
    const float log2e = SOFTCAP ? 1.0f : 1.44269504f;
    for (uint row = at.simd; row < ROWS; row += SIMDS) {
        bool present = row < tile.rows;
        uint number = tile.first_row + min(row, tile.rows - 1u), token = number / args.group;
        const float *vector = query + (ulong(token) * args.heads + head * args.group + number % args.group) * args.query_stride;
        float q[(HEAD_DIM + 31) / 32], largest = 0.0f;
        UNROLL for (int i = 0; i < (HEAD_DIM + 31) / 32; i++) {
            uint at_number = 32u * i + at.lane;
            q[i] = present && at_number < HEAD_DIM ? vector[at_number] * args.scale : 0.0f;
            largest = fmaxf(largest, fabsf(q[i]));
        }
        largest = simd_max(largest);
        float inverse = largest > 0.0f ? 1.0f / largest : 0.0f;
        UNROLL for (int i = 0; i < (HEAD_DIM + 31) / 32; i++) {
            uint at_number = 32u * i + at.lane;
            if (at_number < HEAD_DIM) *(ushort *)(memory + QUERIES + row * STRIDE + 2u * at_number) = float_to_half(q[i] * inverse);
        }
        if (at.lane == 0u) {
            notes[row].factor = largest * log2e;
            notes[row].offset = CENTER && present ? vector[HEAD_DIM] * log2e : 0.0f;
            notes[row].own = slot_mapping[8u * token + 1u];
        }
    }
}

inline void attention_tiles(const AttentionPassArgs &args, const float *query, const uchar *keys, const uchar *key_scales, const uchar *values,
                            const uchar *value_scales, const int *slot_mapping, const int *table, const uint *status, float *partial,
                            uchar *memory, Position at) {
    if (status[0] != 0xffffffffu) return;
    uint head = at.z, g = at.lane / 4u;
    Tile tile = tile_of(args, slot_mapping, at.y, at.lane);
    if (tile.rows == 0u) return;
    const int *first_entry = slot_mapping + 8u * (tile.first_row / args.group);
    const int *last_entry = slot_mapping + 8u * ((tile.first_row + tile.rows - 1u) / args.group);
    Line line = line_of<ZONE>(args, first_entry, last_entry);
    int blocks = (line.places + POSITIONS - 1) / POSITIONS, per_part = (blocks + int(args.parts) - 1) / int(args.parts);
    int block = int(at.x) * per_part, last_block = min(block + per_part, blocks);
    if (block >= last_block) {
        // A part with nothing to see says so, and is not looked at.
        if (at.index < tile.rows) {
            uint row = tile.first_row + at.index, vector = row / args.group * args.heads + head * args.group + row % args.group;
            ulong result = ulong(vector) * args.all_parts + args.first_part + at.x;
            partial[args.statistics + 2u * result] = -as_type<float>(0x7f800000u);
            partial[args.statistics + 2u * result + 1u] = 0.0f;
        }
        return;
    }
    float *key_book = (float *)(memory + KEY_BOOK), *value_book = (float *)(memory + VALUE_BOOK);
    if (KvForm<KEY_KIND>::CODEBOOK) {
        for (uint entry = at.index; entry < (1u << KEY_BITS); entry += THREADS) key_book[entry] = KEY_CENTROIDS[entry];
    }
    if (KvForm<VALUE_KIND>::CODEBOOK) {
        for (uint entry = at.index; entry < (1u << VALUE_BITS); entry += THREADS) value_book[entry] = VALUE_CENTROIDS[entry];
    }
    uint key_base = first_row_of(args, first_entry, head, args.key_slots, args.key_overlaid);
    uint value_base = first_row_of(args, first_entry, head, args.value_slots, args.value_overlaid);
    uint fresh_base = uint(first_entry[4]);
    int run_start = first_entry[6], existing = existing_of(args, first_entry);
    const int *pages = PAGE > 0 ? table + uint(first_entry[0]) * args.per_sequence : table;
    Place *places = (Place *)(memory + PLACES);
    bool finds = at.index < POSITIONS;
    auto find = [&](int of_block) {
        int place = of_block * POSITIONS + int(at.index), position = position_at<ZONE>(line, min(place, line.places - 1));
        Place found;
        if (ZONE == 2) {
            found.key_row = found.value_row = (fresh_base + uint(position - run_start)) * args.kv_heads + head;
        } else {
            found.key_row = key_base + slot_of(args, pages, position, args.key_overlaid);
            found.value_row = value_base + slot_of(args, pages, position, args.value_overlaid);
        }
        found.key_scale = row_scale<KEY_KIND>(key_scales, found.key_row, 0u, args.key_factor);
        found.value_scale = row_scale<VALUE_KIND>(value_scales, found.value_row, 0u, args.value_factor);
        found.position = place < line.places ? position : -1;
        return found;
    };
    uint base = shared_at(memory);
    if (finds) {
        places[block % 3 * POSITIONS + at.index] = find(block);
        places[(block + 1) % 3 * POSITIONS + at.index] = find(min(block + 1, last_block - 1));
    }
    __syncthreads();
    copy_rows<KEY_KIND, KEY_BYTES, 0>(keys, places + block % 3 * POSITIONS, base + KEYS, block, at.index);
    copy_rows<VALUE_KIND, VALUE_BYTES, 1>(values, places + block % 3 * POSITIONS, base + VALUES, block, at.index);
    end_copies();
    stage_queries(args, query, slot_mapping, tile, head, memory, at);
    const RowNote *notes = (const RowNote *)(memory + ROW_NOTES);
    // What all rows see needs no look at each.
    int all_start = line.seen.start, all_end = line.seen.end, first_own = first_entry[1], last_own = last_entry[1];
    if (args.window > 0u) all_start = max(all_start, last_own + 1 - int(args.window));
    all_end = min(all_end, first_own + 1);
    if (ZONE == 0 && args.first + args.recent > 0u) all_end = min(all_end, recent_start(args, first_own));
    Softmax state;
    UNROLL for (int m = 0; m < BLOCKS; m++) {
        UNROLL for (int side = 0; side < 2; side++) state.most[m][side] = LEAST, state.total[m][side] = 0.0f;
        UNROLL for (int n = 0; n < HEAD_DIM / 8; n++) {
            UNROLL for (int e = 0; e < 4; e++) state.out[m][n][e] = 0.0f;
        }
    }
    for (; block < last_block; block++) {
        const Place *these = places + block % 3 * POSITIONS, *next = places + (block + 1) % 3 * POSITIONS;
        await_copies<0>();
        __syncthreads();
        if (!KeySide::DIRECT || !ValueSide::DIRECT) {
            decode_rows<KEY_KIND, KEY_BITS, KEY_BYTES, 0>(keys, these, key_book, memory + KEYS, at.index);
            decode_rows<VALUE_KIND, VALUE_BITS, VALUE_BYTES, 1>(values, these, value_book, memory + VALUES, at.index);
            __syncthreads();
        }
        // The next tile is on its way while this one is multiplied, and where the one behind it lies is looked up.
        Place later;
        if (block + 1 < last_block) {
            copy_rows<KEY_KIND, KEY_BYTES, 0>(keys, next, base + KEYS, block + 1, at.index);
            copy_rows<VALUE_KIND, VALUE_BYTES, 1>(values, next, base + VALUES, block + 1, at.index);
            end_copies();
        }
        if (finds) later = find(min(block + 2, last_block - 1));
        int first = position_at<ZONE>(line, block * POSITIONS);
        bool masked = ZONE == 1 || first < all_start || first + POSITIONS > all_end || (block + 1) * POSITIONS > line.places;
        uint key_tile = base + KEYS + (KeySide::DIRECT ? uint(block) % 2u * KeySide::TILE_BYTES : 0u);
        uint value_tile = base + VALUES + (ValueSide::DIRECT ? uint(block) % 2u * ValueSide::TILE_BYTES : 0u);
        if (16u * BLOCKS * at.simd < tile.rows) take_tile(args, base + QUERIES, key_tile, value_tile, notes, existing, masked, these, state, at);
        if (finds) places[(block + 2) % 3 * POSITIONS + at.index] = later;
    }
    UNROLL for (int m = 0; m < BLOCKS; m++) {
        UNROLL for (int side = 0; side < 2; side++) {
            UNROLL for (uint mask = 1; mask < 4; mask *= 2) state.total[m][side] += simd_shuffle_xor(state.total[m][side], mask);
            uint own = 16u * (BLOCKS * at.simd + m) + g + 8u * side;
            if (own >= tile.rows) continue;
            uint row = tile.first_row + own, vector = row / args.group * args.heads + head * args.group + row % args.group;
            ulong result = ulong(vector) * args.all_parts + args.first_part + at.x;
            if (at.lane % 4u == 0u) {
                float most = state.most[m][side];
                partial[args.statistics + 2u * result] = most > LEAST ? most * 0.693147181f : -as_type<float>(0x7f800000u);
                partial[args.statistics + 2u * result + 1u] = state.total[m][side];
            }
            UNROLL for (int n = 0; n < HEAD_DIM / 8; n++) {
                float2 pair = make_float2(state.out[m][n][2 * side], state.out[m][n][2 * side + 1]);
                *(float2 *)(partial + result * HEAD_DIM + 8u * n + 2u * (at.lane % 4u)) = pair;
            }
        }
    }
}
