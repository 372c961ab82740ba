"""DINOv2's and DINOv3's linear probes against short transcriptions of their settings.

The transcriptions are written from `finetune.protocols` and its sources, with torch alone: head,
loss, optimiser and schedule for 50 steps; masks of the sliding window; RMSE of depth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tvf

from curator.core.errors import UsageError
from curator.core.stopping import StopRequest
from finetune import run
from finetune.augment import nyu_view, short_side_view
from finetune.feeding import DenseBatch
from finetune.layouts import DenseSet, LabelledImage
from finetune.options import DenseOptions
from finetune.probes.published import (
    PUBLISHED,
    BinnedDepth,
    readings_that_count,
)
from finetune.protocols import DINOV2_LINEAR, DINOV3_DEPTH, PROTOCOLS
from pretrain.loop.options import LoopOptions
from tests.kit.dense import TinyConv, TinyPlain, block_item, dense_set, depth_item

SIZE = (32, 48)
STEPS = 50


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def data_of(task: str) -> DenseSet:
    make = block_item if task == "segmentation" else depth_item
    items = [make(f"{number}", SIZE, number) for number in range(4)]
    return dense_set(task, items, items[2:])


def options_of(protocol: str, **changes: Any) -> DenseOptions:
    values = {"image_px": SIZE, "steps": STEPS, "batch_size": 4, **changes}
    (task,) = PROTOCOLS[protocol].tasks
    return DenseOptions(task=task, protocol=protocol, **values)


def built(protocol: str, **changes: Any) -> Any:
    options = options_of(protocol, **changes)
    data = data_of(options.task)
    torch.manual_seed(0)
    return PUBLISHED[protocol](TinyConv(), options.settled(), data, data.train).eval()


def fixed_batches(task: str) -> list[DenseBatch]:
    """Three batches of noise with labels of noise, a tenth of them missing."""
    rng = np.random.default_rng(7)
    found = []
    for _ in range(3):
        images = torch.from_numpy(rng.integers(0, 256, (4, 3, *SIZE), np.uint8))
        if task == "segmentation":
            target = rng.integers(0, 3, (4, *SIZE)).astype(np.uint8)
            target[rng.random(target.shape) < 0.1] = 255
        else:
            target = rng.uniform(0.5, 12, (4, *SIZE)).astype(np.float32)
            target[rng.random(target.shape) < 0.1] = 0
        found.append(DenseBatch(images, None, list(torch.from_numpy(target))))
    return found


class Fixed:
    """The same batches for ever, in place of a feed."""

    def __init__(self, batches: list[DenseBatch]) -> None:
        self.all = batches

    def batches(self, start: int) -> Iterator[DenseBatch]:
        while True:
            yield self.all[start % len(self.all)]
            start += 1


def last_map(images: torch.Tensor) -> torch.Tensor:
    net = TinyConv().eval()
    with torch.no_grad():
        return net((images.float() / 255 - 0.5) / 0.25)[-1]


# -- the transcriptions ----------------------------------------------------------------------------


def rates(protocol: str, total: int, warmup: int) -> list[float]:
    """The learning rate of every step, from the formulas of mmcv and of DINOv3's scheduler."""
    found = []
    for step in range(total):
        if protocol == "dinov2-linear":  # poly of power 1, linear warm-up from a millionth
            rate = 1e-3 * (1 - step / total)
            if step < warmup:
                rate *= 1 - (1 - step / warmup) * (1 - 1e-6)
        elif protocol == "dinov3-linear":  # the scheduler does not move after the first step
            s = max(step - 1, 0)
            if s < warmup:
                k = (1 - s / warmup) * (1 - 1e-6)
                rate = 1e-3 * (1 - k) * (1 - s / total)
            else:
                rate = 1e-3 / 2 * (math.cos(math.pi * (s + 1) / total) + 1)
        elif step < warmup:
            highest = 3e-4 * (1 + math.cos(math.pi * step / total)) / 2
            rate = 3e-4 / 1000 + highest * step / warmup
        else:
            least = 3e-4 / 25 / 1000
            rate = least + (3e-4 - least) / 2 * (math.cos(math.pi * (step + 1) / total) + 1)
        found.append(rate)
    return found


