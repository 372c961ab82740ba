"""Count where alt texts came from, and suggest an option if most are missing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from curator.core import strictjson
from curator.core.errors import Unusable
from curator.core.text import is_blank
from curator.shards.alttext import TEXT_EXT, Read
from curator.shards.samples import Member, ScannedSample

UNREADABLE = frozenset(("caption.too_long", "json.too_large", "json.too_deep", "json.invalid"))
"""Reasons of samples whose alt text exists but cannot be read."""

# `elsewhere` accepts texts of two words, or of four characters of a script without spaces; no
# address, no JSON inside JSON.
_WORDS = re.compile(r"[^\W\d_]+\W+[^\W\d_]+|[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f]{4}")
_NO_WORDS = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*:/|www\.|/|[{\[])", re.IGNORECASE)
_CAPTION_FIELD = re.compile(r"caption|text|txt|\balt|title|descri|prompt", re.IGNORECASE)
_MAX_LOOKED_AT = 100
_MAX_LOOKED_AT_BYTES = 1 << 20
_MAX_FIELD_DEPTH = 4


@dataclass(slots=True)
class AltTexts:
    """Sources of alt texts, in numbers of samples that are usable apart from their text.

    `found` counts them by source. Of the samples without one, the first `num_looked_at` were
    searched; `elsewhere` counts the texts found there, by the spec for `--caption-field`.
    """

    found: dict[str, int] = field(default_factory=dict)
    num_missing: int = 0
    num_empty: int = 0
    num_unreadable: int = 0
    num_looked_at: int = 0
    elsewhere: dict[str, int] = field(default_factory=dict)

    @property
    def num_without(self) -> int:
        """Number of samples without a text, whatever the cause."""
        return self.num_missing + self.num_empty + self.num_unreadable

    def add(self, other: Mapping[str, Any]) -> None:
        """Add the tally of another shard, as `asdict` and JSON left it; {} adds nothing."""
        for name, value in other.items():
            if isinstance(value, Mapping):
                counts = getattr(self, name)
                counts.update({key: counts.get(key, 0) + value[key] for key in value})
            else:
                setattr(self, name, getattr(self, name) + value)

    def in_words(self) -> list[str]:
        """Return one line for people, and a second if most samples have no text."""
        most_first = sorted(self.found.items(), key=lambda item: (-item[1], item[0]))
        found = [f"{number:,} from {source}" for source, number in most_first]
        counts = {
            "missing": self.num_missing,
            "empty": self.num_empty,
            "unreadable": self.num_unreadable,
        }
        others = [f"{number:,} {name}" for name, number in counts.items() if number]
        lines = [f"alt text: {', '.join([*(found or ['none found']), *others])}"]
        total = sum(self.found.values()) + self.num_without
        if 2 * self.num_without > total:
            lines.append(
                f"  {self.num_without:,} of {total:,} samples have no alt text; {self._advice()}"
            )
        return lines

    def _advice(self) -> str:
        ranked = sorted(
            self.elsewhere.items(),
            key=lambda item: (_CAPTION_FIELD.search(item[0]) is None, -item[1], item[0]),
        )
        if not ranked:
            return "no other text was found in their files either (--caption-field names a place)"
        options = ", or ".join(
            f"--caption-field {shlex.quote(spec)} ({number:,} of {self.num_looked_at:,} searched)"
            for spec, number in ranked[:3]
        )
        return f"their files hold other texts: use {options}"


def tally(samples: Iterable[ScannedSample], read: Read) -> AltTexts:
    """Count the alt texts of a shard, and search for other texts beside samples without one."""
    done = AltTexts()
    for sample in samples:
        if sample.reason is not None and sample.reason not in UNREADABLE:
            continue
        if sample.alt_text is not None:
            _count(done.found, sample.alt_source or ".txt")
        elif sample.reason is None and "caption.missing" in sample.flags:
            done.num_missing += 1
        elif sample.reason is None and "caption.empty" in sample.flags:
            done.num_empty += 1
        else:
            done.num_unreadable += 1
        if sample.alt_text is None and done.num_looked_at < _MAX_LOOKED_AT:
            done.num_looked_at += 1
            for place in set(elsewhere(sample.members, read)):
                _count(done.elsewhere, place)
    return done


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1


def elsewhere(members: Iterable[Member], read: Read) -> Iterator[str]:
    """Yield the places in these files that hold a text, as specs for `--caption-field`."""
    for member in members:
        ext = member.ext.lower()
        last = ext.rpartition(".")[2]
        if member.length > _MAX_LOOKED_AT_BYTES:
            continue
        if last in TEXT_EXT and is_text(read(member).decode("utf-8", "replace"), ext):
            yield f".{ext}"
        elif last == "json":
            try:
                value = strictjson.parse(read(member))
            except Unusable:
                continue
            paths = _paths(value, ())
            yield from (path if ext == "json" else f".{ext}:{path}" for path in paths)


def _paths(value: object, names: tuple[str, ...]) -> Iterator[str]:
    if isinstance(value, str):
        path = ".".join(names)
        if path and is_text(value, path):
            yield path
    elif len(names) < _MAX_FIELD_DEPTH:
        parts = value if isinstance(value, dict) else {}
        if isinstance(value, list) and value:
            parts = {"0": value[0]}
        for name, part in parts.items():
            if name and "." not in name and not (name.startswith(".") or not name.isprintable()):
                yield from _paths(part, (*names, name))


def is_text(text: str, name: str) -> bool:
    """Whether a value of a field or file with this name looks like text written by a person."""
    head = text[:1000]
    if _NO_WORDS.match(head) or is_blank(head):
        return False
    is_named = _CAPTION_FIELD.search(name) is not None and any(map(str.isalpha, head))
    return is_named or _WORDS.search(head) is not None
