/*
 * What spawn.c, child.c and close_fds.c share: raw system calls and the block
 * of memory that a child lives on until its exec.
 */
#ifndef CHILDPROOF_INTERNAL_H
#define CHILDPROOF_INTERNAL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "childproof.h"

#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE (1U << 1)
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

#define CP_STACK_SIZE 32768
#define CP_NSIG 64

/* Written to the report pipe by a child that cannot exec. */
struct cp_report {
    int stage;
    int error;
};

/* A sorted list of the descriptors that stay: 0, 1, 2 and the report pipe. */
struct cp_keep {
    int count;
    int fd[4];
};

/* All that the child reads and writes between clone and exec. The parent
 * fills it before the clone and leaves it alone, but for reading `tid`,
 * `stage` and `closing`, until the child has left. */
struct cp_block {
    volatile int tid;     /* zeroed by the kernel when the child leaves */
    volatile int stage;   /* the step that the child is in */
    volatile int closing; /* the rung that closed the descriptors */
    int parent;
    int report;
    int stdio[3];
    int source[3]; /* descriptors to become 0, 1, 2; -1: none yet */
    const char *path[3];
    const char *cwd;
    char **argv;
    char **envp;
    char **candidate;
    int flags;
    int strategy;
    unsigned bound; /* one above the highest descriptor the parent has open */
    uint64_t mask;  /* the caller's signal mask */
};

/* child.c: runs in the child, from clone to exec. */
int cp_child_main(void *block);

/* close_fds.c. cp_close_fds runs in the child; 0 or an errno. */
int cp_close_fds(struct cp_block *block, const struct cp_keep *keep);
/* In the parent: the bound for the loop. */
unsigned cp_fd_bound(void);
/* In the parent: does close_range work here? */
int cp_has_close_range(void);

/* spawn.c: where a child's block is, and giving it back. */
struct cp_block *cp_block_of(const struct cp_child *child);
void cp_unmap_block(struct cp_child *child);

/*
 * Raw system calls: the result or -errno. The child's libc errno would be the
 * running parent thread's, since both share the thread-local storage, so in
 * the child nothing but this may be called.
 */
#if defined(__x86_64__)
#define CP_RAW_ASM 1
static inline long cp_raw(long n, long a, long b, long c, long d, long e)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
#define CP_RAW_ASM 1
static inline long cp_raw(long n, long a, long b, long c, long d, long e)
{
    register long x8 __asm__("x8") = n;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    __asm__ volatile("svc 0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4)
                     : "memory");
    return x0;
}
#else
/* Writes errno into storage that a running parent would share: here the main
 * path is the suspended clone, which saves and restores it. */
#define CP_RAW_ASM 0
#include <errno.h>
#include <unistd.h>
static inline long cp_raw(long n, long a, long b, long c, long d, long e)
{
    long result = syscall(n, a, b, c, d, e);
    return result == -1 ? -errno : result;
}
#endif

#define cp_raw0(n) cp_raw((n), 0, 0, 0, 0, 0)
#define cp_raw1(n, a) cp_raw((n), (long)(a), 0, 0, 0, 0)
#define cp_raw2(n, a, b) cp_raw((n), (long)(a), (long)(b), 0, 0, 0)
#define cp_raw3(n, a, b, c) cp_raw((n), (long)(a), (long)(b), (long)(c), 0, 0)
#define cp_raw4(n, a, b, c, d) \
    cp_raw((n), (long)(a), (long)(b), (long)(c), (long)(d), 0)
#define cp_raw5(n, a, b, c, d, e) \
    cp_raw((n), (long)(a), (long)(b), (long)(c), (long)(d), (long)(e))

#endif
