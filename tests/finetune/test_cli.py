"""`curator finetune`: what is shown, what is refused, what a second run does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image

from curator.cli import finetune
from curator.cli.output import run_app
from finetune import run
from finetune.tasks import Evaluation
from finetune.tasks.segmentation import Segmentation
from tests.kit.dense import TinyConv, block_item

SIZE = (32, 48)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(run, "load_backbone", lambda _spec, *, image_px, seed: TinyConv())
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set in CamVid's layout; its void label is 3."""
    data = tmp_path / "blocks"
    for place, part in enumerate(("train", "val", "test")):
        for kind in ("images", "labels"):
            (data / part / kind).mkdir(parents=True)
        for number in range(4):
            item = block_item(f"{part}{number}", SIZE, 10 * place + number)
            Image.fromarray(item.image).save(data / part / "images" / f"{item.name}.png")
            target = item.target
            target[target == 255] = 3  # type: ignore[index,operator]  # a map
            Image.fromarray(target).save(data / part / "labels" / f"{item.name}.png")
    (data / "classes.txt").write_text("0 red\n1 green\n2 blue\n3 void\n")
    return data


def curator(*arguments: object) -> int:
    app = typer.Typer(pretty_exceptions_enable=False)
    finetune.register(app)
    return run_app(app, [str(argument) for argument in arguments])


SMALL = ("--size", "32x48", "--batch-size", 2, "--device", "cpu")
QUICK = (*SMALL, "--steps", 3, "--protocol", "quick")


def test_shares_and_seeds_give_a_table_with_the_spread(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("any", "--task", "segmentation", "--data", folder, *QUICK)
    wanted = ("--fraction", "0.5,1", "--seeds", 2, "--out", tmp_path / "out")
    assert curator(*asked, *wanted) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "blocks, segmentation: evaluated on 4 test images"
    headings = ["labels", "seeds", "mIoU (%)", "mAcc (%)", "time"]
    assert re.fullmatch(r"protocol quick, 3 steps \[[0-9a-f]{8}\]", said[1])
    assert re.split(" {2,}", said[2]) == headings
    assert [line.split()[:2] for line in said[3:5]] == [["2", "2"], ["4", "2"]]
    assert said[3].count("±") == 2
    size = "6.63 k parameters, 6.44 k of them in the backbone; "
    assert re.fullmatch(rf"{re.escape(size)}\S+ · \S+ FLOPs to evaluate an image", said[5])
    assert said[6].startswith("run the same for another backbone to compare")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"labels-{share}-seed-{seed}" for share in ("0.5", "1") for seed in (0, 1)}
    assert curator(*asked, *wanted) == 0
    assert capsys.readouterr().out.splitlines()[3:5] == said[3:5]  # read back, time and all


def test_a_sweep_is_shown_and_used(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("any", "--task", "segmentation", "--data", folder, *QUICK, "--sweep")
    assert curator(*asked) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[2].startswith("learning rate ")
    assert " by mIoU (%) on 4 validation images (" in said[2]
    assert curator(*asked, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cells"][0]["lr"] == found["sweep"]["lr"]
    (cell,) = found["cells"]
    assert set(cell["metrics"]) == {"mIoU", "mAcc"}
    assert 0 < cell["metrics"]["mIoU"] <= 1
    assert cell["shown"] == {
        f"{name} (%)": round(100 * value, 1) for name, value in cell["metrics"].items()
    }


def test_a_solved_probe_says_how_it_was_found(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("any", "--task", "segmentation", "--data", folder, *SMALL, "--protocol", "solved")
    assert curator(*asked) == 0
    said = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"protocol solved \[[0-9a-f]{8}\]", said[1])
    # The first two columns of pixels, which are a cell wide, have no label.
    assert said[2].startswith("4 images, 1,472 of 1,536 cells: L2 strength ")
    assert " by mIoU (%) on 4 validation images (" in said[2]
    assert "of that at zero weights after" in said[2]
    assert curator(*asked, "--json") == 0
    (cell,) = json.loads(capsys.readouterr().out)["cells"]
    assert (cell["protocol"], cell["lr"], cell["history"]) == ("solved", None, [])
    assert cell["certificate"]["strength"] in [
        one["strength"] for one in cell["certificate"]["curve"]
    ]
    assert curator(*asked, "--sweep") == 2
    assert "the protocol solved has no learning rate to choose" in capsys.readouterr().err


def test_shares_are_told_in_per_cent_and_metres_in_metres(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report prints 8.7 for the same number."""
    evaluation = Evaluation(metrics={"mIoU": 0.0871, "RMSE": 0.5123, "AbsRel": 0.25})
    monkeypatch.setattr(Segmentation, "evaluate", lambda *_, **__: evaluation)
    asked = ("any", "--task", "segmentation", "--data", folder, *QUICK)
    assert curator(*asked) == 0
    said = [re.split(" {2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]
    assert said[2][2:5] == ["mIoU (%)", "RMSE (m)", "AbsRel"]
    assert said[3][2:5] == ["8.7", "0.512", "0.250"]
    assert curator(*asked, "--json") == 0
    (cell,) = json.loads(capsys.readouterr().out)["cells"]
    assert cell["metrics"] == {"mIoU": 0.0871, "RMSE": 0.5123, "AbsRel": 0.25}
    assert cell["shown"] == {"mIoU (%)": 8.7, "RMSE (m)": 0.512, "AbsRel": 0.25}


def test_a_class_that_never_occurs_is_said_and_stored(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "classes.txt").write_text("0 red\n1 green\n2 blue\n3 yellow\n")
    for path in folder.glob("*/labels/*.png"):  # 3 was void and is yellow now: ignore it
        numbers = np.array(Image.open(path))
        Image.fromarray(np.where(numbers == 3, 255, numbers).astype(np.uint8)).save(path)
    asked = ("any", "--task", "segmentation", "--data", folder, *QUICK, "--out", tmp_path / "out")
    assert curator(*asked, "--json") == 0
    told = capsys.readouterr()
    warnings = json.loads(told.out)["data"]["warnings"]
    assert [line.split(":")[0] for line in warnings] == [
        "Of 4, 1 class occurs in no training label; nothing can be learnt about",
        "Of 4, 1 class occurs in no test label; left out of the mean over classes",
    ]
    assert all(f"warning: {line}" in told.err for line in warnings)
    (kept,) = (tmp_path / "out").glob("*/run.json")
    assert json.loads(kept.read_bytes())["data"]["warnings"] == warnings


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--fraction", "half"), "--fraction is 'half'"),
        (("--fraction", "0"), "fraction is 0.0"),
        (("--size", "360"), "--size is '360'"),
        (("--head", "mask"), "head is 'mask'"),
        (("--sweep", "--lr", "0.1"), "--lr and --sweep exclude each other"),
        (
            ("--protocol", "quick", "--layer-decay", "0.8"),
            "layer_decay: the protocol quick does not",
        ),
        (("--layer-decay", "1.5"), "layer_decay is 1.5"),
        (("--set", "drop_path=1"), "drop_path is 1"),
        (("--set", "stride_px=[8,8]"), "stride_px: only for inference slide"),
        (("--set", "eval_crop=eigen"), "eval_crop: segmentation does not use it, depth does"),
        (("--set", "lr=0.1"), "--set lr: it has an option of its own"),
        (("--set", "drop_path"), "--set 'drop_path'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    folder: Path, wrong: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = curator("any", "--task", "segmentation", "--data", folder, *wrong)
    assert code == 2
    assert said in capsys.readouterr().err
