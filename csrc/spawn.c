/*
 * The parent's side of a spawn: the lock, the ladder of primitives, the clone.
 * No waiting but in the suspended clone. What becomes of the child afterwards
 * is in reap.c.
 */
#include <sched.h>
#include <string.h>

#include "internal.h"

#ifndef CLONE_CLEAR_SIGHAND
#define CLONE_CLEAR_SIGHAND 0x100000000ULL
#endif
#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif

/* Held from the first descriptor to the last close, and by every fork made
 * through libc: no forked copy sees a half-filled child, nor ever holds the
 * write end of a report pipe. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct cp_child *known; /* every child not yet released */

void cp_lock(void)
{
    pthread_mutex_lock(&lock);
}

void cp_unlock(void)
{
    pthread_mutex_unlock(&lock);
}

static void close_all(struct cp_child *child)
{
    for (int i = 0; i < CP_SLOTS; i++)
        cp_close_fd(&child->fd[i]);
    for (int i = 0; i < CP_FAR_ENDS; i++)
        cp_close_fd(&child->far[i]);
}

/* ---- fork in another thread, or in this one ---- */

#if CP_PORTABLE
/* The spawner's own fork comes through libc too, with the lock held. */
static _Thread_local int forking;
#else
#define forking 0
#endif

static void before_fork(void)
{
    if (!forking)
        cp_lock();
}

static void after_fork_in_parent(void)
{
    if (!forking)
        cp_unlock();
}

/* The copy owns none of the parent's children, and its copies of their pipes
 * would keep `cat` from ever seeing the end of its input. Only close(2) and
 * stores: this may run in the child of a threaded process. */
static void after_fork_in_child(void)
{
    static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    if (forking)
        return;
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
    memset(child, 0, sizeof *child);
    for (int i = 0; i < CP_SLOTS; i++)
        child->fd[i] = -1;
    for (int i = 0; i < CP_FAR_ENDS; i++)
        child->far[i] = -1;
    child->state = CP_IDLE;
    cp_lock();
    child->next = known;
    if (known)
        known->previous = child;
    known = child;
    cp_unlock();
}

void cp_child_release(struct cp_child *child)
{
    if (child->state == CP_NEW) /* its zeroes are no descriptors */
        return;
    cp_settle(child, child->reaped);
    cp_lock();
    if (child->state == CP_DISOWNED)
        cp_forget_block(child);
    if (child->previous)
        child->previous->next = child->next;
    else if (known == child)
        known = child->next;
    if (child->next)
        child->next->previous = child->previous;
    child->previous = child->next = NULL;
    close_all(child);
    child->pid = 0;
    child->state = CP_NEW;
    cp_unlock();
}

/* Under the lock: between close and -1 a fork would hand the copy a number that
 * may be somebody else's by then. */
void cp_close(struct cp_child *child, int slot)
{
    if (child->fd[slot] < 0)
        return;
    cp_lock();
    cp_close_fd(&child->fd[slot]);
    cp_unlock();
}

/* ---- the keep list ---- */

static void add_sorted(struct cp_block *block, int fd)
{
    int i = block->keep_count++;
    for (; i > 0 && block->keep[i - 1] > fd; i--)
        block->keep[i] = block->keep[i - 1];
    block->keep[i] = fd;
}

static void list_kept(struct cp_block *block)
{
    for (int i = 0; i < 3; i++)
        block->keep[i] = i;
    block->keep_count = 3;
    for (int i = 0; i < block->request.pass_fds_count; i++)
        block->keep[block->keep_count++] = block->request.pass_fds[i];
    if (block->report >= 0)
        add_sorted(block, block->report);
}

/* ---- clone ---- */

#if CP_PORTABLE
static int clone_child(struct cp_child *child, struct cp_block *block)
{
    (void)child;
    forking = 1;
    int pid = fork();
    int error = errno;
    if (pid == 0)
        cp_child_main(block);
    forking = 0;
    return pid < 0 ? -error : pid;
}
#else
/* On its parent's memory; the kernel resets the signal handlers, which saves the
 * child 62 questions (CLONE_CLEAR_SIGHAND, Linux 5.5). */
static int clone3_child(struct cp_child *child, struct cp_block *block)
{
    struct cp_clone_args args = {
        .flags = CLONE_VM | CLONE_CHILD_CLEARTID | CLONE_CLEAR_SIGHAND,
        .pidfd = (uint64_t)(uintptr_t)&child->fd[CP_PIDFD],
        .child_tid = (uint64_t)(uintptr_t)&block->tid,
        .exit_signal = SIGCHLD,
        .stack = (uint64_t)(uintptr_t)block - CP_STACK_SIZE,
        .stack_size = CP_STACK_SIZE,
    };
    if (!(child->disabled & CP_DISABLE_PIDFD))
        args.flags |= CLONE_PIDFD;
    if (block->shares_table)
        args.flags |= CLONE_FILES;
    block->handlers_reset = 1;
    int pid = (int)sys_clone3(&args, cp_child_main, block);
    if (pid < 0)
        block->handlers_reset = 0;
    return pid;
}

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
        if (block->shares_table)
            flags |= CLONE_FILES;
        pid = child->start == CP_START_CLONE ? clone3_child(child, block) : -ENOSYS;
        /* Whatever it does not like: clone says so again, if it is not only clone3. */
        if (pid < 0)
            /* The slot itself, since another thread kills a suspended child by it. */
            pid = clone(cp_child_main, block, flags, block, &child->fd[CP_PIDFD],
                        NULL, &block->tid);
        pidfd = child->fd[CP_PIDFD];
    }
    if (pid < 0)
        return -errno;
    pidfd = cp_above_stdio(pidfd);
    child->fd[CP_PIDFD] = pidfd < 0 ? -1 : pidfd;
    return pid;
}
#endif

