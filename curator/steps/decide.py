"""Apply a policy to the existing facts and commit the result as a version."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import polars as pl

from curator.core import hashing, package, progress
from curator.core.errors import ConflictError, QuarantineLimitError, UsageError
from curator.core.run_options import DEFAULTS, RunOptions
from curator.core.stopping import StopRequest
from curator.policy.decider import CUT, SHARDS_AT_ONCE, Decider, Inputs
from curator.policy.model import Policy, under_its_own_name
from curator.scorers import CHECKER, SCORERS, concepts
from curator.shards.dataset import ShardRef, as_now
from curator.steps.workspace import Workspace
from curator.store import fsops, index, parquet, versions
from curator.store.facts import CAPTIONS, SCORES, Facts
from curator.store.index import ShardFacts
from curator.store.listing import listing_of
from curator.store.schemas import DECISION_SCHEMA
from curator.store.versions import ACTIONS, ShardEntry, Version

FACT_FILES = "fact_files"
"""Field of a manifest: kind/maker -> number of fact files listed when the version was made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MakerChoice:
    """The makers whose facts to use; None or () means the only ones in the store.

    `generators` are preferred, in this order; the other ones in the store compete behind them.
    `others` are makers for the rules that ask another scorer than the policy's.
    """

    generators: Sequence[str] = ()
    scorer: str | None = None
    checker: str | None = None
    others: Sequence[str] = ()


def decide(
    ws: Workspace,
    policy: Policy,
    choice: MakerChoice,
    run_options: RunOptions = DEFAULTS,
    *,
    stop: StopRequest,
) -> tuple[Version, bool]:
    """Decide for every sample of every shard, and commit the version.

    A policy that has a preset's name but differs from it is committed under another name
    (`curator.policy.model.under_its_own_name`).

    Returns:
        the version, and whether it is new (the same decision is not committed twice).

    Raises:
        UsageError: the policy needs facts that are missing or ambiguous.
        QuarantineLimitError: the share of unusable samples is above the limit; nothing was
            committed.
        DamageError: a shard changed since it was indexed; nothing was committed.
        ConflictError: `curator gc` is running, or another process re-indexed a shard meanwhile;
            nothing was committed.
    """
    with ws.store.deciding():
        return _decide(ws, policy, choice, run_options, stop)


def _decide(
    ws: Workspace, policy: Policy, choice: MakerChoice, run_options: RunOptions, stop: StopRequest
) -> tuple[Version, bool]:
    policy = under_its_own_name(policy)
    inputs = resolve_inputs(ws, policy, choice)
    indexed = {ref.name: index.shard_facts(ws.store, ref.name) for ref in ws.shards}
    groups = list(_groups(ws.shards, indexed))
    names = [tuple(ref.name for ref in group) for group in groups]
    decider = Decider(ws.store, policy, inputs, names)
    entries: list[ShardEntry] = []
    totals: Counter[str] = Counter()
    with progress.bar(f"decide ({policy.name})", len(ws.shards), "shards") as advance:
        for group in _decided(ws, decider, groups):
            for decided in group:
                entries.append(_entry(ws, decided, indexed[decided.ref.name]))
                totals.update(decided.totals)
            fsops.write_many((one.path, one.data) for one in group if one.data is not None)
            advance(len(group))
            stop.check("nothing was committed; all facts are kept")
    _check_quarantine(entries, run_options.max_quarantine)
    for ref in as_now(ws.dataset):
        _check_same_index(ref, indexed[ref.name], index.check_unchanged(ws.store, ref))
    if (before := ws.store.newest()) is not None:
        ws.say_missing(before, "their samples are not in the new version")
    stored_policy = policy.model_dump(mode="json") | {
        "generators": list(inputs.generators),
        "scorer_facts": inputs.scorer if policy.needs_score else None,
        "scores_by": inputs.scorer,
        "checker_facts": inputs.checker,
    }
    if inputs.others:
        stored_policy["other_scores_by"] = dict(inputs.others)
    if inputs.concepts:  # also with the words of presets, which may change
        words = {name: list(wordings) for name, wordings in policy.concepts.items()}
        stored_policy |= {"concepts": words, "concept_facts": inputs.concepts}
    if not policy.concept:  # as before there were concepts: the id is a digest of this
        del stored_policy["concept"]
    draft = Version(
        number=0,
        id=versions.version_id(stored_policy, entries),
        parent=None,
        created=0.0,
        tool_version=package.tool_version(),
        policy=stored_policy,
        thresholds=decider.thresholds,
        makers=_recipes(ws, inputs),
        totals={**totals, "num_unscored": decider.num_unscored},
        shards=tuple(entries),
        extra={FACT_FILES: _num_files(ws, inputs)},
    )
    return ws.store.commit(draft)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decided:
    """The decision for one shard, ready to be written. `data` is None if its file exists."""

    ref: ShardRef
    rows_digest: str
    path: Path
    data: bytes | None
    counts: dict[str, int]
    totals: dict[str, float]


