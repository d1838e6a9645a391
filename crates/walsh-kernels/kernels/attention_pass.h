// Attention of query vectors over one zone of positions, part by part: for each vector and part the largest score, the sum
// of weights and the weighted sum of values.
//
// A part that sees nothing has a largest score of minus infinity, and a sum of zero.
//
// A row is a query vector of one KV head; ROWS of them share a pass. A simdgroup takes 32 positions at a time: each lane
// scores one position, then each lane sums COUNT numbers of all 32 values. ZONE: 0 the codes, 1 the overlay, 2 the chunk's
// own keys and values. Grid: parts, tiles of rows, KV heads.
enum : int {
    SIMDS = THREADS / 32,
    COUNT = HEAD_DIM <= 64 ? 2 : (HEAD_DIM <= 128 ? 4 : (HEAD_DIM <= 256 ? 8 : 16)),
    CHUNK = HEAD_DIM % 16 == 0 ? 16 : (HEAD_DIM % 4 == 0 ? 4 : 1),
    // Scales of a row: dense rows have none beside their blocks'.
    GROUPS = KvForm<KEY_KIND>::SCALE_BYTES > 0 || KvForm<VALUE_KIND>::SCALE_BYTES > 0 ? ROW_GROUPS : 1,
    PAD = (ROWS + 3) / 4 * 4
};

struct Shared {
    alignas(16) float query[HEAD_DIM][PAD];
    alignas(16) float weights[SIMDS][GROUPS][ROWS][32];
    float key_centroids[KvForm<KEY_KIND>::CODEBOOK ? 1 << KEY_BITS : 1];
    float value_centroids[KvForm<VALUE_KIND>::CODEBOOK ? 1 << VALUE_BITS : 1];
    float most[SIMDS][PAD];
    float sum[SIMDS][PAD];
    float keep[SIMDS][PAD];
};

// The number of the result of a row's part.
inline uint result_of(constant AttentionPassArgs &args, uint row, uint head, uint part) {
    uint vector = row / args.group * args.heads + head * args.group + row % args.group;
    return vector * args.all_parts + args.first_part + part;
}

