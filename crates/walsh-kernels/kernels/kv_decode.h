// Reads numbers of encoded rows, each of a kind.

// COUNT codes of WIDTH bits each, from code `first` on, a multiple of COUNT.
template <int COUNT, int WIDTH> inline void plane_codes(device const uchar *plane, uint first, thread uint *codes) {
    if (COUNT * WIDTH >= 16) {
        device const ushort *words = (device const ushort *)(plane + first * WIDTH / 8u);
        UNROLL for (uint word = 0; word < (COUNT * WIDTH + 15) / 16; word++) {
            uint bits = words[word];
            UNROLL for (uint k = 0; k < 16 / WIDTH; k++) {
                codes[word * (16 / WIDTH) + k] = (bits >> (k * WIDTH)) & ((1u << WIDTH) - 1u);
            }
        }
    } else {
        uint bits = uint(plane[first * WIDTH / 8u]) >> (first * WIDTH % 8u);
        UNROLL for (uint k = 0; k < COUNT; k++) codes[k] = (bits >> (k * WIDTH)) & ((1u << WIDTH) - 1u);
    }
}

// Whether a row has a number of those that are read COUNT at a time.
template <int COUNT> inline bool has_number(uint number) { return HEAD_DIM % COUNT == 0 || number < HEAD_DIM; }

// COUNT numbers of a row from number `first` on, a multiple of COUNT; of a codebook's, the centroids. Behind the last number
// of a row there are zeros: blocks and codes are whole COUNTs, plain numbers need not be.
template <int KIND, int BITS, int COUNT>
inline void row_numbers(device const uchar *row, uint first, threadgroup const float *centroids, thread float *out) {
    if (KIND == KIND_F32) {
        UNROLL for (uint k = 0; k < COUNT; k++) out[k] = has_number<COUNT>(first + k) ? ((device const float *)row)[first + k] : 0.0f;
    }
    if (KIND == KIND_F16 || KIND == KIND_BF16) {
        UNROLL for (uint k = 0; k < COUNT; k++) {
            ushort bits = has_number<COUNT>(first + k) ? ((device const ushort *)row)[first + k] : ushort(0);
            out[k] = KIND == KIND_F16 ? half_to_float(bits) : as_type<float>(uint(bits) << 16);
        }
    }
    if (KvForm<KIND>::BLOCK_BYTES > 0) {
        device const uchar *block = row + first / 32u * KvForm<KIND>::BLOCK_BYTES;
        float scale = half_to_float(((device const ushort *)(block + KvForm<KIND>::SCALE_AT))[0]);
        uint within = first % 32u;
        UNROLL for (uint k = 0; k < COUNT; k++) {
            uint number = within + k;
            if (KvForm<KIND>::CODE_BITS == 8) {
                int code = block[KvForm<KIND>::CODES_AT + number];
                out[k] = scale * float(code > 127 ? code - 256 : code);
            } else {
                uint low = block[KvForm<KIND>::CODES_AT + number % 16u] >> (number / 16u * 4u) & 15u;
                uint high = KvForm<KIND>::CODE_BITS == 5 ? uint(block[KvForm<KIND>::HIGH_AT + number / 8u]) >> (number % 8u) & 1u : 0u;
                out[k] = scale * (float(low | (high << 4)) - float(KvForm<KIND>::ZERO));
            }
        }
    }
    if (KvForm<KIND>::CODEBOOK) {
        uint codes[COUNT];
        uint rest[COUNT];
        const int LOW = Planes<BITS>::LOW;
        const int HIGH = Planes<BITS>::HIGH;
        plane_codes<COUNT, LOW>(row, first, codes);
        if (HIGH > 0) {
            plane_codes<COUNT, HIGH == 0 ? 1 : HIGH>(row + HEAD_DIM * LOW / 8, first, rest);
            UNROLL for (uint k = 0; k < COUNT; k++) codes[k] |= rest[k] << LOW;
        }
        UNROLL for (uint k = 0; k < COUNT; k++) out[k] = centroids[codes[k]];
    }
}

// What the numbers of a row's group are multiplied by: its scale beside the codes, where it has one.
template <int KIND> inline float row_scale(device const uchar *scales, ulong row, uint group, float factor) {
    if (KvForm<KIND>::SCALE_BYTES == 2) return half_to_float(((device const ushort *)scales)[row * ROW_GROUPS + group]);
    if (KvForm<KIND>::SCALE_BYTES == 4) return ((device const float *)scales)[row * ROW_GROUPS + group] * factor;
    return 1.0f;
}
