// x = input (+ addend), kept in sum; output = x / sqrt(mean(x.x) + eps) (. weight) (+ after). One group per row.
struct Shared {
    float most[THREADS / 32];
    float squares[THREADS / 32];
};

// The largest of all threads' numbers.
inline float group_max(float value, threadgroup float *partial, Position at) {
    value = simd_max(value);
    if (at.lane == 0) partial[at.simd] = value;
    threadgroup_barrier();
    for (uint simd = 0; simd < THREADS / 32; simd++) value = max(value, partial[simd]);
    return value;
}

// The sum of all threads' numbers.
inline float group_sum(float value, threadgroup float *partial, Position at) {
    value = simd_sum(value);
    if (at.lane == 0) partial[at.simd] = value;
    threadgroup_barrier();
    float sum = 0.0f;
    for (uint simd = 0; simd < THREADS / 32; simd++) sum += partial[simd];
    return sum;
}

inline void rms_norm(constant RmsNormArgs &args, device const float *input, device const float *addend,
                     device float *sum, device const float *weight, device const float *after, device float *output,
                     threadgroup Shared &shared, Position at) {
    uint first = at.x * args.width;
    float most = 0.0f;
    float squares = 0.0f;
    // A thread's numbers, all on their way before one is waited for, where registers hold them.
    float held[HELD > 0 ? HELD : 1];
    if (HELD > 0) {
        UNROLL for (uint k = 0; k < HELD; k++) {
            uint column = at.index + k * THREADS;
            held[k] = column < args.width ? input[first + column] : 0.0f;
        }
        if (BEFORE) {
            float added[HELD > 0 ? HELD : 1];
            UNROLL for (uint k = 0; k < HELD; k++) {
                uint column = at.index + k * THREADS;
                added[k] = column < args.width ? addend[first + column] : 0.0f;
            }
            UNROLL for (uint k = 0; k < HELD; k++) held[k] += added[k];
        }
        UNROLL for (uint k = 0; k < HELD; k++) {
            most = max(most, abs(held[k]));
            squares = fma(held[k], held[k], squares);
        }
    } else {
        for (uint column = at.index; column < args.width; column += THREADS) {
            float x = input[first + column];
            if (BEFORE) {
                x += addend[first + column];
                sum[first + column] = x;
            }
            most = max(most, abs(x));
            squares = fma(x, x, squares);
        }
    }
    most = group_max(most, shared.most, at);
    squares = group_sum(squares, shared.squares, at);
    float mean = squares / float(args.width);
    float factor = 1.0f / sqrt(mean + args.eps);
    // Squares that overflow or vanish are taken of numbers scaled by a power of two, which is exact.
    uint exponent = as_type<uint>(most) >> 23;
    if (exponent != 255 && (exponent > 127 + 55 || (exponent < 127 - 50 && most > 0.0f))) {
        exponent = max(min(exponent, 127u + 100u), 127u - 60u);
        float scale = as_type<float>((254u - exponent) << 23);
        squares = 0.0f;
        if (HELD > 0) {
            UNROLL for (uint k = 0; k < HELD; k++) {
                float x = scale * held[k];
                squares = fma(x, x, squares);
            }
        } else {
            for (uint column = at.index; column < args.width; column += THREADS) {
                float x = scale * (BEFORE ? sum[first + column] : input[first + column]);
                squares = fma(x, x, squares);
            }
        }
        threadgroup_barrier();
        squares = group_sum(squares, shared.squares, at);
        mean = squares / float(args.width);
        factor = scale / sqrt(mean + args.eps * scale * scale);
    }
    if (HELD > 0) {
        float by[HELD > 0 ? HELD : 1];
        float then[HELD > 0 ? HELD : 1];
        UNROLL for (uint k = 0; k < HELD; k++) {
            uint column = at.index + k * THREADS;
            bool live = column < args.width;
            by[k] = WEIGHT && live ? weight[column] : 1.0f;
            then[k] = AFTER && live ? after[first + column] : 0.0f;
        }
        UNROLL for (uint k = 0; k < HELD; k++) {
            uint column = at.index + k * THREADS;
            if (column < args.width) {
                if (BEFORE) sum[first + column] = held[k];
                float x = held[k] * factor;
                if (WEIGHT) x *= by[k];
                if (AFTER) x += then[k];
                output[first + column] = x;
            }
        }
        return;
    }
    for (uint column = at.index; column < args.width; column += THREADS) {
        float x = BEFORE ? sum[first + column] : input[first + column];
        x *= factor;
        if (WEIGHT) x *= weight[column];
        if (AFTER) x += after[first + column];
        output[first + column] = x;
    }
}
