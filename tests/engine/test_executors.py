"""The contract of every executor, and the supervision of worker processes with real deaths."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from curator.core.errors import CuratorError, DamageError, EngineError
from curator.engine.executors import STOP_GRACE_SEC, Done, Executor, Failed, local
from curator.engine.executors.local import InlineExecutor, ProcessExecutor
from tests.kit.paths import ROOT

STALL_SEC = 10.0  # what hangs, hangs for an hour; what does not answers in time on a busy machine
CRASH, HANG, BAD_BYTES, SLOW = -1, -2, -3, -4


class Doubling:
    """Doubles numbers; some numbers take the process down, or time."""

    def __init__(self, log: Path | None = None) -> None:
        self._log = log

    def __call__(self, items: Sequence[int]) -> list[int]:
        self._note("batch", items)
        for item in items:
            if item in (CRASH, BAD_BYTES):
                os.kill(os.getpid(), signal.SIGKILL)
            if item == HANG:
                time.sleep(3600)
            if item == SLOW:
                time.sleep(1)
        return [2 * item for item in items]

    def prefetch(self, items: Sequence[int]) -> None:
        self._note("prefetch", items)

    def _note(self, what: str, items: Sequence[int]) -> None:
        if self._log is not None:
            with self._log.open("a") as file:
                file.write(f"{what} {' '.join(map(str, items))}\n")


class Logging:
    """Builds the work; picklable, as builders must be."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def __call__(self) -> Doubling:
        with self._log.open("a") as file:
            file.write(f"build {os.getpid()}\n")
        return Doubling(self._log)


def no_model() -> Doubling:
    raise EngineError("the model is not there", hint="name a folder", reason="engine.no_model")


def source_changed(items: Sequence[int]) -> list[int]:
    raise DamageError("the image is another one", where="x.tar", reason="source.changed")


def build_source_changed() -> Callable[[Sequence[int]], list[int]]:
    return source_changed


class Expecting:
    """Says whether each batch is the one that was prefetched before it, if any was."""

    def __init__(self) -> None:
        self._now: list[int] | None = None
        self._next: list[int] | None = None

    def prefetch(self, items: Sequence[int]) -> None:
        self._next = list(items)

    def __call__(self, items: Sequence[int]) -> list[int]:
        is_expected = self._now in (None, list(items))
        self._now, self._next = self._next, None
        return [is_expected] * len(items)


def threads_of_torch(items: Sequence[int]) -> list[int]:
    """How many threads models compute with in this process."""
    import torch

    return [torch.get_num_threads() for _ in items]


def build_threads_of_torch() -> Callable[[Sequence[int]], list[int]]:
    return threads_of_torch


def probe(item: int) -> None:
    """What can go wrong before any model is asked: the bytes themselves."""
    if item == BAD_BYTES:
        os.kill(os.getpid(), signal.SIGKILL)


def never() -> bool:
    return False


def run(
    executor: Executor,
    batches: Sequence[Sequence[int]],
    build: Callable[[], Callable[[Sequence[int]], list[int]]] = Doubling,
    stop: Callable[[], bool] = never,
) -> list[list[Done[int, int] | Failed[int]]]:
    return list(executor.run(build, batches, probe=probe, stop=stop))


@pytest.mark.parametrize(("set_by_user", "threads"), [(None, 2), ("1", 1)])
def test_worker_processes_share_the_cores(
    monkeypatch: pytest.MonkeyPatch, set_by_user: str | None, threads: int
) -> None:
    """Each with all of them spins for the others: 8 captions a second instead of 75."""
    monkeypatch.setattr(local, "num_cores", lambda: 5)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if set_by_user is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", set_by_user)
    found = run(ProcessExecutor(num_workers=2), [[1], [2], [3], [4]], build_threads_of_torch)
    assert [done.result for batch in found for done in batch] == [threads] * 4


@pytest.fixture(params=[InlineExecutor, ProcessExecutor])
def executor(request: pytest.FixtureRequest) -> Executor:
    made: Executor = request.param()
    return made


