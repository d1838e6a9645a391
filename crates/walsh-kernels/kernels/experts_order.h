// Slots in tiles of TILE_M, each tile of one expert: `tiles` names the expert of each, and `order` the slot of each of
// its rows. One group; a thread takes every so many-th expert. What has none is NOTHING.
struct Shared {
    // How many tiles the experts before take.
    uint tiles[MOST_EXPERTS];
};

inline void expert_order(constant ExpertOrderArgs &args, device const int *ids, device uint *tiles, device uint *order, device const uint *verdict, threadgroup Shared &shared, Position at) {
    uint nothing = 0xffffffffu;
    for (uint tile = at.index; tile < args.tiles; tile += THREADS) tiles[tile] = nothing;
    for (uint row = at.index; row < args.tiles * TILE_M; row += THREADS) order[row] = nothing;
    if (verdict[0] != nothing) return;
    for (uint expert = at.index; expert < args.experts; expert += THREADS) {
        uint count = 0;
        for (uint slot = 0; slot < args.slots; slot++) count += uint(ids[slot]) == expert ? 1 : 0;
        shared.tiles[expert] = (count + TILE_M - 1) / TILE_M;
    }
    threadgroup_barrier();
    if (at.index == 0) {
        uint before = 0;
        for (uint expert = 0; expert < args.experts; expert++) {
            uint count = shared.tiles[expert];
            shared.tiles[expert] = before;
            before += count;
        }
    }
    threadgroup_barrier();
    for (uint expert = at.index; expert < args.experts; expert += THREADS) {
        uint row = shared.tiles[expert] * TILE_M;
        for (uint slot = 0; slot < args.slots; slot++) {
            if (uint(ids[slot]) != expert) continue;
            if (row % TILE_M == 0) tiles[row / TILE_M] = expert;
            order[row] = slot;
            row++;
        }
    }
}
