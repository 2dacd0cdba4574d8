/*
 * The child, from clone to exec.
 *
 * It may share the parent's memory while the parent runs on. So what may be
 * called here: the functions of sys.h, of this file and of close_fds.c. What
 * may be written: the block (stage, slot, error, closing, closed, exact, source,
 * service, reopened) and the stack behind it. Nothing else: no malloc, no libc function, no errno, no
 * signal handler (all signals are blocked until the line before execve).
 */
#include <sys/wait.h>

#include "internal.h"

#define ETXTBSY_TRIES 400 /* of 5 ms, so 2 s in all */

static _Noreturn void fail(struct cp_block *block, long result)
{
    block->error = (int)-result;
    sys_exit(127);
}

static void check(struct cp_block *block, long result)
{
    if (result < 0)
        fail(block, result);
}

/* If the parent died in the window before this call nobody would ever end
 * this process: hence the look at getppid. */
static void die_with_the_spawner(const struct cp_block *block)
{
    sys_set_death_signal(SIGKILL);
    long parent = sys_getppid();
    if (parent != block->parent && parent != 0) /* 0: it is in an outer pid namespace */
        sys_exit(127);
}

/* Python ignores the first two for itself; the third, ignored, survives exec and
 * takes the program's own children from it. */
static int is_ours_to_reset(const struct cp_block *block, int number)
{
    return !(block->request.flags & CP_KEEP_SIGNALS)
           && (number == SIGPIPE || number == SIGXFSZ || number == SIGCHLD);
}

/* A handler would run on the parent's memory once the mask is lifted. What is
 * ignored stays ignored, but for those three. */
static void reset_signals(struct cp_block *block)
{
    struct cp_sigaction now, standard = {0};
    for (int number = 1; number <= CP_NSIG; number++) {
        if (number == SIGKILL || number == SIGSTOP
            || (block->handlers_reset && !is_ours_to_reset(block, number)))
            continue;
        long r = sys_sigaction(number, 0, &now);
        if (CP_PORTABLE && r == -EINVAL)
            continue; /* libc keeps some numbers for itself */
        check(block, r);
        if (now.handler != SIG_DFL
            && (now.handler != SIG_IGN || is_ours_to_reset(block, number)))
            check(block, sys_sigaction(number, &standard, 0));
    }
}

/* The child of a service: it holds no descriptor and does nothing, so that the
 * service's number stays the service's until the parent lets go of it. Its copy
 * of the report pipe, too, would hide the exec. */
static _Noreturn void stand_by(struct cp_block *block, int service)
{
    struct cp_block mine = *block; /* the service closes by the one that is shared */
    siginfo_t info;
    block->service = service;
    mine.keep_count = 0;
    if (cp_close_fds(&mine) != 0) /* then the service can't either, and says so */
        sys_close(block->report);
    long r;
    do
        r = sys_wait_for_end(service, &info);
    while (r == -EINTR);
    check(block, r);
    sys_exit(info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status);
}

/* What is behind this line is done by the service. Not before the signals are
 * reset: where SIGCHLD is ignored nobody stays a zombie. */
static void detach(struct cp_block *block)
{
    if (!(block->request.flags & CP_DETACH))
        return;
    block->stage = CP_STAGE_FORK;
    block->parent = (int)sys_getpid();
    long pid = sys_fork();
    check(block, pid);
    if (pid > 0)
        stand_by(block, (int)pid);
    die_with_the_spawner(block);
}

/* 0, 1 and 2 are the targets: a source among them could be overwritten, and a
 * hole of the host's could be filled. */
static int above_stdio(struct cp_block *block, int fd, int owned)
{
    if (fd > 2)
        return fd;
    long moved = sys_fcntl(fd, F_DUPFD_CLOEXEC, 3);
    check(block, moved);
    if (owned)
        sys_close(fd);
    return (int)moved;
}

/* Opened here and not in the parent, so that a FIFO or a dead disk blocks a
 * process that the deadline can kill. */
static void open_files(struct cp_block *block)
{
    static const char null[] = "/dev/null";
    for (int i = 0; i < 3; i++) {
        int kind = block->request.stdio[i];
        if (kind != CP_STDIO_NULL && kind != CP_STDIO_PATH && kind != CP_STDIO_APPEND)
            continue;
        block->slot = i;
        int flags = i == 0 ? O_RDONLY : O_WRONLY;
        if (kind == CP_STDIO_PATH && i != 0)
            flags |= O_CREAT | O_TRUNC;
        if (kind == CP_STDIO_APPEND)
            flags |= O_CREAT | O_APPEND;
        long fd = sys_open(kind == CP_STDIO_NULL ? null : block->request.stdio_path[i],
                           flags | O_CLOEXEC | O_NOCTTY, 0666);
        check(block, fd);
        block->source[i] = above_stdio(block, (int)fd, 1);
    }
}

static void set_group(struct cp_block *block)
{
    if (block->request.flags & CP_NEW_SESSION)
        check(block, sys_setsid());
    if (block->request.flags & CP_NEW_GROUP)
        check(block, sys_setpgid(0, block->request.process_group));
}

/* "0" is whoever writes it (cgroups(7)). */
static void join_cgroup(struct cp_block *block)
{
    if (block->request.flags & CP_JOIN_CGROUP)
        check(block, sys_write(block->request.cgroup_fd, "0", 1));
}

