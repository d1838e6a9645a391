// output = f(a, b), number by number; b repeats. MAP: 0 silu(a).b, 1 gelu_tanh(a).b, 2 a + b, 3 factor.a, 4 soft cap, 5 g.sigmoid(factor.g).(u + 1)
// of a gate g up to the limit and u within it, 6 sigmoid(a).b.
inline void map(constant MapArgs &args, device const float *a, device const float *b, device float *output, Position at) {
    uint index = at.x * THREADS + at.index;
    if (index >= args.count) return;
    float x = a[index];
    if (MAP == 0) x = silu(x) * b[index];
    if (MAP == 1) x = gelu_tanh(x) * b[index];
    if (MAP == 2) x = x + b[index % args.period];
    if (MAP == 3) x = args.factor * x;
    if (MAP == 5) {
        // A comparison with what is no number is false: it stays.
        float u = b[index];
        x = x > args.limit ? args.limit : x;
        u = u > args.limit ? args.limit : u;
        u = u < -args.limit ? -args.limit : u;
        x = x / (1.0f + exp(-args.factor * x)) * (u + 1.0f);
    }
    if (MAP == 6) x = b[index] / (1.0f + exp(-x));
    if (MAP == 4) x = args.factor * tanh(x / args.factor);
    output[index] = x;
}
