/* What is not about a child of ours: other processes, writing, odd calls. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

static int identify(int pid, struct cp_identity *identity)
{
    struct cp_process now;
    int error = cp_read_process(pid, &now);
    identity->pid = pid;
    identity->ppid = now.ppid;
    identity->session = now.session;
    identity->start = now.start;
    return error;
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
    CHECK(cp_signal_process(&other, SIGKILL, use_pidfd) == ESRCH, "another's start");
    other = identity;
    other.ppid = other.session = 1;
    CHECK(cp_signal_process(&other, SIGKILL, use_pidfd) == ESRCH, "another's parent and session");
    CHECK(cp_signal_process(&identity, 999, use_pidfd) == EINVAL, "no such signal");
    other = identity;
    other.ppid = 1; /* its parent died */
    CHECK(cp_signal_process(&other, 0, use_pidfd) == 0, "reparented");
    other = identity;
    other.session = 1; /* it called setsid */
    CHECK(cp_signal_process(&other, SIGKILL, use_pidfd) == 0, "it can't be killed");
    CHECK(waitpid(pid, &status, 0) == pid && WTERMSIG(status) == SIGKILL, "status %x", (unsigned)status);
    CHECK(cp_signal_process(&identity, SIGKILL, use_pidfd) == ESRCH, "it is gone");
    other.pid = -5;
    CHECK(cp_signal_process(&other, SIGKILL, use_pidfd) == ESRCH, "no pid");
}

static void test_table(void)
{
    static struct cp_process all[4096];
    struct cp_process me;
    char line[1024];
    int found = 0, count = cp_read_processes(all, 4096);
    snprintf(trying, sizeof trying, "the table of processes");
    CHECK(cp_read_proc("/proc/self/stat", line, sizeof line) > 20, "our own");
    CHECK(cp_read_proc("/nonexistent", line, sizeof line) == -ENOENT, "nobody's");
    CHECK(cp_read_process(999999999, &me) == ENOENT, "nobody's");
    CHECK(cp_read_process(getpid(), &me) == 0 && me.ppid == getppid() && me.threads == 1, "our own");
    for (int i = 0; i < count; i++)
        found += all[i].pid == getpid() && all[i].start == me.start;
    CHECK(found == 1, "we are %d times among %d", found, count);
    CHECK(cp_read_processes(all, 1) == 1, "more than there is room for");
}

static void test_group(void)
{
    struct cp_identity identity, other;
    int status = 0;
    snprintf(trying, sizeof trying, "the group that another process leads");
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
    int error = cp_signal_group_of(&other, SIGKILL);
    CHECK(error == (CP_PORTABLE ? ENOSYS : ESRCH), "errno %d", error);
    error = cp_signal_group_of(&identity, SIGKILL);
    CHECK(error == 0 || error == EINVAL || error == ENOSYS, "errno %d", error); /* before Linux 6.9 */
    if (error != 0)
        kill(pid, SIGKILL);
    CHECK(waitpid(pid, &status, 0) == pid && WTERMSIG(status) == SIGKILL, "status %x", (unsigned)status);
    CHECK(cp_signal_group_of(&identity, SIGKILL) == (CP_PORTABLE ? ENOSYS : ESRCH), "it is gone");
}

static void test_each(void)
{
    int pids[2] = {getpid(), 999999999}, sizes[2];
    char lines[2][1024], alone[1024];
    snprintf(trying, sizeof trying, "one file of several processes");
    cp_read_each("comm", pids, 2, lines[0], 1024, sizes);
    ssize_t size = cp_read_proc("/proc/self/comm", alone, sizeof alone);
    CHECK(sizes[0] == size && size > 0 && memcmp(lines[0], alone, (size_t)size) == 0, "%d bytes", sizes[0]);
    CHECK(sizes[1] == -ENOENT, "nobody's: %d", sizes[1]);
}

static void test_names_of_calls(void)
{
    int argument = -1;
    snprintf(trying, sizeof trying, "the names of system calls");
    CHECK(cp_syscall_name(-7, &argument) == NULL && argument == CP_ARGUMENT_NONE, "there is no such call");
#if !CP_PORTABLE
    const char *name = cp_syscall_name(SYS_read, &argument);
    CHECK(name && strcmp(name, "read") == 0 && argument == CP_ARGUMENT_FD, "read is %s", name);
    name = cp_syscall_name(SYS_wait4, &argument);
    CHECK(name && strcmp(name, "wait4") == 0 && argument == CP_ARGUMENT_PID, "wait4 is %s", name);
#endif
}