/* That of descriptors comes last: what is open may be above it, and more is
 * opened and moved. */
static void set_limits(struct cp_block *block, int nofile)
{
    for (int i = 0; i < block->request.limits_count; i++) {
        const struct cp_limit *limit = &block->request.limits[i];
        if ((limit->resource == RLIMIT_NOFILE) == nofile)
            check(block, sys_setrlimit(limit->resource, limit->soft, limit->hard));
    }
}

/* Groups first and the user last, who may not change them. The death signal
 * does not survive it (prctl(2)). */
static void set_ids(struct cp_block *block)
{
    const struct cp_request *request = &block->request;
    if (request->flags & CP_SET_GROUPS)
        check(block, sys_setgroups(request->groups_count, request->groups));
    if (request->flags & CP_SET_GID)
        check(block, sys_setgid(request->gid));
    if (request->flags & CP_SET_UID)
        check(block, sys_setuid(request->uid));
    if (request->flags & (CP_SET_UID | CP_SET_GID | CP_SET_GROUPS))
        die_with_the_spawner(block);
    if (request->flags & CP_NO_NEW_PRIVS)
        check(block, sys_no_new_privs());
}

static void change_directory(struct cp_block *block)
{
    if (block->request.flags & CP_SET_CWD_FD)
        check(block, sys_fchdir(block->request.cwd_fd));
    if (block->request.cwd)
        check(block, sys_chdir(block->request.cwd));
}

static void set_stdio(struct cp_block *block)
{
    for (int i = 0; i < 3; i++)
        if (block->source[i] >= 0 && block->source[i] != i)
            block->source[i] = above_stdio(block, block->source[i], 0);
    if (block->request.stdio[2] == CP_STDIO_STDOUT)
        block->source[2] = 1;
    for (int i = 0; i < 3; i++) {
        int from = block->source[i];
        long r = 0;
        if (from >= 0 && from != i)
            r = sys_dup(from, i);
        else /* dup2(i, i) would keep the close-on-exec flag */
            r = sys_fcntl(i, F_SETFD, 0);
        if (r < 0 && block->request.stdio[i] != CP_STDIO_INHERIT)
            fail(block, r);
    }
    for (int i = 0; i < block->request.pass_fds_count; i++)
        check(block, sys_fcntl(block->request.pass_fds[i], F_SETFD, 0));
}

static void close_the_rest(struct cp_block *block)
{
    if (block->request.flags & CP_KEEP_FDS)
        return;
    int error = cp_close_fds(block);
    if (error)
        fail(block, -error);
}

/* Behind the mask a pending signal may end the process; nothing but execve may
 * follow. */
static long exec_now(const struct cp_block *block, const char *path)
{
    sys_set_death_signal(0);
    sys_set_mask(&block->mask);
    return sys_execve(path, block->argv, block->envp);
}

/* A script that was just written is busy while a fork in another thread holds
 * its write descriptor: the one errno that is worth waiting for. As long as that
 * takes this process is on its way to exec as before: it dies with the parent's
 * thread, and no signal reaches it. */
static long try_exec(const struct cp_block *block, const char *path)
{
    long r = exec_now(block, path);
    for (int i = 1; i < ETXTBSY_TRIES && r == -ETXTBSY; i++) {
        cp_sigset unblocked;
        sys_block_signals(&unblocked);
        die_with_the_spawner(block);
        sys_sleep_ns(5000000);
        r = exec_now(block, path);
    }
    return r;
}

static int is_absence(long error)
{
    return error == -ENOENT || error == -ENOTDIR;
}

/* As CPython searches PATH: every directory is tried, and the first errno
 * that says more than "not here" is the answer. */
static _Noreturn void exec_first(struct cp_block *block)
{
    long error = 0;
    for (int i = 0; block->candidate[i]; i++) {
        long r = try_exec(block, block->candidate[i]);
        if (error == 0 || (is_absence(error) && r != -ENOTDIR))
            error = r;
    }
    fail(block, error);
}

int cp_child_main(void *argument)
{
    struct cp_block *block = argument;
    die_with_the_spawner(block);
    check(block, -cp_leave_table(block)); /* nothing may be opened or moved before this line */
    block->stage = CP_STAGE_SIGNALS;
    reset_signals(block);
    detach(block);
    block->stage = CP_STAGE_OPEN;
    open_files(block);
    block->stage = CP_STAGE_SETSID;
    set_group(block);
    block->stage = CP_STAGE_CGROUP;
    join_cgroup(block);
    block->stage = CP_STAGE_LIMITS;
    set_limits(block, 0);
    if (block->request.flags & CP_SET_NICE)
        check(block, sys_nice(block->request.nice));
    block->stage = CP_STAGE_IDS;
    set_ids(block);
    block->stage = CP_STAGE_CHDIR;
    change_directory(block);
    block->stage = CP_STAGE_UMASK;
    if (block->request.flags & CP_SET_UMASK)
        sys_umask(block->request.umask);
    block->stage = CP_STAGE_DUP;
    set_stdio(block);
    block->stage = CP_STAGE_CLOSE_FDS;
    close_the_rest(block); /* nothing may be opened behind this line */
    block->stage = CP_STAGE_LIMITS;
    set_limits(block, 1);
    block->stage = CP_STAGE_EXEC;
    exec_first(block);
}
