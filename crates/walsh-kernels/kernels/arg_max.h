// The index of each row's largest number. One group per row.
struct Shared {
    float value[THREADS / 32];
    uint index[THREADS / 32];
};

inline void arg_max(constant SelectArgs &args, device const float *input, device int *output, device uint *status,
                    threadgroup Shared &shared, Position at) {
    device const float *row = input + ulong(at.x) * args.width;
    Best best = group_best(own_best(args, row, status, at), shared.value, shared.index, at);
    if (at.index == 0) output[at.x] = int(best.index);
}
