"""Run the whole pipeline: index, score, caption, score the captions, decide, commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from curator.captioners.server import reach
from curator.core import progress
from curator.core.errors import EngineError, NotFoundError, StrictError, UsageError, nearest
from curator.core.run_options import DEFAULTS, RunOptions
from curator.core.stopping import StopRequest
from curator.engine.facts_loop import Tally
from curator.engine.makers import Maker
from curator.engine.serve import LocalServers
from curator.policy.model import Policy
from curator.shards.scan import ScanOptions
from curator.steps.decide import MakerChoice, check_scorer, concept_scorer, decide
from curator.steps.generate import Only, check_failures, generate
from curator.steps.index import IndexReport, make_index, say_index
from curator.steps.kinship import say_kinship
from curator.steps.quarantine import rows as quarantine_rows
from curator.steps.score import ScoreSummary, score_all, summarize
from curator.steps.workspace import StoreName, Workspace, open_workspace
from curator.store.facts import CAPTIONS
from curator.store.runs import open_run
from curator.store.versions import Version


@dataclass(frozen=True, slots=True, kw_only=True)
class Recaption:
    """The settings of `recaption`.

    `judges` are the scorers that rules of the policy ask besides its own.
    `captioners` is empty and `scorer` None when the policy does not need them. Captioners work one
    after the other; one whose prompt has `{caption}` comes behind the one that it builds on. With
    `worst_percent` only the images with the worst-scored alt texts are captioned, and the policy
    should keep the other alt texts.
    """

    captioners: tuple[Maker, ...]
    scorer: Maker | None
    checker: Maker
    policy: Policy
    judges: tuple[Maker, ...] = ()
    candidates: int = 1
    worst_percent: float | None = None
    scan: ScanOptions = field(default_factory=ScanOptions)
    strict: bool = False

    def __post_init__(self) -> None:
        """Check now what `decide` would only check after all captions are made.

        Raises:
            UsageError: the policy needs scores of another scorer than the one that will run, or of
                an unknown one.
        """
        check_scorer(self.policy)
        if self.scorer is None or not self.policy.needs_score:
            return
        if self.scorer.row != self.policy.scorer:
            raise UsageError(
                f"policy {self.policy.name!r} needs scores of a {self.policy.scorer!r} scorer, but "
                f"--scorer is a {self.scorer.row!r} scorer",
                hint=f"drop --scorer, or write a policy with scorer = {self.scorer.row!r} "
                "(start from `curator policy NAME > mine.toml`); the policies `replace` and "
                "`as-is` need no scores",
                reason="option.value",
            )

    @property
    def maker_names(self) -> list[str]:
        """Return the names of the makers of this run."""
        makers = (*self.captioners, self.scorer, *self.judges, self.checker)
        return [maker.name for maker in makers if maker is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecaptionReport:
    """The result of `recaption`: the facts made in this run, and the version; a slice has none."""

    index: IndexReport
    scored: Tally
    captioned: Tally
    scores: list[ScoreSummary]
    version: Version | None = None
    is_new: bool = False

    @property
    def num_calls(self) -> int:
        """Return the number of facts that were requested from models in this run."""
        tallies = (self.scored, self.captioned)
        return sum(tally.made + tally.num_failed for tally in tallies)


def reach_server(spec: str, store: StoreName | None, captioners: Sequence[Maker]) -> None:
    """Check that a server answers, before reading the shards, which can take hours.

    Only a warning if another server answers, or if the store has captions of all captioners: they
    may need no new ones.

    Raises:
        EngineError: no server answers, and the store has no captions of a captioner.
    """
    if not captioners or captioners[0].spec.needs != "server":
        return
    url = captioners[0].options["url"]
    urls = [url] if isinstance(url, str) else url
    errors = []
    for one in urls:
        try:
            reach(one)
        except EngineError as error:
            errors.append(error)
    if len(errors) == len(urls):
        try:
            known = open_workspace(spec, store).store.makers(CAPTIONS)
        except NotFoundError:
            known = []
        if not {maker.name for maker in captioners} <= set(known):
            raise errors[0]
    rest = "existing captions" if len(errors) == len(urls) else "other servers"
    for failed in errors:
        failed.did = f"continuing with the {rest}"  # not "nothing was read or written"
        progress.say(f"warning: {failed}")


def recaption(
    ws: Workspace,
    asked: Recaption,
    run_options: RunOptions = DEFAULTS,
    *,
    servers: LocalServers | None = None,
    stop: StopRequest,
) -> RecaptionReport:
    """Run all stages; each continues where an earlier run stopped.

    `servers` are started if they are needed; who made them stops them.
    A slice ends before the decision: a version of some shards would look like the whole, and
    percentile rules and rules on copies need all shards.

    Raises:
        StoppedError, QuarantineLimitError, EngineError, DamageError, StorageError: finished facts
        are kept. StrictError: the version is committed, but rows are in quarantine.
    """
    _check_caption_from(ws, asked.captioners)
    for judge in (asked.scorer, *asked.judges):
        if judge is not None:
            say_kinship(ws, judge, [*asked.captioners, *([asked.scorer] if asked.scorer else [])])
    makers = [one for one in (asked.scorer, *asked.judges, asked.checker) if one is not None]
    options = {
        "dataset": ws.spec,
        "policy": asked.policy.name,
        "makers": asked.maker_names,
        "shard_slice": ws.shard_slice,
    }
    version, is_new = None, False
    with open_run(ws.store, "recaption", options) as run:
        indexed = make_index(ws, asked.scan, run_options, stop=stop)
        say_index(indexed, run)
        concept_scorer(ws, asked.policy, asked.scorer.name if asked.scorer else None)
        scored = score_all(ws, makers, run_options, stop=stop)
        captioned = Tally()
        only = None
        if asked.worst_percent is not None and asked.scorer is not None:
            only = Only(worst_percent=asked.worst_percent, scorer=asked.scorer.name)
        for captioner in asked.captioners:
            made = generate(
                ws,
                captioner,
                run_options,
                candidates=asked.candidates,
                only=only,
                servers=servers,
                stop=stop,
            )
            captioned = captioned.plus(made)
            check_failures(ws, captioner, asked.policy, run_options, only=only)
        generators = _by_preference(asked.captioners)
        if generators:
            more = score_all(
                ws, makers, run_options, generators=generators, by_people=False, stop=stop
            )
            scored = scored.plus(more)
        if ws.shard_slice is None:
            choice = MakerChoice(
                generators=generators,
                scorer=asked.scorer.name if asked.scorer else None,
                checker=asked.checker.name,
                others=tuple(judge.name for judge in asked.judges),
            )
            version, is_new = decide(ws, asked.policy, choice, run_options, stop=stop)
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


def _by_preference(captioners: Sequence[Maker]) -> tuple[str, ...]:
    """Return names in the order given, but what was made out of captions before those."""
    names: list[str] = []
    for maker in captioners:
        built_on = maker.recipe.get("caption_from")
        names.insert(names.index(built_on) if built_on in names else len(names), maker.name)
    return tuple(names)


def _check_caption_from(ws: Workspace, captioners: Sequence[Maker]) -> None:
    """Raise a UsageError if a prompt asks about captions that nobody made or will make."""
    known = {*ws.store.makers(CAPTIONS)}
    for maker in captioners:
        wanted = maker.recipe.get("caption_from")
        if wanted is not None and wanted not in known:
            raise UsageError(
                f"--caption-from is {wanted!r}, and the store has no captions by that name",
                hint=nearest(wanted, sorted(known)) if known else "caption the images first",
                reason="option.value",
            )
        known.add(maker.name)


def _check_strict(ws: Workspace, asked: Recaption, version: Version | None) -> None:
    """Count quarantine rows of the shards and of this run's makers; other makers do not count."""
    makers = {None, *asked.maker_names}
    num_rows = sum(row.maker in makers for row in quarantine_rows(ws))
    if num_rows:
        done = f"{version.name} is committed" if version else f"slice {ws.shard_slice} is done"
        raise StrictError(
            f"{done}, with {num_rows:,} rows in quarantine",
            hint=f"`{ws.command('quarantine list')}` lists the reasons",
        )
