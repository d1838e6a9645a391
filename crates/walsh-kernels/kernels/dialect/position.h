// Where a thread is: its group's place in the grid, its own in the group, its lane, and its simdgroup.
struct Position {
    uint x, y, z;
    uint index;
    uint lane;
    uint simd;
};
