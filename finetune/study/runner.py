"""Run the cells of a study with real models, through `pretrain` and `finetune.run`.

The only module of studies and reports that imports torch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from curator.core import hashing
from curator.core.errors import UsageError
from curator.core.stopping import StopRequest
from curator.scorers import is_text_only
from curator.steps.workspace import StoreName, open_workspace
from curator.store import fsops
from finetune.cell_files import DenseResult, Sweep
from finetune.feeding import Features
from finetune.labels import examined
from finetune.layouts import DenseSet, open_dense
from finetune.options import parse_options
from finetune.run import finetune, require_cells, sweep
from finetune.study.cells import (
    Cell,
    DenseCell,
    Json,
    PretrainCell,
    PretrainOutcome,
    SweepCell,
)
from finetune.study.recipe import TaskSettings
from finetune.tasks import TASKS
from pretrain import distributed
from pretrain.data.loader import Pipeline, open_source
from pretrain.loop.flops import counted
from pretrain.loop.onednn_workaround import stride_first
from pretrain.loop.runlog import read_log
from pretrain.objectives import objective_class
from pretrain.recipe import Recipe, read_recipe
from pretrain.run import pretrain
from pretrain.towers.backbone import load_backbone

_PROBED_BATCH = 64
_TIMED_IMAGES = 4
_TIMED_SEC = 1.0


class ModelRunner:
    """See `finetune.study.cells.Runner`. `store` is the store of the versions, if elsewhere."""

    def __init__(self, store: StoreName | None = None, device: str | None = None) -> None:
        self._store, self._device = store, device
        self._sets: dict[tuple[str, str, str | None], DenseSet] = {}
        self._features = Features()
        self._paces: dict[tuple[str, ...], float] = {}

    def recipe(self, name: str, options: Mapping[str, Any]) -> Json:
        """Read a built-in recipe or a file, and apply `options`.

        Raises:
            UsageError: unknown recipe, a field or value that is not allowed, or an objective whose
                class breaks its contract.
        """
        recipe = read_recipe(name).with_values(options, where=f"{name}, with the study's options")
        objective_class(recipe)
        return recipe.model_dump(mode="json")

    def source(self, data: str, *, text: bool) -> Json:
        """Describe a version, with its captioners and scorers."""
        about = open_source(data, self._store, need_text=text).describe()
        shown = ("id", "name", "num_samples", "num_shards", "policy")
        return {key: about[key] for key in shown if key in about} | self._makers(data, about)

    def _makers(self, data: str, about: Mapping[str, Any]) -> Json:
        if about.get("kind") != "version":
            return {}
        makers = open_workspace(data, self._store, reads="versions").version().makers
        found: Json = {"scorers": [], "captioners": []}
        for name, recipe in makers.items():
            # Captioners have a prompt, scorers do not; rules on texts are not models.
            who = str(recipe.get("model", name))
            if not is_text_only(recipe):
                found["captioners" if "prompt" in recipe else "scorers"].append(who)
        return found

    def labels(self, task: TaskSettings, seeds: Sequence[int]) -> Json:
        """Describe a labelled folder, after reading its labels.

        Refuses it before anything is pretrained if no score could be reported, also for the
        fractions of every seed.
        """
        TASKS.get(task.task)  # first refuse a class that breaks its contract
        found = self._dense_set(task)
        cells = [
            task.dense_options(seed=seed, fraction=f) for seed in seeds for f in task.fractions
        ]
        require_cells(found, cells, choose_rate=len(task.lrs) > 1)
        return {k: v for k, v in found.describe().items() if k != "folder"}

    def _dense_set(self, task: TaskSettings) -> DenseSet:
        key = (task.task, task.data, task.layout)
        if key not in self._sets:
            found = open_dense(TASKS.spec(task.task).labels, Path(task.data), task.layout)
            self._sets[key] = examined(found)
        return self._sets[key]

    def flops_per_sample(self, data: str, recipe: Json) -> float:
        """Count FLOPs on a batch drawn as in training, because its longest text sets the cost."""
        step, batch_size = self._step(data, Recipe(**recipe))
        with torch.random.fork_rng(devices=[]), counted() as count:
            step()
        return count.total / batch_size

    def _step(self, data: str, asked: Recipe) -> tuple[Callable[[], None], int]:
        """Return forward and backward on one batch of training, and its number of samples."""
        objective = objective_class(asked)(asked)
        stride_first(objective)
        source = open_source(data, self._store, need_text=asked.has_text)
        batch_size = min(_PROBED_BATCH, source.num_samples)
        options = replace(asked.data_options(), batch_size=batch_size)
        tokenize = objective.tokenizer() if asked.has_text else None
        batch = next(iter(Pipeline(source, options, tokenize=tokenize).batches(0)))

        def step() -> None:
            objective.losses(batch)["loss"].backward()

        return step, batch_size

    def rough_seconds(self, cell: Cell) -> float:
        """Time a few passes on the CPU: forward and backward of a pretraining's batch, or forward
        of the backbone at the task's size.

        Left out are decoding, the optimizer and heads. A probe sees every image once, for its
        features; each image of a finetuning step counts three times, for the backward pass.
        """
        if isinstance(cell, PretrainCell):
            fixed = {**cell.recipe, "seed": 0, "samples_seen": 1}
            key = ("pretrain", cell.data, hashing.digest(fixed))
            if key not in self._paces:
                step, batch_size = self._step(cell.data, Recipe(**cell.recipe))
                self._paces[key] = _seconds_of(step) / batch_size
            return self._paces[key] * int(cell.recipe["samples_seen"])
        options = parse_options(cell.options)
        tower = cell.backbone.cell
        spec = cell.backbone.spec if tower is None else f"random:{tower.recipe['model']}"
        size_key = ("dense", spec, str(options.image_px))
        if size_key not in self._paces:
            net = load_backbone(spec, image_px=options.image_px).eval()
            images = torch.zeros(_TIMED_IMAGES, 3, *options.image_px)
            with torch.inference_mode():
                self._paces[size_key] = _seconds_of(lambda: net(images)) / _TIMED_IMAGES
        train, test = (int(cell.labels.get(key, 0)) for key in ("num_train", "num_test"))
        trained = train * options.fraction
        if not options.freeze:
            trained = 3 * options.steps * options.batch_size
        runs = len(cell.task.lrs) if isinstance(cell, SweepCell) and not options.freeze else 1
        return self._paces[size_key] * (runs * trained + test)

    def pretrain(self, cell: PretrainCell, folder: Path, stop: StopRequest) -> PretrainOutcome:
        """Pretrain into `folder`, or resume there."""
        summary = pretrain(
            cell.data,
            Recipe(**cell.recipe),
            folder,
            store=self._store,
            reference=cell.reference,
            held_out=cell.held_out,
            device=self._device,
            stop=stop,
        )
        device, num_devices = distributed.occupied(torch.device(summary.device))
        # A study has many pretrainings, and only their models are read from now on.
        if (folder / "checkpoints").is_dir():
            fsops.remove_tree(folder / "checkpoints")
        return PretrainOutcome(summary, _history(folder / "log.jsonl"), device, num_devices)

    def sweep(self, cell: SweepCell, backbone: str, folder: Path, stop: StopRequest) -> Sweep:
        """Try the learning rates on val, or on a part of train, never on test."""
        return sweep(
            backbone,
            self._dense_set(cell.task),
            parse_options(cell.options),
            lrs=cell.task.lrs,
            out=folder,
            stop=stop,
            device=self._device,
            features=self._features,
        )

    def finetune(
        self, cell: DenseCell, backbone: str, options: Json, folder: Path, stop: StopRequest
    ) -> DenseResult:
        """Train on a fraction of the labels and evaluate on test."""
        return finetune(
            backbone,
            self._dense_set(cell.task),
            parse_options(options),
            out=folder,
            stop=stop,
            device=self._device,
            features=self._features,
        )


def runner_of_job(
    job: int, jobs: int, *, store: StoreName | None = None, device: str | None = None
) -> ModelRunner:
    """Return the runner of job number `job` of `jobs`, for use in that job's process.

    Jobs are assigned to GPUs in turn. The cores are divided equally, and the process is limited to
    its part from now on: processes that each use all cores stall each other.
    """
    if device is None and torch.cuda.is_available():
        device = f"cuda:{job % torch.cuda.device_count()}"
    cores = sorted(os.sched_getaffinity(0))
    share = max(1, len(cores) // jobs)
    first = job * share % len(cores)
    os.sched_setaffinity(0, cores[first : first + share])
    torch.set_num_threads(share)
    return ModelRunner(store, device)


def runner_on_node(
    *, threads: int, store: StoreName | None = None, device: str | None = None
) -> ModelRunner:
    """Return the runner of a process on a Ray cluster; Ray has chosen its GPU."""
    torch.set_num_threads(threads)
    return ModelRunner(store, device)


def _seconds_of(step: Callable[[], object]) -> float:
    """Return the seconds of a call, the mean over about a second of them; the first is left out."""
    step()
    started, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - started < _TIMED_SEC:
        step()
        calls += 1
    return (time.perf_counter() - started) / calls


def _history(path: Path) -> list[Json]:
    """Return the lines of a run's log that have a loss."""
    if not path.is_file():
        raise UsageError("the run has no log", where=path)
    points, _ = read_log(path)
    return [dict(point) for point in points if "loss" in point and "step" in point]
