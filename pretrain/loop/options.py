"""Options of the training loop. Torch-free, because recipes create them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

from curator.core.errors import UsageError
from curator.core.hashing import digest

_PRECISIONS = ("auto", "fp32", "bf16")


def _cosine(step: int, warmup: int, total: int) -> float:
    """Linear warm-up, then half a cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    left = (step - warmup) / max(1, total - warmup)
    return 0.5 * (1 + math.cos(math.pi * left))


def _poly(step: int, warmup: int, total: int) -> float:
    """A line to 0, times a linear warm-up from 1e-6: MMSegmentation's `poly` of power 1."""
    return (1 - step / total) * _from_a_millionth(step, warmup)


def _dinov3_linear(step: int, warmup: int, total: int) -> float:
    """`WarmupOneCycleLR` of DINOv3's segmentation: as `_poly` at first, then a cosine to 0.

    The cosine is over all steps, so it starts below 1; the first rate is used twice.
    """
    step = max(0, step - 1)
    if step < warmup:
        return (1 - step / total) * _from_a_millionth(step, warmup)
    return 0.5 * (1 + math.cos(math.pi * (step + 1) / total))


def _dinov3_depth(step: int, warmup: int, total: int) -> float:
    """`WarmupOneCycleLR` of DINOv3's depth: a warm-up from 1/1,000, a cosine to 1/25,000."""
    if step < warmup:
        return 1e-3 + 0.5 * (1 + math.cos(math.pi * step / total)) * step / warmup
    least = 1 / 25 / 1000
    return least + 0.5 * (1 - least) * (1 + math.cos(math.pi * (step + 1) / total))


def _from_a_millionth(step: int, warmup: int) -> float:
    return 1 if step >= warmup else 1 - (1 - step / warmup) * (1 - 1e-6)


SCHEDULES: Mapping[str, Callable[[int, int, int], float]] = {
    "cosine": _cosine,
    "poly": _poly,
    "dinov3-linear": _dinov3_linear,
    "dinov3-depth": _dinov3_depth,
}
"""(step, warm-up steps, all steps) -> learning rate, as a fraction of the peak."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopOptions:
    """Options of the training loop.

    `lr` is the peak learning rate. `clip_grad` is the largest gradient norm; 0 does not clip.
    `schedule` is a name in `SCHEDULES`. `decay_all` also decays biases, norms and other vectors.
    `precision` auto is bf16 where the hardware multiplies it. `accumulate` is the number of parts
    that each batch is computed in. Checkpoints are written every `checkpoint_every_sec`, or less
    often where writing takes more than 1 % of the time.
    """

    total_steps: int
    lr: float
    warmup_steps: int = 0
    weight_decay: float = 0.05
    schedule: str = "cosine"
    beta2: float = 0.999
    eps: float = 1e-6
    decay_all: bool = False
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
        if self.schedule not in SCHEDULES:
            raise UsageError(
                f"schedule is {self.schedule!r}", hint=f"allowed: {', '.join(SCHEDULES)}"
            )
        if self.precision not in _PRECISIONS:
            raise UsageError(
                f"precision is {self.precision!r}", hint=f"allowed: {', '.join(_PRECISIONS)}"
            )

    def rate(self, step: int) -> float:
        """Return the learning rate at a step (from 0), as a fraction of the peak."""
        return SCHEDULES[self.schedule](step, self.warmup_steps, self.total_steps)

    def beta1(self, step: int) -> float:
        """Return AdamW's first momentum at a step (from 0)."""
        if self.schedule != "dinov3-depth":
            return 0.9
        if step < self.warmup_steps:
            return 0.0
        done = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return 0.95 + 0.5 * (0.85 - 0.95) * (1 + math.cos(math.pi * done))

    def fingerprint(self) -> str:
        """Return a digest of the options that affect the result."""
        said_only = ("log_every", "checkpoint_every_sec")
        return digest({f.name: getattr(self, f.name) for f in fields(self)
                       if f.name not in said_only})  # fmt: skip
