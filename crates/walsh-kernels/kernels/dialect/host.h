// The dialect's words for the host's C++ compiler: every collective asks the simulator.
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long long ulong;

#define device
#define constant const
#define threadgroup
#define thread
#define UNROLL
#define ROLLED
// A section of their own tells the simulator where tables lie.
#define TABLE static const __attribute__((section("walsh_table_data")))

// What lanes do together; `line` is where the kernel's text asks for it.
enum WalshCollective : uint {
    WALSH_SHUFFLE,
    WALSH_SHUFFLE_XOR,
    WALSH_SUM_FLOAT,
    WALSH_SUM_INT,
    WALSH_MAX_FLOAT,
    WALSH_SIMDGROUP_BARRIER,
    WALSH_THREADGROUP_BARRIER,
};
extern "C" uint walsh_collective(uint what, uint bits, uint operand, uint line);
extern "C" void walsh_atomic_min(uint *at, uint value);

template <typename To, typename From> inline To as_type(From from) {
    static_assert(sizeof(To) == sizeof(From), "as_type keeps every bit");
    union {
        From from;
        To to;
    } bits;
    bits.from = from;
    return bits.to;
}

inline float half_to_float(ushort bits) {
    uint sign = (uint)(bits & 0x8000) << 16;
    uint exponent = bits >> 10 & 31, fraction = bits & 1023;
    // A subnormal is its fraction in units of 2^-24, exactly.
    if (exponent == 0) {
        float magnitude = (float)fraction * 5.9604644775390625e-8f;
        return sign ? -magnitude : magnitude;
    }
    uint widened = exponent == 31 ? 255 : exponent + 112;
    return as_type<float>(sign | widened << 23 | fraction << 13);
}

inline ushort float_to_half(float value) {
    uint bits = as_type<uint>(value);
    uint sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return (ushort)(sign | 0x7e00);
    // From half a unit above the largest half on, everything is infinite.
    if (magnitude >= 0x477ff000) return (ushort)(sign | 0x7c00);
    uint exponent = magnitude >> 23;
    // Under 2^-25, and at it by the tie, everything is zero.
    if (exponent < 102) return (ushort)sign;
    uint fraction = exponent < 113 ? (magnitude & 0x7fffff) | 0x800000 : magnitude - (112u << 23);
    uint dropped = exponent < 113 ? 126 - exponent : 13;
    uint kept = fraction >> dropped, rest = fraction & ((1u << dropped) - 1), half = 1u << (dropped - 1);
    uint up = rest > half || (rest == half && (kept & 1));
    return (ushort)(sign | (kept + up));
}

// c + a.b of four signed bytes each; sums wrap around.
inline int dot4(int a, int b, int c) {
    uint sum = (uint)c;
    for (int at = 0; at < 32; at += 8) sum += (uint)((int)(signed char)(a >> at) * (int)(signed char)(b >> at));
    return (int)sum;
}

template <typename T> inline T simd_shuffle(T value, uint lane, uint line = __builtin_LINE()) {
    return as_type<T>(walsh_collective(WALSH_SHUFFLE, as_type<uint>(value), lane, line));
}

template <typename T> inline T simd_shuffle_xor(T value, uint mask, uint line = __builtin_LINE()) {
    return as_type<T>(walsh_collective(WALSH_SHUFFLE_XOR, as_type<uint>(value), mask, line));
}

inline float simd_sum(float value, uint line = __builtin_LINE()) {
    return as_type<float>(walsh_collective(WALSH_SUM_FLOAT, as_type<uint>(value), 0, line));
}

inline int simd_sum(int value, uint line = __builtin_LINE()) {
    return (int)walsh_collective(WALSH_SUM_INT, (uint)value, 0, line);
}

inline uint simd_sum(uint value, uint line = __builtin_LINE()) {
    return walsh_collective(WALSH_SUM_INT, value, 0, line);
}

inline float simd_max(float value, uint line = __builtin_LINE()) {
    return as_type<float>(walsh_collective(WALSH_MAX_FLOAT, as_type<uint>(value), 0, line));
}

inline void simdgroup_barrier(uint line = __builtin_LINE()) {
    walsh_collective(WALSH_SIMDGROUP_BARRIER, 0, 0, line);
}

inline void threadgroup_barrier(uint line = __builtin_LINE()) {
    walsh_collective(WALSH_THREADGROUP_BARRIER, 0, 0, line);
}

inline void atomic_min(device uint *at, uint value) { walsh_atomic_min(at, value); }

inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float exp(float x) { return __builtin_expf(x); }
inline float log(float x) { return __builtin_logf(x); }
inline float tanh(float x) { return __builtin_tanhf(x); }
inline float cos(float x) { return __builtin_cosf(x); }
inline float sin(float x) { return __builtin_sinf(x); }
inline float rint(float x) { return __builtin_rintf(x); }
inline float sqrt(float x) { return __builtin_sqrtf(x); }
inline float abs(float x) { return __builtin_fabsf(x); }
inline int abs(int x) { return x < 0 ? -x : x; }
inline float min(float a, float b) { return __builtin_fminf(a, b); }
inline float max(float a, float b) { return __builtin_fmaxf(a, b); }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline uint min(uint a, uint b) { return a < b ? a : b; }
inline uint max(uint a, uint b) { return a > b ? a : b; }
inline ulong min(ulong a, ulong b) { return a < b ? a : b; }
inline ulong max(ulong a, ulong b) { return a > b ? a : b; }
