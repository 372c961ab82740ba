"""Report a packing: counts, and warnings that should come before paying for a model."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from curator.core.errors import UsageError
from curator.core.text import is_blank
from curator.pack.sources import CAPTION_COLUMNS, PackItem
from curator.shards.alttext import TEXT_EXT
from curator.shards.alttext_counts import is_text
from curator.shards.tar import printable

SUCCESS = "success"
_TABLES = frozenset((".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".json"))
_MAX_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PackReport:
    """Counts of rows and shards in the whole output; `num_new_shards` were made by this run.

    `failures` counts by reason the rows that were not packed; rows = packed + failures. Of the
    packed rows, `num_without_caption` have no caption, and `num_blank_captions` a blank one
    (spaces, `nan`, `null`): it is packed unchanged, and `index` treats it as missing.
    """

    format: str
    num_shards: int
    num_new_shards: int
    num_rows: int
    num_packed: int
    num_without_caption: int
    failures: dict[str, int]
    num_blank_captions: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def num_captioned(self) -> int:
        """Number of rows packed with a caption that is not blank."""
        return self.num_packed - self.num_without_caption - self.num_blank_captions

    def to_json(self) -> dict[str, object]:
        """Return the report for `--json`."""
        return asdict(self)


def make_report(kind: str, stats: Sequence[Mapping[str, Any]], num_new: int) -> PackReport:
    """Sum up the stats of all shards."""
    failures: Counter[str] = Counter()
    for one in stats:
        failures.update({k: v for k, v in one["status_dict"].items() if k != SUCCESS})
    return PackReport(
        format=kind,
        num_shards=len(stats),
        num_new_shards=num_new,
        num_rows=sum(one["count"] for one in stats),
        num_packed=sum(one["successes"] for one in stats),
        num_without_caption=sum(one["without_caption"] for one in stats),
        failures=dict(sorted(failures.items())),
        # absent from stats of earlier releases
        num_blank_captions=sum(one.get("blank_captions", 0) for one in stats),
    )


@dataclass(slots=True)
class PackNotes:
    """Notes taken while reading: one example per failure, and the fields of captionless rows."""

    examples: dict[str, str] = field(default_factory=dict)
    fields: Counter[str] = field(default_factory=Counter)

    def failure(self, reason: str, origin: str, detail: str) -> None:
        """Note a row that was not packed."""
        self.examples.setdefault(reason, f"{origin}: {detail}" if detail else origin)

    def item(self, item: PackItem) -> None:
        """Note a row that was read, whether this run or an earlier one packed it."""
        if not has_words(item.captions):
            self.fields.update(
                printable(name)
                for name, value in item.meta.items()
                if isinstance(value, str) and is_text(value, name)
            )


def has_words(captions: Iterable[bytes]) -> bool:
    """Whether the first caption, which becomes the alt text, is not blank."""
    first = next(iter(captions), b"")
    return not is_blank(first.decode("utf-8", "replace"))


def refusal(
    source: Path, report: PackReport, seen: PackNotes, column: str | None
) -> UsageError | None:
    """Return the error of a useless output, else None. `column` is the caption column asked for."""
    if not report.num_packed:
        listed = "; ".join(
            f"{number:,}x {reason}"
            + (f" ({seen.examples[reason][:200]})" if reason in seen.examples else "")
            for reason, number in report.failures.items()
        )
        hint = None
        if {"image.missing", "path.traversal"} & set(report.failures):
            hint = "--images FOLDER names the folder that paths in a table are relative to"
        return UsageError(
            f"none of {report.num_rows:,} rows could be packed: {listed}",
            where=source,
            did="nothing was kept",
            hint=hint,
            reason="pack.nothing",
        )
    if column and report.format == "folder" and not report.num_captioned:
        names = ", ".join(_most(seen.fields)) or "none"
        return UsageError(
            f"no image has a caption in the field {column!r} of its .json or in a text file",
            where=source,
            did="nothing was kept",
            hint=f"--caption-column NAME; fields with texts: {names}; '' for no captions",
            reason="input.column",
        )
    return None


def warnings(
    source: Path, report: PackReport, seen: PackNotes, column: str | None
) -> tuple[str, ...]:
    """Return warnings that a user needs before training."""
    num_bare = report.num_packed - report.num_captioned
    if column == "" or 2 * num_bare <= report.num_packed:
        return ()
    advice = []
    if report.format == "folder":
        files = ", ".join(f"NAME.{ext}" for ext in TEXT_EXT)
        names = ", ".join((column,) if column else CAPTION_COLUMNS)
        advice.append(f"looked for {files}, metadata.jsonl or .csv, and {names} in NAME.json")
        if tables := _tables(source):
            advice.append(f"tables in this folder can be packed by themselves: {', '.join(tables)}")
    if seen.fields:
        names = ", ".join(_most(seen.fields))
        advice.append(f"other fields have texts: {names} (--caption-column NAME and a new OUT)")
    advice.append("if there are no captions, say so with --caption-column ''")
    blank = f", {report.num_blank_captions:,} of them blank" if report.num_blank_captions else ""
    return (
        f"{num_bare:,} of {report.num_packed:,} images have no caption{blank}: {'; '.join(advice)}",
    )


def _most(fields: Counter[str]) -> list[str]:
    return [name for name, _ in fields.most_common(_MAX_NAMED)]


def _tables(source: Path) -> list[str]:
    """Return the first tables below a folder."""
    found: list[str] = []
    for where, folders, names in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        images = {Path(name).stem for name in names if Path(name).suffix.lower() not in _TABLES}
        for name in sorted(names):
            path = Path(name)
            if path.suffix.lower() in _TABLES and path.stem not in images:
                found.append(printable(Path(where, name).relative_to(source).as_posix()))
        if len(found) >= _MAX_NAMED:
            break
    return found[:_MAX_NAMED]
