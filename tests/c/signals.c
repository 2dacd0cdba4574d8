/* The mask and all 64 dispositions in the child, against the contract: the
 * caller's mask; every handler back to default; ignored stays ignored, but for
 * SIGPIPE, SIGXFSZ and SIGCHLD. */
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "harness.h"

#define BIT(number) ((uint64_t)1 << ((number) - 1))

struct action {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};

static volatile sig_atomic_t handled;

static void count(int number)
{
    (void)number;
    handled++;
}

/* 32 and 33 are glibc's own, but the kernel's all the same. */
static int settable(int number)
{
    return number != SIGKILL && number != SIGSTOP;
}

static void set_all(void (*handler)(int), struct action *saved)
{
    struct action action = {handler, 0, NULL, 0};
    if (handler == count) { /* libc knows the way back out of a handler */
        signal(SIGUSR1, count);
        syscall(SYS_rt_sigaction, SIGUSR1, NULL, &action, 8);
    }
    for (int number = 1; number <= 64; number++)
        if (settable(number))
            syscall(SYS_rt_sigaction, number, &action, saved ? &saved[number] : NULL, 8);
}

static void put_back(const struct action *saved)
{
    for (int number = 1; number <= 64; number++)
        if (settable(number))
            syscall(SYS_rt_sigaction, number, &saved[number], NULL, 8);
}

static void try_set(int start, void (*handler)(int), uint64_t expected)
{
    struct action saved[65];
    struct call call;
    struct ending ending;
    call_probe(&call, "state", NULL);
    call.request.start = start;
    signal(SIGUSR1, SIG_DFL);
    set_all(handler, saved);
    drive(&call, NULL, &ending);
    put_back(saved);
    CHECK((uint64_t)said(&ending, "ignored") == expected, "ignored %llx instead of %llx",
          said(&ending, "ignored"), (unsigned long long)expected);
    CHECK(said(&ending, "caught") == 0, "caught %llx", said(&ending, "caught"));
    CHECK(said(&ending, "blocked") == 0, "blocked %llx", said(&ending, "blocked"));
}

static void test_dispositions(int start)
{
    uint64_t settable_ones = ~(BIT(SIGKILL) | BIT(SIGSTOP));
    uint64_t standard = BIT(SIGPIPE) | BIT(SIGXFSZ) | BIT(SIGCHLD);
    snprintf(trying, sizeof trying, "all default, start %d", start);
    try_set(start, SIG_DFL, 0);
    snprintf(trying, sizeof trying, "all handled, start %d", start);
    try_set(start, count, 0);
    snprintf(trying, sizeof trying, "all ignored, start %d", start);
    try_set(start, SIG_IGN, settable_ones & ~standard);
}

/* One at a time, since with all of them a slip between two would not show. */
static void test_each_ignored(void)
{
    for (int number = 1; number <= 64; number++) {
        struct action ignored = {SIG_IGN, 0, NULL, 0}, saved;
        struct call call;
        struct ending ending;
        if (!settable(number))
            continue;
        snprintf(trying, sizeof trying, "signal %d ignored", number);
        syscall(SYS_rt_sigaction, number, &ignored, &saved, 8);
        call_probe(&call, "state", NULL);
        drive(&call, NULL, &ending);
        syscall(SYS_rt_sigaction, number, &saved, NULL, 8);
        int standard = number == SIGPIPE || number == SIGXFSZ || number == SIGCHLD;
        CHECK((uint64_t)said(&ending, "ignored") == (standard ? 0 : BIT(number)), "ignored %llx",
              said(&ending, "ignored"));
    }
}

static void test_mask(int start)
{
    struct call call;
    struct ending ending;
    uint64_t before, wanted = BIT(SIGUSR1) | BIT(SIGTERM) | BIT(34) | BIT(64);
    snprintf(trying, sizeof trying, "the mask, start %d", start);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &wanted, &before, 8);
    call_probe(&call, "state", NULL);
    call.request.start = start;
    drive(&call, NULL, &ending);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, 8);
    CHECK((uint64_t)said(&ending, "blocked") == wanted, "blocked %llx", said(&ending, "blocked"));
}

/* A mask that the request gives is the child's, whatever the caller's is. */
static void test_given_mask(void)
{
    struct call call;
    struct ending ending;
    cp_sigset wanted;
    snprintf(trying, sizeof trying, "a mask that is given");
#if CP_PORTABLE
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGUSR2);
#else
    wanted = BIT(SIGUSR2);
#endif
    call_probe(&call, "state", NULL);
    call.request.mask = &wanted;
    drive(&call, NULL, &ending);
    CHECK((uint64_t)said(&ending, "blocked") == BIT(SIGUSR2), "blocked %llx", said(&ending, "blocked"));
}

/* A handled signal that is pending in the host does not run in the child. */
static void test_pending(int start)
{
    struct call call;
    struct ending ending;
    uint64_t block = BIT(SIGUSR1), before;
    struct sigaction action = {.sa_handler = count}, saved;
    snprintf(trying, sizeof trying, "pending, start %d", start);
    sigaction(SIGUSR1, &action, &saved);
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, &block, &before, 8);
    handled = 0;
    raise(SIGUSR1);
    call_probe(&call, "exit", "0");
    call.request.start = start;
    drive(&call, NULL, &ending);
    CHECK(handled == 0, "handled %d times", (int)handled);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, 8);
    CHECK(handled == 1, "handled %d times", (int)handled);
    CHECK(ending.exited && ending.status == 0, "status %d", ending.status);
    sigaction(SIGUSR1, &saved, NULL);
}

/* With CP_KEEP_SIGNALS the three stay ignored too. */
static void test_kept(void)
{
    struct call call;
    struct ending ending;
    snprintf(trying, sizeof trying, "ignored signals kept");
    call_probe(&call, "state", NULL);
    call.request.flags |= CP_KEEP_SIGNALS;
    void (*pipe_before)(int) = signal(SIGPIPE, SIG_IGN), (*user_before)(int) = signal(SIGUSR2, count);
    drive(&call, NULL, &ending);
    signal(SIGPIPE, pipe_before);
    signal(SIGUSR2, user_before);
    CHECK((uint64_t)said(&ending, "ignored") & BIT(SIGPIPE), "ignored %llx", said(&ending, "ignored"));
}

void test_signals(void)
{
    test_kept();
    if (!emulated && !suspended_only)
        test_given_mask();
    for (const struct way *start = starts; start->name; start++) {
        if (!may_start(start->value))
            continue;
        if (!emulated && !suspended_only) { /* both keep some signals for themselves */
            test_dispositions(start->value);
            test_mask(start->value);
        }
        test_pending(start->value);
    }
    if (!emulated && !suspended_only)
        test_each_ignored();
}
