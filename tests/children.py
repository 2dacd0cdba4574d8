"""The programs that the tests run: ``python children.py NAME ARGUMENT...``.

Started with -S -E, so that they start fast. A test sees to it that each is used.
"""

import os
import stat
import sys
import time


def fds() -> None:
    """Print the descriptors that are open, one line each, with what they are."""
    hidden = not os.path.exists("/proc/self/fd")
    for fd in range(1 << 16) if hidden else sorted(map(int, os.listdir("/proc/self/fd"))):
        try:
            print(fd, kind(fd) if hidden else os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            pass


def kind(fd: int) -> str:
    """What a descriptor is, as far as it can be told without /proc."""
    mode = os.fstat(fd).st_mode
    return "pipe:" if stat.S_ISFIFO(mode) else f"mode {mode:o}"


def daemon(seconds: str) -> None:
    """Double-fork into a session of its own, print the daemon's pid, keep stdout."""
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    print(os.getpid(), flush=True)
    time.sleep(float(seconds))


def flood_then_hold(size: str, seconds: str) -> None:
    """Leave a grandchild that holds stdout silently; write `size` bytes and exit."""
    if os.fork() == 0:
        time.sleep(float(seconds))
        os._exit(0)
    os.write(1, b"x" * int(size))
    os._exit(0)


def bomb(count: str, command: str) -> None:
    """Fork `count` processes, each in a session of its own, without parent, environment and stdio, that
    become `command`; then one that goes on moving, and sleep.
    """
    words = command.split()
    for _ in range(int(count)):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.closerange(0, 3)
                os.execve("/bin/" + words[0], words, {})
            os._exit(0)
    time.sleep(600)


PROGRAMS = {function.__name__: function for function in (fds, daemon, flood_then_hold, bomb)}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
