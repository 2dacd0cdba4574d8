/*
 * A child after its clone: has it exec'ed, has it ended, how; and signalling
 * it. Nothing here waits for it.
 */
#include <poll.h>
#include <string.h>
#include <sys/wait.h>

#include "internal.h"


/* macOS counts bytes, see its getrusage(2). */
static long peak_kib(const struct rusage *usage)
{
#ifdef __APPLE__
    return usage->ru_maxrss / 1024;
#else
    return usage->ru_maxrss;
#endif
}

/* Frees the block: the child has left it, or never had it. */
static void settled(struct cp_child *child, int state)
{
    struct rusage usage;
    if (state == CP_STARTED && getrusage(RUSAGE_SELF, &usage) == 0)
        child->host_rss_kib = peak_kib(&usage);
    cp_lock();
    child->state = state;
    cp_close_fd(&child->fd[CP_REPORT]);
    cp_give_block(child);
    cp_unlock();
}

/* For a child on our memory the word alone says that it has left: a pipe would
 * not, since another fork may hold it. For a copy there is only the pipe. */
static int has_left(const struct cp_child *child, const struct cp_block *block)
{
    char nothing;
    if (child->start != CP_START_FORK && __atomic_load_n(&block->tid, __ATOMIC_ACQUIRE) == 0)
        return 1;
    return child->fd[CP_REPORT] >= 0 && sys_read(child->fd[CP_REPORT], &nothing, 1) == 0;
}

int cp_settle_own(struct cp_child *child, int dead)
{
    if (child->state != CP_SPAWNING)
        return child->state;
    const struct cp_block *block = cp_block_of(child);
    if (!dead && !has_left(child, block))
        return child->state;
    int stage = block->stage;
    child->closing = block->closing;
    child->closed = block->closed;
    child->exact = block->exact;
    child->service = block->service;
    child->error = block->error;
    child->slot = block->slot;
    child->stage = stage;
    if (child->error)
        settled(child, CP_FAILED);
    else
        settled(child, stage < CP_STAGE_EXEC ? CP_DIED : CP_STARTED);
    return child->state;
}

int cp_settle(struct cp_child *child, int dead)
{
    return child->supervised ? cp_settle_command(child, dead) : cp_settle_own(child, dead);
}

int cp_await_own(struct cp_child *child, int milliseconds)
{
    if (cp_settle_own(child, 0) != CP_SPAWNING || milliseconds == 0)
        return child->state;
#if !CP_PORTABLE
    if (child->fd[CP_REPORT] < 0) {
        /* The kernel wakes whoever waits for the word that it has zeroed. */
        struct { long s, ns; } pause = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
        cp_raw4(SYS_futex, &cp_block_of(child)->tid, 0 /* FUTEX_WAIT */, 1,
                milliseconds < 0 ? NULL : &pause);
        return cp_settle_own(child, 0);
    }
#endif
    struct pollfd wanted[2] = {
        {child->fd[CP_REPORT], POLLIN, 0}, {child->fd[CP_PIDFD], POLLIN, 0}};
    poll(wanted, 2, milliseconds);
    int dead = wanted[1].revents && cp_ended_own(child) != 0;
    if (wanted[1].revents && !dead && !wanted[0].revents) /* the host has closed it */
        poll(wanted, 1, milliseconds);
    return cp_settle_own(child, dead);
}

int cp_await_exec(struct cp_child *child, int milliseconds)
{
    return child->supervised ? cp_await_command(child, milliseconds)
                             : cp_await_own(child, milliseconds);
}

int cp_stage_now(const struct cp_child *child)
{
    return child->block ? cp_block_of(child)->stage : child->stage;
}

/* The process that we have to wait for. */
static int own_pid(const struct cp_child *child)
{
    return child->supervised ? child->supervisor : child->pid;
}

static void fill(siginfo_t *info, int pid, int status)
{
    info->si_pid = pid;
    info->si_code = WIFEXITED(status) ? CLD_EXITED : CLD_KILLED;
    info->si_status = WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status);
}

#if CP_PORTABLE
/* wait4 is no POSIX, but macOS and the BSDs have it, and it alone tells the usage. */
static long wait_by_wait4(const struct cp_child *child, siginfo_t *info,
                          struct rusage *usage)
{
    int status;
    long r = cp_result(wait4(own_pid(child), &status, WNOHANG, usage));
    if (r <= 0)
        return r;
    fill(info, own_pid(child), status);
    return 0;
}