ROWS_AT_ONCE = 10_000
_SHARDS_IN_GROUP = 64


def _groups(
    shards: Sequence[ShardRef], indexed: Mapping[str, ShardFacts]
) -> Iterator[tuple[ShardRef, ...]]:
    """Put shards together in their order: a step takes a millisecond however few the rows are."""
    group: list[ShardRef] = []
    num_rows = 0
    for ref in shards:
        num_rows += indexed[ref.name].num_samples
        if group and (num_rows > ROWS_AT_ONCE or len(group) == _SHARDS_IN_GROUP):
            yield tuple(group)
            group, num_rows = [], indexed[ref.name].num_samples
        group.append(ref)
    if group:
        yield tuple(group)


def _decided(
    ws: Workspace, decider: Decider, groups: Sequence[Sequence[ShardRef]]
) -> Iterator[list[_Decided]]:
    """Yield the decisions in the order of the shards, computed a few at a time in threads.

    Reading, joining and compressing release the GIL; memory holds as many groups as there are
    threads. Only the caller writes, so that files appear in the order of the shards.
    """
    decider.prepare()
    with ThreadPoolExecutor(SHARDS_AT_ONCE) as pool:
        ahead: deque[Future[list[_Decided]]] = deque()
        for group in groups:
            ahead.append(pool.submit(_decide_group, ws, decider, group))
            if len(ahead) > SHARDS_AT_ONCE:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _decide_group(ws: Workspace, decider: Decider, refs: Sequence[ShardRef]) -> list[_Decided]:
    frames = decider.decide_group(tuple(ref.name for ref in refs))
    return [_ready(ws, ref, frame) for ref, frame in zip(refs, frames, strict=True)]


def _ready(ws: Workspace, ref: ShardRef, frame: pl.DataFrame) -> _Decided:
    table = parquet.to_table(frame, DECISION_SCHEMA)
    rows_digest = parquet.content_digest(table)
    path = ws.store.decision_path(ref.name, rows_digest)
    return _Decided(
        ref=ref,
        rows_digest=rows_digest,
        path=path,
        data=None if path.exists() else parquet.to_bytes(table),
        counts=count_actions(frame),
        totals=sum_texts(frame),
    )


def _check_same_index(ref: ShardRef, before: ShardFacts, now: ShardFacts) -> None:
    """Check that the index did not change while the shard was decided: decisions refer to its rows.

    Raises:
        ConflictError: another process re-indexed the shard meanwhile.
    """
    if now.rows_digest != before.rows_digest or now.digest != before.digest:
        raise ConflictError(
            "another process re-indexed the shard during this decision",
            where=ref.path,
            did="nothing was committed; all facts are kept",
            hint="run the same command again",
        )


