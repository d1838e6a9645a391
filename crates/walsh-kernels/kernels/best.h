// The order of candidates: larger numbers first, equals by ascending index. No index is 0xffffffff.
struct Best {
    float value;
    uint index;
};

inline bool better(Best a, Best b) { return a.value > b.value || (a.value == b.value && a.index < b.index); }

inline Best simd_best(Best best) {
    UNROLL for (uint mask = 16; mask > 0; mask /= 2) {
        Best other;
        other.value = simd_shuffle_xor(best.value, mask);
        other.index = simd_shuffle_xor(best.index, mask);
        if (better(other, best)) best = other;
    }
    return best;
}
