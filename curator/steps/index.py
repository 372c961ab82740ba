"""Read every shard once and store an index of its samples, texts and damage."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain, islice
from multiprocessing import get_context
from typing import Any

import numpy as np

from curator.core import progress
from curator.core.errors import UsageError
from curator.core.package import require
from curator.core.run_options import DEFAULTS, RunOptions
from curator.core.stopping import StopRequest, without_ctrl_c
from curator.engine.claims import Claims
from curator.shards import cache, places
from curator.shards.alttext_counts import AltTexts
from curator.shards.dataset import ShardRef
from curator.shards.scan import ScanOptions, ShardScan, scan_shard
from curator.steps.workspace import Workspace
from curator.store import index, outputs
from curator.store.keyindex import hex64
from curator.store.piles import Piles
from curator.store.runs import Run

_AHEAD = 2
"""Shards that wait for each process that scans."""
PLACEHOLDER_COPIES = 10
"""An image in this many rows is reported as a possible placeholder ("image not available")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexReport:
    """The result of `index`. Counts are in shards or samples, as the name says.

    `num_changed_shards` counts shards whose bytes changed since they were last indexed.
    """

    num_shards: int
    num_scanned: int
    num_samples: int
    num_unusable: int
    reasons: dict[str, int]
    problems: dict[str, int]
    num_ignored_members: int
    num_duplicate_images: int
    placeholders: dict[str, int]
    num_cross_shard_keys: int
    alt_texts: AltTexts
    num_changed_shards: int = 0

    def to_json(self) -> dict[str, object]:
        """For `--json`."""
        return asdict(self)

    @property
    def num_usable(self) -> int:
        """Return the number of samples with a usable image, with or without a text."""
        return self.num_samples - self.num_unusable


def make_index(
    ws: Workspace,
    options: ScanOptions,
    run_options: RunOptions = DEFAULTS,
    *,
    stop: StopRequest,
) -> IndexReport:
    """Index the shards that have no current index.

    Options that are None keep the value that the shards were indexed with before.

    Raises:
        UsageError: the shards were indexed with different values of an option that is None.
        StoppedError: a signal arrived; finished shards stay indexed.
    """
    for folder in ws.left_out:
        progress.say(f"skipping {folder}: it was written by `curator export`")
    root = ws.dataset.root
    if outputs.is_export(root) or outputs.is_export(root.parent):
        progress.say(
            f"note: {ws.dataset.root} was written by `curator export`: its texts may be captions, "
            "not alt texts"
        )
    options = _as_before(ws, options)
    todo = [ref for ref in ws.shards if index.current(ws.store, ref, options) is None]
    numbers_of = {ref.name: number for number, ref in enumerate(todo)}
    num_changed = num_scanned = 0
    with (
        progress.bar("index", len(todo), "shards") as advance,
        cache.Ahead([ref.path for ref in todo]) as ahead,
        Claims(ws.store) as claims,
    ):

        def needed(ref: ShardRef) -> bool:
            """Whether no other process indexed the shard meanwhile."""
            if index.current(ws.store, ref, options) is None:
                return True
            advance(1)
            return False

        def fetch(ref: ShardRef) -> None:
            more = run_options.workers if run_options.workers > 1 else 0
            ahead.after(numbers_of[ref.name], more=more)

        for shards in claims.rounds(todo, stop=stop):
            taken = claims.take(shards, needed=needed)
            for ref, scan in _scans(taken, options, run_options, fetch):
                before = _indexed_digest(ws, ref)
                if before and scan.digest and places.is_same(ref.path, before, scan.digest):
                    scan = replace(scan, digest=before)  # noqa: PLW2901 - its versions know this one
                num_changed += before is not None and before != scan.digest
                index.write(ws.store, ref, scan, options)
                claims.free(ref.name)
                num_scanned += 1
                progress.quarantined(Counter(one.reason for one in scan.samples if one.reason))
                advance(1)
                stop.check("the shards indexed so far are kept")
    return replace(report(ws, num_scanned=num_scanned), num_changed_shards=num_changed)


def _indexed_digest(ws: Workspace, ref: ShardRef) -> str | None:
    """Return the digest in a shard's index; None without an index."""
    if not ws.store.index_path(ref.name).exists():
        return None
    return index.shard_facts(ws.store, ref.name).digest


# Options that choose the alt text and the image of a sample -> (option, value that resets it).
_REMEMBERED = {
    "caption_field": ("--caption-field", ".txt"),
    "image_ext": ("--image-ext", "any"),
}


