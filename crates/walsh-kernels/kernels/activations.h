// A product's input in 8 bits: for each 32 numbers, a scale, sums of numbers as they are after rounding, and codes.
//
// That is VECTORS vectors: {scale, sum of 32, sum of the first 16, sum of the others}, codes 0 to 15, codes 16 to 31.
// RUNS consecutive blocks are what a task of the weights takes. Tasks stand in columns of 32, one for each lane, and
// vector after vector of a column: lanes read consecutive vectors, at offsets that are known to the compiler.
enum : int { VECTORS = 3, TASK_VECTORS = VECTORS * RUNS };

// The vectors of a row of `tasks` tasks.
inline uint row_vectors(uint tasks) { return (tasks + 31) / 32 * 32 * TASK_VECTORS; }

// The first vector of a task in its row; the next lies 32 further.
inline uint task_vector(uint task) { return task / 32 * 32 * TASK_VECTORS + task % 32; }
