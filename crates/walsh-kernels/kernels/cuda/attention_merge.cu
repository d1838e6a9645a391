// Merges the results of each query vector's pair and turns the sum back into the model's space. One group per vector; teams of
// sixteen lanes share the results. A vector that sees nothing gives zeros.
enum : int { TEAMS = THREADS / 16 };

struct Shared {
    float sums[TEAMS][HEAD_DIM];
    float row[2][ORDER > 1 ? HEAD_DIM : 1];
};

inline void attention_merge(const AttentionDecodeArgs &args, const float *partial, const float *sinks, const int *slot_mapping,
                            const uint *status, float *output, Shared &shared, Position at) {
    const float log2e = 1.44269504f, least = -1e30f;
    uint l = at.lane % 16u, team = at.index / 16u;
    uint vector = at.x, token = vector / args.heads, query_head = vector % args.heads, head = query_head / args.group;
    uint row = token * args.group + query_head % args.group;
    uint unit = row / args.unit_rows * args.tiles + row % args.unit_rows / LIVE;
    row = row % args.unit_rows % LIVE;
    // What this needs beside the results is there since before the launch in front began its work.
    uint verdict = status[0];
    Unit own = unit_of(args, slot_mapping, unit);
    Share share = share_of_one(args, own);
    int from = int(head) * share.stride;
    if (args.units > 1u) {
        share.share = share_of_all(args, slot_mapping, at.lane);
        from = tiles_before(args, slot_mapping, unit, at.lane) + int(head) * own.tiles;
    }
    uint first = unit * args.kv_heads + head + uint(from / share.share);
    int results = own.tiles > 0 ? (from + own.tiles - 1) / share.share - from / share.share + 1 : 0;
    walsh_begin();
    if (verdict != 0xffffffffu) return;
    const float2 *statistics = (const float2 *)(partial + args.statistics);
    float sink = SINKS ? fmaxf(sinks[query_head] * log2e, least) : least;
    float peak = sink;
    for (int i = int(at.lane); i < results; i += 32) peak = fmaxf(peak, statistics[ulong(first + i) * args.result_rows + row].x);
    peak = simd_max(peak);
    float sum = 0.0f;
    for (int i = int(at.lane); i < results; i += 32) {
        float2 mark = statistics[ulong(first + i) * args.result_rows + row];
        sum += mark.y * exp2f(mark.x - peak);
    }
    sum = simd_sum(sum);
    if (SINKS) sum += exp2f(sink - peak);
    float v[PER_LANE];
    UNROLL for (uint c = 0; c < PER_LANE; c++) v[c] = 0.0f;
    _Pragma("unroll 4") for (int i = int(team); i < results; i += TEAMS) {
        ulong place = ulong(first + i) * args.result_rows + row;
        float weight = exp2f(statistics[place].x - peak);
        UNROLL for (uint c = 0; c < PER_LANE; c++) {
            uint number = l + 16u * c;
            if (number < HEAD_DIM) v[c] = fmaf(weight, partial[place * HEAD_DIM + number], v[c]);
        }
    }
    row_store(v, l, shared.sums[team]);
    __syncthreads();
    if (at.simd != 0u) return;
    UNROLL for (uint c = 0; c < PER_LANE; c++) {
        v[c] = 0.0f;
        for (uint other = 0; other < TEAMS; other++) {
            if (l + 16u * c < HEAD_DIM) v[c] += shared.sums[other][l + 16u * c];
        }
    }
    if (ROTATE) rotate_inverse(v, l, shared.row[ORDER > 1 ? at.lane / 16u : 0]);
    if (at.lane >= 16u) return;
    UNROLL for (uint c = 0; c < PER_LANE; c++) {
        uint number = l + 16u * c;
        if (number < HEAD_DIM) output[ulong(vector) * HEAD_DIM + number] = sum == 0.0f ? 0.0f : v[c] / sum;
    }
}
