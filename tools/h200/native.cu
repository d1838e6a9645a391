// Native CUDA forms of two kernels that Walsh writes in its dialect: what a form for one device alone reaches.
//
//     nvcc -O3 -std=c++17 -gencode=arch=compute_90a,code=sm_90a tools/h200/native.cu -o native && ./native
//
// 1. Mat-vec over q4_0 blocks as they lie in a GGUF file, input in 8 bits with a scale and a sum for each 32.
// 2. Decode attention over a tq4 cache: 32 query heads, 8 KV heads, head size 128, rotated and scaled queries.
//
// Each is timed as a replayed CUDA graph of launches that rotate over sets of buffers larger in all than the L2 cache,
// the median of several replays, and a sample of its output is held against a scalar reference on the host.
// Every form of a kernel is printed, then the best of each shape.
#include "native/attention.h"
#include "native/matvec.h"

int main() {
    cudaDeviceProp device;
    CHECK(cudaGetDeviceProperties(&device, 0));
    std::printf("%s, %d processors, L2 %d MiB\n", device.name, device.multiProcessorCount, device.l2CacheSize >> 20);
    for (int n : {4096, 14336, 131072}) measure_matvec(n, device.multiProcessorCount);
    for (int context : {8192, 32768, 131072}) measure_attention(context, device.multiProcessorCount);
    return 0;
}
