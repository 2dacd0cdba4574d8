/*
 * Other processes than our children. Each function opens, uses and closes its
 * descriptor in one call: between three calls of Python's an exception could
 * leave it open.
 */
#include <dirent.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* Bits of field 9 of /proc/PID/stat: the kernel's include/linux/sched.h. */
#define CP_PF_EXITING 0x4
#define CP_PF_KTHREAD 0x200000

/* Fields of /proc/PID/stat behind the state, by their numbers in proc(5). */
#define CP_FIELDS 31
#define CP_FIELD(n) field[(n) - 4]

static ssize_t read_at(int folder, const char *path, char *buffer, size_t size)
{
    int fd = openat(folder, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t got = sys_read(fd, buffer, size);
    sys_close(fd);
    return got;
}

ssize_t cp_read_proc(const char *path, char *buffer, size_t size)
{
    return read_at(AT_FDCWD, path, buffer, size);
}

void cp_read_each(const char *name, const int *pids, int count, char *buffer,
                  int size, int *sizes)
{
    for (int at = 0; at < count; at++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/%s", pids[at], name);
        sizes[at] = (int)cp_read_proc(path, buffer + (size_t)at * (size_t)size,
                                      (size_t)size);
    }
}

/* `count` numbers parted by spaces; how many there were. */
static int parse_numbers(const char *text, unsigned long long *numbers,
                         int count)
{
    int found = 0;
    while (found < count) {
        while (*text == ' ')
            text++;
        int negative = *text == '-';
        text += negative;
        if (*text < '0' || *text > '9')
            break;
        unsigned long long value = 0;
        while (*text >= '0' && *text <= '9')
            value = value * 10 + (unsigned)(*text++ - '0');
        numbers[found++] = negative ? 0 - value : value;
    }
    return found;
}

static int parse_stat(const char *line, struct cp_process *found)
{
    unsigned long long field[CP_FIELDS - 3] = {0};
    const char *name = strchr(line, '(');
    const char *end = strrchr(line, ')'); /* the name may hold anything */
    if (!name || !end || end < name || end[1] != ' ' || end[2] == '\0'
        || parse_numbers(end + 3, field, CP_FIELDS - 3) < CP_FIELDS - 3)
        return EINVAL;
    memset(found, 0, sizeof *found);
    size_t size = (size_t)(end - name - 1), most = sizeof found->name - 1;
    memcpy(found->name, name + 1, size < most ? size : most);
    found->state = end[2];
    found->ppid = (int)CP_FIELD(4);
    found->pgrp = (int)CP_FIELD(5);
    found->session = (int)CP_FIELD(6);
    found->exiting = (CP_FIELD(9) & CP_PF_EXITING) != 0;
    found->kernel_thread = (CP_FIELD(9) & CP_PF_KTHREAD) != 0;
    found->user_ticks = CP_FIELD(14);
    found->system_ticks = CP_FIELD(15);
    found->threads = (int)CP_FIELD(20);
    found->start = CP_FIELD(22);
    found->kill_pending = (CP_FIELD(31) >> (SIGKILL - 1) & 1) != 0;
    return 0;
}

static int read_process(int folder, const char *path, struct cp_process *found)
{
    char line[2048];
    ssize_t size = read_at(folder, path, line, sizeof line - 1);
    if (size <= 0)
        return size < 0 ? (int)-size : ESRCH;
    line[size] = '\0';
    return parse_stat(line, found);
}

int cp_read_process(int pid, struct cp_process *found)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int error = read_process(AT_FDCWD, path, found);
    found->pid = pid;
    return error;
}

int cp_read_processes(struct cp_process *found, int capacity)
{
    DIR *folder = opendir("/proc");
    if (!folder)
        return -errno;
    int count = 0;
    const struct dirent *entry;
    while (count < capacity && (entry = readdir(folder))) {
        char path[32];
        int pid = atoi(entry->d_name);
        if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
            continue;
        snprintf(path, sizeof path, "%d/stat", pid);
        if (read_process(dirfd(folder), path, &found[count]) == 0)
            found[count++].pid = pid;
    }
    closedir(folder);
    return count;
}

/* Is it still the process that was looked at? The start never changes; parent
 * and session may, but a process that changed both is looked at anew. */
static int is_same(const struct cp_identity *expected)
{
    struct cp_process now;
    return cp_read_process(expected->pid, &now) == 0
           && now.start == expected->start
           && (now.ppid == expected->ppid || now.session == expected->session);
}

/* The pidfd of whoever has the number now, or -errno. It may be a thread's
 * (EINVAL, since Linux 6.16 ENOENT); kill() would take that for its process's. */
static long open_pidfd(int pid, int use_pidfd)
{
    if (!use_pidfd)
        return -ENOSYS;
    long pidfd = sys_pidfd_open(pid);
    return pidfd == -EINVAL || pidfd == -ENOENT ? -ESRCH : pidfd;
}

int cp_signal_process(const struct cp_identity *expected, int number,
                      int use_pidfd)
{
    long pidfd = open_pidfd(expected->pid, use_pidfd);
    int error = ESRCH;
    if (pidfd == -ESRCH)
        return ESRCH;
    if (is_same(expected)) {
        if (pidfd >= 0)
            error = (int)-sys_pidfd_signal((int)pidfd, number, 0);
        else
            error = (int)-sys_kill(expected->pid, number);
    }
    if (pidfd >= 0)
        sys_close((int)pidfd);
    return error;
}

int cp_signal_group_of(const struct cp_identity *expected, int number)
{
    long pidfd = open_pidfd(expected->pid, 1);
    int error = ESRCH;
    if (pidfd < 0)
        return (int)-pidfd;
    if (is_same(expected))
        error = (int)-sys_pidfd_signal((int)pidfd, number,
                                       CP_PIDFD_SIGNAL_PROCESS_GROUP);
    sys_close((int)pidfd);
    return error;
}

/* Has it ended, all its threads included? A zombie has, and so has one whose
 * number is another's now. A pidfd tells in a fifth of the time of /proc. */
static int is_over(const struct cp_identity *expected, int use_pidfd)
{
    struct cp_process now;
    long pidfd = open_pidfd(expected->pid, use_pidfd);
    if (pidfd == -ESRCH)
        return 1;
    if (pidfd >= 0) {
        struct pollfd ended = {.fd = (int)pidfd, .events = POLLIN};
        int over = poll(&ended, 1, 0) > 0;
        sys_close((int)pidfd);
        if (over)
            return 1;
    }
    if (cp_read_process(expected->pid, &now) != 0 || now.start != expected->start)
        return 1;
    return (now.state == 'Z' || now.state == 'X') && now.threads <= 1;
}

int cp_first_alive(const struct cp_identity *expected, int count, int from,
                   int use_pidfd)
{
    int at = from;
    while (at < count && is_over(&expected[at], use_pidfd))
        at++;
    return at;
}
