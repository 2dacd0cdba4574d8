/*
 * The parent's side of a spawn: descriptors, block, clone. No waiting but in
 * the suspended clone. What becomes of the child afterwards is in reap.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "internal.h"

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif
#ifndef O_TMPFILE
#define O_TMPFILE (020000000 | O_DIRECTORY)
#endif

/* Held from the first descriptor to the last close, and by every fork made
 * through libc: no forked copy sees a half-filled child, nor ever holds the
 * write end of a report pipe. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct cp_child *known; /* every child not yet released */

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd); /* EINTR too has closed it, on Linux */
    *fd = -1;
}

static void close_all(struct cp_child *child)
{
    for (int i = 0; i < CP_SLOTS; i++)
        close_fd(&child->fd[i]);
    for (int i = 0; i < 4; i++)
        close_fd(&child->far[i]);
}

/* ---- fork in another thread, or in this one ---- */

static void before_fork(void)
{
    pthread_mutex_lock(&lock);
}

static void after_fork_in_parent(void)
{
    pthread_mutex_unlock(&lock);
}

/* The copy owns none of the parent's children, and its copies of their pipes
 * would keep `cat` from ever seeing the end of its input. Only close(2) and
 * stores: this may run in the child of a threaded process. */
static void after_fork_in_child(void)
{
    static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    lock = fresh;
    for (struct cp_child *child = known; child; child = child->next) {
        close_all(child);
        child->pid = 0;
        child->state = CP_DISOWNED;
    }
}

int cp_init(void)
{
    return pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

void cp_child_init(struct cp_child *child)
{
    for (int i = 0; i < CP_SLOTS; i++)
        child->fd[i] = -1;
    for (int i = 0; i < 4; i++)
        child->far[i] = -1;
    child->state = CP_IDLE;
    pthread_mutex_lock(&lock);
    child->previous = NULL;
    child->next = known;
    if (known)
        known->previous = child;
    known = child;
    pthread_mutex_unlock(&lock);
}

void cp_child_release(struct cp_child *child)
{
    if (child->state == CP_NEW) /* its zeroes are no descriptors */
        return;
    if (child->state == CP_DISOWNED) /* the parent's child runs on its own copy */
        cp_unmap_block(child);
    cp_settle(child, child->reaped);
    pthread_mutex_lock(&lock);
    if (child->previous)
        child->previous->next = child->next;
    else if (known == child)
        known = child->next;
    if (child->next)
        child->next->previous = child->previous;
    child->previous = child->next = NULL;
    close_all(child);
    pthread_mutex_unlock(&lock);
    child->pid = 0;
    child->state = CP_NEW;
}

/* Under the lock: between close and -1 a fork would hand the copy a number that
 * may be somebody else's by then. */
void cp_close(struct cp_child *child, int slot)
{
    pthread_mutex_lock(&lock);
    close_fd(&child->fd[slot]);
    pthread_mutex_unlock(&lock);
}

/* ---- descriptors ---- */

/* A host may have 0, 1 or 2 closed. What we open must not fill such a hole,
 * where a child that inherits would find it. Takes ownership of fd. */
static int above_stdio(int fd)
{
    if (fd < 0 || fd > 2)
        return fd;
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    int error = errno;
    close(fd);
    errno = error;
    return moved;
}

/* One pipe; ours is end `mine` (0 reads, 1 writes), without blocking. The
 * child's stays blocking, as programs expect. 0 or an errno. */
static int open_pipe(struct cp_child *child, int slot, int mine)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return errno;
    child->fd[slot] = above_stdio(ends[mine]);
    int error = errno;
    child->far[slot] = above_stdio(ends[!mine]);
    if (child->fd[slot] < 0)
        return error;
    if (child->far[slot] < 0)
        return errno;
    if (fcntl(child->fd[slot], F_SETFL, O_NONBLOCK | (mine ? O_WRONLY : 0)) < 0)
        return errno;
    return 0;
}

/* An unlinked file; its one descriptor serves both sides. */
static int open_tempfile(struct cp_child *child, int slot, const char *directory)
{
    int fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT)) {
        static const char name[] = "/childproof-XXXXXX";
        char path[4096];
        if (strlen(directory) + sizeof name > sizeof path)
            return ENAMETOOLONG;
        strcpy(path, directory);
        strcat(path, name);
        fd = mkostemp(path, O_CLOEXEC);
        if (fd >= 0)
            unlink(path);
    }
    if (fd < 0)
        return errno;
    fd = above_stdio(fd);
    if (fd < 0)
        return errno;
    child->fd[slot] = fd;
    return 0;
}

