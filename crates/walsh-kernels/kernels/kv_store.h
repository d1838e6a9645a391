// Encodes the vectors of an op's tokens into the slots of the slot mapping. Sixteen lanes have a vector, or TEAMS times sixteen
// where there are few and a scale is searched for; `field` says which of an entry's slots is meant.
enum : int { VECTORS = THREADS / 16 / TEAMS, GROUP = HEAD_DIM / ROW_GROUPS };
static_assert(TEAMS == 1 || TEAMS >= CANDIDATES, "a team has a candidate of its own");

struct Shared {
    float centroids[Form::CODEBOOK ? 1 << BITS : 1];
    float boundaries[Form::CODEBOOK ? 1 << BITS : 1];
    Wide wide_rows[STORED == KIND_TQ_NORMED && ORDER > 1 ? VECTORS : 1][STORED == KIND_TQ_NORMED && ORDER > 1 ? HEAD_DIM : 1];
    float rows[ORDER > 1 ? THREADS / 16 : 1][ORDER > 1 ? HEAD_DIM : 1];
    Fit fits[TEAMS > 1 ? VECTORS : 1][TEAMS];
    uchar codes[VECTORS][Form::CODEBOOK ? HEAD_DIM : 4];
    alignas(16) uchar bytes[VECTORS][(CODE_BYTES + 15) / 16 * 16];
};

// Whether a number's magnitude is from 2^-60 to 2^60.
inline bool is_usual(float x) { return (as_type<uint>(x) & 0x7fffffffu) - 0x21800000u < 0x3c800000u; }

// Behind it all lanes of a row see what one of them has left for the others.
inline void row_barrier() {
    if (TEAMS > 1) threadgroup_barrier();
    else simdgroup_barrier();
}

inline void kv_store(constant KvStoreArgs &args, device const uchar *source, device const int *slot_mapping,
                     device const uint *status, device uchar *codes, device uchar *scales,
                     device const float *equaliser, device const float *center, threadgroup Shared &shared,
                     Position at) {
    if (status[0] != 0xffffffffu) return;
    uint l = at.lane % 16u, own = at.index / 16u, team = own % TEAMS, lane = 16u * team + l, mine = own / TEAMS;
    uint item = at.x * VECTORS + mine;
    bool present = item < args.vectors;
    item = min(item, args.vectors - 1u);
    uint head = item % args.kv_heads;
    device const int *entry = slot_mapping + 8u * (item / args.kv_heads);
    int slot = present ? entry[args.field] : -1;
    // Pages are of all sequences.
    int sequence = args.field == 2u ? entry[7] : entry[0];
    if (Form::CODEBOOK) {
        for (uint code = at.index; code < (1u << BITS); code += THREADS) {
            shared.centroids[code] = CENTROIDS[code];
            shared.boundaries[code] = code + 1u < (1u << BITS) ? BOUNDARIES[code] : 0.0f;
        }
        threadgroup_barrier();
    }
    // All numbers are on their way before it is known whether they are asked for.
    float v[PER_LANE], scale[PER_LANE];
    bool usual = true;
    UNROLL for (uint c = 0; c < PER_LANE; c++) {
        uint number = min(l + 16u * c, uint(HEAD_DIM) - 1u);
        v[c] = source_number(source, SOURCE, ulong(item) * HEAD_DIM + number);
        if (CENTER) v[c] -= center[head * HEAD_DIM + number];
        if (EQUALISER) {
            scale[c] = equaliser[head * HEAD_DIM + number];
            usual = usual && is_usual(v[c]) && is_usual(scale[c]);
        }
    }
    UNROLL for (uint c = 0; EQUALISER && c < PER_LANE; c++) {
        if (usual) v[c] = usual_quotient(v[c], scale[c]);
    }
    if (!usual) {
        UNROLL for (uint c = 0; c < PER_LANE; c++) v[c] /= scale[c];
    }
    UNROLL for (uint c = 0; c < PER_LANE; c++) v[c] = slot >= 0 && l + 16u * c < HEAD_DIM ? v[c] : 0.0f;
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
        if (ROTATE) rotate_forward(v, l, shared.rows[ORDER > 1 ? own : 0]);
        if (STORED == KIND_TQ_FITTED) {
            for (uint group = 0; group < ROW_GROUPS; group++) {
                uint first = group * GROUP / 16u;
                float fitted = encode_fitted(v, first, first + GROUP / 16u, l, shared.centroids, shared.boundaries,
                                             shared.codes[mine], team, shared.fits[TEAMS > 1 ? mine : 0]);
                stored[group] = fitted * args.factor;
            }
        } else {
            encode_dense(v, l, bytes, stored);
        }
    }
    if (Form::CODEBOOK) {
        row_barrier();
        pack(shared.codes[mine], lane, bytes);
    }
    row_barrier();
    if (slot < 0) return;
    ulong row = (ulong(uint(sequence)) * args.kv_heads + head) * args.slots + uint(slot);
    device ushort *out = (device ushort *)(codes + row * CODE_BYTES);
    for (uint word = lane; word < CODE_BYTES / 2; word += 16 * TEAMS) out[word] = ((threadgroup const ushort *)bytes)[word];
    if (Form::SCALE_BYTES == 2 && lane < ROW_GROUPS) {
        ((device ushort *)scales)[row * ROW_GROUPS + lane] = float_to_half(lane == 0 ? stored[0] : stored[1]);
    }
    if (Form::SCALE_BYTES == 4 && lane < ROW_GROUPS) {
        ((device float *)scales)[row * ROW_GROUPS + lane] = lane == 0 ? stored[0] : stored[1];
    }
}
