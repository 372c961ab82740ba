"""What a policy would do, without committing: counts, moves, and examples beside each limit.

Nothing is decided here a second time: `Decider` decides, and this watches it. On the same shards
the counts are those of the version that `decide` would commit. A store that is large is not
decided as a whole: some of its shards are drawn with a seed, and `Preview` says which. Percentiles
and copies are then counted within those, so they differ a little from those of the whole.

What it costs: a second for 100,000 samples once the keys of all facts are known, which takes 1.5 s
for 5 million facts and is remembered until the store has new ones. Memory is that of two shards and
those keys.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import polars as pl

from curator.policy.decider import SHARDS_AT_ONCE, Inputs
from curator.policy.model import Policy
from curator.policy.preview.values import Candidate, Extent, Line, Move, Moved, Preview, Totals
from curator.policy.preview.watch import (
    WAY,
    Limit,
    LinePreview,
    PreviewDecider,
    ShardPreview,
    ShardPreviewer,
    first,
)
from curator.scorers import CHECKER
from curator.store import index
from curator.store.facts import CAPTIONS, SCORES, Facts
from curator.store.store import Store
from curator.store.versions import ACTIONS, ShardEntry, Version


class Makers(NamedTuple):
    """Makers with facts that a policy can be given."""

    generators: list[str]
    scorers: list[str]
    checkers: list[str]


def makers(store: Store, policy: Policy) -> Makers:
    """Whose facts a policy could be applied to; an empty list where it needs none."""

    def scorers(row: str) -> list[str]:
        known = store.makers(SCORES)
        return [name for name in known if store.recipe(SCORES, name).get("scorer") == row]

    return Makers(
        generators=store.makers(CAPTIONS) if policy.needs_generated else [],
        scorers=scorers(policy.scorer),
        checkers=scorers(CHECKER) if policy.needs_flags else [],
    )


class Previewer:
    """Previews over one store. Keeps the keys of the facts between them; threads may share it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known: dict[tuple[str, str], tuple[tuple[Path, ...], Facts]] = {}
        self._lock = Lock()

    def preview(
        self, policy: Policy, inputs: Inputs, against: Version, extent: Extent | None = None
    ) -> Preview:
        """Decide as `curator.steps.decide` would for these inputs, and compare with a version.

        Raises:
            NotFoundError: a shard is not indexed. DamageError: a file fails its checksum.
        """
        extent = extent or Extent()
        entries = {entry.name: entry for entry in against.shards}
        sizes = {name: self._num_samples(name, entries.get(name)) for name in inputs.shards}
        chosen = choose_shards(sizes, extent)
        decider = PreviewDecider(self.store, policy, replace(inputs, shards=chosen), self._facts)
        decider.prepare()
        watch = ShardPreviewer(decider, against, extent)
        with ThreadPoolExecutor(SHARDS_AT_ONCE) as pool:
            seen = list(pool.map(watch.look, chosen))
        before_is_ours = inputs.scorer is not None and (
            against.policy.get("scores_by") == inputs.scorer
        )
        return Preview(
            shards=chosen,
            num_shards=len(sizes),
            num_samples=sum(sizes[name] for name in chosen),
            num_all_samples=sum(sizes.values()),
            seed=extent.seed,
            counts=_actions(seen, "after"),
            counts_before=_actions(seen, "before"),
            totals=_totals([one.texts for one in seen], is_ours=True),
            totals_before=_totals([one.texts_before for one in seen], is_ours=before_is_ours),
            moves=_moves(seen, extent.num_examples),
            lines=tuple(
                _line(limit, [one.lines[place] for one in seen], extent.num_examples)
                for place, limit in enumerate(decider.limits())
            ),
            because=_because(seen),
            thresholds=decider.thresholds,
            num_unscored=decider.num_unscored,
            num_cut=sum(one.num_cut for one in seen),
        )

    def _num_samples(self, shard: str, entry: ShardEntry | None) -> int:
        """From the version where it holds the shard: no file needs to be opened."""
        if entry is not None:
            return entry.num_samples
        return index.shard_facts(self.store, shard).num_samples

    def _facts(self, kind: str, maker: str) -> Facts:
        """The facts of a maker with their keys known; read again when files came or went."""
        journals = self.store.journal_path(kind, maker, "x").parent
        found = sorted(self.store.facts_dir(kind, maker).rglob("*.parquet"))
        files = (*found, *sorted(journals.rglob("*.jnl")))
        with self._lock:
            known = self._known.get((kind, maker))
            # A journal grows under its name.
            if known is None or known[0] != files or any(f.suffix == ".jnl" for f in files):
                facts = Facts(self.store, kind, maker)
                facts.files()
                known = self._known[kind, maker] = files, facts
        return known[1]


