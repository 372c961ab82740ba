"""Small models and batches for the tests of training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from pretrain.data.loader import Batch
from pretrain.objectives import objective_class
from pretrain.recipe import Recipe

SIDE = 16
CONTEXT = 16

VIT = {"image_size": SIDE, "layers": 2, "width": 32, "head_width": 16, "patch_size": 4}
CONV = {"image_size": 2 * SIDE, "timm_model_name": "test_convnext"}
TEXT = {"context_length": CONTEXT, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}

WORDS = ("a red cube on grass", "two dogs", "snow", "a small blue cone under a clear sky")


def config_file(folder: Path, vision: dict[str, Any] = VIT) -> str:
    """The config of a tiny model: layer norms only, so batches can be taken apart."""
    path = folder / "tiny.json"
    value = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": TEXT}
    path.write_text(json.dumps(value))
    return str(path)


def recipe(folder: Path, *, vision: dict[str, Any] = VIT, **values: Any) -> Recipe:
    defaults: dict[str, Any] = {
        "name": "tiny",
        "model": config_file(folder, vision),
        "image_px": SIDE,
        "samples_seen": 64,
        "batch_size": 8,
        "lr": 1e-3,
        "precision": "fp32",
    }
    return Recipe.model_validate(defaults | values)


def objective(made: Recipe) -> Any:
    return objective_class(made)(made)


def batch(
    step: int, *, size: int = 8, texts: tuple[int, ...] | None = None, side: int = SIDE
) -> Batch:
    """Batch `step` of an endless sequence; `texts` are the numbers of texts of each image."""
    generator = torch.Generator().manual_seed(1000 + step)
    counts = texts or (1,) * size
    owners = torch.arange(size).repeat_interleave(torch.tensor(counts))
    tokens = torch.zeros(len(owners), CONTEXT, dtype=torch.int64)
    for row in tokens:
        length = int(torch.randint(3, CONTEXT + 1, (), generator=generator))
        row[:length] = torch.randint(1, 49000, (length,), generator=generator)
        row[0], row[length - 1] = 49406, 49407
    return Batch(
        images=torch.randint(0, 256, (size, 3, side, side), generator=generator).byte(),
        tokens=tokens,
        owners=owners,
        samples=torch.arange(size) + step * size,
    )


def batches(**options: Any) -> Callable[[int], Iterator[Batch]]:
    """What the loop asks for."""

    def starting_with(step: int) -> Iterator[Batch]:
        while True:
            yield batch(step, **options)
            step += 1

    return starting_with


def part(whole: Batch, rank: int, num_ranks: int) -> Batch:
    """What one of several processes gets of a batch."""
    size = len(whole.images) // num_ranks
    first = rank * size
    mine = (whole.owners >= first) & (whole.owners < first + size)
    return Batch(
        images=whole.images[first : first + size],
        tokens=whole.tokens[mine],
        owners=whole.owners[mine] - first,
        samples=whole.samples[first : first + size],
    )


def gradients(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
