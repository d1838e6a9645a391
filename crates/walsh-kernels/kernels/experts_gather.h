// The rows of slots in their order to bfloat16, two numbers to a thread; zeros where there is no slot.
inline void expert_gather(constant ExpertGatherArgs &args, device const float *input, device const uint *order, device uint *output, Position at) {
    uint row = at.x / args.pieces, pair = at.x % args.pieces * THREADS + at.index, slot = order[row];
    if (pair >= args.pairs) return;
    uint word = 0;
    if (slot != 0xffffffffu) {
        device const float *numbers = input + (ulong(slot / args.slots) * args.pairs + pair) * 2;
        word = narrow(numbers[0]) | narrow(numbers[1]) << 16;
    }
    output[ulong(row) * args.pairs + pair] = word;
}
