// Numbers in 8 bits, as `quantise` makes them.
struct Rounded {
    // Four codes.
    uint word;
    // Of 32 numbers: their scale, and sums of the numbers as they are after rounding, of all, of the first 16 and of the others.
    float scale, sum, low, high;
};

// Four numbers to 8 bits, those of eight neighbouring lanes with one scale. A number that is not finite makes it NaN.
inline Rounded round_eight(float4 numbers) {
    float x[4] = {numbers.x, numbers.y, numbers.z, numbers.w};
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
    float inverse = some ? 127.0f / most : 0.0f;
    Rounded rounded;
    rounded.scale = some ? most / 127.0f : broken;
    rounded.word = 0;
    int sum = 0;
    UNROLL for (int i = 0; i < 4; i++) {
        int code = some ? int(rint(x[i] * inverse)) : 0;
        rounded.word |= (uint(code) & 255) << (8 * i);
        sum += code;
    }
    // The first four lanes have the first 16 numbers.
    UNROLL for (uint mask = 2; mask > 0; mask /= 2) sum += simd_shuffle_xor(sum, mask);
    int other = simd_shuffle_xor(sum, 4u);
    rounded.sum = rounded.scale * float(sum + other);
    rounded.low = rounded.scale * float(sum);
    rounded.high = rounded.scale * float(other);
    return rounded;
}
