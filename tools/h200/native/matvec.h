// Mat-vec over q4_0 blocks: the kernel, its reference and its measure.
#pragma once
#include "bench.h"

constexpr int K = 4096, BLOCKS = K / 32, BLOCK_BYTES = 18, ROW_BYTES = BLOCKS * BLOCK_BYTES;
// A lane takes four consecutive blocks: 72 bytes, whose fields lie at offsets that the compiler knows. Eight-byte reads
// at that stride touch every bank once for each half of a warp.
constexpr int LANE_BYTES = ROW_BYTES / 32;

// A block's 8-bit input: its scale, and -8 times the sum of its codes, which takes the zero point of q4_0 into account.
struct Head {
    float scale;
    int zero;
};

__device__ inline void barrier_wait(u32 barrier, u32 parity) {
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n"
                 "}\n" ::"r"(barrier), "r"(parity)
                 : "memory");
}

// One row of weights on its way into threadgroup memory: a bulk copy by one lane, or sixteen bytes at a time by all.
template <bool BULK> __device__ inline void fetch_row(const uint8_t *row, u32 to, u32 barrier, u32 lane) {
    if (BULK) {
        if (lane == 0) {
            asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "n"(ROW_BYTES) : "memory");
            asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
                         "l"(row), "n"(ROW_BYTES), "r"(barrier)
                         : "memory");
        }
    } else {
#pragma unroll
        for (int i = 0; i < (ROW_BYTES / 16 + 31) / 32; i++) {
            u32 at = (i * 32 + lane) * 16;
            if (at < ROW_BYTES) asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to + at), "l"(row + at) : "memory");
        }
    }
}

__device__ inline float block_product(u32 d, const u32 *packed, const int *codes, Head head, float sum) {
    int dot = head.zero;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        dot = __dp4a(int(packed[i] & 0x0f0f0f0fu), codes[i], dot);
        dot = __dp4a(int(packed[i] >> 4 & 0x0f0f0f0fu), codes[4 + i], dot);
    }
    return fmaf(__half2float(__ushort_as_half((unsigned short)d)) * head.scale, float(dot), sum);
}

// Every warp walks over rows of its own with its share of the input in registers; STAGES rows are in flight for each.
template <int WARPS, int STAGES, bool BULK>
__global__ void __launch_bounds__(WARPS * 32) matvec(const uint8_t *weight, const int4 *input, const Head *heads, float *output, int n) {
    extern __shared__ __align__(128) uint8_t staged[];
    __shared__ u64 barriers[WARPS][STAGES];
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint8_t *rows = staged + warp * STAGES * ROW_BYTES;
    u32 to = shared_address(rows), barrier = shared_address(barriers[warp]);
    int first = int(warp * gridDim.x + blockIdx.x), step = int(WARPS * gridDim.x);
    if (BULK) {
        if (lane == 0) {
            for (int s = 0; s < STAGES; s++) asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(barrier + 8 * s) : "memory");
            asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
            asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        }
        __syncwarp();
    }
#pragma unroll
    for (int s = 0; s < STAGES; s++) {
        int row = first + s * step;
        if (row < n) fetch_row<BULK>(weight + u64(row) * ROW_BYTES, to + s * ROW_BYTES, barrier + 8 * s, lane);
        if (!BULK) asm volatile("cp.async.commit_group;" ::: "memory");
    }
    int codes[4][8];
    Head head[4];
#pragma unroll
    for (int b = 0; b < 4; b++) {
        head[b] = heads[lane * 4 + b];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int4 four = input[(lane * 4 + b) * 2 + i];
            codes[b][4 * i] = four.x, codes[b][4 * i + 1] = four.y, codes[b][4 * i + 2] = four.z, codes[b][4 * i + 3] = four.w;
        }
    }
    u32 stage = 0, parity = 0;
    for (int row = first; row < n; row += step) {
        if (BULK) {
            barrier_wait(barrier + 8 * stage, parity);
        } else {
            asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 1) : "memory");
            __syncwarp();
        }
        u32 w[18];
        const uint2 *own = (const uint2 *)(rows + stage * ROW_BYTES + lane * LANE_BYTES);
#pragma unroll
        for (int i = 0; i < 9; i++) {
            uint2 pair = own[i];
            w[2 * i] = pair.x, w[2 * i + 1] = pair.y;
        }
        __syncwarp();
        int next = row + STAGES * step;
        if (next < n) fetch_row<BULK>(weight + u64(next) * ROW_BYTES, to + stage * ROW_BYTES, barrier + 8 * stage, lane);
        if (!BULK) asm volatile("cp.async.commit_group;" ::: "memory");
        // Blocks 0 and 2 start at a word, so their codes straddle words; those of 1 and 3 do not.
        float sum = 0.0f;
#pragma unroll
        for (int b = 0; b < 4; b += 2) {
            const u32 *at = w + 9 * (b / 2);
            u32 shifted[4];
#pragma unroll
            for (int i = 0; i < 4; i++) shifted[i] = __byte_perm(at[i], at[i + 1], 0x5432);
            sum = block_product(at[0] & 0xffff, shifted, codes[b], head[b], sum);
            sum = block_product(at[4] >> 16, at + 5, codes[b + 1], head[b + 1], sum);
        }
