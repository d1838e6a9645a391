// Words that are functions of the language where a platform has no instruction for them.
// Those of the sixteen bytes of four words that the bytes of `indices` name.
inline uint select_bytes(uint a, uint b, uint c, uint d, uint indices) {
    ulong low = ulong(b) << 32 | a, high = ulong(d) << 32 | c;
    uint bytes = 0;
    UNROLL for (uint i = 0; i < 32; i += 8) {
        uint index = indices >> i;
        bytes |= (uint(((index & 8u) != 0u ? high : low) >> (index & 7u) * 8u) & 255u) << i;
    }
    return bytes;
}

inline float usual_quotient(float a, float b) { return a / b; }
