/* From the exec to the reaping: every way to end, who else may reap, signals. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

static void begin(struct cp_child *child, struct call *call)
{
    memset(child, 0, sizeof *child);
    cp_child_init(child);
    CHECK(cp_spawn(child, &call->request) == 0, "stage %d, errno %d", child->stage, child->error);
    await_exec(child);
}

static void begin_probe(struct cp_child *child, const char *word, const char *second, int disabled)
{
    struct call call;
    call_probe(&call, word, second);
    call.request.disabled = disabled;
    begin(child, &call);
}

static void test_endings(int disabled)
{
    struct call call;
    struct ending ending;
    snprintf(trying, sizeof trying, "endings, disabled %d", disabled);
    call_probe(&call, "exit", "77");
    call.request.disabled = disabled;
    drive(&call, NULL, &ending);
    CHECK(ending.status_known && ending.exited && ending.status == 77, "%d", ending.status);
    call_probe(&call, "die", "6");
    call.request.disabled = disabled;
    drive(&call, NULL, &ending);
    CHECK(ending.status_known && !ending.exited && ending.status == SIGABRT, "%d", ending.status);
}

static void test_signalling(int disabled)
{
    struct cp_child child;
    snprintf(trying, sizeof trying, "signalling, disabled %d", disabled);
    begin_probe(&child, "sleep", "600", disabled);
    CHECK(cp_ended(&child) == 0 && cp_reap(&child) == 0, "it has ended");
    CHECK(cp_signal(&child, 999) == EINVAL, "no such signal");
    CHECK(cp_signal(&child, 0) == 0, "it can't be signalled");
    CHECK(cp_signal(&child, SIGTERM) == 0, "it can't be signalled");
    CHECK(await_end(&child), "it does not end");
    CHECK(cp_ended(&child) == 1 && cp_signal(&child, SIGTERM) == 0, "a zombie can be signalled");
    CHECK(cp_reap(&child) == 1 && !child.exited && child.status == SIGTERM, "%d", child.status);
    CHECK(cp_signal(&child, SIGTERM) == ESRCH, "after the reaping nobody is");
    CHECK(cp_ended(&child) == -1 && cp_reap(&child) == 1, "after the reaping");
    cp_child_release(&child);
    CHECK(cp_signal(&child, SIGTERM) == ESRCH && cp_signal_group(&child, SIGTERM) == ESRCH,
          "after the release");
}

static void test_group(int disabled)
{
    struct cp_child child;
    struct call call;
    snprintf(trying, sizeof trying, "a group, disabled %d", disabled);
    begin_probe(&child, "sleep", "600", disabled);
    CHECK(cp_signal_group(&child, SIGKILL) == 0, "it can't be signalled");
    finish(&child);
    begin_probe(&child, "exit", "0", disabled);
    CHECK(await_end(&child) && cp_reap(&child) == 1, "it does not end");
    CHECK(cp_signal_group(&child, SIGKILL) == ESRCH, "nobody is left in it");
    cp_child_release(&child);
    call_probe(&call, "sleep", "600");
    call.request.flags = 0;
    call.request.disabled = disabled;
    begin(&child, &call);
    CHECK(cp_signal_group(&child, SIGKILL) == ESRCH, "our own group was signalled");
    CHECK(cp_signal(&child, SIGKILL) == 0, "it can't be signalled");
    finish(&child);
}

/* Another wait was faster: the status is the kernel's, or is lost. */
static void test_taken(int disabled, int may_know)
{
    struct cp_child child;
    snprintf(trying, sizeof trying, "another's wait, disabled %d", disabled);
    begin_probe(&child, "exit", "5", disabled);
    CHECK(waitpid(child.pid, NULL, 0) == child.pid, "it can't be waited for");
    CHECK(cp_ended(&child) == -1, "it is a child");
    CHECK(cp_signal_group(&child, SIGKILL) == ESRCH, "a stranger's number was signalled");
    CHECK(cp_signal(&child, SIGKILL) == ESRCH, "a stranger's number was signalled");
    CHECK(cp_settle(&child, 1) == CP_STARTED, "state %d", child.state);
    CHECK(cp_reap(&child) == 1 && child.reaped, "it must be waited for");
    CHECK(may_know || !child.status_known, "nobody can know the status");
    CHECK(!child.status_known || (child.exited && child.status == 5), "status %d", child.status);
    CHECK(!child.has_usage, "its usage is invented");
    cp_child_release(&child);
}

