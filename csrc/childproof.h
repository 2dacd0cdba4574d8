/*
 * What the Python layer and the C share.
 *
 * cffi's cdef() reads this file too, without a preprocessor: plain
 * declarations only, no include, no macro, no conditional. One text for both
 * sides, because a wrong width in a second copy would be silent.
 *
 * Unless a function says otherwise it may be called from any thread of the
 * parent, with or without the GIL, and never from a signal handler. A struct
 * cp_child is used by one thread at a time.
 */

/* How far the way to exec had come. The order is the order of the steps. */
enum cp_stage {
    CP_STAGE_NONE = 0,
    CP_STAGE_OPEN,
    CP_STAGE_PIPE,
    CP_STAGE_FORK,
    CP_STAGE_SUPERVISOR, /* its own exec and preparations */
    CP_STAGE_UNSHARE,    /* namespaces of pidns: their making, */
    CP_STAGE_IDMAP,      /* the ids in them, */
    CP_STAGE_MOUNT,      /* and their /proc */
    CP_STAGE_SIGNALS,
    CP_STAGE_SETSID,
    CP_STAGE_CGROUP,
    CP_STAGE_LIMITS,
    CP_STAGE_IDS,
    CP_STAGE_CHDIR,
    CP_STAGE_UMASK,
    CP_STAGE_DUP,
    CP_STAGE_CLOSE_FDS,
    CP_STAGE_EXEC
};

/* The primitive that makes the child. */
enum cp_start {
    CP_START_AUTO = 0, /* clone where it may be used, else fork */
    CP_START_CLONE,    /* shares the parent's memory; the parent goes on */
    CP_START_VFORK,    /* shares it; the calling thread sleeps until exec */
    CP_START_FORK      /* copies it */
};

/* The rung of the ladder that closes what the child must not inherit. */
enum cp_closing {
    CP_CLOSE_AUTO = 0, /* the first of the three that works */
    CP_CLOSE_RANGE,
    CP_CLOSE_PROC,
    CP_CLOSE_RLIMIT
};

/* What one of the child's descriptors 0, 1, 2 is to be. */
enum cp_stdio {
    CP_STDIO_INHERIT = 0,
    CP_STDIO_NULL,
    CP_STDIO_PIPE,
    CP_STDIO_FD,      /* request.stdio_fd of the parent */
    CP_STDIO_PATH,    /* request.stdio_path, opened in the child */
    CP_STDIO_TEMPFILE,/* an unlinked file in the directory stdio_path */
    CP_STDIO_STDOUT,  /* stderr only: what descriptor 1 is */
    CP_STDIO_APPEND   /* as CP_STDIO_PATH, but written at the file's end */
};

enum cp_flag {
    CP_NEW_SESSION = 1,
    CP_NEW_GROUP = 2,    /* setpgid(0, request.process_group) */
    CP_KEEP_FDS = 4,     /* close nothing: close-on-exec decides, as in fork(2) */
    CP_KEEP_SIGNALS = 8, /* what the parent ignores stays ignored, all of it */
    CP_NO_NEW_PRIVS = 16,
    CP_SET_UMASK = 32,
    CP_SET_NICE = 64,
    CP_SET_CWD_FD = 128,
    CP_JOIN_CGROUP = 256,
    /* These need a child with memory of its own: fork. */
    CP_SET_UID = 512,
    CP_SET_GID = 1024,
    CP_SET_GROUPS = 2048,
    /* The program is not the child, but the child's child: cp_child.service. The
     * child holds nothing, and lives until it is killed, when the program becomes
     * init's, or until the program has ended, when it exits with its status, as
     * shells have it (128 + N for signal N). */
    CP_DETACH = 4096
};

/* Kernel features that are to be treated as missing. */
enum cp_disable {
    CP_DISABLE_PIDFD = 1,
    CP_DISABLE_PIDFD_INFO = 2,
    CP_DISABLE_PIDFD_GROUP = 4
};

enum cp_state {
    CP_NEW = 0,  /* zeroed memory, not yet given to cp_child_init */
    CP_IDLE,
    CP_SPAWNING, /* cloned, the exec not yet seen */
    CP_STARTED,  /* the program runs, or has run */
    CP_FAILED,   /* stage and error say why it does not */
    CP_DIED,     /* the child was killed before its exec, at stage */
    CP_DISOWNED  /* a copy in a forked process: the parent's, not ours */
};

