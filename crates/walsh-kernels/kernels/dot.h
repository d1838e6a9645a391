// What one head vector and two of codes of the input add to a sum of products with a run of the weight.
inline float accumulate(float sum, thread const Run &run, thread const Vector *input) {
    UNROLL for (int side = 0; side < HALVES; side++) {
        int dot = 0;
        UNROLL for (int i = 0; i < 8 / HALVES; i++) {
            int word = side * 4 + i;
            dot = dot4(run.codes[word], int(input[1 + word / 4].word[word % 4]), dot);
        }
        sum = fma(run.scale[side] * as_type<float>(input[0].word[0]), float(dot), sum);
        if (MINIMA) sum = fma(-run.minimum[side], as_type<float>(input[0].word[HALVES == 1 ? 1 : 2 + side]), sum);
    }
    return sum;
}
