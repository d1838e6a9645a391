// output = f(a, b), number by number, EACH of them a thread; b repeats. MAP: 0 silu(a).b, 1 gelu_tanh(a).b, 2 a + b, 3 factor.a,
// 4 soft cap, 5 g.sigmoid(factor.g).(u + 1) of a gate g up to the limit and u within it, 6 sigmoid(a).b, 7 a.b.
enum : int { HAS_B = MAP != 3 && MAP != 4 };

struct alignas(4 * EACH) Numbers {
    float x[EACH];
};

inline float mapped(constant MapArgs &args, float a, float b) {
    if (MAP == 0) return silu(a) * b;
    if (MAP == 1) return gelu_tanh(a) * b;
    if (MAP == 2) return a + b;
    if (MAP == 3) return args.factor * a;
    if (MAP == 6) return b / (1.0f + exp(-a));
    if (MAP == 7) return a * b;
    if (MAP == 4) return args.factor * tanh(a / args.factor);
    // A comparison with what is no number is false: it stays.
    a = a > args.limit ? args.limit : a;
    b = b > args.limit ? args.limit : b;
    b = b < -args.limit ? -args.limit : b;
    return a / (1.0f + exp(-args.factor * a)) * (b + 1.0f);
}

inline void map(constant MapArgs &args, device const float *a, device const float *b, device float *output, Position at) {
    uint place = at.x * THREADS + at.index;
    if (place >= args.count / EACH) return;
    Numbers numbers = ((device const Numbers *)a)[place], others = numbers;
    if (HAS_B) others = ((device const Numbers *)b)[MAP == 2 ? place % (args.period / EACH) : place];
    UNROLL for (int i = 0; i < EACH; i++) numbers.x[i] = mapped(args, numbers.x[i], others.x[i]);
    ((device Numbers *)output)[place] = numbers;
}
