// Looks at an op's positions and sequences, and works out where each token goes. One group.
// An entry is eight numbers: sequence, position, slot (-1: not stored), slot in the overlay (-1: not kept), first token of
// the sequence's run in the op, tokens of the run, position of the run's first token, and whose rows have the slot: the
// sequence's, or of a cache of pages (PAGE above 0) the first's, which are all sequences'.
inline bool known_run(device const int *sequences, int token, int count) {
    for (int earlier = 0; earlier < token; earlier++) {
        if (sequences[earlier] == sequences[token]) return false;
    }
    return count > 0;
}

// Tokens of one sequence, and the entries of its row of the page table that they need.
struct Run {
    int end;
    int row;
    int first, last;
};

inline Run run_from(constant KvTokensArgs &args, device const int *positions, device const int *sequences, int start) {
    int count = int(args.tokens);
    int sequence = SEQUENCES ? sequences[start] : 0;
    Run run;
    run.end = SEQUENCES ? start + 1 : count;
    while (SEQUENCES && run.end < count && sequences[run.end] == sequence) run.end++;
    run.row = 0;
    run.first = 0;
    run.last = -1;
    int from = positions[start];
    int to = positions[run.end - 1];
    bool good = sequence >= 0 && sequence < int(args.sequences) && from >= 0 && to >= from && to < int(args.capacity);
    if (!good) return run;
    run.row = sequence * int(args.per_sequence);
    if (!args.stores) {
        if (!args.own) to = from - 1;
        if (args.window > 0u) from = max(from + 1 - int(args.window), 0);
        else from = 0;
        if (to < from) return run;
    }
    run.first = from / PAGE;
    run.last = to / PAGE;
    return run;
}

// Whether an entry's page is there, and no other of the op is stored into as the same.
inline bool good_page(constant KvTokensArgs &args, device const int *positions, device const int *sequences,
                      device const int *table, int own) {
    int page = table[own];
    if (page < 0 || page >= int(args.pages)) return false;
    if (!args.stores) return true;
    for (int start = 0; start < int(args.tokens);) {
        Run run = run_from(args, positions, sequences, start);
        for (int entry = run.first; entry <= run.last; entry++) {
            if (run.row + entry != own && table[run.row + entry] == page) return false;
        }
        start = run.end;
    }
    return true;
}

inline void check_pages(constant KvTokensArgs &args, device const int *positions, device const int *sequences,
                        device const int *table, device uint *status, Position at) {
    for (int start = 0; start < int(args.tokens);) {
        Run run = run_from(args, positions, sequences, start);
        for (int entry = run.first + int(at.index); entry <= run.last; entry += THREADS) {
            if (!good_page(args, positions, sequences, table, run.row + entry)) {
                atomic_min(status, args.check);
                atomic_min(status + 1 + args.check, uint(start));
            }
        }
        start = run.end;
    }
}

inline void kv_tokens(constant KvTokensArgs &args, device const int *positions, device const int *sequences,
                      device const int *table, device int *slot_mapping, device uint *status, Position at) {
    int count = int(args.tokens);
    if (PAGE > 0) check_pages(args, positions, sequences, table, status, at);
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
        int slot = good && left <= int(args.capacity) ? int(uint(position) % args.capacity) : -1;
        if (PAGE > 0 && slot >= 0) {
            int page = table[sequence * int(args.per_sequence) + position / PAGE];
            slot = page >= 0 && page < int(args.pages) ? page * PAGE + position % PAGE : -1;
        }
        entry[2] = slot;
        entry[3] = kept;
        entry[4] = start;
        entry[5] = end - start;
        entry[6] = positions[start];
        entry[7] = PAGE > 0 ? 0 : sequence;
    }
}
