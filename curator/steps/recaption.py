"""recaption: index, score, generate, score, decide, commit. The verb this tool is for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from curator.core import progress
from curator.core.errors import EngineError, NotFoundError, StrictError, UsageError
from curator.core.registry import load
from curator.core.stopping import StopRequest
from curator.engine.executors import Executor
from curator.engine.executors.local import InlineExecutor, ProcessExecutor
from curator.engine.facts_loop import Tally
from curator.engine.makers import Maker
from curator.policy.model import Policy
from curator.shards.scan import ScanOptions
from curator.steps.decide import MakerChoice, decide
from curator.steps.generate import CaptionTask, Only, generate
from curator.steps.index import IndexReport, make_index, say_index
from curator.steps.quarantine import rows as quarantine_rows
from curator.steps.score import ScoreSummary, ScoreTask, score, summarize
from curator.steps.workspace import Workspace, open_workspace
from curator.store.facts import CAPTIONS
from curator.store.runs import open_run
from curator.store.versions import Version

_INLINE = frozenset({"echo", "text"})
"""Makers that load no model: a process around them would only cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """How the work is spread: worker processes, batch sizes, and when to give up."""

    num_workers: int = 1
    score_batch_size: int = 32
    caption_batch_size: int = 16
    stall_timeout_sec: float = 600.0
    max_quarantine: float = 0.05

    def executor(self, maker: Maker) -> Executor:
        """Where this maker runs."""
        if maker.port in _INLINE:
            return InlineExecutor()
        return ProcessExecutor(self.num_workers, self.stall_timeout_sec)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recaption:
    """What `recaption` was asked for.

    `captioner` and `scorer` are None when the policy has no use for them. With `worst_percent`
    only the worst-scored alt texts are captioned, and the policy should keep the others.
    """

    captioner: Maker | None
    scorer: Maker | None
    checker: Maker
    policy: Policy
    candidates: int = 1
    worst_percent: float | None = None
    scan: ScanOptions = field(default_factory=ScanOptions)
    strict: bool = False

    def __post_init__(self) -> None:
        """Say now what `decide` would only find out when all captions are made.

        Raises:
            UsageError: the policy needs scores of another scorer than the one that will run.
        """
        if self.scorer is None or not self.policy.needs_score:
            return
        if self.scorer.port != self.policy.scorer:
            raise UsageError(
                f"policy {self.policy.name!r} needs scores of a {self.policy.scorer!r} scorer, and "
                f"--scorer is a {self.scorer.port!r} one",
                hint=f"leave --scorer away, or give a {self.policy.scorer!r} one; `replace` and "
                "`as-is` are policies without scores",
                reason="option.value",
            )

    @property
    def maker_names(self) -> list[str]:
        """Who makes facts in this run."""
        makers = (self.captioner, self.scorer, self.checker)
        return [maker.name for maker in makers if maker is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecaptionReport:
    """What happened: model calls made now, and the version that stands for the result."""

    index: IndexReport
    scored: Tally
    captioned: Tally
    scores: list[ScoreSummary]
    version: Version
    is_new: bool

    @property
    def num_calls(self) -> int:
        """Facts that models were asked for in this run."""
        tallies = (self.scored, self.captioned)
        return sum(tally.made + tally.num_failed for tally in tallies)


def reach_server(spec: str, store: Path | None, captioner: Maker | None) -> None:
    """Say that a server does not answer before the shards are read, which can take hours.

    Where this captioner has been at work before, every caption may be there already.

    Raises:
        EngineError: it does not answer, and never did here.
    """
    if captioner is None or captioner.port != "server":
        return
    try:
        load("curator.captioners.server:reach")(captioner.options["url"])
    except EngineError as error:
        try:
            known = open_workspace(spec, store).store.makers(CAPTIONS)
        except NotFoundError:
            known = []
        if captioner.name not in known:
            raise
        progress.say(f"warning: {error}; going on with the captions that are there")


def score_all(
    ws: Workspace,
    makers: Sequence[Maker],
    engine: Engine,
    *,
    generators: tuple[str, ...] = (),
    by_people: bool = True,
    stop: StopRequest,
) -> Tally:
    """Have each of `makers` score what it has not scored yet."""
    total = Tally()
    for maker in makers:
        task = ScoreTask(
            maker=maker,
            executor=engine.executor(maker),
            generators=generators,
            by_people=by_people,
            batch_size=engine.score_batch_size,
            max_failed_share=engine.max_quarantine,
        )
        tally = score(ws, task, stop=stop)
        if maker.port != "text":  # checking a text asks no model
            total.made += tally.made
            for reason, count in tally.failures.items():
                total.failures[reason] = total.failures.get(reason, 0) + count
    return total


def recaption(
    ws: Workspace, asked: Recaption, engine: Engine, *, stop: StopRequest
) -> RecaptionReport:
    """Run all stages; every one goes on where an earlier run left it.

    Raises:
        StoppedError, QuarantineLimitError, EngineError, DamageError, StorageError: what was
        finished before is kept. StrictError: done, but rows are in quarantine.
    """
    makers = [asked.scorer, asked.checker] if asked.scorer else [asked.checker]
    options = {"dataset": ws.spec, "policy": asked.policy.name, "makers": asked.maker_names}
    with open_run(ws.store, "recaption", options) as run:
        indexed = make_index(ws, asked.scan, stop=stop, num_workers=engine.num_workers)
        say_index(indexed, run)
        scored = score_all(ws, makers, engine, stop=stop)
        captioned = Tally()
        generators: tuple[str, ...] = ()
        if asked.captioner is not None:
            captioned = generate(ws, _caption_task(asked, asked.captioner, engine), stop=stop)
            generators = (asked.captioner.name,)
            more = score_all(ws, makers, engine, generators=generators, by_people=False, stop=stop)
            scored = _add(scored, more)
        choice = MakerChoice(
            generators=generators,
            scorer=asked.scorer.name if asked.scorer else None,
            checker=asked.checker.name,
            max_quarantine=engine.max_quarantine,
        )
        version, is_new = decide(ws, asked.policy, choice, stop=stop)
        run.event("version", number=version.number, id=version.id, new=is_new)
        scores = summarize(ws, asked.scorer.name, generators) if asked.scorer else []
    report = RecaptionReport(
        index=indexed,
        scored=scored,
        captioned=captioned,
        scores=scores,
        version=version,
        is_new=is_new,
    )
    if asked.strict:
        _check_strict(ws, asked, version)
    return report


def _caption_task(asked: Recaption, captioner: Maker, engine: Engine) -> CaptionTask:
    only = None
    if asked.worst_percent is not None and asked.scorer is not None:
        only = Only(worst_percent=asked.worst_percent, scorer=asked.scorer.name)
    return CaptionTask(
        maker=captioner,
        executor=engine.executor(captioner),
        candidates=asked.candidates,
        batch_size=engine.caption_batch_size,
        only=only,
        max_failed_share=engine.max_quarantine,
    )


def _check_strict(ws: Workspace, asked: Recaption, version: Version) -> None:
    """Rows of the shards and of the makers of this run; what others failed at does not count."""
    makers = {None, *asked.maker_names}
    num_rows = sum(row.maker in makers for row in quarantine_rows(ws))
    if num_rows:
        raise StrictError(
            f"{version.name} is committed, with {num_rows:,} rows in quarantine",
            hint=f"`{ws.command('quarantine list')}` says why",
        )


def _add(one: Tally, other: Tally) -> Tally:
    failures = dict(one.failures)
    for reason, count in other.failures.items():
        failures[reason] = failures.get(reason, 0) + count
    return Tally(one.made + other.made, failures)
