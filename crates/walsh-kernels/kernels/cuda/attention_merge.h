// The end of attention of few query rows: simdgroups of a group, and groups of a pair of query rows and a KV head, become one
// result, which is turned back.
// What a group has to do with a pair: its first result, how many there are, and where its vectors begin.
struct Pair {
    uint first, results, head;
};

// What the simdgroups have found becomes one result: sums of each row in the place of the first, and beside the queries' marks
// the largest score and the sum of weights of each. Where it is not the pair's only one it is left in `partial`.
inline void merge_simds(const AttentionDecodeArgs &args, Softmax &state, float *partial, uint result, bool only, uint rows, uchar *memory, Position at) {
    uint g = at.lane / 4u, t = at.lane % 4u;
    float2 *marks = (float2 *)(memory + MARKS), *found = marks + SIMDS * LIVE;
    float *sums = (float *)(memory + RING);
    __syncthreads();
    UNROLL for (int n = 0; n < COLUMNS; n++) {
        UNROLL for (int c = 0; c < 2; c++) {
            UNROLL for (uint mask = 4; mask < 32; mask *= 2) state.total[n][c] += simd_shuffle_xor(state.total[n][c], mask);
            uint row = at.simd * LIVE + 8u * n + 2u * t + c;
            if (8u * n + 2u * t + c >= rows) continue;
            if (g == 0u) marks[row] = make_float2(state.most[n][c], state.total[n][c]);
            UNROLL for (int i = 0; i < HEAD_DIM / 16; i++) {
                sums[row * HEAD_DIM + Values::value_number(i, 0u, g)] = state.out[i][n][c];
                sums[row * HEAD_DIM + Values::value_number(i, 1u, g)] = state.out[i][n][2 + c];
            }
        }
    }
    __syncthreads();
    for (uint item = at.index; item < rows * HEAD_DIM; item += THREADS) {
        uint row = item / HEAD_DIM;
        float peak = LEAST, sum = 0.0f, total = 0.0f;
        UNROLL for (int simd = 0; simd < SIMDS; simd++) peak = fmaxf(peak, marks[simd * LIVE + row].x);
        UNROLL for (int simd = 0; simd < SIMDS; simd++) {
            float2 mark = marks[simd * LIVE + row];
            float keep = power_of_two(mark.x - peak);
            sum = fmaf(keep, sums[simd * LIVE * HEAD_DIM + item], sum);
            total = fmaf(keep, mark.y, total);
        }
        if (only) {
            sums[item] = sum;
            if (item % HEAD_DIM == 0u) found[row] = make_float2(peak, total);
        } else {
            ulong place = ulong(result) * args.result_rows + row;
            partial[place * HEAD_DIM + item % HEAD_DIM] = sum;
            if (item % HEAD_DIM == 0u) ((float2 *)(partial + args.statistics))[place] = make_float2(peak, total);
        }
    }
}

// Whether a group is the last of a pair's to end. The count is back at zero then.
inline bool is_last(uint *count, uint results, uchar *memory, Position at) {
    uint *earlier = (uint *)(memory + MARKS);
    __syncthreads();
    if (at.index == 0u) {
        // What the group has written is seen by whoever sees the count, and the other way round.
        asm volatile("fence.acq_rel.gpu;" ::: "memory");
        *earlier = atomicInc(count, results - 1u);
        asm volatile("fence.acq_rel.gpu;" ::: "memory");
    }
    __syncthreads();
    return *earlier == results - 1u;
}

// A number that another group has written.
inline float2 fresh_pair(const float2 *from) {
    float2 pair;
    asm volatile("ld.global.cg.v2.f32 {%0, %1}, [%2];" : "=f"(pair.x), "=f"(pair.y) : "l"(from));
    return pair;
}

inline float4 fresh_four(const float *from) {
    float4 four;
    asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(four.x), "=f"(four.y), "=f"(four.z), "=f"(four.w) : "l"(from));
    return four;
}

