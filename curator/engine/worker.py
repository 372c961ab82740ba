"""Workers: read the bytes of a batch, run the model, and return one outcome per item.

Items are small and picklable (file positions, not pixels); the model is built in the worker.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from numbers import Real
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from curator.captioners import CAPTIONERS, Caption, Captioner, CaptionFailure, CaptionRequest
from curator.captioners.guard import Guarded
from curator.captioners.prompts import get_prompt
from curator.captioners.words import NO_RULES, WordRules
from curator.core import contract, images
from curator.core.errors import DamageError, Unusable, nearest
from curator.core.names import NOTHING, Items
from curator.core.reasons import REASONS
from curator.scorers import SCORERS, Score, Scorer
from curator.shards.places import Place, read_bytes, read_many

if TYPE_CHECKING:
    from curator.captioners.server import ServerCaptioner

K = TypeVar("K")
V = TypeVar("V")
_WANTS = (
    "list[Score], one for each pair; `score` is a finite number, or None with `failure` or flags"
)


@dataclass(frozen=True, slots=True)
class ImageRef:
    """The position of an image's encoded bytes in a shard, and their sha256 (hex)."""

    path: Place
    offset: int
    length: int
    sha256: str

    def read(self) -> bytes:
        """Read the bytes and check their sha256.

        Raises:
            DamageError: they are not the bytes that were indexed (reason `source.changed`).
        """
        return self.checked(read_bytes(self.path, self.offset, self.length))

    def checked(self, data: bytes) -> bytes:
        """Return the bytes after checking their sha256, as `read`."""
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise DamageError(
                f"the image at byte {self.offset} is not the one that was indexed",
                where=self.path,
                did="all finished facts are kept",
                hint="run the same command again when nothing writes to the shards",
                reason="source.changed",
            )
        return data


@dataclass(frozen=True, slots=True)
class CaptionItem:
    """A request for caption number `candidate` of an image; `attempt` counts the user's retries."""

    shard: str
    image: ImageRef
    prompt: str
    candidate: int
    attempt: int = 0
    keep: Items = NOTHING


@dataclass(frozen=True, slots=True)
class ScoreItem:
    """One image (None for scorers of texts only) with all texts to score against it."""

    shard: str
    image: ImageRef | None
    texts: tuple[str, ...]
    attempt: int = 0


def read_all(images: Sequence[ImageRef]) -> dict[ImageRef, bytes]:
    """Read and check several images; the ranges of one shard are read together."""
    of: dict[Place, list[ImageRef]] = {}
    for image in images:
        of.setdefault(image.path, []).append(image)
    return {
        image: image.checked(data)
        for path, these in of.items()
        for image, data in zip(
            these, read_many(path, [(one.offset, one.length) for one in these]), strict=True
        )
    }


def probe(item: CaptionItem | ScoreItem) -> None:
    """Decode the image of an item, to tell a bad image from a bad model after a crash."""
    if item.image is not None:
        with contextlib.suppress(Unusable):  # a normal outcome, unlike a hang or a crash
            images.decode(item.image.read())


class CaptionWorker:
    """Captions batches. `captioner` is a name of `CAPTIONERS`."""

    def __init__(
        self,
        captioner: str,
        options: Mapping[str, Any],
        *,
        prompt: str,
        language: str,
        words: WordRules = NO_RULES,
    ) -> None:
        built: Captioner = contract.build(CAPTIONERS, captioner, options)
        self._captioner = Guarded(built, prompt=get_prompt(prompt), language=language, words=words)
        self._read = _ReadAhead[CaptionItem, CaptionRequest]()

    def prefetch(self, items: Sequence[CaptionItem]) -> None:
        """Read the next batch and start decoding it."""
        ahead = _requests(items)
        self._read.add(ahead)
        self._captioner.prefetch(list(ahead.values()))

    def __call__(self, items: Sequence[CaptionItem]) -> list[Caption | CaptionFailure]:
        """Return one outcome per item."""
        found = {item: self._read.of(item) for item in items}
        rest = _requests([item for item, request in found.items() if request is None])
        return self._captioner.caption([found[item] or rest[item] for item in items])


class PrepareWorker:
    """Reads, decodes and packs the images of captions that servers write; see `CaptionStream`."""

    def __init__(self, captioner: str, options: Mapping[str, Any]) -> None:
        self._captioner: ServerCaptioner = contract.build(CAPTIONERS, captioner, options)
        self._is_text_only = bool(options.get("text_only"))  # not every class knows it

    def __call__(self, items: Sequence[CaptionItem]) -> list[bytes | CaptionFailure]:
        """Return the image of every item as it is sent; those of one image share their bytes."""
        if self._is_text_only:  # the shards are not even read
            return [b""] * len(items)
        requests = _requests(list({item.image: item for item in items}.values()))
        prepared = {
            item.image: self._captioner.prepare(request) for item, request in requests.items()
        }
        return [prepared[item.image] for item in items]


