"""`run_many` through executors: exactly one Result each, whatever becomes of the workers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import childproof
from childproof import CommandError, Outcome, _spawner, run_many
from childproof._many.executors import Batcher, _run_one
from conftest import is_alive, wait_until

ALONE: Any = {"die_with_parent": False}
"""Then the command's parent is the worker, and no supervisor."""

POOLS = {"threads": ThreadPoolExecutor, "processes": ProcessPoolExecutor}


@pytest.fixture(params=list(POOLS.values()), ids=list(POOLS))
def pool(request: pytest.FixtureRequest) -> Iterator[Executor]:
    """A pool of two workers."""
    with request.param(2) as executor:
        yield executor


def test_each_command_has_one_result(pool: Executor) -> None:
    """In order if that is asked for, with its own options and position."""
    cmds = [{"cmd": f"cat; exit {i % 4}", "input": str(i)} for i in range(200)]
    results = list(run_many(cmds, executor=pool, order="given"))
    assert [(r.position, r.code, r.out) for r in results] == [(i, i % 4, str(i)) for i in range(200)]
    assert sorted(r.position or 0 for r in run_many(cmds, executor=pool, batch=7)) == list(range(200))


def test_what_happens_to_a_command_is_in_its_result(pool: Executor) -> None:
    """As without an executor."""
    cmds = ["kill -9 $$", ["/nonexistent"], "echo hi; sleep 600"]
    results = list(run_many(cmds, executor=pool, order="given", timeout=1))
    assert [r.code for r in results] == [-9, 127, 124]
    assert results[2].out == "hi"
    assert not results[2].survivors


