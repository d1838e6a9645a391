// Encodes a row that lies over sixteen lanes into `bytes`, CODE_BYTES of threadgroup memory of the lanes' own, with the
// codes one by one in `codes`, HEAD_DIM bytes alike. The bytes are those of the reference.
typedef KvForm<KIND> Form;

// The number of boundaries strictly below u: a binary search, one bit at a time.
inline uint code_of_wide(Wide u, threadgroup const float *boundaries) {
    uint code = 0;
    for (uint step = 1u << (BITS - 1); step > 0; step /= 2) {
        uint middle = code + step - 1;
        float high = boundaries[middle];
        bool below = high < u.high || (high == u.high && BOUNDARIES_LOW[middle] < u.low);
        if (below) code += step;
    }
    return code;
}

inline float magnitude_of(float x) { return abs(x); }

inline float magnitude_of(Wide x) { return abs(x.high); }

inline Wide scaled(float x, float power) {
    Wide wide = {x * power, 0.0f};
    return wide;
}

inline Wide scaled(Wide x, float power) {
    Wide wide = {x.high * power, x.low * power};
    return wide;
}

// The root of the sum of squares of the numbers of a group, chunks `first` to `end` of sixteen, as from doubles, and
// that of their mean. Both zero for a zero group.
struct Spread {
    Wide norm, sigma;
};

template <typename T> inline Spread spread_of(thread const T *v, uint first, uint end) {
    Spread spread;
    clear(spread.norm);
    clear(spread.sigma);
    float most = 0.0f;
    UNROLL for (uint c = 0; c < PER_LANE; c++) {
        if (c >= first && c < end) most = max(most, magnitude_of(v[c]));
    }
    most = row_max(most);
    // A power of two near the largest, so that no square overflows or vanishes.
    float power = power_near(most);
    float inverse = 1.0f / power;
    Wide sum;
    clear(sum);
    UNROLL for (uint c = 0; c < PER_LANE; c++) {
        if (c >= first && c < end) sum = wide_accumulate(sum, wide_square(scaled(v[c], inverse)));
    }
    sum = wide_row_sum(sum);
    if (most == 0.0f) return spread;
    Wide count = {16.0f * float(end - first), 0.0f};
    spread.norm = wide_product(wide_sqrt(sum), power);
    spread.sigma = wide_product(wide_sqrt(wide_quotient(sum, count)), power);
    return spread;
}

// The number of positive boundaries below a magnitude, and the centroid there. Up to four bits they are compared one by
// one, which takes no memory; more are searched for. A negative number on a boundary belongs above it: its magnitude is
// raised by the least step first.
inline float centroid_of(float magnitude, threadgroup const float *centroids, threadgroup const float *boundaries,
                         thread uint *below) {
    const uint HALF = 1u << (BITS - 1);
    if (BITS <= 4) {
        float centroid = CENTROIDS[HALF];
        uint count = 0;
        UNROLL for (uint j = 1; j < HALF; j++) {
            bool past = BOUNDARIES[HALF - 1 + j] < magnitude;
            centroid = past ? CENTROIDS[HALF + j] : centroid;
            count += past ? 1u : 0u;
        }
        *below = count;
        return centroid;
    }
    uint count = 0;
    UNROLL for (uint step = HALF / 2u; step > 0; step /= 2) {
        if (boundaries[HALF - 1 + count + step] < magnitude) count += step;
    }
    *below = count;
    return centroids[HALF + count];
}

// The magnitude of u times a factor, raised by the least step where u is not positive.
inline float magnitude_at(float u, float inverse) {
    return as_type<float>(as_type<uint>(abs(u) * inverse) + (u > 0.0f ? 0u : 1u));
}

// What quantising a unit group at a scale gives: what is gained, <u,c>/<c,c>, and the scale's inverse.
struct Fit {
    float gain, factor, inverse;
};

// Quantises a unit group at a candidate scale. A number and its centroid have the same sign, so that magnitudes do.
inline Fit fit_at(thread const float *u, uint first, uint end, threadgroup const float *centroids,
                  threadgroup const float *boundaries, uint candidate) {
    Fit fit;
    fit.inverse = INVERSE_CANDIDATES[candidate];
    float dot = 0.0f;
    float square = 0.0f;
    UNROLL for (uint c = 0; c < PER_LANE; c++) {
        if (c >= first && c < end) {
            uint below;
            float centroid = centroid_of(magnitude_at(u[c], fit.inverse), centroids, boundaries, &below);
            dot += abs(u[c]) * centroid;
            square += centroid * centroid;
        }
    }
    float product = row_sum(dot);
    float norm = row_sum(square);
    // Numbers of a unit group: sums of squares are near their count.
    fit.gain = usual_quotient(product * product, norm);
    fit.factor = usual_quotient(product, norm);
    return fit;
}