enum cp_slot {
    CP_STDIN = 0,
    CP_STDOUT,
    CP_STDERR,
    CP_REPORT, /* carries nothing: its end of file means exec or death */
    CP_PIDFD,
    CP_CONTROL, /* to the supervisor, which dies when nobody holds it any more */
    CP_COMMAND, /* the supervised command's pidfd */
    CP_SLOTS
};

/* A resource limit of the child; ~0 stands for infinity. */
struct cp_limit {
    int resource;
    unsigned long long soft;
    unsigned long long hard;
};

/* One request, filled by the caller and only read here. Every string is
 * NUL-terminated; a run of strings is laid one behind the other. What is zero
 * is not asked for. */
struct cp_request {
    const char *strings; /* argv, then the paths to try, then added variables */
    size_t strings_size;
    int argc;
    int candidates;
    int extra_envc;
    const char *env;
    size_t env_size;
    int envc;
    int stdio[3];
    int flags;
    int start;
    int closing;
    int disabled;
    int stdio_fd[3];
    const char *stdio_path[3];
    const char *cwd; /* or NULL */
    int cwd_fd;
    int process_group;
    int cgroup_fd; /* a cgroup.procs that is open for writing */
    int umask;
    int nice; /* added to the niceness */
    unsigned uid;
    unsigned gid;
    const unsigned *groups;
    int groups_count;
    const struct cp_limit *limits;
    int limits_count;
    const int *pass_fds; /* sorted, above 2 */
    int pass_fds_count;
    const void *mask; /* the child's signal mask, as the kernel has it; NULL: the caller's */
};

/* What a supervisor tells the host, in this order; see supervisor/main.c. */
enum cp_note_kind {
    CP_NOTE_INIT = 1, /* the sender is the init of a pid namespace */
    CP_NOTE_SPAWNED,  /* the command has a pid */
    CP_NOTE_STAGE,    /* its exec takes long; how far it is */
    CP_NOTE_SETTLED,  /* state: CP_STARTED, CP_FAILED or CP_DIED */
    CP_NOTE_ENDED,    /* and is kept as a zombie */
    CP_NOTE_LEFT      /* let go, but others of the tree are alive */
};

/* What the host tells it, as one byte. */
enum cp_order {
    CP_ORDER_RELEASE = 82, /* reap the command, and end when nobody is left */
    CP_ORDER_KILL = 75     /* the whole tree */
};

struct cp_note {
    int kind;
    int pid; /* 0: in the message's credentials, in the receiver's numbers */
    int state;
    int stage;
    int error;
    int closing;
    int closed;
    int exact;
    int exited;
    int status;
    double user_s;
    double system_s;
    long max_rss_kib;
};

/* One child. Zeroed by the caller, then given to cp_child_init; after
 * cp_child_release it may be given to it again. */
struct cp_child {
    int fd[7]; /* the parent's descriptors by cp_slot, -1 where there is none */
    int far[6]; /* the child's ends, open until the end of cp_spawn */
    int pid;
    int state;
    int stage;
    int slot;      /* which of 0, 1, 2 a failed CP_STAGE_OPEN was about */
    int error;     /* errno of the failed stage */
    int start;     /* the primitive that was used */
    int closing;   /* the rung that was used; CP_CLOSE_AUTO: none */
    int closed;    /* how many descriptors it closed; -1: the kernel did not say */
    int exact;     /* 0: only an estimate bounded the loop, there may be more */
    int group;     /* 1: the child leads a process group of its own */
    int service;   /* with CP_DETACH, once started: the program's pid. While the child
                    * runs nobody else has it, nor a session of that number. */
    int disabled;
    int reaped;    /* 1: waited for, or lost to somebody else's wait */
    int status_known;
    int exited;    /* 1: exited with `status`, 0: died of signal `status` */
    int status;
    int has_usage;
    double user_s;
    double system_s;
    long max_rss_kib;
    long host_rss_kib; /* the host's own peak when the exec was seen */
    int supervised; /* 1: our child is a supervisor. pid, state, stage, status and usage
                     * are of its command, whose pid is the supervisor's until it has one;
                     * `reaped` is about the supervisor. */
    int supervisor; /* its pid */
    int init;       /* the pid of a pid namespace's init, or 0 */
    int relayed;    /* 1: the supervisor runs */
    int spawned;    /* 1: the command has been given a pid */
    int ended;      /* 1: the command has, and its number is pinned until it is released */
    int lost;       /* 1: the supervisor has ended before its command had */
    int released;
    int leftovers;  /* 1: others of the tree were alive after that */
    int empty;      /* 1: the supervisor saw nobody left, and ended */
    void *block;
    size_t block_size;
    struct cp_child *previous;
    struct cp_child *next;
    int reopened; /* 1: the host's table of descriptors was not copied, but shared for a moment */
};

