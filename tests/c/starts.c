/* Each way to start by each way to close, with what the child must then have. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "harness.h"

static void check_clean(const struct ending *ending)
{
    CHECK(ending->state == CP_STARTED, "state %d, stage %d, errno %d", ending->state,
          ending->stage, ending->error);
    CHECK(ending->status_known && ending->exited && ending->status == 0, "status %d",
          ending->status);
    CHECK(has_stdio_only(ending), "the child has\n%s", ending->out);
    CHECK(said(ending, "leads") == 1, "it leads no session");
}

static void try_way(const struct way *start, const struct way *closing, int disabled)
{
    struct call call;
    struct ending ending;
    struct invariants before;
    snprintf(trying, sizeof trying, "%s, %s, %s", start->name, closing->name,
             disabled ? "no pidfd" : "pidfd");
    look(&before);
    call_probe(&call, "state", NULL);
    call.request.start = start->value;
    call.request.closing = closing->value;
    call.request.disabled = disabled;
    drive(&call, NULL, &ending);
    check_clean(&ending);
    if (start->value != CP_START_AUTO)
        CHECK(ending.start == start->value, "started by %d", ending.start);
    if (closing->value != CP_CLOSE_AUTO)
        CHECK(ending.closing == closing->value, "closed by %d", ending.closing);
    if (disabled)
        CHECK(!ending.had_pidfd, "it has a pidfd");
    compare(&before);
}

static void test_ways(void)
{
    int junk[] = {7, 23, 61, 300, 801};
    int null = open("/dev/null", O_RDONLY);
    for (size_t i = 0; i < sizeof junk / sizeof *junk; i++)
        dup2(null, junk[i]); /* without close-on-exec */
    for (const struct way *start = starts; start->name; start++)
        for (const struct way *closing = closings; closing->name; closing++)
            for (int disabled = 0; disabled <= CP_DISABLE_PIDFD; disabled += CP_DISABLE_PIDFD)
                if (may_start(start->value) && may_close(closing->value))
                    try_way(start, closing, disabled);
    for (size_t i = 0; i < sizeof junk / sizeof *junk; i++)
        close(junk[i]);
    close(null);
}

/* ---- descriptors 0, 1, 2 ---- */

static void test_pipes(void)
{
    struct call call;
    struct ending ending;
    snprintf(trying, sizeof trying, "three pipes");
    call_probe(&call, "copy", NULL);
    call.request.stdio[0] = CP_STDIO_PIPE;
    drive(&call, "through three pipes", &ending);
    CHECK(!strcmp(ending.out, "through three pipes"), "it said %s", ending.out);
}

static void read_back(int fd, const char *expected)
{
    char text[64] = "";
    lseek(fd, 0, SEEK_SET);
    CHECK(read(fd, text, sizeof text - 1) >= 0, "can't be read");
    CHECK(!strcmp(text, expected), "the file has %s", text);
}

static void test_files(void)
{
    struct call call;
    struct ending ending;
    char in[] = "/tmp/harness-in-XXXXXX", out[] = "/tmp/harness-out-XXXXXX";
    int in_fd = mkstemp(in), out_fd = mkstemp(out);
    snprintf(trying, sizeof trying, "paths, descriptors, stdout for stderr");
    CHECK(write(in_fd, "from a file", 11) == 11, "can't be written");
    call_probe(&call, "copy", NULL);
    call.request.stdio[0] = CP_STDIO_PATH;
    call.request.stdio_path[0] = in;
    call.request.stdio[1] = CP_STDIO_PATH;
    call.request.stdio_path[1] = out;
    call.request.stdio[2] = CP_STDIO_STDOUT;
    drive(&call, NULL, &ending);
    CHECK(ending.exited && ending.status == 0, "status %d", ending.status);
    read_back(out_fd, "from a file");
    CHECK(ftruncate(out_fd, 0) == 0 && lseek(in_fd, 0, SEEK_SET) == 0
              && lseek(out_fd, 0, SEEK_SET) == 0,
          "can't be emptied");
    call.request.stdio[0] = call.request.stdio[1] = CP_STDIO_FD;
    call.request.stdio_fd[0] = in_fd;
    call.request.stdio_fd[1] = out_fd;
    drive(&call, NULL, &ending);
    read_back(out_fd, "from a file");
    unlink(in);
    unlink(out);
    close(in_fd);
    close(out_fd);
}

