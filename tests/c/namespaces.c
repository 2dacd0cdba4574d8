/* Where /proc is hidden, is not what it seems, or shows another's processes.
 * Needs root; each in a forked process, which can't come back. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

static void apart(const char *what, void (*body)(void))
{
    int status = -1;
    snprintf(trying, sizeof trying, "%s", what);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        failures = 0;
        body();
        leave_fork(failures != 0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0, "status %x", (unsigned)status);
}

/* Its child has pid 1 there, and no parent that it could see. */
static void in_pid_namespace(void)
{
    struct call call;
    struct ending ending;
    if (unshare(CLONE_NEWPID) < 0)
        return;
    call_probe(&call, "exit", "7");
    drive(&call, NULL, &ending);
    CHECK(ending.exited && ending.status == 7, "state %d, stage %d, errno %d", ending.state,
          ending.stage, ending.error);
}

static int hide_proc(void)
{
    return unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0
           && mount("none", "/proc", "tmpfs", 0, NULL) == 0;
}

/* So that children would open their pipes by name. */
static void open_high(void)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHECK(null >= 0 && dup2(null, 1023) == 1023, "no high number");
    close(null);
}

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), "%s", path);
    close(fd);
}

static void expect_closing(int closing, int error)
{
    struct call call;
    struct ending ending;
    call_probe(&call, "exit", "7");
    call.request.closing = closing;
    drive(&call, NULL, &ending);
    if (error)
        CHECK(ending.state == CP_FAILED && ending.stage == CP_STAGE_CLOSE_FDS && ending.error == error,
              "closing %d: state %d, stage %d, errno %d", closing, ending.state, ending.stage, ending.error);
    else
        CHECK(ending.exited && ending.status == 7, "closing %d: stage %d, errno %d", closing, ending.stage,
              ending.error);
}

static void without_proc(void)
{
    open_high();
    if (!hide_proc())
        return;
    for (const struct way *closing = closings; closing->name; closing++)
        if (may_close(closing->value))
            expect_closing(closing->value, closing->value == CP_CLOSE_PROC ? ENOENT : 0);
}

/* Something is mounted there that lists descriptors, but not ours. */
static void with_false_proc(void)
{
    struct cp_identity identity = {.pid = getpid()};
    char path[64];
    if (!hide_proc())
        return;
    mkdir("/proc/self", 0755);
    mkdir("/proc/self/fd", 0755);
    write_file("/proc/self/fd/0", "");
    write_file("/proc/self/fd/x", "");
    if (may_close(CP_CLOSE_PROC))
        expect_closing(CP_CLOSE_PROC, ENOTSUP);
    expect_closing(CP_CLOSE_RLIMIT, 0);
    open_high();
    snprintf(path, sizeof path, "/proc/%d", getpid());
    mkdir(path, 0755);
    snprintf(path, sizeof path, "/proc/%d/stat", getpid());
    for (const char **text = (const char *[]){"", "no bracket", "1 (x) S and no numbers", "1 (x)S", "1 (x) ", ")(", NULL}; *text; text++) {
        write_file(path, *text);
        CHECK(cp_signal_process(&identity, SIGKILL, 0) == ESRCH, "killed by \"%s\"", *text);
        unlink(path);
    }
    snprintf(path, sizeof path, "/proc/%d/fd", getpid());
    mkdir(path, 0755);
    for (int fd = 3; fd < 64; fd++) {
        snprintf(path, sizeof path, "/proc/%d/fd/%d", getpid(), fd);
        write_file(path, "a stranger's");
    }
    expect_closing(CP_CLOSE_AUTO, 0);
    expect_closing(CP_CLOSE_AUTO, 0);
}

void test_namespaces(void)
{
    if (emulated || suspended_only) /* the tools themselves need /proc */
        return;
    apart("a pid namespace", in_pid_namespace);
    apart("no /proc", without_proc);
    apart("a false /proc", with_false_proc);
}
