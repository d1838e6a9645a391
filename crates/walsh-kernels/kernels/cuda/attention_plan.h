// How the work of a decode is shared out: the tiles of all pairs of a unit (query rows that share a pass) and a KV head stand in
// line, unit by unit and head by head, and each group takes an equal share of the line. Of a single unit every pair has whole
// groups to itself. A pair's results lie side by side: that of a group is number pair + group.
struct Unit {
    uint first_row, rows;
    // Of the slot mapping's entries of its first and last tokens: positions, the sequence, whose rows have its slots, and how
    // many positions are stored.
    int first_own, last_own, sequence, holder, existing;
    Line codes, overlay;
    // Tiles of the overlay and of both, and the first tile of the codes.
    int overlaid, tiles, first_tile;
};

inline void load_entry(int (&to)[8], const int *from) {
    int4 low = ((const int4 *)from)[0], high = ((const int4 *)from)[1];
    to[0] = low.x, to[1] = low.y, to[2] = low.z, to[3] = low.w;
    to[4] = high.x, to[5] = high.y, to[6] = high.z, to[7] = high.w;
}

inline Unit unit_of(const AttentionDecodeArgs &args, const int *slot_mapping, uint number) {
    Unit unit;
    unit.first_row = number / args.tiles * args.unit_rows + number % args.tiles * LIVE;
    unit.rows = min(uint(LIVE), args.unit_rows - number % args.tiles * LIVE);
    int first[8], last[8];
    load_entry(first, slot_mapping + 8u * (unit.first_row / args.group));
    load_entry(last, slot_mapping + 8u * ((unit.first_row + unit.rows - 1u) / args.group));
    unit.first_own = first[1], unit.last_own = last[1];
    unit.sequence = first[0], unit.holder = first[7];
    unit.existing = existing_of(args, first);
    unit.codes = line_of<0>(args, first, last);
    unit.overlay = line_of<1>(args, first, last);
    unit.first_tile = unit.codes.seen.start / TILE;
    unit.overlaid = args.overlay != 0u ? (unit.overlay.places + 15) / 16 : 0;
    unit.tiles = unit.overlaid + (unit.codes.places > 0 ? (unit.codes.seen.end + TILE - 1) / TILE - unit.first_tile : 0);
    return unit;
}

// Tiles of a group, and of each pair in line.
struct Share {
    int share, stride;
};

inline Share share_of_one(const AttentionDecodeArgs &args, const Unit &unit) {
    Share share;
    // A tile for each simdgroup, or several.
    int all = int(args.pair_groups * args.least);
    share.share = max(1, (unit.tiles + all - 1) / all) * int(args.least);
    share.stride = int(args.pair_groups) * share.share;
    return share;
}

// Tiles of the pairs of the units before `unit`, summed by the lanes of a simdgroup.
inline int tiles_before(const AttentionDecodeArgs &args, const int *slot_mapping, uint unit, uint lane) {
    int sum = 0;
    for (uint other = lane; other < unit; other += 32u) sum += unit_of(args, slot_mapping, other).tiles;
    return simd_sum(sum) * int(args.kv_heads);
}

inline int share_of_all(const AttentionDecodeArgs &args, const int *slot_mapping, uint lane) {
    int tiles = tiles_before(args, slot_mapping, args.units, lane);
    return max(int(args.least), (tiles + int(args.groups) - 1) / int(args.groups));
}

// The unit that a place in the line of all tiles belongs to, and the tiles before it.
inline int unit_at(const AttentionDecodeArgs &args, const int *slot_mapping, int place, uint lane, uint &number) {
    int before = 0;
    for (uint start = 0; start < args.units; start += 32u) {
        int own = 0;
        if (start + lane < args.units) own = unit_of(args, slot_mapping, start + lane).tiles * int(args.kv_heads);
        int through = own;
        UNROLL for (uint reach = 1; reach < 32; reach *= 2) {
            int other = __shfl_up_sync(0xffffffffu, through, reach);
            if (lane >= reach) through += other;
        }
        uint holders = __ballot_sync(0xffffffffu, before + through > place);
        if (holders != 0u) {
            uint holder = __ffs(holders) - 1;
            number = start + holder;
            return before + __shfl_sync(0xffffffffu, through - own, holder);
        }
        before += __shfl_sync(0xffffffffu, through, 31);
    }
    number = args.units;
    return before;
}
