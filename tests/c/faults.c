/* The n-th call of a kind fails, n = 1, 2, … until none is left; once, for ever,
 * and with every close failing as well. Only in a build with fault.h. */
#include "harness.h"

#ifndef CHILDPROOF_FAULTS
void test_faults(void)
{
}
#else
#define CPF_NO_MACROS
#include <string.h>

#include "fault.h"

#define FOR_EVER 1000000

struct scenario {
    const char *name;
    struct call call;
    const char *input;
    int killed;      /* it is ended by a signal */
    int holes;       /* the host has 0 and 1 closed */
    int apart;       /* each point in a process of its own, since what was refused is not tried again */
    struct cpf_plan conditions;
    struct ending good;
};

static const char *const origins[] = {"parent", "child", "python"};

/* True, or a failure that names the stage and the errno that was injected. */
static int is_honest(const struct scenario *scenario, const struct ending *ending, int error)
{
    const struct ending *good = &scenario->good;
    if (error == ENOTDIR && ending->stage == CP_STAGE_EXEC && ending->error == ENOENT)
        error = ENOENT; /* of a directory in PATH it says the same */
    if (ending->state == CP_DIED) /* as if the parent had: it ends itself */
        return cpf_plan->call == cpf_call("getppid")
               && (ending->stage == CP_STAGE_FORK || ending->stage == CP_STAGE_IDS);
    if (ending->state == CP_FAILED)
        return ending->stage > CP_STAGE_NONE
               && (ending->error == error || (good->state == CP_FAILED && ending->error == good->error));
    if (ending->state != good->state)
        return 0;
    if (!ending->reaped)
        return 0;
    if (ending->status_known && (ending->exited != good->exited || ending->status != good->status))
        return 0;
    if (!ending->exact) /* it says that more may be open */
        return 1;
    return !strcmp(ending->out, good->out) || ending->write_error == error
           || (ending->write_error == EAGAIN && error == EINTR);
}

static void clear_up(const struct ending *ending)
{
    if (ending->spawned && ending->pid > 0 && waitpid(ending->pid, NULL, WNOHANG) == 0) {
        CHECK(0, "a child is left");
        kill(ending->pid, SIGKILL);
        waitpid(ending->pid, NULL, 0);
    }
}

static void run_once(const struct scenario *scenario, struct ending *ending)
{
    int saved[2] = {-1, -1};
    for (int i = 0; i < 2 && scenario->holes; i++) {
        saved[i] = fcntl(i, F_DUPFD_CLOEXEC, 10);
        close(i);
    }
    if (scenario->killed)
        drive_killed(&scenario->call, ending);
    else
        drive(&scenario->call, scenario->input, ending);
    for (int i = 0; i < 2 && scenario->holes; i++) {
        dup2(saved[i], i);
        close(saved[i]);
    }
}

/* Whether the fault was reached. */
static int try_point(struct scenario *scenario, const struct cpf_plan *wanted)
{
    struct ending ending;
    struct invariants before;
    look(&before);
    *cpf_plan = *wanted;
    memcpy(cpf_plan->without, scenario->conditions.without, sizeof cpf_plan->without);
    cpf_plan->nofile = scenario->conditions.nofile;
    cpf_plan->pid = getpid();
    cpf_plan->armed = 1;
    run_once(scenario, &ending);
    cpf_plan->armed = 0;
    int reached = wanted->call >= 0 && wanted->origin >= 0
                  && cpf_plan->counts[wanted->origin][wanted->call] >= wanted->nth;
    CHECK(is_honest(scenario, &ending, wanted->error),
          "state %d, stage %d, errno %d, reaped %d, known %d, status %d, said\n%s", ending.state,
          ending.stage, ending.error, ending.reaped, ending.status_known, ending.status, ending.out);
    clear_up(&ending);
    compare(&before);
    return reached;
}

static int try_point_apart(struct scenario *scenario, const struct cpf_plan *wanted)
{
    int status = -1;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        failures = 0;
        int reached = try_point(scenario, wanted);
        leave_fork(reached + 2 * (failures != 0));
    }
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) < 2, "status %x",
          (unsigned)status);
    return WIFEXITED(status) && (WEXITSTATUS(status) & 1);
}

static int try_errno(struct scenario *scenario, struct cpf_plan plan)
{
    int points = 0;
    for (plan.nth = 1; plan.nth < 2000; plan.nth++) {
        snprintf(trying, sizeof trying, "%s: %s's %s, number %d, errno %d, %s, close %d",
                 scenario->name, origins[plan.origin], cpf_name(plan.call), plan.nth, plan.error,
                 plan.times == 1 ? "once" : "for ever", plan.close_error);
        if (!(scenario->apart ? try_point_apart : try_point)(scenario, &plan))
            break;
        points++;
    }
    return points;
}

