// The dialect's words for the Metal Shading Language.
#include <metal_stdlib>
using namespace metal;

// Every product and sum is rounded on its own.
#pragma clang fp contract(off)
#if __METAL_VERSION__ >= 320
#pragma METAL fp contract(off)
#pragma METAL fp math_mode(safe)
#endif

#define UNROLL _Pragma("clang loop unroll(full)")
#define ROLLED _Pragma("clang loop unroll(disable)")
#define TABLE constant const

inline float half_to_float(ushort bits) { return float(as_type<half>(bits)); }

inline ushort float_to_half(float value) { return as_type<ushort>(half(value)); }

inline int dot4(int a, int b, int c) {
    char4 x = as_type<char4>(a), y = as_type<char4>(b);
    return c + int(x.x) * y.x + int(x.y) * y.y + int(x.z) * y.z + int(x.w) * y.w;
}

inline void simdgroup_barrier() { simdgroup_barrier(mem_flags::mem_device | mem_flags::mem_threadgroup); }

inline void threadgroup_barrier() { threadgroup_barrier(mem_flags::mem_device | mem_flags::mem_threadgroup); }

inline void atomic_min(device uint *at, uint value) {
    atomic_fetch_min_explicit((device atomic_uint *)at, value, memory_order_relaxed);
}
