/* A service: the child of the child, which keeps its number for it. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"

static void detach_call(struct call *call, const char *program, const char *const *words)
{
    call_program(call, program, words);
    call->request.flags |= CP_DETACH;
    call->request.stdio[1] = call->request.stdio[2] = CP_STDIO_NULL;
}

/* What the service is, seen by itself; and its status, passed on. */
static void test_state(const struct way *closing)
{
    struct call call;
    struct ending ending;
    struct invariants before;
    snprintf(trying, sizeof trying, "a service, %s", closing->name);
    look(&before);
    call_probe(&call, "state", NULL);
    call.request.flags |= CP_DETACH;
    call.request.closing = closing->value;
    drive(&call, NULL, &ending);
    CHECK(ending.state == CP_STARTED && ending.start == CP_START_FORK, "state %d, start %d, errno %d",
          ending.state, ending.start, ending.error);
    CHECK(ending.exited && ending.status == 0, "status %d", ending.status);
    CHECK(has_stdio_only(&ending), "the service has\n%s", ending.out);
    CHECK(said(&ending, "leads") == 1, "it leads no session");
    compare(&before);
}

static int is_there(int pid)
{
    return kill(pid, 0) == 0;
}

/* Killed, the child lets go of a service that runs; of itself it does not. */
static void test_let_go(void)
{
    static const char *const words[] = {"600", NULL};
    struct call call;
    struct cp_child child;
    struct invariants before;
    snprintf(trying, sizeof trying, "a service is let go");
    look(&before);
    detach_call(&call, "/bin/sleep", words);
    memset(&child, 0, sizeof child);
    cp_child_init(&child);
    CHECK(cp_spawn(&child, &call.request) == 0, "stage %d, errno %d", child.stage, child.error);
    await_exec(&child);
    int service = child.service;
    CHECK(child.state == CP_STARTED && service > 0 && service != child.pid, "state %d, service %d",
          child.state, service);
    CHECK(!child.group, "the child leads a group");
    CHECK(cp_ended(&child) == 0, "the child has ended");
    CHECK(getsid(service) == service && getsid(child.pid) == getsid(0), "sessions");
    cp_signal(&child, SIGKILL);
    finish(&child);
    CHECK(is_there(service), "the service has ended with the child");
    kill(service, SIGKILL);
    compare(&before);
}

/* A service that has ended keeps its number as long as the child is not told to
 * reap: it ends by itself then, and says how. */
static void test_end(const char *how, int status)
{
    const char *words[] = {"-c", how, NULL};
    struct call call;
    struct ending ending;
    snprintf(trying, sizeof trying, "a service ends by %s", how);
    detach_call(&call, "/bin/sh", words);
    drive(&call, NULL, &ending);
    CHECK(ending.state == CP_STARTED, "state %d", ending.state);
    CHECK(ending.status_known && ending.exited && ending.status == status, "status %d", ending.status);
}

static void test_failure(void)
{
    static const char *const words[] = {NULL};
    struct call call;
    struct ending ending;
    struct invariants before;
    snprintf(trying, sizeof trying, "a service that can't be started");
    look(&before);
    detach_call(&call, "/nonexistent", words);
    drive(&call, NULL, &ending);
    CHECK(ending.state == CP_FAILED && ending.stage == CP_STAGE_EXEC && ending.error == ENOENT,
          "state %d, stage %d, errno %d", ending.state, ending.stage, ending.error);
    compare(&before);
}

/* Where SIGCHLD is ignored nobody stays a zombie, but in the child it is not. */
static void test_ignored_sigchld(void)
{
    snprintf(trying, sizeof trying, "a service of a host that ignores SIGCHLD");
    void (*before)(int) = signal(SIGCHLD, SIG_IGN);
    static const char *const words[] = {"600", NULL};
    struct call call;
    struct cp_child child;
    detach_call(&call, "/bin/sleep", words);
    memset(&child, 0, sizeof child);
    cp_child_init(&child);
    CHECK(cp_spawn(&child, &call.request) == 0, "stage %d, errno %d", child.stage, child.error);
    await_exec(&child);
    CHECK(child.state == CP_STARTED && cp_ended(&child) == 0, "state %d", child.state);
    kill(child.service, SIGKILL);
    for (int i = 0; i < 10000 && cp_ended(&child) == 0; i++)
        usleep(1000);
    CHECK(cp_ended(&child) != 0, "the child waits for ever");
    cp_child_release(&child);
    signal(SIGCHLD, before);
}

/* A log is written at its end. */
static void test_append(void)
{
    char path[] = "/tmp/harness-log-XXXXXX", text[32] = "";
    struct call call;
    struct ending ending;
    int fd = mkstemp(path);
    snprintf(trying, sizeof trying, "a log");
    CHECK(write(fd, "before ", 7) == 7, "can't be written");
    call_probe(&call, "words", "behind");
    call.request.stdio[1] = CP_STDIO_APPEND;
    call.request.stdio_path[1] = path;
    drive(&call, NULL, &ending);
    CHECK(pread(fd, text, 13, 0) == 13 && !strcmp(text, "before behind"), "the log has %s", text);
    unlink(path);
    close(fd);
}

void test_detached(void)
{
    for (const struct way *closing = closings; closing->name; closing++)
        if (may_close(closing->value))
            test_state(closing);
    test_let_go();
    test_end("exit 3", 3);
    test_end("kill -9 $$", 137);
    test_failure();
    if (!emulated)
        test_ignored_sigchld();
    test_append();
}
