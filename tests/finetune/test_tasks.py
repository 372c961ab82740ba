"""Dense tasks: metrics against small hand-worked cases, learning, windows, augmentation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from curator.core.errors import UsageError
from curator.core.stopping import StopRequest
from finetune.augment import augmented, plain, whole_image
from finetune.feeding import Features, Feed
from finetune.layouts import DenseSet, LabelledImage
from finetune.options import DenseOptions
from finetune.sliding_window import slide, starts
from finetune.tasks import TASKS
from finetune.tasks.base import BackboneTask
from finetune.tasks.depth import Depth, errors
from finetune.tasks.detection import Detection
from finetune.tasks.segmentation import Segmentation, shares
from pretrain.loop.loop import train
from pretrain.loop.options import LoopOptions
from pretrain.towers.backbone import Backbone
from tests.kit.dense import (
    TinyConv,
    TinyPlain,
    block_item,
    box_item,
    boxes,
    dense_set,
    depth_item,
    split_of,
)

SIZE = (48, 64)
MAKERS = {"segmentation": block_item, "depth": depth_item, "detection": box_item}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On maps this small a pool of threads only waits for itself."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def a_set(task: str, number: int = 4) -> DenseSet:
    items = [MAKERS[task](f"{place}", SIZE, place) for place in range(number)]
    return dense_set(task, items, items)


def a_task(
    name: str, data: DenseSet, backbone: Backbone | None = None, **changes: object
) -> BackboneTask:
    values: dict[str, object] = {"task": name, "image_px": SIZE, "batch_size": 4, **changes}
    options = DenseOptions(**values)  # type: ignore[arg-type]  # checked when made
    torch.manual_seed(0)
    task: BackboneTask = TASKS.get(name)(backbone or TinyConv(), options, data, data.train)
    return task


# -- segmentation ----------------------------------------------------------------------------------


def answering(task: BackboneTask, answers: dict[str, torch.Tensor]) -> BackboneTask:
    """The task with what it predicts replaced."""
    task.predictions = lambda split, _kept, _stop: ((i, answers[i.name]) for i in split)
    return task


def test_miou_of_two_by_two_pixels_with_one_to_ignore() -> None:
    """Truth 0 1 / 1 ignored, said 0 0 / 1 0.

    Class 0: 1 hit of union 2; class 1: 1 hit of union 2; class 2 occurs nowhere and is left out.
    Found: all of class 0, half of class 1.
    """
    image = np.zeros((2, 2, 3), np.uint8)
    item = LabelledImage(name="a", image=image, target=np.array([[0, 1], [1, 255]], np.uint8))
    data = dense_set("segmentation", [item], [item])
    said = torch.nn.functional.one_hot(torch.tensor([[0, 0], [1, 0]]), 3).permute(2, 0, 1).float()
    task = answering(a_task("segmentation", data), {"a": said})
    found = task.evaluate(data.test, kept=None, stop=StopRequest())
    assert found.metrics == {"mIoU": 0.5, "mAcc": 0.75}
    assert found.per_class == {"red": 0.5, "green": 0.5}
    assert found.per_image == {"a": {"mIoU": 0.5}}


def test_miou_is_over_all_pixels_not_a_mean_over_pictures() -> None:
    """Image a, all 0, is said right; b, half 0 and half 1, is said to be all 1.

    Class 0: 4 hits of a union of 6; class 1: 2 hits of 4. By image: 1, and 0 and 2 of 4.
    """
    image, zeros = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8)
    both = np.array([[0, 0], [1, 1]], np.uint8)
    items = [
        LabelledImage(name=n, image=image, target=one) for n, one in (("a", zeros), ("b", both))
    ]
    data = dense_set("segmentation", items, items)
    right, wrong = torch.zeros(3, 2, 2), torch.zeros(3, 2, 2)
    right[0], wrong[1] = 1, 1
    task = answering(a_task("segmentation", data), {"a": right, "b": wrong})
    found = task.evaluate(data.test, kept=None, stop=StopRequest())
    assert found.metrics == pytest.approx({"mIoU": (4 / 6 + 2 / 4) / 2, "mAcc": (4 / 6 + 1) / 2})
    assert found.per_image == {"a": {"mIoU": 1.0}, "b": {"mIoU": 0.25}}


def test_shares_agree_with_torchmetrics() -> None:
    truth, said = torch.randint(0, 4, (2, 50)), torch.randint(0, 4, (2, 50))
    metric = MulticlassJaccardIndex(5)
    metric.update(said, truth)
    ours = shares(metric.confmat)[0]
    assert float(ours.nanmean()) == pytest.approx(float(metric.compute()))


def test_labels_that_say_nothing_give_a_loss_of_nought() -> None:
    item = LabelledImage(
        name="a",
        image=np.zeros((*SIZE, 3), np.uint8),
        target=np.full(SIZE, 255, np.uint8),
    )
    data = dense_set("segmentation", [item], [item])
    task = a_task("segmentation", data)
    feed = Feed(data.train, task.options, None)
    losses = task.losses(next(feed.batches(0)))
    assert float(losses["loss"].detach()) == 0
    with pytest.raises(UsageError, match="no image to evaluate on has a labelled pixel"):
        task.evaluate(data.test, kept=None, stop=StopRequest())


# -- depth -----------------------------------------------------------------------------------------


def test_depth_errors_of_three_pixels() -> None:
    """Truth 1, 2, 4; said 1, 3, 3. Squares 0, 1, 1; relative 0, 1/2, 1/4; ratios 1, 1.5, 1.33."""
    found = errors(np.array([1.0, 3.0, 3.0]), np.array([1.0, 2.0, 4.0]))
    assert found == pytest.approx({"RMSE": math.sqrt(2 / 3), "AbsRel": 0.25, "delta1": 1 / 3})


def test_depth_metrics_are_means_over_pictures_and_skip_what_has_no_reading() -> None:
    """Image a: two readings off by 1; b: one right; c: none. RMSE (1 + 0) / 2, pooled
    sqrt(2 / 3).
    """
    image = np.zeros((1, 2, 3), np.uint8)
    labels = {"a": [[1.0, 3.0]], "b": [[2.0, 0.0]], "c": [[0.0, 0.0]]}
    items = [
        LabelledImage(name=name, image=image, target=np.array(label, np.float32))
        for name, label in labels.items()
    ]
    data = dense_set("depth", items, items)
    task = a_task("depth", data)
    assert isinstance(task, Depth)
    task.log_mean.fill_(0)
    task.log_spread.fill_(1)
    task.log_range.copy_(torch.tensor([0.0, 9.0]))
    said = {"a": [[2.0, 4.0]], "b": [[2.0, 9.0]], "c": [[9.0, 9.0]]}
    answering(task, {name: torch.tensor([value]).log() for name, value in said.items()})
    found = task.evaluate(data.test, kept=None, stop=StopRequest())
    assert found.metrics["RMSE"] == pytest.approx(0.5, abs=1e-6)
    assert found.metrics["RMSE pooled"] == pytest.approx(math.sqrt(2 / 3))
    assert set(found.per_image) == {"a", "b"}


def test_depth_stays_within_the_training_labels() -> None:
    """Labels from 1 to 3 m: a million metres are said as 3, a millimetre as 1."""
    image = np.zeros((1, 2, 3), np.uint8)
    items = [LabelledImage(name="a", image=image, target=np.array([[1.0, 3.0]], np.float32))]
    task = a_task("depth", dense_set("depth", items, items))
    assert isinstance(task, Depth)
    task.log_mean.fill_(0)
    task.log_spread.fill_(1)
    metres = task.depth(torch.tensor([1e6, 1e-3, 2.0]).log())
    assert metres.tolist() == pytest.approx([3, 1, 2])


def test_the_depth_loss_forgives_half_of_a_common_factor() -> None:
    """All log differences are d: sqrt(d^2 - d^2 / 2), here d = log 2."""
    image = np.zeros((*SIZE, 3), np.uint8)
    item = LabelledImage(name="a", image=image, target=np.full(SIZE, 2.0, np.float32))
    data = dense_set("depth", [item], [item])
    task = a_task("depth", data, protocol="quick")
    assert isinstance(task, Depth)
    task.log_mean.fill_(0)
    for parameter in task.head.parameters():
        torch.nn.init.zeros_(parameter)
    batch = next(Feed(data.train, task.options, None).batches(0))
    loss = float(task.losses(batch)["loss"].detach())
    assert loss == pytest.approx(math.log(2) / math.sqrt(2), rel=1e-4)


def test_depth_without_a_reading_is_refused() -> None:
    image = np.zeros((*SIZE, 3), np.uint8)
    item = LabelledImage(name="a", image=image, target=np.zeros(SIZE, np.float32))
    with pytest.raises(UsageError, match="no training image has a depth reading"):
        a_task("depth", dense_set("depth", [item], [item]))


# -- detection -------------------------------------------------------------------------------------


def found_boxes(*corners: list[float]) -> dict[str, torch.Tensor]:
    masks = torch.zeros(len(corners), 1, 40, 40)
    for mask, (left, top, right, bottom) in zip(masks, corners, strict=True):
        mask[0, int(top) : int(bottom), int(left) : int(right)] = 1
    return {
        "boxes": torch.tensor(corners),
        "labels": torch.ones(len(corners), dtype=torch.long),
        "scores": torch.linspace(0.9, 0.8, len(corners)),
        "masks": masks,
    }


def two_boxes(crowd: list[bool]) -> LabelledImage:
    masks = np.zeros((2, 40, 40), bool)
    masks[0, 4:14, 4:14] = masks[1, 20:36, 20:36] = True
    corners = np.array([[4, 4, 14, 14], [20, 20, 36, 36]], np.float32)
    image = np.zeros((40, 40, 3), np.uint8)
    return LabelledImage(name="a", image=image, target=boxes(corners, masks, crowd))


@pytest.mark.parametrize(
    ("crowd", "share"),
    [
        # One of two found: precision 1 up to recall 0.5, of 101 recall points 51 are reached.
        ([False, False], 51 / 101),
        ([False, True], 1.0),  # what is missed is a crowd: it counts neither way
    ],
)
def test_ap_of_one_perfect_and_one_missed_box(crowd: list[bool], share: float) -> None:
    item = two_boxes(crowd)
    data = dense_set("detection", [item], [item])
    task = a_task("detection", data, image_px=(40, 40))
    assert isinstance(task, Detection)
    task.found = lambda _items, _maps: [found_boxes([4, 4, 14, 14])]
    found = task.evaluate(data.test, kept=None, stop=StopRequest())
    names = [f"{kind} AP{what}" for kind in ("box", "mask") for what in ("", "50", "_s")]
    assert list(found.metrics) == names  # both boxes are small, so there is no AP_m and no AP_l
    assert list(found.metrics.values()) == pytest.approx([share] * 6)
    assert found.per_class == {"thing": pytest.approx(share)}


@pytest.mark.parametrize(("backbone", "precision"), [(TinyConv, "bf16"), (TinyPlain, "fp32")])
def test_mask_rcnn_trains_and_answers_at_the_pictures_size(
    backbone: type[Backbone], precision: str
) -> None:
    items = [box_item(f"{n}", (50, 70), n) for n in range(2)]
    data = dense_set("detection", items, items)
    task = a_task("detection", data, backbone(), batch_size=2)
    assert isinstance(task, Detection)
    batches = Feed(data.train, task.options, None).batches
    result = train(
        task,
        batches,
        LoopOptions(total_steps=2, lr=1e-3, precision=precision, log_every=1),
        folder=None,
        parameter_groups=task.groups(),
    )
    assert {"loss", "loss_mask", "loss_objectness"} <= set(result.history[-1])
    found = task.found(
        items, list(task.features(torch.stack([whole_image(i, SIZE) for i in items])))
    )
    assert [one["masks"].shape[1:] for one in found] == [(1, 50, 70)] * 2
    metrics = task.evaluate(data.test, kept=None, stop=StopRequest()).metrics
    assert all(0 <= value <= 1 for value in metrics.values())
    assert [tuple(shown.shape) for shown in task.example(items[0])] == [(3, 50, 70)] * 3


@pytest.mark.parametrize(
    ("side_px", "training", "evaluation"),
    [(64, 200, 100), (400, 1_000, 500), (800, 2_000, 1_000), (1_024, 2_000, 1_000)],
)
def test_small_images_have_fewer_proposals(side_px: int, training: int, evaluation: int) -> None:
    data = dense_set("detection", [box_item("0", SIZE, 0)], [])
    task = a_task("detection", data, image_px=(side_px, 1_024))
    assert isinstance(task, Detection)
    rpn = task.detector.rpn
    assert rpn._post_nms_top_n == {"training": training, "testing": evaluation}


def test_data_without_masks_get_boxes_only() -> None:
    items = [box_item(f"{n}", SIZE, n, has_masks=False) for n in range(2)]
    data = dense_set("detection", items, items)
    data = replace(data, has_masks=False)
    task = a_task("detection", data, batch_size=2)
    losses = task.losses(next(Feed(data.train, task.options, None).batches(0)))
    assert "loss_mask" not in losses
    metrics = task.evaluate(data.test, kept=None, stop=StopRequest()).metrics
    assert set(metrics) == {"box AP", "box AP50", "box AP_s"}


# -- learning --------------------------------------------------------------------------------------


def fitted(task: BackboneTask, data: DenseSet, steps: int, lr: float) -> dict[str, float]:
    batches = Feed(data.train, task.options, None).batches
    options = LoopOptions(total_steps=steps, lr=lr, precision="fp32", log_every=steps)
    train(task, batches, options, folder=None, parameter_groups=task.groups())
    metrics: dict[str, float] = task.evaluate(data.test, kept=None, stop=StopRequest()).metrics
    return metrics


@pytest.mark.parametrize("backbone", [TinyConv, TinyPlain])
def test_a_linear_probe_on_random_features_learns_four_pictures_by_heart(
    backbone: type[Backbone],
) -> None:
    data = a_set("segmentation")
    task = a_task("segmentation", data, backbone(), protocol="quick")
    before = {name: value.clone() for name, value in task.backbone.state_dict().items()}
    assert fitted(task, data, 60, 0.1)["mIoU"] > 0.9
    after = task.backbone.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items()), "frozen"


def test_finetuning_learns_depth_and_moves_the_backbone() -> None:
    data = a_set("depth")
    task = a_task("depth", data)
    before = [parameter.clone() for parameter in task.backbone.parameters()]
    untrained = task.evaluate(data.test, kept=None, stop=StopRequest()).metrics
    assert fitted(task, data, 40, 1e-2)["RMSE"] < untrained["RMSE"] / 2
    moved = [
        not torch.equal(old, new)
        for old, new in zip(before, task.backbone.parameters(), strict=True)
    ]
    assert all(moved)


def test_rates_fall_towards_the_first_layers_and_every_weight_has_one() -> None:
    task = a_task("segmentation", a_set("segmentation"), TinyPlain(), layer_decay=0.5)
    groups = task.groups()
    assert [group.lr_scale for group in groups] == [1, 0.5, 0.25, 0.125, 0.0625, 0.03125]
    grouped = [id(parameter) for group in groups for parameter in group.parameters]
    assert sorted(grouped) == sorted(id(parameter) for parameter in task.parameters())
    probe = a_task("segmentation", a_set("segmentation"), protocol="quick")
    assert [group.lr_scale for group in probe.groups()] == [1]


def test_the_head_follows_from_the_backbone_and_the_mode() -> None:
    data = a_set("segmentation")
    heads = {
        (backbone.__name__, freeze): a_task(
            "segmentation", data, backbone(), protocol="quick" if freeze else "finetune"
        ).head_name
        for backbone in (TinyConv, TinyPlain)
        for freeze in (False, True)
    }
    assert heads == {
        ("TinyConv", False): "fpn",
        ("TinyConv", True): "linear",
        ("TinyPlain", False): "upernet",
        ("TinyPlain", True): "linear",
    }


# -- windows ---------------------------------------------------------------------------------------


def test_windows_cover_a_side_and_overlap_by_a_third() -> None:
    assert starts(48, 48) == [0]
    assert starts(100, 48) == [0, 32, 52]
    assert starts(49, 48) == [0, 1]


def test_overlapping_windows_are_averaged() -> None:
    """A window says its own number: 0 and 1, over columns 0-2 and 1-3."""
    numbers = iter(range(9))

    def output(images: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.full((1, 2, 3), float(next(numbers))) for _ in images])

    found = slide(output, torch.zeros(3, 2, 4), (2, 3))
    assert found.tolist() == [[[0.0, 0.5, 0.5, 1.0]] * 2]


@pytest.mark.parametrize("backbone", [TinyConv, TinyPlain])
def test_one_window_over_all_is_the_whole_picture(backbone: type[Backbone]) -> None:
    data = a_set("segmentation", 2)
    whole = a_task("segmentation", data, backbone())
    window = a_task("segmentation", data, backbone(), inference="slide")
    window.load_state_dict(whole.state_dict())
    answers = [
        [logits for _, logits in task.predictions(data.test, None, StopRequest())]
        for task in (whole, window)
        if isinstance(task, Segmentation)
    ]
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other)


# -- images on their way to a batch --------------------------------------------------------------


@pytest.mark.parametrize("base", [SIZE, (48, 72)])
def test_picture_and_label_stay_together_through_every_augmentation(
    base: tuple[float, float],
) -> None:
    """The label of a pixel is its colour, so a misplaced label shows."""
    item = block_item("a", (60, 80), 3)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        sample = augmented(item, SIZE, scale=(0.5, 2.0), base=base, rng=rng)
        assert isinstance(sample.target, torch.Tensor)
        assert sample.image.shape == (3, *SIZE)
        assert sample.target.shape == SIZE
        assert set(sample.target.unique().tolist()) <= {0, 1, 2, 255}
        brightest = sample.image.argmax(0)  # red, green, blue: the number of the class
        agree = (brightest == sample.target)[sample.target != 255]
        assert agree.float().mean() > 0.95  # but for seams, where resizing blends colours


def test_zoomed_depth_is_nearer() -> None:
    item = LabelledImage(
        name="a", image=np.zeros((*SIZE, 3), np.uint8), target=np.full(SIZE, 6.0, np.float32)
    )
    rng = np.random.default_rng(0)
    sample = augmented(item, SIZE, scale=(1.5, 1.5), base=SIZE, rng=rng)
    assert isinstance(sample.target, torch.Tensor)
    assert sample.target.unique().tolist() == [4.0]


def test_boxes_keep_to_their_masks() -> None:
    item = box_item("a", (60, 80), 1)
    seen = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        target = augmented(item, SIZE, scale=(0.8, 2.0), base=SIZE, rng=rng).target
        assert isinstance(target, dict)
        assert len(target["boxes"]) == len(target["masks"]) == len(target["labels"])
        for box, mask in zip(target["boxes"], target["masks"], strict=True):
            rows, columns = mask.nonzero(as_tuple=True)
            edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box.tolist() == pytest.approx([float(edge) for edge in edges], abs=1)
            seen += 1
    assert seen > 15  # some are cropped away, not all


def test_crowds_are_not_trained_on() -> None:
    sample = plain(two_boxes([False, True]), (40, 40))
    assert isinstance(sample.target, dict)
    assert sample.target["boxes"].tolist() == [[4, 4, 14, 14]]


# -- batches ---------------------------------------------------------------------------------------


def test_every_picture_once_an_epoch_and_resuming_skips_nothing() -> None:
    data = a_set("segmentation", 6)
    feed = Feed(data.train, DenseOptions(task="segmentation", image_px=SIZE, batch_size=4), None)
    places = [place for step in range(3) for _, place in feed.positions(step)]
    assert sorted(places[:6]) == sorted(places[6:]) == list(range(6))
    straight, resumed = feed.batches(0), feed.batches(2)
    next(straight)
    next(straight)
    one, other = next(straight), next(resumed)
    straight.close()  # type: ignore[attr-defined]  # a generator
    resumed.close()
    assert one.images is not None
    assert other.images is not None
    assert torch.equal(one.images, other.images)


def test_one_picture_fills_a_batch() -> None:
    data = a_set("segmentation", 1)
    feed = Feed(data.train, DenseOptions(task="segmentation", image_px=SIZE, batch_size=4), None)
    assert [place for _, place in feed.positions(5)] == [0] * 4


def test_kept_features_are_what_the_backbone_says_and_are_made_once() -> None:
    data = a_set("segmentation")
    task = a_task("segmentation", data, protocol="quick")
    calls = []

    def maps(images: torch.Tensor) -> list[torch.Tensor]:
        calls.append(len(images))
        return list(task.eval().features(images))

    features = Features()
    kept = features.of("owner", data.train, SIZE, maps, StopRequest())
    assert features.of("owner", data.train[1:3], SIZE, maps, StopRequest()) == kept[1:3]
    assert sum(calls) == 4
    told = next(Feed(data.train, task.options, kept).batches(0))
    seen = next(Feed(data.train, task.options, None).batches(0))
    task.train()
    losses = [float(task.losses(batch)["loss"].detach()) for batch in (told, seen)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    features.of("another", data.train[:1], SIZE, maps, StopRequest())
    assert sum(calls) == 5


def test_features_that_do_not_fit_are_not_kept() -> None:
    data, other = a_set("segmentation"), a_set("segmentation", 1)
    task = a_task("segmentation", data, protocol="quick").eval()
    one = Features().of("owner", other.train, SIZE, task.features, StopRequest())
    assert one is not None
    features = Features(limit_bytes=int(one[0].nbytes * 3.5))
    assert features.of("owner", data.train, SIZE, task.features, StopRequest()) is None
    three = data.train[:3]
    assert features.of("owner", three, SIZE, task.features, StopRequest()) is not None
    # Those of other images make room.
    assert features.of("owner", other.train, SIZE, task.features, StopRequest()) is not None


def test_the_same_names_in_two_splits_are_two_pictures() -> None:
    train, test = split_of([block_item("a", SIZE, 0)]), split_of([block_item("a", SIZE, 1)])
    task = a_task("segmentation", a_set("segmentation"), protocol="quick").eval()
    features = Features()
    maps = [
        features.of("owner", split, SIZE, task.features, StopRequest()) for split in (train, test)
    ]
    assert maps[0] is not None
    assert maps[1] is not None
    assert not torch.equal(maps[0][0].maps[0], maps[1][0].maps[0])
