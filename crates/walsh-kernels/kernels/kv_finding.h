// What is found of a vector that is to be stored, number by number and lane by lane.
struct Finding {
    float most;
    float squares;
    bool finite;
};

// Takes a number into account, after the cache's preparation where it is a key's.
inline void look(thread Finding &finding, float x, bool key, ulong place, device const float *equaliser, device const float *center) {
    if (CENTER && key) x -= center[place];
    // What is far from usual is not stored, whatever its quotient is taken for.
    if (EQUALISER && key) x = usual_quotient(x, equaliser[place]);
    finding.finite = finding.finite && abs(x) < as_type<float>(0x7f800000u);
    finding.most = max(finding.most, abs(x));
    // Scaled by 2^-70, so that the squares of all finite numbers have a sum.
    float small = x * 8.470329472543003e-22f;
    finding.squares = fma(small, small, finding.squares);
}

// Whether a vector of all lanes' findings stays below the limits of its side.
inline bool fits(Finding finding, float limit, float norm_limit) {
    float most = simd_max(finding.finite ? finding.most : as_type<float>(0x7f800000u));
    float norm = sqrt(simd_sum(finding.squares));
    return most < limit && norm < norm_limit;
}

// Has a check fail for a vector of a side.
inline void refuse(device uint *status, uint check, uint side, uint item) {
    atomic_min(status, check);
    atomic_min(status + 1 + check, (side << 31) | item);
}
