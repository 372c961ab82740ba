"""Detection and instance segmentation: torchvision's Mask R-CNN on the backbone's pyramid.

A conv net has a feature pyramid network, a plain ViT has ViTDet's simple feature pyramid; both have
one more level by pooling (He et al. 2017, Li et al. 2022). For data without masks it is Faster
R-CNN.

torchvision's parts are called one by one, not through its `forward`, because images are resized and
normalised like those of the other tasks, and a frozen backbone's maps can be kept. Anchors are 8
strides wide on images of 800 pixels, the usual size of recipes, and shrink with smaller images. So
does the number of proposals.
Backbones narrower than 256 channels get heads of their own width, and fewer regions per image.

AP is COCO's, the mean over IoU 0.50 to 0.95 and over the classes that occur in the truth of the
split, by pycocotools; crowds are ignored. AP_s, AP_m and AP_l are those of objects below 32 x 32
pixels, to 96 x 96, and above, by the area of the mask where there are masks, else of the box, in
the original image. A size that no object of the split has is left out. Values are from 0 to 1.

With `inference` keep, images keep their aspect ratio, padded below and on the right, in training
zoomed by `scale`: with (0.1, 2) this is the large-scale jitter of ViTDet and of MMDetection's lsj
configs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.nn.functional import max_pool2d
from torchmetrics.detection import MeanAveragePrecision
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from curator.core.errors import UsageError
from curator.core.stopping import StopRequest
from finetune.feeding import DenseBatch, Kept
from finetune.heads import FPN_WIDTH, head_width
from finetune.images import palette, to_tensor
from finetune.layouts import Boxes, DenseSet, LabelledImage, Split
from finetune.necks import SimpleFeaturePyramid
from finetune.protocols import QUICK
from finetune.tasks import SIZES, Evaluation
from finetune.tasks.base import BackboneTask
from pretrain.towers.backbone import Backbone

if TYPE_CHECKING:
    from finetune.options import DenseOptions

_ANCHOR_STRIDES = 8
_ASPECTS = (0.5, 1.0, 2.0)
_BOX_POOL = 7
_SHOWN_SCORE = 0.5

Found = dict[str, torch.Tensor]
"""boxes (n, 4) x0 y0 x1 y1, labels (n,), scores (n,), masks (n, 1, H, W) from 0 to 1."""


class _Pyramid(nn.Module):
    """Turns the backbone's maps into named levels of one width; the last one is made by pooling."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.out_channels = head_width(FPN_WIDTH, backbone.channels)
        self.is_plain = not backbone.is_pyramid
        self.strides = tuple(backbone.strides)
        if self.is_plain:
            neck = SimpleFeaturePyramid(
                backbone.channels[-1], backbone.strides[-1], self.out_channels
            )
            self.scale: nn.Module = neck
            self.strides = neck.strides
        else:
            self.scale = FeaturePyramidNetwork(list(backbone.channels), self.out_channels)
        self.strides += (self.strides[-1] * 2,)

    def forward(self, maps_BChw: Sequence[torch.Tensor]) -> OrderedDict[str, torch.Tensor]:
        if self.is_plain:
            levels = list(self.scale(maps_BChw))
        else:
            named = OrderedDict((str(level), value) for level, value in enumerate(maps_BChw))
            levels = list(self.scale(named).values())
        levels.append(max_pool2d(levels[-1], 1, stride=2))
        return OrderedDict((str(level), value) for level, value in enumerate(levels))


