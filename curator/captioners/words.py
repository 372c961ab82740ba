"""Words that a caption must have, or must not have: a second try asks for them by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from curator.core.errors import UsageError
from curator.core.names import Items, lost_items


@dataclass(frozen=True, kw_only=True, slots=True)
class WordRules:
    """What is asked for again if a caption breaks it; upper and lower case are the same.

    A word is compared as a whole word, several words ("stock photo") as they stand. A caption that
    still has a word of `forbid`, or lacks one of `require`, after the second try is a failure.
    `keep_names` asks for the names and numbers of the alt text (`curator.core.names`); what stays
    lost is no failure, since the alt text may be wrong, and is noted in the caption's `note`.

    Raises:
        UsageError: an empty word, or one that is both forbidden and required.
    """

    keep_names: bool = False
    forbid: tuple[str, ...] = ()
    require: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for option, words in (("--forbid", self.forbid), ("--require", self.require)):
            for word in words:
                if not word.strip() or '"' in word:
                    raise UsageError(
                        f"{option} is {word!r}",
                        hint="allowed: a word or several, without double quotes",
                        reason="option.value",
                    )
        both = {word.casefold() for word in self.forbid} & {w.casefold() for w in self.require}
        if both:
            raise UsageError(
                f"{min(both)!r} is both in --forbid and in --require",
                hint="drop it from one of them",
                reason="option.value",
            )

    @classmethod
    def of(cls, recipe: Mapping[str, Any]) -> Self:
        """Return the rules of a captioner's recipe; none if it has none."""
        found = recipe.get("words") or {}
        return cls(
            keep_names=bool(found.get("keep_names")),
            forbid=tuple(found.get("forbid", ())),
            require=tuple(found.get("require", ())),
        )

    def to_recipe(self) -> dict[str, Any]:
        """Return what goes into a recipe; empty if there are no rules."""
        return asdict(self) if self != NO_RULES else {}

    def broken_by(self, text: str, keep: Items) -> Broken:
        """Return what a caption breaks; `keep` are names and numbers of its sample's alt text."""
        lost = lost_items(keep, [text]) if self.keep_names else ()
        return Broken(
            forbidden=tuple(word for word in self.forbid if _has(text, word)),
            missing=tuple(word for word in self.require if not _has(text, word)),
            lost=tuple(item for kind in lost for item in kind),
        )


NO_RULES = WordRules()


@dataclass(frozen=True, kw_only=True, slots=True)
class Broken:
    """The words that a caption has or lacks against the rules; false if there are none."""

    forbidden: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.forbidden or self.missing or self.lost)

    @property
    def rank(self) -> tuple[int, int]:
        """Order captions by this: a failure is worse than any number of lost names."""
        return len(self.forbidden) + len(self.missing), len(self.lost)

    @property
    def request(self) -> str:
        """Return the sentences that are added to the prompt of the second try."""
        said = []
        if wanted := (*self.missing, *self.lost):
            said.append(f"The caption must contain: {_quoted(wanted)}.")
        if self.forbidden:
            said.append(f"The caption must not contain: {_quoted(self.forbidden)}.")
        return " ".join(said)

    @property
    def detail(self) -> str:
        """Return what is wrong, for the row of a failure or the note of a caption."""
        parts = {
            "forbidden": self.forbidden,
            "missing": self.missing,
            "names lost": self.lost,
        }
        return "; ".join(f"{what}: {', '.join(words)}" for what, words in parts.items() if words)


def _quoted(words: tuple[str, ...]) -> str:
    return ", ".join(f'"{word}"' for word in words)


def _has(text: str, words: str) -> bool:
    pattern = r"\s+".join(re.escape(word) for word in words.split())
    return re.search(rf"(?<!\w){pattern}(?!\w)", text, re.IGNORECASE) is not None
