// Decode attention over a tq4 cache: the kernels, their reference and their measure.
#pragma once
#include "bench.h"

constexpr int HEADS = 32, KV_HEADS = 8, GROUP = HEADS / KV_HEADS, D = 128, CODE_BYTES = D / 2;

// Reconstruction points of the 16-level Lloyd-Max quantiser of a normal variable: the positive ones, as 16-bit numbers.
constexpr u32 MAGNITUDES[8] = {0x301c, 0x3636, 0x3941, 0x3b8a, 0x3d06, 0x3e79, 0x4023, 0x4177};

// A byte of each of four magnitudes from one on: the low one, or the one `shift` bits up.
constexpr u32 magnitude_bytes(int first, int shift) {
    u32 bytes = 0;
    for (int i = 0; i < 4; i++) bytes |= (MAGNITUDES[first + i] >> shift & 255) << (8 * i);
    return bytes;
}
constexpr u32 LOW_BYTES[2] = {magnitude_bytes(0, 0), magnitude_bytes(4, 0)};
constexpr u32 HIGH_BYTES[2] = {magnitude_bytes(0, 8), magnitude_bytes(4, 8)};

struct Cache {
    const uint8_t *keys, *values;
    const __half *key_scales, *value_scales;
};

__device__ inline uint4 load16(const uint8_t *at) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(at));
    return v;
}

__device__ inline uint2 load8(const uint8_t *at) {
    uint2 v;
    asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(at));
    return v;
}

__device__ inline void mma(float *c, const u32 *a, const u32 *b) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// The two numbers of each byte of a word, without memory: a sign and a magnitude, whose bytes come out of registers.
__device__ __forceinline__ void decode_word(u32 word, u32 *pairs) {
    constexpr u32 low_first = LOW_BYTES[0], low_last = LOW_BYTES[1], high_first = HIGH_BYTES[0], high_last = HIGH_BYTES[1];
    u32 negative = ~word & 0x88888888u;
    u32 index = (word ^ (negative - (negative >> 3))) & 0x77777777u, left = word << 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        u32 select = half == 0 ? index : index >> 16;
        u32 low = __byte_perm(low_first, low_last, select), high = __byte_perm(high_first, high_last, select);
        high |= ~__byte_perm(left, word, half == 0 ? 0x5140 : 0x7362) & 0x80808080u;
        pairs[2 * half] = __byte_perm(low, high, 0x5140);
        pairs[2 * half + 1] = __byte_perm(low, high, 0x7362);
    }
}

// The four pairs of a word: by arithmetic, or from the lane's own copy of the table of a byte's two numbers.
__device__ __forceinline__ void decode(bool arithmetic, u32 word, u32 table, u32 *pairs) {
    if (arithmetic) {
        decode_word(word, pairs);
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++) asm("ld.shared.u32 %0, [%1];" : "=r"(pairs[i]) : "r"(__byte_perm(word, 0, 0x4440 + i) * 128 + table));
    }
}

// What a lane has loaded of 16 * TILES positions.
template <int TILES> struct Loaded {
    uint4 keys[TILES][2];
    uint2 values[TILES][2][2];
    __half key_scales[TILES][2], value_scales[TILES][2];
};

// Row r of eight holds position r / 2 + 4 * (r % 2): so the transposed weights of a lane belong to positions four apart,
// and four lanes that load values side by side load four consecutive rows.
template <int TILES> __device__ inline void load_keys(Loaded<TILES> &to, const Cache &cache, u64 first, u32 lane) {
    u32 g = lane / 4, t = lane % 4, row = g / 2 + g % 2 * 4;
#pragma unroll
    for (int i = 0; i < 2 * TILES; i++) {
        u64 position = first + 8 * i + row;
        to.keys[i / 2][i % 2] = load16(cache.keys + position * CODE_BYTES + 16 * t);
        to.key_scales[i / 2][i % 2] = cache.key_scales[position];
        to.value_scales[i / 2][i % 2] = cache.value_scales[position];
    }
}

