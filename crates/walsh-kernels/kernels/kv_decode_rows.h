// Decodes the vectors of an op's tokens from the slots of the slot mapping. Sixteen lanes per vector.
enum : int { VECTORS = THREADS / 16 };

struct Shared {
    float centroids[KvForm<KIND>::CODEBOOK ? 1 << BITS : 1];
    float rows[ORDER > 1 ? VECTORS : 1][ORDER > 1 ? HEAD_DIM : 1];
};

inline void kv_decode_rows(constant KvDecodeArgs &args, device const uchar *codes, device const uchar *scales,
                           device const int *slot_mapping, device const uint *status, device const float *equaliser,
                           device const float *center, device uchar *output, threadgroup Shared &shared, Position at) {
    if (status[0] != 0xffffffffu) return;
    uint l = at.lane % 16u;
    uint mine = at.index / 16u;
    uint item = at.x * VECTORS + mine;
    uint head = item % args.kv_heads;
    bool present = item < args.vectors;
    if (KvForm<KIND>::CODEBOOK) {
        for (uint entry = at.index; entry < (1u << BITS); entry += THREADS) shared.centroids[entry] = CENTROIDS[entry];
        threadgroup_barrier();
    }
    float v[PER_LANE];
    UNROLL for (uint c = 0; c < PER_LANE; c++) v[c] = 0.0f;
    if (present) {
        device const int *entry = slot_mapping + 8u * (item / args.kv_heads);
        ulong row = (ulong(uint(entry[7])) * args.kv_heads + head) * args.slots + uint(entry[2]);
        device const uchar *bytes = codes + row * CODE_BYTES;
        UNROLL for (uint c = 0; c < PER_LANE; c++) {
            uint number = l + 16u * c;
            if (number < HEAD_DIM) {
                row_numbers<KIND, BITS, 1>(bytes, number, shared.centroids, v + c);
                v[c] *= row_scale<KIND>(scales, row, number / (HEAD_DIM / ROW_GROUPS), args.factor);
            }
        }
    }
    if (ROTATE) rotate_inverse(v, l, shared.rows[ORDER > 1 ? mine : 0]);
    if (!present) return;
    UNROLL for (uint c = 0; c < PER_LANE; c++) {
        uint number = l + 16u * c;
        if (number < HEAD_DIM) {
            float x = v[c];
            if (EQUALISER) x *= equaliser[head * HEAD_DIM + number];
            if (CENTER) x += center[head * HEAD_DIM + number];
            put_number(output, args.target, ulong(item) * HEAD_DIM + number, x);
        }
    }
}