/* A container's filter may refuse what the kernel can do: the next primitive
 * is tried then, and without a pidfd at last. */
static int is_refusal(int error)
{
    return error == ENOSYS || error == EPERM || error == EINVAL;
}

/* Without the sharing of the table, if that is what is refused. */
static int clone_either_way(struct cp_child *child, struct cp_block *block)
{
    int pid = clone_child(child, block);
    if (pid < 0 && block->shares_table && is_refusal(-pid)) {
        cp_refuse_reopening(block);
        block->shares_table = 0;
        pid = clone_child(child, block);
    }
    return pid;
}

/* Only a child on its parent's memory tells its end of it by a word: others
 * need a pipe, which closes at exec. */
static int open_report(struct cp_child *child)
{
    if (child->start == CP_START_CLONE || child->fd[CP_REPORT] >= 0)
        return 0;
    child->stage = CP_STAGE_PIPE;
    return cp_open_pipe(child, CP_REPORT, 0);
}

/* With one primitive; 0 or an errno. The lock is held, but not while a
 * suspended clone waits for the exec. */
static int start_with(struct cp_child *child, const struct cp_request *request,
                      const cp_sigset *mask, int start)
{
    child->start = start;
    int error = open_report(child);
    if (error)
        return error;
    child->stage = CP_STAGE_FORK;
    error = cp_take_block(child, request);
    if (error)
        return error;
    struct cp_block *block = cp_block_of(child);
    block->mask = *mask;
    if (request->mask)
        memcpy(&block->mask, request->mask, sizeof block->mask);
    block->report = child->far[CP_REPORT];
    list_kept(block);
    if (request->closing == CP_CLOSE_RLIMIT
        || (request->closing == CP_CLOSE_AUTO && !cp_has_close_range())) {
        int exact;
        block->bound = cp_fd_bound(&exact);
        block->exact = exact;
    }
    cp_prepare_reopening(child, block);
    if (start == CP_START_VFORK)
        cp_unlock();
    int saved = errno; /* where raw calls set it, the child's land here too */
    int pid = clone_either_way(child, block);
    if (pid > 0)
        errno = saved;
    if (start == CP_START_VFORK)
        cp_lock();
    if (pid < 0) {
        cp_give_block(child);
        return -pid;
    }
    child->pid = pid;
    if (block->shares_table && !cp_await_reopening(child, block))
        return start_with(child, request, mask, start); /* once: it is refused now */
    return 0;
}

/* A child that changes its ids on its parent's memory could be debugged by the
 * one it has become, and the parent with it. One that detaches a service forks
 * again and outlives its exec. */
static int needs_fork(const struct cp_request *request)
{
    return (request->flags & (CP_SET_UID | CP_SET_GID | CP_SET_GROUPS | CP_DETACH)) != 0;
}

static int climb(struct cp_child *child, const struct cp_request *request,
                 const cp_sigset *mask)
{
    static const int ladder[] = {
        CP_RAW_ASM ? CP_START_CLONE : CP_START_VFORK, CP_START_FORK};
    int error = ENOSYS;
    if (CP_PORTABLE && request->start != CP_START_AUTO && request->start != CP_START_FORK)
        return ENOSYS;
    if (request->start == CP_START_FORK || needs_fork(request) || CP_PORTABLE)
        return start_with(child, request, mask, CP_START_FORK);
    if (request->start != CP_START_AUTO)
        return start_with(child, request, mask, request->start);
    for (size_t i = 0; i < sizeof ladder / sizeof *ladder; i++) {
        error = start_with(child, request, mask, ladder[i]);
        if (!is_refusal(error))
            break;
    }
    return error;
}

static int start_child(struct cp_child *child, const struct cp_request *request,
                       const cp_sigset *mask)
{
    child->disabled = request->disabled;
    child->stage = CP_STAGE_FORK;
    int error = climb(child, request, mask);
    if (is_refusal(error) && !(child->disabled & CP_DISABLE_PIDFD)) {
        child->disabled |= CP_DISABLE_PIDFD;
        error = climb(child, request, mask);
    }
    return error;
}

int cp_is_portable(void)
{
    return CP_PORTABLE;
}

int cp_auto_suspends(void)
{
    return !CP_RAW_ASM && !CP_PORTABLE;
}

int cp_spawn(struct cp_child *child, const struct cp_request *request)
{
    cp_sigset mask;
    sys_block_signals(&mask);
    cp_lock();
    int error = cp_open_fds(child, request);
    if (error == 0)
        error = start_child(child, request, &mask);
    for (int i = 0; i < CP_FAR_ENDS; i++)
        cp_close_fd(&child->far[i]);
    if (error) {
        close_all(child);
        child->state = CP_FAILED;
        child->error = error;
        child->reaped = 1;
    } else {
        child->state = CP_SPAWNING;
        child->supervisor = child->supervised ? child->pid : 0;
        child->group |= !(request->flags & CP_DETACH) /* what it leads is the service's */
                        && ((request->flags & CP_NEW_SESSION)
                            || ((request->flags & CP_NEW_GROUP)
                                && request->process_group == 0));
    }
    cp_unlock();
    sys_set_mask(&mask);
    return error ? -1 : 0;
}
