// Fragments of m16n8k16 matrices of halves.
inline uint shared_at(const void *pointer) { return uint(__cvta_generic_to_shared(pointer)); }

// A pointer that the compiler does not take apart again: what is added to it is added to the whole.
inline const uchar *settled(const uchar *pointer) {
    asm volatile("" : "+l"(pointer));
    return pointer;
}

inline uint permuted(uint a, uint b, uint selector) { return __byte_perm(a, b, selector); }

// Two floats as halves, the first in the low part.
inline uint half_pair(float a, float b) {
    uint pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(b), "f"(a));
    return pair;
}

inline float power_of_two(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

inline float logarithm(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// sums += a.b of a 16 x 16 and a 16 x 8 matrix.
inline void multiply_add(float (&sums)[4], const uint (&a)[4], uint b_low, uint b_high) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b_low), "r"(b_high));
}

// Two floats as bfloat16, the first in the low part.
inline uint bfloat_pair(float a, float b) {
    uint pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(b), "f"(a));
    return pair;
}

inline uint fma_halves(uint a, uint b, uint c) {
    uint d;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

inline uint multiply_halves(uint a, uint b) {
    uint d;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
}

inline uint fma_bfloats(uint a, uint b, uint c) {
    uint d;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

// The same of bfloat16.
inline void multiply_bfloats(float (&sums)[4], const uint (&a)[4], uint b_low, uint b_high) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b_low), "r"(b_high));
}

// Four 8 x 8 matrices of halves in shared memory: lane i names row i % 8 of matrix i / 8.
inline void load_matrices(uint (&to)[4], uint row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row)
                 : "memory");
}

inline void load_matrices_transposed(uint (&to)[4], uint row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row)
                 : "memory");
}

// The largest power of two that divides a number, 16 at most.
template <int NUMBER> struct Divides {
    enum : int { LOW = NUMBER & -NUMBER, STEP = LOW > 16 || NUMBER == 0 ? 16 : LOW };
};

// Below every score.
constexpr float LEAST = -1e30f;

// Bytes from device memory into shared memory, without waiting where there are four or more.
template <int BYTES> inline void copy_async(uint to, const uchar *from) {
    if constexpr (BYTES == 16) asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
    if constexpr (BYTES == 8) asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(to), "l"(from) : "memory");
    if constexpr (BYTES == 4) asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(from) : "memory");
    if constexpr (BYTES == 2) asm volatile("st.shared.u16 [%0], %1;" ::"r"(to), "h"(*(const ushort *)from) : "memory");
    if constexpr (BYTES == 1) asm volatile("st.shared.u8 [%0], %1;" ::"r"(to), "r"(uint(*from)) : "memory");
}

inline void end_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int LEFT> inline void await_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory"); }
