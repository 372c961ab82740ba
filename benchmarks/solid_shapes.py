"""Does a tower know shapes? A linear probe on the feature maps at the middle of every solid.

    python -m benchmarks.solid_shapes demo-out NAME=BACKBONE [NAME=BACKBONE ...]

What a frozen tower knows about the *kind* of a solid (sphere, cube, cylinder, cone, torus; chance
is 20 %) bounds what a segmentation head can make of it. Maps are read by bilinear interpolation
at the middle of each box of OUT/detection; a multinomial logistic regression is fitted on train,
its ridge chosen on val, and evaluated once on test. BACKBONE is what `curator finetune` takes.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn.functional import cross_entropy, grid_sample

from benchmarks.common import parser, show
from finetune.augment import whole_image
from finetune.layouts import Boxes, DenseSet, Split, open_dense
from pretrain.towers.backbone import Backbone, load_backbone

RIDGES = (1e-3, 1e-2, 1e-1)
Samples = tuple[torch.Tensor, torch.Tensor]  # (N, channels of all maps), (N,) kinds


def main() -> None:
    """Probe every backbone and print a table."""
    options = parser(__doc__)
    options.add_argument("demo", type=Path, help="folder of `curator demo data` or `demo run`")
    options.add_argument("backbones", nargs="+", metavar="NAME=BACKBONE")
    options.add_argument("--size", type=int, default=128, help="pixels, height and width")
    args = options.parse_args()
    data = open_dense("detection", args.demo / "detection")
    rows, details = [], {}
    for arm in args.backbones:
        name, _, spec = arm.partition("=")
        backbone = load_backbone(spec, image_px=(args.size, args.size)).eval()
        found, ridge = accuracy(backbone, data, args.size)
        rows.append([name, f"{found:.1%}", f"{ridge:g}"])
        details[name] = found
    show(["backbone", "kinds right", "ridge"], rows, args=args, details=details)


def accuracy(backbone: Backbone, data: DenseSet, size: int) -> tuple[float, float]:
    """Share of the test solids whose kind is found, and the ridge that val chose."""
    train, val, test = (
        features(backbone, split, size) for split in (data.train, data.val, data.test)
    )
    fits = {ridge: fitted(train, ridge) for ridge in RIDGES}
    best = max(RIDGES, key=lambda ridge: share_right(fits[ridge], train, val))
    return share_right(fits[best], train, test), best


@torch.no_grad()
def features(backbone: Backbone, split: Split, size: int) -> Samples:
    """All maps at the middle of every solid of a split."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (backbone.mean, backbone.std))
    at_solids, kinds = [], []
    for item in split:
        assert isinstance(item.target, Boxes), "the target of detection is boxes"
        height, width = item.image.shape[:2]
        boxes = torch.as_tensor(item.target.boxes, dtype=torch.float32)
        if not len(boxes):
            continue
        middles = (boxes[:, :2] + boxes[:, 2:]) / torch.tensor([width, height]) - 1
        maps = backbone(((whole_image(item, (size, size)).float() / 255 - mean) / std)[None])
        read = [grid_sample(one, middles[None, :, None], align_corners=False) for one in maps]
        at_solids.append(torch.cat([one[0, :, :, 0].T for one in read], 1))
        kinds.append(torch.as_tensor(item.target.labels))
    return torch.cat(at_solids), torch.cat(kinds)


def fitted(train: Samples, ridge: float) -> torch.Tensor:
    """(channels + 1, kinds) of a logistic regression on standardised features."""
    inputs, kinds = _standardised(train[0], train[0]), train[1]
    weights = torch.zeros(inputs.shape[1], int(kinds.max()) + 1, requires_grad=True)
    solver = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        solver.zero_grad()
        total = cross_entropy(inputs @ weights, kinds) + ridge * weights.square().sum()
        total.backward()
        return total

    solver.step(loss)
    return weights.detach()


def share_right(weights: torch.Tensor, train: Samples, judged: Samples) -> float:
    """Of `judged`, standardised as `train` is."""
    found = (_standardised(judged[0], train[0]) @ weights).argmax(1)
    return float((found == judged[1]).float().mean())


def _standardised(values: torch.Tensor, train: torch.Tensor) -> torch.Tensor:
    scaled = (values - train.mean(0)) / (train.std(0) + 1e-5)
    return torch.cat([scaled, torch.ones(len(scaled), 1)], 1)


if __name__ == "__main__":
    main()