static void test_first_alive(int use_pidfd)
{
    struct cp_identity list[3];
    snprintf(trying, sizeof trying, "the first alive, pidfd %d", use_pidfd);
    pid_t zombie = fork();
    if (zombie == 0)
        leave_fork(0);
    waitid(P_PID, (id_t)zombie, &(siginfo_t){0}, WEXITED | WNOWAIT);
    identify(zombie, &list[0]);
    list[1] = list[0];
    list[1].pid = 999999999;
    identify(getpid(), &list[2]);
    CHECK(cp_first_alive(list, 3, 0, use_pidfd) == 2, "the dead are not");
    CHECK(cp_first_alive(list, 2, 0, use_pidfd) == 2, "the dead are not");
    list[2].start++;
    CHECK(cp_first_alive(list, 3, 1, use_pidfd) == 3, "another with its number");
    waitpid(zombie, NULL, 0);
}

static void test_open_files(void)
{
    struct cp_wanted wanted[2], missing = {"pipe:[1]", 0, 0, 0, 0};
    struct cp_open found[8];
    char link[64] = "", path[64];
    int ends[2], file = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
    snprintf(trying, sizeof trying, "who has what open");
    CHECK(file >= 0 && pipe(ends) == 0, "no files");
    memset(wanted, 0, sizeof wanted);
    snprintf(path, sizeof path, "/proc/self/fd/%d", ends[1]);
    CHECK(readlink(path, link, sizeof link - 1) > 0, "no link");
    wanted[0].link = link;
    wanted[1].link = "/etc/passwd";
    CHECK(cp_identify_open(getpid(), file, &wanted[1]) == 0 ? wanted[1].is_file : CP_PORTABLE, "no file");
    CHECK(cp_identify_open(getpid(), 999, &wanted[1]) == (CP_PORTABLE ? ENOSYS : ENOENT), "a file");
    wanted[1].is_file = 1; /* by its name, if by nothing else */
    CHECK(cp_find_open(getpid(), wanted, 2, found, 8) == 3, "both ends and the file");
    for (int i = 0; i < 3; i++)
        CHECK(found[i].fd == file ? found[i].which == 1 && found[i].reads && !found[i].writes
                                  : found[i].which == 0 && found[i].reads == (found[i].fd == ends[0]),
              "%d", found[i].fd);
    CHECK(cp_find_open(getpid(), wanted, 2, found, 1) == 1, "more than there is room for");
    CHECK(cp_find_open(getpid(), &missing, 1, found, 8) == 0, "nobody has it");
    CHECK(cp_find_open(999999999, wanted, 2, found, 8) == -ENOENT, "nobody");
    close(file);
    close(ends[0]);
    close(ends[1]);
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

/* Released in another order than made; more blocks at once than are kept. */
static void test_many(void)
{
    enum { MANY = 20 };
    static struct cp_child child[MANY];
    struct call call;
    snprintf(trying, sizeof trying, "many at once");
    call_probe(&call, "exit", "0");
    call.request.stdio[1] = call.request.stdio[2] = CP_STDIO_NULL;
    memset(child, 0, sizeof child);
    for (int i = 0; i < MANY; i++) {
        cp_child_init(&child[i]);
        CHECK(cp_spawn(&child[i], &call.request) == 0, "stage %d, errno %d", child[i].stage, child[i].error);
    }
    for (int i = 1; i < MANY; i += 2)
        finish(&child[i]);
    for (int i = MANY - 2; i >= 0; i -= 2)
        finish(&child[i]);
}

void test_others(void)
{
    test_many();
    test_strangers(1);
    test_strangers(0);
    test_group();
    test_each();
    test_names_of_calls();
    test_table();
    test_first_alive(1);
    test_first_alive(0);
    test_open_files();
    test_writing(SIG_DFL);
    test_writing(SIG_IGN);
    test_writing(on_pipe);
    test_info_handler();
    test_empty();
    CHECK(cp_is_portable() == CP_PORTABLE, "which build is it?");
    CHECK(cp_auto_suspends() == 0 || cp_auto_suspends() == 1, "neither");
}
