"""What labels hold, told from all of them: ranges of sorted sets, classes that never occur."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from curator.core.errors import DamageError, UsageError
from curator.core.registry import load
from curator.core.stopping import StopRequest
from finetune import run
from finetune.cell_files import DenseResult
from finetune.labels import depth_range, examined, log_depth_moments, require_labels
from finetune.layouts import (
    LAYOUTS,
    Boxes,
    DenseSet,
    LabelledImage,
    Split,
    open_dense,
    take_fraction,
)
from finetune.options import DenseOptions
from finetune.report.write import write_report
from finetune.run import finetune, sweep
from finetune.study import recipe as study_recipe
from finetune.study.runner import ModelRunner
from finetune.tasks import TASKS
from finetune.tasks.depth import Depth
from tests.kit.dense import TinyConv, block_item, boxes, dense_set
from tests.kit.layouts import label, make_camvid, make_coco_flat, make_nyuv2, picture, text
from tests.kit.study import SMALL, FakeRunner, study
from tests.kit.study import run as run_study

SIZE = (4, 6)


def item(name: str, target: object) -> LabelledImage:
    height, width = (4, 6) if isinstance(target, Boxes) else np.shape(target)  # type: ignore[misc]  # mypy takes one branch for all
    return LabelledImage(name=name, image=np.zeros((height, width, 3), np.uint8), target=target)  # type: ignore[arg-type]  # any target will do here


def flat(name: str, metres: float) -> LabelledImage:
    return item(name, np.full(SIZE, metres, np.float32))


def by_scene(test_m: float = 4.0) -> DenseSet:
    """100 training images sorted by scene: 70 at 1 m, 29 at 4 m, one without a reading."""
    train = [flat(f"a{number:02}", 1) for number in range(70)]
    train += [flat(f"b{number:02}", 4) for number in range(29)] + [flat("c", 0)]
    return dense_set("depth", train, [flat("t", test_m)])


# -- depth -----------------------------------------------------------------------------------------


def depth_of(data: DenseSet, fraction: float = 1.0) -> Depth:
    options = DenseOptions(task="depth", image_px=(32, 32), fraction=fraction)
    share = take_fraction(data.train, fraction, 0)
    task = TASKS.get("depth")(TinyConv(), options, data, share)
    assert isinstance(task, Depth)
    return task


def test_a_set_sorted_by_scene_can_say_what_only_its_last_scene_has() -> None:
    """The first 64 images are all at 1 m: told from them, nothing but 1 m can be said.

    Of 99 readings an image log 1 = 0 comes 70 times and log 4 29 times.
    """
    task = depth_of(by_scene())
    said = task.depth(torch.tensor([[[-100.0, 0.0, 100.0]]])).flatten()
    mean = 29 / 99 * math.log(4)
    assert said.tolist() == pytest.approx([1.0, math.exp(mean), 4.0], rel=1e-5)
    assert float(task.log_mean) == pytest.approx(mean)
    spread = math.log(4) * math.sqrt(29 / 99 * 70 / 99)
    assert float(task.log_spread) == pytest.approx(spread)


def test_moments_are_over_readings_not_over_pictures() -> None:
    """Three readings of 1 m in one image, one of e m in the other: mean 1/4, variance 3/16."""
    first = item("a", np.array([[1, 1, 1, 0]], np.float32))
    second = item("b", np.array([[0, 0, 0, math.e]], np.float32))
    data = dense_set("depth", [first, second], [first])
    assert log_depth_moments(data, data.train) == pytest.approx((0.25, math.sqrt(3 / 16)))


def test_the_range_is_that_of_all_training_labels_whatever_the_share() -> None:
    data = by_scene()
    assert examined(data).depth_m == (1.0, 4.0)
    for fraction in (0.01, 0.1, 1.0):
        nearest, farthest = depth_of(data, fraction).log_range.exp().tolist()
        assert (nearest, farthest) == pytest.approx((1.0, 4.0))


def test_one_depth_everywhere_is_refused() -> None:
    """Predictions are kept within the range of the labels: RMSE would be 0 for any backbone."""
    with pytest.raises(UsageError, match="every depth reading of the training images is 2 m"):
        examined(dense_set("depth", [flat("a", 2), flat("b", 2)], [flat("t", 2)]))


def test_a_sweep_keeps_to_the_range_of_all_training_labels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ranges = []

    class Kept(Depth):
        def evaluate(self, split: Split, **more: object) -> object:  # type: ignore[override]  # hands on what it is given
            ranges.append(self.log_range.exp().tolist())
            return super().evaluate(split, **more)  # type: ignore[arg-type]  # kwargs

    monkeypatch.setattr(run, "load_backbone", lambda _spec, *, image_px, seed: TinyConv())
    monkeypatch.setattr(run.TASKS, "get", lambda _name: Kept)
    asked = DenseOptions(
        task="depth", image_px=(32, 32), protocol="quick", steps=1, batch_size=2, fraction=0.05
    )
    sweep("any", by_scene(), asked, lrs=[0.01], device="cpu")
    assert ranges == [pytest.approx([1.0, 4.0])]


@pytest.mark.parametrize("layout", ["nyuv2-mat", "nyuv2-lists"])
def test_nyuv2_has_limits_of_its_own(tmp_path: Path, layout: str) -> None:
    load(LAYOUTS["depth"].spec(layout).tiny)(tmp_path)
    data = open_dense("depth", tmp_path)
    assert data.depth_m == depth_range(data) == examined(data).depth_m == (1e-3, 10.0)
    assert data.describe()["depth_m"] == [1e-3, 10.0]


def test_a_folder_in_the_form_of_nyuv2_can_be_of_any_scene(tmp_path: Path) -> None:
    make_nyuv2(tmp_path)
    assert examined(open_dense("depth", tmp_path)).depth_m == (0.5, 2.0)


def test_each_label_is_read_once_for_all_shares_and_seeds() -> None:
    read: list[str] = []
    data = by_scene()
    inner = data.train.read

    def counted(name: str) -> LabelledImage:
        read.append(name)
        return inner(name)

    data = examined(replace(data, train=Split(data.train.names, counted)))
    for fraction, seed in ((0.1, 0), (0.1, 1), (1.0, 0)):
        share = take_fraction(data.train, fraction, seed)
        require_labels(data, share, "training image")
        log_depth_moments(data, share)
    depth_range(data)
    assert sorted(read) == list(data.train.names)


@pytest.mark.parametrize("bad", ["train", "test"])
def test_depth_without_a_reading_is_refused(bad: str) -> None:
    data = by_scene()
    empty = dense_set("depth", [flat("a", 0), flat("b", 0)], []).train
    data = replace(data, train=empty) if bad == "train" else replace(data, test=empty)
    word = "training" if bad == "train" else "test"
    with pytest.raises(UsageError, match=f"no {word} image has a depth reading") as error:
        examined(data)
    assert error.value.reason == "dense.empty"


# -- classes ---------------------------------------------------------------------------------------


def camvid(folder: Path, **labels: list[list[int]]) -> DenseSet:
    """Two classes and the numbers that are given by split."""
    text(folder / "classes.txt", "background\nbuilding\n")
    for split in ("train", "test"):
        picture(folder / split / "images" / f"{split}.jpg")
        label(folder / split / "labels" / f"{split}.png", labels[split])
    return open_dense("segmentation", folder)


BOTH, BINARY, ALL_IGNORED = (
    [[0, 0, 1, 1, 0, 255]] * 4,
    [[0, 0, 255, 255, 0, 0]] * 4,
    [[255] * 6] * 4,
)


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (BINARY, BINARY, "every labelled pixel of the training images is 'background'"),
        (BOTH, BINARY, "every labelled pixel of the test images is 'background'"),
        ([[1] * 6] * 4, BOTH, "every labelled pixel of the training images is 'building'"),
        (ALL_IGNORED, BOTH, "no training image has a labelled pixel"),
        (BOTH, ALL_IGNORED, "no test image has a labelled pixel"),
    ],
)
def test_labels_that_no_number_could_be_told_for(
    tmp_path: Path, train: list[list[int]], test: list[list[int]], said: str
) -> None:
    with pytest.raises(UsageError, match=said) as error:
        examined(camvid(tmp_path, train=train, test=test))
    assert error.value.code == 2
    if BINARY in (train, test):
        assert "store the second class as 1" in str(error.value)
        assert "building" in str(error.value)


def test_a_number_that_is_no_class_is_found_before_anything_is_trained(tmp_path: Path) -> None:
    grey = [[0, 0, 1, 1, 128, 255]] * 4
    with pytest.raises(DamageError, match="the numbers 128 are not classes"):
        examined(camvid(tmp_path, train=BOTH, test=grey))


def test_classes_that_never_occur_are_said(tmp_path: Path) -> None:
    """Of red, green, blue: train has no blue, test no green; a pixel is ignored."""
    train = item("a", np.array([[0, 1, 255]], np.uint8))
    test = item("b", np.array([[0, 2, 255]], np.uint8))
    data = dense_set("segmentation", [train], [test])
    found = examined(data)
    ignored = (
        "255 means ignored: in a mask of 0 and 255, store the second class as 1 "
        "(docs/reference/layouts.md)."
    )
    assert found.warnings == (
        "Of 3, 1 class occurs in no training label; nothing can be learnt about: blue. " + ignored,
        "Of 3, 1 class occurs in no test label; left out of the mean over classes: green. "
        + ignored,
    )
    assert found.describe()["warnings"] == list(found.warnings)
    assert "warnings" not in data.describe()  # or cells of a study would be other ones


def test_a_whole_set_has_no_warning_and_describes_itself_as_ever(tmp_path: Path) -> None:
    make_camvid(tmp_path)
    data = open_dense("segmentation", tmp_path)
    assert examined(data).describe() == data.describe()


def test_a_class_that_is_only_predicted_is_left_out_of_the_mean() -> None:
    """Truth 0 0 0 1; said 0 0 2 1. Class 0: 2 of 3, class 1: 1 of 1; class 2 has no truth."""
    one = item("a", np.array([[0, 0, 0, 1]], np.uint8))
    data = dense_set("segmentation", [one], [one])
    task = TASKS.get("segmentation")(
        TinyConv(), DenseOptions(task="segmentation", image_px=(32, 32)), data, data.train
    )
    said = torch.nn.functional.one_hot(torch.tensor([[0, 0, 2, 1]]), 3).permute(2, 0, 1).float()
    task.predictions = lambda split, _kept, _stop: ((i, said) for i in split)
    found = task.evaluate(data.test, kept=None, stop=StopRequest())
    assert found.metrics["mIoU"] == pytest.approx((2 / 3 + 1) / 2)
    assert set(found.per_class) == {"red", "green"}


# -- objects ---------------------------------------------------------------------------------------


NONE = boxes(np.zeros((0, 4), np.float32), np.zeros((0, *SIZE), bool))
ONE = boxes(np.array([[0, 0, 2, 2]], np.float32), np.ones((1, *SIZE), bool))
CROWD = boxes(np.array([[0, 0, 2, 2]], np.float32), np.ones((1, *SIZE), bool), crowd=[True])


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (NONE, ONE, "no training image has an object"),
        (ONE, NONE, "no test image has an object"),
        (CROWD, ONE, "no training image has an object"),
        (ONE, CROWD, "no test image has an object"),
    ],
)
def test_nothing_to_find_is_refused(train: Boxes, test: Boxes, said: str) -> None:
    data = dense_set("detection", [item("a", train)], [item("b", test)])
    with pytest.raises(UsageError, match=said) as error:
        examined(data)
    assert error.value.reason == "dense.empty"


def test_boxes_that_cover_nothing_are_nothing_to_find(tmp_path: Path) -> None:
    make_coco_flat(tmp_path)
    file = json.loads((tmp_path / "test.json").read_bytes())
    for one in file["annotations"]:
        one["bbox"][2] = 0
    text(tmp_path / "test.json", json.dumps(file))
    with pytest.raises(UsageError, match="2 objects of test cover nothing and are left out"):
        examined(open_dense("detection", tmp_path))


def test_a_kind_of_object_that_is_not_there_is_said(tmp_path: Path) -> None:
    make_coco_flat(tmp_path)  # categories cat and dog, all objects are dogs
    assert examined(open_dense("detection", tmp_path)).warnings == (
        "Of 2, 1 class occurs in no training label; nothing can be learnt about: cat.",
        "Of 2, 1 class occurs in no test label; left out of the mean over classes: cat.",
    )


def test_nothing_to_judge_on_never_becomes_an_ap_of_minus_one() -> None:
    data = dense_set("detection", [item("a", ONE)], [item("b", NONE)])
    task = TASKS.get("detection")(
        TinyConv(), DenseOptions(task="detection", image_px=(32, 48)), data, data.train
    )
    with pytest.raises(UsageError, match="no image to evaluate on has an object"):
        task.evaluate(data.test, kept=None, stop=StopRequest())


# -- a cell ----------------------------------------------------------------------------------------


def test_a_share_without_a_label_is_refused_before_a_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(run, "load_backbone", load)
    nothing = item("b", np.full(SIZE, 255, np.uint8))
    data = dense_set(
        "segmentation", [block_item("a", SIZE, 0), nothing], [block_item("t", SIZE, 1)]
    )
    seed = next(s for s in range(9) if take_fraction(data.train, 0.5, s).names == ("b",))
    asked = DenseOptions(task="segmentation", image_px=(32, 48), fraction=0.5, seed=seed)
    with pytest.raises(UsageError, match=r"no training image has a labelled pixel \(1 looked at\)"):
        finetune("any", data, asked)


# -- in a report -----------------------------------------------------------------------------------


class OddLabels(FakeRunner):
    """A class that is nowhere, and an AP of a test split without objects, as it used to be kept."""

    def labels(self, task: study_recipe.TaskSettings, seeds: Sequence[int]) -> dict[str, Any]:
        return super().labels(task, seeds) | {
            "warnings": ["Of 2, 1 class occurs in no test label: dog."]
        }

    def finetune(self, *arguments: Any) -> DenseResult:
        return replace(super().finetune(*arguments), metrics={"mIoU": 0.5, "box AP": -1.0})


def test_a_report_opens_with_what_is_odd_about_labels_and_shows_no_minus_one(
    tmp_path: Path,
) -> None:
    run_study(study(SMALL), tmp_path / "out", OddLabels())
    written = write_report(tmp_path / "out", tmp_path / "page.html")
    said = written.report.warnings
    assert "Labels of depth: Of 2, 1 class occurs in no test label: dog." in said
    assert "box AP of depth is left out: its test images contain no object to find." in said
    assert written.report.tasks[0].others == []
    assert "\u2212100" not in written.markdown.read_text() + written.html.read_text()


def test_a_study_refuses_labels_that_say_nothing_before_anything_is_pretrained(
    tmp_path: Path,
) -> None:
    camvid(tmp_path, train=BINARY, test=BINARY)
    task = study_recipe.TaskSettings(task="segmentation", data=str(tmp_path))
    with pytest.raises(UsageError, match="every labelled pixel of the training images"):
        ModelRunner().labels(task, (0,))


@pytest.mark.long
def test_a_study_refuses_shares_and_rates_before_anything_is_pretrained(tmp_path: Path) -> None:
    """Of two training images one is ignored; held out is the other one, or it is trained on."""
    camvid(tmp_path, train=BOTH, test=BOTH)
    picture(tmp_path / "train/images/none.jpg")
    label(tmp_path / "train/labels/none.png", ALL_IGNORED)

    def labels(**keys: Any) -> None:
        task = study_recipe.TaskSettings(task="segmentation", data=str(tmp_path), **keys)
        ModelRunner().labels(task, range(4))

    labels()
    with pytest.raises(UsageError, match=r"no training image of fraction 0.5, seed \d, has a"):
        labels(fractions=(0.5, 1.0))
    with pytest.raises(UsageError, match="held"):
        labels(lrs=(1e-3, 1e-2))


@pytest.mark.parametrize("in_val", [255, 0])
def test_pictures_that_no_rate_can_be_chosen_on_are_refused_before_anything_is_pretrained(
    in_val: int,
) -> None:
    """Without a label there is no score; of one class, always predicting it has the best."""
    binary = dense_set(
        "segmentation",
        [block_item(name, SIZE, place) for place, name in enumerate("ab")],
        [block_item("t", SIZE, 0)],
        val=[item("v", np.full(SIZE, in_val, np.uint8))],
    )
    cells = [DenseOptions(task="segmentation", image_px=(32, 48))]
    run.require_cells(binary, cells, choose_rate=False)
    with pytest.raises(UsageError, match="validation"):
        run.require_cells(binary, cells, choose_rate=True)


def test_a_share_without_a_label_is_refused_before_the_first_cell_is_run() -> None:
    nothing = item("b", np.full(SIZE, 255, np.uint8))
    data = dense_set(
        "segmentation", [block_item("a", SIZE, 0), nothing], [block_item("t", SIZE, 1)]
    )
    seed = next(s for s in range(9) if take_fraction(data.train, 0.5, s).names == ("b",))
    cells = [
        DenseOptions(task="segmentation", image_px=(32, 48), fraction=share, seed=of)
        for share in (0.5, 1.0)
        for of in range(seed + 1)
    ]
    with pytest.raises(UsageError, match=f"of fraction 0.5, seed {seed}, has a labelled pixel"):
        run.require_cells(data, cells, choose_rate=False)
