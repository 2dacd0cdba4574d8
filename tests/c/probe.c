/*
 * What the C harness runs as the child: it says what it was given.
 *
 *   probe state        one line each: descriptors, signals, session, ids, limits
 *   probe exit N       ends with status N
 *   probe die N        dies of signal N
 *   probe sleep N      sleeps N seconds
 *   probe copy         copies stdin to stdout
 *   probe words ...    prints its arguments, then its environment
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static void show_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    struct dirent *entry;
    if (!directory)
        exit(90);
    while ((entry = readdir(directory))) {
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] != '.' && fd != dirfd(directory))
            printf("fd %d\n", fd);
    }
    closedir(directory);
}

static void show_signals(void)
{
    char line[256];
    FILE *status = fopen("/proc/self/status", "r");
    if (!status)
        exit(91);
    while (fgets(line, sizeof line, status)) {
        unsigned long long set;
        if (sscanf(line, "SigBlk: %llx", &set) == 1)
            printf("blocked %llx\n", set);
        if (sscanf(line, "SigIgn: %llx", &set) == 1)
            printf("ignored %llx\n", set);
        if (sscanf(line, "SigCgt: %llx", &set) == 1)
            printf("caught %llx\n", set);
    }
    fclose(status);
}

static void show_privileges(void)
{
    uid_t uid[3];
    gid_t gid[3], groups[64];
    struct rlimit core;
    mode_t mask = umask(0);
    getresuid(&uid[0], &uid[1], &uid[2]);
    getresgid(&gid[0], &gid[1], &gid[2]);
    int count = getgroups(64, groups);
    getrlimit(RLIMIT_CORE, &core);
    printf("uids %d %d %d\ngids %d %d %d\ngroups", uid[0], uid[1], uid[2], gid[0], gid[1], gid[2]);
    for (int i = 0; i < count; i++)
        printf(" %d", groups[i]);
    printf("\numask %o\nnice %d\n", mask, getpriority(PRIO_PROCESS, 0));
    printf("no_new_privs %d\n", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    printf("core %llx %llx\n", (unsigned long long)core.rlim_cur, (unsigned long long)core.rlim_max);
}

static void show_state(void)
{
    char path[4096];
    show_descriptors();
    show_signals();
    printf("leads %d\n", getsid(0) == getpid() && getpgrp() == getpid());
    printf("cwd %s\n", getcwd(path, sizeof path) ? path : "?");
    show_privileges();
}

static void copy(void)
{
    char data[4096];
    ssize_t size;
    while ((size = read(0, data, sizeof data)) > 0)
        if (write(1, data, (size_t)size) != size)
            exit(92);
}

int main(int argc, char **argv, char **envp)
{
    const char *what = argc > 1 ? argv[1] : "";
    int number = argc > 2 ? atoi(argv[2]) : 0;
    if (!strcmp(what, "state"))
        show_state();
    else if (!strcmp(what, "exit"))
        return number;
    else if (!strcmp(what, "die")) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        raise(number);
    } else if (!strcmp(what, "sleep"))
        sleep((unsigned)number);
    else if (!strcmp(what, "copy"))
        copy();
    else if (!strcmp(what, "words")) {
        for (int i = 2; i < argc; i++)
            printf("%s\n", argv[i]);
        for (; *envp; envp++)
            printf("%s\n", *envp);
    } else
        return 93;
    return 0;
}
