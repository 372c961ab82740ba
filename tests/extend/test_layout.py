"""A newcomer's layout: the file and the row of docs/extend, and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curator.cli.app import app
from curator.cli.output import run_app
from curator.core.errors import UsageError
from finetune.layouts import LAYOUTS, Layout, open_dense
from tests.contracts import test_layouts
from tests.kit.newcomer import add_row, run_contract

SCOPE = {"Layout": Layout}


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> str:
    return add_row(monkeypatch, "layout", LAYOUTS["segmentation"], SCOPE)


def fill(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for image in ("train/a", "train/b", "test/c"):
        (folder / image).parent.mkdir(exist_ok=True)
        mask = np.zeros((32, 32), np.uint8)
        mask[8:20, 8:24] = 255
        pixels = rng.integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{image}.jpg")
        Image.fromarray(mask).save(folder / f"{image}_mask.png")


def test_it_is_recognised_and_finetuned_on(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path)
    typed = ["finetune", "random:tiny-conv", "--task", "segmentation", "--data", str(tmp_path)]
    typed += ["--size", "32x32", "--steps", "2", "--batch-size", "2", "--device", "cpu"]
    assert run_app(app, typed) == 0
    assert "mIoU (%)" in capsys.readouterr().out


def test_it_keeps_the_contract(name: str, tmp_path: Path) -> None:
    assert run_contract(test_layouts, "segmentation", name, folder=tmp_path) >= 5


def test_an_opener_that_gives_something_else_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path)
    spec = Layout("builtins:str", needs=("train/*.jpg",))
    monkeypatch.setitem(LAYOUTS["segmentation"].rows, name, spec)
    with pytest.raises(Exception, match=r"builtins:str gives str; .*finetune\.layouts\.Opened"):
        open_dense("segmentation", tmp_path, name)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def open(folder, classes): ...", "cannot be called with a folder"),
        ("def open(folder):\n    return {}['train']", "raises KeyError: 'train' in "),
        ("open = 3", "cannot be called with a folder"),
    ],
)
def test_a_function_that_does_not_fit_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, said: str
) -> None:
    """It used to end with "this is a bug"."""
    fill(tmp_path)
    (tmp_path / "unfit.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "unfit", raising=False)
    spec = Layout("unfit:open", needs=("train/*.jpg",))
    monkeypatch.setitem(LAYOUTS["segmentation"].rows, name, spec)
    with pytest.raises(UsageError) as caught:
        open_dense("segmentation", tmp_path, name)
    told = str(caught.value)
    assert told.startswith(f"layout '{name}': unfit:open {said}")
    assert ("unfit.py:" in told) == source.startswith("def")
    assert "`open(folder)` that returns finetune.layouts.Opened" in told
    assert caught.value.reason == "layout.contract"