/* Every descriptor of the request. 0, or an errno with child->stage set. */
static int open_fds(struct cp_child *child, const struct cp_request *request)
{
    for (int i = 0; i < 3; i++) {
        int error = 0;
        if (request->stdio[i] == CP_STDIO_PIPE) {
            child->stage = CP_STAGE_PIPE;
            error = open_pipe(child, i, i == 0);
        } else if (request->stdio[i] == CP_STDIO_TEMPFILE) {
            child->stage = CP_STAGE_OPEN;
            error = open_tempfile(child, i, request->stdio_path[i]);
        }
        if (error)
            return error;
    }
    child->stage = CP_STAGE_PIPE;
    return open_pipe(child, CP_REPORT, 0);
}

/* ---- the block ---- */

/* Lays `count` pointers to the strings that follow one another at `text`;
 * returns where the next string is. */
static char *point_at(char **to, int count, char *text)
{
    for (int i = 0; i < count; i++) {
        to[i] = text;
        text += strlen(text) + 1;
    }
    return text;
}

static char *copy_string(char *to, const char *from, const char **pointer)
{
    if (!from)
        return to;
    size_t size = strlen(from) + 1;
    memcpy(to, from, size);
    *pointer = to;
    return to + size;
}

static size_t optional_size(const char *text)
{
    return text ? strlen(text) + 1 : 0;
}

/* Copies the whole request: the caller's strings are Python objects, which
 * may be gone before a slow exec has read them. */
static void fill_block(struct cp_block *block, const struct cp_child *child,
                       const struct cp_request *request)
{
    int envc = request->envc + request->extra_envc;
    block->tid = 1;
    block->stage = CP_STAGE_FORK;
    block->parent = (int)cp_raw0(SYS_getpid);
    block->report = child->far[CP_REPORT];
    block->flags = request->flags;
    block->strategy = request->closing;
    block->argv = (char **)(block + 1);
    block->candidate = block->argv + request->argc + 1;
    block->envp = block->candidate + request->candidates + 1;
    char *text = (char *)(block->envp + envc + 1);
    memcpy(text, request->strings, request->strings_size);
    char *rest = point_at(block->argv, request->argc, text);
    rest = point_at(block->candidate, request->candidates, rest);
    rest = point_at(block->envp + request->envc, request->extra_envc, rest);
    memcpy(rest, request->env, request->env_size);
    rest = point_at(block->envp, request->envc, rest);
    rest = copy_string(rest, request->cwd, &block->cwd);
    for (int i = 0; i < 3; i++) {
        block->stdio[i] = request->stdio[i];
        block->source[i] = -1;
        if (request->stdio[i] == CP_STDIO_FD)
            block->source[i] = request->stdio_fd[i];
        else if (request->stdio[i] == CP_STDIO_PIPE)
            block->source[i] = child->far[i];
        else if (request->stdio[i] == CP_STDIO_TEMPFILE)
            block->source[i] = child->fd[i];
        rest = copy_string(rest, request->stdio_path[i], &block->path[i]);
    }
}

/* One mapping: a guard page, the child's stack, then the block. Shared, so that
 * `stage` can be read whatever the primitive, and where vfork is fork. */
static int map_block(struct cp_child *child, const struct cp_request *request)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t pointers = (size_t)request->argc + (size_t)request->candidates
                      + (size_t)request->envc + (size_t)request->extra_envc + 3;
    size_t size = page + CP_STACK_SIZE + sizeof(struct cp_block)
                  + pointers * sizeof(char *) + request->strings_size
                  + request->env_size + optional_size(request->cwd);
    for (int i = 0; i < 3; i++)
        size += optional_size(request->stdio_path[i]);
    char *base = mmap(NULL, size, PROT_READ | PROT_WRITE,
                      MAP_ANONYMOUS | MAP_SHARED, -1, 0);
    if (base == MAP_FAILED)
        return errno;
    mprotect(base, page, PROT_NONE);
    child->block = base;
    child->block_size = size;
    fill_block((struct cp_block *)(base + page + CP_STACK_SIZE), child, request);
    return 0;
}

struct cp_block *cp_block_of(const struct cp_child *child)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (struct cp_block *)((char *)child->block + page + CP_STACK_SIZE);
}