static long wait_for(const struct cp_child *child, siginfo_t *info, int options,
                     struct rusage *usage)
{
    memset(info, 0, sizeof *info);
    if (usage)
        return wait_by_wait4(child, info, usage);
    return cp_result(waitid(P_PID, (id_t)own_pid(child), info, options | WEXITED | WNOHANG));
}
#else
#define CP_P_PIDFD 3

/* waitid with the kernel's fifth argument; by pid where there is no pidfd,
 * where the kernel (5.2, 5.3) has pidfds but cannot wait on them, where a
 * filter refuses that, and where the host has closed what it did not open. */
static long wait_for(const struct cp_child *child, siginfo_t *info, int options,
                     struct rusage *usage)
{
    long r = -EINVAL;
    info->si_pid = 0;
    options |= WEXITED | WNOHANG;
    if (child->fd[CP_PIDFD] >= 0)
        r = cp_raw5(SYS_waitid, CP_P_PIDFD, child->fd[CP_PIDFD], info, options, usage);
    if (r < 0 && r != -ECHILD)
        r = cp_raw5(SYS_waitid, P_PID, own_pid(child), info, options, usage);
    return r;
}

/* Where a filter refuses waitid altogether, as waitid would have it. */
static long wait_by_wait4(const struct cp_child *child, siginfo_t *info,
                          struct rusage *usage)
{
    int status;
    long r = cp_raw4(SYS_wait4, own_pid(child), &status, WNOHANG, usage);
    if (r <= 0)
        return r;
    fill(info, own_pid(child), status);
    return 0;
}
#endif

/* Where waitid is refused: a pidfd tells without it, and so does /proc, which
 * gives the child's own line as long as it is not reaped. */
static int has_ended(const struct cp_child *child)
{
    struct pollfd wanted = {child->fd[CP_PIDFD], POLLIN, 0};
    struct cp_process now;
    if (wanted.fd >= 0 && (poll(&wanted, 1, 0) <= 0 || !(wanted.revents & POLLNVAL)))
        return wanted.revents != 0;
    return cp_read_process(own_pid(child), &now) == 0 && now.state == 'Z' && now.threads <= 1;
}

int cp_ended_own(const struct cp_child *child)
{
    siginfo_t info;
    if (child->pid <= 0 || child->reaped)
        return -1;
    long r = wait_for(child, &info, WNOWAIT, NULL);
    if (r == -ECHILD)
        return -1;
    if (r < 0)
        return has_ended(child);
    return info.si_pid != 0;
}

/* A number that is open may be another file's: only a pidfd can be signalled. */
int cp_ask_pidfd(struct cp_child *child)
{
    struct pollfd wanted = {child->fd[CP_PIDFD], POLLIN, 0};
    if (wanted.fd < 0)
        return 0;
    if (poll(&wanted, 1, 0) < 0)
        return 0;
    if (!(wanted.revents & POLLNVAL) && sys_pidfd_signal(wanted.fd, 0, 0) != -EBADF)
        return wanted.revents != 0;
    child->fd[CP_PIDFD] = -1;
    return -1;
}

int cp_ended(struct cp_child *child)
{
    return child->supervised ? cp_ended_command(child) : cp_ended_own(child);
}

static double seconds(const struct timeval *time)
{
    return (double)time->tv_sec + (double)time->tv_usec / 1e6;
}

#if CP_PORTABLE
static void ask_the_kernel(struct cp_child *child)
{
    (void)child;
}
#else
#include <sys/ioctl.h>

/* linux/pidfd.h of 6.15, which no distribution has yet. */
struct pidfd_info {
    uint64_t mask;
    uint64_t cgroupid;
    uint32_t ids[11];
    int32_t exit_code;
};
#define CP_PIDFD_INFO_EXIT (1UL << 3)
#define CP_PIDFD_GET_INFO _IOWR(0xFF, 11, struct pidfd_info)

/* SIGCHLD is ignored, or another thread waits for any child: the kernel may
 * still tell (6.15). It files the status a moment after the pidfd has become
 * readable, hence the few tries. */