// The best of the candidates, the first of equals; none of numbers that are none. Teams of sixteen lanes that have the same row
// try one each, and meet in `fits`. A team alone tries one after the other: side by side they would take more code than caches
// of instructions keep, which a single token's vectors run through once.
inline Fit search(thread const float *u, uint first, uint end, uint l, threadgroup const float *centroids,
                  threadgroup const float *boundaries, uint team, threadgroup Fit *fits) {
    Fit best = {-1.0f, 0.0f, 1.0f};
    if (TEAMS > 1) {
        Fit fit = fit_at(u, first, end, centroids, boundaries, min(team, CANDIDATES - 1u));
        threadgroup_barrier();
        if (l == 0u) fits[team] = fit;
        threadgroup_barrier();
    }
    ROLLED for (uint candidate = 0; candidate < CANDIDATES; candidate++) {
        Fit fit;
        if (TEAMS > 1) fit = fits[candidate];
        else fit = fit_at(u, first, end, centroids, boundaries, candidate);
        if (fit.gain > best.gain) best = fit;
    }
    return best;
}

// The code of a number: its centroid's, above the middle or as far below it.
inline uint code_at(float u, float inverse, threadgroup const float *centroids, threadgroup const float *boundaries) {
    uint below;
    centroid_of(magnitude_at(u, inverse), centroids, boundaries, &below);
    return u > 0.0f ? (1u << (BITS - 1)) + below : (1u << (BITS - 1)) - 1u - below;
}

// One scale and the codes of a group.
inline float encode_fitted(thread float *v, uint first, uint end, uint l, threadgroup const float *centroids,
                           threadgroup const float *boundaries, threadgroup uchar *codes, uint team, threadgroup Fit *fits) {
    Spread spread = spread_of(v, first, end);
    float sigma = spread.sigma.high + spread.sigma.low;
    // A tiny deviation's reciprocal could overflow: its numbers are first multiplied by 2^100.
    float boost = sigma < 1e-30f ? 1.2676506002282294e30f : 1.0f;
    float inverse = 1.0f / (sigma * boost);
    UNROLL for (uint c = 0; c < PER_LANE; c++) {
        if (c >= first && c < end) v[c] = sigma == 0.0f ? 0.0f : v[c] * boost * inverse;
    }
    Fit best = search(v, first, end, l, centroids, boundaries, team, fits);
    UNROLL for (uint c = 0; c < PER_LANE; c++) {
        // Each of a row's teams makes its share of the codes.
        if (c >= first && c < end && c % TEAMS == team) codes[l + 16u * c] = uchar(code_at(v[c], best.inverse, centroids, boundaries));
    }
    return sigma == 0.0f ? 0.0f : sigma * best.factor;
}

// The same by the norm convention; `factor` is what the deviation becomes.
inline float encode_normed(thread const Wide *v, uint first, uint end, uint l, float factor,
                           threadgroup const float *boundaries, threadgroup uchar *codes) {
    Spread spread = spread_of(v, first, end);
    bool zero = spread.sigma.high == 0.0f;
    Wide one = {1.0f, 0.0f};
    Wide wide_factor = {factor, 0.0f};
    Wide divisor = one;
    if (!zero) divisor = wide_quotient(spread.sigma, wide_factor);
    UNROLL for (uint c = 0; c < PER_LANE; c++) {
        if (c >= first && c < end) codes[l + 16u * c] = uchar(code_of_wide(wide_quotient(v[c], divisor), boundaries));
    }
    Wide stored = ROW_GROUPS > 1 ? spread.sigma : spread.norm;
    return stored.high + stored.low;
}

// Packs codes into bit planes, with all lanes of a row: WIDTH bits of each from bit `shift` on.
inline void pack_plane(threadgroup const uchar *codes, uint lane, uint width, uint shift, threadgroup uchar *plane) {
    uint per_byte = 8u / width;
    uint mask = (1u << width) - 1u;
    for (uint byte = lane; byte < HEAD_DIM * width / 8u; byte += 16 * TEAMS) {
        uint bits = 0;
        for (uint k = 0; k < per_byte; k++) bits |= ((codes[byte * per_byte + k] >> shift) & mask) << (k * width);
        plane[byte] = uchar(bits);
    }
}

