"""Finetuning as published recipes do it: auxiliary head, drop path, windows, crops, jitter."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import pytest
import timm
import torch
from open_clip.transformer import ResidualAttentionBlock
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from timm.layers import DropPath
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import ViTMAEConfig
from transformers.models.vit_mae.modeling_vit_mae import ViTMAELayer

from curator.core.errors import UsageError
from curator.core.stopping import StopRequest
from finetune.augment import augmented, whole_image
from finetune.feeding import DenseBatch, Feed
from finetune.layouts import IGNORE, DenseSet, LabelledImage
from finetune.options import DenseOptions
from finetune.sliding_window import starts
from finetune.tasks.base import BackboneTask
from finetune.tasks.depth import Depth
from finetune.tasks.detection import Detection
from finetune.tasks.segmentation import Segmentation
from pretrain.towers.backbone import Backbone
from pretrain.towers.drop_path import set_drop_path
from tests.finetune.test_tasks import a_set, a_task
from tests.kit.dense import TinyConv, TinyPlain, block_item, box_item, boxes, dense_set

SIZE = (48, 64)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def size_of(task: str, height: int, width: int, **options: Any) -> list[float]:
    return [*DenseOptions(task=task, **options).size_at_zoom_1(height, width)]


# -- UPerNet: auxiliary head, dropout --------------------------------------------------------------


def test_the_auxiliary_loss_counts_with_its_weight_and_only_in_training() -> None:
    data = a_set("segmentation", 2)
    task = a_task("segmentation", data, TinyPlain(), dropout=0.0, drop_path=0.0)
    assert isinstance(task, Segmentation)
    assert task.aux_head is not None
    batch = next(Feed(data.train, task.options, None).batches(0))
    task.train()
    losses = task.losses(batch)
    target = torch.stack([one for one in batch.targets if isinstance(one, torch.Tensor)]).long()
    outputs = task.outputs_and_aux(batch)  # in training norms use the batch: the same again
    main, aux = (cross_entropy(one, target, ignore_index=IGNORE) for one in outputs)
    assert float(losses["loss_aux"].detach()) == pytest.approx(float(aux.detach()), rel=1e-5)
    assert float(losses["loss"].detach()) == pytest.approx(float((main + 0.4 * aux).detach()))
    torch.autograd.backward(losses["loss"])
    assert all(one.grad is not None for one in task.aux_head.parameters())
    before = next(task.predictions(data.test, None, StopRequest()))[1]
    task.aux_head = None
    assert torch.equal(before, next(task.predictions(data.test, None, StopRequest()))[1])


def test_the_auxiliary_head_is_an_fcn_on_the_third_level() -> None:
    task = a_task("segmentation", a_set("segmentation", 2), TinyConv(), head="upernet")
    assert isinstance(task, Segmentation)
    assert task.aux_head is not None
    maps = [torch.zeros(2, width, 4, 4) for width in (8, 12, 16, 24)]
    maps[2] = torch.randn(2, 16, 3, 5)  # another size, to be recognised by
    found = task.aux_head(maps)
    assert found.shape == (2, 3, 3, 5)
    convolutions = [one for one in task.aux_head.modules() if isinstance(one, nn.Conv2d)]
    assert [(one.in_channels, one.kernel_size[0]) for one in convolutions] == [(16, 3), (32, 1)]


@pytest.mark.parametrize(
    ("name", "backbone", "options", "built"),
    [
        ("segmentation", TinyPlain, {}, ("upernet", 0.1, 0.4)),
        ("segmentation", TinyConv, {}, ("fpn", 0.1, 0.0)),
        ("segmentation", TinyConv, {"aux_weight": 0.3}, ("fpn", 0.1, 0.3)),
        ("segmentation", TinyPlain, {"aux_weight": 0, "dropout": 0}, ("upernet", 0, 0)),
        ("segmentation", TinyPlain, {"protocol": "quick"}, ("linear", 0, 0)),
        ("depth", TinyPlain, {}, ("upernet", 0.0, 0.0)),
        ("depth", TinyPlain, {"dropout": 0.2}, ("upernet", 0.2, 0.0)),
    ],
)
def test_heads_are_built_as_published_unless_said_otherwise(
    name: str, backbone: type[Backbone], options: dict[str, Any], built: tuple[object, ...]
) -> None:
    task = a_task(name, a_set(name, 2), backbone(), **options)
    assert tuple(task.built[key] for key in ("head", "dropout", "aux_weight")) == built


def test_dropout_drops_whole_channels_before_the_classifier_in_training_only() -> None:
    for head in ("fpn", "upernet"):
        task = a_task("segmentation", a_set("segmentation", 2), TinyConv(), head=head, dropout=0.5)
        seen: list[torch.Tensor] = []
        inner: Any = task.head
        last = inner.predict if head == "fpn" else inner.inner.classifier[-1]
        last.register_forward_hook(lambda _module, given, _out, seen=seen: seen.append(given[0]))
        maps = [torch.rand(2, w, s, s) for w, s in zip((8, 12, 16, 24), (8, 4, 2, 1), strict=True)]
        inner.train()(maps)
        inner.eval()(maps)
        trained, evaluated = seen
        empty = (trained == 0).flatten(2).all(2)
        assert 0.1 < empty.float().mean() < 0.9
        assert not (evaluated == 0).flatten(2).all(2).all()


def test_a_linear_head_takes_neither() -> None:
    with pytest.raises(UsageError, match="head is linear, which has no dropout"):
        a_task("segmentation", a_set("segmentation", 2), head="linear", dropout=0.1)


# -- drop path, norms ------------------------------------------------------------------------------


def test_rates_grow_from_nought_at_the_first_block_to_the_last() -> None:
    net = timm.create_model("vit_tiny_patch16_224", depth=4, embed_dim=12, num_heads=1, img_size=32)
    assert set_drop_path(net, 0.3) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    found = [one.drop_prob for one in net.modules() if isinstance(one, DropPath)]
    assert found == pytest.approx([0, 0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3])
    assert set_drop_path(net, 0.6) == pytest.approx([0.0, 0.2, 0.4, 0.6])  # replaced, not added
    assert sum(isinstance(one, DropPath) for one in net.modules()) == 8
    assert set_drop_path(nn.Conv2d(1, 1, 1), 0.3) == []


@pytest.mark.parametrize("layer_scale", [None, 0.1])
def test_drop_path_leaves_branches_out_in_training_only(layer_scale: float | None) -> None:
    """With a rate close to 1 every branch is left out: the block is the identity."""
    blocks = nn.ModuleList(
        ResidualAttentionBlock(8, 1, ls_init_value=layer_scale) for _ in range(2)
    )
    tokens = torch.randn(3, 5, 8)
    expected = blocks[1].eval()(tokens)
    set_drop_path(blocks, 1 - 1e-9)
    assert torch.equal(blocks[1].train()(tokens), tokens)
    assert torch.equal(blocks[1].eval()(tokens), expected)
    assert not torch.equal(blocks[0].train()(tokens), tokens), "the first block keeps its branches"


def test_maes_layers_leave_both_of_their_branches_out() -> None:
    """At a rate close to 1 the second layer is the identity; attention alone would show."""
    config = ViTMAEConfig(hidden_size=8, num_attention_heads=1, intermediate_size=16)
    config._attn_implementation = "eager"
    layers = nn.ModuleList(ViTMAELayer(config) for _ in range(2))
    assert set_drop_path(layers, 1 - 1e-9) == pytest.approx([0, 1])
    tokens = torch.randn(2, 5, 8)
    assert torch.equal(layers[1].train()(tokens), tokens)
    assert not torch.equal(layers[1].eval()(tokens), tokens)


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("resnet18", 8),
        ("convnext_atto", 12),
        ("fastvit_t8", 10),
        ("swin_tiny_patch4_window7_224", 12),
    ],
)
def test_nets_of_timm_have_a_rate_in_each_of_their_blocks(name: str, blocks: int) -> None:
    with torch.device("meta"):
        net = timm.create_model(name)
    rates = set_drop_path(net, 0.2)
    assert len(rates) == blocks
    assert rates[-1] == pytest.approx(0.2)
    assert any(isinstance(one, DropPath) and one.drop_prob == 0.2 for one in net.modules())


def test_a_net_without_residual_blocks_has_no_drop_path() -> None:
    data = a_set("segmentation", 2)
    assert a_task("segmentation", data, TinyPlain()).built["drop_path"] == 0
    with pytest.raises(UsageError, match=r"drop_path is 0\.2, and plain has no residual blocks"):
        a_task("segmentation", data, TinyPlain(), drop_path=0.2)


def test_frozen_norms_keep_statistics_scale_and_shift() -> None:
    data = a_set("segmentation", 2)
    task = a_task("segmentation", data, TinyConv(), frozen_norms=True)
    state = {name: value.clone() for name, value in task.backbone.state_dict().items()}
    trained = {id(one) for group in task.groups() for one in group.parameters if one.requires_grad}
    task.train()
    batch = next(Feed(data.train, task.options, None).batches(0))
    torch.autograd.backward(task.losses(batch)["loss"])
    norms = [one for one in task.backbone.modules() if isinstance(one, nn.BatchNorm2d)]
    assert len(norms) == 4
    for norm in norms:
        assert norm.weight.grad is None
        assert id(norm.weight) not in trained
    after = task.backbone.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in state.items())
    head_norms = [one for one in task.head.modules() if isinstance(one, nn.BatchNorm2d)]
    assert all(one.training for one in head_norms)
    with pytest.raises(UsageError, match="frozen_norms: plain has no batch norm"):
        a_task("segmentation", data, TinyPlain(), frozen_norms=True)


# -- sizes, windows, mirror images -----------------------------------------------------------------


def test_sizes_at_kept_aspect_ratio() -> None:
    """ADE20K's 683 x 512: shorter side 512. Cityscapes as it is. COCO's 640 x 480 in 1024: 1024."""
    ade: dict[str, Any] = {"image_px": (512, 512)}
    assert size_of("segmentation", 512, 683, **ade) == [512, 512]  # squeezed
    for inference in ("slide", "keep"):
        kept = {**ade, "inference": inference}
        assert size_of("segmentation", 512, 683, **kept) == pytest.approx([512, 683])
        assert size_of("segmentation", 1024, 768, **kept) == pytest.approx([512 / 0.75, 512])
    city = {"image_px": (512, 1024), "inference": "slide", "short_side_px": 1024}
    assert size_of("segmentation", 1024, 2048, **city) == pytest.approx([1024, 2048])
    coco: dict[str, Any] = {"image_px": (1024, 1024), "inference": "keep"}
    assert size_of("detection", 480, 640, **coco) == pytest.approx([768, 1024])
    assert size_of("detection", 640, 480, **coco) == pytest.approx([1024, 768])


def test_windows_are_those_of_mmsegmentation() -> None:
    """512 x 683: stride 341 gives two columns, 256 also two; 512 x 1024 four and three."""
    assert starts(683, 512) == starts(683, 512, 341) == [0, 171]
    assert starts(683, 512, 256) == [0, 171]
    assert starts(1024, 512, 341) == [0, 341, 512]
    assert starts(1024, 512, 256) == [0, 256, 512]


def test_a_stride_that_leaves_pixels_out_is_refused() -> None:
    slide: dict[str, Any] = {"task": "segmentation", "image_px": (64, 64), "inference": "slide"}
    assert DenseOptions(**slide, stride_px=(64, 64)).stride_px == (64, 64)
    for wrong in ({"stride_px": (65, 64)}, {"stride_px": (0, 64)}, {"short_side_px": 63}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            DenseOptions(**slide, **wrong)


def test_a_net_of_any_size_sees_the_whole_image_at_its_aspect_ratio() -> None:
    items = [block_item("a", (60, 100), 0)]
    data = dense_set("segmentation", items, items)
    task = a_task("segmentation", data, TinyConv(), inference="keep")
    seen: list[tuple[int, ...]] = []
    forward = task.backbone.forward
    task.backbone.forward = lambda images: (seen.append(images.shape[-2:]), forward(images))[1]
    ((_, logits),) = task.predictions(data.test, None, StopRequest())  # type: ignore[attr-defined]
    assert seen == [(48, 80)]
    assert logits.shape == (3, 60, 100)
    fixed = TinyConv()
    fixed.image_px = SIZE
    with pytest.raises(UsageError, match="inference is keep, and tiny takes images of one size"):
        a_task("segmentation", data, fixed, inference="keep")


def test_flips_average_probabilities_in_segmentation() -> None:
    """Logits (0, a) and, mirrored, (0, b): the mean of two softmaxes, not the softmax of a mean."""
    task = a_task("segmentation", a_set("segmentation", 2), flip_averaging=True)
    assert isinstance(task, Segmentation)
    views = torch.tensor([[0.0, 2.0], [0.0, -1.0]])[:, :, None, None]
    one, other = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1))
    found = task.averaged(views).exp().flatten().tolist()
    assert found == pytest.approx([1 - (one + other) / 2, (one + other) / 2])


def test_the_prediction_for_a_mirrored_image_is_turned_back() -> None:
    """Averaged over the mirror image, mirrored images have mirrored predictions, exactly."""
    item = block_item("a", SIZE, 1)
    mirrored = LabelledImage(name="b", image=item.image[:, ::-1].copy(), target=item.target)
    data = dense_set("segmentation", [item], [item, mirrored])
    for inference in ("whole", "slide"):
        task = a_task("segmentation", data, flip_averaging=True, inference=inference)
        assert isinstance(task, Segmentation)
        found = [logits for _, logits in task.predictions(data.test, None, StopRequest())]
        torch.testing.assert_close(found[0], found[1].flip(-1), atol=1e-5, rtol=1e-5)
        single = a_task("segmentation", data, inference=inference)
        single.load_state_dict(task.state_dict())
        alone = [one for _, one in single.predictions(data.test, None, StopRequest())]  # type: ignore[attr-defined]
        assert not torch.allclose(alone[0], alone[1].flip(-1), atol=1e-3)


# -- NYUv2 -----------------------------------------------------------------------------------------


def nyu(truth: np.ndarray[Any, Any], **options: Any) -> tuple[Depth, DenseSet]:
    item = LabelledImage(
        name="a", image=np.zeros((*truth.shape, 3), np.uint8), target=truth.astype(np.float32)
    )
    data = dense_set("depth", [item], [item])
    task = a_task("depth", data, **options)
    assert isinstance(task, Depth)
    task.log_mean.fill_(0)
    task.log_spread.fill_(1)
    return task, data


def test_the_eigen_crop_is_rows_45_to_470_and_columns_41_to_600() -> None:
    truth = np.full((480, 640), 2.0)
    task, data = nyu(truth, eval_crop="eigen")
    counted = task.counted(data.test[0])
    rows, columns = counted.any(1).nonzero()[0], counted.any(0).nonzero()[0]
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (45, 470, 41, 600)
    assert counted.sum() == 426 * 560
    small, small_set = nyu(np.full((48, 64), 2.0), eval_crop="eigen")
    with pytest.raises(UsageError, match="label of a has 48 x 64 px"):
        small.counted(small_set.test[0])


def test_readings_from_the_cap_on_do_not_count_and_predictions_stay_below_it() -> None:
    """Truth 1, 9, 10, 12; said 2 everywhere but 50 for the second, which is clamped to 10."""
    task, data = nyu(np.array([[1.0, 9.0, 10.0, 12.0]]), depth_cap_m=10)
    assert task.counted(data.test[0]).tolist() == [[True, True, False, False]]
    said = torch.tensor([[[2.0, 50.0, 2.0, 2.0]]]).log()
    task.predictions = lambda split, *_: ((item, said) for item in split)  # type: ignore[method-assign]
    found = task.evaluate(data.test, kept=None, stop=StopRequest())
    assert found.metrics["RMSE"] == pytest.approx(math.sqrt((1 + 1) / 2), rel=1e-5)
    with pytest.raises(UsageError, match=r"depth_cap_m is 0.5, and the nearest depth 1 m"):
        nyu(np.array([[1.0, 9.0]]), depth_cap_m=0.5)


def test_flips_average_metres_in_depth() -> None:
    """2 m and 8 m are 5 m, not the 4 m of their mean logs."""
    task, _ = nyu(np.array([[1.0, 9.0]]), flip_averaging=True)
    views = torch.tensor([2.0, 8.0]).log()[:, None, None, None]
    assert float(task.depth(task.averaged(views))) == pytest.approx(5)


# -- detection -------------------------------------------------------------------------------------


def jittered(zoom: float, seed: int = 0) -> Any:
    """A 20 x 40 image with a box of the left half, fitted into 32 x 32: 16 x 32 at zoom 1."""
    mask = np.zeros((1, 20, 40), bool)
    mask[0, 4:16, 0:20] = True
    image = np.full((20, 40, 3), 40, np.uint8)
    image[mask[0]] = 220
    item = LabelledImage(
        name="a", image=image, target=boxes(np.array([[0, 4, 20, 16]], np.float32), mask)
    )
    options = DenseOptions(task="detection", image_px=(32, 32), inference="keep")
    return augmented(
        item,
        (32, 32),
        scale=(zoom, zoom),
        base=options.size_at_zoom_1(20, 40),
        rng=np.random.default_rng(seed),
        at_corner=True,
    )


@pytest.mark.parametrize(
    ("zoom", "left_box", "right_box"),
    [
        # 8 x 16 in the corner; mirrored, the box is the right half of those 16 columns.
        (0.5, [0, 1.6, 8, 6.4], [8, 1.6, 16, 6.4]),
        (1.0, [0, 3.2, 16, 12.8], [16, 3.2, 32, 12.8]),
    ],
)
def test_jittered_images_lie_in_the_corner(
    zoom: float, left_box: list[float], right_box: list[float]
) -> None:
    seen = set()
    for seed in range(8):
        target = jittered(zoom, seed).target
        (box,) = target["boxes"].tolist()
        side = "left" if box[0] == 0 else "right"
        # Recomputed from the mask, which is resized to the nearest pixel.
        assert box == pytest.approx(left_box if side == "left" else right_box, abs=1)
        rows, columns = target["masks"][0].nonzero(as_tuple=True)
        around = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert box == [float(edge) for edge in around]
        seen.add(side)
    assert seen == {"left", "right"}


def test_a_jittered_image_larger_than_the_canvas_is_cropped() -> None:
    """Zoom 2: 32 x 64, of which 32 columns are seen; the box of 32 columns is cut or gone."""
    widths = set()
    for seed in range(12):
        sample = jittered(2.0, seed)
        assert sample.image.shape == (3, 32, 32)
        for box, mask in zip(sample.target["boxes"], sample.target["masks"], strict=True):
            assert 0 <= box[0] < box[2] <= 32
            assert float(box[2] - box[0]) == float(mask.any(0).sum())
            widths.add(float(box[2] - box[0]))
    assert len(widths) > 3


def test_detection_sees_images_in_the_corner_and_answers_in_their_pixels() -> None:
    """A 40 x 80 image in 48 x 64 is 32 x 64; detections are clipped to it, then scaled by 5 / 4."""
    item = box_item("a", (40, 80), 0)
    data = dense_set("detection", [item], [item])
    task = a_task("detection", data, TinyConv(), inference="keep")
    assert isinstance(task, Detection)
    assert task.size_of(item) == (32, 64)
    canvas = whole_image(item, (32, 64), SIZE)
    assert canvas.shape == (3, *SIZE)
    assert canvas[:, 32:].unique().tolist() == [124]
    assert torch.equal(canvas[:, :32], whole_image(item, (32, 64)))
    task.eval()
    with torch.inference_mode():
        ((_, maps),) = task.chunks(data.test, None, StopRequest())
    (found,) = task.found([item], maps)
    assert found["masks"].shape[1:] == (1, 40, 80)
    assert len(found["boxes"]) > 0
    assert float(found["boxes"][:, 2].max()) <= 80 + 1e-3
    assert float(found["boxes"][:, 3].max()) <= 40 + 1e-3


def rectangles() -> tuple[LabelledImage, dict[str, torch.Tensor]]:
    """Objects of 20 x 20, 40 x 40 with a mask of 400 pixels, 60 x 60 and 100 x 100.

    The second one is small by its mask and medium by its box. Detections are somewhat off, and the
    medium one is missed.
    """
    corners = np.array(
        [[0, 0, 20, 20], [0, 100, 40, 140], [100, 0, 160, 60], [200, 100, 300, 200]], np.float32
    )
    masks = np.zeros((4, 200, 300), bool)
    for mask, (left, top, right, bottom) in zip(masks, corners.astype(int), strict=True):
        mask[top:bottom, left:right] = True
    masks[1] = False
    masks[1, 100:140, 0:10] = masks[1, 139, 0:40] = True
    item = LabelledImage(
        name="a", image=np.zeros((200, 300, 3), np.uint8), target=boxes(corners, masks)
    )
    said = torch.tensor([[1.0, 0, 21, 20], [0, 100, 36, 140], [202, 104, 300, 200]])
    drawn = torch.zeros(3, 1, 200, 300)
    for mask, corner in zip(drawn, said.int().tolist(), strict=True):
        mask[0, corner[1] : corner[3], corner[0] : corner[2]] = 1
    found = {"boxes": said, "labels": torch.ones(3, dtype=torch.long), "masks": drawn}
    return item, found | {"scores": torch.tensor([0.9, 0.8, 0.7])}


def test_ap_by_size_is_that_of_pycocotools() -> None:
    item, said = rectangles()
    data = dense_set("detection", [item], [item])
    task = a_task("detection", data)
    assert isinstance(task, Detection)
    task.found = lambda _items, _maps: [said]  # type: ignore[method-assign]
    found = task.evaluate(data.test, kept=None, stop=StopRequest()).metrics
    for kind, iou_type in (("box", "bbox"), ("mask", "segm")):
        expected = by_pycocotools(item, said, iou_type)
        names = [f"{kind} AP{what}" for what in ("", "50", "_s", "_m", "_l")]
        assert [found[name] for name in names] == pytest.approx(expected), kind
    assert 0 < found["box AP_s"] < 1
    assert found["box AP_m"] == 0
    assert 0 < found["box AP_l"] < 1


def by_pycocotools(item: LabelledImage, said: dict[str, torch.Tensor], kind: str) -> list[float]:
    truth: Any = item.target

    def encoded(mask: Any) -> Any:
        return coco_mask.encode(np.asfortranarray(np.asarray(mask).astype(np.uint8)))

    def record(number: int, box: Any, mask: Any) -> dict[str, Any]:
        left, top, right, bottom = (float(edge) for edge in box)
        shape = {"bbox": [left, top, right - left, bottom - top], "segmentation": encoded(mask)}
        return {"id": number + 1, "image_id": 1, "category_id": 1, **shape}

    true, found = COCO(), COCO()
    objects = [
        record(number, *both) | {"area": float(both[1].sum()), "iscrowd": 0}
        for number, both in enumerate(zip(truth.boxes, truth.masks, strict=True))
    ]
    about = {"images": [{"id": 1, "height": 200, "width": 300}], "categories": [{"id": 1}]}
    true.dataset = {**about, "annotations": objects}
    pairs = enumerate(zip(said["boxes"], said["masks"][:, 0], strict=True))
    results = [record(number, *both) | {"score": float(said["scores"][number]), "iscrowd": 0}
               for number, both in pairs]  # fmt: skip
    for one in results:
        # As COCO.loadRes does.
        one["area"] = one["bbox"][2] * one["bbox"][3] if kind == "bbox" else float(
            coco_mask.area(one["segmentation"]))  # fmt: skip
    found.dataset = {**about, "annotations": results}
    with redirect_stdout(io.StringIO()):
        true.createIndex()
        found.createIndex()
        evaluation = COCOeval(true, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(evaluation.stats[place]) for place in (0, 1, 3, 4, 5)]


def test_jittered_images_of_any_shape_make_a_batch_with_finite_losses() -> None:
    items = [box_item(f"{place}", (30 + 10 * place, 60), place) for place in range(3)]
    data = dense_set("detection", items, items)
    values: dict[str, Any] = {"inference": "keep", "scale": (0.1, 2.0), "batch_size": 3}
    task = a_task("detection", data, **values)
    batch: DenseBatch = next(Feed(data.train, task.options, None).batches(0))
    assert batch.images is not None
    assert batch.images.shape == (3, 3, *SIZE)
    losses = task.losses(batch)
    assert all(bool(value.isfinite()) for value in losses.values())


def test_detection_says_how_it_was_built() -> None:
    task: BackboneTask = a_task("detection", a_set("detection", 2))
    assert task.built == {"layer_decay": 0.9, "drop_path": 0.0}
