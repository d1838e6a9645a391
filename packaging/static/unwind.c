/* What libgcc's unwinder, as it is built for glibc, lacks in a static program with musl. Part of static builds (.ci/release).
 *
 * It asks glibc in which loaded object an address lies, and where that object's .eh_frame_hdr begins. The layout of the
 * answer is that of struct dl_find_object in glibc's <dlfcn.h> on x86-64. */
#define _GNU_SOURCE
#include <link.h>
#include <pthread.h>
#include <stddef.h>

struct found {
    unsigned long long flags;
    void *start;
    void *end;
    void *map;
    void *eh_frame;
    unsigned long long reserved[7];
};

struct search {
    ElfW(Addr) address;
    struct found *found;
};

static int look(struct dl_phdr_info *object, size_t size, void *data)
{
    struct search *search = data;
    ElfW(Addr) eh_frame = 0, start = 0, end = 0;
    (void)size;
    for (int number = 0; number < object->dlpi_phnum; number++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[number];
        ElfW(Addr) at = object->dlpi_addr + segment->p_vaddr;
        if (segment->p_type == PT_GNU_EH_FRAME)
            eh_frame = at;
        if (segment->p_type == PT_LOAD && search->address - at < segment->p_memsz) {
            start = at;
            end = at + segment->p_memsz;
        }
    }
    if (!end || !eh_frame)
        return 0;
    *search->found = (struct found){.start = (void *)start, .end = (void *)end, .eh_frame = (void *)eh_frame};
    return 1;
}

int _dl_find_object(void *address, struct found *found)
{
    struct search search = {(ElfW(Addr))address, found};
    return dl_iterate_phdr(look, &search) ? 0 : -1;
}

/* It calls these without a look at whether they are there, and does not ask the linker for them. */
__attribute__((used)) static void *const called[] = {
    (void *)pthread_once,        (void *)pthread_mutex_lock,  (void *)pthread_mutex_unlock, (void *)pthread_key_create,
    (void *)pthread_getspecific, (void *)pthread_setspecific,
};
