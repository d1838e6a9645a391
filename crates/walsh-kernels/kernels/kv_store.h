// Encodes the vectors of an op's tokens into the slots of the slot mapping. Sixteen lanes per vector; `field` says which of an
// entry's slots is meant.
enum : int { VECTORS = THREADS / 16, GROUP = HEAD_DIM / ROW_GROUPS };

struct Shared {
    float centroids[Form::CODEBOOK ? 1 << BITS : 1];
    float boundaries[Form::CODEBOOK ? 1 << BITS : 1];
    Wide wide_rows[STORED == KIND_TQ_NORMED && ORDER > 1 ? VECTORS : 1][STORED == KIND_TQ_NORMED && ORDER > 1 ? HEAD_DIM : 1];
    float rows[ORDER > 1 ? VECTORS : 1][ORDER > 1 ? HEAD_DIM : 1];
    uchar codes[VECTORS][Form::CODEBOOK ? HEAD_DIM : 4];
    alignas(16) uchar bytes[VECTORS][(CODE_BYTES + 15) / 16 * 16];
};

inline void kv_store(constant KvStoreArgs &args, device const uchar *source, device const int *slot_mapping,
                     device const uint *status, device uchar *codes, device uchar *scales,
                     device const float *equaliser, device const float *center, threadgroup Shared &shared,
                     Position at) {
    if (status[0] != 0xffffffffu) return;
    uint l = at.lane % 16u;
    uint mine = at.index / 16u;
    uint item = at.x * VECTORS + mine;
    uint head = item % args.kv_heads;
    int slot = -1;
    int sequence = 0;
    if (item < args.vectors) {
        device const int *entry = slot_mapping + 8u * (item / args.kv_heads);
        slot = entry[args.field];
        // Pages are of all sequences.
        sequence = args.field == 2u ? entry[7] : entry[0];
    }
    if (Form::CODEBOOK) {
        for (uint entry = at.index; entry < (1u << BITS); entry += THREADS) {
            shared.centroids[entry] = CENTROIDS[entry];
            shared.boundaries[entry] = entry + 1u < (1u << BITS) ? BOUNDARIES[entry] : 0.0f;
        }
        threadgroup_barrier();
    }
    float v[PER_LANE];
    UNROLL for (uint c = 0; c < PER_LANE; c++) {
        uint number = l + 16u * c;
        v[c] = 0.0f;
        if (slot >= 0 && number < HEAD_DIM) {
            float x = source_number(source, args.source, ulong(item) * HEAD_DIM + number);
            if (CENTER) x -= center[head * HEAD_DIM + number];
            if (EQUALISER) x /= equaliser[head * HEAD_DIM + number];
            v[c] = x;
        }
    }
    threadgroup uchar *bytes = shared.bytes[mine];
    float stored[2] = {0.0f, 0.0f};
    if (STORED == KIND_TQ_NORMED) {
        Wide w[PER_LANE];
        UNROLL for (uint c = 0; c < PER_LANE; c++) {
            w[c].high = v[c];
            w[c].low = 0.0f;
        }
        if (ROTATE) rotate_forward(w, l, shared.wide_rows[ORDER > 1 ? mine : 0]);
        for (uint group = 0; group < ROW_GROUPS; group++) {
            uint first = group * GROUP / 16u;
            stored[group] = encode_normed(w, first, first + GROUP / 16u, l, args.factor, shared.boundaries, shared.codes[mine]);
        }
    } else {
        if (ROTATE) rotate_forward(v, l, shared.rows[ORDER > 1 ? mine : 0]);
        if (STORED == KIND_TQ_FITTED) {
            for (uint group = 0; group < ROW_GROUPS; group++) {
                uint first = group * GROUP / 16u;
                stored[group] = encode_fitted(v, first, first + GROUP / 16u, l, shared.centroids, shared.boundaries,
                                              shared.codes[mine]);
            }
        } else {
            encode_dense(v, l, bytes, stored);
        }
    }
    if (Form::CODEBOOK) {
        simdgroup_barrier();
        pack(shared.codes[mine], l, bytes);
    }
    simdgroup_barrier();
    if (slot < 0) return;
    ulong row = (ulong(sequence) * args.kv_heads + head) * args.slots + uint(slot);
    device ushort *out = (device ushort *)(codes + row * CODE_BYTES);
    for (uint word = l; word < CODE_BYTES / 2; word += 16) out[word] = ((threadgroup const ushort *)bytes)[word];
    if (Form::SCALE_BYTES == 2 && l < ROW_GROUPS) {
        ((device ushort *)scales)[row * ROW_GROUPS + l] = float_to_half(l == 0 ? stored[0] : stored[1]);
    }
    if (Form::SCALE_BYTES == 4 && l < ROW_GROUPS) ((device float *)scales)[row * ROW_GROUPS + l] = l == 0 ? stored[0] : stored[1];
}
