/* What is not about a child of ours: other processes, writing, odd calls. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

/* What /proc/PID/stat says of start, parent and session. */
static int identify(int pid, struct cp_identity *identity)
{
    char line[1024];
    ssize_t size = cp_read_stat(pid, line, sizeof line - 1);
    if (size <= 0)
        return -1;
    line[size] = '\0';
    const char *rest = strrchr(line, ')');
    return rest && sscanf(rest + 1, " %*c %d %*d %d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d"
                                    " %*d %*d %*d %*d %llu",
                          &identity->ppid, &identity->session, &identity->start) == 3 ? 0 : -1;
}

static void test_strangers(int use_pidfd)
{
    struct cp_identity identity, other;
    int status = 0;
    snprintf(trying, sizeof trying, "other processes, pidfd %d", use_pidfd);
    pid_t pid = fork();
    if (pid == 0) {
        setsid();
        for (;;)
            pause();
    }
    while (identify(pid, &identity) != 0 || identity.session != pid)
        usleep(1000);
    other = identity;
    other.start++;
    CHECK(cp_signal_process(pid, &other, SIGKILL, use_pidfd) == ESRCH, "another's start");
    other = identity;
    other.ppid = other.session = 1;
    CHECK(cp_signal_process(pid, &other, SIGKILL, use_pidfd) == ESRCH, "another's parent and session");
    CHECK(cp_signal_process(pid, &identity, 999, use_pidfd) == EINVAL, "no such signal");
    other = identity;
    other.ppid = 1; /* its parent died */
    CHECK(cp_signal_process(pid, &other, 0, use_pidfd) == 0, "reparented");
    other = identity;
    other.session = 1; /* it called setsid */
    CHECK(cp_signal_process(pid, &other, SIGKILL, use_pidfd) == 0, "it can't be killed");
    CHECK(waitpid(pid, &status, 0) == pid && WTERMSIG(status) == SIGKILL, "status %x", (unsigned)status);
    CHECK(cp_signal_process(pid, &identity, SIGKILL, use_pidfd) == ESRCH, "it is gone");
    CHECK(cp_signal_process(-5, &identity, SIGKILL, use_pidfd) == ESRCH, "no pid");
}

static void test_stat(void)
{
    char line[1024];
    snprintf(trying, sizeof trying, "stat");
    CHECK(cp_read_stat(getpid(), line, sizeof line) > 20, "our own");
    CHECK(cp_read_stat(999999999, line, sizeof line) == -ENOENT, "nobody's");
}

static volatile sig_atomic_t raised;

static void on_pipe(int number)
{
    (void)number;
    raised++;
}

/* SIGPIPE neither kills nor is seen, whatever the host does with it, and one
 * that was pending before is pending afterwards. */
static void test_writing(void (*handler)(int))
{
    int ends[2];
    sigset_t set, pending;
    snprintf(trying, sizeof trying, "writing");
    raised = 0;
    void (*before)(int) = signal(SIGPIPE, handler);
    CHECK(pipe(ends) == 0 && cp_write(ends[1], "abc", 3) == 3, "can't be written");
    close(ends[0]);
    CHECK(cp_write(ends[1], "abc", 3) == -EPIPE, "nobody reads it");
    close(ends[1]);
    CHECK(cp_write(ends[1], "abc", 3) == -EBADF, "it is closed");
    sigpending(&pending);
    CHECK(!sigismember(&pending, SIGPIPE), "SIGPIPE is left pending");
    sigprocmask(SIG_BLOCK, NULL, &set);
    CHECK(!sigismember(&set, SIGPIPE), "SIGPIPE is left blocked");
    signal(SIGPIPE, before);
    CHECK(raised == 0, "the handler ran %d times", (int)raised);
}

static void on_pipe_info(int number, siginfo_t *info, void *context)
{
    (void)info;
    (void)context;
    on_pipe(number);
}

static void test_info_handler(void)
{
    struct sigaction action = {.sa_sigaction = on_pipe_info, .sa_flags = SA_SIGINFO}, before;
    int ends[2];
    snprintf(trying, sizeof trying, "writing under a handler with SA_SIGINFO");
    sigaction(SIGPIPE, &action, &before);
    raised = 0;
    CHECK(pipe(ends) == 0 && close(ends[0]) == 0, "no pipe");
    CHECK(cp_write(ends[1], "abc", 3) == -EPIPE, "nobody reads it");
    CHECK(raised == 0, "the handler ran");
    close(ends[1]);
    sigaction(SIGPIPE, &before, NULL);
}

/* A struct that never was, was released, or failed can be given to anything. */
static void test_empty(void)
{
    struct cp_child child;
    snprintf(trying, sizeof trying, "an empty child");
    memset(&child, 0, sizeof child);
    cp_child_release(&child); /* its zeroes are no descriptors: 0 stays open */
    cp_child_init(&child);
    CHECK(cp_ended(&child) == -1 && cp_reap(&child) == 1, "it has no child");
    CHECK(cp_settle(&child, 1) == CP_IDLE && cp_settle(&child, 0) == CP_IDLE, "%d", child.state);
    CHECK(cp_signal(&child, 9) == ESRCH && cp_signal_group(&child, 9) == ESRCH, "nobody");
    CHECK(cp_stage_now(&child) == CP_STAGE_NONE, "at stage %d", cp_stage_now(&child));
    for (int slot = 0; slot < CP_SLOTS; slot++)
        cp_close(&child, slot);
    cp_child_release(&child);
    cp_child_release(&child);
}

void test_others(void)
{
    test_strangers(1);
    test_strangers(0);
    test_stat();
    test_writing(SIG_DFL);
    test_writing(SIG_IGN);
    test_writing(on_pipe);
    test_info_handler();
    test_empty();
    CHECK(cp_auto_suspends() == 0 || cp_auto_suspends() == 1, "neither");
}