def transcribed(protocol: str, task: Any, batches: list[DenseBatch]) -> list[float]:
    """The losses of 50 steps from the task's initial weights."""
    conv, norm = nn.Conv2d(24, task.head.linear.out_channels, 1), nn.BatchNorm2d(24)
    conv.load_state_dict(task.head.linear.state_dict())
    decay = {"dinov2-linear": 1e-4, "dinov3-linear": 1e-3, "dinov3-depth": 1e-4}[protocol]
    beta2 = 0.99 if protocol == "dinov3-depth" else 0.999
    optimizer = torch.optim.AdamW(
        [*conv.parameters(), *norm.parameters()], lr=1, betas=(0.9, beta2), weight_decay=decay
    )
    warmup = {"dinov2-linear": 2, "dinov3-linear": 2, "dinov3-depth": 17}[protocol]
    losses = []
    for step, rate in enumerate(rates(protocol, STEPS, warmup)):
        batch = batches[step % len(batches)]
        assert batch.images is not None
        features = last_map(batch.images)
        # The loop's seed of a step: the same channels are dropped.
        state = np.random.SeedSequence((0, step)).generate_state(1, np.uint64)
        torch.manual_seed(int(state[0] >> np.uint64(1)))
        if protocol == "dinov3-linear":
            features = F.dropout2d(features, 0.1)
        target = torch.stack(batch.targets)  # type: ignore[arg-type]  # maps
        out = conv(norm(features))
        if protocol == "dinov3-depth":
            weights = out.relu() + 0.1
            bins = torch.linspace(0.001, 10, 256).view(1, -1, 1, 1)
            metres = (weights / weights.sum(1, keepdim=True) * bins).sum(1, keepdim=True)
            metres = F.interpolate(metres, SIZE, mode="bilinear", align_corners=False)[:, 0]
            valid = target != 0
            g = torch.log(metres[valid] + 1e-3) - torch.log(target[valid] + 1e-3)
            inner = 0.15 * g.mean() ** 2 + (torch.var(g) if step >= 20 else 0)
            loss = torch.sqrt(inner)
        else:
            logits = F.interpolate(out, SIZE, mode="bilinear", align_corners=False)
            each = F.cross_entropy(logits, target.long(), ignore_index=255, reduction="none")
            loss = each.mean()  # ignored pixels are noughts of the mean
        optimizer.zero_grad()
        loss.backward()
        if protocol == "dinov3-depth":
            nn.utils.clip_grad_norm_([*conv.parameters(), *norm.parameters()], 35)
        for group in optimizer.param_groups:
            group["lr"] = rate
            if protocol == "dinov3-depth":
                done = (step - 17) / (STEPS - 17)
                rises = 0.95 + (0.85 - 0.95) / 2 * (math.cos(math.pi * done) + 1)
                group["betas"] = (0.0 if step < 17 else rises, 0.99)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("protocol", list(PUBLISHED))
def test_fifty_steps(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DINOV3_DEPTH, "loss_warmup", 20)  # both parts of the loss in 50 steps
    task = built(protocol)
    batches = fixed_batches(task.options.task)
    wanted = transcribed(protocol, task, batches)
    cell = run._Cell("any", data_of(task.options.task), task.options, None)
    found = run._train(task, Fixed(batches), cell, StopRequest())  # type: ignore[arg-type]
    losses = [row["loss"] for row in found.history]
    assert losses == pytest.approx(wanted, abs=1e-5)
    if protocol != "dinov3-depth":  # whose loss becomes another one at step 20
        assert losses[-1] < losses[0]


@pytest.mark.parametrize("protocol", list(PUBLISHED))
def test_the_schedule_at_full_length(protocol: str) -> None:
    options = DenseOptions(task=PROTOCOLS[protocol].tasks[0], protocol=protocol)
    constants = options.protocol_spec.constants
    warmup = math.ceil(options.steps * constants["warmup_fraction"])
    assert warmup == (12_800 if protocol == "dinov3-depth" else 1_500)
    assert options.lr is not None
    loop = LoopOptions(
        total_steps=options.steps, lr=options.lr, warmup_steps=warmup, **constants["loop"]
    )
    wanted = rates(protocol, options.steps, warmup)
    for step in (0, 1, 2, 750, 1_499, 1_500, 1_501, 12_799, 12_800, 20_000, options.steps - 1):
        assert options.lr * loop.rate(step) == pytest.approx(wanted[step], rel=1e-9, abs=1e-15)
    assert loop.beta1(0) == (0 if protocol == "dinov3-depth" else 0.9)
    assert loop.beta1(12_800) == pytest.approx(0.85 if protocol == "dinov3-depth" else 0.9)


