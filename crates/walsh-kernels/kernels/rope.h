// Turns each head's leading pairs by their angles; what lies behind them is copied. One thread per pair, then per other
// number.
inline void rope(constant RopeArgs &args, device const float *input, device const float *table, device float *output,
                 Position at) {
    uint index = at.x * THREADS + at.index;
    uint units = args.head_dim - args.pairs;
    if (index >= args.heads * units) return;
    uint head = index / units;
    uint unit = index % units;
    uint first = head * args.head_dim;
    if (unit >= args.pairs) {
        uint number = first + args.pairs + unit;
        output[number] = input[number];
        return;
    }
    uint a = first + (HALVES ? unit : 2u * unit);
    uint b = first + (HALVES ? unit + args.pairs : 2u * unit + 1u);
    device const float *row = table + head / args.heads_per_token * 2u * args.pairs;
    float cosine = row[unit];
    float sine = row[args.pairs + unit];
    float x = input[a];
    float y = input[b];
    output[a] = x * cosine - y * sine;
    output[b] = x * sine + y * cosine;
}
