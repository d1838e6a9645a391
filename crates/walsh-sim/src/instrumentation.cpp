// What the compiler's instrumentation calls. It stands behind a kernel's text, in the same unit, and hands every load,
// every store and every slip to the simulator.
struct WalshHooks {
    void (*access)(const void *at, unsigned long bytes, uint kind);
    uint (*collective)(uint what, uint bits, uint operand, uint line);
    void (*atomic_min)(uint *at, uint value);
    void (*slip)(uint what);
    void (*misaligned)(const void *at, unsigned long alignment);
};
extern "C" {
__attribute__((visibility("default"))) WalshHooks walsh_hooks = {};
// The ends of the section of tables, which the linker knows if there is one.
extern __attribute__((visibility("hidden"), weak)) const char __start_walsh_table_data[], __stop_walsh_table_data[];
__attribute__((visibility("default"))) const void *walsh_tables[2] = {__start_walsh_table_data, __stop_walsh_table_data};
}

#define WALSH_HOOK extern "C" __attribute__((visibility("hidden"), no_sanitize("thread"), no_sanitize("undefined")))

WALSH_HOOK uint walsh_collective(uint what, uint bits, uint operand, uint line) {
    return walsh_hooks.collective(what, bits, operand, line);
}
WALSH_HOOK void walsh_atomic_min(uint *at, uint value) { walsh_hooks.atomic_min(at, value); }

// Kinds of access: 0 read, 1 write; 2 and 3 the same with no alignment promised.
#define WALSH_SIZE(size) \
    WALSH_HOOK void __tsan_read##size(void *at) { walsh_hooks.access(at, size, 0); } \
    WALSH_HOOK void __tsan_write##size(void *at) { walsh_hooks.access(at, size, 1); } \
    WALSH_HOOK void __tsan_unaligned_read##size(void *at) { walsh_hooks.access(at, size, 0); } \
    WALSH_HOOK void __tsan_unaligned_write##size(void *at) { walsh_hooks.access(at, size, 1); } \
    WALSH_HOOK void __tsan_volatile_read##size(void *at) { walsh_hooks.access(at, size, 0); } \
    WALSH_HOOK void __tsan_volatile_write##size(void *at) { walsh_hooks.access(at, size, 1); }
WALSH_SIZE(1)
WALSH_SIZE(2)
WALSH_SIZE(4)
WALSH_SIZE(8)
WALSH_SIZE(16)
WALSH_HOOK void __tsan_read_range(void *at, unsigned long bytes) { walsh_hooks.access(at, bytes, 2); }
WALSH_HOOK void __tsan_write_range(void *at, unsigned long bytes) { walsh_hooks.access(at, bytes, 3); }
WALSH_HOOK void __tsan_vptr_update(void **, void *) {}
WALSH_HOOK void __tsan_vptr_read(void **) {}
WALSH_HOOK void __tsan_func_entry(void *) {}
WALSH_HOOK void __tsan_func_exit() {}
WALSH_HOOK void __tsan_init() {}

WALSH_HOOK void __ubsan_handle_out_of_bounds(void *, unsigned long) { walsh_hooks.slip(0); }
WALSH_HOOK void __ubsan_handle_divrem_overflow(void *, unsigned long, unsigned long) { walsh_hooks.slip(1); }
WALSH_HOOK void __ubsan_handle_shift_out_of_bounds(void *, unsigned long, unsigned long) { walsh_hooks.slip(2); }

// What the compiler says of a load or store whose address is no multiple of its type's alignment.
struct WalshMismatch {
    const char *file;
    uint line, column;
    const void *type;
    uchar alignment, kind;
};
WALSH_HOOK void __ubsan_handle_type_mismatch_v1(WalshMismatch *mismatch, unsigned long at) {
    walsh_hooks.misaligned((const void *)at, 1ul << mismatch->alignment);
}
