// What makes the rows that a form is made of, where BEFORE is set; they are left in `written`. 1: RMS norms of the input's rows, `by`
// their weight. 2 and 3: silu(input).by and gelu_tanh(input).by, number by number.
enum : int { NORM = 1, GATES = 2 };

inline float activation(float x) { return BEFORE == GATES ? silu(x) : gelu_tanh(x); }

inline float4 gated(float4 x, float4 by) { return {activation(x.x) * by.x, activation(x.y) * by.y, activation(x.z) * by.z, activation(x.w) * by.w}; }

// The norm of a row of so many times four numbers, which a thread has at most HELD of.
inline void norm_row(const float4 *input, const float4 *by, float4 *written, uint fours, float eps, Marks &marks, Position at) {
    float4 held[HELD], weights[HELD];
    UNROLL for (uint i = 0; i < HELD; i++) {
        uint four = i * THREADS + at.index;
        held[i] = weights[i] = float4{0.0f, 0.0f, 0.0f, 0.0f};
        if (four < fours) held[i] = input[four], weights[i] = by[four];
    }
    float factor = norm_factor(held, 4 * fours, eps, marks, at);
    UNROLL for (uint i = 0; i < HELD; i++) {
        uint four = i * THREADS + at.index;
        float4 x = held[i], weight = weights[i];
        if (four < fours) written[four] = {x.x * factor * weight.x, x.y * factor * weight.y, x.z * factor * weight.z, x.w * factor * weight.w};
    }
}
