// Numbers to 8 bits, a quarter of a simdgroup for each 32. A number that is not finite makes the scale NaN. What rounding
// leaves is rounded again, PLANES times in all; a row of numbers is so many rows of codes.
inline void quantise(constant QuantiseArgs &args, device const float *input, device uint *output, Position at) {
    uint all = args.rows * args.blocks;
    uint item = (at.x * THREADS + at.index) / 8, part = at.lane % 8;
    bool live = item < all;
    uint place = min(item, all - 1);
    device const float *numbers = input + place * 32 + part * 4;
    uint row = place / args.blocks, block = place % args.blocks;
    float x[4];
    UNROLL for (int i = 0; i < 4; i++) x[i] = numbers[i];
    for (uint plane = 0; plane < PLANES; plane++) {
        float most = 0.0f, broken = 0.0f;
        UNROLL for (int i = 0; i < 4; i++) {
            most = max(most, abs(x[i]));
            broken += 0.0f * x[i];
        }
        UNROLL for (uint mask = 4; mask > 0; mask /= 2) {
            most = max(most, simd_shuffle_xor(most, mask));
            broken += simd_shuffle_xor(broken, mask);
        }
        // Below this a code's step has no reciprocal: such numbers are zeros.
        bool some = broken == 0.0f && most > 1e-36f;
        float scale = some ? most / 127.0f : broken;
        float inverse = some ? 127.0f / most : 0.0f;
        uint word = 0;
        int sum = 0;
        UNROLL for (int i = 0; i < 4; i++) {
            int code = some ? int(rint(x[i] * inverse)) : 0;
            word |= (uint(code) & 255) << (8 * i);
            sum += code;
            x[i] = fma(-scale, float(code), x[i]);
        }
        UNROLL for (uint mask = 2; mask > 0; mask /= 2) sum += simd_shuffle_xor(sum, mask);
        int other = simd_shuffle_xor(sum, 4u);
        if (live) {
            uint first = (row * PLANES + plane) * row_vectors(args.blocks / RUNS) + task_vector(block / RUNS) + block % RUNS * VECTORS * 32;
            output[4 * (first + 32 * (1 + part / 4)) + part % 4] = word;
            if (part == 0) {
                device uint *head = output + 4 * first;
                head[0] = as_type<uint>(scale);
                head[1] = as_type<uint>(scale * float(sum + other));
                head[2] = as_type<uint>(scale * float(sum));
                head[3] = as_type<uint>(scale * float(other));
            }
        }
    }
}
