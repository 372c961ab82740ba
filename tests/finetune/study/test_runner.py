"""A study with real models, from a rendered world to its report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from curator.cli.app import app
from curator.cli.output import run_app
from curator.core.errors import CuratorError
from curator.core.stopping import StopRequest
from curator.demo.data import DemoData, make_data
from curator.store import parquet
from finetune.report.write import write_report
from finetune.study.cells import PretrainCell
from finetune.study.plan import make_plan
from finetune.study.recipe import Study, parse_study
from finetune.study.results import FILE_NAME, RESULTS_SCHEMA
from finetune.study.run import run_study
from finetune.study.runner import ModelRunner, runner_of_job
from pretrain.data.loader import Pipeline
from pretrain.data.options import DataOptions
from pretrain.data.source import Source
from pretrain.run_files import read_summary

STUDY = """
name = "real"
seeds = 1
baseline = "alt text"
match = "flops"
[pretrain]
recipe = "demo"
samples_seen = 64
held_out = 8
options = { batch_size = 16, image_px = 32 }
[[arm]]
name = "alt text"
data = "{world}/shards@v1"
[[arm]]
name = "true captions"
data = "{world}/shards@{world}/truth/*.parquet:detailed"
[[arm]]
name = "shuffled"
data = "{world}/shards@v1"
control = "shuffled"
[[arm]]
name = "masked images"
data = "{world}/shards@v1"
objective = "simmim"
options = { simmim = { mask = 0.6 } }
[[arm]]
name = "random"
backbone = "random"
[[task]]
task = "segmentation"
data = "{world}/segmentation"
protocol = "quick"
lrs = [0.003, 0.01]
options = { steps = 2, image_px = [32, 32], batch_size = 4 }
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Study:
    world = tmp_path_factory.mktemp("world")
    make_data(world, DemoData(images=60, labelled=20, side_px=32), stop=StopRequest())
    assert run_app(app, ["index", str(world / "shards")]) == 0
    assert run_app(app, ["decide", str(world / "shards"), "--policy", "as-is"]) == 0
    return parse_study(STUDY, where="test", values={"world": str(world)})


@pytest.mark.slow
def test_from_a_world_to_a_report(made: Study, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = run_study(made, out, runner=ModelRunner(device="cpu"), stop=StopRequest())
    assert summary.num_done == summary.num_cells == 4 + 5 + 5, summary.reasons
    found = parquet.read(out / FILE_NAME, RESULTS_SCHEMA)
    dense = found.filter(pl.col("metric") == "mIoU")
    assert dense["arm"].to_list() == [arm.name for arm in made.arm]
    assert set(found["metric"]) >= {"mIoU", "mAcc", "image_to_text_r1", "text_to_image_r5"}
    # FLOPs match to what batches allow: masked images sees more samples for the same arithmetic.
    by_arm = {row["arm"]: row for row in dense.iter_rows(named=True)}
    masked, base = by_arm["masked images"], by_arm["alt text"]
    assert masked["pretrain_samples"] > base["pretrain_samples"]
    assert masked["pretrain_flops"] == pytest.approx(base["pretrain_flops"], rel=0.35)
    assert not list(out.glob("runs/*/checkpoints"))  # models stay, checkpoints go
    page = write_report(out).html.read_text("utf-8")
    assert page.count("<img") == 4 * (2 + 5)
    again = run_study(made, out, runner=ModelRunner(device="cpu"), stop=StopRequest())
    assert again.num_reused == again.num_cells


@pytest.mark.slow
def test_what_does_not_fit_is_said_before_any_run(made: Study, tmp_path: Path) -> None:
    broken = made.model_copy(
        update={"task": (made.task[0].model_copy(update={"data": str(tmp_path)}),)}
    )
    with pytest.raises(CuratorError):
        run_study(broken, tmp_path / "out", runner=ModelRunner(device="cpu"), stop=StopRequest())
    assert not (tmp_path / "out" / "study.json").exists()


def test_captions_that_were_cut_reach_the_cell(made: Study, tmp_path: Path) -> None:
    """A merge had lost them between a pretraining and its cell, and with them the warning."""
    runner = ModelRunner(device="cpu")
    first = make_plan(made.model_copy(update={"match": "samples", "task": ()}), runner).cells[0]
    assert isinstance(first, PretrainCell)
    found = runner.pretrain(first, tmp_path / "run", StopRequest())
    summary = read_summary(tmp_path / "run")
    assert found.summary == summary
    assert summary.texts["num_texts"] == 64
    assert summary.held_out_texts != {}
    record = found.to_json()
    assert record["texts"] == summary.texts
    assert record["metrics"]["image_to_text_r1"] == summary.retrieval["image_to_text_r1"]
    assert "num_words" not in record["metrics"]  # a count, and no result of the arm


def test_the_batch_that_is_counted_is_drawn_as_in_training(
    made: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sentences of captions are shorter than captions; they used to be counted as captions."""
    asked: list[DataOptions] = []

    class Spy(Pipeline):
        def __init__(self, source: Source, options: DataOptions, **more: Any) -> None:
            asked.append(options)
            super().__init__(source, options, **more)

    monkeypatch.setattr("finetune.study.runner.Pipeline", Spy)
    runner = ModelRunner(device="cpu")
    changed = {"batch_size": 16, "image_px": 32, "sentences": 1.0, "seed": 3}
    recipe = runner.recipe("demo", changed)
    data = made.arm_named("alt text").data
    assert data is not None
    assert runner.flops_per_sample(data, recipe) > 0
    (options,) = asked
    assert (options.sentences, options.seed, options.image_px) == (1.0, 3, 32)


@pytest.mark.parametrize(
    ("jobs", "wanted"),
    [(1, [[2, 3, 5, 7, 9]]), (2, [[2, 3], [5, 7]]), (6, [[2], [3], [5], [7], [9], [2]])],
)
def test_each_job_has_as_many_cores(
    monkeypatch: pytest.MonkeyPatch, jobs: int, wanted: list[list[int]]
) -> None:
    taken: list[list[int]] = []
    threads: list[int] = []
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {9, 2, 3, 5, 7})
    monkeypatch.setattr("os.sched_setaffinity", lambda _, cores: taken.append(list(cores)))
    monkeypatch.setattr("torch.set_num_threads", threads.append)
    for job in range(jobs):
        runner_of_job(job, jobs, device="cpu")
    assert taken == wanted
    assert threads == [len(wanted[0])] * jobs
