"""The values that travel between the parts of the engine. Nothing here does any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Member:
    """One file inside a tar shard: its extension and where its bytes lie.

    `offset` and `length` are in bytes and address the data, not the tar header.
    """

    ext: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class ScannedSample:
    """One sample, or one fragment of it, as it lies in the shard.

    `row` counts from 0 within the shard. `members` are all its files in tar order (but for those
    left out as duplicates, of an unsafe type or unreadable). `width` and `height` are as
    displayed. `alt_raw` holds the bytes of the alt text where cleaning changed them, `alt_source`
    is where it was read, in the words of `ScanOptions.caption_field`. With a `reason` (a code of
    `curator.core.reasons`) the sample is unusable, and any other field may be None.
    """

    key: str
    row: int
    members: tuple[Member, ...]
    image: Member | None = None
    image_sha256: str | None = None
    width: int | None = None
    height: int | None = None
    image_format: str | None = None
    alt_text: str | None = None
    alt_raw: bytes | None = None
    alt_source: str | None = None
    flags: tuple[str, ...] = ()
    reason: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image-text pair as it is written to a shard: encoded image bytes, caption, metadata."""

    key: str
    image: bytes
    ext: str
    caption: str | None
    meta: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CaptionRequest:
    """Ask for caption number `candidate` of one image.

    `image` holds the encoded bytes as they lie in the shard; `image_sha256` is their hex digest
    and identifies the answer. `prompt` is final text, already filled in and cleaned, without any
    model-specific token.
    """

    image_sha256: str
    image: bytes
    prompt: str
    candidate: int = 0


STOP = "stop"
LENGTH = "length"
TRIMMED = "trimmed"


@dataclass(frozen=True, slots=True)
class Caption:
    """A text a model wrote.

    `finish_reason` is `stop`; `length` when the token limit cut it; or `trimmed` when it was then
    cut back to its last whole sentence (by `curator.captioners.guard`). `reasoning` is what a
    server told apart as the model's thinking; it is not stored. `note` says what was taken off.
    """

    text: str
    finish_reason: str
    num_tokens: int
    seed: int
    reasoning: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class CaptionFailure:
    """No usable text: `reason` is a code of `curator.core.reasons`, `detail` explains it."""

    reason: str
    detail: str = ""


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
