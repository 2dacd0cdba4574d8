/*
 * The names of the system calls that a program may be found blocked in, by the
 * numbers of the machine that this is compiled for.
 */
#include <stddef.h>
#ifdef __linux__
#include <sys/syscall.h> /* the portable build, which makes no raw call, lacks it */
#endif

#include "internal.h"

static const struct {
    long number;
    int argument;
    const char *name;
} calls[] = {
#ifdef SYS_read
    {SYS_read, CP_ARGUMENT_FD, "read"},
#endif
#ifdef SYS_write
    {SYS_write, CP_ARGUMENT_FD, "write"},
#endif
#ifdef SYS_pread64
    {SYS_pread64, CP_ARGUMENT_FD, "pread64"},
#endif
#ifdef SYS_pwrite64
    {SYS_pwrite64, CP_ARGUMENT_FD, "pwrite64"},
#endif
#ifdef SYS_readv
    {SYS_readv, CP_ARGUMENT_FD, "readv"},
#endif
#ifdef SYS_writev
    {SYS_writev, CP_ARGUMENT_FD, "writev"},
#endif
#ifdef SYS_preadv
    {SYS_preadv, CP_ARGUMENT_FD, "preadv"},
#endif
#ifdef SYS_pwritev
    {SYS_pwritev, CP_ARGUMENT_FD, "pwritev"},
#endif
#ifdef SYS_preadv2
    {SYS_preadv2, CP_ARGUMENT_FD, "preadv2"},
#endif
#ifdef SYS_pwritev2
    {SYS_pwritev2, CP_ARGUMENT_FD, "pwritev2"},
#endif
#ifdef SYS_recvfrom
    {SYS_recvfrom, CP_ARGUMENT_FD, "recvfrom"},
#endif
#ifdef SYS_recvmsg
    {SYS_recvmsg, CP_ARGUMENT_FD, "recvmsg"},
#endif
#ifdef SYS_recvmmsg
    {SYS_recvmmsg, CP_ARGUMENT_FD, "recvmmsg"},
#endif
#ifdef SYS_sendto
    {SYS_sendto, CP_ARGUMENT_FD, "sendto"},
#endif
#ifdef SYS_sendmsg
    {SYS_sendmsg, CP_ARGUMENT_FD, "sendmsg"},
#endif
#ifdef SYS_sendmmsg
    {SYS_sendmmsg, CP_ARGUMENT_FD, "sendmmsg"},
#endif
#ifdef SYS_accept
    {SYS_accept, CP_ARGUMENT_FD, "accept"},
#endif
#ifdef SYS_accept4
    {SYS_accept4, CP_ARGUMENT_FD, "accept4"},
#endif
#ifdef SYS_connect
    {SYS_connect, CP_ARGUMENT_FD, "connect"},
#endif
#ifdef SYS_epoll_wait
    {SYS_epoll_wait, CP_ARGUMENT_FD, "epoll_wait"},
#endif
#ifdef SYS_epoll_pwait
    {SYS_epoll_pwait, CP_ARGUMENT_FD, "epoll_pwait"},
#endif
#ifdef SYS_epoll_pwait2
    {SYS_epoll_pwait2, CP_ARGUMENT_FD, "epoll_pwait2"},
#endif
#ifdef SYS_flock
    {SYS_flock, CP_ARGUMENT_FD, "flock"},
#endif
#ifdef SYS_fcntl
    {SYS_fcntl, CP_ARGUMENT_FD, "fcntl"},
#endif
#ifdef SYS_fsync
    {SYS_fsync, CP_ARGUMENT_FD, "fsync"},
#endif
#ifdef SYS_fdatasync
    {SYS_fdatasync, CP_ARGUMENT_FD, "fdatasync"},
#endif
#ifdef SYS_syncfs
    {SYS_syncfs, CP_ARGUMENT_FD, "syncfs"},
#endif
#ifdef SYS_sync_file_range
    {SYS_sync_file_range, CP_ARGUMENT_FD, "sync_file_range"},
#endif
#ifdef SYS_ioctl
    {SYS_ioctl, CP_ARGUMENT_FD, "ioctl"},
#endif
#ifdef SYS_splice
    {SYS_splice, CP_ARGUMENT_FD, "splice"},
#endif
#ifdef SYS_tee
    {SYS_tee, CP_ARGUMENT_FD, "tee"},
#endif
#ifdef SYS_vmsplice
    {SYS_vmsplice, CP_ARGUMENT_FD, "vmsplice"},
#endif
#ifdef SYS_sendfile
    {SYS_sendfile, CP_ARGUMENT_FD, "sendfile"},
#endif
#ifdef SYS_copy_file_range
    {SYS_copy_file_range, CP_ARGUMENT_FD, "copy_file_range"},
#endif
#ifdef SYS_fallocate
    {SYS_fallocate, CP_ARGUMENT_FD, "fallocate"},
#endif
#ifdef SYS_ftruncate
    {SYS_ftruncate, CP_ARGUMENT_FD, "ftruncate"},
#endif
#ifdef SYS_getdents64
    {SYS_getdents64, CP_ARGUMENT_FD, "getdents64"},
#endif
#ifdef SYS_close
    {SYS_close, CP_ARGUMENT_FD, "close"},
#endif
#ifdef SYS_lseek
    {SYS_lseek, CP_ARGUMENT_FD, "lseek"},
#endif
#ifdef SYS_io_uring_enter
    {SYS_io_uring_enter, CP_ARGUMENT_FD, "io_uring_enter"},
#endif
#ifdef SYS_fstat
    {SYS_fstat, CP_ARGUMENT_FD, "fstat"},
#endif
#ifdef SYS_mq_timedreceive
    {SYS_mq_timedreceive, CP_ARGUMENT_FD, "mq_timedreceive"},
#endif
#ifdef SYS_mq_timedsend
    {SYS_mq_timedsend, CP_ARGUMENT_FD, "mq_timedsend"},
#endif
#ifdef SYS_shutdown
    {SYS_shutdown, CP_ARGUMENT_FD, "shutdown"},
#endif
#ifdef SYS_wait4
    {SYS_wait4, CP_ARGUMENT_PID, "wait4"},
#endif
#ifdef SYS_waitid
    {SYS_waitid, CP_ARGUMENT_NONE, "waitid"},
#endif
#ifdef SYS_poll
    {SYS_poll, CP_ARGUMENT_NONE, "poll"},
#endif
#ifdef SYS_ppoll
    {SYS_ppoll, CP_ARGUMENT_NONE, "ppoll"},
#endif
#ifdef SYS_select
    {SYS_select, CP_ARGUMENT_NONE, "select"},
#endif
#ifdef SYS_pselect6
    {SYS_pselect6, CP_ARGUMENT_NONE, "pselect6"},
#endif
#ifdef SYS_futex
    {SYS_futex, CP_ARGUMENT_NONE, "futex"},
#endif
#ifdef SYS_futex_waitv
    {SYS_futex_waitv, CP_ARGUMENT_NONE, "futex_waitv"},
#endif
#ifdef SYS_nanosleep
    {SYS_nanosleep, CP_ARGUMENT_NONE, "nanosleep"},
#endif
#ifdef SYS_clock_nanosleep
    {SYS_clock_nanosleep, CP_ARGUMENT_NONE, "clock_nanosleep"},
#endif
#ifdef SYS_pause
    {SYS_pause, CP_ARGUMENT_NONE, "pause"},
#endif
#ifdef SYS_rt_sigsuspend
    {SYS_rt_sigsuspend, CP_ARGUMENT_NONE, "rt_sigsuspend"},
#endif
#ifdef SYS_rt_sigtimedwait
    {SYS_rt_sigtimedwait, CP_ARGUMENT_NONE, "rt_sigtimedwait"},
#endif
#ifdef SYS_sync
    {SYS_sync, CP_ARGUMENT_NONE, "sync"},
#endif
#ifdef SYS_open
    {SYS_open, CP_ARGUMENT_NONE, "open"},
#endif
#ifdef SYS_openat
    {SYS_openat, CP_ARGUMENT_NONE, "openat"},
#endif
#ifdef SYS_openat2
    {SYS_openat2, CP_ARGUMENT_NONE, "openat2"},
#endif
#ifdef SYS_creat
    {SYS_creat, CP_ARGUMENT_NONE, "creat"},
#endif
#ifdef SYS_stat
    {SYS_stat, CP_ARGUMENT_NONE, "stat"},
#endif
#ifdef SYS_lstat
    {SYS_lstat, CP_ARGUMENT_NONE, "lstat"},
#endif
#ifdef SYS_newfstatat
    {SYS_newfstatat, CP_ARGUMENT_NONE, "newfstatat"},
#endif
#ifdef SYS_statx
    {SYS_statx, CP_ARGUMENT_NONE, "statx"},
#endif
#ifdef SYS_access
    {SYS_access, CP_ARGUMENT_NONE, "access"},
#endif
#ifdef SYS_faccessat
    {SYS_faccessat, CP_ARGUMENT_NONE, "faccessat"},
#endif
#ifdef SYS_faccessat2
    {SYS_faccessat2, CP_ARGUMENT_NONE, "faccessat2"},
#endif
#ifdef SYS_readlink
    {SYS_readlink, CP_ARGUMENT_NONE, "readlink"},
#endif
#ifdef SYS_readlinkat
    {SYS_readlinkat, CP_ARGUMENT_NONE, "readlinkat"},
#endif
#ifdef SYS_rename
    {SYS_rename, CP_ARGUMENT_NONE, "rename"},
#endif
#ifdef SYS_renameat
    {SYS_renameat, CP_ARGUMENT_NONE, "renameat"},
#endif
#ifdef SYS_renameat2
    {SYS_renameat2, CP_ARGUMENT_NONE, "renameat2"},
#endif
#ifdef SYS_unlink
    {SYS_unlink, CP_ARGUMENT_NONE, "unlink"},
#endif
#ifdef SYS_unlinkat
    {SYS_unlinkat, CP_ARGUMENT_NONE, "unlinkat"},
#endif
#ifdef SYS_mkdir
    {SYS_mkdir, CP_ARGUMENT_NONE, "mkdir"},
#endif
#ifdef SYS_mkdirat
    {SYS_mkdirat, CP_ARGUMENT_NONE, "mkdirat"},
#endif
#ifdef SYS_rmdir
    {SYS_rmdir, CP_ARGUMENT_NONE, "rmdir"},
#endif
#ifdef SYS_truncate
    {SYS_truncate, CP_ARGUMENT_NONE, "truncate"},
#endif
#ifdef SYS_chdir
    {SYS_chdir, CP_ARGUMENT_NONE, "chdir"},
#endif
#ifdef SYS_mount
    {SYS_mount, CP_ARGUMENT_NONE, "mount"},
#endif
#ifdef SYS_umount2
    {SYS_umount2, CP_ARGUMENT_NONE, "umount2"},
#endif
#ifdef SYS_msgrcv
    {SYS_msgrcv, CP_ARGUMENT_NONE, "msgrcv"},
#endif
#ifdef SYS_msgsnd
    {SYS_msgsnd, CP_ARGUMENT_NONE, "msgsnd"},
#endif
#ifdef SYS_semop
    {SYS_semop, CP_ARGUMENT_NONE, "semop"},
#endif
#ifdef SYS_semtimedop
    {SYS_semtimedop, CP_ARGUMENT_NONE, "semtimedop"},
#endif
#ifdef SYS_io_getevents
    {SYS_io_getevents, CP_ARGUMENT_NONE, "io_getevents"},
#endif
#ifdef SYS_io_pgetevents
    {SYS_io_pgetevents, CP_ARGUMENT_NONE, "io_pgetevents"},
#endif
#ifdef SYS_io_submit
    {SYS_io_submit, CP_ARGUMENT_NONE, "io_submit"},
#endif
#ifdef SYS_execve
    {SYS_execve, CP_ARGUMENT_NONE, "execve"},
#endif
#ifdef SYS_execveat
    {SYS_execveat, CP_ARGUMENT_NONE, "execveat"},
#endif
#ifdef SYS_vfork
    {SYS_vfork, CP_ARGUMENT_NONE, "vfork"},
#endif
#ifdef SYS_clone
    {SYS_clone, CP_ARGUMENT_NONE, "clone"},
#endif
#ifdef SYS_clone3
    {SYS_clone3, CP_ARGUMENT_NONE, "clone3"},
#endif
#ifdef SYS_fork
    {SYS_fork, CP_ARGUMENT_NONE, "fork"},
#endif
#ifdef SYS_exit
    {SYS_exit, CP_ARGUMENT_NONE, "exit"},
#endif
#ifdef SYS_exit_group
    {SYS_exit_group, CP_ARGUMENT_NONE, "exit_group"},
#endif
#ifdef SYS_restart_syscall
    {SYS_restart_syscall, CP_ARGUMENT_NONE, "restart_syscall"},
#endif
#ifdef SYS_mmap
    {SYS_mmap, CP_ARGUMENT_NONE, "mmap"},
#endif
#ifdef SYS_munmap
    {SYS_munmap, CP_ARGUMENT_NONE, "munmap"},
#endif
#ifdef SYS_mremap
    {SYS_mremap, CP_ARGUMENT_NONE, "mremap"},
#endif
#ifdef SYS_mprotect
    {SYS_mprotect, CP_ARGUMENT_NONE, "mprotect"},
#endif
#ifdef SYS_madvise
    {SYS_madvise, CP_ARGUMENT_NONE, "madvise"},
#endif
#ifdef SYS_msync
    {SYS_msync, CP_ARGUMENT_NONE, "msync"},
#endif
#ifdef SYS_brk
    {SYS_brk, CP_ARGUMENT_NONE, "brk"},
#endif
#ifdef SYS_ptrace
    {SYS_ptrace, CP_ARGUMENT_NONE, "ptrace"},
#endif
#ifdef SYS_sched_yield
    {SYS_sched_yield, CP_ARGUMENT_NONE, "sched_yield"},
#endif
#ifdef SYS_process_vm_readv
    {SYS_process_vm_readv, CP_ARGUMENT_NONE, "process_vm_readv"},
#endif
#ifdef SYS_membarrier
    {SYS_membarrier, CP_ARGUMENT_NONE, "membarrier"},
#endif
#ifdef SYS_getrandom
    {SYS_getrandom, CP_ARGUMENT_NONE, "getrandom"},
#endif
#ifdef SYS_setns
    {SYS_setns, CP_ARGUMENT_NONE, "setns"},
#endif
#ifdef SYS_unshare
    {SYS_unshare, CP_ARGUMENT_NONE, "unshare"},
#endif
    {-1, CP_ARGUMENT_NONE, NULL},
};

const char *cp_syscall_name(long number, int *argument)
{
    size_t at = 0;
    while (calls[at].name && calls[at].number != number)
        at++;
    *argument = calls[at].argument;
    return calls[at].name;
}
