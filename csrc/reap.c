/*
 * A child after its clone: has it exec'ed, has it ended, how; and signalling
 * it. Nothing here waits for it.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

#define CP_P_PIDFD 3
#define CP_PIDFD_SIGNAL_PROCESS_GROUP 4 /* Linux 6.9 */
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif

/* linux/pidfd.h of 6.15, which no distribution has yet. */
struct pidfd_info {
    uint64_t mask;
    uint64_t cgroupid;
    uint32_t ids[11];
    int32_t exit_code;
};
#define CP_PIDFD_INFO_EXIT (1UL << 3)
#define CP_PIDFD_GET_INFO _IOWR(0xFF, 11, struct pidfd_info)

/* Frees the block: the child has left it, or never had it. */
static void settled(struct cp_child *child, int state)
{
    struct rusage usage;
    child->state = state;
    if (state == CP_STARTED && getrusage(RUSAGE_SELF, &usage) == 0)
        child->host_rss_kib = usage.ru_maxrss;
    cp_close(child, CP_REPORT);
    cp_unmap_block(child);
}

/* The word is read before the pipe: a child that has left has written its
 * report already. The word alone would do, but valgrind and qemu-user do not
 * share it; the pipe alone would not, since another fork may hold it. */
int cp_settle(struct cp_child *child, int dead)
{
    struct cp_report report;
    if (child->state != CP_SPAWNING)
        return child->state;
    const struct cp_block *block = cp_block_of(child);
    int left = dead || (child->start != CP_START_FORK && block->tid == 0);
    ssize_t size = read(child->fd[CP_REPORT], &report, sizeof report);
    if (size == (ssize_t)sizeof report) {
        child->stage = report.stage;
        child->error = report.error;
    }
    if (size != 0 && !left)
        return child->state;
    child->closing = block->closing;
    int stage = block->stage;
    if (child->error)
        settled(child, CP_FAILED);
    else if (stage < CP_STAGE_EXEC) {
        child->stage = stage;
        settled(child, CP_DIED);
    } else
        settled(child, CP_STARTED);
    return child->state;
}

int cp_stage_now(const struct cp_child *child)
{
    return child->block ? cp_block_of(child)->stage : child->stage;
}

/* waitid with the kernel's fifth argument; by pid where there is no pidfd, or
 * where the kernel (5.2, 5.3) has pidfds but cannot wait on them. */
static long wait_for(const struct cp_child *child, siginfo_t *info, int options,
                     struct rusage *usage)
{
    long r = -EINVAL;
    memset(info, 0, sizeof *info);
    if (child->fd[CP_PIDFD] >= 0)
        r = cp_raw5(SYS_waitid, CP_P_PIDFD, child->fd[CP_PIDFD], info,
                    options | WEXITED | WNOHANG, usage);
    if (r == -EINVAL)
        r = cp_raw5(SYS_waitid, P_PID, child->pid, info,
                    options | WEXITED | WNOHANG, usage);
    return r;
}

int cp_ended(const struct cp_child *child)
{
    siginfo_t info;
    if (child->pid <= 0 || child->reaped)
        return -1;
    long r = wait_for(child, &info, WNOWAIT, NULL);
    if (r == -ECHILD)
        return -1;
    return r == 0 && info.si_pid != 0;
}

static double seconds(const struct timeval *time)
{
    return (double)time->tv_sec + (double)time->tv_usec / 1e6;
}

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
        struct timespec pause = {0, 100000};
        nanosleep(&pause, NULL);
    }
}

int cp_reap(struct cp_child *child)
{
    siginfo_t info;
    struct rusage usage;
    if (child->reaped || child->pid <= 0)
        return 1;
    long r = wait_for(child, &info, 0, &usage);
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
    child->max_rss_kib = usage.ru_maxrss;
    return 1;
}

/* The kernel stores the pidfd before it suspends the spawning thread. */
int cp_kill_suspended(const struct cp_child *child)
{
    int pidfd = *(const volatile int *)&child->fd[CP_PIDFD];
    if (pidfd < 0)
        return ESRCH;
    return (int)-cp_raw4(SYS_pidfd_send_signal, pidfd, SIGKILL, 0, 0);
}

int cp_signal(const struct cp_child *child, int number)
{
    if (child->pid <= 0 || child->reaped)
        return ESRCH;
    if (child->fd[CP_PIDFD] >= 0) {
        long r = cp_raw4(SYS_pidfd_send_signal, child->fd[CP_PIDFD], number, 0, 0);
        if (r != -ENOSYS && r != -EPERM)
            return (int)-r;
    }
    if (cp_ended(child) < 0) /* a bare pid only while the child pins it */
        return ESRCH;
    return kill(child->pid, number) < 0 ? errno : 0;
}

int cp_signal_group(const struct cp_child *child, int number)
{
    if (child->pid <= 0 || !child->group)
        return ESRCH;
    if (child->fd[CP_PIDFD] >= 0 && !(child->disabled & CP_DISABLE_PIDFD_GROUP)) {
        long r = cp_raw4(SYS_pidfd_send_signal, child->fd[CP_PIDFD], number, 0,
                         CP_PIDFD_SIGNAL_PROCESS_GROUP);
        if (r == 0 || r == -ESRCH)
            return (int)-r;
    }
    if (child->reaped || cp_ended(child) < 0)
        return ESRCH;
    return kill(-child->pid, number) < 0 ? errno : 0;
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
                && !(action.sa_flags & SA_SIGINFO)
                && action.sa_handler != SIG_IGN;
    if (fatal) {
        sigemptyset(&pipe);
        sigaddset(&pipe, SIGPIPE);
        pthread_sigmask(SIG_BLOCK, &pipe, &old);
    }
    written = write(fd, data, size);
    if (written < 0)
        written = -errno;
    if (fatal) {
        if (written == -EPIPE)
            sigtimedwait(&pipe, NULL, &none);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
    }
    return written;
}
