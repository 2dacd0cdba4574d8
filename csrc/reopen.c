/*
 * A spawn from a host with many descriptors. A clone that copies the table takes
 * longer the more there are, and so does the child's closing of the copy. So the
 * child shares the table, leaves it by a close_range that makes it one of its own
 * with 0, 1 and 2 only, and opens its ends of the pipes by their names in the
 * host's /proc/PID/fd.
 *
 * - As long as it shares the table it opens, closes and moves nothing.
 * - The far ends stay open here until the child has opened its own, and no longer:
 *   a write end that is kept would be an output without an end. So the spawn waits
 *   for the child's word, which comes before anything that may block, and which is
 *   not waited for without a bound, since a child may be stopped.
 * - The lock is held meanwhile: a fork in another thread gets no far end. Other
 *   threads may open and close what they like: the child takes along 0, 1 and 2
 *   alone, and opens by the numbers of this child's own pipes, which nobody else
 *   closes.
 * - A host that has 0, 1 or 2 closed would get the pidfd there for a moment, which
 *   the child would take along: it is not for such a host.
 * - What has no name that leads to the same open file (a socket, the offset of a given
 *   descriptor) has to be copied with the table.
 * - /proc may be absent, hidden or another namespace's, and a process that is not
 *   dumpable hides its own from its child. Only the child finds that out: by looking,
 *   before it leaves the table; then it takes a copy of all along after all. If it
 *   can't open what it has seen it is reaped, and started the ordinary way. In both
 *   cases nothing of this is tried again in this process.
 * - The child's table has no record locks of the host's, and its end drops none.
 */
#include <stdio.h>
#include <stdlib.h>

#include "internal.h"

#define LARGE_TABLE 512 /* from where on the copying costs more than opening three names */
#define YIELDS 1000
#define PAUSES 30
#define WORD_PAUSE_NS 10000000
#define END_PAUSE_NS 1000000

static long refused_in; /* a process id; under the lock */

void cp_refuse_reopening(const struct cp_block *block)
{
    refused_in = block->parent;
}

/* Before Linux 6.11 and some updates of older ones, what is left of the table holds
 * marks of the numbers that were in use: the program's later descriptors would get
 * numbers above those, and above its limit (CVE-2024-45025). */
static int is_fit(void)
{
    static int fit = -1;
    struct utsname system;
    if (fit < 0) {
        long major = 0, minor = 0;
        if (sys_uname(&system) == 0) {
            char *rest;
            major = strtol(system.release, &rest, 10);
            minor = *rest == '.' ? strtol(rest + 1, NULL, 10) : 0;
        }
        fit = major > 6 || (major == 6 && minor >= 11);
    }
    return fit;
}

/* By the numbers that our own were given. They may have fallen into holes: then one
 * look above. */
static int is_large(const struct cp_child *child)
{
    for (int i = 0; i < 3; i++)
        if (child->fd[i] >= LARGE_TABLE)
            return 1;
    return sys_fcntl(2 * LARGE_TABLE - 1, F_GETFD, 0) >= 0;
}

static int has_stdio(void)
{
    for (int i = 0; i < 3; i++)
        if (sys_fcntl(i, F_GETFD, 0) < 0)
            return 0;
    return 1;
}

static int needs_the_table(const struct cp_request *request)
{
    if ((request->flags & (CP_KEEP_FDS | CP_SET_CWD_FD | CP_JOIN_CGROUP))
        || request->pass_fds_count > 0)
        return 1;
    for (int i = 0; i < 3; i++)
        if (request->stdio[i] == CP_STDIO_FD && request->stdio_fd[i] > 2)
            return 1;
    return 0;
}

/* A report pipe is left over from a start that failed. */
static int may_reopen(const struct cp_child *child, const struct cp_block *block)
{
    const struct cp_request *request = &block->request;
    return CP_RAW_ASM && child->start == CP_START_CLONE && block->report < 0
           && (request->closing == CP_CLOSE_RANGE
               || (request->closing == CP_CLOSE_AUTO && block->bound == 0))
           && !needs_the_table(request) && refused_in != block->parent;
}

/* 0 or an errno. */
static int name_far_end(const struct cp_child *child, struct cp_block *block, int i)
{
    struct cp_far_end *end = &block->far_end[i];
    int fd = child->far[i];
    end->flags = i == 0 ? O_RDONLY : O_WRONLY;
    if (block->request.stdio[i] == CP_STDIO_TEMPFILE) {
        fd = child->fd[i];
        end->flags = O_RDWR;
    } else if (block->request.stdio[i] != CP_STDIO_PIPE)
        return 0;
    snprintf(end->name, sizeof end->name, "/proc/%d/fd/%d", block->parent, fd);
    return (int)-sys_identify(fd, end->id);
}

void cp_prepare_reopening(const struct cp_child *child, struct cp_block *block)
{
    if (!may_reopen(child, block) || !is_large(child) || !has_stdio() || !is_fit())
        return;
    for (int i = 0; i < 3; i++)
        if (name_far_end(child, block, i) != 0)
            return;
    block->shares_table = 1;
}

/* 0: the child has left without a word; CP_NOT_REOPENED too if it does not come on. At
 * first by yielding: who is woken while its child still runs is sent to another
 * processor, and on a busy machine comes on much later than the child has ended. */
static int await_word(struct cp_block *block)
{
    for (int i = 0; i < YIELDS + PAUSES; i++) {
        int has_left = __atomic_load_n(&block->tid, __ATOMIC_ACQUIRE) == 0;
        int word = __atomic_load_n(&block->reopened, __ATOMIC_ACQUIRE);
        if (word || has_left)
            return word;
        if (i < YIELDS)
            sys_yield();
        else
            sys_wait_for_word(&block->reopened, 0, WORD_PAUSE_NS);
    }
    return CP_NOT_REOPENED;
}

/* Of a child that was not to be. */
static void forget(struct cp_child *child)
{
    cp_close_fd(&child->fd[CP_PIDFD]);
    cp_give_block(child);
    child->pid = 0;
    child->reaped = child->status_known = child->has_usage = 0;
}

int cp_await_reopening(struct cp_child *child, struct cp_block *block)
{
    int word = await_word(block);
    child->reopened = word == CP_REOPENED;
    if (word == CP_COPIED || word == CP_NOT_REOPENED)
        cp_refuse_reopening(block);
    if (word != CP_NOT_REOPENED)
        return 1; /* why it has left without one is seen when it is settled */
    cp_signal(child, SIGKILL);
    for (int i = 0; i < PAUSES * 10; i++) {
        if (cp_reap_own(child)) {
            forget(child);
            return 0;
        }
        sys_sleep_ns(END_PAUSE_NS);
    }
    return 1; /* it dies when it can: with the far ends closed it can do nothing else */
}