@pytest.mark.parametrize("portable", [_spawner.PORTABLE, True], ids=["this build", "portable"])
def test_a_command_ends_with_its_worker_where_that_can_be_had(portable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the worker's build that counts; what the caller asks for is not left out silently."""
    monkeypatch.setattr("childproof._many.executors.PORTABLE", portable)
    result = _run_one({"cmd": "echo $PPID"})
    assert result.ok
    assert (int(result.out) == os.getpid()) is portable
    asked = _run_one({"cmd": "true", "die_with_parent": True})
    assert asked.outcome is (Outcome.NOT_STARTED if _spawner.PORTABLE else Outcome.EXITED)


def test_batches_grow_as_commands_are_short() -> None:
    """They last about as long as it takes for the sending not to matter; another executor has one each."""

    class Other(Executor):
        pass

    with ThreadPoolExecutor(1) as threads:
        batcher = Batcher(threads, None)
        assert batcher.size == 1
        result = childproof.run(["true"])
        result.duration = 0.001
        batcher.learn([result])
        assert 10 < batcher.size <= 256
        result.duration = 5
        batcher.learn([result])
        assert batcher.size == 1
        assert Batcher(threads, 9).size == 9
    other = Batcher(Other(), None)
    other.learn([childproof.run(["true"])])
    assert other.size == 1


def test_a_generator_is_asked_when_there_is_room(pool: Executor) -> None:
    """Not for more than a few tasks ahead of what runs."""
    asked = 0

    def cmds() -> Iterator[list[str]]:
        nonlocal asked
        for _ in range(60):
            asked += 1
            yield ["true"]

    for done, _ in enumerate(run_many(cmds(), executor=pool, jobs=2, batch=1), 1):
        assert asked <= done + 4 + 1


def test_closing_kills_what_threads_run(tmp_path: Path) -> None:
    """And withdraws what waits."""
    path = tmp_path / "pids"
    with ThreadPoolExecutor(2) as threads:
        results = run_many(["true"] + [f"echo $$ >> {path}; setsid sleep 600 & sleep 600"] * 9, executor=threads)
        next(results)
        assert wait_until(path.exists)
        results.close()
        assert not any(is_alive(int(pid)) for pid in path.read_text().split())
    assert len(path.read_text().split()) <= 3


def test_closing_withdraws_what_waits_for_a_process(tmp_path: Path) -> None:
    """What already runs there runs on to its deadline."""
    with ProcessPoolExecutor(1) as processes:
        results = run_many(["true"] + [f"echo x >> {tmp_path}/started; sleep 1"] * 9, executor=processes, batch=1)
        next(results)
        results.close()
    assert not (tmp_path / "started").exists() or (tmp_path / "started").read_text().count("x") <= 4


def test_an_exception_of_the_callers(pool: Executor) -> None:
    """What on_output raises in a worker is raised here."""
    with pytest.raises(ZeroDivisionError):
        list(run_many(["echo x"], executor=pool, on_output=_divide))
    with pytest.raises(CommandError):
        list(run_many(["false"], executor=pool, check=True))
    with pytest.raises(ValueError, match=r"cmds\[1\]"):
        list(run_many(["true", []], executor=pool))


def _divide(stream: str, data: bytes) -> None:
    raise ZeroDivisionError


def test_what_cannot_be_sent_is_a_wrong_call(tmp_path: Path) -> None:
    """A descriptor means nothing in another process; a function that can't be pickled is none there."""
    with ProcessPoolExecutor(1) as processes, open(tmp_path / "file", "w+b") as file:
        for options in ({"stdout": file}, {"stdin": 0}, {"input": file}, {"pass_fds": [file.fileno()]}):
            with pytest.raises(ValueError, match="can't be sent"):
                list(run_many(["true"], executor=processes, **options))
        with pytest.raises(TypeError, match="can't be sent"):
            list(run_many(["true"], executor=processes, on_output=lambda stream, data: None))


def test_a_lost_task_is_unknown() -> None:
    """A worker that dies takes its pool along: each command has its Result all the same."""
    with ProcessPoolExecutor(1) as processes:
        results = list(run_many(["kill -9 $PPID", "echo x", "echo y"], executor=processes, jobs=1, **ALONE))
    assert sorted(r.position or 0 for r in results) == [0, 1, 2]
    lost = [r for r in results if r.outcome is Outcome.UNKNOWN]
    assert 0 in [r.position for r in lost]
    assert all((r.code, r.out, r.err) == (125, "", "") and not r.ok for r in lost)
    assert all("may have run or not" in str(r.error) for r in lost)


def test_an_executor_that_refuses() -> None:
    """Shut down, it loses everything."""
    threads = ThreadPoolExecutor(1)
    threads.shutdown()
    (result,) = run_many([["true"]], executor=threads)
    assert (result.code, result.outcome) == (125, Outcome.UNKNOWN)
    assert (result.contained, result.usage, result.autopsy, result.held) == (None, None, (), ())


def test_a_cancelled_task_is_unknown() -> None:
    """Whoever cancels it."""

    class Cancelling(Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.cancel()
            return future

    results = list(run_many(["true", "true"], executor=Cancelling()))
    assert [r.outcome for r in results] == [Outcome.UNKNOWN] * 2


# ---- a cluster ----

CLUSTER = """
import json, logging, sys
from distributed import Client, LocalCluster
from childproof import run_many
from childproof._spawner import PORTABLE

def at_most_once(claim, cmd):
    return ["sh", "-c", 'mkdir -- "$0" || exit 75; exec "$@"', claim, *cmd]

def main(folder):
    answers = {}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL) as local,
        Client(local) as client,
        client.get_executor() as executor,
    ):
        results = list(run_many(["echo $$"] * 20 + ["exit 3"], executor=executor, order="given"))
        answers["positions"] = [result.position for result in results]
        answers["pids"] = len({result.out for result in results[:20]})
        answers["code"] = results[20].code
        killer = f"echo x >> {folder}/repeated; kill -9 $PPID"
        (lost,) = run_many([killer], executor=executor, die_with_parent=False)
        answers["lost"] = [lost.code, lost.outcome.name, str(lost.error)]
        killer = ["sh", "-c", f"echo x >> {folder}/once; kill -9 $PPID"]
        (again,) = run_many([at_most_once(f"{folder}/claim", killer)], executor=executor, die_with_parent=False)
        answers["again"] = again.code
        if not PORTABLE:  # which has no supervisor, and so it would outlive its worker
            worker = "$(sed -n 's/^PPid://p' /proc/$PPID/status)"
            (orphan,) = run_many([f"echo $$ >> {folder}/orphans; kill -9 {worker}; sleep 600"], executor=executor)
            answers["orphan"] = [orphan.code, orphan.outcome.name]
    print(json.dumps(answers))

if __name__ == "__main__":
    main(sys.argv[1])
"""


def test_a_dask_cluster(tmp_path: Path) -> None:
    """One Result a command; a task is run again when its worker is lost, and given up at last; the
    recipe of docs/many.md makes that at most once.
    """
    script = tmp_path / "cluster.py"
    script.write_text(CLUSTER)
    result = childproof.run([sys.executable, script, tmp_path], timeout=120, leftovers="kill")
    assert result.code == 0, result.err[-3000:]
    answers = json.loads(result.out.splitlines()[-1])
    assert answers["positions"] == list(range(21))
    assert (answers["pids"], answers["code"]) == (20, 3)
    assert answers["lost"][:2] == [125, "UNKNOWN"]
    assert "KilledWorker" in answers["lost"][2]
    assert (tmp_path / "repeated").read_text().count("x") > 1, "at least once"
    assert answers["again"] == 75
    assert (tmp_path / "once").read_text().count("x") == 1
    if not _spawner.PORTABLE:
        assert answers["orphan"] == [125, "UNKNOWN"]
        orphans = [int(pid) for pid in (tmp_path / "orphans").read_text().split()]
        assert orphans
        assert wait_until(lambda: not any(map(is_alive, orphans))), "they die with their worker"


def test_the_recipe_is_that_of_the_docs() -> None:
    """What is tested above is what stands there."""
    text = (Path(__file__).parents[1] / "docs" / "many.md").read_text()
    assert """["sh", "-c", 'mkdir -- "$0" || exit 75; exec "$@"', claim, *cmd]""" in text
