"""Train and evaluate one dense cell: a backbone on a task, with a label fraction and a seed.

`finetune` trains and evaluates on the test images. `sweep` chooses the learning rate without any
test image: it evaluates on the validation images, or, if the data set has none, on a fifth of the
training images.

With a folder, a stopped cell is resumed and a finished one is not run again. `run.json` identifies
the cell, the loop's checkpoints are beside it, and `metrics.json` is written last. Then the
checkpoints are deleted: a study has hundreds of cells, and only their numbers are needed.

The same seed gives the same numbers on the same kind of machine with the same number of threads.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from curator.core.errors import EngineError, UsageError
from curator.core.progress import say
from curator.core.stopping import StopRequest
from curator.store import sealed
from finetune import cell_files as files
from finetune.cell_files import DenseResult, SavedImages, Sweep
from finetune.feeding import Features, Feed
from finetune.images import png
from finetune.labels import depth_range, require_labels, require_told_apart
from finetune.layouts import DenseSet, Split, take_fraction
from finetune.options import DenseOptions
from finetune.probes.hummingbird import remember, resized
from finetune.probes.published import PUBLISHED, BinnedDepth
from finetune.probes.solved import solve
from finetune.synced_norms import synchronise
from finetune.tasks import TASKS, DenseTask, Evaluation
from pretrain import distributed
from pretrain.loop.flops import counted
from pretrain.loop.loop import TrainResult, train
from pretrain.loop.options import LoopOptions
from pretrain.towers.backbone import Backbone, load_backbone

HELD_OUT_FRACTION = 0.2
NUM_EXAMPLES = 6


def finetune(
    backbone: str,
    data: DenseSet,
    options: DenseOptions,
    *,
    out: Path | None = None,
    stop: StopRequest | None = None,
    device: str | None = None,
    features: Features | None = None,
) -> DenseResult:
    """Train on a fraction of `data.train` and evaluate on `data.test`.

    Args:
        backbone: name of the backbone, as for `pretrain.towers.backbone.load_backbone`.
        out: folder of the cell; without it, nothing is written.
        features: cache shared by cells on one frozen backbone, so that it runs once for all of
            them.

    Raises:
        UsageError: options that do not fit together, no labels to learn from or to evaluate on, or
            `out` holds another cell.
        EngineError: the loss is not finite.
        StoppedError: a stop was requested.
    """
    stop, options = stop or StopRequest(), options.settled()
    TASKS.get(options.task)  # first refuse a class that breaks its contract
    if options.spec.labels != data.labels:
        raise UsageError(
            f"{options.task} needs {options.spec.labels} labels, the data have {data.labels} labels"
        )
    subset = take_fraction(data.train, options.fraction, options.seed)
    require_labels(data, subset, "training image", stop)
    require_labels(data, data.test, "image to evaluate on", stop)
    if out is not None:
        files.begin(out, files.identity(backbone, data, options))
        if (found := files.finished(out)) is not None:
            return found
    with distributed.joined(device) as on:
        if options.batch_size % distributed.size():
            raise UsageError(
                f"batch_size is {options.batch_size}",
                hint=f"{distributed.size()} processes share it",
            )
        result = _run(_Cell(backbone, data, options, out), on, features or Features(), stop)
    if out is not None and distributed.rank() == 0:
        files.store(out, result)
    return result


@dataclass(frozen=True, slots=True)
class _Cell:
    backbone: str
    data: DenseSet
    options: DenseOptions
    out: Path | None


def _run(cell: _Cell, on: torch.device, features: Features, stop: StopRequest) -> DenseResult:
    options, data = cell.options, cell.data
    began = time.monotonic()
    subset = take_fraction(data.train, options.fraction, options.seed)
    backbone = _load(cell, options.image_px)
    weights = _weights_digest(backbone)
    task = _build(backbone, options, data, subset)
    if distributed.size() > 1:
        synchronise(task)
    # On a CPU this saves a quarter of the time of a frozen conv net, a tenth of a trained one.
    task.to(on, memory_format=torch.channels_last)
    task.eval()
    if isinstance(task, BinnedDepth):
        task.load_at = lambda px: _load(cell, px)
    owner = (weights, options.image_px)

    def kept_of(split: Split) -> Any:
        return (
            features.of(owner, split, options.image_px, task.features, stop)
            if options.keeps_features
            else None
        )

    certificate, test = None, data.test
    flops, history = 0, list[dict[str, float]]()
    if options.protocol == "solved":
        apart, chosen_on = held_out(data, options, stop)
        solved = solve(
            task,
            train=subset,
            rest=apart.train,
            val=apart.test,
            chosen_on=chosen_on,
            kept_of=kept_of,
            stop=stop,
        )
        certificate, flops = solved.to_json(), solved.flops
        seconds = 0.0
    elif options.protocol == "hummingbird":
        remember(task, subset, kept_of(subset), stop)
        test, seconds = resized(data.test, options.image_px), 0.0
    else:
        feed = Feed(subset, options, kept_of(subset))
        before = time.monotonic()
        trained = _train(task, feed, cell, stop)
        flops, history = trained.flops, trained.history
        # Steps before a stop count too.
        seconds = trained.seconds - (time.monotonic() - before)
    with torch.random.fork_rng(devices=[]):
        evaluation: Evaluation = task.evaluate(test, kept=kept_of(test), stop=stop)
    shown, image_flops = _shown(task, test)
    device, num_devices = distributed.occupied(on)
    return DenseResult(
        metrics=evaluation.metrics,
        per_image=evaluation.per_image,
        per_class=evaluation.per_class,
        num_train=len(subset),
        num_test=len(data.test),
        lr=options.lr,
        seconds=seconds + time.monotonic() - began,
        flops=flops,
        history=history,
        weights=weights,
        predictions=shown,
        built=task.built,
        parameters={
            "backbone": _number(backbone.parameters()),
            "all": _number(task.parameters()),
            "trained": _number(one for one in task.parameters() if one.requires_grad),
        },
        image_flops=image_flops,
        device=device,
        num_devices=num_devices,
        protocol=options.protocol_name,
        protocol_digest=options.protocol_digest,
        certificate=certificate,
    )


def _load(cell: _Cell, image_px: tuple[int, int]) -> Backbone:
    norm = {"final_norm": True} if cell.options.protocol_spec.final_norm else {}
    return load_backbone(cell.backbone, image_px=image_px, seed=cell.options.seed, **norm)


def _number(parameters: Iterable[torch.nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _build(backbone: Backbone, options: DenseOptions, data: DenseSet, subset: Split) -> Any:
    """Build the task, with a head from the seed, without changing the global random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        of_protocol = PUBLISHED.get(options.protocol, TASKS.get(options.task))
        return of_protocol(backbone, options, data, subset)


