"""Find and replace in many captions: preview the change, then record it as edits.

Works shard by shard on the texts of a version with the edits in effect applied. Regular expressions
are those of Rust's regex crate (through polars): linear time, no backtracking, limited compiled
size. They can still be slow, so the search has a time limit, and nothing is written before all
texts have been searched once.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import polars as pl

from curator.core import progress
from curator.core.clock import iso, now
from curator.core.errors import ConflictError, UsageError
from curator.core.stopping import StopRequest
from curator.core.text import clean_str
from curator.edits import log as edit_log
from curator.edits.history import EDIT, REJECT, Draft, Edit, History, SampleRef, clean_who, follow
from curator.policy.decider import read_decision
from curator.store.store import Store
from curator.store.versions import ShardEntry, Version

MAX_PATTERN_CHARS = 1000
TIMEOUT_SEC = 60.0
_TEXTS_AT_ONCE = 1000
"""Texts between two checks of the time limit: 0.1 s for the slowest expression we found."""
_COLUMNS = ("row", "key", "image_sha256", "text")
_SHARDS_NAMED = 10

Where = Mapping[str, pl.DataFrame | None]
"""Texts to search: shard -> their (row, slot) in the version, or None for the whole shard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """The string or regular expression to find, and its replacement.

    With `is_regex`, `find` is an expression, and `$1` or `${name}` in `put` stand for its groups.

    Raises:
        UsageError: the expression is invalid or too long (raised by the constructor).
    """

    find: str
    put: str
    is_regex: bool = False
    ignore_case: bool = False

    def __post_init__(self) -> None:
        for name, value, least in (("find", self.find, 1), ("put", self.put, 0)):
            if not least <= len(value) <= MAX_PATTERN_CHARS:
                raise UsageError(
                    f"{name} has {len(value):,} characters",
                    hint=f"allowed: {least} to {MAX_PATTERN_CHARS:,}",
                    reason="replace.pattern",
                )
        try:
            self.replaced(pl.Series([""]))
        except pl.exceptions.PolarsError as error:
            said = str(error).partition("\n\nThis error occurred")[0]
            raise UsageError(
                f"{self.find!r} is not a valid regular expression ({' '.join(said.split())})",
                hint="use the syntax of Rust's regex crate: no look-around, no back-references",
                reason="replace.pattern",
            ) from error

    def replaced(self, texts: pl.Series) -> pl.Series:
        """Return the texts with the replacement made."""
        pattern = self.find if self.is_regex else pl.escape_regex(self.find)
        put = self.put if self.is_regex else self.put.replace("$", "$$")
        return texts.str.replace_all(f"(?i){pattern}" if self.ignore_case else pattern, put)


@dataclass(slots=True, kw_only=True)
class ReplacePreview:
    """The number of texts that a replacement would change, and examples of them.

    `num_searched` texts of `num_samples` samples were searched. `num_refused` of them would become
    empty or too long and stay unchanged.
    """

    num_samples: int = 0
    num_searched: int = 0
    num_texts: int = 0
    num_refused: int = 0
    examples: list[Draft] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Replaced:
    """The result of a replacement. `batch` undoes it; `refused` lists texts changed meanwhile."""

    batch: str
    num_edited: int = 0
    num_refused: int = 0
    refused: list[ConflictError] = field(default_factory=list)


def whole_shards(
    version: Version, patterns: Sequence[str] = (), *, among: Collection[str]
) -> Where:
    """Select the shards of `version` that are in `among` and match a pattern (no pattern: all).

    Raises:
        UsageError: a pattern matches no shard.
    """
    names = [entry.name for entry in version.shards if entry.name in among]
    fitting = {pattern: [n for n in names if fnmatchcase(n, pattern)] for pattern in patterns}
    for pattern, found in fitting.items():
        if not found:
            raise UsageError(
                f"no shard of {version.name} in this dataset matches {pattern!r}",
                hint=f"its {len(names)} shards: {', '.join(_ends(names))}",
                reason="shard.unknown",
            )
    wanted = set(names if not patterns else itertools.chain(*fitting.values()))
    return {name: None for name in names if name in wanted}


def _ends(names: Sequence[str]) -> Sequence[str]:
    return names if len(names) <= _SHARDS_NAMED else (*names[:2], "...", names[-1])


def preview(
    store: Store,
    version: Version,
    asked: Replacement,
    *,
    where: Where | None = None,
    num_examples: int = 20,
    timeout_sec: float = TIMEOUT_SEC,
) -> ReplacePreview:
    """Count the texts that would change, with examples; searches all, or `where`. Writes nothing.

    Raises:
        UsageError: the search took longer than `timeout_sec`.
    """
    deadline = time.monotonic() + timeout_sec
    found = ReplacePreview()
    for entry, texts in _texts(store, version, where):
        found.num_samples += texts["row"].n_unique()
        for part in texts.iter_slices(_TEXTS_AT_ONCE):
            if time.monotonic() > deadline:
                raise UsageError(
                    f"{asked.find!r} took longer than {timeout_sec:g} s",
                    did="nothing was changed",
                    hint="use a simpler expression",
                    reason="replace.timeout",
                )
            drafts, num_refused = _drafts(entry.name, part, asked)
            found.num_searched += len(part)
            found.num_texts += len(drafts)
            found.num_refused += num_refused
            found.examples += drafts[: num_examples - len(found.examples)]
    return found