inline void attention_pass(constant AttentionPassArgs &args, device const float *query, device const uchar *keys,
                           device const uchar *key_scales, device const uchar *values,
                           device const uchar *value_scales, device const int *slot_mapping, device const int *table,
                           device const uint *status, device float *partial, threadgroup Shared &shared, Position at) {
    if (status[0] != 0xffffffffu) return;
    float infinity = as_type<float>(0x7f800000u);
    uint unit = at.y / args.tiles;
    uint tile = at.y % args.tiles;
    uint head = at.z;
    uint first_row = unit * args.unit_rows + tile * ROWS;
    uint rows = min(uint(ROWS), args.unit_rows - tile * ROWS);
    // Rows of a KV head: token by token, the heads of the group side by side.
    device const int *first_entry = slot_mapping + 8u * (first_row / args.group);
    device const int *last_entry = slot_mapping + 8u * ((first_row + rows - 1u) / args.group);
    Line line = line_of<ZONE>(args, first_entry, last_entry);
    int blocks = (line.places + 31) / 32;
    int per_part = (blocks + int(args.parts) - 1) / int(args.parts);
    int block = int(at.x) * per_part;
    int last_block = min(block + per_part, blocks);

    // A part with nothing to see says so, and is not looked at.
    if (block >= last_block) {
        if (at.index < rows) {
            uint index = result_of(args, first_row + at.index, head, at.x);
            partial[args.statistics + 2u * index] = -infinity;
            partial[args.statistics + 2u * index + 1u] = 0.0f;
        }
        return;
    }
    for (uint number = at.index; number < HEAD_DIM * PAD; number += THREADS) {
        uint row = number % PAD;
        float q = 0.0f;
        if (row < rows) {
            uint token = (first_row + row) / args.group;
            ulong vector = ulong(token) * args.heads + head * args.group + (first_row + row) % args.group;
            q = query[vector * args.query_stride + number / PAD] * args.scale;
        }
        shared.query[number / PAD][row] = q;
    }
    if (KvForm<KEY_KIND>::CODEBOOK) {
        for (uint entry = at.index; entry < (1u << KEY_BITS); entry += THREADS) shared.key_centroids[entry] = KEY_CENTROIDS[entry];
    }
    if (KvForm<VALUE_KIND>::CODEBOOK) {
        for (uint entry = at.index; entry < (1u << VALUE_BITS); entry += THREADS) shared.value_centroids[entry] = VALUE_CENTROIDS[entry];
    }
    threadgroup_barrier();

    uint key_base = first_row_of(args, first_entry, head, args.key_slots, args.key_overlaid);
    uint value_base = first_row_of(args, first_entry, head, args.value_slots, args.value_overlaid);
    uint fresh_base = uint(first_entry[4]);
    device const int *pages = table;
    if (PAGE > 0) pages += uint(first_entry[0]) * args.per_sequence;
    uint own_number = at.lane * COUNT;
    uint own_group = own_number * GROUPS / HEAD_DIM;
    float out[ROWS][COUNT];
    UNROLL for (uint row = 0; row < ROWS; row++) {
        UNROLL for (uint k = 0; k < COUNT; k++) out[row][k] = 0.0f;
    }
    if (at.lane < ROWS) {
        shared.most[at.simd][at.lane] = -infinity;
        shared.sum[at.simd][at.lane] = 0.0f;
        shared.keep[at.simd][at.lane] = 1.0f;
    }
    // Rows past the last see nothing.
    for (uint row = rows; row < ROWS; row++) {
        UNROLL for (uint group = 0; group < GROUPS; group++) shared.weights[at.simd][group][row][at.lane] = 0.0f;
    }
    simdgroup_barrier();
    for (block += int(at.simd); block < last_block; block += SIMDS) {
        int index = block * 32 + int(at.lane);
        bool exists = index < line.places;
        int position = position_at<ZONE>(line, min(index, line.places - 1));
        uint key_row;
        uint value_row;
        if (ZONE == 2) {
            key_row = (fresh_base + uint(position - first_entry[6])) * args.kv_heads + head;
            value_row = key_row;
        } else {
            key_row = key_base + slot_of(args, pages, position, args.key_overlaid);
            value_row = value_base + slot_of(args, pages, position, args.value_overlaid);
        }
        // Scores: one position per lane.
        float score[ROWS];
        float total[ROWS];
        UNROLL for (uint row = 0; row < ROWS; row++) total[row] = 0.0f;
        UNROLL for (uint group = 0; group < GROUPS; group++) {
            UNROLL for (uint row = 0; row < ROWS; row++) score[row] = 0.0f;
            for (uint first = group * (HEAD_DIM / GROUPS); first < (group + 1) * (HEAD_DIM / GROUPS); first += CHUNK) {
                float k[CHUNK];
                row_numbers<KEY_KIND, KEY_BITS, CHUNK>(keys + ulong(key_row) * KEY_BYTES, first, shared.key_centroids, k);
                UNROLL for (uint number = 0; number < CHUNK; number++) {
                    UNROLL for (uint row = 0; row < ROWS; row++) {
                        score[row] = fma(k[number], shared.query[first + number][row], score[row]);
                    }
                }
            }
            float scale = row_scale<KEY_KIND>(key_scales, key_row, group, args.key_factor);
            UNROLL for (uint row = 0; row < ROWS; row++) total[row] = fma(scale, score[row], total[row]);
        }
        float value_scale[GROUPS];
        UNROLL for (uint group = 0; group < GROUPS; group++) {
            value_scale[group] = row_scale<VALUE_KIND>(value_scales, value_row, group, args.value_factor);
        }
        // Weights: row after row, by way of threadgroup memory, so that the code stands once.
        UNROLL for (uint row = 0; row < ROWS; row++) {
            if (row < rows) shared.weights[at.simd][0][row][at.lane] = total[row];
        }
        simdgroup_barrier();
        for (uint row = 0; row < rows; row++) {
            uint token = (first_row + row) / args.group;
            device const int *entry = slot_mapping + 8u * token;
            Seen own = seen_by<ZONE>(args, entry);
            bool visible = exists && sees<ZONE>(args, own, recent_start(args, entry[1]), position);
            float s = shared.weights[at.simd][0][row][at.lane];
            if (CENTER) {
                uint vector = token * args.heads + head * args.group + (first_row + row) % args.group;
                s += query[ulong(vector) * args.query_stride + HEAD_DIM];
            }
            if (args.softcap > 0.0f) s = args.softcap * tanh(s / args.softcap);
            s = visible ? s : -infinity;
            float before = shared.most[at.simd][row];
            float peak = max(before, simd_max(s));
            float weight = visible ? exp(s - peak) : 0.0f;
            float keep = before == peak ? 1.0f : exp(before - peak);
            float sum = shared.sum[at.simd][row] * keep + simd_sum(weight);
            UNROLL for (uint group = 0; group < GROUPS; group++) {
                shared.weights[at.simd][group][row][at.lane] = visible ? weight * value_scale[group] : 0.0f;
            }
            simdgroup_barrier();
            if (at.lane == 0) {
                shared.most[at.simd][row] = peak;
                shared.sum[at.simd][row] = sum;
                shared.keep[at.simd][row] = keep;
            }
        }
        simdgroup_barrier();
        UNROLL for (uint row = 0; row < ROWS; row++) {
            float keep = shared.keep[at.simd][row];
            UNROLL for (uint k = 0; k < COUNT; k++) out[row][k] *= keep;
        }
        // Values: COUNT numbers per lane, four positions at a time. Weights behind the last position are zero.
        uint count = min(32u, uint(line.places - block * 32));
        for (uint source = 0; source < count; source += 4) {
            UNROLL for (uint next = 0; next < 4; next++) {
                uint row_of = simd_shuffle(value_row, source + next);
                if (own_number < HEAD_DIM) {
                    float v[COUNT];
                    row_numbers<VALUE_KIND, VALUE_BITS, COUNT>(values + ulong(row_of) * VALUE_BYTES, own_number,
                                                               shared.value_centroids, v);
                    UNROLL for (uint row = 0; row < ROWS; row++) {
                        float weight = shared.weights[at.simd][own_group][row][source + next];
                        UNROLL for (uint k = 0; k < COUNT; k++) out[row][k] = fma(weight, v[k], out[row][k]);
                    }
                }
            }
        }
        simdgroup_barrier();
    }

    // The simdgroups' results become one.
    threadgroup_barrier();
    UNROLL for (uint row = 0; row < ROWS; row++) {
        float peak = -infinity;
        for (uint simd = 0; simd < SIMDS; simd++) peak = max(peak, shared.most[simd][row]);
        float own = shared.most[at.simd][row];
        float keep = own == -infinity ? 0.0f : exp(own - peak);
        UNROLL for (uint k = 0; k < COUNT; k++) out[row][k] *= keep;
    }
    if (at.index < rows) {
        uint row = at.index;
        float peak = -infinity;
        for (uint simd = 0; simd < SIMDS; simd++) peak = max(peak, shared.most[simd][row]);
        float weighed = 0.0f;
        for (uint simd = 0; simd < SIMDS; simd++) {
            float theirs = shared.most[simd][row];
            // Without a score there are no weights, unless no score is a number: then their sum is none either.
            weighed += theirs == -infinity ? shared.sum[simd][row] : shared.sum[simd][row] * exp(theirs - peak);
        }
        uint index = result_of(args, first_row + row, head, at.x);
        partial[args.statistics + 2u * index] = peak;
        partial[args.statistics + 2u * index + 1u] = weighed;
    }
    for (uint simd = 0; simd < SIMDS; simd++) {
        if (simd == at.simd && own_number < HEAD_DIM) {
            UNROLL for (uint k = 0; k < COUNT; k++) {
                if (own_number + k < HEAD_DIM) {
                    UNROLL for (uint row = 0; row < ROWS; row++) {
                        float before = simd == 0 ? 0.0f : shared.query[own_number + k][row];
                        shared.query[own_number + k][row] = before + out[row][k];
                    }
                }
            }
        }
        threadgroup_barrier();
    }
    for (uint row = 0; row < rows; row++) {
        ulong first = ulong(result_of(args, first_row + row, head, at.x)) * HEAD_DIM;
        for (uint number = at.index; number < HEAD_DIM; number += THREADS) partial[first + number] = shared.query[number][row];
    }
}
