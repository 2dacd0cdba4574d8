/*
 * Every system call of the spawner, each as one function that gives the result
 * or -errno. On Linux they are raw: libc's would write errno, which in a child
 * that shares its parent's memory is the running parent thread's; its set*id
 * would signal the parent's threads; its close is a cancellation point.
 *
 * With CHILDPROOF_PORTABLE they are what POSIX has, for systems that are not
 * Linux: there the child is always a fork, which has an errno of its own.
 */
#ifndef CHILDPROOF_SYS_H
#define CHILDPROOF_SYS_H

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#ifdef CHILDPROOF_PORTABLE
#include "sys_posix.h"
#else
#include "sys_linux.h"
#endif

#endif
