/*
 * The child, from clone to exec.
 *
 * It may share the parent's memory while the parent runs on. So what may be
 * called here: raw system calls, and the functions of this file and of
 * close_fds.c. What may be written: the block (stage, closing, source) and the
 * stack behind it. Nothing else: no malloc, no libc function, no errno, no signal
 * handler (all signals are blocked until the line before execve).
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "internal.h"

#define ETXTBSY_TRIES 400 /* of 5 ms, so 2 s in all */

/* The kernel's struct, not libc's. Only `handler` is looked at; on an
 * architecture without a restorer the last word is merely unused. */
struct kernel_sigaction {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};

static _Noreturn void fail(const struct cp_block *block, int stage, long result)
{
    struct cp_report report = {stage, (int)-result};
    cp_raw3(SYS_write, block->report, &report, sizeof report);
    for (;;)
        cp_raw1(SYS_exit_group, 127);
}

/* If the parent died in the window before this call nobody would ever end
 * this process: hence the look at getppid. */
static void die_with_the_spawner(const struct cp_block *block)
{
    cp_raw5(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    long parent = cp_raw0(SYS_getppid);
    if (parent != block->parent && parent != 0) /* 0: it is in an outer pid namespace */
        cp_raw1(SYS_exit_group, 127);
}

/* A handler would run on the parent's memory once the mask is lifted. What is
 * ignored stays ignored, except what Python itself ignores, and SIGCHLD, whose
 * being ignored survives exec and takes the program's own children from it. */
static void reset_signals(struct cp_block *block)
{
    struct kernel_sigaction now, standard = {0};
    for (int number = 1; number <= CP_NSIG; number++) {
        if (number == SIGKILL || number == SIGSTOP)
            continue;
        long r = cp_raw4(SYS_rt_sigaction, number, 0, &now, sizeof(uint64_t));
        if (r < 0)
            fail(block, CP_STAGE_SIGNALS, r);
        int keep = now.handler == SIG_DFL
                   || (now.handler == SIG_IGN && number != SIGPIPE
                       && number != SIGXFSZ && number != SIGCHLD);
        if (!keep)
            cp_raw4(SYS_rt_sigaction, number, &standard, 0, sizeof(uint64_t));
    }
}

/* 0, 1 and 2 are the targets: a source among them could be overwritten, and a
 * hole of the host's could be filled. */
static int above_stdio(const struct cp_block *block, int fd, int owned)
{
    if (fd > 2)
        return fd;
    long moved = cp_raw3(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 3);
    if (moved < 0)
        fail(block, CP_STAGE_DUP, moved);
    if (owned)
        cp_raw1(SYS_close, fd);
    return (int)moved;
}

/* Opened here and not in the parent, so that a FIFO or a dead disk blocks a
 * process that the deadline can kill. */
static void open_files(struct cp_block *block)
{
    static const char null[] = "/dev/null";
    for (int i = 0; i < 3; i++) {
        int kind = block->stdio[i];
        if (kind != CP_STDIO_NULL && kind != CP_STDIO_PATH)
            continue;
        int flags = i == 0 ? O_RDONLY : O_WRONLY;
        if (kind == CP_STDIO_PATH && i != 0)
            flags |= O_CREAT | O_TRUNC;
        long fd = cp_raw4(SYS_openat, AT_FDCWD,
                          kind == CP_STDIO_NULL ? null : block->path[i],
                          flags | O_CLOEXEC | O_NOCTTY, 0666);
        if (fd < 0)
            fail(block, CP_STAGE_OPEN, fd);
        block->source[i] = above_stdio(block, (int)fd, 1);
    }
}

static void set_stdio(struct cp_block *block)
{
    for (int i = 0; i < 3; i++)
        if (block->source[i] >= 0 && block->source[i] != i)
            block->source[i] = above_stdio(block, block->source[i], 0);
    if (block->stdio[2] == CP_STDIO_STDOUT)
        block->source[2] = 1;
    for (int i = 0; i < 3; i++) {
        int from = block->source[i];
        long r = 0;
        if (from >= 0 && from != i)
            r = cp_raw3(SYS_dup3, from, i, 0);
        else /* dup2(i, i) would keep the close-on-exec flag */
            r = cp_raw3(SYS_fcntl, i, F_SETFD, 0);
        if (r < 0 && block->stdio[i] != CP_STDIO_INHERIT)
            fail(block, CP_STAGE_DUP, r);
    }
}

static void close_the_rest(struct cp_block *block)
{
    struct cp_keep keep = {4, {0, 1, 2, block->report}};
    int error = cp_close_fds(block, &keep);
    if (error)
        fail(block, CP_STAGE_CLOSE_FDS, -error);
}

/* A script that was just written is busy while a fork in another thread holds
 * its write descriptor: the one errno that is worth waiting for. */
static long try_exec(const struct cp_block *block, const char *path)
{
    long r = -ETXTBSY;
    for (int i = 0; i < ETXTBSY_TRIES && r == -ETXTBSY; i++) {
        if (i > 0) {
            struct { long s, ns; } pause = {0, 5000000};
            cp_raw2(SYS_nanosleep, &pause, 0);
        }
        r = cp_raw3(SYS_execve, path, block->argv, block->envp);
    }
    return r;
}

/* As CPython searches PATH: every directory is tried, and the first errno
 * that says more than "not here" is the answer. */
static _Noreturn void exec_first(const struct cp_block *block)
{
    long error = -ENOENT;
    for (int i = 0; block->candidate[i]; i++) {
        long r = try_exec(block, block->candidate[i]);
        if (error == -ENOENT && r != -ENOTDIR)
            error = r;
    }
    fail(block, CP_STAGE_EXEC, error);
}

int cp_child_main(void *argument)
{
    struct cp_block *block = argument;
    die_with_the_spawner(block);
    block->stage = CP_STAGE_SIGNALS;
    reset_signals(block);
    block->stage = CP_STAGE_OPEN;
    open_files(block);
    block->stage = CP_STAGE_SETSID;
    if (block->flags & CP_NEW_SESSION) {
        long r = cp_raw0(SYS_setsid);
        if (r < 0)
            fail(block, CP_STAGE_SETSID, r);
    }
    block->stage = CP_STAGE_CHDIR;
    if (block->cwd) {
        long r = cp_raw1(SYS_chdir, block->cwd);
        if (r < 0)
            fail(block, CP_STAGE_CHDIR, r);
    }
    block->stage = CP_STAGE_DUP;
    set_stdio(block);
    block->stage = CP_STAGE_CLOSE_FDS;
    close_the_rest(block); /* nothing may be opened behind this line */
    block->stage = CP_STAGE_EXEC;
    cp_raw5(SYS_prctl, PR_SET_PDEATHSIG, 0, 0, 0, 0);
    /* Behind this line a pending signal may end the process; nothing but
     * execve may follow. */
    cp_raw4(SYS_rt_sigprocmask, SIG_SETMASK, &block->mask, 0, sizeof block->mask);
    exec_first(block);
}
