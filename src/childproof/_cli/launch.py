"""``childproof launch``: start a service, and print its pid."""

from __future__ import annotations

import argparse
import re
from math import inf
from typing import Any

from childproof._cli.base import FAILED, Parser, Stopper, chosen_command, complain, seconds, write
from childproof._errors import SpawnError
from childproof._service.launch import launch

DESCRIPTION = """\
Start COMMAND as a service and print its pid: in a session of its own, without a
terminal, with nothing open but its standard input (null) and its log, and as nobody's
child. It lives on when whoever started it has ended, and holds no pipe of theirs.

  childproof launch --log redis.log --ready-port 6379 -- redis-server --port 6379

It must stay in the foreground itself. One word is a command line for /bin/sh, whose pid
is then the shell's unless it begins with exec; several words are executed as they are.
"""

EPILOG = """\
exit status:
  0    it is started; with a --ready option: it has given that sign
  2    the arguments are wrong; nothing was started
  124  it was not ready in time, and has been killed
  125  it could not be started, or has ended before it was ready
  126  it was found and is not executable
  127  it was not found
  128+N  childproof got signal N and has killed it
"""


def fill(parser: Parser) -> None:
    """The arguments of ``launch``."""
    parser.usage = "childproof launch [OPTION...] [--] COMMAND..."
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    add = parser.add_argument
    add("--log", default="null", metavar="FILE", help="append its output to FILE (default: discard it)")
    add("--error-log", metavar="FILE", help="append its errors to FILE (default: they go where the output goes)")
    add("--pidfile", metavar="FILE", help="write its pid there when it is ready; not if a process named there runs")
    sign = parser.add_mutually_exclusive_group()
    sign.add_argument("--ready-output", type=_pattern, metavar="REGEX", help="it is ready when its log has REGEX")
    sign.add_argument(
        "--ready-path", metavar="PATH", help="it is ready when PATH appears, and if it is a socket also answers"
    )
    sign.add_argument(
        "--ready-port", type=_port, metavar="[ADDRESS:]PORT", help="it is ready when this TCP port answers"
    )
    add("--timeout", type=seconds, default=60.0, metavar="S", help="seconds until it must be ready (default: 60)")
    add("--grace", type=seconds, default=0.0, metavar="S", help="if it is not: SIGTERM first, SIGKILL S seconds later")
    add("--chdir", metavar="DIR", help="its working directory (default: this one)")
    add("--user", metavar="NAME", help="the user that it becomes; its groups are those of that user")
    add("--no-shell", action="store_true", help="execute COMMAND as it is even if it is one word")
    add("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="the program and its arguments")
    parser.set_defaults(function=_launch)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text, re.MULTILINE)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"is no regular expression: {error}: {text!r}") from None


def _port(text: str) -> int | tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdecimal():
        raise argparse.ArgumentTypeError(f"must end with the number of a port: {text!r}")
    return (host.removeprefix("[").removesuffix("]"), int(port)) if host else int(port)


def _ids(user: str | None) -> dict[str, Any]:
    """What becoming `user` as login(1) does takes."""
    if user is None:
        return {}
    import pwd

    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise ValueError(f"there is no user {user!r}") from None
    import os

    return {"user": user, "group": entry.pw_gid, "extra_groups": os.getgrouplist(user, entry.pw_gid)}


def _launch(args: argparse.Namespace, stopper: Stopper) -> int:
    cmd = chosen_command(args)
    ready = next((sign for sign in (args.ready_output, args.ready_path, args.ready_port) if sign is not None), None)
    try:
        pid = launch(
            cmd,
            stdout=args.log if args.log == "null" else _as_path(args.log),
            stderr=None if args.error_log is None else _as_path(args.error_log),
            pidfile=args.pidfile,
            ready=ready,
            timeout=args.timeout,
            grace=args.grace,
            cwd=args.chdir,
            **_ids(args.user),
        )
    except SpawnError as error:
        complain(str(error))
        return error.result.code if error.result is not None and error.result.code in range(124, 128) else FAILED
    except (TypeError, ValueError) as error:
        args.parser.error(str(error))
    stopper.armed = False  # it is started: from here on a signal could only hide that
    write(1, b"%d\n" % pid, inf)
    return 0


def _as_path(name: str) -> str:
    """A file that is called like a keyword."""
    return f"./{name}" if "/" not in name else name
