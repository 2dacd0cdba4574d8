/* What cannot start says where and why, and leaves nothing. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"

static void expect(const struct call *call, int stage, int error)
{
    struct ending ending;
    struct invariants before;
    look(&before);
    drive(call, NULL, &ending);
    CHECK(ending.state == CP_FAILED && ending.stage == stage && ending.error == error,
          "state %d, stage %d, errno %d", ending.state, ending.stage, ending.error);
    compare(&before);
}

static void expect_program(const char *program, int start, int error)
{
    struct call call;
    const char *none[] = {NULL};
    snprintf(trying, sizeof trying, "%s, start %d", program, start);
    call_program(&call, program, none);
    call.request.start = start;
    expect(&call, CP_STAGE_EXEC, error);
}

static void test_programs(int start)
{
    char text[] = "/tmp/harness-XXXXXX";
    int fd = mkstemp(text);
    expect_program("/nonexistent", start, ENOENT);
    expect_program("/dev/null/x", start, ENOTDIR);
    expect_program("/tmp", start, EACCES);
    expect_program(text, start, EACCES);
    fchmod(fd, 0700);
    CHECK(write(fd, "no program", 10) == 10, "can't be written");
    close(fd);
    expect_program(text, start, ENOEXEC);
    unlink(text);
}

/* The first errno that is not "not here" is the answer; a later one that
 * works wins. */
static void test_candidates(void)
{
    struct call call;
    struct ending ending;
    const char *words[] = {"exit", "3", NULL};
    size_t at;
    snprintf(trying, sizeof trying, "candidates");
    call_program(&call, "probe", words);
    for (int last = 0; last < 2; last++) {
        at = sizeof "probe" + sizeof "exit" + sizeof "3";
        const char *tried[] = {"/nonexistent/probe", "/dev/null/probe", "/tmp", last ? probe : "/nonexistent"};
        for (int i = 0; i < 4; i++)
            at = (size_t)(stpcpy(call.strings + at, tried[i]) - call.strings) + 1;
        call.request.candidates = 4;
        call.request.extra_envc = 0;
        call.request.strings_size = at;
        if (!last) {
            expect(&call, CP_STAGE_EXEC, EACCES);
            continue;
        }
        drive(&call, NULL, &ending);
        CHECK(ending.exited && ending.status == 3, "status %d, errno %d", ending.status, ending.error);
    }
}

static void test_surroundings(int start)
{
    struct call call;
    snprintf(trying, sizeof trying, "surroundings, start %d", start);
    call_probe(&call, "exit", "0");
    call.request.start = start;
    call.request.cwd = "/nonexistent";
    expect(&call, CP_STAGE_CHDIR, ENOENT);
    call.request.cwd = probe;
    expect(&call, CP_STAGE_CHDIR, ENOTDIR);
    call.request.cwd = NULL;
    call.request.stdio[0] = CP_STDIO_FD;
    call.request.stdio_fd[0] = 999;
    expect(&call, CP_STAGE_DUP, EBADF);
    call.request.stdio[0] = CP_STDIO_PATH;
    call.request.stdio_path[0] = "/nonexistent/in";
    expect(&call, CP_STAGE_OPEN, ENOENT);
    call.request.stdio[0] = CP_STDIO_NULL;
    call.request.stdio[2] = CP_STDIO_PATH;
    call.request.stdio_path[2] = "/tmp";
    expect(&call, CP_STAGE_OPEN, EISDIR);
    call.request.stdio[2] = CP_STDIO_TEMPFILE;
    call.request.stdio_path[2] = "/nonexistent";
    expect(&call, CP_STAGE_OPEN, ENOENT);
}

static void test_long_directory(void)
{
    static char path[5000];
    struct call call;
    memset(path, '/', sizeof path - 1); /* too long for the kernel */
    snprintf(trying, sizeof trying, "a directory with a long name");
    call_probe(&call, "exit", "0");
    call.request.stdio[1] = CP_STDIO_TEMPFILE;
    call.request.stdio_path[1] = path;
    expect(&call, CP_STAGE_OPEN, ENAMETOOLONG);
    strcpy(path + 3900, "x"); /* short enough for O_TMPFILE only */
    expect(&call, CP_STAGE_OPEN, ENOENT);
    memset(path, '/', sizeof path - 1);
    strcpy(path + 4085, "x");
    expect(&call, CP_STAGE_OPEN, ENAMETOOLONG);
}

/* The soft limit leaves room for 0, 1, 2, … descriptors until it starts. */
static void test_few_descriptors(int start)
{
    struct call call;
    struct ending ending;
    struct rlimit limit, few;
    int left, free_fd = dup(0);
    close(free_fd);
    getrlimit(RLIMIT_NOFILE, &limit);
    call_probe(&call, "exit", "0");
    call.request.start = start;
    call.request.stdio[0] = CP_STDIO_PIPE;
    for (left = 0; left < 16; left++) {
        struct invariants before;
        snprintf(trying, sizeof trying, "%d descriptors left, start %d", left, start);
        look(&before);
        few = limit;
        few.rlim_cur = (rlim_t)(free_fd + left);
        setrlimit(RLIMIT_NOFILE, &few);
        drive(&call, "", &ending);
        setrlimit(RLIMIT_NOFILE, &limit);
        compare(&before);
        if (ending.state == CP_STARTED)
            break;
        CHECK(ending.state == CP_FAILED && ending.error == EMFILE, "state %d, stage %d, errno %d",
              ending.state, ending.stage, ending.error);
    }
    CHECK(left > 4 && left < 16, "it started with %d left", left);
}

/* A program that is open for writing is tried again until it is closed; that
 * it never is takes two seconds, and is the answer then. */
static void test_busy(void)
{
    struct call call;
    const char *none[] = {NULL};
    char copy[] = "/tmp/harness-busy-XXXXXX", data[4096];
    int to = mkostemp(copy, O_CLOEXEC), from = open(probe, O_RDONLY | O_CLOEXEC);
    ssize_t size;
    while ((size = read(from, data, sizeof data)) > 0)
        CHECK(write(to, data, (size_t)size) == size, "can't be written");
    close(from);
    fchmod(to, 0700);
    snprintf(trying, sizeof trying, "busy");
    call_program(&call, copy, none);
    expect(&call, CP_STAGE_EXEC, ETXTBSY);
    close(to);
    unlink(copy);
}

void test_failures(void)
{
    for (const struct way *start = starts; start->name; start++) {
        if (!may_start(start->value))
            continue;
        test_programs(start->value);
        test_surroundings(start->value);
        if (!suspended_only) /* valgrind itself falls over a clone that fails */
            test_few_descriptors(start->value);
    }
    test_candidates();
    test_long_directory();
    test_busy();
}
