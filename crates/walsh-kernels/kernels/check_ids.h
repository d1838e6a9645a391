// Whether each id is a row of the table: the first that is not lowers the check's word, and then the verdict.
inline void check_ids(constant CheckIdsArgs &args, device const int *ids, device uint *status, Position at) {
    for (uint index = at.index; index < args.count; index += THREADS) {
        int id = ids[index];
        if (id < 0 || uint(id) >= args.table_rows) {
            atomic_min(status + 1 + args.check, index);
            atomic_min(status, args.check);
        }
    }
}
