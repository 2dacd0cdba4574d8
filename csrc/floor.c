/*
 * See floor.h. The child shares the memory of its parent, which is suspended
 * until the exec (CLONE_VM | CLONE_VFORK): the cheapest way that Linux has.
 * So the child may write its own stack and `shared.error`, and errno, which the
 * sleeping parent looks at only after its own next call.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "floor.h"

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#define FLOOR_P_PIDFD 3

struct shared {
    const char *program;
    char *const *argv;
    char *const *envp;
    int out; /* what becomes descriptor 1; -1: /dev/null */
    int err;
    sigset_t mask;
    volatile int error;
};

/* Where close_range is missing the descriptors are left to close-on-exec: a
 * floor may do less than a contender, never more. */
static int child_main(void *argument)
{
    struct shared *shared = argument;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int out = shared->out < 0 ? null : shared->out;
    int err = shared->err < 0 ? null : shared->err;
    if (null < 0 || setsid() < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0
        || dup2(err, 2) < 0)
        goto failed;
    syscall(SYS_close_range, 3, ~0U, 0);
    sigprocmask(SIG_SETMASK, &shared->mask, NULL);
    execve(shared->program, shared->argv, shared->envp);
failed:
    shared->error = errno;
    _exit(127);
}

/* The child's pid, or -errno. A child that failed is waited for here. */
static int start(struct shared *shared, int *pidfd)
{
    int flags = CLONE_VM | CLONE_VFORK | SIGCHLD | (pidfd ? CLONE_PIDFD : 0);
    _Alignas(16) char stack[64 * 1024]; /* the caller sleeps until the child has left it */
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &shared->mask); /* no handler may run in the child */
    shared->error = 0;
    int pid = clone(child_main, stack + sizeof stack, flags, shared, pidfd);
    int error = pid < 0 ? errno : 0;
    sigprocmask(SIG_SETMASK, &shared->mask, NULL);
    if (error)
        return -error;
    if (shared->error) {
        waitpid(pid, NULL, 0);
        if (pidfd)
            close(*pidfd);
        return -shared->error;
    }
    return pid;
}

static int finish(int how, int id, struct floor_result *result)
{
    siginfo_t info;
    struct timespec now;
    if (waitid((idtype_t)how, (id_t)id, &info, WEXITED) < 0)
        return errno;
    result->code = info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
    clock_gettime(CLOCK_MONOTONIC, &now);
    result->returned_ns = (long long)now.tv_sec * 1000000000 + now.tv_nsec;
    return 0;
}

/* Until both have ended. What does not fit is read and dropped. */
static int drain(const int fds[2], char *buffer, size_t capacity,
                 struct floor_result *result)
{
    char dropped[4096];
    struct pollfd wanted[2] = {{fds[0], POLLIN, 0}, {fds[1], POLLIN, 0}};
    int open = 2;
    while (open > 0) {
        if (poll(wanted, 2, -1) < 0 && errno != EINTR)
            return errno;
        for (int i = 0; i < 2; i++) {
            if (wanted[i].fd < 0 || !wanted[i].revents)
                continue;
            size_t room = capacity - result->size;
            ssize_t n = room ? read(fds[i], buffer + result->size, room)
                             : read(fds[i], dropped, sizeof dropped);
            if (n < 0)
                return errno;
            if (n == 0) {
                wanted[i].fd = -1;
                open--;
            } else if (room)
                result->size += (size_t)n;
        }
    }
    return 0;
}

int floor_run(const char *program, char *const argv[], char *const envp[],
              char *buffer, size_t capacity, struct floor_result *result)
{
    int out[2], err[2];
    memset(result, 0, sizeof *result);
    if (pipe2(out, O_CLOEXEC) < 0)
        return errno;
    if (pipe2(err, O_CLOEXEC) < 0) {
        int error = errno;
        close(out[0]);
        close(out[1]);
        return error;
    }
    struct shared shared = {program, argv, envp, out[1], err[1], {{0}}, 0};
    int pid = start(&shared, NULL);
    close(out[1]);
    close(err[1]);
    int error = pid < 0 ? -pid : 0;
    if (!error) {
        const int fds[2] = {out[0], err[0]};
        error = drain(fds, buffer, capacity, result);
        int lost = finish(P_PID, pid, result);
        error = error ? error : lost;
    }
    close(out[0]);
    close(err[0]);
    return error;
}

int floor_wait(const char *program, char *const argv[], char *const envp[],
               struct floor_result *result)
{
    int pidfd = -1;
    memset(result, 0, sizeof *result);
    struct shared shared = {program, argv, envp, -1, -1, {{0}}, 0};
    int pid = start(&shared, &pidfd);
    if (pid < 0)
        return -pid;
    struct pollfd ended = {pidfd, POLLIN, 0};
    while (pidfd >= 0 && poll(&ended, 1, -1) < 0 && errno == EINTR)
        continue;
    int error = finish(pidfd < 0 ? P_PID : FLOOR_P_PIDFD, pidfd < 0 ? pid : pidfd, result);
    if (pidfd >= 0)
        close(pidfd);
    return error;
}
