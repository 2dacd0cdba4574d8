/* See fault.h. What the child may reach here writes nothing but the plan. */
#define CPF_NO_MACROS
#include "fault.h"

#undef cp_raw /* the true one */

#include <linux/sched.h>
#include <string.h>
#include <sys/mman.h>

#ifndef SYS_close_range /* the portable build knows no numbers */
#define SYS_close_range 436
#endif

static struct cpf_plan before_init;
struct cpf_plan *cpf_plan = &before_init;
__thread int cpf_inside;

__attribute__((constructor)) static void share_the_plan(void)
{
    void *shared = mmap(NULL, sizeof *cpf_plan, PROT_READ | PROT_WRITE,
                        MAP_ANONYMOUS | MAP_SHARED, -1, 0);
    if (shared == MAP_FAILED)
        abort();
    cpf_plan = shared;
}

/* `number`: the system call of raw calls, -1 where only libc's name is used. */
static const struct {
    const char *name;
    long number;
    int error[14];
} calls[] = {
    {"open", SYS_openat, {EMFILE, ENFILE, ENOMEM, EACCES, EINTR, EIO, EOPNOTSUPP, EISDIR}},
    {"pipe2", SYS_pipe2, {EMFILE, ENFILE}},
    {"fcntl", SYS_fcntl, {EMFILE, EINVAL, EPERM}},
    {"mmap", SYS_mmap, {ENOMEM, EAGAIN, EPERM}},
    {"mprotect", SYS_mprotect, {ENOMEM, EACCES}},
    {"munmap", SYS_munmap, {ENOMEM, EINVAL}},
    {"clone", SYS_clone, {EAGAIN, ENOMEM, ENOSYS, EPERM, EINVAL}},
    {"clone3", -1, {ENOSYS, EPERM, EINVAL, EAGAIN, ENOMEM}},
    {"close", SYS_close, {EIO, EINTR, ENOSPC, EBADF}},
    {"mkstemp", -1, {EMFILE, EACCES, ENOSPC, EROFS}},
    {"unlink", SYS_unlinkat, {EACCES, EROFS}},
    {"read", SYS_read, {EIO, EINTR, EAGAIN}},
    {"write", SYS_write, {EPIPE, EINTR, EAGAIN}}, /* only pipes are written */
    {"kill", SYS_kill, {EPERM, ESRCH}},
    {"pidfd_open", SYS_pidfd_open, {EMFILE, ENFILE, ENOMEM, ENODEV, ESRCH, EINVAL, ENOSYS, EPERM}},
    {"pidfd_send_signal", SYS_pidfd_send_signal, {EPERM, ESRCH, EINVAL, ENOSYS}},
    {"poll", SYS_poll, {EINTR, ENOMEM}},
    {"socketpair", SYS_socketpair, {EMFILE, ENFILE, EAFNOSUPPORT}},
    {"setsockopt", SYS_setsockopt, {ENOPROTOOPT}},
    {"sendto", SYS_sendto, {EPIPE, EAGAIN, ENOMEM}},
    {"recvfrom", SYS_recvfrom, {EAGAIN, EINTR, ENOMEM}},
    {"recvmsg", SYS_recvmsg, {EAGAIN, EINTR, ENOMEM}},
    {"wait4", SYS_wait4, {EINTR}},
    {"waitid", SYS_waitid, {ECHILD, EINVAL, EINTR, ENOSYS, EPERM}},
    {"ioctl", SYS_ioctl, {ENOTTY, EINVAL, ESRCH, EPERM}},
    {"getrusage", SYS_getrusage, {EINVAL, EPERM}},
    {"prlimit64", SYS_prlimit64, {EPERM, EINVAL, ENOSYS}},
    {"futex", SYS_futex, {EAGAIN, EINTR, ETIMEDOUT, ENOSYS}},
    {"getpriority", SYS_getpriority, {EPERM, ESRCH}},
    {"setpgid", SYS_setpgid, {EPERM, EACCES, EINVAL, ESRCH}},
    {"nanosleep", SYS_nanosleep, {EINTR}},
    {"sigtimedwait", -1, {EAGAIN, EINTR}},
    {"getppid", SYS_getppid, {ESRCH}}, /* as if another had become the parent */
    {"prctl", SYS_prctl, {EINVAL, EPERM, ENOSYS}},
    {"rt_sigaction", SYS_rt_sigaction, {EINVAL}},
    {"setsid", SYS_setsid, {EPERM}},
    {"chdir", SYS_chdir, {EACCES, ENOENT, ENOTDIR, EIO, ENOMEM, ELOOP}},
    {"fchdir", SYS_fchdir, {EACCES, EBADF, ENOTDIR}},
    {"dup3", SYS_dup3, {EBADF, EBUSY, EINTR, EMFILE}},
    {"lseek", SYS_lseek, {EINVAL, EBADF}},
    {"getdents64", SYS_getdents64, {EIO, EINVAL, ENOENT}},
    {"close_range", SYS_close_range, {ENOSYS, EPERM, EINVAL, EMFILE, ENOMEM}},
    {"execve", SYS_execve,
     {E2BIG, EACCES, EAGAIN, EIO, ELOOP, EMFILE, ENFILE, ENOENT, ENOEXEC, ENOMEM, ENOTDIR, EPERM,
      ETXTBSY}},
    {"setgroups", SYS_setgroups, {EPERM, EINVAL, ENOMEM}},
    {"setresgid", SYS_setresgid, {EPERM, EINVAL}},
    {"setresuid", SYS_setresuid, {EPERM, EINVAL, EAGAIN}},
    {"setpriority", SYS_setpriority, {EPERM, EACCES, EINVAL}},
    {"fstat", SYS_fstat, {EIO, EOVERFLOW, ENOMEM}},
    {"newfstatat", SYS_newfstatat, {EACCES, ENOENT}},
    {"unshare", SYS_unshare, {EPERM, ENOMEM}},
    {"statx", SYS_statx, {ENOSYS, EPERM, EIO, EACCES}},
    {"readlink", SYS_readlinkat, {EACCES, EIO, ENOENT}},
    {"opendir", -1, {EMFILE, ENFILE, ENOMEM, EACCES}},
    {"readdir", -1, {EIO}},
    {"pthread_create", -1, {EAGAIN, EPERM}},
    {NULL, -1, {0}},
};
_Static_assert(sizeof calls / sizeof *calls <= 64, "cpf_plan.counts is too short");

