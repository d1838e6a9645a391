// output[m] = sum of weights[m, s] . input[m, s] over slots (+ onto[m]): a thread per number.
inline void expert_sum(constant ExpertSumArgs &args, device const float *input, device const float *weights, device const float *onto, device float *output, Position at) {
    uint index = at.x * THREADS + at.index;
    if (index >= args.count) return;
    uint token = index / args.width, column = index % args.width;
    float sum = ONTO ? onto[index] : 0.0f;
    for (uint slot = token * args.slots; slot < (token + 1) * args.slots; slot++) sum = fma(weights[slot], input[ulong(slot) * args.width + column], sum);
    output[index] = sum;
}
