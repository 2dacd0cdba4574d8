/*
 * What another process has open. Nothing here blocks: a link of /proc/PID/fd
 * is read, and not followed to a file system that may be dead.
 */
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "internal.h"

#define CP_STATX_TYPE_AND_INO 0x101
#ifndef AT_STATX_DONT_SYNC
#define AT_STATX_DONT_SYNC 0x4000
#endif

/* struct statx of linux/stat.h, which not every libc has. */
struct file_status {
    uint32_t mask, block_size;
    uint64_t attributes;
    uint32_t links, uid, gid;
    uint16_t mode, spare;
    uint64_t inode, size, blocks, attributes_mask;
    uint64_t times[8];
    uint32_t device_major, device_minor; /* that it is, if it is one */
    uint32_t major, minor;               /* that it lies on */
    uint64_t rest[14];
};
_Static_assert(sizeof(struct file_status) == 256, "as the kernel has it");

/* The attributes that the kernel has, without asking a server for newer ones. */
static int stat_link(int folder, const char *name, struct file_status *found)
{
    return (int)-sys_statx(folder, name, AT_STATX_DONT_SYNC,
                           CP_STATX_TYPE_AND_INO, found);
}

static int is_wanted(int folder, const char *name, const char *link,
                     const struct cp_wanted *wanted)
{
    struct file_status file;
    if (!wanted->is_file || link[0] != '/')
        return !wanted->is_file && strcmp(link, wanted->link) == 0;
    if (stat_link(folder, name, &file) != 0)
        return strcmp(link, wanted->link) == 0; /* no statx: by the name alone */
    return file.inode == wanted->inode && file.major == wanted->major
           && file.minor == wanted->minor;
}

/* The modes of the link tell how the file was opened: proc(5). */
static void note(int folder, const char *name, int which, struct cp_open *found)
{
    struct stat link;
    found->fd = atoi(name);
    found->which = which;
    found->reads = found->writes = 0;
    if (fstatat(folder, name, &link, AT_SYMLINK_NOFOLLOW) == 0) {
        found->reads = (link.st_mode & S_IRUSR) != 0;
        found->writes = (link.st_mode & S_IWUSR) != 0;
    }
}

int cp_find_open(int pid, const struct cp_wanted *wanted, int count,
                 struct cp_open *found, int capacity)
{
    char path[32], link[PATH_MAX];
    snprintf(path, sizeof path, "/proc/%d/fd", pid);
    DIR *folder = opendir(path);
    if (!folder)
        return -errno;
    int size = 0;
    const struct dirent *entry;
    while (size < capacity && (entry = readdir(folder))) {
        ssize_t length = readlinkat(dirfd(folder), entry->d_name, link,
                                    sizeof link - 1);
        if (length <= 0)
            continue;
        link[length] = '\0';
        for (int which = 0; which < count; which++)
            if (is_wanted(dirfd(folder), entry->d_name, link, &wanted[which])) {
                note(dirfd(folder), entry->d_name, which, &found[size++]);
                break;
            }
    }
    closedir(folder);
    return size;
}

int cp_identify_open(int pid, int fd, struct cp_wanted *found)
{
    char path[64];
    struct file_status file;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, fd);
    int error = stat_link(AT_FDCWD, path, &file);
    if (error == 0) {
        found->inode = file.inode;
        found->major = file.major;
        found->minor = file.minor;
        found->is_file = !S_ISCHR(file.mode);
    }
    return error;
}
