/*
 * Other processes than our children. Each function opens, uses and closes its
 * descriptor in one call: between three calls of Python's an exception could
 * leave it open.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "internal.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif

ssize_t cp_read_stat(int pid, char *buffer, size_t size)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t got = read(fd, buffer, size);
    if (got < 0)
        got = -errno;
    close(fd);
    return got;
}

/* Is it still the process that was looked at? The start never changes; parent
 * and session may, but a process that changed both is looked at anew. */
static int is_same(int pid, const struct cp_identity *expected)
{
    char line[4096];
    int ppid, session;
    unsigned long long start;
    ssize_t size = cp_read_stat(pid, line, sizeof line - 1);
    if (size <= 0)
        return 0;
    line[size] = '\0';
    const char *rest = strrchr(line, ')'); /* the name may hold anything */
    if (!rest
        || sscanf(rest + 1,
                  " %*c %d %*d %d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d"
                  " %*d %*d %*d %*d %llu",
                  &ppid, &session, &start) != 3)
        return 0;
    return start == expected->start
           && (ppid == expected->ppid || session == expected->session);
}

int cp_signal_process(int pid, const struct cp_identity *expected, int number,
                      int use_pidfd)
{
    long pidfd = use_pidfd ? cp_raw2(SYS_pidfd_open, pid, 0) : -ENOSYS;
    int error = ESRCH;
    if (pidfd == -ESRCH || pidfd == -EINVAL) /* gone, or a thread's number now */
        return ESRCH;
    if (is_same(pid, expected)) {
        if (pidfd >= 0)
            error = (int)-cp_raw4(SYS_pidfd_send_signal, pidfd, number, 0, 0);
        else
            error = kill(pid, number) < 0 ? errno : 0;
    }
    if (pidfd >= 0)
        cp_raw1(SYS_close, pidfd);
    return error;
}
