/* See sys.h: POSIX.1-2008 and no more, where a child is always a fork. */
#include <dirent.h>
#include <grp.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#define CP_PORTABLE 1
#define CP_RAW_ASM 0

#ifdef NSIG
#define CP_NSIG (NSIG - 1)
#else
#define CP_NSIG 31
#endif

struct cp_sigaction {
    void (*handler)(int);
};

typedef sigset_t cp_sigset;

static inline long cp_result(long result)
{
    return result < 0 ? -errno : result;
}

static inline long sys_close(int fd)
{
    return cp_result(close(fd));
}

static inline long sys_open(const char *path, int flags, int mode)
{
    return cp_result(open(path, flags, mode));
}

static inline long sys_read(int fd, void *data, size_t size)
{
    return cp_result(read(fd, data, size));
}

static inline long sys_write(int fd, const void *data, size_t size)
{
    return cp_result(write(fd, data, size));
}

static inline long sys_fcntl(int fd, int command, int value)
{
    return cp_result(fcntl(fd, command, value));
}

/* Between the two steps a fork that does not come through libc could inherit
 * the ends; those that do are kept out by the spawner's lock. */
static inline long sys_pipe(int ends[2])
{
    if (pipe(ends) < 0)
        return -errno;
    for (int i = 0; i < 2; i++) {
        if (fcntl(ends[i], F_SETFD, FD_CLOEXEC) < 0) {
            long error = -errno;
            close(ends[0]);
            close(ends[1]);
            return error;
        }
    }
    return 0;
}

static inline long sys_dup(int from, int to)
{
    return cp_result(dup2(from, to));
}

static inline long sys_getpid(void)
{
    return getpid();
}

static inline long sys_getppid(void)
{
    return getppid();
}

static inline long sys_setsid(void)
{
    return cp_result(setsid());
}

static inline long sys_setpgid(int pid, int group)
{
    return cp_result(setpgid(pid, group));
}

static inline long sys_chdir(const char *path)
{
    return cp_result(chdir(path));
}

static inline long sys_fchdir(int fd)
{
    return cp_result(fchdir(fd));
}

static inline void sys_umask(int mask)
{
    umask((mode_t)mask);
}

/* Not POSIX, but in every Unix. */
static inline long sys_setgroups(int count, const unsigned *groups)
{
    return cp_result(setgroups((size_t)count, (const gid_t *)groups));
}

static inline long sys_setgid(unsigned id)
{
    return cp_result(setregid(id, id));
}

static inline long sys_setuid(unsigned id)
{
    return cp_result(setreuid(id, id));
}

static inline long sys_setrlimit(int resource, uint64_t soft, uint64_t hard)
{
    struct rlimit limit = {
        soft == ~(uint64_t)0 ? RLIM_INFINITY : (rlim_t)soft,
        hard == ~(uint64_t)0 ? RLIM_INFINITY : (rlim_t)hard,
    };
    return cp_result(setrlimit(resource, &limit));
}

static inline long sys_getrlimit(int resource, uint64_t limit[2])
{
    struct rlimit now;
    if (getrlimit(resource, &now) < 0)
        return -errno;
    limit[0] = now.rlim_cur;
    limit[1] = now.rlim_max;
    return 0;
}

static inline long sys_nice(int increment)
{
    errno = 0;
    return nice(increment) == -1 && errno ? -errno : 0;
}

static inline long sys_no_new_privs(void)
{
    return -ENOSYS;
}

static inline long sys_set_death_signal(int number)
{
    (void)number;
    return 0;
}

static inline long sys_sigaction(int number, const struct cp_sigaction *set,
                                 struct cp_sigaction *old)
{
    struct sigaction now;
    if (old) {
        if (sigaction(number, NULL, &now) < 0)
            return -errno;
        old->handler = now.sa_flags & SA_SIGINFO ? SIG_ERR : now.sa_handler;
    }
    if (set) {
        struct sigaction action = {0};
        action.sa_handler = set->handler;
        sigemptyset(&action.sa_mask);
        if (sigaction(number, &action, NULL) < 0)
            return -errno;
    }
    return 0;
}

static inline void sys_block_signals(cp_sigset *old)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, old);
}

static inline void sys_set_mask(const cp_sigset *mask)
{
    pthread_sigmask(SIG_SETMASK, mask, NULL);
}

static inline void sys_sleep_ns(long ns)
{
    struct timespec pause = {0, ns};
    nanosleep(&pause, NULL);
}

static inline long sys_execve(const char *path, char **argv, char **envp)
{
    return cp_result(execve(path, argv, envp));
}

static inline long sys_fork(void)
{
    return cp_result(fork());
}

static inline long sys_wait_for_end(int pid, siginfo_t *info)
{
    return cp_result(waitid(P_PID, (id_t)pid, info, WEXITED | WNOWAIT));
}

static inline _Noreturn void sys_exit(int status)
{
    _exit(status);
}

#define CP_UNSHARE 0

static inline long sys_close_range(unsigned first, unsigned last, unsigned flags)
{
    (void)first, (void)last, (void)flags;
    return -ENOSYS;
}

static inline long sys_unshare_table(void)
{
    return -ENOSYS;
}

static inline long sys_identify_path(const char *path, uint64_t id[2])
{
    (void)path, (void)id;
    return -ENOSYS;
}

static inline long sys_identify(int fd, uint64_t id[2])
{
    (void)fd, (void)id;
    return -ENOSYS;
}

static inline void sys_yield(void)
{
}

static inline void sys_wait_for_word(volatile int *word, int value, long ns)
{
    (void)word, (void)value, (void)ns;
}

static inline void sys_wake_waiter(volatile int *word)
{
    (void)word;
}

static inline long sys_uname(struct utsname *system)
{
    (void)system;
    return -ENOSYS;
}

static inline long sys_getdents(int fd, void *buffer, size_t size)
{
    (void)fd;
    (void)buffer;
    (void)size;
    return -ENOSYS;
}

static inline long sys_rewind(int fd)
{
    return cp_result(lseek(fd, 0, SEEK_SET) < 0 ? -1 : 0);
}

static inline long sys_kill(int pid, int number)
{
    return cp_result(kill(pid, number));
}

static inline long sys_pidfd_open(int pid)
{
    (void)pid;
    return -ENOSYS;
}

static inline long sys_pidfd_signal(int pidfd, int number, unsigned flags)
{
    (void)pidfd;
    (void)number;
    (void)flags;
    return -ENOSYS;
}

static inline long sys_statx(int folder, const char *path, int flags,
                             unsigned mask, void *found)
{
    (void)folder, (void)path, (void)flags, (void)mask, (void)found;
    return -ENOSYS;
}
