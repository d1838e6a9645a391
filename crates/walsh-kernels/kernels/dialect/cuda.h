// The dialect's words for NVRTC. No header of the CUDA toolkit is included.
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long long ulong;

#define device
#define constant const
#define threadgroup
#define thread
#define UNROLL _Pragma("unroll")
#define ROLLED _Pragma("unroll 1")
#define TABLE static const

#define WALSH_LANES 0xffffffffu

template <typename To, typename From> inline __device__ To as_type(From from) {
    static_assert(sizeof(To) == sizeof(From), "as_type keeps every bit");
    union {
        From from;
        To to;
    } bits;
    bits.from = from;
    return bits.to;
}

inline __device__ float half_to_float(ushort bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

inline __device__ ushort float_to_half(float value) {
    ushort bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

// c + a.b of four signed bytes each.
inline __device__ int dot4(int a, int b, int c) {
    int sum;
    asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
    return sum;
}

template <typename T> inline __device__ T simd_shuffle(T value, uint lane) {
    return __shfl_sync(WALSH_LANES, value, lane);
}

template <typename T> inline __device__ T simd_shuffle_xor(T value, uint mask) {
    return __shfl_xor_sync(WALSH_LANES, value, mask);
}

template <typename T> inline __device__ T simd_sum(T value) {
    UNROLL for (uint mask = 16; mask > 0; mask /= 2) value += simd_shuffle_xor(value, mask);
    return value;
}

inline __device__ float simd_max(float value) {
    UNROLL for (uint mask = 16; mask > 0; mask /= 2) value = fmaxf(value, simd_shuffle_xor(value, mask));
    return value;
}

// Those of the sixteen bytes of four words that the bytes of `indices` name.
inline __device__ uint select_bytes(uint a, uint b, uint c, uint d, uint indices) {
    uint selector = __byte_perm((indices | indices >> 4) & 0x77777777u, 0, 0x4420);
    uint low = __byte_perm(a, b, selector), high = __byte_perm(c, d, selector);
    // Bytes of ones where an index is 8 or more: a byte's sign, eight times.
    uint above;
    asm("prmt.b32 %0, %1, 0, 0xba98;" : "=r"(above) : "r"(indices << 4));
    return (low & ~above) | (high & above);
}

// a / b, rounded as it is elsewhere, where both are from 2^-60 to 2^60 in magnitude or a is 0: no branch looks at that first.
inline __device__ float usual_quotient(float a, float b) {
    float inverse;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(b));
    inverse = fmaf(fmaf(-b, inverse, 1.0f), inverse, inverse);
    float quotient = a * inverse;
    quotient = fmaf(fmaf(-b, quotient, a), inverse, quotient);
    return fmaf(fmaf(-b, quotient, a), inverse, quotient);
}

inline __device__ void simdgroup_barrier() { __syncwarp(); }

inline __device__ void threadgroup_barrier() { __syncthreads(); }

inline __device__ void atomic_min(device uint *at, uint value) { atomicMin(at, value); }

// The first thing that every kernel does. Where a graph lets a launch begin before the one in front of it has ended,
// this waits for that end, and then lets the next one come.
inline __device__ void walsh_begin() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}
