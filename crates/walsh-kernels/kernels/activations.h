// A product's input in 8 bits: for each 32 numbers, a scale, sums of numbers as they are after rounding, and codes.
//
// That is VECTORS vectors: {scale, sum of 32, sum of the first 16, sum of the others}, codes 0 to 15, codes 16 to 31.
// `runs` consecutive blocks are a task of the weights; vector v of each task lies beside that of the next, so that
// lanes that take consecutive tasks read consecutive vectors.
enum : int { VECTORS = 3 };

inline uint activation_vector(uint blocks, uint runs, uint row, uint block, uint vector) {
    return (row * VECTORS * runs + block % runs * VECTORS + vector) * (blocks / runs) + block / runs;
}