def _as_before(ws: Workspace, options: ScanOptions) -> ScanOptions:
    """Return `options` with None replaced by the value that the shards were indexed with.

    Otherwise a command without --caption-field would lose the texts that an earlier one, with it,
    found.
    """
    paths = [ref for ref in ws.shards if ws.store.index_path(ref.name).exists()]
    before = [index.shard_facts(ws.store, ref.name).options for ref in paths]
    for name, (option, usual) in _REMEMBERED.items():
        if getattr(options, name) is not None:
            continue
        known = {_tuple(found.get(name)) for found in before}
        if len(known) > 1:
            listed = ", ".join(sorted(_shown(one, usual) for one in known))
            raise UsageError(
                f"the shards were indexed with several values of {option} ({listed})",
                where=ws.spec,
                did="nothing was changed",
                hint=f"choose one: {option} VALUE",
                reason="option.missing",
            )
        kept = next(iter(known), None)
        if kept is not None:
            options = replace(options, **dict[str, Any]({name: kept}))
            back = "" if _shown(kept, usual) == usual else f" (reset with {option} {usual})"
            progress.say(f"using {option} {_shown(kept, usual)}, as indexed before{back}")
    return options


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _shown(value: object, usual: str) -> str:
    return usual if value is None else " ".join(value) if isinstance(value, tuple) else str(value)


def _scans(
    todo: Iterator[ShardRef],
    options: ScanOptions,
    run_options: RunOptions,
    fetch: Callable[[ShardRef], None],
) -> Iterator[tuple[ShardRef, ShardScan]]:
    """Scan the shards; those that are scanned side by side are taken a few at a time."""
    scan = partial(scan_shard, options=options)
    first = list(islice(todo, 2))
    shards = chain(first, todo)
    if run_options.executor == "ray" and first:
        require("ray", "--executor ray")
        from curator.engine.executors.on_ray import mapped  # loads ray

        yield from mapped(scan, shards, run_options.ray_address)
        return
    if run_options.workers <= 1 or len(first) <= 1:
        for ref in shards:
            fetch(ref)
            yield ref, scan(ref)
        return
    waiting: deque[tuple[ShardRef, Future[ShardScan]]] = deque()
    with ProcessPoolExecutor(run_options.workers, mp_context=get_context("spawn")) as pool:
        for ref in shards:
            fetch(ref)
            with without_ctrl_c():  # the first call starts the processes
                waiting.append((ref, pool.submit(scan, ref)))
            if len(waiting) > _AHEAD * run_options.workers:
                ready, scanned = waiting.popleft()
                yield ready, scanned.result()
        for ready, scanned in waiting:
            yield ready, scanned.result()


def report(ws: Workspace, *, num_scanned: int = 0) -> IndexReport:
    """Summarize the index of a dataset: damage, unusable samples, duplicates, placeholders."""
    reasons: Counter[str] = Counter()
    problems: Counter[str] = Counter()
    num_samples = num_unusable = ignored = 0
    images, keys = Piles(), Piles()
    alt_texts = AltTexts()
    for ref in ws.shards:
        facts = index.shard_facts(ws.store, ref.name)
        rows = index.read(ws.store, ref.name, ["key", "image_sha256", "reason"])
        num_samples += facts.num_samples
        num_unusable += facts.num_unusable
        ignored += facts.ignored_members
        alt_texts.add(facts.alt_texts)
        problems.update(str(problem["reason"]) for problem in facts.problems)
        reasons.update(rows["reason"].drop_nulls().to_list())
        images.add(hex64(rows["image_sha256"].drop_nulls()))
        keys.add(np.unique(rows["key"].hash(seed=0).to_numpy()))
    num_copies, placeholders = 0, {}
    for (pile,) in images:
        values, copies = np.unique(pile, return_counts=True)
        num_copies += len(pile) - len(values)
        for value in np.flatnonzero(copies >= PLACEHOLDER_COPIES).tolist():
            placeholders[f"{values[value]:016x}"] = int(copies[value])
    num_cross_shard_keys = sum(len(pile) - len(np.unique(pile)) for (pile,) in keys)
    return IndexReport(
        num_shards=len(ws.shards),
        num_scanned=num_scanned,
        num_samples=num_samples,
        num_unusable=num_unusable,
        reasons=dict(reasons.most_common()),
        problems=dict(problems.most_common()),
        num_ignored_members=ignored,
        num_duplicate_images=num_copies,
        placeholders=placeholders,
        num_cross_shard_keys=num_cross_shard_keys,
        alt_texts=alt_texts,
    )


def say_index(report: IndexReport, run: Run) -> None:
    """Print the index report, one line per finding, and log it to the run."""
    run.event("index", **report.to_json())
    progress.say(
        f"{report.num_samples:,} samples in {report.num_shards} shards"
        f" ({report.num_scanned} read now)"
    )
    if report.num_changed_shards:
        progress.say(
            f"  {report.num_changed_shards} shards changed since they were last indexed: "
            "versions made from them can be shown but no longer exported"
        )
    for line in report.alt_texts.in_words():
        progress.say(f"  {line}")
    for kind, found in (("unusable", report.reasons), ("damage", report.problems)):
        if found:
            listed = ", ".join(f"{count}x {reason}" for reason, count in found.items())
            progress.say(f"  {kind}: {listed}")
    if report.num_ignored_members:
        progress.say(f"  ignored: {report.num_ignored_members} members that could hold code")
    if report.num_duplicate_images:
        progress.say(f"  duplicates: {report.num_duplicate_images:,} rows repeat an image")
    for prefix, copies in list(report.placeholders.items())[:3]:
        progress.say(f"  placeholder? image {prefix}... occurs in {copies} rows")
