// The cosines and sines of every token's pairs: [token][2][pairs]. A pair's frequency is a 64-bit fraction of a turn
// per position, so that the product wraps exactly.
inline void rope_table(constant RopeTableArgs &args, device const int *positions, device float *output, Position at) {
    uint index = at.x * THREADS + at.index;
    if (index >= args.count) return;
    uint token = index / args.pairs;
    uint pair = index % args.pairs;
    ulong turn = ulong(long(positions[token])) * args.turns[pair];
    // The nearest quarter, and how far it is: within an eighth of a turn.
    uint high = uint(turn >> 32);
    uint quarter = (high + 0x20000000u) >> 30;
    float rest = float(int(high - (quarter << 30))) * 1.462918079607e-9f; // 2.pi / 2^32
    float c = cos(rest);
    float s = sin(rest);
    float cosine = (quarter & 1u) ? s : c;
    float sine = (quarter & 1u) ? c : s;
    if (quarter == 1u || quarter == 2u) cosine = -cosine;
    if (quarter == 2u || quarter == 3u) sine = -sine;
    float magnitude = args.magnitude;
    if (args.context != 0) magnitude *= fma(args.scale, log(1.0f + float(uint(positions[token]) / args.context)), 1.0f);
    device float *row = output + token * 2u * args.pairs;
    row[pair] = cosine * magnitude;
    row[args.pairs + pair] = sine * magnitude;
}