// The results of all of a pair's groups become one, as `merge_simds` leaves one.
inline void merge_results(const AttentionDecodeArgs &args, const float *partial, const Pair &pair, uint rows, uchar *memory, Position at) {
    enum : uint { BATCH = 8, FOURS = HEAD_DIM / 4 };
    const float2 *statistics = (const float2 *)(partial + args.statistics);
    float2 *found = (float2 *)(memory + MARKS) + SIMDS * LIVE;
    ROLLED for (uint item = at.index; item < rows * FOURS; item += THREADS) {
        uint row = item / FOURS;
        float peak = LEAST, total = 0.0f, sum[4] = {};
        ROLLED for (uint start = 0; start < pair.results; start += BATCH) {
            // All of a batch are on their way at once.
            float2 marks[BATCH];
            float4 parts[BATCH];
            UNROLL for (uint i = 0; i < BATCH; i++) {
                ulong place = ulong(pair.first + min(start + i, pair.results - 1u)) * args.result_rows + row;
                marks[i] = fresh_pair(statistics + place);
                parts[i] = fresh_four(partial + place * HEAD_DIM + item % FOURS * 4u);
            }
            float most = peak;
            UNROLL for (uint i = 0; i < BATCH; i++) most = fmaxf(most, marks[i].x);
            float keep = power_of_two(peak - most);
            peak = most, total *= keep;
            UNROLL for (uint n = 0; n < 4; n++) sum[n] *= keep;
            UNROLL for (uint i = 0; i < BATCH; i++) {
                float weight = start + i < pair.results ? power_of_two(marks[i].x - most) : 0.0f;
                total = fmaf(weight, marks[i].y, total);
                sum[0] = fmaf(weight, parts[i].x, sum[0]), sum[1] = fmaf(weight, parts[i].y, sum[1]);
                sum[2] = fmaf(weight, parts[i].z, sum[2]), sum[3] = fmaf(weight, parts[i].w, sum[3]);
            }
        }
        ((float4 *)(memory + RING))[item] = make_float4(sum[0], sum[1], sum[2], sum[3]);
        if (item % FOURS == 0u) found[row] = make_float2(peak, total);
    }
}

// Turns a pair's sums back into the model's space. A row that sees nothing gives zeros.
inline void finish(const AttentionDecodeArgs &args, const float *sinks, float *output, const Unit &unit, uint head, uchar *memory, Position at) {
    const float2 *found = (const float2 *)(memory + MARKS) + SIMDS * LIVE;
    const float *sums = (const float *)(memory + RING);
    uint l = at.lane % 16u, mine = at.index / 16u;
    ROLLED for (uint start = 0; start < unit.rows; start += THREADS / 16) {
        uint row = start + mine;
        bool present = row < unit.rows;
        uint of_group = (unit.first_row + row) % args.group;
        float v[PER_LANE];
        UNROLL for (uint c = 0; c < PER_LANE; c++) v[c] = present && l + 16u * c < HEAD_DIM ? sums[row * HEAD_DIM + l + 16u * c] : 0.0f;
        if (VALUE_TURNS) rotate_inverse(v, l, (float *)(memory + PALEY_ROWS) + (ORDER > 1 ? mine * HEAD_DIM : 0));
        if (!present) continue;
        float2 mark = found[row];
        float keep = 1.0f;
        if (SINKS) {
            float sink = fmaxf(sinks[head * args.group + of_group] * 1.44269504f, LEAST), peak = fmaxf(mark.x, sink);
            keep = power_of_two(mark.x - peak);
            mark.y = mark.y * keep + power_of_two(sink - peak);
        }
        ulong vector = ulong((unit.first_row + row) / args.group) * args.heads + head * args.group + of_group;
        UNROLL for (uint c = 0; c < PER_LANE; c++) {
            uint number = l + 16u * c;
            if (number < HEAD_DIM) output[vector * HEAD_DIM + number] = mark.y == 0.0f ? 0.0f : v[c] * keep / mark.y;
        }
    }
}
