/*
 * What the supervisor tells the host. A message that does not get through is for
 * a host that is gone.
 */
#include <string.h>
#include <sys/socket.h>

#include "supervisor.h"

#define MOST_TRIES 100
#define TRY_PAUSE_NS 2000000

/* Want of memory, or too many descriptors of this user on their way (unix(7)): a note
 * that is not sent would be waited for. */
static int is_passing(int error)
{
    return error == ENOBUFS || error == ENOMEM || error == EAGAIN || error == ETOOMANYREFS || error == EINTR;
}

static void add(struct msghdr *message, int type, const void *data, size_t size)
{
    struct cmsghdr *item = (struct cmsghdr *)((char *)message->msg_control + message->msg_controllen);
    item->cmsg_level = SOL_SOCKET;
    item->cmsg_type = type;
    item->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(item), data, size);
    message->msg_controllen += CMSG_SPACE(size);
}

/* With `fd`, if there is one, and the pid as the host is to see it. */
static void send_note(struct watch *watch, const struct cp_note *note, int fd, int pid)
{
    union {
        char room[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(sizeof(int))];
        struct cmsghdr aligned;
    } ancillary = {{0}};
    struct iovec data = {(void *)(uintptr_t)note, sizeof *note};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = &ancillary};
    if (pid > 0) {
        struct ucred who = {pid, getuid(), getgid()};
        add(&message, SCM_CREDENTIALS, &who, sizeof who);
    }
    if (fd >= 0)
        add(&message, SCM_RIGHTS, &fd, sizeof fd);
    if (message.msg_controllen == 0)
        message.msg_control = NULL;
    for (int i = 0; i < MOST_TRIES && sendmsg(watch->control, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0; i++) {
        if (!is_passing(errno))
            return;
        sys_sleep_ns(TRY_PAUSE_NS);
    }
}

static void send_plain(struct watch *watch, const struct cp_note *note)
{
    send_note(watch, note, -1, 0);
}

void cp_tell(struct watch *watch, int kind)
{
    struct cp_note note = {.kind = kind};
    send_plain(watch, &note);
}

void cp_tell_spawned(struct watch *watch)
{
    struct cp_note note = {.kind = CP_NOTE_SPAWNED};
    int pid = watch->command.pid;
    if (!watch->namespaces)
        note.pid = pid;
    send_note(watch, &note, watch->command.fd[CP_PIDFD], watch->namespaces ? pid : 0);
}

void cp_tell_stage(struct watch *watch, int stage)
{
    struct cp_note note = {.kind = CP_NOTE_STAGE, .stage = stage};
    send_plain(watch, &note);
}

void cp_tell_settled(struct watch *watch)
{
    const struct cp_child *command = &watch->command;
    struct cp_note note = {
        .kind = CP_NOTE_SETTLED,
        .state = command->state,
        .stage = command->stage,
        .error = command->error,
        .closing = command->closing,
        .closed = command->closed,
        .exact = command->exact,
    };
    send_plain(watch, &note);
}

void cp_tell_failed(struct watch *watch, int stage, int error)
{
    struct cp_note note = {
        .kind = CP_NOTE_SETTLED, .state = CP_FAILED, .stage = stage, .error = error};
    send_plain(watch, &note);
}

static double seconds(const struct timeval *time)
{
    return (double)time->tv_sec + (double)time->tv_usec / 1e6;
}

void cp_tell_ended(struct watch *watch, const siginfo_t *info, const struct rusage *usage)
{
    struct cp_note note = {
        .kind = CP_NOTE_ENDED,
        .exited = info->si_code == CLD_EXITED,
        .status = info->si_status,
        .user_s = seconds(&usage->ru_utime),
        .system_s = seconds(&usage->ru_stime),
        .max_rss_kib = usage->ru_maxrss,
    };
    send_plain(watch, &note);
}