const char *cpf_name(int call)
{
    return calls[call].name;
}

int cpf_errno(int call, int index)
{
    return calls[call].error[index];
}

int cpf_decide(int origin, int call)
{
    struct cpf_plan *plan = cpf_plan;
    if (!plan->armed || call < 0)
        return 0;
    int count = __atomic_add_fetch(&plan->counts[origin][call], 1, __ATOMIC_SEQ_CST);
    if (plan->call == call && plan->origin == origin && count >= plan->nth
        && count - plan->nth < plan->times) {
        __atomic_add_fetch(&plan->hits, 1, __ATOMIC_SEQ_CST);
        return plan->error;
    }
    for (int i = 0; i < 3; i++)
        if (plan->without[i].error && plan->without[i].call == call
            && plan->without[i].origin == origin)
            return plan->without[i].error;
    if (plan->close_error && origin != CPF_CHILD && calls[call].number == SYS_close)
        return plan->close_error;
    return 0;
}

static int by_number(long number)
{
    enum { MOST = 512 };
    static signed char known[MOST]; /* 0: not looked for, -1: none, else one more than the index */
    if (number < 0 || number >= MOST)
        return -1;
    if (known[number] == 0) {
        known[number] = -1;
        for (int i = 0; calls[i].name; i++)
            if (calls[i].number == number)
                known[number] = (signed char)(i + 1);
    }
    return known[number] < 0 ? -1 : known[number] - 1;
}

/* Not libc's strcmp: kept free of it so that what the child can reach is plain. */
int cpf_call(const char *name)
{
    for (int i = 0; calls[i].name; i++)
        if (!strcmp(calls[i].name, name))
            return i;
    abort();
}

