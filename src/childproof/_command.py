"""What to run: validated once, immutable afterwards. Nothing is created here."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf, isnan

from childproof._attributes import NO_ATTRIBUTES, Attributes, check_open, fd_directory, make_attributes
from childproof._contain import make_contain, supervision
from childproof._light import TYPE_CHECKING, NamedTuple
from childproof._stdio import NULL, PIPE, STDOUT, Feed, Stdio, encode, feed_stdio, input_stdio, output_stdio
from childproof._text import did_you_mean

if TYPE_CHECKING:
    from typing import Any, NoReturn

    from childproof._cgroup import Cgroup

MARK = b"CHILDPROOF_RUN"
"""The variable by which processes that escaped are found."""

OnOutput = Callable[[str, bytes], object]


class Environment(NamedTuple):
    """Variables in the form that the spawner copies.

    Attributes:
        block: ``NAME=value`` strings, each with its NUL, without the mark of an outer run.
        size: how many.
        path: the value of PATH, or `None`.
        mark: the value of the outer runs' mark, or `None`.

    """

    block: bytes
    size: int
    path: bytes | None
    mark: bytes | None


class Command(NamedTuple):
    """One validated command. The attributes are the parameters of `run`, decided.

    Attributes:
        strings: `argv` and `candidates`, each with its NUL, for the spawner.
        supervise: `childproof._supervise.NOBODY`, `SUPERVISED` or `NAMESPACES`.
        contain, cgroup: as of `childproof._contain.make_contain`.

    """

    cmd: Any
    input: Any
    timeout: float
    argv: tuple[bytes, ...]
    candidates: tuple[bytes, ...]
    strings: bytes
    environment: Environment
    stdin: Stdio
    feed: Feed | None
    # From here on a command without options is like any other: see `plain_command`.
    env: Mapping[Any, Any] | None
    cwd: bytes | int | None
    stdout: Stdio
    stderr: Stdio
    grace: float
    linger: float
    kill_leftovers: bool
    mark: bool
    autopsy: bool
    max_output: int | None
    text: bool
    encoding: str
    errors: str
    strip: bool
    on_output: OnOutput | None
    secrets: tuple[str, ...]
    new_session: bool
    attributes: Attributes
    start: str
    closing: str
    supervise: int
    contain: str
    cgroup: Cgroup | None
    check: bool


# ---- the program ----

_ENCODING = sys.getfilesystemencoding()


def _check_sequence(cmd: Any) -> None:
    if isinstance(cmd, (bytes, bytearray, memoryview, os.PathLike)):
        raise TypeError(f"cmd must be a str, for the shell, or a sequence of words; put {cmd!r} into a list")
    if not isinstance(cmd, Sequence):
        raise TypeError(f"cmd must be a str, for the shell, or a sequence of words, not {cmd!r}")


def _argv(cmd: Any) -> tuple[bytes, ...]:
    if type(cmd) is str:
        return (b"/bin/sh", b"-c", encode(cmd, "cmd"))
    if type(cmd) is not list and type(cmd) is not tuple:
        if isinstance(cmd, str):
            return _argv(str(cmd))
        _check_sequence(cmd)
    try:
        argv = tuple(
            [word.encode(_ENCODING, "surrogateescape") if type(word) is str else os.fsencode(word) for word in cmd]
        )
    except (TypeError, UnicodeEncodeError):
        argv = tuple([encode(word, f"cmd[{i}]") for i, word in enumerate(cmd)])  # it says which
    if not argv:
        raise ValueError("cmd is empty: it must at least name a program")
    if not argv[0]:
        raise ValueError("cmd[0] is empty: it must name a program")
    return argv


def _strings(cmd: Any, argv: tuple[bytes, ...], candidates: tuple[bytes, ...]) -> bytes:
    strings = b"\0".join((*argv, *candidates, b""))
    if strings.count(b"\0") != len(argv) + len(candidates):
        for i, word in enumerate(cmd):
            encode(word, f"cmd[{i}]")
    return strings


def candidates_of(program: bytes, path: bytes | None) -> tuple[bytes, ...]:
    """The paths that execve is to try, as `os.get_exec_path` has them."""
    if b"/" in program:
        return (program,)
    if path is None:
        path = os.defpath.encode()
    return tuple([(folder + b"/" + program if folder else program) for folder in path.split(b":")])


# ---- the environment ----

# One name for the pair: another thread may come between two.
_seen: tuple[dict[bytes, bytes], Environment] | None = None


def _make_environment(variables: Mapping[bytes, bytes], drop_mark: bool) -> Environment:
    items = [name + b"=" + value + b"\0" for name, value in variables.items() if not (drop_mark and name == MARK)]
    return Environment(b"".join(items), len(items), variables.get(b"PATH"), variables.get(MARK))


def inherited_environment() -> Environment:
    """`os.environ`, encoded. Most runs find it as the last one did, so it is compared, not built."""
    global _seen
    # os.environ keeps its encoded items in one dict; comparing two dicts of the same objects takes
    # a microsecond, going through the public mapping thirty.
    data: dict[bytes, bytes] = getattr(os.environ, "_data", None) or dict(os.environb)
    seen = _seen
    if seen is None or data != seen[0]:
        copy = dict(data)
        seen = _seen = copy, _make_environment(copy, drop_mark=True)
    return seen[1]


def _given(env: Mapping[Any, Any]) -> Environment:
    if not isinstance(env, Mapping):
        raise TypeError(f"env must be a mapping of str or bytes, not {env!r}")
    variables = {}
    for name, value in env.items():
        key = encode(name, "a name in env")
        if not key or b"=" in key:
            raise ValueError(f"a name in env is empty or has an equals sign: {name!r}")
        variables[key] = encode(value, f"env[{name!r}]")
    return _make_environment(variables, drop_mark=False)


# ---- numbers and words ----


def seconds(value: Any, name: str) -> float:
    """`value` as a number of seconds.

    Raises:
        TypeError, ValueError: it is none, negative or NaN; it is called `name`.

    """
    if isinstance(value, (str, bytes, bool)):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = inf
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}") from None
    if isnan(number) or number < 0:
        hint = "; 0 is a budget that has run out, None is no limit" if name == "timeout" else ""
        raise ValueError(f"{name} must not be negative or NaN: {value!r}{hint}")
    return number + 0.0  # -0.0 is 0.0


def timeout_seconds(value: Any) -> float:
    """Likewise, for a ``timeout``: `None` and -1 are for ever."""
    return inf if value is None or value == -1 else seconds(value, "timeout")


def _count(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int or None, not {value!r}")
    if value < 0:
        raise ValueError(f"{name} must not be negative: {value}")
    return value


_ANYTHING = bytes(range(256))


def _codec(encoding: Any, errors: Any) -> None:
    if not isinstance(encoding, str) or not isinstance(errors, str):
        raise TypeError(f"encoding and errors must be str, not {encoding!r} and {errors!r}")
    # Tried out, since some codecs decode no bytes, and some handlers only encode: what a command has
    # written must not be lost to that.
    try:
        codecs.lookup_error(errors)
        _ANYTHING.decode(encoding, "backslashreplace")
        _ANYTHING.decode(encoding, errors)
    except UnicodeDecodeError:
        return  # the handler is strict; then there are backslashes
    except (LookupError, UnicodeError, TypeError) as error:
        raise ValueError(f"can't decode with encoding={encoding!r}, errors={errors!r}: {error}") from None


def _secrets(values: Iterable[str]) -> tuple[str, ...]:
    if isinstance(values, (str, bytes)):
        raise TypeError("secrets must be a sequence of str, not one string")
    secrets = tuple(values)
    for position, secret in enumerate(secrets):
        # Its position, not its value: this text may be logged.
        if not isinstance(secret, str):
            raise TypeError(f"secrets[{position}] must be a str, not a {type(secret).__name__}")
        if not secret:
            raise ValueError(f"secrets[{position}] is empty")
    return secrets


STARTS = ("auto", "clone", "vfork", "fork")
CLOSINGS = ("auto", "close_range", "proc", "rlimit")


def _choice(value: Any, choices: tuple[str, ...], name: str) -> str:
    if value not in choices:
        meant = did_you_mean(value, choices)
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}{meant}")
    return str(value)


_OF_SUBPROCESS = {
    "shell": "a str goes to the shell, a sequence does not",
    "executable": "the program is the first word of cmd",
    "capture_output": "output is captured unless stdout and stderr say otherwise",
    "universal_newlines": "output is text unless text=False",
    "start_new_session": "it is called new_session, and is the default",
    "close_fds": "the child gets 0, 1, 2 and pass_fds, and nothing else",
    "preexec_fn": "none of the caller's code runs in the child; see cwd, env, user, umask, limits, nice and others",
}
"""What those who come from `subprocess` look for."""


def _refuse(name: str) -> NoReturn:
    """An option that there is not."""
    code = make_command.__code__
    known = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    hint = f": {_OF_SUBPROCESS[name]}" if name in _OF_SUBPROCESS else did_you_mean(name, known)
    raise TypeError(f"there is no option {name!r}{hint}")


def make_command(
    cmd: Any,
    input: Any = None,  # noqa: A002  # the contract's name, which is subprocess's
    timeout: Any = None,
    *,
    stdin: Any = None,
    stdout: Any = "capture",
    stderr: Any = "capture",
    grace: Any = 0.0,
    linger: Any = 0.5,
    leftovers: Any = "leave",
    mark: Any = True,
    autopsy: Any = False,
    max_output: Any = None,
    text: Any = True,
    encoding: Any = "utf-8",
    errors: Any = "backslashreplace",
    strip: Any = True,
    merge: Any = False,
    on_output: Any = None,
    check: Any = False,
    secrets: Any = (),
    cwd: Any = None,
    env: Any = None,
    user: Any = None,
    group: Any = None,
    extra_groups: Any = None,
    umask: Any = None,
    limits: Any = None,
    no_new_privs: Any = False,
    pass_fds: Any = (),
    nice: Any = None,
    new_session: Any = True,
    start: Any = "auto",
    closing: Any = "auto",
    die_with_parent: Any = False,
    contain: Any = "session",
    **unknown: Any,
) -> Command:
    """Check every parameter of `run` and decide what it means.

    Raises:
        TypeError, ValueError: a parameter is wrong; nothing has been created.

    """
    if unknown:
        _refuse(next(iter(unknown)))
    environment = inherited_environment() if env is None else _given(env)
    argv = _argv(cmd)
    candidates = candidates_of(argv[0], environment.path)
    if encoding != "utf-8" or errors != "backslashreplace":
        _codec(encoding, errors)
    feed = None
    if input is None:
        in_stdio = NULL if stdin is None else input_stdio(stdin)
    elif stdin is not None:
        raise ValueError(f"input and stdin={stdin!r} exclude each other")
    else:
        in_stdio, feed = feed_stdio(input, encoding)
    out_stdio = PIPE if stdout == "capture" else output_stdio(stdout, "stdout")
    if not merge:
        err_stdio = PIPE if stderr == "capture" else output_stdio(stderr, "stderr")
    elif stderr == "capture":
        err_stdio = STDOUT
    else:
        raise ValueError(f"merge and stderr={stderr!r} exclude each other")
    if on_output is not None and not callable(on_output):
        raise TypeError(f"on_output must be callable, not {on_output!r}")
    asked = (user, group, extra_groups, umask, limits, no_new_privs, pass_fds, nice)
    attributes = NO_ATTRIBUTES if asked == _NOTHING_ASKED else make_attributes(*asked)
    if attributes.changes_ids and start not in ("auto", "fork"):
        raise ValueError(f"user, group and extra_groups need start='fork', not {start!r}")
    kind, cgroup = ("session", None) if contain == "session" else make_contain(contain, attributes)
    if kind != "session" or die_with_parent:  # they open descriptors before the spawner looks at those given
        for name, stdio in (("stdin", in_stdio), ("stdout", out_stdio), ("stderr", err_stdio)):
            if stdio.kind == "fd":
                check_open(stdio.fd, name)
    if cwd is not None:
        cwd = fd_directory(cwd) if isinstance(cwd, int) and not isinstance(cwd, bool) else encode(cwd, "cwd")
    return Command(
        cmd,
        input,
        timeout_seconds(timeout),
        argv,
        candidates,
        _strings(cmd, argv, candidates),
        environment,
        in_stdio,
        feed,
        env,
        cwd,
        out_stdio,
        err_stdio,
        seconds(grace, "grace"),
        seconds(linger, "linger"),
        _choice(leftovers, ("leave", "kill"), "leftovers") == "kill",
        bool(mark) and env is None,
        bool(autopsy),
        None if max_output is None else _count(max_output, "max_output"),
        bool(text),
        encoding,
        errors,
        bool(strip),
        on_output,
        _secrets(secrets),
        bool(new_session),
        attributes,
        _choice(start, STARTS, "start"),
        _choice(closing, CLOSINGS, "closing"),
        supervision(kind, die_with_parent),
        kind,
        cgroup,
        bool(check),
    )


_NOTHING_ASKED = (None, None, None, None, None, False, (), None)
_DEFAULTS = make_command(["true"])[Command._fields.index("env") :]


def plain_command(cmd: Any, input: Any, timeout: Any) -> Command:  # noqa: A002  # as above
    """`make_command` for a call without options, which is the one that has to be fast."""
    environment = inherited_environment()
    argv = _argv(cmd)
    candidates = candidates_of(argv[0], environment.path)
    stdin, feed = (NULL, None) if input is None else feed_stdio(input, "utf-8")
    strings = _strings(cmd, argv, candidates)
    head = cmd, input, timeout_seconds(timeout), argv, candidates, strings, environment, stdin, feed
    return tuple.__new__(Command, head + _DEFAULTS)