def _entry(ws: Workspace, decided: _Decided, facts: ShardFacts) -> ShardEntry:
    """Return what the version says of one shard, whose decision was written or exists."""
    path, data = decided.path, decided.data
    counted = sum(decided.counts.values())
    if counted != facts.num_samples:
        _check_same_index(decided.ref, facts, index.shard_facts(ws.store, decided.ref.name))
    assert counted == facts.num_samples, "conservation: every sample has one action"
    return ShardEntry(
        name=decided.ref.name,
        digest=facts.digest,
        num_samples=facts.num_samples,
        counts=decided.counts,
        rows_digest=decided.rows_digest,
        file=path.relative_to(ws.store.root).as_posix(),
        file_sha256=hashing.file_sha256(path) if data is None else hashlib.sha256(data).hexdigest(),
    )


def count_actions(frame: pl.DataFrame) -> dict[str, int]:
    """Count the samples of a decision by action; every one of `ACTIONS` is a key."""
    found = frame.filter(pl.col("slot") == 0)["action"].value_counts()
    by_action = dict(found.iter_rows())
    return {action: int(by_action.get(action, 0)) for action in ACTIONS}


def sum_texts(frame: pl.DataFrame) -> dict[str, float]:
    """Return sums over the chosen texts, to compute means across shards."""
    texts = frame.filter(pl.col("text").is_not_null())
    scored = texts.filter(pl.col("score").is_finite())
    return {
        "num_texts": len(texts),
        # Texts are one line with single spaces (`curator.core.text.clean_str`).
        "num_words": len(texts) + int(texts["text"].str.count_matches(" ", literal=True).sum()),
        "num_truncated": int(texts["because"].str.ends_with(CUT).sum()),
        "num_scored": len(scored),
        "score_sum": float(scored["score"].cast(pl.Float64).sum()),
    }


def _check_quarantine(entries: Sequence[ShardEntry], limit: float) -> None:
    num_samples = sum(entry.num_samples for entry in entries)
    unusable = sum(entry.counts["quarantined"] for entry in entries)
    if num_samples and unusable > limit * num_samples:
        raise QuarantineLimitError(
            f"{unusable:,} of {num_samples:,} samples ({unusable / num_samples:.1%}) are unusable, "
            f"the limit is {limit:.1%}",
            did="nothing was committed; all facts are kept",
            hint="`curator quarantine list` shows them; or raise --max-quarantine",
        )


def _recipes(ws: Workspace, inputs: Inputs) -> dict[str, dict[str, Any]]:
    names = {name: CAPTIONS for name in inputs.generators}
    names |= dict.fromkeys(_scorers_of(inputs), SCORES)
    return {name: ws.store.recipe(kind, name) for name, kind in names.items()}


def _scorers_of(inputs: Inputs) -> list[str]:
    shared = (inputs.scorer, inputs.checker, inputs.concepts, *inputs.others.values())
    return [name for name in shared if name]


def _num_files(ws: Workspace, inputs: Inputs) -> dict[str, int]:
    """Count the listed fact files by kind and maker, so that `fsck` notices a lost listing."""
    kinds = dict.fromkeys(inputs.generators, CAPTIONS)
    kinds |= dict.fromkeys(_scorers_of(inputs), SCORES)
    listed = {
        f"{kind}/{name}": listing_of(ws.store, kind, name).num_listed(".parquet")
        for name, kind in kinds.items()
    }
    return {name: count for name, count in listed.items() if count}


