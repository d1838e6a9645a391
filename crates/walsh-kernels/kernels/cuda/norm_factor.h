// The factor of a row's RMS norm, a group together, HELD times four of its numbers a thread.
enum : int { SIMDS = THREADS / 32 };

struct Marks {
    float most[SIMDS];
    float squares[SIMDS];
};

// 1 / sqrt(mean(x.x) + eps) of all threads' numbers.
inline float norm_factor(const float4 (&held)[HELD], uint width, float eps, Marks &marks, Position at) {
    float most = 0.0f, squares = 0.0f;
    UNROLL for (int i = 0; i < HELD; i++) {
        most = max(max(most, max(abs(held[i].x), abs(held[i].y))), max(abs(held[i].z), abs(held[i].w)));
        squares = fma(held[i].x, held[i].x, squares);
        squares = fma(held[i].y, held[i].y, squares);
        squares = fma(held[i].z, held[i].z, squares);
        squares = fma(held[i].w, held[i].w, squares);
    }
    most = simd_max(most);
    squares = simd_sum(squares);
    if (at.lane == 0) marks.most[at.simd] = most, marks.squares[at.simd] = squares;
    __syncthreads();
    squares = 0.0f;
    UNROLL for (int simd = 0; simd < SIMDS; simd++) {
        most = max(most, marks.most[simd]);
        squares += marks.squares[simd];
    }
    // Squares that overflow or vanish are taken of numbers scaled by a power of two, which is exact.
    uint exponent = as_type<uint>(most) >> 23;
    if (exponent == 255 || (exponent <= 127 + 55 && (exponent >= 127 - 50 || !(most > 0.0f)))) return 1.0f / sqrt(squares / float(width) + eps);
    exponent = max(min(exponent, 127u + 100u), 127u - 60u);
    float scale = as_type<float>((254u - exponent) << 23);
    squares = 0.0f;
    UNROLL for (int i = 0; i < HELD; i++) {
        float x[4] = {scale * held[i].x, scale * held[i].y, scale * held[i].z, scale * held[i].w};
        UNROLL for (int j = 0; j < 4; j++) squares = fma(x[j], x[j], squares);
    }
    squares = simd_sum(squares);
    __syncthreads();
    if (at.lane == 0) marks.squares[at.simd] = squares;
    __syncthreads();
    squares = 0.0f;
    for (uint simd = 0; simd < SIMDS; simd++) squares += marks.squares[simd];
    return scale / sqrt(squares / float(width) + eps * scale * scale);
}
