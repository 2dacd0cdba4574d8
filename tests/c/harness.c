#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"

#define PATIENCE_MS 30000

int checks, failures;
char trying[256];
const char *probe;
int suspended_only, emulated;

const struct way starts[] = {
    {"auto", CP_START_AUTO}, {"clone", CP_START_CLONE},
    {"vfork", CP_START_VFORK}, {"fork", CP_START_FORK}, {NULL, 0},
};
const struct way closings[] = {
    {"auto", CP_CLOSE_AUTO}, {"close_range", CP_CLOSE_RANGE},
    {"proc", CP_CLOSE_PROC}, {"rlimit", CP_CLOSE_RLIMIT}, {NULL, 0},
};

int may_start(int start)
{
    if (CP_PORTABLE)
        return start == CP_START_AUTO || start == CP_START_FORK;
    if (emulated)
        return start != CP_START_CLONE;
    return !suspended_only || start == CP_START_VFORK || start == CP_START_FORK;
}

int may_close(int closing)
{
    return !CP_PORTABLE || closing == CP_CLOSE_AUTO || closing == CP_CLOSE_RLIMIT;
}

int may_reopen(void)
{
    struct utsname system;
    int major = 0, minor = 0;
    if (uname(&system) == 0)
        sscanf(system.release, "%d.%d", &major, &minor);
    return CP_RAW_ASM && !emulated && !suspended_only && (major > 6 || (major == 6 && minor >= 11));
}

void check(int good, const char *file, int line, const char *text,
           const char *format, ...)
{
    va_list list;
    checks++;
    if (good)
        return;
    failures++;
    fprintf(stderr, "%s:%d: %s\n    %s: ", file, line, text, trying);
    va_start(list, format);
    vfprintf(stderr, format, list);
    va_end(list);
    fputc('\n', stderr);
}

void leave_fork(int status)
{
#ifdef CHILDPROOF_FAULTS
    extern void cpf_keep_counters(void);
    cpf_keep_counters();
#endif
    _exit(status);
}

/* ---- a request ---- */

static size_t append(char *text, size_t at, const char *word)
{
    size_t size = strlen(word) + 1;
    memcpy(text + at, word, size);
    return at + size;
}

void call_program(struct call *call, const char *program, const char *const *words)
{
    size_t at = 0;
    memset(call, 0, sizeof *call);
    at = append(call->strings, at, program);
    call->request.argc = 1;
    for (; *words; words++) {
        at = append(call->strings, at, *words);
        call->request.argc++;
    }
    at = append(call->strings, at, program);
    call->request.candidates = 1;
    at = append(call->strings, at, "EXTRA=1");
    call->request.extra_envc = 1;
    call->request.strings = call->strings;
    call->request.strings_size = at;
    call->request.env_size = append(call->env, 0, "PATH=/usr/bin:/bin");
    call->request.env = call->env;
    call->request.envc = 1;
    call->request.stdio[0] = CP_STDIO_NULL;
    call->request.stdio[1] = call->request.stdio[2] = CP_STDIO_PIPE;
    call->request.stdio_fd[0] = call->request.stdio_fd[1] = call->request.stdio_fd[2] = -1;
    call->request.flags = CP_NEW_SESSION;
    call->request.start = suspended_only ? CP_START_VFORK : CP_START_AUTO;
}

void call_probe(struct call *call, const char *word, const char *second)
{
    const char *words[] = {word, second, NULL};
    call_program(call, probe, words);
}

/* ---- driving ---- */

static void pause_ms(int ms)
{
    poll(NULL, 0, ms);
}

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void await_exec(struct cp_child *child)
{
    long until = now_ms() + PATIENCE_MS;
    while (cp_settle(child, cp_ended(child) != 0) == CP_SPAWNING && now_ms() < until)
        pause_ms(1);
}

int await_end(struct cp_child *child)
{
    long until = now_ms() + PATIENCE_MS;
    while (cp_ended(child) == 0)
        if (now_ms() > until)
            return 0;
        else
            pause_ms(1);
    return 1;
}

