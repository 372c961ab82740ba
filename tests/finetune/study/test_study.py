"""The runner of studies: missing cells only, whatever happened before, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from curator.core.errors import (
    ConflictError,
    DamageError,
    EngineError,
    StoppedError,
    StorageError,
    UsageError,
)
from curator.core.stopping import StopRequest
from curator.store import parquet
from curator.store.fsops import locked
from finetune.study.cells import DenseCell, PretrainCell, SweepCell
from finetune.study.files import read_cells, read_plan
from finetune.study.jobs import workers
from finetune.study.one_cell import MAX_HISTORY, thinned
from finetune.study.plan import make_plan
from finetune.study.results import FILE_NAME, RESULTS_SCHEMA
from finetune.study.run import run_study, time_left
from tests.kit.paths import ROOT
from tests.kit.study import SMALL, STUDY, FakeRunner, run, study
from tests.kit.study_worker import runner_of_job

NUM_SMALL = 2 * 2 * 2  # two arms, two seeds, pretraining and depth


def results(out: Path) -> pl.DataFrame:
    return parquet.read(out / FILE_NAME, RESULTS_SCHEMA)


# -- the plan --------------------------------------------------------------------------------------


def test_cells_of_a_study() -> None:
    cells = make_plan(study(seeds="2"), FakeRunner()).cells
    pretrained = [cell for cell in cells if isinstance(cell, PretrainCell)]
    swept = [cell for cell in cells if isinstance(cell, SweepCell)]
    dense = [cell for cell in cells if isinstance(cell, DenseCell)]
    assert len(pretrained) == 5 * 2 * 2  # arms with data, rungs, seeds
    assert len(swept) == 6  # arms; depth has one rate
    # Every fraction on the largest rung and on random weights, all labels on the smaller rung.
    assert len(dense) == 2 * (6 * (4 + 2) + 5 * 2)
    assert len({cell.digest for cell in cells}) == len(cells)
    assert {cell.seed for cell in swept} == {0}
    assert {cell.budget for cell in dense if cell.arm == "random"} == {None}


def test_seeds_come_one_after_the_other_and_sweeps_before_their_runs() -> None:
    cells = make_plan(study(), FakeRunner()).cells
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)
    seen: set[str] = set()
    for cell in cells:
        seen.add(cell.digest)
        if isinstance(cell, DenseCell) and cell.sweep is not None:
            assert cell.sweep.digest in seen
        if not isinstance(cell, PretrainCell) and cell.backbone.cell is not None:
            assert cell.backbone.cell.digest in seen


@pytest.mark.parametrize(("asked", "taken"), [(2, {0, 1}), (9, {0, 1, 2, 3, 4})])
def test_an_arm_may_take_fewer_seeds_than_the_study(asked: int, taken: set[int]) -> None:
    text = STUDY.replace('control = "shuffled"', f'control = "shuffled"\nseeds = {asked}')
    cells = make_plan(study(text), FakeRunner()).cells
    seeds = {cell.arm: set[int]() for cell in cells}
    for cell in cells:
        seeds[cell.arm].add(cell.seed)
    assert seeds.pop("shuffled") == taken
    assert all(found == {0, 1, 2, 3, 4} for found in seeds.values())
    assert {cell.digest for cell in cells} <= digests(STUDY)


def test_a_costly_task_may_be_run_on_some_arms_only() -> None:
    text = STUDY.replace('task = "depth"', 'task = "depth"\narms = ["noisy", "random"]')
    cells = make_plan(study(text), FakeRunner()).cells
    run_on: dict[str, set[str]] = {}
    for cell in cells:
        if isinstance(cell, DenseCell):
            run_on.setdefault(cell.task.title, set()).add(cell.arm)
    assert run_on["depth"] == {"noisy", "random"}
    assert len(run_on["segmentation"]) == 6
    assert {cell.digest for cell in cells} < digests(STUDY)


def digests(text: str, runner: FakeRunner | None = None) -> set[str]:
    return {cell.digest for cell in make_plan(study(text), runner or FakeRunner()).cells}


def test_a_changed_recipe_makes_new_cells_and_leaves_the_others() -> None:
    before = digests(SMALL)
    other_lr = FakeRunner()
    other_lr.recipes["lr"] = 0.01
    assert not before & digests(SMALL, other_lr)
    # Only arm b changes: half of the cells stay.
    changed = SMALL.replace("shards@v2", "shards@v3")
    assert len(before & digests(changed)) == NUM_SMALL // 2
    # Another name, another seed more: what was there stays.
    assert digests(SMALL.replace('"b"', '"better"')) == before
    assert digests(SMALL.replace("seeds = 2", "seeds = 3")) > before
    # Other options of the task: pretraining stays.
    assert len(before & digests(SMALL.replace("32, 32", "64, 64"))) == NUM_SMALL // 2


def test_the_recipe_of_an_arm() -> None:
    plan = make_plan(study(), FakeRunner())
    by_arm = {cell.arm: cell for cell in plan.cells if isinstance(cell, PretrainCell)}
    assert by_arm["masked images"].recipe["objective"] == "simmim"
    assert by_arm["shuffled"].recipe["control"] == "shuffled"
    assert by_arm["noisy"].recipe["batch_size"] == 128
    assert by_arm["noisy"].recipe["seed"] == 4
    random = next(c for c in plan.cells if isinstance(c, DenseCell) and c.arm == "random")
    assert random.backbone.spec == "random:tiny-conv"


def test_equal_flops() -> None:
    text = SMALL.replace('baseline = "a"', 'baseline = "a"\nmatch = "flops"')
    text = text.replace('data = "shards@v2"', 'data = "shards@v2"\nobjective = "mae"')
    cells = [c for c in make_plan(study(text), FakeRunner()).cells if isinstance(c, PretrainCell)]
    # MAE costs 1.0e9 a sample and CLIP 1.5e9, so it sees half as many samples again.
    seen = {cell.arm: cell.recipe["samples_seen"] for cell in cells}
    assert seen == {"a": 1000, "b": 1500}
    assert {cell.budget for cell in cells} == {1000}


def test_equal_flops_to_what() -> None:
    text = SMALL.replace('data = "shards@v1"', 'backbone = "random"')
    text = text.replace('baseline = "a"', 'baseline = "a"\nmatch = "flops"')
    with pytest.raises(UsageError, match="needs a baseline that is pretrained"):
        make_plan(study(text), FakeRunner())


# -- running ---------------------------------------------------------------------------------------


def test_a_study_runs_once(tmp_path: Path) -> None:
    runner = FakeRunner()
    summary = run(study(SMALL), tmp_path / "out", runner)
    assert (summary.num_cells, summary.num_done, summary.num_reused) == (NUM_SMALL, NUM_SMALL, 0)
    assert len(runner.calls) == NUM_SMALL
    table = results(tmp_path / "out")
    assert table.filter(pl.col("metric") == "RMSE").height == 4  # two arms, two seeds
    assert table["task"].unique().sort().to_list() == ["depth", "retrieval"]
    row = table.filter((pl.col("metric") == "RMSE") & (pl.col("arm") == "b")).row(0, named=True)
    assert (row["pretrain_samples"], row["num_train"], row["higher_is_better"]) == (
        1000,
        240,
        False,
    )
    again = FakeRunner()
    assert run(study(SMALL), tmp_path / "out", again).num_reused == NUM_SMALL
    assert again.calls == []


def test_only_what_is_missing_is_run(tmp_path: Path) -> None:
    run(study(SMALL), tmp_path / "out")
    gone = next(
        cell["digest"]
        for cell in read_plan(tmp_path / "out")["cells"]
        if cell["label"] == "depth, b, seed 1, 1,000 samples, 100 % of the labels"
    )
    (tmp_path / "out" / "cells" / f"{gone}.json").unlink()
    runner = FakeRunner()
    run(study(SMALL), tmp_path / "out", runner)
    assert runner.calls == ["depth, b, seed 1, 1,000 samples, 100 % of the labels"]
    # One seed more: its four cells and no other. The table holds all of them.
    more = FakeRunner()
    run(study(SMALL, seeds="3"), tmp_path / "out", more)
    assert len(more.calls) == 4
    assert all("seed 2" in label for label in more.calls)
    assert results(tmp_path / "out")["seed"].unique().sort().to_list() == [0, 1, 2]


def test_pretrainings_alone_and_the_rest_later(tmp_path: Path) -> None:
    runner = FakeRunner()
    first = run(study(SMALL), tmp_path / "out", runner, pretrain_only=True)
    assert [label.split(",")[0] for label in runner.calls] == ["pretraining"] * 4
    assert (first.num_done, first.num_cells) == (4, NUM_SMALL)
    rest = run(study(SMALL), tmp_path / "out", runner)
    assert (rest.num_done, rest.num_reused, len(runner.calls)) == (NUM_SMALL, 4, NUM_SMALL)


def test_cells_of_an_earlier_recipe_stay_out_of_the_table(tmp_path: Path) -> None:
    run(study(SMALL), tmp_path / "out")
    old = results(tmp_path / "out")["config_digest"].to_list()
    other = FakeRunner()
    other.recipes["lr"] = 0.01
    run(study(SMALL), tmp_path / "out", other)
    new = results(tmp_path / "out")["config_digest"].to_list()
    assert not set(old) & set(new)
    assert len(read_cells(tmp_path / "out")) == 2 * NUM_SMALL
    # Back to the first recipe: nothing is run.
    back = FakeRunner()
    run(study(SMALL), tmp_path / "out", back)
    assert back.calls == []
    assert results(tmp_path / "out")["config_digest"].to_list() == old


def test_a_failed_cell_keeps_its_reason_and_the_study_goes_on(tmp_path: Path) -> None:
    runner = FakeRunner(fails=("pretraining, b, seed 0",))
    summary = run(study(SMALL), tmp_path / "out", runner)
    assert (summary.num_failed, summary.num_blocked) == (1, 1)
    assert summary.num_done == NUM_SMALL - 2
    assert "no memory for pretraining, b, seed 0" in summary.reasons[0]
    failed = [c for c in read_cells(tmp_path / "out").values() if c["status"] == "failed"]
    assert [record["error"]["reason"] for record in failed] == ["engine"]
    # The next call tries the failed one again, and then what waited for it.
    again = FakeRunner()
    assert run(study(SMALL), tmp_path / "out", again).num_done == NUM_SMALL
    assert len(again.calls) == 2


def test_any_exception_is_the_failure_of_its_cell(tmp_path: Path) -> None:
    class Broken(FakeRunner):
        def at_cell(self, label: str) -> None:
            super().at_cell(label)
            if label.startswith("depth, a"):
                raise RuntimeError("CUDA out of memory")

    assert run(study(SMALL), tmp_path / "out", Broken()).num_failed == 2
    record = next(c for c in read_cells(tmp_path / "out").values() if c["status"] == "failed")
    assert record["error"]["reason"] == "RuntimeError"
    assert "at_cell" in record["error"]["traceback"]


def test_a_full_disk_is_nobodys_failure(tmp_path: Path) -> None:
    class Full(FakeRunner):
        def at_cell(self, label: str) -> None:
            raise StorageError("no space")

    with pytest.raises(StorageError):
        run(study(SMALL), tmp_path / "out", Full())
    assert read_cells(tmp_path / "out") == {}


def test_a_metric_that_is_no_number_is_a_failure(tmp_path: Path) -> None:
    class Blind(FakeRunner):
        def finetune(self, *args: object, **more: object) -> object:
            outcome = super().finetune(*args, **more)
            outcome.metrics["RMSE"] = float("nan")
            return outcome

    summary = run(study(SMALL), tmp_path / "out", Blind())
    assert summary.num_failed == 4
    assert "RMSE is nan" in summary.reasons[0]


def test_a_stop_keeps_what_is_finished(tmp_path: Path) -> None:
    stop = StopRequest()

    class Stopping(FakeRunner):
        def at_cell(self, label: str) -> None:
            super().at_cell(label)
            if len(self.calls) == 3:
                stop.signum = signal.SIGINT

    with pytest.raises(StoppedError):
        run_study(study(SMALL), tmp_path / "out", runner=Stopping(), stop=stop)
    assert len(read_cells(tmp_path / "out")) == 3
    assert results(tmp_path / "out").height > 0  # the table is there after a stop, too
    again = FakeRunner()
    assert run(study(SMALL), tmp_path / "out", again).num_done == NUM_SMALL
    assert len(again.calls) == NUM_SMALL - 3


def start_worker(out: Path, *more: str, **environment: str) -> subprocess.Popen[str]:
    """A process that runs the small study in `out`."""
    root = str(ROOT)
    return subprocess.Popen(
        [sys.executable, "-m", "tests.kit.study_worker", str(out), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": root} | environment,
        text=True,
    )


# -- side by side ----------------------------------------------------------------------------------


def values(out: Path) -> pl.DataFrame:
    return results(out).drop("seconds", "finished_at", strict=False).sort(pl.all())


def test_two_at_a_time_find_the_same(tmp_path: Path) -> None:
    run(study(), tmp_path / "one")
    with workers(runner_of_job, {}, 2) as jobs:
        summary = run_study(
            study(), tmp_path / "two", runner=FakeRunner(), stop=StopRequest(), jobs=jobs
        )
    assert summary.num_done == summary.num_cells
    assert values(tmp_path / "two").equals(values(tmp_path / "one"))


def test_two_at_a_time_do_run_at_the_same_time(tmp_path: Path) -> None:
    # Each cell of the first two waits for the other to have begun.
    with workers(runner_of_job, {"meet_in": tmp_path}, 2) as jobs:
        run_study(
            study(SMALL), tmp_path / "out", runner=FakeRunner(), stop=StopRequest(), jobs=jobs
        )
    assert {path.name for path in tmp_path.glob("job-*")} == {"job-0", "job-1"}


def test_what_waits_for_a_failed_run_is_blocked_side_by_side_too(tmp_path: Path) -> None:
    with workers(runner_of_job, {"fails": ("pretraining, a",)}, 2) as jobs:
        summary = run_study(
            study(SMALL), tmp_path / "out", runner=FakeRunner(), stop=StopRequest(), jobs=jobs
        )
    assert (summary.num_done, summary.num_failed, summary.num_blocked) == (4, 2, 2)


def test_a_process_that_dies_is_told_and_the_rest_is_kept(tmp_path: Path) -> None:
    with (
        workers(runner_of_job, {"dies_at": "depth, b, seed 1"}, 2) as jobs,
        pytest.raises(EngineError, match="fewer --jobs"),
    ):
        run_study(
            study(SMALL), tmp_path / "out", runner=FakeRunner(), stop=StopRequest(), jobs=jobs
        )
    done = len(read_cells(tmp_path / "out"))
    assert 0 < done < NUM_SMALL
    again = FakeRunner()
    assert run(study(SMALL), tmp_path / "out", again).num_done == NUM_SMALL
    assert len(again.calls) == NUM_SMALL - done


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_processes_end_with_their_parent(tmp_path: Path, signum: int) -> None:
    with start_worker(tmp_path / "out", "600", "2") as process:
        assert process.stdout is not None
        children = {int(process.stdout.readline().split()[0]) for _ in range(2)}
        process.send_signal(signum)
        process.wait()
    assert len(children) == 2
    while any(Path(f"/proc/{child}").exists() for child in children):
        time.sleep(0.05)


# -- killed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_finished", [0, 1, 4])
def test_kill_9_inside_a_cell(tmp_path: Path, num_finished: int) -> None:
    out, stopping = tmp_path / "out", Counting(num_finished)
    with pytest.raises(StoppedError):
        run_study(study(SMALL), out, runner=stopping, stop=stopping.stop)
    before = read_cells(out)
    assert len(before) == num_finished
    with start_worker(out, "30") as process:
        assert process.stdout is not None
        process.stdout.readline()  # it is inside a cell now
        process.kill()
    assert read_cells(out) == before  # none lost, none half written
    again = FakeRunner()
    assert run(study(SMALL), out, again).num_done == NUM_SMALL  # the lock died with its owner
    assert len(again.calls) == NUM_SMALL - num_finished


@pytest.mark.parametrize("step", [4, 6, 12, 61, 150])
def test_kill_9_while_writing(tmp_path: Path, step: int) -> None:
    out = tmp_path / "out"
    with start_worker(out, CURATOR_FAILPOINT=str(step)) as process:
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    finished = len(read_cells(out))
    again = FakeRunner()
    assert run(study(SMALL), out, again).num_done == NUM_SMALL
    assert len(again.calls) == NUM_SMALL - finished
    whole = tmp_path / "whole"
    run(study(SMALL), whole)
    columns = [name for name in RESULTS_SCHEMA.names if name != "finished_at"]
    assert results(out).select(columns).equals(results(whole).select(columns))


class Counting(FakeRunner):
    """Asks for a stop after so many cells."""

    def __init__(self, cells: int) -> None:
        super().__init__()
        self.stop = StopRequest()
        self.cells = cells
        if cells == 0:
            self.stop.signum = signal.SIGTERM

    def at_cell(self, label: str) -> None:
        super().at_cell(label)
        if len(self.calls) == self.cells:
            self.stop.signum = signal.SIGTERM


def test_two_at_once(tmp_path: Path) -> None:
    run(study(SMALL), tmp_path / "out")
    with locked(tmp_path / "out" / ".lock"), pytest.raises(ConflictError):
        run(study(SMALL), tmp_path / "out")


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match="not a study"):
        run(study(SMALL), tmp_path / "photos")
    run(study(SMALL), tmp_path / "out")
    with pytest.raises(UsageError, match="holds the study 'small', not 'other'"):
        run(study(SMALL.replace('"small"', '"other"')), tmp_path / "out")


def test_a_damaged_cell_is_named_and_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(study(SMALL), tmp_path / "out")
    path = next((tmp_path / "out" / "cells").iterdir())
    outcome = read_cells(tmp_path / "out")[path.stem]["outcome"]
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DamageError, match=path.name):
        read_cells(tmp_path / "out")
    runner = FakeRunner()
    run(study(SMALL), tmp_path / "out", runner)
    assert f"in {path}; this cell is run again" in capsys.readouterr().err
    assert len(runner.calls) == 1
    assert read_cells(tmp_path / "out")[path.stem]["outcome"] == outcome


def test_cells_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    """They held seven fields of a pretraining and called one of them otherwise."""
    out = tmp_path / "out"
    run(study(SMALL), out)
    table = (out / FILE_NAME).read_bytes()
    kept = ("flops", "seconds", "metrics", "history", "texts", "held_out_texts")
    for path in (out / "cells").glob("*.json"):
        record = json.loads(path.read_bytes())
        outcome = record["outcome"]
        if "samples_seen" in outcome:
            record["outcome"] = {"samples": outcome["samples_seen"]}
            record["outcome"] |= {name: outcome[name] for name in kept}
            del record["checksum"]
            path.write_text(json.dumps(record))
    runner = FakeRunner()
    run(study(SMALL), out, runner)
    assert runner.calls == []
    assert (out / FILE_NAME).read_bytes() == table
    assert set(parquet.read(out / FILE_NAME, RESULTS_SCHEMA)["pretrain_samples"]) == {1000}


def test_a_damaged_plan_is_refused_and_one_that_is_gone_is_written_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(study(SMALL), tmp_path / "out")
    path = tmp_path / "out" / "study.json"
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"name": "small"', b'"name": "smalm"', 1))
    bad = path.read_bytes()
    assert bad != data
    with pytest.raises(DamageError, match="its checksum does not match"):
        run(study(SMALL), tmp_path / "out")
    assert path.read_bytes() == bad
    path.unlink()
    runner = FakeRunner()
    run(study(SMALL), tmp_path / "out", runner)
    assert f"{path} is missing and is written again" in capsys.readouterr().err
    assert runner.calls == []
    assert path.read_bytes() == data


def test_the_rate_of_the_sweep_is_what_is_trained_with(tmp_path: Path) -> None:
    text = SMALL.replace('data = "depth"', 'data = "depth"\nlrs = [0.001, 0.01, 0.003]')
    run(study(text), tmp_path / "out")
    assert set(results(tmp_path / "out")["lr"].drop_nulls()) == {0.01}
    assert len(read_cells(tmp_path / "out")) == NUM_SMALL + 2  # one sweep an arm, not a seed


def test_pictures_are_kept_once_an_arm(tmp_path: Path) -> None:
    run(study(SMALL), tmp_path / "out")
    folders = list((tmp_path / "out" / "pictures").iterdir())
    assert len(folders) == 2
    assert {len(list(folder.iterdir())) for folder in folders} == {4 * 3}


def test_the_same_study_writes_the_same_plan(tmp_path: Path) -> None:
    run(study(SMALL), tmp_path / "one")
    run(study(SMALL), tmp_path / "two")
    assert (tmp_path / "one/study.json").read_bytes() == (tmp_path / "two/study.json").read_bytes()


# -- small things ----------------------------------------------------------------------------------


def test_thinned() -> None:
    history = [{"step": step, "loss": float(step)} for step in range(1001)]
    kept = thinned(history)
    assert len(kept) <= MAX_HISTORY + 1
    assert (kept[0], kept[-1]) == (history[0], history[-1])
    assert thinned([]) == []
    assert thinned([{"step": 1, "loss": float("inf")}]) == [{"step": 1, "loss": None}]


def test_time_left() -> None:
    cells = make_plan(study(SMALL), FakeRunner()).cells
    done = {cells[0].digest: {"status": "done", "seconds": 100.0}}
    # The other pretrainings take as long; nobody knows about depth yet.
    waiting = [cell for cell in cells[1:] if isinstance(cell, PretrainCell)]
    assert time_left(done, cells, waiting) == "; about 5 min left"
    assert time_left(done, cells, cells[1:]) == ""
    assert time_left(done, cells, []) == ""


def test_the_files_are_plain_json(tmp_path: Path) -> None:
    run(study(SMALL), tmp_path / "out")
    for path in (tmp_path / "out" / "cells").iterdir():
        found = json.loads(path.read_text("utf-8"))
        assert found["format"] == 1
        assert path.stem in {cell["digest"] for cell in read_plan(tmp_path / "out")["cells"]}
