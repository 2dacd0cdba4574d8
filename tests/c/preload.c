/*
 * Python's own calls, made to fail by the plan of fault.h: an LD_PRELOAD library
 * together with fault.c. The spawner's calls come to the plan by themselves, and
 * pass through here with cpf_inside set.
 */
#define CPF_NO_MACROS
#include <dlfcn.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/uio.h>

#include "fault.h"

static int fails(const char *call)
{
    if (!cpf_plan->armed || cpf_inside || getpid() != cpf_plan->pid)
        return 0;
    int error = cpf_decide(CPF_PYTHON, cpf_call(call));
    if (error)
        errno = error;
    return error;
}

#define REAL(type, name, ...)                                     \
    static type (*real)(__VA_ARGS__);                             \
    if (!real)                                                    \
        *(void **)&real = dlsym(RTLD_NEXT, #name)

#define WRAP(type, name, call, failed, parameters, arguments)     \
    type name parameters                                          \
    {                                                             \
        static type(*real) parameters;                            \
        if (!real)                                                \
            *(void **)&real = dlsym(RTLD_NEXT, #name);            \
        return fails(call) ? (failed) : real arguments;           \
    }

WRAP(ssize_t, read, "read", -1, (int fd, void *data, size_t size), (fd, data, size))
WRAP(ssize_t, readv, "read", -1, (int fd, const struct iovec *parts, int count), (fd, parts, count))
WRAP(ssize_t, write, "write", -1, (int fd, const void *data, size_t size), (fd, data, size))
WRAP(int, poll, "poll", -1, (struct pollfd *fds, nfds_t count, int ms), (fds, count, ms))
WRAP(int, pipe2, "pipe2", -1, (int *ends, int flags), (ends, flags))
WRAP(ssize_t, readlink, "readlink", -1, (const char *path, char *to, size_t size), (path, to, size))
WRAP(int, fstat, "fstat", -1, (int fd, struct stat *to), (fd, to))
WRAP(int, fstat64, "fstat", -1, (int fd, struct stat64 *to), (fd, to))
WRAP(off_t, lseek, "lseek", -1, (int fd, off_t at, int from), (fd, at, from))
WRAP(off64_t, lseek64, "lseek", -1, (int fd, off64_t at, int from), (fd, at, from))
WRAP(DIR *, opendir, "opendir", NULL, (const char *path), (path))
WRAP(struct dirent *, readdir, "readdir", NULL, (DIR *directory), (directory))
WRAP(struct dirent64 *, readdir64, "readdir", NULL, (DIR *directory), (directory))
WRAP(int, kill, "kill", -1, (pid_t pid, int number), (pid, number))
WRAP(int, pidfd_open, "pidfd_open", -1, (pid_t pid, unsigned flags), (pid, flags))

int close(int fd)
{
    REAL(int, close, int);
    int result = real(fd);
    return fails("close") ? -1 : result; /* on Linux it has closed */
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument)
{
    REAL(int, pthread_create, pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    int error = fails("pthread_create");
    return error ? error : real(thread, attributes, start, argument);
}

static long next_argument(va_list list)
{
    return va_arg(list, long);
}

#define WRAP_OPEN(name)                                           \
    int name(const char *path, int flags, ...)                    \
    {                                                             \
        REAL(int, name, const char *, int, ...);                  \
        va_list list;                                             \
        va_start(list, flags);                                    \
        int mode = (int)next_argument(list);                      \
        va_end(list);                                             \
        cpf_slow(path);                                           \
        return fails("open") ? -1 : real(path, flags, mode);      \
    }
WRAP_OPEN(open)
WRAP_OPEN(open64)

#define WRAP_CONTROL(name, call, kind)                            \
    int name(int fd, kind request, ...)                           \
    {                                                             \
        REAL(int, name, int, kind, ...);                          \
        va_list list;                                             \
        va_start(list, request);                                  \
        long argument = next_argument(list);                      \
        va_end(list);                                             \
        return fails(call) ? -1 : real(fd, request, argument);    \
    }
WRAP_CONTROL(fcntl, "fcntl", int)
WRAP_CONTROL(fcntl64, "fcntl", int)
WRAP_CONTROL(ioctl, "ioctl", unsigned long)
