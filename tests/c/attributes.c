/* Ids, limits, umask, niceness, directory, groups, descriptors passed on. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "harness.h"

static int has(const struct ending *ending, const char *text)
{
    return strstr(ending->out, text) != NULL;
}

static void test_plain(int start)
{
    static const struct cp_limit limits[] = {{RLIMIT_CORE, 4096, 8192}, {RLIMIT_NOFILE, 7, 9}};
    struct call call;
    struct ending ending;
    snprintf(trying, sizeof trying, "umask, nice, limits, group, start %d", start);
    call_probe(&call, "state", NULL);
    call.request.start = start;
    call.request.flags = CP_SET_UMASK | CP_SET_NICE | CP_NEW_GROUP | CP_SET_CWD_FD;
    call.request.umask = 027;
    call.request.nice = 3;
    call.request.limits = limits;
    call.request.limits_count = suspended_only ? 1 : 2; /* valgrind needs descriptors itself */
    call.request.cwd_fd = open("/usr", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (!CP_PORTABLE)
        call.request.flags |= CP_NO_NEW_PRIVS;
    drive(&call, NULL, &ending);
    close(call.request.cwd_fd);
    CHECK(has(&ending, "umask 27\n") && has(&ending, "nice 3\n") && has(&ending, "cwd /usr\n")
              && has(&ending, "core 1000 2000\n") && has(&ending, "leads 0\n"),
          "stage %d, errno %d, it says\n%s", ending.stage, ending.error, ending.out);
    CHECK(CP_PORTABLE || has(&ending, "no_new_privs 1\n"), "it may gain privileges");
    CHECK(has_stdio_only(&ending), "%s", ending.out);
}

static void test_ids(int start)
{
    static const unsigned groups[] = {1001, 1002};
    struct call call;
    struct ending ending;
    snprintf(trying, sizeof trying, "ids, start %d", start);
    call_probe(&call, "state", NULL);
    call.request.start = start;
    call.request.flags |= CP_SET_UID | CP_SET_GID | CP_SET_GROUPS;
    call.request.uid = 65534;
    call.request.gid = 65533;
    call.request.groups = groups;
    call.request.groups_count = 2;
    drive(&call, NULL, &ending);
    if (geteuid() != 0) {
        CHECK(ending.state == CP_FAILED && ending.stage == CP_STAGE_IDS && ending.error == EPERM,
              "stage %d, errno %d", ending.stage, ending.error);
        return;
    }
    CHECK(ending.start == CP_START_FORK, "started by %d", ending.start);
    CHECK(has(&ending, "uids 65534 65534 65534\ngids 65533 65533 65533\ngroups 1001 1002\n"),
          "stage %d, errno %d, it says\n%s", ending.stage, ending.error, ending.out);
    call.request.groups = NULL;
    call.request.groups_count = 0; /* an empty list is not "not given" */
    call.request.flags = CP_SET_GROUPS;
    drive(&call, NULL, &ending);
    CHECK(has(&ending, "groups\n"), "it says\n%s", ending.out);
}

static void test_passed(int start, int closing)
{
    struct call call;
    struct ending ending;
    int passed[] = {17, 99, 400};
    int junk[] = {16, 18, 98, 100, 399, 401};
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    snprintf(trying, sizeof trying, "descriptors passed on, start %d, closing %d", start, closing);
    for (size_t i = 0; i < 6; i++)
        dup2(null, junk[i]);
    for (size_t i = 0; i < 3; i++)
        dup3(null, passed[i], O_CLOEXEC);
    call_probe(&call, "state", NULL);
    call.request.start = start;
    call.request.closing = closing;
    call.request.pass_fds = passed;
    call.request.pass_fds_count = 3;
    drive(&call, NULL, &ending);
    CHECK(ending.out == strstr(ending.out, "fd 0\nfd 1\nfd 2\nfd 17\nfd 99\nfd 400\nblocked"),
          "stage %d, errno %d, it says\n%s", ending.stage, ending.error, ending.out);
    for (size_t i = 0; i < 6; i++)
        close(junk[i]);
    for (size_t i = 0; i < 3; i++) {
        CHECK(fcntl(passed[i], F_GETFD) == FD_CLOEXEC, "ours has lost its flag");
        close(passed[i]);
    }
    close(null);
    drive(&call, NULL, &ending);
    CHECK(ending.state == CP_FAILED && ending.stage == CP_STAGE_DUP && ending.error == EBADF,
          "state %d, stage %d, errno %d", ending.state, ending.stage, ending.error);
}

static void test_kept(void)
{
    struct call call;
    struct ending ending;
    int fd = open("/dev/null", O_RDONLY);
    snprintf(trying, sizeof trying, "descriptors kept");
    call_probe(&call, "state", NULL);
    call.request.flags |= CP_KEEP_FDS | CP_KEEP_SIGNALS;
    drive(&call, NULL, &ending);
    char line[32];
    snprintf(line, sizeof line, "fd %d\n", fd);
    CHECK(has(&ending, line), "it says\n%s", ending.out);
    close(fd);
}

/* Each is refused at its own stage. */
static void test_refused(void)
{
    static const struct cp_limit limits[] = {{9999, 1, 1}};
    struct call call;
    struct ending ending;
    snprintf(trying, sizeof trying, "refused");
    call_probe(&call, "exit", "0");
    call.request.limits = limits;
    call.request.limits_count = 1;
    drive(&call, NULL, &ending);
    CHECK(ending.stage == CP_STAGE_LIMITS && ending.error == EINVAL, "%d", ending.error);
    call.request.limits_count = 0;
    call.request.flags |= CP_JOIN_CGROUP;
    call.request.cgroup_fd = 999;
    drive(&call, NULL, &ending);
    CHECK(ending.stage == CP_STAGE_CGROUP && ending.error == EBADF, "%d", ending.error);
    call.request.flags = CP_SET_CWD_FD;
    call.request.cwd_fd = 999;
    drive(&call, NULL, &ending);
    CHECK(ending.stage == CP_STAGE_CHDIR && ending.error == EBADF, "%d", ending.error);
    call.request.flags = CP_NEW_GROUP;
    call.request.process_group = 999999;
    drive(&call, NULL, &ending);
    CHECK(ending.stage == CP_STAGE_SETSID && ending.error == EPERM, "%d", ending.error);
}

void test_attributes(void)
{
    for (const struct way *start = starts; start->name; start++) {
        if (!may_start(start->value))
            continue;
        test_plain(start->value);
        test_ids(start->value);
        for (const struct way *closing = closings; closing->name; closing++)
            if (may_close(closing->value))
                test_passed(start->value, closing->value);
    }
    test_kept();
    test_refused();
}
