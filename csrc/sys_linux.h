/* See sys.h: Linux, by number. */
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#define CP_PORTABLE 0

#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_clone3
#define SYS_clone3 435
#endif
#ifndef SYS_statx
#define SYS_statx -1
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifdef SYS_setgroups32 /* 32-bit machines whose first ids had 16 bits */
#define CP_SYS_SETGROUPS SYS_setgroups32
#define CP_SYS_SETRESGID SYS_setresgid32
#define CP_SYS_SETRESUID SYS_setresuid32
#else
#define CP_SYS_SETGROUPS SYS_setgroups
#define CP_SYS_SETRESGID SYS_setresgid
#define CP_SYS_SETRESUID SYS_setresuid
#endif

#define CP_NSIG 64

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
static inline long cp_raw(long n, long a, long b, long c, long d, long e)
{
    long result = syscall(n, a, b, c, d, e);
    return result == -1 ? -errno : result;
}
#endif

#ifdef CHILDPROOF_FAULTS /* a test build, where the n-th call can be made to fail */
long cpf_raw(long n, long a, long b, long c, long d, long e);
#define cp_raw cpf_raw
#endif

#define cp_raw0(n) cp_raw((n), 0, 0, 0, 0, 0)
#define cp_raw1(n, a) cp_raw((n), (long)(a), 0, 0, 0, 0)
#define cp_raw2(n, a, b) cp_raw((n), (long)(a), (long)(b), 0, 0, 0)
#define cp_raw3(n, a, b, c) cp_raw((n), (long)(a), (long)(b), (long)(c), 0, 0)
#define cp_raw4(n, a, b, c, d) \
    cp_raw((n), (long)(a), (long)(b), (long)(c), (long)(d), 0)
#define cp_raw5(n, a, b, c, d, e) \
    cp_raw((n), (long)(a), (long)(b), (long)(c), (long)(d), (long)(e))

/* clone_args of clone(2), as far as Linux 5.5 has it. */
struct cp_clone_args {
    uint64_t flags;
    uint64_t pidfd;
    uint64_t child_tid;
    uint64_t parent_tid;
    uint64_t exit_signal;
    uint64_t stack;
    uint64_t stack_size;
    uint64_t tls;
};

/* clone3 with a stack, which libc has no function for: the child must not return
 * into its parent's frames, so it calls `main` at once. */
