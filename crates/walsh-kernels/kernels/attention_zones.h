// Which positions a query sees of a zone, and where their rows are. Zones: 0 the codes, 1 the overlay, 2 the chunk's own keys
// and values. `Args` have the numbers that the functions name; entries are those of the slot mapping.
struct Seen {
    int start, end;
};

// Of the zones of a cache, for a query at its own position; `existing` positions of its sequence are stored.
template <typename Args> inline Seen seen_at(constant Args &args, int own, int existing) {
    Seen seen;
    seen.start = max(0, existing - int(args.capacity));
    if (args.window > 0u) seen.start = max(seen.start, own + 1 - int(args.window));
    seen.end = min(own + 1, existing);
    return seen;
}

template <typename Args, typename Entry> inline int existing_of(constant Args &args, Entry entry) {
    return args.prefill ? entry[6] : entry[6] + entry[5];
}

template <int OF_ZONE, typename Args, typename Entry> inline Seen seen_by(constant Args &args, Entry entry) {
    if (OF_ZONE != 2) return seen_at(args, entry[1], existing_of(args, entry));
    Seen seen;
    seen.end = entry[1] + 1;
    seen.start = max(entry[6], args.window > 0u ? seen.end - int(args.window) : 0);
    return seen;
}

// The first position of the overlay's recent ones for a query.
template <typename Args> inline int recent_start(constant Args &args, int own) {
    return max(own + 1 - int(args.recent), int(args.first));
}

// The positions of a zone that some row of a tile sees, as a range of places in line: an overlay's first tokens, `leading` of
// them, come before its recent ones, which begin at `skipped`.
struct Line {
    Seen seen;
    int leading, skipped, places;
};

template <int OF_ZONE, typename Args, typename Entry>
inline Line line_of(constant Args &args, Entry first_entry, Entry last_entry) {
    Line line;
    line.seen = seen_by<OF_ZONE>(args, first_entry);
    line.seen.end = seen_by<OF_ZONE>(args, last_entry).end;
    if (OF_ZONE == 0) {
        line.seen.start = max(line.seen.start, int(args.first));
        if (args.first + args.recent > 0u) line.seen.end = min(line.seen.end, recent_start(args, last_entry[1]));
    }
    line.leading = 0;
    line.skipped = 0;
    line.places = max(line.seen.end - line.seen.start, 0);
    if (OF_ZONE == 1) {
        line.leading = max(min(line.seen.end, int(args.first)) - line.seen.start, 0);
        int recent = args.recent > 0u ? recent_start(args, first_entry[1]) : line.seen.end;
        line.skipped = max(line.seen.start + line.leading, recent);
        line.places = line.leading + max(line.seen.end - line.skipped, 0);
    }
    return line;
}

// The position at a place in line.
template <int OF_ZONE> inline int position_at(Line line, int place) {
    return OF_ZONE == 1 && place >= line.leading ? line.skipped + place - line.leading : line.seen.start + place;
}

// What a query itself sees of the positions of a zone: those of a range, and of the overlay not those between.
template <int OF_ZONE, typename Args> inline bool sees(constant Args &args, Seen own, int recent, int position) {
    bool visible = position >= own.start && position < own.end;
    if (OF_ZONE == 0 && args.first + args.recent > 0u) visible = visible && position >= int(args.first) && position < recent;
    if (OF_ZONE == 1) visible = visible && (position < int(args.first) || (args.recent > 0u && position >= recent));
    return visible;
}

// The first row of a sequence and KV head, of the codes or of the overlay.
template <typename Args, typename Entry>
inline uint first_row_of(constant Args &args, Entry entry, uint head, uint slots, uint overlaid) {
    return (uint(overlaid == 0u ? entry[7] : entry[0]) * args.kv_heads + head) * slots;
}

// The row behind it that holds a position; `pages` are the sequence's, where positions lie in pages.
template <typename Args>
inline uint slot_of(constant Args &args, device const int *pages, int position, uint overlaid) {
    if (overlaid == 0u && PAGE > 0) {
        return uint(pages[uint(position) / uint(PAGE)]) * uint(PAGE) + uint(position) % uint(PAGE);
    }
    if (overlaid == 0u) return uint(position) % args.capacity;
    if (position < int(args.first)) return uint(position);
    return args.first + uint(position) % args.ring;
}