@pytest.fixture
def processes() -> ProcessExecutor:
    return ProcessExecutor(1, STALL_SEC)


# The contract


def test_one_outcome_an_item_batch_by_batch_in_order(executor: Executor) -> None:
    outcomes = run(executor, [[1, 2], [3], [4, 5, 6]])
    assert outcomes == [
        [Done(1, 2), Done(2, 4)],
        [Done(3, 6)],
        [Done(4, 8), Done(5, 10), Done(6, 12)],
    ]


def test_nothing_to_do_builds_nothing(executor: Executor) -> None:
    assert run(executor, [], no_model) == []


def test_the_source_is_read_as_it_is_needed(executor: Executor) -> None:
    # A million items are never listed: only a few batches lie ahead of what came back.
    handed_out = 0

    def batches() -> Iterator[list[int]]:
        nonlocal handed_out
        for number in range(100):
            handed_out += 1
            yield [number]

    for done, _ in enumerate(executor.run(Doubling, batches(), probe=probe, stop=never)):
        assert handed_out <= done + 5


@pytest.mark.parametrize("build", [no_model, build_source_changed])
def test_errors_of_the_engine_arrive_as_they_are(
    executor: Executor, build: Callable[[], Callable[[Sequence[int]], list[int]]]
) -> None:
    with pytest.raises(CuratorError) as caught:
        run(executor, [[1], [2]], build)
    error = caught.value
    if build is no_model:
        assert (error.code, error.reason, error.hint) == (30, "engine.no_model", "name a folder")
        assert str(error) == "the model is not there; name a folder"
    else:
        assert (error.code, error.reason, error.where) == (12, "source.changed", "x.tar")


def test_after_a_stop_nothing_new_is_begun(executor: Executor) -> None:
    outcomes: list[object] = []

    def stop() -> bool:
        return len(outcomes) >= 2

    for batch in executor.run(Doubling, [[n] for n in range(50)], probe=probe, stop=stop):
        outcomes.append(batch)
    # what was in flight may still come back, and comes back whole
    assert 2 <= len(outcomes) <= 5
    assert outcomes == [[Done(n, 2 * n)] for n in range(len(outcomes))]


def test_prefetch_is_told_the_next_batch(tmp_path: Path) -> None:
    log = tmp_path / "log"
    run(ProcessExecutor(1, 60.0), [[1, 2], [3], [4]], Logging(log))
    lines = log.read_text().splitlines()
    assert lines[0].startswith("build ")
    assert lines[1:] == ["prefetch 3", "batch 1 2", "prefetch 4", "batch 3", "batch 4"]


@pytest.mark.parametrize("num_batches", [1, 2, 7, 30])
def test_a_worker_gets_the_batch_that_it_prefetched(num_batches: int) -> None:
    """What another worker got would stay in memory: 50 KB a caption of a small picture did."""
    batches = [[number, -10 - number] for number in range(num_batches)]
    found = run(ProcessExecutor(3, 60.0), batches, Expecting)
    done = [one.item for outcomes in found for one in outcomes]
    assert sorted(done) == sorted(item for batch in batches for item in batch)
    assert all(one.result for outcomes in found for one in outcomes)


def test_one_model_a_worker_and_every_worker_works(tmp_path: Path) -> None:
    log = tmp_path / "log"
    outcomes = run(ProcessExecutor(2, 60.0), [[SLOW], [SLOW], [3], [4]], Logging(log))
    assert sorted(done.item for batch in outcomes for done in batch) == [SLOW, SLOW, 3, 4]
    builders = [line for line in log.read_text().splitlines() if line.startswith("build")]
    assert len(builders) == len(set(builders)) == 2


# Deaths


