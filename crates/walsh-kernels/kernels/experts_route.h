// The experts of a token: a simdgroup takes the best of its scores one after the other, and a lane keeps each.
// SCORING: 0 the softmax of all logits, 1 that of the chosen, 2 sigmoids, 3 sigmoids over their sum.
struct Shared {
    // Each lane reads and writes its own: those whose index is its own modulo 32.
    float scores[MOST_EXPERTS];
};

inline float sigmoid(float x) { return 1.0f / (1.0f + exp(-x)); }

inline void expert_route(constant ExpertRouteArgs &args, device const float *logits, device const float *bias, device int *ids, device float *weights, device uint *status, threadgroup Shared &shared, Position at) {
    device const float *row = logits + ulong(at.x) * args.experts;
    float infinity = as_type<float>(0x7f800000u), most = -infinity;
    bool strange = false;
    for (uint expert = at.lane; expert < args.experts; expert += 32) {
        float logit = row[expert], score = logit;
        if (BIASED) score = sigmoid(logit) + bias[expert];
        strange = strange || !(abs(logit) < infinity) || !(abs(score) < infinity);
        most = max(most, logit);
        shared.scores[expert] = score;
    }
    if (strange) {
        atomic_min(status, args.check);
        atomic_min(status + 1 + args.check, at.x);
    }
    most = simd_max(most);
    float all = 0.0f;
    if (SCORING == 0) {
        for (uint expert = at.lane; expert < args.experts; expert += 32) all += exp(row[expert] - most);
        all = simd_sum(all);
    }
    uint own = 0;
    for (uint slot = 0; slot < args.used; slot++) {
        Best best = {-infinity, 0xffffffffu};
        for (uint expert = at.lane; expert < args.experts; expert += 32) {
            Best candidate = {shared.scores[expert], expert};
            if (better(candidate, best)) best = candidate;
        }
        best = simd_best(best);
        // Where scores are no numbers there may be no best: whoever reads the ids finds experts all the same.
        uint chosen = min(best.index, args.experts - 1);
        if (chosen % 32 == at.lane) shared.scores[chosen] = -infinity;
        if (slot == at.lane) own = chosen;
    }
    bool live = at.lane < args.used;
    float weight = 0.0f;
    if (live) weight = SCORING < 2 ? exp(row[own] - most) : sigmoid(row[own]);
    if (SCORING == 1) all = simd_sum(weight);
    if (SCORING == 3) all = simd_sum(weight) + 1e-20f;
    if (!live) return;
    if (SCORING != 2) weight /= all;
    ids[at.x * args.used + at.lane] = int(own);
    weights[at.x * args.used + at.lane] = args.scale * weight;
}
