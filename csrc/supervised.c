/*
 * The host's side of a supervised child: what its supervisor has told, and what
 * it is told. The supervisor's own side is in supervisor/.
 */
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "internal.h"

#define RELEASE_MS 150 /* how long a supervisor with nobody left may take to end */

#if CP_PORTABLE

static int open_control(struct cp_child *child)
{
    (void)child;
    return ENOSYS; /* there is no subreaper */
}

static void hear(struct cp_child *child)
{
    (void)child;
}

static void order(struct cp_child *child, char what)
{
    (void)child;
    (void)what;
}

#else

static int open_control(struct cp_child *child)
{
    int ends[2], on = 1;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0)
        return errno;
    int near = cp_above_stdio(ends[0]), far = cp_above_stdio(ends[1]);
    child->fd[CP_CONTROL] = near < 0 ? -1 : near;
    child->far[CP_CONTROL] = far < 0 ? -1 : far;
    if (near < 0 || far < 0)
        return near < 0 ? -near : -far;
    /* The kernel translates a pid in the credentials between pid namespaces. */
    return setsockopt(near, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) < 0 ? errno : 0;
}

static void order(struct cp_child *child, char what)
{
    int saved = errno;
    if (child->fd[CP_CONTROL] >= 0)
        send(child->fd[CP_CONTROL], &what, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    errno = saved;
}

/* The sender's pid, and a pidfd if one came with it. Under the lock, so that no
 * fork comes between the descriptor's being there and its being known. */
static int take_ancillary(struct cp_child *child, struct msghdr *message)
{
    int sender = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level != SOL_SOCKET)
            continue;
        if (c->cmsg_type == SCM_CREDENTIALS) {
            struct ucred who;
            memcpy(&who, CMSG_DATA(c), sizeof who);
            sender = who.pid;
        } else if (c->cmsg_type == SCM_RIGHTS) {
            int fd;
            memcpy(&fd, CMSG_DATA(c), sizeof fd);
            fd = cp_above_stdio(fd);
            cp_close_fd(&child->fd[CP_COMMAND]);
            child->fd[CP_COMMAND] = fd < 0 ? -1 : fd;
        }
    }
    return sender;
}

static void take_end(struct cp_child *child, const struct cp_note *note)
{
    child->ended = 1;
    child->status_known = child->has_usage = 1;
    child->exited = note->exited;
    child->status = note->status;
    child->user_s = note->user_s;
    child->system_s = note->system_s;
    child->max_rss_kib = note->max_rss_kib;
    child->host_rss_kib = 0; /* its exec was from the supervisor's image, not from ours */
}

static void take(struct cp_child *child, const struct cp_note *note, int sender)
{
    switch (note->kind) {
    case CP_NOTE_INIT:
        child->init = sender;
        break;
    case CP_NOTE_SPAWNED:
        child->pid = note->pid ? note->pid : sender;
        child->spawned = 1;
        break;
    case CP_NOTE_STAGE:
        child->stage = note->stage;
        break;
    case CP_NOTE_SETTLED:
        child->state = note->state;
        child->stage = note->stage;
        child->error = note->error;
        child->closing = note->closing;
        child->closed = note->closed;
        child->exact = note->exact;
        break;
    case CP_NOTE_ENDED:
        take_end(child, note);
        break;
    case CP_NOTE_LEFT:
        child->leftovers = 1;
        break;
    default:
        break;
    }
}

/* The command's end is left where it is until the command is released: as long as
 * it is, whoever polls the socket hears of it, though another call has already. */
static int hear_end(struct cp_child *child)
{
    struct cp_note note;
    if (child->released
        || recv(child->fd[CP_CONTROL], &note, sizeof note, MSG_DONTWAIT | MSG_PEEK)
               != (ssize_t)sizeof note
        || note.kind != CP_NOTE_ENDED)
        return 0;
    take(child, &note, 0);
    return 1;
}

/* One message; 0 when there is no more for now. */
static int hear_one(struct cp_child *child)
{
    struct cp_note note;
    union {
        char room[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(sizeof(int))];
        struct cmsghdr aligned;
    } ancillary;
    struct iovec data = {&note, sizeof note};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1,
                             .msg_control = &ancillary, .msg_controllen = sizeof ancillary};
    cp_lock();
    ssize_t size = recvmsg(child->fd[CP_CONTROL], &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    int error = errno;
    int sender = size > 0 ? take_ancillary(child, &message) : 0;
    cp_unlock();
    if (size == (ssize_t)sizeof note)
        take(child, &note, sender);
    else if (size >= 0 || (error != EAGAIN && error != EINTR))
        child->lost = !child->ended;
    return size > 0;
}

static void hear(struct cp_child *child)
{
    int saved = errno;
    while (child->fd[CP_CONTROL] >= 0 && !child->lost && !hear_end(child) && hear_one(child))
        ;
    errno = saved;
}

#endif