def replace_all(
    store: Store,
    version: Version,
    asked: Replacement,
    *,
    who: str,
    stop: StopRequest,
    where: Where | None = None,
    timeout_sec: float = TIMEOUT_SEC,
) -> Replaced:
    """Record the replacement as one batch of edits, shard by shard, in all texts or in `where`.

    Raises:
        UsageError: nothing matches, or the search took longer than `timeout_sec`; nothing was
            recorded.
        StoppedError: between two shards; the recorded edits can be undone by their batch.
    """
    who = clean_who(who)
    looked = preview(store, version, asked, where=where, num_examples=0, timeout_sec=timeout_sec)
    if not looked.num_texts:
        chosen = "" if where is None else f" among the {looked.num_searched:,} searched"
        raise UsageError(
            f"{asked.find!r} changes no text of {version.name}{chosen}", reason="replace.nothing"
        )
    done = Replaced(batch=f"{iso(now())}-{secrets.token_hex(3)}")
    num_shards = len(version.shards if where is None else where)
    with progress.bar("replace", num_shards, "shards") as advance:
        for entry, texts in _texts(store, version, where):
            drafts = list[Draft]()
            for part in texts.iter_slices(_TEXTS_AT_ONCE):
                found, num_refused = _drafts(entry.name, part, asked)
                drafts += found
                done.num_refused += num_refused
            if drafts:
                made, refused = edit_log.add_many(
                    store, entry.name, drafts, who=who, batch=done.batch
                )
                done.num_edited += len(made)
                done.refused += refused
            stop.check(
                f"{done.num_edited:,} texts are replaced; undo them with batch {done.batch!r}"
            )
            advance(1)
    return done


def _texts(
    store: Store, version: Version, where: Where | None
) -> Iterator[tuple[ShardEntry, pl.DataFrame]]:
    """Yield the current texts of each shard; `seen` is the number of the newest edit of each."""
    for entry in version.shards:
        if where is not None and entry.name not in where:
            continue
        decision = read_decision(store, entry).drop_nulls("text")
        chosen = None if where is None else where[entry.name]
        if chosen is not None:
            decision = decision.join(chosen, on=["row", "slot"], how="semi", maintain_order="left")
        past = edit_log.history(store, entry.name)
        yield entry, _as_edited(decision.select(_COLUMNS), entry.name, past)


def _as_edited(decision: pl.DataFrame, shard: str, past: History) -> pl.DataFrame:
    frame = decision.with_columns(seen=pl.lit(None, pl.Int32))
    rows = pl.Series([sample.row for sample in past.samples], dtype=pl.Int32)
    is_touched = pl.col("row").is_in(rows.implode())
    changed = []
    for row in frame.filter(is_touched).iter_rows(named=True):
        last = _last(past, shard, row)
        if last is None:
            changed.append(row)
        elif last.action != REJECT:
            changed.append({**row, "text": last.result, "seen": last.number})
    new = pl.DataFrame(changed, schema=frame.schema, orient="row")
    return pl.concat([frame.filter(~is_touched), new]).sort("row", maintain_order=True)


def _last(past: History, shard: str, row: dict[str, object]) -> Edit | None:
    applied = follow(past.in_effect(_sample(shard, row)), str(row["text"]))
    return applied[-1] if applied else None


def _sample(shard: str, row: dict[str, object]) -> SampleRef:
    key, image = row["key"], row["image_sha256"]
    assert isinstance(row["row"], int)
    assert isinstance(key, str)
    assert image is None or isinstance(image, str)
    return SampleRef(shard=shard, row=row["row"], key=key, image_sha256=image)


def _drafts(shard: str, texts: pl.DataFrame, asked: Replacement) -> tuple[list[Draft], int]:
    """Return the edits of the replacement, and how many texts would become empty or too long."""
    after = asked.replaced(texts["text"]).alias("after")
    hits = texts.with_columns(after).filter(pl.col("after") != pl.col("text"))
    drafts, num_refused = list[Draft](), 0
    for row in hits.iter_rows(named=True):
        if clean_str(row["after"]).text == row["text"]:
            continue  # differs only in white space that cleaning removes
        try:
            drafts.append(
                Draft(
                    sample=_sample(shard, row),
                    action=EDIT,
                    base_text=row["text"],
                    new_text=row["after"],
                    seen=row["seen"],
                )
            )
        except UsageError:
            num_refused += 1
    return drafts, num_refused