#if defined(__x86_64__)
static inline long sys_clone3(struct cp_clone_args *args, int (*main)(void *), void *argument)
{
    long result;
    register void *r8 __asm__("r8") = argument;
    __asm__ volatile("syscall\n\t"
                     "testq %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xorl %%ebp, %%ebp\n\t"
                     "movq %%r8, %%rdi\n\t"
                     "call *%%rdx\n\t"
                     "hlt\n"
                     "1:"
                     : "=a"(result)
                     : "a"(SYS_clone3), "D"(args), "S"(sizeof *args), "d"(main), "r"(r8)
                     : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
static inline long sys_clone3(struct cp_clone_args *args, int (*main)(void *), void *argument)
{
    register long x8 __asm__("x8") = SYS_clone3;
    register long x0 __asm__("x0") = (long)args;
    register long x1 __asm__("x1") = sizeof *args;
    register int (*x2)(void *) __asm__("x2") = main;
    register void *x3 __asm__("x3") = argument;
    __asm__ volatile("svc 0\n\t"
                     "cbnz x0, 1f\n\t"
                     "mov x29, xzr\n\t"
                     "mov x0, x3\n\t"
                     "blr x2\n\t"
                     "brk 0\n"
                     "1:"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3)
                     : "memory");
    return x0;
}
#else
static inline long sys_clone3(struct cp_clone_args *args, int (*main)(void *), void *argument)
{
    (void)args;
    (void)main;
    (void)argument;
    return -ENOSYS;
}
#endif

/* The kernel's struct, not libc's. Only `handler` is looked at; on an
 * architecture without a restorer the last word is merely unused. */
struct cp_sigaction {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};

typedef uint64_t cp_sigset;

static inline long sys_close(int fd)
{
    return cp_raw1(SYS_close, fd);
}

static inline long sys_open(const char *path, int flags, int mode)
{
    return cp_raw4(SYS_openat, AT_FDCWD, path, flags, mode);
}

static inline long sys_read(int fd, void *data, size_t size)
{
    return cp_raw3(SYS_read, fd, data, size);
}

static inline long sys_write(int fd, const void *data, size_t size)
{
    return cp_raw3(SYS_write, fd, data, size);
}

static inline long sys_pipe(int ends[2])
{
    return cp_raw2(SYS_pipe2, ends, O_CLOEXEC);
}

static inline long sys_fcntl(int fd, int command, int value)
{
    return cp_raw3(SYS_fcntl, fd, command, value);
}

/* dup2 for two different numbers. */
static inline long sys_dup(int from, int to)
{
    return cp_raw3(SYS_dup3, from, to, 0);
}

static inline long sys_getpid(void)
{
    return cp_raw0(SYS_getpid);
}

static inline long sys_getppid(void)
{
    return cp_raw0(SYS_getppid);
}

static inline long sys_setsid(void)
{
    return cp_raw0(SYS_setsid);
}

static inline long sys_setpgid(int pid, int group)
{
    return cp_raw2(SYS_setpgid, pid, group);
}

static inline long sys_chdir(const char *path)
{
    return cp_raw1(SYS_chdir, path);
}

static inline long sys_fchdir(int fd)
{
    return cp_raw1(SYS_fchdir, fd);
}

static inline void sys_umask(int mask)
{
    cp_raw1(SYS_umask, mask);
}

static inline long sys_setgroups(int count, const unsigned *groups)
{
    return cp_raw2(CP_SYS_SETGROUPS, count, groups);
}

static inline long sys_setgid(unsigned id)
{
    return cp_raw3(CP_SYS_SETRESGID, id, id, id);
}

static inline long sys_setuid(unsigned id)
{
    return cp_raw3(CP_SYS_SETRESUID, id, id, id);
}

static inline long sys_setrlimit(int resource, uint64_t soft, uint64_t hard)
{
    uint64_t limit[2] = {soft, hard};
    return cp_raw4(SYS_prlimit64, 0, resource, limit, 0);
}

/* Adds to the niceness. The raw getpriority gives 20 minus it. */
static inline long sys_nice(int increment)
{
    long now = cp_raw2(SYS_getpriority, PRIO_PROCESS, 0);
    if (now < 0)
        return now;
    return cp_raw3(SYS_setpriority, PRIO_PROCESS, 0, 20 - now + increment);
}

static inline long sys_no_new_privs(void)
{
    return cp_raw5(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

/* The signal that this process gets when the thread that made it ends. */
static inline long sys_set_death_signal(int number)
{
    return cp_raw5(SYS_prctl, PR_SET_PDEATHSIG, number, 0, 0, 0);
}

static inline long sys_sigaction(int number, const struct cp_sigaction *set,
                                 struct cp_sigaction *old)
{
    return cp_raw4(SYS_rt_sigaction, number, set, old, sizeof(uint64_t));
}

static inline void sys_block_signals(cp_sigset *old)
{
    cp_sigset all = ~(cp_sigset)0;
    cp_raw4(SYS_rt_sigprocmask, SIG_BLOCK, &all, old, sizeof all);
}

static inline void sys_set_mask(const cp_sigset *mask)
{
    cp_raw4(SYS_rt_sigprocmask, SIG_SETMASK, mask, 0, sizeof *mask);
}

static inline void sys_sleep_ns(long ns)
{
    struct { long s, ns; } pause = {0, ns};
    cp_raw2(SYS_nanosleep, &pause, 0);
}

static inline long sys_execve(const char *path, char **argv, char **envp)
{
    return cp_raw3(SYS_execve, path, argv, envp);
}

/* A copy of the calling process, which must have one thread. The order of clone's
 * last arguments differs by machine; they are 0. */
static inline long sys_fork(void)
{
    return cp_raw5(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

/* Wait for a child's end and leave it a zombie. */
static inline long sys_wait_for_end(int pid, siginfo_t *info)
{
    return cp_raw5(SYS_waitid, P_PID, pid, info, WEXITED | WNOWAIT, 0);
}

static inline _Noreturn void sys_exit(int status)
{
    for (;;)
        cp_raw1(SYS_exit_group, status);
}

#define CP_UNSHARE 2 /* CLOSE_RANGE_UNSHARE */

static inline long sys_close_range(unsigned first, unsigned last, unsigned flags)
{
    return cp_raw3(SYS_close_range, first, last, flags);
}

static inline long sys_unshare_table(void)
{
    return cp_raw1(SYS_unshare, 0x400 /* CLONE_FILES */);
}

/* Device and inode of what is open, or of what a path leads to: where libc's struct is
 * the kernel's. */
#if CP_RAW_ASM
static inline long sys_identify(int fd, uint64_t id[2])
{
    struct stat found = {0};
    long r = cp_raw2(SYS_fstat, fd, &found);
    id[0] = found.st_dev;
    id[1] = found.st_ino;
    return r;
}

static inline long sys_identify_path(const char *path, uint64_t id[2])
{
    struct stat found = {0};
    long r = cp_raw4(SYS_newfstatat, AT_FDCWD, path, &found, 0);
    id[0] = found.st_dev;
    id[1] = found.st_ino;
    return r;
}
#else
static inline long sys_identify(int fd, uint64_t id[2])
{
    (void)fd, (void)id;
    return -ENOSYS;
}

static inline long sys_identify_path(const char *path, uint64_t id[2])
{
    (void)path, (void)id;
    return -ENOSYS;
}
#endif

static inline void sys_yield(void)
{
    cp_raw0(SYS_sched_yield);
}

/* Until the word is not `value` any more, or the time is over. */
static inline void sys_wait_for_word(volatile int *word, int value, long ns)
{
    struct { long s, ns; } pause = {0, ns};
    cp_raw4(SYS_futex, word, 0 /* FUTEX_WAIT */, value, &pause);
}

static inline void sys_wake_waiter(volatile int *word)
{
    cp_raw3(SYS_futex, word, 1 /* FUTEX_WAKE */, 1);
}

static inline long sys_uname(struct utsname *system)
{
    return cp_raw1(SYS_uname, system);
}

/* The whole directory of one's own descriptors, piece by piece. */
static inline long sys_getdents(int fd, void *buffer, size_t size)
{
    return cp_raw3(SYS_getdents64, fd, buffer, size);
}

static inline long sys_rewind(int fd)
{
    return cp_raw3(SYS_lseek, fd, 0, SEEK_SET);
}

static inline long sys_getrlimit(int resource, uint64_t limit[2])
{
    return cp_raw4(SYS_prlimit64, 0, resource, 0, limit);
}

static inline long sys_kill(int pid, int number)
{
    return cp_raw2(SYS_kill, pid, number);
}

static inline long sys_pidfd_open(int pid)
{
    return cp_raw2(SYS_pidfd_open, pid, 0);
}

static inline long sys_pidfd_signal(int pidfd, int number, unsigned flags)
{
    return cp_raw4(SYS_pidfd_send_signal, pidfd, number, 0, flags);
}

/* Into a struct statx, which not every libc has. */
static inline long sys_statx(int folder, const char *path, int flags,
                             unsigned mask, void *found)
{
    return cp_raw5(SYS_statx, folder, path, flags, mask, found);
}
