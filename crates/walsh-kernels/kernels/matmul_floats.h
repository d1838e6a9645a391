// output[m, n] = input[m] . weight[n] (+ bias[n]) for a few rows of input and weights that are floats.
//
// A simdgroup takes one row of the weight and at most ROWS of the input, GRAIN numbers a lane at a time: eight where
// both lie in whole vectors, else one. `split` simdgroups share a row.
enum : int { SIMDS = THREADS / 32, GRAIN = WIDE ? 8 : 1, WORDS = STORED == F32 ? 8 : 4 };

struct alignas(16) Vector {
    uint word[4];
};

struct Shared {
    float partial[SIMDS][ROWS];
};

inline float widen(uint bits) { return STORED == F16 ? half_to_float(ushort(bits)) : as_type<float>(bits << 16); }

inline void load_weights(device const uchar *row, uint index, thread float *to) {
    if (!WIDE) {
        if (STORED == F32) {
            to[0] = ((device const float *)row)[index];
        } else {
            to[0] = widen(((device const ushort *)row)[index]);
        }
        return;
    }
    UNROLL for (int v = 0; v < WORDS / 4; v++) {
        Vector vector = ((device const Vector *)row)[index / 8 * (WORDS / 4) + v];
        UNROLL for (int i = 0; i < 4; i++) {
            uint word = vector.word[i];
            if (STORED == F32) {
                to[(4 * v + i) % GRAIN] = as_type<float>(word);
            } else {
                to[2 * i % GRAIN] = widen(word & 0xffff);
                to[(2 * i + 1) % GRAIN] = widen(word >> 16);
            }
        }
    }
}

inline void load_input(device const float *row, uint index, thread float *to) {
    if (!WIDE) {
        to[0] = row[index];
        return;
    }
    UNROLL for (int v = 0; v < 2; v++) {
        Vector vector = ((device const Vector *)row)[index / 4 + v];
        UNROLL for (int i = 0; i < 4; i++) to[(4 * v + i) % GRAIN] = as_type<float>(vector.word[i]);
    }
}

inline void matmul_floats(constant MatMulFloatsArgs &args, device const uchar *weight, device const float *input, device const float *bias, device float *output, threadgroup Shared &shared, Position at) {
    uint split = args.split, share = at.simd % split;
    uint n = at.x * (SIMDS / split) + at.simd / split, first_row = at.y * ROWS;
    uint rows = min(args.rows - first_row, uint(ROWS));
    device const uchar *row = weight + ulong(min(n, args.n - 1)) * args.row_bytes;
    device const float *numbers = input + ulong(first_row) * args.k;
    float sums[ROWS];
    UNROLL for (int m = 0; m < ROWS; m++) sums[m] = 0.0f;
    for (uint index = (share * 32 + at.lane) * GRAIN; index < args.k; index += split * 32 * GRAIN) {
        float w[GRAIN], x[GRAIN];
        load_weights(row, index, w);
        UNROLL for (int m = 0; m < ROWS; m++) {
            if (ROWS > 1 && uint(m) >= rows) break;
            load_input(numbers + m * args.k, index, x);
            UNROLL for (int i = 0; i < GRAIN; i++) sums[m] = fma(w[i], x[i], sums[m]);
        }
    }
    UNROLL for (int m = 0; m < ROWS; m++) {
        float sum = simd_sum(sums[m]);
        if (at.lane == 0) shared.partial[at.simd][m] = sum;
    }
    threadgroup_barrier();
    uint m = at.lane;
    if (share != 0 || m >= rows || n >= args.n) return;
    float sum = shared.partial[at.simd][m];
    UNROLL for (uint other = 1; other < SIMDS; other++) {
        if (other < split) sum += shared.partial[at.simd + other][m];
    }
    if (args.biased != 0) sum += bias[n];
    output[ulong(first_row + m) * args.n + n] = sum;
}
