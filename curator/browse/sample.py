"""Read everything known about one sample: its image, all texts from all sources, scores, edits.

Cost: one shard's facts of every maker, about 20 ms each; the first sample after a start also pays
for opening the makers (`curator.browse.shelf`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from curator.browse.shelf import FactShelf
from curator.core.errors import UsageError
from curator.core.hashing import text_sha256
from curator.edits import log as edit_log
from curator.edits.apply import HUMAN
from curator.edits.history import Edit
from curator.policy.model import ALT_TEXT
from curator.store import index, parquet
from curator.store.facts import CAPTIONS, SCORES
from curator.store.schemas import DECISION_SCHEMA
from curator.store.store import Store
from curator.store.versions import Version


@dataclass(frozen=True, slots=True, kw_only=True)
class TextScore:
    """The result of one scorer for one text.

    `sentences` are (start, end, score): a sentence's character range and its support, for texts
    with several sentences. `flags` and `measures` come from checkers that see only the text.
    """

    scorer: str
    score: float | None
    truncated: bool
    sentences: tuple[tuple[int, int, float], ...]
    flags: tuple[str, ...]
    measures: Mapping[str, float]
    failure: str | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenText:
    """One text and its source.

    `source` is alt_text, the name of a generator, `edited.HUMAN` for what a person wrote, or ""
    for a text that only the version has (after surgery). `chosen` means that the version uses it,
    with `weight`. `made` holds what the generator recorded (candidate, seed, finish_reason,
    num_tokens, created), `failure` the reason why there is no text.
    """

    source: str
    text: str | None
    chosen: bool
    weight: float | None
    judgements: tuple[TextScore, ...] = ()
    made: Mapping[str, Any] = field(default_factory=dict)
    failure: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleView:
    """One sample of one version. `facts` is its row of the index, `recipes` are by maker."""

    shard: str
    row: int
    key: str
    action: str
    because: str
    facts: Mapping[str, Any]
    texts: tuple[WrittenText, ...]
    recipes: Mapping[str, Mapping[str, Any]]
    edits: tuple[Edit, ...]


class SampleReader:
    """Reads samples of one version; see the module."""

    def __init__(self, store: Store, version: Version, shelf: FactShelf) -> None:
        self._store = store
        self._version = version
        self._shelf = shelf

    def read(self, shard: str, row: int) -> SampleView:
        """Read one sample.

        Raises:
            UsageError: the version holds no such shard or row.
        """
        chosen = self._decision(shard, row)
        facts = index.read(self._store, shard).row(row, named=True)
        texts = self._written(facts, chosen)
        makers = {text.source for text in texts} | {
            judgement.scorer for text in texts for judgement in text.judgements
        }
        return SampleView(
            shard=shard,
            row=row,
            key=facts["key"],
            action=chosen["action"][0],
            because=chosen["because"][0] or "",
            facts=facts,
            texts=texts,
            recipes={name: self._recipe(name) for name in sorted(makers - {ALT_TEXT, HUMAN, ""})},
            edits=tuple(
                edit for edit in edit_log.history(self._store, shard).edits if edit.row == row
            ),
        )

    def _decision(self, shard: str, row: int) -> pl.DataFrame:
        for entry in self._version.shards:
            if entry.name == shard:
                rows = parquet.read(self._store.root / entry.file, DECISION_SCHEMA)
                found = rows.filter(pl.col("row") == row)
                if len(found):
                    return found
                raise UsageError(
                    f"shard {shard} has no row {row}",
                    hint=f"rows go from 0 to {entry.num_samples - 1}",
                    reason="sample.unknown",
                )
        raise UsageError(
            f"{self._version.name} has no shard {shard!r}",
            hint="choose another version, or go back to the grid",
            reason="shard.unknown",
        )

    # -- texts ------------------------------------------------------------------------------------

    def _written(self, facts: Mapping[str, Any], chosen: pl.DataFrame) -> tuple[WrittenText, ...]:
        image = str(facts["image_sha256"] or "")
        rows: list[tuple[str, Mapping[str, Any]]] = []
        if facts["alt_text"] is not None:
            rows.append((ALT_TEXT, {"text": facts["alt_text"]}))
        if image:
            rows += self._generated(image)
        used = chosen.drop_nulls("text")
        weights = dict(used.select("text", "weight").iter_rows())
        known = {made["text"] for _, made in rows}
        for text, source in used.select("text", "source").iter_rows():
            if text not in known:
                rows.append((HUMAN if source == HUMAN else "", {"text": text}))
        found = []
        for source, made in rows:
            text = made["text"]
            found.append(
                WrittenText(
                    source=source,
                    text=text,
                    chosen=text in weights,
                    weight=weights.get(text),
                    judgements=self._judged(image, text) if text is not None else (),
                    made={name: made[name] for name in _MADE if made.get(name) is not None},
                    failure=made.get("failure"),
                    detail=made.get("detail") or "",
                )
            )
        return tuple(sorted(found, key=lambda written: not written.chosen))

    def _generated(self, image: str) -> list[tuple[str, Mapping[str, Any]]]:
        found: list[tuple[str, Mapping[str, Any]]] = []
        asked = pl.DataFrame({"image_sha256": [image]})
        for maker in self._store.makers(CAPTIONS):
            facts = self._shelf.get(CAPTIONS, maker)
            made = facts.candidates(asked, ["text", "failure", "detail", *_MADE[1:]])
            found += [(maker, row) for row in made.iter_rows(named=True)]
        return found

    def _judged(self, image: str, text: str) -> tuple[TextScore, ...]:
        digest = text_sha256(text)
        asked = pl.DataFrame({"image_sha256": [image, ""], "text_sha256": [digest, digest]})
        found = []
        for maker in self._store.makers(SCORES):
            facts = self._shelf.get(SCORES, maker)
            for row in facts.match(asked, _SAID).drop_nulls("attempt").iter_rows(named=True):
                found.append(_judgement(maker, row))
        return tuple(found)

    def _recipe(self, maker: str) -> Mapping[str, Any]:
        for kind in (CAPTIONS, SCORES):
            if maker in self._store.makers(kind):
                return self._store.recipe(kind, maker)
        return self._version.makers.get(maker, {})


_MADE = ("candidate", "seed", "finish_reason", "num_tokens", "attempt", "created")
_SAID = (*("attempt", "score", "truncated", "sentences", "flags", "measures", "failure", "detail"),)


def _judgement(maker: str, row: Mapping[str, Any]) -> TextScore:
    sentences: Sequence[Mapping[str, Any]] = row["sentences"] or ()
    measures: Sequence[Mapping[str, Any]] = row["measures"] or ()
    return TextScore(
        scorer=maker,
        score=row["score"],
        truncated=bool(row["truncated"]),
        sentences=tuple((part["start"], part["end"], part["score"]) for part in sentences),
        flags=tuple(row["flags"] or ()),
        measures={measure["name"]: measure["value"] for measure in measures},
        failure=row["failure"],
        detail=row["detail"] or "",
    )
