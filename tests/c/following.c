/* A child that is followed: what is read, and what brings cp_follow back. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "harness.h"

static char room[2][64];

static struct cp_child *begin(struct cp_child *child, struct call *call, struct cp_caught *caught)
{
    memset(child, 0, sizeof *child);
    cp_child_init(child);
    CHECK(cp_spawn(child, &call->request) == 0, "stage %d, errno %d", child->stage, child->error);
    for (int i = 0; i < 2; i++)
        caught[i] = (struct cp_caught){room[i], sizeof room[i], 0, child->fd[CP_STDOUT + i]};
    return child;
}

static void end(struct cp_child *child)
{
    cp_signal(child, SIGKILL);
    CHECK(await_end(child), "it does not end");
    finish(child);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* What it has written is read, and its end is told once nothing is left to read. */
static void test_end(const char *word, const char *second, int status, const char *text)
{
    struct cp_child child;
    struct cp_caught caught[2];
    struct call call;
    call_probe(&call, word, second);
    begin(&child, &call, caught);
    CHECK(cp_follow(&child, caught, INFINITY) == CP_NEWS_END, "size %zu", caught[0].size);
    CHECK(caught[0].fd < 0 && caught[1].fd < 0, "%d %d", caught[0].fd, caught[1].fd);
    CHECK(caught[0].size >= strlen(text) && !memcmp(room[0], text, strlen(text)), "%zu", caught[0].size);
    CHECK(caught[1].size == 0, "%zu", caught[1].size);
    CHECK(child.state == CP_STARTED && cp_reap(&child) == 1 && child.status == status, "%d", child.status);
    cp_child_release(&child);
}

/* It comes back and can be called again. */
static void test_time(void)
{
    struct cp_child child;
    struct cp_caught caught[2];
    struct call call;
    call_probe(&call, "sleep", "600");
    begin(&child, &call, caught);
    CHECK(cp_follow(&child, caught, 0) == CP_NEWS_TIME, "it looks once");
    double until = now() + 0.1;
    CHECK(cp_follow(&child, caught, until) == CP_NEWS_TIME && now() >= until, "the deadline");
    CHECK(child.state == CP_STARTED, "the exec was not seen: %d", child.state);
    CHECK(caught[0].fd >= 0 && caught[1].fd >= 0, "the pipes have not ended");
    end(&child);
}

/* More than there is room for. */
static void test_room(void)
{
    struct cp_child child;
    struct cp_caught caught[2];
    struct call call;
    call_probe(&call, "state", NULL);
    begin(&child, &call, caught);
    CHECK(cp_follow(&child, caught, INFINITY) == CP_NEWS_ROOM, "size %zu", caught[0].size);
    CHECK(caught[0].size == sizeof room[0] && !memcmp(room[0], "fd 0\n", 5), "%zu", caught[0].size);
    end(&child);
}

/* Somebody else has the write end: the child's end is told all the same. */
static void test_held(void)
{
    struct cp_child child;
    struct cp_caught caught[2];
    struct call call;
    int ends[2];
    call_probe(&call, "exit", "3");
    CHECK(pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0, "errno %d", errno);
    CHECK(write(ends[1], "late", 4) == 4, "errno %d", errno);
    begin(&child, &call, caught);
    caught[1].fd = ends[0];
    CHECK(cp_follow(&child, caught, INFINITY) == CP_NEWS_END, "held");
    CHECK(caught[0].fd < 0 && caught[1].fd == ends[0] && caught[1].size == 4, "%zu", caught[1].size);
    finish(&child);
    close(ends[0]);
    close(ends[1]);
}

/* Descriptors that somebody has closed, or that can't be read, are not understood. */
static void test_trouble(void)
{
    struct cp_child child;
    struct cp_caught caught[2];
    struct call call;
    int directory = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    call_probe(&call, "sleep", "600");
    begin(&child, &call, caught);
    int out = caught[0].fd, pidfd = child.fd[CP_PIDFD];
    caught[0].fd = 1 << 20;
    CHECK(cp_follow(&child, caught, INFINITY) == CP_NEWS_TROUBLE, "a pipe that is not open");
    caught[0].fd = directory;
    CHECK(cp_follow(&child, caught, INFINITY) == CP_NEWS_TROUBLE, "what can't be read");
    caught[0].fd = out;
    child.fd[CP_PIDFD] = 1 << 20;
    CHECK(cp_follow(&child, caught, INFINITY) == CP_NEWS_TROUBLE, "a pidfd that is not open");
    child.fd[CP_PIDFD] = -1;
    CHECK(cp_follow(&child, caught, INFINITY) == CP_NEWS_TROUBLE, "no pidfd");
    child.fd[CP_PIDFD] = pidfd;
    end(&child);
    close(directory);
}

static void heard(int number)
{
    (void)number;
}

static void test_signal(void)
{
    struct cp_child child;
    struct cp_caught caught[2];
    struct call call;
    struct sigaction action = {.sa_handler = heard}, before;
    struct itimerval soon = {{0, 10000}, {0, 10000}}, never = {{0, 0}, {0, 0}};
    call_probe(&call, "sleep", "600");
    sigaction(SIGALRM, &action, &before);
    begin(&child, &call, caught);
    setitimer(ITIMER_REAL, &soon, NULL); /* again and again: the first may come too early */
    CHECK(cp_follow(&child, caught, INFINITY) == CP_NEWS_SIGNAL, "of which the caller may have to hear");
    setitimer(ITIMER_REAL, &never, NULL);
    sigaction(SIGALRM, &before, NULL);
    end(&child);
}

void test_following(void)
{
    snprintf(trying, sizeof trying, "following");
    if (cp_is_portable()) /* it has no pidfd */
        return;
    test_end("exit", "7", 7, "");
    test_end("words", "heard", 0, "heard\nPATH=/usr/bin:/bin\n");
    test_time();
    test_room();
    test_held();
    test_trouble();
    test_signal();
}
