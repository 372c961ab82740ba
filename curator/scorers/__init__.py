"""The scorer port: the protocol, and the table of everything that can judge a caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from curator.core.registry import Registry, Spec


@dataclass(frozen=True, slots=True)
class SentenceScore:
    """The score of one sentence (or window) of a longer text: characters `start:end` of it."""

    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class Score:
    """What a scorer says of one (image, text) pair.

    `score` is raw (a cosine for CLIP, in [-1, 1]) or None with `failure` set. When the text has
    several sentences or exceeds the scorer's context, `sentences` holds one score for each.
    When it exceeds the context, `truncated` is true and `score` is the mean over `sentences`,
    never the score of a silently cut text. `flags` are codes of `curator.scorers.text`, such as
    `refusal`; `measures` are named numbers about the text.
    """

    score: float | None
    num_tokens: int = 0
    truncated: bool = False
    sentences: tuple[SentenceScore, ...] = ()
    flags: tuple[str, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)
    failure: str | None = None
    detail: str = ""


class Scorer(Protocol):
    """Judges (image, text) pairs. Built once a worker process."""

    def score(self, pairs: Sequence[tuple[bytes, str]]) -> list[Score]:
        """Score every pair (encoded image bytes, text), in the same order, never fewer."""
        ...


SCORERS = Registry(
    "scorer",
    {
        "clip": Spec("curator.scorers.clip:ClipScorer"),
        "text": Spec("curator.scorers.text:TextScorer"),
    },
    protocol=Scorer,
)
