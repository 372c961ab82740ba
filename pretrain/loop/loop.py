"""The training loop, shared by pretraining and finetuning.

AdamW with decoupled weight decay on matrices only, linear warm-up and half a cosine (Loshchilov &
Hutter 2017, arXiv 1608.03983 and 1711.05101), gradients clipped by their global norm, bf16
autocast.

Invariants: everything random in a step comes from (seed, step), and `batches(step)` starts with the
batch of that step. So a training that was stopped or killed and resumed from its checkpoint ends
with the same bytes as one that was not (same machine, same number of threads and processes). A step
that is not finite stops the training before it reaches a checkpoint.
"""

from __future__ import annotations

import math
import signal
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from curator.core.devices import DTYPES
from curator.core.errors import EngineError, UsageError
from curator.core.progress import bar, say
from curator.core.stopping import StopRequest
from curator.engine.executors.local import keep_freed_memory
from pretrain import distributed
from pretrain.loop.checkpoint import newest_valid, save_checkpoint
from pretrain.loop.flops import counted
from pretrain.loop.onednn_workaround import stride_first
from pretrain.loop.options import LoopOptions
from pretrain.loop.runlog import Row, RunLog
from pretrain.objectives import Accumulating

Batches = Callable[[int], Iterator[Any]]
Count = Callable[[Any], Mapping[str, int]]
"""Returns the counts of a batch, always with the same names."""
_SAVING_SHARE = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class ParamGroup:
    """Parameters trained at `lr_scale` times the learning rate of the options."""

    parameters: Sequence[torch.nn.Parameter]
    lr_scale: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """The outcome of a training.

    `seconds`, `flops` and `counts` cover all steps, also those before a stop; `counts` are summed
    over all processes. `history` has one line per `log_every` steps. `precision` is the one used.
    """

    steps: int
    seconds: float
    flops: int
    history: list[Row]
    precision: str
    counts: dict[str, int]


class Values:
    """Named scalars of one step, being copied from the device.

    The copy is queued when this is created, so that `read` waits for this step only.
    `float(tensor)` would queue its copy after everything queued since, and wait for all of it.
    """

    def __init__(self, scalars: dict[str, torch.Tensor]) -> None:
        self._names = tuple(scalars)
        flat = [value.detach().float() for value in scalars.values()]
        together = torch.stack(flat) if flat else torch.empty(0)
        self._numbers = together.to("cpu", non_blocking=True)
        self._arrived: torch.cuda.Event | None = None
        if together.is_cuda:
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]  # has no types
            self._arrived.record(torch.cuda.current_stream(together.device))

    def read(self) -> dict[str, float]:
        """Return the scalars as numbers."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return dict(zip(self._names, self._numbers.tolist(), strict=True))


def choose_precision(name: str, device: torch.device) -> str:
    """Return fp32 or bf16; `auto` is bf16 on GPUs and CPUs that multiply it in hardware."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"


def train(
    objective: Any,
    batches: Batches,
    options: LoopOptions,
    *,
    folder: Path | None,
    parameter_groups: Sequence[ParamGroup] | None = None,
    stop: StopRequest | None = None,
    what: str = "train",
    count: Count | None = None,
) -> TrainResult:
    """Minimise `objective` (see `pretrain.objectives`) on the device where it is.

    `batches(step)` starts with the batch of that step. With a `folder`, checkpoints, log.jsonl and
    TensorBoard events are written there and a stopped training is resumed; without one, nothing is
    written. The counts that `count` returns for each trained batch are added up. Leaves the
    objective in training mode.

    Raises:
        EngineError: the loss or its gradient is not finite; names the step.
        UsageError: the folder holds a training with other options.
        StoppedError: a stop was requested; a checkpoint was written.
    """
    training = _Training(objective, options, parameter_groups, folder, count)
    return training.run(batches, stop or StopRequest(), what)