class CaptionStream:
    """Asks servers for captions of prepared images, one group of items at a time.

    Runs in the event loop of `curator.engine.executors.stream`; any number of `answer` calls may
    wait at the same time.
    """

    def __init__(
        self,
        captioner: str,
        options: Mapping[str, Any],
        *,
        prompt: str,
        language: str,
        words: WordRules,
        stop: Callable[[], bool],
    ) -> None:
        built: ServerCaptioner = contract.build(CAPTIONERS, captioner, options)
        self._guard = Guarded(built, prompt=get_prompt(prompt), language=language, words=words)
        self._servers = built.connect(stop)

    async def __aenter__(self) -> CaptionStream:
        await self._servers.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._servers.__aexit__(*error)

    @property
    def room(self) -> int:
        """Return how many groups may be unfinished at the same time."""
        return self._servers.fleet.room

    @property
    def num_flying(self) -> int:
        """Return how many requests the servers have now."""
        return self._servers.fleet.num_flying

    def summary(self) -> list[str]:
        """Return a line for each server on what it did."""
        return self._servers.fleet.summary()

    @staticmethod
    def group(items: Sequence[CaptionItem]) -> list[list[CaptionItem]]:
        """Put neighbours of one image and prompt together: one request asks for all of them."""
        return [list(group) for _, group in groupby(items, lambda one: (one.image, one.prompt))]

    async def answer(
        self, items: Sequence[CaptionItem], image: bytes
    ) -> list[Caption | CaptionFailure]:
        """Return one outcome for each item of a group, under the rules of `Guarded`.

        Raises:
            EngineError: as `Guarded.caption`.
        """
        rounds = self._guard.rounds(
            [
                CaptionRequest(one.image.sha256, b"", one.prompt, one.candidate, one.keep)
                for one in items
            ]
        )
        try:
            asked = next(rounds)
            while True:
                asked = rounds.send(await self._servers.ask(asked, image))
        except StopIteration as end:
            found: list[Caption | CaptionFailure] = end.value
            return found


class ScoreWorker:
    """Scores batches. `scorer` is a name of `SCORERS`."""

    def __init__(self, scorer: str, options: Mapping[str, Any]) -> None:
        self._scorer: Scorer = contract.build(SCORERS, scorer, options)
        self._read = _ReadAhead[ImageRef, bytes]()

    def prefetch(self, items: Sequence[ScoreItem]) -> None:
        """Read the next batch and start decoding it."""
        self._read.add(read_all([item.image for item in items if item.image]))
        prefetch = getattr(self._scorer, "prefetch", None)
        if prefetch is not None:
            prefetch(self._pairs(items))

    def __call__(self, items: Sequence[ScoreItem]) -> list[list[Score]]:
        """Return one list of scores per item, with one score per text."""
        pairs = self._pairs(items)
        found = contract.call(self._scorer, "scorer", "score", pairs, wants=_WANTS)
        came = f"{len(found)} scores for {len(pairs)} pairs" if len(found) != len(pairs) else None
        came = came or next(filter(None, map(_what_is_wrong, found)), None)
        if came is not None:
            raise contract.broken(self._scorer, "scorer", "score", came, wants=_WANTS)
        scores = iter(found)
        return [[next(scores) for _ in item.texts] for item in items]

    def _pairs(self, items: Sequence[ScoreItem]) -> list[tuple[bytes, str]]:
        pairs: list[tuple[bytes, str]] = []
        images = [item.image for item in items if item.image]
        rest = read_all([image for image in images if self._read.of(image) is None])
        for item in items:
            data = b"" if item.image is None else self._read.of(item.image) or rest[item.image]
            pairs.extend((data, text) for text in item.texts)
        return pairs


def _what_is_wrong(found: object) -> str | None:
    """Return what one result of a scorer is, if it is not what the contract says."""
    if not isinstance(found, Score):
        return f"a list with a {type(found).__name__}"
    if found.failure is not None and found.failure not in REASONS:
        known = [name for name, about in REASONS.items() if about.stage in ("score", "decode")]
        return (
            f"a Score with the unknown failure {found.failure!r} ({nearest(found.failure, known)})"
        )
    number: Any = found.score  # numbers of numpy are `Real`, and not all are floats
    if number is not None and not (isinstance(number, Real) and math.isfinite(number)):
        return f"a Score whose score is {number!r}"
    return None


class _ReadAhead(Generic[K, V]):
    """Data read ahead for the current batch and the next one."""

    def __init__(self) -> None:
        self._batches: deque[Mapping[K, V]] = deque(maxlen=2)

    def add(self, batch: Mapping[K, V]) -> None:
        """Add the data of the next batch."""
        self._batches.append(batch)

    def of(self, key: K) -> V | None:
        """Return the data of `key`, or None if it was not read ahead."""
        return next((batch[key] for batch in self._batches if key in batch), None)


def _requests(items: Sequence[CaptionItem]) -> dict[CaptionItem, CaptionRequest]:
    data = read_all([item.image for item in items])
    return {
        item: CaptionRequest(
            item.image.sha256, data[item.image], item.prompt, item.candidate, item.keep
        )
        for item in items
    }
