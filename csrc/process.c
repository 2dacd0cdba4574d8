/*
 * Other processes than our children. Each function opens, uses and closes its
 * descriptor in one call: between three calls of Python's an exception could
 * leave it open.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

ssize_t cp_read_stat(int pid, char *buffer, size_t size)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    long fd = sys_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    ssize_t got = sys_read((int)fd, buffer, size);
    sys_close((int)fd);
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
    long pidfd = use_pidfd ? sys_pidfd_open(pid) : -ENOSYS;
    int error = ESRCH;
    if (pidfd == -ESRCH || pidfd == -EINVAL) /* gone, or a thread's number now */
        return ESRCH;
    if (is_same(pid, expected)) {
        if (pidfd >= 0)
            error = (int)-sys_pidfd_signal((int)pidfd, number, 0);
        else
            error = (int)-sys_kill(pid, number);
    }
    if (pidfd >= 0)
        sys_close((int)pidfd);
    return error;
}