/* 1 while the pipe is open. */
static int drain(struct cp_child *child, int slot, struct ending *ending)
{
    char data[4096];
    if (child->fd[slot] < 0)
        return 0;
    ssize_t size = read(child->fd[slot], data, sizeof data);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return 1;
    if (size <= 0) {
        cp_close(child, slot);
        return 0;
    }
    if (ending->size + (size_t)size < sizeof ending->out) {
        memcpy(ending->out + ending->size, data, (size_t)size);
        ending->size += (size_t)size;
    }
    return 1;
}

static void pump(struct cp_child *child, const char *input, struct ending *ending)
{
    long until = now_ms() + PATIENCE_MS;
    int refused = 0;
    size_t fed = 0, size = input ? strlen(input) : 0;
    for (;;) {
        if (child->fd[CP_STDIN] >= 0) {
            ssize_t n = cp_write(child->fd[CP_STDIN], input + fed, size - fed);
            if (n > 0)
                fed += (size_t)n;
            if (n < 0 && (n != -EAGAIN || ++refused > 100))
                ending->write_error = (int)-n;
            if (fed == size || ending->write_error)
                cp_close(child, CP_STDIN);
        }
        int open = drain(child, CP_STDOUT, ending) + drain(child, CP_STDERR, ending);
        if (cp_settle(child, 0) != CP_SPAWNING && !open && child->fd[CP_STDIN] < 0)
            return;
        if (now_ms() > until || cp_ended(child) != 0)
            break;
        pause_ms(1);
    }
    while (drain(child, CP_STDOUT, ending) + drain(child, CP_STDERR, ending))
        if (now_ms() > until)
            break;
}

static void note(const struct cp_child *child, struct ending *ending)
{
    ending->state = child->state;
    ending->stage = child->stage;
    ending->error = child->error;
    ending->start = child->start;
    ending->closing = child->closing;
    ending->exact = child->exact;
    ending->reopened = child->reopened;
    ending->status_known = child->status_known;
    ending->exited = child->exited;
    ending->status = child->status;
}

void drive_killed(const struct call *call, struct ending *ending)
{
    struct cp_child child;
    memset(&child, 0, sizeof child);
    memset(ending, 0, sizeof *ending);
    cp_child_init(&child);
    ending->spawned = cp_spawn(&child, &call->request) == 0;
    ending->pid = child.pid;
    if (ending->spawned) {
        for (int i = 0; i < 50 && cp_await_exec(&child, 20) == CP_SPAWNING; i++)
            pause_ms(1); /* nobody may tell, if the pipe can't be read */
        int group = cp_signal_group(&child, SIGKILL);
        ending->signal_error = cp_signal(&child, SIGKILL);
        if (ending->signal_error && group) {
            kill(child.pid, SIGKILL);
            await_end(&child);
        }
        CHECK(await_end(&child), "the child does not end");
        cp_settle(&child, 1);
        ending->reaped = cp_reap(&child);
    }
    note(&child, ending);
    cp_child_release(&child);
}

void drive(const struct call *call, const char *input, struct ending *ending)
{
    struct cp_child child;
    memset(&child, 0, sizeof child);
    memset(ending, 0, sizeof *ending);
    cp_child_init(&child);
    ending->spawned = cp_spawn(&child, &call->request) == 0;
    ending->pid = child.pid;
    ending->had_pidfd = child.fd[CP_PIDFD] >= 0;
    if (ending->spawned) {
        pump(&child, input, ending);
        CHECK(await_end(&child), "the child does not end");
        cp_settle(&child, 1);
        ending->reaped = cp_reap(&child);
    }
    note(&child, ending);
    cp_child_release(&child);
}

void finish(struct cp_child *child)
{
    await_end(child);
    cp_settle(child, 1);
    CHECK(cp_reap(child) == 1, "can't be reaped");
    cp_child_release(child);
}