int cpf_fails(const char *name)
{
    int error = cpf_decide(CPF_PARENT, cpf_call(name));
    if (error)
        errno = error;
    return error != 0;
}

/* "No child" is true only of one that somebody else has reaped. */
static int steal(long type, long id)
{
    siginfo_t info = {.si_pid = 0};
    cp_raw(SYS_waitid, type, id, (long)&info, WEXITED | WNOHANG, 0);
    return info.si_pid != 0;
}

/* A fork has counters of its own, and would lose them. */
static int is_copy;

void cpf_keep_counters(void)
{
#ifdef CPF_GCOV
    extern void __gcov_dump(void);
    __gcov_dump();
#endif
}

static void start_copy(void)
{
    is_copy = 1;
#ifdef CPF_GCOV
    extern void __gcov_reset(void);
    __gcov_reset(); /* the parent has them too */
#endif
}

long cpf_raw(long n, long a, long b, long c, long d, long e)
{
    struct cpf_plan *plan = cpf_plan;
    if (is_copy && (n == SYS_execve || n == SYS_exit_group))
        cpf_keep_counters();
    if (!plan->armed)
        return cp_raw(n, a, b, c, d, e);
    int origin = cp_raw(SYS_getpid, 0, 0, 0, 0, 0) == plan->pid ? CPF_PARENT : CPF_CHILD;
    if (origin == CPF_CHILD && ++plan->child_calls == plan->kill_parent_at) {
        struct { long s, ns; } pause = {0, 50000000};
        cp_raw(SYS_kill, plan->pid, SIGKILL, 0, 0, 0);
        cp_raw(SYS_nanosleep, (long)&pause, 0, 0, 0, 0);
    }
    if (origin == CPF_CHILD && n == SYS_getppid && plan->slow_child_ms) {
        struct { long s, ns; } pause = {plan->slow_child_ms / 1000, plan->slow_child_ms % 1000 * 1000000L};
        cp_raw(SYS_nanosleep, (long)&pause, 0, 0, 0, 0);
    }
    int error = cpf_decide(origin, by_number(n));
    if (n == SYS_waitid && error == ECHILD && !steal(a, b))
        error = 0;
    if (n == SYS_close && error) /* on Linux it has closed */
        cp_raw(n, a, b, c, d, e);
    if (error)
        return -error;
    if (n == SYS_nanosleep && origin == CPF_CHILD) /* hundreds of points would wait two seconds each */
        return 0;
    long result = cp_raw(n, a, b, c, d, e);
    if (n == SYS_prlimit64 && b == RLIMIT_NOFILE && result == 0 && d && plan->nofile)
        ((uint64_t *)d)[0] = ((uint64_t *)d)[1] = plan->nofile;
    return result;
}

void cpf_slow(const char *path)
{
    const char *name = strrchr(path, '/');
    if (cpf_plan->armed && cpf_plan->slow_names_s && name
        && (!strcmp(name, "/cmdline") || !strcmp(name, "/environ")))
        sleep((unsigned)cpf_plan->slow_names_s);
}

int cpf_clone(int (*function)(void *), void *stack, int flags, void *argument,
              int *pidfd, void *tls, volatile int *tid)
{
    if (cpf_fails("clone"))
        return -1;
    if (cpf_plan->armed && cpf_plan->without_pidfd_flag)
        flags &= ~CLONE_PIDFD;
    return clone(function, stack, flags, argument, pidfd, tls, tid);
}

long cpf_syscall(long n, long a, long b, long c, long d, long e)
{
    int error = cpf_decide(CPF_PARENT, by_number(n));
    if (error) {
        errno = error;
        return -1;
    }
    if (n == SYS_clone && cpf_plan->armed && cpf_plan->without_pidfd_flag)
        a &= ~(long)CLONE_PIDFD;
    long result = syscall(n, a, b, c, d, e);
    if (n == SYS_clone && result == 0)
        start_copy();
    return result;
}
