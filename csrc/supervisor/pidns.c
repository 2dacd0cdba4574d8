/*
 * A pid namespace: the supervisor makes it, its child is the init, and the command
 * is the init's child. When the init ends the kernel kills everybody in it, and
 * the init can be reaped only when all of them are gone (pid_namespaces(7)).
 *
 * Who may not do that (CAP_SYS_ADMIN) makes a user namespace with it, in which
 * there is one user: itself (user_namespaces(7)).
 */
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "supervisor.h"

static _Noreturn void fail(struct watch *watch, int stage)
{
    cp_tell_failed(watch, stage, errno);
    exit(CP_BAD_REQUEST);
}

static int write_file(const char *path, const char *text)
{
    long fd = sys_open(path, O_WRONLY | O_CLOEXEC, 0);
    long r = fd < 0 ? fd : sys_write((int)fd, text, strlen(text));
    if (fd >= 0)
        sys_close((int)fd);
    errno = r < 0 ? (int)-r : 0;
    return r < 0 ? -1 : 0;
}

/* Each id is its own. That of the group may be set only by who can't drop groups
 * any more; before Linux 3.19 there is no such file. */
static int map_ids(unsigned uid, unsigned gid)
{
    char line[64];
    if (write_file("/proc/self/setgroups", "deny") < 0 && errno != ENOENT)
        return -1;
    snprintf(line, sizeof line, "%u %u 1", uid, uid);
    if (write_file("/proc/self/uid_map", line) < 0)
        return -1;
    snprintf(line, sizeof line, "%u %u 1", gid, gid);
    return write_file("/proc/self/gid_map", line);
}

static void make_namespaces(struct watch *watch)
{
    unsigned uid = geteuid(), gid = getegid();
    if (unshare(CLONE_NEWPID | CLONE_NEWNS) == 0)
        return;
    if (errno != EPERM || unshare(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS) < 0)
        fail(watch, CP_STAGE_UNSHARE);
    if (map_ids(uid, gid) < 0)
        fail(watch, CP_STAGE_IDMAP);
}

/* The kernel refuses it in a user namespace where parts of the /proc outside are
 * covered, as in many containers. */
static void mount_proc(struct watch *watch)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0
        || mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
        fail(watch, CP_STAGE_MOUNT);
}

static int is_over(int pidfd)
{
    struct pollfd wanted = {pidfd, POLLIN, 0};
    return pidfd >= 0 && poll(&wanted, 1, 0) > 0;
}

/* The thread trap of the death signal is none here: the supervisor has one. */
static _Noreturn void be_init(struct watch *watch, int outer)
{
    sys_set_death_signal(SIGKILL);
    if (is_over(outer))
        exit(0);
    if (outer >= 0)
        sys_close(outer);
    mount_proc(watch);
    cp_tell(watch, CP_NOTE_INIT);
    cp_start_command(watch);
    cp_watch(watch);
    exit(0);
}

/* Only the init listens to the host's orders; that nobody gives any more, both
 * hear. */
static void await_init(struct watch *watch, int init)
{
    const int kept[] = {watch->control, watch->host, watch->signals};
    siginfo_t info;
    cp_let_go(kept, sizeof kept / sizeof *kept);
    for (;;) {
        info.si_pid = 0;
        if (waitid(P_PID, (id_t)init, &info, WEXITED | WNOHANG) < 0 || info.si_pid == init)
            return;
        struct pollfd wanted[3] = {
            {watch->host_gone ? -1 : watch->control, 0, 0},
            {watch->host_gone ? -1 : watch->host, POLLIN, 0},
            {watch->signals, POLLIN, 0},
        };
        poll(wanted, 3, -1);
        cp_take_signals(watch);
        if (wanted[0].revents || wanted[1].revents) {
            watch->host_gone = 1;
            sys_kill(init, SIGKILL);
        }
    }
}

void cp_run_in_namespaces(struct watch *watch)
{
    int outer = (int)sys_pidfd_open((int)sys_getpid());
    make_namespaces(watch);
    int init = fork();
    if (init < 0)
        fail(watch, CP_STAGE_FORK);
    if (init == 0)
        be_init(watch, outer);
    await_init(watch, init);
}