/* With neither waitid nor poll nobody can tell an end without reaping. */
static int is_unsolved(int origin, int call)
{
    return origin == CPF_PARENT && call == cpf_call("poll");
}

static int try_call(struct scenario *scenario, int origin, int call)
{
    static const int close_errors[] = {0, EIO, EINTR};
    int points = 0;
    for (int i = 0; cpf_errno(call, i); i++)
        for (int forever = 0; forever < 2; forever++) {
            if (forever && is_unsolved(origin, call))
                continue;
            if (forever && call == cpf_call("prlimit64") && !scenario->call.request.limits)
                continue; /* the loop goes up to a million then: once is enough */
            for (int j = 0; j < (scenario->apart ? 1 : 3); j++) {
                struct cpf_plan plan = {.origin = origin, .call = call, .error = cpf_errno(call, i),
                                        .times = forever ? FOR_EVER : 1,
                                        .close_error = close_errors[j]};
                points += try_errno(scenario, plan);
            }
        }
    return points;
}

static void try_scenario(struct scenario *scenario)
{
    int points = 0;
    struct cpf_plan counting = {.origin = -1};
    snprintf(trying, sizeof trying, "%s: none", scenario->name);
    run_once(scenario, &scenario->good);
    try_point(scenario, &counting);
    struct cpf_plan seen = *cpf_plan;
    for (int origin = CPF_PARENT; origin <= CPF_CHILD; origin++)
        for (int call = 0; cpf_name(call); call++)
            if (seen.counts[origin][call])
                points += try_call(scenario, origin, call);
    snprintf(trying, sizeof trying, "%s: afterwards", scenario->name);
    try_point(scenario, &counting);
    printf("    %-38s %6d points\n", scenario->name, points);
}

static void add_ways(struct scenario *scenario, int with_loop)
{
    static char name[80];
    static const struct { int start, closing, disabled; } ways[] = {
        {CP_START_AUTO, CP_CLOSE_AUTO, 0},
        {CP_START_VFORK, CP_CLOSE_PROC, 0},
        {CP_START_CLONE, CP_CLOSE_RLIMIT, CP_DISABLE_PIDFD_INFO},
        {CP_START_FORK, CP_CLOSE_RANGE, CP_DISABLE_PIDFD},
    };
    const char *base = scenario->name;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        snprintf(name, sizeof name, "%s, way %zu", base, i);
        scenario->name = name;
        scenario->call.request.start = ways[i].start;
        scenario->call.request.closing = ways[i].closing;
        scenario->call.request.disabled = ways[i].disabled;
        if (may_start(ways[i].start) && (with_loop || ways[i].closing != CP_CLOSE_RLIMIT))
            try_scenario(scenario);
    }
    scenario->name = base;
}

static void test_old_kernels(void)
{
    struct call call;
    struct ending ending;
    for (const struct way *start = starts; start->name; start++) {
        snprintf(trying, sizeof trying, "CLONE_PIDFD ignored, %s", start->name);
        memset(cpf_plan, 0, sizeof *cpf_plan);
        cpf_plan->origin = -1;
        cpf_plan->without_pidfd_flag = 1;
        cpf_plan->without[0].call = cpf_call("clone3"); /* is younger */
        cpf_plan->without[0].error = ENOSYS;
        cpf_plan->pid = getpid();
        cpf_plan->armed = 1;
        call_probe(&call, "state", NULL);
        call.request.start = start->value;
        drive(&call, NULL, &ending);
        cpf_plan->armed = 0;
        CHECK(ending.state == CP_STARTED && !ending.had_pidfd && ending.status_known
                  && ending.status == 0 && has_stdio_only(&ending),
              "state %d, errno %d", ending.state, ending.error);
    }
}

static void condition(struct scenario *scenario, int index, int origin, const char *name, int error)
{
    scenario->conditions.without[index].origin = origin;
    scenario->conditions.without[index].call = cpf_call(name);
    scenario->conditions.without[index].error = error;
}

static void begin_scenario(struct scenario *scenario, const char *name, const char *word, const char *second)
{
    memset(scenario, 0, sizeof *scenario);
    scenario->name = name;
    call_probe(&scenario->call, word, second);
    scenario->conditions.nofile = 20; /* a loop over a million would be a million points */
}