def choose_shards(sizes: dict[str, int], extent: Extent) -> tuple[str, ...]:
    """All shards, or as many as `max_samples` allows, drawn with the seed; in their order."""
    if sum(sizes.values()) <= extent.max_samples:
        return tuple(sizes)
    order = list(sizes)
    random.Random(extent.seed).shuffle(order)
    taken, num_samples = set(order[:1]), sizes[order[0]]
    for name in order[1:]:
        if num_samples + sizes[name] <= extent.max_samples:
            taken.add(name)
            num_samples += sizes[name]
    return tuple(name for name in sizes if name in taken)


# -- putting shards together -------------------------------------------------------------------


def _actions(seen: Sequence[ShardPreview], when: str) -> dict[str, int]:
    found: Counter[str] = Counter()
    for one in seen:
        for action, num in one.moves.select(when, "num_samples").iter_rows():
            found[action] += num
    return {action: found[action] for action in ACTIONS}


def _totals(sums: Sequence[pl.DataFrame], *, is_ours: bool) -> Totals:
    texts, words, scored, score = (pl.concat(sums).sum().row(0)) if sums else (0, 0, 0, 0.0)
    return Totals(
        num_texts=texts,
        mean_words=words / texts if texts else None,
        mean_score=score / scored if scored and is_ours else None,
    )


def _moves(seen: Sequence[ShardPreview], count: int) -> tuple[Move, ...]:
    """All ways, changed ones first, and of those the most travelled first."""
    if not seen:
        return ()
    way = list(WAY)
    sums = pl.concat([one.moves for one in seen]).group_by(way).agg(pl.col("num_samples").sum())
    examples = first(pl.concat([one.examples for one in seen]), way, count)
    by_way: dict[tuple[object, ...], list[Moved]] = {}
    for row in examples.iter_rows(named=True):
        by_way.setdefault(tuple(row[name] for name in way), []).append(_moved(row))
    ordered = sums.sort(
        "is_changed", "num_samples", "before", "after", descending=[True, True, False, False]
    )
    return tuple(
        Move(**row, examples=tuple(by_way.get(tuple(row[name] for name in way), ())))
        for row in ordered.iter_rows(named=True)
    )


def _moved(row: dict[str, object]) -> Moved:
    names = ("shard", "row", "key", "text_before", "text_after", "score_before", "score_after")
    return Moved(**{name: row[name] for name in names}, because=row["because_after"])  # type: ignore[arg-type]  # a row of a frame


def _line(limit: Limit, seen: Sequence[LinePreview], count: int) -> Line:
    near = first(pl.concat([one.examples for one in seen]), ["inside"], count)
    return Line(
        rule=limit.rule.name,
        field=limit.rule.field,
        source=limit.source,
        bound=limit.bound,
        limit=limit.limit,
        percentile=limit.percentile,
        num_inside=sum(one.num_inside for one in seen),
        num_outside=sum(one.num_outside for one in seen),
        num_missing=sum(one.num_missing for one in seen),
        inside=tuple(_candidates(near.filter("inside"))),
        outside=tuple(_candidates(near.filter(~pl.col("inside")))),
    )


def _candidates(frame: pl.DataFrame) -> Iterator[Candidate]:
    for row in frame.drop("inside", "order").iter_rows(named=True):
        yield Candidate(**row | {"flags": tuple(row["flags"] or ())})


def _because(seen: Sequence[ShardPreview]) -> tuple[tuple[str, str, int], ...]:
    if not seen:
        return ()
    found = pl.concat([one.because for one in seen]).group_by("action", "because")
    ordered = found.agg(pl.col("num_samples").sum()).sort(
        "num_samples", "action", "because", descending=[True, False, False]
    )
    return tuple(ordered.iter_rows())
