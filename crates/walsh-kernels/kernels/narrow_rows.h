// Numbers to bfloat16, two to a thread. A row's numbers are even in count, so that pairs lie in one row.
inline void narrow_rows(constant NarrowArgs &args, device const float *input, device uint *output, Position at) {
    uint index = at.x * THREADS + at.index;
    if (index >= args.pairs) return;
    output[index] = narrow(input[2 * index]) | narrow(input[2 * index + 1]) << 16;
}