class Detection(BackboneTask):
    """Predicts boxes, and masks if the data has them."""

    def __init__(
        self, backbone: Backbone, options: DenseOptions, data: DenseSet, _train: Split
    ) -> None:
        super().__init__(backbone, options)
        self.has_masks = data.has_masks
        self.classes = data.classes
        self.detector = _detector(
            _Pyramid(backbone), len(data.classes) + 1, options.image_px, has_masks=data.has_masks
        )

    def losses(self, batch: DenseBatch) -> dict[str, torch.Tensor]:
        """Return torchvision's losses of proposals, boxes and masks, and their sum."""
        device = self.mean.device
        targets = []
        for one in batch.targets:
            assert isinstance(one, dict), "the target of detection are boxes"
            targets.append({name: value.to(device) for name, value in one.items()})
        sizes = [self.options.image_px] * len(batch)
        parts, _ = self._through(self.maps_of(batch), sizes, targets)
        return {"loss": torch.stack(list(parts.values())).sum(), **parts}

    def _through(
        self,
        maps: Sequence[torch.Tensor],
        sizes: list[tuple[int, int]],
        targets: list[dict[str, torch.Tensor]] | None,
    ) -> tuple[dict[str, torch.Tensor], list[Found]]:
        """Return losses and detections; boxes are clipped to `sizes`, without the padding."""
        detector = self.detector
        height, width = self.options.image_px
        number = len(maps[0])
        # Only the shape of the images is used from here on.
        images = ImageList(self.mean.new_zeros(1).expand(number, 3, height, width), sizes)
        levels = detector.backbone(maps)
        proposals, of_proposals = detector.rpn(images, levels, targets)
        found, of_regions = detector.roi_heads(levels, proposals, images.image_sizes, targets)
        return {**of_proposals, **of_regions}, found

    @torch.inference_mode()
    def found(self, items: Sequence[LabelledImage], maps: Sequence[torch.Tensor]) -> list[Found]:
        """Return the detections, at the images' original sizes. Needs evaluation mode."""
        self.eval()
        resized = [self.size_of(item) for item in items]
        _, found = self._through([level.float() for level in maps], resized, None)
        sizes = [(item.image.shape[0], item.image.shape[1]) for item in items]
        placed: list[Found] = self.detector.transform.postprocess(found, resized, sizes)
        return placed

    def evaluate(
        self, split: Split, *, kept: Sequence[Kept] | None, stop: StopRequest
    ) -> Evaluation:
        """Return box AP, and mask AP if there are masks, also at IoU 0.5 only and by size."""
        kinds: tuple[Literal["bbox", "segm"], ...] = ("bbox", "segm")
        kinds = kinds if self.has_masks else kinds[:1]
        metric = MeanAveragePrecision(iou_type=kinds, backend="pycocotools", class_metrics=True)
        num_objects = 0
        self.eval()
        with torch.inference_mode():
            for items, maps in self.chunks(split, kept, stop):
                for item, found in zip(items, self.found(items, maps), strict=True):
                    metric.update([self._said(found)], [self._true(item)])
                    num_objects += len(_boxes(item).without_crowd())
        if not num_objects:  # pycocotools would return -1
            raise UsageError("no image to evaluate on has an object", reason="dense.empty")
        values = metric.compute()
        metrics = {}
        for kind, name in zip(kinds, ("box", "mask"), strict=False):
            prefix = f"{kind}_" if self.has_masks else ""
            metrics[f"{name} AP"] = float(values[f"{prefix}map"])
            metrics[f"{name} AP50"] = float(values[f"{prefix}map_50"])
            by_size = {size: float(values[f"{prefix}map_{word}"]) for size, word in SIZES.items()}
            # -1: no object of the split has this size.
            metrics |= {f"{name} AP_{size}": ap for size, ap in by_size.items() if ap >= 0}
        return Evaluation(metrics=metrics, per_class=self._by_class(values))

    def _by_class(self, values: dict[str, Any]) -> dict[str, float]:
        name = "bbox_map_per_class" if self.has_masks else "map_per_class"
        numbers = values["classes"].reshape(-1).tolist()
        shares = values[name].reshape(-1).tolist()
        return {
            self.classes[number - 1]: share
            for number, share in zip(numbers, shares, strict=True)
            if share >= 0  # -1: the class does not occur
        }

    def _said(self, found: Found) -> dict[str, torch.Tensor]:
        said = {name: found[name].cpu() for name in ("boxes", "scores", "labels")}
        if self.has_masks:
            said["masks"] = (found["masks"][:, 0] > 0.5).cpu()  # noqa: PLR2004 - torchvision's
        return said

    def _true(self, item: LabelledImage) -> dict[str, torch.Tensor]:
        boxes = _boxes(item)
        true = {
            "boxes": torch.from_numpy(boxes.boxes),
            "labels": torch.from_numpy(boxes.labels),
            "iscrowd": torch.from_numpy(boxes.crowd).long(),
        }
        if boxes.masks is not None and self.has_masks:
            true["masks"] = torch.from_numpy(boxes.masks)
        return true

    def example(self, item: LabelledImage) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the image, the true objects, and the detections with a score above 0.5."""
        split = Split((item.name,), lambda _: item)
        self.eval()
        with torch.inference_mode():
            ((_, maps),) = self.chunks(split, None, StopRequest())
            (found,) = self.found([item], maps)
        said = self._said({name: v[found["scores"] > _SHOWN_SCORE] for name, v in found.items()})
        image = to_tensor(item.image)
        return image, _drawn(image, self._true(item)), _drawn(image, said)


def _detector(
    pyramid: _Pyramid, num_classes: int, image_px: tuple[int, int], *, has_masks: bool
) -> FasterRCNN:
    width = pyramid.out_channels
    shrink = min(1.0, min(image_px) / QUICK["recipe_px"])
    sizes = tuple((_ANCHOR_STRIDES * stride * shrink,) for stride in pyramid.strides)
    hidden = 4 * width
    proposals = QUICK["proposals"]
    share = max(shrink, proposals["least_share"])
    parts: dict[str, Any] = {
        "rpn_anchor_generator": AnchorGenerator(sizes, (_ASPECTS,) * len(sizes)),
        "box_head": TwoMLPHead(width * _BOX_POOL**2, hidden),
        "box_predictor": FastRCNNPredictor(hidden, num_classes),
        "box_batch_size_per_image": 2 * width,
        "rpn_post_nms_top_n_train": round(proposals["training"] * share),
        "rpn_post_nms_top_n_test": round(proposals["evaluation"] * share),
    }
    if not has_masks:
        return FasterRCNN(pyramid, **parts)
    return MaskRCNN(
        pyramid,
        mask_head=MaskRCNNHeads(width, (width,) * 4, 1),
        mask_predictor=MaskRCNNPredictor(width, width, num_classes),
        **parts,
    )


def _boxes(item: LabelledImage) -> Boxes:
    assert isinstance(item.target, Boxes), "the target of detection are boxes"
    return item.target


def _drawn(image: torch.Tensor, objects: dict[str, torch.Tensor]) -> torch.Tensor:
    number = len(objects["boxes"])
    if not number:
        return image
    colours = [tuple(int(part) for part in colour) for colour in palette(number)]
    drawn: torch.Tensor = image
    if "masks" in objects:
        drawn = draw_segmentation_masks(drawn, objects["masks"].bool(), alpha=0.5, colors=colours)
    drawn = draw_bounding_boxes(drawn, objects["boxes"], colors=colours, width=2)
    return drawn
