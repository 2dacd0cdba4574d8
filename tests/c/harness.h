/*
 * The C harness: the spawner without Python, so that it can run under tools
 * and on machines that Python's own C would drown out.
 */
#ifndef CHILDPROOF_HARNESS_H
#define CHILDPROOF_HARNESS_H

#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "internal.h" /* whose guard covers childproof.h, which can have none */

/* ---- checking ---- */

extern int checks, failures;
/* What is being tried, for the messages of CHECK. */
extern char trying[256];

#define CHECK(condition, ...) \
    check((condition) != 0, __FILE__, __LINE__, #condition, __VA_ARGS__)
void check(int good, const char *file, int line, const char *text,
           const char *format, ...) __attribute__((format(printf, 5, 6)));

/* ---- the machine ---- */

extern const char *probe;  /* the program of probe.c */
extern int suspended_only; /* valgrind: no memory shared by two running processes; few signals and limits */
extern int emulated;       /* qemu-user: the same, and a suspended clone is a fork */

/* ---- a request ---- */

/* The strings of one request; the pointers of `request` point into it. */
struct call {
    struct cp_request request;
    char strings[4096];
    char env[512];
};

/* `program` with `words`, the last of which is NULL; pipes for stdout and
 * stderr, null for stdin. */
void call_program(struct call *call, const char *program, const char *const *words);
/* The probe with one or two words. */
void call_probe(struct call *call, const char *word, const char *second);

/* ---- where an end must be noted (gcov) ---- */

void leave_fork(int status) __attribute__((noreturn));

/* ---- what became of it ---- */

struct ending {
    int spawned;
    int state, stage, error;
    int start, closing, exact, reopened;
    int pid, had_pidfd;
    int reaped;
    int signal_error;
    int write_error; /* why the input was not written to its end */
    int status_known, exited, status;
    char out[16384];
    size_t size;
};

/* Spawn, feed `input`, read, wait, reap, release. */
void drive(const struct call *call, const char *input, struct ending *ending);
/* Spawn, kill by group and by child, reap, release. */
void drive_killed(const struct call *call, struct ending *ending);
/* Wait until the exec has been seen, or the child's end. */
void await_exec(struct cp_child *child);
/* Wait until it has ended; 0 if it did not. */
int await_end(struct cp_child *child);
/* Reap and release. */
void finish(struct cp_child *child);

/* The value behind `name` in what the probe said, or -1. */
long long said(const struct ending *ending, const char *name);
/* Exactly 0, 1 and 2? */
int has_stdio_only(const struct ending *ending);

/* ---- before and after ---- */

struct invariants {
    int count;
    int fd[64];
    char link[64][64];
    uint64_t mask;
    struct { void (*handler)(int); unsigned long flags; void (*restorer)(void); uint64_t mask; } action[65];
};
void look(struct invariants *before);
void compare(const struct invariants *before);

/* The ways to start and to close that this machine can try. */
struct way {
    const char *name;
    int value;
};
extern const struct way starts[], closings[]; /* ends with a NULL name */
int may_start(int start);
int may_close(int closing);
/* May a child share a large table until it has opened its own pipes? */
int may_reopen(void);

/* ---- the parts ---- */

void test_starts(void);
void test_attributes(void);
void test_detached(void);
void test_failures(void);
void test_signals(void);
void test_waiting(void);
void test_following(void);
void test_others(void);
void test_namespaces(void);
void test_storms(void);
void test_faults(void);

#endif