def check_scorer(policy: Policy) -> None:
    """Check that a policy that needs scores names a scorer of image-text pairs.

    Raises:
        UsageError: it names a scorer of texts only, or surgery needs scores of sentences and it
            gives none.
    """
    spec = SCORERS.rows.get(policy.scorer)
    if policy.surgery is not None and spec is not None and not spec.by_sentence:
        able = [n for n, s in SCORERS.rows.items() if s.by_sentence and not s.text_only]
        raise UsageError(
            f"policy {policy.name!r} cuts sentences by their scores, and {policy.scorer!r} scores "
            "only whole texts",
            hint=f"set scorer to one of: {', '.join(able)}; or drop [surgery]",
            reason="policy.invalid",
        )
    if policy.needs_score and SCORERS.spec(policy.scorer).text_only:
        of_pairs = [name for name, spec in SCORERS.rows.items() if not spec.text_only]
        raise UsageError(
            f"policy {policy.name!r} needs scores of {policy.scorer!r}, which reads only the text: "
            "policies can use its flags, not its score",
            hint=f"set scorer to one of: {', '.join(of_pairs)}; or use a rule with field = 'flags'",
            reason="policy.invalid",
        )


class ChosenScorers(TypedDict):
    """Two fields of `MakerChoice`."""

    scorer: str | None
    others: tuple[str, ...]


def chosen_scorers(ws: Workspace, policy: Policy, names: Sequence[str]) -> ChosenScorers:
    """Divide the makers of --use-scorer: for the policy's own scorer, and for rules on others.

    Raises:
        UsageError: two of one scorer.
    """
    known = ws.store.makers(SCORES)
    row_of = {name: ws.store.recipe(SCORES, name).get("scorer") for name in names if name in known}
    others = tuple(name for name in names if row_of.get(name) in policy.other_scorers)
    own = [name for name in names if name not in others]
    rows = [row_of[name] for name in others]
    if len(own) > 1 or len(set(rows)) < len(rows):
        raise UsageError(
            f"--use-scorer names two for one scorer: {', '.join(names)}",
            hint=f"policy {policy.name!r} asks one each of: "
            + ", ".join((policy.scorer, *policy.other_scorers)),
            reason="option.value",
        )
    return ChosenScorers(scorer=own[0] if own else None, others=others)


def resolve_inputs(ws: Workspace, policy: Policy, choice: MakerChoice) -> Inputs:
    """Find the makers that a policy needs among those with facts in the store."""
    check_scorer(policy)
    generators = _generators(ws, policy, choice.generators)
    checker = _one_scorer(ws, CHECKER, choice.checker) if policy.needs_flags else None
    scorer = None
    asked = choice.scorer
    of_concepts = asked if asked in _scorers(ws, concepts.ROW) else None
    if of_concepts is not None and policy.scorer != concepts.ROW:
        asked = None
    if policy.needs_score or asked is not None:
        scorer = _one_scorer(ws, policy.scorer, asked)
    elif len(known := _scorers(ws, policy.scorer)) == 1:
        scorer = known[0]  # does not change the decision; stored with the chosen texts
    row_of = {
        name: ws.store.recipe(SCORES, name).get("scorer")
        for name in choice.others
        if name in ws.store.makers(SCORES)
    }
    others = {
        row: _one_scorer(ws, row, next((n for n, of in row_of.items() if of == row), None))
        for row in policy.other_scorers
    }
    return Inputs(
        shards=tuple(ref.name for ref in ws.shards),
        generators=generators,
        scorer=scorer,
        checker=checker,
        others=others,
        concepts=concept_scorer(ws, policy, of_concepts),
    )


def concept_scorer(ws: Workspace, policy: Policy, asked: str | None = None) -> str | None:
    """Return the scorer of the concepts of a policy, after making sure that it scored all words.

    `asked` is the one to use if it scores concepts; otherwise there must be only one.

    Raises:
        UsageError: a concept has no scores, or several models scored it.
    """
    if not policy.concepts:
        return None
    known = _scorers(ws, concepts.ROW)
    unscored = list(policy.concepts)
    if known:
        scorer = _one_scorer(ws, concepts.ROW, asked if asked in known else None)
        facts = Facts(ws.store, SCORES, scorer)
        unscored = [
            name for name, words in policy.concepts.items() if not all(_met(ws, facts, words))
        ]
    if unscored:
        wanted = (f"--concept={name}={'|'.join(policy.concepts[name])}" for name in unscored)
        raise UsageError(
            f"the policy asks about concepts without scores: {', '.join(unscored)}",
            where=ws.store.root,
            hint=f"run `{ws.command('score', *wanted)}` first"
            + (f", with the --scorer of {scorer}" if known else ""),
            reason="scorer.none",
        )
    return scorer