int cp_supervise(struct cp_child *child, int group)
{
    int saved = errno;
    cp_lock();
    child->supervised = 1;
    child->group = group;
    child->error = open_control(child);
    if (child->error) {
        cp_close_fd(&child->fd[CP_CONTROL]);
        cp_close_fd(&child->far[CP_CONTROL]);
        child->state = CP_FAILED;
        child->stage = CP_STAGE_SUPERVISOR;
        child->reaped = 1;
    }
    cp_unlock();
    errno = saved;
    return child->error;
}

/* One of the tree may have stopped it. */
static void wake(const struct cp_child *child)
{
    if (child->fd[CP_PIDFD] >= 0)
        sys_pidfd_signal(child->fd[CP_PIDFD], SIGCONT, 0);
    else if (cp_ended_own(child) == 0)
        sys_kill(child->supervisor, SIGCONT);
}

void cp_kill_supervised(struct cp_child *child)
{
    wake(child);
    order(child, CP_ORDER_KILL);
}

/* ---- as in reap.c ---- */

/* What reap.c has found out is about the supervisor: that it runs is only half
 * of the way, and that it does not is not the program's doing. */
static int relay(struct cp_child *child)
{
    if (child->state == CP_STARTED) {
        child->relayed = 1;
        child->state = CP_SPAWNING;
        child->stage = CP_STAGE_SUPERVISOR;
    } else if (child->stage == CP_STAGE_EXEC) {
        child->stage = CP_STAGE_SUPERVISOR;
    }
    return child->relayed;
}

/* End of file on the control socket may never come: a command that is stuck before
 * its exec has a copy of the supervisor's end. */
static void look(struct cp_child *child)
{
    hear(child);
    if (child->ended || child->lost || cp_ended_own(child) == 0)
        return;
    hear(child); /* what it said last */
    child->lost = !child->ended;
}

int cp_settle_command(struct cp_child *child, int dead)
{
    if (child->state != CP_SPAWNING)
        return child->state;
    if (!child->relayed && (cp_settle_own(child, dead) == CP_SPAWNING || !relay(child)))
        return child->state;
    look(child);
    /* Notes that would have told may be lost, as with a supervisor that died on the way: then it may
     * have exec'ed, or not. */
    if (child->state == CP_SPAWNING && (child->ended || child->lost || dead))
        child->state = child->spawned || child->ended ? CP_STARTED : CP_DIED;
    return child->state;
}

static long long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int cp_await_command(struct cp_child *child, int milliseconds)
{
    long long until = now_ms() + milliseconds;
    int left = milliseconds;
    if (cp_settle_command(child, 0) == CP_SPAWNING && !child->relayed
        && (cp_await_own(child, milliseconds) == CP_SPAWNING || !relay(child)))
        return child->state;
    while (cp_settle_command(child, 0) == CP_SPAWNING) {
        if (milliseconds >= 0 && (left = (int)(until - now_ms())) <= 0)
            break;
        struct pollfd wanted[2] = {
            {child->fd[CP_CONTROL], POLLIN, 0}, {child->fd[CP_PIDFD], POLLIN, 0}};
        if (poll(wanted, 2, left) < 0)
            break;
        if (!(wanted[0].revents & POLLIN) && (wanted[0].revents & (POLLHUP | POLLERR)))
            child->lost = 1;
    }
    return child->state;
}

int cp_ended_command(struct cp_child *child)
{
    if (child->pid <= 0)
        return -1;
    cp_settle_command(child, 0);
    if (!child->relayed)
        return cp_ended_own(child);
    look(child);
    return child->ended ? 1 : -child->lost;
}

/* The supervisor with nobody left ends at once; one who has says so. */
static void release(struct cp_child *child)
{
    child->released = 1;
    wake(child);
    order(child, CP_ORDER_RELEASE);
    long long until = now_ms() + RELEASE_MS;
    while (!child->leftovers && cp_ended_own(child) == 0) {
        long long left = until - now_ms();
        if (left <= 0)
            break;
        /* End of file on the control socket comes a little before the end. */
        struct pollfd wanted[2] = {
            {child->fd[CP_PIDFD], POLLIN, 0},
            {child->lost ? -1 : child->fd[CP_CONTROL], POLLIN, 0}};
        poll(wanted, 2, child->fd[CP_PIDFD] >= 0 ? (int)left : 1);
        hear(child);
        if (wanted[1].revents & (POLLHUP | POLLERR))
            sys_sleep_ns(50000);
    }
}

int cp_reap_command(struct cp_child *child)
{
    if (child->pid <= 0) /* an exception came before the spawn: there is nobody */
        child->reaped = 1;
    if (child->reaped)
        return 1;
    if (cp_ended_command(child) == 0 && cp_ended_own(child) == 0)
        return 0; /* it runs */
    if (!child->released)
        release(child);
    struct cp_child own = *child; /* what the wait tells is about the supervisor */
    own.status_known = 0;
    if (cp_reap_own(&own)) {
        child->reaped = 1;
        child->empty = (child->ended || child->init) && own.status_known && own.exited && own.status == 0;
        if (child->state == CP_DIED && !child->status_known) {
            child->status_known = own.status_known;
            child->exited = own.exited;
            child->status = own.status;
        }
    }
    return 1;
}
