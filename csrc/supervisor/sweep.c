/*
 * The supervisor's descendants: reaping and killing them.
 *
 * Whoever loses its parent becomes a child of this process, the subreaper
 * (PR_SET_CHILD_SUBREAPER, Linux 3.4). So as long as it lives every process of
 * the tree descends from it, and when it has no child there is no tree.
 */
#include <stdlib.h>
#include <sys/wait.h>

#include "supervisor.h"

#define MOST_PAUSE_MS 500

/* waitid with the kernel's fifth argument. __WALL: a child may have been made
 * with another signal than SIGCHLD. */
static long wait_for(int type, int pid, siginfo_t *info, int options, struct rusage *usage)
{
    info->si_pid = 0;
    return cp_raw5(SYS_waitid, type, pid, info, options | WEXITED | WNOHANG | __WALL, usage);
}

static void reap(int pid)
{
    siginfo_t info;
    wait_for(P_PID, pid, &info, 0, NULL);
}

/* ---- the table of processes ---- */

static struct cp_process *table;
static int capacity, count;

static int by_pid(const void *a, const void *b)
{
    int one = ((const struct cp_process *)a)->pid, other = ((const struct cp_process *)b)->pid;
    return (one > other) - (one < other);
}

static int read_table(void)
{
    do {
        if (count >= capacity) {
            capacity = capacity ? 2 * capacity : 512;
            void *more = realloc(table, (size_t)capacity * sizeof *table);
            if (!more)
                abort(); /* the host kills what it can find */
            table = more;
        }
        count = cp_read_processes(table, capacity);
    } while (count >= capacity);
    if (count < 0) {
        count = 0;
        return 0;
    }
    qsort(table, (size_t)count, sizeof *table, by_pid);
    return 1;
}

/* As long as the command is kept it stands before all others in a wait for any.
 * Not at once: mostly it is kept for a moment, and this reads all of /proc. */
static void reap_the_others(struct watch *watch)
{
    struct timespec now;
    long me = sys_getpid();
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (watch->look_at == 0)
        watch->look_at = now.tv_sec + 2;
    if (now.tv_sec < watch->look_at || !read_table())
        return;
    watch->look_at = now.tv_sec + 2;
    for (int i = 0; i < count; i++)
        if (table[i].ppid == me && table[i].pid != watch->command.pid && table[i].state == 'Z')
            reap(table[i].pid);
}

int cp_collect(struct watch *watch)
{
    siginfo_t info;
    struct rusage usage;
    for (;;) {
        long r = wait_for(P_ALL, 0, &info, WNOWAIT, &usage);
        if (r < 0)
            return r == -ECHILD;
        if (info.si_pid == 0)
            return 0;
        if (info.si_pid == watch->command.pid && !watch->reaped) {
            if (!watch->ended)
                cp_command_ended(watch, &info, &usage);
            if (!watch->released) {
                reap_the_others(watch);
                return 0;
            }
            watch->reaped = 1;
        }
        reap(info.si_pid);
    }
}

/* ---- killing ---- */

static void kill_one(const struct watch *watch, const struct cp_process *process)
{
    struct cp_identity identity = {
        .start = process->start,
        .pid = process->pid,
        .ppid = process->ppid,
        .session = process->session,
    };
    if (process->state != 'Z' || process->threads > 1)
        cp_signal_process(&identity, SIGKILL, !(watch->request.disabled & CP_DISABLE_PIDFD));
}

/* Parents before their children, a generation at a time. */
static void kill_descendants(const struct watch *watch)
{
    int me = (int)sys_getpid(), grown = 1;
    char *inside = calloc((size_t)count + 1, 1);
    if (!inside)
        abort();
    while (grown) {
        grown = 0;
        for (int i = 0; i < count; i++) {
            struct cp_process key = {.pid = table[i].ppid};
            if (inside[i] || table[i].pid == me)
                continue;
            const struct cp_process *parent = bsearch(&key, table, (size_t)count, sizeof key, by_pid);
            if (table[i].ppid != me && !(parent && inside[parent - table]))
                continue;
            inside[i] = 1;
            grown = 1;
            kill_one(watch, &table[i]);
        }
    }
    free(inside);
}

static long long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* The group at once: a shell whose command is killed before it goes on to its
 * next. Not yet reaped, it keeps the group's number from strangers. */
static void kill_command(const struct watch *watch)
{
    int pid = watch->command.pid;
    if (pid <= 0 || watch->reaped)
        return;
    if (watch->request.flags & CP_NEW_SESSION)
        sys_kill(-pid, SIGKILL);
    sys_kill(pid, SIGKILL);
}

/* Looking through /proc takes long where there are many processes: not before the
 * command's end has been told, and less often the longer it takes. */
int cp_kill_all(struct watch *watch)
{
    long long now = now_ms();
    if (watch->strike_at == 0)
        watch->strike_at = now + (watch->host_gone ? 0 : 5);
    kill_command(watch);
    if (watch->namespaces)
        sys_kill(-1, SIGKILL); /* everybody in the namespace but its init */
    if (now >= watch->strike_at) {
        if (!watch->namespaces && read_table())
            kill_descendants(watch);
        long long cost = now_ms() - now;
        watch->pause_ms = watch->pause_ms < MOST_PAUSE_MS ? 2 * watch->pause_ms + 1 : MOST_PAUSE_MS;
        watch->strike_at = now + cost + (cost > watch->pause_ms ? cost : watch->pause_ms);
    }
    now = now_ms();
    return watch->strike_at > now ? (int)(watch->strike_at - now) : 1;
}