def test_a_crash_costs_its_item_alone(processes: ProcessExecutor) -> None:
    outcomes = run(processes, [[1, 2], [3, CRASH, 4], [5]])
    assert outcomes[0] == [Done(1, 2), Done(2, 4)]
    assert outcomes[2] == [Done(5, 10)]
    before, crashed, behind = outcomes[1]
    assert (before, behind) == (Done(3, 6), Done(4, 8))
    assert isinstance(crashed, Failed)
    assert (crashed.item, crashed.crashed, crashed.in_probe) == (CRASH, True, False)
    assert "died (exit code -9)" in crashed.detail


def test_bytes_that_crash_the_decoder_are_no_fault_of_the_model(processes: ProcessExecutor) -> None:
    failed = run(processes, [[1], [BAD_BYTES], [2]])[1][0]
    assert isinstance(failed, Failed)
    assert (failed.crashed, failed.in_probe) == (True, True)


def test_a_stall_costs_its_item_alone(processes: ProcessExecutor) -> None:
    outcomes = run(processes, [[1], [HANG], [2]])
    assert (outcomes[0], outcomes[2]) == ([Done(1, 2)], [Done(2, 4)])
    failed = outcomes[1][0]
    assert isinstance(failed, Failed)
    assert (failed.item, failed.crashed, failed.in_probe) == (HANG, False, False)
    assert failed.detail == f"the worker process did not answer for {STALL_SEC:.0f} s"


def test_an_engine_that_always_dies_is_restarted_three_times(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(EngineError, match=r"died .exit code -9., 4 times in a row") as caught:
        run(ProcessExecutor(1, 60.0), [[CRASH]] * 10, Logging(log))
    assert (caught.value.code, caught.value.reason) == (30, "engine.crashed")
    assert "all stored facts are kept; try --batch-size 1" in str(caught.value)


def test_a_good_batch_in_between_starts_the_count_again(processes: ProcessExecutor) -> None:
    outcomes = run(processes, [[CRASH], [1], [CRASH], [2], [CRASH], [3], [CRASH], [4], [CRASH]])
    assert [type(batch[0]) for batch in outcomes] == [Failed, Done] * 4 + [Failed]


def test_a_stop_while_a_worker_hangs_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "STOP_GRACE_SEC", 1.0)
    began = time.monotonic()

    def stop() -> bool:
        return time.monotonic() - began > 1.5

    # It ends although the worker would hang for an hour; users are promised 15 s.
    assert run(ProcessExecutor(1, 600.0), [[HANG], [1]], stop=stop) == []


def test_a_stop_waits_less_than_users_are_promised() -> None:
    assert STOP_GRACE_SEC < 15


def test_leaving_early_ends_the_workers(tmp_path: Path) -> None:
    log = tmp_path / "log"
    outcomes = ProcessExecutor(1, 60.0).run(
        Logging(log), [[1], [HANG], [2]], probe=probe, stop=never
    )
    assert next(outcomes) == [Done(1, 2)]
    outcomes.close()  # type: ignore[attr-defined]  # a generator, as the port says Iterator
    pid = int(log.read_text().split()[1])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


_CTRL_C = """
import sys
from tests.engine.test_executors import SLOW, Doubling, never, probe
from curator.engine.executors.local import InlineExecutor, ProcessExecutor
import signal
signal.signal(signal.SIGINT, lambda *_: None)  # as curator.core.stopping does in the parent
if __name__ == "__main__":
    batches = [[1], [SLOW], [SLOW], [2]]
    for batch in ProcessExecutor(1, 60.0).run(Doubling, batches, probe=probe, stop=never):
        print([outcome.result for outcome in batch], flush=True)
"""


def test_ctrl_c_reaches_the_whole_group_and_the_workers_ignore_it(tmp_path: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text(_CTRL_C)
    root = ROOT
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
        start_new_session=True,  # a group of its own, as under a terminal
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "[2]\n"  # the worker is at work on the next one
    os.killpg(process.pid, signal.SIGINT)
    said, errors = process.communicate()
    assert (said.splitlines(), process.returncode) == (["[-8]", "[-8]", "[4]"], 0), errors
    assert "KeyboardInterrupt" not in errors
