"""How much a run may take: one name and one default for every limit."""

from __future__ import annotations

from dataclasses import dataclass


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
    """

    workers: int = 1
    score_batch_size: int = 32
    caption_batch_size: int = 16
    stall_timeout_sec: float = 600.0
    server_wait_sec: float = 600.0
    max_quarantine: float = 0.05


DEFAULTS = RunOptions()