#pragma unroll
        for (int mask = 16; mask > 0; mask /= 2) sum += __shfl_xor_sync(~0u, sum, mask);
        if (lane == 0) output[row] = sum;
        if (++stage == STAGES) stage = 0, parity ^= 1;
    }
}

struct MatvecData {
    int n, sets, processors;
    std::vector<uint8_t *> weights;
    std::vector<int8_t> codes;
    std::vector<Head> heads;
    int4 *input;
    Head *device_heads;
    float *output;
};

// The largest error over a sample of rows, against the largest number of them.
static double matvec_error(const MatvecData &data, int set) {
    std::vector<float> output = download(data.output, data.n);
    double worst = 0.0, largest = 0.0;
    for (int row = 0; row < data.n; row += data.n > 20000 ? 1021 : 61) {
        std::vector<uint8_t> blocks = download(data.weights[set] + u64(row) * ROW_BYTES, ROW_BYTES);
        double sum = 0.0;
        for (int block = 0; block < BLOCKS; block++) {
            const uint8_t *at = blocks.data() + block * BLOCK_BYTES;
            int dot = 0;
            for (int i = 0; i < 16; i++) {
                dot += ((at[2 + i] & 15) - 8) * data.codes[block * 32 + i];
                dot += ((at[2 + i] >> 4) - 8) * data.codes[block * 32 + 16 + i];
            }
            sum += host_half(at) * data.heads[block].scale * dot;
        }
        worst = std::max(worst, std::isfinite(output[row]) ? std::fabs(sum - output[row]) : INFINITY);
        largest = std::max(largest, std::fabs(sum));
    }
    return worst / largest;
}

template <int WARPS, int STAGES, bool BULK> static void try_matvec(const MatvecData &data, const char *shape, Best &best) {
    auto kernel = matvec<WARPS, STAGES, BULK>;
    size_t shared = size_t(WARPS) * STAGES * ROW_BYTES;
    int blocks = resident(kernel, WARPS * 32, shared);
    if (blocks == 0) return;
    CHECK(cudaMemset(data.output, 0xff, data.n * sizeof(float)));
    auto launch = [&](cudaStream_t stream, int set) {
        kernel<<<data.processors * blocks, WARPS * 32, shared, stream>>>(data.weights[set], data.input, data.device_heads, data.output, data.n);
    };
    double time = time_of(data.sets, launch);
    char name[64];
    std::snprintf(name, sizeof name, "%s %dx%d warps, %d rows ahead", BULK ? "bulk" : "cp.async", blocks, WARPS, STAGES);
    report(shape, name, time, u64(data.n) * ROW_BYTES, matvec_error(data, data.sets - 1), best);
}

static void measure_matvec(int n, int processors) {
    MatvecData data;
    u64 bytes = u64(n) * ROW_BYTES;
    data.n = n, data.processors = processors, data.sets = sets_of(bytes);
    for (int set = 0; set < data.sets; set++) {
        uint8_t *weights = allocate<uint8_t>(bytes);
        fill_words<<<1024, 256>>>((u32 *)weights, bytes / 4, u64(set) << 40);
        fill_scales<<<1024, 256>>>(weights, u64(n) * BLOCKS, BLOCK_BYTES, 0.01f, u64(set) << 41);
        data.weights.push_back(weights);
    }
    std::vector<float> x = numbers(K);
    data.codes.resize(K);
    data.heads.resize(BLOCKS);
    for (int block = 0; block < BLOCKS; block++) {
        float most = 0.0f;
        int sum = 0;
        for (int i = 0; i < 32; i++) most = std::max(most, std::fabs(x[block * 32 + i]));
        for (int i = 0; i < 32; i++) {
            data.codes[block * 32 + i] = int8_t(std::rint(x[block * 32 + i] / most * 127.0f));
            sum += data.codes[block * 32 + i];
        }
        data.heads[block] = {most / 127.0f, -8 * sum};
    }
    int8_t *input = upload(data.codes);
    data.input = (int4 *)input;
    data.device_heads = upload(data.heads);
    data.output = allocate<float>(n);
    char shape[64];
    std::snprintf(shape, sizeof shape, "mat-vec q4_0 %dx%d", n, K);
    Best best;
    try_matvec<8, 4, true>(data, shape, best);
    try_matvec<8, 3, true>(data, shape, best);
    try_matvec<16, 2, true>(data, shape, best);
    try_matvec<16, 3, true>(data, shape, best);
    try_matvec<16, 6, true>(data, shape, best);
    try_matvec<24, 2, true>(data, shape, best);
    try_matvec<8, 4, false>(data, shape, best);
    try_matvec<8, 3, false>(data, shape, best);
    try_matvec<16, 6, false>(data, shape, best);
    std::printf("best %s: %s, %.2f us, %.3f TB/s of weights, error %.1e\n", shape, best.name.c_str(), best.time, bytes / best.time * 1e-6, best.error);
    for (uint8_t *weights : data.weights) CHECK(cudaFree(weights));
    CHECK(cudaFree(input));
    CHECK(cudaFree(data.device_heads));
    CHECK(cudaFree(data.output));
}
