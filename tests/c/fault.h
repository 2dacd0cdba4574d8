/*
 * Injected faults, for test builds only: each file of csrc is compiled with
 * gcc -DCHILDPROOF_FAULTS -include tests/c/fault.h. Every system call of theirs
 * goes through here first, so that the n-th of a kind can be made to fail.
 *
 * That no call has been forgotten is checked by the names that the objects
 * import (tools/check-c imports).
 */
#ifndef CHILDPROOF_FAULT_H
#define CHILDPROOF_FAULT_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum cpf_origin { CPF_PARENT, CPF_CHILD, CPF_PYTHON, CPF_ORIGINS };

/* What is to fail. In memory that every process shares, forked ones too. */
struct cpf_plan {
    volatile int armed;
    int pid; /* of the parent: who has another is a child */
    int origin, call;
    int nth;         /* the first one that fails, from 1 */
    int times;       /* how many fail */
    int error;       /* with what */
    int close_error; /* with it every close of parent and Python fails, having closed */
    /* What always fails, as if this machine had it not: up to three; call -1: none. */
    struct { int origin, call, error; } without[3];
    int without_pidfd_flag; /* as before Linux 5.2: CLONE_PIDFD is ignored */
    unsigned long nofile;   /* what getrlimit says of RLIMIT_NOFILE, unless 0 */
    int kill_parent_at; /* before its n-th call, counted over all kinds, the child kills the parent */
    int child_calls;
    int slow_child_ms; /* how long the child takes for its first steps */
    int slow_names_s; /* how long the opening of a cmdline or environ takes */
    int hits;
    int counts[CPF_ORIGINS][64];
};
extern struct cpf_plan *cpf_plan;

/* The table of calls: names, and errnos that the man pages name; both NULL or 0
 * behind the last. */
const char *cpf_name(int call);
int cpf_errno(int call, int index);

/* The errno with which this call must fail, or 0. Writes nothing but the plan. */
int cpf_decide(int origin, int call);

/* Before a process that was forked ends or execs: keep gcov's counters. */
void cpf_keep_counters(void);

/* Set while a libc call of csrc's runs, which is not Python's then. */
extern __thread int cpf_inside;

long cpf_raw(long n, long a, long b, long c, long d, long e);
/* The number of a name in the table. */
int cpf_call(const char *name);
int cpf_fails(const char *name);

#define CPF_LIBC(type, name, failed, expression)              \
    __extension__({                                           \
        cpf_inside++;                                         \
        type cpf_result = cpf_fails(name) ? (failed) : (expression); \
        cpf_inside--;                                         \
        cpf_result;                                           \
    })

/* Closes, then says that it failed: on Linux it has closed. */
static inline int cpf_close(int fd)
{
    cpf_inside++;
    int result = close(fd);
    if (cpf_fails("close"))
        result = -1;
    cpf_inside--;
    return result;
}

/* Waits, if `path` is one of those that are slow. */
void cpf_slow(const char *path);

int cpf_clone(int (*function)(void *), void *stack, int flags, void *argument,
              int *pidfd, void *tls, volatile int *tid);
long cpf_syscall(long n, long a, long b, long c, long d, long e);

#ifndef CPF_NO_MACROS
#define clone(f, s, g, a, p, t, i) cpf_clone((f), (s), (g), (a), (p), (t), (i))
#define syscall(n, a, b, c, d, e) \
    cpf_syscall((n), (long)(a), (long)(b), (long)(c), (long)(d), (long)(e))
#define close(fd) cpf_close(fd)
#define fork(...) CPF_LIBC(int, "clone", -1, fork(__VA_ARGS__))
#define open(...) CPF_LIBC(int, "open", -1, open(__VA_ARGS__))
#define openat(f, path, ...) \
    (cpf_slow(path), CPF_LIBC(int, "open", -1, openat((f), (path), __VA_ARGS__)))
