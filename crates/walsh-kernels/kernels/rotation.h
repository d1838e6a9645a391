// The rotation of a row of HEAD_DIM numbers that lies over sixteen lanes: number l + 16.c is v[c] of lane l, and each
// half of a simdgroup holds a row. ORDER is that of the Paley factor, 1 for a power of two. `row` is threadgroup memory
// of HEAD_DIM numbers of the sixteen lanes' own; powers of two leave it alone. Order and rounding of every operation are
// those of the reference. T is float, or Wide for what the reference does in doubles.
enum : int { PER_LANE = (HEAD_DIM + 15) / 16 };

inline float plus(float a, float b) { return a + b; }

inline float minus(float a, float b) { return a - b; }

inline float shuffled(float value, uint mask) { return simd_shuffle_xor(value, mask); }

inline float flip(float value, uint negative) { return as_type<float>(as_type<uint>(value) ^ (negative << 31)); }

inline float shortened(float value) { return value * ROTATION_FACTOR[0]; }

inline void clear(thread float &value) { value = 0.0f; }

inline uint sign_of(uint number) { return (SIGNS[number / 32u] >> (number % 32u)) & 1u; }

template <typename T> inline void row_store(thread const T *v, uint l, threadgroup T *row) {
    UNROLL for (uint c = 0; c < PER_LANE; c++) {
        if (l + 16u * c < HEAD_DIM) row[l + 16u * c] = v[c];
    }
}

template <typename T> inline void row_load(thread T *v, uint l, threadgroup const T *row) {
    UNROLL for (uint c = 0; c < PER_LANE; c++) {
        if (l + 16u * c < HEAD_DIM) v[c] = row[l + 16u * c];
    }
}

// The power of two's part.
template <typename T> inline void butterflies(thread T *v, uint l, threadgroup T *row) {
    if (ORDER == 1) {
        UNROLL for (uint reach = 1; reach < 16 && reach < HEAD_DIM; reach *= 2) {
            UNROLL for (uint c = 0; c < PER_LANE; c++) {
                T other = shuffled(v[c], reach);
                v[c] = (l & reach) ? minus(other, v[c]) : plus(v[c], other);
            }
        }
        UNROLL for (uint stride = 1; 16 * stride < HEAD_DIM; stride *= 2) {
            UNROLL for (uint c = 0; c + stride < PER_LANE; c++) {
                if ((c & stride) == 0) {
                    T a = v[c];
                    T b = v[c + stride];
                    v[c] = plus(a, b);
                    v[c + stride] = minus(a, b);
                }
            }
        }
    } else {
        row_store(v, l, row);
        simdgroup_barrier();
        for (uint reach = ORDER; reach < HEAD_DIM; reach *= 2) {
            for (uint pair = l; pair < HEAD_DIM / 2; pair += 16) {
                uint low = pair / reach * 2u * reach + pair % reach;
                T a = row[low];
                T b = row[low + reach];
                row[low] = plus(a, b);
                row[low + reach] = minus(a, b);
            }
            simdgroup_barrier();
        }
        row_load(v, l, row);
        simdgroup_barrier();
    }
}

// Every block of ORDER numbers times the Paley matrix or its transpose; a set bit of a row means -1.
template <int TRANSPOSED, typename T> inline void paley(thread T *v, uint l, threadgroup T *row) {
    if (ORDER > 1) {
        row_store(v, l, row);
        simdgroup_barrier();
        UNROLL for (uint c = 0; c < PER_LANE; c++) {
            uint number = l + 16u * c;
            if (number < HEAD_DIM) {
                uint bits = TRANSPOSED ? PALEY_TRANSPOSED[number % ORDER] : PALEY[number % ORDER];
                uint first = number / ORDER * ORDER;
                T sum;
                clear(sum);
                for (uint j = 0; j < ORDER; j++) sum = plus(sum, flip(row[first + j], (bits >> j) & 1u));
                v[c] = sum;
            }
        }
        simdgroup_barrier();
    }
}

template <typename T> inline void rotate_forward(thread T *v, uint l, threadgroup T *row) {
    UNROLL for (uint c = 0; c < PER_LANE; c++) {
        if (l + 16u * c < HEAD_DIM) v[c] = flip(v[c], sign_of(l + 16u * c));
    }
    paley<0>(v, l, row);
    butterflies(v, l, row);
    UNROLL for (uint c = 0; c < PER_LANE; c++) v[c] = shortened(v[c]);
}

template <typename T> inline void rotate_inverse(thread T *v, uint l, threadgroup T *row) {
    butterflies(v, l, row);
    paley<1>(v, l, row);
    UNROLL for (uint c = 0; c < PER_LANE; c++) {
        if (l + 16u * c < HEAD_DIM) v[c] = flip(shortened(v[c]), sign_of(l + 16u * c));
    }
}

// The sum over the sixteen lanes of a row, pairwise from the farthest: the reference's order.
inline float row_sum(float value) {
    UNROLL for (uint mask = 8; mask > 0; mask /= 2) value += simd_shuffle_xor(value, mask);
    return value;
}

inline float row_max(float value) {
    UNROLL for (uint mask = 8; mask > 0; mask /= 2) value = max(value, simd_shuffle_xor(value, mask));
    return value;
}