static void test_ignored(void)
{
    struct cp_child child;
    snprintf(trying, sizeof trying, "SIGCHLD ignored");
    signal(SIGCHLD, SIG_IGN);
    begin_probe(&child, "die", "9", 0);
    await_end(&child);
    cp_settle(&child, 1);
    CHECK(cp_reap(&child) == 1, "it must be waited for");
    CHECK(!child.status_known || (!child.exited && child.status == SIGKILL), "status %d", child.status);
    signal(SIGCHLD, SIG_DFL);
    cp_child_release(&child);
}

/* ---- a child on its way ---- */

static void *kill_later(void *argument)
{
    const struct cp_child *child = argument;
    for (int i = 0; i < 3000 && cp_stage_now(child) != CP_STAGE_OPEN; i++)
        usleep(10000);
    CHECK(cp_kill_suspended(child) == 0, "it can't be killed");
    return NULL;
}

/* A FIFO that nobody writes holds the child at stage open. */
static void test_stuck(int start)
{
    struct call call;
    struct cp_child child;
    pthread_t killer;
    char path[] = "/tmp/harness-fifo-XXXXXX";
    snprintf(trying, sizeof trying, "stuck, start %d", start);
    CHECK(mkdtemp(path) != NULL && rmdir(path) == 0 && mkfifo(path, 0600) == 0, "no FIFO");
    call_probe(&call, "exit", "0");
    call.request.start = start;
    call.request.stdio[0] = CP_STDIO_PATH;
    call.request.stdio_path[0] = path;
    memset(&child, 0, sizeof child);
    cp_child_init(&child);
    CHECK(cp_kill_suspended(&child) == ESRCH, "there is none to kill");
    int suspends = start == CP_START_VFORK && !suspended_only && !emulated;
    if (suspends)
        pthread_create(&killer, NULL, kill_later, &child);
    CHECK(cp_spawn(&child, &call.request) == 0, "stage %d, errno %d", child.stage, child.error);
    if (suspends)
        pthread_join(killer, NULL);
    for (int i = 0; i < 3000 && cp_stage_now(&child) != CP_STAGE_OPEN; i++)
        usleep(1000);
    CHECK(cp_stage_now(&child) == CP_STAGE_OPEN, "at stage %d", cp_stage_now(&child));
    if (!suspends) {
        CHECK(cp_settle(&child, 0) == CP_SPAWNING, "state %d", child.state);
        CHECK(cp_signal(&child, SIGKILL) == 0, "it can't be signalled");
    }
    CHECK(await_end(&child), "it does not end");
    CHECK(cp_settle(&child, 1) == CP_DIED && child.stage == CP_STAGE_OPEN, "state %d, stage %d",
          child.state, child.stage);
    CHECK(cp_stage_now(&child) == CP_STAGE_OPEN, "at stage %d", cp_stage_now(&child));
    finish(&child);
    unlink(path);
}

/* Released in its sleep: its block is given up, since it may still run on it. */
static void test_given_up(void)
{
    struct call call;
    struct cp_child child;
    char path[] = "/tmp/harness-fifo-XXXXXX";
    snprintf(trying, sizeof trying, "given up");
    CHECK(mkdtemp(path) != NULL && rmdir(path) == 0 && mkfifo(path, 0600) == 0, "no FIFO");
    call_probe(&call, "exit", "0");
    call.request.start = suspended_only ? CP_START_FORK : CP_START_AUTO;
    call.request.stdio[0] = CP_STDIO_PATH;
    call.request.stdio_path[0] = path;
    memset(&child, 0, sizeof child);
    cp_child_init(&child);
    CHECK(cp_spawn(&child, &call.request) == 0, "stage %d, errno %d", child.stage, child.error);
    int pid = child.pid;
    cp_child_release(&child);
    cp_child_release(&child); /* twice is once */
    int fd = open(path, O_WRONLY | O_CLOEXEC); /* it goes on, on its own memory */
    int status = -1;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0, "status %x", (unsigned)status);
    close(fd);
    unlink(path);
}

/* ---- a forked copy ---- */

static int copy_is_harmless(struct cp_child *child)
{
    return child->state == CP_DISOWNED && child->pid == 0 && child->fd[CP_STDOUT] == -1
           && child->fd[CP_PIDFD] == -1 && cp_signal(child, SIGKILL) == ESRCH
           && cp_signal_group(child, SIGKILL) == ESRCH && cp_reap(child) == 1
           && cp_ended(child) == -1;
}

