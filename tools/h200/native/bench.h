// Data, timing and reports of the native forms.
#pragma once
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#define CHECK(call)                                                                                    \
    do {                                                                                               \
        cudaError_t error = (call);                                                                    \
        if (error != cudaSuccess) {                                                                    \
            std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, cudaGetErrorString(error));           \
            std::exit(1);                                                                              \
        }                                                                                              \
    } while (0)

typedef uint32_t u32;
typedef uint64_t u64;

__device__ inline u32 shared_address(const void *pointer) { return u32(__cvta_generic_to_shared(pointer)); }

__device__ inline u32 scramble(u64 x) {
    x *= 0x9e3779b97f4a7c15ull;
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93ull;
    return u32(x >> 32);
}

__global__ void fill_words(u32 *to, u64 count, u64 seed) {
    for (u64 i = blockIdx.x * u64(blockDim.x) + threadIdx.x; i < count; i += u64(gridDim.x) * blockDim.x) to[i] = scramble(i + seed);
}

// 16-bit numbers of [low, 2 * low), one at every `stride` bytes.
__global__ void fill_scales(uint8_t *to, u64 count, int stride, float low, u64 seed) {
    for (u64 i = blockIdx.x * u64(blockDim.x) + threadIdx.x; i < count; i += u64(gridDim.x) * blockDim.x) {
        *(__half *)(to + i * stride) = __float2half_rn(low * (1.0f + float(scramble(i + seed) >> 8) / 16777216.0f));
    }
}

// Numbers of [-1, 1) from a fixed sequence.
static std::vector<float> numbers(size_t count) {
    std::vector<float> out(count);
    u64 state = 1;
    for (float &x : out) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        x = float(u32(state >> 40)) / 8388608.0f - 1.0f;
    }
    return out;
}

template <class T> static T *allocate(size_t count) {
    void *memory = nullptr;
    CHECK(cudaMalloc(&memory, count * sizeof(T)));
    return (T *)memory;
}

template <class T> static T *upload(const std::vector<T> &from) {
    T *to = allocate<T>(from.size());
    CHECK(cudaMemcpy(to, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
    return to;
}

template <class T> static std::vector<T> download(const T *from, size_t count) {
    std::vector<T> to(count);
    CHECK(cudaMemcpy(to.data(), from, count * sizeof(T), cudaMemcpyDeviceToHost));
    return to;
}

// Sets of so many bytes whose union is several times the L2 cache.
static int sets_of(u64 bytes) { return int(std::max<u64>(2, (u64(240) << 20) / bytes + 1)); }

// Microseconds of one launch: the median of 15 replays of a graph of launches, each on the next set of buffers.
static double time_of(int sets, const std::function<void(cudaStream_t, int)> &launch) {
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaEvent_t begin, end;
    CHECK(cudaStreamCreate(&stream));
    CHECK(cudaEventCreate(&begin));
    CHECK(cudaEventCreate(&end));
    int launches = (40 + sets - 1) / sets * sets;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < launches; i++) launch(stream, i % sets);
    CHECK(cudaGetLastError());
    CHECK(cudaStreamEndCapture(stream, &graph));
    CHECK(cudaGraphInstantiate(&exec, graph, 0));
    std::vector<double> times;
    for (int replay = 0; replay < 18; replay++) {
        float milliseconds;
        CHECK(cudaEventRecord(begin, stream));
        CHECK(cudaGraphLaunch(exec, stream));
        CHECK(cudaEventRecord(end, stream));
        CHECK(cudaStreamSynchronize(stream));
        CHECK(cudaEventElapsedTime(&milliseconds, begin, end));
        if (replay >= 3) times.push_back(milliseconds * 1000.0 / launches);
    }
    std::sort(times.begin(), times.end());
    CHECK(cudaGraphExecDestroy(exec));
    CHECK(cudaGraphDestroy(graph));
    CHECK(cudaEventDestroy(begin));
    CHECK(cudaEventDestroy(end));
    CHECK(cudaStreamDestroy(stream));
    return times[times.size() / 2];
}

struct Best {
    std::string name;
    double time = INFINITY, error = 0.0;
};

static void report(const char *shape, const std::string &name, double time, u64 bytes, double error, Best &best) {
    std::printf("  %-28s %-46s %9.2f us %7.3f TB/s  error %.1e\n", shape, name.c_str(), time, bytes / time * 1e-6, error);
    if (time < best.time) best = {name, time, error};
}

static double host_half(const uint8_t *at) {
    __half_raw raw;
    raw.x = (unsigned short)(at[0] | at[1] << 8);
    return double(__half2float(__half(raw)));
}

// How many blocks of a kernel a processor holds.
template <class F> static int resident(F kernel, int threads, size_t shared) {
    int blocks = 0;
    CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared)));
    CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, 100));
    CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, shared));
    return blocks;
}