class _Training:
    """The state between two steps."""

    def __init__(
        self,
        objective: Any,
        options: LoopOptions,
        groups: Sequence[ParamGroup] | None,
        folder: Path | None,
        count: Count | None,
    ) -> None:
        self.objective, self.options, self.count = objective, options, count
        self.parameters = [p for p in objective.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        self.precision = choose_precision(options.precision, self.device)
        if self.device.type == "cpu":
            keep_freed_memory()  # saves a tenth of a ViT's step time
            stride_first(objective)
        self.optimizer = _optimizer(groups or [ParamGroup(parameters=self.parameters)], options)
        self.checkpoints = None if folder is None else folder / "checkpoints"
        self.step, self.flops, self.seconds_before = 0, 0, 0.0
        self.counted, self.counted_before = Counter[str](), dict[str, int]()
        self.pause = options.checkpoint_every_sec
        self._restore()
        writes = folder if distributed.rank() == 0 else None
        self.log = RunLog(writes, after_step=self.step)
        if options.accumulate > 1 and not isinstance(objective, Accumulating):
            raise UsageError(
                f"accumulate is {options.accumulate}",
                hint=f"{type(objective).__name__} takes whole batches only",
            )
        if options.compile:
            for child in objective.children():
                child.compile()

    def _restore(self) -> None:
        found = None if self.checkpoints is None else newest_valid(self.checkpoints)
        if found is None:
            return
        if found.facts["options"] != self.options.fingerprint():
            raise UsageError(
                "the folder holds a training with other options",
                where=self.checkpoints,
                hint="give the options that it started with, or another folder",
            )
        found.restore(self.objective, self.optimizer)
        self.step, self.flops = found.step, int(found.facts["flops"])
        self.seconds_before = float(found.facts["seconds"])
        self.counted_before = dict(found.facts.get("counts", {}))  # none in older checkpoints
        if distributed.rank() == 0:
            say(f"resuming after step {self.step:,} of {self.options.total_steps:,}")

    def run(self, batches: Batches, stop: StopRequest, what: str) -> TrainResult:
        self.began = self.saved = self.logged = time.monotonic()
        self.logged_step = self.step
        self.objective.train()
        source = batches(self.step)
        try:
            with bar(what, self.options.total_steps, "steps") as advance:
                advance(self.step)
                self._steps(source, stop, advance)
        finally:
            self.log.close()
            if isinstance(source, Generator):
                source.close()  # its worker processes end
        return TrainResult(
            steps=self.step,
            seconds=self._seconds(),
            flops=self.flops * self.step,
            history=self.log.rows,
            precision=self.precision,
            counts=self._counts(),
        )

    def _counts(self) -> dict[str, int]:
        """Return the counts over all processes and resumptions; every process must call this."""
        now = distributed.sum_over_processes(self.counted, self.device)
        names = {*now, *self.counted_before}
        return {name: now.get(name, 0) + self.counted_before.get(name, 0) for name in sorted(names)}

    def _steps(
        self, batches: Iterator[Any], stop: StopRequest, advance: Callable[[int], None]
    ) -> None:
        values = Values({})
        while self.step < self.options.total_steps:
            batch = next(batches)
            if self.count is not None:
                self.counted.update(self.count(batch))
            before, values = values, self._one(batch)
            # Read one step late, so that the GPU computes this step while the next one is queued.
            self._check(before, self.step)
            self.step += 1
            advance(1)
            is_last = self.step == self.options.total_steps
            if is_last or self.step % self.options.log_every == 0:
                self._write_log(values)
            is_due = time.monotonic() - self.saved >= self.pause
            stopped, due = distributed.any_process((stop(), is_due), self.device)
            if is_last or stopped or due:
                self._check(values, self.step)
                self._save()
            if stopped and not is_last:
                if not stop():
                    stop.signum = signal.SIGTERM  # another process of this training got the signal
                kept = "nothing" if self.checkpoints is None else f"{self.step:,}"
                stop.check(f"{kept} of {self.options.total_steps:,} steps is kept")

    def _one(self, batch: Any) -> Values:
        """Take one step; return the losses and the norm of the gradient."""
        options = self.options
        seed = np.random.SeedSequence((options.seed, self.step)).generate_state(1, np.uint64)
        torch.manual_seed(int(seed[0] >> np.uint64(1)))
        rate = options.rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = options.lr * group["lr_scale"] * rate
            group["betas"] = (options.beta1(self.step), options.beta2)
        self.optimizer.zero_grad()
        if self.flops:
            losses = self._backward(batch)
        else:
            with counted() as count:
                losses = self._backward(batch)
            self.flops = count.total * distributed.size()
        distributed.average_gradients(self.parameters)
        limit = options.clip_grad or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, limit)
        self.optimizer.step()
        return Values({**losses, "grad_norm": norm})

    def _backward(self, batch: Any) -> dict[str, torch.Tensor]:
        if self.options.accumulate > 1:
            losses: dict[str, torch.Tensor] = self.objective.backward_in_parts(
                batch, self.options.accumulate, self._autocast
            )
            return losses
        with self._autocast():
            losses = self.objective.losses(batch)
        torch.autograd.backward(losses["loss"])
        return losses

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, DTYPES[self.precision])

    def _check(self, values: Values, step: int) -> dict[str, float]:
        """Return the values of a step as numbers.

        Raises:
            EngineError: one of them is not finite.
        """
        numbers = values.read()
        wrong = [
            f"{name} is {value}" for name, value in numbers.items() if not math.isfinite(value)
        ]
        if wrong:
            raise EngineError(
                f"step {step:,}: {', '.join(wrong)}",
                did="no checkpoint was written after it" if self.checkpoints else None,
                hint="try a smaller lr, a longer warm-up, or precision fp32",
                reason="train.not_finite",
            )
        return numbers

    def _write_log(self, values: Values) -> None:
        numbers = distributed.mean_over_processes(self._check(values, self.step), self.device)
        now = time.monotonic()
        steps_a_second = (self.step - self.logged_step) / max(now - self.logged, 1e-9)
        self.logged, self.logged_step = now, self.step
        rate = self.options.lr * self.options.rate(self.step - 1)
        self.log.add({"step": self.step, **numbers, "lr": rate, "steps_per_sec": steps_a_second})

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.began

    def _save(self) -> None:
        counts = self._counts()
        if self.checkpoints is None or distributed.rank() > 0:
            self.saved = time.monotonic()
            return
        began = time.monotonic()
        facts = {
            "options": self.options.fingerprint(),
            "flops": self.flops,
            "seconds": self._seconds(),
            "counts": counts,
            "all_options": asdict(self.options),
        }
        save_checkpoint(self.checkpoints, self.step, self.objective, self.optimizer, facts)
        self.saved = time.monotonic()
        if self.pause:
            self.pause = max(self.pause, (self.saved - began) / _SAVING_SHARE)


def _optimizer(groups: Sequence[ParamGroup], options: LoopOptions) -> torch.optim.AdamW:
    """Build AdamW, with decay on matrices and kernels only: not on biases, norms, other vectors.

    `decay_all` decays them too.
    """
    parts = []
    for group in groups:
        for decays in (True, False):
            chosen = [p for p in group.parameters if p.requires_grad and _is_matrix(p) == decays]
            decay = options.weight_decay if decays or options.decay_all else 0.0
            if chosen:
                part = {"params": chosen, "weight_decay": decay, "lr_scale": group.lr_scale}
                parts.append(part)
    betas = (options.beta1(0), options.beta2)
    return torch.optim.AdamW(parts, lr=options.lr, betas=betas, eps=options.eps, fused=True)


def _is_matrix(parameter: torch.Tensor) -> bool:
    return sum(length > 1 for length in parameter.shape) > 1