/* What is read of one output of a child that is followed. */
struct cp_caught {
    char *data; /* the caller's room for it */
    size_t capacity;
    size_t size;
    int fd; /* -1: there is none, or it has ended */
};

/* Why cp_follow came back. */
enum cp_news {
    CP_NEWS_NONE = 0,
    CP_NEWS_END,    /* it has ended, and so have its pipes where nobody else has them */
    CP_NEWS_TIME,   /* the deadline has come */
    CP_NEWS_SIGNAL, /* a signal has, of which the caller may have to hear */
    CP_NEWS_ROOM,   /* there is no more room for output */
    CP_NEWS_TROUBLE /* something that this does not understand; nothing is lost by it */
};

/* One line of /proc/PID/stat. */
struct cp_process {
    unsigned long long start;        /* clock ticks since boot */
    unsigned long long user_ticks;   /* CPU time of all threads */
    unsigned long long system_ticks;
    int pid;
    int ppid;
    int pgrp;
    int session;
    int threads;
    int state;        /* one letter */
    int exiting;      /* 1: the main thread is past the start of its exit */
    int kill_pending; /* 1: SIGKILL is on its way to the main thread */
    int kernel_thread;
    char name[68];    /* kernel workers have up to 64 bytes, others 15 */
};

/* What a process was when it was looked at, from /proc/PID/stat. */
struct cp_identity {
    unsigned long long start; /* clock ticks since boot */
    int pid;
    int ppid;
    int session;
};

/* Something that processes may have open: a pipe or socket by its link, as
 * "pipe:[123]", or a file by its device and inode, with its path as the link. */
struct cp_wanted {
    const char *link;
    unsigned long long inode;
    unsigned major;
    unsigned minor;
    int is_file;
};

/* What the first argument of a system call is. */
enum cp_argument {
    CP_ARGUMENT_NONE = 0, /* nothing that can be told briefly */
    CP_ARGUMENT_FD,
    CP_ARGUMENT_PID
};

/* One descriptor of another process. */
struct cp_open {
    int fd;
    int which; /* which of the wanted it is */
    int reads;
    int writes;
};

/* Once, before anything else. 0, or an errno. */
int cp_init(void);

/* Make *child known, so that a fork in another thread closes its copies. */
void cp_child_init(struct cp_child *child);

/* Close and forget everything; a child that runs is neither killed nor
 * waited for. The memory of a child that may still run on its block is given
 * up rather than unmapped. May run twice. */
void cp_child_release(struct cp_child *child);

/* The child will be a supervisor: opens its control socket. The other end, which
 * the supervisor must be given, is far[CP_CONTROL]. `group`: the command will
 * lead a group of its own. 0 or an errno. */
int cp_supervise(struct cp_child *child, int group);

/* SIGKILL for all that descends from a supervised command, by its supervisor. */
void cp_kill_supervised(struct cp_child *child);

/* Start the child. 0 and state CP_SPAWNING, or -1 and state CP_FAILED with
 * stage and error, nothing left open. All signals are blocked meanwhile. */
int cp_spawn(struct cp_child *child, const struct cp_request *request);

/* SIGKILL for a child whose exec a CP_START_VFORK spawn waits for. The one
 * function that may be called while another thread is in cp_spawn with the
 * same child. 0 or an errno. */
int cp_kill_suspended(const struct cp_child *child);

/* Is this the build that uses POSIX only? Then there are fork, the loop up to the
 * limit, and no pidfd; what else is asked for is refused with ENOSYS. */
int cp_is_portable(void);

