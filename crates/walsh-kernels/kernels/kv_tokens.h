// Looks at an op's positions and sequences, and works out where each token goes. One group.
// An entry is eight numbers: sequence, position, slot (-1: not stored), slot in the overlay (-1: not kept), first token of
// the sequence's run in the op, tokens of the run, position of the run's first token, nothing.
inline bool known_run(device const int *sequences, int token, int count) {
    for (int earlier = 0; earlier < token; earlier++) {
        if (sequences[earlier] == sequences[token]) return false;
    }
    return count > 0;
}

inline void kv_tokens(constant KvTokensArgs &args, device const int *positions, device const int *sequences,
                      device int *slot_mapping, device uint *status, Position at) {
    int count = int(args.tokens);
    for (int token = int(at.index); token < count; token += THREADS) {
        int sequence = 0;
        int start = 0;
        int end = count;
        bool good = true;
        if (SEQUENCES) {
            sequence = sequences[token];
            start = token;
            end = token + 1;
            while (start > 0 && sequences[start - 1] == sequence) start--;
            while (end < count && sequences[end] == sequence) end++;
            good = sequence >= 0 && sequence < int(args.sequences);
            if (start == token && !known_run(sequences, token, count)) good = false;
            if (args.most > 0u && end - start > int(args.most)) good = false;
        }
        int position = positions[token];
        good = good && position >= 0;
        if (token > start && (positions[token - 1] == 0x7fffffff || positions[token - 1] + 1 != position)) good = false;
        if (!args.ring_cache && position >= int(args.capacity)) good = false;
        if (!good) {
            atomic_min(status, args.check);
            atomic_min(status + 1 + args.check, uint(token));
        }
        int left = end - token;
        int kept = -1;
        if (good && args.ring > 0u && left <= int(args.ring)) kept = int(args.first + uint(position) % args.ring);
        if (good && position < int(args.first)) kept = position;
        device int *entry = slot_mapping + 8 * token;
        entry[0] = sequence;
        entry[1] = position;
        entry[2] = good && left <= int(args.capacity) ? int(uint(position) % args.capacity) : -1;
        entry[3] = kept;
        entry[4] = start;
        entry[5] = end - start;
        entry[6] = positions[start];
        entry[7] = 0;
    }
}