static void test_common(void)
{
    struct scenario scenario;
    const char *none[] = {NULL};
    begin_scenario(&scenario, "what the child has", "state", NULL);
    scenario.call.request.cwd = "/usr";
    add_ways(&scenario, 1);
    begin_scenario(&scenario, "input, a file", "copy", NULL);
    scenario.call.request.stdio[0] = CP_STDIO_PIPE;
    scenario.call.request.stdio[2] = CP_STDIO_TEMPFILE;
    scenario.call.request.stdio_path[2] = "/tmp";
    scenario.input = "some input";
    add_ways(&scenario, 0);
    begin_scenario(&scenario, "killed", "sleep", "600");
    scenario.killed = 1;
    add_ways(&scenario, 0);
    begin_scenario(&scenario, "no such program", "", NULL);
    call_program(&scenario.call, "/nonexistent", none);
    add_ways(&scenario, 0);
}

static void test_attributes_failing(void)
{
    static const struct cp_limit limits[] = {{RLIMIT_CORE, 4096, 8192}, {RLIMIT_NOFILE, 700, 900}};
    static const unsigned groups[] = {1001};
    struct scenario scenario;
    int passed = open("/usr", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    begin_scenario(&scenario, "with every attribute", "state", NULL);
    struct cp_request *request = &scenario.call.request;
    request->flags |= CP_SET_UMASK | CP_SET_NICE | CP_SET_CWD_FD | CP_NO_NEW_PRIVS;
    request->nice = 1;
    request->umask = 027;
    request->limits = limits;
    request->limits_count = 2;
    request->pass_fds = &passed;
    request->pass_fds_count = 1;
    request->cwd_fd = passed;
    add_ways(&scenario, 0);
    scenario.name = "with other ids";
    request->flags |= CP_SET_UID | CP_SET_GID | CP_SET_GROUPS;
    request->uid = request->gid = 65534;
    request->groups = groups;
    request->groups_count = 1;
    request->disabled = 0;
    if (geteuid() == 0)
        try_scenario(&scenario);
    close(passed);
}

static void test_conditions(void)
{
    static char large[400000];
    struct scenario scenario;
    begin_scenario(&scenario, "a large environment", "exit", "0");
    memset(large, 'x', sizeof large - 1);
    large[1] = '=';
    for (size_t i = 100000; i < sizeof large - 1; i += 100000) { /* one may have 128 KiB */
        large[i] = '\0';
        large[i + 2] = '=';
    }
    scenario.call.request.env = large;
    scenario.call.request.env_size = sizeof large;
    scenario.call.request.envc = 4;
    try_scenario(&scenario);

    begin_scenario(&scenario, "0 and 1 closed", "state", NULL);
    scenario.holes = 1;
    add_ways(&scenario, 0);

    begin_scenario(&scenario, "no O_TMPFILE", "exit", "0");
    scenario.call.request.stdio[1] = CP_STDIO_TEMPFILE;
    scenario.call.request.stdio_path[1] = "/tmp";
    condition(&scenario, 0, CPF_PARENT, "open", EOPNOTSUPP);
    try_scenario(&scenario);

    begin_scenario(&scenario, "no close_range", "state", NULL);
    condition(&scenario, 0, CPF_PARENT, "close_range", ENOSYS);
    condition(&scenario, 1, CPF_CHILD, "close_range", ENOSYS);
    try_scenario(&scenario);
    begin_scenario(&scenario, "close_range refused in the child only", "state", NULL);
    condition(&scenario, 0, CPF_CHILD, "close_range", EPERM);
    try_scenario(&scenario);

    begin_scenario(&scenario, "no waitid", "exit", "0");
    condition(&scenario, 0, CPF_PARENT, "waitid", EPERM);
    try_scenario(&scenario);
}

/* A child that shares the table, and what it does where it can't. */
static void test_large(void)
{
    struct scenario scenario;
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    dup2(null, 1023);
    begin_scenario(&scenario, "a large table", "state", NULL);
    scenario.apart = 1;
    try_scenario(&scenario);
    scenario.name = "a large table, no clone3";
    condition(&scenario, 0, CPF_PARENT, "clone3", ENOSYS);
    try_scenario(&scenario);
    begin_scenario(&scenario, "a large table, close_range refused in the child", "state", NULL);
    scenario.apart = 1;
    condition(&scenario, 0, CPF_CHILD, "close_range", EPERM);
    try_scenario(&scenario);
    close(1023);
    close(null);
}

/* A child that shares the table and does not come on is started again. */
static void test_slow(void)
{
    struct call call;
    struct ending ending;
    int status = -1;
    snprintf(trying, sizeof trying, "a slow child");
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        failures = 0;
        dup2(open("/dev/null", O_RDONLY | O_CLOEXEC), 1023);
        call_probe(&call, "state", NULL);
        memset(cpf_plan, 0, sizeof *cpf_plan);
        cpf_plan->origin = -1;
        cpf_plan->slow_child_ms = 1500;
        cpf_plan->pid = getpid();
        cpf_plan->armed = 1;
        drive(&call, NULL, &ending);
        cpf_plan->armed = 0;
        CHECK(ending.state == CP_STARTED && !ending.reopened && has_stdio_only(&ending),
              "state %d, stage %d, errno %d, said\n%s", ending.state, ending.stage, ending.error, ending.out);
        leave_fork(failures != 0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0, "status %x", (unsigned)status);
}

/* Looking at other processes, with every call of it failing. */
static void look_around(int file, const struct cp_identity *me)
{
    static struct cp_process all[4096];
    struct cp_wanted wanted = {.link = "/etc/passwd", .is_file = 1};
    struct cp_open found[4];
    for (int use_pidfd = 0; use_pidfd < 2; use_pidfd++) {
        cp_identify_open(getpid(), file, &wanted);
        cp_find_open(getpid(), &wanted, 1, found, 4);
        cp_read_processes(all, 4096);
        cp_first_alive(me, 1, 0, use_pidfd);
        cp_signal_process(me, 0, use_pidfd);
    }
}

static void test_lookups(void)
{
    static const char *const names[] = {"open", "read", "close", "opendir", "readdir", "readlink", "fstat",
                                        "statx", "poll", "pidfd_open", "pidfd_send_signal", "kill", NULL};
    struct cp_process now;
    int file = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
    CHECK(cp_read_process(getpid(), &now) == 0, "we are nobody");
    struct cp_identity me = {.pid = getpid(), .start = now.start, .ppid = now.ppid, .session = now.session};
    for (const char *const *name = names; *name; name++)
        for (int i = 0; cpf_errno(cpf_call(*name), i); i++)
            for (int nth = 1; nth < 8; nth++) {
                struct cpf_plan point = {.origin = CPF_PARENT, .call = cpf_call(*name), .nth = nth,
                                         .times = FOR_EVER, .error = cpf_errno(cpf_call(*name), i),
                                         .pid = getpid(), .armed = 1};
                struct invariants before;
                snprintf(trying, sizeof trying, "looking around: %s %d, errno %d", *name, nth, point.error);
                look(&before);
                *cpf_plan = point;
                look_around(file, &me);
                cpf_plan->armed = 0;
                compare(&before);
            }
    close(file);
}

/* 1 G and infinity as the limit, and one below what is open. */
static void test_bounds(void)
{
    static const unsigned long limits[] = {1, 1UL << 30, ~0UL};
    struct scenario scenario;
    int high = fcntl(0, F_DUPFD, 700);
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct cpf_plan counting = {.origin = -1};
        begin_scenario(&scenario, "bounds", "state", NULL);
        scenario.call.request.closing = CP_CLOSE_RLIMIT;
        scenario.conditions.nofile = limits[i];
        snprintf(trying, sizeof trying, "a limit of %lu", limits[i]);
        run_once(&scenario, &scenario.good);
        try_point(&scenario, &counting);
        CHECK(has_stdio_only(&scenario.good), "%s", scenario.good.out);
    }
    close(high);
}

/* Another took the status, and the kernel is asked in vain. */
static void test_asking(void)
{
    static const int errors[] = {ESRCH, ENOTTY, EPERM};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        struct cpf_plan plan = {.origin = CPF_PARENT, .call = cpf_call("ioctl"), .nth = 1,
                                .times = FOR_EVER, .error = errors[i], .pid = getpid(), .armed = 1};
        struct cp_child child;
        struct call call;
        snprintf(trying, sizeof trying, "asking for a status: errno %d", errors[i]);
        call_probe(&call, "exit", "3");
        memset(&child, 0, sizeof child);
        cp_child_init(&child);
        CHECK(cp_spawn(&child, &call.request) == 0, "errno %d", child.error);
        waitpid(child.pid, NULL, 0);
        *cpf_plan = plan;
        cp_settle(&child, 1);
        CHECK(cp_reap(&child) == 1 && !child.status_known, "it knows %d", child.status);
        cpf_plan->armed = 0;
        cp_child_release(&child);
    }
}

void test_faults(void)
{
    test_common();
    test_attributes_failing();
    test_conditions();
    test_large();
    test_slow();
    test_lookups();
    test_bounds();
    test_asking();
    test_old_kernels();
}
#endif
