// What the groups of a cluster have summed up, column after column of the same rows of weights in the memory of each, added and
// written with what belongs to it.
enum : int {
    SIMDS = THREADS / 32,
    GROUP_ROWS = 16 * SIMDS,
    // Columns lie apart so that the four that a simdgroup writes at once are in banks of their own.
    PITCH = GROUP_ROWS + 4
};

template <typename T> inline T *chosen(uint part, T *a, T *b, T *c, T *d) { return part == 0 ? a : part == 1 ? b : part == 2 ? c : d; }

// Which weight a unit of rows is of.
template <typename Args> inline uint part_of(const Args &args, uint unit) {
    return (unit >= args.first_unit[1]) + (unit >= args.first_unit[2]) + (unit >= args.first_unit[3]);
}

// Waits for the groups of the cluster.
inline void cluster_barrier() {
#if __CUDA_ARCH__ >= 900
    if (CLUSTER > 1) {
        asm volatile("barrier.cluster.arrive.aligned;" ::: "memory");
        asm volatile("barrier.cluster.wait.aligned;" ::: "memory");
        return;
    }
#endif
    __syncthreads();
}

// A number of another group's memory, where it lies in the own one.
inline float number_of(const float *own, uint group) {
#if __CUDA_ARCH__ >= 900
    if (CLUSTER > 1) {
        uint at;
        float number;
        asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(at) : "r"(shared_at(own)), "r"(group));
        asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(number) : "r"(at) : "memory");
        return number;
    }
#endif
    return *own;
}

// Where a group's sums meet: of its row and column.
inline float &meeting_at(threadgroup uchar *memory, uint row, uint column) { return ((float *)memory)[column * PITCH + row]; }

// Adds up the sums of COLUMNS rows of input from `first_column` on with the weights' rows from unit `first_unit` on, UNIT of them each.
// `powers` are what columns are multiplied with, one behind the other. A lane takes one row: what it writes of some columns is on
// its way at once.
template <int UNIT, int COLUMNS, typename Args>
inline void add_up(const Args &args, uint first_unit, uint first_column, const float *bias_0, const float *bias_1, const float *bias_2, const float *bias_3, const float *addend,
                   float *output_0, float *output_1, float *output_2, float *output_3, float *joined, const float *powers, threadgroup uchar *memory, Position at) {
    enum : int { STEP = 2 * CLUSTER, AT_ONCE = COLUMNS >= 8 * STEP ? 8 : COLUMNS > STEP ? COLUMNS / STEP : 1 };
    cluster_barrier();
    uint row = at.simd % (SIMDS / 2) * 32 + at.lane, unit = first_unit + row / UNIT, part = part_of(args, unit);
    uint place = (unit - args.first_unit[part]) * UNIT + row % UNIT, n = args.n[part], columns = min(args.rows - first_column, uint(COLUMNS));
    if (unit < args.units && place < n) {
        float *output = chosen(part, output_0, output_1, output_2, output_3);
        float bias = (args.biased >> part & 1) != 0 ? chosen(part, bias_0, bias_1, bias_2, bias_3)[place] : 0.0f;
        for (uint first = 2 * (at.x % CLUSTER) + at.simd / (SIMDS / 2); first < columns; first += AT_ONCE * STEP) {
            float added[AT_ONCE], parts[AT_ONCE][CLUSTER];
            UNROLL for (uint i = 0; i < AT_ONCE; i++) {
                uint column = min(first + i * STEP, columns - 1);
                if (ADD) added[i] = addend[ulong(first_column + column) * n + place];
                UNROLL for (int other = 0; other < CLUSTER; other++) parts[i][other] = number_of(&meeting_at(memory, row, column), other);
            }
            UNROLL for (uint i = 0; i < AT_ONCE; i++) {
                uint column = first + i * STEP;
                if (column >= columns) break;
                float sum = 0.0f;
                UNROLL for (int other = 0; other < CLUSTER; other++) sum += parts[i][other];
                if (powers != nullptr) sum *= powers[column];
                sum += bias;
                ulong to = ulong(first_column + column) * n + place;
                output[to] = sum;
                if (ADD) joined[to] = sum + added[i];
            }
        }
    }
    // A group's memory stays until all have read it.
    if (CLUSTER > 1) cluster_barrier();
}