template <int TILES> __device__ inline void load_values(Loaded<TILES> &to, const Cache &cache, u64 first, u32 lane) {
    u32 g = lane / 4, t = lane % 4;
#pragma unroll
    for (int i = 0; i < 4 * TILES; i++) to.values[i / 4][i / 2 % 2][i % 2] = load8(cache.values + (first + 4 * i + t) * CODE_BYTES + 8 * g);
}

// One KV head's group of queries over a share of its positions. Positions, then numbers of a vector, are the rows of the
// matrix instruction, the queries its eight columns, of which GROUP are used. A warp takes 16 * TILES positions at a
// time with no word to the others; their results meet at the end. ARITHMETIC words of the four that a lane has of a key,
// and half as many of the two of a value, are decoded in registers, so that both pipes are busy.
template <int WARPS, int TILES, int ARITHMETIC, int RESIDENT>
__global__ void __launch_bounds__(WARPS * 32, RESIDENT) attention(const float *query, Cache cache, float *partial, float2 *statistics, int context) {
    extern __shared__ __align__(128) uint8_t memory[];
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, t = lane % 4;
    u32 splits = gridDim.x, split = blockIdx.x, kv_head = blockIdx.y;
    u64 start = u64(kv_head) * context;
    int units = context / (16 * TILES), step = int(WARPS * splits), unit = int(warp * splits + split);
    Loaded<TILES> loaded;
    if (unit < units) {
        load_keys<TILES>(loaded, cache, start + u64(unit) * (16 * TILES), lane);
        load_values<TILES>(loaded, cache, start + u64(unit) * (16 * TILES), lane);
    }
    u32 q[8][2];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float4 four = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (g < GROUP) four = *(const float4 *)(query + (kv_head * GROUP + g) * D + 32 * t + 4 * i);
        const float log2e = 1.44269504f;
        __half2 low = __floats2half2_rn(four.x * log2e, four.y * log2e), high = __floats2half2_rn(four.z * log2e, four.w * log2e);
        q[i][0] = *(u32 *)&low, q[i][1] = *(u32 *)&high;
    }
    // Lanes never meet in a bank: each has a copy of its own.
    for (u32 entry = threadIdx.x; entry < 256 * 8; entry += WARPS * 32) {
        u32 pairs[4];
        decode_word(entry / 8, pairs);
        ((uint4 *)memory)[entry] = make_uint4(pairs[0], pairs[0], pairs[0], pairs[0]);
    }
    __syncthreads();
    // One address that the compiler takes as it is, or it would add its two parts anew for each look-up; and no look-up
    // can come before it.
    u32 table;
    asm volatile("add.u32 %0, %1, %2;" : "=r"(table) : "r"(shared_address(memory)), "r"(4 * lane) : "memory");

    float out[8][4] = {}, most[2] = {-INFINITY, -INFINITY}, total[2] = {0.0f, 0.0f};
    for (; unit < units; unit += step) {
        bool more = unit + step < units;
        u64 next = start + u64(unit + step) * (16 * TILES);
        float scores[TILES][4] = {};
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
#pragma unroll
            for (int word = 0; word < 4; word++) {
                u32 upper[4], lower[4];
                decode(word < ARITHMETIC, (&loaded.keys[tile][0].x)[word], table, upper);
                decode(word < ARITHMETIC, (&loaded.keys[tile][1].x)[word], table, lower);
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    u32 a[4] = {upper[2 * i], lower[2 * i], upper[2 * i + 1], lower[2 * i + 1]};
                    mma(scores[tile], a, q[2 * word + i]);
                }
            }
        }
        float value_scale[TILES][2], peak[2] = {-INFINITY, -INFINITY};