long long said(const struct ending *ending, const char *name)
{
    size_t size = strlen(name);
    const char *line = ending->out;
    while (line && *line) {
        if (!strncmp(line, name, size) && line[size] == ' ')
            return (long long)strtoull(line + size + 1, NULL, 16);
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    return -1;
}

int has_stdio_only(const struct ending *ending)
{
    int seen = 0, others = 0, fd;
    for (const char *line = ending->out; line && *line;) {
        if (sscanf(line, "fd %d", &fd) == 1)
            fd >= 0 && fd <= 2 ? (void)(seen |= 1 << fd) : (void)others++;
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    return seen == 7 && others == 0;
}

/* ---- before and after ---- */

void look(struct invariants *before)
{
    memset(before, 0, sizeof *before);
    DIR *directory = opendir("/proc/self/fd");
    struct dirent *entry;
    while (directory && (entry = readdir(directory)) && before->count < 64) {
        char path[300], link[64] = "";
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] == '.' || fd == dirfd(directory))
            continue;
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (readlink(path, link, sizeof link - 1) < 0)
            continue;
        before->fd[before->count] = fd;
        memcpy(before->link[before->count++], link, sizeof link);
    }
    if (directory)
        closedir(directory);
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &before->mask, sizeof before->mask);
    for (int number = 1; number <= 64; number++)
        syscall(SYS_rt_sigaction, number, NULL, &before->action[number], 8);
}

void compare(const struct invariants *before)
{
    struct invariants now;
    siginfo_t info;
    look(&now);
    CHECK(now.count == before->count, "%d descriptors instead of %d", now.count, before->count);
    for (int i = 0; i < now.count && i < before->count; i++)
        CHECK(now.fd[i] == before->fd[i] && !strcmp(now.link[i], before->link[i]),
              "descriptor %d is %s, was %d, %s", now.fd[i], now.link[i], before->fd[i],
              before->link[i]);
    CHECK(now.mask == before->mask, "mask %llx, was %llx", (unsigned long long)now.mask,
          (unsigned long long)before->mask);
    for (int number = 1; number <= 64; number++)
        CHECK(number == 32 || number == 33 /* libc takes them with the first thread */
                  || now.action[number].handler == before->action[number].handler,
              "the disposition of signal %d has changed", number);
    CHECK(waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == -1 && errno == ECHILD,
          "a child is left");
}

/* ---- main ---- */

static const struct {
    const char *name;
    void (*run)(void);
} parts[] = {
    {"starts", test_starts},   {"attributes", test_attributes}, {"detached", test_detached},
    {"failures", test_failures},
    {"signals", test_signals}, {"waiting", test_waiting}, {"following", test_following},
         {"others", test_others},
    {"storms", test_storms},
    {"namespaces", test_namespaces}, {"faults", test_faults},
};

static int wanted(int argc, char **argv, const char *name)
{
    int named = 0;
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] == '-')
            continue;
        named = 1;
        if (!strcmp(argv[i], name))
            return 1;
    }
    return !named;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (!strncmp(argv[i], "--probe=", 8))
            probe = argv[i] + 8;
        suspended_only |= !strcmp(argv[i], "--suspended-only");
        emulated |= !strcmp(argv[i], "--emulated");
    }
    if (!probe || cp_init() != 0) {
        fprintf(stderr, "usage: harness --probe=PROGRAM [--suspended-only] [--emulated] [PART...]\n");
        return 2;
    }
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        struct invariants before;
        if (!wanted(argc, argv, parts[i].name))
            continue;
        int checks_before = checks, failures_before = failures;
        look(&before);
        parts[i].run();
        snprintf(trying, sizeof trying, "after %s", parts[i].name);
        compare(&before);
        printf("%-10s %7d checks, %d failed\n", parts[i].name, checks - checks_before,
               failures - failures_before);
        fflush(stdout);
    }
    return failures != 0;
}
