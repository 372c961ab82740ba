"""Training in one process, or in as many as torchrun started.

Gradients are averaged by hand after the backward pass, not by DistributedDataParallel: the
contrastive objectives run several forward passes per step (`pretrain.objectives.clip`), which its
reducer does not allow. The cost is its overlap of communication with the backward pass: some 5 ms
per step at 150 M parameters and 200 GB/s.

Source: Goyal et al. 2017, arXiv 1706.02677, on what averaging over workers must equal.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch.distributed.nn.functional import all_gather

from curator.core.devices import choose_device

_BUCKET_NUMBERS = 1 << 24  # 64 MiB of fp32 per message


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def joined(device: str | None) -> Iterator[torch.device]:
    """Join the process group if torchrun started one; yield the device of this process.

    NCCL between GPUs, gloo between CPUs.

    Raises:
        UsageError: this machine has no such device.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield choose_device(device)
        return
    chosen = choose_device(device)
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield chosen
    finally:
        dist.destroy_process_group()


def occupied(device: torch.device) -> tuple[str, int]:
    """Return gpu or cpu, and how many GPUs, or CPU threads, a training on `device` occupies."""
    if device.type == "cpu":
        return "cpu", torch.get_num_threads() * size()
    return "gpu", size()


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes; does nothing for one process.

    A parameter must have a gradient in all processes or in none.
    """
    if size() == 1:
        return
    bucket: list[torch.Tensor] = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        bucket.append(parameter.grad)
        if sum(grad.numel() for grad in bucket) >= _BUCKET_NUMBERS:
            _average(bucket)
            bucket = []
    if bucket:
        _average(bucket)


def _average(grads: Sequence[torch.Tensor]) -> None:
    flat = torch.cat([grad.reshape(-1) for grad in grads])
    dist.all_reduce(flat)
    flat /= size()
    parts = torch.split(flat, [grad.numel() for grad in grads])
    for grad, part in zip(grads, parts, strict=True):
        grad.copy_(part.view_as(grad))


def mean_over_processes(values: dict[str, float], device: torch.device) -> dict[str, float]:
    """Return the mean of every value over the processes; all must pass the same names."""
    if size() == 1:
        return values
    numbers = torch.tensor([values[name] for name in sorted(values)], device=device)
    dist.all_reduce(numbers)
    return dict(zip(sorted(values), (numbers / size()).tolist(), strict=True))


def sum_over_processes(values: Mapping[str, int], device: torch.device) -> dict[str, int]:
    """Return the sum of every value over the processes; all must pass the same names."""
    if size() == 1:
        return dict(values)
    numbers = torch.tensor([values[name] for name in sorted(values)], device=device)
    dist.all_reduce(numbers)
    return dict(zip(sorted(values), map(int, numbers.tolist()), strict=True))


def any_process(flags: Sequence[bool], device: torch.device) -> list[bool]:
    """Return for each flag whether it is set in any process.

    All processes must decide alike, or some would wait forever.
    """
    if size() == 1:
        return list(flags)
    numbers = torch.tensor([float(flag) for flag in flags], device=device)
    dist.all_reduce(numbers, op=dist.ReduceOp.MAX)
    return [bool(number) for number in numbers.tolist()]


def gather_rows(rows: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Return the rows of all processes in order of rank, and where this process's rows start.

    Processes may have different numbers of rows. The gradient of a row flows back to the process
    that made it.
    """
    if size() == 1:
        return rows, 0
    mine = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(mine) for _ in range(size())]
    dist.all_gather(counts, mine)
    sizes = [int(count) for count in counts]
    padded = torch.nn.functional.pad(rows, (0, 0) * (rows.ndim - 1) + (0, max(sizes) - len(rows)))
    if padded.is_floating_point():
        blocks = list(all_gather(padded))  # type: ignore[no-untyped-call]  # none there
    else:
        blocks = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(blocks, padded)
    kept = [block[:count] for block, count in zip(blocks, sizes, strict=True)]
    return torch.cat(kept), sum(sizes[: rank()])