#pragma unroll
        for (int i = 0; i < 4 * TILES; i++) {
            float &score = scores[i / 4][i % 4];
            score *= __half2float(loaded.key_scales[i / 4][i / 2 % 2]);
            peak[i % 2] = fmaxf(peak[i % 2], score);
            value_scale[i / 4][i / 2 % 2] = __half2float(loaded.value_scales[i / 4][i / 2 % 2]);
        }
        if (more) load_keys<TILES>(loaded, cache, next, lane);
        // Weights up to 256 fit in 16 bits: the sums are rescaled only where a score passes that.
        if (__any_sync(~0u, peak[0] > most[0] + 8.0f || peak[1] > most[1] + 8.0f)) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
#pragma unroll
                for (int mask = 4; mask < 32; mask *= 2) peak[i] = fmaxf(peak[i], __shfl_xor_sync(~0u, peak[i], mask));
                peak[i] = fmaxf(peak[i], most[i]);
                float keep = exp2_fast(most[i] - peak[i]);
                most[i] = peak[i];
                total[i] *= keep;
#pragma unroll
                for (int tile = 0; tile < 8; tile++) out[tile][i] *= keep, out[tile][2 + i] *= keep;
            }
        }
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
            u32 weights[2];
#pragma unroll
            for (int side = 0; side < 2; side++) {
                float first = exp2_fast(scores[tile][2 * side] - most[0]), second = exp2_fast(scores[tile][2 * side + 1] - most[1]);
                total[0] += first, total[1] += second;
                __half2 pair = __floats2half2_rn(first * value_scale[tile][side], second * value_scale[tile][side]);
                asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(weights[side]) : "r"(*(u32 *)&pair));
            }
#pragma unroll
            for (int word = 0; word < 2; word++) {
                // A byte is one number of two positions once their nibbles have changed places.
                u32 pairs[2][2][4];
#pragma unroll
                for (int side = 0; side < 2; side++) {
                    u32 one = (&loaded.values[tile][side][0].x)[word], two = (&loaded.values[tile][side][1].x)[word];
                    decode(word < ARITHMETIC / 2, (one & 0x0f0f0f0fu) | (two << 4 & 0xf0f0f0f0u), table, pairs[side][0]);
                    decode(word < ARITHMETIC / 2, (one >> 4 & 0x0f0f0f0fu) | (two & 0xf0f0f0f0u), table, pairs[side][1]);
                }
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    u32 a[4] = {pairs[0][0][i], pairs[0][1][i], pairs[1][0][i], pairs[1][1][i]};
                    mma(out[4 * word + i], a, weights);
                }
            }
        }
        if (more) load_values<TILES>(loaded, cache, next, lane);
    }

    // The warps' results become one.
    __syncthreads();
    float *sums = (float *)memory;
    float2 *marks = (float2 *)(memory + WARPS * GROUP * D * 4);
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int mask = 4; mask < 32; mask *= 2) total[i] += __shfl_xor_sync(~0u, total[i], mask);
        if (t >= GROUP / 2) continue;
        u32 row = warp * GROUP + 2 * t + i;
        if (g == 0) marks[row] = make_float2(most[i], total[i]);
#pragma unroll
        for (int tile = 0; tile < 8; tile++) *(float2 *)(sums + row * D + 16 * g + 2 * tile) = make_float2(out[tile][i], out[tile][2 + i]);
    }
    __syncthreads();
    for (u32 item = threadIdx.x; item < GROUP * D; item += WARPS * 32) {
        u32 row = item / D;
        float peak = -INFINITY, sum = 0.0f, all = 0.0f;
        for (int other = 0; other < WARPS; other++) peak = fmaxf(peak, marks[other * GROUP + row].x);
        for (int other = 0; other < WARPS; other++) {
            float2 mark = marks[other * GROUP + row];
            float keep = mark.x == -INFINITY ? 0.0f : exp2_fast(mark.x - peak);
            sum += keep * sums[other * GROUP * D + item];
            all += keep * mark.y;
        }
        u32 result = (kv_head * GROUP + row) * splits + split;
        partial[result * D + item % D] = sum;
        if (item % D == 0) statistics[result] = make_float2(peak, all);
    }
}