inline void pack(threadgroup const uchar *codes, uint lane, threadgroup uchar *bytes) {
    const uint LOW = Planes<BITS>::LOW;
    const uint HIGH = Planes<BITS>::HIGH;
    pack_plane(codes, lane, LOW, 0u, bytes);
    if (HIGH > 0u) pack_plane(codes, lane, HIGH, LOW, bytes + HEAD_DIM * LOW / 8u);
}

// x rounded to the nearest whole number, halves away from zero.
inline int round_away(float x) {
    float size = abs(x);
    int whole = int(size);
    if (size - float(whole) >= 0.5f) whole++;
    return x < 0.0f ? -whole : whole;
}

// 1 / scale, or 0 where that is not finite.
inline float inverse_of(float scale) {
    float inverse = 1.0f / scale;
    return abs(inverse) < as_type<float>(0x7f800000u) ? inverse : 0.0f;
}

// A block of 32 numbers, low and high of sixteen lanes: signed bytes, or four or five bits around a middle.
inline void encode_block(float low, float high, uint l, threadgroup uchar *block) {
    // The first of those of the largest magnitude.
    float best = abs(high) > abs(low) ? high : low;
    uint index = abs(high) > abs(low) ? l + 16u : l;
    UNROLL for (uint mask = 8; mask > 0; mask /= 2) {
        float other = simd_shuffle_xor(best, mask);
        uint other_index = simd_shuffle_xor(index, mask);
        if (abs(other) > abs(best) || (abs(other) == abs(best) && other_index < index)) {
            best = other;
            index = other_index;
        }
    }
    float centre = float(Form::ZERO);
    float scale = Form::CODE_BITS == 8 ? abs(best) / 127.0f : best / -centre;
    float inverse = inverse_of(scale);
    uint stored = float_to_half(scale);
    if (l == 0) {
        block[Form::SCALE_AT] = uchar(stored & 255u);
        block[Form::SCALE_AT + 1] = uchar(stored >> 8);
    }
    if (Form::CODE_BITS == 8) {
        block[Form::CODES_AT + l] = uchar(uint(round_away(low * inverse)) & 255u);
        block[Form::CODES_AT + 16 + l] = uchar(uint(round_away(high * inverse)) & 255u);
    } else {
        const uint MOST = (1u << Form::CODE_BITS) - 1u;
        uint a = min(uint(int(low * inverse + (centre + 0.5f))), MOST);
        uint b = min(uint(int(high * inverse + (centre + 0.5f))), MOST);
        block[Form::CODES_AT + l] = uchar((a & 15u) | ((b & 15u) << 4));
        if (Form::CODE_BITS == 5) {
            // Fifth bits: those of eight numbers meet in a byte.
            uint fifth = ((a >> 4) << (l % 8u)) | ((b >> 4) << (l % 8u + 8u));
            UNROLL for (uint mask = 1; mask < 8; mask *= 2) fifth |= simd_shuffle_xor(fifth, mask);
            if (l % 8u == 0u) {
                block[Form::HIGH_AT + l / 8u] = uchar(fifth & 255u);
                block[Form::HIGH_AT + 2 + l / 8u] = uchar(fifth >> 8);
            }
        }
    }
}

inline uint bits_of_brain(float x) {
    uint bits = as_type<uint>(x);
    return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}

// Rows of all families but codebooks. What a family scales a row's groups by goes to `stored`; dense rows have no scales
// beside their codes.
inline void encode_dense(thread const float *v, uint l, threadgroup uchar *bytes, thread float *stored) {
    stored[0] = 0.0f;
    UNROLL for (uint c = 0; c < PER_LANE; c++) {
        uint number = l + 16u * c;
        if (Form::BLOCK_BYTES > 0) {
            if (c % 2 == 0) encode_block(v[c], v[c + 1 < PER_LANE ? c + 1 : c], l, bytes + c / 2 * Form::BLOCK_BYTES);
        } else if (number < HEAD_DIM) {
            if (STORED == KIND_F32) {
                *(threadgroup float *)(bytes + 4u * number) = v[c];
            } else {
                uint bits = STORED == KIND_F16 ? uint(float_to_half(v[c])) : bits_of_brain(v[c]);
                *(threadgroup ushort *)(bytes + 2u * number) = ushort(bits);
            }
        }
    }
}