static void test_temporary_file(const char *directory)
{
    struct call call;
    struct cp_child child;
    char text[32] = "";
    snprintf(trying, sizeof trying, "a temporary file in %s", directory);
    call_probe(&call, "words", "kept");
    call.request.stdio[1] = CP_STDIO_TEMPFILE;
    call.request.stdio_path[1] = directory;
    memset(&child, 0, sizeof child);
    cp_child_init(&child);
    CHECK(cp_spawn(&child, &call.request) == 0, "stage %d, errno %d", child.stage, child.error);
    await_end(&child);
    CHECK(pread(child.fd[CP_STDOUT], text, 5, 0) == 5 && !strcmp(text, "kept\n"), "it has %s", text);
    finish(&child);
}

/* Descriptors of the host as 0, 1, 2 in every order, itself among them. */
static void test_crossed(void)
{
    struct call call;
    struct ending ending;
    int pair[2];
    char text[32] = "";
    snprintf(trying, sizeof trying, "crossed descriptors");
    CHECK(pipe(pair) == 0, "no pipe");
    int saved = dup(1);
    dup2(pair[1], 1); /* the child's stderr is our stdout, its stdout our stderr's */
    call_probe(&call, "words", "crossed");
    call.request.stdio[1] = CP_STDIO_FD;
    call.request.stdio_fd[1] = 1;
    call.request.stdio[2] = CP_STDIO_FD;
    call.request.stdio_fd[2] = 0;
    drive(&call, NULL, &ending);
    dup2(saved, 1);
    CHECK(read(pair[0], text, sizeof text - 1) > 0 && !strncmp(text, "crossed\n", 8), "%s", text);
    close(saved);
    close(pair[0]);
    close(pair[1]);
}

/* A host without 0, 1 and 2: the child that inherits has none either. */
static void test_holes(int start)
{
    struct call call;
    struct ending ending;
    int saved[3];
    snprintf(trying, sizeof trying, "holes, start %d", start);
    fflush(NULL);
    for (int i = 0; i < 3; i++)
        saved[i] = fcntl(i, F_DUPFD_CLOEXEC, 10);
    for (int i = 0; i < 3; i++)
        close(i);
    call_probe(&call, "state", NULL);
    call.request.start = start;
    drive(&call, NULL, &ending);
    CHECK(has_stdio_only(&ending), "the child has\n%s", ending.out);
    call.request.stdio[0] = call.request.stdio[2] = CP_STDIO_INHERIT;
    drive(&call, NULL, &ending);
    for (int i = 0; i < 3; i++) {
        dup2(saved[i], i);
        close(saved[i]);
    }
    CHECK(!strstr(ending.out, "fd 0\n") && strstr(ending.out, "fd 1\n")
              && !strstr(ending.out, "fd 2\n") && !strstr(ending.out, "fd 3\n"),
          "the child has\n%s", ending.out);
}

static void test_surroundings(void)
{
    struct call call;
    struct ending ending;
    snprintf(trying, sizeof trying, "words and variables");
    call_probe(&call, "words", "with space");
    drive(&call, NULL, &ending);
    CHECK(!strcmp(ending.out, "with space\nPATH=/usr/bin:/bin\nEXTRA=1\n"), "%s", ending.out);
    snprintf(trying, sizeof trying, "cwd, no session");
    call_probe(&call, "state", NULL);
    call.request.cwd = "/usr";
    call.request.flags = 0;
    drive(&call, NULL, &ending);
    CHECK(strstr(ending.out, "cwd /usr\n") != NULL, "%s", ending.out);
    CHECK(said(&ending, "leads") == 0, "it leads a session");
}