static void ask_the_kernel(struct cp_child *child)
{
    if ((child->disabled & CP_DISABLE_PIDFD_INFO) || child->fd[CP_PIDFD] < 0)
        return;
    for (int i = 0; i < 100; i++) {
        struct pidfd_info info = {.mask = CP_PIDFD_INFO_EXIT};
        long r = cp_raw3(SYS_ioctl, child->fd[CP_PIDFD], CP_PIDFD_GET_INFO, &info);
        if (r < 0 && r != -ESRCH)
            return;
        if (r == 0 && (info.mask & CP_PIDFD_INFO_EXIT)) {
            child->status_known = 1;
            child->exited = WIFEXITED(info.exit_code);
            child->status = child->exited ? WEXITSTATUS(info.exit_code)
                                          : WTERMSIG(info.exit_code);
            return;
        }
        sys_sleep_ns(100000);
    }
}
#endif

int cp_reap_own(struct cp_child *child)
{
    siginfo_t info;
    struct rusage usage;
    if (child->reaped || child->pid <= 0)
        return 1;
    long r = wait_for(child, &info, 0, &usage);
    if (r < 0 && r != -ECHILD)
        r = wait_by_wait4(child, &info, &usage);
    if (r == 0 && info.si_pid == 0)
        return 0;
    child->reaped = 1;
    if (r < 0) {
        ask_the_kernel(child);
        return 1;
    }
    child->status_known = 1;
    child->exited = info.si_code == CLD_EXITED;
    child->status = info.si_status;
    child->has_usage = 1;
    child->user_s = seconds(&usage.ru_utime);
    child->system_s = seconds(&usage.ru_stime);
    child->max_rss_kib = peak_kib(&usage);
    return 1;
}

int cp_reap(struct cp_child *child)
{
    return child->supervised ? cp_reap_command(child) : cp_reap_own(child);
}

/* The kernel stores the pidfd before it suspends the spawning thread. */
int cp_kill_suspended(const struct cp_child *child)
{
    int pidfd = *(const volatile int *)&child->fd[CP_PIDFD];
    if (pidfd < 0)
        return ESRCH;
    return (int)-sys_pidfd_signal(pidfd, SIGKILL, 0);
}

/* The pidfd of the child, or of a supervised command. */
static int target(const struct cp_child *child)
{
    return child->fd[child->spawned ? CP_COMMAND : CP_PIDFD];
}

/* A bare number is used only as long as a child that is not reaped keeps it from
 * being a stranger's. */
static int is_pinned(struct cp_child *child)
{
    if (child->supervised)
        return cp_ended_command(child) >= 0 && !child->released;
    return !child->reaped && cp_ended_own(child) >= 0;
}

int cp_signal(struct cp_child *child, int number)
{
    if (child->pid <= 0 || (child->reaped && !child->supervised))
        return ESRCH;
    if (child->relayed && !child->spawned) { /* its supervisor is to outlive it */
        if (number == SIGKILL)
            cp_kill_supervised(child);
        return 0;
    }
    if (target(child) >= 0) {
        long r = sys_pidfd_signal(target(child), number, 0);
        if (r != -ENOSYS && r != -EPERM && r != -EBADF)
            return (int)-r;
    }
    return is_pinned(child) ? (int)-sys_kill(child->pid, number) : ESRCH;
}

int cp_signal_group(struct cp_child *child, int number)
{
    if (child->pid <= 0 || !child->group || (child->supervised && !child->spawned))
        return ESRCH;
    if (target(child) >= 0 && !(child->disabled & CP_DISABLE_PIDFD_GROUP)) {
        long r = sys_pidfd_signal(target(child), number, CP_PIDFD_SIGNAL_PROCESS_GROUP);
        if (r == 0 || r == -ESRCH)
            return (int)-r;
    }
    return is_pinned(child) ? (int)-sys_kill(-child->pid, number) : ESRCH;
}

ssize_t cp_write(int fd, const void *data, size_t size)
{
    struct sigaction action;
    sigset_t pipe, old;
    struct timespec none = {0, 0};
    ssize_t written;
    /* Python ignores SIGPIPE; a host that took that back would be killed by
     * a child that does not read its input. */
    int fatal = sigaction(SIGPIPE, NULL, &action) == 0
                && action.sa_handler != SIG_IGN;
    if (fatal) {
        sigemptyset(&pipe);
        sigaddset(&pipe, SIGPIPE);
        pthread_sigmask(SIG_BLOCK, &pipe, &old);
    }
    written = write(fd, data, size);
    if (written < 0)
        written = errno == EINTR ? -EAGAIN : -errno;
    if (fatal) {
        if (written == -EPIPE)
            sigtimedwait(&pipe, NULL, &none);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
    }
    return written;
}
