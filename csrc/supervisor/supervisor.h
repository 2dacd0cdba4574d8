/*
 * What the supervisor's own files share.
 */
#ifndef CHILDPROOF_SUPERVISOR_H
#define CHILDPROOF_SUPERVISOR_H

#include "internal.h"

#define CP_BAD_REQUEST 125

struct watch {
    int control; /* to the host */
    int host;    /* its pidfd, or -1 */
    int signals; /* a signalfd for SIGCHLD */
    int host_pid;
    int namespaces; /* 1: make them, and be their init */
    int host_gone;
    int killing;
    int released; /* the host needs the command's number no more */
    int ended;    /* the command has */
    int reaped;   /* and so was it */
    int told_left;
    int stage; /* the last that was told */
    int pause;
    int pause_ms;        /* between two looks through /proc for whom to kill, */
    long long strike_at; /* and when the next is due, on the monotonic clock */
    time_t look_at; /* for those who have ended, while the command is kept */
    cp_sigset mask; /* that of the command */
    struct cp_request request;
    struct cp_child command;
};

/* ---- main.c ---- */

void cp_start_command(struct watch *watch);
/* Until nobody is left. */
void cp_watch(struct watch *watch);
void cp_command_ended(struct watch *watch, const siginfo_t *info, const struct rusage *usage);
/* They only wake. */
void cp_take_signals(const struct watch *watch);
/* Close all but `kept`, and be nowhere. */
void cp_let_go(const int *kept, int count);

/* ---- tell.c ---- */

void cp_tell(struct watch *watch, int kind);
void cp_tell_spawned(struct watch *watch);
void cp_tell_stage(struct watch *watch, int stage);
void cp_tell_settled(struct watch *watch);
void cp_tell_failed(struct watch *watch, int stage, int error);
void cp_tell_ended(struct watch *watch, const siginfo_t *info, const struct rusage *usage);

/* ---- pidns.c ---- */

/* Start the command in a pid namespace; returns when nobody is left in it. */
void cp_run_in_namespaces(struct watch *watch);

/* ---- sweep.c ---- */

/* Reap whoever has ended, but the command not before the host lets go of it. 1:
 * nobody is left, so there is no descendant at all. */
int cp_collect(struct watch *watch);
/* SIGKILL for every descendant that is found; milliseconds to the next pass. */
int cp_kill_all(struct watch *watch);

#endif
