/*
 * A command to which nothing happens, followed to its end in one call: its output
 * is read as it comes. Whatever must be decided is the caller's, who is told why.
 */
#include <limits.h>
#include <poll.h>

#include "internal.h"

enum { OUT, ERR, END, WATCHED };
#define EXEC_MS 5       /* when the exec is looked for, which no descriptor tells; */
#define LATE_EXEC_MS 50 /* how often at last, if it does not come; */
#define LOOK_MS 2000    /* how often the end is, which a pidfd that the host has closed does not tell */

/* Rounded up, since a wait that ends early by a fraction would spin through the
 * last one. */
static int milliseconds_until(double deadline)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double left = (deadline - (double)now.tv_sec - (double)now.tv_nsec / 1e9) * 1e3;
    if (left <= 0)
        return 0;
    return left < INT_MAX ? (int)left + 1 : INT_MAX;
}

/* One read of what is there. */
static int catch_output(struct cp_caught *caught)
{
    long size = sys_read(caught->fd, caught->data + caught->size, caught->capacity - caught->size);
    if (size == -EAGAIN || size == -EINTR)
        return CP_NEWS_NONE;
    if (size < 0)
        return CP_NEWS_TROUBLE;
    if (size == 0)
        caught->fd = -1; /* whose it is closes it */
    caught->size += (size_t)size;
    return caught->size == caught->capacity ? CP_NEWS_ROOM : CP_NEWS_NONE;
}

static int take(struct cp_caught *caught, const struct pollfd *watched)
{
    for (int i = OUT; i < WATCHED; i++)
        if (watched[i].revents & POLLNVAL) /* the host has closed what is ours */
            return CP_NEWS_TROUBLE;
    for (int i = OUT; i <= ERR; i++) {
        int news = watched[i].revents ? catch_output(&caught[i]) : CP_NEWS_NONE;
        if (news != CP_NEWS_NONE)
            return news;
    }
    /* A process's descriptors are closed before its end is told: when nothing is to be
     * read any more, who has pipes that have not ended is somebody else. */
    int ended = caught[OUT].fd < 0 && caught[ERR].fd < 0;
    int quiet = !watched[OUT].revents && !watched[ERR].revents;
    return watched[END].revents && (ended || quiet) ? CP_NEWS_END : CP_NEWS_NONE;
}

static int wait_once(struct cp_child *child, struct cp_caught *caught, int milliseconds)
{
    struct pollfd watched[WATCHED] = {
        {caught[OUT].fd, POLLIN, 0}, {caught[ERR].fd, POLLIN, 0}, {child->fd[CP_PIDFD], POLLIN, 0}};
    int ready = poll(watched, WATCHED, milliseconds);
    if (ready < 0)
        return errno == EINTR ? CP_NEWS_SIGNAL : CP_NEWS_TROUBLE;
    cp_settle(child, 0);
    if (ready == 0 && milliseconds == 0)
        return CP_NEWS_TIME;
    if (ready == 0)
        return cp_ended(child) ? CP_NEWS_TROUBLE : CP_NEWS_NONE;
    return take(caught, watched);
}

int cp_follow(struct cp_child *child, struct cp_caught *caught, double deadline)
{
    int news = CP_NEWS_NONE;
    int pause = EXEC_MS;
    if (child->fd[CP_PIDFD] < 0)
        return CP_NEWS_TROUBLE;
    while (news == CP_NEWS_NONE) {
        int most = child->state == CP_SPAWNING ? pause : LOOK_MS;
        int left = milliseconds_until(deadline);
        news = wait_once(child, caught, left < most ? left : most);
        pause = 2 * pause < LATE_EXEC_MS ? 2 * pause : LATE_EXEC_MS;
    }
    return news;
}
