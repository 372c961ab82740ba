"""One of several processes that train together: torchrun -m tests.kit.ddp_worker FOLDER.

Trains every case of `CASES` for a few steps on its part of the batches, and writes what it saw.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from curator.core.errors import StoppedError
from curator.core.stopping import StopRequest
from pretrain import distributed
from pretrain.data.loader import Batch
from pretrain.loop.loop import train
from pretrain.loop.options import LoopOptions
from tests.kit.train import batch, objective, part, recipe

# As many texts in all as images, but not in either half of the batch.
CASES: dict[str, dict[str, Any]] = {
    "clip": {"objective": "clip"},
    "clip in parts": {"objective": "clip", "accumulate": 2},
    "clip, many texts": {"objective": "clip", "captions": "all"},
    "siglip": {"objective": "siglip"},
    "mae": {"objective": "mae"},
    "simmim": {"objective": "simmim"},
}
TEXTS = (1, 3, 2, 1, 1, 1, 1, 4)


def options(values: dict[str, Any], **more: Any) -> LoopOptions:
    accumulate = values.get("accumulate", 1)
    made: dict[str, Any] = {"total_steps": 3, "lr": 1e-3, "log_every": 1, "precision": "fp32"}
    return LoopOptions(**(made | {"accumulate": accumulate} | more))


def batches(values: dict[str, Any], rank: int, size: int) -> Callable[[int], Iterator[Batch]]:
    texts = TEXTS if values.get("captions") == "all" else None

    def starting_with(step: int) -> Iterator[Batch]:
        while True:
            yield part(batch(step, texts=texts), rank, size)
            step += 1

    return starting_with


class StopInOne(StopRequest):
    """A signal that reaches the last process only."""

    def __call__(self) -> bool:
        if distributed.rank() == distributed.size() - 1:
            self.signum = signal.SIGTERM
        return super().__call__()


def main(folder: Path) -> None:
    """Train all cases; rank 0 writes `losses.json`, every rank its hashes of the weights."""
    torch.set_num_threads(1)
    seen: dict[str, Any] = {}
    with distributed.joined("cpu"):
        rank, size = distributed.rank(), distributed.size()
        mine = folder / str(rank)
        mine.mkdir()
        for name, values in CASES.items():
            made = objective(recipe(mine, **values))
            result = train(
                made,
                batches(values, rank, size),
                options(values),
                folder=None,
                count=lambda batch: {"texts": len(batch.owners), "batches": 1},
            )
            seen[name] = {
                "losses": [row["loss"] for row in result.history],
                "flops": result.flops,
                "counts": result.counts,
                "weights": sum(p.double().sum().item() for p in made.parameters()),
            }
        seen["stop"] = _stopped(mine, folder / "run")
        dist.barrier()
        (mine / "seen.json").write_text(json.dumps(seen | {"size": size}))


def _stopped(mine: Path, shared: Path) -> list[float]:
    values = CASES["clip"]
    made = recipe(mine, **values)
    mine_of = batches(values, distributed.rank(), distributed.size())
    try:
        train(objective(made), mine_of, options(values), folder=shared, stop=StopInOne())
        raise AssertionError("not stopped")
    except StoppedError:
        dist.barrier()  # rank 0 has written
    result = train(objective(made), mine_of, options(values), folder=shared)
    return [row["loss"] for row in result.history]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
