// What gates of a feed-forward block are made of.
inline float silu(float x) { return x / (1.0f + exp(-x)); }

// GELU in its tanh form: x.sigmoid(2y) with y = sqrt(2/pi).(x + 0.044715.x^3).
inline float gelu_tanh(float x) {
    float y = 0.7978845608f * x * (1.0f + 0.044715f * x * x);
    return x / (1.0f + exp(-2.0f * y));
}
