"""Concepts: what a user wants to find or leave out in images, by words for a CLIP model.

    watermark=a stock photo watermark|text across the photo     a name, and one wording or several
    watermark                                                   a preset

The scorer `concept` gives each wording a probability beside neutral words; a concept has the
highest of its wordings. Policies read it as the field `concept.NAME`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from curator.core.errors import UsageError, nearest

ROW = "concept"
"""The scorer's row in SCORERS."""
FIELD_PREFIX = "concept."

PRESETS: Mapping[str, tuple[str, ...]] = {
    "watermark": (
        "a stock photo with a watermark",
        "a photo with a logo or text written across it",
    ),
    "screenshot": (
        "a screenshot of text",
        "a screenshot of a website or an app",
        "a scanned page of text",
    ),
    "explicit": (
        "a pornographic photo",
        "a photo of a naked person",
        "sexually explicit content",
    ),
}
"""Wordings to start with. Nobody measured them on your images: look before you leave any out."""

NEUTRAL = (
    *("a person", "people", "an animal", "a building", "a street", "a landscape", "food"),
    *("an object", "a vehicle", "a plant", "a room"),
)
"""What an image may show instead. A change needs a new version of the scorer."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,29}")


def parse_concept(text: str) -> tuple[str, tuple[str, ...]]:
    """Return name and wordings of `NAME=WORDS|WORDS`, or of the name of a preset.

    Raises:
        UsageError: neither, or a name that a policy could not use.
    """
    name, equals, words = text.partition("=")
    if not equals:
        if name not in PRESETS:
            raise UsageError(
                f"unknown concept {name!r}",
                hint=f"{nearest(name, PRESETS)}; or in your words: --concept NAME='a photo of ...'",
                reason="option.value",
            )
        return name, PRESETS[name]
    wordings = tuple(dict.fromkeys(one.strip() for one in words.split("|") if one.strip()))
    check_concept(name, wordings)
    return name, wordings


def parse_concepts(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the wordings of several concepts by name, as `parse_concept`.

    Raises:
        UsageError: also for a name that is given twice.
    """
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, wordings = parse_concept(text)
        if name in found:
            raise UsageError(
                f"--concept {name} is given twice",
                hint=f"several wordings: --concept {name}='one|another'",
                reason="option.value",
            )
        found[name] = wordings
    return found


def check_concept(name: str, wordings: Sequence[str]) -> None:
    """Refuse a concept without words, or whose name cannot be part of a field.

    Raises:
        UsageError: says which.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a concept",
            hint="small letters, digits and _, beginning with a letter, at most 30",
            reason="option.value",
        )
    if not wordings or not all(one.strip() for one in wordings):
        raise UsageError(
            f"concept {name!r} has no words",
            hint=f"--concept {name}='a photo of ...'",
            reason="option.value",
        )
