/*
 * The parent's descriptors of one spawn: pipes, unlinked files.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#ifndef O_TMPFILE
#define O_TMPFILE 0 /* then the other way is taken */
#endif

void cp_close_fd(int *fd)
{
    if (*fd >= 0)
        sys_close(*fd); /* EINTR too has closed it, on Linux */
    *fd = -1;
}

/* A host may have 0, 1 or 2 closed. What we open must not fill such a hole,
 * where a child that inherits would find it. */
int cp_above_stdio(int fd)
{
    if (fd < 0 || fd > 2)
        return fd;
    long moved = sys_fcntl(fd, F_DUPFD_CLOEXEC, 3);
    sys_close(fd);
    return (int)moved;
}

/* Ours never blocks. The child's does, as programs expect. */
int cp_open_pipe(struct cp_child *child, int slot, int mine)
{
    int ends[2];
    long r = sys_pipe(ends);
    if (r < 0)
        return (int)-r;
    int near = cp_above_stdio(ends[mine]);
    int far = cp_above_stdio(ends[!mine]);
    r = near < 0 ? near : far;
    if (r >= 0)
        r = sys_fcntl(near, F_SETFL, O_NONBLOCK | (mine ? O_WRONLY : O_RDONLY));
    if (r < 0) { /* here, since the caller may try again */
        cp_close_fd(&near);
        cp_close_fd(&far);
        return (int)-r;
    }
    child->fd[slot] = near;
    child->far[slot] = far;
    return 0;
}

/* A name that nobody else has, unlinked at once. -errno, or a descriptor. */
static int open_named(const char *directory)
{
    static const char name[] = "/childproof-XXXXXX";
    char path[PATH_MAX];
    size_t length = strlen(directory);
    if (length + sizeof name > sizeof path)
        return -ENAMETOOLONG;
    memcpy(path, directory, length);
    memcpy(path + length, name, sizeof name);
    int fd = mkstemp(path);
    if (fd < 0)
        return -errno;
    unlink(path);
    long r = sys_fcntl(fd, F_SETFD, FD_CLOEXEC);
    if (r < 0) {
        sys_close(fd);
        return (int)r;
    }
    return fd;
}

/* An unlinked file; its one descriptor serves both sides. 0 or an errno. */
static int open_tempfile(struct cp_child *child, int slot, const char *directory)
{
    long fd = -EOPNOTSUPP;
    if (O_TMPFILE)
        fd = sys_open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd == -EOPNOTSUPP || fd == -EISDIR || fd == -ENOENT)
        fd = open_named(directory);
    if (fd >= 0)
        fd = cp_above_stdio((int)fd);
    if (fd < 0)
        return (int)-fd;
    child->fd[slot] = (int)fd;
    return 0;
}

/* A number that is not open could be given to one of our own pipes, and the
 * child would get that in its place. */
static int check_given(const struct cp_request *request)
{
    long r = 0;
    for (int i = 0; i < request->pass_fds_count && r >= 0; i++)
        r = sys_fcntl(request->pass_fds[i], F_GETFD, 0);
    for (int i = 0; i < 3 && r >= 0; i++)
        if (request->stdio[i] == CP_STDIO_FD)
            r = sys_fcntl(request->stdio_fd[i], F_GETFD, 0);
    return r < 0 ? (int)-r : 0;
}

int cp_open_fds(struct cp_child *child, const struct cp_request *request)
{
    child->stage = CP_STAGE_DUP;
    int error = check_given(request);
    for (int i = 0; i < 3 && error == 0; i++) {
        if (request->stdio[i] == CP_STDIO_PIPE) {
            child->stage = CP_STAGE_PIPE;
            error = cp_open_pipe(child, i, i == 0);
        } else if (request->stdio[i] == CP_STDIO_TEMPFILE) {
            child->stage = CP_STAGE_OPEN;
            child->slot = i;
            error = open_tempfile(child, i, request->stdio_path[i]);
        }
    }
    return error;
}
