"""The executor on Ray, on a cluster of this machine with two nodes: what dies costs only itself."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curator.core.errors import CuratorError, EngineError, UsageError
from curator.core.run_options import RunOptions
from curator.core.stopping import StopRequest
from curator.demo.bundled import bundled_model
from curator.engine.executors import Done, Failed
from curator.engine.executors.on_ray import RayExecutor, connected
from finetune.study.jobs_on_ray import on_ray
from finetune.study.run import run_study
from tests.engine.test_executors import (
    BAD_BYTES,
    CRASH,
    HANG,
    Doubling,
    Expecting,
    Logging,
    build_source_changed,
    never,
    no_model,
    run,
)
from tests.kit.cli import curator
from tests.kit.study import SMALL, FakeRunner, study
from tests.kit.study import run as run_here
from tests.kit.study_worker import runner_on_node

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray.*"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # ray's own processes, at their end
]
pytest.importorskip("ray", reason="needs the extra ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with connected(made.address):
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN  # Ray sets a handler of its own
        signal.signal(signal.SIGTERM, before)
        yield made
    made.shutdown()


@pytest.fixture
def second(cluster: Any) -> Iterator[Any]:
    node = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    yield node
    if node in cluster.list_all_nodes():
        cluster.remove_node(node)


def sorted_results(outcomes: Sequence[Sequence[Any]]) -> list[int]:
    return sorted(one.result for batch in outcomes for one in batch)


@pytest.mark.usefixtures("cluster")
def test_one_outcome_an_item_batch_by_batch_in_order() -> None:
    outcomes = run(RayExecutor(), [[1, 2], [3], [4, 5, 6]])
    assert outcomes == [
        [Done(1, 2), Done(2, 4)],
        [Done(3, 6)],
        [Done(4, 8), Done(5, 10), Done(6, 12)],
    ]
    assert run(RayExecutor(), [], no_model) == []


@pytest.mark.usefixtures("cluster")
def test_a_worker_gets_the_batch_that_it_prefetched() -> None:
    found = run(RayExecutor(2), [[n, -10 - n] for n in range(12)], Expecting)
    assert sum(len(batch) for batch in found) == 24
    assert all(one.result for batch in found for one in batch)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("build", [no_model, build_source_changed])
def test_errors_of_the_engine_arrive_as_they_are(
    build: Callable[[], Callable[[Sequence[int]], list[int]]],
) -> None:
    with pytest.raises(CuratorError) as caught:
        run(RayExecutor(), [[1], [2]], build)
    if build is no_model:
        assert str(caught.value) == "the model is not there; name a folder"
        assert (caught.value.code, caught.value.reason) == (30, "engine.no_model")
    else:
        assert (caught.value.code, caught.value.where) == (12, "x.tar")


@pytest.mark.usefixtures("cluster")
def test_the_source_is_read_as_it_is_needed_and_a_stop_begins_nothing_new() -> None:
    handed_out, seen = 0, 0

    def batches() -> Iterator[list[int]]:
        nonlocal handed_out
        for number in range(100):
            handed_out += 1
            yield [number]

    def stop() -> bool:
        return seen >= 3

    for _ in RayExecutor().run(Doubling, batches(), probe=abs, stop=stop):
        seen += 1
        assert handed_out <= seen + 4
    assert 3 <= seen <= 6


@pytest.mark.usefixtures("cluster")
def test_a_crash_costs_its_item_alone(tmp_path: Path) -> None:
    log = tmp_path / "log"
    outcomes = run(RayExecutor(), [[1, 2], [3, CRASH, 4], [5]], Logging(log))
    failed = [one for batch in outcomes for one in batch if isinstance(one, Failed)]
    assert [(one.item, one.crashed, one.in_probe) for one in failed] == [(CRASH, True, False)]
    done = [one for batch in outcomes for one in batch if isinstance(one, Done)]
    assert sorted(one.item for one in done) == [1, 2, 3, 4, 5]
    # The batch, and the item alone: an item that kills one actor may have been unlucky.
    assert log.read_text().count(f"batch {CRASH}\n") == 1


@pytest.mark.usefixtures("cluster")
def test_bytes_that_crash_the_decoder_are_no_fault_of_the_model() -> None:
    outcomes = run(RayExecutor(), [[1], [BAD_BYTES], [2]])
    (failed,) = [one for batch in outcomes for one in batch if isinstance(one, Failed)]
    assert (failed.item, failed.crashed, failed.in_probe) == (BAD_BYTES, True, True)


@pytest.mark.usefixtures("cluster")
def test_a_stall_costs_its_item_alone() -> None:
    outcomes = run(RayExecutor(1, 5.0), [[1], [HANG], [2]])
    (failed,) = [one for batch in outcomes for one in batch if isinstance(one, Failed)]
    assert (failed.item, failed.crashed, failed.in_probe) == (HANG, False, False)
    assert failed.detail == "the worker process did not answer for 5 s"
    assert sorted(one.item for b in outcomes for one in b if isinstance(one, Done)) == [1, 2]


@pytest.mark.usefixtures("cluster")
def test_an_engine_that_always_dies_ends_the_run() -> None:
    with pytest.raises(EngineError, match="the worker process died, 4 times in a row") as caught:
        run(RayExecutor(), [[CRASH]] * 10)
    assert (caught.value.code, caught.value.reason) == (30, "engine.crashed")


def test_a_node_that_dies_costs_nothing(cluster: Any, second: Any) -> None:
    """Four actors on two nodes; one node is killed when work is under way on both."""
    killed = False
    outcomes = []
    batches = [[number, number + 1000] for number in range(60)]
    for batch in RayExecutor(4).run(Slowly, batches, probe=abs, stop=never):
        outcomes.append(batch)
        if not killed and len(outcomes) == 12:
            cluster.remove_node(second, allow_graceful=False)
            killed = True
    assert killed
    done = [one for batch in outcomes for one in batch]
    assert all(isinstance(one, Done) for one in done)
    assert sorted(one.item for one in done) == sorted(item for batch in batches for item in batch)


def test_a_worker_without_room_joins_when_a_node_is_added(cluster: Any, tmp_path: Path) -> None:
    log, node = tmp_path / "log", None
    outcomes = []
    builders: set[str] = set()
    for batch in RayExecutor(3).run(LoggingSlowly(log), numbers(log), probe=abs, stop=never):
        outcomes.append(batch)
        if node is None and len(outcomes) == 4:
            node = cluster.add_node(num_cpus=1)
        builders = {line for line in log.read_text().splitlines() if line.startswith("build")}
    assert node is not None
    cluster.remove_node(node)
    assert len(builders) == 3
    assert sorted_results(outcomes) == [2 * number for number in range(len(outcomes))]


def numbers(log: Path) -> Iterator[list[int]]:
    """Batches until three workers have been at work, whatever time that takes."""
    for number in range(10_000):
        yield [number]
        if log.exists() and log.read_text().count("build") == 3 and number > 20:
            return


class Slowly(Doubling):
    def __call__(self, items: Sequence[int]) -> list[int]:
        time.sleep(0.05)
        return super().__call__(items)


class LoggingSlowly(Logging):
    def __call__(self) -> Doubling:
        super().__call__()
        return Slowly()


# -- commands, with the models of the demo ---------------------------------------------------------


def facts_of(store: Path) -> pl.DataFrame:
    """All facts of a store but for the time they were made."""
    tables = [pl.read_parquet(path) for path in sorted(store.glob("facts/**/*.parquet"))]
    return pl.concat(tables, how="diagonal").drop("created").sort(pl.all())


@pytest.mark.usefixtures("cluster")
def test_two_machines_find_what_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # An actor of one CPU computes with one thread; with two, the last digits of scores differ.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    world = tmp_path / "world"
    curator("demo", "data", world, "--images", 40, "--labelled", 20)
    shards = world / "shards"
    local, ray = tmp_path / "local", tmp_path / "ray"
    options = (
        "--scorer",
        bundled_model("scorer"),
        "--captioner",
        "local",
        "--prompt",
        "kinds",
        "--model",
        bundled_model("captioner"),
        "--policy",
        "best",
        "--batch-size",
        8,
    )
    assert curator("recaption", shards, *options, "--store", local).code == 0
    far = ("--executor", "ray", "--workers", 2)
    assert curator("recaption", shards, *options, "--store", ray, *far).code == 0
    assert facts_of(ray).equals(facts_of(local))


@pytest.mark.usefixtures("cluster")
def test_a_study_on_two_machines_finds_what_one_process_finds(tmp_path: Path) -> None:
    run_here(study(SMALL), tmp_path / "one")
    with on_ray(runner_on_node, {}, 2, None) as jobs:
        summary = run_study(
            study(SMALL), tmp_path / "two", runner=FakeRunner(), stop=StopRequest(), jobs=jobs
        )
    assert summary.num_done == summary.num_cells
    drop = ("seconds", "finished_at")
    one, two = (
        pl.read_parquet(tmp_path / name / "results.parquet")
        .drop(*drop, strict=False)
        .sort(pl.all())
        for name in ("one", "two")
    )
    assert two.equals(one)
    with on_ray(runner_on_node, {"fails": ("pretraining, a",)}, 2, None) as jobs:
        summary = run_study(
            study(SMALL), tmp_path / "bad", runner=FakeRunner(), stop=StopRequest(), jobs=jobs
        )
    assert (summary.num_done, summary.num_failed, summary.num_blocked) == (4, 2, 2)


def test_options_of_ray_without_ray() -> None:
    with pytest.raises(UsageError, match="--gpus works only with --executor ray"):
        RunOptions(gpus=0.5)


def test_a_cluster_that_is_not_there_is_an_error_with_a_next_step() -> None:
    import ray

    if ray.is_initialized():
        ray.shutdown()
    with pytest.raises(EngineError, match="no Ray cluster can be used") as caught:
        run(RayExecutor(address="127.0.0.1:1"), [[1]])
    assert "--ray-address" in str(caught.value)
