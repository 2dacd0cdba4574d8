/*
 * Closing what the child must not inherit: three rungs, each of which either
 * closes everything outside the keep list or fails with an errno. If none
 * works the child is not started.
 *
 * All above cp_has_close_range run in the child: raw calls only, nothing written
 * outside its own block and stack.
 */
#include "internal.h"

struct cp_dirent64 {
    uint64_t ino;
    int64_t offset;
    unsigned short size;
    unsigned char type;
    char name[];
};

static int kept(const struct cp_block *block, int fd)
{
    int low = 0, high = block->keep_count;
    while (low < high) {
        int middle = (low + high) / 2;
        if (block->keep[middle] < fd)
            low = middle + 1;
        else
            high = middle;
    }
    return low < block->keep_count && block->keep[low] == fd;
}

/* Linux 5.9. The gaps between the kept descriptors, then all above them. How
 * many there were it does not say. */
static int by_range(const struct cp_block *block)
{
    unsigned from = 0;
    for (int i = 0; i < block->keep_count; i++) {
        unsigned fd = (unsigned)block->keep[i];
        if (fd > from) {
            long r = sys_close_range(from, fd - 1, 0);
            if (r < 0)
                return (int)-r;
        }
        from = fd + 1;
    }
    return (int)-sys_close_range(from, ~0U, 0);
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
    long size = sys_rewind(directory);
    if (size < 0)
        return (int)-size;
    while ((size = sys_getdents(directory, buffer, sizeof buffer)) > 0) {
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
    return sys_open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
}

struct sweep {
    const struct cp_block *block;
    int closed;
};

static void close_unkept(int fd, void *context)
{
    struct sweep *sweep = context;
    if (!kept(sweep->block, fd) && sys_close(fd) != -EBADF)
        sweep->closed++;
}

/* Closing while reading may make the kernel skip entries, so the directory is
 * read again until a pass finds nothing to close. */
static int by_proc(struct cp_block *block)
{
    struct sweep sweep = {block, 0};
    int error = 0;
    long directory = open_directory();
    if (directory < 0)
        return (int)-directory;
    block->closed = 0;
    do {
        sweep.closed = 0;
        error = walk((int)directory, close_unkept, &sweep);
        block->closed += sweep.closed;
    } while (error == 0 && sweep.closed > 0);
    sys_close((int)directory);
    return error;
}

/* The limits do not bound what was opened before they were lowered: the
 * parent's own reading of its highest descriptor does, where it had /proc. */
static int by_rlimit(struct cp_block *block)
{
    block->closed = 0;
    for (unsigned fd = 0; fd < block->bound; fd++)
        if (!kept(block, (int)fd) && sys_close((int)fd) != -EBADF)
            block->closed++; /* EINTR too has closed it, on Linux */
    return 0;
}

int cp_close_fds(struct cp_block *block)
{
    int strategy = block->request.closing;
    int exact = block->exact;
    int error = 0;
    block->exact = 1;
    if (strategy == CP_CLOSE_AUTO || strategy == CP_CLOSE_RANGE) {
        block->closing = CP_CLOSE_RANGE;
        if ((error = by_range(block)) == 0 || strategy == CP_CLOSE_RANGE)
            return error;
    }
    if (strategy == CP_CLOSE_AUTO || strategy == CP_CLOSE_PROC) {
        block->closing = CP_CLOSE_PROC;
        if ((error = by_proc(block)) == 0 || strategy == CP_CLOSE_PROC)
            return error;
    }
    if (block->bound == 0) /* nobody knows where to stop: fail closed */
        return error ? error : ENOSYS;
    block->closing = CP_CLOSE_RLIMIT;
    block->exact = exact;
    return by_rlimit(block);
}

/* ---- out of the host's table; see reopen.c ---- */

/* /proc may show other processes than ours. */
static int is_it(const struct cp_far_end *end, const uint64_t id[2])
{
    return id[0] == end->id[0] && id[1] == end->id[1];
}

/* Without opening anything. */
static int names_lead_home(const struct cp_block *block)
{
    for (int i = 0; i < 3; i++) {
        const struct cp_far_end *end = &block->far_end[i];
        uint64_t id[2] = {0};
        if (end->name[0] && (sys_identify_path(end->name, id) < 0 || !is_it(end, id)))
            return 0;
    }
    return 1;
}

static long reopen(struct cp_block *block)
{
    for (int i = 0; i < 3; i++) {
        const struct cp_far_end *end = &block->far_end[i];
        uint64_t id[2] = {0};
        if (end->name[0] == '\0')
            continue;
        long fd = sys_open(end->name, end->flags | O_CLOEXEC | O_NOCTTY, 0);
        if (fd < 0)
            return fd;
        if (fd < 3 || sys_identify((int)fd, id) < 0 || !is_it(end, id))
            return -ESTALE;
        block->source[i] = (int)fd;
    }
    return 0;
}

/* Before the table is the child's own nothing may be opened, closed or moved in it. The
 * kernel makes that before it closes anything, and for the first of these calls copies
 * only what is below 3. */
int cp_leave_table(struct cp_block *block)
{
    if (!block->shares_table)
        return 0;
    block->stage = CP_STAGE_CLOSE_FDS;
    int word = CP_REOPENED;
    long r = names_lead_home(block) ? sys_close_range(3, ~0U, CP_UNSHARE) : -ESTALE;
    if (r == 0)
        r = reopen(block);
    else { /* a copy of it all, as if it had never been shared */
        word = CP_COPIED;
        r = sys_close_range(~0U, ~0U, CP_UNSHARE);
        if (r < 0)
            r = sys_unshare_table();
    }
    __atomic_store_n(&block->reopened, r < 0 ? CP_NOT_REOPENED : word, __ATOMIC_RELEASE);
    sys_wake_waiter(&block->reopened);
    return r < 0 ? (int)-r : 0;
}

int cp_has_close_range(void)
{
    return sys_close_range(~0U, ~0U, 0) == 0;
}

static unsigned read_number(const char *path, unsigned otherwise)
{
    char text[32];
    long fd = sys_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return otherwise;
    long size = sys_read((int)fd, text, sizeof text);
    sys_close((int)fd);
    unsigned value = 0;
    for (long i = 0; i < size && text[i] >= '0' && text[i] <= '9'; i++)
        value = value * 10 + (unsigned)(text[i] - '0');
    return value ? value : otherwise;
}

/* The highest descriptor that is open here, or -1 if no listing tells. */
#if CP_PORTABLE
static int highest_open(void)
{
    int highest = -1, genuine = 0;
    const struct dirent *entry;
    DIR *directory = opendir("/dev/fd");
    if (!directory)
        return -1;
    while ((entry = readdir(directory))) {
        int fd = to_fd(entry->d_name);
        if (fd > highest)
            highest = fd;
        genuine |= fd == dirfd(directory); /* else it shows 0, 1 and 2 only */
    }
    closedir(directory);
    return genuine ? highest : -1;
}
#else
static void take_highest(int fd, void *context)
{
    int *highest = context;
    if (fd > *highest)
        *highest = fd;
}

static int highest_open(void)
{
    int highest = -1;
    long directory = open_directory();
    if (directory < 0)
        return -1;
    if (walk((int)directory, take_highest, &highest) != 0)
        highest = -1;
    sys_close((int)directory);
    return highest;
}
#endif

/* A limit lowered after descriptors were opened hides the higher ones, so:
 * soft limit, hard limit, highest open descriptor, whichever is most, but no
 * more than the kernel allows (fs.nr_open). */
unsigned cp_fd_bound(int *exact)
{
    unsigned cap = read_number("/proc/sys/fs/nr_open", 1048576);
    uint64_t limit[2] = {0, 0};
    uint64_t bound = 0;
    if (sys_getrlimit(RLIMIT_NOFILE, limit) == 0)
        bound = limit[1] > limit[0] ? limit[1] : limit[0];
    if (bound == 0 || bound > cap)
        bound = cap;
    int highest = highest_open();
    if (highest >= 0 && (uint64_t)highest + 1 > bound)
        bound = (uint64_t)highest + 1;
    *exact = highest >= 0 || bound >= cap;
    return (unsigned)bound;
}
