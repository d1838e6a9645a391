// Turns queries and keys by their angles, and looks for keys, as they are then, and values that cannot be stored. One simdgroup
// per vector: queries come first, then keys, then values.
inline void rope_inspect(constant RopeInspectArgs &args, device const float *query, device const float *key, device const float *values,
                         device const float *table, device const float *equaliser, device const float *center, device float *turned_query,
                         device float *turned_key, device uint *status, Position at) {
    uint vector = at.x * (THREADS / 32) + at.simd;
    if (vector >= args.queries + 2 * args.vectors) return;
    bool of_query = vector < args.queries;
    uint side = vector >= args.queries + args.vectors ? 1u : 0u;
    uint item = of_query ? vector : vector - args.queries - side * args.vectors;
    ulong first = ulong(item) * HEAD_DIM, of_head = ulong(item % args.kv_heads) * HEAD_DIM;
    Finding finding = {0.0f, 0.0f, true};
    if (side == 1u) {
        for (uint number = at.lane; number < HEAD_DIM; number += 32) look(finding, values[first + number], false, of_head + number, equaliser, center);
    } else {
        device const float *input = of_query ? query : key;
        device float *output = of_query ? turned_query : turned_key;
        device const float *row = table + ulong(item / (of_query ? args.query_heads : args.kv_heads)) * 2u * PAIRS;
        UNROLL for (uint unit = at.lane; unit < HEAD_DIM - PAIRS; unit += 32) {
            if (unit >= PAIRS) {
                uint number = PAIRS + unit;
                float x = input[first + number];
                output[first + number] = x;
                if (!of_query) look(finding, x, true, of_head + number, equaliser, center);
                continue;
            }
            uint a = HALVES ? unit : 2u * unit, b = HALVES ? unit + PAIRS : 2u * unit + 1u;
            float cosine = row[unit], sine = row[PAIRS + unit];
            float x = input[first + a], y = input[first + b];
            float left = x * cosine - y * sine, right = x * sine + y * cosine;
            output[first + a] = left;
            output[first + b] = right;
            if (!of_query) {
                look(finding, left, true, of_head + a, equaliser, center);
                look(finding, right, true, of_head + b, equaliser, center);
            }
        }
    }
    if (of_query) return;
    bool stays = fits(finding, args.most[side], args.norm[side]);
    if (at.lane == 0 && !stays) refuse(status, args.check, side, item);
}
