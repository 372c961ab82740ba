"""A newcomer's dense task: the file and the row of docs/extend, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from curator.cli.app import app
from curator.cli.output import run_app
from finetune.metrics import Metric, percent
from finetune.tasks import TASKS, TaskSpec
from tests.contracts import test_tasks
from tests.kit.newcomer import EXTEND, add_row, run_contract

SCOPE = {"TaskSpec": TaskSpec, "Metric": Metric, "percent": percent}
STUDY = """
name = "edges"
seeds = 1
baseline = "random"
[pretrain]
recipe = "demo"
[[arm]]
name = "random"
backbone = "random:tiny-conv"
[[arm]]
name = "other"
backbone = "random:tiny-vit"
[[task]]
task = "boundaries"
data = "{world}/segmentation"
protocol = "quick"
lrs = [0.01, 0.03]
options = { steps = 2, image_px = [32, 32], batch_size = 4 }
"""


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> str:
    return add_row(monkeypatch, "dense_task", TASKS, SCOPE)


def test_it_is_finetuned_and_shown_with_its_metric(
    name: str, world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ["finetune", "random:tiny-conv", "--task", name, "--size", "32x32", "--steps", "2"]
    typed += ["--data", str(world / "segmentation"), "--batch-size", "4", "--device", "cpu"]
    assert run_app(app, typed) == 0
    said = capsys.readouterr().out
    assert f"segmentation, {name}: evaluated on " in said
    assert "boundary F1 (%)" in said


def test_a_study_ranks_by_its_metric(
    name: str, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "edges.toml").write_text(STUDY)
    out = str(tmp_path / "out")
    typed = ["study", str(tmp_path / "edges.toml"), "--out", out, "--device", "cpu"]
    assert run_app(app, [*typed, "--set", f"world={world}"]) == 0
    table = pl.read_parquet(tmp_path / "out" / "results.parquet")
    assert set(table["metric"]) == {"boundary F1"}
    assert table["higher_is_better"].all()
    assert not list((tmp_path / "out" / "runs").iterdir())  # what is finished is in its cell
    capsys.readouterr()
    assert run_app(app, ["report", out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"][0]["task"] == name
    assert "boundary F1" in (tmp_path / "out" / "report.md").read_text()


def test_it_keeps_the_contract(name: str, tmp_path: Path) -> None:
    assert run_contract(test_tasks, name, folder=tmp_path) >= 7


def test_a_missing_member_is_named_before_data_are_opened(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = (EXTEND / "dense_task.py").read_text()
    (tmp_path / "half_task.py").write_text(source.replace("def example(", "def exemple("))
    monkeypatch.syspath_prepend(tmp_path)
    row = TaskSpec(
        "half_task:Boundaries", labels="segmentation", metrics=(percent("F1", primary=True),)
    )
    monkeypatch.setitem(TASKS.rows, "half", row)
    typed = [
        "finetune",
        "random:tiny-conv",
        "--task",
        "half",
        "--data",
        str(world / "segmentation"),
    ]
    assert run_app(app, typed) == 2
    said = capsys.readouterr().err
    assert "the class Boundaries has no method `example(item)`" in said
    assert f"{tmp_path / 'half_task.py'}" in said