#define opendir(...) CPF_LIBC(DIR *, "opendir", NULL, opendir(__VA_ARGS__))
#define readdir(...) CPF_LIBC(struct dirent *, "readdir", NULL, readdir(__VA_ARGS__))
#define readlinkat(...) CPF_LIBC(ssize_t, "readlink", -1, readlinkat(__VA_ARGS__))
#define fstatat(...) CPF_LIBC(int, "fstat", -1, fstatat(__VA_ARGS__))
#define pipe(...) CPF_LIBC(int, "pipe2", -1, pipe(__VA_ARGS__))
#define fcntl(...) CPF_LIBC(int, "fcntl", -1, fcntl(__VA_ARGS__))
#define dup2(...) CPF_LIBC(int, "dup3", -1, dup2(__VA_ARGS__))
#define lseek(...) CPF_LIBC(off_t, "lseek", -1, lseek(__VA_ARGS__))
#define mmap(...) CPF_LIBC(void *, "mmap", MAP_FAILED, mmap(__VA_ARGS__))
#define mprotect(...) CPF_LIBC(int, "mprotect", -1, mprotect(__VA_ARGS__))
#define munmap(...) CPF_LIBC(int, "munmap", -1, munmap(__VA_ARGS__))
#define mkstemp(...) CPF_LIBC(int, "mkstemp", -1, mkstemp(__VA_ARGS__))
#define unlink(...) CPF_LIBC(int, "unlink", -1, unlink(__VA_ARGS__))
#define read(...) CPF_LIBC(ssize_t, "read", -1, read(__VA_ARGS__))
#define write(...) CPF_LIBC(ssize_t, "write", -1, write(__VA_ARGS__))
#define poll(...) CPF_LIBC(int, "poll", -1, poll(__VA_ARGS__))
#define socketpair(...) CPF_LIBC(int, "socketpair", -1, socketpair(__VA_ARGS__))
#define setsockopt(...) CPF_LIBC(int, "setsockopt", -1, setsockopt(__VA_ARGS__))
#define send(...) CPF_LIBC(ssize_t, "sendto", -1, send(__VA_ARGS__))
#define recv(...) CPF_LIBC(ssize_t, "recvfrom", -1, recv(__VA_ARGS__))
#define recvmsg(...) CPF_LIBC(ssize_t, "recvmsg", -1, recvmsg(__VA_ARGS__))
#define kill(...) CPF_LIBC(int, "kill", -1, kill(__VA_ARGS__))
#define waitid(...) CPF_LIBC(int, "waitid", -1, waitid(__VA_ARGS__))
#define wait4(...) CPF_LIBC(int, "wait4", -1, wait4(__VA_ARGS__))
#define getrusage(...) CPF_LIBC(int, "getrusage", -1, getrusage(__VA_ARGS__))
#define getrlimit(...) CPF_LIBC(int, "prlimit64", -1, getrlimit(__VA_ARGS__))
#define setrlimit(...) CPF_LIBC(int, "prlimit64", -1, setrlimit(__VA_ARGS__))
#define nanosleep(...) CPF_LIBC(int, "nanosleep", -1, nanosleep(__VA_ARGS__))
#define sigtimedwait(...) CPF_LIBC(int, "sigtimedwait", -1, sigtimedwait(__VA_ARGS__))
#define setsid(...) CPF_LIBC(int, "setsid", -1, setsid(__VA_ARGS__))
#define setpgid(...) CPF_LIBC(int, "setpgid", -1, setpgid(__VA_ARGS__))
#define chdir(...) CPF_LIBC(int, "chdir", -1, chdir(__VA_ARGS__))
#define fchdir(...) CPF_LIBC(int, "fchdir", -1, fchdir(__VA_ARGS__))
#define setgroups(...) CPF_LIBC(int, "setgroups", -1, setgroups(__VA_ARGS__))
#define setregid(...) CPF_LIBC(int, "setresgid", -1, setregid(__VA_ARGS__))
#define setreuid(...) CPF_LIBC(int, "setresuid", -1, setreuid(__VA_ARGS__))
#define execve(...) CPF_LIBC(int, "execve", -1, execve(__VA_ARGS__))
#endif

#include "internal.h" /* where CHILDPROOF_FAULTS makes raw calls cpf_raw's */

#if !CP_PORTABLE && !defined CPF_NO_MACROS
#define sys_clone3(a, m, x)                                            \
    __extension__({                                                    \
        int cpf_error = cpf_decide(CPF_PARENT, cpf_call("clone3"));    \
        cpf_error ? -(long)cpf_error : sys_clone3((a), (m), (x));      \
    })
#endif
#endif
