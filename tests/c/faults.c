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
    struct ending good;
};

static const char *const origins[] = {"parent", "child", "python"};

/* True, or a failure that names the stage and the errno that was injected. */
static int is_honest(const struct scenario *scenario, const struct ending *ending, int error)
{
    const struct ending *good = &scenario->good;
    if (error == ENOTDIR && ending->stage == CP_STAGE_EXEC)
        error = ENOENT; /* of a directory in PATH it says the same */
    if (ending->state == CP_FAILED)
        return ending->stage > CP_STAGE_NONE
               && (ending->error == error || (good->state == CP_FAILED && ending->error == good->error));
    if (ending->state != good->state)
        return 0;
    if (!ending->reaped)
        return 0;
    if (ending->status_known && (ending->exited != good->exited || ending->status != good->status))
        return 0;
    return !strcmp(ending->out, good->out) || ending->write_error == error;
}

static void clear_up(const struct ending *ending)
{
    if (ending->spawned && ending->pid > 0 && waitpid(ending->pid, NULL, WNOHANG) == 0) {
        CHECK(0, "a child is left");
        kill(ending->pid, SIGKILL);
        waitpid(ending->pid, NULL, 0);
    }
}

/* Whether the fault was reached. */
static int try_point(struct scenario *scenario, const struct cpf_plan *wanted)
{
    struct ending ending;
    struct invariants before;
    look(&before);
    *cpf_plan = *wanted;
    cpf_plan->pid = getpid();
    cpf_plan->armed = 1;
    drive(&scenario->call, scenario->input, &ending);
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

static int try_errno(struct scenario *scenario, struct cpf_plan plan)
{
    int points = 0;
    for (plan.nth = 1; plan.nth < 2000; plan.nth++) {
        snprintf(trying, sizeof trying, "%s: %s's %s, number %d, errno %d, %s, close %d",
                 scenario->name, origins[plan.origin], cpf_name(plan.call), plan.nth, plan.error,
                 plan.times == 1 ? "once" : "for ever", plan.close_error);
        if (!try_point(scenario, &plan))
            break;
        points++;
    }
    return points;
}

/* With neither waitid nor a pidfd nobody can tell an end without reaping. */
static int is_unsolved(const struct scenario *scenario, int origin, int call, int index)
{
    return origin == CPF_PARENT && call == cpf_call("waitid") && cpf_errno(call, index) != ECHILD
           && (scenario->call.request.disabled & CP_DISABLE_PIDFD);
}

static int try_call(struct scenario *scenario, int origin, int call)
{
    static const int close_errors[] = {0, EIO, EINTR};
    int points = 0;
    for (int i = 0; cpf_errno(call, i); i++)
        for (int forever = 0; forever < 2; forever++) {
            if (forever && is_unsolved(scenario, origin, call, i))
                continue;
            for (int j = 0; j < 3; j++) {
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
    drive(&scenario->call, scenario->input, &scenario->good);
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

static void add_ways(struct scenario *scenario)
{
    static char name[80];
    static const struct { int start, closing, disabled; } ways[] = {
        {CP_START_AUTO, CP_CLOSE_AUTO, 0},
        {CP_START_VFORK, CP_CLOSE_PROC, 0},
        {CP_START_FORK, CP_CLOSE_RANGE, CP_DISABLE_PIDFD},
    };
    const char *base = scenario->name;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        snprintf(name, sizeof name, "%s, way %zu", base, i);
        scenario->name = name;
        scenario->call.request.start = ways[i].start;
        scenario->call.request.closing = ways[i].closing;
        scenario->call.request.disabled = ways[i].disabled;
        if (may_start(ways[i].start))
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

void test_faults(void)
{
    struct scenario scenario;
    memset(&scenario, 0, sizeof scenario);
    scenario.name = "what the child has";
    call_probe(&scenario.call, "state", NULL);
    scenario.call.request.cwd = "/usr";
    add_ways(&scenario);

    static const struct cp_limit limits[] = {{RLIMIT_CORE, 4096, 8192}, {RLIMIT_NOFILE, 700, 900}};
    static const unsigned groups[] = {1001};
    static int passed[1];
    scenario.name = "with every attribute";
    scenario.call.request.cwd = NULL;
    scenario.call.request.flags |= CP_SET_UMASK | CP_SET_NICE | CP_SET_CWD_FD | CP_SET_UID | CP_SET_GID
                                   | CP_SET_GROUPS | (CP_PORTABLE ? 0 : CP_NO_NEW_PRIVS);
    scenario.call.request.nice = 1;
    scenario.call.request.umask = 027;
    scenario.call.request.uid = scenario.call.request.gid = 65534;
    scenario.call.request.groups = groups;
    scenario.call.request.groups_count = 1;
    scenario.call.request.limits = limits;
    scenario.call.request.limits_count = 2;
    scenario.call.request.pass_fds = passed;
    scenario.call.request.pass_fds_count = 1;
    scenario.call.request.cwd_fd = passed[0] = open("/usr", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (geteuid() == 0)
        try_scenario(&scenario);
    close(passed[0]);

    scenario.name = "input, a file";
    call_probe(&scenario.call, "copy", NULL);
    scenario.call.request.stdio[0] = CP_STDIO_PIPE;
    scenario.call.request.stdio[2] = CP_STDIO_TEMPFILE;
    scenario.call.request.stdio_path[2] = "/tmp";
    scenario.input = "some input";
    add_ways(&scenario);

    scenario.name = "no such program";
    scenario.input = NULL;
    const char *none[] = {NULL};
    call_program(&scenario.call, "/nonexistent", none);
    add_ways(&scenario);
    test_old_kernels();
}
#endif
