// output = f(a, b), number by number; b repeats. MAP: 0 silu(a).b, 1 gelu_tanh(a).b, 2 a + b, 3 factor.a, 4 soft cap.
inline void map(constant MapArgs &args, device const float *a, device const float *b, device float *output, Position at) {
    uint index = at.x * THREADS + at.index;
    if (index >= args.count) return;
    float x = a[index];
    if (MAP == 0) x = silu(x) * b[index];
    if (MAP == 1) x = gelu_tanh(x) * b[index];
    if (MAP == 2) x = x + b[index % args.period];
    if (MAP == 3) x = args.factor * x;
    if (MAP == 4) x = args.factor * tanh(x / args.factor);
    output[index] = x;
}
