"""Pretrain one recipe on one source, into one folder.

    OUT/run.json         identity of the folder: recipe, digest, source, versions
    OUT/checkpoints/     see `pretrain.loop.checkpoint`
    OUT/log.jsonl        a line every ten steps; OUT/tensorboard/ has the same
    OUT/model/           the model, for `curator finetune OUT`, open_clip and transformers
    OUT/summary.json     written last: samples, FLOPs, seconds, losses, checks on held-out pairs

The same command resumes a stopped run and does nothing for a finished one. Two runs of a study
differ in their source or their recipe; their summaries show that they saw as many samples and spent
as many FLOPs.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from curator.core.clock import now
from curator.core.errors import UsageError
from curator.core.package import tool_version
from curator.core.progress import say
from curator.core.stopping import StopRequest
from curator.engine.executors.local import num_cores
from curator.steps.workspace import StoreName
from curator.store import fsops, sealed
from pretrain import distributed, run_files
from pretrain.checks.retrieval import encode, recalls
from pretrain.checks.zeroshot import zero_shot
from pretrain.data.cuts import Cuts
from pretrain.data.loader import Batch, Pipeline, Source, open_source
from pretrain.data.texts import heaviest
from pretrain.loop.loop import TrainResult, train
from pretrain.objectives import objective_class
from pretrain.recipe import Recipe
from pretrain.run_files import RUN_FILE, SUMMARY_FILE, RunSummary, read_summary

_MAX_HELD_OUT = 500
_MAX_WORKERS = 8
_FORMAT = 2


def pretrain(
    data: str,
    recipe: Recipe,
    out: Path,
    *,
    store: StoreName | None = None,
    reference: str | None = None,
    held_out: int | None = None,
    device: str | None = None,
    stop: StopRequest | None = None,
) -> RunSummary:
    """Train `recipe` on `data` (forms: `pretrain.data.opening`) and write the run to `out`.

    `reference` is the version that some controls match. `held_out` pairs, the same in every
    version, are kept out of training for the retrieval and zero-shot checks; default: a tenth, at
    most 500. Under torchrun every process makes this call.

    Raises:
        UsageError: the objective breaks its contract, the recipe does not fit the data, or `out`
            holds another run.
        EngineError: the loss is not finite.
        StoppedError: a stop was requested; the same call resumes.
        ConflictError: another process is training in `out`.
    """
    objective_class(recipe)  # refuse a class that cannot be saved before opening the data
    with distributed.joined(device) as chosen:
        is_writer = distributed.rank() == 0
        with fsops.locked(out / ".lock") if is_writer else nullcontext():
            source = open_source(
                data,
                store,
                control=recipe.control,
                reference=reference,
                need_text=recipe.has_text,
                seed=recipe.seed,
            )
            run = _Run(source, recipe, out, held_out, chosen)
            run.claim()
            if not (out / SUMMARY_FILE).is_file():
                run.train(stop or StopRequest())
            if distributed.size() > 1:
                dist.barrier()
            return read_summary(out)


class _Run:
    def __init__(
        self, source: Source, recipe: Recipe, out: Path, held_out: int | None, device: torch.device
    ) -> None:
        self.recipe, self.out, self.device = recipe, out, device
        if held_out is None:
            held_out = min(_MAX_HELD_OUT, source.num_samples // 10)
        self.source = source
        self.training: Source = source
        self.held_out: Source | None = None
        if held_out:
            self.training, self.held_out = source.split(held_out)
        if self.training.num_samples < recipe.batch_size:
            raise UsageError(
                f"{self.training.num_samples:,} samples to train on, and batches of "
                f"{recipe.batch_size:,}",
                where=source.name,
                hint="use a smaller batch_size (--set batch_size=N) or more data",
            )

    def claim(self) -> None:
        """Claim the folder for this run, or check that it already belongs to it.

        Raises:
            UsageError: it belongs to another run. DamageError: run.json is missing.
        """
        mine = {
            "format": _FORMAT,
            "recipe": self.recipe.model_dump(),
            "recipe_digest": self.recipe.digest(),
            "source_id": self.source.id,
            "held_out": 0 if self.held_out is None else self.held_out.num_samples,
        }
        path = self.out / RUN_FILE
        if path.is_file():
            found = run_files.read_run(self.out)
            changed = [key for key in mine if found.get(key) != mine[key]]
            if changed:
                raise UsageError(
                    f"the folder holds another run (different {', '.join(changed)})",
                    where=self.out,
                    hint="give another --out, or the data and recipe that the run started with",
                    reason="run.other",
                )
        elif distributed.rank() == 0:
            run_files.check_unclaimed(self.out)
            about = {
                "source": self.source.describe(),
                "tool_version": tool_version(),
                "torch_version": str(torch.__version__),
                "started_at": now(),
            }
            text = json.dumps(mine | about, indent=2, default=str)
            fsops.write_atomic(path, sealed.seal(text))

    def train(self, stop: StopRequest) -> None:
        """Train, save the model, check it, and write the summary."""
        run_files.check_can_begin(self.out)
        recipe = self.recipe
        objective = objective_class(recipe)(recipe)
        objective.to(self.device, memory_format=torch.channels_last)
        pipeline = self._pipeline(self.training, objective)
        options = recipe.loop_options()
        if distributed.rank() == 0:
            say(
                f"{recipe.objective} of {recipe.model} on {self.training.num_samples:,} samples of "
                f"{self.source.name}: {options.total_steps:,} steps of {recipe.batch_size:,}"
            )
        result = train(
            objective,
            pipeline.batches,
            options,
            folder=self.out,
            stop=stop,
            what=f"pretrain {recipe.name}",
            count=_CutCounter(objective.tokenizer().context_length) if recipe.has_text else None,
        )
        if distributed.rank() == 0:
            objective.save(self.out / "model")
            self._summarise(objective, result)

    def _pipeline(self, source: Source, objective: Any, *, alone: bool = False) -> Pipeline:
        recipe = self.recipe
        return Pipeline(
            source,
            recipe.data_options(num_workers=0 if alone else num_workers(self.device)),
            tokenize=objective.tokenizer() if recipe.has_text else None,
            rank=0 if alone else distributed.rank(),
            world_size=1 if alone else distributed.size(),
        )

    def _summarise(self, objective: Any, result: TrainResult) -> None:
        checked = self._check(objective)
        texts = {}
        if self.recipe.has_text:
            texts = Cuts(context=objective.tokenizer().context_length, **result.counts).to_json()
        seen = result.steps * self.recipe.batch_size
        summary = RunSummary(
            recipe=self.recipe.name,
            recipe_digest=self.recipe.digest(),
            source=self.source.name,
            source_id=self.source.id,
            steps=result.steps,
            samples_seen=seen,
            epochs=seen / self.training.num_samples,
            flops=result.flops,
            seconds=result.seconds,
            precision=result.precision,
            device=str(self.device),
            num_processes=distributed.size(),
            num_parameters=sum(parameter.numel() for parameter in objective.parameters()),
            final=result.history[-1] if result.history else {},
            retrieval=checked.retrieval,
            zero_shot=checked.zero_shot,
            finished_at=time.time(),
            texts=texts,
            held_out_texts={} if checked.texts is None else checked.texts.to_json(),
        )
        run_files.write_summary(self.out, summary)
        for sentence in summary.cut_texts():
            say(f"warning: {sentence}")

    def _check(self, objective: Any) -> _Checked:
        """Check retrieval and zero-shot recognition on the held-out pairs, if there are any."""
        if not self.recipe.has_text or self.held_out is None:
            return _Checked({}, {}, None)
        pipeline = self._pipeline(self.held_out, objective, alone=True)
        counter = _CutCounter(objective.tokenizer().context_length)
        pairs = encode(objective, counter.passing(pipeline.in_order()))
        texts = [
            text
            for plan in pipeline.plans_in_order()
            for text in heaviest(plan.texts, plan.weights)[0]
        ]
        return _Checked(recalls(pairs), zero_shot(objective, pairs.images_ND, texts), counter.total)


class _Checked(NamedTuple):
    """Results on the held-out pairs, and how many of their texts were cut."""

    retrieval: dict[str, float]
    zero_shot: dict[str, float]
    texts: Cuts | None


class _CutCounter:
    """Counts texts that are cut at the context; warns at the first one."""

    def __init__(self, context: int) -> None:
        self._context, self._said = context, False
        self.total = Cuts(context=context)

    def __call__(self, batch: Batch) -> dict[str, int]:
        """Return the counts of one batch, for the loop to add up."""
        found = Cuts.of(batch.lengths.tolist(), self._context)
        self.total += found
        if found.num_cut and not self._said and distributed.rank() == 0:
            say(f"warning: {self.total.sentence()} (so far; all are counted in summary.json)")
        self._said = self._said or found.num_cut > 0
        return found.counts()

    def passing(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the same batches and count their texts, without a warning."""
        self._said = True
        for batch in batches:
            self(batch)
            yield batch


def num_workers(device: torch.device) -> int:
    """Return the number of decoding processes: 0 on a CPU, whose cores are busy training; else this
    process's part of the cores, less one for the training itself.
    """
    if device.type == "cpu":
        return 0
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(_MAX_WORKERS, max(1, num_cores() // local - 1))