// Merges the shares of each query: one block for each, four teams of 128.
__global__ void __launch_bounds__(512) combine(const float *partial, const float2 *statistics, float *output, int splits) {
    __shared__ float sums[4][D], totals[4];
    int number = threadIdx.x % D, team = threadIdx.x / D;
    const float2 *marks = statistics + blockIdx.x * splits;
    float peak = -INFINITY, sum = 0.0f, total = 0.0f;
    for (int i = threadIdx.x % 32; i < splits; i += 32) peak = fmaxf(peak, marks[i].x);
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, mask));
    for (int i = team; i < splits; i += 4) {
        float keep = marks[i].x == -INFINITY ? 0.0f : exp2_fast(marks[i].x - peak);
        sum += keep * partial[(blockIdx.x * splits + i) * D + number];
        total += keep * marks[i].y;
    }
    sums[team][number] = sum;
    if (number == 0) totals[team] = total;
    __syncthreads();
    if (team != 0) return;
    for (int other = 1; other < 4; other++) sum += sums[other][number], total += totals[other];
    output[blockIdx.x * D + number] = sum / total;
}

struct AttentionData {
    int context, sets, processors;
    std::vector<Cache> caches;
    std::vector<float> query, expected;
    float *device_query, *partial, *output;
    float2 *statistics;
};

constexpr int SAMPLED[2] = {1, HEADS - 2};

// The scalar reference of the sampled heads over one set.
static std::vector<float> attend(const AttentionData &data, int set) {
    std::vector<float> result, magnitudes;
    for (u32 bits : MAGNITUDES) {
        const uint8_t bytes[2] = {uint8_t(bits), uint8_t(bits >> 8)};
        magnitudes.push_back(float(host_half(bytes)));
    }
    u64 context = data.context;
    const Cache &cache = data.caches[set];
    for (int head : SAMPLED) {
        u64 first = u64(head / GROUP) * context;
        std::vector<uint8_t> keys = download(cache.keys + first * CODE_BYTES, context * CODE_BYTES);
        std::vector<uint8_t> values = download(cache.values + first * CODE_BYTES, context * CODE_BYTES);
        std::vector<uint8_t> key_scales = download((const uint8_t *)(cache.key_scales + first), context * 2);
        std::vector<uint8_t> value_scales = download((const uint8_t *)(cache.value_scales + first), context * 2);
        auto value_of = [&](const uint8_t *row, int i) {
            int code = row[i / 2] >> (i % 2 * 4) & 15;
            return code < 8 ? -magnitudes[7 - code] : magnitudes[code - 8];
        };
        std::vector<double> scores(context), sums(D, 0.0);
        double peak = -INFINITY, total = 0.0;
        for (u64 p = 0; p < context; p++) {
            float dot = 0.0f;
            for (int i = 0; i < D; i++) dot += data.query[head * D + i] * value_of(&keys[p * CODE_BYTES], i);
            scores[p] = dot * host_half(&key_scales[2 * p]);
            peak = std::max(peak, scores[p]);
        }
        for (u64 p = 0; p < context; p++) {
            double weight = std::exp(scores[p] - peak), factor = weight * host_half(&value_scales[2 * p]);
            total += weight;
            for (int i = 0; i < D; i++) sums[i] += factor * value_of(&values[p * CODE_BYTES], i);
        }
        for (double sum : sums) result.push_back(float(sum / total));
    }
    return result;
}

