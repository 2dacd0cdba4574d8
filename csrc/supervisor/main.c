/*
 * The supervisor: a program of its own that the spawner starts in place of a
 * command, and that starts the command. It is the subreaper of all that comes of
 * it, so nothing of the tree gets away from it, and it kills the tree when the
 * host is gone, even by SIGKILL: nobody holds the other end of its control socket
 * any more, and the host's pidfd is readable.
 *
 *     _supervisor REQUEST CWD ARGV... CANDIDATES...
 *
 * REQUEST is a row of numbers; see read_request. It has one thread, blocks all
 * signals, holds nothing but what it needs, and ends when nobody is left.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

#include "supervisor.h"

/* ---- the request ---- */

struct row {
    const char *at;
};

static long long next(struct row *row)
{
    char *end;
    long long value = (long long)strtoull(row->at, &end, 10);
    if (end == row->at)
        exit(CP_BAD_REQUEST);
    row->at = end;
    return value;
}

static int next_int(struct row *row)
{
    return (int)next(row);
}

static void *next_array(struct row *row, int *count, size_t unit)
{
    *count = next_int(row);
    void *array = calloc((size_t)*count + 1, unit);
    if (!array)
        exit(CP_BAD_REQUEST);
    return array;
}

static void read_arrays(struct row *row, struct cp_request *request)
{
    unsigned *groups = next_array(row, &request->groups_count, sizeof *groups);
    for (int i = 0; i < request->groups_count; i++)
        groups[i] = (unsigned)next(row);
    struct cp_limit *limits = next_array(row, &request->limits_count, sizeof *limits);
    for (int i = 0; i < request->limits_count; i++) {
        limits[i].resource = next_int(row);
        limits[i].soft = (unsigned long long)next(row);
        limits[i].hard = (unsigned long long)next(row);
    }
    int *pass_fds = next_array(row, &request->pass_fds_count, sizeof *pass_fds);
    for (int i = 0; i < request->pass_fds_count; i++)
        pass_fds[i] = next_int(row);
    request->groups = groups;
    request->limits = limits;
    request->pass_fds = pass_fds;
}

/* `strings` one behind the other. */
static char *join(char **strings, int count, size_t *size)
{
    *size = 0;
    for (int i = 0; i < count; i++)
        *size += strlen(strings[i]) + 1;
    char *joined = malloc(*size + 1), *to = joined;
    if (!joined)
        exit(CP_BAD_REQUEST);
    for (int i = 0; i < count; i++)
        to = stpcpy(to, strings[i]) + 1;
    return joined;
}

static void read_request(struct watch *watch, int argc, char **argv)
{
    struct cp_request *request = &watch->request;
    struct row row = {argc > 3 ? argv[1] : ""};
    watch->control = next_int(&row);
    watch->host_pid = next_int(&row);
    watch->namespaces = next_int(&row);
    request->argc = next_int(&row);
    request->candidates = argc - 3 - request->argc;
    request->flags = next_int(&row);
    request->closing = next_int(&row);
    request->disabled = next_int(&row);
    request->process_group = next_int(&row);
    request->cwd_fd = next_int(&row);
    request->cgroup_fd = next_int(&row);
    request->umask = next_int(&row);
    request->nice = next_int(&row);
    request->uid = (unsigned)next(&row);
    request->gid = (unsigned)next(&row);
    read_arrays(&row, request);
    if (request->argc < 1 || request->candidates < 1)
        exit(CP_BAD_REQUEST);
    request->cwd = argv[2][0] ? argv[2] : NULL;
    request->strings = join(argv + 3, argc - 3, &request->strings_size);
    while (environ[request->envc])
        request->envc++;
    request->env = join(environ, request->envc, &request->env_size);
    request->start = CP_START_FORK; /* of so small a process it costs nothing */
    request->mask = &watch->mask;
}

/* ---- what it holds ---- */

/* The host may have died before this line: then somebody else is the parent. */
static int watch_host(struct watch *watch)
{
    watch->host = -1;
    if (!(watch->request.disabled & CP_DISABLE_PIDFD))
        watch->host = (int)sys_pidfd_open(watch->host_pid);
    long parent = sys_getppid();
    return parent == watch->host_pid || parent == 0; /* 0: it is in an outer pid namespace */
}

/* Nothing of the command's may be kept open by this process, or its end would
 * never be seen. */
void cp_let_go(const int *kept, int count)
{
    int keep[16] = {0, 1, 2}, n = 3;
    long null = sys_open("/dev/null", O_RDWR | O_CLOEXEC, 0);
    for (int i = 0; i < 3; i++)
        if (null < 0)
            sys_close(i);
        else if (null != i)
            sys_dup((int)null, i);
    for (int i = 0; i < count; i++) {
        int at = n++;
        if (kept[i] < 3) {
            n--;
            continue;
        }
        for (; keep[at - 1] > kept[i]; at--)
            keep[at] = keep[at - 1];
        keep[at] = kept[i];
    }
    int exact;
    struct cp_block block = {.keep = keep, .keep_count = n, .bound = cp_fd_bound(&exact)};
    cp_close_fds(&block);
    sys_chdir("/");
}