static void test_fork(void)
{
    struct cp_child first, second;
    int status = -1;
    snprintf(trying, sizeof trying, "a forked copy");
    begin_probe(&first, "sleep", "600", 0);
    begin_probe(&second, "sleep", "600", 0);
    pid_t pid = fork();
    if (pid == 0) {
        int good = copy_is_harmless(&first) && copy_is_harmless(&second);
        cp_child_release(&first);
        cp_child_release(&second);
        struct call call;
        struct ending ending;
        call_probe(&call, "exit", "4"); /* it has children of its own, on blocks of its own */
        drive(&call, NULL, &ending);
        leave_fork(good && ending.exited && ending.status == 4 ? 0 : 1);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0, "status %x", (unsigned)status);
    CHECK(cp_ended(&first) == 0 && first.fd[CP_STDOUT] >= 0, "the copy took it");
    cp_signal(&first, SIGKILL);
    cp_signal(&second, SIGKILL);
    finish(&first); /* the older, while the younger is known */
    finish(&second);
}

/* Forked while a child is still on its block: the copy gives back its own only. */
static void test_fork_meanwhile(void)
{
    struct call call;
    struct cp_child child;
    char path[] = "/tmp/harness-fifo-XXXXXX";
    int status = -1;
    snprintf(trying, sizeof trying, "forked while a child is on its way");
    CHECK(mkdtemp(path) != NULL && rmdir(path) == 0 && mkfifo(path, 0600) == 0, "no FIFO");
    call_probe(&call, "exit", "6");
    call.request.start = suspended_only ? CP_START_FORK : CP_START_AUTO;
    call.request.stdio[0] = CP_STDIO_PATH;
    call.request.stdio_path[0] = path;
    memset(&child, 0, sizeof child);
    cp_child_init(&child);
    CHECK(cp_spawn(&child, &call.request) == 0, "stage %d, errno %d", child.stage, child.error);
    pid_t pid = fork();
    if (pid == 0) {
        struct call own;
        struct ending ending;
        int good = child.state == CP_DISOWNED;
        cp_child_release(&child);
        call_probe(&own, "exit", "4");
        drive(&own, NULL, &ending);
        leave_fork(good && ending.exited && ending.status == 4 ? 0 : 1);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0, "status %x", (unsigned)status);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    await_exec(&child);
    CHECK(child.state == CP_STARTED, "state %d", child.state);
    close(fd);
    finish(&child);
    unlink(path);
}

/* ---- waiting for the exec ---- */

static void test_await(int start)
{
    struct call call;
    struct cp_child child;
    char path[] = "/tmp/harness-fifo-XXXXXX";
    snprintf(trying, sizeof trying, "waiting for the exec, start %d", start);
    CHECK(mkdtemp(path) != NULL && rmdir(path) == 0 && mkfifo(path, 0600) == 0, "no FIFO");
    call_probe(&call, "exit", "0");
    call.request.start = start;
    call.request.stdio[0] = CP_STDIO_PATH;
    call.request.stdio_path[0] = path;
    memset(&child, 0, sizeof child);
    cp_child_init(&child);
    CHECK(cp_spawn(&child, &call.request) == 0, "stage %d, errno %d", child.stage, child.error);
    CHECK(cp_await_exec(&child, 0) == CP_SPAWNING, "state %d", child.state);
    CHECK(cp_await_exec(&child, 30) == CP_SPAWNING, "state %d", child.state);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    CHECK(cp_await_exec(&child, -1) == CP_STARTED, "state %d", child.state);
    CHECK(cp_await_exec(&child, -1) == CP_STARTED, "state %d", child.state);
    close(fd);
    finish(&child);
    unlink(path);
}

void test_waiting(void)
{
    static const int disabled[] = {0, CP_DISABLE_PIDFD, CP_DISABLE_PIDFD_GROUP, CP_DISABLE_PIDFD_INFO};
    for (size_t i = 0; i < sizeof disabled / sizeof *disabled; i++) {
        test_endings(disabled[i]);
        test_signalling(disabled[i]);
        test_group(disabled[i]);
        test_taken(disabled[i], disabled[i] == 0 || disabled[i] == CP_DISABLE_PIDFD_GROUP);
    }
    test_ignored();
    for (const struct way *start = starts; start->name; start++)
        if (may_start(start->value) && !(suspended_only && start->value == CP_START_VFORK))
            test_stuck(start->value);
    for (const struct way *start = starts; start->name; start++)
        if (may_start(start->value) && start->value != CP_START_VFORK)
            test_await(start->value);
    test_given_up();
    test_fork();
    test_fork_meanwhile();
}
