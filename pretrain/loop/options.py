"""Options of the training loop. Torch-free, because recipes create them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from curator.core.errors import UsageError
from curator.core.hashing import digest

_PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopOptions:
    """Options of the training loop.

    `lr` is the peak learning rate. `clip_grad` is the largest gradient norm; 0 does not clip.
    `precision` auto is bf16 where the hardware multiplies it. `accumulate` is the number of parts
    that each batch is computed in. Checkpoints are written every `checkpoint_every_sec`, or less
    often where writing takes more than 1 % of the time.
    """

    total_steps: int
    lr: float
    warmup_steps: int = 0
    weight_decay: float = 0.05
    beta2: float = 0.999
    clip_grad: float = 1.0
    precision: str = "auto"
    accumulate: int = 1
    compile: bool = False
    log_every: int = 10
    checkpoint_every_sec: float = 30.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("total_steps", "accumulate", "log_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}, must be at least 1")
        for name in ("warmup_steps", "weight_decay", "clip_grad", "checkpoint_every_sec"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is {getattr(self, name)}, must not be negative")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise UsageError(f"lr is {self.lr}, must be a positive number")
        if not 0 < self.beta2 < 1:
            raise UsageError(f"beta2 is {self.beta2}, must be between 0 and 1")
        if self.precision not in _PRECISIONS:
            raise UsageError(
                f"precision is {self.precision!r}", hint=f"allowed: {', '.join(_PRECISIONS)}"
            )

    def rate(self, step: int) -> float:
        """Return the learning rate at a step (from 0), as a fraction of the peak."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        left = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * left))

    def fingerprint(self) -> str:
        """Return a digest of the options that affect the result."""
        said_only = ("log_every", "checkpoint_every_sec")
        return digest({f.name: getattr(self, f.name) for f in fields(self)
                       if f.name not in said_only})  # fmt: skip
