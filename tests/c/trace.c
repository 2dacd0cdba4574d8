/*
 * Follows a program whose process clones children on its own memory, and proves
 * for each of them, instruction by instruction until its exec or end, that it
 * executes nothing but the code of one object, and that it writes nothing outside
 * its own block: while the parent is held, all of the parent's writable memory is
 * compared before and after.
 *
 *   trace OBJECT PROGRAM ARGUMENT...
 *
 * OBJECT is what the path of the mapped file must end with. Prints what each
 * child did; exits with 1 if one broke a rule, 2 if there was none.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST_REGIONS 2048

struct region {
    uint64_t from, to;
    unsigned char *before;
    int writable, ours;
    char name[128];
};

static struct region regions[MOST_REGIONS];
static int region_count;
static const char *object;

static void read_maps(pid_t pid)
{
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    FILE *maps = fopen(path, "re");
    region_count = 0;
    while (maps && fgets(line, sizeof line, maps) && region_count < MOST_REGIONS) {
        struct region *region = &regions[region_count];
        char mode[5];
        int name = 0;
        if (sscanf(line, "%lx-%lx %4s %*s %*s %*s %n", &region->from, &region->to, mode, &name) < 3)
            continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(region->name, sizeof region->name, "%s", line + name);
        size_t length = strlen(region->name), want = strlen(object);
        region->ours = length >= want && !strcmp(region->name + length - want, object);
        region->writable = mode[1] == 'w' && mode[0] == 'r';
        region->before = NULL;
        region_count++;
    }
    if (maps)
        fclose(maps);
}

static struct region *region_of(uint64_t address)
{
    for (int i = 0; i < region_count; i++)
        if (address >= regions[i].from && address < regions[i].to)
            return &regions[i];
    return NULL;
}

static ssize_t copy(pid_t pid, const struct region *region, void *to)
{
    size_t size = region->to - region->from;
    struct iovec local = {to, size}, remote = {(void *)region->from, size};
    return process_vm_readv(pid, &local, 1, &remote, 1, 0);
}

static void snapshot(pid_t pid)
{
    for (int i = 0; i < region_count; i++) {
        struct region *region = &regions[i];
        if (!region->writable)
            continue;
        region->before = malloc(region->to - region->from);
        if (!region->before || copy(pid, region, region->before) < 0) {
            free(region->before);
            region->before = NULL;
        }
    }
}

/* How many bytes outside `block` have changed. */
static long changed(pid_t pid, const struct region *block, char *where, size_t size)
{
    long total = 0;
    for (int i = 0; i < region_count; i++) {
        struct region *region = &regions[i];
        size_t length = region->to - region->from;
        unsigned char *now = region->before ? malloc(length) : NULL;
        if (now && region != block && copy(pid, region, now) == (ssize_t)length)
            for (size_t at = 0; at < length; at++)
                if (now[at] != region->before[at] && total++ == 0)
                    snprintf(where, size, "%lx (%s + %lx)", region->from + at, region->name, at);
        free(now);
        free(region->before);
        region->before = NULL;
    }
    return total;
}

/* The instructions behind libc's clone call are libc's: until ours begin. */
static int follow(pid_t child, pid_t parent)
{
    struct user_regs_struct registers;
    char where[256] = "", foreign[256] = "";
    long steps = 0, strange = 0;
    int status, begun = 0;
    ptrace(PTRACE_GETREGS, child, 0, &registers);
    read_maps(parent);
    struct region *block = region_of(registers.rsp);
    snapshot(parent);
    for (;; steps++) {
        ptrace(PTRACE_SINGLESTEP, child, 0, 0);
        if (waitpid(child, &status, __WALL) < 0 || WIFEXITED(status) || WIFSIGNALED(status))
            break;
        if (status >> 8 == (SIGTRAP | PTRACE_EVENT_EXEC << 8))
            break;
        ptrace(PTRACE_GETREGS, child, 0, &registers);
        const struct region *at = region_of(registers.rip);
        begun |= at && at->ours;
        if (begun && !(at && at->ours) && strange++ == 0)
            snprintf(foreign, sizeof foreign, "%llx (%s)", registers.rip, at ? at->name : "?");
    }
    long bytes = changed(parent, block, where, sizeof where);
    printf("child %d: %ld instructions, %ld of them foreign%s%s; block of %lu bytes; %ld bytes written outside%s%s\n",
           child, steps, strange, *foreign ? ", first at " : "", foreign,
           block ? block->to - block->from : 0, bytes, *where ? ", first at " : "", where);
    fflush(stdout);
    if (!WIFEXITED(status) && !WIFSIGNALED(status))
        ptrace(PTRACE_DETACH, child, 0, 0);
    return strange || bytes || !begun;
}

int main(int argc, char **argv)
{
    int status, broken = 0, children = 0;
    if (argc < 3)
        return 2;
    object = argv[1];
    pid_t parent = fork();
    if (parent == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        execvp(argv[2], argv + 2);
        _exit(127);
    }
    waitpid(parent, &status, 0);
    ptrace(PTRACE_SETOPTIONS, parent, 0,
           PTRACE_O_TRACECLONE | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEFORK | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL);
    ptrace(PTRACE_CONT, parent, 0, 0);
    for (;;) {
        pid_t pid = waitpid(-1, &status, __WALL);
        if (pid < 0)
            return 2;
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            if (pid == parent)
                break;
            continue;
        }
        int event = status >> 16;
        unsigned long child = 0;
        if (event == PTRACE_EVENT_CLONE || event == PTRACE_EVENT_VFORK || event == PTRACE_EVENT_FORK) {
            ptrace(PTRACE_GETEVENTMSG, pid, 0, &child);
            waitpid((pid_t)child, &status, __WALL);
            char path[64], tgid[256], text[4096] = "";
            snprintf(path, sizeof path, "/proc/%lu/status", child);
            int fd = open(path, O_RDONLY | O_CLOEXEC);
            ssize_t size = read(fd, text, sizeof text - 1);
            close(fd);
            snprintf(tgid, sizeof tgid, "\nTgid:\t%lu\n", child);
            if (size > 0 && strstr(text, tgid)) { /* a process, not a thread */
                children++;
                broken |= follow((pid_t)child, pid);
            } else
                ptrace(PTRACE_CONT, (pid_t)child, 0, 0);
            ptrace(PTRACE_CONT, pid, 0, 0);
            continue;
        }
        int number = WSTOPSIG(status);
        ptrace(PTRACE_CONT, pid, 0, event || number == SIGTRAP || number == SIGSTOP ? 0 : number);
    }
    printf("%d children, %s\n", children, broken ? "a rule was broken" : "no rule was broken");
    return children ? broken : 2;
}
