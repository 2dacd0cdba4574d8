"""The programs that are run: tiny static ones, compiled here if there is a compiler."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from childproof.bench.model import MissingError

TRUE = "int main(void) { return 0; }\n"

STAMP = r"""
#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
/* Sleeps argv[2] microseconds, so that its parent waits by then, and stores the time of its death. */
int main(int argc, char **argv)
{
    int fd = argc > 2 ? open(argv[1], O_RDWR) : -1;
    long us = 0;
    for (const char *digit = fd < 0 ? "" : argv[2]; *digit; digit++)
        us = us * 10 + *digit - '0';
    volatile long long *slot = mmap(0, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || slot == MAP_FAILED)
        return 1;
    struct timespec pause = {us / 1000000, us % 1000000 * 1000}, now;
    nanosleep(&pause, 0);
    clock_gettime(CLOCK_MONOTONIC, &now);
    *slot = now.tv_sec * 1000000000LL + now.tv_nsec;
    _exit(0);
}
"""

# Blocks as large as the pipe's own limit, so that the writer is not what is measured.
SOURCE = r"""
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    static char block[1 << 20];
    long long left = argc > 1 ? atoll(argv[1]) : 0;
    for (size_t i = 0; i < sizeof block; i++)
        block[i] = (char)('a' + i % 26);
    while (left > 0) {
        ssize_t n = write(1, block, left < (long long)sizeof block ? (size_t)left : sizeof block);
        if (n <= 0)
            return 1;
        left -= n;
    }
    return 0;
}
"""

SINK = r"""
#include <stdio.h>
#include <unistd.h>
int main(void)
{
    static char block[1 << 20];
    long long size = 0;
    for (ssize_t n; (n = read(0, block, sizeof block)) > 0;)
        size += n;
    printf("%lld", size);
    return 0;
}
"""

NAP = r"""
#include <stdlib.h>
#include <time.h>
int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 0;
    struct timespec pause = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&pause, 0);
    return 0;
}
"""

# A tree of argv[1] processes, of which every fourth has a session of its own, as daemons do. Each
# sleeps for ten minutes at most; the root writes a line when all are there.
TREE = r"""
#include <stdlib.h>
#include <unistd.h>
static void grow(long count, int ready)
{
    for (int i = 0; i < 4 && count > 0; i++) {
        long share = (count + 3 - i) / (4 - i);
        count -= share;
        if (fork() == 0) {
            if (i == 3)
                setsid();
            grow(share - 1, ready);
            write(ready, "x", 1);
            close(ready);
            sleep(600);
            _exit(0);
        }
    }
}
int main(int argc, char **argv)
{
    long count = argc > 1 ? atol(argv[1]) : 1, seen = 0;
    int ends[2];
    char block[4096];
    if (pipe(ends) < 0)
        return 1;
    grow(count - 1, ends[1]);
    while (seen < count - 1) {
        ssize_t n = read(ends[0], block, sizeof block);
        if (n <= 0)
            return 1;
        seen += n;
    }
    write(1, "ready\n", 6);
    sleep(600);
    return 0;
}
"""

_SOURCES = {"nap": NAP, "tree": TREE, "true": TRUE, "stamp": STAMP, "source": SOURCE, "sink": SINK}


@cache
def directory() -> tempfile.TemporaryDirectory[str]:
    """Of this process, for what must not stay."""
    return tempfile.TemporaryDirectory(prefix="childproof-bench-")  # removed at exit


@cache
def compiled(name: str) -> str:
    """The path of one of the programs above, static.

    Raises:
        MissingError: there is no compiler, or no static C library.

    """
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        raise MissingError("no C compiler on this machine")
    source, target = (Path(directory().name, name + ending) for ending in (".c", ""))
    source.write_text(_SOURCES[name])
    words = [compiler, "-D_GNU_SOURCE", "-O2", "-static", "-o", str(target), str(source)]
    made = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if made.returncode:
        raise MissingError(f"{compiler} can't build a static program: {made.stderr.strip().splitlines()[-1:]}")
    return str(target)


@cache
def true() -> tuple[str, str]:
    """The path of a program that does nothing, and a sentence that says which it is."""
    try:
        return compiled("true"), "the program is a static true, compiled for this run"
    except MissingError as error:
        path = shutil.which("true") or "/bin/true"
        return path, f"the program is {path}, dynamically linked ({error})"


def clean() -> None:
    """Remove what was compiled. May be called twice."""
    if directory.cache_info().currsize:
        directory().cleanup()
        directory.cache_clear()
        compiled.cache_clear()
        true.cache_clear()
