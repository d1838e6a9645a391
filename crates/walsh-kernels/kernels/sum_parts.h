// output[i] = bias + the sum of args.parts matrices that lie behind each other, always in the same order.
inline void sum_parts(constant SumPartsArgs &args, device const float *parts, device const float *bias, device float *output, Position at) {
    uint index = at.x * THREADS + at.index;
    if (index >= args.count) return;
    float sum = args.biased != 0 ? bias[index % args.n] : 0.0f;
    for (uint part = 0; part < args.parts; part++) sum += parts[ulong(part) * args.count + index];
    output[index] = sum;
}
