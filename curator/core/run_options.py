"""How much a run may take: one name and one default for every limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from curator.core.errors import UsageError

ExecutorName = Literal["local", "ray"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Made by the command line and handed down whole.

    Attributes:
        workers: processes that read shards or run a model; each has its own model and GPU.
        score_batch_size: images per batch that a scorer is given, with all their texts.
        caption_batch_size: images per batch that a captioner is given.
        stall_timeout_sec: seconds without an answer after which a model is started again.
        server_wait_sec: seconds without any captioning server after which a run ends.
        max_quarantine: the largest fraction of unusable samples, 0 to 1; above it a run stops.
        executor: "local", this machine, or "ray", a Ray cluster; `ray_address` is where it is, as
            in `ray.init`, and `gpus` the share of GPUs that a worker with a model gets there (None:
            one, where the cluster has any).
    """

    workers: int = 1
    score_batch_size: int = 32
    caption_batch_size: int = 16
    stall_timeout_sec: float = 600.0
    server_wait_sec: float = 600.0
    max_quarantine: float = 0.05
    executor: ExecutorName = "local"
    ray_address: str | None = None
    gpus: float | None = None

    def __post_init__(self) -> None:
        """Refuse options of Ray where it is not used."""
        require_ray_for(self.executor, {"--ray-address": self.ray_address, "--gpus": self.gpus})


def require_ray_for(executor: ExecutorName, values: Mapping[str, object]) -> None:
    """Raise a UsageError if an option of Ray is given without --executor ray."""
    given = [option for option, value in values.items() if value is not None]
    if given and executor != "ray":
        raise UsageError(
            f"{given[0]} works only with --executor ray",
            hint="add --executor ray",
            reason="option.value",
        )


DEFAULTS = RunOptions()
