/*
 * Closing what the child must not inherit: three rungs, each of which either
 * closes everything outside the keep list or fails with an errno. If none
 * works the child is not started.
 *
 * All but the last two functions run in the child: raw calls only, nothing
 * written outside its own block and stack.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "internal.h"

struct cp_dirent64 {
    uint64_t ino;
    int64_t offset;
    unsigned short size;
    unsigned char type;
    char name[];
};

static int kept(const struct cp_keep *keep, int fd)
{
    for (int i = 0; i < keep->count; i++)
        if (keep->fd[i] == fd)
            return 1;
    return 0;
}

/* Linux 5.9. The gaps between the kept descriptors, then all above them. */
static int by_range(const struct cp_keep *keep)
{
    unsigned from = 0;
    for (int i = 0; i < keep->count; i++) {
        unsigned fd = (unsigned)keep->fd[i];
        if (fd > from) {
            long r = cp_raw3(SYS_close_range, from, fd - 1, 0);
            if (r < 0)
                return (int)-r;
        }
        from = fd + 1;
    }
    long r = cp_raw3(SYS_close_range, from, ~0U, 0);
    return (int)-r;
}

/* -1 for a name that is no number. */
static int to_fd(const char *name)
{
    int fd = 0;
    if (*name == '\0')
        return -1;
    for (; *name; name++) {
        if (*name < '0' || *name > '9')
            return -1;
        fd = fd * 10 + (*name - '0');
    }
    return fd;
}

/* Calls visit(fd, context) for every name in an open /proc/self/fd; 0 or an
 * errno. A listing that lacks the directory itself is not ours: something else
 * is mounted there. */
static int walk(int directory, void (*visit)(int, void *), void *context)
{
    char buffer[2048] __attribute__((aligned(8)));
    int genuine = 0;
    long size;
    cp_raw3(SYS_lseek, directory, 0, SEEK_SET);
    while ((size = cp_raw3(SYS_getdents64, directory, buffer, sizeof buffer)) > 0) {
        for (long at = 0; at < size;) {
            const struct cp_dirent64 *entry = (const void *)(buffer + at);
            int fd = to_fd(entry->name);
            if (fd == directory)
                genuine = 1;
            else if (fd >= 0)
                visit(fd, context);
            at += entry->size;
        }
    }
    if (size < 0)
        return (int)-size;
    return genuine ? 0 : ENOTSUP;
}

static long open_directory(void)
{
    return cp_raw3(SYS_openat, AT_FDCWD, (long)"/proc/self/fd",
                   O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

struct sweep {
    const struct cp_keep *keep;
    int closed;
};

static void close_unkept(int fd, void *context)
{
    struct sweep *sweep = context;
    if (!kept(sweep->keep, fd)) {
        cp_raw1(SYS_close, fd);
        sweep->closed++;
    }
}

/* Closing while reading may make the kernel skip entries, so the directory is
 * read again until a pass finds nothing to close. */
static int by_proc(const struct cp_keep *keep)
{
    struct sweep sweep = {keep, 0};
    int error = 0;
    long directory = open_directory();
    if (directory < 0)
        return (int)-directory;
    do {
        sweep.closed = 0;
        error = walk((int)directory, close_unkept, &sweep);
    } while (error == 0 && sweep.closed > 0);
    cp_raw1(SYS_close, directory);
    return error;
}

/* The limits do not bound what was opened before they were lowered: the
 * parent's own reading of its highest descriptor does, where it had /proc. */
static int by_rlimit(const struct cp_keep *keep, unsigned bound)
{
    for (unsigned fd = 0; fd < bound; fd++)
        if (!kept(keep, (int)fd))
            cp_raw1(SYS_close, fd); /* EINTR too has closed it, on Linux */
    return 0;
}

int cp_close_fds(struct cp_block *block, const struct cp_keep *keep)
{
    int strategy = block->strategy;
    int error = 0;
    if (strategy == CP_CLOSE_AUTO || strategy == CP_CLOSE_RANGE) {
        block->closing = CP_CLOSE_RANGE;
        if ((error = by_range(keep)) == 0 || strategy == CP_CLOSE_RANGE)
            return error;
    }
    if (strategy == CP_CLOSE_AUTO || strategy == CP_CLOSE_PROC) {
        block->closing = CP_CLOSE_PROC;
        if ((error = by_proc(keep)) == 0 || strategy == CP_CLOSE_PROC)
            return error;
    }
    if (block->bound == 0) /* nobody knows where to stop: fail closed */
        return error ? error : ENOSYS;
    block->closing = CP_CLOSE_RLIMIT;
    return by_rlimit(keep, block->bound);
}

int cp_has_close_range(void)
{
    return cp_raw3(SYS_close_range, ~0U, ~0U, 0) == 0;
}

static unsigned read_number(const char *path, unsigned otherwise)
{
    char text[32];
    long fd = cp_raw3(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return otherwise;
    long size = cp_raw3(SYS_read, fd, text, sizeof text);
    cp_raw1(SYS_close, fd);
    unsigned value = 0;
    for (long i = 0; i < size && text[i] >= '0' && text[i] <= '9'; i++)
        value = value * 10 + (unsigned)(text[i] - '0');
    return value ? value : otherwise;
}

static void take_highest(int fd, void *context)
{
    int *highest = context;
    if (fd > *highest)
        *highest = fd;
}

/* The highest descriptor that is open here, or -1 without /proc. */
static int highest_open(void)
{
    int highest = -1;
    long directory = open_directory();
    if (directory < 0)
        return -1;
    walk((int)directory, take_highest, &highest);
    cp_raw1(SYS_close, directory);
    return highest;
}

/* A limit lowered after descriptors were opened hides the higher ones, so:
 * soft limit, hard limit, highest open descriptor, whichever is most, but no
 * more than the kernel allows (fs.nr_open). */
unsigned cp_fd_bound(void)
{
    unsigned cap = read_number("/proc/sys/fs/nr_open", 1048576);
    unsigned long bound = 0;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        bound = limit.rlim_max > limit.rlim_cur ? limit.rlim_max : limit.rlim_cur;
    if (bound == 0 || bound > cap)
        bound = cap;
    int highest = highest_open();
    if (highest >= 0 && (unsigned long)highest + 1 > bound)
        bound = (unsigned long)highest + 1;
    return (unsigned)bound;
}
