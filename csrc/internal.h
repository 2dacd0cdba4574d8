/*
 * What the spawner's own files share. The block is the memory that a child
 * lives on until its exec.
 */
#ifndef CHILDPROOF_INTERNAL_H
#define CHILDPROOF_INTERNAL_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "childproof.h"
#include "sys.h"

#define CP_STACK_SIZE 32768
#define CP_PIDFD_SIGNAL_PROCESS_GROUP 4 /* Linux 6.9 */
#define CP_FAR_ENDS 6 /* of cp_child.far */

/* A child that was cloned with the host's table has one of its own now, */
enum cp_word {
    CP_REOPENED = 1, /* with its ends of the pipes, */
    CP_COPIED,       /* with all that was in the host's, */
    CP_NOT_REOPENED  /* or can't have it, and ends itself */
};

/* What a child that has left the host's table opens by its name there; see reopen.c. */
struct cp_far_end {
    char name[48]; /* empty: nothing */
    int flags;
    uint64_t id[2]; /* device and inode, lest it be a stranger's */
};

/* All that the child reads and writes between clone and exec. The parent
 * fills it before the clone and leaves it alone, but for reading `tid`,
 * `stage`, `slot`, `error`, `closing`, `closed`, `exact`, `service` and `reopened`,
 * until the child has left. */
struct cp_block {
    volatile int tid;     /* zeroed by the kernel when the child leaves */
    volatile int stage;   /* the step that the child is in */
    volatile int error;   /* why it did not come further; 0: nothing has failed */
    volatile int slot;    /* as in cp_child, like the next three */
    volatile int closing;
    volatile int closed;
    volatile int exact;
    volatile int service; /* as in cp_child */
    volatile int reopened; /* a cp_word; 0: none yet */
    int parent;
    int handlers_reset; /* by the kernel, with the clone */
    int shares_table;   /* the clone shares the host's table of descriptors too */
    struct cp_far_end far_end[3];
    int report;    /* the report pipe, which it keeps until exec, or -1 */
    int source[3]; /* descriptors to become 0, 1, 2; -1: none yet */
    unsigned bound; /* one above the highest descriptor the parent has open */
    cp_sigset mask; /* the caller's signal mask */
    char **argv;
    char **envp;
    char **candidate;
    int *keep; /* sorted: 0, 1, 2, the report pipe, pass_fds */
    int keep_count;
    struct cp_request request; /* its pointers lead into this block too */
};

/* ---- run in the child, from clone to exec; see child.c ---- */

int cp_child_main(void *block);
/* 0 or an errno. */
int cp_close_fds(struct cp_block *block);
/* Out of the table, if it is the host's, with what of it is wanted. 0 or an errno. */
int cp_leave_table(struct cp_block *block);

/* ---- run in the parent, under the lock ---- */

/* The bound for the loop; *exact is 0 where it may be too low. */
unsigned cp_fd_bound(int *exact);
/* Does close_range work here? */
int cp_has_close_range(void);

/* Shall the child share the host's table until it has opened its own ends? Sets
 * block->shares_table, and what is to be opened. */
void cp_prepare_reopening(const struct cp_child *child, struct cp_block *block);
/* Not in this process any more. */
void cp_refuse_reopening(const struct cp_block *block);
/* Wait until the child needs the host's table no more. 0: it could not open its own
 * and is gone, as if it had never been; it must be started the ordinary way. */
int cp_await_reopening(struct cp_child *child, struct cp_block *block);

/* Every descriptor of the request. 0, or an errno with child->stage set. */
int cp_open_fds(struct cp_child *child, const struct cp_request *request);
/* One pipe; ours is end `mine` (0 reads, 1 writes). 0 or an errno. */
int cp_open_pipe(struct cp_child *child, int slot, int mine);
/* fd, or what it was moved to: not 0, 1 or 2. Takes ownership. Or -errno. */
int cp_above_stdio(int fd);
void cp_close_fd(int *fd);

/* A filled block for one child. 0 or an errno. */
int cp_take_block(struct cp_child *child, const struct cp_request *request);
/* It is free for the next child, since this one has left it. */
void cp_give_block(struct cp_child *child);
/* In a forked copy: the parent's child has one of its own. */
void cp_forget_block(struct cp_child *child);
struct cp_block *cp_block_of(const struct cp_child *child);

/* ---- a child that is a supervisor: supervised.c behind what reap.c has for all ---- */

int cp_settle_own(struct cp_child *child, int dead);
int cp_await_own(struct cp_child *child, int milliseconds);
int cp_ended_own(const struct cp_child *child);
int cp_reap_own(struct cp_child *child);
int cp_settle_command(struct cp_child *child, int dead);
int cp_await_command(struct cp_child *child, int milliseconds);
int cp_ended_command(struct cp_child *child);
int cp_reap_command(struct cp_child *child);

void cp_lock(void);
void cp_unlock(void);

#endif