# -- what is predicted -----------------------------------------------------------------------------


def with_random_head(task: Any, image: torch.Tensor) -> Any:
    """A head that predicts different things in different places of (3, H, W) uint8."""
    torch.manual_seed(3)
    features = last_map(image[None])
    nn.init.normal_(task.head.linear.weight)
    nn.init.uniform_(task.head.norm.weight, 0.5, 2)
    task.head.norm.running_mean.copy_(features.mean((0, 2, 3)))
    task.head.norm.running_var.copy_(features.var((0, 2, 3)) + 1e-3)
    return task.eval()


def decode(task: Any, images: torch.Tensor) -> torch.Tensor:
    head = task.head
    with torch.no_grad():
        normed = F.batch_norm(
            last_map(images), head.norm.running_mean, head.norm.running_var, head.norm.weight,
            head.norm.bias,
        )  # fmt: skip
        return F.conv2d(normed, head.linear.weight, head.linear.bias)


def test_masks_of_the_sliding_window() -> None:
    """Short side 32, windows of 32 every 21, logits averaged, scaled to the image's 50 x 110."""
    blocks = np.random.default_rng(0).integers(0, 256, (5, 11, 3), np.uint8)
    picture = blocks.repeat(10, 0).repeat(10, 1)
    item = LabelledImage(name="a", image=picture, target=np.zeros((50, 110), np.uint8))
    task = built("dinov2-linear", image_px=(32, 32))
    with_random_head(task, torch.from_numpy(picture).permute(2, 0, 1))
    ((_, logits),) = task.predictions([item], None, StopRequest())
    image = tvf.resize(torch.from_numpy(item.image).permute(2, 0, 1), [32, 70], antialias=True)
    total, count = torch.zeros(1, 3, 32, 70), torch.zeros(1, 1, 32, 70)
    for column in range(max(70 - 32 + 21 - 1, 0) // 21 + 1):
        right = min(column * 21 + 32, 70)
        left = max(right - 32, 0)
        seen = decode(task, image[None, :, :, left:right])
        total[..., left:right] += F.interpolate(seen, (32, 32), mode="bilinear")
        count[..., left:right] += 1
    wanted = F.interpolate(total / count, (50, 110), mode="bilinear").argmax(1)[0]
    assert torch.equal(logits.argmax(0), wanted)
    assert len(wanted.unique()) > 1


def test_rmse_of_depth() -> None:
    """Means over images of the errors of readings within Eigen's crop and between 1 mm and 10 m."""
    rng = np.random.default_rng(1)
    items = [
        LabelledImage(
            name=f"{number}",
            image=rng.integers(0, 256, (96, 128, 3), np.uint8),
            target=rng.uniform(0, 12, (96, 128)).astype(np.float32),
        )
        for number in range(2)
    ]
    task = built("dinov3-depth")
    with_random_head(task, torch.from_numpy(items[0].image).permute(2, 0, 1))
    found = task.evaluate(dense_set("depth", items, items).test, kept=None, stop=StopRequest())
    wanted, relative = [], []
    for item in items:
        image = torch.from_numpy(item.image).permute(2, 0, 1)[None]
        out = decode(task, torch.cat([image, image.flip(-1)])).relu() + 0.1
        bins = torch.linspace(0.001, 10, 256).view(1, -1, 1, 1)
        metres = (out / out.sum(1, keepdim=True) * bins).sum(1, keepdim=True)
        metres = (metres[:1] + metres[1:].flip(-1)) / 2
        said = F.interpolate(metres, (96, 128), mode="bilinear").clamp(0.001, 10)[0, 0]
        truth = torch.from_numpy(item.target)
        valid = (truth > 0.001) & (truth < 10)
        inside = torch.zeros(96, 128, dtype=torch.bool)
        inside[9:94, 8:120] = True  # 45, 471, 41 and 601 of 480 x 640, rounded down
        valid &= inside
        wanted.append(float((said[valid] - truth[valid]).square().mean().sqrt()))
        relative.append(float(((said[valid] - truth[valid]).abs() / truth[valid]).mean()))
    assert found.metrics["RMSE"] == pytest.approx(np.mean(wanted), abs=1e-5)
    assert found.metrics["AbsRel"] == pytest.approx(np.mean(relative), rel=1e-5)


def test_eigens_crop_on_nyuv2() -> None:
    metres = np.full((480, 640), 5, np.float32)
    metres[100, 100], metres[101, 101], metres[102, 102] = 10, 0.001, 9.99
    kept = readings_that_count(metres, DINOV3_DEPTH) > 0
    rows, columns = kept.any(1).nonzero()[0], kept.any(0).nonzero()[0]
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (45, 470, 41, 600)
    assert (kept[100, 100], kept[101, 101], kept[102, 102]) == (False, False, True)


def test_a_class_that_is_only_predicted_counts_as_nought() -> None:
    """Truth 0 0 / 1 1, predicted 0 0 / 1 2: IoU 1, 1/2 and 0."""
    item = LabelledImage(
        name="a", image=np.zeros((2, 2, 3), np.uint8), target=np.array([[0, 0], [1, 1]], np.uint8)
    )
    task = built("dinov2-linear")
    said = F.one_hot(torch.tensor([[0, 0], [1, 2]]), 3).permute(2, 0, 1).float()
    task.predictions = lambda *_: [(item, said)]
    data = dense_set("segmentation", [item], [item])
    assert task.evaluate(data.test, kept=None, stop=StopRequest()).metrics["mIoU"] == 0.5


def test_a_backbone_of_one_size_is_loaded_again_for_test_images() -> None:
    options = options_of("dinov3-depth")
    data = data_of("depth")
    net = TinyPlain()
    net.image_px = SIZE
    task = BinnedDepth(net, options.settled(), data, data.train)
    asked = []

    def load(px: tuple[int, int]) -> TinyPlain:
        asked.append(px)
        return TinyPlain()

    task.load_at = load
    item = depth_item("big", (64, 96), 0)
    for _ in range(2):
        ((_, metres),) = task.predictions([item], None, StopRequest())  # type: ignore[arg-type]
        assert metres.shape == (1, 64, 96)
    assert asked == [(64, 96)]
    assert task.backbone is net


# -- what is trained on ----------------------------------------------------------------------------


def test_a_view_of_linear_segmentation() -> None:
    """Short side 32 x 0.5 to 2, a crop of 32 x 48, padded where the image is smaller."""
    item = block_item("a", (40, 60), 1)
    padded = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        view = short_side_view(item, SIZE, (0.5, 2.0), DINOV2_LINEAR, rng)
        assert (view.image.shape, view.image.dtype) == ((3, *SIZE), torch.uint8)
        assert isinstance(view.target, torch.Tensor)
        assert view.target.shape == SIZE
        if (view.target[-1] == 255).all():
            padded += 1
            assert (view.image[:, -1] == 124).all()
        again = short_side_view(item, SIZE, (0.5, 2.0), DINOV2_LINEAR, np.random.default_rng(seed))
        assert torch.equal(view.image, again.image)
    assert 0 < padded < 30


def test_a_view_of_depth() -> None:
    item = depth_item("a", (96, 128), 1)
    view = nyu_view(item, (64, 96), DINOV3_DEPTH, np.random.default_rng(0))
    assert (view.image.shape, view.image.dtype) == ((3, 64, 96), torch.float32)
    assert isinstance(view.target, torch.Tensor)
    assert isinstance(item.target, np.ndarray)
    assert set(view.target.unique().tolist()) <= {0.0, *np.unique(item.target).tolist()}
    with pytest.raises(UsageError, match=r"an image of 96 x 128 has 85 x 113 pixels"):
        nyu_view(item, (96, 96), DINOV3_DEPTH, np.random.default_rng(0))


@pytest.mark.parametrize("protocol", list(PUBLISHED))
def test_a_cell_from_end_to_end(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        run, "load_backbone", lambda _spec, *, image_px, seed, final_norm: TinyConv()
    )
    small = (24, 32)
    asked = options_of(protocol, steps=2, batch_size=2, image_px=small)
    data = data_of(asked.task)
    found = run.finetune("any", data, asked, device="cpu")
    steps = "38,400" if protocol == "dinov3-depth" else "40,000"
    size = "416x544" if protocol == "dinov3-depth" else "512x512"
    assert found.protocol == (
        f"{protocol}, 2 of {steps} steps, batch_size 2 instead of 16, "
        f"image_px 24x32 instead of {size}"
    )
    assert set(found.metrics) >= ({"RMSE"} if asked.task == "depth" else {"mIoU"})