def _train(task: Any, feed: Feed, cell: _Cell, stop: StopRequest) -> TrainResult:
    options = cell.options
    assert options.lr is not None, "options are settled"
    constants = options.protocol_spec.constants
    loop = LoopOptions(
        total_steps=options.steps,
        lr=options.lr,
        warmup_steps=math.ceil(options.steps * constants["warmup_fraction"]),
        weight_decay=options.weight_decay,
        precision=options.precision,
        log_every=max(1, options.steps // 50),
        seed=options.seed,
        **constants["loop"],
    )
    what = f"{options.protocol} {options.task}"
    return train(
        task, feed.batches, loop, folder=cell.out, parameter_groups=task.groups(), stop=stop,
        what=what,
    )  # fmt: skip


def _shown(task: DenseTask, test: Split) -> tuple[tuple[SavedImages, ...], int]:
    """Return test images spread over the split with their predictions, and the FLOPs of one."""
    number = min(NUM_EXAMPLES, len(test))
    shown, flops = [], 0
    for place in [index * len(test) // number for index in range(number)]:
        item = test[place]
        if place:
            example = task.example(item)
        else:
            with counted() as count:
                example = task.example(item)
            flops = count.total
        image, truth, prediction = (png(one) for one in example)
        shown.append(SavedImages(name=item.name, image=image, truth=truth, prediction=prediction))
    return tuple(shown), flops


def _weights_digest(backbone: Backbone) -> str:
    """Return the sha256 over all weights and buffers, in order of their names."""
    total = hashlib.sha256()
    for name, tensor in sorted(backbone.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def sweep(
    backbone: str,
    data: DenseSet,
    options: DenseOptions,
    *,
    lrs: Sequence[float] | None = None,
    out: Path | None = None,
    stop: StopRequest | None = None,
    device: str | None = None,
    features: Features | None = None,
) -> Sweep:
    """Choose the learning rate without using the test images.

    It is chosen on the validation images or, without any, on a fifth of the training images that
    `options` selects, which are then not trained on. Among equally good rates the smallest is
    chosen.

    Raises:
        UsageError: some training images must be held out, but there are fewer than two.
        EngineError: training was not finite at any rate.
    """
    settled = options.settled()
    if settled.lr is None:
        raise UsageError(
            f"the protocol {settled.protocol} has no learning rate to choose",
            hint="leave out --sweep, or `lrs` in a study",
            reason="option.value",
        )
    rates = sorted(set(lrs or settled.swept_learning_rates))
    metric = settled.spec.metrics[0]
    if data.labels == "depth":  # as in the cells that the rate is for
        data = replace(data, depth_m=depth_range(data, stop))
    apart, evaluated_on = held_out(data, settled, stop)
    shared = features or Features()
    tried: dict[float, float | None] = {}
    for lr in rates:
        asked = settled.model_copy(update={"lr": lr, "fraction": 1.0})
        folder = None if out is None else out / f"lr-{lr:g}"
        try:
            result = finetune(
                backbone, apart, asked, out=folder, stop=stop, device=device, features=shared
            )
        except EngineError as error:
            if error.reason != "train.not_finite":
                raise
            say(f"lr {lr:g}: {error.what}")
            tried[lr] = None
        else:
            tried[lr] = result.metrics[metric.name]
    finite = {lr: value for lr, value in tried.items() if value is not None}
    if not finite:
        raise EngineError(
            f"no learning rate of {', '.join(f'{lr:g}' for lr in rates)} stayed finite",
            hint="try smaller rates",
            reason="train.not_finite",
        )
    sign = 1 if metric.higher_is_better else -1
    best = max(sorted(finite), key=lambda lr: sign * finite[lr])
    found = Sweep(
        lr=best,
        metric=metric.name,
        tried=tuple(tried.items()),
        evaluated_on=evaluated_on,
        at_edge=len(rates) > 1 and best in (rates[0], rates[-1]),
    )
    if out is not None and distributed.rank() == 0:
        sealed.write(out / "sweep.json", asdict(found), indent=1)
    return found


def require_cells(
    data: DenseSet,
    cells: Sequence[DenseOptions],
    *,
    choose_rate: bool,
    stop: StopRequest | None = None,
) -> None:
    """Check all cells, and what their settings are chosen on, before the first cell runs.

    A learning rate is chosen once, with the first cell of the largest fraction; the strength of
    `solved` in every cell.

    Raises:
        UsageError: a fraction has no labels to learn from, or a setting cannot be chosen; names it.
    """
    for cell in cells:
        subset = take_fraction(data.train, cell.fraction, cell.seed)
        what = f"training image of fraction {cell.fraction:g}, seed {cell.seed},"
        require_labels(data, subset, what, stop)
        if cell.protocol == "solved":
            held_out(data, cell, stop)
    if choose_rate:
        held_out(data, max(cells, key=lambda cell: cell.fraction), stop)


def held_out(
    data: DenseSet, options: DenseOptions, stop: StopRequest | None = None
) -> tuple[DenseSet, str]:
    """Return the data set to sweep on, whose `test` holds no test images, and a description of it.

    Raises:
        UsageError: some training images must be held out, but there are fewer than two, or the
            held-out ones do not allow a choice.
    """
    subset = take_fraction(data.train, options.fraction, options.seed)
    nothing = data.val[:0]
    if len(data.val):
        require_told_apart(data, data.val, "validation", stop)
        apart = replace(data, train=subset, val=nothing, test=data.val)
        return apart, f"{len(data.val):,} validation images"
    if len(subset) < 2:  # noqa: PLR2004 - one to train on, one to evaluate on
        raise UsageError(
            "one training image cannot be divided to choose a setting on a part of it",
            hint="give a larger fraction, or the learning rate",
            reason="option.value",
        )
    test = take_fraction(subset, HELD_OUT_FRACTION, options.seed + 1)
    kept = set(subset.names) - set(test.names)
    rest = Split(tuple(name for name in subset.names if name in kept), subset.read)
    require_told_apart(data, test, "held-out training", stop)
    require_labels(data, rest, "training image that is not held out", stop)
    words = f"{len(test):,} of {len(subset):,} training images, held out"
    return replace(data, train=rest, val=nothing, test=test), words
