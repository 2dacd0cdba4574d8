/* Signals without pause while children are started: no handler runs in a child,
 * and the parent loses none. */
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

#define SPAWNS 2000

static volatile int parent_pid, in_parent, in_child, queued;
static volatile int *sent; /* shared with the stormer */

/* The child would run it on the parent's memory: hence counters tell. */
static void on_urgent(int number)
{
    (void)number;
    if (syscall(SYS_getpid) == parent_pid)
        in_parent++;
    else
        in_child++;
}

static void on_queued(int number)
{
    (void)number;
    queued++;
}

/* SIGURG to the whole group, so to a child that has not left it yet: ignored by
 * default, it ends no program. Real-time signals are queued, none is merged. */
static _Noreturn void storm(int group)
{
    static const struct timespec pause = {0, 20000};
    for (;;) {
        kill(-group, SIGURG);
        if (sigqueue(parent_pid, SIGRTMIN + 3, (union sigval){0}) == 0)
            ++*sent;
        nanosleep(&pause, NULL);
    }
}

static void spawn_under(int start, int spawns)
{
    for (int i = 0; i < spawns; i++) {
        struct call call;
        struct ending ending;
        call_probe(&call, "exit", "0");
        call.request.start = start;
        call.request.stdio[1] = call.request.stdio[2] = CP_STDIO_NULL;
        drive(&call, NULL, &ending);
        CHECK(ending.exited && ending.status == 0, "spawn %d: state %d, status %d", i, ending.state,
              ending.status);
    }
}

static void test_storm(int start, int spawns)
{
    struct sigaction urgent = {.sa_handler = on_urgent, .sa_flags = SA_RESTART}, old_urgent;
    struct sigaction counted = {.sa_handler = on_queued, .sa_flags = SA_RESTART}, old_counted;
    snprintf(trying, sizeof trying, "a storm, start %d", start);
    parent_pid = getpid();
    in_parent = in_child = queued = 0;
    *sent = 0;
    sigaction(SIGURG, &urgent, &old_urgent);
    sigaction(SIGRTMIN + 3, &counted, &old_counted);
    fflush(NULL);
    pid_t stormer = fork();
    if (stormer == 0) {
        signal(SIGURG, SIG_IGN);
        storm(getpgrp());
    }
    spawn_under(start, spawns);
    kill(stormer, SIGSTOP); /* between the sending and the counting one could be missed */
    waitpid(stormer, NULL, WUNTRACED);
    int counts[2] = {*sent, queued};
    kill(stormer, SIGKILL);
    waitpid(stormer, NULL, 0);
    CHECK(counts[1] == counts[0] || counts[1] == counts[0] + 1, "%d of %d came", counts[1], counts[0]);
    CHECK(in_child == 0, "a handler ran %d times in a child", in_child);
    CHECK(in_parent > 100 && queued > 100, "only %d and %d came", in_parent, queued);
    sigaction(SIGURG, &old_urgent, NULL);
    sigaction(SIGRTMIN + 3, &old_counted, NULL);
}

void test_storms(void)
{
    if (emulated || suspended_only)
        return;
    sent = mmap(NULL, sizeof *sent, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_SHARED, -1, 0);
    setpgid(0, 0); /* a group of our own: the storm is for nobody else */
    for (const struct way *start = starts; start->name; start++)
        if (may_start(start->value))
            test_storm(start->value, start->value == CP_START_AUTO ? SPAWNS : SPAWNS / 10);
    munmap((void *)sent, sizeof *sent);
}
