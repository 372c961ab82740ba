"""A pretraining run: one source, one recipe, one folder.

    OUT/run.json         recipe, digest, source, versions: what this folder is
    OUT/checkpoints/     see `pretrain.loop.checkpoint`
    OUT/log.jsonl        a line every ten steps; OUT/tensorboard/ has the same
    OUT/model/           what `curator finetune OUT` and open_clip or transformers read
    OUT/summary.json     written last: samples, arithmetic, seconds, losses, held-out pairs

The same command again goes on where it was stopped, and does nothing when it was finished. Two
runs of a study differ in their source or their recipe; that they saw as many samples with as much
arithmetic is in their summaries.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from curator.core.clock import now
from curator.core.errors import DamageError, UsageError
from curator.core.package import tool_version
from curator.core.progress import say
from curator.core.stopping import StopRequest
from curator.engine.executors.local import num_cores
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
from pretrain.run_files import RUN_FILE, SUMMARY_FILE

_MAX_HELD_OUT = 500
_MAX_WORKERS = 8
_FORMAT = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """What a finished run says about itself.

    `flops` are forward and backward of all steps, counted once on the first and multiplied;
    `seconds` are of training alone, in all of its parts. `final` is the last line of the log,
    `retrieval` and `zero_shot` are of held-out pairs, empty for objectives without text. `texts`
    and `held_out_texts` are `pretrain.data.cuts.Cuts` of what was trained on and of those pairs;
    empty without text, and in runs of versions of this tool that did not count.
    """

    recipe: str
    recipe_digest: str
    source: str
    source_id: str
    steps: int
    samples_seen: int
    epochs: float
    flops: int
    seconds: float
    precision: str
    device: str
    num_processes: int
    num_parameters: int
    final: dict[str, float]
    retrieval: dict[str, float]
    zero_shot: dict[str, float]
    finished_at: float
    texts: dict[str, int] = field(default_factory=dict)
    held_out_texts: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def cut_texts(self) -> list[str]:
        """What was cut at the context of the text tower, in sentences; none if nothing was."""
        parts = (("", self.texts), ("held-out pairs: ", self.held_out_texts))
        said = [
            f"{what}{Cuts(**found).sentence()}" for what, found in parts if found.get("num_cut")
        ]
        if cut := self.zero_shot.get("num_words_cut"):
            said.append(f"zero-shot: {cut:,.0f} words are asked for in more tokens than are read")
        return said


def pretrain(
    data: str,
    recipe: Recipe,
    out: Path,
    *,
    store: Path | None = None,
    reference: str | None = None,
    held_out: int | None = None,
    device: str | None = None,
    stop: StopRequest | None = None,
) -> RunSummary:
    """Train `recipe` on `data` (see `pretrain.data.opening`) into the folder `out`.

    `reference` is the version that some controls match. `held_out` pairs are kept out of training,
    for the retrieval and zero-shot checks, in every version alike; by default a tenth, at most
    500. Under torchrun all processes call this alike.

    Raises:
        UsageError: the objective does not keep its contract, the recipe does not fit the data, or
            `out` holds another run.
        EngineError: the loss is not finite.
        StoppedError: `stop` was asked for; the same call goes on.
        ConflictError: another process trains in `out`.
    """
    objective_class(recipe)  # refuse a class that could not be saved before data are opened
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


def read_summary(out: Path) -> RunSummary:
    """The summary of a finished run.

    Raises:
        UsageError: not a finished run. DamageError: the summary is not what was written.
    """
    if not (out / SUMMARY_FILE).is_file():
        raise UsageError(
            "no finished run here", where=out, hint="finish it with `curator pretrain`"
        )
    try:
        return RunSummary(**run_files.read_summary(out))
    except TypeError as error:
        raise DamageError(
            f"the summary has other fields ({error})", where=out / SUMMARY_FILE
        ) from error


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
        """Make the folder this run's, or see that it is.

        Raises:
            UsageError: it is another run's. DamageError: nothing says any more whose it is.
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
                    f"another run lies there (other {', '.join(changed)})",
                    where=self.out,
                    hint="give another --out, or the data and recipe that it was begun with",
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
        run_files.write_summary(self.out, summary.to_json())
        for sentence in summary.cut_texts():
            say(f"warning: {sentence}")

    def _check(self, objective: Any) -> _Checked:
        """Retrieval and zero-shot recognition on the pairs kept out, if there are any."""
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
    """What the held-out pairs gave, and how much of their texts was read."""

    retrieval: dict[str, float]
    zero_shot: dict[str, float]
    texts: Cuts | None


class _CutCounter:
    """Counts the texts of batches that are cut at the context; says so at the first of them."""

    def __init__(self, context: int) -> None:
        self._context, self._said = context, False
        self.total = Cuts(context=context)

    def __call__(self, batch: Batch) -> dict[str, int]:
        """What to add up, of one batch."""
        found = Cuts.of(batch.lengths.tolist(), self._context)
        self.total += found
        if found.num_cut and not self._said and distributed.rank() == 0:
            say(f"warning: {self.total.sentence()} (so far; all are counted in summary.json)")
        self._said = self._said or found.num_cut > 0
        return found.counts()

    def passing(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches, counted without a word."""
        self._said = True
        for batch in batches:
            self(batch)
            yield batch


def num_workers(device: torch.device) -> int:
    """Processes that decode: none on a CPU, whose cores are busy training; else the cores that are
    this process' share, less one for the training itself.
    """
    if device.type == "cpu":
        return 0
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(_MAX_WORKERS, max(1, num_cores() // local - 1))