template <int WARPS, int TILES, int ARITHMETIC, int RESIDENT> static void try_attention(const AttentionData &data, const char *shape, Best &best) {
    auto kernel = attention<WARPS, TILES, ARITHMETIC, RESIDENT>;
    size_t shared = std::max(256 * 128, WARPS * GROUP * (D * 4 + 8));
    int blocks = std::min(resident(kernel, WARPS * 32, shared), RESIDENT);
    if (blocks == 0) return;
    int splits = data.processors * blocks / KV_HEADS;
    CHECK(cudaMemset(data.output, 0xff, HEADS * D * sizeof(float)));
    auto launch = [&](cudaStream_t stream, int set) {
        kernel<<<dim3(splits, KV_HEADS), WARPS * 32, shared, stream>>>(data.device_query, data.caches[set], data.partial, data.statistics, data.context);
        combine<<<HEADS, 512, 0, stream>>>(data.partial, data.statistics, data.output, splits);
    };
    double time = time_of(data.sets, launch), worst = 0.0, largest = 0.0;
    std::vector<float> output = download(data.output, HEADS * D);
    for (int i = 0; i < 2 * D; i++) {
        double expected = data.expected[i], got = output[SAMPLED[i / D] * D + i % D];
        worst = std::max(worst, std::isfinite(got) ? std::fabs(got - expected) : INFINITY);
        largest = std::max(largest, std::fabs(expected));
    }
    char name[64];
    std::snprintf(name, sizeof name, "%dx%d warps, %d at once, %d of 4 without table", blocks, WARPS, 16 * TILES, ARITHMETIC);
    report(shape, name, time, u64(data.context) * KV_HEADS * 2 * (CODE_BYTES + 2), worst / largest, best);
}

static void measure_attention(int context, int processors) {
    AttentionData data;
    u64 rows = u64(context) * KV_HEADS, bytes = rows * 2 * (CODE_BYTES + 2);
    data.context = context, data.processors = processors, data.sets = sets_of(bytes);
    std::vector<uint8_t *> memory;
    for (int set = 0; set < data.sets; set++) {
        uint8_t *all = allocate<uint8_t>(bytes);
        memory.push_back(all);
        fill_words<<<1024, 256>>>((u32 *)all, rows * 2 * CODE_BYTES / 4, u64(set) << 40);
        fill_scales<<<1024, 256>>>(all + rows * 2 * CODE_BYTES, rows * 2, 2, 0.5f, u64(set) << 41);
        const __half *scales = (const __half *)(all + rows * 2 * CODE_BYTES);
        data.caches.push_back({all, all + rows * CODE_BYTES, scales, scales + rows});
    }
    data.query = numbers(HEADS * D);
    for (float &x : data.query) x *= 0.5f;
    data.device_query = upload(data.query);
    data.partial = allocate<float>(size_t(HEADS) * processors * D);
    data.statistics = allocate<float2>(size_t(HEADS) * processors);
    data.output = allocate<float>(HEADS * D);
    data.expected = attend(data, data.sets - 1);
    char shape[64];
    std::snprintf(shape, sizeof shape, "attention tq4 %d", context);
    Best best;
    try_attention<8, 2, 0, 2>(data, shape, best);
    try_attention<8, 2, 1, 2>(data, shape, best);
    try_attention<8, 2, 2, 2>(data, shape, best);
    try_attention<8, 2, 4, 2>(data, shape, best);
    try_attention<5, 4, 0, 2>(data, shape, best);
    try_attention<5, 4, 2, 2>(data, shape, best);
    try_attention<4, 1, 0, 5>(data, shape, best);
    try_attention<4, 1, 2, 5>(data, shape, best);
    std::printf("best %s: %s, %.2f us, %.3f TB/s of codes and scales, error %.1e\n", shape, best.name.c_str(), best.time, bytes / best.time * 1e-6, best.error);
    for (uint8_t *all : memory) CHECK(cudaFree(all));
    CHECK(cudaFree(data.device_query));
    CHECK(cudaFree(data.partial));
    CHECK(cudaFree(data.statistics));
    CHECK(cudaFree(data.output));
}
