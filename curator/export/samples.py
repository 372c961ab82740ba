"""Read the samples of one shard for an export: texts from the decision, bytes from the shard."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from types import TracebackType
from typing import Any, Self

import numpy as np
import polars as pl

from curator.core.errors import DamageError, Unusable
from curator.core.strictjson import MAX_JSON_BYTES, parse_object
from curator.shards.places import Place, changed, local
from curator.shards.samples import Member

FIELD = "curator"
"""The field of KEY.json that holds the captions."""

_OTHER_FIELD = "curator_export"
_KEYS = frozenset(("version", "action", "captions"))
_ENCODER = json.JSONEncoder(separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class ExportText:
    """One chosen caption; `score` is None if it was never scored."""

    text: str
    source: str
    weight: float
    score: float | None


@dataclass(frozen=True, slots=True)
class ExportSample:
    """One sample, its texts in order of slot. `members` are all its files, including `image`."""

    key: str
    action: str
    image: Member
    image_sha256: str
    members: tuple[Member, ...]
    texts: tuple[ExportText, ...]

    @property
    def plain_ext(self) -> str:
        """The extension that trainers look for: `jpg` even if the shard has `0.25.JPG`."""
        return self.image.ext.lower().rpartition(".")[2]

    def as_json(self, version_id: str) -> dict[str, object]:
        """Return the `curator` field of KEY.json."""
        captions = [
            {"text": one.text, "source": one.source, "weight": one.weight, "score": one.score}
            for one in self.texts
        ]
        return {"version": version_id, "action": self.action, "captions": captions}


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFiles:
    """What a tar holds of the captions of one sample, beside the `curator` field of KEY.json.

    `txt` is KEY.txt, `fields` are further fields of KEY.json, `members` further files by extension.
    Each of `counted` counts one in the stats of the shard, for the flags that the export prints.
    """

    txt: str
    fields: Mapping[str, str] = field(default_factory=dict)
    members: Mapping[str, bytes] = field(default_factory=dict)
    counted: tuple[str, ...] = ()


TextLayout = Callable[[ExportSample, str], TextFiles]
"""Takes a sample and the id of the version."""


def first_text(sample: ExportSample, _version_id: str) -> TextFiles:
    """Return the first caption as KEY.txt, for trainers that read nothing else."""
    return TextFiles(txt=sample.texts[0].text)


def own_field(fields: Mapping[str, Any]) -> str | None:
    """Return the name of the field that an earlier `export` wrote; None if there is none."""
    names = (name for name in fields if name == FIELD or name.startswith(_OTHER_FIELD))
    return next((name for name in names if _is_own(fields[name])), None)


def free_field(fields: Mapping[str, Any]) -> str:
    """Return the field name to write: `curator`, or another if the source uses that name itself.

    A field written by an earlier export does not count as the source's and is overwritten.
    """
    name, number = FIELD, 1
    while name in fields and not _is_own(fields[name]):
        name = _OTHER_FIELD if number == 1 else f"{_OTHER_FIELD}_{number}"
        number += 1
    return name


def _is_own(value: object) -> bool:
    return isinstance(value, Mapping) and value.keys() == _KEYS


def short_float(value: float | None) -> float | None:
    """Round a 32-bit float to its shortest decimal (0.1, not 0.10000000149); None if not finite."""
    if value is None or not np.isfinite(value):
        return None
    return float(str(np.float32(value)))


def samples_of(rows: pl.DataFrame) -> Iterator[ExportSample]:
    """Yield the samples in `rows`, which has one row per caption, sorted by row and slot."""
    for _, group in groupby(rows.iter_rows(named=True), key=lambda row: row["row"]):
        captions = list(group)
        first = captions[0]
        yield ExportSample(
            key=first["key"],
            action=first["action"],
            image=Member(first["ext"], first["offset"], first["length"]),
            image_sha256=first["image_sha256"],
            members=tuple(Member(**member) for member in first["members"]),
            texts=tuple(
                ExportText(
                    text=row["text"],
                    source=row["source"],
                    weight=short_float(row["weight"]) or 0.0,
                    score=short_float(row["score"]),
                )
                for row in captions
            ),
        )


class ShardReader:
    """Reads members of an open shard; a context manager."""

    def __init__(self, path: Place) -> None:
        self.path = path
        self._held = ExitStack()

    def __enter__(self) -> Self:
        path = self._held.enter_context(local(self.path))
        self._file = self._held.enter_context(path.open("rb"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.close()

    def read(self, member: Member) -> bytes:
        """Read the bytes of one member.

        Raises:
            DamageError: the file has become shorter (source.changed).
        """
        data = os.pread(self._file.fileno(), member.length, member.offset)
        if len(data) != member.length:
            raise self._changed(f"ends inside a member at byte {member.offset}")
        return data

    def image(self, sample: ExportSample) -> bytes:
        """Read the encoded image and check its sha256.

        Raises:
            DamageError: it is not the image that was indexed (source.changed).
        """
        data = self.read(sample.image)
        if hashlib.sha256(data).hexdigest() != sample.image_sha256:
            raise self._changed(f"the image of {sample.key!r} has changed since it was indexed")
        return data

    def json_fields(self, sample: ExportSample) -> tuple[dict[str, Any], bool]:
        """Return the fields of KEY.json, and whether they are lost because it cannot be parsed."""
        member = _plain(sample, "json")
        if member is None:
            return {}, False
        if member.length > MAX_JSON_BYTES:
            return {}, True
        try:
            return dict(parse_object(self.read(member))), False
        except Unusable:
            return {}, True

    def other_members(self, sample: ExportSample) -> list[tuple[str, bytes]]:
        """Read name and bytes of all files except the image, KEY.txt and KEY.json."""
        return [(f"{sample.key}.{one.ext}", self.read(one)) for one in others_of(sample)]

    def _changed(self, how: str) -> DamageError:
        return changed(
            self.path,
            how,
            did="finished shards are kept",
            hint="restore the shard from a backup, then run the same command again",
        )


def others_of(sample: ExportSample) -> list[Member]:
    """Return the members except the image, KEY.txt and KEY.json."""
    taken = {sample.plain_ext, "txt", "json"}
    others = [one for one in sample.members if one != sample.image]
    return [one for one in others if one.ext.lower() not in taken]


def json_bytes(fields: Mapping[str, Any]) -> bytes:
    """Encode KEY.json in ASCII, so that lone surrogates in the source's fields cannot break it."""
    return _ENCODER.encode(fields).encode()


def _plain(sample: ExportSample, ext: str) -> Member | None:
    return next((one for one in sample.members if one.ext.lower() == ext), None)
