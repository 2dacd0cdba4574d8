/*
 * The block: one mapping of a guard page, the child's stack, and a copy of the
 * request. The caller's strings are Python objects, which may be gone before a
 * slow exec has read them.
 *
 * Blocks are used again, since making one costs more than all else of a spawn
 * but the clone: two calls that change the address space, and its pages'
 * faults, in the child. They are mapped shared, so that a child that is a copy
 * (fork, or vfork under an emulator) reports through them too.
 */
#include <string.h>
#include <sys/mman.h>

#include "internal.h"

#ifndef MAP_ANONYMOUS
#define MAP_ANONYMOUS MAP_ANON
#endif

#define SPARE_BLOCKS 16
#define SPARE_SIZE ((size_t)256 * 1024) /* of address space; a few pages of it are used */

/* Under the lock. In a forked copy these would be the parent's blocks, with the
 * parent's children on them; libc need not have seen the fork. */
static struct {
    char *base[SPARE_BLOCKS];
    int count;
    long owner;
} spare;

static size_t page_size(void)
{
    static size_t size;
    if (size == 0)
        size = (size_t)sysconf(_SC_PAGESIZE);
    return size;
}

struct cp_block *cp_block_of(const struct cp_child *child)
{
    return (struct cp_block *)((char *)child->block + page_size() + CP_STACK_SIZE);
}

static void own_the_spare(void)
{
    long me = sys_getpid();
    if (spare.owner == me)
        return;
    while (spare.count > 0)
        munmap(spare.base[--spare.count], SPARE_SIZE);
    spare.owner = me;
}

static int map_block(struct cp_child *child, size_t size)
{
    own_the_spare();
    if (size <= SPARE_SIZE) {
        size = SPARE_SIZE;
        if (spare.count > 0) {
            child->block = spare.base[--spare.count];
            child->block_size = size;
            return 0;
        }
    }
    char *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_SHARED, -1, 0);
    if (base == MAP_FAILED)
        return errno;
    if (mprotect(base, page_size(), PROT_NONE) < 0) { /* it splits the mapping: ENOMEM */
        int error = errno;
        munmap(base, size);
        return error;
    }
    child->block = base;
    child->block_size = size;
    return 0;
}

void cp_give_block(struct cp_child *child)
{
    if (!child->block)
        return;
    if (child->block_size == SPARE_SIZE && spare.count < SPARE_BLOCKS)
        spare.base[spare.count++] = child->block;
    else
        munmap(child->block, child->block_size);
    child->block = NULL;
}

void cp_forget_block(struct cp_child *child)
{
    if (child->block)
        munmap(child->block, child->block_size);
    child->block = NULL;
}

/* ---- the copy of the request ---- */

/* Lays `count` pointers to the strings that follow one another at `text`;
 * returns where the next string is. */
static char *point_at(char **to, int count, char *text)
{
    for (int i = 0; i < count; i++) {
        to[i] = text;
        text += strlen(text) + 1;
    }
    to[count] = NULL;
    return text;
}

static char *copy_string(char *to, const char **pointer)
{
    if (!*pointer)
        return to;
    size_t size = strlen(*pointer) + 1;
    memcpy(to, *pointer, size);
    *pointer = to;
    return to + size;
}

/* `to` and what is copied there stay aligned to `unit` bytes at least. */
static void *copy_array(char **to, const void *from, int count, size_t unit)
{
    void *copy = *to;
    if (count > 0) /* memcpy from NULL is undefined even for nothing */
        memcpy(copy, from, (size_t)count * unit);
    *to += ((size_t)count * unit + 7) / 8 * 8;
    return copy;
}

static size_t string_size(const char *text)
{
    return text ? strlen(text) + 1 : 0;
}

static size_t block_size(const struct cp_request *request)
{
    size_t pointers = (size_t)request->argc + (size_t)request->candidates
                      + (size_t)request->envc + (size_t)request->extra_envc + 3;
    size_t size = page_size() + CP_STACK_SIZE + sizeof(struct cp_block)
                  + pointers * sizeof(char *) + request->strings_size
                  + request->env_size + string_size(request->cwd)
                  + ((size_t)request->pass_fds_count * 2 + 8) * sizeof(int)
                  + ((size_t)request->groups_count + 2) * sizeof(unsigned)
                  + (size_t)request->limits_count * sizeof(struct cp_limit);
    for (int i = 0; i < 3; i++)
        size += string_size(request->stdio_path[i]);
    return size;
}

/* What follows the struct: arrays first, since they must be aligned. */
static char *copy_arrays(struct cp_block *block, const struct cp_request *request)
{
    struct cp_request *copy = &block->request;
    char *rest = (char *)(block + 1);
    copy->limits = copy_array(&rest, request->limits, request->limits_count,
                              sizeof(struct cp_limit));
    copy->groups = copy_array(&rest, request->groups, request->groups_count,
                              sizeof(unsigned));
    copy->pass_fds = copy_array(&rest, request->pass_fds, request->pass_fds_count,
                                sizeof(int));
    block->keep = (int *)rest;
    block->keep_count = 0;
    rest += ((size_t)request->pass_fds_count + 4 + 1) / 2 * 8;
    block->argv = (char **)rest;
    block->candidate = block->argv + request->argc + 1;
    block->envp = block->candidate + request->candidates + 1;
    return (char *)(block->envp + request->envc + request->extra_envc + 1);
}

static void copy_strings(struct cp_block *block, const struct cp_request *request,
                         char *text)
{
    memcpy(text, request->strings, request->strings_size);
    char *rest = point_at(block->argv, request->argc, text);
    rest = point_at(block->candidate, request->candidates, rest);
    rest = point_at(block->envp + request->envc, request->extra_envc, rest);
    memcpy(rest, request->env, request->env_size);
    char *last = block->envp[request->envc]; /* point_at ends its run with NULL */
    rest = point_at(block->envp, request->envc, rest);
    block->envp[request->envc] = last;
    rest = copy_string(rest, &block->request.cwd);
    for (int i = 0; i < 3; i++)
        rest = copy_string(rest, &block->request.stdio_path[i]);
}

int cp_take_block(struct cp_child *child, const struct cp_request *request)
{
    int error = map_block(child, block_size(request));
    if (error)
        return error;
    struct cp_block *block = cp_block_of(child);
    memset(block, 0, sizeof *block);
    block->tid = 1;
    block->stage = CP_STAGE_FORK;
    block->closed = -1;
    block->exact = 1;
    block->report = -1;
    block->parent = (int)spare.owner; /* getpid, as of a moment ago */
    block->request = *request;
    copy_strings(block, request, copy_arrays(block, request));
    for (int i = 0; i < 3; i++) {
        block->source[i] = -1;
        if (request->stdio[i] == CP_STDIO_FD)
            block->source[i] = request->stdio_fd[i];
        else if (request->stdio[i] == CP_STDIO_PIPE)
            block->source[i] = child->far[i];
        else if (request->stdio[i] == CP_STDIO_TEMPFILE)
            block->source[i] = child->fd[i];
    }
    return 0;
}
