/* Shows a process a processor with fewer instruction sets, so that tests see what they would see on an older machine:
 * loaded before a program (LD_PRELOAD, see .ci/older-cpu), it makes the instruction cpuid fault, executes it in the
 * program's stead and takes bits away from the answer. Everything else runs at full speed. x86-64 Linux on processors
 * that can make cpuid fault (the flag cpuid_fault in /proc/cpuinfo). */
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012
#define BIT(n) (1u << (n))

/* Bits of leaf 7: in ebx, ecx and edx of subleaf 0, in eax and edx of subleaf 1. */
struct bits {
    uint32_t ebx0, ecx0, edx0, eax1, edx1;
};

/* AVX-512 in all its parts, and AMX. */
static const struct bits avx512 = {
    BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31),
    BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14),
    BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25),
    BIT(5) | BIT(21),
    BIT(8) | BIT(19),
};
/* AVX-VNNI, of bytes and of words. */
static const struct bits avxvnni = {0, 0, 0, BIT(4), BIT(4) | BIT(10)};
/* AVX2. */
static const struct bits avx2 = {BIT(5), 0, 0, 0, 0};

static struct bits hidden;

static void hide(struct bits more) {
    hidden.ebx0 |= more.ebx0;
    hidden.ecx0 |= more.ecx0;
    hidden.edx0 |= more.edx0;
    hidden.eax1 |= more.eax1;
    hidden.edx1 |= more.edx1;
}

/* The C library's own, which what follows stands before. */
extern int __sigaction(int number, const struct sigaction *action, struct sigaction *old);

/* Compilers catch SIGSEGV for their own reports, and would lose cpuid by it: they keep this handler. */
int sigaction(int number, const struct sigaction *action, struct sigaction *old) {
    return __sigaction(number, number == SIGSEGV ? NULL : action, old);
}

sighandler_t signal(int number, sighandler_t handler) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART}, old;
    return sigaction(number, &action, &old) == 0 ? old.sa_handler : SIG_ERR;
}

static long faulting(int on) { return syscall(SYS_arch_prctl, ARCH_SET_CPUID, !on); }

static void on_fault(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    /* cpuid raises a general protection fault, which has no address; code that faults so can be read. */
    if (info->si_code != SI_KERNEL || memcmp((void *)registers[REG_RIP], "\x0f\xa2", 2) != 0) {
        /* Something else: once more, without this handler. What was sent rather than met does not come by itself. */
        struct sigaction usual = {.sa_handler = SIG_DFL};
        __sigaction(number, &usual, NULL);
        if (info->si_code <= 0) {
            raise(number);
        }
        return;
    }
    uint32_t leaf = registers[REG_RAX], subleaf = registers[REG_RCX], eax, ebx, ecx, edx;
    faulting(0);
    __cpuid_count(leaf, subleaf, eax, ebx, ecx, edx);
    faulting(1);
    if (leaf == 7 && subleaf == 0) {
        ebx &= ~hidden.ebx0;
        ecx &= ~hidden.ecx0;
        edx &= ~hidden.edx0;
    } else if (leaf == 7 && subleaf == 1) {
        eax &= ~hidden.eax1;
        edx &= ~hidden.edx1;
    }
    registers[REG_RAX] = eax;
    registers[REG_RBX] = ebx;
    registers[REG_RCX] = ecx;
    registers[REG_RDX] = edx;
    registers[REG_RIP] += 2;
}

static void fail(const char *why) {
    if (write(STDERR_FILENO, why, strlen(why)) < 0) { /* nobody to tell */
    }
    _exit(3);
}

/* Before the program's own code, the Rust runtime's included: that leaves a handler alone which is there already. */
__attribute__((constructor)) static void start(void) {
    const char *most = getenv("OLDER_CPU");
    if (most && strcmp(most, "avxvnni") == 0) {
        hide(avx512);
    } else if (most && strcmp(most, "avx2") == 0) {
        hide(avx512);
        hide(avxvnni);
    } else if (most && strcmp(most, "portable") == 0) {
        hide(avx512);
        hide(avxvnni);
        hide(avx2);
    } else {
        fail("older-cpu: OLDER_CPU must be avxvnni, avx2 or portable\n");
    }
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    if (__sigaction(SIGSEGV, &action, NULL) != 0 || faulting(1) != 0) {
        fail("older-cpu: this machine cannot make cpuid fault (no cpuid_fault in /proc/cpuinfo)\n");
    }
}
