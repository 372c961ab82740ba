"""A newcomer's objective: the file and the row of docs/extend, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curator.cli.app import app
from curator.cli.output import run_app
from pretrain.objectives import OBJECTIVES, ObjectiveSpec
from tests.contracts import test_objectives
from tests.kit.newcomer import EXTEND, add_row, run_contract
from tests.kit.train import SIDE, config_file

SCOPE = {"ObjectiveSpec": ObjectiveSpec}


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> str:
    return add_row(monkeypatch, "objective", OBJECTIVES, SCOPE)


def recipe_file(folder: Path) -> str:
    path = folder / "tiny.toml"
    path.write_text(
        f'name = "tiny"\nmodel = "{config_file(folder)}"\nimage_px = {SIDE}\n'
        "samples_seen = 16\nbatch_size = 8\nlr = 1e-3\n"
    )
    return str(path)


def test_it_pretrains_and_what_it_learned_is_finetuned(
    name: str, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    typed = ["pretrain", str(world / "shards@v1"), "--recipe", recipe_file(tmp_path), "--out", out]
    typed += ["--set", f"objective={name}", "--set", f"{name}.turns=2", "--device", "cpu"]
    assert run_app(app, typed) == 0
    capsys.readouterr()
    assert json.loads((tmp_path / "run/run.json").read_text())["recipe"][name] == {"turns": 2}
    typed = [
        "finetune",
        out,
        "--task",
        "depth",
        "--data",
        str(world / "depth"),
        "--protocol",
        "quick",
    ]
    typed += ["--size", f"{SIDE}x{SIDE}", "--steps", "2", "--batch-size", "2", "--device", "cpu"]
    assert run_app(app, [*typed, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cells"][0]["metrics"]["RMSE"] > 0


def test_it_keeps_the_contract(name: str, tmp_path: Path) -> None:
    assert run_contract(test_objectives, name, folder=tmp_path) >= 8


def test_a_missing_member_is_named_before_data_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It used to train to the end, and die with "no attribute 'save'"."""
    source = (EXTEND / "objective.py").read_text()
    (tmp_path / "half_done.py").write_text(source[: source.index("    def save")])
    monkeypatch.syspath_prepend(tmp_path)
    row = ObjectiveSpec("half_done:Rotation", help="no save", has_text=False, options={})
    monkeypatch.setitem(OBJECTIVES.rows, "half", row)
    typed = ["pretrain", str(tmp_path / "no-shards"), "--recipe", recipe_file(tmp_path)]
    assert run_app(app, [*typed, "--set", "objective=half", "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "error[objective.contract]" in said
    assert "the class Rotation has no method `save(folder)`" in said
    assert f"{tmp_path / 'half_done.py'}" in said
    assert not (tmp_path / "run").exists()
