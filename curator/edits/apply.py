"""Apply edits to a decision: the texts of a version after its reviewers' edits.

An edit in effect applies to samples that have its text. An edited text is `captioned`, has source
`human`, and has no score here; the caller adds known scores. A rejected text is removed, and
without any text left the sample is dropped; an accepted text changes nothing. Samples without edits
stay the same, byte for byte.

Pure: a frame and a history in, a frame out. Takes time only for edited samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from curator.core.hashing import text_sha256
from curator.core.reasons import REASONS
from curator.edits.history import ACCEPT, EDIT, REJECT, Edit, History, SampleRef, follow, heads
from curator.policy.model import ALT_TEXT
from curator.store.schemas import DECISION_SCHEMA

HUMAN = "human"
"""Source of an edited text."""
BY_HAND = "edited by hand"
REJECTED = "rejected by hand"
_READABLE = ("score", "caption")
"""Stages of reasons that leave a usable image, for which a person may write a text."""

Row = Mapping[str, Any]


@dataclass(slots=True)
class Edited:
    """`decision` with the edits applied, and the outcome of the edits.

    Counts are numbers of texts. `stale` are the edits whose text is not in the decision, or whose
    sample has changed.
    """

    decision: pl.DataFrame
    is_changed: bool = False
    num_edited: int = 0
    num_rejected: int = 0
    num_accepted: int = 0
    stale: list[Edit] = field(default_factory=list)


def apply_edits(decision: pl.DataFrame, shard: str, past: History) -> Edited:
    """Apply the edits in effect of one shard to its decision."""
    found = Edited(decision)
    samples = past.samples
    rows = pl.Series([sample.row for sample in samples], dtype=pl.Int32).unique()
    is_touched = pl.col("row").is_in(rows.implode())
    here: dict[SampleRef, list[Row]] = {}
    for row in decision.filter(is_touched).iter_rows(named=True):
        here.setdefault(_sample_of(row, shard), []).append(row)
    changed: list[Row] = []
    for sample in samples:
        texts = here.pop(sample, None)
        edits = past.in_effect(sample)
        if texts is None:
            found.stale += _unused(edits, (), ())
        else:
            changed += _apply(texts, edits, found)
    if found.is_changed:
        kept = [row for rows_of in here.values() for row in rows_of]  # touched by older edits only
        new = pl.DataFrame([*changed, *kept], schema=pl.Schema(DECISION_SCHEMA), orient="row")
        rest = decision.filter(~is_touched)
        found.decision = pl.concat([rest, new]).sort("row", "slot", maintain_order=True)
    return found


def _sample_of(row: Row, shard: str) -> SampleRef:
    return SampleRef(shard=shard, row=row["row"], key=row["key"], image_sha256=row["image_sha256"])


def _apply(texts: Sequence[Row], edits: Sequence[Edit], found: Edited) -> list[Row]:
    """Return the rows of one sample after its edits."""
    kept: list[Row] = []
    used: list[Edit] = []
    is_changed = False
    for row in texts:
        applied = follow(edits, row["text"]) if _may_have_text(row) else []
        used += applied
        last = applied[-1] if applied else None
        if last is not None and last.action == REJECT:
            found.num_rejected += 1
            is_changed = True
        elif last is not None and last.result != row["text"]:
            found.num_edited += 1
            is_changed = True
            kept.append(_rewritten(row, last.result))
        else:
            found.num_accepted += last is not None and last.action == ACCEPT
            kept.append(row)
    found.stale += _unused(edits, used, [row["text"] for row in kept])
    if not is_changed:
        return list(texts)
    found.is_changed = True
    return _numbered(kept) if kept else [_dropped(texts[0])]


def _may_have_text(row: Row) -> bool:
    """Whether a sample has a text, or a usable image that a person may write one for."""
    if row["action"] != "quarantined":
        return True
    reason = REASONS.get(row["because"])
    return reason is not None and reason.stage in _READABLE


def _unused(edits: Sequence[Edit], used: Sequence[Edit], texts: Sequence[str | None]) -> list[Edit]:
    """Return the edits that could not be applied because their text is not there."""
    return [
        edit
        for edit in heads(edits)
        if edit.action == EDIT and edit not in used and edit.result not in texts
    ]


def _rewritten(row: Row, text: str | None) -> Row:
    assert text is not None, "an edit leaves a text"
    return {
        **row,
        "text": text,
        "text_sha256": text_sha256(text),
        "source": HUMAN,
        "weight": 1.0 if row["weight"] is None else row["weight"],
        "score": None,
        "because": BY_HAND,
    }


def _numbered(rows: Sequence[Row]) -> list[Row]:
    """Assign slots from 0, weights that sum to 1, and one action for the sample."""
    total = sum(row["weight"] for row in rows)
    is_captioned = any(row["source"] != ALT_TEXT for row in rows)
    return [
        {
            **row,
            "slot": slot,
            "weight": row["weight"] / total if total else 0.0,
            "action": "captioned" if is_captioned else "kept",
        }
        for slot, row in enumerate(rows)
    ]


def _dropped(row: Row) -> Row:
    nothing = dict.fromkeys(("text", "text_sha256", "source", "weight", "score"))
    return {**row, **nothing, "action": "dropped", "slot": 0, "because": REJECTED}