def _met(ws: Workspace, facts: Facts, wordings: Sequence[str]) -> Iterator[bool]:
    """Say for each wording whether an image was scored with it: one shard is mostly enough."""
    for words in wordings:
        digest = pl.lit(hashing.text_sha256(words))
        yield any(
            facts.match(images.with_columns(text_sha256=digest), ["score"])["score"].count()
            for images in (index.read(ws.store, ref.name, ["image_sha256"]) for ref in ws.shards)
        )


def _generators(ws: Workspace, policy: Policy, asked: Sequence[str]) -> tuple[str, ...]:
    if not policy.needs_generated:
        return ()
    # A maker's recipe is written before its class is built: one that then failed has no facts, and
    # made nothing of this version.
    known = [
        name
        for name in ws.store.makers(CAPTIONS)
        if name in asked or Facts(ws.store, CAPTIONS, name).any_there()
    ]
    unknown = [name for name in asked if name not in known]
    if unknown or not known:
        raise UsageError(
            f"no captions by {unknown[0]!r}" if unknown else "there are no generated captions yet",
            where=ws.store.root,
            hint=f"generators: {', '.join(known)}" if known else "run `curator recaption` first",
            reason="generator.unknown",
        )
    rest = [name for name in known if name not in asked]
    if policy.pick == "first" and len(rest) > 1 and not asked:
        raise UsageError(
            f"policy {policy.name!r} takes the first caption that passes, "
            f"and there are captions by {len(rest)} generators",
            hint="choose the first one: --generator " + " or ".join(rest),
            reason="generator.ambiguous",
        )
    return (*asked, *rest)


def _scorers(ws: Workspace, row: str) -> list[str]:
    """Return the makers of this row of SCORERS that have facts, each with its newest rules.

    A release that changes the rules leaves the facts made by the old ones in the store: two
    recipes that differ only in `rules` are the same scorer.
    """
    newest: dict[bytes, tuple[int, str]] = {}
    for name in ws.store.makers(SCORES):
        recipe = dict(ws.store.recipe(SCORES, name))
        if recipe.get("scorer") == row:
            rules = int(str(recipe.pop("rules", 0)))
            same = hashing.canonical_json(recipe)
            newest[same] = max(newest.get(same, (rules, name)), (rules, name))
    return [name for _, name in newest.values()]


def scorer_named(ws: Workspace, name: str) -> str:
    """Return the maker whose full name this is, or the only one of this row of SCORERS.

    Raises:
        UsageError: there is none, or there are several.
    """
    return name if name in ws.store.makers(SCORES) else _one_scorer(ws, name, None)


def _one_scorer(ws: Workspace, row: str, asked: str | None) -> str:
    known = _scorers(ws, row)
    if asked is not None:  # also with older rules
        of_row = ws.store.recipe(SCORES, asked) if asked in ws.store.makers(SCORES) else {}
        known = [asked] if of_row.get("scorer") == row else []
    if len(known) == 1:
        return known[0]
    if known:
        option = "--language" if SCORERS.spec(row).language else "--use-scorer"
        raise UsageError(
            f"there are scores by {len(known)} {row!r} scorers: {', '.join(known)}",
            hint=f"choose one with {option}",
            reason="scorer.ambiguous",
        )
    raise UsageError(
        f"the policy needs scores by {asked or row!r}, and there are none",
        where=ws.store.root,
        hint=f"run `{ws.command('score', '--scorer', row)}` first",
        reason="scorer.none",
    )