static void expect_sharing(struct call *call, int shared)
{
    struct ending ending;
    call->request.start = CP_START_AUTO;
    drive(call, call->request.stdio[0] == CP_STDIO_PIPE ? "" : NULL, &ending);
    CHECK(ending.state == CP_STARTED && ending.exited && ending.status == 0, "state %d, stage %d, errno %d",
          ending.state, ending.stage, ending.error);
    CHECK(ending.reopened == (shared && may_reopen()), "it %s", ending.reopened ? "did" : "did not");
    if (call->request.stdio[1] == CP_STDIO_PIPE && call->request.pass_fds_count == 0)
        CHECK(has_stdio_only(&ending), "the child has\n%s", ending.out);
}

static void try_large(int highest)
{
    struct call call;
    call_probe(&call, "state", NULL);
    expect_sharing(&call, 1);
    call.request.stdio[0] = CP_STDIO_PIPE;
    call.request.stdio[1] = CP_STDIO_TEMPFILE;
    call.request.stdio_path[1] = "/tmp";
    call.request.stdio[2] = CP_STDIO_STDOUT;
    expect_sharing(&call, 1);
    call_probe(&call, "state", NULL);
    call.request.stdio[2] = CP_STDIO_FD;
    call.request.stdio_fd[2] = 2;
    expect_sharing(&call, 1);
    call.request.stdio_fd[2] = highest;
    expect_sharing(&call, 0);
    call_probe(&call, "state", NULL);
    call.request.pass_fds = &highest;
    call.request.pass_fds_count = 1;
    expect_sharing(&call, 0);
    call_probe(&call, "exit", "0");
    call.request.stdio[1] = call.request.stdio[2] = CP_STDIO_NULL;
    call.request.flags |= CP_KEEP_FDS;
    expect_sharing(&call, 0);
    for (const struct way *closing = closings; closing->name; closing++)
        if (may_close(closing->value)) {
            call_probe(&call, "state", NULL);
            call.request.closing = closing->value;
            expect_sharing(&call, closing->value == CP_CLOSE_AUTO || closing->value == CP_CLOSE_RANGE);
        }
}

/* A host with many descriptors, by their number or by the highest. */
static void test_large(void)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC), filled = 0, saved;
    static int filler[600];
    struct call call;
    if (suspended_only)
        return;
    snprintf(trying, sizeof trying, "a high number");
    dup2(null, 1023); /* without close-on-exec */
    try_large(1023);
    snprintf(trying, sizeof trying, "a host without stdin");
    saved = fcntl(0, F_DUPFD_CLOEXEC, 10);
    close(0);
    call_probe(&call, "state", NULL);
    expect_sharing(&call, 0);
    dup2(saved, 0);
    close(saved);
    close(1023);
    snprintf(trying, sizeof trying, "many descriptors");
    while (filled < 600 && (filler[filled] = dup(null)) >= 0)
        filled++;
    if (filled == 600)
        try_large(filler[599]);
    while (filled > 0)
        close(filler[--filled]);
    close(null);
}

/* Pages before and behind the child's block keep what they hold. The system
 * lays mappings side by side, so maps of ours lie next to it sooner or later;
 * the tracer (tests/c/trace.c) proves the same for all of the memory. */
static void test_neighbours(void)
{
    enum { PAGES = 64 };
    struct call call;
    struct ending ending;
    unsigned char *page[PAGES];
    snprintf(trying, sizeof trying, "neighbours");
    for (int i = 0; i < PAGES; i++) {
        page[i] = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_SHARED, -1, 0);
        if (page[i] != MAP_FAILED)
            memset(page[i], 0xa5, 4096);
    }
    for (int i = 0; i < PAGES; i += 2) { /* holes for the block */
        munmap(page[i], 4096);
        call_probe(&call, "exit", "0");
        drive(&call, NULL, &ending);
    }
    for (int i = 1; i < PAGES; i += 2) {
        int damaged = 0;
        for (int j = 0; j < 4096; j++)
            damaged += page[i][j] != 0xa5;
        CHECK(damaged == 0, "%d bytes of a neighbour were written", damaged);
        munmap(page[i], 4096);
    }
}

void test_starts(void)
{
    test_ways();
    test_pipes();
    test_files();
    test_temporary_file("/tmp");
    test_temporary_file("/dev/shm");
    test_crossed();
    for (const struct way *start = starts; start->name; start++)
        if (may_start(start->value))
            test_holes(start->value);
    test_surroundings();
    test_large();
    test_neighbours();
}
