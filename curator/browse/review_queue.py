"""The review queue: the texts of a version in a chosen order, with the edits in effect applied.

A place in the queue is a place in the order of `curator.browse.catalog`, so that a link to it keeps
showing the same text. Reviewed texts are skipped when moving forward, and keep their place for
going back. Each look ahead costs a page of the catalog and the edit logs of its shards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from curator.browse.catalog import Catalog
from curator.browse.filters import Filter, Sort
from curator.edits import log as edit_log
from curator.edits.history import Action, Draft, Edit, History, SampleRef, follow
from curator.steps.replace import Where
from curator.store.store import Store

_AHEAD = 50
"""Rows read at once when searching for the next text to review."""
_AT_ONCE = 20_000
"""Rows read at once when all that pass a filter are wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOrder:
    """Which texts, and in which order."""

    filter: Filter = field(default_factory=Filter)
    sort: Sort = "score"
    descending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueItem:
    """One text of the queue.

    `given` is the text in the version, `text` the text after the edits in effect (None: the sample
    has none), `last` the newest of these edits.
    """

    place: int
    sample: SampleRef
    given: str | None
    text: str | None
    last: Edit | None
    action: str
    source: str | None
    score: float | None
    because: str
    alt_text: str | None

    @property
    def is_reviewed(self) -> bool:
        """Whether a person reviewed it; a find-and-replace is not a review."""
        return self.last is not None and self.last.batch is None

    @property
    def is_rejected(self) -> bool:
        """Whether the newest edit rejected the text."""
        return self.last is not None and self.last.action == "reject"

    def draft(self, action: Action, new_text: str | None = None) -> Draft:
        """Return an edit of the text as shown here; it becomes stale if the text is edited."""
        return Draft(
            sample=self.sample,
            action=action,
            base_text=self.text,
            new_text=new_text,
            seen=self.last.number if self.last else None,
        )


def item_at(catalog: Catalog, order: QueueOrder, place: int) -> QueueItem | None:
    """Return the text at a place, reviewed or not; None beyond the end."""
    return next(iter(_items(catalog, order, place, 1)), None)


def next_item(catalog: Catalog, order: QueueOrder, place: int) -> QueueItem | None:
    """Return the first text at or after a place that is not reviewed; None if there is none."""
    while found := _items(catalog, order, place, _AHEAD):
        for item in found:
            if not item.is_reviewed:
                return item
        place += _AHEAD
    return None


def where(catalog: Catalog, filter_: Filter) -> Where | None:
    """Return the texts that pass a filter, for a find-and-replace; None if the filter is open."""
    if filter_.is_open:
        return None
    found: dict[str, list[pl.DataFrame]] = {}
    start = 0
    while len(rows := catalog.page(filter_, start=start, count=_AT_ONCE).rows):
        for part in rows.partition_by("shard", maintain_order=True):
            found.setdefault(part["shard"][0], []).append(part.select("row", "slot"))
        start += _AT_ONCE
    return {shard: pl.concat(parts) for shard, parts in found.items()}


def _items(catalog: Catalog, order: QueueOrder, start: int, count: int) -> list[QueueItem]:
    page = catalog.page(
        order.filter, order.sort, descending=order.descending, start=start, count=count
    )
    logs: dict[str, History] = {}
    found = []
    for place, row in enumerate(page.rows.iter_rows(named=True), start):
        shard = row["shard"]
        if shard not in logs:
            logs[shard] = edit_log.history(catalog.store, shard)
        found.append(_item(place, row, logs[shard]))
    return found


def _item(place: int, row: Mapping[str, Any], past: History) -> QueueItem:
    sample = SampleRef(
        shard=row["shard"], row=row["row"], key=row["key"], image_sha256=row["image_sha256"]
    )
    applied = follow(past.in_effect(sample), row["text"])
    return QueueItem(
        place=place,
        sample=sample,
        given=row["text"],
        text=applied[-1].result if applied else row["text"],
        last=applied[-1] if applied else None,
        action=row["action"],
        source=row["source"],
        score=row["score"],
        because=row["because"],
        alt_text=row["alt_text"],
    )


def tally(store: Store) -> dict[str, Counter[str]]:
    """Count the edits in effect: reviewer -> texts by action."""
    found: dict[str, Counter[str]] = {}
    for who, action in edit_log.newest(store).select("who", "action").iter_rows():
        found.setdefault(who, Counter())[action] += 1
    return dict(sorted(found.items()))