/* Does CP_START_AUTO suspend the caller on this machine? */
int cp_auto_suspends(void);

/* Has it exec'ed? Moves CP_SPAWNING on once that is known and frees the
 * block. `dead`: the caller knows that the child is gone. Never blocks. */
int cp_settle(struct cp_child *child, int dead);

/* Wait until the exec is known, or `milliseconds` are over (-1: never), or a
 * signal comes; the state, as of cp_settle. */
int cp_await_exec(struct cp_child *child, int milliseconds);

/* The step that a spawning child is in. */
int cp_stage_now(const struct cp_child *child);

/* 1: it has ended and waits to be reaped, which pins its pid and group;
 * 0: it runs; -1: it is no child of ours any more. Never blocks. */
int cp_ended(struct cp_child *child);

/* What its pidfd tells, where cp_ended says 0. 1: it has ended, though a tracer keeps it
 * from being reaped; 0: it runs; -1: the host has closed the descriptor, whose
 * number may be something else's now. It is forgotten then, and not closed. */
int cp_ask_pidfd(struct cp_child *child);

/* Reap: 1 when it is done (then status_known tells whether anyone knows the
 * status), 0 while it runs. Blocks 10 ms at most, where another wait was
 * faster and the kernel is still filing the status. */
int cp_reap(struct cp_child *child);

/* Read the output of a child with a pidfd until it has ended, or until another of the
 * cp_news, behind which it may be called again. `caught`: of stdout and of stderr.
 * `deadline`: seconds on CLOCK_MONOTONIC, or infinite. Of a child that is not
 * CP_SPAWNING nothing but the pidfd is looked at, which must stay open. */
int cp_follow(struct cp_child *child, struct cp_caught *caught, double deadline);

/* Signal the child, never a reaped one. 0 or an errno. */
int cp_signal(struct cp_child *child, int signal);

/* Signal its process group; only while no stranger can own the number. */
int cp_signal_group(struct cp_child *child, int signal);

/* Close one of the parent's descriptors, exactly once. */
void cp_close(struct cp_child *child, int slot);

/* write(2) that never raises SIGPIPE in the calling thread. The count, or
 * -errno; -EAGAIN too where a signal came first. */
ssize_t cp_write(int fd, const void *data, size_t size);

/* One read of a small file, as those of /proc are. The size, or -errno. */
ssize_t cp_read_proc(const char *path, char *buffer, size_t size);

/* One read of /proc/PID/name for each of the pids, `size` bytes apart. Of each
 * the size, or -errno. */
void cp_read_each(const char *name, const int *pids, int count, char *buffer,
                  int size, int *sizes);

/* One process. 0 or an errno. */
int cp_read_process(int pid, struct cp_process *found);

/* Every process that /proc shows. How many: if that is `capacity` there may be
 * more. -errno where there is no /proc. */
int cp_read_processes(struct cp_process *found, int capacity);

/* Signal any process, if it is still the one that was looked at: through a
 * pidfd that is opened before that is checked, or else, and without
 * `use_pidfd`, by its number. 0 or an errno, ESRCH if it is another. */
int cp_signal_process(const struct cp_identity *expected, int number,
                      int use_pidfd);

/* Signal the process group that it leads, through its pidfd, so that a number
 * given anew is nobody's danger. 0 or an errno, EINVAL before Linux 6.9. */
int cp_signal_group_of(const struct cp_identity *expected, int number);

/* The first of `count` processes, `from` that one on, that has not ended;
 * `count` if all have. A zombie has ended if no other thread of it runs. */
int cp_first_alive(const struct cp_identity *expected, int count, int from,
                   int use_pidfd);

/* Which descriptors of `pid` are one of the `count` wanted. How many: if that
 * is `capacity` there may be more. -errno if it is gone or another user's. */
int cp_find_open(int pid, const struct cp_wanted *wanted, int count,
                 struct cp_open *found, int capacity);

/* Device and inode of what `pid` has open as `fd`; a character device, which
 * everybody has open, is no file here. 0 or an errno. */
int cp_identify_open(int pid, int fd, struct cp_wanted *found);

/* The name of a system call of this machine, and a cp_argument; NULL for one
 * that is not known. */
const char *cp_syscall_name(long number, int *argument);