static int open_signals(void)
{
    sigset_t wanted;
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGCHLD);
    return signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* ---- starting the command ---- */

void cp_start_command(struct watch *watch)
{
    struct cp_child *command = &watch->command;
    cp_child_init(command);
    if (cp_spawn(command, &watch->request) == 0)
        cp_tell_spawned(watch);
    else
        cp_tell_settled(watch);
    const int kept[] = {watch->control, watch->host, watch->signals,
                        command->fd[CP_PIDFD], command->fd[CP_REPORT]};
    cp_let_go(kept, sizeof kept / sizeof *kept);
}

/* How far it is, as long as it has not exec'ed; the milliseconds to the next look. */
static int look_at_exec(struct watch *watch, int dead)
{
    struct cp_child *command = &watch->command;
    if (command->state != CP_SPAWNING)
        return -1;
    if (cp_settle(command, dead) != CP_SPAWNING) {
        cp_tell_settled(watch);
        return -1;
    }
    int stage = cp_stage_now(command);
    if (watch->pause > 5 && stage != watch->stage)
        cp_tell_stage(watch, watch->stage = stage);
    watch->pause = watch->pause < 500 ? 2 * watch->pause + 5 : 500;
    return watch->pause;
}

/* ---- ends ---- */

void cp_command_ended(struct watch *watch, const siginfo_t *info, const struct rusage *usage)
{
    watch->ended = 1;
    look_at_exec(watch, 1);
    cp_tell_ended(watch, info, usage);
}

static void obey(struct watch *watch)
{
    char what;
    for (;;) {
        ssize_t size = recv(watch->control, &what, 1, MSG_DONTWAIT);
        if (size < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (size <= 0)
            watch->host_gone = 1;
        if (size <= 0 || what == CP_ORDER_KILL)
            watch->killing = 1;
        if (size <= 0 || what == CP_ORDER_RELEASE)
            watch->released = 1;
        if (size <= 0)
            return;
    }
}

static int shorter(int a, int b)
{
    return a < 0 || (b >= 0 && b < a) ? b : a;
}

void cp_take_signals(const struct watch *watch)
{
    struct signalfd_siginfo ignored;
    while (read(watch->signals, &ignored, sizeof ignored) > 0)
        ;
}

static void wait_for_news(struct watch *watch, int milliseconds)
{
    struct pollfd wanted[4] = {
        {watch->host_gone ? -1 : watch->control, POLLIN, 0},
        {watch->host_gone ? -1 : watch->host, POLLIN, 0},
        {watch->signals, POLLIN, 0},
        {watch->command.fd[CP_REPORT], POLLIN, 0},
    };
    poll(wanted, 4, milliseconds);
    cp_take_signals(watch);
    if (wanted[0].revents)
        obey(watch);
    if (wanted[1].revents)
        watch->host_gone = watch->killing = watch->released = 1;
}

void cp_watch(struct watch *watch)
{
    for (;;) {
        int pause = look_at_exec(watch, 0);
        int nobody = cp_collect(watch);
        if (nobody && (watch->released || watch->command.state == CP_FAILED))
            return;
        if (watch->released && !watch->killing && !watch->told_left) {
            watch->told_left = 1;
            cp_tell(watch, CP_NOTE_LEFT);
        }
        if (watch->ended && !watch->released)
            pause = shorter(pause, 2000);
        if (watch->killing)
            pause = shorter(pause, cp_kill_all(watch));
        wait_for_news(watch, pause);
    }
}

int main(int argc, char **argv)
{
    static struct watch watch;
    struct sigaction standard = {.sa_handler = SIG_DFL};
    sys_block_signals(&watch.mask);
    read_request(&watch, argc, argv);
    sys_fcntl(watch.control, F_SETFD, FD_CLOEXEC);
    /* Where it is ignored nobody becomes a zombie, and no status is seen. */
    sigaction(SIGCHLD, &standard, NULL);
    if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
        return CP_BAD_REQUEST;
    if (!watch_host(&watch))
        return 0;
    obey(&watch);
    if (watch.killing)
        return 0;
    watch.signals = open_signals();
    if (watch.signals < 0) {
        cp_tell_failed(&watch, CP_STAGE_SUPERVISOR, errno);
        return CP_BAD_REQUEST;
    }
    if (watch.namespaces) {
        cp_run_in_namespaces(&watch);
        return 0;
    }
    cp_start_command(&watch);
    cp_watch(&watch);
    return 0;
}