void cp_unmap_block(struct cp_child *child)
{
    if (child->block)
        munmap(child->block, child->block_size);
    child->block = NULL;
}

/* ---- clone ---- */

/* The child's pid, or -errno. */
static int clone_child(struct cp_child *child, struct cp_block *block)
{
    int flags = SIGCHLD;
    int pidfd = -1; /* stays -1 where the kernel ignores CLONE_PIDFD (< 5.2) */
    int pid;
    if (!(child->disabled & CP_DISABLE_PIDFD))
        flags |= CLONE_PIDFD;
    if (child->start == CP_START_FORK) {
        /* Not libc's fork: its atfork handlers are other people's code. The
         * order of the last two arguments differs by machine; both are 0. */
        pid = (int)syscall(SYS_clone, flags, 0, &pidfd, 0, 0);
        if (pid == 0)
            cp_child_main(block);
    } else {
        flags |= CLONE_VM | CLONE_CHILD_CLEARTID;
        if (child->start == CP_START_VFORK)
            flags |= CLONE_VFORK;
        pid = clone(cp_child_main, block, flags, block, &child->fd[CP_PIDFD],
                    NULL, &block->tid);
        pidfd = child->fd[CP_PIDFD];
    }
    if (pid < 0)
        return -errno;
    child->fd[CP_PIDFD] = above_stdio(pidfd);
    return pid;
}

/* With one primitive; 0 or an errno. The lock is held, but not while a
 * suspended clone waits for the exec. */
static int start_with(struct cp_child *child, const struct cp_request *request,
                      uint64_t mask, int start)
{
    child->start = start;
    child->stage = CP_STAGE_FORK;
    int error = map_block(child, request);
    if (error)
        return error;
    struct cp_block *block = cp_block_of(child);
    block->mask = mask;
    if (request->closing == CP_CLOSE_RLIMIT
        || (request->closing == CP_CLOSE_AUTO && !cp_has_close_range()))
        block->bound = cp_fd_bound();
    if (start == CP_START_VFORK)
        pthread_mutex_unlock(&lock);
    int saved = errno; /* where raw calls set it, the child's land here too */
    int pid = clone_child(child, block);
    if (pid > 0)
        errno = saved;
    if (start == CP_START_VFORK)
        pthread_mutex_lock(&lock);
    if (pid < 0) {
        cp_unmap_block(child);
        return -pid;
    }
    child->pid = pid;
    return 0;
}

/* A container's filter may refuse what the kernel can do: the next primitive
 * is tried then, and without a pidfd at last. */
static int is_refusal(int error)
{
    return error == ENOSYS || error == EPERM || error == EINVAL;
}

static int start_child(struct cp_child *child, const struct cp_request *request,
                       uint64_t mask)
{
    static const int ladder[] = {CP_RAW_ASM ? CP_START_CLONE : CP_START_VFORK,
                                 CP_START_FORK};
    int error = ENOSYS;
    child->disabled = request->disabled;
    for (int pass = 0; pass < 2; pass++) {
        if (request->start != CP_START_AUTO) {
            error = start_with(child, request, mask, request->start);
        } else {
            for (size_t i = 0; i < sizeof ladder / sizeof *ladder; i++) {
                error = start_with(child, request, mask, ladder[i]);
                if (!is_refusal(error))
                    break;
            }
        }
        if (!is_refusal(error) || (child->disabled & CP_DISABLE_PIDFD))
            break;
        child->disabled |= CP_DISABLE_PIDFD;
    }
    return error;
}

int cp_auto_suspends(void)
{
    return !CP_RAW_ASM;
}

int cp_spawn(struct cp_child *child, const struct cp_request *request)
{
    uint64_t all = ~(uint64_t)0, mask;
    cp_raw4(SYS_rt_sigprocmask, SIG_BLOCK, &all, &mask, sizeof all);
    pthread_mutex_lock(&lock);
    int error = open_fds(child, request);
    if (error == 0)
        error = start_child(child, request, mask);
    for (int i = 0; i < 4; i++)
        close_fd(&child->far[i]);
    if (error) {
        close_all(child);
        child->state = CP_FAILED;
        child->error = error;
        child->reaped = 1;
    } else {
        child->state = CP_SPAWNING;
        child->group = (request->flags & CP_NEW_SESSION) != 0;
    }
    pthread_mutex_unlock(&lock);
    cp_raw4(SYS_rt_sigprocmask, SIG_SETMASK, &mask, 0, sizeof mask);
    return error ? -1 : 0;
}
